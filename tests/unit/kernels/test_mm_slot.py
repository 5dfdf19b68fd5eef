"""Is each step right in the list of mms? Who comes before whom when mms register and exit, at rest and in mid-scan.

It looks at no page.
"""

import numpy as np
import pytest

from ksmbatch import state
from ksmbatch.codes import Run
from ksmbatch.kernels import mm_slot
from ksmbatch.state import NO_MM, Knob, Scan, State


def four_mms(registered: int = 0) -> State:
    s = state.allocate(n_pages=4, n_mms=4, n_nids=1, n_dup=1, rank=np.zeros(1, np.uint32), checksum_class=None)
    s.mms[:, state.USERS] = 1
    for mm in range(registered):
        mm_slot.ksm_enter(s, mm)
    return s


def listed(s: State) -> list[int]:
    """The mms in the order in which ksmd scans them, checked to be linked both ways."""
    found, before, mm = [], NO_MM, s.scan[Scan.SLOT_FIRST]
    while mm != NO_MM:
        assert s.mms[mm, state.SLOT_PREV] == before
        found.append(int(mm))
        before, mm = mm, s.mms[mm, state.SLOT_NEXT]
    assert s.scan[Scan.SLOT_LAST] == before
    return found


def test_between_scans_a_new_mm_is_the_last() -> None:
    s = four_mms(3)
    assert listed(s) == [0, 1, 2]
    assert s.mms[:, state.REGISTERED].tolist() == [1, 1, 1, 0]


@pytest.mark.parametrize(("cursor", "order"), [(0, [3, 0, 1, 2]), (1, [0, 3, 1, 2]), (2, [0, 1, 3, 2])])
def test_in_mid_scan_a_new_mm_comes_just_before_the_cursor(cursor: int, order: list[int]) -> None:
    s = four_mms(3)
    s.scan[Scan.CUR_MM] = cursor
    mm_slot.ksm_enter(s, 3)
    assert listed(s) == order


def test_while_unmerged_a_new_mm_is_the_last() -> None:
    s = four_mms(3)
    s.scan[Scan.CUR_MM] = 1
    s.knobs[Knob.RUN] = Run.UNMERGE
    mm_slot.ksm_enter(s, 3)
    assert listed(s) == [0, 1, 2, 3]


@pytest.mark.parametrize(("cursor", "order"), [(0, [0, 2, 1]), (1, [0, 1, 2]), (NO_MM, [2, 0, 1])])
def test_a_dead_mm_with_items_waits_just_behind_the_cursor(cursor: int, order: list[int]) -> None:
    s = four_mms(3)
    s.scan[Scan.CUR_MM] = cursor
    s.mms[2, state.LIST_ITEMS] = 5
    mm_slot.ksm_exit(s, 2)
    assert listed(s) == order
    assert s.mms[2, state.USERS] == 0


@pytest.mark.parametrize("gone", [0, 1, 2])
def test_a_dead_mm_without_items_is_gone_at_once(gone: int) -> None:
    s = four_mms(3)
    mm_slot.ksm_exit(s, gone)
    assert listed(s) == [mm for mm in range(3) if mm != gone]
    assert s.mms[gone, state.REGISTERED] == 0


def test_a_dead_mm_at_the_cursor_stays_where_it_is() -> None:
    s = four_mms(3)
    s.scan[Scan.CUR_MM] = 1
    mm_slot.ksm_exit(s, 1)
    assert listed(s) == [0, 1, 2]
    assert s.mms[1, [state.USERS, state.REGISTERED]].tolist() == [0, 1]


def test_an_mm_that_never_registered_dies_unnoticed() -> None:
    s = four_mms(2)
    mm_slot.ksm_exit(s, 3)
    assert listed(s) == [0, 1]
    assert s.mms[3, state.USERS] == 0


def test_the_last_mm_may_leave() -> None:
    s = four_mms(1)
    mm_slot.unlink_slot(s, 0)
    assert listed(s) == []
