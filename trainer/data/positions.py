"""Positions of a step: which slice ends become retrieval vectors, and the label sequences they stand for.

Drawn by (seed, step, document), not by rank, so that every rank knows the whole step's positions without asking.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from alignment import Positions, Slices
from trainer.data.pack_plan import seeded
from trainer.data.rows import Row
from trainer.data.shards import Document
from trainer.recipe import ObjectiveRecipe


class PositionBuilder:
    """Collects the step's positions in pack order, and the label vectors they refer to."""

    def __init__(self, objective: ObjectiveRecipe) -> None:
        self.objective = objective
        self.sequence: list[int] = []
        self.end: list[int] = []
        # Of every sequence: its slices, its document, and how many slices that has in all.
        self.sequences: list[list[int]] = []
        self.document: list[int] = []
        self.whole: list[int] = []
        self.slice_index: dict[tuple[int, int], int] = {}
        self.is_image: list[bool] = []
        self.vectors: list[tuple[Any, Any]] = []

    def __len__(self) -> int:
        return len(self.end)

    def add(self, document: Document, row: Row, views: tuple[int, ...], seed: int, step: int) -> tuple[int, ...]:
        """Draws a segment's positions and returns their slices; the views' positions follow them."""
        primary, shared = document.vectors("primary"), document.vectors("shared")
        inside = range(row.segment.first, row.segment.last)
        usable = [i for i in inside if document.has_vectors[i]]
        order = sorted(usable[:-1], key=lambda i: seeded("position", seed, step, row.document_id, i))
        chosen = sorted([*order[: self.objective.num_positions - 1], *usable[-1:]])

        def vector(piece: int) -> int:
            key = (row.document, piece)
            if key not in self.slice_index:
                self.slice_index[key] = len(self.vectors)
                self.vectors.append((primary[piece], shared[piece]))
                self.is_image.append(document.slices[piece].is_image)
            return self.slice_index[key]

        def sequence(pieces: list[int], whole: int, ends: list[int]) -> None:
            self.sequence += [len(self.sequences)] * len(ends)
            self.end += ends
            self.sequences.append([vector(piece) for piece in pieces])
            self.document.append(row.document)
            self.whole.append(whole)

        if chosen:
            sequence(usable, sum(document.has_vectors), [usable.index(piece) for piece in chosen])
        for piece in views:
            # A bare slice is a sequence of its own: nothing before it, and nothing after it in its document.
            sequence([piece], 1, [0])
        return tuple(chosen)

    def finish(self) -> tuple[Positions, Slices]:
        """The step's positions and vectors, padded."""
        width = max((len(sequence) for sequence in self.sequences), default=1)
        slices = torch.zeros(len(self.sequences), width, dtype=torch.int64)
        for i, sequence in enumerate(self.sequences):
            slices[i, : len(sequence)] = torch.tensor(sequence, dtype=torch.int64)
        positions = Positions(
            slices=slices,
            lengths=torch.tensor([len(sequence) for sequence in self.sequences], dtype=torch.int64),
            sequence=torch.tensor(self.sequence, dtype=torch.int64),
            end=torch.tensor(self.end, dtype=torch.int64),
            document=torch.tensor(self.document, dtype=torch.int64),
            whole=torch.tensor(self.whole, dtype=torch.int64),
        )
        stacked = [_stack([pair[which] for pair in self.vectors]) for which in (0, 1)]
        return positions, Slices(stacked[0], stacked[1], torch.tensor(self.is_image, dtype=torch.bool))


def _stack(vectors: list[Any]) -> torch.Tensor:
    """Vectors of various dimensions, zero-padded to the widest: float32 (X, D)."""
    width = max((len(vector) for vector in vectors), default=1)
    padded = np.zeros((len(vectors), width), np.float32)
    for i, vector in enumerate(vectors):
        padded[i, : len(vector)] = vector
    return torch.from_numpy(padded)
