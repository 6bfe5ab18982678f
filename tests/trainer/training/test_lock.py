"""A run folder belongs to one trainer, as long as that one runs and no longer."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.trainer.parallel.test_stop import command
from tests.trainer.training.test_checkpoint import ROOT
from trainer.errors import UserError
from trainer.run import app
from trainer.training import lock
from trainer.training.lock import Holder, check_seen, hold

NO_FLOCK = """
import errno, fcntl
def flock(descriptor, operation):
    raise OSError(errno.ENOTSUP, "no flock here")
fcntl.flock = flock
"""
HOLDS = """
import os, signal, sys
from pathlib import Path
from trainer.training.lock import hold
with hold(Path(sys.argv[1])):
    here, there = os.pipe()
    child = os.fork()
    if not child:
        os.write(there, b".")
        signal.pause()  # a worker that outlives its trainer
    os.read(here, 1)
    print(child, flush=True)
    signal.pause()
"""


@contextmanager
def another_trainer(out: Path, before: str = "") -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A process that holds a run folder, and a worker of it."""
    process = subprocess.Popen(
        [sys.executable, "-c", before + HOLDS, str(out)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    worker = int(process.stdout.readline())
    try:
        yield process, worker
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        os.kill(worker, signal.SIGKILL)


@pytest.fixture
def no_flock(monkeypatch: pytest.MonkeyPatch) -> str:
    """Storage without flock; gives what makes it so in another process."""

    def flock(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOTSUP, "no flock here")

    monkeypatch.setattr(fcntl, "flock", flock)
    return NO_FLOCK


@pytest.fixture(params=["flock", "lease"])
def before(request: pytest.FixtureRequest) -> str:
    """Storage with flock and without; gives what makes it so in another process."""
    return "" if request.param == "flock" else str(request.getfixturevalue("no_flock"))


def test_a_second_trainer_is_told_which_has_the_folder_until_it_is_killed(tmp_path: Path, before: str) -> None:
    out = tmp_path / "run"
    with another_trainer(out, before) as (process, _):
        with pytest.raises(UserError) as caught, hold(out):
            pass
        said = str(caught.value)
        assert f"{out} is in use by process {process.pid} on {socket.gethostname()} since" in said and "\n" not in said
        process.kill()
        process.wait()
        with hold(out) as (name, text):
            check_seen(out, name, text, 1)
    assert list(out.iterdir()) == []


def test_a_lease_of_another_node_lasts_as_long_as_it_is_touched(
    tmp_path: Path, no_flock: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = tmp_path / ".lease"
    lease.write_text(Holder("another-node", 1, "today", "word").text(), encoding="utf-8")
    with pytest.raises(UserError, match="in use by process 1 on another-node"), hold(tmp_path):
        pass
    old = time.time() - lock.STALE - 1
    os.utime(lease, (old, old))
    monkeypatch.setattr(lock, "BEAT", 0.01)
    with hold(tmp_path):
        os.utime(lease, (old, old))
        end = time.monotonic() + 30
        while lease.stat().st_mtime == old:
            assert time.monotonic() < end, "the lease is not touched"
            time.sleep(0.01)
        lease.write_text(Holder("another-node", 1, "today", "word").text(), encoding="utf-8")
    assert lease.exists()  # whoever took it meanwhile keeps it
    assert [path.name for path in tmp_path.iterdir()] == [".lease"]


def test_a_rank_that_sees_another_folder_says_so(tmp_path: Path) -> None:
    for there in (tmp_path / "none", tmp_path / "stale"):
        with hold(tmp_path / "first") as (name, text):
            if there.name == "stale":
                there.mkdir()
                (there / name).write_text(Holder.here().text(), encoding="utf-8")
            with pytest.raises(UserError, match=f"rank 1 on .* does not see the run folder {there} that rank 0 on"):
                check_seen(there, name, text, 1)


@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_the_command_says_it_in_one_line(corpus: Path, tmp_path: Path, more: tuple[str, ...]) -> None:
    with hold(tmp_path):
        result = CliRunner().invoke(app, [*command(corpus, tmp_path), *more])
    assert result.exit_code == 2
    (line,) = result.output.strip().splitlines()
    assert line.startswith(f"error: {tmp_path} is in use by process {os.getpid()}")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_one_line(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    for out in (tmp_path / "file", tmp_path / "file" / "run"):
        result = CliRunner().invoke(app, command(corpus, out))
        assert result.exit_code == 2, result.output
        (line,) = result.output.strip().splitlines()
        assert line.startswith(f"error: --out {out}: cannot be written: ")
