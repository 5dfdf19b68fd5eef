"""Is each step right when a run of frames is cleared? What is isolated, where its frames go, and in which order it comes back.

Page frame numbers (pfns) begin at 1 here. Those of nodes' stacks in ordinary times are in test_fault.py and test_frame.py.
"""

import numpy as np
import pytest
from unit.kernels.moving import (
    HERE,
    NO_FORKS,
    THERE,
    assert_sane,
    counted,
    dups_at,
    free_pfns,
    items_of,
    move,
    moves,
    node_counters,
    share,
    two_homes,
)
from unit.kernels.tiny import fill, frames_of, tiny_state

from ksmbatch import state
from ksmbatch.codes import Caller, Policy
from ksmbatch.kernels import clear_frames, fault
from ksmbatch.state import State

MOVED = {"frames_moved": 1, "ksm_frames_moved": 1}


def with_pfns(*free: int, last: int, nid: int = HERE) -> State:
    """A machine of which all pfns of `nid` up to `last` were used, and `free` are free, the next to be taken first."""
    s = tiny_state(keep_pfns=True, node_pages=20, pages_per_mm=10)
    for pfn in reversed(free):
        clear_frames.push(s.pfns[nid], pfn)
    s.pfns[nid, state.LAST_PFN] = last
    return s


def clear(s: State, first: int, end: int, nid: int = HERE, caller: Caller = Caller.CMA) -> bool:
    """Clears the pfns [first, end)."""
    holder = np.full(end - first, -1, np.int32)
    for frame in range(len(s.frames)):
        pfn = int(s.frame_pfns[frame])
        if s.frames[frame, state.MAPCOUNT] and s.frame_bytes[frame, state.FRAME_NID] == nid and first <= pfn < end:
            holder[pfn - first] = frame
    return bool(clear_frames.clear_frames(s, NO_FORKS, nid, first, end, holder, int(caller)))


def pfns_of(s: State, *pages: int) -> list[int]:
    numbers: list[int] = s.frame_pfns[s.pages[list(pages), state.FRAME]].tolist()
    return numbers


def last(s: State, nid: int = HERE) -> int:
    return int(s.pfns[nid, state.LAST_PFN])


# isolating


@pytest.mark.parametrize(
    ("first", "end", "left"),
    [
        (3, 6, [9, 2, 7]),  # from the middle of the stack
        (9, 10, [4, 2, 3, 7]),  # from its top
        (7, 9, [9, 4, 2, 3]),  # from its end
        (1, 10, []),
        (5, 7, [9, 4, 2, 3, 7]),  # nothing of it is free
    ],
)
def test_the_free_pfns_of_the_range_leave_the_stack_and_the_others_keep_their_order(
    first: int, end: int, left: list[int]
) -> None:
    s = with_pfns(9, 4, 2, 3, 7, last=12)
    clear_frames.isolate(s, HERE, first, end)
    assert (free_pfns(s, HERE), last(s)) == (left, 12)


def test_pfns_below_the_range_that_were_never_used_come_onto_the_stack_with_the_lowest_on_top() -> None:
    s = with_pfns(2, 1, last=3)
    clear_frames.isolate(s, HERE, 7, 10)
    assert (free_pfns(s, HERE), last(s)) == ([4, 5, 6, 2, 1], 9)


@pytest.mark.parametrize(("used", "end", "last_used"), [(5, 8, 7), (6, 8, 7), (7, 8, 7), (8, 8, 8), (0, 2, 1)])
def test_all_pfns_up_to_the_end_of_the_range_count_as_used(used: int, end: int, last_used: int) -> None:
    s = with_pfns(last=used)
    clear_frames.isolate(s, HERE, 1, end)
    assert (free_pfns(s, HERE), last(s)) == ([], last_used)


def test_other_nodes_pfns_are_not_touched() -> None:
    s = with_pfns(1, 2, last=2, nid=THERE)
    clear_frames.isolate(s, HERE, 1, 4)
    assert (free_pfns(s, THERE), last(s, THERE)) == ([1, 2], 2)
    assert (free_pfns(s, HERE), last(s, HERE)) == ([], 3)


# moving and releasing


def test_what_is_in_the_range_goes_to_pfns_that_are_free_and_then_to_new_ones() -> None:
    s = two_homes((1, 2, 3, 4, 5), pages_per_mm=8, keep_pfns=True, node_pages=20)
    fault.zap_pages(s, 0, 1)
    assert pfns_of(s, 1, 2, 3, 4) == [2, 3, 4, 5]
    assert clear(s, 2, 5)
    assert pfns_of(s, 1, 2, 3, 4) == [1, 6, 7, 5]
    assert (free_pfns(s, HERE), last(s)) == ([2, 3, 4], 7)  # the lowest of the range on top
    assert frames_of(s)[1:5] == [1, 2, 3, 4]
    assert moves(s) == {"frames_moved": 3}
    assert node_counters(s)["frames"] == [4, 0]
    assert_sane(s)


def test_the_range_comes_back_on_top_of_what_was_free_before() -> None:
    s = two_homes((1, 2, 3, 4, 5), pages_per_mm=8, keep_pfns=True, node_pages=20)
    fault.zap_pages(s, 4, 5)
    fault.zap_pages(s, 0, 1)
    fault.zap_pages(s, 2, 3)
    assert free_pfns(s, HERE) == [3, 1, 5]
    assert clear(s, 2, 4)
    assert pfns_of(s, 1, 3) == [1, 4]
    assert free_pfns(s, HERE) == [2, 3, 5]
    assert_sane(s)


