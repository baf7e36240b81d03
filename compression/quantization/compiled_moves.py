"""Compiled decoding in several threads: codes of any width, codewords moved in one or a few vectors each.

A codeword of floats is moved in whole vectors, which reach into the places of the next ones and are overwritten by
them; at the end of a thread's share, where what follows belongs to another thread, it is moved number by number.
"""

from typing import Any

from llvmlite import ir
from numba import carray, types

from compression.quantization.compiled_vectors import (
    I32,
    any_intrinsic,
    bytes_at,
    code_at,
    integers_at,
    kernel,
    read_1,
    read_4,
    take,
)

# Places in the description, int64, of which each kernel uses some. CODES is the address of codes of WIDTH bytes (1, 2
# or 4), or of the low bytes with HIGH as in `compression.quantization.packed_codes` if HIGH_BITS is not 0. TABLE is the
# address of codewords of STRIDE numbers of 4 bytes, of which D count; N_CODES are decoded to OUT. Those of
# `decode_bytes` have D bytes and the sums BY_CODE, int32; it decodes N_ROWS rows of N_BLOCKS codes, and writes the SUMS
# of the rows.
TICKET, N_TICKETS, CODES, HIGH, WIDTH, HIGH_BITS, N_CODES, TABLE, STRIDE, D, OUT = range(11)
N_ROWS, N_BLOCKS, BY_CODE, SUMS, PLACES = range(11, 16)


def stride(d: int) -> int:
    """Return the floats that a codeword of `d` takes in the table: whole vectors, of 4, 8 or 16 floats."""
    return next((size for size in (4, 8, 16) if d <= size), -(-d // 16) * 16)


def _move(n: int) -> Any:
    """Make the intrinsic that copies a vector of `n` numbers of 4 bytes."""

    def typed(typing: Any, target: Any, source: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            kind = ir.VectorType(I32, n).as_pointer()
            target, source = (builder.inttoptr(address, kind) for address in arguments)
            value = builder.load(source)
            value.align = 1  # codewords of bytes start anywhere
            builder.store(value, target).align = 1
            return context.get_dummy_value()

        return types.void(types.int64, types.int64), generate

    return any_intrinsic(typed)


_move_1, _move_2, _move_4, _move_8, _move_16 = (_move(n) for n in (1, 2, 4, 8, 16))


@kernel
def decode_codes(description: Any) -> None:
    """Write the codeword of each code, a share of them for each ticket."""
    about = carray(description, PLACES)
    n_codes, n_tickets = about[N_CODES], about[N_TICKETS]
    codes, high, width, high_bits = about[CODES], about[HIGH], about[WIDTH], about[HIGH_BITS]
    table, size, step = about[TABLE], 4 * about[D], 4 * about[STRIDE]
    while True:
        ticket = take(about.ctypes.data + 8 * TICKET)
        if ticket >= n_tickets:
            return
        last = n_codes * (ticket + 1) // n_tickets
        end = about[OUT] + last * size
        for i in range(n_codes * ticket // n_tickets, last):
            code = code_at(codes, high, width, high_bits, i)
            source, target = table + code * step, about[OUT] + i * size
            if target + step > end:
                for j in range(0, size, 4):
                    _move_1(target + j, source + j)
            elif step == 16:
                _move_4(target, source)
            elif step == 32:
                _move_8(target, source)
            else:
                for j in range(0, step, 64):
                    _move_16(target + j, source + j)


@kernel
def decode_bytes(description: Any) -> None:
    """Write the codeword of D bytes of each code, and the sum of each row; a share of the rows for each ticket."""
    about = carray(description, PLACES)
    n_rows, n_blocks, n_tickets = about[N_ROWS], about[N_BLOCKS], about[N_TICKETS]
    codes, high, width, high_bits = about[CODES], about[HIGH], about[WIDTH], about[HIGH_BITS]
    table, d = about[TABLE], about[D]
    words = d // 4 * 4
    while True:
        ticket = take(about.ctypes.data + 8 * TICKET)
        if ticket >= n_tickets:
            return
        for row in range(n_rows * ticket // n_tickets, n_rows * (ticket + 1) // n_tickets):
            total = 0
            for i in range(row * n_blocks, (row + 1) * n_blocks):
                code = code_at(codes, high, width, high_bits, i)
                total += read_4(about[BY_CODE] + 4 * code)
                source, target = table + code * d, about[OUT] + i * d
                if d == 8:
                    _move_2(target, source)
                elif d == 4:
                    _move_1(target, source)
                else:
                    for j in range(0, words, 4):
                        _move_1(target + j, source + j)
                    for j in range(words, d):
                        carray(bytes_at(target + j), 1)[0] = read_1(source + j)
            carray(integers_at(about[SUMS] + 4 * row), 1)[0] = total
