"""Ranks, what chance would give by the same rule, and when a number is worth a claim.

The rule. A query has one right answer or several, among N candidates; its rank is that of the best of them (a hit is
any of them, as COCO's captions are scored). Candidates of equal score stand in every order with equal probability, so
that a query gives not one rank but a distribution over 1 .. N, and every figure is one of the mean distribution of the
queries: its median, the mean of 1 / rank, its share of ranks up to k. Chance is the same figure where all candidates
of every query have the same score, which makes the rank of the best of m right ones among N the smallest of m numbers
drawn from 1 .. N without replacement (negative hypergeometric: mean (N + 1) / (m + 1)).

Claims do not rest on the best rank: its mean depends on how alike the right answers of a query are. They rest on how
many of the wrong candidates the right ones stand before (Mann & Whitney, 1947), on average one half for an order that
knows nothing of what is right, however alike the answers of a page are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from trainer.protocols.significance import (
    FEWEST_PAGES,
    LEVEL,
    FloatArray,
    by_page,
    interval,
    mean_interval,
    sign_flip_test,
)

Tensor = torch.Tensor

CUTOFFS = (1, 5, 10)
CHUNK = 1024  # queries scored at a time
FEWEST_CANDIDATES = 10
NO_CHANGE = "no change that the pages can show"
_EVEN = 1e-9  # a share this close to one half is one half

Interval = tuple[float, float]


@dataclass(frozen=True)
class Standing:
    """Where a query's right answers stand among its candidates.

    above: candidates before the best right answer; tied: candidates of its score, itself among them; right: how many
    of those are right. ahead: share of the wrong candidates that a right answer stands before, ties half, mean over
    the right answers; 1/2 where no candidate is wrong.
    """

    above: int
    tied: int
    right: int
    ahead: float

    @property
    def rank(self) -> float:
        """Mean rank of the best right answer, 1 is best."""
        return self.above + (self.tied + 1) / (self.right + 1)


@lru_cache(maxsize=4096)
def _best_of(right: int, among: int) -> FloatArray:
    """Probability that the first of `right` items is at place 1 .. `among` of a random order: (among,)."""
    place = np.arange(1, among)
    none_yet = np.cumprod(np.concatenate([[1.0], np.maximum(0.0, 1 - right / (among - place + 1))]))
    found: FloatArray = none_yet * np.minimum(1.0, right / (among - np.arange(among)))
    return found


def standings(queries: Tensor, candidates: Tensor, right: Sequence[Sequence[int]]) -> list[Standing]:
    """Where every query's right answers stand among the candidates.

    queries (Q, D) and candidates (C, D) unit vectors; `right`: candidates that answer each query, at least one. A
    score that is not finite comes last and ties with none, since NaN compares as neither more nor less.
    """
    found: list[Standing] = []
    for start in range(0, len(queries), CHUNK):
        scores = (queries[start : start + CHUNK] @ candidates.T).double().numpy()
        for row, answers in zip(scores, right[start : start + CHUNK], strict=True):
            found.append(_standing(row, np.asarray(sorted(set(answers)))))
    return found


def _standing(scores: FloatArray, answers: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Standing:
    is_wrong = np.ones(len(scores), dtype=bool)
    is_wrong[answers] = False
    wrong, good = scores[is_wrong], scores[answers]
    total, right = len(wrong), len(answers)
    wrong, good = np.sort(wrong[np.isfinite(wrong)]), good[np.isfinite(good)]
    below = np.searchsorted(wrong, good, "left")
    upto = np.searchsorted(wrong, good, "right")
    broken = total - len(wrong)
    ahead = float((broken + (below + upto) / 2).sum()) / (total * right) if total else 0.5
    if not len(good):
        return Standing(total, 1, 1, ahead)
    best = int(good.argmax())
    ties = int(upto[best] - below[best])
    equal = int((good == good[best]).sum())
    return Standing(len(wrong) - int(upto[best]), ties + equal, equal, ahead)


@dataclass(frozen=True)
class Figures:
    """Figures of one set of queries; shares 0 .. 1."""

    median_rank: float
    mrr: float
    recall: dict[str, float]  # "1", "5", "10"


@dataclass(frozen=True)
class Intervals:
    """(low, high) of each figure by the bootstrap over pages, NaN where there are too few."""

    median_rank: Interval
    mrr: Interval
    recall: dict[str, Interval]


def _distributions(found: Sequence[Standing], candidates: int, pages: Sequence[int]) -> FloatArray:
    """Rank distributions of the queries summed by page: (P, candidates), in the order of page numbers."""
    numbers, place = np.unique(np.asarray(pages, dtype=np.int64), return_inverse=True)
    sums = np.zeros((len(numbers), candidates))
    for one, page in zip(found, place, strict=True):
        sums[page, one.above : one.above + one.tied] += _best_of(one.right, one.tied)
    return sums


def _medians(distributions: FloatArray) -> FloatArray:
    """Medians of unnormalised distributions (B, N) over ranks: (B,), midway where one half lies between two ranks."""
    shares = np.cumsum(distributions, axis=1)
    shares /= shares[:, -1:]
    low, high = (shares >= 0.5 - _EVEN).argmax(axis=1), (shares > 0.5 + _EVEN).argmax(axis=1)
    middle: FloatArray = (low + high) / 2 + 1.0
    return middle


def _means(distributions: FloatArray) -> dict[str, FloatArray]:
    """ "mrr" and each cutoff's recall, not yet divided by the number of queries, of distributions (B, N): (B,)."""
    found: dict[str, FloatArray] = {"mrr": distributions @ (1 / np.arange(1, distributions.shape[1] + 1))}
    return {**found, **{str(k): distributions[:, :k].sum(axis=1) for k in CUTOFFS}}


