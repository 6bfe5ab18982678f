"""A planned step to tensors: packs for this rank, and the positions and label vectors of the whole step.

Everything that can be wrong with a document is found here, on the CPU, where the message can name it; the model
only scatters and gathers by the indices made here, without looking at values.
Letters: S tokens of a pack, I images, P positions of the step, X label slices of the step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.utils.data import Dataset

from trainer.data.features import ImageSource
from trainer.data.layout import Encoded, Vocabulary, encode_segment, sentence_ids
from trainer.data.pack_plan import Pack, Plan, seeded
from trainer.data.positions import PositionBuilder
from trainer.data.rows import Row
from trainer.data.shards import Document, ShardCorpus
from trainer.objective.labels import label_lengths, label_rows, pair_weights
from trainer.objective.structure import pair_scale
from trainer.recipe import ObjectiveRecipe


@dataclass(frozen=True)
class PackTensors:
    """One pack, sequences end to end.

    input_ids, position_ids int64 (S,); lengths: tokens of each sequence. images: pixels uint8 (I, 3, H, W) or
    features float32 (I, tokens, dim), None without images; image_slots int64 (I * image tokens,): where they go.
    target_slots, target_ids int64: the token at slot predicts the id. state_slots, state_of int64: slots whose
    mean hidden state is the state of position `state_of` (index in this pack); num_states: positions of the pack.
    """

    number: int  # of the pack in its step
    input_ids: torch.Tensor
    position_ids: torch.Tensor
    lengths: tuple[int, ...]
    images: torch.Tensor | None
    image_slots: torch.Tensor
    target_slots: torch.Tensor
    target_ids: torch.Tensor
    state_slots: torch.Tensor
    state_of: torch.Tensor
    num_states: int
    unreadable: tuple[str, ...] = ()

    def to(self, device: torch.device) -> PackTensors:
        """The same on another device."""
        moved: dict[str, Any] = {
            name: value.to(device, non_blocking=True)
            for name, value in vars(self).items()
            if isinstance(value, torch.Tensor)
        }
        return replace(self, **moved)

    @property
    def num_images(self) -> int:
        """Images in the pack."""
        return 0 if self.images is None else len(self.images)


@dataclass(frozen=True)
class PackedSequence:
    """One sequence to pack: its tokens, the images it shows, the slices whose states are wanted, and its targets."""

    encoded: Encoded
    images: tuple[tuple[Document, int], ...]  # in token order
    states: tuple[int, ...]
    targets: bool  # whether its text is predicted


@dataclass(frozen=True)
class StepBatch:
    """What one rank needs for one step.

    labels float32 (rows, P): m^l of this rank's positions against all; weights float32 (P, P): pairs that count;
    row_start: this rank's first position; counts: positions of every pack of the step, over all ranks.
    lengths int64 (rows,): slices of the label sequences of this rank's positions.
    """

    step: int
    packs: tuple[PackTensors, ...]
    counts: tuple[int, ...]
    row_start: int
    labels: torch.Tensor
    weights: torch.Tensor
    lengths: torch.Tensor
    scale: float


def pack(
    sequences: Sequence[PackedSequence], vocabulary: Vocabulary, images: ImageSource, number: int = 0
) -> PackTensors:
    """Sequences end to end; positions restart at 0 in each, and nothing refers across them."""
    ids: list[int] = []
    places: list[int] = []
    lengths: list[int] = []
    pictures: list[torch.Tensor] = []
    problems: list[str] = []
    targets: list[int] = []
    slots: list[int] = []
    owners: list[int] = []
    states = 0
    for sequence in sequences:
        start, tokens = len(ids), sequence.encoded.ids
        ids += tokens
        places += range(len(tokens))
        lengths.append(len(tokens))
        shown = sum(token == vocabulary.image for token in tokens)
        if shown != len(sequence.images) * vocabulary.image_tokens:
            names = {document.document_id for document, _ in sequence.images}
            raise ValueError(
                f"document {', '.join(sorted(names))}: {shown} image tokens for {len(sequence.images)} images of "
                f"{vocabulary.image_tokens} tokens"
            )
        for document, image in sequence.images:
            picture, problem = images.image(document, image)
            pictures.append(picture)
            if problem:
                problems.append(problem)
        if sequence.targets:
            targets += [start + i for i in range(1, len(tokens)) if tokens[i] != vocabulary.image]
        for piece in sequence.states:
            first, last = sequence.encoded.spans[piece]
            slots += range(start + first, start + last)
            owners += [states] * (last - first)
            states += 1
    input_ids = torch.tensor(ids, dtype=torch.int64)
    predicted = torch.tensor(targets, dtype=torch.int64)
    return PackTensors(
        number=number,
        input_ids=input_ids,
        position_ids=torch.tensor(places, dtype=torch.int64),
        lengths=tuple(lengths),
        images=torch.stack(pictures) if pictures else None,
        image_slots=(input_ids == vocabulary.image).nonzero()[:, 0],
        target_slots=predicted - 1,
        target_ids=input_ids[predicted],
        state_slots=torch.tensor(slots, dtype=torch.int64),
        state_of=torch.tensor(owners, dtype=torch.int64),
        num_states=states,
        unreadable=tuple(problems),
    )


def segment_sequence(
    document: Document, row: Row, vocabulary: Vocabulary, limit: int, states: tuple[int, ...]
) -> PackedSequence:
    """A segment of a document, its text to be predicted."""
    encoded = encode_segment(document, row.segment, vocabulary, limit)
    if len(encoded.ids) != row.tokens:
        raise ValueError(f"document {row.document_id}: {len(encoded.ids)} tokens where the plan counted {row.tokens}")
    shown = [i for i in range(row.segment.first, row.segment.last) if document.slices[i].is_image]
    return PackedSequence(encoded, tuple((document, document.image_of(i)) for i in shown), states, True)


def view_sequence(document: Document, index: int, vocabulary: Vocabulary, limit: int) -> PackedSequence:
    """A bare slice, as a retrieval query or candidate looks; its text is not predicted."""
    ids = sentence_ids(document, index, vocabulary, limit)
    if document.slices[index].is_image:
        span = (len(ids) - vocabulary.image_tokens, len(ids))
        return PackedSequence(Encoded(ids, {index: span}), ((document, document.image_of(index)),), (index,), False)
    return PackedSequence(Encoded(ids, {index: (len(ids) - 1, len(ids))}), (), (index,), False)


def text_sequence(text: str, vocabulary: Vocabulary, limit: int) -> PackedSequence:
    """A text as a bare sentence looks: the same tokens as `view_sequence` of a slice of that text."""
    ids = [vocabulary.document, *vocabulary.tokenizer.encode(text)[:limit]]
    return PackedSequence(Encoded(ids, {0: (len(ids) - 1, len(ids))}), (), (0,), False)


class StepDataset(Dataset[StepBatch]):
    """Item i is step i of an epoch's plan, for one rank; map-style, so nothing is lost on a restart."""

    def __init__(
        self,
        corpus: ShardCorpus,
        rows: Sequence[Row],
        plan: Plan,
        vocabulary: Vocabulary,
        images: ImageSource,
        objective: ObjectiveRecipe,
        document_tokens: int,
        seed: int,
        first_step: int,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.corpus, self.rows, self.plan, self.vocabulary = corpus, rows, plan, vocabulary
        self.images, self.objective, self.limit = images, objective, document_tokens - 2
        self.seed, self.first_step, self.rank, self.world = seed, first_step, rank, world

    def __len__(self) -> int:
        return len(self.plan.steps)

    def __getitem__(self, index: int) -> StepBatch:
        step = self.first_step + index
        packs = self.plan.steps[index]
        builder = PositionBuilder(self.objective)
        documents: dict[int, Document] = {}
        counts: list[int] = []
        wanted: list[list[tuple[int, ...]]] = []
        for content in packs:
            before = len(builder)
            states = []
            for entry in content:
                row = self.rows[entry.row]
                document = documents.setdefault(row.document, self.corpus.document(row.document))
                states.append(builder.add(document, row, entry.views, self.seed, step))
            wanted.append(states)
            counts.append(len(builder) - before)
        positions, vectors = builder.finish()
        share = len(packs) // self.world
        mine = range(self.rank * share, (self.rank + 1) * share)
        start = sum(counts[: mine.start])
        stop = start + sum(counts[mine.start : mine.stop])
        shuffle = seeded("shuffled", self.seed, step)
        weights = pair_weights(positions, self.objective)
        return StepBatch(
            step=step,
            packs=tuple(self._pack(packs[number], documents, wanted[number], number) for number in mine),
            counts=tuple(counts),
            row_start=start,
            labels=label_rows(positions, start, stop, vectors, self.objective, shuffle),
            weights=weights,
            lengths=label_lengths(positions, self.objective)[start:stop],
            scale=pair_scale(weights, self.objective.reduction),
        )

    def _pack(
        self, content: Pack, documents: dict[int, Document], states: list[tuple[int, ...]], number: int
    ) -> PackTensors:
        sequences = []
        for entry, chosen in zip(content, states, strict=True):
            row = self.rows[entry.row]
            document = documents[row.document]
            sequences.append(segment_sequence(document, row, self.vocabulary, self.limit, chosen))
            sequences += [view_sequence(document, view, self.vocabulary, self.limit) for view in entry.views]
        return pack(sequences, self.vocabulary, self.images, number)
