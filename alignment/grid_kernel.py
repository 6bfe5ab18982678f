"""The CPU kernel for all pairs: a document against groups of documents, which are the lanes.

It works in place on the product of one matrix multiplication whose columns are ordered (group,
slice, document of the group), so that a vector of pairs is contiguous and nothing is rearranged.
"""

import math
from typing import Any

import numpy as np

from alignment.rows import (
    backward_rows,
    divisible_row,
    divisible_slope_row,
    forward_rows,
    value_row,
)
from alignment.simd import (
    add,
    inner,
    jit,
    larger,
    load,
    multiply,
    multiply_add,
    splat,
    store,
)
from alignment.status import NO_PATH, TOO_STEEP

VALUES, GRADIENT, TABLE = 0, 1, 2


@inner
def cost_row(
    products: Any,
    start: int,
    slope: float,
    row_bias: float,
    column_bias: Any,
    bias_start: int,
    weights: Any,
    i: int,
    n: int,
    lengths: Any,
    group: int,
    band: int,
    stop: int,
    row: Any,
    lanes: int,
) -> None:
    """slope * product + biases, at least 0, with -log of the weight of the offset |i - j| added."""
    slopes = splat(row, slope)
    bias = splat(row, row_bias)
    zero = splat(row, 0.0)
    for j in range(stop):
        both = add(bias, load(column_bias, bias_start + j * lanes))
        cost = multiply_add(slopes, load(products, start + j * lanes), both)
        store(row, j * lanes, larger(zero, cost))
    if weights.shape[0] > 0:
        for j in range(stop):
            penalty = splat(row, weights[min(abs(i - j), weights.shape[0] - 1)])
            store(row, j * lanes, add(load(row, j * lanes), penalty))
    if band >= 0:
        for k in range(lanes):
            m = lengths[group * lanes + k]
            for j in range(min(stop, i - band - max(0, n - m))):
                row[j * lanes + k] = np.inf
            for j in range(max(0, i + band + max(0, m - n) + 1), stop):
                row[j * lanes + k] = np.inf


