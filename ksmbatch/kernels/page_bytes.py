"""The bytes of pages: where two pages differ, in whole vectors, and words in the order of memcmp().

It knows rows of one array of pages, not what they are the pages of; grouping and ordering are its callers' (`grouping`).
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import lower_builtin, type_callable
from numpy import uint64

from ksmbatch.kernels.xxhash import PAGE_BYTES, prefetch_address, takes_many

STRETCH_BYTES = 256  # compared at once


def equal_bytes(pages, one, other):
    """How many bytes from their beginning the pages in rows `one` and `other` share, rounded down to a multiple of 256.

    4096 for equal pages, and for no others. This is what it means, and what runs with the JIT off.
    """
    differs = (pages[one] != pages[other]).reshape(-1, STRETCH_BYTES).any(axis=1)
    return int(differs.argmax()) * STRETCH_BYTES if differs.any() else PAGE_BYTES


@type_callable(equal_bytes)
def _type_equal_bytes(_context):
    def typer(pages, one, other):  # noqa: ARG001  # numba passes the types by these names
        return types.int64

    return typer


@lower_builtin(equal_bytes, types.Array, types.Integer, types.Integer)
def _lower_equal_bytes(context, builder, signature, arguments):
    return _count_equal_bytes(builder, [_address(context, builder, signature, arguments, k) for k in (1, 2)])


def _count_equal_bytes(builder, starts):
    """As `equal_bytes`, of the pages that begin at the two `starts`."""
    word = ir.IntType(64)
    words = ir.VectorType(word, 8)
    any_bit = cgutils.get_or_insert_function(builder.module, ir.FunctionType(word, [words]), "llvm.vector.reduce.or.v8i64")
    before = builder.block
    loop = builder.append_basic_block("equal.stretch")
    after = builder.append_basic_block("equal.found")
    builder.branch(loop)
    builder.position_at_end(loop)
    at = builder.phi(word)
    at.add_incoming(word(0), before)
    difference = ir.Constant(words, [0] * 8)
    for line in range(0, STRETCH_BYTES, 64):
        places = [builder.gep(start, [builder.add(at, word(line))]) for start in starts]
        one, other = (builder.load(builder.bitcast(place, words.as_pointer()), align=1) for place in places)
        difference = builder.or_(difference, builder.xor(one, other))
    following = builder.add(at, word(STRETCH_BYTES))
    at.add_incoming(following, loop)
    same = builder.icmp_unsigned("==", builder.call(any_bit, [difference]), word(0))
    more = builder.icmp_unsigned("<", following, word(PAGE_BYTES))
    builder.cbranch(builder.and_(same, more), loop, after)
    builder.position_at_end(after)
    return builder.select(same, following, at)


def equal_pairs(pages, one, other, one_more, its_other):
    """Whether the pages in rows `one` and `other` are equal, and those in rows `one_more` and `its_other`, too.

    Where there may be many side by side, they come faster from memory. This is what it means without the JIT.
    """
    return bool((pages[one] == pages[other]).all() and (pages[one_more] == pages[its_other]).all())


@type_callable(equal_pairs)
def _type_equal_pairs(_context):
    def typer(pages, one, other, one_more, its_other):  # noqa: ARG001  # numba passes the types by these names
        return types.boolean

    return typer


@lower_builtin(equal_pairs, types.Array, types.Integer, types.Integer, types.Integer, types.Integer)
def _lower_equal_pairs(context, builder, signature, arguments):
    word = ir.IntType(64)
    words = ir.VectorType(word, 8)
    starts = [_address(context, builder, signature, arguments, k) for k in (1, 2, 3, 4)]
    if not takes_many(context):
        counts = [_count_equal_bytes(builder, pair) for pair in (starts[:2], starts[2:])]
        return builder.and_(*(builder.icmp_unsigned("==", count, word(PAGE_BYTES)) for count in counts))
    before = builder.block
    loop = builder.append_basic_block("equal.line")
    after = builder.append_basic_block("equal.known")
    builder.branch(loop)
    builder.position_at_end(loop)
    at = builder.phi(word)
    at.add_incoming(word(0), before)
    differences = [builder.phi(words) for _ in range(2)]
    for k, so_far in enumerate(tuple(differences)):
        so_far.add_incoming(ir.Constant(words, [0] * 8), before)
        places = [builder.bitcast(builder.gep(start, [at]), words.as_pointer()) for start in starts[2 * k : 2 * k + 2]]
        line, its_line = (builder.load(place, align=1) for place in places)
        differences[k] = builder.or_(so_far, builder.xor(line, its_line))
        so_far.add_incoming(differences[k], loop)
    following = builder.add(at, word(64))
    at.add_incoming(following, loop)
    builder.cbranch(builder.icmp_unsigned("<", following, word(PAGE_BYTES)), loop, after)
    builder.position_at_end(after)
    any_bit = cgutils.get_or_insert_function(builder.module, ir.FunctionType(word, [words]), "llvm.vector.reduce.or.v8i64")
    return builder.icmp_unsigned("==", builder.call(any_bit, [builder.or_(*differences)]), word(0))


def big_endian_word(pages, row, at):
    """The 8 bytes from byte `at` on of the page in `row`, as a number that compares as memcmp() does: uint64."""
    return uint64(int.from_bytes(pages[row, at : at + 8].tobytes(), "big"))


@type_callable(big_endian_word)
def _type_big_endian_word(_context):
    def typer(pages, row, at):  # noqa: ARG001  # numba passes the types by these names
        return types.uint64

    return typer


@lower_builtin(big_endian_word, types.Array, types.Integer, types.Integer)
def _lower_big_endian_word(context, builder, signature, arguments):
    word = ir.IntType(64)
    at = context.cast(builder, arguments[2], signature.args[2], types.int64)
    place = builder.gep(_address(context, builder, signature, arguments, 1), [at])
    return builder.bswap(builder.load(builder.bitcast(place, word.as_pointer()), align=1))


def prefetch(array, at):
    """Asks for the line of element `at` of `array` (flat); nothing depends on it."""


@type_callable(prefetch)
def _type_prefetch(_context):
    def typer(array, at):  # noqa: ARG001  # numba passes the types by these names
        return types.none

    return typer


@lower_builtin(prefetch, types.Array, types.Integer)
def _lower_prefetch(context, builder, signature, arguments):
    at = context.cast(builder, arguments[1], signature.args[1], types.int64)
    data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
    prefetch_address(builder, builder.gep(data, [at]))
    return context.get_dummy_value()


def _address(context, builder, signature, arguments, position):
    """Of the page in the row that is argument number `position`."""
    row = context.cast(builder, arguments[position], signature.args[position], types.int64)
    data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
    return builder.gep(data, [builder.mul(row, ir.IntType(64)(PAGE_BYTES))])
