"""Do bits say what they say? Whether the first set one is found, all are counted, and which of 64 bytes are equal to one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksmbatch.accel import entry_kernel
from ksmbatch.kernels import bits


@entry_kernel
def lowest(word):
    return bits.lowest_bit(word)


@entry_kernel
def counted(word):
    return bits.count_bits(word)


@entry_kernel
def equal(array, at, value):
    return bits.bytes_equal(array, at, value)


@pytest.mark.parametrize("bit", range(64))
def test_the_lowest_bit_of_64_is_found_whatever_is_above(bit: int) -> None:
    for above in (0, 0x5555555555555555, 2**64 - 1):
        word = np.uint64((1 << bit | above << bit) & 2**64 - 1).astype(np.int64)
        assert lowest(word) == bit


@given(st.integers(0, 2**63 - 1))
def test_all_bits_that_are_set_are_counted(word: int) -> None:
    assert counted(np.int64(word)) == bin(word).count("1")


@given(st.lists(st.integers(0, 3), min_size=80, max_size=80), st.integers(0, 16), st.integers(0, 255))
def test_of_64_bytes_from_anywhere_those_are_found_that_equal_one(content: list[int], at: int, value: int) -> None:
    array = np.array(content, np.uint8) * 85  # 0, 85, 170, 255
    found = int(equal(array, at, value)) & 2**64 - 1
    assert [found >> k & 1 for k in range(64)] == [int(array[at + k] == value) for k in range(64)]
