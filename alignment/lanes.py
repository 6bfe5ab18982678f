"""Torch tensors in and out of the CPU kernels."""

import math
from functools import cache, lru_cache
from typing import Any

import numpy as np
import torch

from alignment.arguments import raise_for_invalid, uniform
from alignment.status import INVALID, NO_PATH, TOO_STEEP
from alignment.threads import scratch, share

# Transitions of this many bytes are kept a thread; longer series run strips of rows twice instead.
TRANSITION_BYTES = 4 * 2**20
# |cost| / gamma that float64 exponents still add up exactly, over paths of 10,000 cells.
STEEPEST = 1e13


@cache
def _kernel() -> Any:
    """numba is imported and the kernel compiled (or read from disk) at first use."""
    from alignment.lane_kernel import align_pairs

    return align_pairs


@cache
def _nothing(dtype: torch.dtype) -> tuple[torch.Tensor, Any]:
    """What stands for a result that is not wanted, as a tensor and as an array."""
    empty = torch.empty((0, 1, 1), dtype=dtype)
    return empty, empty.numpy()


@cache
def limits_of(dtype: torch.dtype) -> Any:
    """Lanes a vector, the exponent of cells without a path, the largest exponent trusted."""
    from alignment.simd import LANES, PEAK, UNREACHABLE

    name = str(dtype).removeprefix("torch.")
    return np.array([LANES[name], UNREACHABLE[name], PEAK[name]], dtype=np.int64)


@lru_cache
def factors_of(gamma: float, dtype: torch.dtype) -> Any:
    """Constants of the recursion: the cost of one power of two, split so that products are exact."""
    step = gamma * math.log(2.0)
    high = float(np.float32(step)) if dtype == torch.float32 else step
    clamp = 2.0**29 if dtype == torch.float32 else 2.0**60
    return np.array([1.0 / step, high, step - high, 1.0 / gamma, step, clamp])


def integers_like(dtype: torch.dtype) -> torch.dtype:
    """The integer type as wide as a float type."""
    return torch.int32 if dtype == torch.float32 else torch.int64


@lru_cache(maxsize=4)
def _in_turn(pairs: int) -> Any:
    return np.arange(pairs)


def by_size(n: Any, m: Any, lanes: int) -> Any:
    """Pairs in an order that makes blocks of `lanes` alike in both lengths.

    Sorting by n alone would let every block meet the longest m: so bands of like n, sorted by m.
    """
    pairs = len(n)
    if uniform(n) and uniform(m):
        return _in_turn(pairs)
    bands = max(1, round((pairs / lanes) ** 0.5))
    # Whole blocks a band.
    band_size = -(-pairs // (bands * lanes)) * lanes
    rank = np.empty(pairs, np.int64)
    rank[np.argsort(n, kind="stable")] = np.arange(pairs)
    return np.lexsort((m, rank // band_size))


def refuse_steep(costs: torch.Tensor, gamma: float, n: Any, m: Any, pairs: Any, names: Any) -> None:
    """Raise if a pair has a finite cost so large against gamma that it would pass for infinite."""
    for pair in pairs.tolist():
        read = costs[pair, : n[pair], : m[pair]]
        finite = read[torch.isfinite(read)]
        if finite.numel() and float(finite.abs().max()) / gamma > STEEPEST:
            raise ValueError(
                f"cost / gamma of pair {names[pair]} is beyond {STEEPEST:.0e}: gamma = {gamma} cannot be "
                "told from 0; use hard_dtw"
            )


def align(
    cost: torch.Tensor,
    gamma: float,
    lengths_x: torch.Tensor,
    lengths_y: torch.Tensor,
    band: int | None,
    *,
    want_expected: bool = False,
    want_table: bool = False,
    names: Any = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Values (pairs,), expected alignment and table of R (pairs, rows, columns), empty if not wanted.

    cost: float32 or float64 on the CPU; names: what errors call the pairs, their places by default. Raises
    ValueError for NaN, and for float64 costs so large against gamma that they cannot be told from infinity.
    """
    costs = cost.detach().contiguous()
    pairs, rows, columns = costs.shape
    dtype = costs.dtype
    limits = limits_of(dtype)
    lanes = int(limits[0])
    values = costs.new_empty(pairs)
    nothing, no_array = _nothing(dtype)
    expected = torch.empty_like(costs) if want_expected else nothing
    table = torch.empty_like(costs) if want_table else nothing
    status = np.zeros(pairs, np.int32)
    n, m = lengths_x.numpy(), lengths_y.numpy()
    order = by_size(n, m, lanes)

    width = -(-columns // lanes) * lanes * lanes
    state = width + lanes
    strip = max(1, min(rows, TRANSITION_BYTES // (3 * width * costs.element_size())))
    strips = -(-rows // strip)
    transitions = strip * 3 * width if want_expected else 0
    kept = strips * state if want_expected else 0
    arrays = (costs.numpy(), order, n, m, -1 if band is None else band)
    constants = (factors_of(gamma, dtype), limits)
    targets = (
        values.numpy(),
        expected.numpy() if want_expected else no_array,
        table.numpy() if want_table else no_array,
        status,
    )
    kernel = _kernel()

    def task(first: int, step: int) -> None:
        floats = scratch("floats", 3 * width + state + 2 * lanes + transitions + kept, dtype)
        integers = scratch("integers", state + 2 * lanes + kept, integers_like(dtype))
        kernel(*arrays, *constants, first, step, strip, floats, integers, *targets)

    share(task, -(-pairs // lanes), costs.numel())

    if not np.count_nonzero(status):
        return values, expected, table
    if (status & INVALID).any():
        raise_for_invalid(int(np.flatnonzero(status & INVALID)[0]))
    # A path through costs that float32 cannot tell from infinity looks like no path at all.
    steep = np.flatnonzero(status & (TOO_STEEP | NO_PATH))
    if len(steep) and costs.dtype == torch.float64:
        refuse_steep(costs, gamma, n, m, steep, range(pairs) if names is None else names)
        return values, expected, table
    if len(steep):
        chosen = torch.from_numpy(steep)
        again = align(
            costs[chosen].double(),
            gamma,
            lengths_x[chosen],
            lengths_y[chosen],
            band,
            want_expected=want_expected,
            want_table=want_table,
            names=steep,
        )
        for target, source in zip((values, expected, table), again, strict=True):
            if source.shape[0]:
                target[chosen] = source.to(target.dtype)
    return values, expected, table
