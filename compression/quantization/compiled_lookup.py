"""Compiled products of activations with a weight of codes: tables of partial products, and their sums by code.

For 16 tokens at a time, and four blocks of features, the products of all codewords with the tokens' features fill
tables (of 64 kB for 256 codewords); every row of the weight then adds four of their lines. That is K multiplications
for each feature in place of one for each row, and one addition for each block in place of d multiplications.
"""

from typing import Any

from llvmlite import binding, ir
from numba import carray, cfunc, types
from numba.core import cgutils
from numba.extending import intrinsic

_intrinsic: Any = intrinsic  # its type hides the arguments of what it makes

LANES = 16
"""Tokens that are computed together."""

BLOCKS = 4
"""Blocks of features whose tables are held together."""

# Lines of a table that are computed together: their sums stay in the registers, of which AVX-512 has 32.
_LINES = 16 if binding.get_host_cpu_features().get("avx512f") else 4

# Places in the description, int64, that both kernels are given. X (tokens, features), CENTROIDS (K, D), BIAS (rows),
# OUT (tokens, rows) are addresses of float32; CODES (rows, blocks) of integers of WIDTH bytes, 1 or 2, or with HIGH as
# in `compression.quantization.packed_codes` if HIGH_BITS is not 0; TURNED of as many of WIDTH bytes. A table has LINES
# lines; SCRATCH is the address of SCRATCH_SIZE bytes for each thread. TICKET and THREAD count from 0: threads take
# tickets until there are none.
TICKET, THREAD, N_TICKETS, X, N_TOKENS, CENTROIDS, K, D, CODES, N_ROWS, N_BLOCKS, BIAS, OUT = range(13)
SCRATCH, SCRATCH_SIZE, TURNED, WIDTH, HIGH, HIGH_BITS, LINES, PLACES = range(13, 21)

_F32, _I8, _I32, _I64 = ir.FloatType(), ir.IntType(8), ir.IntType(32), ir.IntType(64)
_VECTOR = ir.VectorType(_F32, LANES)


@_intrinsic
def _floats(typing: Any, address: Any) -> Any:
    """Pointer to float32 at an address."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], _F32.as_pointer())

    return types.CPointer(types.float32)(types.int64), generate


@_intrinsic
def _bytes(typing: Any, address: Any) -> Any:
    """Pointer to uint8 at an address."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], _I8.as_pointer())

    return types.CPointer(types.uint8)(types.int64), generate


