"""A disk that is full: one line that says so and names the last good checkpoint, whatever is being written."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

import trainer.data.rows
import trainer.training.checkpoint
import trainer.training.loop
from tests.trainer.parallel.test_stop import command
from trainer.errors import NoSpace
from trainer.model.text import byte_tokenizer
from trainer.protocols.evaluations import Evaluations
from trainer.run import app
from trainer.training.disk import is_full, room_for
from trainer.training.log import RunLog


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)]
    done = subprocess.run(mount, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"a small file system cannot be mounted here: {done.stderr.strip()}")
    yield disk
    # Memory maps of what was cached there may still be open.
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def fill(disk: Path) -> Path:
    """Take all the room that is left; the file to remove for it."""
    path = disk / "filler"
    with path.open("wb", buffering=0) as file:
        for size in (1 << 16, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue
    return path


def _torch(path: Path) -> None:
    with path.open("wb") as file:
        torch.save({"a": torch.zeros(100_000)}, file)


@pytest.mark.parametrize(
    "write",
    [
        lambda path: path.write_bytes(bytes(100_000)),
        lambda path: save_file({"a": torch.zeros(100_000)}, path),
        lambda path: byte_tokenizer().backend_tokenizer.save(str(path)),
        _torch,
    ],
)
def test_each_library_s_words_for_it_are_understood(write: Callable[[Path], Any], small_disk: Path) -> None:
    fill(small_disk)
    path = small_disk / "file"
    with pytest.raises(NoSpace, match=f"^no space left for {re.escape(str(path))}$"), room_for(path):
        write(path)


def test_a_step_that_cannot_be_logged_names_the_file(small_disk: Path) -> None:
    values = {"loss": 1.0, "generative": 1.0, "structure": 0.0, "tokens_per_second": 1.0, "images_per_second": 1.0}
    with RunLog(small_disk, 1, True, False) as log:
        log.open(0)
        fill(small_disk)
        with pytest.raises(NoSpace, match=r"no space left for .*/disk/metrics\.jsonl"):
            log.step(0, values, True)


@pytest.mark.parametrize("error", [ValueError("broken"), FileNotFoundError(2, "No such file"), OSError("short")])
def test_other_errors_are_left_as_they_are(error: Exception) -> None:
    assert not is_full(error)
    with pytest.raises(type(error)), room_for(Path("file")):
        raise error


@pytest.mark.slow
@pytest.mark.parametrize(
    ("owner", "name", "at", "what", "kept"),
    [
        (trainer.data.rows, "write_part", 1, "cache/rows-", None),
        (Evaluations, "_write", 1, "evaluation.json", None),
        (trainer.training.checkpoint, "save", 2, "checkpoints/step-00000002", 1),
        (trainer.training.loop, "export", 1, "model", 2),
    ],
)
def test_it_is_one_line_and_with_room_the_run_goes_on(
    corpus: Path,
    small_disk: Path,
    monkeypatch: pytest.MonkeyPatch,
    owner: Any,
    name: str,
    at: int,
    what: str,
    kept: int | None,
) -> None:
    out = small_disk / "out"
    arguments = command(corpus, out, "checkpoint.every=1", "evaluation.tokens=500", "log.tensorboard=true")
    function, calls = getattr(owner, name), 0

    def called(*given: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == at:
            fill(small_disk)
        return function(*given, **named)

    with monkeypatch.context() as patched:
        patched.setattr(owner, name, called)
        result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1, result.output
    last = result.output.strip().splitlines()[-1]
    assert last.startswith(f"error: no space left for {out / what}"), result.output
    good = f"the last good checkpoint is {out}/checkpoints/step-{kept:08d}" if kept else "no step was kept yet"
    assert last.endswith(f"; {good}: free space and run the same command to go on")
    assert not list(out.glob("checkpoints/.step-*")) and not (out / ".model").exists() and not (out / ".lock").exists()
    (small_disk / "filler").unlink()
    again = CliRunner().invoke(app, arguments)
    assert again.exit_code == 0, again.output
    lines = (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["step"] for line in lines] == [0, 1]
