"""A test process that dies, and one that leaves something behind, are told from one that passes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from multiprocessing import resource_tracker
from pathlib import Path

import pytest

from tests import leftovers, verdict

WRITES = "import os, pathlib, signal; pathlib.Path(os.environ['INTERLOOM_VERDICT']).write_text('{said}'); {then}"


@pytest.mark.parametrize(
    ("said", "then", "code", "words"),
    [
        ("0", "pass", 0, ""),
        ("1", "raise SystemExit(1)", 1, ""),
        ("0", "os.kill(os.getpid(), 11)", 1, "tests passed but the interpreter died: signal 11 (SIGSEGV)"),
        ("1", "os.kill(os.getpid(), 6)", 1, "tests failed and the interpreter died: signal 6 (SIGABRT)"),
        ("0", "raise SystemExit(7)", 7, "pytest's verdict was 0 but its process ended with 7"),
        ("1", "pass", 1, "pytest's verdict was 1 but its process ended with 0"),
    ],
)
def test_how_it_ended(said: str, then: str, code: int, words: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert verdict.main(["-c", WRITES.format(said=said, then=then)], (sys.executable,)) == code
    assert capfd.readouterr().err.strip() == words


def test_a_death_before_the_end_is_no_pass(capfd: pytest.CaptureFixture[str]) -> None:
    assert verdict.main(["-c", "import os; os.kill(os.getpid(), 9)"], (sys.executable,)) == 1
    assert "before the tests had ended the interpreter died: signal 9" in capfd.readouterr().err


def test_a_thread_that_stays_is_found() -> None:
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait, name="stays", daemon=True)
    thread.start()
    try:
        assert any("'stays'" in line for line in leftovers.threads(grace=0.0))
    finally:
        stop.set()
        thread.join()
    assert not any("'stays'" in line for line in leftovers.threads(grace=0.0))


def test_a_process_that_stays_is_found() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        assert any(line.startswith(f"process {child.pid}:") for line in leftovers.processes(grace=0.0))
    finally:
        child.communicate()


def test_python_keeps_a_tracker_of_its_own() -> None:
    resource_tracker.ensure_running()
    assert not any("resource_tracker" in line for line in leftovers.processes(grace=0.0))


def test_a_file_that_stays_is_found(tmp_path: Path) -> None:
    env = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull}
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True, env=env)
    (tmp_path / ".gitignore").write_text("out/\n.cache/\n")
    before = leftovers.in_checkout(tmp_path)
    for path in ("out/x.bin", ".cache/y", "a/__pycache__/m.pyc", "plain.txt"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("")
    assert before is not None
    assert (leftovers.in_checkout(tmp_path) or set()) - before == {"file out/x.bin", "file plain.txt"}
