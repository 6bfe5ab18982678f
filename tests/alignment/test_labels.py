"""Labels of positions: every choice, the prefix trick, and the rules."""

import itertools
import math

import pytest
import torch

import alignment.log_kernel
from alignment import LabelSettings, Slices, gak_labels, log_gak, triple_kernel_cost
from alignment.labels import shuffled_slices
from tests.alignment.paths import delannoy


def unit_vectors(generator, *shape):
    vectors = torch.randn(shape, generator=generator, dtype=torch.float64)
    return torch.nn.functional.normalize(vectors, dim=-1)


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    documents, longest = 11, 12
    slices = Slices(
        unit_vectors(generator, documents, longest, 7),
        unit_vectors(generator, documents, longest, 5),
        torch.rand((documents, longest), generator=generator) < 0.4,
    )
    lengths = torch.randint(1, longest + 1, (documents,), generator=generator)
    document = torch.randint(0, documents, (30,), generator=generator)
    end = (torch.rand(30, generator=generator) * lengths[document]).long()
    return slices, lengths, document, end


def part(slices, document, start, stop):
    return Slices(
        slices.primary[document, start:stop],
        slices.shared[document, start:stop],
        slices.is_image[document, start:stop],
    )


def expected_label(batch, settings, p, q):
    """The definition, one pair at a time, through the reference implementation."""
    slices, lengths, document, end = batch
    spans = []
    for position in (p, q):
        stop = int(end[position]) + 1
        start = max(0, stop - settings.window) if settings.span == "window" else 0
        spans.append(part(slices, int(document[position]), start, stop))
    n, m = (len(span.is_image) for span in spans)
    if n == m == 1:
        return float(1.0 - triple_kernel_cost(*spans)[0, 0] / 2)
    sigma = {
        "global": settings.delta * math.sqrt(settings.window),
        "pair": settings.delta * math.sqrt(float(lengths[document[p]] + lengths[document[q]]) / 2),
        "paper": settings.delta * math.sqrt((n + m) / 2),
    }[settings.sigma]
    x, y = spans
    log = [
        float(
            log_gak(
                triple_kernel_cost(a, b)[None],
                sigma,
                band=settings.band,
                triangular=settings.triangular,
                backend="wavefront",
            )
        )
        for a, b in ((x, y), (x, x), (y, y))
    ]
    return min(1.0, math.exp(log[0] - (log[1] + log[2]) / 2))


@pytest.mark.parametrize(("span", "sigma"), itertools.product(["window", "prefix"], ["global", "pair", "paper"]))
@pytest.mark.parametrize("extra", [{}, {"band": 1}, {"triangular": 4.0}])
def test_labels_equal_the_definition(batch, span, sigma, extra):
    """With span `prefix` this is the prefix trick against separate calls."""
    settings = LabelSettings(
        span=span, sigma=sigma, window=4, delta=0.8, same_document="kernel", unequal_lengths="keep", **extra
    )
    values, valid = gak_labels(*batch, settings)
    assert bool(valid.all())
    assert torch.equal(values, values.mT)
    for p, q in [(0, 1), (2, 2), (3, 9), (20, 5), (7, 8), (29, 14), (13, 4)]:
        assert float(values[p, q]) == pytest.approx(expected_label(batch, settings, p, q), rel=1e-6, abs=1e-9)


def test_own_label_is_one_and_all_lie_between_zero_and_one(batch):
    settings = LabelSettings(same_document="kernel", unequal_lengths="keep")
    values = gak_labels(*batch, settings).values
    torch.testing.assert_close(values.diagonal(), torch.ones(30, dtype=torch.float64))
    end = batch[3]
    several = (end >= 1).nonzero()[:, 0]
    inner = values[several][:, several]
    assert float(inner.min()) >= 0.0 and float(inner.max()) <= 1.0


