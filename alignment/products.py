"""Matrix products in full precision; on the CPU by the fastest library that torch carries.

torch hands float32 products on the CPU to MKL, which takes its slower code on processors that are not
Intel's; oneDNN looks at the instructions alone (on an AMD EPYC with AVX-512 in less than half the time).
The operator is the one that torch's own compiler emits for linear layers.
"""

from collections.abc import Callable
from functools import cache

import torch


def full_precision(tensor: torch.Tensor) -> torch.autocast:
    """Matrix products in the dtype of their inputs, also inside a mixed-precision training step."""
    return torch.autocast(tensor.device.type, enabled=False)


@cache
def _onednn() -> Callable[..., torch.Tensor] | None:
    """oneDNN's product, where this build of torch has it."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return None
    return getattr(torch.ops.mkldnn, "_linear_pointwise", None)


def product_with_transposed(left: torch.Tensor, right: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """left @ right.mT + bias on the CPU, in their dtype; not differentiable.

    left: (..., rows, k); right: (columns, k); bias: (columns,) or None. Returns (..., rows, columns).
    """
    onednn = _onednn()
    with full_precision(left):
        usable = left.dtype == torch.float32 and left.numel() and right.numel()
        if onednn is None or not usable or not torch.backends.mkldnn.enabled:
            return torch.nn.functional.linear(left, right, bias)
        return onednn(left, right, bias, "none", [], "")
