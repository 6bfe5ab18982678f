"""Triton kernels for GPUs: a lane a pair up to 64 slices, a program a pair above.

The recursion is that of rows.py: mantissa and whole exponent per cell, transitions kept, no logarithm.
Scratch is laid out so that neighbouring lanes touch neighbouring addresses: the pair (or, for long
series, the row) is the innermost axis. A thread reads back only what another one wrote after a barrier.
"""

from collections.abc import Callable
from typing import Any

import triton
import triton.language as tl


def jit(function: Callable[..., Any]) -> Any:
    """triton.jit, for type checkers."""
    return triton.jit(function)


# Exponents are floats here: whole numbers up to 2^24 (float32) or 2^53 (float64) are exact.
UNREACHABLE = tl.constexpr(-1.0e30)


@jit
def split(value, DOUBLE: tl.constexpr):  # type: ignore[no-untyped-def]  # triton reads the source
    """value = mantissa * 2**exponent with mantissa in [1, 2), for positive normal numbers."""
    if DOUBLE:
        bits = value.to(tl.int64, bitcast=True)
        exponent = ((bits >> 52) - 1023).to(tl.float64)
        mantissa = ((bits & 0xFFFFFFFFFFFFF) | 0x3FF0000000000000).to(tl.float64, bitcast=True)
    else:
        bits = value.to(tl.int32, bitcast=True)
        exponent = ((bits >> 23) - 127).to(tl.float32)
        mantissa = ((bits & 0x7FFFFF) | 0x3F800000).to(tl.float32, bitcast=True)
    return mantissa, exponent


@jit
def shifted(mantissa, shift, NEGLIGIBLE: tl.constexpr):  # type: ignore[no-untyped-def]  # as above
    """mantissa * 2**shift for shift <= 0, zero where it is negligible."""
    return tl.where(shift > -NEGLIGIBLE, mantissa * tl.exp2(tl.maximum(shift, -NEGLIGIBLE)), 0.0)


@jit
def step(  # type: ignore[no-untyped-def]  # as above
    cost,
    up_mantissa,
    up_exponent,
    diagonal_mantissa,
    diagonal_exponent,
    left_mantissa,
    left_exponent,
    inverse_step,
    step_high,
    step_low,
    NEGLIGIBLE: tl.constexpr,
    DOUBLE: tl.constexpr,
):
    """One cell: its mantissa and exponent, and the transitions from above, diagonal and left."""
    scaled = tl.minimum(tl.maximum(cost * inverse_step, -1.0e15), 1.0e15)
    steps = tl.floor(scaled + 0.5)
    rest = (cost - steps * step_high) - steps * step_low
    rest = tl.minimum(tl.maximum(rest * inverse_step, -0.75), 0.75)
    forbidden = cost > 1.0e30
    factor = tl.exp2(-rest)
    top = tl.maximum(tl.maximum(up_exponent, diagonal_exponent), left_exponent)
    up = shifted(up_mantissa, up_exponent - top, NEGLIGIBLE)
    diagonal = shifted(diagonal_mantissa, diagonal_exponent - top, NEGLIGIBLE)
    left = shifted(left_mantissa, left_exponent - top, NEGLIGIBLE)
    total = up + diagonal + left
    mantissa, exponent = split(total * factor, DOUBLE)
    exponent = tl.maximum(top - steps + exponent, UNREACHABLE)
    exponent = tl.where(forbidden, UNREACHABLE, exponent)
    return mantissa, exponent, up / total, diagonal / total, left / total