def test_a_frame_never_moves_within_the_range() -> None:
    s = two_homes((1, 2), pages_per_mm=8, keep_pfns=True, node_pages=20)
    fault.zap_pages(s, 0, 1)
    assert clear(s, 1, 6)
    assert pfns_of(s, 1) == [6]
    assert (free_pfns(s, HERE), last(s)) == ([1, 2, 3, 4, 5], 6)
    assert_sane(s)


def test_a_range_that_was_never_used_is_cleared_without_a_move_and_is_free_afterwards() -> None:
    s = two_homes((1, 2), pages_per_mm=8, keep_pfns=True, node_pages=20)
    assert clear(s, 5, 8)
    assert (free_pfns(s, HERE), last(s)) == ([5, 6, 7, 3, 4], 7)
    assert moves(s) == {}
    fill(s, None, None, 3)
    assert pfns_of(s, 2) == [5]
    assert_sane(s)


def test_where_the_node_has_no_pfn_left_the_rest_stays() -> None:
    s = two_homes((1, 2, 3, 4), pages_per_mm=8, keep_pfns=True, node_pages=5)
    assert not clear(s, 1, 4)
    assert pfns_of(s, 0, 1, 2, 3) == [5, 2, 3, 4]
    assert (free_pfns(s, HERE), last(s)) == ([1], 5)
    assert moves(s) == {"frames_moved": 1, "migrate_failures": 2}
    assert_sane(s)


def test_the_free_pfns_of_the_range_itself_are_of_no_use_to_it() -> None:
    s = two_homes((1, 2), pages_per_mm=8, keep_pfns=True, node_pages=4)
    assert not clear(s, 1, 5)
    assert moves(s) == {"migrate_failures": 2}
    assert (free_pfns(s, HERE), last(s)) == ([3, 4], 4)
    assert_sane(s)


def test_a_ksm_page_is_refused_to_who_may_not_move_it_and_stays() -> None:
    s = two_homes((3, 3, 4), pages_per_mm=8, keep_pfns=True, node_pages=20, callers=1 << Caller.COMPACTION)
    share(s, 0, 1)
    assert not clear(s, 1, 4, caller=Caller.THP)
    assert pfns_of(s, 0, 2) == [1, 4]
    assert moves(s) == {"frames_moved": 1, "migrate_refused": 1}
    assert free_pfns(s, HERE) == [2, 3]
    assert clear(s, 1, 4, caller=Caller.COMPACTION)
    assert pfns_of(s, 0, 2) == [5, 4]
    assert_sane(s)


def test_a_ksm_page_of_which_a_mapping_is_not_found_is_stuck() -> None:
    s = two_homes((3, 3), pages_per_mm=8, keep_pfns=True, node_pages=20)
    share(s, 0, 1)
    fault.map_frame(s, 5, 0)
    assert not clear(s, 1, 2)
    assert moves(s) == {"migrate_stuck": 1}
    assert pfns_of(s, 0) == [1]


def test_a_page_that_is_stuck_needs_no_pfn_so_want_of_one_is_not_counted() -> None:
    s = two_homes((3,), pages_per_mm=8, keep_pfns=True, node_pages=1)
    share(s, 0)
    fault.map_frame(s, 5, 0)
    assert not clear(s, 1, 2)
    assert moves(s) == {"migrate_stuck": 1}


def test_a_dangling_page_is_stuck_and_reads_freed_memory() -> None:
    s = two_homes((3, 3), policy=Policy.V4, pages_per_mm=8, keep_pfns=True, node_pages=20)
    share(s, 0, 1)
    assert move(s, 0, 1) == [THERE]
    assert not clear(s, 1, 2, THERE)
    assert moves(s) == MOVED | {"corruptions": 1, "migrate_stuck": 1, "dangling_pages": 1}


@pytest.mark.parametrize("policy", list(Policy))
def test_no_policy_has_a_say_within_a_node(policy: Policy) -> None:
    s = two_homes((3, 3), policy=policy, pages_per_mm=8, keep_pfns=True, node_pages=20)
    node = share(s, 0, 1)
    assert clear(s, 1, 2)
    assert moves(s) == MOVED
    assert pfns_of(s, 0, 1) == [2, 2]
    assert dups_at(s, 0, 3) == [node]
    assert items_of(s, node) == [1, 0]
    assert frames_of(s)[:2] == [0, 0]
    assert_sane(s)


def test_a_node_that_is_full_has_a_pfn_as_long_as_one_is_free() -> None:
    s = two_homes((1, 2), pages_per_mm=8, keep_pfns=True, node_pages=3)
    assert clear(s, 1, 2)
    assert pfns_of(s, 0, 1) == [3, 2]
    assert_sane(s)


def test_clearing_costs_what_the_moves_cost() -> None:
    s = two_homes((3, 3, 3, 4), pages_per_mm=8, keep_pfns=True, node_pages=20, move_ns=1000, remap_ns=10)
    share(s, 0, 1, 2)
    assert clear(s, 1, 5)
    assert counted(s, "move_cpu_ns") == [1020 + 1000]
