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
def constants_of(row: Any, exponents: Any, unreachable: int, factors: Any) -> Any:
    """What every cell of a recursion needs; the last two are the state that no path reaches."""
    return (
        splat(row, factors[INVERSE_STEP]),
        splat(row, -factors[STEP_HIGH]),
        splat(row, -factors[STEP_LOW]),
        splat(row, -factors[INVERSE_GAMMA]),
        splat(row, factors[CLAMP]),
        splat(row, -factors[CLAMP]),
        splat(row, 0.51),
        splat(row, -0.51),
        splat(row, 1.0),
        splat(exponents, unreachable),
    )


@inner
def load_state(mantissas: Any, exponents: Any, at: int) -> Any:
    return load(mantissas, at), load(exponents, at)


@inner
def store_state(mantissas: Any, exponents: Any, at: int, state: Any) -> None:
    store(mantissas, at, state[0])
    store(exponents, at, state[1])


@inner
def forward_cell(
    row: Any,
    place: int,
    up: Any,
    diagonal: Any,
    left: Any,
    lowest: Any,
    transitions: Any,
    base: int,
    lanes: int,
    constants: Any,
) -> Any:
    """State of a cell, (mantissa, exponent), from those of its three predecessors; and the least steps met.

    place: of the cell's cost in `row`. A path that costs infinity stays so unless later costs are very
    negative: `lowest` tells. transitions: see `forward_row`.
    """
    inverse_step, step_high, step_low, inverse_gamma, most, least, half, minus_half, one, nowhere = constants
    # exp(-cost / gamma) = factor * 2**-steps
    cost = load(row, place)
    steps = nearest(larger(smaller(multiply(cost, inverse_step), most), least))
    rest = multiply_add(steps, step_low, multiply_add(steps, step_high, cost))
    rest = larger(smaller(multiply(rest, inverse_gamma), half), minus_half)
    factor = exp_small(rest)

    top = larger(larger(up[1], diagonal[1]), left[1])
    from_up = scale(up[0], subtract(up[1], top))
    from_diagonal = scale(diagonal[0], subtract(diagonal[1], top))
    from_left = scale(left[0], subtract(left[1], top))
    # In this order a table and that of the transposed costs are equal to the last bit.
    total = add(add(from_up, from_left), from_diagonal)
    if transitions is not None:
        inverse = divide(one, total)
        at = base + 3 * place
        store(transitions, at, multiply(from_up, inverse))
        store(transitions, at + lanes, multiply(from_diagonal, inverse))
        store(transitions, at + 2 * lanes, multiply(from_left, inverse))
    product = multiply(total, factor)
    power = add(subtract(top, to_integers(steps)), exponent(product))
    return (mantissa(product), larger(power, nowhere)), smaller(lowest, steps)


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

    `transitions` is None, or receives (up, diagonal, left) per cell from element `base` on.
    """
    constants = constants_of(row, exponents, unreachable, factors)
    left = nowhere = constants[-2:]
    diagonal = load_state(mantissas, exponents, first * lanes)
    store(exponents, first * lanes, nowhere[1])
    for j in range(first, stop):
        up = load_state(mantissas, exponents, (j + 1) * lanes)
        left, lowest = forward_cell(row, j * lanes, up, diagonal, left, lowest, transitions, base, lanes, constants)
        store_state(mantissas, exponents, (j + 1) * lanes, left)
        diagonal = up
    return lowest


@inner
def forward_two_rows(
    row: Any,
    below: int,
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
    """`forward_row` for two rows at once, the lower one a column behind.

    A cell waits for the one on its left; of two such chains, one is computed while the other waits, and
    the state between the two rows stays in registers. The lower row's costs start at element `below` of
    `row`, its transitions at base + 3 * below.
    """
    constants = constants_of(row, exponents, unreachable, factors)
    lower = lower_diagonal = nowhere = constants[-2:]
    diagonal = load_state(mantissas, exponents, first * lanes)
    store(exponents, first * lanes, nowhere[1])
    up = load_state(mantissas, exponents, (first + 1) * lanes)
    upper, lowest = forward_cell(row, first * lanes, up, diagonal, nowhere, lowest, transitions, base, lanes, constants)
    diagonal = up
    for j in range(first + 1, stop):
        at = j * lanes
        up = load_state(mantissas, exponents, at + lanes)
        ahead, lowest = forward_cell(row, at, up, diagonal, upper, lowest, transitions, base, lanes, constants)
        lower, lowest = forward_cell(
            row, below + at - lanes, upper, lower_diagonal, lower, lowest, transitions, base, lanes, constants
        )
        store_state(mantissas, exponents, at, lower)
        diagonal = up
        lower_diagonal = upper
        upper = ahead
    at = stop * lanes
    lower, lowest = forward_cell(
        row, below + at - lanes, upper, lower_diagonal, lower, lowest, transitions, base, lanes, constants
    )
    store_state(mantissas, exponents, at, lower)
    return lowest


@inner
def forward_rows(
    count: int,
    row: Any,
    below: int,
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
    """One row or two."""
    if count == 2:
        return forward_two_rows(
            row, below, mantissas, exponents, lowest, transitions, base, first, stop, lanes, unreachable, factors
        )
    return forward_row(row, mantissas, exponents, lowest, transitions, base, first, stop, lanes, unreachable, factors)


@inner
def backward_cell(
    received: Any, from_right: Any, diagonal: Any, row: Any, place: int, transitions: Any, base: int, lanes: int
) -> Any:
    """Write the expected alignment of a cell; returns what goes up, to the diagonal and to the left.

    received, from_right: what comes from below and from the right; diagonal: what the cell's right
    neighbour sends to the same place as this cell sends up. place: of the cell in `row`.
    """
    expected = flush(add(received, from_right))
    store(row, place, expected)
    at = base + 3 * place
    return (
        multiply_add(expected, load(transitions, at), diagonal),
        multiply(expected, load(transitions, at + lanes)),
        multiply(expected, load(transitions, at + 2 * lanes)),
    )


@inner
def backward_row(row: Any, arriving: Any, transitions: Any, base: int, first: int, stop: int, lanes: int) -> None:
    """Write the expected alignment of one row to `row` and send it on to the row above.

    `arriving` holds what this row receives from the row below; on return, what the row above receives.
    """
    from_right = splat(row, 0.0)
    diagonal = splat(row, 0.0)
    for j in range(stop - 1, first - 1, -1):
        at = j * lanes
        up, diagonal, from_right = backward_cell(
            load(arriving, at), from_right, diagonal, row, at, transitions, base, lanes
        )
        store(arriving, at, up)
    if first > 0:
        store(arriving, (first - 1) * lanes, diagonal)


@inner
def backward_two_rows(
    row: Any, below: int, arriving: Any, transitions: Any, base: int, first: int, stop: int, lanes: int
) -> None:
    """`backward_row` for two rows at once, the upper one a column behind; layout as in `forward_two_rows`."""
    zero = splat(row, 0.0)
    at = (stop - 1) * lanes
    sent, diagonal, from_right = backward_cell(
        load(arriving, at), zero, zero, row, below + at, transitions, base, lanes
    )
    upper_diagonal = zero
    upper_from_right = zero
    for j in range(stop - 2, first - 1, -1):
        at = j * lanes
        ahead, diagonal, from_right = backward_cell(
            load(arriving, at), from_right, diagonal, row, below + at, transitions, base, lanes
        )
        up, upper_diagonal, upper_from_right = backward_cell(
            sent, upper_from_right, upper_diagonal, row, at + lanes, transitions, base, lanes
        )
        store(arriving, at + lanes, up)
        sent = ahead
    at = first * lanes
    up, upper_diagonal, upper_from_right = backward_cell(
        sent, upper_from_right, upper_diagonal, row, at, transitions, base, lanes
    )
    store(arriving, at, up)
    if first > 0:
        store(arriving, at - lanes, upper_diagonal)


@inner
def backward_rows(
    count: int,
    row: Any,
    below: int,
    arriving: Any,
    transitions: Any,
    base: int,
    first: int,
    stop: int,
    lanes: int,
) -> None:
    """One row or two, the way back of `forward_rows`."""
    if count == 2:
        backward_two_rows(row, below, arriving, transitions, base, first, stop, lanes)
    else:
        backward_row(row, arriving, transitions, base, first, stop, lanes)


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
