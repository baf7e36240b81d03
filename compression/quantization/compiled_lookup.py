"""Compiled products of activations with a weight of codes: tables of partial products, and their sums by code.

For 16 tokens at a time, and four blocks of features, the products of all codewords with the tokens' features fill
tables (of 64 kB for 256 codewords); every row of the weight then adds four of their lines. That is K multiplications
for each feature in place of one for each row, and one addition for each block in place of d multiplications.
"""

from typing import Any

from llvmlite import ir
from numba import carray, types
from numba.core import cgutils

from compression.quantization.compiled_vectors import (
    HAS_AVX512,
    I64,
    LANES,
    VECTOR,
    any_intrinsic,
    broadcast,
    bytes_at,
    code_at,
    copy_four,
    floats_at,
    kernel,
    load,
    multiply_add,
    store,
    take,
    turn_in,
    turn_out,
    write_two,
)

BLOCKS = 4
"""Blocks of features whose tables are held together."""

# Lines of a table that are computed together: their sums stay in the registers, of which AVX-512 has 32.
_LINES = 16 if HAS_AVX512 else 4

# Places in the description, int64, that both kernels are given. X (tokens, features), CENTROIDS (K, D), BIAS (rows),
# OUT (tokens, rows) are addresses of float32; CODES (rows, blocks) of integers of WIDTH bytes, 1 or 2, or with HIGH as
# in `compression.quantization.packed_codes` if HIGH_BITS is not 0; TURNED of as many of WIDTH bytes. A table has LINES
# lines; SCRATCH is the address of SCRATCH_SIZE bytes for each thread. TICKET and THREAD count from 0: threads take
# tickets until there are none.
TICKET, THREAD, N_TICKETS, X, N_TOKENS, CENTROIDS, K, D, CODES, N_ROWS, N_BLOCKS, BIAS, OUT = range(13)
SCRATCH, SCRATCH_SIZE, TURNED, WIDTH, HIGH, HIGH_BITS, LINES, PLACES = range(13, 21)