def test_labels_of_a_position_do_not_depend_on_the_batch(batch):
    slices, lengths, document, end = batch
    for settings in (LabelSettings(), LabelSettings(span="prefix"), LabelSettings(band=2), LabelSettings(sigma="pair")):
        whole = gak_labels(slices, lengths, document, end, settings).values
        some = gak_labels(slices, lengths, document[:9], end[:9], settings).values
        torch.testing.assert_close(some, whole[:9, :9], rtol=1e-9, atol=1e-12)


def test_rules_for_documents_and_lengths(batch):
    _, _, document, end = batch
    count = (end + 1).clamp(max=6)
    same = document[:, None] == document[None, :]
    like = count[:, None] == count[None, :]
    one = gak_labels(*batch)
    assert torch.equal(one.valid, like | same) and bool((one.values[same] == 1.0).all())
    kernel = gak_labels(*batch, LabelSettings(same_document="kernel"))
    assert torch.equal(kernel.valid, like) and not bool((kernel.values[same] == 1.0).all())
    single = (count == 1)[:, None] & (count == 1)[None, :]
    ignored = gak_labels(*batch, LabelSettings(same_document="ignore"))
    assert torch.equal(ignored.valid, like & (~same | single))
    strict = gak_labels(*batch, LabelSettings(same_document="ignore", single_slices="document"))
    assert torch.equal(strict.valid, like & ~same)
    prefix = gak_labels(*batch, LabelSettings(span="prefix"))
    assert bool(prefix.valid.all())
    torch.testing.assert_close(one.values[~same], kernel.values[~same])


def test_single_slices_get_the_selected_cosine(batch):
    slices, _, document, end = batch
    single = torch.arange(30) % 3 == 0
    values, valid = gak_labels(*batch, LabelSettings(same_document="kernel"), single=single)
    rows = torch.nonzero(single)[:, 0]
    for p in rows[:5].tolist():
        for q in rows[:5].tolist():
            (d, i), (e, j) = ((int(document[k]), int(end[k])) for k in (p, q))
            vectors = slices.primary if slices.is_image[d, i] == slices.is_image[e, j] else slices.shared
            assert float(values[p, q]) == pytest.approx(float(vectors[d, i] @ vectors[e, j]), abs=1e-12)
    assert bool(valid[rows][:, rows].all())


def test_mean_similarity_is_the_mean_cosine(batch):
    slices, _, document, end = batch
    settings = LabelSettings(kernel="mean_similarity", same_document="kernel")
    values = gak_labels(*batch, settings).values
    for p, q in [(0, 1), (3, 9), (12, 12)]:
        spans = [part(slices, int(document[k]), max(0, int(end[k]) - 5), int(end[k]) + 1) for k in (p, q)]
        wanted = float((1.0 - triple_kernel_cost(*spans) / 2).mean())
        assert float(values[p, q]) == pytest.approx(wanted, abs=1e-12)


def test_soft_dtw_kernel_leaves_out_the_divisible_part(batch):
    gak = gak_labels(*batch, LabelSettings(same_document="kernel")).values
    plain = gak_labels(*batch, LabelSettings(kernel="soft_dtw", same_document="kernel")).values
    apart = batch[2][:, None] != batch[2][None, :]
    longer = ((batch[3] > 0)[:, None] & (batch[3] > 0)[None, :]) & apart
    # t < t + log(2 - exp(-t)): without it unlike sequences look more alike.
    assert float((plain - gak)[longer].min()) > 0.0


def test_path_mean_and_raw_kernel(batch):
    raw = gak_labels(*batch, LabelSettings(normalization="none", same_document="kernel", unequal_lengths="keep")).values
    mean = gak_labels(*batch, LabelSettings(normalization="path_mean", same_document="kernel", unequal_lengths="keep"))
    count = (batch[3] + 1).clamp(max=6)
    for p, q in [(0, 1), (3, 9), (20, 5), (7, 8)]:
        if count[p] > 1 or count[q] > 1:
            paths = delannoy(int(count[p]) - 1, int(count[q]) - 1)
            assert float(mean.values[p, q]) == pytest.approx(float(raw[p, q]) / paths, rel=1e-9)
    assert float(mean.values.max()) <= 1.0 + 1e-12 < float(raw.max())


