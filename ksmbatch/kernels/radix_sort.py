"""A radix sort of 64-bit words: 7 ns for each of 180,000, where numpy's takes 73 (Zen 4, whose compressing stores are slow).

It sorts words, and stably by their upper bits if told so; numbers that travel in the low bits are its callers' idea.
"""

from numpy import int64, uint64

from ksmbatch.accel import entry_kernel

DIGITS, VALUES = 8, 256
ONE, DIGIT_BITS, DIGIT = uint64(1), uint64(8), uint64(VALUES - 1)


@entry_kernel
def sort_words(words, spare, counts, low_bits):
    """Sorts `words` (uint64[n], n > 0) by all bits but the `low_bits` lowest (uint64, below 64), stably.

    Reads: words. Writes: words, spare (uint64[n]), counts (uint64[8, 256]). Returns: whether the result is in `spare`.
    """
    n = uint64(len(words))
    for digit in range(DIGITS):
        for value in range(VALUES):
            counts[digit, value] = uint64(0)
    for k in range(n):
        rest = words[k] >> low_bits
        for digit in range(DIGITS):
            counts[digit, rest & DIGIT] += ONE
            rest >>= DIGIT_BITS
    n_passes = int64(0)
    for digit in range(DIGITS):
        shift = low_bits + uint64(digit) * DIGIT_BITS
        if shift >= uint64(64):
            break
        place = counts[digit]
        if place[(words[0] >> shift) & DIGIT] == n:
            continue  # they all have the same
        before = uint64(0)
        for value in range(VALUES):
            before, place[value] = before + place[value], before
        for k in range(n):
            value = (words[k] >> shift) & DIGIT
            spare[place[value]] = words[k]
            place[value] += ONE
        words, spare = spare, words
        n_passes += 1
    return n_passes & 1 == 1
