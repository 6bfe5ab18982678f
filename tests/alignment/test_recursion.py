"""soft_dtw, expected_alignment, soft_dtw_table and hard_dtw against laws and brute force."""

import math
import threading

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

import alignment.lanes
from alignment import (
    expected_alignment,
    hard_dtw,
    pairwise_cost,
    soft_dtw,
    soft_dtw_all_pairs,
    soft_dtw_divergence,
    soft_dtw_table,
)
from tests.alignment.paths import brute_soft_dtw, delannoy, poisoned

BACKENDS = ["lanes", "wavefront"]
TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-11}


def random_batch(seed, pairs, rows, columns, dtype, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    cost = (torch.rand((pairs, rows, columns), generator=generator, dtype=torch.float64) * 2 - 0.3) * scale
    n = torch.randint(1, rows + 1, (pairs,), generator=generator)
    m = torch.randint(1, columns + 1, (pairs,), generator=generator)
    return cost.to(dtype), n, m


def assert_close(actual, wanted, dtype, scale=1.0):
    finite = torch.isfinite(wanted)
    assert torch.equal(torch.isfinite(actual), finite)
    difference = (actual.double() - wanted.double())[finite].abs()
    assert difference.numel() == 0 or float(difference.max()) <= TOLERANCE[dtype] * max(1.0, scale)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("gamma", [2.0, 0.1, 0.01])
def test_equals_the_sum_over_all_paths(backend, dtype, gamma):
    for seed, (n, m) in enumerate([(1, 1), (1, 5), (4, 1), (2, 3), (5, 4), (5, 5)]):
        cost = random_batch(seed, 1, n, m, dtype)[0]
        value, expected = brute_soft_dtw(cost[0].double().numpy(), gamma)
        assert_close(soft_dtw(cost, gamma, backend=backend), torch.tensor([value], dtype=torch.float64), dtype)
        found = expected_alignment(cost, gamma, backend=backend)[0]
        assert_close(found, torch.from_numpy(expected), dtype, 3.0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_counts_the_paths_when_nothing_costs(backend):
    for n, m in [(1, 1), (3, 3), (7, 4), (12, 12), (40, 40)]:
        value = soft_dtw(torch.zeros((1, n, m), dtype=torch.float64), 1.0, backend=backend)
        assert float(value) == pytest.approx(-math.log(delannoy(n - 1, m - 1)), rel=1e-13, abs=1e-13)


@pytest.mark.slow
@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10**6),
    pairs=st.integers(1, 40),
    rows=st.integers(1, 21),
    columns=st.integers(1, 21),
    log_gamma=st.floats(-3.0, 1.0),
    band=st.none() | st.integers(0, 6),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_kernel_equals_the_reference(seed, pairs, rows, columns, log_gamma, band, dtype):
    cost, n, m = random_batch(seed, pairs, rows, columns, dtype)
    gamma = 10.0**log_gamma
    results = {}
    for backend in BACKENDS:
        leaf = cost.clone().requires_grad_(True)
        values = soft_dtw(leaf, gamma, n, m, band=band, backend=backend)
        weights = torch.linspace(-1.0, 2.0, pairs, dtype=dtype)
        (gradient,) = torch.autograd.grad(values, leaf, weights)
        table = soft_dtw_table(cost, gamma, n, m, band=band, backend=backend)
        results[backend] = (values.detach(), gradient, table)
    scale = max(1.0, gamma * 10)
    for ours, reference in zip(*(results[backend] for backend in BACKENDS), strict=True):
        assert_close(ours, reference, dtype, scale)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10**6),
    rows=st.integers(1, 30),
    columns=st.integers(1, 30),
    log_gamma=st.floats(-3.0, 1.0),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_laws_of_the_expected_alignment(seed, rows, columns, log_gamma, dtype):
    cost = random_batch(seed, 3, rows, columns, dtype)[0]
    expected = expected_alignment(cost, 10.0**log_gamma)
    rounding = 1e-5 if dtype == torch.float32 else 1e-12
    assert float(expected.min()) >= 0.0 and float(expected.max()) <= 1.0 + rounding
    corners = torch.stack((expected[:, 0, 0], expected[:, -1, -1]))
    torch.testing.assert_close(corners, torch.ones_like(corners), atol=rounding, rtol=0.0)
    # Every path visits every row and every column at least once.
    assert float(expected.sum(2).min()) >= 1.0 - rounding
    assert float(expected.sum(1).min()) >= 1.0 - rounding
    # Adding a constant costs it once a visited cell.
    turned = expected_alignment(cost.mT, 10.0**log_gamma).mT
    torch.testing.assert_close(turned, expected, atol=10 * rounding, rtol=0.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_symmetric_in_x_and_y(dtype):
    cost, n, m = random_batch(4, 33, 12, 17, dtype)
    there = soft_dtw(cost, 0.2, n, m)
    back = soft_dtw(cost.mT, 0.2, m, n)
    assert_close(there, back, dtype)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("band", [None, 2])
def test_ragged_equals_sliced(backend, band):
    cost, n, m = random_batch(5, 19, 11, 13, torch.float64)
    values = soft_dtw(cost, 0.3, n, m, band=band, backend=backend)
    expected = expected_alignment(cost, 0.3, n, m, band=band, backend=backend)
    for pair in range(len(cost)):
        alone = cost[pair : pair + 1, : n[pair], : m[pair]]
        torch.testing.assert_close(values[pair : pair + 1], soft_dtw(alone, 0.3, band=band), rtol=1e-12, atol=1e-12)
        inside = expected[pair : pair + 1, : n[pair], : m[pair]]
        torch.testing.assert_close(inside, expected_alignment(alone, 0.3, band=band), rtol=1e-9, atol=1e-12)
        assert int((expected[pair] != 0).sum()) == int((inside != 0).sum())


@pytest.mark.parametrize("backend", BACKENDS)
def test_padding_is_never_read(backend):
    cost, n, m = random_batch(6, 9, 8, 8, torch.float64)
    outside = (torch.arange(8)[None, :, None] >= n[:, None, None]) | (
        torch.arange(8)[None, None, :] >= m[:, None, None]
    )
    spoiled = cost.masked_fill(outside, math.nan)
    torch.testing.assert_close(
        soft_dtw(spoiled, 0.5, n, m, backend=backend), soft_dtw(cost, 0.5, n, m), rtol=0, atol=1e-12
    )
    assert bool(torch.isfinite(expected_alignment(spoiled, 0.5, n, m, backend=backend)).all())


def test_table_of_prefixes_equals_separate_calls():
    cost, n, m = random_batch(7, 6, 7, 9, torch.float64)
    table = soft_dtw_table(cost, 0.4, n, m)
    for pair in range(6):
        for i in range(7):
            for j in range(9):
                if i < n[pair] and j < m[pair]:
                    alone = soft_dtw(cost[pair : pair + 1, : i + 1, : j + 1], 0.4)
                    assert float(table[pair, i, j]) == pytest.approx(float(alone), rel=1e-12, abs=1e-12)
                else:
                    assert math.isinf(table[pair, i, j])


def test_pairs_do_not_depend_on_their_place():
    cost, n, m = random_batch(8, 45, 9, 9, torch.float32)
    order = torch.randperm(45, generator=torch.Generator().manual_seed(0))
    assert torch.equal(soft_dtw(cost, 0.1, n, m)[order], soft_dtw(cost[order], 0.1, n[order], m[order]))
    assert torch.equal(
        expected_alignment(cost, 0.1, n, m)[order], expected_alignment(cost[order], 0.1, n[order], m[order])
    )


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("band", [None, 1])
def test_gradients_to_second_order(backend, band):
    cost, n, m = random_batch(9, 3, 4, 5, torch.float64)

    def function(leaf):
        return soft_dtw(leaf, 0.4, n, m, band=band, backend=backend)

    leaf = cost.requires_grad_(True)
    assert torch.autograd.gradcheck(function, leaf)
    assert torch.autograd.gradgradcheck(function, leaf)


def test_expected_alignment_is_differentiable():
    cost = random_batch(10, 2, 4, 3, torch.float64)[0].requires_grad_(True)
    assert torch.autograd.gradcheck(lambda leaf: expected_alignment(leaf, 0.7), cost)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_limit_of_small_gamma_is_hard_dtw(dtype):
    cost, n, m = random_batch(11, 21, 14, 10, dtype)
    value, path = hard_dtw(cost, n, m)
    assert_close(soft_dtw(cost, 1e-6, n, m), value, dtype, 3.0)
    torch.testing.assert_close(expected_alignment(cost, 1e-6, n, m), path, atol=1e-4, rtol=0.0)


def test_hard_dtw_path_is_a_path_with_the_least_sum():
    for seed, (n, m) in enumerate([(1, 1), (1, 4), (3, 5), (5, 5)]):
        cost = random_batch(seed, 1, n, m, torch.float64)[0]
        value, path = hard_dtw(cost)
        brute = brute_soft_dtw(cost[0].numpy(), 1e-9)
        assert float(value) == pytest.approx(brute[0], abs=1e-6)
        assert float((path * cost).sum()) == pytest.approx(float(value), rel=1e-12)
        np.testing.assert_allclose(path[0].numpy(), brute[1], atol=1e-6)


def test_hard_dtw_prefers_the_diagonal_and_reports_no_path():
    value, path = hard_dtw(torch.zeros((1, 3, 3)))
    assert torch.equal(path[0], torch.eye(3)) and float(value) == 0.0
    blocked = torch.zeros((1, 3, 3))
    blocked[0, 1, :] = math.inf
    value, path = hard_dtw(blocked)
    assert math.isinf(value) and float(path.sum()) == 0.0


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_forbidden_cells(backend, dtype):
    cost = random_batch(12, 4, 5, 5, dtype)[0]
    cost[0, 2, :4] = math.inf
    cost[1, 1, 1] = math.inf
    cost[2, 2, :] = math.inf  # no way through
    leaf = cost.clone().requires_grad_(True)
    values = soft_dtw(leaf, 0.3, backend=backend)
    (gradient,) = torch.autograd.grad(values[:2].sum() + values[3], leaf)
    for pair in (0, 1, 3):
        value, expected = brute_soft_dtw(cost[pair].double().numpy(), 0.3)
        assert_close(values[pair : pair + 1].detach(), torch.tensor([value], dtype=torch.float64), dtype)
        assert_close(gradient[pair], torch.from_numpy(expected), dtype, 3.0)
    assert math.isinf(values[2].detach())
    assert float(expected_alignment(cost, 0.3, backend=backend)[2].abs().sum()) == 0.0


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_band_equals_forbidden_cells(backend):
    cost, n, m = random_batch(13, 17, 12, 9, torch.float64)
    i, j = torch.arange(12)[:, None], torch.arange(9)[None, :]
    for band in (0, 1, 4, 30):
        masked = cost.clone()
        for pair in range(17):
            below, above = max(0, int(n[pair] - m[pair])), max(0, int(m[pair] - n[pair]))
            masked[pair][(j - i < -band - below) | (j - i > band + above)] = math.inf
        torch.testing.assert_close(soft_dtw(cost, 0.2, n, m, band=band, backend=backend), soft_dtw(masked, 0.2, n, m))
        torch.testing.assert_close(
            expected_alignment(cost, 0.2, n, m, band=band, backend=backend), expected_alignment(masked, 0.2, n, m)
        )


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_length_2000(dtype):
    cost = random_batch(14, 2, 2000, 2000, dtype)[0]
    expected = expected_alignment(cost, 0.01, band=50)
    value = soft_dtw(cost, 0.01, band=50)
    assert bool(torch.isfinite(value).all()) and bool(torch.isfinite(expected).all())
    assert float(expected[:, 0, 0].min()) == pytest.approx(1.0, abs=1e-3)
    hard = hard_dtw(cost, band=50)[0]
    assert float((value - hard).max()) <= 0.0 and float((hard - value).max()) < 2000 * 2 * 0.01


def test_float32_gradients_at_the_stated_goal():
    """Issue: relative norm of the error of E within 1e-4 of float64 at gamma .01, length 64."""
    generator = torch.Generator().manual_seed(15)
    # With an offset and unequal lengths, sums are in the thousands and no path is the diagonal.
    for columns, offset in ((64, 0.0), (40, 100.0)):
        cost = torch.rand((64, 64, columns), generator=generator) * 2.0 + offset
        reference = expected_alignment(cost.double(), 0.01)
        error = (expected_alignment(cost, 0.01).double() - reference).norm() / reference.norm()
        assert float(error) < 2e-6


def test_costs_too_steep_for_float32_are_redone_in_float64():
    cost = random_batch(16, 18, 6, 6, torch.float32, scale=1e6)[0]
    wanted = soft_dtw(cost.double(), 1e-4, backend="wavefront")
    torch.testing.assert_close(soft_dtw(cost, 1e-4).double(), wanted, rtol=1e-6, atol=0.0)
    torch.testing.assert_close(soft_dtw(-cost, 1e-4).double(), soft_dtw(-cost.double(), 1e-4), rtol=1e-6, atol=0.0)


def test_costs_that_pass_for_infinite_are_refused():
    cost = torch.full((2, 4, 4), 1e30, dtype=torch.float64)
    with pytest.raises(ValueError, match="hard_dtw"):
        soft_dtw(cost, 1e-3)
    with pytest.raises(ValueError, match="hard_dtw"):
        soft_dtw(-cost, 1e-3)


def test_strips_do_not_change_a_bit(monkeypatch):
    cost, n, m = random_batch(17, 20, 50, 35, torch.float32)
    whole = expected_alignment(cost, 0.05, n, m)
    banded = expected_alignment(cost, 0.05, n, m, band=3)
    monkeypatch.setattr(alignment.lanes, "TRANSITION_BYTES", 40_000)
    assert torch.equal(expected_alignment(cost, 0.05, n, m), whole)
    assert torch.equal(expected_alignment(cost, 0.05, n, m, band=3), banded)


def test_inputs_are_left_alone_and_a_second_backward_repeats_the_first():
    cost = random_batch(18, 5, 6, 7, torch.float32)[0].requires_grad_(True)
    before = cost.detach().clone()
    total = soft_dtw(cost, 0.1).sum()
    (first,) = torch.autograd.grad(total, cost, retain_graph=True)
    kept = first.clone()
    first.zero_()
    (second,) = torch.autograd.grad(total, cost)
    assert torch.equal(second, kept)
    assert torch.equal(cost.detach(), before)


@pytest.mark.parametrize("backend", BACKENDS)
def test_any_strides(backend):
    base = random_batch(19, 7, 14, 18, torch.float64)[0]
    for view in (base[:, ::2, ::3], base.permute(1, 0, 2), base.mT, base[::2].flip(1), base[:1].expand(4, -1, -1)):
        leaf = view.detach().requires_grad_(True)
        solid = view.contiguous().requires_grad_(True)
        values, wanted = soft_dtw(leaf, 0.3, backend=backend), soft_dtw(solid, 0.3, backend=backend)
        torch.testing.assert_close(values, wanted, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(
            torch.autograd.grad(values.sum(), leaf)[0], torch.autograd.grad(wanted.sum(), solid)[0]
        )


@pytest.mark.parametrize("backend", BACKENDS)
def test_empty_batch(backend):
    cost = torch.zeros((0, 3, 4), requires_grad=True)
    values = soft_dtw(cost, 1.0, backend=backend)
    assert values.shape == (0,)
    values.sum().backward()
    assert cost.grad is not None and cost.grad.shape == (0, 3, 4)
    assert expected_alignment(cost, 1.0, backend=backend).shape == (0, 3, 4)
    assert soft_dtw_table(cost, 1.0, backend=backend).shape == (0, 3, 4)
    assert hard_dtw(cost)[0].shape == (0,)


def test_any_number_of_threads_gives_the_same_bits():
    cost, n, m = random_batch(20, 300, 40, 40, torch.float32)
    threads = torch.get_num_threads()
    try:
        results = []
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            results.append(expected_alignment(cost, 0.05, n, m))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])


