"""What a recipe would do, without doing it: parameters, plan, and the time of one measured step."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from trainer.data.pack_plan import describe, plan_epoch
from trainer.parallel.ranks import precision, start, wrap
from trainer.parallel.stop import Stop
from trainer.recipe import Recipe
from trainer.training.checkpoint import Place
from trainer.training.lock import hold
from trainer.training.log import RunLog, counted
from trainer.training.optimizer import build_optimizer
from trainer.training.prepare import Batches, plan_for, prepare
from trainer.training.step import PackedForward, Stepper


def describe_run(recipe: Recipe) -> Iterator[str]:
    """Lines for people. Runs one step and throws it away; caches features and token counts in the run folder."""
    ranks = start(recipe.parallel)
    with ExitStack() as held:
        ranks.told(lambda: held.enter_context(hold(Path(recipe.out))))
        scratch = Path(held.enter_context(tempfile.TemporaryDirectory()))
        log = held.enter_context(RunLog(scratch, 1, True, False))
        prepared = prepare(recipe, ranks, log, held.enter_context(Stop(ranks)))
    model = prepared.built.model
    total = sum(parameter.numel() for parameter in model.parameters())
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    yield f"recipe {recipe.name}: {trained:,} of {total:,} parameters are trained"
    held_out = [row for row in prepared.rows if row.split == "held_out"]
    yield (
        f"corpus {prepared.corpus.version}: {counted(len(prepared.corpus), 'document')}, "
        f"{len(prepared.training)} training and {counted(len(held_out), 'held-out segment')} "
        f"of at most {recipe.data.document_tokens} tokens"
    )
    plan = plan_for(recipe, prepared.training, 0)
    blind = [dataclasses.replace(row, negatives=()) for row in prepared.training]
    data = recipe.data
    other = plan_epoch(blind, recipe.seed, 0, data.pack_tokens, data.packs_per_step, data.views)
    report = describe(prepared.training, plan, other, data.pack_tokens)
    yield (
        f"an epoch: {counted(report.steps, 'step')}, {counted(report.segments, 'segment')} "
        f"({report.left_out} left out), {counted(report.tokens, 'token')}, "
        f"{report.padding:.1%} of the packs empty, imbalance {report.imbalance:.1%}"
    )
    yield (
        f"segments with a mined negative in their step: {report.with_negative:.1%} "
        f"(a plan that ignores negatives: {report.with_negative_random:.1%})"
    )
    stepper = Stepper(
        wrap(PackedForward(model).to(ranks.device), ranks),
        build_optimizer(model, recipe.optimizer),
        recipe,
        ranks,
        precision(recipe.parallel, ranks.device),
    )
    batch, _ = next(iter(Batches(recipe, prepared, ranks, Place(0, 0, 0))))
    started = time.monotonic()
    result = stepper.run(batch)
    seconds = time.monotonic() - started
    yield (
        f"one step on {ranks.device}: {seconds:.2f} s, {counted(result.tokens, 'token')}, "
        f"{counted(result.images, 'image')}, {counted(result.positions, 'position')}, loss {result.loss:.4f}"
    )
    steps = recipe.optimizer.steps
    yield f"the whole run of {counted(steps, 'step')}: about {seconds * steps:.0f} s plus evaluation"
