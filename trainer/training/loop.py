"""The training loop: the same on one process, under torchrun and under Ray Train."""

from __future__ import annotations

import shutil
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from trainer.data.collate import StepBatch
from trainer.errors import TOLD, NoSpace, NotFiniteError, Terminated, UserError
from trainer.model.build import export
from trainer.model.interleaved import InterleavedForCausalLM
from trainer.parallel.ranks import Ranks, numerics, precision, wrap
from trainer.parallel.stop import Stop
from trainer.protocols.evaluations import AFTER, Evaluations
from trainer.protocols.held_out import Evaluator, choose
from trainer.recipe import Recipe, check_ranks
from trainer.training import checkpoint as checkpoints
from trainer.training.branch import take_up
from trainer.training.checkpoint import Place
from trainer.training.disk import room_for
from trainer.training.lock import check_seen, hold
from trainer.training.log import RunLog
from trainer.training.optimizer import build_optimizer
from trainer.training.outcome import Outcome, last_metrics
from trainer.training.prepare import Batches, Prepared, prepare
from trainer.training.step import PackedForward, Stepper, StepResult

# Steps in a row without a finite loss and gradient that end a run: one may be a bad batch, these are the weights.
MOST_SKIPPED = 3


def train(recipe: Recipe, ranks: Ranks, resume: str = "auto", allow_changes: bool = False) -> Outcome:
    """Run a recipe to its last step from wherever its checkpoints are; evaluates, exports, returns what it found.

    Raises UserError for the user's mistakes, a run folder that another trainer has among them, and Terminated after
    SIGTERM, with the steps done in a checkpoint: asked again, the run goes on where it was, be it in the evaluation
    after the last step. NotFiniteError, naming the step and a checkpoint that is good, when the model no longer gives
    finite numbers; NoSpace, naming the last checkpoint, when a disk is full. What ends one rank ends every rank.
    """
    check_ranks(recipe, ranks.world)
    out = Path(recipe.out)
    try:
        with room_for(out), Stop(ranks) as stop, ExitStack() as held:
            name, text = ranks.told(lambda: held.enter_context(hold(out)))
            stop.together(lambda: check_seen(out, name, text, ranks.rank))
            return _train(recipe, ranks, stop, resume, allow_changes)
    except NoSpace as error:
        there = checkpoints.list_checkpoints(out / "checkpoints")
        last = f"the last good checkpoint is {there[0]}" if there else "no step was kept yet"
        raise NoSpace(f"{error}; {last}: free space and run the same command to go on") from None


def _train(recipe: Recipe, ranks: Ranks, stop: Stop, resume: str, allow_changes: bool) -> Outcome:
    """`train` in a run folder that is ours."""
    out = Path(recipe.out)
    started = time.monotonic()
    ranks.told(lambda: _tidy(out, resume))
    found = _find(out / "checkpoints", resume, ranks, stop)
    with RunLog(out, recipe.optimizer.steps, ranks.first, recipe.log.tensorboard) as log:
        run = _set_up(recipe, ranks, log, stop, found, allow_changes)
        try:
            run.train(started)
            run.finish(started)
        except Terminated:
            where = run.keep()
            raise Terminated(f"SIGTERM: {where}, run the same command to go on") from None
    return Outcome(out, run.place.step, run.last or last_metrics(out), run.evaluations.results)


def _tidy(out: Path, resume: str) -> None:
    """Remove what killed trainers left half written, and all of the run but its cache when it starts over."""
    checkpoints.remove_unfinished(out / "checkpoints")
    if resume == "none":
        for old in ("checkpoints", "tensorboard", "model"):
            shutil.rmtree(out / old, ignore_errors=True)
        for old in ("metrics.jsonl", "evaluation.json"):
            (out / old).unlink(missing_ok=True)


