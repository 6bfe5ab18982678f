"""The training loop: the same on one process, under torchrun and under Ray Train."""

from __future__ import annotations

import json
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn
from torch.utils.data import DataLoader

from trainer import checkpoint as checkpoints
from trainer.data.collate import StepBatch, StepDataset
from trainer.data.features import FeatureSource, ImageSource, PixelSource, build_features, feature_path
from trainer.data.plan import Plan, plan_epoch
from trainer.data.rows import Limits, Row, load_rows
from trainer.data.shards import Corpus, open_corpus
from trainer.errors import Terminated, UserError
from trainer.evaluate import Evaluator, choose
from trainer.log import RunLog, plain
from trainer.model.build import Built, build_model, export
from trainer.optimizer import build_optimizer
from trainer.outcome import Outcome, last_metrics
from trainer.parallel import Ranks, precision, wrap
from trainer.recipe import Recipe
from trainer.retrieval_metrics import change
from trainer.step import PackedForward, Stepper, StepResult


@dataclass
class Prepared:
    """What a run works on, ready before the first step."""

    corpus: Corpus
    built: Built
    rows: list[Row]  # all segments
    training: list[Row]  # those to train on
    images: ImageSource


def prepare(recipe: Recipe, ranks: Ranks, log: RunLog) -> Prepared:
    """Corpus, model, rows and images; files in the run's cache are written by the first rank.

    Raises UserError for a corpus or recipe that gives nothing to train on.
    """
    corpus = open_corpus(recipe.corpus)
    log.say(f"corpus {corpus.folder} version {corpus.version}: {len(corpus)} documents in {len(corpus.shards)} shards")
    built = build_model(recipe.model, recipe.seed)
    image_tokens = built.vocabulary.image_tokens
    if recipe.data.document_tokens < image_tokens + 2:
        raise UserError(f"data.document_tokens {recipe.data.document_tokens}: an image alone takes {image_tokens + 2}")
    cache = Path(recipe.out) / "cache"
    limits = Limits(recipe.data.document_tokens, image_tokens, built.tokenizer_name)
    rows = ranks.broadcast(load_rows(corpus, built.vocabulary, limits, cache) if ranks.first else None)
    training = [row for row in rows if row.split == "train" and (row.images or not recipe.data.only_with_images)]
    if not training:
        raise UserError(f"corpus {recipe.corpus!r} has no document with slices in its train split")
    pixels = PixelSource(recipe.model.vision.image_size, recipe.data.strict)
    images: ImageSource = pixels
    if recipe.model.vision.cache_features and not recipe.model.vision.train:
        path = feature_path(cache, corpus, built.tower_name, recipe.model.vision.image_size)
        if ranks.first:
            tower = built.model.vision.to(ranks.device).eval()
            build_features(path, corpus, rows, tower, pixels, ranks.device)
        ranks.wait()
        images = FeatureSource(path)
    return Prepared(corpus, built, rows, training, images)


def plan_for(recipe: Recipe, training: list[Row], epoch: int) -> Plan:
    """The plan of one epoch; UserError when the training split fills no step."""
    data = recipe.data
    plan = plan_epoch(training, recipe.seed, epoch, data.pack_tokens, data.packs_per_step, data.views)
    if not plan.steps:
        raise UserError(
            f"{len(training)} training segments fill no step of {data.packs_per_step} packs; lower data.packs_per_step"
        )
    return plan


@dataclass
class Batches:
    """The run's batches from any place in it, epoch after epoch."""

    recipe: Recipe
    prepared: Prepared
    ranks: Ranks
    at: checkpoints.Progress

    def __iter__(self) -> Iterator[tuple[StepBatch, checkpoints.Progress]]:
        """Batches with the progress that holds once they are done."""
        step, epoch, index = self.at.step, self.at.epoch, self.at.index
        while True:
            plan = plan_for(self.recipe, self.prepared.training, epoch)
            dataset = StepDataset(
                self.prepared.corpus,
                self.prepared.training,
                plan,
                self.prepared.built.vocabulary,
                self.prepared.images,
                self.recipe.objective,
                self.recipe.data.document_tokens,
                self.recipe.seed,
                step - index,
                self.ranks.rank,
                self.ranks.world,
            )
            loader = DataLoader(
                dataset,
                batch_size=None,
                sampler=range(index, len(plan.steps)),
                num_workers=self.recipe.data.workers,
                pin_memory=False,
            )
            for batch in loader:
                step, index = step + 1, index + 1
                if index == len(plan.steps):
                    epoch, index = epoch + 1, 0
                yield batch, checkpoints.Progress(step, epoch, index)


