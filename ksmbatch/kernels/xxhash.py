"""XXH64 of whole 4 KiB pages at the speed of memory: the kernel's checksum, and with a secret seed a fingerprint.

ksmd keeps the low 32 bits (mm/ksm.c calc_checksum(), seed 0). It hashes pages and nothing else: no other lengths, no stream.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import lower_builtin, type_callable
from numpy import uint64

from ksmbatch.accel import entry_kernel, inlined

PAGE_BYTES = 4096
PRIME_1, PRIME_2, PRIME_3, PRIME_4 = 0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x85EBCA77C2B2AE63
MASK = (1 << 64) - 1
PAGES_AT_ONCE = 8
# Pages go side by side, because one alone waits for its multiplications. In AMD's CPUs (3 cycles each) two are enough; they
# come at 0.9 of the bandwidth where their loads are prefetched as one stream, as far ahead as this, and at 0.5 without that. In
# Intel's (15 cycles) it takes eight, and the stream of each page is prefetched: 0.9. Two get 0.6.
AHEAD_AS_ONE, AHEAD_OF_EACH = 12288, 512
L1, L2 = 3, 2  # into which cache
ONE, ALL = uint64(1), uint64(PAGES_AT_ONCE)


def _rotated(word: int, bits: int) -> int:
    return (word << bits | word >> (64 - bits)) & MASK


def _round(lane: int, word: int) -> int:
    return _rotated((lane + word * PRIME_2) & MASK, 31) * PRIME_1 & MASK


def _xxh64(page, seed):
    """XXH64 of one page, in Python's integers."""
    lanes = [(seed + start) & MASK for start in (PRIME_1 + PRIME_2, PRIME_2, 0, -PRIME_1)]
    words = page.tobytes()
    for at in range(0, PAGE_BYTES, 32):
        for lane in range(4):
            lanes[lane] = _round(lanes[lane], int.from_bytes(words[at + 8 * lane : at + 8 * lane + 8], "little"))
    digest = sum(_rotated(lane, bits) for lane, bits in zip(lanes, (1, 7, 12, 18), strict=True)) & MASK
    for lane in lanes:
        digest = ((digest ^ _round(0, lane)) * PRIME_1 + PRIME_4) & MASK
    digest = (digest + PAGE_BYTES) & MASK
    digest = (digest ^ digest >> 33) * PRIME_2 & MASK
    digest = (digest ^ digest >> 29) * PRIME_3 & MASK
    return digest ^ digest >> 32


def xxh64_one(pages, row, seed, out, at):
    """XXH64 of the page in `row` of `pages`, with `seed`, to out[at]. What it means; compiled code has `_hash_side_by_side`."""
    out[at] = _xxh64(pages[row], int(seed))


def xxh64_many(pages, row, seed, out, at):
    """As `xxh64_one`, of PAGES_AT_ONCE pages from `row` on, to `out` from `at` on."""
    for page in range(PAGES_AT_ONCE):
        out[int(at) + page] = _xxh64(pages[int(row) + page], int(seed))


@type_callable(xxh64_one)
@type_callable(xxh64_many)
def _type_xxh64(_context):
    def typer(pages, row, seed, out, at):  # noqa: ARG001  # numba passes the types by these names
        return types.none

    return typer


@lower_builtin(xxh64_one, types.Array, types.Integer, types.Integer, types.Array, types.Integer)
def _lower_xxh64_one(context, builder, signature, arguments):
    data, seed, out = _operands(context, builder, signature, arguments)
    _hash_side_by_side(builder, data, seed, out, pages=1, lanes=4)
    return context.get_dummy_value()


@lower_builtin(xxh64_many, types.Array, types.Integer, types.Integer, types.Array, types.Integer)
def _lower_xxh64_many(context, builder, signature, arguments):
    data, seed, out = _operands(context, builder, signature, arguments)
    if takes_many(context):
        _hash_side_by_side(builder, data, seed, out, pages=PAGES_AT_ONCE, lanes=8)
        return context.get_dummy_value()
    word = ir.IntType(64)
    with cgutils.for_range_slice(builder, word(0), word(PAGES_AT_ONCE), word(2), word) as (page, _):
        start = builder.gep(data, [builder.mul(page, word(PAGE_BYTES))])
        _hash_side_by_side(builder, start, seed, builder.gep(out, [page]), pages=2, lanes=4)
    return context.get_dummy_value()


def takes_many(context):
    """Whether code is for a CPU that wants many pages side by side: one with AVX-512's registers, and none of AMD's."""
    _, cpu, features = context.codegen().magic_tuple()
    return "+avx512dq" in features.split(",") and not cpu.startswith("znver")


def _operands(context, builder, signature, arguments):
    """Where the first page is, the seed, and where the first hash goes."""
    data, out = (context.make_array(signature.args[k])(context, builder, arguments[k]).data for k in (0, 3))
    row, at = (context.cast(builder, arguments[k], signature.args[k], types.int64) for k in (1, 4))
    seed = context.cast(builder, arguments[2], signature.args[2], types.uint64)
    return builder.gep(data, [builder.mul(row, row.type(PAGE_BYTES))]), seed, builder.gep(out, [at])


