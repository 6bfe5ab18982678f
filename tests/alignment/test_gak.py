"""The global alignment kernel: published values, laws, bands and triangles."""

import math

import pytest
import torch

from alignment import (
    divisible_cost,
    log_gak,
    log_gak_all_pairs,
    log_gak_table,
    pairwise_cost,
    soft_dtw,
    soft_dtw_divergence,
)
from tests.alignment.paths import alignments, delannoy


def squared(x, y):
    points = [torch.tensor(z, dtype=torch.float64)[None, :, None] for z in (x, y)]
    return pairwise_cost(*points)


@pytest.mark.parametrize(
    ("x", "y", "sigma", "raw", "normalised"),
    [
        ([1, 2, 3], [1, 2, 2, 3], 2.0, 15.35819, 0.839337),
        ([1, 2, 3], [1, 2, 2, 3, 4], 1.0, 3.166011, 0.273386),
        ([1, 2, 2, 3], [1, 2, 3, 4], 2.0, None, 0.656297),
    ],
)
def test_published_values(x, y, sigma, raw, normalised):
    crossed, own_x, own_y = (float(log_gak(squared(a, b), sigma)) for a, b in ((x, y), (x, x), (y, y)))
    if raw is not None:
        assert math.exp(crossed) == pytest.approx(raw, rel=1e-6)
    assert math.exp(crossed - (own_x + own_y) / 2) == pytest.approx(normalised, rel=2e-6)


def test_two_by_two_and_single_slices():
    phi = torch.tensor([[[0.0, 1.0], [1.0, 0.0]]], dtype=torch.float64)
    assert math.exp(float(log_gak(phi, math.sqrt(0.5)))) == pytest.approx(1.450799, rel=1e-6)
    for distance in (0.0, 1e-9, 0.3, 2.0, 500.0):
        one = torch.full((1, 1, 1), distance, dtype=torch.float64)
        s = math.exp(-distance / 2.0)
        assert math.exp(float(log_gak(one, 1.0))) == pytest.approx(s / (2.0 - s), rel=1e-12)


def test_equal_slices_give_the_number_of_paths():
    assert math.exp(float(log_gak(torch.zeros((1, 5, 5), dtype=torch.float64)))) == pytest.approx(321.0)
    assert delannoy(4, 4) == 321


def test_is_soft_dtw_at_gamma_one_of_the_divisible_cost():
    phi = torch.rand((6, 7, 5), dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 3
    wanted = -soft_dtw(divisible_cost(phi / (2 * 0.8**2)), 1.0)
    torch.testing.assert_close(log_gak(phi, 0.8), wanted, rtol=1e-13, atol=1e-13)


def test_one_sigma_a_pair():
    phi = torch.rand((4, 5, 5), dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    sigmas = torch.tensor([0.5, 1.0, 1.5, 2.0])
    wanted = torch.cat([log_gak(phi[k : k + 1], float(sigmas[k])) for k in range(4)])
    torch.testing.assert_close(log_gak(phi, sigmas), wanted)


@pytest.mark.parametrize("triangular", [None, 3.0])
def test_gram_matrix_is_positive_semidefinite(triangular):
    """One encoder, one bandwidth, no band (the triple kernel is indefinite: not there)."""
    generator = torch.Generator().manual_seed(2)
    x = torch.nn.functional.normalize(torch.randn((30, 9, 6), dtype=torch.float64, generator=generator), dim=-1)
    lengths = torch.randint(1, 10, (30,), generator=generator)
    log = log_gak_all_pairs(x, None, 0.8, lengths, triangular=triangular)
    own = log.diagonal()
    gram = torch.exp(log - (own[:, None] + own[None, :]) / 2)
    assert float(torch.linalg.eigvalsh(gram)[0]) >= -1e-8
    assert float(gram.max()) <= 1.0 + 1e-12
    torch.testing.assert_close(gram.diagonal(), torch.ones(30, dtype=torch.float64))


@pytest.mark.parametrize("triangular", [1.0, 2.5, 4.0])
def test_triangular_weights_are_those_of_the_formula(triangular):
    phi = torch.rand((1, 4, 3), dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    total = 0.0
    for path in alignments(4, 3):
        product = 1.0
        for i, j in path:
            s = max(0.0, 1 - abs(i - j) / triangular) * math.exp(-float(phi[0, i, j]) / 2)
            product *= s / (2 - s)
        total += product
    found = float(log_gak(phi, 1.0, triangular=triangular))
    assert math.exp(found) == pytest.approx(total, rel=1e-12)
    if triangular == 1.0:
        assert found == -math.inf  # different lengths never meet on the diagonal


def test_table_equals_separate_calls():
    phi = torch.rand((3, 5, 6), dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    table = log_gak_table(phi, 0.9, triangular=4.0)
    for i in range(5):
        for j in range(6):
            alone = log_gak(phi[:, : i + 1, : j + 1], 0.9, triangular=4.0)
            torch.testing.assert_close(table[:, i, j], alone, rtol=1e-12, atol=1e-12)


@pytest.mark.slow
def test_gradients_to_second_order():
    phi = torch.rand((2, 3, 4), dtype=torch.float64, generator=torch.Generator().manual_seed(5)).requires_grad_(True)
    for triangular in (None, 3.0):

        def function(leaf, triangular=triangular):
            return log_gak(leaf, 0.9, triangular=triangular)

        assert torch.autograd.gradcheck(function, phi)
        assert torch.autograd.gradgradcheck(function, phi)


def test_float32_labels_are_those_of_float64():
    phi = torch.rand((40, 60, 60), generator=torch.Generator().manual_seed(6)) * 2
    torch.testing.assert_close(log_gak(phi).double(), log_gak(phi.double()), rtol=1e-6, atol=1e-5)


def test_divergence_is_zero_at_equal_series_and_never_negative():
    generator = torch.Generator().manual_seed(7)
    x = torch.randn((25, 8, 3), dtype=torch.float64, generator=generator)
    y = torch.randn((25, 8, 3), dtype=torch.float64, generator=generator)
    lengths = torch.randint(1, 9, (25,), generator=generator)
    same = soft_dtw_divergence(x, x, 0.7, lengths, lengths)
    torch.testing.assert_close(same, torch.zeros_like(same), atol=1e-12, rtol=0.0)
    assert float(soft_dtw_divergence(x, y, 0.7, lengths, lengths).min()) > 0.0
    small = (x[:2, :3].clone().requires_grad_(True), y[:2, :4].clone().requires_grad_(True))
    assert torch.autograd.gradcheck(lambda a, b: soft_dtw_divergence(a, b, 0.7), small)


@pytest.mark.parametrize("sigma", [0.0, -1.0, math.inf, math.nan])
def test_clear_errors_for_sigma(sigma):
    with pytest.raises(ValueError, match="sigma"):
        log_gak(torch.zeros((1, 2, 2)), sigma)
    with pytest.raises(ValueError, match="sigma"):
        log_gak(torch.zeros((1, 2, 2)), torch.tensor([sigma]))
    with pytest.raises(ValueError, match="triangular"):
        log_gak(torch.zeros((1, 2, 2)), 1.0, triangular=sigma)
