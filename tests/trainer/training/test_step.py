"""The step: packs, passes and ranks do not change the gradient."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from tests.trainer.conftest import tiny
from tests.trainer.fabricated import write_corpus
from tests.trainer.reference import structure_loss
from trainer.data.collate import StepBatch
from trainer.errors import CorruptRecordError
from trainer.parallel.ranks import Ranks
from trainer.recipe import OptimizerRecipe, Recipe
from trainer.training.checkpoint import Place
from trainer.training.log import RunLog
from trainer.training.loop import Batches, Prepared, prepare
from trainer.training.optimizer import build_optimizer, rate
from trainer.training.step import PackedForward, Stepper

ONE = Ranks(0, 1, torch.device("cpu"), False)


def setting(corpus: Path, out: Path, *overrides: str) -> tuple[Recipe, Prepared, StepBatch]:
    recipe = tiny(corpus, out, *overrides)
    prepared = prepare(recipe, ONE, RunLog(out, 1, False, False))
    batch, _ = next(iter(Batches(recipe, prepared, ONE, Place(0, 0, 0))))
    return recipe, prepared, batch


def gradients(recipe: Recipe, prepared: Prepared, batch: StepBatch) -> tuple[float, float, dict[str, torch.Tensor]]:
    model = prepared.built.model.train()
    model.zero_grad()
    stepper = Stepper(PackedForward(model), build_optimizer(model, recipe.optimizer), recipe, ONE, torch.float32)
    generative, structure, _ = stepper.gradients(batch)
    return generative, structure, {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def direct(recipe: Recipe, prepared: Prepared, batch: StepBatch) -> tuple[float, float, dict[str, torch.Tensor]]:
    """The same by autograd through everything at once."""
    model = prepared.built.model.train()
    model.zero_grad()
    found = [model.forward_packed(one) for one in batch.packs]
    targets = sum(len(one.target_ids) for one in batch.packs)
    generative = sum((one.loss_sum for one in found), torch.zeros(())) / targets
    vectors = torch.cat([one.retrieval for one in found])
    structure = structure_loss(vectors, batch.labels, batch.weights, recipe.objective.reduction)
    (generative + recipe.objective.alpha * structure).backward()
    return generative.item(), structure.item(), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("packs", [1, 3])
@pytest.mark.parametrize("reduction", ["mean", "mean_row"])
def test_two_passes_equal_autograd_through_the_batch(corpus: Path, tmp_path: Path, packs: int, reduction: str) -> None:
    recipe, prepared, batch = setting(
        corpus, tmp_path, f"data.packs_per_step={packs}", f"objective.reduction={reduction}", "objective.alpha=3"
    )
    assert len(batch.packs) == packs
    expected = direct(recipe, prepared, batch)
    found = gradients(recipe, prepared, batch)
    assert found[0] == pytest.approx(expected[0], rel=1e-5)
    assert found[1] == pytest.approx(expected[1], rel=1e-4)
    assert set(found[2]) == set(expected[2])
    for name, gradient in expected[2].items():
        scale = max(1e-6, float(gradient.abs().max()))
        assert float((found[2][name] - gradient).abs().max()) < 2e-4 * scale + 1e-7, name


def test_dropout_is_the_same_in_both_passes(corpus: Path, tmp_path: Path) -> None:
    overrides = ("model.lora.rank=2", "model.lora.dropout=0.5", "data.packs_per_step=2")
    recipe, prepared, batch = setting(corpus, tmp_path, *overrides)
    first, second = gradients(recipe, prepared, batch), gradients(recipe, prepared, batch)
    assert first[:2] == second[:2]
    assert all(torch.equal(gradient, second[2][name]) for name, gradient in first[2].items())


def test_alpha_zero_leaves_the_retrieval_head_alone(corpus: Path, tmp_path: Path) -> None:
    recipe, prepared, batch = setting(corpus, tmp_path, "objective.alpha=0")
    _, structure, found = gradients(recipe, prepared, batch)
    assert structure == 0
    assert all(not gradient.any() for name, gradient in found.items() if name.startswith("retrieval."))


def test_a_gradient_that_is_not_finite_changes_nothing(corpus: Path, tmp_path: Path) -> None:
    recipe, prepared, batch = setting(corpus, tmp_path)
    model = prepared.built.model
    model.connector.norm.weight.data.fill_(math.nan)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    stepper = Stepper(PackedForward(model), build_optimizer(model, recipe.optimizer), recipe, ONE, torch.float32)
    assert stepper.run(batch).skipped
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters() if not n.startswith("connector.norm"))


def test_ranks_see_the_whole_step_between_them(corpus: Path, tmp_path: Path) -> None:
    recipe, prepared, whole = setting(corpus, tmp_path, "data.packs_per_step=4")
    parts = []
    for rank in range(2):
        ranks = Ranks(rank, 2, torch.device("cpu"), False)
        part, _ = next(iter(Batches(recipe, prepared, ranks, Place(0, 0, 0))))
        parts.append(part)
    assert [pack.number for part in parts for pack in part.packs] == [0, 1, 2, 3]
    assert torch.equal(torch.cat([part.labels for part in parts]), whole.labels)
    for one, other in zip([pack for part in parts for pack in part.packs], whole.packs, strict=True):
        assert torch.equal(one.input_ids, other.input_ids) and torch.equal(one.state_slots, other.state_slots)
    assert parts[1].row_start == len(parts[0].labels)


def test_a_pack_without_images_has_the_same_gradients(corpus: Path, tmp_path: Path) -> None:
    recipe, prepared, batch = setting(corpus, tmp_path)
    pack = batch.packs[0]
    model = prepared.built.model.train()
    model.zero_grad()
    text = pack.input_ids.clone()
    text[pack.image_slots] = 1
    bare = torch.zeros(0, dtype=torch.int64)
    output = model.forward_packed(type(pack)(**{**vars(pack), "input_ids": text, "images": None, "image_slots": bare}))
    (output.loss_sum + output.retrieval.sum()).backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    assert recipe.name == "tiny"


def test_rate_warms_up_and_decays() -> None:
    recipe = OptimizerRecipe(steps=100, warmup=0.1)
    rates = [rate(step, recipe) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and max(rates) == rates[9] == rates[10] == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True) and rates[-1] < 0.001


def test_bfloat16_is_close(corpus: Path, tmp_path: Path) -> None:
    recipe, prepared, batch = setting(corpus, tmp_path)
    model = prepared.built.model
    exact, rough = (
        Stepper(PackedForward(model), build_optimizer(model, recipe.optimizer), recipe, ONE, dtype).gradients(batch)
        for dtype in (torch.float32, torch.bfloat16)
    )
    assert rough[0] == pytest.approx(exact[0], rel=0.02) and rough[0] != exact[0]
    assert rough[1] == pytest.approx(exact[1], rel=0.1)


def test_loader_workers_change_nothing(corpus: Path, tmp_path: Path) -> None:
    _, prepared, batch = setting(corpus, tmp_path)
    with_workers = tiny(corpus, tmp_path, "data.workers=2")
    other, _ = next(iter(Batches(with_workers, prepared, ONE, Place(0, 0, 0))))
    assert torch.equal(batch.packs[0].input_ids, other.packs[0].input_ids)
    assert batch.packs[0].images is not None and other.packs[0].images is not None
    assert torch.equal(batch.packs[0].images, other.packs[0].images) and torch.equal(batch.labels, other.labels)


@pytest.mark.slow
def test_an_unreadable_image_is_counted_and_named(tmp_path: Path) -> None:
    out = write_corpus(tmp_path / "corpus", documents=8, held_out=2, broken=1)
    recipe, prepared, _ = setting(out, tmp_path / "run", "data.packs_per_step=1")
    model = prepared.built.model
    stepper = Stepper(PackedForward(model), build_optimizer(model, recipe.optimizer), recipe, ONE, torch.float32)
    lines: list[str] = []
    for batch, after in Batches(recipe, prepared, ONE, Place(0, 0, 0)):
        lines += stepper.run(batch).unreadable
        if after.epoch:
            break
    assert lines and all(
        line.startswith(f"document {prepared.corpus.document(0).document_id}, image 0") for line in lines
    )
    with pytest.raises(CorruptRecordError, match="image 0"):
        setting(out, tmp_path / "strict", "data.strict=true")
