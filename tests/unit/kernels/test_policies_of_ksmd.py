"""Is each step right in the policies under which ksmd moves KSM pages when it passes, and others may hardly?

mm 0 is at home on node 0 (HERE), mm 1 on node 1 (THERE).
"""

import pytest
from unit.kernels.moving import (
    HERE,
    THERE,
    assert_sane,
    chains,
    counted,
    dups_at,
    fork,
    items_of,
    move,
    moves,
    nids_of,
    node_at,
    node_counters,
    share,
    two_homes,
)
from unit.kernels.tiny import fill, frames_of, shares, visit

from ksmbatch import state
from ksmbatch.codes import Caller, Move, Policy
from ksmbatch.kernels import fault, stable_tree
from ksmbatch.metrics import Counter
from ksmbatch.state import NO_FRAME, Knob

MOVED = {"frames_moved": 1, "ksm_frames_moved": 1}


# when somebody asks


@pytest.mark.parametrize(
    ("homes", "present", "home"),
    [
        ((0, 0, 1), 1, 0),
        ((0, 1, 1), 0, 1),
        ((0, 0, 1, 1), 0, 0),  # a tie: where it is
        ((0, 0, 1, 1), 1, 1),
        ((1, 2), 0, 1),  # a tie among others: the lowest
        ((2, 1), 0, 1),
        ((0, 1, 2, 2), 0, 2),
        ((1, 1, 2, 2), 2, 2),
    ],
)
def test_the_home_of_a_page_is_where_most_who_map_it_are_at_home(homes: tuple[int, ...], present: int, home: int) -> None:
    s = two_homes(policy=Policy.NUKSM, n_nids=3)
    s.page_bytes[: len(homes), state.PAGE_NID] = present
    fill(s, *[3] * len(homes))
    share(s, *range(len(homes)))
    fault.rebind_pages(s, 0, len(homes), 0)
    for page, nid in enumerate(homes):
        fault.rebind_pages(s, page, page + 1, nid)
    for nid in {0, 1, 2} - {home, present}:
        assert move(s, 0, 1, nid) == [Move.LEFT]
    assert moves(s) == {}
    assert move(s, 0, 1, home) == [home]
    assert nids_of(s, 0) == [home]
    assert_sane(s)


def test_the_home_of_a_page_is_not_asked_of_items_that_do_not_map_it_any_more() -> None:
    s = two_homes((3, 3, 3), (3, 3), Policy.NUKSM)
    move(s, 4, 6, HERE)
    share(s, 0, 1, 2, 4, 5)
    assert move(s, 0, 1) == [Move.LEFT]
    fill(s, 5, 5)
    assert move(s, 2, 3) == [THERE]


@pytest.mark.parametrize("merge_across_nodes", [0, 1])
def test_a_page_leaves_its_home_for_memory_hotremove_only(merge_across_nodes: int) -> None:
    s = two_homes((3, 3), (3,), Policy.NUKSM, merge_across_nodes=merge_across_nodes)
    share(s, 0, 1)
    for caller in Caller:
        if caller != Caller.HOTREMOVE:
            assert move(s, 0, 1, caller=caller) == [Move.LEFT]
    assert move(s, 0, 1, caller=Caller.HOTREMOVE) == [THERE]
    assert moves(s) == MOVED | ({} if merge_across_nodes else {"migrate_inserted": 1})
    assert_sane(s)


@pytest.mark.parametrize(
    ("max_page_sharing", "outcome"), [(256, "migrate_merged"), (2, "migrate_chained"), (0, "migrate_inserted")]
)
def test_a_page_that_goes_home_goes_as_under_substitute(max_page_sharing: int, outcome: str) -> None:
    s = two_homes((), (3, 3, 3), Policy.NUKSM, max_page_sharing=max_page_sharing)
    move(s, 4, 6, HERE)
    share(s, 4, 5)
    if max_page_sharing:
        share(s, 6)
    assert move(s, 4, 5) == [THERE]
    assert counted(s, outcome, "ksm_frames_moved", "migrate_copies") == [1, 1, 0]
    assert_sane(s)


def test_a_ksm_page_without_a_stable_node_is_at_home_where_it_is() -> None:
    s = two_homes((3,), policy=Policy.NUKSM)
    stable_tree.mark_ksm(s, 0)
    assert move(s, 0, 1) == [Move.LEFT]
    assert move(s, 0, 1, caller=Caller.HOTREMOVE) == [Move.STUCK]