def train(recipe: Recipe, ranks: Ranks, resume: str = "auto", allow_changes: bool = False) -> Outcome:
    """Run a recipe to its last step from wherever its checkpoints are; evaluates, exports, returns what it found.

    Raises UserError for the user's mistakes and Terminated after SIGTERM, with a checkpoint on disk.
    """
    if recipe.data.packs_per_step % ranks.world:
        raise UserError(f"data.packs_per_step {recipe.data.packs_per_step} is not a multiple of {ranks.world} ranks")
    out = Path(recipe.out)
    started = time.monotonic()
    if ranks.first and resume == "none":
        for old in ("checkpoints", "tensorboard", "model"):
            shutil.rmtree(out / old, ignore_errors=True)
        for old in ("metrics.jsonl", "evaluation.json"):
            (out / old).unlink(missing_ok=True)
    ranks.wait()
    settings = recipe.model_dump(mode="json")
    found = checkpoints.find(out / "checkpoints", resume, lambda line: print(line) if ranks.first else None)
    with RunLog(out, recipe.optimizer.steps, ranks.first, recipe.log.tensorboard) as log, _Sigterm() as sigterm:
        prepared = prepare(recipe, ranks, log)
        built, model = prepared.built, prepared.built.model
        nn.Module.to(model, ranks.device)
        optimizer = build_optimizer(model, recipe.optimizer)
        progress = checkpoints.Progress(0, 0, 0)
        if found:
            if not allow_changes:
                checkpoints.check_same_run(found, prepared.corpus.hash, settings)
            checkpoints.restore(found, model, optimizer, built.asset_prefixes)
            progress = found.progress
            log.say(f"resuming from {found.path} at step {progress.step}")
        log.rewind(progress.step)
        dtype = precision(recipe.parallel, ranks.device)
        evaluator = Evaluator(
            prepared.corpus,
            choose(prepared.corpus, prepared.rows, recipe),
            built.vocabulary,
            prepared.images,
            built.tokenizer,
            recipe,
            ranks.device,
            dtype,
        )
        evaluation = _Evaluation(out, evaluator, ranks, log, recipe)
        if progress.step == 0:
            evaluation.record("before", 0, model)
        stepper = Stepper(wrap(PackedForward(model), ranks), optimizer, recipe, ranks, dtype)

        def keep() -> None:
            if ranks.first:
                folder = out / "checkpoints"
                checkpoints.save(
                    folder, model, optimizer, progress, prepared.corpus.hash, settings, built.asset_prefixes,
                    recipe.checkpoint.keep,
                )  # fmt: skip
            ranks.wait()

        last: dict[str, Any] = {}
        saved = progress.step
        clock = time.monotonic()
        # A finished run that is started again trains nothing, and needs no batch.
        batches = (
            iter(Batches(recipe, prepared, ranks, progress)) if progress.step < recipe.optimizer.steps else iter(())
        )
        for batch, after in batches:
            result = stepper.run(batch)
            now = time.monotonic()
            progress = after
            last = metrics(result, progress, now - clock, started)
            clock = now
            done = progress.step == recipe.optimizer.steps
            log.step(progress.step - 1, last, done or (progress.step - 1) % recipe.log.every == 0)
            for line in result.unreadable:
                log.say(f"unreadable image, trained as grey: {line}")
            if progress.step % recipe.checkpoint.every == 0 or done:
                keep()
                saved = progress.step
            if ranks.any(sigterm.received):
                if saved != progress.step:
                    keep()
                raise Terminated(f"SIGTERM: checkpoint at step {progress.step}, run the same command to go on")
            if done:
                break
            if recipe.evaluation.every and progress.step % recipe.evaluation.every == 0:
                evaluation.record(f"step {progress.step}", progress.step, model)
                clock = time.monotonic()
        if "after" not in evaluation.results or progress.step > evaluation.results["after"]["step"] or last:
            evaluation.record("after", progress.step, model)
            if ranks.first:
                export(model, built.tokenizer, out / "model")
        if not last:
            last = last_metrics(out)
        evaluation.finish(prepared.corpus, settings, time.monotonic() - started)
    ranks.wait()
    return Outcome(out, progress.step, last, evaluation.results)


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


class _Evaluation:
    """evaluation.json of a run: one entry a moment, and what changed between the first and the last."""

    def __init__(self, out: Path, evaluator: Evaluator, ranks: Ranks, log: RunLog, recipe: Recipe) -> None:
        self.path, self.evaluator, self.ranks, self.log, self.recipe = (
            out / "evaluation.json",
            evaluator,
            ranks,
            log,
            recipe,
        )
        self.results: dict[str, Any] = {}
        if self.path.is_file():
            self.results = json.loads(self.path.read_text(encoding="utf-8"))

    def record(self, moment: str, step: int, model: Any) -> None:
        """Evaluate on the first rank while the others wait."""
        if self.ranks.first:
            started = time.monotonic()
            found = self.evaluator.run(model)
            seconds = round(time.monotonic() - started, 2)
            self.results[moment] = {"step": step, "seconds": seconds, **found}
            self._write()
            loss = found["perplexity"]["loss"]
            shown = "no held-out text" if loss is None else f"held-out loss {loss:.4f}"
            self.log.say(f"evaluation {moment}: {shown} ({seconds:.0f} s)")
        self.ranks.wait()

    def finish(self, corpus: Corpus, settings: dict[str, Any], seconds: float) -> None:
        """Add what changed, the recipe and the corpus."""
        if not self.ranks.first:
            return
        before, after = self.results.get("before"), self.results.get("after")
        if before and after:
            self.results["change"] = {
                name: asdict(
                    change(
                        before["retrieval"][name]["ranks"],
                        after["retrieval"][name]["ranks"],
                        after["retrieval"][name]["candidates"],
                        self.recipe.evaluation.minimum_queries,
                    )
                )
                for name in after["retrieval"]
            }
        self.results["run"] = {
            "recipe": settings,
            "corpus": {"folder": str(corpus.folder), "version": corpus.version, "shards": corpus.hash},
            "seconds": round(seconds, 1),
        }
        self._write()

    def _write(self) -> None:
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text(json.dumps(plain(self.results), indent=1), encoding="utf-8")
        temporary.replace(self.path)


class _Sigterm:
    """Remembers SIGTERM while a run lasts; elsewhere than in the main thread (a Ray worker) it only looks on."""

    def __init__(self) -> None:
        self.received = False
        self._before: Any = None

    def __enter__(self) -> _Sigterm:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._receive)
        return self

    def _receive(self, number: int, frame: Any) -> None:
        self.received = True

    def __exit__(self, *error: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)
