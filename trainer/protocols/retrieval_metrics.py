"""Ranks, what chance would give, and when a number is worth a claim."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from trainer.training.log import counted

Tensor = torch.Tensor

CUTOFFS = (1, 5, 10)
CHUNK = 1024  # queries scored at a time
RESAMPLES = 2000


def ranks(queries: Tensor, candidates: Tensor, targets: Sequence[int], also: Sequence[Sequence[int]]) -> list[float]:
    """Rank of every query's target among the candidates, 1 is best.

    queries (Q, D) and candidates (C, D) unit vectors; `also` lists other right answers of a query, which do not
    count against it. Ties share their mean rank, so that a collapsed model scores chance and not 1; a score that is
    not finite comes last, since NaN compares as neither more nor less and would be first.
    """
    found: list[float] = []
    for start in range(0, len(queries), CHUNK):
        scores = (queries[start : start + CHUNK] @ candidates.T).double()
        for row, target, others in zip(scores, targets[start:], also[start:], strict=False):
            wanted = row[target]
            counted = torch.ones_like(row, dtype=torch.bool)
            counted[[target, *others]] = False
            if wanted.isfinite():
                row = row[counted & row.isfinite()]
                found.append(1 + float((row > wanted).sum()) + 0.5 * float((row == wanted).sum()))
            else:
                found.append(1 + float(counted.sum()))
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
        return f"no claim: {counted(n, 'query', 'queries')} among {counted(candidates, 'candidate')}: too few"
    deviation = math.sqrt((candidates**2 - 1) / (12 * n))
    z = ((candidates + 1) / 2 - sum(found) / n) / deviation
    if abs(z) < 2.576:
        return "not distinguishable from chance"
    return "better than chance" if z > 0 else "worse than chance"


@dataclass(frozen=True)
class Change:
    """After minus before for the same queries, with 99% intervals of a paired bootstrap over queries.

    rank: mean rank as a share of the candidates, negative is better; mrr: mean reciprocal rank, positive is better.
    The claim is about rank, which a few hundred queries can move; reciprocal rank hangs on the handful at the top.
    """

    rank: float
    rank_low: float
    rank_high: float
    mrr: float
    mrr_low: float
    mrr_high: float
    claim: str


def change(before: Sequence[float], after: Sequence[float], candidates: int, minimum: int) -> Change:
    """What training changed for the same queries, and whether the interval leaves out zero."""
    if not before or len(before) != len(after):
        nothing = math.nan
        return Change(nothing, nothing, nothing, nothing, nothing, nothing, "no claim: no common queries")
    first, last = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
    rank, rank_low, rank_high = _interval((last - first) / candidates)
    mrr, mrr_low, mrr_high = _interval(1 / last - 1 / first)
    if len(before) < minimum:
        claim = f"no claim: {counted(len(before), 'query', 'queries')}: too few"
    elif rank_high < 0:
        claim = "improved"
    elif rank_low > 0:
        claim = "worse"
    else:
        claim = "no change that the queries can show"
    return Change(rank, rank_low, rank_high, mrr, mrr_low, mrr_high, claim)


def _interval(difference: np.ndarray[Any, np.dtype[np.float64]]) -> tuple[float, float, float]:
    """(mean, low, high) of a mean by the bootstrap, seeded by the number of queries alone."""
    generator = np.random.Generator(np.random.PCG64(len(difference)))
    means = difference[generator.integers(0, len(difference), (RESAMPLES, len(difference)))].mean(axis=1)
    low, high = np.quantile(means, (0.005, 0.995))
    return float(difference.mean()), float(low), float(high)
