"""Compiled product of activations with a weight of codes, whose codewords are read where they are.

It is a matrix product of six rows of the weight with 16 tokens at a time, or up to 64 with AVX-512, their sums in the
registers. The numbers of a row are broadcast from its codewords, which the caches hold: the weight is never made.
"""

from typing import Any

from numba import carray, njit, types
from numba.core import cgutils

from compression.quantization.compiled_vectors import (
    HAS_AVX512,
    I64,
    LANES,
    VECTOR,
    any_intrinsic,
    broadcast,
    kernel,
    load,
    load_integer,
    multiply_add,
    store,
    take,
    turn_in,
    turn_out,
)

ROWS = 6
"""Rows of the weight that are computed together."""

VECTORS = 4 if HAS_AVX512 else 1
"""Most vectors of tokens that are computed together: with `ROWS` they fill the registers."""

PANEL = 4 if HAS_AVX512 else 8
"""Most vectors of tokens of a ticket; if they take several steps, the first keeps the addresses for the others."""

CHUNK = 48
"""Rows whose sums are put into the output together, a multiple of `ROWS` and `LANES`."""

# Places in the description, int64. X (tokens, features), CENTROIDS (K, D), BIAS (rows) and OUT (tokens, rows) are
# addresses of float32; CODES (rows, blocks) of integers of WIDTH bytes, 1, 2 or 4, or with HIGH as in
# `compression.quantization.packed_codes` if HIGH_BITS is not 0. PANELS is into how many panels the tokens are cut, each
# of UNITS vectors, PARTS into how many parts the rows: a ticket is one part for one panel. SCRATCH is the address of
# SCRATCH_SIZE bytes for each thread. TICKET and THREAD count from 0: threads take tickets until there are none.
TICKET, THREAD, X, N_TOKENS, CENTROIDS, D, CODES, N_ROWS, N_BLOCKS, BIAS, OUT = range(11)
SCRATCH, SCRATCH_SIZE, WIDTH, HIGH, HIGH_BITS, UNITS, PANELS, PARTS, PLACES = range(11, 20)


