"""Cases for Triton's interpreter, which must be chosen before triton is imported: see test_triton.py."""

import pytest
import torch

import alignment.triton_launch
from alignment import expected_alignment, soft_dtw


@pytest.mark.parametrize("slices_by_lane", [64, 0], ids=["lane a pair", "program a pair"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("gamma", "band"), [(1.0, None), (0.01, None), (0.2, 1)])
def test_interpreted_kernels_equal_the_others(monkeypatch, slices_by_lane, dtype, gamma, band):
    monkeypatch.setattr(alignment.triton_launch, "LANE_SLICES", slices_by_lane)
    generator = torch.Generator().manual_seed(0)
    cost = torch.rand((5, 4, 5), generator=generator, dtype=dtype) * 2
    n = torch.randint(1, 5, (5,), generator=generator)
    m = torch.randint(1, 6, (5,), generator=generator)
    n[0], m[0] = 4, 5
    cost[2, 0, 0] = torch.inf  # no path
    cost[0, 1, 1] = torch.inf  # a detour
    tolerance = 2e-6 if dtype == torch.float32 else 1e-11
    leaf = cost.clone().requires_grad_(True)
    values = soft_dtw(leaf, gamma, n, m, band=band, backend="triton")
    (gradient,) = torch.autograd.grad(values[torch.isfinite(values)].sum(), leaf)
    for other in ("lanes", "wavefront"):
        torch.testing.assert_close(
            values.detach(), soft_dtw(cost, gamma, n, m, band=band, backend=other), rtol=tolerance, atol=tolerance
        )
        wanted = expected_alignment(cost, gamma, n, m, band=band, backend=other)
        torch.testing.assert_close(gradient, wanted, rtol=0.0, atol=tolerance)


def test_nan_is_an_error_here_too():
    with pytest.raises(ValueError, match="pair 1"):
        soft_dtw(torch.tensor([[[0.0]], [[torch.nan]]]), 1.0, backend="triton")
