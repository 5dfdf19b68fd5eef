"""Is each step right in memory? Frames, page tables, copies on write, zero pages, forks: expected values written by hand.

ksmd has no part in it.
"""

import pytest
from unit.kernels.tiny import PAGES_PER_MM, fill, frames_of, tiny_state

from ksmbatch import state
from ksmbatch.codes import Kernel
from ksmbatch.kernels import fault
from ksmbatch.kernels.stable_tree import mark_ksm
from ksmbatch.metrics import Counter, NodeCounter
from ksmbatch.state import NO_FRAME, Scan, State

N = int(NO_FRAME)


def share(s: State, pages: tuple[int, ...], frame: int) -> None:
    """Lets `pages` map `frame`, which becomes a KSM page."""
    mark_ksm(s, frame)
    for page in pages:
        fault.unmap_page(s, page)
        fault.map_frame(s, page, frame)


def node_counters(s: State, counter: NodeCounter) -> list[int]:
    counted: list[int] = s.node_counters[:, counter].tolist()
    return counted


def test_a_first_write_takes_the_pages_own_frame_and_the_next_is_in_place() -> None:
    s = tiny_state()
    fill(s, 3, None, 5)
    fill(s, 4)
    assert frames_of(s) == [0, N, 2, N, N, N, N, N]
    assert s.frames[[0, 2], state.FRAME_CONTENT].tolist() == [4, 5]
    assert s.frames[:4, state.MAPCOUNT].tolist() == [1, 0, 1, 0]
    assert node_counters(s, NodeCounter.FRAMES) == [2, 0]
    assert s.counters[Counter.COW_KSM] == 0


def test_a_frame_is_on_the_node_that_the_policy_of_its_page_names() -> None:
    s = tiny_state()
    s.page_bytes[1, state.PAGE_NID] = 1
    fill(s, 3, 3)
    assert s.frame_bytes[:2, state.FRAME_NID].tolist() == [0, 1]
    assert node_counters(s, NodeCounter.FRAMES) == node_counters(s, NodeCounter.MAPPED_PAGES) == [1, 1]


def test_a_read_of_an_absent_page_maps_the_zero_page_and_a_write_gets_it_out() -> None:
    s = tiny_state()
    fill(s, 3)
    fault.read_pages(s, 0, 3)
    zero = s.page_bytes[:, state.PAGE_FLAGS] & state.ZERO != 0
    assert zero.tolist() == [False, True, True] + [False] * 5
    assert node_counters(s, NodeCounter.MAPPED_PAGES) == [1, 0]  # not ksmd's: it saves nothing
    fill(s, None, 4)
    assert frames_of(s)[:3] == [0, 1, N]
    assert not s.page_bytes[1, state.PAGE_FLAGS] & state.ZERO


def test_a_zero_page_of_ksmd_is_counted_until_it_is_written_or_gone() -> None:
    s = tiny_state()
    for page in (0, 1, 5):
        fault.map_zero_page_of_ksm(s, page)
    assert s.counters[Counter.KSM_ZERO_PAGES] == 3
    assert s.mms[:, state.ZERO_PAGES].tolist() == [2, 1]
    fill(s, 4)
    fault.zap_pages(s, 4, 8)
    assert s.counters[Counter.KSM_ZERO_PAGES] == 1
    assert s.mms[:, state.ZERO_PAGES].tolist() == [1, 0]
    assert node_counters(s, NodeCounter.MAPPED_PAGES) == [2, 0]
    assert s.counters[Counter.COW_KSM] == 0


def test_a_write_to_a_ksm_page_copies_it_even_if_nobody_else_maps_it() -> None:
    s = tiny_state()
    fill(s, 3)
    mark_ksm(s, 0)
    fill(s, 3)
    assert s.counters[Counter.COW_KSM] == 1
    # the copy was there before the original went, so it could not take its number: a spare frame
    assert frames_of(s)[0] == 8 == len(s.pages)
    assert s.frame_bytes[0, state.FRAME_FLAGS] == 0
    assert node_counters(s, NodeCounter.KSM_FRAMES) == [0, 0]
    assert node_counters(s, NodeCounter.FRAMES) == [1, 0]


def test_a_page_whose_own_frame_others_map_gets_a_spare_one_and_gives_it_back() -> None:
    s = tiny_state()
    fill(s, 3, 3, 3)
    share(s, (1, 2), 0)
    fill(s, 4)  # 0 leaves its own frame to 1 and 2
    assert frames_of(s)[:3] == [8, 0, 0]
    fault.zap_pages(s, 0, 1)
    assert s.scan[Scan.FREE_FRAME] == 8
    fill(s, 5)
    assert frames_of(s)[:3] == [8, 0, 0]
    assert s.scan[Scan.FREE_FRAME] == NO_FRAME


def test_spare_frames_are_taken_before_new_ones_and_the_last_freed_first() -> None:
    s = tiny_state()
    fill(s, 3, 3, 3, 3)
    share(s, (0, 1, 2), 3)
    mark_ksm(s, 1)
    fill(s, 3, 3, 3, first=4)
    share(s, (4, 5), 6)
    fill(s, None, None, None, 4)
    fill(s, 5, None, 5, first=4)  # 4 has its own frame, 6 does not
    assert frames_of(s) == [3, 3, 3, 8, 4, 6, 9, N]
    fault.zap_pages(s, 3, 4)
    fault.zap_pages(s, 6, 7)
    fill(s, None, None, None, 4)
    assert frames_of(s)[3] == 9


