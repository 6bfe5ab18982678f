"""Rows of pairs to vectors of lanes and back: squares of numbers transposed in registers.

Element by element this would cost more than the recursion itself.
"""

import math
from collections.abc import Callable
from typing import Any

from alignment.simd import (
    LaneType,
    cgutils,
    constant_of,
    element_bytes,
    element_pointer,
    intrinsic,
    ir,
    lanes_of,
    types,
    vector_of,
)


def _masked(builder: Any, name: str, lane_type: LaneType, arguments: list[Any], result: Any) -> Any:
    """Call llvm.masked.load or llvm.masked.store."""
    element = "f32" if lane_type.dtype.name == "float32" else "f64"
    signature = ir.FunctionType(result, [argument.type for argument in arguments])
    declared = cgutils.get_or_insert_function(
        builder.module, signature, f"llvm.masked.{name}.v{lane_type.lanes}{element}.p0"
    )
    return builder.call(declared, arguments)


def _transpose(builder: Any, lane_type: LaneType, vectors: list[Any]) -> list[Any]:
    """Swap lanes and vectors of squares of numbers side by side, in log2(vectors) rounds of two-input shuffles."""
    lanes = lane_type.lanes
    word = ir.IntType(32)
    width = 1
    while width < len(vectors):
        pattern = [lane if lane & width == 0 else lane - width + lanes for lane in range(lanes)]
        even = ir.Constant(ir.VectorType(word, lanes), pattern)
        odd = ir.Constant(ir.VectorType(word, lanes), [index + width for index in pattern])
        turned = list(vectors)
        for number in range(len(vectors)):
            if number & width == 0:
                pair = (vectors[number], vectors[number + width])
                turned[number] = builder.shuffle_vector(*pair, even)
                turned[number + width] = builder.shuffle_vector(*pair, odd)
        vectors = turned
        width *= 2
    return vectors


def _inside(context: Any, builder: Any, lanes: int, column: Any, lower: Any, upper: Any) -> Any:
    """Mask of the columns column, column + 1, ... that lie in [lower, upper)."""
    word = ir.IntType(32)
    kind = ir.VectorType(word, lanes)

    def spread(scalar: Any) -> Any:
        narrow = builder.trunc(scalar, word)
        one = builder.insert_element(ir.Constant(kind, ir.Undefined), narrow, ir.Constant(word, 0))
        return builder.shuffle_vector(one, ir.Constant(kind, ir.Undefined), ir.Constant(kind, [0] * lanes))

    columns = builder.add(spread(column), ir.Constant(kind, list(range(lanes))))
    after = builder.icmp_signed(">=", columns, spread(lower))
    before = builder.icmp_signed("<", columns, spread(upper))
    return builder.and_(after, before)


def _pointer(context: Any, builder: Any, array_type: Any, array: Any, offset: Any, lane_type: LaneType) -> Any:
    pointer = element_pointer(context, builder, array_type, array, offset)
    return builder.bitcast(pointer, vector_of(lane_type).as_pointer())


def _row(context: Any, builder: Any, lane: int, kinds: Any, arrays: Any) -> Any:
    """Offset, first and last column of the row of a lane."""
    at = ir.Constant(ir.IntType(64), lane)
    return [builder.load(element_pointer(context, builder, *one, at)) for one in zip(kinds, arrays, strict=True)]


