"""Do dense ids keep equality and memcmp order, and do the contents that can be shared come first?"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksmbatch import contents
from ksmbatch.contents import ContentTable, Interned, intern

SPREAD = st.sampled_from([0, 1, 2, 5, 7, 2**40, 2**62 - 1, 2**64 - 1])
DENSE = st.integers(min_value=0, max_value=40)


def u64(*values: int) -> np.ndarray:
    return np.array(values, np.uint64)


def check(made: Interned, written: list[int]) -> None:
    distinct = sorted({0, *written})
    shared = sorted({0} | {raw for raw in written if written.count(raw) >= 2})
    assert made.raw.tolist() == shared + [raw for raw in distinct if raw not in shared]
    assert (made.table.n, made.table.n_dup) == (len(distinct), len(shared))
    assert made.table.rank.tolist() == [distinct.index(raw) for raw in made.raw.tolist()]
    assert made.lookup(made.raw).tolist() == list(range(len(distinct)))
    assert (made.raw.dtype, made.table.rank.dtype, made.lookup(made.raw).dtype) == (np.uint64, np.uint32, np.int32)
    for dup, below in enumerate(made.table.singles_below.tolist()):
        assert below == sum(raw < made.raw[dup] for raw in made.raw[len(shared) :].tolist())


@given(st.lists(st.lists(SPREAD)))
def test_ids_of_far_apart_numbers_keep_order_and_equality(writes: list[list[int]]) -> None:
    check(intern([u64(*write) for write in writes]), [raw for write in writes for raw in write])


@given(st.lists(st.lists(DENSE)))
def test_ids_of_dense_numbers_keep_order_and_equality(writes: list[list[int]]) -> None:
    check(intern([u64(*write) for write in writes]), [raw for write in writes for raw in write])


def test_a_content_written_twice_to_anything_may_be_shared() -> None:
    made = intern([u64(9, 4), u64(4, 7)])
    assert made.raw.tolist() == [0, 4, 7, 9]
    assert made.table.n_dup == 2


def test_the_page_of_zeros_is_there_though_nobody_wrote_it() -> None:
    for arrays in ([], [u64()], [u64(3)]):
        made = intern(arrays)
        assert made.raw[0] == 0
        assert made.table.n_dup == 1
        assert made.lookup(u64(0)).tolist() == [0]


@pytest.mark.parametrize("writes", [[u64(1, 2, 3)], [u64(1, 2**60, 2**61)]])
@pytest.mark.parametrize("unknown", [4, 2**62, 2**64 - 1])
def test_a_content_that_was_not_interned_is_an_error(writes: list[np.ndarray], unknown: int) -> None:
    with pytest.raises(KeyError):
        intern(writes).lookup(u64(1, unknown))


def test_looking_up_nothing_finds_nothing() -> None:
    for writes in ([u64(1)], [u64(2**60)]):
        assert intern(writes).lookup(u64()).shape == (0,)


def test_read_only_and_unordered_arrays_are_left_as_they_are() -> None:
    for spread in (1, 2**50):
        written = u64(5, 3, 5, 1) * np.uint64(spread)
        written.flags.writeable = False
        made = intern([written])
        assert written.tolist() == [5 * spread, 3 * spread, 5 * spread, spread]
        assert made.lookup(written).tolist() == [1, 3, 1, 2]


def test_without_a_checksum_all_checksums_differ() -> None:
    assert intern([u64(1, 2)]).table.checksum_class is None


def test_contents_with_equal_checksums_are_in_the_class_of_the_smallest() -> None:
    # raw 6 and 3 collide, and so do 0 and 9; ids: 0 -> 0, 9 -> 1 (written twice), 3 -> 2, 5 -> 3, 6 -> 4
    sums = {0: 8, 9: 8, 3: 1, 6: 1, 5: 2}
    made = intern([u64(9, 3, 5), u64(6, 9)], lambda raw: np.array([sums[int(one)] for one in raw], np.uint32))
    assert made.raw.tolist() == [0, 9, 3, 5, 6]
    assert made.table.checksum_class is not None
    assert made.table.checksum_class.tolist() == [0, 0, 2, 3, 2]
    assert made.table.checksum_class.dtype == np.int32


def test_what_is_kept_of_a_million_contents_is_a_few_bytes_for_each_that_occurs_twice() -> None:
    made = intern([np.arange(1, 1_000_001, dtype=np.uint64), np.arange(1, 1001, dtype=np.uint64)])
    assert made.table.n == 1_000_001
    assert made.table.singles_below.nbytes == 4 * 1001
    assert made.table.rank.nbytes == 4 * 1_000_001


@given(st.integers(0, 40), st.data())
def test_ranks_are_those_of_a_merge_wherever_their_chunks_end(n_singles: int, data: st.DataObject) -> None:
    below = [0, *sorted(data.draw(st.lists(st.integers(0, n_singles), max_size=8)))]
    table = ContentTable(n=len(below) + n_singles, singles_below=np.array(below, np.uint32))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contents, "_CHUNK", 5)
        rank = table.rank.tolist()
    assert rank[: len(below)] == [dup + smaller for dup, smaller in enumerate(below)]
    assert rank[len(below) :] == [k for k in range(table.n) if k not in rank[: len(below)]]
