"""Live oracles: tslearn and pysdtw, from the dev extra."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from alignment import (
    expected_alignment,
    hard_dtw,
    log_gak,
    log_gak_all_pairs,
    pairwise_cost,
    soft_dtw,
    soft_dtw_divergence,
)


@pytest.fixture(scope="module")
def peers():
    """Loaded by whoever runs these tests: it takes seconds."""
    import numba

    # Their kernels run as plain Python here: at these sizes compiling them takes a hundred times longer.
    numba.config.DISABLE_JIT = True
    try:
        import pysdtw
        from tslearn import metrics
    finally:
        numba.config.DISABLE_JIT = False
    return SimpleNamespace(tslearn=metrics, pysdtw=pysdtw)


def series(seed, *lengths, dimension=3):
    generator = np.random.default_rng(seed)
    return [generator.normal(size=(length, dimension)) for length in lengths]


def cost_of(x, y):
    return pairwise_cost(torch.from_numpy(x)[None], torch.from_numpy(y)[None])


@pytest.mark.parametrize("gamma", [0.1, 1.0, 10.0])
@pytest.mark.parametrize("lengths", [(1, 4), (7, 7), (12, 20)])
def test_value_and_expected_alignment_equal_tslearn(peers, gamma, lengths):
    x, y = series(0, *lengths)
    assert float(soft_dtw(cost_of(x, y), gamma)) == pytest.approx(peers.tslearn.soft_dtw(x, y, gamma=gamma), rel=1e-9)
    expected, _ = peers.tslearn.soft_dtw_alignment(x, y, gamma=gamma)
    np.testing.assert_allclose(expected_alignment(cost_of(x, y), gamma)[0].numpy(), expected, atol=1e-9)


@pytest.mark.parametrize("radius", [1, 2, 5])
@pytest.mark.parametrize("lengths", [(9, 9), (6, 11), (11, 6)])
def test_band_equals_tslearn(peers, radius, lengths):
    x, y = series(1, *lengths)
    wanted = peers.tslearn.soft_dtw(x, y, gamma=0.5, global_constraint="sakoe_chiba", sakoe_chiba_radius=radius)
    assert float(soft_dtw(cost_of(x, y), 0.5, band=radius)) == pytest.approx(wanted, rel=1e-9)
    _, distance = peers.tslearn.dtw_path(x, y, global_constraint="sakoe_chiba", sakoe_chiba_radius=radius)
    assert float(hard_dtw(cost_of(x, y), band=radius)[0]) == pytest.approx(distance**2, rel=1e-9)


def test_hard_path_costs_what_tslearn_finds(peers):
    x, y = series(2, 15, 11)
    path, distance = peers.tslearn.dtw_path(x, y)
    value, ours = hard_dtw(cost_of(x, y))
    assert float(value) == pytest.approx(distance**2, rel=1e-9)
    assert sorted(path) == [tuple(cell) for cell in torch.nonzero(ours[0]).tolist()]


@pytest.mark.parametrize("normalize", [False, True])
def test_loss_and_its_gradient_equal_tslearn(peers, normalize):
    generator = torch.Generator().manual_seed(3)
    x = torch.randn((4, 8, 3), generator=generator).requires_grad_(True)
    y = torch.randn((4, 6, 3), generator=generator).requires_grad_(True)
    theirs = peers.tslearn.SoftDTWLossPyTorch(gamma=0.5, normalize=normalize)(x, y)
    ours = soft_dtw_divergence(x, y, 0.5) if normalize else soft_dtw(pairwise_cost(x, y), 0.5)
    torch.testing.assert_close(ours, theirs.reshape(-1), rtol=1e-4, atol=1e-4)
    for mine, their in zip(
        torch.autograd.grad(ours.sum(), [x, y]), torch.autograd.grad(theirs.sum(), [x, y]), strict=True
    ):
        torch.testing.assert_close(mine, their, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("gamma", [0.1, 1.0])
def test_ragged_values_and_equal_length_gradients_equal_pysdtw(peers, gamma):
    generator = torch.Generator().manual_seed(4)
    cost = torch.rand((7, 9, 9), generator=generator)
    lengths = torch.randint(1, 10, (7, 2), generator=generator)
    theirs = peers.pysdtw.SoftDTWcpu.apply(cost, lengths, gamma, 0.0)
    torch.testing.assert_close(soft_dtw(cost, gamma, lengths[:, 0], lengths[:, 1]), theirs, rtol=1e-5, atol=1e-5)
    # Its gradients are wrong for ragged batches (measured: wrong by a factor of exp(-d / gamma)).
    leaf = cost.requires_grad_(True)
    full = torch.full((7, 2), 9)
    (wanted,) = torch.autograd.grad(peers.pysdtw.SoftDTWcpu.apply(leaf, full, gamma, 0.0).sum(), leaf)
    (found,) = torch.autograd.grad(soft_dtw(leaf, gamma).sum(), leaf)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("sigma", [0.7, 2.0])
def test_normalised_gak_equals_tslearn(peers, sigma):
    batch = series(5, 4, 9, 13)
    for x in batch:
        for y in batch:
            log = [log_gak(cost_of(a, b), sigma) for a, b in ((x, y), (x, x), (y, y))]
            ours = torch.exp(log[0] - (log[1] + log[2]) / 2.0)
            assert float(ours) == pytest.approx(float(peers.tslearn.gak(x, y, sigma=sigma)), rel=1e-8)


def test_all_pairs_gak_equals_tslearn(peers):
    batch = series(6, 5, 9, 13, 3, 8)
    padded = torch.zeros((5, 13, 3), dtype=torch.float64)
    for number, one in enumerate(batch):
        padded[number, : len(one)] = torch.from_numpy(one)
    log = log_gak_all_pairs(padded, None, 1.5, [len(one) for one in batch])
    own = log.diagonal()
    ours = torch.exp(log - (own[:, None] + own[None, :]) / 2.0)
    wanted = [[float(peers.tslearn.gak(x, y, sigma=1.5)) for y in batch] for x in batch]
    np.testing.assert_allclose(ours.numpy(), wanted, rtol=1e-8)
