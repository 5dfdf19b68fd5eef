"""Randomness by counting: a value is a function of seed, stream and counter, so that nobody's order of asking matters.

It has no state and no distributions but the uniform one.
"""

from collections.abc import Iterator
from typing import Final

import numpy as np

_MASK: Final = 2**64 - 1
CHUNK: Final = 1 << 15  # 128 KiB of uint32: what is worked on stays in the cache
# quantiles of the exponential distribution with mean 1, in integers: sums are the same on every machine
_GAPS: Final = np.rint(-np.log((np.arange(4096) + 0.5) / 4096) * 2**20).astype(np.int64)


def chunks(n: int) -> Iterator[slice]:
    """The places 0 to `n` - 1 in slices of at most CHUNK: what is worked on slice by slice stays in the cache."""
    return (slice(first, min(first + CHUNK, n)) for first in range(0, n, CHUNK))


def key(*parts: int) -> int:
    """64 bits that depend on every bit of every part (integers from 0 to 2**64 - 1): splitmix64, part after part."""
    state = 0
    for part in parts:
        state = _splitmix(state ^ part)
    return state


def bits(stream: int, counters: np.ndarray) -> np.ndarray:
    """For each of `counters` (uint64[n]) 64 random bits, uint64[n], by the key `stream`."""
    state: np.ndarray = counters * np.uint64(0x9E3779B97F4A7C15) + np.uint64(stream)
    state ^= state >> np.uint64(30)
    state *= np.uint64(0xBF58476D1CE4E5B9)
    state ^= state >> np.uint64(27)
    state *= np.uint64(0x94D049BB133111EB)
    state ^= state >> np.uint64(31)
    return state


def uniform(stream: int, counters: np.ndarray, below: int) -> np.ndarray:
    """For each of `counters` (uint64[n]) a number from 0 to `below` - 1, int64[n], by the key `stream`.

    `below` is far less than 2**64, so the slight excess of small numbers is none that a workload could show.
    """
    return (bits(stream, counters) % np.uint64(below)).view(np.int64)


def ascending(stream: int, n: int, below: int) -> np.ndarray:
    """`n` of the numbers 0 to `below` - 1, by the key `stream`: none twice, in ascending order, int64[n].

    Without sorting: between points thrown at random the gaps are distributed exponentially, so gaps are drawn and added up.
    """
    gaps = np.empty(n + 1, np.int64)
    for part in chunks(n + 1):
        gaps[part] = _GAPS[bits(stream, np.arange(part.start, part.stop, dtype=np.uint64)) >> np.uint64(52)]
    gaps.cumsum(out=gaps)
    # numbers are drawn among as many as are left out; those drawn before take their places, and move the later ones on
    left_out = below - n
    scale = (left_out + 1) / gaps[-1]
    turn = key(stream, 1) % below if below else 0  # round, so that the ends of the range are as likely as its middle
    numbers = gaps[:-1]
    for part in chunks(n):
        drawn = (numbers[part] * scale).astype(np.int64)
        np.minimum(drawn, left_out, out=drawn)
        np.add(drawn, np.arange(turn + part.start, turn + part.stop), out=numbers[part])
    first = int(numbers.searchsorted(below))
    return np.concatenate([numbers[first:] - below, numbers[:first]])


class Permutation:
    """A random order of the numbers 0 to `n` - 1 by the key `stream`, computed number by number.

    Rounds of xorshift and multiplication, each invertible on a power of two; numbers that leave the range go on until they
    are back ("cycle walking"). 0 stays 0 if `n` is a power of two. uint32 gives what uint64 gives, six times as fast.
    """

    def __init__(self, n: int, stream: int) -> None:
        bits = max((n - 1).bit_length(), 1)
        self._n = n
        self._mask = (1 << bits) - 1
        self._shift = (bits + 1) // 2
        self._factors = [(key(stream, k) | 1) & self._mask for k in range(4)]

    def __call__(self, numbers: np.ndarray) -> np.ndarray:
        """Where each of `numbers` (uint64[k], or uint32[k] if n is at most 2**32, each below n) goes, in their dtype."""
        places = numbers.copy()
        self._rounds(places)
        if self._mask < self._n:
            return places  # a power of two: no number can leave
        outside = np.flatnonzero(places >= places.dtype.type(self._n))
        while outside.size:
            again = places[outside]
            self._rounds(again)
            places[outside] = again
            outside = outside[again >= again.dtype.type(self._n)]
        return places

    def _rounds(self, numbers: np.ndarray) -> None:
        word = numbers.dtype.type
        room = np.empty(min(numbers.size, CHUNK), numbers.dtype)
        for part in chunks(numbers.size):
            state, shifted = numbers[part], room[: part.stop - part.start]
            for factor in self._factors:
                state *= word(factor)
                state &= word(self._mask)
                np.right_shift(state, word(self._shift), out=shifted)
                state ^= shifted


class Scramble:
    """Raw content ids for contents that are numbered from 0, so that their order has nothing to do with that of the numbers.

    `n`: contents there are to begin with; later ones may have any number above. 0 stays 0, the page of zeros.
    """

    def __init__(self, n: int, stream: int) -> None:
        # a quarter more room: then a run of usual length fits, and raw ids stay dense, which makes interning fast
        self._bits = (n + n // 4).bit_length()
        self._within = Permutation(1 << self._bits, stream)

    def __call__(self, contents: np.ndarray) -> np.ndarray:
        """Raw ids of content numbers (uint64[n]), uint64[n]. What outgrows the room at the start is scrambled room by room."""
        room = np.uint64((1 << self._bits) - 1)
        raw: np.ndarray = self._within(contents & room)
        raw |= contents & ~room
        return raw


def _splitmix(state: int) -> int:
    state = (state + 0x9E3779B97F4A7C15) & _MASK
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
    return state ^ (state >> 31)