def _product(n_vectors: int, *, found: bool = False) -> Any:
    """Make the intrinsic that multiplies `ROWS` rows, from `first` on, with vectors of tokens.

    It keeps the addresses of their codewords in `words` if they may be needed again, or takes them from there if they
    were `found` before.
    """

    def typed(typing: Any, about: Any, sums: Any, x: Any, words: Any, first: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            about, sums, x, words, first = arguments

            def given(place: int) -> Any:
                return load_integer(builder, builder.add(about, I64(8 * place)), 8)

            n_blocks, d, centroids, codes, high = map(given, (N_BLOCKS, D, CENTROIDS, CODES, HIGH))
            width, bits, bias = map(given, (WIDTH, HIGH_BITS, BIAS))
            mask = builder.sub(builder.shl(I64(1), bits), I64(1))
            is_packed = builder.icmp_signed("!=", bits, I64(0))
            last = builder.sub(given(N_ROWS), I64(1))
            d_bytes, line = builder.mul(d, I64(4)), 4 * LANES * n_vectors
            totals = [[cgutils.alloca_once(builder, VECTOR) for _ in range(n_vectors)] for _ in range(ROWS)]
            places = [cgutils.alloca_once(builder, I64) for _ in range(ROWS)]
            rows = []  # beyond the last row, it is computed again
            for number, of_row in enumerate(totals):
                row = builder.add(first, I64(number))
                row = builder.select(builder.icmp_signed("<", row, last), row, last)
                rows.append(builder.mul(row, n_blocks))
                start = broadcast(builder, builder.add(bias, builder.mul(row, I64(4))))
                for total in of_row:
                    builder.store(start, total)

            def find(block: Any) -> list[Any]:
                numbers = [builder.add(row, block) for row in rows]

                def keep(code: Any, place: Any) -> None:
                    builder.store(builder.add(centroids, builder.mul(code, d_bytes)), place)

                def keep_plain(n_bytes: int) -> None:
                    for number, place in zip(numbers, places, strict=True):
                        address = builder.add(codes, builder.mul(number, I64(n_bytes)))
                        keep(load_integer(builder, address, n_bytes), place)

                with builder.if_else(is_packed) as (packed, plain):
                    with packed:
                        for number, place in zip(numbers, places, strict=True):
                            bit = builder.mul(number, bits)
                            above = load_integer(builder, builder.add(high, builder.lshr(bit, I64(3))), 2)
                            above = builder.and_(builder.lshr(above, builder.and_(bit, I64(7))), mask)
                            low = load_integer(builder, builder.add(codes, number), 1)
                            keep(builder.or_(low, builder.shl(above, I64(8))), place)
                    with plain, builder.if_else(builder.icmp_signed("==", width, I64(1))) as (one, more):
                        with one:
                            keep_plain(1)
                        with more, builder.if_else(builder.icmp_signed("==", width, I64(2))) as (two, four):
                            with two:
                                keep_plain(2)
                            with four:
                                keep_plain(4)
                return [builder.load(place) for place in places]

            with cgutils.for_range(builder, n_blocks, intp=I64) as block:
                of_block = builder.add(words, builder.mul(block.index, I64(8 * ROWS)))
                kept = [builder.inttoptr(builder.add(of_block, I64(8 * n)), I64.as_pointer()) for n in range(ROWS)]
                starts = [builder.load(place) for place in kept] if found else find(block.index)
                if not found and n_vectors < PANEL:
                    for start, place in zip(starts, kept, strict=True):
                        builder.store(start, place)
                features = builder.add(x, builder.mul(builder.mul(block.index, d), I64(line)))
                with cgutils.for_range(builder, d, intp=I64) as feature:
                    lanes = builder.add(features, builder.mul(feature.index, I64(line)))
                    vectors = [load(builder, builder.add(lanes, I64(4 * LANES * v))) for v in range(n_vectors)]
                    number = builder.mul(feature.index, I64(4))
                    for start, of_row in zip(starts, totals, strict=True):
                        value = broadcast(builder, builder.add(start, number))
                        for vector, total in zip(vectors, of_row, strict=True):
                            builder.store(multiply_add(builder, value, vector, builder.load(total)), total)
            for number, of_row in enumerate(totals):
                for v, total in enumerate(of_row):
                    store(builder, builder.load(total), builder.add(sums, I64(4 * LANES * (CHUNK * v + number))))
            return context.get_dummy_value()

        return types.void(*[types.int64] * 5), generate

    return any_intrinsic(typed)


_of_one, _of_two, _of_most = _product(1), _product(min(2, VECTORS)), _product(VECTORS)
_of_one_found = _product(1, found=True)


@njit
def _together(n_left: int) -> int:
    """Vectors that are computed together when `n_left` are left."""
    return VECTORS if n_left >= VECTORS else min(n_left, 2)


@kernel
def multiply(description: Any) -> None:
    """Compute some rows for some tokens a ticket: ``out = x @ centroids[codes].T + bias``."""
    about = carray(description, PLACES)
    given = about.ctypes.data
    n_tokens, n_rows, n_parts = about[N_TOKENS], about[N_ROWS], about[PARTS]
    n_in = about[N_BLOCKS] * about[D]
    ticket = take(given + 8 * TICKET)
    sums = about[SCRATCH] + take(given + 8 * THREAD) * about[SCRATCH_SIZE]
    features = sums + 4 * LANES * CHUNK * PANEL
    words = features + 4 * LANES * n_in * PANEL
    n_chunks, held = (n_rows + CHUNK - 1) // CHUNK, -1
    while ticket < about[PANELS] * n_parts:
        panel, part = ticket // n_parts, ticket % n_parts
        begin = panel * about[UNITS] * LANES
        n_here = min(n_tokens - begin, about[UNITS] * LANES)
        n_units = (n_here + LANES - 1) // LANES
        unit = 0
        while unit < n_units and held != panel:
            n_vectors = _together(n_units - unit)
            for v in range(n_vectors):
                place, first = features + 4 * LANES * (unit * n_in + v), (unit + v) * LANES
                source = about[X] + 4 * (begin + first) * n_in
                turn_in(place, 4 * LANES * n_vectors, source, n_in, min(LANES, n_here - first))
            unit += n_vectors
        held = panel
        for chunk in range(n_chunks * part // n_parts, n_chunks * (part + 1) // n_parts):
            top = chunk * CHUNK
            bottom = min(n_rows, top + CHUNK)
            for row in range(top, bottom, ROWS):
                unit = 0
                while unit < n_units:
                    n_vectors = _together(n_units - unit)
                    target, x = sums + 4 * LANES * (unit * CHUNK + row - top), features + 4 * LANES * unit * n_in
                    if n_vectors == 1 and unit:
                        _of_one_found(given, target, x, words, row)
                    elif n_vectors == VECTORS:
                        _of_most(given, target, x, words, row)
                    elif n_vectors == 2:
                        _of_two(given, target, x, words, row)
                    else:
                        _of_one(given, target, x, words, row)
                    unit += n_vectors
            for unit in range(n_units):
                target = about[OUT] + 4 * ((begin + unit * LANES) * n_rows + top)
                count = min(LANES, n_here - unit * LANES)
                turn_out(target, n_rows, sums + 4 * LANES * unit * CHUNK, bottom - top, count)
        ticket = take(given + 8 * TICKET)


def scratch_bytes(n_blocks: int, d: int) -> int:
    """Return the bytes that `multiply` needs for each thread, a multiple of 64."""
    return 4 * LANES * PANEL * (CHUNK + n_blocks * d) + -(-8 * ROWS * n_blocks // 64) * 64
