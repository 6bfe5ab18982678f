"""The closed-form gradient of the structure loss against autograd."""

from __future__ import annotations

import pytest
import torch

from tests.trainer.reference import structure_loss
from trainer.objective.structure import label_histogram, pair_scale, similarity_statistics, structure_rows


def problem(count: int = 9, size: int = 5) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    outputs = torch.randn(count, size, dtype=torch.float64, generator=generator)
    labels = torch.rand(count, count, dtype=torch.float64, generator=generator)
    weights = (torch.rand(count, count, generator=generator) > 0.3).double()
    return outputs, (labels + labels.T) / 2, torch.maximum(weights, weights.T)


@pytest.mark.parametrize("reduction", ["mean", "mean_row"])
@pytest.mark.parametrize("blocks", [1, 3])
def test_closed_form_equals_autograd(reduction: str, blocks: int) -> None:
    outputs, labels, weights = problem()
    direct = outputs.clone().requires_grad_()
    value = structure_loss(torch.nn.functional.normalize(direct, dim=1), labels, weights, reduction)
    value.backward()

    surrogate = outputs.clone().requires_grad_()
    vectors = torch.nn.functional.normalize(surrogate, dim=1)
    scale = pair_scale(weights, reduction)
    total = 0.0
    for rows in torch.arange(len(outputs)).chunk(blocks):
        first, last = int(rows[0]), int(rows[-1]) + 1
        terms = structure_rows(vectors.detach(), first, labels[first:last], weights[first:last], scale)
        (vectors[first:last] * terms.gradient).sum().backward(retain_graph=True)
        total += float(terms.value)
    assert total == pytest.approx(value.item(), rel=1e-12)
    assert surrogate.grad is not None and direct.grad is not None
    assert torch.allclose(surrogate.grad, direct.grad, rtol=1e-10, atol=1e-14)


def test_mean_does_not_grow_with_the_batch() -> None:
    outputs, labels, _ = problem()
    vectors = torch.nn.functional.normalize(outputs, dim=1)
    ones = torch.ones_like(labels)
    twice, repeated = torch.cat([vectors, vectors]), labels.repeat(2, 2)
    once = structure_loss(vectors, labels, ones)
    assert float(structure_loss(twice, repeated, ones.repeat(2, 2))) == pytest.approx(float(once), rel=1e-12)
    rows = [
        float(structure_loss(v, m, torch.ones_like(m), "mean_row")) for v, m in ((vectors, labels), (twice, repeated))
    ]
    assert rows[1] == pytest.approx(2 * rows[0], rel=1e-12)


def test_statistics_show_a_collapse() -> None:
    outputs, _, _ = problem(count=12)
    labels, weights, lengths = torch.rand(12, 12), torch.ones(12, 12), torch.ones(12, dtype=torch.int64)
    spread = similarity_statistics(torch.nn.functional.normalize(outputs, dim=1), 0, labels, weights, lengths)
    one = torch.nn.functional.normalize(outputs[:1].repeat(12, 1), dim=1)
    collapsed = similarity_statistics(one, 0, labels, weights, lengths)
    assert collapsed["effective_rank"] == pytest.approx(1.0, abs=1e-6)
    assert collapsed["off_diagonal_mean"] == pytest.approx(1.0, abs=1e-6)
    assert spread["effective_rank"] > 3
    # Pairs of different positions, all of one length.
    assert list(spread["label_histogram"]) == ["1"] and sum(spread["label_histogram"]["1"]) == 12 * 11


def test_label_histogram_counts_by_length() -> None:
    lengths = torch.tensor([1, 2, 3, 4, 5, 6])
    labels = torch.tensor([[0.05, 0.95]] * 4 + [[1.0, -0.2], [0.5, 321.0]])
    keep = torch.ones_like(labels, dtype=torch.bool)
    keep[1] = False
    found = label_histogram(labels, keep, lengths)
    assert found == {
        "1": [1, 0, 0, 0, 0, 0, 0, 0, 0, 1],
        "3-4": [2, 0, 0, 0, 0, 0, 0, 0, 0, 2],
        "5-8": [1, 0, 0, 0, 0, 1, 0, 0, 0, 2],
    }
    assert label_histogram(labels, torch.zeros_like(keep), lengths) == {}