def test_calls_from_several_python_threads():
    batches = [random_batch(seed, 120, 30, 30, torch.float32) for seed in range(4)]
    wanted = [expected_alignment(cost, 0.1, n, m) for cost, n, m in batches]
    found = [None] * 4

    def work(number):
        cost, n, m = batches[number]
        for _ in range(5):
            found[number] = expected_alignment(cost, 0.1, n, m)

    workers = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert all(torch.equal(one, other) for one, other in zip(found, wanted, strict=True))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("bad", [math.nan, -math.inf])
def test_nan_is_an_error_that_names_the_pair(backend, bad):
    cost = torch.zeros((20, 3, 3))
    cost[17, 2, 1] = bad
    with pytest.raises(ValueError, match="pair 17"):
        soft_dtw(cost, 1.0, backend=backend)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"gamma": 0.0}, "hard_dtw"),
        ({"gamma": -1.0}, "gamma"),
        ({"gamma": math.nan}, "gamma"),
        ({"lengths_x": [2, 0]}, "lengths_x.*index 1"),
        ({"lengths_y": [4, 5]}, r"lengths_y must lie in 1\.\.4"),
        ({"lengths_x": [1, 2, 3]}, "lengths_x must have shape"),
        ({"lengths_x": [1.5, 2.0]}, "whole numbers"),
        ({"band": -1}, "band"),
        ({"backend": "cuda"}, "backend"),
    ],
)
def test_clear_errors_for_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        soft_dtw(torch.zeros((2, 3, 4)), **arguments)


