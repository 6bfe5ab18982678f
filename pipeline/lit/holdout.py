"""A split that does not leak: pairs that look or read alike, or stand on one page, stay on one side of it."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.lit.pairs import Pair
from stages.dedup.components import component_roots
from stages.encoders.protocol import Floats

MAX_DISTANCE = 5  # bits of 64 between the perceptual hashes of one cluster's pictures
MIN_COSINE = 0.92  # of the tower's features
# Larger clusters are themes of the collections ("flags"), which would be most of a hold-out.
MAX_HELD_OUT = 50
BLOCK = 500


def clusters(pairs: Sequence[Pair], images: Floats, hashes: Sequence[str]) -> NDArray[np.int64]:
    """Cluster of each pair: same page, same words but for digits, close perceptual hash, or close features."""
    alike = [*_equal((pair.source, pair.page) for pair in pairs), *_equal(wording(pair.texts[0]) for pair in pairs)]
    bits = np.array([int(value, 16) for value in hashes], dtype=np.uint64)
    unit = images / np.linalg.norm(images, axis=1, keepdims=True)
    for start in range(0, len(pairs), BLOCK):
        block = slice(start, start + BLOCK)
        near = np.bitwise_count(bits[block, None] ^ bits[None]) <= MAX_DISTANCE
        near |= unit[block] @ unit.T > MIN_COSINE
        alike += [(start + first, second) for first, second in np.argwhere(near).tolist()]
    ends = np.array(alike, dtype=np.int64).reshape(-1, 2)
    return component_roots(len(pairs), ends[:, 0], ends[:, 1])


def _equal(keys: Iterable[Hashable]) -> list[tuple[int, int]]:
    """Each row with the first of equal key, but for empty keys."""
    first: dict[Hashable, int] = {}
    return [(first.setdefault(key, row), row) for row, key in enumerate(keys) if key]


def wording(text: str) -> str:
    """Letters of a text, in lower case."""
    return re.sub(r"[\W\d_]+", " ", text.lower()).strip()


def split(groups: NDArray[np.int64], count: int, seed: int) -> tuple[NDArray[np.int64], list[int]]:
    """Rows to train on, and one row of each of `count` clusters that were drawn and left out whole."""
    names, sizes = np.unique(groups, return_counts=True)
    drawn = np.random.default_rng(seed).permutation(names[sizes <= MAX_HELD_OUT])[:count]
    training = np.flatnonzero(~np.isin(groups, drawn))
    # A cluster is named by its smallest row: the one that is asked for.
    return training, sorted(int(name) for name in drawn)
