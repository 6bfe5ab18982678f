"""Chance, intervals and claims hold for models that know nothing: by counting, and by simulating such models."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from trainer.protocols.retrieval_metrics import (
    Claim,
    Standing,
    chance,
    change,
    claim_against_chance,
    intervals,
    loss_change,
    standings,
    summarize,
)
from trainer.protocols.significance import FEWEST_PAGES, by_page, interval, mean_interval, resampled, sign_flip_test

TRIALS = 300
PAGES = 20
UNASKED = 5  # more pages, whose texts are nobody's right answer


@settings(derandomize=True, deadline=None, max_examples=40)
@given(st.integers(1, 7), st.data())
def test_chance_is_the_mean_over_all_orders(candidates: int, data: st.DataObject) -> None:
    right = data.draw(st.lists(st.integers(1, candidates), min_size=1, max_size=4))
    found = chance(right, candidates)
    # Every order of the candidates, the first m of which are right.
    by_order = [[1 + min(order[:m]) for order in itertools.permutations(range(candidates))] for m in right]
    means = [np.mean([1 / rank for rank in ranks]) for ranks in by_order]
    assert found.mrr == pytest.approx(np.mean(means))
    for k in (1, 5, 10):
        assert found.recall[str(k)] == pytest.approx(np.mean([np.mean(np.array(ranks) <= k) for ranks in by_order]))
    assert found.median_rank == pytest.approx(np.median(list(itertools.chain(*by_order))))
    for m in right:
        assert Standing(0, candidates, m, 0.5).rank == pytest.approx((candidates + 1) / (m + 1))


@settings(derandomize=True, deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=6), st.data())
def test_equal_scores_count_as_every_order_of_them(scores: list[int], data: st.DataObject) -> None:
    right = data.draw(st.sets(st.integers(0, len(scores) - 1), min_size=1))
    (found,) = standings(torch.ones(1, 1), torch.tensor(scores, dtype=torch.float32)[:, None], [sorted(right)])
    orders = [
        order
        for order in itertools.permutations(range(len(scores)))
        if all(scores[a] >= scores[b] for a, b in itertools.pairwise(order))
    ]
    ranks = [min(order.index(i) for i in right) + 1 for order in orders]
    assert found.rank == pytest.approx(np.mean(ranks))
    figures = summarize([found], len(scores))
    assert figures.mrr == pytest.approx(np.mean([1 / rank for rank in ranks]))
    assert figures.recall["1"] == pytest.approx(np.mean([rank == 1 for rank in ranks]))
    assert figures.median_rank == pytest.approx(np.median(ranks))
    wrong = [i for i in range(len(scores)) if i not in right]
    ahead = [(scores[i] > scores[j]) + (scores[i] == scores[j]) / 2 for i in right for j in wrong]
    assert found.ahead == pytest.approx(np.mean(ahead) if ahead else 0.5)


def test_a_collapsed_model_scores_chance_with_several_right_answers() -> None:
    same = torch.ones(12, 3)
    right = [[i, (i + 1) % 12] if i % 2 else [i] for i in range(12)]
    found = standings(same, same, right)
    assert summarize(found, 12) == chance([len(answers) for answers in right], 12)
    assert {one.ahead for one in found} == {0.5}


def test_scores_that_are_not_finite_come_last() -> None:
    nan, inf = math.nan, math.inf
    broken = torch.full((4, 3), nan)
    assert [(one.rank, one.ahead) for one in standings(broken, broken, [[0], [1], [2], [3]])] == [(4.0, 0.0)] * 4
    one = torch.ones(1, 1)
    candidates = torch.tensor([[0.1], [nan], [inf], [0.2]])
    assert [found.rank for found in standings(one, candidates, [[0]])] == [2.0]
    assert [found.rank for found in standings(one, candidates, [[0, 1]])] == [2.0]
    assert [found.rank for found in standings(one, candidates, [[0, 2]])] == [2.0]
    assert [found.rank for found in standings(one, candidates, [[2]])] == [4.0]
    assert [found.rank for found in standings(one, candidates, [[1, 2]])] == [3.0]


class Null:
    """Pages with pictures, each with one text or several, and models that know nothing of which belong together.

    Vectors of a page are alike (they share a part), and all of a kind lean one way, as a real model's do (`lean`).
    """

    def __init__(self, seed: int, lean: float) -> None:
        self.generator = np.random.Generator(np.random.PCG64(seed))
        self.lean = lean
        self.right: list[list[int]] = []
        texts: list[int] = []
        self.pages: list[int] = []
        for page in range(PAGES):
            for _ in range(self.generator.integers(1, 4)):
                count = int(self.generator.integers(1, 4))
                self.pages.append(page)
                self.right.append(list(range(len(texts), len(texts) + count)))
                texts += [page] * count
        texts += [PAGES + i // 2 for i in range(2 * UNASKED)]
        self.text_pages = texts

    def _vectors(self, pages: Sequence[int]) -> torch.Tensor:
        of_page, of_all = self.generator.normal(size=(PAGES + UNASKED, 8)), self.generator.normal(size=8)
        own = self.generator.normal(size=(len(pages), 8))
        return torch.from_numpy(2 * of_page[np.asarray(pages)] + own + self.lean * of_all)

    def model(self) -> list[Standing]:
        return standings(self._vectors(self.pages), self._vectors(self.text_pages), self.right)


def claimed(trials: Sequence[Claim], level: float) -> int:
    return sum(trial.p <= level for trial in trials)


def most(level: float) -> int:
    """More claims than these a right test makes once in ten thousand simulations."""
    return int(binom.ppf(1 - 1e-4, TRIALS, level))


def least(level: float) -> int:
    return int(binom.ppf(1e-4, TRIALS, level))


@pytest.mark.slow
@pytest.mark.parametrize("lean", [0.0, 3.0])
def test_models_that_know_nothing_are_claimed_better_no_more_often_than_the_level(lean: float) -> None:
    against, changed = [], []
    for seed in range(TRIALS):
        null = Null(seed, lean)
        before, after = null.model(), null.model()
        against.append(claim_against_chance(before, len(null.text_pages), null.pages, 2))
        changed.append(change([one.ahead for one in before], [one.ahead for one in after], null.pages, 2))
    for trials in (against, changed):
        assert claimed(trials, 0.01) <= most(0.01) and claimed(trials, 0.05) <= most(0.05)
        if not lean:  # vectors that lean make some texts every picture's favourites, and the test careful
            assert claimed(trials, 0.05) >= least(0.05) and claimed(trials, 0.5) >= least(0.5)
    assert sum(trial.claim == "better than chance" for trial in against) <= most(0.005)
    assert sum(trial.claim == "improved" for trial in changed) <= most(0.005)


@pytest.mark.slow
def test_by_query_the_same_models_would_be_claimed_too_often() -> None:
    models = [Null(seed, 0.0).model() for seed in range(TRIALS)]
    by_query = [sign_flip_test(np.array([one.ahead - 0.5 for one in model])) for model in models]
    assert sum(p <= 0.01 for p in by_query) > most(0.01)


def test_losses_that_did_not_change_are_claimed_no_more_often_than_the_level() -> None:
    generator = np.random.Generator(np.random.PCG64(5))
    trials = []
    for _ in range(TRIALS):
        tokens = generator.integers(20, 900, PAGES)
        level = generator.gamma(2, 1, PAGES) * tokens
        noise = generator.normal(size=(2, PAGES)) * tokens * 0.05
        trials.append(loss_change((level + noise[0]).tolist(), (level + noise[1]).tolist(), tokens.tolist()))
    assert least(0.05) <= claimed(trials, 0.05) <= most(0.05)
    assert claimed(trials, 0.01) <= most(0.01)
    covered = sum(trial.low <= 0 <= trial.high for trial in trials)
    assert covered >= binom.ppf(1e-4, TRIALS, 0.93)


def test_what_is_there_is_found() -> None:
    pages = [i // 2 for i in range(40)]
    good = [Standing(0, 1, 1, 0.9 + 0.002 * i) for i in range(40)]
    found = claim_against_chance(good, 100, pages, 30)
    assert found.claim == "better than chance" and found.p < 0.001 and 0.5 < found.low < found.mean < found.high
    bad = [Standing(90, 1, 1, 0.1)] * 40
    assert claim_against_chance(bad, 100, pages, 30).claim == "worse than chance"
    middle = [Standing(50, 1, 1, 0.5 + (-1) ** page * 0.1) for page in pages]
    assert claim_against_chance(middle, 100, pages, 30).claim == "not distinguishable from chance"
    assert change([0.5] * 40, [0.9] * 40, pages, 30).claim == "improved"
    assert change([0.9] * 40, [0.5] * 40, pages, 30).claim == "worse"
    assert change([0.9] * 40, [0.9] * 40, pages, 30).claim.startswith("no change")
    assert loss_change([50.0] * 20, [40.0] * 20, [10] * 20).claim == "lower"
    assert loss_change([40.0] * 20, [50.0] * 20, [10] * 20).claim == "higher"
    assert loss_change([40.0] * 20, [40.0] * 20, [10] * 20).claim.startswith("no change")


def test_few_pages_carry_no_claim_and_no_interval_whatever_their_queries() -> None:
    few = FEWEST_PAGES - 1
    perfect, pages = [Standing(0, 1, 1, 1.0)] * 10 * few, list(range(few)) * 10
    found = claim_against_chance(perfect, 100, pages, 30)
    assert found.claim == "no claim: too few queries, pages or candidates"
    assert math.isnan(found.low) and math.isnan(found.p) and found.mean == 1.0
    assert math.isnan(intervals(perfect, 100, pages).mrr[0])
    assert change([0.1] * 70, [0.9] * 70, pages, 30).claim == "no claim: too few queries or pages"
    assert loss_change([9.0] * few, [1.0] * few, [5] * few).claim == "no claim: too few pages"
    assert claim_against_chance([], 0, [], 30).claim == found.claim
    assert change([], [], [], 30).claim == "no claim: too few queries or pages"
    assert loss_change([], [], []).claim == "no claim: too few pages"
    # One page more, and the smallest p-value there is can be reached.
    assert sign_flip_test(np.ones(FEWEST_PAGES)) == 2 / 2**FEWEST_PAGES <= 0.01 < sign_flip_test(np.ones(few))


def test_sign_flips_are_counted_by_hand() -> None:
    # Totals of all eight flips of (3, 2, 1): 6, 4, 2, 0 and their negatives.
    assert sign_flip_test(np.array([3.0, 2.0, 1.0])) == 2 / 8
    assert sign_flip_test(np.array([3.0, 2.0, -1.0])) == 4 / 8
    assert sign_flip_test(np.zeros(30)) == 1.0 and sign_flip_test(np.zeros(0)) == 1.0
    assert sign_flip_test(np.ones(30)) == 1e-4
    drawn = np.random.Generator(np.random.PCG64(1)).normal(size=13)
    exact = np.mean([abs(np.dot(signs, drawn)) >= abs(drawn.sum()) for signs in itertools.product((-1, 1), repeat=13)])
    assert sign_flip_test(drawn) == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 9999))


def test_intervals_are_by_page() -> None:
    """A hundred copies of a page's queries say no more than one."""
    generator = np.random.Generator(np.random.PCG64(3))
    values: npt.NDArray[np.float64] = generator.normal(size=PAGES)
    once = mean_interval(values, np.ones(PAGES))
    copied = by_page(np.repeat(values, 100), np.repeat(np.arange(PAGES), 100))
    assert mean_interval(copied, np.full(PAGES, 100.0)) == pytest.approx(once)
    assert once[1] - once[0] > 0.8 * 2 * 1.96 * values.std() / math.sqrt(PAGES)
    found = [Standing(int(rank), 1, 1, 0.5) for rank in generator.integers(0, 60, PAGES)]
    alone = intervals(found, 60, list(range(PAGES)))
    many = intervals([one for one in found for _ in range(9)], 60, [page for page in range(PAGES) for _ in range(9)])
    assert (alone.median_rank, alone.mrr) == (many.median_rank, pytest.approx(many.mrr))
    assert alone.median_rank[0] < summarize(found, 60).median_rank < alone.median_rank[1]
    # The draws depend on the number of pages alone.
    assert np.array_equal(resampled(PAGES), resampled.__wrapped__(PAGES))
    assert (resampled(PAGES).sum(axis=1) == PAGES).all()


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    generator = np.random.Generator(np.random.PCG64(8))
    held = 0
    for _ in range(TRIALS):
        counts = generator.integers(1, 6, 15).astype(np.float64)
        # The mean of a query is 1, those of a page alike.
        sums = counts * generator.gamma(4, 0.25, 15)
        low, high = mean_interval(sums, counts)
        held += low <= 1 <= high
    assert binom.ppf(1e-4, TRIALS, 0.92) <= held <= binom.ppf(1 - 1e-4, TRIALS, 0.97)
    assert interval(15, lambda drawn: drawn[:, 0])[0] == 0
