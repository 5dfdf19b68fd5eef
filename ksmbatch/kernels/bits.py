"""Words of 32 bits, as the bitmaps of pages and contents have them.

What the bits say is known where they are kept.
"""

import numpy as np

from ksmbatch.accel import inlined

BIT_OF = np.zeros(32, np.int64)
BIT_OF[[(0x077CB531 << bit & 0xFFFFFFFF) >> 27 for bit in range(32)]] = np.arange(32)


@inlined
def lowest_bit(bits):
    """The number of the lowest bit that is set in `bits`, of 32. Source: Leiserson and others, de Bruijn sequences."""
    return BIT_OF[((bits & -bits) * 0x077CB531 & 0xFFFFFFFF) >> 27]


@inlined
def highest_bit(bits):
    """The number of the highest bit that is set in `bits`, of 32."""
    bits |= bits >> 1
    bits |= bits >> 2
    bits |= bits >> 4
    bits |= bits >> 8
    bits |= bits >> 16
    return lowest_bit(bits ^ (bits >> 1))
