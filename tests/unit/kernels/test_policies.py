"""Is each step right in the policies that leave, put or merge a moved KSM page's node, and in what all policies have in common?

mm 0 is at home on node 0 (HERE), mm 1 on node 1 (THERE); pages of content 3 move from HERE to THERE. In which order a move
looks at what may be in its way is in test_move_pages.py; v4 and break_cow are in test_policies_apart.py, the policies for which
ksmd moves pages in test_policies_of_ksmd.py.
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
    free_pfns,
    items_of,
    move,
    moves,
    nids_of,
    node_counters,
    share,
    two_homes,
)
from unit.kernels.tiny import fill, frames_of, shape_of, shares, visit

from ksmbatch import state
from ksmbatch.codes import Policy
from ksmbatch.kernels import fault, rmap_item, stable_chain, stable_tree
from ksmbatch.state import NIL, NO_FRAME, Scan

ALL = list(Policy)
PLACING = [Policy.MERGE_ON_MIGRATE, Policy.SUBSTITUTE]
N = int(NO_FRAME)
MOVED = {"frames_moved": 1, "ksm_frames_moved": 1}


# what all have in common


@pytest.mark.parametrize("policy", [policy for policy in ALL if policy != Policy.NUKSM])
def test_where_pages_merge_across_nodes_a_page_just_moves(policy: Policy) -> None:
    s = two_homes((3, 3), (3, 3), policy, merge_across_nodes=1)
    node, twin = share(s, 0, 1), share(s, 4, 5)
    assert move(s, 0, 1) == [THERE]
    assert moves(s) == MOVED
    assert nids_of(s, 0, 1) == [THERE, THERE]
    assert dups_at(s, 0, 3) == [twin, node]
    assert shares(s) == (2, 2, 0)
    assert_sane(s)


@pytest.mark.parametrize("policy", ALL)
def test_a_page_that_is_no_ksm_page_just_moves(policy: Policy) -> None:
    s = two_homes((3, 3), (3, 3), policy)
    twin = share(s, 4, 5)
    assert move(s, 0, 2) == [THERE, THERE]
    assert moves(s) == {"frames_moved": 2}
    assert (dups_at(s, 0, 3), dups_at(s, 1, 3)) == ([], [twin])
    assert frames_of(s)[:2] == [0, 1]
    assert_sane(s)


def test_mainline_leaves_the_node_in_the_tree_of_the_node_where_the_page_was() -> None:
    s = two_homes((3, 3), (3, 3))
    node, twin = share(s, 0, 1), share(s, 4, 5)
    assert move(s, 0, 1) == [THERE]
    assert moves(s) == MOVED
    assert (dups_at(s, 0, 3), dups_at(s, 1, 3)) == ([node], [twin])
    assert nids_of(s, 0, 1) == [THERE, THERE]
    assert shares(s) == (2, 2, 0)
    assert_sane(s)


# substitute, merge_on_migrate: the same outcome


@pytest.mark.parametrize("policy", PLACING)
def test_where_there_is_no_twin_the_node_goes_to_the_new_nodes_tree(policy: Policy) -> None:
    s = two_homes((3, 3), (2, 2), policy)
    node, other = share(s, 0, 1), share(s, 4, 5)
    assert move(s, 0, 1) == [THERE]
    assert moves(s) == MOVED | {"migrate_inserted": 1}
    assert (dups_at(s, 0, 3), dups_at(s, 1, 3), dups_at(s, 1, 2)) == ([], [node], [other])
    assert (shape_of(s, 0), shape_of(s, 1)) == (None, (None, 2, -3))
    assert s.nodes[node, [state.NID, state.WHERE, state.KPFN]].tolist() == [THERE, state.IN_TREE, 0]
    assert items_of(s, node) == [1, 0]
    assert shares(s) == (2, 2, 0)
    assert_sane(s)
    before = s.nodes.tolist()
    visit(s, 2)  # and ksmd finds nothing to do
    assert s.nodes.tolist() == before
    assert_sane(s)


@pytest.mark.parametrize("policy", PLACING)
def test_where_a_twin_has_room_all_mappings_become_the_twins_and_items_join_it_each_first(policy: Policy) -> None:
    s = two_homes((3, 3), (3, 3), policy, max_page_sharing=4)
    node, twin = share(s, 0, 1), share(s, 4, 5)
    merging = s.mms[:, state.MERGING].tolist()
    assert (items_of(s, node), items_of(s, twin)) == ([1, 0], [5, 4])
    assert move(s, 0, 1) == [THERE]
    copies = {"migrate_copies": 1} if policy == Policy.MERGE_ON_MIGRATE else {}
    assert moves(s) == MOVED | {"migrate_merged": 1} | copies
    assert items_of(s, twin) == [0, 1, 5, 4]
    assert frames_of(s) == [4, 4, N, N, 4, 4, N, N]
    assert (dups_at(s, 0, 3), dups_at(s, 1, 3)) == ([], [twin])
    assert s.nodes[node, state.WHERE] == state.FREE
    assert shares(s) == (1, 3, 0)
    assert s.mms[:, state.MERGING].tolist() == merging == [2, 2]
    assert node_counters(s) == {"mapped_pages": [2, 2], "frames": [0, 1], "ksm_frames": [0, 1], "remote_mappings": [2, 0]}
    assert_sane(s)


@pytest.mark.parametrize("policy", PLACING)
def test_a_page_that_moves_after_its_twin_was_merged_is_there_already(policy: Policy) -> None:
    s = two_homes((3, 3), (3, 3), policy)
    share(s, 0, 1)
    share(s, 4, 5)
    assert move(s, 0, 2) == [THERE, THERE]
    assert counted(s, "migrate_merged", "ksm_frames_moved") == [1, 1]


@pytest.mark.parametrize("policy", PLACING)
def test_without_room_for_all_the_node_becomes_the_first_dup_beside_its_twin(policy: Policy) -> None:
    s = two_homes((3, 3), (3, 3), policy, max_page_sharing=3)
    node, twin = share(s, 0, 1), share(s, 4, 5)
    assert move(s, 0, 1) == [THERE]
    assert moves(s) == MOVED | {"migrate_chained": 1}
    assert (dups_at(s, 0, 3), dups_at(s, 1, 3)) == ([], [node, twin])
    assert chains(s) == [1, 2]
    assert s.nodes[[node, twin], state.NID].tolist() == [THERE, THERE]
    assert nids_of(s, 0, 4) == [THERE, THERE]
    assert frames_of(s)[0::4] == [0, 4]
    assert shares(s) == (2, 2, 0)
    assert_sane(s)


@pytest.mark.parametrize("policy", PLACING)
def test_where_there_is_a_chain_the_first_dup_in_it_that_is_in_use_and_has_room_takes_all(policy: Policy) -> None:
    s = two_homes((3, 3), (3,) * 8, policy, pages_per_mm=8, max_page_sharing=4)
    node = share(s, 0, 1)
    last, fits, empty, full = share(s, 15), share(s, 13, 14), share(s, 12), share(s, 8, 9, 10)
    rmap_item.remove_rmap_item_from_tree(s, 12)  # no item: no candidate, though its frame is mapped
    assert dups_at(s, 1, 3) == [full, empty, fits, last]
    assert move(s, 0, 1) == [THERE]
    assert moves(s)["migrate_merged"] == 1
    assert items_of(s, fits) == [0, 1, 14, 13]
    assert dups_at(s, 1, 3) == [full, empty, fits, last]
    assert s.nodes[node, state.WHERE] == state.FREE
    assert_sane(s)


@pytest.mark.parametrize("policy", PLACING)
def test_a_chain_of_full_dups_gets_one_more_in_front(policy: Policy) -> None:
    s = two_homes((3, 3), (3,) * 4, policy, max_page_sharing=2)
    node = share(s, 0, 1)
    twins = [share(s, 6, 7), share(s, 4, 5)]
    assert move(s, 0, 1) == [THERE]
    assert moves(s) == MOVED | {"migrate_chained": 1}
    assert dups_at(s, 1, 3) == [node, twins[1], twins[0]]
    assert chains(s) == [1, 3]
    assert_sane(s)


@pytest.mark.parametrize("policy", PLACING)
def test_a_stale_twin_is_removed_and_the_node_put_into_the_tree(policy: Policy) -> None:
    s = two_homes((3, 3), (3, 3), policy)
    node, twin = share(s, 0, 1), share(s, 4, 5)
    fault.zap_pages(s, 4, 6)
    assert move(s, 0, 1) == [THERE]
    assert moves(s) == MOVED | {"migrate_inserted": 1}
    assert dups_at(s, 1, 3) == [node]
    assert s.nodes[twin, state.WHERE] == state.FREE
    assert s.trees[state.STABLE_HOT].tolist() == [0, 0]
    assert shares(s) == (1, 1, 0)
    assert s.mms[:, state.MERGING].tolist() == [2, 0]
    assert_sane(s)


@pytest.mark.parametrize("policy", PLACING)
def test_of_a_chain_all_stale_dups_are_removed_and_it_goes_if_none_is_left(policy: Policy) -> None:
    s = two_homes((3, 3), (3, 3), policy)
    node = share(s, 0, 1)
    share(s, 4)
    share(s, 5)
    assert chains(s) == [1, 2]
    fault.zap_pages(s, 4, 6)
    assert move(s, 0, 1) == [THERE]
    assert moves(s) == MOVED | {"migrate_inserted": 1}
    assert dups_at(s, 1, 3) == [node]
    assert shape_of(s, 1) == 3
    assert chains(s) == [0, 0]
    assert_sane(s)


@pytest.mark.parametrize("policy", PLACING)
def test_a_chain_with_one_dup_left_is_left_as_it_is(policy: Policy) -> None:
    s = two_homes((3, 3), (3, 3, 3), policy)
    share(s, 0, 1)
    share(s, 4)
    left = share(s, 5)
    share(s, 6)
    fault.zap_pages(s, 4, 5)
    fault.zap_pages(s, 6, 7)
    assert move(s, 0, 1) == [THERE]
    assert moves(s)["migrate_merged"] == 1
    assert dups_at(s, 1, 3) == [left]
    assert items_of(s, left) == [0, 1, 5]
    assert chains(s) == [1, 1]
    assert_sane(s)


@pytest.mark.parametrize("policy", PLACING)
def test_stale_nodes_of_other_contents_are_not_looked_at(policy: Policy) -> None:
    s = two_homes((3, 3), (2, 4), policy)
    share(s, 0, 1)
    others = [share(s, 4), share(s, 5)]
    fault.zap_pages(s, 4, 6)
    assert move(s, 0, 1) == [THERE]
    assert [dups_at(s, 1, content) for content in (2, 4)] == [[node] for node in others]
    assert s.trees[state.STABLE_HOT].tolist() == [0, 2]
    assert_sane(s)


@pytest.mark.parametrize("policy", PLACING)
@pytest.mark.parametrize("twins", [0, 2])
def test_a_dup_leaves_its_chain_to_the_others(policy: Policy, twins: int) -> None:
    s = two_homes((3, 3, 3), (3,) * twins, policy, max_page_sharing=3)
    stays, goes = share(s, 2), share(s, 0, 1)
    twin = [share(s, 4, 5)] if twins else []
    assert move(s, 0, 1) == [THERE]
    assert (dups_at(s, 0, 3), dups_at(s, 1, 3)) == ([stays], [goes, *twin])
    assert chains(s) == ([2, 3] if twins else [1, 1])
    assert_sane(s)


@pytest.mark.parametrize("policy", PLACING)
@pytest.mark.parametrize("twins", [0, 2])
def test_a_node_that_waits_on_migrate_nodes_need_not_wait_any_longer(policy: Policy, twins: int) -> None:
    s = two_homes((3, 3), (3,) * twins, policy)
    node = share(s, 0, 1)
    twin = [share(s, 4, 5)] if twins else []
    stable_chain.tree_erase(s, node)
    stable_tree.put_on_migrate_list(s, node)
    assert move(s, 0, 1) == [THERE]
    assert s.scan[Scan.MIGRATE_FIRST] == NIL
    assert dups_at(s, 1, 3) == (twin or [node])
    assert_sane(s)


@pytest.mark.parametrize("policy", PLACING)
def test_items_whose_pages_do_not_map_the_frame_any_more_join_the_twin_as_well(policy: Policy) -> None:
    s = two_homes((3, 3, 3), (3,), policy)
    share(s, 0, 1, 2)
    twin = share(s, 4)
    fill(s, None, 5)  # page 1 is written; ksmd has not passed since
    assert move(s, 0, 1) == [THERE]
    assert items_of(s, twin) == [0, 1, 2, 4]
    assert frames_of(s)[:3] == [4, 1, 4]
    assert s.frames[4, state.MAPCOUNT] == 3
    assert nids_of(s, 1) == [HERE]
    assert shares(s) == (1, 3, 0)
    assert_sane(s)


@pytest.mark.parametrize("policy", PLACING)
def test_such_items_count_for_the_room_that_is_needed(policy: Policy) -> None:
    s = two_homes((3, 3, 3), (3,), policy, max_page_sharing=3)
    node = share(s, 0, 1, 2)
    twin = share(s, 4)
    fill(s, None, 5)
    assert move(s, 0, 1) == [THERE]
    assert dups_at(s, 1, 3) == [node, twin]


@pytest.mark.parametrize("policy", PLACING)
@pytest.mark.parametrize(("free_there", "numbers"), [(True, [2]), (False, [3])])
def test_a_merge_takes_a_pfn_there_and_gives_it_back(policy: Policy, free_there: bool, numbers: list[int]) -> None:
    s = two_homes((3, 3), (3, 5), policy, keep_pfns=True)
    share(s, 0, 1)  # on pfn 1; pfn 2 is free
    share(s, 4)
    if free_there:
        fault.zap_pages(s, 5, 6)
    assert move(s, 0, 1) == [THERE]
    assert free_pfns(s, THERE) == numbers
    assert free_pfns(s, HERE) == [1, 2]
    assert s.frame_pfns[4] == 1
    assert_sane(s)


@pytest.mark.parametrize("policy", PLACING)
def test_relatives_of_a_fork_map_the_twin_as_well_and_need_no_room(policy: Policy) -> None:
    # pages 0 and 1 of the parent are at home HERE, 2 and 3 THERE; the child has the same, without rmap_items
    s = two_homes((), (), policy, max_page_sharing=4)
    s.page_bytes[2:4, state.PAGE_NID] = THERE
    fill(s, 3, 3, 3, 3)
    share(s, 0, 1)
    twin = share(s, 2, 3)
    relatives = fork(s)
    assert move(s, 4, 5, of=relatives) == [THERE]  # it is asked for by the child
    assert moves(s)["migrate_merged"] == 1
    assert frames_of(s) == [2] * 8
    assert items_of(s, twin) == [0, 1, 3, 2]
    assert s.frames[2, state.MAPCOUNT] == 8
    assert node_counters(s)["remote_mappings"] == [4, 0]
    assert shares(s) == (1, 3, 0)
    assert_sane(s)


@pytest.mark.parametrize("policy", PLACING)
def test_relatives_of_a_fork_follow_a_page_that_is_put_into_the_tree(policy: Policy) -> None:
    s = two_homes((3, 3), (), policy)
    node = share(s, 0, 1)
    relatives = fork(s)
    assert move(s, 0, 1, of=relatives) == [THERE]
    assert frames_of(s)[0::4] == [0, 0]
    assert dups_at(s, 1, 3) == [node]
    assert node_counters(s)["remote_mappings"] == [4, 0]
    assert_sane(s)


@pytest.mark.parametrize(
    ("policy", "merges", "cost_ns"),
    [
        (Policy.MAINLINE, True, 1000 + 10),
        (Policy.V4, True, 1000 + 10 + 1),
        (Policy.SUBSTITUTE, False, 1000 + 10 + 1),
        (Policy.MERGE_ON_MIGRATE, False, 1000 + 10 + 1),
        (Policy.SUBSTITUTE, True, 1000 - 300 + 10 + 1),  # nothing is copied
        (Policy.MERGE_ON_MIGRATE, True, 1000 + 10 + 1 + 2 * 10),  # and all mappings once more
        (Policy.BREAK_COW, True, 2 * 100_000),
    ],
)
def test_a_move_of_two_mappings_costs_what_the_policy_makes_of_it(policy: Policy, merges: bool, cost_ns: int) -> None:
    s = two_homes((3, 3), (3 if merges else 2,), policy, move_ns=1000, copy_ns=300, remap_ns=10, tree_ns=1, cow_ns=100_000)
    share(s, 0, 1)
    share(s, 4)
    assert move(s, 0, 1) == [THERE]
    assert counted(s, "move_cpu_ns") == [cost_ns]
