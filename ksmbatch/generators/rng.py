"""Randomness by counting: a value is a function of seed, stream and counter, so that nobody's order of asking matters.

It has no state and no distributions but the uniform one.
"""

from typing import Final

import numpy as np

_MASK: Final = 2**64 - 1
_CHUNK: Final = 1 << 15  # 256 KiB of uint64: what is worked on stays in the cache


def key(*parts: int) -> int:
    """64 bits that depend on every bit of every part (integers from 0 to 2**64 - 1): splitmix64, part after part."""
    state = 0
    for part in parts:
        state = _splitmix(state ^ part)
    return state


def uniform(stream: int, counters: np.ndarray, below: int) -> np.ndarray:
    """For each of `counters` (uint64[n]) a number from 0 to `below` - 1, int64[n], by the key `stream`.

    `below` is far less than 2**64, so the slight excess of small numbers is none that a workload could show.
    """
    state = counters * np.uint64(0x9E3779B97F4A7C15) + np.uint64(stream)
    state ^= state >> np.uint64(30)
    state *= np.uint64(0xBF58476D1CE4E5B9)
    state ^= state >> np.uint64(27)
    state *= np.uint64(0x94D049BB133111EB)
    state ^= state >> np.uint64(31)
    return (state % np.uint64(below)).view(np.int64)


class Permutation:
    """A random order of the numbers 0 to `n` - 1 by the key `stream`, computed number by number.

    Rounds of xorshift and multiplication, each invertible on a power of two; numbers that leave the range go on until they
    are back ("cycle walking"). 0 stays 0 if `n` is a power of two.
    """

    def __init__(self, n: int, stream: int) -> None:
        bits = max((n - 1).bit_length(), 1)
        self._n = np.uint64(n)
        self._mask = np.uint64((1 << bits) - 1)
        self._shift = np.uint64((bits + 1) // 2)
        self._factors = [np.uint64(key(stream, k) | 1) for k in range(4)]

    def __call__(self, numbers: np.ndarray) -> np.ndarray:
        """Where each of `numbers` (uint64[k], each below n) goes, uint64[k]."""
        places = np.empty_like(numbers)
        for first in range(0, numbers.size, _CHUNK):
            part = slice(first, first + _CHUNK)
            places[part] = self._walk(numbers[part])
        return places

    def _walk(self, numbers: np.ndarray) -> np.ndarray:
        places = self._rounds(numbers)
        outside = np.flatnonzero(places >= self._n)
        while outside.size:
            again = self._rounds(places[outside])
            places[outside] = again
            outside = outside[again >= self._n]
        return places

    def _rounds(self, numbers: np.ndarray) -> np.ndarray:
        state = numbers.copy()
        for factor in self._factors:
            state *= factor
            state &= self._mask
            state ^= state >> self._shift
        return state


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
