"""Labels of a step against their definition, path by path; rows by rank; the recipe's words for them."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from alignment import Positions, Slices, triple_kernel_cost
from tests.alignment.paths import alignments
from tests.trainer.conftest import tiny
from trainer.data.corpus import open_corpus
from trainer.data.layout import Segment
from trainer.data.positions import PositionBuilder
from trainer.data.rows import Row
from trainer.objective.labels import label_lengths, label_rows, label_settings, pair_weights
from trainer.recipe import ObjectiveRecipe


def some_slices(count: int = 14, seed: int = 0) -> Slices:
    generator = torch.Generator().manual_seed(seed)

    def unit(size: int) -> torch.Tensor:
        return torch.nn.functional.normalize(torch.randn(count, size, generator=generator), dim=1)

    return Slices(unit(6), unit(5), torch.arange(count) % 3 == 0)


def positions_of(documents: list[list[int]], ends: list[list[int]], whole: list[int]) -> Positions:
    """Positions at `ends` (slices seen) of documents, then a bare slice of each: its second one."""
    sequences = documents + [[document[1]] for document in documents]
    bare = [len(documents) + number for number in range(len(documents))]
    width = max(map(len, sequences))
    return Positions(
        slices=torch.tensor([sequence + [0] * (width - len(sequence)) for sequence in sequences]),
        lengths=torch.tensor([len(sequence) for sequence in sequences]),
        sequence=torch.tensor([d for d, many in enumerate(ends) for _ in many] + bare),
        end=torch.tensor([end - 1 for many in ends for end in many] + [0] * len(documents)),
        document=torch.tensor([*range(len(documents)), *range(len(documents))]),
        whole=torch.tensor([*whole, *[1] * len(documents)]),
    )  # fmt: skip


# The last document has nine slices, of which one segment of six is here.
POSITIONS = positions_of(
    [[0, 1, 2, 3, 4], [5, 6, 7], [8, 9, 10, 11, 12, 13]], [[1, 2, 5], [3], [1, 2, 4, 6]], [5, 3, 9]
)
COUNT = len(POSITIONS)


@cache
def all_alignments(n: int, m: int) -> list[tuple[tuple[int, int], ...]]:
    return list(alignments(n, m))


def slow_label(positions: Positions, i: int, j: int, slices: Slices, recipe: ObjectiveRecipe) -> float:
    """One label, from its definition: the sum over all alignments."""
    exact = Slices(slices.primary.double(), slices.shared.double(), slices.is_image)
    phi = triple_kernel_cost(exact, exact).fill_diagonal_(0.0)

    def members(position: int) -> torch.Tensor:
        seen = positions.slices[positions.sequence[position], : int(positions.end[position]) + 1]
        return seen[-recipe.window :] if recipe.span == "window" else seen

    x, y = members(i), members(j)
    if len(x) == len(y) == 1 and recipe.single_slices == "cosine":
        return float(1 - phi[x[0], y[0]] / 2)
    if recipe.same_document_rule == "one" and positions.owner[i] == positions.owner[j]:
        return 1.0
    if len(x) == len(y) == 1:
        return float(1 - phi[x[0], y[0]] / 2)
    if recipe.kernel == "mean_similarity":
        return float((1 - phi[x[:, None], y[None, :]] / 2).mean())
    whole = positions.whole_lengths[positions.sequence]
    lengths = {
        "global": (recipe.window, recipe.window),
        "pair": (int(whole[i]), int(whole[j])),
        "paper": (len(x), len(y)),
    }[recipe.sigma]
    sigma = recipe.delta * math.sqrt(sum(lengths) / 2)

    def kernel(a: torch.Tensor, b: torch.Tensor, nearness: float = 1.0) -> float:
        n, m = len(a), len(b)
        table = np.exp(-nearness * phi[a[:, None], b[None, :]].numpy() / (2 * sigma**2))
        offset = np.arange(m)[None, :] - np.arange(n)[:, None]
        if recipe.triangular:
            table *= np.maximum(0.0, 1 - np.abs(offset) / recipe.triangular)
        if recipe.kernel != "soft_dtw":
            table = table / (2 - table)
        if recipe.band:
            inside = (offset >= -recipe.band - max(0, n - m)) & (offset <= recipe.band + max(0, m - n))
            table = np.where(inside, table, 0.0)
        local = table.tolist()
        return sum(math.prod(local[p][q] for p, q in path) for path in all_alignments(n, m))

    if recipe.label_normalization == "cosine":
        return min(1.0, kernel(x, y) / math.sqrt(kernel(x, x) * kernel(y, y)))
    if recipe.label_normalization == "path_mean":
        count = kernel(x, y, 0.0)
        return kernel(x, y) / count if count else 0.0
    return kernel(x, y)


def check(recipe: ObjectiveRecipe) -> None:
    slices = some_slices()
    labels = label_rows(POSITIONS, 0, COUNT, slices, recipe)
    assert labels.dtype == torch.float32
    assert torch.equal(labels, labels.T)
    for i in range(COUNT):
        for j in range(i, COUNT):
            expected = slow_label(POSITIONS, i, j, slices, recipe)
            assert float(labels[i, j]) == pytest.approx(expected, rel=1e-6, abs=1e-7), (i, j)


@pytest.mark.parametrize("span", ["window", "prefix"])
@pytest.mark.parametrize("sigma", ["global", "pair", "paper"])
@pytest.mark.parametrize("normalization", ["cosine", "path_mean", "none"])
def test_labels_equal_their_definition(span: str, sigma: str, normalization: str) -> None:
    rule = "one" if sigma == "pair" else "gak"
    check(
        ObjectiveRecipe.model_validate(
            {
                "span": span, "sigma": sigma, "label_normalization": normalization, "same_document_rule": rule,
                "delta": 0.8, "window": 3, "unlike_lengths": "label",
            }
        )
    )  # fmt: skip


@pytest.mark.parametrize("kernel", ["gak", "soft_dtw"])
@pytest.mark.parametrize("paths", [{"band": 1}, {"triangular": 3}])
@pytest.mark.parametrize("sigma", ["global", "paper"])
@pytest.mark.parametrize("normalization", ["cosine", "path_mean"])
def test_bands_and_weights_equal_their_definition(
    kernel: str, paths: dict[str, int], sigma: str, normalization: str
) -> None:
    """Weights multiply the Gaussian before the local kernel is made of it, whichever that is."""
    fields = {"span": "prefix", "kernel": kernel, "sigma": sigma, "label_normalization": normalization, **paths}
    check(ObjectiveRecipe.model_validate(fields))


@pytest.mark.parametrize("kernel", ["soft_dtw", "mean_similarity"])
@pytest.mark.parametrize("span", ["window", "prefix"])
def test_other_kernels_equal_their_definition(kernel: str, span: str) -> None:
    check(ObjectiveRecipe.model_validate({"span": span, "kernel": kernel, "same_document_rule": "gak", "window": 4}))


def test_a_band_is_widened_by_the_difference_of_the_lengths() -> None:
    recipe = ObjectiveRecipe(span="prefix", band=1, same_document_rule="gak")
    labels = label_rows(POSITIONS, 0, COUNT, some_slices(), recipe)
    pair = ((POSITIONS.end == 1).nonzero()[0, 0], (POSITIONS.end == 4).nonzero()[0, 0])
    assert float(labels[pair]) > 0.01


def test_bare_slices_of_one_document_keep_their_cosine() -> None:
    slices, bare = some_slices(), POSITIONS.sequence >= 3
    rule = ObjectiveRecipe(single_slices="document")
    # Its first slice is a label sequence of one slice too.
    first = int(((POSITIONS.sequence == 0) & (POSITIONS.end == 0)).nonzero()[0, 0])
    view = int(bare.nonzero()[0, 0])
    cosine = float(slices.shared[0] @ slices.shared[1])  # slice 0 is an image, slice 1 a sentence
    for recipe, expected in ((ObjectiveRecipe(), cosine), (rule, 1.0)):
        labels = label_rows(POSITIONS, 0, COUNT, slices, recipe)
        assert float(labels[first, view]) == pytest.approx(expected, abs=1e-6)
        assert float(labels[view, view]) == 1.0
        # With more than one slice on either side the rule holds.
        assert float(labels[int(((POSITIONS.sequence == 0) & (POSITIONS.end == 4)).nonzero()[0, 0]), view]) == 1.0


def test_pair_bandwidth_is_that_of_whole_documents_also_for_windows() -> None:
    """Under span "window" too, "pair" is no other name for "paper"."""
    slices = some_slices()
    fields = {"window": 2, "same_document_rule": "gak"}
    pair, paper = (
        label_rows(POSITIONS, 0, COUNT, slices, ObjectiveRecipe.model_validate({**fields, "sigma": sigma}))
        for sigma in ("pair", "paper")
    )
    i, j = (int(((POSITIONS.sequence == d) & (POSITIONS.end == 1)).nonzero()[0, 0]) for d in (0, 2))
    # Two slices against two slices: sqrt(2) by their own lengths, sqrt((5 + 9) / 2) by their documents'.
    wide = ObjectiveRecipe.model_validate({**fields, "delta": math.sqrt(7 / 2)})
    assert float(pair[i, j]) == pytest.approx(float(label_rows(POSITIONS, 0, COUNT, slices, wide)[i, j]), rel=1e-6)
    plain = ObjectiveRecipe.model_validate(fields)
    assert float(paper[i, j]) == pytest.approx(float(label_rows(POSITIONS, 0, COUNT, slices, plain)[i, j]), rel=1e-6)
    assert float(pair[i, j]) > float(paper[i, j]) + 0.05


def test_a_step_knows_the_whole_lengths_of_cut_documents(corpus: Path, tmp_path: Path) -> None:
    recipe = tiny(corpus, tmp_path)
    document = open_corpus(str(corpus)).document(0)
    has = document.has_vectors
    # The second half of the document, its first usable slice shown bare.
    first = len(has) // 2
    row = Row(0, document.document_id, "train", Segment(first, len(has), 10, True), 0, (), ())
    builder = PositionBuilder(recipe.objective)
    chosen = builder.add(document, row, (first,), 0, 0)
    positions, slices = builder.finish()
    assert len(positions) == len(chosen) + 1 and positions.whole is not None
    assert positions.whole.tolist() == [sum(has), 1] and positions.lengths.tolist() == [sum(has[first:]), 1]
    # The bare slice is the same slice as the segment's, not a copy.
    assert len(slices.is_image) == sum(has[first:]) and int(positions.slices[1, 0]) == 0
    assert label_lengths(positions, recipe.objective).tolist()[-1] == 1


@pytest.mark.parametrize("fields", [
    {}, {"span": "prefix"}, {"span": "prefix", "sigma": "pair"}, {"sigma": "paper"}, {"kernel": "mean_similarity"},
    {"kernel": "shuffled"}, {"band": 1, "label_normalization": "path_mean"}, {"kernel": "soft_dtw", "triangular": 4},
])  # fmt: skip
def test_row_blocks_are_the_whole(fields: dict[str, object]) -> None:
    recipe, slices = ObjectiveRecipe.model_validate({**fields, "unlike_lengths": "label"}), some_slices()
    whole = label_rows(POSITIONS, 0, COUNT, slices, recipe, seed=5)
    for size in (1, 3, 4):
        blocks = [label_rows(POSITIONS, i, min(i + size, COUNT), slices, recipe, 5) for i in range(0, COUNT, size)]
        assert torch.equal(torch.cat(blocks), whole)
    assert torch.equal(whole, whole.T)
    assert label_rows(POSITIONS, 2, 2, slices, recipe).shape == (0, COUNT)


def test_shuffled_labels_forget_content_anew_every_step() -> None:
    slices = some_slices()
    recipe = ObjectiveRecipe(span="prefix", kernel="shuffled")
    plain = label_rows(POSITIONS, 0, COUNT, slices, ObjectiveRecipe(span="prefix"))
    one, again, other = (label_rows(POSITIONS, 0, COUNT, slices, recipe, seed) for seed in (1, 1, 2))
    assert torch.equal(one, again) and not torch.allclose(one, other) and not torch.allclose(one, plain)


def test_a_document_against_itself_is_one() -> None:
    recipe = ObjectiveRecipe(span="prefix", same_document_rule="gak")
    labels = label_rows(POSITIONS, 0, COUNT, some_slices(), recipe)
    assert torch.allclose(labels.diagonal(), torch.ones(len(labels)), atol=1e-6)


def test_windows_meet_only_windows_of_like_length() -> None:
    weights = pair_weights(POSITIONS, ObjectiveRecipe(span="window"))
    owner, seen = POSITIONS.owner, (POSITIONS.end + 1).clamp(max=6)
    same = owner[:, None] == owner[None, :]
    assert torch.equal(weights > 0, same | (seen[:, None] == seen[None, :]))
    assert bool((pair_weights(POSITIONS, ObjectiveRecipe(span="prefix")) == 1).all())
    assert bool((pair_weights(POSITIONS, ObjectiveRecipe(unlike_lengths="label")) == 1).all())
    single = (seen == 1)[:, None] & (seen == 1)[None, :]
    without = pair_weights(POSITIONS, ObjectiveRecipe(span="prefix", same_document_rule="ignore"))
    assert torch.equal(without > 0, ~same | single)
    strict = ObjectiveRecipe(span="prefix", same_document_rule="ignore", single_slices="document")
    assert torch.equal(pair_weights(POSITIONS, strict) > 0, ~same)


def test_the_recipe_says_what_the_library_does() -> None:
    found = label_settings(ObjectiveRecipe(window=4, same_document_rule="gak", unlike_lengths="label", band=2))
    assert (found.window, found.same_document, found.unequal_lengths, found.band) == (4, "kernel", "keep", 2)
    assert found.triangular is None and found.global_sigma == 2.0
    assert label_settings(ObjectiveRecipe()).band is None


def test_a_step_without_positions_has_no_labels() -> None:
    positions, slices = PositionBuilder(ObjectiveRecipe()).finish()
    assert label_rows(positions, 0, 0, slices, ObjectiveRecipe()).shape == (0, 0)
    assert pair_weights(positions, ObjectiveRecipe()).shape == (0, 0)