def summarize(found: Sequence[Standing], candidates: int) -> Figures:
    """Median rank, mean reciprocal rank and R@k of queries among `candidates`; NaN without queries."""
    if not found:
        return Figures(math.nan, math.nan, {str(k): math.nan for k in CUTOFFS})
    whole = _distributions(found, candidates, [0] * len(found))
    means = {name: float(total[0]) / len(found) for name, total in _means(whole).items()}
    return Figures(float(_medians(whole)[0]), means.pop("mrr"), means)


def chance(right: Sequence[int], candidates: int) -> Figures:
    """The same figures for orders drawn at random; `right`: number of right answers of each query."""
    return summarize([Standing(0, candidates, number, 0.5) for number in right], candidates)


def intervals(found: Sequence[Standing], candidates: int, pages: Sequence[int]) -> Intervals:
    """Intervals of `summarize`'s figures; `pages`: number of each query's page."""
    counts = by_page(np.ones(len(found)), pages)
    sums = _distributions(found, candidates, pages)
    means = {name: mean_interval(total, counts) for name, total in _means(sums).items()} if found else {}
    nothing = (math.nan, math.nan)
    return Intervals(
        interval(len(counts), lambda drawn: _medians(drawn @ sums)),
        means.get("mrr", nothing),
        {str(k): means.get(str(k), nothing) for k in CUTOFFS},
    )


@dataclass(frozen=True)
class Claim:
    """What may be said of a figure: its mean over queries, its interval over pages, the p-value, and the words."""

    mean: float
    low: float
    high: float
    p: float
    claim: str


def _claim(sums: FloatArray, counts: FloatArray, refused: str, better: str, worse: str, neither: str) -> Claim:
    """Test by page whether the mean, sum of `sums` (P,) / sum of `counts` (P,), is zero.

    `refused` is why nothing is claimed, "" where something may be.
    """
    mean = float(sums.sum() / counts.sum()) if len(sums) else math.nan
    low, high = mean_interval(sums, counts)
    if refused:
        return Claim(mean, low, high, math.nan, refused)
    p = sign_flip_test(sums)
    return Claim(mean, low, high, p, neither if p > LEVEL else better if mean > 0 else worse)


def claim_against_chance(found: Sequence[Standing], candidates: int, pages: Sequence[int], minimum: int) -> Claim:
    """Whether right answers stand before wrong ones more often than not, by a sign flip of pages at LEVEL.

    mean, low, high: share of wrong candidates that a right answer stands before, 1/2 by chance. No claim below
    `minimum` queries, FEWEST_CANDIDATES candidates or FEWEST_PAGES pages. Exact where a page's queries are as likely
    as their negatives, which turn every order around; where all vectors lean one way, so that some candidates are
    first for every query, what one page gains another loses, and the test errs on the side of saying nothing.
    """
    number = len(set(pages))
    enough = len(found) >= minimum and candidates >= FEWEST_CANDIDATES and number >= FEWEST_PAGES
    refused = "no claim: too few queries, pages or candidates"
    tested = _claim(
        by_page([one.ahead - 0.5 for one in found], pages),
        by_page(np.ones(len(found)), pages),
        "" if enough else refused,
        "better than chance",
        "worse than chance",
        "not distinguishable from chance",
    )
    return Claim(tested.mean + 0.5, tested.low + 0.5, tested.high + 0.5, tested.p, tested.claim)


def change(before: Sequence[float], after: Sequence[float], pages: Sequence[int], minimum: int) -> Claim:
    """What training changed for the same queries: `ahead` after minus before, paired, by a sign flip of pages.

    Under the hypothesis that training changed nothing, a page's before and after may be exchanged.
    """
    number = len(set(pages))
    enough = len(before) >= minimum and number >= FEWEST_PAGES
    refused = "no claim: too few queries or pages"
    sums = by_page([last - first for first, last in zip(before, after, strict=True)], pages)
    counts = by_page(np.ones(len(before)), pages)
    return _claim(sums, counts, "" if enough else refused, "improved", "worse", NO_CHANGE)


def loss_change(before: Sequence[float], after: Sequence[float], tokens: Sequence[int]) -> Claim:
    """Change of the mean loss of a token; before, after: summed losses of each page, in nats; tokens: its targets.

    mean, low, high in nats a token, negative is better. Tested as `change`, whatever a page's number of tokens.
    """
    sums = np.asarray(after, dtype=np.float64) - np.asarray(before, dtype=np.float64)
    refused = "" if len(sums) >= FEWEST_PAGES else "no claim: too few pages"
    return _claim(sums, np.asarray(tokens, dtype=np.float64), refused, "higher", "lower", NO_CHANGE)
