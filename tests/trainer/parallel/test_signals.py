"""SIGTERM and Ctrl-C at any moment of a command: one line, and 143 or 130."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.trainer.parallel.test_stop import command
from tests.trainer.training.test_checkpoint import ROOT

# A command that gets a signal when it first imports a module: whatever moment that is, it is the same every time.
AT_IMPORT = """
import os, runpy, sys
number, module, target = int(sys.argv[1]), sys.argv[2], sys.argv[3]
class Signals:
    def find_spec(self, name, path=None, target_module=None):
        if name == target:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), number)
sys.meta_path.insert(0, Signals())
sys.argv = [module, *sys.argv[4:]]
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""
# The same when it calls a function of the trainer's.
AT_CALL = """
import importlib, os, runpy, sys
number, module, target = int(sys.argv[1]), sys.argv[2], sys.argv[3]
owner, _, name = target.rpartition(".")
owner = importlib.import_module(owner)
function = getattr(owner, name)
def called(*given, **named):
    os.kill(os.getpid(), number)
    return function(*given, **named)
setattr(owner, name, called)
sys.argv = [module, *sys.argv[4:]]
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""


def run(script: str, number: int, module: str, target: str, arguments: list[str]) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-c", script, str(number), module, target, *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "target", "number"),
    [
        ("trainer.run", "typer", signal.SIGTERM),
        ("trainer.run", "torch", signal.SIGINT),
        ("trainer.generate", "typer", signal.SIGINT),
        ("trainer.generate", "torch", signal.SIGTERM),
    ],
)
def test_while_a_command_loads(corpus: Path, tmp_path: Path, module: str, target: str, number: signal.Signals) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "interloom", "image_size": 32}', encoding="utf-8")
    given = ["--model", str(tmp_path), "--image", str(tmp_path / "config.json")]
    arguments = command(corpus, tmp_path / "out") if module == "trainer.run" else given
    done = run(AT_IMPORT, number, module, target, arguments)
    assert done.returncode == 128 + number, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.endswith("run the same command to go on")


@pytest.mark.slow
@pytest.mark.parametrize("target", ["trainer.protocols.held_out.pack", "trainer.training.checkpoint.save_file"])
def test_ctrl_c_while_it_evaluates_or_saves(corpus: Path, tmp_path: Path, target: str) -> None:
    done = run(AT_CALL, signal.SIGINT, "trainer.run", target, command(corpus, tmp_path, "evaluation.tokens=500"))
    assert done.returncode == 130, done.stderr
    assert done.stderr.count("interrupted; run the same command to go on") == 1 and "Traceback" not in done.stderr
    assert (
        not list(tmp_path.glob("checkpoints/*"))
        and not list(tmp_path.glob("checkpoints/.step-*"))
        and not (tmp_path / ".lock").exists()
    )
