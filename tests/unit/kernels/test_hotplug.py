"""Is each step right when memory goes offline? Where frames of a node go, which stay, and what is pruned of the stable trees.

What a policy makes of a KSM page that moves is in test_policies.py, the whole of hotremove in test_migration.py.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.kernels.moving import (
    HERE,
    NO_FORKS,
    THERE,
    assert_sane,
    counted,
    dups_at,
    items_of,
    move,
    moves,
    nids_of,
    node_at,
    node_counters,
    room,
    share,
    two_homes,
)
from unit.kernels.tiny import fill, shape_of, shares, tiny_state
from unit.kernels.twin_tree import TwinTree

from ksmbatch import state
from ksmbatch.codes import Caller, Policy
from ksmbatch.kernels import fault, hotplug, stable_chain, stable_node, stable_tree
from ksmbatch.kernels.migrate import frame_move
from ksmbatch.state import Knob, Scan, State

FAR = 2
MOVED = {"frames_moved": 1, "ksm_frames_moved": 1}


def move_away(s: State, *pages: int, nid: int = HERE, first: int = 0) -> int:
    """The frames of `pages`, which are on `nid`, move in this order, from the one numbered `first` on."""
    s.numa[nid, state.OFFLINE] = 1
    frames = s.pages[list(pages), state.FRAME]
    passed = hotplug.move_away(s, NO_FORKS, frames, np.array(pages, np.int32), first, nid, room(s))
    frame_move.recount_remote_mappings(s)
    s.numa[nid, state.OFFLINE] = 0
    return int(passed)


def test_frames_go_to_the_nearest_node_and_when_that_is_full_to_the_next() -> None:
    s = two_homes((1, 2, 3, 4), (5,), n_nids=3, node_pages=4)
    fill(s, 1, first=5)
    assert nids_of(s, 4, 5) == [THERE, THERE]
    assert move_away(s, 2, 0, 3, 1) == 4
    assert nids_of(s, 2, 0, 3, 1) == [THERE, THERE, FAR, FAR]
    assert moves(s) == {"frames_moved": 4}
    assert node_counters(s)["frames"] == [0, 4, 2]
    assert node_counters(s)["remote_mappings"] == [4, 0, 0]
    assert_sane(s)


def test_where_no_node_has_room_each_frame_is_one_failure_and_stays() -> None:
    s = two_homes((1, 2, 3), (5,), node_pages=3)
    fill(s, 4, first=5)
    assert move_away(s, 0, 1, 2) == 3
    assert nids_of(s, 0, 1, 2) == [THERE, HERE, HERE]
    assert moves(s) == {"frames_moved": 1, "migrate_failures": 2}
    assert_sane(s)


@pytest.mark.parametrize("full", [False, True])
def test_who_may_not_move_ksm_pages_is_refused_whether_there_is_room_or_not(full: bool) -> None:
    s = two_homes((3, 3, 4), (5,), callers=1 << Caller.CMA)
    share(s, 0, 1)
    s.numa[THERE, state.NODE_PAGES] = 1 if full else 2
    move_away(s, 0, 2)
    assert moves(s) == {"migrate_refused": 1} | ({"migrate_failures": 1} if full else {"frames_moved": 1})
    assert nids_of(s, 0, 2) == [HERE, HERE if full else THERE]


def test_a_page_of_which_a_mapping_is_not_found_stays_and_the_others_go() -> None:
    s = two_homes((3, 3, 4))
    share(s, 0, 1)
    fault.map_frame(s, 3, 0)
    assert move_away(s, 0, 2) == 2
    assert moves(s) == {"frames_moved": 1, "migrate_stuck": 1}
    assert nids_of(s, 0, 2) == [HERE, THERE]


@pytest.mark.parametrize(
    ("policy", "outcome"),
    [
        (Policy.MAINLINE, {}),
        (Policy.V4, {"dangling_pages": 1}),
        (Policy.MERGE_ON_MIGRATE, {"migrate_merged": 1, "migrate_copies": 1}),
        (Policy.SUBSTITUTE, {"migrate_merged": 1}),
        (Policy.BREAK_COW, {"migrate_allocations": 2}),
        (Policy.NUKSM, {"migrate_merged": 1}),  # though it is at home
        (Policy.REPLICATE, {"migrate_merged": 1}),  # though ksmd would see to it
    ],
)
def test_every_policy_has_to_let_ksm_pages_go(policy: Policy, outcome: dict[str, int]) -> None:
    s = two_homes((3, 3), (3,), policy)
    share(s, 0, 1)
    share(s, 4)
    assert move_away(s, 0) == 1
    assert moves(s) == MOVED | outcome
    assert nids_of(s, 0, 1) == [THERE, THERE]
    assert_sane(s)


def test_a_frame_that_is_free_or_elsewhere_by_now_is_passed_by() -> None:
    s = two_homes((1, 2))
    frames, users = s.pages[:2, state.FRAME].copy(), np.arange(2, dtype=np.int32)
    fault.zap_pages(s, 0, 1)
    assert move(s, 1, 2) == [THERE]
    assert hotplug.move_away(s, NO_FORKS, frames, users, 0, HERE, room(s)) == 2
    assert moves(s) == {"frames_moved": 1}


def test_it_stops_before_a_frame_that_could_run_out_of_stable_nodes_and_goes_on_there() -> None:
    # every page becomes a dup beside a full node, which takes a stable node for the chain
    s = two_homes((1, 2, 4, 5), (1, 2, 4, 5), Policy.SUBSTITUTE, n_nodes=14, max_page_sharing=1)
    for page in range(8):
        share(s, page)
    assert s.scan[Scan.NEXT_NODE] == 9
    assert move_away(s, 0, 1, 2, 3) == 2
    assert nids_of(s, 0, 1, 2, 3) == [THERE, THERE, HERE, HERE]
    s = state.grow(s)
    assert move_away(s, 0, 1, 2, 3, first=2) == 4
    assert nids_of(s, 0, 1, 2, 3) == [THERE] * 4
    assert counted(s, "migrate_chained") == [4]
    assert_sane(s)


# what is pruned


def test_stale_nodes_go_whose_frame_was_on_the_node_and_no_others() -> None:
    s = two_homes((1, 2, 3), (4, 5))
    nodes = {content: share(s, page) for page, content in ((0, 1), (1, 2), (2, 3), (4, 4), (5, 5))}
    fault.zap_pages(s, 0, 2)
    fault.zap_pages(s, 4, 5)
    hotplug.check_stable_tree(s, HERE)
    assert [s.nodes[nodes[content], state.WHERE] == state.FREE for content in (1, 2, 3, 4, 5)] == [
        True,
        True,
        False,
        False,
        False,
    ]
    assert (shape_of(s, 0), shape_of(s, 1)) == (3, (None, 4, -5))
    assert s.trees[state.STABLE_HOT].tolist() == [0, 1]
    assert shares(s) == (3, 0, 0)
    assert_sane(s)


def test_it_is_the_frames_node_that_counts_and_not_the_trees() -> None:
    s = two_homes((1, 2))
    went, stayed = share(s, 0), share(s, 1)
    assert move(s, 0, 1) == [THERE]  # mainline: its node stays in the tree of HERE
    fault.zap_pages(s, 0, 2)
    hotplug.check_stable_tree(s, THERE)
    assert dups_at(s, 0, 1) == []
    assert dups_at(s, 0, 2) == [stayed]
    assert s.nodes[went, state.WHERE] == state.FREE
    assert_sane(s)


def test_where_pages_merge_across_nodes_all_are_in_one_tree_and_it_goes_by_the_frame_too() -> None:
    s = two_homes((1,), (2, 3), merge_across_nodes=1)
    nodes = [share(s, page) for page in (0, 4, 5)]
    fault.zap_pages(s, 0, 1)
    fault.zap_pages(s, 4, 5)
    hotplug.check_stable_tree(s, THERE)
    assert [dups_at(s, 0, content) for content in (1, 2, 3)] == [[nodes[0]], [], [nodes[2]]]
    assert_sane(s)


def test_stale_dups_leave_their_chain_and_a_chain_of_one_stays_a_chain() -> None:
    s = two_homes((3, 3, 3))
    dups = [share(s, page) for page in (0, 1, 2)]
    fault.zap_pages(s, 0, 1)
    fault.zap_pages(s, 2, 3)
    hotplug.check_stable_tree(s, HERE)
    assert dups_at(s, 0, 3) == [dups[1]]
    assert stable_node.is_chain(s, int(s.by_content[0, 3, state.STABLE_AT]))
    assert counted(s, "stable_node_chains", "stable_node_dups") == [1, 1]
    assert_sane(s)


@pytest.mark.parametrize("emptied_before", [False, True])
def test_a_chain_that_is_empty_goes(emptied_before: bool) -> None:
    s = two_homes((3, 3))
    dups = [share(s, page) for page in (0, 1)]
    fault.zap_pages(s, 0, 2)
    if emptied_before:
        for dup in dups:
            stable_chain.remove_node_from_stable_tree(s, dup)
    hotplug.check_stable_tree(s, THERE if emptied_before else HERE)
    assert shape_of(s) is None
    assert counted(s, "stable_node_chains", "stable_node_dups") == [0, 0]
    assert s.trees[[state.STABLE_HOT, state.STABLE_CHAINS]].tolist() == [[0, 0], [0, 0]]
    assert_sane(s)


def test_stale_nodes_on_migrate_nodes_go_as_well() -> None:
    s = two_homes((3, 4, 5))
    nodes = [share(s, page) for page in (0, 1, 2)]
    for node in nodes:
        stable_chain.tree_erase(s, node)
        stable_tree.put_on_migrate_list(s, node)
    fault.zap_pages(s, 0, 1)
    fault.zap_pages(s, 2, 3)
    hotplug.check_stable_tree(s, THERE)
    assert s.scan[Scan.MIGRATE_FIRST] == nodes[2]
    hotplug.check_stable_tree(s, HERE)
    assert s.scan[Scan.MIGRATE_FIRST] == nodes[1]
    assert s.nodes[nodes, state.WHERE].tolist() == [state.FREE, state.IN_MIGRATE, state.FREE]
    assert_sane(s)


def test_rmap_items_of_stale_nodes_are_forgotten() -> None:
    s = two_homes((3, 3))
    node = share(s, 0, 1)
    fault.zap_pages(s, 0, 2)
    assert items_of(s, node) == [1, 0]
    assert shares(s) == (1, 1, 0)
    hotplug.check_stable_tree(s, HERE)
    assert shares(s) == (0, 0, 0)
    assert s.page_bytes[:2, state.ITEM_FLAGS].tolist() == [state.ITEM] * 2
    assert_sane(s)


def test_nodes_leave_the_tree_in_the_order_of_their_contents_which_shows_in_the_shape() -> None:
    s = tiny_state()
    fill(s, 2, 3, 1, 4)
    for page in range(4):
        share(s, page)
    assert shape_of(s) == (1, 2, (None, 3, -4))
    fault.zap_pages(s, 1, 3)
    hotplug.check_stable_tree(s, HERE)
    assert shape_of(s) == (-2, 4, None)  # first 3, then 1, it would be (None, 2, -4)
    assert node_at(s, 3) == s.by_content[0, 4, state.STABLE_AT]


contents = st.integers(0, 15)


@settings(max_examples=200)
@given(
    st.sets(st.integers(0, 40), min_size=16, max_size=16), st.lists(contents, unique=True), st.sets(contents), st.sets(contents)
)
def test_the_shape_that_is_left_is_that_of_linuxs_walk_over_the_tree(
    places: set[int], held: list[int], stale: set[int], in_chain: set[int]
) -> None:
    rank = sorted(places)
    s = state.allocate(n_pages=1, n_mms=1, n_nids=1, n_dup=16, rank=np.array(rank, np.uint32), checksum_class=None)
    s.knobs[Knob.MERGE_ACROSS_NODES] = 1
    twin = TwinTree(tuple(rank))
    for content in held:
        node = int(stable_node.alloc_stable_node(s, content, 0, 0))
        stable_chain.tree_insert(s, node, 0)
        twin.insert(content)
        if content in in_chain:
            stable_chain.alloc_stable_node_chain(s, node)
        if content in stale:
            stable_node.kpfn_gone(s, node, 0)
    hotplug.check_stable_tree(s, 0)
    for content in sorted(stale & set(held)):
        twin.erase(content)
    assert twin.links_of(s, 0) == twin.links()
    assert s.trees[state.STABLE_ROOT, 0] == (0 if twin.root is None else twin.root + 1)
    assert s.trees[state.STABLE_LOGGED, 0] == 0
    assert np.flatnonzero(s.by_content[0, :, state.STABLE_AT]).tolist() == sorted(twin.nodes)
