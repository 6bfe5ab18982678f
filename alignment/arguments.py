"""What users pass, checked once, with errors that name the argument."""

import math
from collections.abc import Sequence
from typing import Any

import torch

Lengths = torch.Tensor | Sequence[int] | None


def check_gamma(gamma: float) -> float:
    """A positive finite float."""
    value = float(gamma)
    if not (value > 0.0 and math.isfinite(value)):
        raise ValueError(f"gamma must be positive and finite, got {gamma}; for the limit gamma = 0 use hard_dtw")
    return value


def check_sigma(sigma: float, name: str = "sigma") -> float:
    """A positive finite float."""
    value = float(sigma)
    if not (value > 0.0 and math.isfinite(value)):
        raise ValueError(f"{name} must be positive and finite, got {sigma}")
    return value


def check_band(band: int | None) -> int | None:
    """None or a whole number >= 0."""
    if band is None:
        return None
    if isinstance(band, bool) or not math.isfinite(band) or int(band) != band or band < 0:
        raise ValueError(f"band must be None or a whole number >= 0, got {band}")
    return int(band)


def check_triangular(triangular: float | None) -> float | None:
    """None or a positive finite float."""
    return None if triangular is None else check_sigma(triangular, "triangular")


def check_floats(tensor: torch.Tensor, name: str, dimensions: int, shape: str) -> None:
    """A float32 or float64 tensor with this many axes."""
    if not isinstance(tensor, torch.Tensor):
        raise ValueError(f"{name} must be a torch tensor, got {type(tensor).__name__}")
    if tensor.dim() != dimensions:
        raise ValueError(f"{name} must have shape {shape}, got {tuple(tensor.shape)}")
    if tensor.dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"{name} must be float32 or float64, got {tensor.dtype}; "
            f"call {name}.float(): sums over paths need more digits than half precision has"
        )


def check_dimension(vectors: torch.Tensor, name: str) -> None:
    """Vectors of at least one number."""
    if vectors.shape[-1] == 0:
        raise ValueError(f"{name} must have vectors of at least one dimension, got shape {tuple(vectors.shape)}")


def check_cost(cost: torch.Tensor) -> None:
    """A (pairs, rows, columns) float tensor whose rows and columns are not empty."""
    check_floats(cost, "cost", 3, "(pairs, rows, columns)")
    if cost.shape[1] == 0 or cost.shape[2] == 0:
        raise ValueError(f"cost must have at least one row and one column, got shape {tuple(cost.shape)}")


def uniform(numbers: Any) -> bool:
    """Whether all int64 of an array are the same; cheaper than any reduction for the lengths of a batch."""
    raw: bytes = numbers.tobytes()
    return raw == raw[:8] * len(numbers)


def check_lengths(lengths: Lengths, name: str, count: int, most: int) -> torch.Tensor | None:
    """int64 lengths on the CPU, one a series and in 1..most; None stays None (all are `most`)."""
    if lengths is None:
        return None
    given = lengths if isinstance(lengths, torch.Tensor) else torch.as_tensor(lengths)
    if given.shape != (count,):
        raise ValueError(f"{name} must have shape ({count},), got {tuple(given.shape)}")
    if given.dtype != torch.int64 or not given.is_cpu:
        if given.is_floating_point() or given.is_complex() or given.dtype == torch.bool:
            raise ValueError(f"{name} must be whole numbers, got {given.dtype}")
        given = given.to(device="cpu", dtype=torch.int64)
    numbers = given.numpy()
    if uniform(numbers):
        wrong = bool(count) and not 1 <= int(numbers[0]) <= most
    else:
        wrong = bool(numbers.min() < 1 or numbers.max() > most)
    if wrong:
        worst = int(((numbers < 1) | (numbers > most)).argmax())
        raise ValueError(
            f"{name} must lie in 1..{most}, got {numbers[worst]} at index {worst}; drop empty series before aligning"
        )
    return given


def full_lengths(lengths: torch.Tensor | None, count: int, most: int) -> torch.Tensor:
    """The lengths, spelled out."""
    return torch.full((count,), most, dtype=torch.int64) if lengths is None else lengths


def allowed_cells(
    lengths_x: torch.Tensor,
    lengths_y: torch.Tensor,
    rows: int,
    columns: int,
    band: int | None,
    device: torch.device,
) -> torch.Tensor:
    """Which cells a path may visit, as a bool tensor (pairs, rows, columns).

    A band of r keeps |i - j| <= r, widened on one side by the difference of the two lengths so that
    the last cell stays reachable (Sakoe and Chiba 1978, as in tslearn).
    """
    n = lengths_x.to(device)[:, None, None]
    m = lengths_y.to(device)[:, None, None]
    i = torch.arange(rows, device=device)[None, :, None]
    j = torch.arange(columns, device=device)[None, None, :]
    allowed = (i < n) & (j < m)
    if band is not None:
        below = band + (n - m).clamp(min=0)
        above = band + (m - n).clamp(min=0)
        allowed = allowed & (j - i >= -below) & (j - i <= above)
    return allowed


def raise_for_invalid(pair: int, name: str = "cost") -> None:
    """The error for a cost that is not a number."""
    raise ValueError(
        f"{name} has NaN or minus infinity in pair {pair} inside its lengths; "
        "check the inputs (a zero vector normalised, a failed encoder)"
    )