def test_replicate_moves_nothing_but_for_memory_hotremove_which_cannot_wait() -> None:
    s = two_homes((3, 3), (3,), Policy.REPLICATE)
    share(s, 0, 1)
    twin = share(s, 4)
    for caller in Caller:
        if caller != Caller.HOTREMOVE:
            assert move(s, 0, 1, caller=caller) == [Move.LEFT]
    assert moves(s) == {}
    assert move(s, 0, 1, caller=Caller.HOTREMOVE) == [THERE]
    assert moves(s) == MOVED | {"migrate_merged": 1}
    assert items_of(s, twin) == [0, 1, 4]
    assert_sane(s)


def test_replicate_has_nothing_to_say_where_pages_merge_across_nodes() -> None:
    s = two_homes((3, 3), (), Policy.REPLICATE)
    s.knobs[Knob.MERGE_ACROSS_NODES] = 1
    share(s, 0, 1)
    assert move(s, 0, 1) == [THERE]


# nuksm: when ksmd passes


def strayed(homes: tuple[int, ...], **options: int) -> state.State:
    """Pages of content 3 with these homes share a KSM page on node 0, and ksmd visits them one by one from now on."""
    s = two_homes(policy=Policy.NUKSM, pages_to_scan=1, **options)
    fill(s, *[3] * len(homes))
    share(s, *range(len(homes)))
    for page, nid in enumerate(homes):
        fault.rebind_pages(s, page, page + 1, nid)
    return s


def test_a_page_follows_its_majority_when_ksmd_passes_the_first_of_its_items_and_not_before() -> None:
    s = strayed((0, 1, 1))
    node = node_at(s, 0)
    assert items_of(s, node) == [2, 1, 0]
    visit(s, 2)
    assert moves(s) == {}
    visit(s)
    assert moves(s) == MOVED | {"migrate_inserted": 1}
    assert nids_of(s, 0, 1, 2) == [THERE] * 3
    assert dups_at(s, 1, 3) == [node]
    assert node_counters(s)["remote_mappings"] == [1, 0]
    assert_sane(s)
    visit(s, 4)
    assert moves(s) == MOVED | {"migrate_inserted": 1}


def test_ksmd_leaves_a_page_that_is_at_home_in_its_place() -> None:
    s = strayed((0, 0, 1, 1))  # a tie
    visit(s, 4)
    assert moves(s) == {}
    assert nids_of(s, 0) == [HERE]


def test_ksmd_merges_what_it_moves_with_the_twin_there_and_the_visit_costs_what_it_would_have() -> None:
    s = strayed((1, 1), ksm_visit_ns=7)
    fill(s, 3, first=4)
    twin = share(s, 4)
    visit(s, 2)
    assert moves(s) == MOVED | {"migrate_merged": 1}
    assert items_of(s, twin) == [0, 1, 4]
    assert frames_of(s)[:2] == [4, 4]
    assert counted(s, "ksmd_cpu_ns", "pages_scanned") == [14, 2]
    assert_sane(s)


def test_ksmd_moves_no_page_to_a_node_that_is_full_or_offline() -> None:
    s = strayed((1, 1))
    s.numa[THERE, state.OFFLINE] = 1
    visit(s, 2)
    s.numa[THERE, state.OFFLINE] = 0
    s.numa[THERE, state.NODE_PAGES] = 1
    fill(s, 5, first=4)
    visit(s, 4)
    assert moves(s) == {}
    fault.zap_pages(s, 4, 5)
    visit(s, 4)
    assert moves(s) == MOVED | {"migrate_inserted": 1}


def test_ksmd_moves_no_page_of_which_it_does_not_know_all_mappings() -> None:
    s = strayed((1, 1, 1))
    fork(s)
    s.mms[1, state.MERGEABLE_VMAS] = 0  # ksmd passes the parent alone
    s.page_bytes[4:, state.PAGE_FLAGS] &= 0xFF & ~state.MERGEABLE
    visit(s, 5)
    assert moves(s) == {}
    fault.zap_pages(s, 4, 8)
    visit(s, 5)
    assert moves(s) == MOVED | {"migrate_inserted": 1}
    assert_sane(s)


def test_where_pages_merge_across_nodes_ksmd_just_moves_a_page() -> None:
    s = strayed((1, 1), merge_across_nodes=1)
    node = node_at(s, 0)
    visit(s, 2)
    assert moves(s) == MOVED
    assert nids_of(s, 0, 1) == [THERE, THERE]
    assert dups_at(s, 0, 3) == [node]
    assert_sane(s)


# replicate: when ksmd passes


def abroad(*there: int, here: int = 2, **options: int) -> state.State:
    """`here` pages at home on node 0 and one, page 4, on node 1 share a KSM page on node 0; mm 1 has `there` besides.

    ksmd visits pages one by one from now on.
    """
    s = two_homes((3,) * here, (3, *there), Policy.REPLICATE, pages_to_scan=1, **options)
    move(s, 4, 5, HERE)
    s.counters[Counter.FRAMES_MOVED] = 0
    share(s, *range(here), 4)
    return s


