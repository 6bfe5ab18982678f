"""One fabricated corpus and one finished tiny run for all tests of the trainer."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.trainer.fabricated import write_corpus
from trainer.parallel.ranks import Ranks
from trainer.parallel.ray_launch import train_here
from trainer.parallel.stop import Stop
from trainer.recipe import Recipe, load_recipe
from trainer.training.outcome import Outcome

ALONE = Stop(Ranks(0, 1, torch.device("cpu"), False))


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Bitwise comparisons hold for one thread count; tiny matrices gain nothing from more."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """OUT of a corpus of 20 documents, 6 of them held out."""
    return write_corpus(tmp_path_factory.mktemp("corpus") / "out")


def tiny(corpus: Path, out: Path, *overrides: str) -> Recipe:
    """The packaged tiny recipe on a corpus."""
    fixed = (f"corpus={corpus}", f"out={out}", "parallel.threads=1", "log.tensorboard=false")
    return load_recipe("recipes/tiny.yaml", (*fixed, *overrides))


@pytest.fixture(scope="session")
def finished(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """The tiny recipe run to its end in this process."""
    recipe = tiny(corpus, tmp_path_factory.mktemp("finished") / "run", "log.tensorboard=true")
    return train_here(recipe, "auto", False)