def _gather(pieces: int, masked: bool) -> Callable[..., Any]:
    """Turn columns column, column + 1, ... of `lanes` rows of `source` into vectors in `target`.

    pieces: 1 for `lanes` columns, 2 for half as many. Row k starts at element offsets[k] + shift; if masked,
    its columns outside [begins[k], ends[k]) are not read and come out as infinity, otherwise all columns
    must lie inside. Column c lands at element c * lanes of `target`.
    """

    def gather(
        typing: Any, source: Any, shift: Any, offsets: Any, begins: Any, ends: Any, column: Any, target: Any
    ) -> Any:
        lane_type = lanes_of(source)
        lanes = lane_type.lanes
        piece = LaneType(lane_type.dtype, lanes // pieces)
        size = element_bytes(piece)

        def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            start = arguments[5]
            at = builder.add(arguments[1], start)
            rows = []
            for lane in range(lanes):
                offset, lower, upper = _row(context, builder, lane, (offsets, begins, ends), arguments[2:5])
                pointer = _pointer(context, builder, source, arguments[0], builder.add(offset, at), piece)
                if masked:
                    mask = _inside(context, builder, piece.lanes, start, lower, upper)
                    values = [pointer, ir.Constant(ir.IntType(32), size), mask, constant_of(piece, math.inf)]
                    rows.append(_masked(builder, "load", piece, values, vector_of(piece)))
                else:
                    rows.append(builder.load(pointer, align=size))
            if pieces == 2:
                both = ir.Constant(ir.VectorType(ir.IntType(32), lanes), list(range(lanes)))
                rows = [
                    builder.shuffle_vector(*pair, both)
                    for pair in zip(rows[: piece.lanes], rows[piece.lanes :], strict=True)
                ]
            first = builder.mul(start, ir.Constant(ir.IntType(64), lanes))
            for number, vector in enumerate(_transpose(builder, lane_type, rows)):
                offset = builder.add(first, ir.Constant(ir.IntType(64), number * lanes))
                pointer = _pointer(context, builder, target, arguments[6], offset, lane_type)
                builder.store(vector, pointer, align=size)
            return context.get_dummy_value()

        return types.none(source, types.intp, offsets, begins, ends, types.intp, target), emit

    return intrinsic(gather)


def _scatter(pieces: int, masked: bool) -> Callable[..., Any]:
    """The way back: vectors in `source` from `column` on become columns of rows of `target`.

    If masked, columns of row k outside [begins[k], ends[k]) receive `outside`, and columns from `stop` on
    are left alone; otherwise all columns must lie inside.
    """

    def scatter(
        typing: Any,
        source: Any,
        column: Any,
        shift: Any,
        offsets: Any,
        begins: Any,
        ends: Any,
        stop: Any,
        outside: Any,
        target: Any,
    ) -> Any:
        lane_type = lanes_of(source)
        lanes = lane_type.lanes
        piece = LaneType(lane_type.dtype, lanes // pieces)
        size = element_bytes(piece)
        word = ir.IntType(32)

        def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            start = arguments[1]
            at = builder.add(arguments[2], start)
            first = builder.mul(start, ir.Constant(ir.IntType(64), lanes))
            vectors = []
            for number in range(piece.lanes):
                offset = builder.add(first, ir.Constant(ir.IntType(64), number * lanes))
                pointer = _pointer(context, builder, source, arguments[0], offset, lane_type)
                vectors.append(builder.load(pointer, align=size))
            rows = _transpose(builder, lane_type, vectors)
            undefined = ir.Constant(vector_of(lane_type), ir.Undefined)
            if pieces == 2:
                chosen = ir.VectorType(word, piece.lanes)
                halves = [
                    ir.Constant(chosen, [lane + half * piece.lanes for lane in range(piece.lanes)]) for half in (0, 1)
                ]
                rows = [builder.shuffle_vector(row, undefined, half) for half in halves for row in rows]
            scalar = context.cast(builder, arguments[7], outside, lane_type.dtype)
            one = builder.insert_element(undefined, scalar, ir.Constant(word, 0))
            fill = builder.shuffle_vector(one, undefined, ir.Constant(ir.VectorType(word, piece.lanes), None))
            written = _inside(context, builder, piece.lanes, start, ir.Constant(ir.IntType(64), 0), arguments[6])
            for lane, row in enumerate(rows):
                offset, lower, upper = _row(context, builder, lane, (offsets, begins, ends), arguments[3:6])
                pointer = _pointer(context, builder, target, arguments[8], builder.add(offset, at), piece)
                if masked:
                    inside = _inside(context, builder, piece.lanes, start, lower, upper)
                    value = builder.select(inside, row, fill)
                    values = [value, pointer, ir.Constant(word, size), written]
                    _masked(builder, "store", piece, values, ir.VoidType())
                else:
                    builder.store(row, pointer, align=size)
            return context.get_dummy_value()

        return (
            types.none(source, types.intp, types.intp, offsets, begins, ends, types.intp, outside, target),
            emit,
        )

    return intrinsic(scatter)


gather, gather_whole, gather_half = _gather(1, True), _gather(1, False), _gather(2, False)
scatter, scatter_whole, scatter_half = _scatter(1, True), _scatter(1, False), _scatter(2, False)
