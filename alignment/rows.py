"""One row of the recursion, forwards and backwards, for a vector of pairs at once.

A cell holds Z = exp(-R / gamma), the sum over all paths to it, as mantissa * 2**exponent with an
integer exponent of its own. So nothing under- or overflows at any gamma, no logarithm is taken in
the recursion, and float32 keeps its full relative precision however large R / gamma grows: the cost
is split exactly into a whole number of powers of two and a remainder before anything is rounded.

The backward pass is in P-form: the forward pass stores, per cell, the probabilities that a path
comes from above, from the diagonal and from the left; the backward pass only multiplies them.

Layout: vectors of `lanes` pairs, column innermost but one. State arrays have one column more than
the cost: position j + 1 holds column j, position 0 the border.
"""

import math
from typing import Any

from alignment.simd import (
    add,
    divide,
    exp_small,
    exponent,
    flush,
    infinite_unless_reached,
    inner,
    larger,
    load,
    log2_mantissa,
    mantissa,
    multiply,
    multiply_add,
    nearest,
    scale,
    smaller,
    splat,
    store,
    subtract,
    to_floats,
    to_integers,
)

# What `factors` holds: see factors_of in lanes.py.
LOG2 = math.log(2.0)
INVERSE_STEP, STEP_HIGH, STEP_LOW, INVERSE_GAMMA, GAMMA_LOG2, CLAMP = range(6)


@inner
def forward_row(
    row: Any,
    mantissas: Any,
    exponents: Any,
    lowest: Any,
    transitions: Any,
    base: int,
    first: int,
    stop: int,
    lanes: int,
    unreachable: int,
    factors: Any,
) -> Any:
    """Advance the state by one row over columns first..stop; returns the least steps met.

    A path that costs infinity stays so unless later costs are very negative: `lowest` tells.

    `transitions` is None, or receives (up, diagonal, left) per cell from element `base` on.
    """
    inverse_step = splat(row, factors[INVERSE_STEP])
    step_high = splat(row, -factors[STEP_HIGH])
    step_low = splat(row, -factors[STEP_LOW])
    inverse_gamma = splat(row, -factors[INVERSE_GAMMA])
    most = splat(row, factors[CLAMP])
    least = splat(row, -factors[CLAMP])
    half = splat(row, 0.51)
    minus_half = splat(row, -0.51)
    one = splat(row, 1.0)
    nowhere = splat(exponents, unreachable)

    left_mantissa = one
    left_exponent = nowhere
    diagonal_mantissa = load(mantissas, first * lanes)
    diagonal_exponent = load(exponents, first * lanes)
    store(exponents, first * lanes, nowhere)
    for j in range(first, stop):
        up_mantissa = load(mantissas, (j + 1) * lanes)
        up_exponent = load(exponents, (j + 1) * lanes)
        # exp(-cost / gamma) = factor * 2**-steps
        cost = load(row, j * lanes)
        steps = nearest(larger(smaller(multiply(cost, inverse_step), most), least))
        lowest = smaller(lowest, steps)
        rest = multiply_add(steps, step_low, multiply_add(steps, step_high, cost))
        rest = larger(smaller(multiply(rest, inverse_gamma), half), minus_half)
        factor = exp_small(rest)

        top = larger(larger(up_exponent, diagonal_exponent), left_exponent)
        up = scale(up_mantissa, subtract(up_exponent, top))
        diagonal = scale(diagonal_mantissa, subtract(diagonal_exponent, top))
        left = scale(left_mantissa, subtract(left_exponent, top))
        # In this order a table and that of the transposed costs are equal to the last bit.
        total = add(add(up, left), diagonal)
        if transitions is not None:
            inverse = divide(one, total)
            at = base + j * 3 * lanes
            store(transitions, at, multiply(up, inverse))
            store(transitions, at + lanes, multiply(diagonal, inverse))
            store(transitions, at + 2 * lanes, multiply(left, inverse))
        product = multiply(total, factor)
        left_mantissa = mantissa(product)
        left_exponent = add(subtract(top, to_integers(steps)), exponent(product))
        left_exponent = larger(left_exponent, nowhere)
        store(mantissas, (j + 1) * lanes, left_mantissa)
        store(exponents, (j + 1) * lanes, left_exponent)
        diagonal_mantissa = up_mantissa
        diagonal_exponent = up_exponent
    return lowest


@inner
def backward_row(row: Any, arriving: Any, transitions: Any, base: int, first: int, stop: int, lanes: int) -> None:
    """Write the expected alignment of one row to `row` and send it on to the row above.

    `arriving` holds what this row receives from the row below; on return, what the row above receives.
    """
    from_right = splat(row, 0.0)
    diagonal = splat(row, 0.0)
    for j in range(stop - 1, first - 1, -1):
        expected = flush(add(load(arriving, j * lanes), from_right))
        store(row, j * lanes, expected)
        at = base + j * 3 * lanes
        store(arriving, j * lanes, multiply_add(expected, load(transitions, at), diagonal))
        diagonal = multiply(expected, load(transitions, at + lanes))
        from_right = multiply(expected, load(transitions, at + 2 * lanes))
    if first > 0:
        store(arriving, (first - 1) * lanes, diagonal)


@inner
def divisible_row(row: Any, stop: int, lanes: int) -> None:
    """Replace t = distance^2 / (2 sigma^2) >= 0 by t + log(2 - exp(-t)), in place."""
    inverse_log2 = splat(row, 1.0 / LOG2)
    log2 = splat(row, LOG2)
    two = splat(row, 2.0)
    for j in range(stop):
        scaled = load(row, j * lanes)
        rest = multiply(log2, log2_mantissa(subtract(two, _gaussian(scaled, inverse_log2))))
        store(row, j * lanes, add(scaled, rest))


@inner
def divisible_slope_row(row: Any, stop: int, lanes: int) -> None:
    """Replace t by the derivative of t + log(2 - exp(-t)), which is 2 / (2 - exp(-t)), in place."""
    inverse_log2 = splat(row, 1.0 / LOG2)
    two = splat(row, 2.0)
    for j in range(stop):
        scaled = load(row, j * lanes)
        store(row, j * lanes, divide(two, subtract(two, _gaussian(scaled, inverse_log2))))


@inner
def _gaussian(scaled: Any, inverse_log2: Any) -> Any:
    """exp(-t) for t >= 0, at most 1."""
    steps = nearest(smaller(multiply(scaled, inverse_log2), splat(scaled, 1e4)))
    rest = multiply_add(steps, splat(scaled, LOG2), subtract(splat(scaled, 0.0), scaled))
    rest = larger(smaller(rest, splat(scaled, 0.51)), splat(scaled, -0.51))
    power = to_integers(subtract(splat(scaled, 0.0), steps))
    return smaller(scale(exp_small(rest), power), splat(scaled, 1.0))


@inner
def value_row(
    row: Any,
    mantissas: Any,
    exponents: Any,
    first: int,
    stop: int,
    lanes: int,
    factors: Any,
) -> None:
    """Write R of one finished row to `row`: -gamma log Z, infinity where no path leads."""
    minus_gamma_log2 = splat(row, -factors[GAMMA_LOG2])
    for j in range(first, stop):
        power = load(exponents, (j + 1) * lanes)
        fraction = log2_mantissa(load(mantissas, (j + 1) * lanes))
        value = multiply(minus_gamma_log2, add(to_floats(power), fraction))
        store(row, j * lanes, infinite_unless_reached(value, power))
