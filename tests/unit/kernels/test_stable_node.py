"""Is each step right in the pool of stable nodes? Slots, lists, lengths, and what a walk would change.

Their members are in test_members.py; what ksmd does with stable nodes is in test_stable_tree.py.
"""

import pytest
from unit.kernels.tiny import tiny_state

from ksmbatch import state
from ksmbatch.kernels import stable_chain, stable_tree
from ksmbatch.kernels import stable_node as pool
from ksmbatch.state import NIL, NO_FRAME, Scan, State


def a_node(s: State, content: int = 3, frame: int = 0, nid: int = 0) -> int:
    return int(pool.alloc_stable_node(s, content, frame, nid))


def a_chain(s: State, n_dups: int, length: int = 2) -> tuple[int, list[int]]:
    """A chain in the tree of node 0 with dups of `length` members each (only their number); the list of dups, first first."""
    first = a_node(s, frame=0)
    s.nodes[first, state.LEN] = length
    stable_chain.tree_insert(s, first, 0)
    chain = int(stable_chain.alloc_stable_node_chain(s, first))
    dups = [first]
    for frame in range(1, n_dups):
        dup = a_node(s, frame=frame)
        s.nodes[dup, state.LEN] = length
        stable_chain.add_dup(s, dup, chain)
        dups.insert(0, dup)
    return chain, dups


def list_of(s: State, first: int) -> list[int]:
    """The list from `first` on, checked to be linked back as well."""
    found, before, slot = [], int(NIL), first
    while slot != NIL:
        assert s.nodes[slot, state.PREV] == before
        found.append(slot)
        before, slot = slot, int(s.nodes[slot, state.NEXT])
    return found


def test_slots_are_given_out_in_order_and_the_one_freed_last_comes_back_first() -> None:
    s = tiny_state()
    assert [a_node(s) for _ in range(3)] == [1, 2, 3]  # 0 is nobody's
    pool.free_stable_node(s, 1)
    pool.free_stable_node(s, 3)
    assert [a_node(s) for _ in range(3)] == [3, 1, 4]


def test_a_slot_that_comes_back_remembers_nothing() -> None:
    s = tiny_state()
    node = a_node(s, content=5, frame=7, nid=1)
    s.nodes[node, [state.LEN, state.FIRST, state.PREV, state.SETTLED, state.FOUND]] = 9
    pool.free_stable_node(s, node)
    assert a_node(s, content=2, frame=4, nid=0) == node
    row = dict.fromkeys(range(state.NODE_COLUMNS), 0) | {state.CONTENT: 2, state.KPFN: 4}
    assert s.nodes[node].tolist() == list(row.values())


@pytest.mark.parametrize("gone", [0, 1, 2])
def test_a_dup_may_leave_from_anywhere(gone: int) -> None:
    s = tiny_state()
    chain, dups = a_chain(s, 3)
    pool.unlink_dup(s, chain, dups[gone])
    assert list_of(s, int(s.nodes[chain, state.FIRST])) == dups[:gone] + dups[gone + 1 :]


@pytest.mark.parametrize("gone", [0, 1, 2])
def test_a_node_may_leave_migrate_nodes_from_anywhere(gone: int) -> None:
    s = tiny_state()
    waiting = [a_node(s) for _ in range(3)]
    for node in waiting:
        pool.push_migrate(s, node)
    assert list_of(s, int(s.scan[Scan.MIGRATE_FIRST])) == waiting[::-1]
    pool.unlink_migrate(s, waiting[gone])
    assert list_of(s, int(s.scan[Scan.MIGRATE_FIRST])) == [node for node in waiting[::-1] if node != waiting[gone]]


@pytest.mark.parametrize(
    ("length", "now", "and_one_more"), [(0, False, False), (1, True, True), (2, True, False), (3, False, False)]
)
def test_a_node_has_room_below_max_page_sharing_if_it_is_not_empty(length: int, now: bool, and_one_more: bool) -> None:
    s = tiny_state(max_page_sharing=3)
    node = a_node(s)
    s.nodes[node, state.LEN] = length
    rooms = [bool(pool.is_page_sharing_candidate(s, node, offset)) for offset in (pool.NOW, pool.AND_ONE_MORE)]
    assert rooms == [now, and_one_more]


