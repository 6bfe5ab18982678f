"""The CPU kernel for a batch of pairs: pairs are SIMD lanes, blocks of lanes are shared by threads."""

import math
from typing import Any

import numpy as np

from alignment.lanes import INVALID, NO_PATH, TOO_STEEP
from alignment.rows import backward_row, forward_row, value_row
from alignment.simd import inner, jit, load, mark_invalid, splat, store
from alignment.transpose import gather, scatter


@inner
def bounds_of_row(i: int, lengths_x: Any, lengths_y: Any, band: int, begins: Any, ends: Any) -> None:
    """The columns of row i that each pair may visit: inside its lengths and its band."""
    for k in range(begins.shape[0]):
        n = lengths_x[k]
        m = lengths_y[k]
        begins[k] = 0
        ends[k] = m if i < n else 0
        if band >= 0 and i < n:
            begins[k] = max(0, i - band - max(0, n - m))
            ends[k] = min(m, i + band + max(0, m - n) + 1)


@inner
def take_row(
    costs: Any,
    offsets: Any,
    begins: Any,
    ends: Any,
    first: int,
    stop: int,
    row: Any,
    invalid: Any,
    lanes: int,
) -> Any:
    """Gather a row of a block's pairs into vectors; what a pair may not visit costs infinity."""
    for j in range(first // lanes * lanes, stop, lanes):
        gather(costs, offsets, begins, ends, j, row)
    for j in range(first, stop):
        invalid = mark_invalid(invalid, load(row, j * lanes))
    return invalid


@inner
def give_row(
    row: Any,
    offsets: Any,
    begins: Any,
    ends: Any,
    stop: int,
    columns: int,
    outside: float,
    target: Any,
    lanes: int,
) -> None:
    """Scatter a row of vectors to the pairs; `outside` fills what a pair may not visit."""
    for j in range(0, stop, lanes):
        scatter(row, j, offsets, begins, ends, columns, outside, target)
    beyond = (stop + lanes - 1) // lanes * lanes
    if beyond < columns:
        for k in range(lanes):
            target[offsets[k] + beyond : offsets[k] + columns] = outside


@jit
def align_pairs(
    costs: Any,
    order: Any,
    all_lengths_x: Any,
    all_lengths_y: Any,
    band: int,
    factors: Any,
    limits: Any,
    first_block: int,
    block_step: int,
    strip: int,
    floats: Any,
    integers: Any,
    values: Any,
    expected: Any,
    table: Any,
    status: Any,
) -> None:
    """Align blocks first_block, first_block + block_step, ... of `lanes` pairs each.

    costs (pairs, rows, columns); order: pairs by size, so that a block wastes little; values (pairs,);
    expected and table: like costs, or with no pairs when not wanted; status (pairs,): bits above.
    floats, integers: scratch of one thread, see `align` in lanes.py. `strip`: rows whose transitions are
    kept; longer series store the state at each strip and run strips forward again on the way back.
    """
    lanes = limits[0]
    unreachable = limits[1]
    number_of_pairs = order.shape[0]
    rows = costs.shape[1]
    columns = costs.shape[2]
    want_expected = expected.shape[0] > 0
    want_table = table.shape[0] > 0
    flat_costs = costs.reshape(-1)
    flat_expected = expected.reshape(-1)
    flat_table = table.reshape(-1)
    width = (columns + lanes - 1) // lanes * lanes * lanes
    state = width + lanes
    row = floats[0:width]
    mantissas = floats[width : width + state]
    arriving = floats[width + state : 2 * width + state]
    at = 2 * width + state
    transitions = floats[at : at + strip * 3 * width]
    kept_mantissas = floats[at + strip * 3 * width :]
    exponents = integers[0:state]
    marks = integers[state : state + lanes]
    kept_exponents = integers[state + lanes :]
    pairs = np.empty(lanes, np.int64)
    lengths_x = np.empty(lanes, np.int64)
    lengths_y = np.empty(lanes, np.int64)
    offsets = np.empty(lanes, np.int64)
    begins = np.empty(lanes, np.int64)
    ends = np.empty(lanes, np.int64)

    for block in range(first_block, (number_of_pairs + lanes - 1) // lanes, block_step):
        count = min(lanes, number_of_pairs - block * lanes)
        n = 0
        m = 0
        shortest = rows
        below = 0
        above = 0
        for k in range(lanes):
            # The last block repeats its last pair: same reads, same writes.
            pairs[k] = order[block * lanes + min(k, count - 1)]
            offsets[k] = pairs[k] * rows * columns
            lengths_x[k] = all_lengths_x[pairs[k]]
            lengths_y[k] = all_lengths_y[pairs[k]]
            n = max(n, lengths_x[k])
            shortest = min(shortest, lengths_x[k])
            m = max(m, lengths_y[k])
            below = max(below, lengths_x[k] - lengths_y[k])
            above = max(above, lengths_y[k] - lengths_x[k])
        if band < 0:
            below = n
            above = m
        else:
            below += band
            above += band
        last_strip = (n - 1) // strip

        one = splat(row, 1.0)
        nowhere = splat(exponents, unreachable)
        for j in range(m + 1):
            store(mantissas, j * lanes, one)
            store(exponents, j * lanes, nowhere)
        store(exponents, 0, splat(exponents, 0))
        lowest = splat(row, 0.0)
        invalid = splat(exponents, 0)
        for i in range(n):
            number = i // strip
            if want_expected and last_strip > 0 and i % strip == 0:
                for j in range(m + 1):
                    kept = number * state + j * lanes
                    store(kept_mantissas, kept, load(mantissas, j * lanes))
                    store(kept_exponents, kept, load(exponents, j * lanes))
            first = max(0, min(i - below, m))
            stop = min(m, i + above + 1)
            # Without a band the bounds change only where a pair ends.
            if i == 0 or i >= shortest or band >= 0:
                bounds_of_row(i, lengths_x, lengths_y, band, begins, ends)
            invalid = take_row(flat_costs, offsets, begins, ends, first, stop, row, invalid, lanes)
            if want_expected and number == last_strip:
                lowest = forward_row(
                    row,
                    mantissas,
                    exponents,
                    lowest,
                    transitions,
                    (i - number * strip) * 3 * width,
                    first,
                    stop,
                    lanes,
                    unreachable,
                    factors,
                )
            else:
                lowest = forward_row(
                    row,
                    mantissas,
                    exponents,
                    lowest,
                    None,
                    0,
                    first,
                    stop,
                    lanes,
                    unreachable,
                    factors,
                )
            if want_table:
                value_row(row, mantissas, exponents, first, stop, lanes, factors)
                give_row(row, offsets, begins, ends, stop, columns, np.inf, flat_table, lanes)
            for k in range(lanes):
                offsets[k] += columns
            for k in range(lanes if i >= shortest - 1 else 0):
                if i == lengths_x[k] - 1:
                    end = lengths_y[k] * lanes + k
                    if exponents[end] < unreachable // 2:
                        values[pairs[k]] = np.inf
                        status[pairs[k]] |= NO_PATH
                    else:
                        power = exponents[end] + math.log2(mantissas[end])
                        values[pairs[k]] = -factors[4] * power
                        if abs(power) > limits[2]:
                            status[pairs[k]] |= TOO_STEEP
        store(row, 0, lowest)
        for k in range(lanes):
            if -row[k] * (n + m) > limits[2]:
                status[pairs[k]] |= TOO_STEEP
        store(marks, 0, invalid)
        for k in range(lanes):
            if marks[k] != 0:
                status[pairs[k]] |= INVALID
        if want_table:
            for k in range(count):
                table[pairs[k], n:, :] = np.inf
        if not want_expected:
            continue

        zero = splat(row, 0.0)
        for j in range(m):
            store(arriving, j * lanes, zero)
        for number in range(last_strip, -1, -1):
            begin = number * strip
            end = min(n, begin + strip)
            if number < last_strip:
                for j in range(m + 1):
                    kept = number * state + j * lanes
                    store(mantissas, j * lanes, load(kept_mantissas, kept))
                    store(exponents, j * lanes, load(kept_exponents, kept))
                for i in range(begin, end):
                    first = max(0, min(i - below, m))
                    stop = min(m, i + above + 1)
                    for k in range(lanes):
                        offsets[k] = (pairs[k] * rows + i) * columns
                    bounds_of_row(i, lengths_x, lengths_y, band, begins, ends)
                    take_row(flat_costs, offsets, begins, ends, first, stop, row, invalid, lanes)
                    forward_row(
                        row,
                        mantissas,
                        exponents,
                        lowest,
                        transitions,
                        (i - begin) * 3 * width,
                        first,
                        stop,
                        lanes,
                        unreachable,
                        factors,
                    )
            for i in range(end - 1, begin - 1, -1):
                first = max(0, min(i - below, m))
                stop = min(m, i + above + 1)
                for k in range(lanes):
                    offsets[k] = (pairs[k] * rows + i) * columns
                for k in range(lanes if i >= shortest - 1 else 0):
                    if i == lengths_x[k] - 1 and status[pairs[k]] & NO_PATH == 0:
                        arriving[(lengths_y[k] - 1) * lanes + k] += 1.0
                backward_row(row, arriving, transitions, (i - begin) * 3 * width, first, stop, lanes)
                if i == end - 1 or i >= shortest - 1 or band >= 0:
                    bounds_of_row(i, lengths_x, lengths_y, band, begins, ends)
                give_row(row, offsets, begins, ends, stop, columns, 0.0, flat_expected, lanes)
        for k in range(count):
            expected[pairs[k], n:, :] = 0.0
