"""Rows of pairs to vectors of lanes and back: squares of numbers transposed in registers.

Element by element this would cost more than the recursion itself.
"""

import math
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
    """Swap lanes and vectors of a square of vectors, in log2(lanes) rounds of two-input shuffles."""
    lanes = lane_type.lanes
    word = ir.IntType(32)
    width = 1
    while width < lanes:
        pattern = [lane if lane & width == 0 else lane - width + lanes for lane in range(lanes)]
        even = ir.Constant(ir.VectorType(word, lanes), pattern)
        odd = ir.Constant(ir.VectorType(word, lanes), [index + width for index in pattern])
        turned = list(vectors)
        for number in range(lanes):
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


@intrinsic
def gather(typing: Any, source: Any, offsets: Any, begins: Any, ends: Any, column: Any, target: Any) -> Any:
    """Turn `lanes` columns of `lanes` rows of `source` into vectors in `target`.

    Row k starts at element offsets[k]; its columns outside [begins[k], ends[k]) are not read and
    come out as infinity. Column c lands at element c * lanes of `target`.
    """
    lane_type = lanes_of(source)
    lanes = lane_type.lanes

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        start = arguments[4]
        vectors = []
        for lane in range(lanes):
            at = ir.Constant(ir.IntType(64), lane)
            offset, lower, upper = (
                builder.load(element_pointer(context, builder, kind, array, at))
                for kind, array in zip((offsets, begins, ends), arguments[1:4], strict=True)
            )
            mask = _inside(context, builder, lanes, start, lower, upper)
            pointer = element_pointer(context, builder, source, arguments[0], builder.add(offset, start))
            pointer = builder.bitcast(pointer, vector_of(lane_type).as_pointer())
            alignment = ir.Constant(ir.IntType(32), element_bytes(lane_type))
            fill = constant_of(lane_type, math.inf)
            vectors.append(_masked(builder, "load", lane_type, [pointer, alignment, mask, fill], vector_of(lane_type)))
        first = builder.mul(start, ir.Constant(ir.IntType(64), lanes))
        for number, vector in enumerate(_transpose(builder, lane_type, vectors)):
            offset = builder.add(first, ir.Constant(ir.IntType(64), number * lanes))
            pointer = element_pointer(context, builder, target, arguments[5], offset)
            pointer = builder.bitcast(pointer, vector_of(lane_type).as_pointer())
            builder.store(vector, pointer, align=element_bytes(lane_type))
        return context.get_dummy_value()

    return types.none(source, offsets, begins, ends, types.intp, target), emit


@intrinsic
def scatter(
    typing: Any,
    source: Any,
    column: Any,
    offsets: Any,
    begins: Any,
    ends: Any,
    stop: Any,
    outside: Any,
    target: Any,
) -> Any:
    """The way back: columns of vectors in `source` become columns of rows of `target`.

    Columns of row k outside [begins[k], ends[k]) receive `outside`; columns from `stop` on are left.
    """
    lane_type = lanes_of(source)
    lanes = lane_type.lanes

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        start = arguments[1]
        first = builder.mul(start, ir.Constant(ir.IntType(64), lanes))
        vectors = []
        for number in range(lanes):
            offset = builder.add(first, ir.Constant(ir.IntType(64), number * lanes))
            pointer = element_pointer(context, builder, source, arguments[0], offset)
            pointer = builder.bitcast(pointer, vector_of(lane_type).as_pointer())
            vectors.append(builder.load(pointer, align=element_bytes(lane_type)))
        scalar = context.cast(builder, arguments[6], outside, lane_type.dtype)
        undefined = ir.Constant(vector_of(lane_type), ir.Undefined)
        one = builder.insert_element(undefined, scalar, ir.Constant(ir.IntType(32), 0))
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes)
        fill = builder.shuffle_vector(one, undefined, zeros)
        for lane, vector in enumerate(_transpose(builder, lane_type, vectors)):
            at = ir.Constant(ir.IntType(64), lane)
            offset, lower, upper = (
                builder.load(element_pointer(context, builder, kind, array, at))
                for kind, array in zip((offsets, begins, ends), arguments[2:5], strict=True)
            )
            inside = _inside(context, builder, lanes, start, lower, upper)
            zero = ir.Constant(ir.IntType(64), 0)
            written = _inside(context, builder, lanes, start, zero, arguments[5])
            pointer = element_pointer(context, builder, target, arguments[7], builder.add(offset, start))
            pointer = builder.bitcast(pointer, vector_of(lane_type).as_pointer())
            alignment = ir.Constant(ir.IntType(32), element_bytes(lane_type))
            value = builder.select(inside, vector, fill)
            _masked(builder, "store", lane_type, [value, pointer, alignment, written], ir.VoidType())
        return context.get_dummy_value()

    return (
        types.none(source, types.intp, offsets, begins, ends, types.intp, outside, target),
        emit,
    )
