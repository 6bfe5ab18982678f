"""The CPU kernel for all pairs: a document against groups of documents, which are the lanes.

It works in place on the product of one matrix multiplication whose columns are ordered (group,
slice, document of the group), so that a vector of pairs is contiguous and nothing is rearranged.
"""

import math
from typing import Any

import numpy as np

from alignment.lanes import NO_PATH, TOO_STEEP
from alignment.rows import (
    backward_row,
    divisible_row,
    divisible_slope_row,
    forward_row,
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
    row = floats[0:width]
    mantissas = floats[width : width + state]
    arriving = floats[width + state : 2 * width + state]
    transitions = floats[2 * width + state :]
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
        for i in range(n):
            start = (top + i) * total_columns + column
            cost_row(
                flat,
                start,
                slope,
                row_bias[top + i],
                column_bias,
                column,
                weights,
                i,
                n,
                column_lengths,
                group,
                band,
                m,
                row,
                lanes,
            )
            if divisible:
                divisible_row(row, m, lanes)
            if mode == GRADIENT:
                lowest = forward_row(
                    row,
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
                lowest = forward_row(
                    row,
                    mantissas,
                    exponents,
                    lowest,
                    None,
                    0,
                    0,
                    m,
                    lanes,
                    unreachable,
                    factors,
                )
            if mode == TABLE:
                value_row(row, mantissas, exponents, 0, m, lanes, factors)
                for j in range(m):
                    store(flat, start + j * lanes, load(row, j * lanes))
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
        for i in range(n - 1, -1, -1):
            if i == n - 1:
                for k in range(lanes):
                    other = group * lanes + k
                    if status[document, other] & NO_PATH == 0:
                        arriving[(column_lengths[other] - 1) * lanes + k] = 1.0
            start = (top + i) * total_columns + column
            if divisible:
                cost_row(
                    flat,
                    start,
                    slope,
                    row_bias[top + i],
                    column_bias,
                    column,
                    weights,
                    i,
                    n,
                    column_lengths,
                    group,
                    band,
                    m,
                    row,
                    lanes,
                )
                divisible_slope_row(row, m, lanes)
                for j in range(m):
                    store(flat, start + j * lanes, load(row, j * lanes))
            backward_row(row, arriving, transitions, i * 3 * width, 0, m, lanes)
            factor = load(incoming, document * incoming.shape[1] + group * lanes)
            for j in range(m):
                gradient = multiply(load(row, j * lanes), factor)
                if divisible:
                    gradient = multiply(gradient, load(flat, start + j * lanes))
                store(flat, start + j * lanes, gradient)