@jit
def align_grid(
    products: Any,
    slope: float,
    row_bias: Any,
    column_bias: Any,
    weights: Any,
    divisible: bool,
    row_starts: Any,
    row_lengths: Any,
    group_starts: Any,
    group_widths: Any,
    column_lengths: Any,
    first_group: int,
    first_document: int,
    symmetric: bool,
    band: int,
    factors: Any,
    limits: Any,
    first_task: int,
    task_step: int,
    floats: Any,
    integers: Any,
    mode: int,
    incoming: Any,
    values: Any,
    status: Any,
) -> None:
    """Align tasks first_task, first_task + task_step, ...: one row document with one group each.

    products (rows, columns): overwritten in GRADIENT mode by incoming * d value / d t with t before
    the divisible transformation, in TABLE mode by R. row_starts, row_lengths: of the row documents;
    group_starts, group_widths: first column and longest length of every group; column_lengths: per
    document, groups after one another. Groups before first_group have no columns here. symmetric:
    row document a is column document first_document + a, and groups wholly before it are skipped.
    incoming, values, status: (row documents, groups * lanes).
    """
    lanes = limits[0]
    unreachable = limits[1]
    total_columns = products.shape[1]
    flat = products.reshape(-1)
    documents = row_starts.shape[0]
    groups = group_starts.shape[0] - first_group
    longest = 0
    for group in range(group_starts.shape[0]):
        longest = max(longest, group_widths[group])
    width = longest * lanes
    state = width + lanes
    row = floats[0 : 2 * width]
    lower_row = floats[width : 2 * width]
    slopes = floats[2 * width : 3 * width]
    mantissas = floats[3 * width : 3 * width + state]
    arriving = floats[3 * width + state : 4 * width + state]
    transitions = floats[4 * width + state :]
    exponents = integers[0:state]

    for task in range(first_task, documents * groups, task_step):
        document = task // groups
        group = first_group + task % groups
        m = group_widths[group]
        n = row_lengths[document]
        column = group_starts[group] - group_starts[first_group]
        top = row_starts[document]
        if symmetric and (group + 1) * lanes <= first_document + document:
            if mode == GRADIENT:
                zero = splat(row, 0.0)
                for i in range(n):
                    for j in range(m):
                        store(flat, (top + i) * total_columns + column + j * lanes, zero)
            continue

        one = splat(row, 1.0)
        nowhere = splat(exponents, unreachable)
        for j in range(m + 1):
            store(mantissas, j * lanes, one)
            store(exponents, j * lanes, nowhere)
        store(exponents, 0, splat(exponents, 0))
        lowest = splat(row, 0.0)
        i = 0
        while i < n:
            # Two rows at once, unless the state between them is wanted.
            last = i + 1 if i < n - 1 and mode != TABLE else i
            for one_row in range(i, last + 1):
                target = row if one_row == i else lower_row
                start = (top + one_row) * total_columns + column
                cost_row(
                    flat,
                    start,
                    slope,
                    row_bias[top + one_row],
                    column_bias,
                    column,
                    weights,
                    one_row,
                    n,
                    column_lengths,
                    group,
                    band,
                    m,
                    target,
                    lanes,
                )
                if divisible:
                    divisible_row(target, m, lanes)
            if mode == GRADIENT:
                lowest = forward_rows(
                    last - i + 1,
                    row,
                    width,
                    mantissas,
                    exponents,
                    lowest,
                    transitions,
                    i * 3 * width,
                    0,
                    m,
                    lanes,
                    unreachable,
                    factors,
                )
            else:
                lowest = forward_rows(
                    last - i + 1, row, width, mantissas, exponents, lowest, None, 0, 0, m, lanes, unreachable, factors
                )
            if mode == TABLE:
                value_row(row, mantissas, exponents, 0, m, lanes, factors)
                for j in range(m):
                    store(flat, start + j * lanes, load(row, j * lanes))
            i = last + 1
        for k in range(lanes):
            other = group * lanes + k
            end = column_lengths[other] * lanes + k
            status[document, other] = 0
            if exponents[end] < unreachable // 2:
                values[document, other] = np.inf
                status[document, other] |= NO_PATH
            else:
                power = exponents[end] + math.log2(mantissas[end])
                values[document, other] = -factors[4] * power
                if abs(power) > limits[2]:
                    status[document, other] |= TOO_STEEP
        if mode != GRADIENT:
            continue

        zero = splat(row, 0.0)
        for j in range(m):
            store(arriving, j * lanes, zero)
        for k in range(lanes):
            other = group * lanes + k
            if status[document, other] & NO_PATH == 0:
                arriving[(column_lengths[other] - 1) * lanes + k] = 1.0
        factor = load(incoming, document * incoming.shape[1] + group * lanes)
        i = n - 1
        while i >= 0:
            upper = max(i - 1, 0)
            backward_rows(i - upper + 1, row, width, arriving, transitions, upper * 3 * width, 0, m, lanes)
            for one_row in range(i, upper - 1, -1):
                source = row if one_row == upper else lower_row
                start = (top + one_row) * total_columns + column
                if divisible:
                    cost_row(
                        flat,
                        start,
                        slope,
                        row_bias[top + one_row],
                        column_bias,
                        column,
                        weights,
                        one_row,
                        n,
                        column_lengths,
                        group,
                        band,
                        m,
                        slopes,
                        lanes,
                    )
                    divisible_slope_row(slopes, m, lanes)
                    for j in range(m):
                        gradient = multiply(load(source, j * lanes), load(slopes, j * lanes))
                        store(flat, start + j * lanes, multiply(gradient, factor))
                else:
                    for j in range(m):
                        store(flat, start + j * lanes, multiply(load(source, j * lanes), factor))
            i = upper - 1


@jit
def weigh_grid(
    slopes: Any,
    incoming: Any,
    documents: Any,
    group_starts: Any,
    group_widths: Any,
    first_group: int,
    first_task: int,
    task_step: int,
    limits: Any,
    target: Any,
) -> None:
    """Rows first_task, first_task + task_step, ... of slopes times the incoming gradient of their pairs, to target.

    slopes, target (rows, columns) as products in `align_grid`; documents (rows,): the row of incoming.
    """
    lanes = limits[0]
    total_columns = slopes.shape[1]
    flat = slopes.reshape(-1)
    flat_target = target.reshape(-1)
    weights = incoming.reshape(-1)
    for i in range(first_task, slopes.shape[0], task_step):
        for group in range(first_group, group_widths.shape[0]):
            factor = load(weights, documents[i] * incoming.shape[1] + group * lanes)
            start = i * total_columns + group_starts[group] - group_starts[first_group]
            for j in range(group_widths[group]):
                at = start + j * lanes
                store(flat_target, at, multiply(load(flat, at), factor))