def test_shuffling_destroys_content_but_not_modality(batch):
    is_image = torch.rand(200, generator=torch.Generator().manual_seed(1)) < 0.5
    valid = torch.arange(200) < 150
    places = shuffled_slices(is_image, valid, torch.Generator().manual_seed(2))
    assert torch.equal(places.sort().values, torch.arange(200))
    assert torch.equal(places[150:], torch.arange(150, 200))
    assert torch.equal(is_image[places], is_image)
    assert int((places[:150] != torch.arange(150)).sum()) > 140
    settings = LabelSettings(kernel="shuffled")
    runs = [gak_labels(*batch, settings, generator=torch.Generator().manual_seed(seed)).values for seed in (3, 3, 4)]
    assert torch.equal(runs[0], runs[1]) and not torch.equal(runs[0], runs[2])


def test_float32_and_stored_float16_vectors(batch):
    slices, lengths, document, end = batch
    wanted = gak_labels(*batch).values
    single = Slices(slices.primary.float(), slices.shared.float(), slices.is_image)
    found = gak_labels(single, lengths, document, end).values
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), wanted, rtol=0.0, atol=2e-6)
    stored = Slices(slices.primary.half().float(), slices.shared.half().float(), slices.is_image)
    torch.testing.assert_close(gak_labels(stored, lengths, document, end).values.double(), wanted, rtol=0.0, atol=1e-3)


def test_no_positions_and_no_gradient(batch):
    slices, lengths, document, end = batch
    assert gak_labels(slices, lengths, document[:0], end[:0]).values.shape == (0, 0)
    leaf = Slices(slices.primary.clone().requires_grad_(True), slices.shared, slices.is_image)
    assert not gak_labels(leaf, lengths, document, end).values.requires_grad


def test_padding_may_be_nan_content_may_not(batch):
    slices, lengths, document, end = batch
    outside = torch.arange(12)[None, :] >= lengths[:, None]
    spoiled = Slices(slices.primary.masked_fill(outside[:, :, None], math.nan), slices.shared, slices.is_image)
    torch.testing.assert_close(gak_labels(spoiled, lengths, document, end).values, gak_labels(*batch).values)
    broken = slices.primary.clone()
    broken[4, 0] = math.nan
    with pytest.raises(ValueError, match="document 4, slice 0"):
        gak_labels(Slices(broken, slices.shared, slices.is_image), lengths, document, end)


def test_clear_errors(batch):
    slices, lengths, document, end = batch
    with pytest.raises(ValueError, match="end must lie inside"):
        gak_labels(slices, lengths, document, end + 12)
    with pytest.raises(ValueError, match="document must lie"):
        gak_labels(slices, lengths, document + 11, end)
    with pytest.raises(ValueError, match="both have shape"):
        gak_labels(slices, lengths, document, end[:3])
    with pytest.raises(ValueError, match="single"):
        gak_labels(*batch, single=torch.ones(3, dtype=torch.bool))
    for name, value in [
        ("span", "all"),
        ("kernel", "dtw"),
        ("sigma", "x"),
        ("window", 0),
        ("delta", 0.0),
        ("band", -1),
    ]:
        with pytest.raises(ValueError, match=name):
            LabelSettings(**{name: value})


@pytest.mark.parametrize("span", ["window", "prefix"])
def test_the_path_of_other_devices_gives_the_same_labels(batch, span, monkeypatch):
    settings = LabelSettings(span=span, same_document="kernel", unequal_lengths="keep")
    wanted = gak_labels(*batch, settings).values
    monkeypatch.setattr(alignment.log_kernel, "choose_backend", lambda cost: "wavefront")
    torch.testing.assert_close(gak_labels(*batch, settings).values, wanted, rtol=1e-9, atol=1e-12)
