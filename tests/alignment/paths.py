"""Oracles that share no code with the library: every alignment, one by one; and memory that shows what reads it."""

import math
from collections.abc import Iterator
from functools import cache

import numpy as np
import torch


def alignments(n: int, m: int) -> Iterator[tuple[tuple[int, int], ...]]:
    """All monotone alignments from (0, 0) to (n - 1, m - 1)."""

    def onward(path: tuple[tuple[int, int], ...]) -> Iterator[tuple[tuple[int, int], ...]]:
        i, j = path[-1]
        if (i, j) == (n - 1, m - 1):
            yield path
        for step in ((1, 0), (1, 1), (0, 1)):
            if i + step[0] < n and j + step[1] < m:
                yield from onward((*path, (i + step[0], j + step[1])))

    yield from onward(((0, 0),))


def brute_soft_dtw(cost: np.ndarray, gamma: float) -> tuple[float, np.ndarray]:
    """Value and expected alignment from all paths."""
    paths = list(alignments(*cost.shape))
    sums = np.array([sum(cost[cell] for cell in path) for path in paths])
    least = sums.min()
    if math.isinf(least):
        return math.inf, np.zeros_like(cost)
    weights = np.exp(-(sums - least) / gamma)
    expected = np.zeros_like(cost)
    for path, weight in zip(paths, weights / weights.sum(), strict=True):
        for cell in path:
            expected[cell] += weight
    return float(least - gamma * math.log(weights.sum())), expected


@cache
def delannoy(n: int, m: int) -> int:
    """Number of alignments of n + 1 with m + 1 slices."""
    if n == 0 or m == 0:
        return 1
    return delannoy(n - 1, m) + delannoy(n, m - 1) + delannoy(n - 1, m - 1)


def poisoned(name, elements, dtype):
    """Scratch memory in which everything is NaN, or the smallest integer."""
    if dtype.is_floating_point:
        return torch.full((elements,), math.nan, dtype=dtype).numpy()
    return torch.full((elements,), torch.iinfo(dtype).min, dtype=dtype).numpy()
