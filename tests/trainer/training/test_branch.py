"""Going on from an older checkpoint: the branch that was begun last is the one that goes on, and none is lost."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from typer.testing import CliRunner

from tests.trainer.conftest import tiny
from tests.trainer.parallel.test_stop import terminating
from tests.trainer.training.test_checkpoint import same, weights
from trainer.errors import Terminated, UserError
from trainer.parallel.ranks import Ranks, numerics, precision
from trainer.parallel.ray_launch import train_here
from trainer.run import app
from trainer.training import checkpoint as checkpoints
from trainer.training.branch import take_up
from trainer.training.outcome import Outcome
from trainer.training.step import Stepper


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def steps(out: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def run(finished: Outcome, tmp_path: Path) -> Path:
    """A copy of the finished run: checkpoints of steps 4 and 8."""
    return Path(shutil.copytree(finished.out, tmp_path / "run"))


@pytest.mark.slow
def test_the_branch_begun_last_goes_on(
    corpus: Path, run: Path, finished: Outcome, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tiny(corpus, run, "log.tensorboard=true", "checkpoint.keep=1", "evaluation.every=3")
    with monkeypatch.context() as patched:
        patched.setattr(Stepper, "run", terminating(Stepper.run, []))
        with pytest.raises(Terminated, match="checkpoint at step 5"):
            train_here(recipe, str(run / "checkpoints" / "step-00000004"), False)
    assert "step-00000008 of the run that is left here are kept in" in " ".join(capsys.readouterr().err.split())
    assert names(run / "checkpoints") == ["branch-0001", "step-00000005"]
    assert names(run / "checkpoints" / "branch-0001") == ["evaluation.json", "metrics.jsonl", "step-00000008"]
    assert steps(run) == [0, 1, 2, 3, 4]
    evaluation = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))
    assert list(evaluation) == ["before"]

    train_here(recipe, "auto", False)
    assert "resuming from " + str(run / "checkpoints" / "step-00000005") in capsys.readouterr().err
    assert same(weights(run, 8), weights(finished.out, 8))
    assert steps(run) == list(range(8))
    events = EventAccumulator(str(run / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("loss")] == list(range(1, 9))
    assert [event.step for event in events.Scalars("held_out/loss")] == [0, 6, 8]

    # And back: what was left is as it was, and the end of the other branch is kept in its turn.
    recipe = tiny(corpus, run, "log.tensorboard=true")
    (run / "model" / "config.json").unlink()
    train_here(recipe, str(run / "checkpoints" / "branch-0001" / "step-00000008"), False)
    assert same(weights(run, 8), weights(finished.out, 8)) and (run / "model" / "config.json").is_file()
    assert steps(run) == list(range(8))


def found(path: Path) -> checkpoints.Checkpoint:
    return checkpoints.read(path)


def test_nothing_is_moved_for_the_newest(run: Path) -> None:
    before = sorted(run.rglob("*"))
    assert take_up(run, found(run / "checkpoints" / "step-00000008")) == []
    assert sorted(run.rglob("*")) == before


def test_a_checkpoint_of_another_run_leaves_all_of_this_one(run: Path, finished: Outcome, tmp_path: Path) -> None:
    other = tmp_path / "other" / "any name"
    shutil.copytree(run / "checkpoints" / "step-00000004", other)
    meta = json.loads((other / "meta.json").read_text(encoding="utf-8"))
    meta["corpus"] = "another"
    meta.pop("check")
    (other / "meta.json").write_text(json.dumps({**meta, "check": checkpoints._check(meta)}), encoding="utf-8")
    (line,) = take_up(run, found(other))
    assert "step-00000004, step-00000008" in line and "\n" not in line
    assert names(run / "checkpoints") == ["branch-0001", "step-00000004"]
    assert found(run / "checkpoints" / "step-00000004").corpus == "another"
    assert not (run / "metrics.jsonl").exists()
    # The branch that was left brings its own metrics back.
    take_up(run, found(run / "checkpoints" / "branch-0001" / "step-00000008"))
    assert names(run / "checkpoints") == ["branch-0001", "branch-0002", "step-00000008"]
    assert names(run / "checkpoints" / "branch-0002") == ["step-00000004"]
    assert steps(run) == list(range(8))


@pytest.mark.parametrize("keep", [1, 2])
def test_a_damaged_newest_checkpoint_never_outlives_a_good_one(
    corpus: Path, run: Path, keep: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    (run / "checkpoints" / "step-00000008" / "optimizer.pt").write_bytes(b"")
    recipe = tiny(corpus, run, f"checkpoint.keep={keep}")
    monkeypatch.setattr(Stepper, "run", terminating(Stepper.run, []))
    with pytest.raises(Terminated, match="checkpoint at step 5"):
        train_here(recipe, "auto", False)
    kept = checkpoints.list_checkpoints(run / "checkpoints")
    assert [path.name for path in kept] == ["step-00000005", "step-00000004"][:keep]
    assert all(checkpoints.read(path) for path in kept)


@pytest.mark.slow
def test_another_precision_is_refused_unless_told(corpus: Path, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(run / "checkpoints" / "step-00000008")
    where = ["--config", "tiny", "--corpus", str(corpus), "--out", str(run), "--set", "parallel.threads=1"]
    other = [*where, "--set", "log.tensorboard=false", "--set", "parallel.precision=bfloat16"]
    refused = CliRunner().invoke(app, other)
    assert refused.exit_code == 2
    (line,) = refused.output.strip().splitlines()
    assert "was trained in float32 and this run computes in bfloat16" in line
    assert "--set parallel.precision=float32 to go on as it was, or --allow-changes" in line
    told = CliRunner().invoke(app, [*other, "--allow-changes"])
    assert told.exit_code == 0, told.output
    assert "going on with precision bfloat16 where the checkpoint was made with float32" in told.output
    assert found(run / "checkpoints" / "step-00000008").numerics["precision"] == "bfloat16"


def test_what_rounds_otherwise_is_said_and_what_was_not_recorded_is_not_compared(
    run: Path, corpus: Path, tmp_path: Path
) -> None:
    checkpoint = found(run / "checkpoints" / "step-00000008")
    now = dict(checkpoint.numerics)
    assert now["precision"] == "float32" and checkpoints.compare_numerics(checkpoint, now, False) == []
    (line,) = checkpoints.compare_numerics(checkpoint, {**now, "ranks": 2}, False)
    assert "ranks 2 where the checkpoint was made with 1: the same run up to rounding" in line
    older: Any = checkpoint.numerics
    older.clear()
    assert checkpoints.compare_numerics(checkpoint, {**now, "precision": "bfloat16"}, False) == []


def test_ranks_compute_in_one_precision(corpus: Path, tmp_path: Path) -> None:
    import torch

    class Two(Ranks):
        def gather(self, value: Any) -> list[Any]:
            return [value, torch.float16]

    recipe = tiny(corpus, tmp_path).parallel
    assert precision(recipe, torch.device("cpu")) == torch.float32
    with pytest.raises(UserError, match="rank 0 computes in float32 and rank 1 in float16"):
        numerics(recipe, Two(0, 2, torch.device("cpu"), False))