def _find(folder: Path, resume: str, ranks: Ranks, stop: Stop) -> checkpoints.Checkpoint | None:
    """The checkpoint to go on from: the first rank chooses, every rank reads the same one or all raise UserError."""
    read: list[checkpoints.Checkpoint | None] = []

    def choose_one() -> tuple[Path, str] | None:
        found = checkpoints.find(folder, resume, print)
        read.append(found)
        return None if found is None else (found.path, found.check)

    chosen = ranks.told(choose_one)

    def read_it() -> checkpoints.Checkpoint | None:
        if chosen is None or ranks.first:
            return read[0] if read else None
        path, check = chosen
        who = f"rank {ranks.rank} on {socket.gethostname()}"
        try:
            found = checkpoints.read(path)
        except ValueError as error:
            raise UserError(f"{who} cannot read the checkpoint that rank 0 goes on from: {error}") from None
        if found.check != check:
            raise UserError(f"{who} finds another checkpoint at {path} than rank 0; it must be the same on every node")
        return found

    return stop.together(read_it)


def _set_up(
    recipe: Recipe,
    ranks: Ranks,
    log: RunLog,
    stop: Stop,
    found: checkpoints.Checkpoint | None,
    allow_changes: bool,
) -> Run:
    """A run with everything it needs, at the place of the checkpoint `found`; raises as `prepare`."""
    computed = numerics(recipe.parallel, ranks)
    if found:
        for line in checkpoints.compare_numerics(found, computed, allow_changes):
            log.say(line)
    try:
        prepared = prepare(recipe, ranks, log, stop, found, allow_changes)
    except Terminated:
        where = f"checkpoint at step {found.place.step}" if found else "no step was done yet"
        raise Terminated(f"SIGTERM: {where}, run the same command to go on") from None
    model = prepared.built.model
    nn.Module.to(model, ranks.device)
    optimizer = build_optimizer(model, recipe.optimizer)
    place = found.place if found else Place(0, 0, 0)
    if found:
        checkpoints.restore_optimizer(found, optimizer)
        log.say(f"resuming from {found.path} at step {place.step}")
        for line in ranks.told(lambda: take_up(Path(recipe.out), found)):
            log.say(line)
    ranks.told(lambda: log.open(place.step))
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
    evaluations = Evaluations(Path(recipe.out), evaluator, log)
    return Run(recipe, ranks, log, stop, prepared, computed, stepper, evaluations, place, place)