def test_a_mapping_from_another_node_gets_a_copy_of_its_own_node_when_ksmd_passes_it() -> None:
    s = abroad()
    old = node_at(s, 0)
    visit(s, 2)
    assert moves(s) == {}
    visit(s)
    assert moves(s) == {"migrate_allocations": 1}
    new = node_at(s, 4)
    assert new != old
    assert (items_of(s, old), items_of(s, new)) == ([1, 0], [4])
    assert (dups_at(s, 0, 3), dups_at(s, 1, 3)) == ([old], [new])
    assert (nids_of(s, 0, 1, 4), frames_of(s)[4]) == ([HERE, HERE, THERE], 4)
    assert s.frame_bytes[4, state.FRAME_FLAGS] == state.KSM
    assert shares(s) == (2, 1, 0)
    assert s.mms[:, state.MERGING].tolist() == [2, 1]
    assert node_counters(s) == {"mapped_pages": [2, 1], "frames": [1, 1], "ksm_frames": [1, 1], "remote_mappings": [0, 0]}
    assert_sane(s)
    visit(s, 4)
    assert moves(s) == {"migrate_allocations": 1}


def test_a_copy_that_is_there_already_is_joined_first_in_the_list() -> None:
    s = abroad(3)
    twin = share(s, 5)
    visit(s, 3)
    assert moves(s) == {}
    assert items_of(s, twin) == [4, 5]
    assert frames_of(s)[4:6] == [5, 5]
    assert shares(s) == (2, 2, 0)
    assert_sane(s)


def test_a_copy_with_room_for_one_more_is_joined_and_a_full_one_gets_a_dup_beside_it() -> None:
    s = abroad(3, 3, max_page_sharing=3)
    twin = share(s, 5, 6)
    visit(s, 3)
    assert items_of(s, twin) == [4, 6, 5]
    s = abroad(3, 3, 3, max_page_sharing=3)
    twin = share(s, 5, 6, 7)
    visit(s, 3)
    assert moves(s) == {"migrate_allocations": 1}
    assert dups_at(s, 1, 3) == [node_at(s, 4), twin]
    assert items_of(s, node_at(s, 4)) == [4]
    assert chains(s) == [1, 2]
    assert_sane(s)


def test_of_a_chain_there_the_first_dup_with_room_is_joined_and_stale_ones_go() -> None:
    s = abroad(3, 3, 3, max_page_sharing=3)
    dups = [share(s, page) for page in (7, 6, 5)]
    fault.zap_pages(s, 5, 6)
    visit(s, 3)
    assert moves(s) == {}
    assert dups_at(s, 1, 3) == [dups[1], dups[0]]
    assert items_of(s, dups[1]) == [4, 6]
    assert_sane(s)


@pytest.mark.parametrize("offline", [False, True])
def test_where_the_own_node_is_full_or_offline_a_page_stays_until_a_later_visit_and_only_full_is_a_failure(
    offline: bool,
) -> None:
    s = abroad() if offline else abroad(5)
    s.numa[THERE, [state.NODE_PAGES, state.OFFLINE]] = (0, 1) if offline else (1, 0)
    visit(s, 3)
    assert moves(s) == ({} if offline else {"migrate_failures": 1})
    assert nids_of(s, 4) == [HERE]
    assert items_of(s, node_at(s, 4)) == [4, 1, 0]
    assert_sane(s)
    s.numa[THERE, [state.NODE_PAGES, state.OFFLINE]] = 0
    visit(s, 5)
    assert nids_of(s, 4) == [THERE]


def test_a_full_node_is_no_obstacle_where_a_copy_has_room() -> None:
    s = abroad(3)
    share(s, 5)
    s.numa[THERE, state.NODE_PAGES] = 1
    visit(s, 3)
    assert nids_of(s, 4) == [THERE]
    assert moves(s) == {}


def test_the_last_mapping_that_leaves_frees_the_old_page_and_makes_its_node_stale() -> None:
    s = abroad(here=0)
    old = node_at(s, 4)
    visit(s)
    assert nids_of(s, 4) == [THERE]
    assert s.nodes[old, [state.KPFN, state.LEN, state.LAST_NID]].tolist() == [NO_FRAME, 0, HERE]
    assert dups_at(s, 0, 3) == [old]
    assert s.trees[state.STABLE_HOT].tolist() == [1, 0]
    assert shares(s) == (1, 0, 0)
    assert node_counters(s)["frames"] == [0, 1]
    assert_sane(s)


def test_where_pages_merge_across_nodes_ksmd_replicates_nothing() -> None:
    s = abroad(merge_across_nodes=1)
    visit(s, 3)
    assert moves(s) == {}
    assert nids_of(s, 4) == [HERE]
