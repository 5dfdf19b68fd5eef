"""The steps from pages to groups, one at a time, and the keys that put contents in order."""

import itertools
from typing import Any

import numpy as np
import pytest

from ksmbatch.interning import hash_pages
from ksmbatch.kernels.grouping import COMPARE, GROUP, HASH, LAST_BEFORE, STRAY, compare_with_pivots, group_pages

ALL_BITS = (1 << 64) - 1


class Groups:
    """Room for the pages of one array."""

    def __init__(self, pages: np.ndarray, slots: int = 16) -> None:
        n = len(pages)
        self.pages = pages
        self.hashes = np.zeros(n, np.uint64)
        self.first_page = np.zeros(n, np.uint32)
        self.table = np.zeros(slots, np.uint64)
        self.ids = np.zeros(n, np.uint32)
        self.keys = np.zeros(n, np.uint64)
        self.checksums = np.zeros(n, np.uint32)
        self.n_groups = np.zeros(1, np.uint64)

    def step(self, steps: int, mask: int = ALL_BITS) -> int:
        numbers: list[Any] = [np.uint64(0), np.uint64(len(self.pages)), np.uint64(0), np.uint64(mask)]
        arrays = [self.table, self.ids, self.keys, self.checksums, self.n_groups]
        found = group_pages(np.int64(steps), self.pages, *numbers, self.hashes, self.first_page, self.first_page, *arrays)
        return int(found)


def three_pages() -> np.ndarray:
    """The first and the last are equal."""
    pages = np.zeros((3, 4096), np.uint8)
    pages[1, :2] = [1, 2]
    return pages


def test_hashes_are_those_of_pages() -> None:
    groups = Groups(three_pages())
    groups.step(HASH)
    assert groups.hashes.tolist() == hash_pages(three_pages()).tolist()


def test_a_group_has_the_number_of_its_appearance_its_first_word_and_its_checksum() -> None:
    groups = Groups(three_pages())
    assert groups.step(HASH | GROUP | COMPARE) == 0
    assert groups.ids.tolist() == [0, 1, 0]
    assert groups.first_page.tolist() == [0, 1, 0]
    assert groups.n_groups[0] == 2
    assert groups.keys[:2].tolist() == [0, 0x0102 << 48]
    assert groups.checksums[:2].tolist() == [int(value) & 0xFFFFFFFF for value in groups.hashes[:2]]


def test_a_page_that_only_has_the_hash_of_its_group_is_a_stray() -> None:
    groups = Groups(three_pages())
    assert groups.step(HASH | GROUP, mask=0) == 0
    assert groups.first_page.tolist() == [0, 0, 0]
    assert groups.step(COMPARE) == 1
    assert groups.first_page.tolist() == [0, STRAY, 0]


@pytest.mark.parametrize("n", [2, 3, 4, 5, 40])
def test_every_stray_is_found_whether_its_comparison_goes_with_another_or_alone(n: int) -> None:
    pages = np.zeros((n, 4096), np.uint8)
    strays = [page for page in range(1, n) if page % 3 == 1]
    pages[strays, 4095] = 1
    groups = Groups(pages)
    assert groups.step(HASH | GROUP | COMPARE, mask=0) == len(strays)
    assert np.flatnonzero(groups.first_page).tolist() == strays
    assert (groups.first_page[strays] == STRAY).all()


@pytest.mark.parametrize("slots", [4, 5, 16])
def test_groups_that_begin_in_the_last_slot_go_on_in_the_first(slots: int) -> None:
    groups = Groups(three_pages(), slots)
    groups.hashes[:] = [ALL_BITS, ALL_BITS - 1, ALL_BITS]
    groups.step(GROUP)
    assert groups.ids.tolist() == [0, 1, 0]
    assert np.flatnonzero(groups.table).tolist() == [0, slots - 1]


def test_hashes_that_differ_in_their_lower_half_only_are_two_groups() -> None:
    groups = Groups(three_pages())
    groups.hashes[:] = [5 << 32, 5 << 32 | 1, 5 << 32]
    groups.step(GROUP)
    assert groups.ids.tolist() == [0, 1, 0]


def test_keys_against_a_pivot_are_in_memcmp_order() -> None:
    pivot = bytes([5] * 4096)
    pages = [pivot]
    for at, value in itertools.product([0, 1, 255, 256, 4087, 4088, 4094, 4095], [0, 4, 6, 255]):
        pages.append(pivot[:at] + bytes([value]) + pivot[at + 1 :])
    pages.sort()
    array = np.frombuffer(bytearray(b"".join(pages)), np.uint8).reshape(-1, 4096)
    rows = np.arange(len(pages), dtype=np.uint32)
    keys = np.zeros(len(pages), np.uint64)
    compare_with_pivots(array, rows, np.full(len(pages), pages.index(pivot), np.uint32), keys)
    assert (keys[1:] > keys[:-1]).all()
    assert keys[pages.index(pivot)] == LAST_BEFORE
