"""What a run works on, ready before its first step: corpus, model, rows, images, and the batches made of them."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from torch.utils.data import DataLoader, Dataset

from trainer.data.collate import StepBatch, StepDataset
from trainer.data.corpus import check_shards, open_corpus
from trainer.data.features import FeatureSource, ImageSource, PixelSource, build_features, feature_folder
from trainer.data.pack_plan import Plan, plan_epoch
from trainer.data.rows import Limits, Row, load_rows
from trainer.data.shards import ShardCorpus
from trainer.errors import CorruptRecordError, UserError
from trainer.keys import weights_key
from trainer.model.build import Built, build_model
from trainer.parallel.ranks import Ranks
from trainer.parallel.stop import Stop
from trainer.recipe import Recipe
from trainer.training import checkpoint as checkpoints
from trainer.training.log import RunLog, counted

NAMED = 10  # corrupt label vectors, or kinds of negatives, that are named one by one


@dataclass
class Prepared:
    """What a run works on."""

    corpus: ShardCorpus
    built: Built
    rows: list[Row]  # all segments
    training: list[Row]  # those to train on
    images: ImageSource


def prepare(
    recipe: Recipe,
    ranks: Ranks,
    log: RunLog,
    stop: Stop | None = None,
    found: checkpoints.Checkpoint | None = None,
    allow_changes: bool = False,
) -> Prepared:
    """Corpus, model (with the weights of the checkpoint `found`), rows and images.

    Hashes, token counts and features are kept in the run's cache; the ranks make them together, part by part.
    Raises UserError for a corpus or recipe that gives nothing to train on, or that is not the checkpoint's unless
    `allow_changes`; CorruptRecordError for an unreadable image or label vector if the recipe is strict; Terminated
    after SIGTERM.
    """
    stop = stop or Stop(ranks)
    cache = Path(recipe.out) / "cache"
    corpus = stop.together(lambda: open_corpus(recipe.corpus, cache))
    for rank, content in enumerate(ranks.gather(corpus.hash)):
        if content != corpus.hash:
            raise UserError(f"rank {rank} sees another corpus at {recipe.corpus!r}; it must be the same on every node")
    held = f"{counted(len(corpus), 'document')} in {counted(len(corpus.shards), 'shard')}"
    log.say(f"corpus {corpus.folder} version {corpus.version}: {held}")
    if corpus.listed is None:
        log.say(f"{corpus.folder} has no manifest: its shards are taken as they are")
    built = stop.together(lambda: _build(recipe, corpus, found, allow_changes))
    check_shards(corpus, cache, stop)
    limits = Limits(recipe.data.document_tokens, built.vocabulary.image_tokens, built.tokenizer_key)
    rows = load_rows(corpus, built.vocabulary, limits, cache, stop)
    _say_left_out(rows, log)
    _say_corrupt([line for row in rows for line in row.corrupt], recipe.data.strict, log)
    training = [row for row in rows if row.split == "train" and (row.images or not recipe.data.only_with_images)]
    if not training:
        raise UserError(f"corpus {recipe.corpus!r} has no document with slices in its train split")
    return Prepared(corpus, built, rows, training, _images(recipe, corpus, built, ranks, stop, cache))


def _say_left_out(rows: list[Row], log: RunLog) -> None:
    """One line on the negatives that training has no use for."""
    kinds: Counter[str] = Counter()
    for row in rows:
        kinds.update(dict(row.left_out))
    if kinds:
        number = counted(kinds.total(), "negative")
        of = ", ".join(f"{kind[:40]!a} ({count:,})" for kind, count in kinds.most_common(NAMED))
        log.say(f"{number} left out, as only mined ones are placed beside their anchors: {of}")


def _build(recipe: Recipe, corpus: ShardCorpus, found: checkpoints.Checkpoint | None, allow_changes: bool) -> Built:
    """The recipe's model, with the weights of the checkpoint `found`; UserError as `prepare`."""
    if found and not allow_changes:
        checkpoints.check_same_run(found, corpus.hash, recipe.model_dump(mode="json"))
    built = build_model(recipe.model, recipe.seed)
    if found:
        checkpoints.restore(found, built.model, built.asset_prefixes)
    least = built.vocabulary.image_tokens + 2
    if recipe.data.document_tokens < least:
        raise UserError(f"data.document_tokens {recipe.data.document_tokens}: an image alone takes {least}")
    return built


def _say_corrupt(lines: list[str], strict: bool, log: RunLog) -> None:
    """Name corrupt label vectors, whose slices are trained as text and pictures alone; with `strict` the first ends
    the run as CorruptRecordError."""
    if lines and strict:
        raise CorruptRecordError(lines[0])
    for line in lines[:NAMED]:
        log.say(f"corrupt label vector, left out of the structure loss: {line}")
    if len(lines) > NAMED:
        log.say(f"{len(lines) - NAMED} more corrupt label vectors are left out")


def _images(recipe: Recipe, corpus: ShardCorpus, built: Built, ranks: Ranks, stop: Stop, cache: Path) -> ImageSource:
    """Pixels, or features where the tower is frozen and they are to be kept."""
    vision = recipe.model.vision
    pixels = PixelSource(vision.image_size, recipe.data.strict)
    if vision.train or not vision.cache_features:
        return pixels
    # Of the weights as they are now: a tower started from random numbers may come out of a checkpoint.
    tower_key = weights_key(built.model.vision.state_dict())
    folder = feature_folder(cache, corpus, tower_key, vision.image_size)
    tower = built.model.vision.to(ranks.device).eval()
    return FeatureSource(folder, build_features(folder, corpus, tower, pixels, ranks.device, stop), recipe.data.strict)


def plan_for(recipe: Recipe, training: list[Row], epoch: int) -> Plan:
    """The plan of one epoch; UserError when the training split fills no step."""
    data = recipe.data
    plan = plan_epoch(training, recipe.seed, epoch, data.pack_tokens, data.packs_per_step, data.views)
    if not plan.steps:
        raise UserError(
            f"{counted(len(training), 'training segment')} cannot fill a step of "
            f"{counted(data.packs_per_step, 'pack')}; lower data.packs_per_step"
        )
    return plan


class _Told(Dataset[StepBatch | CorruptRecordError]):
    """A dataset whose corrupt records come as items: a worker's exceptions arrive with a traceback in their text."""

    def __init__(self, steps: StepDataset) -> None:
        self.steps = steps

    def __getitem__(self, index: int) -> StepBatch | CorruptRecordError:
        try:
            return self.steps[index]
        except CorruptRecordError as error:
            return error


def _leave_signals(worker: int) -> None:
    """Signals to the whole group of processes are the trainer's to answer, and its workers end with it."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


@dataclass
class Batches:
    """The run's batches from any place in it, epoch after epoch."""

    recipe: Recipe
    prepared: Prepared
    ranks: Ranks
    at: checkpoints.Place

    def __iter__(self) -> Iterator[tuple[StepBatch, checkpoints.Place]]:
        """Batches with the place that holds once they are done."""
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
                _Told(dataset),
                batch_size=None,
                sampler=range(index, len(plan.steps)),
                num_workers=self.recipe.data.workers,
                pin_memory=False,
                worker_init_fn=_leave_signals,
            )
            for batch in loader:
                if isinstance(batch, CorruptRecordError):
                    raise batch
                step, index = step + 1, index + 1
                if index == len(plan.steps):
                    epoch, index = epoch + 1, 0
                yield batch, checkpoints.Place(step, epoch, index)