def test_a_pfn_freed_last_is_taken_first_on_its_own_node() -> None:
    s = tiny_state(keep_pfns=True)
    s.page_bytes[3, state.PAGE_NID] = 1
    fill(s, 1, 2, 3, 4)
    assert s.frame_pfns[:4].tolist() == [1, 2, 3, 1]
    for page in (0, 2, 3):
        fault.zap_pages(s, page, page + 1)
    fill(s, 5, None, 6, first=4)
    assert s.frame_pfns[[4, 6]].tolist() == [3, 1]
    fill(s, 1, None, None, 4)
    assert s.frame_pfns[[0, 3]].tolist() == [4, 1]


def test_a_mapping_from_another_node_is_remote() -> None:
    s = tiny_state()
    s.page_bytes[4, state.PAGE_NID] = 1
    fill(s, 3)
    fill(s, 3, first=4)
    share(s, (4,), 0)
    assert node_counters(s, NodeCounter.REMOTE_MAPPINGS) == [0, 1]
    assert node_counters(s, NodeCounter.FRAMES) == [1, 0]
    fill(s, 4, first=4)
    assert node_counters(s, NodeCounter.REMOTE_MAPPINGS) == [0, 0]
    assert s.frame_bytes[frames_of(s)[4], state.FRAME_NID] == 1


def test_zapping_takes_mappings_away_and_frames_with_the_last() -> None:
    s = tiny_state()
    fill(s, 3, 3, 4)
    share(s, (1,), 0)
    fault.zap_pages(s, 0, 1)
    assert frames_of(s)[:3] == [N, 0, 2]
    assert s.frames[0, state.MAPCOUNT] == 1
    fault.zap_pages(s, 0, 4)
    assert s.frames[:, state.MAPCOUNT].sum() == 0
    assert node_counters(s, NodeCounter.MAPPED_PAGES) == [0, 0]
    assert node_counters(s, NodeCounter.FRAMES) == [0, 0]


@pytest.mark.parametrize(
    ("kernel", "prot_none", "copied"),
    [(Kernel.V6_1, False, True), (Kernel.V6_1, True, False), (Kernel.V6_12, True, True), (Kernel.V7_2, False, True)],
)
def test_unmerging_copies_a_ksm_page_unless_6_1_does_not_see_it(kernel: Kernel, prot_none: bool, copied: bool) -> None:
    s = tiny_state(kernel)
    fill(s, 3, 3)
    share(s, (0,), 1)
    if prot_none:
        s.page_bytes[0, state.PAGE_FLAGS] |= state.PROT_NONE
    fault.unmerge_pages(s, 0, 1)
    assert frames_of(s)[:2] == ([0, 1] if copied else [1, 1])
    assert s.counters[Counter.COW_KSM] == copied


@pytest.mark.parametrize(("kernel", "unshared"), [(Kernel.V6_1, False), (Kernel.V6_12, True)])
def test_unmerging_gives_back_zero_pages_of_ksmd_but_not_on_6_1(kernel: Kernel, unshared: bool) -> None:
    s = tiny_state(kernel)
    fault.map_zero_page_of_ksm(s, 0)
    fault.read_pages(s, 1, 2)  # an ordinary one stays
    fault.unmerge_pages(s, 0, 2)
    assert frames_of(s)[:2] == ([0, N] if unshared else [N, N])
    assert s.counters[Counter.COW_KSM] == 0


def test_a_fork_shares_all_frames_and_leaves_vmas_that_were_never_written_alone() -> None:
    s = tiny_state()
    fill(s, 3, 4)
    fault.map_zero_page_of_ksm(s, 2)
    s.page_bytes[3, state.PAGE_FLAGS] = state.MAPPED | state.ZERO  # a VMA that was only read
    s.page_bytes[4:, state.PAGE_FLAGS] = 0
    fault.fork_pages(s, 0, 1, PAGES_PER_MM)
    assert frames_of(s) == [0, 1, N, N, 0, 1, N, N]
    assert s.frames[:2, state.MAPCOUNT].tolist() == [2, 2]
    assert s.counters[Counter.KSM_ZERO_PAGES] == 2
    assert s.page_bytes[7, state.PAGE_FLAGS] == state.MAPPED
    # a page that both map is copied when either writes
    fill(s, 5, first=4)
    assert frames_of(s)[0::4] == [0, 4]
    assert s.counters[Counter.COW_KSM] == 0


@pytest.mark.parametrize(("page", "mm"), [(0, 0), (3, 0), (4, 1), (7, 1)])
def test_a_page_belongs_to_the_last_mm_that_begins_at_it_or_before(page: int, mm: int) -> None:
    assert fault.mm_of(tiny_state(), page) == mm


def test_an_mm_without_pages_owns_none() -> None:
    s = tiny_state()
    s.mms[0, [state.FIRST_PAGE, state.END_PAGE]] = 0, 0
    s.mms[1, state.FIRST_PAGE] = 0
    assert fault.mm_of(s, 0) == 1
