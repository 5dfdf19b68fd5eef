"""Whom does it wake when VMAs say something else of pages, and what of a page is not theirs to say?"""

from unit.kernels.tiny import READY, fill, tiny_state

from ksmbatch import state
from ksmbatch.kernels import fault
from ksmbatch.kernels.page_flags import tell_pages

HIDDEN = int(READY) & ~state.MERGEABLE


def due(page: int, s: state.State) -> bool:
    return bool(int(s.calendar[1, 0]) >> page & 1)


def test_pages_that_map_something_or_have_an_item_are_woken_if_their_flags_change() -> None:
    s = tiny_state()
    fill(s, 1, None, None, 2)
    s.page_bytes[1, state.ITEM_FLAGS] = state.ITEM
    s.calendar[:] = 0
    tell_pages(s, 0, 3, HIDDEN)
    assert s.page_bytes[:4, state.PAGE_FLAGS].tolist() == [HIDDEN, HIDDEN, HIDDEN, READY]
    assert [due(page, s) for page in range(4)] == [True, True, False, False]


def test_who_hears_nothing_new_sleeps_on() -> None:
    s = tiny_state()
    fill(s, 1, 2)
    s.calendar[:] = 0
    tell_pages(s, 0, 8, int(READY))
    assert not s.calendar.any()


def test_zero_pages_stay_when_their_vma_goes() -> None:
    s = tiny_state()
    fault.read_pages(s, 2, 3)
    tell_pages(s, 0, 4, 0)
    assert s.page_bytes[:4, state.PAGE_FLAGS].tolist() == [0, 0, state.ZERO, 0]