def _table(n_lines: int) -> Any:
    """Make the intrinsic that computes `n_lines` consecutive lines of a table."""

    def typed(typing: Any, table: Any, centroids: Any, d: Any, features: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            table, centroids, d, features = arguments
            sums = [cgutils.alloca_once(builder, VECTOR) for _ in range(n_lines)]
            for place in sums:
                builder.store(ir.Constant(VECTOR, [0.0] * LANES), place)
            with cgutils.for_range(builder, d, intp=I64) as loop:
                x = load(builder, builder.add(features, builder.mul(loop.index, I64(4 * LANES))))
                for row, place in enumerate(sums):
                    entry = builder.add(builder.mul(I64(row), d), loop.index)
                    address = builder.add(centroids, builder.mul(entry, I64(4)))
                    total = multiply_add(builder, broadcast(builder, address), x, builder.load(place))
                    builder.store(total, place)
            for row, place in enumerate(sums):
                store(builder, builder.load(place), builder.add(table, I64(4 * LANES * row)))
            return context.get_dummy_value()

        return types.void(types.int64, types.int64, types.int64, types.int64), generate

    return any_intrinsic(typed)


_table_lines, _table_line = _table(_LINES), _table(1)


def _add(n_blocks: int, n_bytes: int) -> Any:
    """Make the intrinsic that adds the lines of `n_blocks` tables, chosen by as many codes, to a row of sums.

    Codes have `n_bytes` bytes; `size` is that of a table in bytes, which for codes of one byte is that of 256 lines.
    """

    def typed(typing: Any, sums: Any, tables: Any, codes: Any, size: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            sums, tables, codes, size = arguments
            word = builder.load(builder.inttoptr(codes, ir.IntType(8 * n_bytes * n_blocks).as_pointer()))
            word.align = 1
            word = builder.zext(word, I64) if n_bytes * n_blocks < 8 else word
            lines = []
            for number in range(n_blocks):
                code = builder.and_(builder.lshr(word, I64(8 * n_bytes * number)), I64((1 << 8 * n_bytes) - 1))
                start = I64(256 * 4 * LANES * number) if n_bytes == 1 else builder.mul(size, I64(number))
                offset = builder.add(builder.mul(code, I64(4 * LANES)), start)
                lines.append(load(builder, builder.add(tables, offset)))
            while len(lines) > 1:
                lines = [builder.fadd(one, two) for one, two in zip(lines[::2], lines[1::2], strict=True)]
            store(builder, builder.fadd(load(builder, sums), lines[0]), sums)
            return context.get_dummy_value()

        return types.void(types.int64, types.int64, types.int64, types.int64), generate

    return any_intrinsic(typed)


_add_blocks, _add_block = _add(BLOCKS, 1), _add(1, 1)
_add_wide_blocks, _add_wide_block = _add(BLOCKS, 2), _add(1, 2)


@kernel
def turn_wide_codes(description: Any) -> None:
    """As `turn_codes`, to codes of two bytes."""
    about = carray(description, PLACES)
    n_rows, n_blocks = about[N_ROWS], about[N_BLOCKS]
    whole = n_blocks // BLOCKS * BLOCKS
    while True:
        ticket = take(about.ctypes.data + 8 * TICKET)
        if ticket >= about[N_TICKETS]:
            return
        for row in range(n_rows * ticket // about[N_TICKETS], n_rows * (ticket + 1) // about[N_TICKETS]):
            for block in range(n_blocks):
                i = row * n_blocks + block
                code = code_at(about[CODES], about[HIGH], 2, about[HIGH_BITS], i)
                group = block // BLOCKS * BLOCKS
                place = group * n_rows + row * BLOCKS + block - group if block < whole else block * n_rows + row
                write_two(about[TURNED] + 2 * place, code)


@kernel
def turn_codes(description: Any) -> None:
    """Put the codes (rows, blocks) in the order (blocks / 4, rows, 4), the rest of the blocks one by one."""
    about = carray(description, PLACES)
    n_rows, n_blocks = about[N_ROWS], about[N_BLOCKS]
    codes = carray(bytes_at(about[CODES]), n_rows * n_blocks)
    turned = carray(bytes_at(about[TURNED]), n_rows * n_blocks)
    n_tickets = about[N_TICKETS]
    whole = n_blocks // BLOCKS * BLOCKS
    while True:
        ticket = take(about.ctypes.data + 8 * TICKET)
        if ticket >= n_tickets:
            return
        for block in range(n_blocks * ticket // n_tickets, n_blocks * (ticket + 1) // n_tickets):
            if block >= whole:
                for row in range(n_rows):
                    turned[block * n_rows + row] = codes[row * n_blocks + block]
            elif block % BLOCKS == 0:
                for row in range(n_rows):
                    copy_four(about[TURNED] + block * n_rows + row * BLOCKS, about[CODES] + row * n_blocks + block)


@kernel
def multiply(description: Any) -> None:
    """Compute 16 tokens a ticket: ``out = x @ centroids[codes].T + bias``."""
    about = carray(description, PLACES)
    n_tokens, n_rows, n_blocks = about[N_TOKENS], about[N_ROWS], about[N_BLOCKS]
    k, d = about[K], about[D]
    n_in, wide = n_blocks * d, about[WIDTH] == 2
    bias = carray(floats_at(about[BIAS]), n_rows)
    whole, k_whole = n_blocks // BLOCKS * BLOCKS, k // _LINES * _LINES
    line = 4 * LANES
    size = about[LINES] * line
    ticket = take(about.ctypes.data + 8 * TICKET)
    tables = about[SCRATCH] + take(about.ctypes.data + 8 * THREAD) * about[SCRATCH_SIZE]
    features = tables + BLOCKS * size
    sums = features + n_in * line
    totals = carray(floats_at(sums), n_rows * LANES)
    while ticket < about[N_TICKETS]:
        first = ticket * LANES
        count = min(LANES, n_tokens - first)
        turn_in(features, line, about[X] + 4 * first * n_in, n_in, count)
        for row in range(n_rows):
            for token in range(LANES):
                totals[row * LANES + token] = bias[row]
        for block in range(n_blocks):
            four = block < whole
            table = tables + (block % BLOCKS if four else 0) * size
            for c in range(0, k_whole, _LINES):
                _table_lines(table + c * line, about[CENTROIDS] + 4 * c * d, d, features + block * d * line)
            for c in range(k_whole, k):
                _table_line(table + c * line, about[CENTROIDS] + 4 * c * d, d, features + block * d * line)
            codes = about[TURNED] + about[WIDTH] * (block // BLOCKS * BLOCKS if four else block) * n_rows
            if four and block % BLOCKS < BLOCKS - 1:
                continue
            if four and wide:
                for row in range(n_rows):
                    _add_wide_blocks(sums + row * line, tables, codes + 2 * row * BLOCKS, size)
            elif four:
                for row in range(n_rows):
                    _add_blocks(sums + row * line, tables, codes + row * BLOCKS, size)
            elif wide:
                for row in range(n_rows):
                    _add_wide_block(sums + row * line, tables, codes + 2 * row, size)
            else:
                for row in range(n_rows):
                    _add_block(sums + row * line, tables, codes + row, size)
        turn_out(about[OUT] + 4 * first * n_rows, n_rows, sums, n_rows, count)
        ticket = take(about.ctypes.data + 8 * TICKET)


def scratch_bytes(n_in: int, n_rows: int, lines: int) -> int:
    """Return the bytes that `multiply` needs for each thread, a multiple of 64."""
    return 4 * LANES * (BLOCKS * lines + n_in + n_rows)
