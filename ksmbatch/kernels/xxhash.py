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
# How far ahead the loads of two pages are prefetched, as one stream. One page at a time the multiplications bind, at 0.6 of
# the bandwidth; two at a time the hardware's own prefetching falls behind, to 0.5. Two with this: 0.9.
AHEAD_BYTES = 12288
ONE, TWO = uint64(1), uint64(2)


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


def xxh64_two(pages, one, other, seed):
    """XXH64 of the pages in rows `one` and `other` (best `one` + 1) of `pages`, with `seed`: a pair of uint64.

    This is what it means, and what runs with the JIT off; compiled code has `_lower_xxh64_two`.
    """
    return uint64(_xxh64(pages[one], int(seed))), uint64(_xxh64(pages[other], int(seed)))


@type_callable(xxh64_two)
def _type_xxh64_two(_context):
    def typer(pages, one, other, seed):  # noqa: ARG001  # numba passes the types by these names
        return types.UniTuple(types.uint64, 2)

    return typer


@lower_builtin(xxh64_two, types.Array, types.Integer, types.Integer, types.Integer)
def _lower_xxh64_two(context, builder, signature, arguments):
    """The four lanes of a page are one vector; two pages go side by side, because one alone waits for its multiplications."""
    word = ir.IntType(64)
    lanes = ir.VectorType(word, 4)
    rotate = cgutils.get_or_insert_function(builder.module, ir.FunctionType(lanes, [lanes] * 3), "llvm.fshl.v4i64")
    add_up = cgutils.get_or_insert_function(builder.module, ir.FunctionType(word, [lanes]), "llvm.vector.reduce.add.v4i64")

    def four(*values):
        return ir.Constant(lanes, [value & MASK for value in (values * 4)[:4]])

    def rotated(vector, *bits):
        return builder.call(rotate, [vector, vector, four(*bits)])

    rows = [context.cast(builder, arguments[k], signature.args[k], types.int64) for k in (1, 2)]
    seed = context.cast(builder, arguments[3], signature.args[3], types.uint64)
    data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
    starts = [builder.gep(data, [builder.mul(row, word(PAGE_BYTES))]) for row in rows]
    state = four(0)
    for lane in range(4):
        state = builder.insert_element(state, seed, word(lane))
    state = builder.add(state, four(PRIME_1 + PRIME_2, PRIME_2, 0, -PRIME_1))

    before = builder.block
    loop = builder.append_basic_block("xxh64.line")
    after = builder.append_basic_block("xxh64.merge")
    builder.branch(loop)
    builder.position_at_end(loop)
    at = builder.phi(word)
    at.add_incoming(word(0), before)
    states = [builder.phi(lanes) for _ in starts]
    for phi in states:
        phi.add_incoming(state, before)
    # a line of each page per turn, and two lines ahead, in the order in which they lie in memory
    for k in range(2):
        ahead = builder.add(builder.mul(at, word(2)), word(AHEAD_BYTES + 64 * k))
        prefetch_address(builder, builder.gep(starts[0], [ahead]))
    now = list(states)
    for half in (0, 32):
        for page, start in enumerate(starts):
            place = builder.bitcast(builder.gep(start, [builder.add(at, word(half))]), lanes.as_pointer())
            mixed = builder.add(now[page], builder.mul(builder.load(place, align=1), four(PRIME_2)))
            now[page] = builder.mul(rotated(mixed, 31), four(PRIME_1))
    following = builder.add(at, word(64))
    at.add_incoming(following, loop)
    for phi, last in zip(states, now, strict=True):
        phi.add_incoming(last, loop)
    builder.cbranch(builder.icmp_unsigned("<", following, word(PAGE_BYTES)), loop, after)

    builder.position_at_end(after)
    digests = []
    for vector in now:
        digest = builder.call(add_up, [rotated(vector, 1, 7, 12, 18)])
        merged = builder.mul(rotated(builder.mul(vector, four(PRIME_2)), 31), four(PRIME_1))
        for lane in range(4):
            mixed = builder.xor(digest, builder.extract_element(merged, word(lane)))
            digest = builder.add(builder.mul(mixed, word(PRIME_1)), word(PRIME_4))
        digest = builder.add(digest, word(PAGE_BYTES))
        for bits, prime in ((33, PRIME_2), (29, PRIME_3)):
            digest = builder.mul(builder.xor(digest, builder.lshr(digest, word(bits))), word(prime))
        digests.append(builder.xor(digest, builder.lshr(digest, word(32))))
    return context.make_tuple(builder, signature.return_type, digests)


def prefetch_address(builder, address):
    """Emits a prefetch of the line at `address` into the second-level cache; one past the end of memory does nothing."""
    byte, number = ir.IntType(8), ir.IntType(32)
    kind = ir.FunctionType(ir.VoidType(), [byte.as_pointer(), number, number, number])
    prefetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
    builder.call(prefetch, [builder.bitcast(address, byte.as_pointer()), number(0), number(2), number(1)])


@inlined
def hash_rows(pages, row, n, seed, out, at):
    """XXH64 of the `n` pages from row `row` on, to `out` from `at` on.

    Mirrors: mm/ksm.c calc_checksum(), as far as `seed` is 0
    Reads: pages. Writes: out.
    """
    end = row + n
    while row + ONE < end:
        out[at], out[at + ONE] = xxh64_two(pages, row, row + ONE, seed)
        row += TWO
        at += TWO
    if row < end:
        out[at], _ = xxh64_two(pages, row, row, seed)


@entry_kernel
def hash_pages(pages, seed, out):
    """XXH64 of all `pages` (uint8[n, 4096]) with `seed` (uint64). Writes: out (uint64[n])."""
    hash_rows(pages, uint64(0), uint64(len(pages)), seed, out, uint64(0))
