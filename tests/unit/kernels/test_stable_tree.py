"""Is each step right in the stable trees? Look-ups, walks that drop what is stale, and which dup of a chain is taken.

The recordings show what all this comes to; the cases here are those whose outcome can be read off mm/ksm.c.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.kernels.tiny import fill, shape_of, tiny_state
from unit.kernels.twin_tree import TwinTree

from ksmbatch import state
from ksmbatch.codes import Kernel
from ksmbatch.kernels import fault, stable_chain, stable_node, stable_shape, stable_tree
from ksmbatch.kernels.stable_chain import MAY_PRUNE, NO_PRUNE
from ksmbatch.metrics import Counter
from ksmbatch.state import NIL, NO_FRAME, Knob, Scan, State

NEVER_MS = 100_000_000


def plant(s: State, *contents: int, length: int = 1) -> dict[int, int]:
    """Plain nodes in the tree of node 0, put in in this order; content -> node. The frame of content k is k."""
    planted = {}
    for content in contents:
        node = int(stable_node.alloc_stable_node(s, content, content, 0))
        s.nodes[node, state.LEN] = length
        stable_chain.tree_insert(s, node, 0)
        planted[content] = node
    return planted


def chain(s: State, *lengths: int, stale: tuple[int, ...] = ()) -> tuple[int, list[int]]:
    """A chain of content 3 whose dups have these lengths, in this order; those at the places `stale` have lost their frame."""
    dups = []
    head = int(NIL)
    for place in reversed(range(len(lengths))):
        if head == NIL:
            dup = plant(s, 3)[3]
            s.nodes[dup, [state.LEN, state.KPFN]] = lengths[place], place
            head = int(stable_chain.alloc_stable_node_chain(s, dup))
        else:
            dup = int(stable_node.alloc_stable_node(s, 3, place, 0))
            s.nodes[dup, state.LEN] = lengths[place]
            stable_chain.add_dup(s, dup, head)
        dups.insert(0, dup)
    for place in stale:
        stable_node.kpfn_gone(s, dups[place], 0)
    return head, dups


def dups_of(s: State, head: int) -> list[int]:
    found, dup = [], int(s.nodes[head, state.FIRST])
    while dup != NIL:
        found.append(dup)
        dup = int(s.nodes[dup, state.NEXT])
    return found


def hot_and_chains(s: State) -> list[int]:
    """Nodes in the tree of node 0 that a walk would change, and its chains."""
    counted: list[int] = s.trees[[state.STABLE_HOT, state.STABLE_CHAINS], 0].tolist()
    return counted


def walk(s: State, content: int, prune: int = MAY_PRUNE) -> tuple[int, int, int]:
    return tuple(map(int, stable_tree.stable_walk(s, 0, content, prune)))  # type: ignore[return-value]


@pytest.mark.parametrize("force_exact", [0, 1])
def test_every_content_is_found_where_it_hangs(force_exact: int) -> None:
    s = tiny_state(force_exact=force_exact)
    planted = plant(s, 4, 1, 5, 3)
    assert [walk(s, content) for content in (1, 3, 4, 5)] == [(k, planted[k], planted[k]) for k in (1, 3, 4, 5)]
    assert [walk(s, content) for content in (0, 2)] == [(NO_FRAME, NIL, NIL)] * 2


def test_a_walk_drops_the_stale_nodes_on_its_path_and_no_others() -> None:
    s = tiny_state(n_contents=8)
    planted = plant(s, 1, 2, 3, 4, 5, 6, 7)  # (1, 2, (3, 4, (5, 6, 7)))
    for content in (1, 4, 5):
        stable_node.kpfn_gone(s, planted[content], 0)
    assert s.trees[state.STABLE_HOT, 0] == 3
    assert walk(s, 7)[0] == 7  # by 2, 4 and 6; without 4, 5 stands in its place, which is stale as well
    left = [content for content in range(1, 8) if s.by_content[0, content, state.STABLE_AT] != NIL]
    assert left == [1, 2, 3, 6, 7]
    assert s.trees[state.STABLE_HOT, 0] == 1
    assert walk(s, 1)[0] == NO_FRAME
    assert s.trees[state.STABLE_HOT, 0] == 0


def test_the_first_dup_makes_a_chain_in_the_place_of_the_node() -> None:
    s = tiny_state()
    planted = plant(s, 1, 3, 5)
    assert shape_of(s) == (-1, 3, -5)
    assert s.by_content[0, 3, state.STABLE_AT] == planted[3]
    head = int(stable_chain.alloc_stable_node_chain(s, planted[3]))
    assert shape_of(s) == (-1, 3, -5)
    assert s.by_content[0, [1, 3, 5], state.STABLE_AT].tolist() == [planted[1], head, planted[5]]
    assert dups_of(s, head) == [planted[3]]
    assert s.counters[[Counter.STABLE_NODE_CHAINS, Counter.STABLE_NODE_DUPS]].tolist() == [1, 1]


def test_a_walk_has_to_look_at_chains_and_at_what_is_stale_and_passes_everything_else() -> None:
    s = tiny_state()
    planted = plant(s, 1, 2, 4)
    head, dups = chain(s, 2, 2)

    def looks() -> list[int]:
        stable_shape.build_stable_tree(s, 0)  # as every walk does first
        seen: list[int] = (np.flatnonzero(s.stable_links[0, :, state.LOOK]) - 1).tolist()
        return seen

    assert looks() == [3]
    stable_node.kpfn_gone(s, planted[2], 0)
    stable_node.kpfn_gone(s, dups[0], 0)
    assert looks() == [2, 3]
    assert walk(s, 3)[2] == dups[1]  # the chain is gone, and on the way to it 2
    assert s.nodes[head, state.WHERE] == state.FREE
    assert [s.by_content[0, 2, state.STABLE_AT], s.stable_links[0, 4, state.LOOK]] == [NIL, 0]
    plant(s, 2)
    assert looks() == []


# which dup is taken: (lengths of the dups, kernel, prunes, place of the one taken or None, is it then the first)
FULL = 4
CHOICES = [
    ((2, 3, 1), Kernel.V6_12, True, 1, False),  # the fullest with room; with one more it would be full, so it does not move
    ((1, 2, 1), Kernel.V6_12, True, 1, True),  # ... and moves to the front if it has room for two
    ((1, 2, 2), Kernel.V6_12, True, 1, True),  # the first of equals
    ((4, 1, 2), Kernel.V6_12, False, 1, True),  # without pruning the first with room
    ((1, 2, 2), Kernel.V6_12, False, 0, True),
    ((4, 4), Kernel.V6_12, True, 0, True),  # all full: the first
    ((4, 4), Kernel.V6_1, True, None, False),  # ... but on 6.1 none
    ((4, 1), Kernel.V6_1, False, 1, True),
]


@pytest.mark.parametrize(("lengths", "kernel", "prunes", "place", "leads"), CHOICES)
def test_a_walk_takes_the_right_dup_and_does_the_same_again(
    lengths: tuple[int, ...], kernel: Kernel, prunes: bool, place: int | None, leads: bool
) -> None:
    s = tiny_state(kernel, max_page_sharing=FULL)
    head, dups = chain(s, *lengths)
    for _ in range(3):  # the second time it may be settled
        frame, dup, node = walk(s, 3, MAY_PRUNE if prunes else NO_PRUNE)
        assert node == head
        assert dup == (NIL if place is None else dups[place])
        assert frame != NO_FRAME
    if leads:
        assert dups_of(s, head)[0] == dups[place or 0]
    else:
        assert dups_of(s, head) == dups


def test_stale_dups_go_when_a_walk_passes_them() -> None:
    s = tiny_state(max_page_sharing=FULL)
    head, dups = chain(s, 4, 2, 3, 1, stale=(0, 2))
    assert walk(s, 3)[1] == dups[1]
    assert dups_of(s, head) == [dups[1], dups[3]]
    assert s.nodes[head, [state.STALE_DUPS, state.ROOMY_DUPS]].tolist() == [0, 2]
    assert s.counters[Counter.STABLE_NODE_DUPS] == 2


def test_a_walk_that_may_not_prune_stops_at_the_first_dup_with_room() -> None:
    s = tiny_state(max_page_sharing=FULL, stable_node_chains_prune_millisecs=NEVER_MS)
    head, dups = chain(s, 2, 4, 4, stale=(1,))
    assert walk(s, 3)[1] == dups[0]
    assert dups_of(s, head) == dups  # the stale one behind it is still there
    assert s.nodes[head, state.STALE_DUPS] == 1


def test_the_last_dup_takes_the_place_of_its_chain() -> None:
    s = tiny_state(max_page_sharing=FULL)
    head, dups = chain(s, 2, 2, stale=(0,))
    assert walk(s, 3) == (1, dups[1], dups[1])
    assert s.by_content[0, 3, state.STABLE_AT] == dups[1]
    assert shape_of(s) == 3
    assert s.nodes[head, state.WHERE] == state.FREE
    assert s.counters[[Counter.STABLE_NODE_CHAINS, Counter.STABLE_NODE_DUPS]].tolist() == [0, 0]
    assert hot_and_chains(s) == [0, 0]


def test_a_chain_of_one_full_dup_does_not_collapse_on_6_1() -> None:
    for kernel, collapses in ((Kernel.V6_1, False), (Kernel.V6_12, True)):
        s = tiny_state(kernel, max_page_sharing=FULL)
        head, dups = chain(s, 2, 4, stale=(0,))
        walk(s, 3)
        assert s.by_content[0, 3, state.STABLE_AT] == (dups[1] if collapses else head), kernel


def test_a_chain_without_dups_goes() -> None:
    s = tiny_state()
    chain(s, 2, 2, stale=(0, 1))
    assert walk(s, 3) == (NO_FRAME, NIL, NIL)
    assert shape_of(s) is None
    assert hot_and_chains(s) == [0, 0]
    assert s.counters[[Counter.STABLE_NODE_CHAINS, Counter.STABLE_NODE_DUPS]].tolist() == [0, 0]


def test_pruning_waits_for_its_delay_and_starts_it_anew() -> None:
    s = tiny_state(max_page_sharing=FULL, stable_node_chains_prune_millisecs=100)
    head, _ = chain(s, 2, 2)
    pruned = []
    for now_ms in (0, 99, 100, 150, 199, 200):
        s.counters[Counter.TIME_NS] = now_ms * 1_000_000
        pruned.append(bool(stable_chain.may_prune(s, head, MAY_PRUNE)))
    assert pruned == [False, False, True, False, False, True]
    assert not stable_chain.may_prune(s, head, NO_PRUNE)


@pytest.mark.parametrize(("milliseconds", "jiffies"), [(0, 0), (1, 1), (4, 1), (5, 2), (2000, 500)])
def test_delays_are_rounded_up_to_jiffies_of_4_ms(milliseconds: int, jiffies: int) -> None:
    assert stable_chain.jiffies_of(milliseconds) == jiffies


def test_a_delay_that_is_negative_as_an_int_is_never_over() -> None:
    assert stable_chain.jiffies_of(2**31 - 1) == 536_870_912
    assert stable_chain.jiffies_of(2**31) > 10**18


def test_a_tree_may_be_changed_by_walks_while_something_in_it_is_hot_or_a_delay_is_over() -> None:
    s = tiny_state(max_page_sharing=FULL)

    def may_change() -> bool:
        """Whether a walk for content 1, which is below the chain, may change something; else none in the tree may."""
        if stable_tree.is_calm(s, 0):
            return False
        return bool(stable_tree.meets_something(s, 0, 1))

    assert stable_tree.is_calm(s, 0)
    head, _ = chain(s, 2, 2)
    plant(s, 1)
    assert may_change()
    stable_node.settle(s, head, state.SETTLED_PRUNED)
    assert stable_tree.is_calm(s, 0)
    s.knobs[Knob.STABLE_NODE_CHAINS_PRUNE_MILLISECS] = 100
    s.counters[Counter.TIME_NS] = 99_999_999
    assert not may_change()
    s.counters[Counter.TIME_NS] = 100_000_000
    assert may_change()
    assert stable_tree.is_calm(s, 1)  # it has no chain
    s.knobs[Knob.STABLE_NODE_CHAINS_PRUNE_MILLISECS] = 2**31  # as an int negative: never
    assert stable_tree.is_calm(s, 0)


def test_whoever_walks_every_tree_takes_no_tree_for_calm() -> None:
    assert not stable_tree.is_calm(tiny_state(force_exact=1), 0)


# 3 at the root, 1 and 4 below it, 5 below 4; where each of these is stale, which contents' walks pass it above their place?
@pytest.mark.parametrize(
    ("stale", "met_by"), [(3, {0, 1, 2, 4, 5}), (1, {0, 2}), (4, {5}), (5, set()), (None, set())], ids=lambda value: str(value)
)
def test_a_walk_meets_what_is_stale_above_its_end_and_nothing_else(stale: int | None, met_by: set[int]) -> None:
    s = tiny_state()
    planted = plant(s, 3, 1, 4, 5)
    if stale is not None:
        stable_node.kpfn_gone(s, planted[stale], 0)
    assert {content for content in range(6) if stable_tree.meets_something(s, 0, content)} == met_by


def test_a_walk_to_a_content_held_once_goes_where_its_rank_says() -> None:
    # contents 0 to 2 are held twice, with ranks 1, 3, 5; 3, 4, 5, 6 once, with ranks 0, 2, 4, 6
    s = state.allocate(
        n_pages=1, n_mms=1, n_nids=1, n_dup=3, rank=np.array([1, 3, 5, 0, 2, 4, 6], np.uint32), checksum_class=None
    )
    planted = plant(s, 1, 0, 2)  # 1 at the root
    stable_node.kpfn_gone(s, planted[0], 0)
    assert {content for content in range(7) if stable_tree.meets_something(s, 0, content)} == {3, 4}


def test_no_chain_is_settled_when_the_rule_of_pruning_changes() -> None:
    s = tiny_state(max_page_sharing=FULL)
    head, _ = chain(s, 2, 2)
    stable_node.settle(s, head, state.SETTLED_PRUNED)
    stable_chain.unsettle_all_chains(s)
    assert s.nodes[head, state.SETTLED] == state.UNSETTLED
    assert s.trees[state.STABLE_HOT, 0] == 1


# merge_across_nodes = 0: KSM pages of content 3 that moved


def ksm_page(s: State, page: int, frame_nid: int, tree: int | None) -> int:
    """`page` is a KSM page on `frame_nid`; its node hangs in `tree`, or waits on migrate_nodes. Returns the node."""
    fill(s, 3, first=page)
    stable_tree.mark_ksm(s, page)
    s.frame_bytes[page, state.FRAME_NID] = frame_nid
    node = int(stable_node.alloc_stable_node(s, 3, page, 0))
    s.nodes[node, state.LEN] = 1
    s.frames[page, state.FRAME_NODE] = node
    if tree is None:
        stable_tree.put_on_migrate_list(s, node)
    else:
        stable_chain.tree_insert(s, node, tree)
    return node


def test_a_moved_node_that_an_ordinary_page_meets_leaves_the_tree_empty() -> None:
    s = tiny_state(merge_across_nodes=0)
    moved = ksm_page(s, 1, frame_nid=1, tree=0)
    fill(s, 3)
    assert stable_tree.stable_tree_search(s, 0) == NO_FRAME
    assert [shape_of(s, nid) for nid in (0, 1)] == [None, None]
    assert s.scan[Scan.MIGRATE_FIRST] == moved


@pytest.mark.parametrize(("length", "has_room"), [(1, True), (FULL, False)])
def test_a_waiting_node_takes_the_place_of_one_that_moved_itself(length: int, has_room: bool) -> None:
    s = tiny_state(merge_across_nodes=0, max_page_sharing=FULL)
    moved = ksm_page(s, 1, frame_nid=1, tree=0)
    waiting = ksm_page(s, 0, frame_nid=0, tree=None)
    s.nodes[waiting, state.LEN] = length
    assert stable_tree.stable_tree_search(s, 0) == (0 if has_room else NO_FRAME)
    assert s.by_content[0, 3, state.STABLE_AT] == waiting
    assert shape_of(s) == 3
    assert s.nodes[waiting, [state.NID, state.WHERE]].tolist() == [0, state.IN_TREE]
    assert s.scan[Scan.MIGRATE_FIRST] == moved


@pytest.mark.parametrize("page_waits", [False, True])
def test_a_dup_that_moved_leaves_its_chain_to_the_others(page_waits: bool) -> None:
    s = tiny_state(merge_across_nodes=0, max_page_sharing=FULL)
    plain = ksm_page(s, 1, frame_nid=0, tree=0)
    s.nodes[plain, state.LEN] = FULL
    head = int(stable_chain.alloc_stable_node_chain(s, plain))
    moved = ksm_page(s, 2, frame_nid=1, tree=None)
    stable_node.unlink_migrate(s, moved)
    stable_chain.add_dup(s, moved, head)
    fill(s, 3)
    waiting = ksm_page(s, 0, frame_nid=0, tree=None) if page_waits else NIL
    assert stable_tree.stable_tree_search(s, 0) == (0 if page_waits else NO_FRAME)
    assert dups_of(s, head) == ([waiting, plain] if page_waits else [plain])
    assert s.scan[Scan.MIGRATE_FIRST] == moved


def test_a_waiting_node_with_several_mappings_and_a_twin_become_a_chain_on_the_new_node() -> None:
    s = tiny_state(merge_across_nodes=0)
    twin = ksm_page(s, 1, frame_nid=1, tree=1)
    waiting = ksm_page(s, 0, frame_nid=1, tree=None)
    fault.map_frame(s, 5, 0)
    assert stable_tree.stable_tree_search(s, 0) == 0
    assert dups_of(s, int(s.by_content[1, 3, state.STABLE_AT])) == [waiting, twin]
    assert s.scan[Scan.MIGRATE_FIRST] == NIL


def test_a_waiting_node_with_one_mapping_is_to_merge_with_its_twin() -> None:
    s = tiny_state(merge_across_nodes=0)
    ksm_page(s, 1, frame_nid=1, tree=1)
    waiting = ksm_page(s, 0, frame_nid=1, tree=None)
    assert stable_tree.stable_tree_search(s, 0) == 1
    assert s.scan[Scan.MIGRATE_FIRST] == waiting


def test_a_waiting_node_finds_its_place_where_there_is_no_twin() -> None:
    s = tiny_state(merge_across_nodes=0)
    waiting = ksm_page(s, 0, frame_nid=1, tree=None)
    assert stable_tree.stable_tree_search(s, 0) == 0
    assert s.by_content[:, 3, state.STABLE_AT].tolist() == [NIL, waiting]
    assert s.scan[Scan.MIGRATE_FIRST] == NIL


def test_a_chain_whose_frames_are_gone_can_be_dropped() -> None:
    s = tiny_state()
    chain(s, 2, 2, stale=(0, 1))
    assert not stable_tree.remove_all_stable_nodes(s)
    assert s.counters[[Counter.STABLE_NODE_CHAINS, Counter.STABLE_NODE_DUPS]].tolist() == [0, 0]


def test_nodes_whose_frames_are_gone_can_be_dropped_and_others_keep_a_knob_busy() -> None:
    s = tiny_state()
    planted = plant(s, 1, 2)
    chain(s, 2, 2, stale=(0, 1))
    stable_node.kpfn_gone(s, planted[2], 0)
    assert stable_tree.remove_all_stable_nodes(s)
    stable_node.kpfn_gone(s, planted[1], 0)
    assert not stable_tree.remove_all_stable_nodes(s)
    assert shape_of(s) is None
    assert hot_and_chains(s) == [0, 0]


# which walks pass something: against the twin's tree, for contents held twice (ids 0 to 11) and once (ids 12 to 29)

N_DUP, N_ALL = 12, 30


@settings(max_examples=200)
@given(st.permutations(range(N_ALL)), st.lists(st.integers(0, N_DUP - 1), unique=True), st.sets(st.integers(0, N_DUP - 1)))
def test_for_any_content_a_walk_meets_what_it_would_pass(order: list[int], planted: list[int], stale: set[int]) -> None:
    rank = (*sorted(order[:N_DUP]), *sorted(order[N_DUP:]))
    s = state.allocate(n_pages=N_ALL, n_mms=1, n_nids=1, n_dup=N_DUP, rank=np.array(rank, np.uint32), checksum_class=None)
    twin = TwinTree(rank)
    nodes = plant(s, *planted)
    for content in planted:
        twin.insert(content)
    for content in stale & nodes.keys():
        stable_node.kpfn_gone(s, nodes[content], 0)
    links = twin.links()
    for content in range(N_ALL):
        passed, place = set[int](), twin.root
        while place is not None and place != content:
            passed.add(place)
            row = links[place][0 if rank[content] < rank[place] else 1]
            place = None if row == NIL else row - 1
        assert bool(stable_tree.meets_something(s, 0, content)) == bool(passed & stale), f"content {content}"
