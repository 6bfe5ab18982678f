"""Ranks, what chance would give, and when a number is worth a claim."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

Tensor = torch.Tensor

CUTOFFS = (1, 5, 10)
CHUNK = 1024  # queries scored at a time
RESAMPLES = 2000


def ranks(queries: Tensor, candidates: Tensor, targets: Sequence[int], also: Sequence[Sequence[int]]) -> list[float]:
    """Rank of every query's target among the candidates, 1 is best.

    queries (Q, D) and candidates (C, D) unit vectors; `also` lists other right answers of a query, which do not
    count against it. Ties share their mean rank, so that a collapsed model scores chance and not 1.
    """
    found: list[float] = []
    for start in range(0, len(queries), CHUNK):
        scores = (queries[start : start + CHUNK] @ candidates.T).double()
        for row, target, others in zip(scores, targets[start:], also[start:], strict=False):
            wanted = row[target]
            row = row.clone()
            row[[target, *others]] = -math.inf
            found.append(1 + float((row > wanted).sum()) + 0.5 * float((row == wanted).sum()))
    return found


@dataclass(frozen=True)
class Summary:
    """Retrieval over one set of queries; shares 0 .. 1."""

    n: int
    candidates: int
    median_rank: float
    mrr: float
    recall: dict[str, float]  # "1", "5", "10"


def summarize(found: Sequence[float], candidates: int) -> Summary:
    """Median rank, mean reciprocal rank and R@k of ranks among `candidates`."""
    values = np.asarray(found, dtype=np.float64)
    if not len(values):
        return Summary(0, candidates, math.nan, math.nan, {str(k): math.nan for k in CUTOFFS})
    recall = {str(k): float((values <= k).mean()) for k in CUTOFFS}
    return Summary(len(values), candidates, float(np.median(values)), float((1 / values).mean()), recall)


def chance(n: int, candidates: int) -> Summary:
    """The same figures for an order drawn at random: (c + 1) / 2, H_c / c and k / c."""
    if not candidates:
        return summarize([], 0)
    harmonic = sum(1 / i for i in range(1, candidates + 1))
    recall = {str(k): min(1.0, k / candidates) for k in CUTOFFS}
    return Summary(n, candidates, (candidates + 1) / 2, harmonic / candidates, recall)


def claim_against_chance(found: Sequence[float], candidates: int, minimum: int) -> str:
    """One sentence: better than chance, not distinguishable from it, or too few queries to say.

    The mean rank of n random orders of c candidates is normal with mean (c + 1) / 2 and variance
    (c^2 - 1) / 12 n; two-sided at 1%.
    """
    n = len(found)
    if n < minimum or candidates < 10:
        return f"no claim: {n} queries among {candidates} candidates are too few"
    deviation = math.sqrt((candidates**2 - 1) / (12 * n))
    z = ((candidates + 1) / 2 - sum(found) / n) / deviation
    if abs(z) < 2.576:
        return "not distinguishable from chance"
    return "better than chance" if z > 0 else "worse than chance"


@dataclass(frozen=True)
class Change:
    """After minus before in mean reciprocal rank, with a 95% interval of a paired bootstrap over queries."""

    mrr: float
    low: float
    high: float
    claim: str


def change(before: Sequence[float], after: Sequence[float], minimum: int) -> Change:
    """What training changed for the same queries, and whether the interval leaves out zero."""
    if not before or len(before) != len(after):
        return Change(math.nan, math.nan, math.nan, "no claim: no common queries")
    difference = 1 / np.asarray(after) - 1 / np.asarray(before)
    generator = np.random.Generator(np.random.PCG64(len(difference)))
    means = difference[generator.integers(0, len(difference), (RESAMPLES, len(difference)))].mean(axis=1)
    low, high = (float(value) for value in np.quantile(means, (0.025, 0.975)))
    if len(difference) < minimum:
        claim = f"no claim: {len(difference)} queries are too few"
    elif low > 0:
        claim = "improved"
    elif high < 0:
        claim = "worse"
    else:
        claim = "no change that the queries can show"
    return Change(float(difference.mean()), low, high, claim)
