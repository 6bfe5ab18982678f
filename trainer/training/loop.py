"""The training loop: the same on one process, under torchrun and under Ray Train."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from trainer.data.collate import StepBatch
from trainer.errors import NotFiniteError, Terminated, UserError
from trainer.model.build import export
from trainer.model.interleaved import InterleavedForCausalLM
from trainer.parallel.ranks import Ranks, precision, wrap
from trainer.parallel.stop import Stop
from trainer.protocols.evaluations import AFTER, Evaluations
from trainer.protocols.held_out import Evaluator, choose
from trainer.recipe import Recipe
from trainer.training import checkpoint as checkpoints
from trainer.training.checkpoint import Progress
from trainer.training.log import RunLog
from trainer.training.optimizer import build_optimizer
from trainer.training.outcome import Outcome, last_metrics
from trainer.training.prepare import Batches, Prepared, prepare
from trainer.training.step import PackedForward, Stepper, StepResult

# Steps in a row without a finite loss and gradient that end a run: one may be a bad batch, these are the weights.
MOST_SKIPPED = 3


def train(recipe: Recipe, ranks: Ranks, resume: str = "auto", allow_changes: bool = False) -> Outcome:
    """Run a recipe to its last step from wherever its checkpoints are; evaluates, exports, returns what it found.

    Raises UserError for the user's mistakes and Terminated after SIGTERM, with the steps done in a checkpoint: asked
    again, the run goes on where it was, be it in the evaluation after the last step. NotFiniteError, naming the
    step and a checkpoint that is good, when the model no longer gives finite numbers.
    """
    if recipe.data.packs_per_step % ranks.world:
        raise UserError(f"data.packs_per_step {recipe.data.packs_per_step} is not a multiple of {ranks.world} ranks")
    out = Path(recipe.out)
    started = time.monotonic()
    with Stop(ranks) as stop:
        if ranks.first:
            _tidy(out, resume)
        ranks.wait()
        found = checkpoints.find(out / "checkpoints", resume, lambda line: print(line) if ranks.first else None)
        with RunLog(out, recipe.optimizer.steps, ranks.first, recipe.log.tensorboard) as log:
            run = _set_up(recipe, ranks, log, stop, found, allow_changes)
            try:
                run.train(started)
                run.finish(started)
            except Terminated:
                where = run.keep()
                raise Terminated(f"SIGTERM: {where}, run the same command to go on") from None
    return Outcome(out, run.progress.step, run.last or last_metrics(out), run.evaluations.results)


def _tidy(out: Path, resume: str) -> None:
    """Remove what killed trainers left half written, and all of the run but its cache when it starts over."""
    checkpoints.remove_unfinished(out / "checkpoints")
    if resume == "none":
        for old in ("checkpoints", "tensorboard", "model"):
            shutil.rmtree(out / old, ignore_errors=True)
        for old in ("metrics.jsonl", "evaluation.json"):
            (out / old).unlink(missing_ok=True)


def _set_up(
    recipe: Recipe,
    ranks: Ranks,
    log: RunLog,
    stop: Stop,
    found: checkpoints.Checkpoint | None,
    allow_changes: bool,
) -> Run:
    """A run with everything it needs, at the place of the checkpoint `found`; raises as `prepare`."""
    try:
        prepared = prepare(recipe, ranks, log, stop, found, allow_changes)
    except Terminated:
        where = f"checkpoint at step {found.progress.step}" if found else "no step was done yet"
        raise Terminated(f"SIGTERM: {where}, run the same command to go on") from None
    model = prepared.built.model
    nn.Module.to(model, ranks.device)
    optimizer = build_optimizer(model, recipe.optimizer)
    progress = found.progress if found else Progress(0, 0, 0)
    if found:
        checkpoints.restore_optimizer(found, optimizer)
        log.say(f"resuming from {found.path} at step {progress.step}")
    log.rewind(progress.step)
    dtype = precision(recipe.parallel, ranks.device)
    evaluator = Evaluator(
        prepared.corpus,
        choose(prepared.corpus, prepared.rows, recipe),
        prepared.built.vocabulary,
        prepared.images,
        prepared.built.tokenizer,
        recipe,
        dtype,
        ranks,
        stop,
    )
    stepper = Stepper(wrap(PackedForward(model), ranks), optimizer, recipe, ranks, dtype)
    return Run(
        recipe, ranks, log, stop, prepared, stepper, Evaluations(Path(recipe.out), evaluator, log), progress, progress
    )


@dataclass
class Run:
    """A run between two steps."""

    recipe: Recipe
    ranks: Ranks
    log: RunLog
    stop: Stop
    prepared: Prepared
    stepper: Stepper
    evaluations: Evaluations
    progress: Progress
    saved: Progress  # of the newest checkpoint; nothing to save at the start
    last: dict[str, Any] = field(default_factory=dict)  # metrics of the last step
    named: set[str] = field(default_factory=set)  # unreadable images that were said already
    skipped: int = 0  # steps in a row, up to the last one

    @property
    def _model(self) -> InterleavedForCausalLM:
        return self.prepared.built.model

    def train(self, started: float) -> None:
        """All steps that are left, with checkpoints and evaluations; Terminated after SIGTERM."""
        steps, every = self.recipe.optimizer.steps, self.recipe.evaluation.every
        if self.progress.step == 0:
            self._evaluate("before")
        if self.progress.step >= steps:
            return  # a finished run that is started again needs no batch
        self.evaluations.reopen()
        clock = time.monotonic()
        for batch, after in self._batches():
            result = self.stepper.run(batch)
            now = time.monotonic()
            self.progress = after
            self._show(metrics(result, after, now - clock, started), result.unreadable)
            clock = now
            self._watch(result)
            if after.step % self.recipe.checkpoint.every == 0 or after.step == steps:
                self.keep()
            self.stop.agree()
            if after.step == steps:
                break
            if every and after.step % every == 0:
                self._evaluate(f"step {after.step}")
                clock = time.monotonic()

    def _batches(self) -> Iterator[tuple[StepBatch, Progress]]:
        return iter(Batches(self.recipe, self.prepared, self.ranks, self.progress))

    def _show(self, values: dict[str, Any], unreadable: tuple[str, ...]) -> None:
        step = self.progress.step
        write = step == self.recipe.optimizer.steps or (step - 1) % self.recipe.log.every == 0
        self.log.step(step - 1, values, write)
        for line in dict.fromkeys(unreadable):
            if line not in self.named:
                self.named.add(line)
                self.log.say(f"unreadable image, trained as grey: {line}")
        self.last = values

    def _watch(self, result: StepResult) -> None:
        """Raise NotFiniteError after MOST_SKIPPED steps in a row that had to be skipped."""
        self.skipped = self.skipped + 1 if result.skipped else 0
        if self.skipped >= MOST_SKIPPED:
            first = self.progress.step - self.skipped + 1
            raise NotFiniteError(
                f"from step {first} on loss or gradient is not finite ({self.skipped} steps in a row); "
                # What step `first` met was made by the step before it.
                f"{self._way_back(first - 2)}"
            )

    def _evaluate(self, moment: str) -> None:
        """Record an evaluation; NotFiniteError says of which step and where to go on from."""
        step = self.progress.step
        try:
            self.evaluations.record(moment, step, self._model)
        except NotFiniteError as error:
            raise NotFiniteError(f"step {step}: {error}; {self._way_back(step - 1)}") from None

    def _way_back(self, step: int) -> str:
        """Where to go on from, when the weights were known to be good after `step` steps; below 0, never."""
        if step < 0:
            return "it starts that way: the fault is in model.text.source or the objective"
        there = checkpoints.list_checkpoints(Path(self.recipe.out) / "checkpoints")
        good = next((path for path in there if checkpoints.step_of(path) <= step), None)
        if good is None:
            return "no checkpoint is from before: lower the learning rates and start over with --resume none"
        return f"the last good checkpoint is {good}: lower the learning rates and go on from it with --resume {good}"

    def keep(self) -> str:
        """A checkpoint of the steps done, unless there is one; says where the run can go on from.

        While steps are skipped there is none, so that those kept are from before.
        """
        if self.saved != self.progress and not self.skipped:
            if self.ranks.first:
                checkpoints.save(
                    Path(self.recipe.out) / "checkpoints",
                    self._model,
                    self.stepper.optimizer,
                    self.progress,
                    self.prepared.corpus.hash,
                    self.recipe.model_dump(mode="json"),
                    self.prepared.built.asset_prefixes,
                    self.recipe.checkpoint.keep,
                )
            self.saved = self.progress
            self.ranks.wait()
        return f"checkpoint at step {self.saved.step}" if self.saved.step else "no step was done yet"

    def finish(self, started: float) -> None:
        """Export and evaluate, unless an earlier start did; Terminated after SIGTERM, however far it came."""
        model = Path(self.recipe.out) / "model"
        exported = (model / "config.json").is_file()
        self.ranks.wait()
        if AFTER not in self.evaluations.results or not exported:
            self.stop.agree()
            # Before the evaluation is written: what has one was exported with these weights.
            if self.ranks.first:
                export(self._model, self.prepared.built.tokenizer, model)
            self.ranks.wait()
            try:
                self._evaluate(AFTER)
            except NotFiniteError:
                if self.ranks.first:
                    shutil.rmtree(model, ignore_errors=True)
                raise
        self.evaluations.finish(self.prepared.corpus, self.recipe.model_dump(mode="json"), time.monotonic() - started)
        self.stop.agree()


def metrics(result: StepResult, progress: checkpoints.Progress, seconds: float, started: float) -> dict[str, Any]:
    """A step's line for the log: flat numbers."""
    values = {name: value for name, value in asdict(result).items() if name not in ("statistics", "unreadable")}
    return {
        **values,
        **result.statistics,
        "skipped": int(result.skipped),
        "unreadable_images": len(result.unreadable),
        "epoch": progress.epoch,
        "seconds": round(seconds, 4),
        "elapsed": round(time.monotonic() - started, 3),
        "tokens_per_second": round(result.tokens / max(seconds, 1e-9), 1),
        "images_per_second": round(result.images / max(seconds, 1e-9), 2),
    }
