"""The command: help worth reading, exit codes, one line for the user's mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

from tests.trainer.conftest import tiny
from trainer.errors import UserError
from trainer.parallel.ranks import Ranks
from trainer.run import app
from trainer.training.loop import train
from trainer.training.outcome import Outcome
from trainer.training.summary import show

RUNNER = CliRunner()


def test_help_says_what_it_does() -> None:
    result = RUNNER.invoke(app, ["--help"])
    assert result.exit_code == 0
    for word in ("--config", "--corpus", "--resume", "--dry-run", "--launcher", "held-out", "transformers"):
        assert word in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config", "nothing.yaml"], "packaged recipes"),
        (["--config", "recipes/tiny.yaml"], "no corpus"),
        (["--config", "recipes/tiny.yaml", "--corpus", "/nowhere"], "is not a folder"),
        (["--config", "recipes/tiny.yaml", "--set", "model.lora.rnk=1"], "did you mean model.lora.rank?"),
    ],
)
def test_mistakes_exit_2_with_one_line(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = RUNNER.invoke(app, arguments)
    assert result.exit_code == 2
    assert message in result.output
    assert len(result.output.strip().splitlines()) == 1


def test_recipes_that_do_not_fit_the_corpus(corpus: Path, tmp_path: Path) -> None:
    where = ["--corpus", str(corpus), "--out", str(tmp_path)]
    for override, message in (
        ("data.packs_per_step=500", "lower data.packs_per_step"),
        ("model.connector.grid=9", "exceeds the tower's 4"),
        ("model.vision.image_size=33", "not a multiple of 8"),
    ):
        result = RUNNER.invoke(app, ["--config", "tiny", *where, "--set", override, "--dry-run"])
        assert result.exit_code == 2 and message in result.output, result.output
    with pytest.raises(UserError, match="is not a multiple of 3 ranks"):
        train(tiny(corpus, tmp_path), Ranks(0, 3, torch.device("cpu"), False))


@pytest.mark.slow
def test_dry_run_trains_nothing(corpus: Path, tmp_path: Path) -> None:
    where = ["--corpus", str(corpus), "--out", str(tmp_path / "dry")]
    result = RUNNER.invoke(app, ["--config", "recipes/tiny.yaml", *where, "--dry-run"])
    assert result.exit_code == 0, result.output
    assert "parameters are trained" in result.output and "one step on cpu" in result.output
    assert sorted(path.name for path in (tmp_path / "dry").iterdir()) == ["cache"]


def test_the_summary_shows_chance_beside_figures(finished: Outcome) -> None:
    console = Console(record=True, width=140, file=None, quiet=False)
    with console.capture() as captured:
        show(finished, "recipes/tiny.yaml", "out/demo", console)
    text = captured.get()
    for part in ("last loss", "chance", "before", "after", "image -> sentence", "no claim", "tensorboard --logdir"):
        assert part in text, part