def _read(n_bytes: int) -> Any:
    """Make the intrinsic that reads an unsigned integer of `n_bytes` bytes at an address."""

    def typed(typing: Any, address: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            value = builder.load(builder.inttoptr(arguments[0], ir.IntType(8 * n_bytes).as_pointer()))
            value.align = 1
            return builder.zext(value, _I64)

        return types.int64(types.int64), generate

    return _intrinsic(typed)


_read_1, _read_2, _read_4 = _read(1), _read(2), _read(4)


@_intrinsic
def _write_two(typing: Any, address: Any, value: Any) -> Any:
    """Write the lowest two bytes of an int64."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        address, value = arguments
        kind = ir.IntType(16)
        builder.store(builder.trunc(value, kind), builder.inttoptr(address, kind.as_pointer())).align = 2
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


@_intrinsic
def _take(typing: Any, address: Any) -> Any:
    """Add 1 to the int64 at an address, atomically, and return what it was."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = builder.inttoptr(arguments[0], _I64.as_pointer())
        return builder.atomic_rmw("add", place, _I64(1), "monotonic")

    return types.int64(types.int64), generate


@_intrinsic
def _copy_four(typing: Any, target: Any, source: Any) -> Any:
    """Copy four bytes."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        target, source = (builder.inttoptr(address, _I32.as_pointer()) for address in arguments)
        value = builder.load(source)
        value.align = 1
        builder.store(value, target).align = 1
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


def _load(builder: Any, address: Any) -> Any:
    value = builder.load(builder.inttoptr(address, _VECTOR.as_pointer()))
    value.align = 4
    return value


def _store(builder: Any, value: Any, address: Any) -> None:
    builder.store(value, builder.inttoptr(address, _VECTOR.as_pointer())).align = 4


@_intrinsic
def _turn(typing: Any, target: Any, target_step: Any, source: Any, source_step: Any) -> Any:
    """Transpose 16 x 16 numbers; steps are the bytes from one row to the next."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        target, target_step, source, source_step = arguments
        kind = ir.VectorType(_I32, LANES)
        halves = [
            ir.Constant(kind, [place // 2 + LANES * (place % 2) for place in range(start, start + LANES)])
            for start in (0, LANES)
        ]
        rows = [_load(builder, builder.add(source, builder.mul(source_step, _I64(n)))) for n in range(LANES)]
        for _ in range(LANES.bit_length() - 1):  # a perfect shuffle of all numbers, which moves their index by a bit
            pairs = zip(rows[: LANES // 2], rows[LANES // 2 :], strict=True)
            rows = [builder.shuffle_vector(one, two, half) for one, two in pairs for half in halves]
        for n, row in enumerate(rows):
            _store(builder, row, builder.add(target, builder.mul(target_step, _I64(n))))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64, types.int64), generate


def _table(n_lines: int) -> Any:
    """Make the intrinsic that computes `n_lines` consecutive lines of a table."""

    def typed(typing: Any, table: Any, centroids: Any, d: Any, features: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            table, centroids, d, features = arguments
            name = f"llvm.fmuladd.v{LANES}f32"
            multiply_add = cgutils.get_or_insert_function(builder.module, ir.FunctionType(_VECTOR, [_VECTOR] * 3), name)
            sums = [cgutils.alloca_once(builder, _VECTOR) for _ in range(n_lines)]
            for place in sums:
                builder.store(ir.Constant(_VECTOR, [0.0] * LANES), place)
            undefined = ir.Constant(_VECTOR, ir.Undefined)
            every = ir.Constant(ir.VectorType(_I32, LANES), [0] * LANES)
            with cgutils.for_range(builder, d, intp=_I64) as loop:
                x = _load(builder, builder.add(features, builder.mul(loop.index, _I64(4 * LANES))))
                for row, place in enumerate(sums):
                    entry = builder.add(builder.mul(_I64(row), d), loop.index)
                    address = builder.add(centroids, builder.mul(entry, _I64(4)))
                    value = builder.load(builder.inttoptr(address, _F32.as_pointer()))
                    value = builder.insert_element(undefined, value, _I32(0))
                    value = builder.shuffle_vector(value, undefined, every)
                    builder.store(builder.call(multiply_add, [value, x, builder.load(place)]), place)
            for row, place in enumerate(sums):
                _store(builder, builder.load(place), builder.add(table, _I64(4 * LANES * row)))
            return context.get_dummy_value()

        return types.void(types.int64, types.int64, types.int64, types.int64), generate

    return _intrinsic(typed)


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
            word = builder.zext(word, _I64) if n_bytes * n_blocks < 8 else word
            lines = []
            for number in range(n_blocks):
                code = builder.and_(builder.lshr(word, _I64(8 * n_bytes * number)), _I64((1 << 8 * n_bytes) - 1))
                start = _I64(256 * 4 * LANES * number) if n_bytes == 1 else builder.mul(size, _I64(number))
                offset = builder.add(builder.mul(code, _I64(4 * LANES)), start)
                lines.append(_load(builder, builder.add(tables, offset)))
            while len(lines) > 1:
                lines = [builder.fadd(one, two) for one, two in zip(lines[::2], lines[1::2], strict=True)]
            _store(builder, builder.fadd(_load(builder, sums), lines[0]), sums)
            return context.get_dummy_value()

        return types.void(types.int64, types.int64, types.int64, types.int64), generate

    return _intrinsic(typed)


_add_blocks, _add_block = _add(BLOCKS, 1), _add(1, 1)
_add_wide_blocks, _add_wide_block = _add(BLOCKS, 2), _add(1, 2)


@cfunc(types.void(types.CPointer(types.int64)), cache=True, error_model="numpy")
def turn_wide_codes(description: Any) -> None:
    """As `turn_codes`, to codes of two bytes."""
    about = carray(description, PLACES)
    n_rows, n_blocks, high_bits = about[N_ROWS], about[N_BLOCKS], about[HIGH_BITS]
    whole, mask = n_blocks // BLOCKS * BLOCKS, (1 << high_bits) - 1
    while True:
        ticket = _take(about.ctypes.data + 8 * TICKET)
        if ticket >= about[N_TICKETS]:
            return
        for row in range(n_rows * ticket // about[N_TICKETS], n_rows * (ticket + 1) // about[N_TICKETS]):
            for block in range(n_blocks):
                i = row * n_blocks + block
                if high_bits:
                    bit = i * high_bits
                    above = (_read_2(about[HIGH] + (bit >> 3)) >> (bit & 7)) & mask
                    code = _read_1(about[CODES] + i) | above << 8
                else:
                    code = _read_2(about[CODES] + 2 * i)
                group = block // BLOCKS * BLOCKS
                place = group * n_rows + row * BLOCKS + block - group if block < whole else block * n_rows + row
                _write_two(about[TURNED] + 2 * place, code)


@cfunc(types.void(types.CPointer(types.int64)), cache=True, error_model="numpy")
def turn_codes(description: Any) -> None:
    """Put the codes (rows, blocks) in the order (blocks / 4, rows, 4), the rest of the blocks one by one."""
    about = carray(description, PLACES)
    n_rows, n_blocks = about[N_ROWS], about[N_BLOCKS]
    codes = carray(_bytes(about[CODES]), n_rows * n_blocks)
    turned = carray(_bytes(about[TURNED]), n_rows * n_blocks)
    n_tickets = about[N_TICKETS]
    whole = n_blocks // BLOCKS * BLOCKS
    while True:
        ticket = _take(about.ctypes.data + 8 * TICKET)
        if ticket >= n_tickets:
            return
        for block in range(n_blocks * ticket // n_tickets, n_blocks * (ticket + 1) // n_tickets):
            if block >= whole:
                for row in range(n_rows):
                    turned[block * n_rows + row] = codes[row * n_blocks + block]
            elif block % BLOCKS == 0:
                for row in range(n_rows):
                    _copy_four(about[TURNED] + block * n_rows + row * BLOCKS, about[CODES] + row * n_blocks + block)


@cfunc(types.void(types.CPointer(types.int64)), cache=True, error_model="numpy")
def multiply(description: Any) -> None:
    """Compute 16 tokens a ticket: ``out = x @ centroids[codes].T + bias``."""
    about = carray(description, PLACES)
    n_tokens, n_rows, n_blocks = about[N_TOKENS], about[N_ROWS], about[N_BLOCKS]
    k, d = about[K], about[D]
    n_in, wide = n_blocks * d, about[WIDTH] == 2
    x = carray(_floats(about[X]), n_tokens * n_in)
    bias = carray(_floats(about[BIAS]), n_rows)
    out = carray(_floats(about[OUT]), n_tokens * n_rows)
    whole, k_whole = n_blocks // BLOCKS * BLOCKS, k // _LINES * _LINES
    line = 4 * LANES
    size = about[LINES] * line
    ticket = _take(about.ctypes.data + 8 * TICKET)
    tables = about[SCRATCH] + _take(about.ctypes.data + 8 * THREAD) * about[SCRATCH_SIZE]
    features = tables + BLOCKS * size
    sums = features + n_in * line
    turned_x = carray(_floats(features), n_in * LANES)
    totals = carray(_floats(sums), n_rows * LANES)
    while ticket < about[N_TICKETS]:
        first = ticket * LANES
        count = min(LANES, n_tokens - first)
        in_whole = n_in // LANES * LANES if count == LANES else 0
        for i in range(0, in_whole, LANES):
            _turn(features + i * line, line, about[X] + 4 * (first * n_in + i), 4 * n_in)
        for i in range(in_whole, n_in):
            for token in range(count):
                turned_x[i * LANES + token] = x[(first + token) * n_in + i]
            for token in range(count, LANES):
                turned_x[i * LANES + token] = 0.0
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
        out_whole = n_rows // LANES * LANES if count == LANES else 0
        for row in range(0, out_whole, LANES):
            _turn(about[OUT] + 4 * (first * n_rows + row), 4 * n_rows, sums + row * line, line)
        for row in range(out_whole, n_rows):
            for token in range(count):
                out[(first + token) * n_rows + row] = totals[row * LANES + token]
        ticket = _take(about.ctypes.data + 8 * TICKET)


def scratch_bytes(n_in: int, n_rows: int, lines: int) -> int:
    """Return the bytes that `multiply` needs for each thread, a multiple of 64."""
    return 4 * LANES * (BLOCKS * lines + n_in + n_rows)