@jit
def forward_lanes(  # type: ignore[no-untyped-def]  # as above
    costs,  # (rows, columns, pairs); infinity outside lengths and band
    state_mantissas,  # (columns + 1, pairs) scratch
    state_exponents,
    transitions,  # (rows, columns, 3, pairs)
    end_mantissas,  # (pairs,)
    end_exponents,
    lengths_x,
    lengths_y,
    pairs,
    rows,
    columns,
    constants,  # inverse step, high and low part of the step, in the dtype of the cost
    KEEP: tl.constexpr,
    NEGLIGIBLE: tl.constexpr,
    DOUBLE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """A lane a pair: every lane walks its own rows and columns; no lane reads what another wrote."""
    kind = tl.float64 if DOUBLE else tl.float32
    pair = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    here = pair < pairs
    n = tl.load(lengths_x + pair, mask=here, other=0)
    m = tl.load(lengths_y + pair, mask=here, other=0)
    inverse_step = tl.load(constants)
    step_high = tl.load(constants + 1)
    step_low = tl.load(constants + 2)
    wide = tl.full((), 1, tl.int64) * pairs
    one = tl.full((BLOCK,), 1.0, kind)
    nowhere = tl.full((BLOCK,), UNREACHABLE, kind)
    # The path starts diagonally before the first cell; later rows have no path at their border.
    border = tl.zeros((BLOCK,), kind)
    for j in range(columns + 1):
        tl.store(state_mantissas + j * pairs + pair, one, mask=here)
        tl.store(state_exponents + j * pairs + pair, nowhere, mask=here)
    width = tl.max(m, 0).to(tl.int32)
    for i in range(tl.max(n, 0).to(tl.int32)):
        left_mantissa = one
        left_exponent = nowhere
        diagonal_mantissa = one
        diagonal_exponent = border
        border = nowhere
        for j in range(width):
            at = (j + 1) * pairs + pair
            up_mantissa = tl.load(state_mantissas + at, mask=here, other=1.0)
            up_exponent = tl.load(state_exponents + at, mask=here, other=0.0)
            cell = (i * columns + j) * wide
            cost = tl.load(costs + cell + pair, mask=here, other=0.0)
            left_mantissa, left_exponent, up, diagonal, left = step(
                cost,
                up_mantissa,
                up_exponent,
                diagonal_mantissa,
                diagonal_exponent,
                left_mantissa,
                left_exponent,
                inverse_step,
                step_high,
                step_low,
                NEGLIGIBLE,
                DOUBLE,
            )
            if KEEP:
                tl.store(transitions + cell * 3 + pair, up, mask=here)
                tl.store(transitions + cell * 3 + 1 * wide + pair, diagonal, mask=here)
                tl.store(transitions + cell * 3 + 2 * wide + pair, left, mask=here)
            tl.store(state_mantissas + at, left_mantissa, mask=here)
            tl.store(state_exponents + at, left_exponent, mask=here)
            last = here & (i == n - 1) & (j == m - 1)
            tl.store(end_mantissas + pair, left_mantissa, mask=last)
            tl.store(end_exponents + pair, left_exponent, mask=last)
            diagonal_mantissa = up_mantissa
            diagonal_exponent = up_exponent


@jit
def backward_lanes(  # type: ignore[no-untyped-def]  # as above
    transitions,  # (rows, columns, 3, pairs)
    arriving,  # (columns, pairs) scratch, zeros
    expected,  # (rows, columns, pairs), zeros
    reached,  # (pairs,) 1 or 0
    lengths_x,
    lengths_y,
    pairs,
    columns,
    FLUSH: tl.constexpr,
    DOUBLE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The expected alignment, a lane a pair, from the last cell to the first."""
    kind = tl.float64 if DOUBLE else tl.float32
    pair = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    here = pair < pairs
    n = tl.load(lengths_x + pair, mask=here, other=0)
    m = tl.load(lengths_y + pair, mask=here, other=0)
    seed = tl.load(reached + pair, mask=here, other=0.0)
    wide = tl.full((), 1, tl.int64) * pairs
    rows = tl.max(n, 0).to(tl.int32)
    width = tl.max(m, 0).to(tl.int32)
    for back in range(rows):
        i = rows - 1 - back
        from_right = tl.zeros((BLOCK,), kind)
        diagonal = tl.zeros((BLOCK,), kind)
        for across in range(width):
            j = width - 1 - across
            at = j * pairs + pair
            value = tl.load(arriving + at, mask=here, other=0.0) + from_right
            value = value + tl.where((i == n - 1) & (j == m - 1), seed, 0.0)
            value = tl.where(value > FLUSH, value, 0.0)
            cell = (i * columns + j) * wide
            tl.store(expected + cell + pair, value, mask=here)
            up = tl.load(transitions + cell * 3 + pair, mask=here, other=0.0)
            corner = tl.load(transitions + cell * 3 + 1 * wide + pair, mask=here, other=0.0)
            left = tl.load(transitions + cell * 3 + 2 * wide + pair, mask=here, other=0.0)
            tl.store(arriving + at, value * up + diagonal, mask=here)
            diagonal = value * corner
            from_right = value * left


@jit
def forward_program(  # type: ignore[no-untyped-def]  # as above
    costs,  # (pairs, diagonals, rows): anti-diagonal d, row i holds column d - i; infinity outside
    state_mantissas,  # (pairs, 3, rows + 1) scratch: three diagonals, row i at i + 1
    state_exponents,
    transitions,  # (pairs, diagonals, 3, rows)
    end_mantissas,  # (pairs,)
    end_exponents,
    lengths_x,
    lengths_y,
    rows,
    diagonals,
    constants,  # inverse step, high and low part of the step, in the dtype of the cost
    KEEP: tl.constexpr,
    NEGLIGIBLE: tl.constexpr,
    DOUBLE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """A program a pair: an anti-diagonal at a time, its cells side by side, a barrier between two."""
    kind = tl.float64 if DOUBLE else tl.float32
    pair = tl.program_id(0).to(tl.int64)
    n = tl.load(lengths_x + pair).to(tl.int32)
    m = tl.load(lengths_y + pair).to(tl.int32)
    row = tl.arange(0, BLOCK)
    here = row < rows
    state = pair * 3 * (rows + 1)
    inverse_step = tl.load(constants)
    step_high = tl.load(constants + 1)
    step_low = tl.load(constants + 2)
    one = tl.full((BLOCK,), 1.0, kind)
    nowhere = tl.full((BLOCK,), UNREACHABLE, kind)
    for slot in range(3):
        base = state + slot * (rows + 1)
        tl.store(state_mantissas + base + row, one, mask=row <= rows)
        tl.store(state_exponents + base + row, nowhere, mask=row <= rows)
    # The path starts before the first cell, two diagonals back.
    tl.debug_barrier()
    tl.store(state_exponents + state + 1 * (rows + 1) + row, tl.zeros((BLOCK,), kind), mask=row == 0)
    tl.debug_barrier()
    for d in range(n + m - 1):
        now = state + (d % 3) * (rows + 1)
        before = state + ((d + 2) % 3) * (rows + 1)
        earlier = state + ((d + 1) % 3) * (rows + 1)
        cell = pair * diagonals + d
        cost = tl.load(costs + cell * rows + row, mask=here, other=float("inf"))
        mantissa, exponent, up, diagonal, left = step(
            cost,
            tl.load(state_mantissas + before + row, mask=here, other=1.0),
            tl.load(state_exponents + before + row, mask=here, other=0.0),
            tl.load(state_mantissas + earlier + row, mask=here, other=1.0),
            tl.load(state_exponents + earlier + row, mask=here, other=0.0),
            tl.load(state_mantissas + before + row + 1, mask=here, other=1.0),
            tl.load(state_exponents + before + row + 1, mask=here, other=0.0),
            inverse_step,
            step_high,
            step_low,
            NEGLIGIBLE,
            DOUBLE,
        )
        if KEEP:
            tl.store(transitions + (cell * 3 + 0) * rows + row, up, mask=here)
            tl.store(transitions + (cell * 3 + 1) * rows + row, diagonal, mask=here)
            tl.store(transitions + (cell * 3 + 2) * rows + row, left, mask=here)
        tl.store(state_mantissas + now + row + 1, mantissa, mask=here)
        tl.store(state_exponents + now + row + 1, exponent, mask=here)
        if d == 0:
            # Used up: later diagonals find no path at the border.
            tl.store(state_exponents + earlier + row, nowhere, mask=row == 0)
        last = (d == n + m - 2) & (row == n - 1)
        tl.store(end_mantissas + pair + row * 0, mantissa, mask=last)
        tl.store(end_exponents + pair + row * 0, exponent, mask=last)
        tl.debug_barrier()


@jit
def backward_program(  # type: ignore[no-untyped-def]  # as above
    transitions,  # (pairs, diagonals, 3, rows)
    expected,  # (pairs, diagonals, rows), zeros
    reached,  # (pairs,) 1 or 0
    lengths_x,
    lengths_y,
    rows,
    diagonals,
    FLUSH: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The expected alignment, an anti-diagonal at a time, from the last cell to the first."""
    pair = tl.program_id(0).to(tl.int64)
    n = tl.load(lengths_x + pair).to(tl.int32)
    m = tl.load(lengths_y + pair).to(tl.int32)
    seed = tl.load(reached + pair)
    row = tl.arange(0, BLOCK)
    here = row < rows
    below = row + 1 < rows
    for back in range(n + m - 1):
        d = n + m - 2 - back
        cell = pair * diagonals + d
        value = tl.where((back == 0) & (row == n - 1), seed, 0.0)
        # From the row below and from the right, one diagonal on; from the corner, two.
        one = here & (back > 0)
        two = below & (back > 1)
        next1 = cell + 1
        next2 = cell + 2
        value += tl.load(expected + next1 * rows + row + 1, mask=one & below, other=0.0) * tl.load(
            transitions + (next1 * 3 + 0) * rows + row + 1, mask=one & below, other=0.0
        )
        value += tl.load(expected + next1 * rows + row, mask=one, other=0.0) * tl.load(
            transitions + (next1 * 3 + 2) * rows + row, mask=one, other=0.0
        )
        value += tl.load(expected + next2 * rows + row + 1, mask=two, other=0.0) * tl.load(
            transitions + (next2 * 3 + 1) * rows + row + 1, mask=two, other=0.0
        )
        value = tl.where(value > FLUSH, value, 0.0)
        tl.store(expected + cell * rows + row, value, mask=here)
        tl.debug_barrier()
