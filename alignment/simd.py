"""SIMD vectors as numba values: one vector holds one number of each of 16 (float32) or 8 (float64) pairs.

numba's own loops over lanes depend on LLVM proving that no two arrays overlap, which it cannot.
These few operations emit vector instructions directly; LLVM splits them for narrower processors.
A vector's element type follows the array it was loaded from, so one kernel source serves both dtypes.
"""

import functools
import hashlib
import importlib
import math
import pathlib
from collections.abc import Callable
from typing import Any, TypeVar

# numba and llvmlite ship no type information; Any keeps strict checking for everything else.
ir: Any = importlib.import_module("llvmlite.ir")
types: Any = importlib.import_module("numba.core.types")
cgutils: Any = importlib.import_module("numba.core.cgutils")
extending: Any = importlib.import_module("numba.extending")
numba: Any = importlib.import_module("numba")

Function = TypeVar("Function", bound=Callable[..., Any])

LANES = {"float32": 16, "float64": 8}

# Terms this many powers of two below the largest predecessor count as zero: far below a rounding
# error of the sum, and it keeps products out of the denormal range, which is 10 times slower.
NEGLIGIBLE = {"float32": 60, "float64": 400}
FLUSH = {"float32": 1e-18, "float64": 1e-150}

# Exponents are integers. A cell that no path reaches has this one; it survives any sum of costs.
UNREACHABLE = {"float32": -(2**29), "float64": -(2**60)}
# Larger exponents are not trusted: float32 pairs are redone in float64, float64 pairs refused.
PEAK = {"float32": 2**28, "float64": 2**59}


def jit(function: Function) -> Function:
    """Compile at first use, release the GIL, keep the machine code on disk."""
    compiled: Any = numba.njit(function, nogil=True, cache=True, error_model="numpy")
    # numba recompiles when the kernel's own file changes, but not for the files it calls into.
    compiled._cache._cache_file._source_stamp = _sources()
    kernel: Function = compiled
    return kernel


@functools.cache
def _sources() -> str:
    """A digest of every source file whose code a kernel contains."""
    folder = pathlib.Path(__file__).parent
    digest = hashlib.sha256()
    for name in ("simd.py", "transpose.py", "rows.py", "lanes.py", "lane_kernel.py", "grid_kernel.py"):
        digest.update((folder / name).read_bytes())
    return digest.hexdigest()


def inner(function: Function) -> Function:
    """Compile as part of the kernels that call it."""
    compiled: Function = numba.njit(function, nogil=True, error_model="numpy", forceinline=True)
    return compiled


def intrinsic(function: Callable[..., Any]) -> Callable[..., Any]:
    """Register a function that writes its own LLVM instructions; kernels call it without `typing`."""
    registered: Callable[..., Any] = extending.intrinsic(function)
    return registered


class LaneType(types.Type):  # type: ignore[misc]  # numba has no type information
    """The numba type of a vector: `dtype` is float32, float64, or the integer of the same width."""

    def __init__(self, dtype: Any, lanes: int) -> None:
        self.dtype = dtype
        self.lanes = lanes
        super().__init__(name=f"lanes({dtype}, {lanes})")


class LaneModel(extending.models.PrimitiveModel):  # type: ignore[misc]  # numba has no type information
    """A vector lives in registers as one LLVM vector."""

    def __init__(self, manager: Any, lane_type: LaneType) -> None:
        super().__init__(manager, lane_type, vector_of(lane_type))


extending.register_model(LaneType)(LaneModel)

_ELEMENTS = {
    "float32": ir.FloatType(),
    "float64": ir.DoubleType(),
    "int32": ir.IntType(32),
    "int64": ir.IntType(64),
}


def vector_of(lane_type: LaneType) -> Any:
    return ir.VectorType(_ELEMENTS[lane_type.dtype.name], lane_type.lanes)


def _integers(lane_type: LaneType) -> LaneType:
    return LaneType(types.int32 if lane_type.dtype.name == "float32" else types.int64, lane_type.lanes)


def constant_of(lane_type: LaneType, value: float) -> Any:
    return ir.Constant(vector_of(lane_type), [value] * lane_type.lanes)


def _fraction_bits(lane_type: LaneType) -> int:
    return 23 if lane_type.dtype.name == "float32" else 52


def _bias(lane_type: LaneType) -> int:
    return 127 if lane_type.dtype.name == "float32" else 1023


