"""The CPU kernel for a batch of pairs: pairs are SIMD lanes, blocks of lanes are shared by threads."""

from typing import Any

import numpy as np

from alignment.rows import backward_rows, forward_rows, value_row
from alignment.simd import inner, jit, load, mark_invalid, splat, store
from alignment.status import INVALID, NO_PATH, TOO_STEEP
from alignment.transpose import gather, gather_half, gather_whole, scatter, scatter_half, scatter_whole


@inner
def bounds_of_row(i: int, lengths_x: Any, lengths_y: Any, band: int, begins: Any, ends: Any) -> Any:
    """The columns of row i that each pair may visit, inside its lengths and its band; returns those that all may."""
    latest = 0
    earliest = lengths_y[0]
    for k in range(begins.shape[0]):
        n = lengths_x[k]
        m = lengths_y[k]
        begins[k] = 0
        ends[k] = m if i < n else 0
        if band >= 0 and i < n:
            begins[k] = max(0, i - band - max(0, n - m))
            ends[k] = min(m, i + band + max(0, m - n) + 1)
        latest = max(latest, begins[k])
        earliest = min(earliest, ends[k])
    return latest, earliest


@inner
def take_row(
    costs: Any,
    start: int,
    offsets: Any,
    begins: Any,
    ends: Any,
    common: Any,
    first: int,
    stop: int,
    row: Any,
    invalid: Any,
    lanes: int,
) -> Any:
    """Gather a row of a block's pairs into vectors; what a pair may not visit costs infinity."""
    half = lanes // 2
    for j in range(first // lanes * lanes, stop, lanes):
        if j >= common[0] and j + lanes <= common[1]:
            gather_whole(costs, start, offsets, begins, ends, j, row)
        elif j >= common[0] and j + half == common[1] and j + half == stop:
            gather_half(costs, start, offsets, begins, ends, j, row)
        else:
            gather(costs, start, offsets, begins, ends, j, row)
    for j in range(first, stop):
        invalid = mark_invalid(invalid, load(row, j * lanes))
    return invalid


@inner
def give_row(
    row: Any,
    start: int,
    offsets: Any,
    begins: Any,
    ends: Any,
    common: Any,
    stop: int,
    columns: int,
    outside: float,
    target: Any,
    lanes: int,
) -> None:
    """Scatter a row of vectors to the pairs; `outside` fills what a pair may not visit."""
    half = lanes // 2
    beyond = (stop + lanes - 1) // lanes * lanes
    for j in range(0, stop, lanes):
        if j >= common[0] and j + lanes <= common[1]:
            scatter_whole(row, j, start, offsets, begins, ends, columns, outside, target)
        elif j >= common[0] and j + half == common[1] and j + half == stop:
            scatter_half(row, j, start, offsets, begins, ends, columns, outside, target)
            beyond = stop
        else:
            scatter(row, j, start, offsets, begins, ends, columns, outside, target)
    if beyond < columns:
        for k in range(lanes):
            at = offsets[k] + start
            target[at + beyond : at + columns] = outside


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
    row = floats[0 : 2 * width]
    lower_row = floats[width : 2 * width]
    mantissas = floats[2 * width : 2 * width + state]
    arriving = floats[2 * width + state : 3 * width + state]
    end_mantissas = floats[3 * width + state : 3 * width + state + 2 * lanes]
    at = 3 * width + state + 2 * lanes
    transitions = floats[at : at + strip * 3 * width]
    kept_mantissas = floats[at + strip * 3 * width :]
    exponents = integers[0:state]
    end_exponents = integers[state : state + 2 * lanes]
    kept_exponents = integers[state + 2 * lanes :]
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
        common = (0, 0)
        i = 0
        while i < n:
            number = i // strip
            if want_expected and last_strip > 0 and i % strip == 0:
                for j in range(m + 1):
                    kept = number * state + j * lanes
                    store(kept_mantissas, kept, load(mantissas, j * lanes))
                    store(kept_exponents, kept, load(exponents, j * lanes))
            # Two rows at once unless the state between them is wanted: a pair's end, a strip's, a table.
            last = i + 1 if i < shortest - 1 and (i + 1) % strip != 0 and not want_table else i
            first = max(0, min(i - below, m))
            stop = min(m, last + above + 1)
            for one_row in range(i, last + 1):
                # Without a band the bounds change only where a pair ends.
                if one_row == 0 or one_row >= shortest or band >= 0:
                    common = bounds_of_row(one_row, lengths_x, lengths_y, band, begins, ends)
                target = row if one_row == i else lower_row
                invalid = take_row(
                    flat_costs, one_row * columns, offsets, begins, ends, common, first, stop, target, invalid, lanes
                )
            if want_expected and number == last_strip:
                lowest = forward_rows(
                    last - i + 1,
                    row,
                    width,
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
                lowest = forward_rows(
                    last - i + 1,
                    row,
                    width,
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
            i = last
            if want_table:
                value_row(row, mantissas, exponents, first, stop, lanes, factors)
                give_row(row, i * columns, offsets, begins, ends, common, stop, columns, np.inf, flat_table, lanes)
            for k in range(lanes if i >= shortest - 1 else 0):
                if i == lengths_x[k] - 1:
                    end_mantissas[lanes + k] = mantissas[lengths_y[k] * lanes + k]
                    end_exponents[lanes + k] = exponents[lengths_y[k] * lanes + k]
            i += 1
        value_row(row, end_mantissas, end_exponents, 0, 1, lanes, factors)
        store(lower_row, 0, lowest)
        store(end_exponents, 0, invalid)
        for k in range(lanes):
            values[pairs[k]] = row[k]
            power = end_exponents[lanes + k]
            if power < unreachable // 2:
                status[pairs[k]] |= NO_PATH
            elif max(abs(power), -lower_row[k] * (n + m)) > limits[2]:
                status[pairs[k]] |= TOO_STEEP
            if end_exponents[k] != 0:
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
                i = begin
                while i < end:
                    last = i + 1 if i < shortest - 1 and i + 1 < end else i
                    first = max(0, min(i - below, m))
                    stop = min(m, last + above + 1)
                    for one_row in range(i, last + 1):
                        common = bounds_of_row(one_row, lengths_x, lengths_y, band, begins, ends)
                        target = row if one_row == i else lower_row
                        take_row(
                            flat_costs,
                            one_row * columns,
                            offsets,
                            begins,
                            ends,
                            common,
                            first,
                            stop,
                            target,
                            invalid,
                            lanes,
                        )
                    forward_rows(
                        last - i + 1,
                        row,
                        width,
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
                    i = last + 1
            i = end - 1
            while i >= begin:
                # The same rows together as forwards: their transitions reach over the columns of both.
                upper = i - 1 if (i - begin) % 2 == 1 and i < shortest else i
                first = max(0, min(upper - below, m))
                stop = min(m, i + above + 1)
                for k in range(lanes if i >= shortest - 1 else 0):
                    if i == lengths_x[k] - 1 and status[pairs[k]] & NO_PATH == 0:
                        arriving[(lengths_y[k] - 1) * lanes + k] += 1.0
                base = (upper - begin) * 3 * width
                backward_rows(i - upper + 1, row, width, arriving, transitions, base, first, stop, lanes)
                for one_row in range(i, upper - 1, -1):
                    if one_row == end - 1 or one_row >= shortest - 1 or band >= 0:
                        common = bounds_of_row(one_row, lengths_x, lengths_y, band, begins, ends)
                    source = row if one_row == upper else lower_row
                    give_row(
                        source,
                        one_row * columns,
                        offsets,
                        begins,
                        ends,
                        common,
                        stop,
                        columns,
                        0.0,
                        flat_expected,
                        lanes,
                    )
                i = upper - 1
        for k in range(count if n < rows else 0):
            expected[pairs[k], n:, :] = 0.0
