"""Which contents are in the shape of each stable tree, as bits, and bits that say which words of them are not 0, and so on.

So the neighbours of a content in its tree are found without a walk. That suffices as the contents that can be in a tree, those
held twice, ascend with their place in memcmp order (docs/adr/0007). It knows no links, and nothing of what is only logged.
"""

from numpy import int64

from ksmbatch.accel import inlined, kernel
from ksmbatch.kernels.bits import highest_bit, lowest_bit

BITS, LOG2_BITS = int64(32), int64(5)  # of a word of stable_index
BELOW, ABOVE = int64(-1), int64(1)
NONE = int64(-1)


@inlined
def words_of_level(n, level):
    """How many words of bits there are on `level` (0: a bit per content) for `n` contents, as in state.index_words()."""
    shift = LOG2_BITS * (level + 1)
    return (n + (int64(1) << shift) - 1) >> shift


@kernel
def put_into_index(s, nid, content):
    """`content` is in the shape of the tree of `nid` now. Writes: stable_index."""
    words = words_of_level(int64(s.by_content.shape[1]), int64(0))
    first = int64(0)
    while True:
        word = first + (content >> LOG2_BITS)
        had = int64(s.stable_index[nid, word])
        s.stable_index[nid, word] = had | (int64(1) << (content & (BITS - 1)))
        if had != 0 or words == 1:
            return
        first += words
        words = (words + BITS - 1) >> LOG2_BITS
        content >>= LOG2_BITS


@kernel
def take_out_of_index(s, nid, content):
    """`content` is no longer in the shape of the tree of `nid`. Writes: stable_index."""
    words = words_of_level(int64(s.by_content.shape[1]), int64(0))
    first = int64(0)
    while True:
        word = first + (content >> LOG2_BITS)
        left = int64(s.stable_index[nid, word]) & ~(int64(1) << (content & (BITS - 1)))
        s.stable_index[nid, word] = left
        if left != 0 or words == 1:
            return
        first += words
        words = (words + BITS - 1) >> LOG2_BITS
        content >>= LOG2_BITS


@kernel
def neighbour(s, nid, content, side):
    """The content in the shape of the tree of `nid` that is next to `content`, which may be in it or not; BELOW or ABOVE it.

    Reads: stable_index. Returns: the content or NONE.
    """
    n = int64(s.by_content.shape[1])
    level = int64(0)
    first = int64(0)
    while True:
        word = content >> LOG2_BITS
        place = content & (BITS - 1)
        bits = int64(s.stable_index[nid, first + word])
        bits &= (int64(1) << place) - 1 if side < 0 else int64(-2) << place
        if bits != 0:
            break
        words = words_of_level(n, level)
        if words == 1:
            return NONE
        first += words
        level += 1
        content = word
    while True:
        content = (word << LOG2_BITS) + (highest_bit(bits) if side < 0 else lowest_bit(bits))
        if level == 0:
            return content
        level -= 1
        first -= words_of_level(n, level)
        word = content
        bits = int64(s.stable_index[nid, first + word])
