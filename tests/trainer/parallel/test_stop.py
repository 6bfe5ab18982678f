"""SIGTERM at any moment: every rank ends with 143, nothing done is lost, and the same command goes on."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.trainer.conftest import tiny
from tests.trainer.fabricated import write_corpus
from tests.trainer.training.test_checkpoint import ROOT
from trainer.model.interleaved import InterleavedForCausalLM
from trainer.parallel.ray_launch import train_here
from trainer.run import app
from trainer.training import checkpoint as checkpoints

RUNNER = CliRunner()


def terminating(function: Callable[..., Any], calls: list[str], at: int = 1) -> Callable[..., Any]:
    """The function, which gets SIGTERM at its `at`-th call and notes every one."""

    def called(*arguments: Any, **named: Any) -> Any:
        calls.append(getattr(function, "__name__", ""))
        if len(calls) == at:
            os.kill(os.getpid(), signal.SIGTERM)
        return function(*arguments, **named)

    return called


def command(corpus: Path, out: Path, *overrides: str) -> list[str]:
    fixed = ("parallel.threads=1", "log.tensorboard=false", "optimizer.steps=2", *overrides)
    where = ["--config", "tiny", "--corpus", str(corpus), "--out", str(out)]
    return [*where, *(word for override in fixed for word in ("--set", override))]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "at", "overrides", "steps"),
    [
        ("trainer.data.rows.write_part", 1, (), 0),
        ("trainer.data.features.write_part", 1, (), 0),
        ("forward in evaluation", 1, (), 0),
        ("trainer.protocols.evaluations.Evaluations.record", 2, ("evaluation.every=1",), 1),
        ("trainer.protocols.evaluations.Evaluations.record", 2, (), 2),
        ("trainer.training.loop.export", 1, (), 2),
    ],
)
def test_sigterm_is_heard_wherever_it_comes(
    corpus: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    target: str,
    at: int,
    overrides: tuple[str, ...],
    steps: int,
) -> None:
    calls: list[str] = []
    arguments = command(corpus, tmp_path, "evaluation.tokens=1000", *overrides)
    with monkeypatch.context() as patched:
        # Many parts and packs: were the signal heard only between steps, the work would go on.
        patched.setattr("trainer.data.rows.PART", 4)
        patched.setattr("trainer.data.features.PART", 4)
        if target == "forward in evaluation":
            found: Any = InterleavedForCausalLM.forward_packed
            patched.setattr(InterleavedForCausalLM, "forward_packed", terminating(found, calls))
        else:
            module, _, name = target.rpartition(".")
            owner = sys.modules.get(module) or getattr(sys.modules[module.rpartition(".")[0]], module.split(".")[-1])
            patched.setattr(owner, name, terminating(getattr(owner, name), calls, at))
        before = signal.getsignal(signal.SIGTERM)
        result = RUNNER.invoke(app, arguments)
        handler = signal.getsignal(signal.SIGTERM)
    assert result.exit_code == 143, result.output
    assert len(calls) == at  # nothing more was done than what was under way
    where = f"checkpoint at step {steps}" if steps else "no step was done yet"
    assert f"SIGTERM: {where}, run the same command to go on" in result.output
    assert handler is before
    kept = [path.name for path in checkpoints.list_checkpoints(tmp_path / "checkpoints")]
    assert kept == ([f"step-{steps:08d}"] if steps else [])
    if steps == 2:
        monkeypatch.setattr("trainer.training.step.Stepper.run", None)  # no step is done again
        again = RUNNER.invoke(app, arguments)
        assert again.exit_code == 0, again.output
        evaluation = json.loads((tmp_path / "evaluation.json").read_text(encoding="utf-8"))
        assert evaluation["after"]["step"] == 2 and "run" in evaluation
        assert (tmp_path / "model" / "config.json").is_file() and not (tmp_path / ".model" / "config.json").exists()
        assert "nothing to do" in RUNNER.invoke(app, arguments).output


def test_a_model_is_not_loaded_to_its_end_for_a_run_that_stops(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[str] = []
    monkeypatch.setattr("trainer.training.prepare.build_model", terminating(lambda *_: loaded.append("model"), []))
    result = RUNNER.invoke(app, command(corpus, tmp_path))
    assert result.exit_code == 143 and not loaded
    assert "SIGTERM: no step was done yet" in result.output


# One rank of two: parts of a few images, and SIGTERM to the second rank alone, in the evaluation after the last step.
RANK = """
import os, signal
import trainer.data.features, trainer.protocols.evaluations, trainer.run
trainer.data.features.PART = 4
record = trainer.protocols.evaluations.Evaluations.record
def recorded(self, moment, step, model):
    if moment == "after" and os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGTERM)
    return record(self, moment, step, model)
trainer.protocols.evaluations.Evaluations.record = recorded
trainer.run.app()
"""


@pytest.mark.torchrun
def test_two_ranks_stop_together_and_count_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = write_corpus(tmp_path / "corpus", documents=12, held_out=4, broken=8)
    out, alone = tmp_path / "out", tmp_path / "alone"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    shared |= {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, *command(corpus, out)],
            cwd=ROOT,
            env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    errors = [process.communicate(timeout=240)[1] for process in processes]
    assert [process.returncode for process in processes] == [143, 143], errors
    assert all("SIGTERM: checkpoint at step 2" in text and "Traceback" not in text for text in errors), errors
    parts = sorted(out.glob("cache/features-*/part-*.arrow"))
    assert len(parts) > 2
    written = [path.stat().st_mtime_ns for path in parts]

    # The same with one process: as many unreadable images, and each is named, whichever rank met it.
    monkeypatch.setattr("trainer.data.features.PART", 4)
    one = train_here(tiny(corpus, alone, "optimizer.steps=2"), "auto", False)
    ours, theirs = (
        [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        for folder in (out, alone)
    )
    assert [line["unreadable_images"] for line in ours] == [line["unreadable_images"] for line in theirs]
    assert sum(line["unreadable_images"] for line in theirs) > 8
    named, expected = (
        sorted(re.findall(r"trained as grey: document (\w+), image 0", text))
        for text in (errors[0], capsys.readouterr().err)
    )
    assert named == expected and len(set(named)) == len(named) > 4

    # And one process goes on where the two stopped, with the features that they made.
    found = train_here(tiny(corpus, out, "optimizer.steps=2"), "auto", False)
    assert [path.stat().st_mtime_ns for path in parts] == written
    for moment in ("before", "after"):
        a, b = found.evaluation[moment], one.evaluation[moment]
        assert a["perplexity"]["loss"] == pytest.approx(b["perplexity"]["loss"], rel=1e-5)
        assert [a["retrieval"][name]["ranks"] for name in a["retrieval"]] == [
            b["retrieval"][name]["ranks"] for name in b["retrieval"]
        ]
