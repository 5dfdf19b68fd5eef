"""Do dense ids keep equality and memcmp order, and do the contents that can be shared come first?"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksmbatch.contents import ContentTable, intern

SPREAD = st.sampled_from([0, 1, 2, 5, 7, 2**40, 2**62 - 1, 2**64 - 1])
DENSE = st.integers(min_value=0, max_value=40)


def u64(*values: int) -> np.ndarray:
    return np.array(values, np.uint64)


def check(table: ContentTable, written: list[int]) -> None:
    distinct = sorted({0, *written})
    shared = sorted({0} | {raw for raw in written if written.count(raw) >= 2})
    assert table.raw.tolist() == shared + [raw for raw in distinct if raw not in shared]
    assert table.n_dup == len(shared)
    assert table.rank.tolist() == [distinct.index(raw) for raw in table.raw.tolist()]
    assert table.lookup(table.raw).tolist() == list(range(len(distinct)))
    assert (table.raw.dtype, table.rank.dtype, table.lookup(table.raw).dtype) == (np.uint64, np.uint32, np.int32)


@given(st.lists(st.lists(SPREAD)))
def test_ids_of_far_apart_numbers_keep_order_and_equality(writes: list[list[int]]) -> None:
    check(intern([u64(*write) for write in writes]), [raw for write in writes for raw in write])


@given(st.lists(st.lists(DENSE)))
def test_ids_of_dense_numbers_keep_order_and_equality(writes: list[list[int]]) -> None:
    check(intern([u64(*write) for write in writes]), [raw for write in writes for raw in write])


def test_a_content_written_twice_to_anything_may_be_shared() -> None:
    table = intern([u64(9, 4), u64(4, 7)])
    assert table.raw.tolist() == [0, 4, 7, 9]
    assert table.n_dup == 2


def test_the_page_of_zeros_is_there_though_nobody_wrote_it() -> None:
    for arrays in ([], [u64()], [u64(3)]):
        table = intern(arrays)
        assert table.raw[0] == 0
        assert table.n_dup == 1
        assert table.lookup(u64(0)).tolist() == [0]


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
        table = intern([written])
        assert written.tolist() == [5 * spread, 3 * spread, 5 * spread, spread]
        assert table.lookup(written).tolist() == [1, 3, 1, 2]


def test_without_a_checksum_all_checksums_differ() -> None:
    assert intern([u64(1, 2)]).checksum_class is None


def test_contents_with_equal_checksums_are_in_the_class_of_the_smallest() -> None:
    # raw 6 and 3 collide, and so do 0 and 9; ids: 0 -> 0, 9 -> 1 (written twice), 3 -> 2, 5 -> 3, 6 -> 4
    sums = {0: 8, 9: 8, 3: 1, 6: 1, 5: 2}
    table = intern([u64(9, 3, 5), u64(6, 9)], lambda raw: np.array([sums[int(one)] for one in raw], np.uint32))
    assert table.raw.tolist() == [0, 9, 3, 5, 6]
    assert table.checksum_class is not None
    assert table.checksum_class.tolist() == [0, 0, 2, 3, 2]
    assert table.checksum_class.dtype == np.int32


def test_interning_a_million_pages_takes_a_few_bytes_each_in_the_table() -> None:
    table = intern([np.arange(1, 1_000_001, dtype=np.uint64)] * 2)
    held = [table.raw, table.rank, table._dense, table._ordered, table._id_by_rank]
    assert sum(array.nbytes for array in held if array is not None) <= 32 * table.raw.size
