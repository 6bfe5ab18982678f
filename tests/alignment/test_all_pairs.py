"""All pairs in one call equal one call a pair, values and gradients."""

import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

import alignment.all_pairs
import alignment.grid
import alignment.products
from alignment import log_gak, log_gak_all_pairs, pairwise_cost, soft_dtw, soft_dtw_all_pairs
from tests.alignment.paths import poisoned

TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-11}


def documents(seed, count, longest, dimension, dtype):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn((count, longest, dimension), generator=generator, dtype=torch.float64).to(dtype)
    return x, torch.randint(1, longest + 1, (count,), generator=generator)


def pair_by_pair(function, x, y, n, m):
    """Reference: every pair spelled out."""
    wide = x.repeat_interleave(len(y), 0)
    values = function(wide, y.repeat(len(x), 1, 1), n.repeat_interleave(len(y)), m.repeat(len(x)))
    return values.view(len(x), len(y))


@pytest.mark.slow
@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10**6),
    count=st.integers(1, 20),
    other=st.none() | st.integers(1, 20),
    longest=st.integers(1, 9),
    metric=st.sampled_from(["sqeuclidean", "cosine"]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    gak=st.booleans(),
    band=st.none() | st.integers(0, 3),
    keep=st.booleans(),
)
def test_values_and_gradients_equal_pairs(seed, count, other, longest, metric, dtype, gak, band, keep):
    x, n = documents(seed, count, longest, 4, dtype)
    y, m = (None, None) if other is None else documents(seed + 1, other, longest + 2, 4, dtype)
    second, second_lengths = (x, n) if y is None else (y, m)
    leaves = [leaf.requires_grad_(True) for leaf in ((x,) if y is None else (x, y))]
    kept = alignment.all_pairs.KEEP_BYTES
    alignment.all_pairs.KEEP_BYTES = kept if keep else 0
    try:
        if gak:
            found = log_gak_all_pairs(x, y, 0.9, n, m, metric=metric, band=band)
        else:
            found = soft_dtw_all_pairs(x, y, 0.4, n, m, metric=metric, band=band)
        weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)
        gradients = torch.autograd.grad(found, leaves, weights)
    finally:
        alignment.all_pairs.KEEP_BYTES = kept

    def pair(a, b, rows, columns):
        cost = pairwise_cost(a, b, metric)
        function, scale = (log_gak, 0.9) if gak else (soft_dtw, 0.4)
        return function(cost, scale, rows, columns, band=band)

    wanted = pair_by_pair(pair, x, second, n, second_lengths)
    scale = max(1.0, float(wanted.detach().abs().max()))
    torch.testing.assert_close(found, wanted, rtol=0.0, atol=TOLERANCE[dtype] * scale)
    for ours, theirs in zip(gradients, torch.autograd.grad(wanted, leaves, weights), strict=True):
        scale = max(1.0, float(theirs.abs().max()))
        torch.testing.assert_close(ours, theirs, rtol=0.0, atol=TOLERANCE[dtype] * scale)


