"""Is each step right when frames move? What move_pages() says and in which order it looks, and what a plain move changes.

Whom the rmap walk finds is in test_rmap_walk.py, what policies do in test_policies.py; what ksmd makes of a KSM page that moved
is in test_stable_tree.py and test_merge.py.
"""

import numpy as np
import pytest
from unit.kernels.moving import (
    HERE,
    NO_FORKS,
    THERE,
    assert_sane,
    counted,
    fork,
    move,
    moves,
    nids_of,
    node_counters,
    room,
    share,
    two_homes,
    unreachable,
)
from unit.kernels.tiny import EVERYBODY, fill, frames_of, tiny_state, visit

from ksmbatch import state
from ksmbatch.codes import CALLER_PRESETS, Caller, Kernel, Move, Policy
from ksmbatch.kernels import fault, move_pages
from ksmbatch.kernels.stable_tree import mark_ksm
from ksmbatch.state import Knob, Scan


@pytest.mark.parametrize("kernel", list(Kernel))
def test_every_page_gets_its_own_answer(kernel: Kernel) -> None:
    s = tiny_state(kernel)
    fill(s, 1, None, 2)
    fill(s, 3, 4, first=4)
    fault.read_pages(s, 6, 7)
    s.page_bytes[5, state.PAGE_FLAGS] |= state.PROT_NONE
    s.page_bytes[7, state.PAGE_FLAGS] = 0  # unmapped
    hidden = Move.HIDDEN if kernel == Kernel.V6_1 else THERE
    assert move(s, 0, 8) == [THERE, Move.ABSENT, THERE, Move.ABSENT, THERE, hidden, Move.ZERO, Move.UNMAPPED]


@pytest.mark.parametrize(("kernel", "answer"), [(Kernel.V6_1, Move.HIDDEN), (Kernel.V6_12, Move.ZERO)])
def test_6_1_does_not_see_a_zero_page_without_access(kernel: Kernel, answer: Move) -> None:
    s = tiny_state(kernel)
    fault.read_pages(s, 0, 1)
    s.page_bytes[:2, state.PAGE_FLAGS] |= state.PROT_NONE
    assert move(s, 0, 2) == [answer, Move.ABSENT]


def test_a_frame_moves_with_everybody_who_maps_it_and_gets_a_pfn_there() -> None:
    s = tiny_state(keep_pfns=True)
    fill(s, 1, 2)
    fault.map_frame(s, 5, 1)
    assert move(s, 5, 6) == [THERE]
    assert node_counters(s) == {"mapped_pages": [3, 0], "frames": [1, 1], "ksm_frames": [0, 0], "remote_mappings": [2, 0]}
    assert frames_of(s)[1] == frames_of(s)[5] == 1  # our number stays
    assert s.frame_pfns[:2].tolist() == [1, 1]  # the first of either node
    assert move(s, 0, 2) == [THERE, THERE]
    assert s.pfns[HERE, state.FREE_PFN] == 1
    assert move(s, 1, 2, HERE) == [HERE]
    assert node_counters(s)["frames"] == [1, 1]
    assert s.frame_pfns[:2].tolist() == [2, 1]


def test_a_page_that_is_there_already_stays_whoever_asks_and_however_full_the_node_is() -> None:
    s = tiny_state(keep_pfns=True, node_pages=2, callers=0)
    fill(s, 3, 3)
    mark_ksm(s, 1)
    before = s.frames.tolist()
    assert move(s, 0, 2, HERE) == [HERE, HERE]
    assert s.frames.tolist() == before
    assert moves(s) == {}


def test_a_ksm_page_moves_if_its_items_lead_to_all_its_mappings() -> None:
    s = tiny_state(keep_pfns=True)
    fill(s, 3, 3)
    visit(s, 2)
    assert move(s, 0, 1) == [THERE]
    assert node_counters(s)["ksm_frames"] == [0, 1]
    fault.map_frame(s, 5, 1)  # no rmap_item leads there
    assert move(s, 0, 1, HERE) == [Move.STUCK]
    assert unreachable(s, NO_FORKS) == 1


def test_a_ksm_page_without_a_stable_node_is_stuck() -> None:
    s = tiny_state()
    fill(s, 3)
    mark_ksm(s, 0)
    assert move(s, 0, 1) == [Move.STUCK]
    assert unreachable(s, NO_FORKS) == 1


# the order in which it looks at what may be in the way


def test_who_asks_comes_before_the_policy_before_room_before_the_rmap_walk() -> None:
    s = two_homes((3, 3, 3), (1, 2, 4, 5), Policy.REPLICATE, node_pages=4, callers=0)
    share(s, 0, 1)
    fault.unmap_page(s, 2)
    fault.map_frame(s, 2, 0)  # no rmap_item leads there
    assert move(s, 0, 1) == [Move.REFUSED]
    assert moves(s) == {"migrate_refused": 1}
    s.knobs[Knob.CALLERS] = EVERYBODY
    assert move(s, 0, 1) == [Move.LEFT]
    assert move(s, 0, 1, caller=Caller.HOTREMOVE) == [Move.FULL]
    assert moves(s) == {"migrate_refused": 1, "migrate_failures": 1}
    fault.zap_pages(s, 7, 8)
    assert move(s, 0, 1, caller=Caller.HOTREMOVE) == [Move.STUCK]
    assert moves(s) == {"migrate_refused": 1, "migrate_failures": 1, "migrate_stuck": 1}
    fault.unmap_page(s, 2)
    assert move(s, 0, 1, caller=Caller.HOTREMOVE) == [THERE]
    assert_sane(s)