@pytest.mark.parametrize(
    ("cost", "message"),
    [
        (torch.zeros((3, 4)), "shape"),
        (torch.zeros((2, 0, 4)), "at least one row"),
        (torch.zeros((2, 3, 4), dtype=torch.bfloat16), "half precision"),
        (torch.zeros((2, 3, 4), dtype=torch.int64), "float32 or float64"),
        (np.zeros((2, 3, 4)), "torch tensor"),
    ],
)
@pytest.mark.parametrize("function", [soft_dtw, expected_alignment, soft_dtw_table, hard_dtw])
def test_clear_errors_for_costs(function, cost, message):
    with pytest.raises(ValueError, match=message):
        function(cost)


def test_a_steep_cost_names_its_pair():
    cost = torch.rand(3, 5, 4)
    cost[2, 2, 1] = -1e38
    with pytest.raises(ValueError, match="of pair 2 is beyond"):
        soft_dtw(cost, 0.1)
    # Beyond the lengths it is nobody's cost.
    assert soft_dtw(cost, 0.1, [5, 5, 2], [4, 4, 4]).isfinite().all()


def test_what_pads_the_series_of_a_divergence_reaches_no_gradient():
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(3, 5, 8, generator=generator) for _ in range(2))
    lengths = [5, 3, 5]
    spoiled = x.clone()
    spoiled[1, 3:] = math.nan
    found = []
    for series in (x, spoiled):
        a, b = series.clone().requires_grad_(), y.clone().requires_grad_()
        soft_dtw_divergence(a, b, lengths_x=lengths).sum().backward()
        found.append((a.grad, b.grad))
    assert all(torch.equal(clean, dirty) for clean, dirty in zip(*found, strict=True))
    assert not found[1][0][1, 3:].any()


