"""Sorting of words by their upper bits, against Python's sort."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ksmbatch.kernels.radix_sort import DIGITS, VALUES, sort_words

WORDS = st.integers(0, (1 << 64) - 1) | st.integers(0, 1000) | st.sampled_from([1 << 63, (1 << 56) - 1, 1 << 56])


@given(words=st.lists(WORDS, min_size=1, max_size=40), low_bits=st.sampled_from([0, 1, 7, 8, 13, 32, 56, 60, 63]))
def test_words_are_in_the_order_of_their_upper_bits_and_otherwise_as_they_were(words: list[int], low_bits: int) -> None:
    array, spare = np.array(words, np.uint64), np.empty(len(words), np.uint64)
    is_in_spare = sort_words(array, spare, np.empty((DIGITS, VALUES), np.uint64), np.uint64(low_bits))
    assert (spare if is_in_spare else array).tolist() == sorted(words, key=lambda word: word >> low_bits)
