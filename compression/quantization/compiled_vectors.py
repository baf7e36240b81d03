"""Vectors of tokens, and memory by address, for compiled kernels: what numba has no words for."""

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llvmlite import ir
from numba import carray, cfunc, njit, types
from numba.core import cgutils
from numba.core.registry import cpu_target
from numba.extending import intrinsic

any_intrinsic: Any = intrinsic  # its type hides the arguments of what it makes

_CODE = f"{zlib.crc32(Path(__file__).read_bytes()):08x}"


def kernel(function: Callable[[Any], None]) -> Any:
    """Compile a function of one address, of int64, and keep the code.

    It is kept under the contents of this file, too: of what a function calls numba knows only what its own file has.
    """
    function.__qualname__ += f"_{_CODE}"
    return cfunc(types.void(types.CPointer(types.int64)), cache=True, error_model="numpy")(function)


LANES = 16
"""Tokens that are computed together."""

HAS_AVX512 = "+avx512f" in cpu_target.target_context.codegen().magic_tuple()[-1]
"""Whether code is made for AVX-512: a vector of tokens is one register, of which there are 32."""

F32, I8, I32, I64 = ir.FloatType(), ir.IntType(8), ir.IntType(32), ir.IntType(64)
VECTOR = ir.VectorType(F32, LANES)


def _pointer(kind: Any, number: Any) -> Any:
    """Make the intrinsic that turns an address into a pointer to numbers."""

    def typed(typing: Any, address: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.inttoptr(arguments[0], kind.as_pointer())

        return types.CPointer(number)(types.int64), generate

    return any_intrinsic(typed)


floats_at, integers_at, bytes_at = _pointer(F32, types.float32), _pointer(I32, types.int32), _pointer(I8, types.uint8)


def load_integer(builder: Any, address: Any, n_bytes: int) -> Any:
    """Write the instructions that load an unsigned integer of `n_bytes` bytes, from any address, as one of 8."""
    value = builder.load(builder.inttoptr(address, ir.IntType(8 * n_bytes).as_pointer()))
    value.align = 1
    return value if n_bytes == 8 else builder.zext(value, I64)


def _read(n_bytes: int) -> Any:
    """Make the intrinsic that reads an unsigned integer of `n_bytes` bytes at an address."""

    def typed(typing: Any, address: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return load_integer(builder, arguments[0], n_bytes)

        return types.int64(types.int64), generate

    return any_intrinsic(typed)


read_1, read_2, read_4 = _read(1), _read(2), _read(4)


@njit(error_model="numpy", inline="always")
def code_at(codes: int, high: int, width: int, high_bits: int, i: int) -> int:
    """Code number `i` of some that are stored as places CODES, HIGH, WIDTH and HIGH_BITS of the kernels say."""
    if high_bits:
        bit = i * high_bits
        above = (read_2(high + (bit >> 3)) >> (bit & 7)) & ((1 << high_bits) - 1)
        return read_1(codes + i) | above << 8
    if width == 1:
        return read_1(codes + i)
    if width == 2:
        return read_2(codes + 2 * i)
    return read_4(codes + 4 * i)


@any_intrinsic
def write_two(typing: Any, address: Any, value: Any) -> Any:
    """Write the lowest two bytes of an int64."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        address, value = arguments
        kind = ir.IntType(16)
        builder.store(builder.trunc(value, kind), builder.inttoptr(address, kind.as_pointer())).align = 2
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


@any_intrinsic
def take(typing: Any, address: Any) -> Any:
    """Add 1 to the int64 at an address, atomically, and return what it was."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = builder.inttoptr(arguments[0], I64.as_pointer())
        return builder.atomic_rmw("add", place, I64(1), "monotonic")

    return types.int64(types.int64), generate


@any_intrinsic
def copy_four(typing: Any, target: Any, source: Any) -> Any:
    """Copy four bytes."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        target, source = (builder.inttoptr(address, I32.as_pointer()) for address in arguments)
        value = builder.load(source)
        value.align = 1
        builder.store(value, target).align = 1
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


def load(builder: Any, address: Any) -> Any:
    """Write the instructions that load a vector."""
    value = builder.load(builder.inttoptr(address, VECTOR.as_pointer()))
    value.align = 4
    return value


def store(builder: Any, value: Any, address: Any) -> None:
    """Write the instructions that store a vector."""
    builder.store(value, builder.inttoptr(address, VECTOR.as_pointer())).align = 4


def broadcast(builder: Any, address: Any) -> Any:
    """Write the instructions that load a number into all places of a vector."""
    value = builder.load(builder.inttoptr(address, F32.as_pointer()))
    undefined = ir.Constant(VECTOR, ir.Undefined)
    every = ir.Constant(ir.VectorType(I32, LANES), [0] * LANES)
    return builder.shuffle_vector(builder.insert_element(undefined, value, I32(0)), undefined, every)


def multiply_add(builder: Any, one: Any, two: Any, total: Any) -> Any:
    """Write the instructions for ``one * two + total`` of vectors."""
    kind = ir.FunctionType(VECTOR, [VECTOR] * 3)
    function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.fmuladd.v{LANES}f32")
    return builder.call(function, [one, two, total])


@any_intrinsic
def turn(typing: Any, target: Any, target_step: Any, source: Any, source_step: Any) -> Any:
    """Transpose 16 x 16 numbers; steps are the bytes from one row to the next."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        target, target_step, source, source_step = arguments
        kind = ir.VectorType(I32, LANES)
        halves = [
            ir.Constant(kind, [place // 2 + LANES * (place % 2) for place in range(start, start + LANES)])
            for start in (0, LANES)
        ]
        rows = [load(builder, builder.add(source, builder.mul(source_step, I64(n)))) for n in range(LANES)]
        for _ in range(LANES.bit_length() - 1):  # a perfect shuffle of all numbers, which moves their index by a bit
            pairs = zip(rows[: LANES // 2], rows[LANES // 2 :], strict=True)
            rows = [builder.shuffle_vector(one, two, half) for one, two in pairs for half in halves]
        for n, row in enumerate(rows):
            store(builder, row, builder.add(target, builder.mul(target_step, I64(n))))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64, types.int64), generate


@njit(error_model="numpy")
def turn_in(target: int, step: int, source: int, n_in: int, count: int) -> None:
    """Put `count` tokens of `n_in` features each, feature by feature, `step` bytes apart; zeros for the other lanes."""
    whole = n_in // LANES * LANES if count == LANES else 0
    for i in range(0, whole, LANES):
        turn(target + i * step, step, source + 4 * i, 4 * n_in)
    x = carray(floats_at(source), count * n_in)
    for i in range(whole, n_in):
        lanes = carray(floats_at(target + i * step), LANES)
        for token in range(LANES):
            lanes[token] = x[token * n_in + i] if token < count else 0.0


@njit(error_model="numpy")
def turn_out(target: int, n_out: int, sums: int, n_rows: int, count: int) -> None:
    """Put the sums of `n_rows` rows, a vector each, into `count` tokens of `n_out` numbers each."""
    whole = n_rows // LANES * LANES if count == LANES else 0
    for row in range(0, whole, LANES):
        turn(target + 4 * row, 4 * n_out, sums + 4 * LANES * row, 4 * LANES)
    for row in range(whole, n_rows):
        lanes = carray(floats_at(sums + 4 * LANES * row), LANES)
        for token in range(count):
            carray(floats_at(target + 4 * (token * n_out + row)), 1)[0] = lanes[token]
