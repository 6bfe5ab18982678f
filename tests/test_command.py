"""The console command `interloom`: every command's help, the list, and words that name none."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from interloom import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
# Modules with a command line that people do not call, and why.
NOT_FOR_USERS = {
    "pipeline.engine.isolated": "a child process of a build",
    "pipeline.lit.train": "makes the weights that the package holds",
}


def interloom(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "interloom", *words], cwd=ROOT, capture_output=True, text=True, timeout=120
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str) -> None:
    done = interloom(name, "--help")
    assert done.returncode == 0, done.stderr
    # It calls itself what it is.
    assert re.search(rf"[Uu]sage: python -m {re.escape(COMMANDS[name][0])}\b", done.stdout)


@pytest.mark.slow
def test_a_command_does_what_its_module_does() -> None:
    alone = subprocess.run(
        [sys.executable, "-m", "pipeline.spec", "show", "mmc4"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert interloom("spec", "show", "mmc4").stdout == alone.stdout


def test_every_command_line_of_the_packages_has_a_name() -> None:
    found = set()
    for package in ("assets", "pipeline", "trainer"):
        for path in (ROOT / package).rglob("*.py"):
            if path.name == "__main__.py" or '\nif __name__ == "__main__":' in path.read_text(encoding="utf-8"):
                found.add(".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__"))
    assert found == {module for module, _ in COMMANDS.values()} | set(NOT_FOR_USERS)


def test_alone_it_lists_the_commands() -> None:
    done = interloom()
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split()[0] for line in done.stdout.splitlines()[2:]] == list(COMMANDS)
    assert interloom("--help").stdout == done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("biuld",), "error: no command biuld; did you mean build?"),
        (("zzzzz", "--help"), f"error: no command zzzzz; there are {', '.join(COMMANDS)}"),
        (("",), f"error: no command ; there are {', '.join(COMMANDS)}"),
        (("a\nb",), f"error: no command 'a\\nb'; there are {', '.join(COMMANDS)}"),
        # The command's own line and exit code.
        (("build",), "error: Missing option '--spec'."),
        (("spec", "show", "nowhere.yaml"), "error: nowhere.yaml: no such file, nor a packaged spec"),
        (("train", "--config", "nowhere.yaml"), "error: "),
    ],
)
def test_a_mistake_is_one_line(words: tuple[str, ...], said: str) -> None:
    done = interloom(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(said) and done.stderr.count("\n") == 1


def test_nothing_heavy_is_imported_before_the_command_is_known() -> None:
    code = "import sys, interloom; sys.argv = ['interloom']; interloom.main(); print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not re.search("'(ray|torch|typer|pydantic|pipeline|trainer)'", done.stdout)
