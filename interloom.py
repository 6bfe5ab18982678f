"""The console command `interloom`: the packages' commands under one name.

    interloom build --spec demo --dry-run       # python -m pipeline.build --spec demo --dry-run

Nothing is imported but the command that is asked for; its exit codes and its one-line errors stand.
"""

from __future__ import annotations

import difflib
import runpy
import sys

# Command -> (the module that `python -m` runs, what it does).
COMMANDS = {
    "build": ("pipeline.build", "build a corpus from a spec"),
    "spec": ("pipeline.spec", "check a spec, or print the schema of specs"),
    "explain": ("pipeline.explain", "say what happened to a page or an image, and why"),
    "report": ("pipeline.report", "write the report of a corpus again"),
    "consent": ("pipeline.consent", "ask the sites of a corpus again what they allow; forget what somebody asks for"),
    "warc": ("pipeline.warc", "write what a corpus was made of as WARC files"),
    "gc": ("pipeline.gc", "remove what no kept version of a corpus needs"),
    "train": ("trainer.run", "train a model on a corpus"),
    "generate": ("trainer.generate", "let a trained model write about a picture"),
    "demo": ("pipeline.demo", "build and train on three real sites, served on this machine"),
    "serve": ("pipeline.demo.serve", "serve folders as a web site"),
    "assets": ("assets", "list and fetch weights and sites"),
}


def main() -> None:
    """Run the command that the first word names; alone, list the commands. Exit code 2 for a word that names none."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("--help", "-h"):
        print("interloom COMMAND ...; --help after a command says more\n")
        for command, (_, line) in COMMANDS.items():
            print(f"  {command:<10}{line}")
        return
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, 1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(COMMANDS)}"
        sys.exit(_refuse(name, hint))
    del sys.argv[1]
    # As `python -m` does it: models and functions of the module are looked up in __main__.
    runpy.run_module(COMMANDS[name][0], run_name="__main__", alter_sys=True)


def _refuse(name: str, hint: str) -> int:
    shown = name if name.isprintable() else ascii(name)
    print(f"error: no command {shown[:40]}; {hint}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    main()