def _hash_side_by_side(builder, data, seed, out, pages, lanes):
    """Hashes `pages` pages from `data` on. The four lanes of a page are one vector, or, of eight `lanes`, half of one."""
    word, four = ir.IntType(64), ir.VectorType(ir.IntType(64), 4)
    vector = ir.VectorType(word, lanes)
    state = _vector(four, 0)
    for lane in range(4):
        state = builder.insert_element(state, seed, word(lane))
    state = builder.add(state, _vector(four, PRIME_1 + PRIME_2, PRIME_2, 0, -PRIME_1))
    before = builder.block
    if lanes == 8:
        state = _joined(builder, state, state)

    loop = builder.append_basic_block("xxh64.line")
    after = builder.append_basic_block("xxh64.merge")
    builder.branch(loop)
    builder.position_at_end(loop)
    at = builder.phi(word)
    at.add_incoming(word(0), before)
    states = [builder.phi(vector) for _ in range(0, pages * 4, lanes)]
    for phi in states:
        phi.add_incoming(state, before)
    _prefetch_line_of_each(builder, data, at, pages)
    now = list(states)
    for half in (0, 32):  # a line of each page per turn
        words = []
        for page in range(pages):
            place = builder.gep(data, [builder.add(at, word(page * PAGE_BYTES + half))])
            words.append(builder.load(builder.bitcast(place, four.as_pointer()), align=1))
        if lanes == 8:
            words = [_joined(builder, *words[page : page + 2]) for page in range(0, pages, 2)]
        for k, new in enumerate(words):
            mixed = builder.add(now[k], builder.mul(new, _vector(vector, PRIME_2)))
            now[k] = builder.mul(_turned(builder, mixed, 31), _vector(vector, PRIME_1))
    following = builder.add(at, word(64))
    at.add_incoming(following, loop)
    for phi, last in zip(states, now, strict=True):
        phi.add_incoming(last, loop)
    builder.cbranch(builder.icmp_unsigned("<", following, word(PAGE_BYTES)), loop, after)

    builder.position_at_end(after)
    if lanes == 8:
        now = [_half(builder, both, start) for both in now for start in (0, 4)]
    for page, last in enumerate(now):
        builder.store(_merged(builder, last), builder.gep(out, [word(page)]))


def _prefetch_line_of_each(builder, data, at, pages):
    """Asks for as many lines as `pages` pages from `data` on have at `at`; one past the end of memory does nothing."""
    word = ir.IntType(64)
    if pages <= 2:  # the next ones in memory
        for page in range(pages):
            ahead = builder.add(builder.mul(at, word(pages)), word(AHEAD_AS_ONE + 64 * page))
            prefetch_address(builder, builder.gep(data, [ahead]), L2)
        return
    ahead = builder.add(at, word(AHEAD_OF_EACH))
    group = builder.mul(builder.udiv(ahead, word(PAGE_BYTES)), word(pages * PAGE_BYTES))  # the pages after these follow them
    ahead = builder.add(builder.urem(ahead, word(PAGE_BYTES)), group)
    for page in range(pages):
        prefetch_address(builder, builder.gep(data, [builder.add(ahead, word(page * PAGE_BYTES))]), L1)


def _merged(builder, last):
    """The hash of a page, from its four lanes."""
    word = ir.IntType(64)
    kind = ir.FunctionType(word, [last.type])
    add_up = cgutils.get_or_insert_function(builder.module, kind, "llvm.vector.reduce.add.v4i64")
    digest = builder.call(add_up, [_turned(builder, last, 1, 7, 12, 18)])
    mixed = builder.mul(_turned(builder, builder.mul(last, _vector(last.type, PRIME_2)), 31), _vector(last.type, PRIME_1))
    for lane in range(4):
        digest = builder.xor(digest, builder.extract_element(mixed, word(lane)))
        digest = builder.add(builder.mul(digest, word(PRIME_1)), word(PRIME_4))
    digest = builder.add(digest, word(PAGE_BYTES))
    for bits, prime in ((33, PRIME_2), (29, PRIME_3)):
        digest = builder.mul(builder.xor(digest, builder.lshr(digest, word(bits))), word(prime))
    return builder.xor(digest, builder.lshr(digest, word(32)))


def _vector(kind, *values):
    """`values` over and over, as a constant vector."""
    return ir.Constant(kind, [values[k % len(values)] & MASK for k in range(kind.count)])


def _turned(builder, vector, *bits):
    """The lanes of `vector`, each rotated to the left."""
    kind = ir.FunctionType(vector.type, [vector.type] * 3)
    rotate = cgutils.get_or_insert_function(builder.module, kind, f"llvm.fshl.v{vector.type.count}i64")
    return builder.call(rotate, [vector, vector, _vector(vector.type, *bits)])


def _joined(builder, one, other):
    """Two vectors of four as one of eight."""
    return builder.shuffle_vector(one, other, _vector(ir.VectorType(ir.IntType(32), 8), *range(8)))


def _half(builder, vector, start):
    """Four lanes of eight, from number `start` on."""
    return builder.shuffle_vector(vector, vector, _vector(ir.VectorType(ir.IntType(32), 4), *range(start, start + 4)))


def prefetch_address(builder, address, cache=L2):
    """Emits a prefetch of the line at `address` into `cache`."""
    byte, number = ir.IntType(8), ir.IntType(32)
    kind = ir.FunctionType(ir.VoidType(), [byte.as_pointer(), number, number, number])
    prefetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
    builder.call(prefetch, [builder.bitcast(address, byte.as_pointer()), number(0), number(cache), number(1)])


@inlined
def hash_rows(pages, row, n, seed, out, at):
    """XXH64 of the `n` pages from row `row` on, to `out` from `at` on.

    Mirrors: mm/ksm.c calc_checksum(), as far as `seed` is 0
    Reads: pages. Writes: out.
    """
    end = row + n
    while row + ALL <= end:
        xxh64_many(pages, row, seed, out, at)
        row += ALL
        at += ALL
    while row < end:
        xxh64_one(pages, row, seed, out, at)
        row += ONE
        at += ONE


@entry_kernel
def hash_pages(pages, seed, out):
    """XXH64 of all `pages` (uint8[n, 4096]) with `seed` (uint64). Writes: out (uint64[n])."""
    hash_rows(pages, uint64(0), uint64(len(pages)), seed, out, uint64(0))