def test_a_chain_knows_how_many_of_its_dups_have_room() -> None:
    s = tiny_state(max_page_sharing=3)
    chain, dups = a_chain(s, 3)
    assert s.nodes[chain, state.ROOMY_DUPS] == 3
    pool.change_length(s, dups[1], 1)  # full
    assert s.nodes[chain, state.ROOMY_DUPS] == 2
    pool.change_length(s, dups[1], -1)
    pool.change_length(s, dups[1], -1)
    pool.change_length(s, dups[1], -1)  # empty: no room either
    assert s.nodes[chain, state.ROOMY_DUPS] == 2


def test_a_chain_is_hot_until_it_settles_and_again_when_a_dup_changes() -> None:
    s = tiny_state()
    chain, dups = a_chain(s, 2)
    hot = s.trees[state.STABLE_HOT]
    assert hot.tolist() == [1, 0]
    pool.settle(s, chain, state.SETTLED_PRUNED)
    pool.settle(s, chain, state.SETTLED_UNPRUNED)
    assert hot.tolist() == [0, 0]
    pool.change_length(s, dups[0], 1)
    pool.change_length(s, dups[0], 1)
    assert hot.tolist() == [1, 0]


@pytest.mark.parametrize("known", [False, True])  # where room begins, and which of those with room is fullest
@pytest.mark.parametrize("length", [1, 2, 3])
def test_the_only_dup_with_room_that_is_the_first_grows_as_any_other(length: int, known: bool) -> None:
    machines = tiny_state(max_page_sharing=4), tiny_state(max_page_sharing=4)
    for s, grow in zip(machines, (pool.change_length, pool.lengthen_first), strict=True):
        chain, dups = a_chain(s, 3, length=3)
        for dup in dups[1:]:
            pool.change_length(s, dup, 1)  # full
        for _ in range(3 - length):
            pool.change_length(s, dups[0], -1)
        assert s.nodes[chain, state.ROOMY_DUPS] == 1
        if known:
            assert [pool.first_with_room(s, chain), pool.fullest_with_room(s, chain)] == [dups[0]] * 2
        grow(s, *((dups[0], 1) if grow is pool.change_length else (chain, dups[0])))
    columns = [state.LEN, state.FIRST, state.SETTLED, state.FOUND, state.STALE_DUPS, state.ROOMY_DUPS]
    assert machines[0].nodes[:, columns].tolist() == machines[1].nodes[:, columns].tolist()
    assert machines[0].trees.tolist() == machines[1].trees.tolist()
    answers = []
    for s in machines:  # when others have room again
        pool.change_length(s, dups[2], -1)
        answers.append((int(pool.first_with_room(s, chain)), int(pool.fullest_with_room(s, chain))))
    assert answers[0] == answers[1]


def test_a_plain_node_whose_frame_goes_makes_its_tree_hot() -> None:
    s = tiny_state()
    node = a_node(s, nid=1)
    stable_chain.tree_insert(s, node, 1)
    pool.kpfn_gone(s, node, 1)
    assert s.nodes[node, state.KPFN] == NO_FRAME
    assert s.trees[state.STABLE_HOT].tolist() == [0, 1]


def test_a_dup_whose_frame_goes_is_stale_and_has_no_room() -> None:
    s = tiny_state()
    chain, dups = a_chain(s, 3)
    pool.settle(s, chain, state.SETTLED_PRUNED)
    pool.kpfn_gone(s, dups[2], 0)
    assert s.nodes[chain, [state.STALE_DUPS, state.ROOMY_DUPS, state.SETTLED]].tolist() == [1, 2, state.UNSETTLED]
    assert s.trees[state.STABLE_HOT].tolist() == [1, 0]


def test_a_node_on_migrate_nodes_whose_frame_goes_is_in_no_walks_way() -> None:
    s = tiny_state()
    node = a_node(s)
    stable_tree.put_on_migrate_list(s, node)
    pool.kpfn_gone(s, node, 0)
    assert s.trees[state.STABLE_HOT].tolist() == [0, 0]


@pytest.mark.parametrize("nid", [0, 1])
def test_a_stale_node_remembers_which_numa_node_had_its_frame_whatever_its_tree(nid: int) -> None:
    s = tiny_state()
    node = a_node(s, nid=0)
    stable_chain.tree_insert(s, node, 0)
    pool.kpfn_gone(s, node, nid)
    assert s.nodes[node, [state.NID, state.LAST_NID]].tolist() == [0, nid]
    assert s.trees[state.STABLE_HOT].tolist() == [1, 0]
