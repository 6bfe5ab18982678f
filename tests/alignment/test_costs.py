"""Costs: values, gradients, memory, errors."""

import pytest
import torch

from alignment import Slices, pairwise_cost, soft_dtw_all_pairs, triple_kernel_cost
from alignment.costs import unit


def test_pairwise_costs_are_those_of_the_definition():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn((3, 4, 6), generator=generator, dtype=torch.float64)
    y = torch.randn((3, 5, 6), generator=generator, dtype=torch.float64)
    squared = ((x[:, :, None] - y[:, None]) ** 2).sum(-1)
    torch.testing.assert_close(pairwise_cost(x, y), squared)
    cosine = 1 - torch.nn.functional.cosine_similarity(x[:, :, None], y[:, None], dim=-1)
    torch.testing.assert_close(pairwise_cost(x, y, "cosine"), cosine)


@pytest.mark.parametrize("metric", ["sqeuclidean", "cosine"])
def test_pairwise_gradients(metric):
    generator = torch.Generator().manual_seed(1)
    leaves = tuple(
        torch.randn((2, n, 3), generator=generator, dtype=torch.float64).requires_grad_(True) for n in (3, 4)
    )
    assert torch.autograd.gradcheck(lambda x, y: pairwise_cost(x, y, metric), leaves)


def test_no_tensor_has_all_four_axes():
    """Memory without a dimension factor: the largest tensor saved or made is that of the cost or input."""
    pairs, n, m, dimension = 4, 50, 60, 300
    x, y = (torch.randn((pairs, k, dimension)).requires_grad_(True) for k in (n, m))
    sizes = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, kinds, arguments=(), keywords=None):
            result = function(*arguments, **(keywords or {}))
            if isinstance(result, torch.Tensor):
                sizes.append(result.numel())
            return result

    with Watch():
        pairwise_cost(x, y).sum().backward()
    assert sizes and max(sizes) <= max(pairs * n * m, pairs * m * dimension)


def test_the_triple_kernel_selects_by_modality():
    generator = torch.Generator().manual_seed(2)

    def some(*shape):
        primary, shared = (
            torch.nn.functional.normalize(torch.randn((*shape, d), generator=generator, dtype=torch.float64), dim=-1)
            for d in (5, 4)
        )
        return Slices(primary, shared, torch.rand(shape, generator=generator) < 0.5)

    for x, y in ((some(6), some(9)), (some(2, 6), some(2, 9)), (some(1), some(3)), (some(0), some(3))):
        found = triple_kernel_cost(x, y)
        within = torch.cdist(x.primary, y.primary) ** 2
        across = torch.cdist(x.shared, y.shared) ** 2
        wanted = torch.where(x.is_image[..., :, None] == y.is_image[..., None, :], within, across)
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("metric", ["sqeuclidean", "cosine"])
def test_mixed_precision_steps_do_not_touch_costs(metric):
    x = torch.randn((5, 6, 32), generator=torch.Generator().manual_seed(3)).requires_grad_(True)
    wanted = pairwise_cost(x, x.flip(0), metric)
    together = soft_dtw_all_pairs(x, None, 0.3, metric=metric)
    (gradient,) = torch.autograd.grad(together.sum(), x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(pairwise_cost(x, x.flip(0), metric), wanted, rtol=0.0, atol=0.0)
        again = soft_dtw_all_pairs(x, None, 0.3, metric=metric)
        torch.testing.assert_close(again, together, rtol=0.0, atol=0.0)
        torch.testing.assert_close(torch.autograd.grad(again.sum(), x)[0], gradient, rtol=0.0, atol=0.0)
        slices = Slices(unit(x.detach()), unit(x.detach()), torch.zeros((5, 6), dtype=torch.bool))
        inside = triple_kernel_cost(slices, slices)
    torch.testing.assert_close(inside, triple_kernel_cost(slices, slices), rtol=0.0, atol=0.0)


def test_clear_errors():
    x = torch.zeros((2, 3, 4))
    with pytest.raises(ValueError, match="metric"):
        pairwise_cost(x, x, "l1")
    with pytest.raises(ValueError, match="agree"):
        pairwise_cost(x, torch.zeros((2, 3, 5)))
    with pytest.raises(ValueError, match="x must be float32"):
        pairwise_cost(x.half(), x)
    with pytest.raises(ValueError, match="is_image must be bool"):
        Slices(x, x, torch.zeros((2, 3)))
    with pytest.raises(ValueError, match="shared must have shape"):
        Slices(x, x[:, :2], torch.zeros((2, 3), dtype=torch.bool))


def test_unit_is_normalize_with_both_derivatives():
    generator = torch.Generator().manual_seed(2)
    vectors = torch.randn((3, 4, 5), generator=generator, dtype=torch.float64).requires_grad_(True)
    assert torch.autograd.gradcheck(unit, vectors) and torch.autograd.gradgradcheck(unit, vectors)
    with_zero = torch.cat((vectors.detach(), torch.zeros((1, 4, 5), dtype=torch.float64))).requires_grad_(True)
    for weights in (torch.ones(()), torch.arange(5.0, dtype=torch.float64)):
        found, expected = (
            torch.autograd.grad((function(with_zero) * weights).sum(), with_zero)[0]
            for function in (unit, lambda each: torch.nn.functional.normalize(each, dim=-1))
        )
        torch.testing.assert_close(found, expected)
