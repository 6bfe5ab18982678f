"""Checkpoints: killed and resumed is the same as never killed; damage is noticed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from tests.trainer.conftest import tiny
from tests.trainer.fabricated import write_corpus
from trainer.data.features import PixelSource
from trainer.errors import UserError
from trainer.model.interleaved import InterleavedForCausalLM
from trainer.parallel.ranks import Ranks
from trainer.parallel.ray_launch import train_here
from trainer.run import app
from trainer.training import checkpoint as checkpoints
from trainer.training.log import RunLog
from trainer.training.outcome import Outcome, read_outcome
from trainer.training.outcome import finished as finished_outcome
from trainer.training.prepare import prepare

ROOT = Path(__file__).parents[3]


def command(corpus: Path, out: Path, *more: str) -> list[str]:
    fixed = ["--set", "parallel.threads=1", "--set", "log.tensorboard=false"]
    where = ["--corpus", str(corpus), "--out", str(out)]
    return [sys.executable, "-m", "trainer.run", "--config", "recipes/tiny.yaml", *where, *fixed, *more]


def start(arguments: list[str]) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(arguments, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)


def wait_for(path: Path, process: subprocess.Popen[str], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None, f"ended with {process.returncode}: {process.stderr and process.stderr.read()}"
        assert time.monotonic() < end, f"{path} did not appear"
        time.sleep(0.01)


def weights(out: Path, step: int) -> dict[str, torch.Tensor]:
    return checkpoints.read(out / "checkpoints" / f"step-{step:08d}").weights


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return set(a) == set(b) and all(torch.equal(value, b[name]) for name, value in a.items())


@pytest.mark.slow
def test_killed_and_resumed_equals_straight_through_bitwise(corpus: Path, tmp_path: Path, finished: Outcome) -> None:
    out = tmp_path / "killed"
    process = start(command(corpus, out, "--set", "optimizer.steps=8"))
    wait_for(out / "checkpoints" / "step-00000004", process)
    process.kill()
    process.communicate()
    recipe = tiny(corpus, out)
    found = checkpoints.find(out / "checkpoints", "auto", print)
    assert found is not None and found.place.step in (4, 8)
    # Whatever it managed after the checkpoint is gone; what remains goes on as if nothing had happened.
    outcome = train_here(recipe, str(out / "checkpoints" / "step-00000004"), False)
    assert outcome.steps == 8
    assert same(weights(out, 8), weights(finished.out, 8))
    ours, theirs = (
        [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        for folder in (out, finished.out)
    )
    assert [line["step"] for line in ours] == list(range(8))
    assert [line["loss"] for line in ours] == [line["loss"] for line in theirs]


@pytest.mark.slow
def test_sigterm_leaves_a_checkpoint_and_143(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "terminated"
    process = start(command(corpus, out, "--set", "optimizer.steps=100000", "--set", "checkpoint.every=100000"))
    wait_for(out / "metrics.jsonl", process)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143, errors
    assert "SIGTERM: checkpoint at step" in errors and "Traceback" not in errors
    (path,) = checkpoints.list_checkpoints(out / "checkpoints")
    assert checkpoints.read(path).place.step >= 1


@pytest.mark.parametrize("damage", ["weights.safetensors", "optimizer.pt", "meta.json", "missing"])
def test_a_damaged_newest_checkpoint_falls_back(finished: Outcome, tmp_path: Path, damage: str) -> None:
    folder = copy(finished.out / "checkpoints", tmp_path / "checkpoints")
    newest, before = checkpoints.list_checkpoints(folder)
    if damage == "missing":
        (newest / "optimizer.pt").unlink()
    else:
        content = bytearray((newest / damage).read_bytes())
        content[len(content) // 2] ^= 0xFF
        (newest / damage).write_bytes(content)
    warnings: list[str] = []
    found = checkpoints.find(folder, "auto", warnings.append)
    assert found is not None and found.path == before and found.place.step == 4
    assert len(warnings) == 1 and newest.name in warnings[0] and "\n" not in warnings[0]
    with pytest.raises(UserError, match=newest.name):
        checkpoints.find(folder, str(newest), warnings.append)


def test_a_run_whose_checkpoints_are_all_damaged_is_not_started_over(
    corpus: Path, tmp_path: Path, finished: Outcome
) -> None:
    out = copy(finished.out, tmp_path / "run")
    for path in checkpoints.list_checkpoints(out / "checkpoints"):
        (path / "weights.safetensors").write_bytes(b"")
    metrics = (out / "metrics.jsonl").read_bytes()
    (out / "model" / "config.json").unlink()
    arguments = ["--config", "tiny", "--corpus", str(corpus), "--out", str(out), "--set", "log.tensorboard=false"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    (line,) = result.output.strip().splitlines()
    assert "none of the 2 checkpoints can be read" in line and "step-00000008" in line and "--resume none" in line
    assert (out / "metrics.jsonl").read_bytes() == metrics and len(list((out / "checkpoints").iterdir())) == 2


@pytest.mark.slow
def test_what_a_killed_save_left_is_removed(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    left = out / "checkpoints" / ".step-00000004.123"
    other = tmp_path / "other" / "checkpoints" / ".step-00000004.123"
    for folder in (left, other):
        folder.mkdir(parents=True)
        (folder / "weights.safetensors").write_bytes(b"half")
    train_here(tiny(corpus, out, "optimizer.steps=1"), "auto", False)
    assert [path.name for path in (out / "checkpoints").iterdir()] == ["step-00000001"]
    assert other.is_dir()


def test_a_killed_export_is_done_again(corpus: Path, tmp_path: Path, finished: Outcome) -> None:
    out = copy(finished.out, tmp_path / "run")
    weights_file = out / "model" / "model.safetensors"
    content = weights_file.read_bytes()
    (out / "model").rename(out / ".model")  # as it is while it is written
    (out / ".model" / "model.safetensors").write_bytes(content[:100])
    train_here(tiny(corpus, out), "auto", False)
    assert weights_file.read_bytes() == content and not (out / ".model").exists()


@pytest.mark.slow
def test_features_are_of_the_weights_that_are_trained(corpus: Path, tmp_path: Path) -> None:
    """Starting over with another recipe, or going on under another seed, keeps the cache but not its meaning."""
    out = tmp_path / "run"
    train_here(tiny(corpus, out, "optimizer.steps=1"), "auto", False)
    for resume, changes, overrides in (
        ("none", False, ("model.text.hidden_size=64", "optimizer.steps=1")),
        ("auto", True, ("model.text.hidden_size=64", "optimizer.steps=2", "seed=1")),
    ):
        recipe = tiny(corpus, out, *overrides)
        train_here(recipe, resume, changes)
        model: Any = InterleavedForCausalLM.from_pretrained(out / "model")
        found = checkpoints.find(out / "checkpoints", "auto", print)
        prepared = prepare(
            recipe, Ranks(0, 1, torch.device("cpu"), False), RunLog(out, 1, False, False), None, found, True
        )
        document = prepared.corpus.document(0)
        pixels, _ = PixelSource(32, strict=True).image(document, 0)
        features, _ = prepared.images.image(document, 0)
        assert torch.equal(features, model.vision(pixels[None])[0].detach().half().float()), overrides


def copy(source: Path, target: Path) -> Path:
    for path in source.rglob("*"):
        if path.is_file():
            place = target / path.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(path.read_bytes())
    return target


@pytest.mark.slow
def test_another_corpus_or_recipe_is_refused_unless_told(corpus: Path, tmp_path: Path, finished: Outcome) -> None:
    out = tmp_path / "run"
    copy(finished.out / "checkpoints", out / "checkpoints")
    other = write_corpus(tmp_path / "other", documents=18)
    with pytest.raises(UserError, match=r"another corpus .* --allow-changes"):
        train_here(tiny(other, out, "optimizer.steps=9"), "auto", False)
    with pytest.raises(UserError, match=r"another optimizer\.steps"):
        train_here(tiny(corpus, out, "optimizer.steps=9"), "auto", False)
    assert train_here(tiny(other, out, "optimizer.steps=9"), "auto", True).steps == 9


def test_a_finished_run_trains_no_more(corpus: Path, tmp_path: Path, finished: Outcome) -> None:
    out = copy(finished.out, tmp_path / "run")
    outcome = train_here(tiny(corpus, out), "auto", False)
    assert outcome.steps == 8 and outcome.last["loss"] == finished.last["loss"]
    assert same(weights(out, 8), weights(finished.out, 8))


def test_a_finished_run_is_known_by_its_files(corpus: Path, tmp_path: Path, finished: Outcome) -> None:
    """No model is loaded for it; anything that is missing, or another recipe or corpus, is for the run itself."""
    same = ("log.tensorboard=true",)
    out = copy(finished.out, tmp_path / "run")
    found = finished_outcome(tiny(corpus, out, *same))
    assert found is not None and (found.steps, found.last["loss"]) == (8, finished.last["loss"])
    assert found.evaluation["after"] == read_outcome(finished.out).evaluation["after"]
    assert finished_outcome(tiny(corpus, out, *same, "optimizer.steps=9")) is None
    other = write_corpus(tmp_path / "other", documents=18)
    assert finished_outcome(tiny(other, out, *same)) is None
    for missing in ("model/config.json", "evaluation.json", "metrics.jsonl"):
        content = (out / missing).read_bytes()
        (out / missing).unlink()
        assert finished_outcome(tiny(corpus, out, *same)) is None, missing
        (out / missing).write_bytes(content[: len(content) // 2])
        assert missing == "model/config.json" or finished_outcome(tiny(corpus, out, *same)) is None, missing
        (out / missing).write_bytes(content)


@pytest.mark.slow
def test_starting_over_removes_what_was_there(corpus: Path, tmp_path: Path, finished: Outcome) -> None:
    out = copy(finished.out, tmp_path / "run")
    assert train_here(tiny(corpus, out, "optimizer.steps=2"), "none", False).steps == 2
    assert [path.name for path in checkpoints.list_checkpoints(out / "checkpoints")] == ["step-00000002"]
    assert len((out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()) == 2


def test_adapters_alone_are_saved_where_the_rest_is_an_asset(corpus: Path, tmp_path: Path) -> None:
    from trainer.model.build import build_model

    model = build_model(tiny(corpus, tmp_path, "model.lora.rank=2").model, 0).model
    model.decoder.requires_grad_(False)
    for name, parameter in model.decoder.named_parameters():
        parameter.requires_grad_("lora_" in name)
    kept = checkpoints.kept_names(model, ("decoder.", "vision."))
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained <= set(kept)
    assert not any(name.startswith("vision.") for name in kept)
    assert all("lora_" in name for name in kept if name.startswith("decoder."))
    assert len(checkpoints.kept_names(model, ())) == len(model.state_dict())