@dataclass
class Run:
    """A run between two steps."""

    recipe: Recipe
    ranks: Ranks
    log: RunLog
    stop: Stop
    prepared: Prepared
    numerics: dict[str, Any]  # trainer.parallel.ranks.numerics
    stepper: Stepper
    evaluations: Evaluations
    place: Place
    saved: Place  # of the newest checkpoint; nothing to save at the start
    last: dict[str, Any] = field(default_factory=dict)  # metrics of the last step
    named: set[str] = field(default_factory=set)  # unreadable images that were said already
    skipped: int = 0  # steps in a row, up to the last one
    problem: BaseException | None = None  # what this rank met and the others are yet to be told

    @property
    def _model(self) -> InterleavedForCausalLM:
        return self.prepared.built.model

    def train(self, started: float) -> None:
        """All steps that are left, with checkpoints and evaluations; Terminated after SIGTERM."""
        steps, every = self.recipe.optimizer.steps, self.recipe.evaluation.every
        if self.place.step == 0:
            self._evaluate("before")
        if self.place.step >= steps:
            return  # a finished run that is started again needs no batch
        self._written(self.evaluations.reopen)
        batches = iter(Batches(self.recipe, self.prepared, self.ranks, self.place))
        clock = time.monotonic()
        while self.place.step < steps:
            batch, after = self._next(batches)
            result = self.stepper.run(batch)
            now = time.monotonic()
            self.place = after
            self._show(metrics(result, after, now - clock, started), result.unreadable)
            clock = now
            self._watch(result)
            if after.step % self.recipe.checkpoint.every == 0 or after.step == steps:
                self.keep()
            if every and after.step % every == 0 and after.step < steps:
                self._evaluate(f"step {after.step}")
                clock = time.monotonic()
        self.stop.agree(self.problem)

    def _next(self, batches: Iterator[tuple[StepBatch, Place]]) -> tuple[StepBatch, Place]:
        """The next batch, after a word with the other ranks: raises on every rank what kept one from going on."""
        found: tuple[StepBatch, Place] | None = None
        try:
            found = next(batches)
        except TOLD as error:
            self.problem = self.problem or error
        self.stop.agree(self.problem)
        assert found is not None
        return found

    def _written(self, write: Callable[[], None]) -> None:
        """What writes evaluation.json on the first rank; when it cannot, every rank raises."""
        problem: BaseException | None = None
        try:
            with room_for(self.evaluations.path):
                write()
        except (OSError, NoSpace) as error:
            problem = error
        self.stop.agree(problem)

    def _show(self, values: dict[str, Any], unreadable: tuple[str, ...]) -> None:
        step = self.place.step
        write = step == self.recipe.optimizer.steps or (step - 1) % self.recipe.log.every == 0
        try:
            self.log.step(step - 1, values, write)
        except (OSError, NoSpace) as error:
            self.problem = error
        for line in dict.fromkeys(unreadable):
            if line not in self.named:
                self.named.add(line)
                self.log.say(f"unreadable image, trained as grey: {line}")
        self.last = values

    def _watch(self, result: StepResult) -> None:
        """Raise NotFiniteError after MOST_SKIPPED steps in a row that had to be skipped."""
        self.skipped = self.skipped + 1 if result.skipped else 0
        if self.skipped >= MOST_SKIPPED:
            first = self.place.step - self.skipped + 1
            raise NotFiniteError(
                f"from step {first} on loss or gradient is not finite ({self.skipped} steps in a row); "
                # What step `first` met was made by the step before it.
                f"{self._way_back(first - 2)}"
            )

    def _evaluate(self, moment: str) -> None:
        """Record an evaluation; NotFiniteError says of which step and where to go on from."""
        step = self.place.step
        try:
            self._written(lambda: self.evaluations.record(moment, step, self._model))
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
        if self.saved != self.place and not self.skipped:
            self.ranks.told(self._save)
            self.saved = self.place
        return f"checkpoint at step {self.saved.step}" if self.saved.step else "no step was done yet"

    def _save(self) -> None:
        checkpoints.save(
            Path(self.recipe.out) / "checkpoints",
            self._model,
            self.stepper.optimizer,
            self.place,
            self.prepared.corpus.hash,
            self.recipe.model_dump(mode="json"),
            self.numerics,
            self.prepared.built.asset_prefixes,
            self.recipe.checkpoint.keep,
        )

    def finish(self, started: float) -> None:
        """Export and evaluate, unless an earlier start did; Terminated after SIGTERM, however far it came."""
        model = Path(self.recipe.out) / "model"
        if not self.ranks.told(lambda: AFTER in self.evaluations.results and (model / "config.json").is_file()):
            self.stop.agree()
            # Before the evaluation is written: what has one was exported with these weights.
            self.ranks.told(lambda: export(self._model, self.prepared.built.tokenizer, model))
            try:
                self._evaluate(AFTER)
            except NotFiniteError:
                if self.ranks.first:
                    shutil.rmtree(model, ignore_errors=True)
                raise
        settings, seconds = self.recipe.model_dump(mode="json"), time.monotonic() - started
        self._written(lambda: self.evaluations.finish(self.prepared.corpus, settings, seconds))
        self.stop.agree()


def metrics(result: StepResult, place: checkpoints.Place, seconds: float, started: float) -> dict[str, Any]:
    """A step's line for the log: flat numbers."""
    values = {name: value for name, value in asdict(result).items() if name not in ("statistics", "unreadable")}
    return {
        **values,
        **result.statistics,
        "skipped": int(result.skipped),
        "unreadable_images": len(result.unreadable),
        "epoch": place.epoch,
        "seconds": round(seconds, 4),
        "elapsed": round(time.monotonic() - started, 3),
        "tokens_per_second": round(result.tokens / max(seconds, 1e-9), 1),
        "images_per_second": round(result.images / max(seconds, 1e-9), 2),
    }