def _call(builder: Any, name: str, *arguments: Any) -> Any:
    """Call the LLVM intrinsic `name` on vectors of one type."""
    kind = arguments[0].type
    element = "f32" if isinstance(kind.element, ir.FloatType) else "f64"
    signature = ir.FunctionType(kind, [kind] * len(arguments))
    declared = cgutils.get_or_insert_function(builder.module, signature, f"llvm.{name}.v{kind.count}{element}")
    return builder.call(declared, arguments)


def element_pointer(context: Any, builder: Any, array_type: Any, array: Any, offset: Any) -> Any:
    struct = context.make_array(array_type)(context, builder, array)
    return builder.gep(struct.data, [offset])


def element_bytes(lane_type: LaneType) -> int:
    """Element alignment: callers align what matters, an arbitrary row must merely be correct."""
    return 4 if lane_type.dtype.name in ("float32", "int32") else 8


def lanes_of(array: Any) -> LaneType:
    floats = "float32" if array.dtype.name in ("float32", "int32") else "float64"
    return LaneType(array.dtype, LANES[floats])


@intrinsic
def load(typing: Any, array: Any, offset: Any) -> Any:
    """The vector that starts at element `offset` of a contiguous array."""
    lane_type = lanes_of(array)

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = element_pointer(context, builder, array, arguments[0], arguments[1])
        pointer = builder.bitcast(pointer, vector_of(lane_type).as_pointer())
        return builder.load(pointer, align=element_bytes(lane_type))

    return lane_type(array, types.intp), emit


@intrinsic
def store(typing: Any, array: Any, offset: Any, value: Any) -> Any:
    """Write a vector from element `offset` on."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = element_pointer(context, builder, array, arguments[0], arguments[1])
        pointer = builder.bitcast(pointer, vector_of(value).as_pointer())
        builder.store(arguments[2], pointer, align=element_bytes(value))
        return context.get_dummy_value()

    return types.none(array, types.intp, value), emit


@intrinsic
def splat(typing: Any, like: Any, number: Any) -> Any:
    """`number` in every lane, with the element type of the array or vector `like`."""
    lane_type = like if isinstance(like, LaneType) else lanes_of(like)

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        scalar = context.cast(builder, arguments[1], number, lane_type.dtype)
        one = builder.insert_element(
            ir.Constant(vector_of(lane_type), ir.Undefined), scalar, ir.Constant(ir.IntType(32), 0)
        )
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), lane_type.lanes), [0] * lane_type.lanes)
        return builder.shuffle_vector(one, ir.Constant(vector_of(lane_type), ir.Undefined), zeros)

    return lane_type(like, number), emit


def _binary(float_operation: str, integer_operation: str) -> Callable[..., Any]:
    def typed(typing: Any, first: Any, second: Any) -> Any:
        def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            name = float_operation if first.dtype.name.startswith("float") else integer_operation
            return getattr(builder, name)(arguments[0], arguments[1])

        return first(first, second), emit

    return intrinsic(typed)


add = _binary("fadd", "add")
subtract = _binary("fsub", "sub")
multiply = _binary("fmul", "mul")
divide = _binary("fdiv", "sdiv")


def _extreme(order: str) -> Callable[..., Any]:
    def typed(typing: Any, first: Any, second: Any) -> Any:
        def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            one, other = arguments
            if first.dtype.name.startswith("float"):
                keep = builder.fcmp_ordered(order, one, other)
            else:
                keep = builder.icmp_signed(order, one, other)
            return builder.select(keep, one, other)

        return first(first, second), emit

    return intrinsic(typed)


larger = _extreme(">")
smaller = _extreme("<")


@intrinsic
def multiply_add(typing: Any, first: Any, second: Any, third: Any) -> Any:
    """first * second + third, rounded once where the processor can."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _call(builder, "fmuladd", *arguments)

    return first(first, second, third), emit