@pytest.mark.parametrize("band", [math.inf, math.nan, 1.5, -1])
def test_a_band_is_a_whole_number(band):
    with pytest.raises(ValueError, match="band must be"):
        soft_dtw(torch.rand(1, 3, 3), band=band)


def test_vectors_have_a_dimension():
    empty = torch.rand(2, 3, 0)
    for call in (pairwise_cost, soft_dtw_divergence, soft_dtw_all_pairs):
        with pytest.raises(ValueError, match="at least one dimension"):
            call(empty, empty)


def test_triton_without_a_gpu_is_one_line(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(ValueError, match="runs on GPUs"):
        soft_dtw(torch.rand(1, 3, 3), backend="triton")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("band", [None, 0, 3, 10])
def test_nothing_is_read_before_it_is_written(dtype, band, monkeypatch):
    for seed, (rows, columns) in enumerate([(1, 1), (13, 21), (21, 13), (8, 8), (24, 24), (17, 40)]):
        cost, n, m = random_batch(seed, 19, rows, columns, dtype)
        for lengths in ((None, None), (n, m)):
            for strip_bytes in (1, 2**14, 4 * 2**20):
                monkeypatch.setattr(alignment.lanes, "TRANSITION_BYTES", strip_bytes)
                wanted = alignment_of_all(cost, *lengths, band)
                with monkeypatch.context() as patch:
                    patch.setattr(alignment.lanes, "scratch", poisoned)
                    found = alignment_of_all(cost, *lengths, band)
                assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True)), (rows, columns, strip_bytes)


def alignment_of_all(cost, n, m, band):
    """Values, expected alignment and table on the CPU kernel."""
    arguments = (cost, 0.3, n, m)
    return (
        soft_dtw(*arguments, band=band, backend="lanes"),
        expected_alignment(*arguments, band=band, backend="lanes"),
        soft_dtw_table(*arguments, band=band, backend="lanes"),
    )
