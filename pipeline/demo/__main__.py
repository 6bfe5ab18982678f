"""The demo: three real documentation sites, served on this machine, become a corpus, and a model learns from it.

`make demo` runs it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

import assets
from pipeline.command import run_command
from pipeline.corpus.version import Corpus
from pipeline.engine.layout import REPORT
from pipeline.engine.mistake import UserMistake

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

# Mount -> (asset, folder inside it): what specs/demo.yaml crawls.
SITES = ("sasview", "pygame", "pygame-ce")
PORT = 18780


def _run(*arguments: str) -> None:
    """Run one of our commands; its exit code is ours when it fails."""
    code = subprocess.run([sys.executable, "-m", *arguments]).returncode
    if code:
        raise typer.Exit(code)


@contextlib.contextmanager
def served(port: int) -> Iterator[str]:
    """The demo's sites on 127.0.0.1:`port`, as the base URL; the server ends with the block."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            raise UserMistake(
                f"port {port} of 127.0.0.1 is taken: stop what uses it, or run make demo PORT=… with a free one"
            ) from None
    mounts = [f"/{name}={assets.resolve(name)}" for name in SITES]
    server = subprocess.Popen([sys.executable, "-m", "pipeline.demo.serve", "--port", str(port), *mounts])
    base = f"http://127.0.0.1:{port}"
    try:
        for _ in range(200):
            try:
                urllib.request.urlopen(f"{base}/pygame/index.html", timeout=1).close()
                break
            except (urllib.error.URLError, ConnectionError):
                if server.poll() is not None:
                    raise UserMistake(f"the demo's server ended with code {server.returncode}") from None
                time.sleep(0.05)
        yield base
    finally:
        server.terminate()
        server.wait(timeout=10)


def _report_is_older(out: str, evaluation: Path) -> bool:
    """Whether the report of the latest version has not seen this evaluation yet."""
    report = Path(out, Corpus(out).folder, REPORT)
    return not report.exists() or report.stat().st_mtime < evaluation.stat().st_mtime


@app.command()
def demo(
    out: Annotated[str, typer.Option(help="Where the corpus goes.")] = "out/demo",
    port: Annotated[int, typer.Option(help="Port of 127.0.0.1 that the sites are served on.")] = PORT,
    steps: Annotated[
        int | None, typer.Option(help="Training steps instead of the recipe's; 0: the corpus alone.")
    ] = None,
    serve: Annotated[bool, typer.Option("--serve", help="Only serve the sites, for builds of your own.")] = False,
) -> None:
    """Fetch the demo's assets, serve its sites, build the corpus, train on it, and say what came out."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    if serve:
        _run("assets", "fetch", "--group", "sites")
        with served(port) as base, contextlib.suppress(KeyboardInterrupt):
            print(f"the demo's sites are at {base}/ until you press Ctrl-C", flush=True)
            threading.Event().wait()
        return
    groups = ("demo",) if steps == 0 else ("demo", "train")
    for group in groups:
        _run("assets", "fetch", "--group", group)
    with served(port) as base:
        seeds = "[" + ", ".join(f"{base}/{name}/index.html" for name in SITES) + "]"
        override = [] if port == PORT else ["--set", f"source.seeds={seeds}"]
        command = ["pipeline.build", "--spec", "specs/demo.yaml", "--out", out, *override]
        try:
            _run(*command)
        except typer.Exit as ended:
            if ended.exit_code != 1:
                raise
            # An earlier build may have remembered that nobody served the sites.
            print("once more, asking again for what could not be fetched", flush=True)
            _run(*command, "--retry-failed")
    if steps != 0:
        override = [] if steps is None else ["--set", f"optimizer.steps={steps}"]
        run = f"{out}/train"
        _run("trainer.run", "--config", "recipes/demo.yaml", "--corpus", out, "--out", run, *override)
        if _report_is_older(out, Path(run) / "evaluation.json"):
            _run("pipeline.report", "--corpus", out)


if __name__ == "__main__":
    run_command(app)