@pytest.mark.parametrize("symmetric", [False, True])
def test_blocks_do_not_change_the_result(symmetric, monkeypatch):
    x, n = documents(1, 50, 7, 5, torch.float64)
    y, m = (None, None) if symmetric else documents(2, 21, 6, 5, torch.float64)
    x.requires_grad_(True)
    whole = soft_dtw_all_pairs(x, y, 0.3, n, m)
    (gradient,) = torch.autograd.grad(whole.sum(), x)
    monkeypatch.setattr(alignment.grid, "BLOCK_BYTES", 4000)
    blocked = soft_dtw_all_pairs(x, y, 0.3, n, m)
    torch.testing.assert_close(blocked, whole, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(torch.autograd.grad(blocked.sum(), x)[0], gradient, rtol=1e-10, atol=1e-12)


def test_against_itself_is_symmetric_and_counts_both_roles():
    x, n = documents(3, 18, 6, 5, torch.float64)
    x.requires_grad_(True)
    with_none = soft_dtw_all_pairs(x, None, 0.3, n)
    twice = soft_dtw_all_pairs(x, x, 0.3, n, n)
    torch.testing.assert_close(with_none, twice, rtol=1e-12, atol=1e-12)
    assert torch.equal(with_none, with_none.mT)
    weights = torch.randn((18, 18), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for one, other in zip(
        torch.autograd.grad(with_none, x, weights), torch.autograd.grad(twice, x, weights), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["sqeuclidean", "cosine"])
def test_second_order(metric):
    x, n = documents(4, 2, 2, 2, torch.float64)
    y, m = documents(5, 1, 3, 2, torch.float64)

    def function(a, b):
        return soft_dtw_all_pairs(a, b, 0.5, n, m, metric=metric)

    leaves = (x.requires_grad_(True), y.requires_grad_(True))
    assert torch.autograd.gradcheck(function, leaves)
    assert torch.autograd.gradgradcheck(function, leaves)
    assert torch.autograd.gradgradcheck(lambda a: log_gak_all_pairs(a, None, 0.8, n, metric=metric), leaves[:1])


def test_padding_with_nan_is_never_read():
    x, n = documents(6, 9, 6, 4, torch.float32)
    spoiled = x.masked_fill((torch.arange(6)[None, :] >= n[:, None])[:, :, None], math.nan).requires_grad_(True)
    found = soft_dtw_all_pairs(spoiled, None, 0.3, n)
    torch.testing.assert_close(found, soft_dtw_all_pairs(x, None, 0.3, n))
    (gradient,) = torch.autograd.grad(found.sum(), spoiled)
    assert bool(torch.isfinite(gradient).all())


def test_a_common_offset_costs_no_digits():
    x, n = documents(7, 20, 8, 16, torch.float64)
    wanted = soft_dtw_all_pairs(x, None, 0.5, n)
    shifted = soft_dtw_all_pairs((x + 300.0).float(), None, 0.5, n)
    torch.testing.assert_close(shifted.double(), wanted, rtol=1e-3, atol=1e-3)


def test_empty_batches_and_second_backward():
    x = torch.zeros((0, 3, 2), requires_grad=True)
    y = torch.ones((4, 3, 2), requires_grad=True)
    assert soft_dtw_all_pairs(x, y).shape == (0, 4) and soft_dtw_all_pairs(x).shape == (0, 0)
    soft_dtw_all_pairs(x, y).sum().backward()
    total = soft_dtw_all_pairs(y, None, 0.5).sum()
    (first,) = torch.autograd.grad(total, y, retain_graph=True)
    (second,) = torch.autograd.grad(total, y)
    assert torch.equal(first, second)


def test_clear_errors():
    x = torch.randn((3, 4, 2))
    with pytest.raises(ValueError, match="metric"):
        soft_dtw_all_pairs(x, metric="euclid")
    with pytest.raises(ValueError, match="lengths_y must be None"):
        soft_dtw_all_pairs(x, None, 1.0, [1, 2, 3], [1, 2, 3])
    with pytest.raises(ValueError, match="agree in dimension"):
        soft_dtw_all_pairs(x, torch.randn((3, 4, 5)))
    with pytest.raises(ValueError, match="at least one slice"):
        soft_dtw_all_pairs(torch.zeros((2, 0, 3)))
    with pytest.raises(ValueError, match="gamma"):
        soft_dtw_all_pairs(x, gamma=-1.0)
    with pytest.raises(ValueError, match="too large for torch"):
        soft_dtw_all_pairs(x * 1e4, gamma=1e-3)
    for bad in (math.nan, math.inf):
        spoiled = x.clone()
        spoiled[1, 2, 0] = bad
        with pytest.raises(ValueError, match="x has NaN"):
            soft_dtw_all_pairs(spoiled)


@pytest.mark.parametrize(("rows", "columns", "inner"), [(1, 1, 1), (7, 33, 5), (300, 64, 128), (0, 3, 4), (4, 3, 0)])
def test_products_of_either_library(monkeypatch, rows, columns, inner):
    generator = torch.Generator().manual_seed(rows)
    left, right = torch.randn((rows, inner), generator=generator), torch.randn((inner, columns), generator=generator)
    wanted = left.double() @ right.double()
    for library in (alignment.products._onednn(), None):
        monkeypatch.setattr(alignment.products, "_onednn", lambda library=library: library)
        with torch.autocast("cpu", torch.bfloat16):
            for transposed in (right.mT, right.mT.contiguous()):
                found = alignment.products.product_with_transposed(left, transposed)
                torch.testing.assert_close(found.double(), wanted, atol=1e-4, rtol=1e-5)


def test_gradients_do_not_depend_on_the_pieces_they_are_weighed_in(monkeypatch):
    x, n = documents(3, 21, 9, 16, torch.float32)
    y, m = documents(4, 18, 7, 16, torch.float32)
    weights = torch.randn((21, 18), generator=torch.Generator().manual_seed(5))

    def gradients():
        leaves = [x.clone().requires_grad_(True), y.clone().requires_grad_(True)]
        return torch.autograd.grad(soft_dtw_all_pairs(*leaves, 0.3, n, m), leaves, weights)

    wanted = gradients()
    monkeypatch.setattr(alignment.grid, "WEIGH_BYTES", 10_000)
    for found, once in zip(gradients(), wanted, strict=True):
        torch.testing.assert_close(found, once, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("band", [None, 0, 3])
def test_nothing_is_read_before_it_is_written(dtype, band, monkeypatch):
    x, n = documents(6, 19, 12, 8, dtype)
    y, m = documents(7, 21, 9, 8, dtype)
    weights = torch.randn((19, 21), generator=torch.Generator().manual_seed(8), dtype=dtype)

    def both():
        leaves = [x.clone().requires_grad_(True), y.clone().requires_grad_(True)]
        log = log_gak_all_pairs(*leaves, 0.9, n, m, band=band)
        soft = soft_dtw_all_pairs(*leaves, 0.3, n, m, band=band)
        return (log, soft, *torch.autograd.grad(log, leaves, weights), *torch.autograd.grad(soft, leaves, weights))

    wanted = both()
    monkeypatch.setattr(alignment.grid, "scratch", poisoned)
    assert all(torch.equal(a, b) for a, b in zip(both(), wanted, strict=True))
