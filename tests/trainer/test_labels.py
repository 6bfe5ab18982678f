"""Labels against brute force, published vectors and their own rules."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.objective.labels import (
    Positions,
    SliceVectors,
    label_rows,
    log_delannoy,
    log_gak,
    log_kernel_table,
    log_local_kernel,
    pair_weights,
    triple_kernel,
)
from trainer.recipe import ObjectiveRecipe


def squared(x: list[float], y: list[float]) -> torch.Tensor:
    return (torch.tensor(x, dtype=torch.float64)[:, None] - torch.tensor(y, dtype=torch.float64)[None, :]).square()


def normalized(x: list[float], y: list[float], sigma: float) -> float:
    log_k = log_gak(squared(x, y), sigma) - (log_gak(squared(x, x), sigma) + log_gak(squared(y, y), sigma)) / 2
    return float(log_k.exp())


def test_published_vectors() -> None:
    assert float(log_gak(squared([1, 2, 3], [1, 2, 2, 3]), 2.0).exp()) == pytest.approx(15.35819, abs=1e-5)
    assert normalized([1, 2, 3], [1, 2, 2, 3], 2.0) == pytest.approx(0.839337, abs=1e-6)
    assert float(log_gak(squared([1, 2, 3], [1, 2, 2, 3, 4]), 1.0).exp()) == pytest.approx(3.166011, abs=1e-6)
    assert normalized([1, 2, 3], [1, 2, 2, 3, 4], 1.0) == pytest.approx(0.273386, abs=1e-6)
    assert normalized([1, 2, 2, 3], [1, 2, 3, 4], 2.0) == pytest.approx(0.656297, abs=1e-6)
    phi = torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=torch.float64)
    assert float(log_gak(phi, math.sqrt(0.5)).exp()) == pytest.approx(1.450799, abs=1e-6)
    s = math.exp(-0.7)
    single = float(log_gak(torch.tensor([[1.4]], dtype=torch.float64), 1.0).exp())
    assert single == pytest.approx(s / (2 - s), abs=1e-12)


def alignments(n: int, m: int) -> Iterator[list[tuple[int, int]]]:
    """Every monotone path from (0, 0) to (n - 1, m - 1)."""

    def walk(path: list[tuple[int, int]]) -> Iterator[list[tuple[int, int]]]:
        i, j = path[-1]
        if (i, j) == (n - 1, m - 1):
            yield path
        for step in ((i + 1, j), (i, j + 1), (i + 1, j + 1)):
            if step[0] < n and step[1] < m:
                yield from walk([*path, step])

    yield from walk([(0, 0)])


@settings(derandomize=True, deadline=None, max_examples=25)
@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 3), st.integers(0, 10_000))
def test_equals_the_sum_over_all_alignments(n: int, m: int, band: int, seed: int) -> None:
    phi = torch.rand(n, m, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * 4
    log_k = log_local_kernel(phi, 1.3)
    allowed = [path for path in alignments(n, m) if not band or all(abs(i - j) <= band for i, j in path)]
    total = sum(math.exp(sum(float(log_k[i, j]) for i, j in path)) for path in allowed)
    assert float(log_kernel_table(log_k, band)[n, m].exp()) == pytest.approx(total, rel=1e-12)


def test_zero_cost_counts_paths() -> None:
    counts = log_delannoy(5).exp()
    for n in range(1, 6):
        for m in range(1, 6):
            assert float(counts[n, m]) == pytest.approx(len(list(alignments(n, m))), rel=1e-12)


def test_triangular_weights_enter_the_gaussian() -> None:
    phi = torch.rand(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    weight = torch.tensor([[max(0.0, 1 - abs(i - j) / 2) for j in range(4)] for i in range(3)])
    s = weight * (-phi / 2).exp()
    total = 0.0
    for path in alignments(3, 4):
        total += math.prod(float(s[i, j] / (2 - s[i, j])) for i, j in path)
    table = log_kernel_table(log_local_kernel(phi, 1.0), triangular=2)
    assert float(table[3, 4].exp()) == pytest.approx(total, rel=1e-9)


def test_long_sequences_stay_finite() -> None:
    phi = torch.rand(200, 150, dtype=torch.float64, generator=torch.Generator().manual_seed(2)) * 4
    assert math.isfinite(float(log_gak(phi, 0.3)))


def some_vectors(count: int = 14, seed: int = 0) -> SliceVectors:
    generator = torch.Generator().manual_seed(seed)
    is_image = torch.arange(count) % 3 == 0

    def unit(size: int) -> torch.Tensor:
        return torch.nn.functional.normalize(torch.randn(count, size, generator=generator), dim=1)

    return SliceVectors(is_image, unit(6), unit(5))


def prefixes(documents: list[list[int]], ends: list[list[int]]) -> Positions:
    """Positions of several documents as prefixes of one sequence each; a last view of the first slice of each."""
    rows = [(number, number, end, False) for number, many in enumerate(ends) for end in many]
    rows += [(number, number, 1, True) for number in range(len(documents))]
    width = max(map(len, documents))
    return Positions(
        document=torch.tensor([row[0] for row in rows]),
        view=torch.tensor([row[3] for row in rows]),
        sequence=torch.tensor([row[1] for row in rows]),
        end=torch.tensor([row[2] for row in rows]),
        slices=torch.tensor([document + [0] * (width - len(document)) for document in documents]),
        lengths=torch.tensor([len(document) for document in documents]),
    )


POSITIONS = prefixes([[0, 1, 2, 3, 4], [5, 6, 7], [8, 9, 10, 11, 12, 13]], [[2, 5], [3], [2, 4, 6]])


def slow_label(positions: Positions, i: int, j: int, vectors: SliceVectors, recipe: ObjectiveRecipe) -> float:
    """One label, from its definition."""
    phi = triple_kernel(vectors)
    x = positions.slices[positions.sequence[i]][: positions.end[i]]
    y = positions.slices[positions.sequence[j]][: positions.end[j]]
    if len(x) == len(y) == 1:
        same_rule = recipe.same_document_rule == "one" and positions.document[i] == positions.document[j]
        if not (same_rule and not (positions.view[i] and positions.view[j])):
            return float(1 - phi[x[0], y[0]] / 2)
    if recipe.same_document_rule == "one" and positions.document[i] == positions.document[j]:
        return 1.0
    if recipe.kernel == "mean_similarity":
        return float((1 - phi[x[:, None], y[None, :]] / 2).mean())
    lengths = {
        "global": (recipe.window, recipe.window),
        "pair": (int(positions.lengths[positions.sequence[i]]), int(positions.lengths[positions.sequence[j]])),
        "paper": (len(x), len(y)),
    }[recipe.sigma]
    sigma = recipe.delta * math.sqrt(sum(lengths) / 2)

    def log_k(a: torch.Tensor, b: torch.Tensor) -> float:
        return float(log_kernel_table(log_local_kernel(phi[a[:, None], b[None, :]], sigma, recipe.kernel))[-1, -1])

    if recipe.label_normalization == "cosine":
        return min(1.0, math.exp(log_k(x, y) - (log_k(x, x) + log_k(y, y)) / 2))
    if recipe.label_normalization == "path_mean":
        return math.exp(log_k(x, y)) / len(list(alignments(len(x), len(y))))
    return math.exp(log_k(x, y))


@pytest.mark.parametrize("sigma", ["global", "pair", "paper"])
@pytest.mark.parametrize("normalization", ["cosine", "path_mean", "none"])
@pytest.mark.parametrize("rule", ["one", "gak"])
def test_labels_equal_their_definition(sigma: str, normalization: str, rule: str) -> None:
    recipe = ObjectiveRecipe.model_validate(
        {
            "span": "prefix", "sigma": sigma, "label_normalization": normalization, "same_document_rule": rule,
            "delta": 0.8, "window": 3,
        }
    )  # fmt: skip
    vectors = some_vectors()
    count = len(POSITIONS.document)
    labels = label_rows(POSITIONS, 0, count, vectors, recipe)
    for i in range(count):
        for j in range(count):
            expected = slow_label(POSITIONS, i, j, vectors, recipe)
            assert float(labels[i, j]) == pytest.approx(expected, rel=1e-6, abs=1e-7), (i, j)


@pytest.mark.parametrize("kernel", ["soft_dtw", "mean_similarity"])
def test_other_kernels_equal_their_definition(kernel: str) -> None:
    recipe = ObjectiveRecipe.model_validate({"span": "prefix", "kernel": kernel, "same_document_rule": "gak"})
    vectors = some_vectors()
    labels = label_rows(POSITIONS, 0, len(POSITIONS.document), vectors, recipe)
    for i in range(len(labels)):
        for j in range(len(labels)):
            expected = slow_label(POSITIONS, i, j, vectors, recipe)
            assert float(labels[i, j]) == pytest.approx(expected, rel=1e-6, abs=1e-7)


def test_row_blocks_are_the_whole() -> None:
    recipe, vectors = ObjectiveRecipe(span="prefix", sigma="pair"), some_vectors()
    count = len(POSITIONS.document)
    whole = label_rows(POSITIONS, 0, count, vectors, recipe)
    blocks = [label_rows(POSITIONS, start, min(start + 4, count), vectors, recipe) for start in range(0, count, 4)]
    assert torch.equal(torch.cat(blocks), whole)
    assert torch.allclose(whole, whole.T, atol=1e-6)


def test_shuffled_labels_forget_content() -> None:
    vectors = some_vectors()
    plain, shuffled = (
        label_rows(POSITIONS, 0, len(POSITIONS.document), vectors, ObjectiveRecipe(span="prefix", kernel=kernel))
        for kernel in ("gak", "shuffled")
    )
    assert not torch.allclose(plain, shuffled)
    assert plain.shape == shuffled.shape


def test_a_document_against_itself_is_one() -> None:
    recipe = ObjectiveRecipe(span="prefix", same_document_rule="gak")
    labels = label_rows(POSITIONS, 0, len(POSITIONS.document), some_vectors(), recipe)
    assert torch.allclose(labels.diagonal(), torch.ones(len(labels)), atol=1e-6)


def test_windows_meet_only_windows_of_like_length() -> None:
    weights = pair_weights(POSITIONS, ObjectiveRecipe(span="window"))
    same = POSITIONS.document[:, None] == POSITIONS.document[None, :]
    like = POSITIONS.end[:, None] == POSITIONS.end[None, :]
    assert torch.equal(weights > 0, same | like)
    assert bool((pair_weights(POSITIONS, ObjectiveRecipe(span="prefix")) == 1).all())
    assert bool((pair_weights(POSITIONS, ObjectiveRecipe(unlike_lengths="label")) == 1).all())
    without = pair_weights(POSITIONS, ObjectiveRecipe(span="prefix", same_document_rule="ignore"))
    bare = POSITIONS.view[:, None] & POSITIONS.view[None, :]
    assert torch.equal(without > 0, ~same | bare)


def test_triple_kernel_selects_by_modality() -> None:
    vectors = some_vectors()
    phi = triple_kernel(vectors)
    for i in range(len(phi)):
        for j in range(len(phi)):
            same = bool(vectors.is_image[i] == vectors.is_image[j])
            which = (vectors.primary if same else vectors.shared).double()
            assert float(phi[i, j]) == pytest.approx(float((which[i] - which[j]).square().sum()), abs=1e-6)
