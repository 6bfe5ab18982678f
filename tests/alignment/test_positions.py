"""Positions in sequences that share slices: rows computed apart, parts of documents, weights and bands, symmetry."""

import itertools
import math

import pytest
import torch

import alignment.log_kernel
from alignment import (
    LabelSettings,
    Positions,
    Slices,
    gak_labels,
    labelled_pairs,
    position_labels,
    soft_dtw_table,
    triple_kernel_cost,
)
from tests.alignment.paths import alignments, delannoy

KEEP = {"same_document": "kernel", "unequal_lengths": "keep"}


def some_slices(count, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    vectors = [torch.randn((count, size), generator=generator, dtype=dtype) for size in (7, 5)]
    primary, shared = (torch.nn.functional.normalize(one, dim=-1) for one in vectors)
    return Slices(primary, shared, torch.rand(count, generator=generator) < 0.4)


@pytest.fixture
def positions():
    """23 sequences of 1 to 9 of 40 slices, which they share; 50 positions; every two sequences are one document."""
    generator = torch.Generator().manual_seed(3)
    lengths = torch.randint(1, 10, (23,), generator=generator)
    sequence = torch.randint(0, 23, (50,), generator=generator)
    return Positions(
        torch.randint(0, 40, (23, 9), generator=generator),
        lengths,
        sequence,
        (torch.rand(50, generator=generator) * lengths[sequence]).long(),
        torch.arange(23) // 2,
        lengths + torch.arange(23) % 4,
    )


CHOICES = [
    {},
    {"span": "prefix"},
    {"span": "prefix", "sigma": "pair"},
    {"sigma": "paper", "normalization": "path_mean"},
    {"span": "prefix", "band": 1},
    {"kernel": "soft_dtw", "triangular": 4.0, "sigma": "pair"},
    {"kernel": "mean_similarity"},
    {"kernel": "shuffled", "normalization": "none"},
]


@pytest.mark.slow
@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rows_computed_apart_are_the_whole_to_the_last_bit(positions, choice, dtype):
    slices, settings = some_slices(40, dtype), LabelSettings(**choice, **KEEP)
    whole = position_labels(slices, positions, settings)
    for size in (1, 7, 25):
        rows = [slice(start, start + size) for start in range(0, 50, size)]
        parts = [position_labels(slices, positions, settings, rows=some) for some in rows]
        assert torch.equal(torch.cat([part.values for part in parts]), whole.values)
        assert torch.equal(torch.cat([part.valid for part in parts]), whole.valid)
    if settings.kernel == "mean_similarity":
        torch.testing.assert_close(whole.values, whole.values.mT)
    else:
        assert torch.equal(whole.values, whole.values.mT)


@pytest.mark.parametrize("choice", [{}, {"span": "prefix", "sigma": "pair"}])
def test_rows_on_the_path_of_other_devices(positions, choice, monkeypatch):
    slices, settings = some_slices(40), LabelSettings(**choice, **KEEP)
    wanted = position_labels(slices, positions, settings).values
    monkeypatch.setattr(alignment.log_kernel, "choose_backend", lambda cost: "wavefront")
    whole = position_labels(slices, positions, settings).values
    torch.testing.assert_close(whole, wanted, rtol=1e-9, atol=1e-12)
    parts = [position_labels(slices, positions, settings, rows=slice(i, i + 20)).values for i in range(0, 50, 20)]
    assert torch.equal(torch.cat(parts), whole)


@pytest.mark.parametrize(
    ("backend", "dtype"), itertools.product(["lanes", "wavefront"], [torch.float32, torch.float64])
)
def test_transposed_costs_give_the_same_bits(backend, dtype):
    generator = torch.Generator().manual_seed(0)
    cost = torch.rand((40, 13, 9), generator=generator, dtype=dtype) * 3
    n, m = (torch.randint(1, most + 1, (40,), generator=generator) for most in (13, 9))
    for band in (None, 2):
        table = soft_dtw_table(cost, 0.3, n, m, band=band, backend=backend)
        assert torch.equal(soft_dtw_table(cost.mT, 0.3, m, n, band=band, backend=backend).mT, table)


def test_documents_of_padded_slices_are_sequences(positions):
    """gak_labels and position_labels are one thing: documents in a padded tensor, or as indices into a row."""
    slices = some_slices(40)
    numbers = positions.slices
    padded = Slices(slices.primary[numbers], slices.shared[numbers], slices.is_image[numbers])
    plain = Positions(numbers, positions.lengths, positions.sequence, positions.end)
    for settings in (LabelSettings(), LabelSettings(span="prefix", sigma="pair")):
        wanted = gak_labels(padded, positions.lengths, positions.sequence, positions.end, settings)
        found = position_labels(slices, plain, settings)
        torch.testing.assert_close(found.values, wanted.values, rtol=1e-10, atol=1e-12)
        assert torch.equal(found.valid, wanted.valid)
        some = gak_labels(padded, positions.lengths, positions.sequence, positions.end, settings, rows=slice(9, 20))
        assert torch.equal(some.values, wanted.values[9:20])


def test_parts_of_a_document_share_its_rule_and_its_length(positions):
    slices = some_slices(40)
    owner = positions.owner
    same = owner[:, None] == owner[None, :]
    seen = positions.span_lengths(LabelSettings())
    single = (seen == 1)[:, None] & (seen == 1)[None, :]
    values = position_labels(slices, positions).values
    assert bool((values[same & ~single] == 1.0).all()) and float((values[~same] < 1.0).double().mean()) > 0.9
    assert int((same & (positions.sequence[:, None] != positions.sequence[None, :]) & ~single).sum()) > 10
    # pair: sqrt((N + M) / 2) of `whole`, whatever the span
    p, q = (int(torch.nonzero(seen == k)[0]) for k in (4, 6))
    settings = LabelSettings(sigma="pair", **KEEP)
    whole = positions.whole[positions.sequence]
    by_hand = LabelSettings(sigma_length=float(whole[p] + whole[q]) / 2, **KEEP)
    found = float(position_labels(slices, positions, settings).values[p, q])
    assert found == pytest.approx(float(position_labels(slices, positions, by_hand).values[p, q]), rel=1e-9)
    paper = LabelSettings(sigma="paper", **KEEP)
    assert abs(found - float(position_labels(slices, positions, paper).values[p, q])) > 1e-3


def test_global_bandwidth_is_that_of_full_windows():
    assert LabelSettings(window=9, delta=0.5).global_sigma == pytest.approx(1.5)
    assert LabelSettings(window=9, sigma_length=4.0).global_sigma == pytest.approx(2.0)
    slices = some_slices(18)
    positions = Positions(torch.arange(18).view(2, 9), torch.tensor([9, 9]), torch.tensor([0, 1]), torch.tensor([8, 8]))
    one, paper = (
        position_labels(slices, positions, LabelSettings(window=9, sigma=sigma)).values for sigma in ("global", "paper")
    )
    torch.testing.assert_close(one, paper)


def by_paths(costs, settings, sigma, nearness=1.0):
    """The unnormalised kernel, path by path."""
    total = 0.0
    n, m = costs.shape
    for path in alignments(n, m):
        product = 1.0
        for i, j in path:
            if settings.band is not None and not -settings.band - max(0, n - m) <= j - i <= settings.band + max(
                0, m - n
            ):
                product = 0.0
                break
            s = math.exp(-nearness * float(costs[i, j]) / (2 * sigma**2))
            if settings.triangular is not None:
                s *= max(0.0, 1 - abs(i - j) / settings.triangular)
            product *= s if settings.kernel == "soft_dtw" else s / (2 - s)
        total += product
    return total


@pytest.mark.parametrize("kernel", ["gak", "soft_dtw"])
@pytest.mark.parametrize("sigma", ["global", "paper"])
@pytest.mark.parametrize("extra", [{}, {"triangular": 4.0}, {"band": 1}])
def test_weights_come_before_the_local_kernel_and_paths_are_those_allowed(kernel, sigma, extra):
    """Also where each pair has its own bandwidth; the mean is over paths inside the band, weighted if weights are."""
    slices = some_slices(9)
    positions = Positions(
        torch.tensor([[0, 1, 2, 3, 4], [5, 6, 7, 8, 8]]),
        torch.tensor([5, 4]),
        torch.tensor([0, 1]),
        torch.tensor([4, 3]),
    )
    sides = [torch.arange(5), torch.arange(5, 9)]
    phi = triple_kernel_cost(slices, slices).fill_diagonal_(0.0)
    fields = {"span": "prefix", "kernel": kernel, "sigma": sigma, **KEEP, **extra}
    cosine = LabelSettings(**fields)
    bandwidth = {"global": cosine.global_sigma, "paper": math.sqrt(4.5)}[sigma]
    crossed, first, second = (
        by_paths(phi[sides[a]][:, sides[b]], cosine, bandwidth) for a, b in ((0, 1), (0, 0), (1, 1))
    )
    found = position_labels(slices, positions, cosine).values
    assert float(found[0, 1]) == pytest.approx(crossed / math.sqrt(first * second), rel=1e-9)
    mean = position_labels(slices, positions, LabelSettings(**fields, normalization="path_mean")).values
    count = by_paths(phi[sides[0]][:, sides[1]], cosine, bandwidth, 0.0)
    assert float(mean[0, 1]) == pytest.approx(crossed / count, rel=1e-9)
    if not extra:
        assert count == delannoy(4, 3)


def test_single_slices_of_one_document(positions):
    slices = some_slices(40)
    seen = positions.span_lengths(LabelSettings())
    owner = positions.owner
    one = torch.nonzero(seen == 1)[:, 0]
    p, q = next(
        (int(a), int(b))
        for a, b in itertools.combinations(one, 2)
        if owner[a] == owner[b] and positions.sequence[a] != positions.sequence[b]
    )
    i, j = (int(positions.slices[positions.sequence[k], 0]) for k in (p, q))
    vectors = slices.primary if slices.is_image[i] == slices.is_image[j] else slices.shared
    values = position_labels(slices, positions).values
    assert float(values[p, q]) == pytest.approx(float(vectors[i] @ vectors[j]), abs=1e-12)
    rule = position_labels(slices, positions, LabelSettings(single_slices="document"))
    assert float(rule.values[p, q]) == 1.0
    ignored = [
        labelled_pairs(positions, LabelSettings(same_document="ignore", single_slices=which))[p, q]
        for which in ("cosine", "document")
    ]
    assert ignored == [True, False]


def test_the_default_permutation_is_fixed(positions):
    slices, settings = some_slices(40), LabelSettings(kernel="shuffled", **KEEP)
    torch.manual_seed(1)
    one = position_labels(slices, positions, settings).values
    torch.manual_seed(2)
    assert torch.equal(position_labels(slices, positions, settings).values, one)


def test_clear_errors(positions):
    slices = some_slices(40)
    given = vars(positions)

    def refused(match, **changed):
        with pytest.raises(ValueError, match=match):
            position_labels(slices, Positions(**{**given, **changed}))

    refused("sequence must lie in 0..22", sequence=positions.sequence + 20)
    refused("end must lie inside", end=positions.end + 9)
    refused("lengths must lie in", lengths=positions.lengths * 0)
    refused("whole must have shape", whole=torch.ones(3, dtype=torch.int64))
    refused("slices must lie in 0..39", slices=positions.slices + 40)
    refused("whole numbers", end=positions.end.double())
    refused("both have shape", end=positions.end[:4])
    with pytest.raises(ValueError, match=r"shape \(slices,\)"):
        position_labels(Slices(*(one[None] for one in vars(slices).values())), positions)
    used = int(positions.slices[0, 0])
    slices.shared[used] = math.nan
    with pytest.raises(ValueError, match=f"shared has NaN or infinity at slice {used}"):
        position_labels(slices, positions)
    with pytest.raises(ValueError, match="single_slices"):
        LabelSettings(single_slices="one")


def test_slices_that_no_sequence_has_may_be_nan(positions):
    slices = some_slices(40)
    beyond = positions.slices.clone()
    beyond[~positions.inside()] = 99
    slices.primary[35:] = math.nan
    few = Positions(beyond.where(beyond < 35, 99 * ~positions.inside()), *list(vars(positions).values())[1:])
    assert bool(torch.isfinite(position_labels(slices, few).values).all())
