"""Words of bits, as the bitmaps of pages and contents have them, and made of bytes that are compared.

What the bits say is known where they are kept.
"""

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import lower_builtin, type_callable

from ksmbatch.accel import inlined

BYTES_AT_ONCE = 64


def lowest_bit(bits):
    """The number of the lowest bit that is set in `bits`, of 64, which are not 0.

    This is what it means, and what runs with the JIT off; compiled code has one instruction for it.
    """
    bits = int(bits)
    return (bits & -bits).bit_length() - 1


@type_callable(lowest_bit)
def _type_lowest_bit(_context):
    def typer(bits):  # noqa: ARG001  # numba passes the types by these names
        return types.int64

    return typer


@lower_builtin(lowest_bit, types.Integer)
def _lower_lowest_bit(context, builder, signature, arguments):
    word = ir.IntType(64)
    bits = context.cast(builder, arguments[0], signature.args[0], types.int64)
    count = cgutils.get_or_insert_function(builder.module, ir.FunctionType(word, [word, ir.IntType(1)]), "llvm.cttz.i64")
    return builder.call(count, [bits, ir.IntType(1)(1)])


def count_bits(bits):
    """How many bits are set in `bits`, of 64 and not negative.

    This is what it means, and what runs with the JIT off; compiled code has one instruction for it.
    """
    return int(bits).bit_count()


@type_callable(count_bits)
def _type_count_bits(_context):
    def typer(bits):  # noqa: ARG001  # numba passes the types by these names
        return types.int64

    return typer


@lower_builtin(count_bits, types.Integer)
def _lower_count_bits(context, builder, signature, arguments):
    word = ir.IntType(64)
    bits = context.cast(builder, arguments[0], signature.args[0], types.int64)
    count = cgutils.get_or_insert_function(builder.module, ir.FunctionType(word, [word]), "llvm.ctpop.i64")
    return builder.call(count, [bits])


def bytes_equal(array, at, value):
    """Which of the BYTES_AT_ONCE bytes of `array` (uint8[n]) from `at` on are `value`: as many bits, the first the lowest.

    This is what it means, and what runs with the JIT off; compiled code compares them all at once.
    """
    return np.uint64(sum(1 << k for k in range(BYTES_AT_ONCE) if array[at + k] == value)).astype(np.int64)


@type_callable(bytes_equal)
def _type_bytes_equal(_context):
    def typer(array, at, value):  # noqa: ARG001  # numba passes the types by these names
        return types.int64

    return typer


@lower_builtin(bytes_equal, types.Array, types.Integer, types.Integer)
def _lower_bytes_equal(context, builder, signature, arguments):
    lanes = ir.VectorType(ir.IntType(8), BYTES_AT_ONCE)
    at = context.cast(builder, arguments[1], signature.args[1], types.int64)
    value = context.cast(builder, arguments[2], signature.args[2], types.uint8)
    data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
    found = builder.load(builder.bitcast(builder.gep(data, [at]), lanes.as_pointer()), align=1)
    first = builder.insert_element(ir.Constant(lanes, ir.Undefined), value, ir.IntType(32)(0))
    wanted = builder.shuffle_vector(
        first, first, ir.Constant(ir.VectorType(ir.IntType(32), BYTES_AT_ONCE), [0] * BYTES_AT_ONCE)
    )
    return builder.bitcast(builder.icmp_unsigned("==", found, wanted), ir.IntType(64))


@inlined
def highest_bit(bits):
    """The number of the highest bit that is set in `bits`, of 32."""
    bits |= bits >> 1
    bits |= bits >> 2
    bits |= bits >> 4
    bits |= bits >> 8
    bits |= bits >> 16
    return lowest_bit(bits ^ (bits >> 1))