@pytest.mark.parametrize(("merge_across_nodes", "answer"), [(0, Move.STUCK), (1, Move.FULL)])
def test_break_cow_takes_its_frames_itself_so_room_is_not_asked_for_before_unless_there_is_one_tree(
    merge_across_nodes: int, answer: Move
) -> None:
    s = two_homes((3, 3, 3), (1, 2, 4, 5), Policy.BREAK_COW, node_pages=4, merge_across_nodes=merge_across_nodes)
    share(s, 0, 1)
    fault.unmap_page(s, 2)
    fault.map_frame(s, 2, 0)
    assert move(s, 0, 1) == [answer]


@pytest.mark.parametrize("preset", CALLER_PRESETS)
@pytest.mark.parametrize("caller", list(Caller))
def test_a_caller_moves_ksm_pages_if_it_may_and_others_always(preset: str, caller: Caller) -> None:
    allowed = CALLER_PRESETS[preset]
    s = two_homes((3, 3, 4), callers=sum(1 << one for one in allowed))
    share(s, 0, 1)
    assert move(s, 0, 3, caller=caller) == [*[THERE if caller in allowed else Move.REFUSED] * 2, THERE]
    assert moves(s).get("migrate_refused", 0) == (0 if caller in allowed else 2)


def test_memory_hotremove_was_the_first_that_might_and_numa_balancing_still_may_not() -> None:
    assert CALLER_PRESETS["2.6.33"] == (Caller.HOTREMOVE,)
    assert set(Caller) - set(CALLER_PRESETS["mainline"]) == {Caller.NUMA_BALANCING}


@pytest.mark.parametrize("offline", [False, True])
def test_nothing_moves_to_a_node_that_is_full_or_offline(offline: bool) -> None:
    s = two_homes((3, 3, 4), (1, 2))
    s.numa[THERE, [state.NODE_PAGES, state.OFFLINE]] = (0, 1) if offline else (2, 0)
    share(s, 0, 1)
    assert move(s, 0, 3) == [Move.FULL] * 3
    assert moves(s) == {"migrate_failures": 3}
    assert nids_of(s, 0, 1, 2) == [HERE] * 3


def test_the_last_free_frame_of_a_node_goes_to_the_page_that_comes_first() -> None:
    s = two_homes((1, 2, 4), (5,), node_pages=3)
    assert move(s, 0, 3) == [THERE, THERE, Move.FULL]
    assert node_counters(s)["frames"] == [1, 3]
    assert_sane(s)


# plain moves


def test_a_plain_move_costs_the_move_and_each_further_mapping() -> None:
    s = two_homes((3, 3, 3, 4), move_ns=1000, remap_ns=10, copy_ns=7, cow_ns=7, tree_ns=7)
    share(s, 0, 1, 2)
    assert move(s, 0, 4) == [THERE] * 4
    assert counted(s, "move_cpu_ns") == [1020 + 1000]
    assert moves(s) == {"frames_moved": 2, "ksm_frames_moved": 1}


def test_remote_mappings_are_recounted_where_relatives_map_a_frame_that_moved() -> None:
    s = two_homes((3, 3, 4))
    share(s, 0, 1)
    relatives = fork(s)
    assert s.scan[Scan.REMOTE_UNKNOWN] == 0
    status = np.zeros(3, np.int64)
    assert move_pages.move_pages(s, relatives, 0, 3, THERE, int(Caller.MOVE_PAGES), status, room(s)) == 3
    assert s.scan[Scan.REMOTE_UNKNOWN] == 1
    move(s, 0, 0, of=relatives)
    assert s.scan[Scan.REMOTE_UNKNOWN] == 0
    assert node_counters(s)["remote_mappings"] == [6, 0]
    assert_sane(s)


def test_a_move_stops_before_a_page_that_could_run_out_of_stable_nodes_and_goes_on_there() -> None:
    # every page becomes a dup beside a full node, which takes a stable node for the chain
    contents, twice = (1, 2, 3, 4), (1, 1, 2, 2, 3, 3, 4, 4)
    small, wide = (
        two_homes(contents, twice, Policy.SUBSTITUTE, pages_per_mm=8, n_nodes=n, max_page_sharing=2) for n in (14, 64)
    )
    for s in (small, wide):
        for page in range(4):
            share(s, page)
            share(s, 8 + 2 * page, 9 + 2 * page)
        assert s.scan[Scan.NEXT_NODE] == 9
    status = np.zeros(4, np.int64)
    arguments = (NO_FORKS, 0, 4, THERE, int(Caller.MOVE_PAGES))
    assert move_pages.move_pages(wide, *arguments, status, room(wide)) == 4
    assert status.tolist() == [THERE] * 4
    status[:] = 7
    assert move_pages.move_pages(small, *arguments, status, room(small)) == 2  # 11 nodes, and 4 must be spare
    assert status.tolist() == [THERE, THERE, 7, 7]
    small = state.grow(small)
    assert move_pages.move_pages(small, NO_FORKS, 2, 4, THERE, int(Caller.MOVE_PAGES), status, room(small)) == 4
    assert status.tolist() == [THERE] * 4
    assert small.nodes[:14].tolist() == wide.nodes[:14].tolist()
    assert moves(small) == moves(wide) == {"frames_moved": 4, "ksm_frames_moved": 4, "migrate_chained": 4}
    assert_sane(small)
