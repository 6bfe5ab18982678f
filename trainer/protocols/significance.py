"""Intervals and tests by page: queries of one page are alike, so the page is what was drawn, and what is drawn again.

Every function takes one number a page (pages that are near-duplicates or share a picture count as one). Nothing is
said of fewer than FEWEST_PAGES pages. All draws are seeded by the number of pages alone.

Sources: cluster bootstrap, Field & Welsh (2007), "Bootstrapping clustered data", JRSS B 69(3); percentile intervals,
Efron & Tibshirani (1993), "An Introduction to the Bootstrap", ch. 13, their levels widened for few units by Hesterberg
(2015), "What Teachers Should Know About the Bootstrap"; sign flips, ibid. ch. 15 and Fisher (1935), "The
Design of Experiments", sec. 21; p-values of drawn permutations, Phipson & Smyth (2010), SAGMB 9(1) 39.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy.stats import norm, t

FloatArray = npt.NDArray[np.float64]

LEVEL = 0.01  # of every test: a run makes seven claims
CONFIDENCE = 0.95  # of every interval
# With one page less the smallest p-value there is, 2 / 2^7, is above LEVEL.
FEWEST_PAGES = 8
RESAMPLES = 2000
FLIPS = 9999
_ENUMERATED = 12  # pages up to which all flips are tried
_CHUNK = 2**22  # numbers at a time


def sign_flip_test(sums: FloatArray) -> float:
    """Two-sided p-value, in (0, 1], of "each page's sum (P,) is as likely as its negative".

    The statistic is the total over pages. Exact under that hypothesis, whatever the pages' sizes and however alike a
    page's queries are. 1.0 for no pages.
    """
    pages = len(sums)
    if not pages:
        return 1.0
    total = float(sums.sum())
    least = abs(total) * (1 - 1e-9)  # the same total in another order of adding
    if pages <= _ENUMERATED:
        flipped = (np.arange(2**pages)[:, None] >> np.arange(pages) & 1).astype(bool)
        return float((np.abs(total - 2 * (flipped @ sums)) >= least).mean())
    generator = np.random.Generator(np.random.PCG64(pages))
    extreme, step = 1, max(1, _CHUNK // pages)
    for start in range(0, FLIPS, step):
        flipped = generator.integers(0, 2, (min(step, FLIPS - start), pages), dtype=bool)
        extreme += int((np.abs(total - 2 * (flipped @ sums)) >= least).sum())
    return extreme / (FLIPS + 1)


@lru_cache(maxsize=2)
def resampled(pages: int) -> FloatArray:
    """How often each page is drawn in each resample: float64 (RESAMPLES, P), not to be written to."""
    generator = np.random.Generator(np.random.PCG64(pages))
    drawn = generator.multinomial(pages, np.full(pages, 1 / pages), RESAMPLES).astype(np.float64)
    drawn.flags.writeable = False
    return drawn


def interval(pages: int, figure: Callable[[FloatArray], FloatArray]) -> tuple[float, float]:
    """(low, high) at CONFIDENCE of a figure; NaN for fewer than FEWEST_PAGES pages.

    `figure` maps draws (RESAMPLES, P) as from `resampled` to the figure of each, (RESAMPLES,).
    """
    if pages < FEWEST_PAGES:
        return math.nan, math.nan
    tail = norm.cdf(math.sqrt(pages / (pages - 1)) * t.ppf((1 - CONFIDENCE) / 2, pages - 1))
    low, high = np.quantile(figure(resampled(pages)), (tail, 1 - tail))
    return float(low), float(high)


def mean_interval(sums: FloatArray, counts: FloatArray) -> tuple[float, float]:
    """`interval` of a mean over queries, sum of `sums` (P,) / sum of `counts` (P,)."""
    return interval(len(sums), lambda drawn: (drawn @ sums) / (drawn @ counts))


def by_page(values: npt.ArrayLike, pages: npt.ArrayLike) -> FloatArray:
    """Sums of values (Q,) over the queries of each page that has any, in the order of page numbers: (P,)."""
    _, place = np.unique(np.asarray(pages, dtype=np.int64), return_inverse=True)
    return np.bincount(place, weights=np.asarray(values, dtype=np.float64)).astype(np.float64)
