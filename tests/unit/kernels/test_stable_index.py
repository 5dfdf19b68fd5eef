"""Does the index of a stable tree's contents name the neighbours of a content, whatever came and went before?

Against sorted sets. What the shape makes of neighbours is in test_stable_shape.py.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ksmbatch import state
from ksmbatch.kernels import stable_index
from ksmbatch.kernels.bits import highest_bit
from ksmbatch.kernels.stable_index import ABOVE, BELOW, NONE
from ksmbatch.state import State

TREE, OTHER = 1, 0


def a_state(n: int) -> State:
    return state.allocate(n_pages=1, n_mms=1, n_nids=2, n_dup=n, rank=np.arange(n, dtype=np.uint32), checksum_class=None)


def neighbours(s: State, content: int) -> tuple[int, int]:
    return tuple(int(stable_index.neighbour(s, TREE, content, side)) for side in (BELOW, ABOVE))


@pytest.mark.parametrize(
    ("n", "words"), [(1, 1), (32, 1), (33, 2 + 1), (1024, 32 + 1), (1025, 33 + 2 + 1), (2**15 + 1, 1025 + 33 + 2 + 1)]
)
def test_each_level_has_a_bit_for_each_word_below_until_one_is_left(n: int, words: int) -> None:
    assert state.index_words(n) == words
    assert a_state(n).stable_index.shape == (2, words)


def test_a_level_above_is_told_only_of_the_first_that_comes_and_the_last_that_goes() -> None:
    s = a_state(2000)
    for content in (5, 7, 1999):
        stable_index.put_into_index(s, TREE, content)
    assert {word: bits for word, bits in enumerate(s.stable_index[TREE].tolist()) if bits} == {
        0: 1 << 5 | 1 << 7,
        62: 1 << 15,
        63: 1,
        64: 1 << 30,
        65: 3,
    }
    stable_index.take_out_of_index(s, TREE, 5)
    assert s.stable_index[TREE, [0, 63, 65]].tolist() == [1 << 7, 1, 3]
    stable_index.take_out_of_index(s, TREE, 7)
    assert s.stable_index[TREE, [0, 63, 65]].tolist() == [0, 0, 2]


def test_in_an_empty_tree_nobody_has_neighbours() -> None:
    assert neighbours(a_state(100), 50) == (NONE, NONE)


def test_a_content_is_no_neighbour_of_its_own() -> None:
    s = a_state(100)
    stable_index.put_into_index(s, TREE, 50)
    assert neighbours(s, 50) == (NONE, NONE)
    assert neighbours(s, 49) == (NONE, 50)
    assert neighbours(s, 51) == (50, NONE)


@pytest.mark.parametrize("bit", range(32))
def test_the_highest_bit_is_found_whatever_is_below(bit: int) -> None:
    for bits in (1 << bit, (2 << bit) - 1):
        assert highest_bit(bits) == bit


@settings(max_examples=200)
@given(st.data(), st.sampled_from((1, 31, 32, 33, 1000, 1024, 1025, 40_000)))
def test_neighbours_are_those_of_a_sorted_set(data: st.DataObject, n: int) -> None:
    contents = st.one_of(st.integers(0, n - 1), st.integers(0, min(n, 40) - 1), st.integers(max(n - 40, 0), n - 1))
    s, held = a_state(n), set[int]()
    for content in data.draw(st.lists(contents, max_size=60)):
        change = stable_index.take_out_of_index if content in held else stable_index.put_into_index
        change(s, TREE, content)
        held ^= {content}
    for content in (*held, *data.draw(st.lists(contents, max_size=20))):
        below = max((other for other in held if other < content), default=int(NONE))
        above = min((other for other in held if other > content), default=int(NONE))
        assert neighbours(s, content) == (below, above)
    assert not s.stable_index[OTHER].any()
    for content in held:
        stable_index.take_out_of_index(s, TREE, content)
    assert not s.stable_index.any()