@intrinsic
def nearest(typing: Any, value: Any) -> Any:
    """Each lane rounded to the nearest whole number, as a float."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _call(builder, "rint", arguments[0])

    return value(value), emit


@intrinsic
def to_integers(typing: Any, value: Any) -> Any:
    """Each lane, a whole number already, as an integer of the same width."""
    integers = _integers(value)

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fptosi(arguments[0], vector_of(integers))

    return integers(value), emit


@intrinsic
def to_floats(typing: Any, value: Any) -> Any:
    """Each integer lane as a float of the same width."""
    floats = LaneType(types.float32 if value.dtype.name == "int32" else types.float64, value.lanes)

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.sitofp(arguments[0], vector_of(floats))

    return floats(value), emit


@intrinsic
def scale(typing: Any, mantissa: Any, shift: Any) -> Any:
    """mantissa * 2**shift for shift <= 0 and mantissa in [1, 2); 0 where the shift is negligible.

    Adding to the exponent bits takes four one-cycle instructions where a multiplication waits longer.
    """

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value, power = arguments
        bits = builder.bitcast(value, vector_of(shift))
        moved = builder.shl(power, constant_of(shift, _fraction_bits(mantissa)))
        moved = builder.bitcast(builder.add(bits, moved), vector_of(mantissa))
        lowest = constant_of(shift, -NEGLIGIBLE[mantissa.dtype.name])
        counts = builder.icmp_signed(">", power, lowest)
        return builder.select(counts, moved, constant_of(mantissa, 0.0))

    return mantissa(mantissa, shift), emit


@intrinsic
def exponent(typing: Any, value: Any) -> Any:
    """floor(log2(value)) of positive normal numbers, as integers."""
    integers = _integers(value)

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        bits = builder.bitcast(arguments[0], vector_of(integers))
        shifted = builder.lshr(bits, constant_of(integers, _fraction_bits(value)))
        return builder.sub(shifted, constant_of(integers, _bias(value)))

    return integers(value), emit


@intrinsic
def mantissa(typing: Any, value: Any) -> Any:
    """value / 2**exponent(value), in [1, 2), of positive normal numbers."""
    integers = _integers(value)

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        bits = builder.bitcast(arguments[0], vector_of(integers))
        fraction = 2 ** _fraction_bits(value) - 1
        bits = builder.and_(bits, constant_of(integers, fraction))
        one = _bias(value) << _fraction_bits(value)
        return builder.bitcast(builder.or_(bits, constant_of(integers, one)), vector_of(value))

    return value(value), emit


def _polynomial(builder: Any, lane_type: LaneType, variable: Any, coefficients: list[float]) -> Any:
    """Horner's rule, highest power first."""
    result = constant_of(lane_type, coefficients[0])
    for coefficient in coefficients[1:]:
        result = _call(builder, "fmuladd", result, variable, constant_of(lane_type, coefficient))
    return result


@intrinsic
def exp_small(typing: Any, value: Any) -> Any:
    """exp of numbers in [-.51, .51], to the last place or the one before it."""
    degree = 7 if value.dtype.name == "float32" else 14
    coefficients = [1.0 / math.factorial(power) for power in range(degree, -1, -1)]

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _polynomial(builder, value, arguments[0], coefficients)

    return value(value), emit


@intrinsic
def log2_mantissa(typing: Any, value: Any) -> Any:
    """log2 of numbers in [1, 2), by the series of atanh around the square root of 2."""
    terms = 6 if value.dtype.name == "float32" else 12
    odd = [2.0 / (math.log(2.0) * power) for power in range(2 * terms - 1, 0, -2)]

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        centre = constant_of(value, math.sqrt(2.0))
        ratio = builder.fdiv(builder.fsub(arguments[0], centre), builder.fadd(arguments[0], centre))
        series = _polynomial(builder, value, builder.fmul(ratio, ratio), odd)
        return _call(builder, "fmuladd", series, ratio, constant_of(value, 0.5))

    return value(value), emit


@intrinsic
def flush(typing: Any, value: Any) -> Any:
    """Zero instead of numbers so small that their products would be denormal."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        limit = constant_of(value, FLUSH[value.dtype.name])
        counts = builder.fcmp_ordered(">", arguments[0], limit)
        return builder.select(counts, arguments[0], constant_of(value, 0.0))

    return value(value), emit


@intrinsic
def infinite_unless_reached(typing: Any, value: Any, power: Any) -> Any:
    """`value`, or infinity in lanes whose exponent says that no path leads there."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        limit = constant_of(power, UNREACHABLE[value.dtype.name] // 2)
        reached = builder.icmp_signed(">", arguments[1], limit)
        return builder.select(reached, arguments[0], constant_of(value, math.inf))

    return value(value, power), emit


@intrinsic
def mark_invalid(typing: Any, marks: Any, value: Any) -> Any:
    """`marks` with all bits set in lanes where `value` is NaN or minus infinity."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        invalid = builder.fcmp_unordered("<=", arguments[1], constant_of(value, -math.inf))
        return builder.or_(arguments[0], builder.sext(invalid, vector_of(marks)))

    return marks(marks, value), emit
