"""Is the stable trees' shape, built late from its log, the shape that Linux's tree would have had all along?

The twin's red-black tree, which is literal about lib/rbtree.c, is told of everything at once. Who looks for what in the tree is
in test_stable_tree.py.
"""

from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.kernels.tiny import shape_of, tiny_state
from unit.kernels.twin_tree import TwinTree

from ksmbatch import state
from ksmbatch.kernels import stable_chain, stable_node, stable_shape
from ksmbatch.state import NIL, State

N_CONTENTS = 12
TREE, OTHER = 1, 0


def a_state(rank: tuple[int, ...] = tuple(range(N_CONTENTS))) -> State:
    return state.allocate(n_pages=1, n_mms=1, n_nids=2, n_dup=len(rank), rank=np.array(rank, np.uint32), checksum_class=None)


def note(s: State, *entries: int, nid: int = TREE) -> None:
    """Contents come, or go (negative); not for content 0."""
    for entry in entries:
        stable_shape.note_shape(s, nid, entry + 1 if entry > 0 else entry - 1)


def logged(s: State, nid: int = TREE) -> list[int]:
    """What is in the log, as note() takes it."""
    entries = s.stable_log[nid, : s.trees[state.STABLE_LOGGED, nid]].tolist()
    return [entry - 1 if entry > 0 else entry + 1 for entry in entries]


def root(s: State, nid: int = TREE) -> int | None:
    """The content at the root, as far as the shape has been brought up to date."""
    row = int(s.trees[state.STABLE_ROOT, nid])
    return None if row == NIL else row - 1


def plant(s: State, *contents: int) -> None:
    """Plain nodes in tree 0, put in in this order."""
    for content in contents:
        stable_chain.tree_insert(s, int(stable_node.alloc_stable_node(s, content, content, 0)), 0)


@pytest.mark.parametrize(("content", "parent", "side"), [(0, 1, -1), (2, 1, 1), (5, 4, 1)])
def test_a_new_node_hangs_where_a_search_for_it_ends(content: int, parent: int, side: int) -> None:
    s = tiny_state()
    plant(s, 3, 1, 4)
    stable_shape.build_stable_tree(s, 0)
    assert tuple(map(int, stable_shape.find_place(s, 0, content))) == (parent + 1, side)


def test_the_first_of_a_tree_hangs_nowhere() -> None:
    assert stable_shape.find_place(a_state(), TREE, 3)[0] == NIL


def test_what_happens_to_a_tree_is_only_written_down_until_somebody_looks() -> None:
    s = a_state()
    note(s, 3, 1, -3)
    assert (root(s), logged(s)) == (None, [3, 1, -3])
    assert not s.stable_links.any()
    stable_shape.build_stable_tree(s, TREE)
    assert (root(s), logged(s)) == (1, [])


def test_the_shape_is_that_of_the_order_in_which_contents_came() -> None:
    s = tiny_state(n_contents=8)
    plant(s, 1, 2, 3, 4, 5, 6, 7)
    assert shape_of(s) == (1, 2, (3, -4, (-5, 6, -7)))
    s = tiny_state(n_contents=8)
    plant(s, 7, 6, 5, 4, 3, 2, 1)
    assert shape_of(s) == ((((-1, 2, -3), -4, 5), 6, 7))


def test_contents_hang_in_memcmp_order_which_is_that_of_their_numbers() -> None:
    s = a_state(rank=(0, 10, 20, 30))
    note(s, 3, 1, 2)
    stable_shape.build_stable_tree(s, TREE)
    assert root(s) == 2
    assert s.stable_links[TREE, 2 + 1, [state.LEFT, state.RIGHT]].tolist() == [1 + 1, 3 + 1]


def test_the_shape_has_the_keys_that_a_walk_compares_with() -> None:
    s = a_state(rank=(0, 10, 20, 30))
    note(s, 1, 3)
    stable_shape.build_stable_tree(s, TREE)
    assert s.stable_links[TREE, :, state.KEY].tolist() == [0, 0, 10, 0, 30]


def test_building_once_more_changes_nothing() -> None:
    s = a_state()
    note(s, 3, 1, 4)
    stable_shape.build_stable_tree(s, TREE)
    before = s.stable_links.tolist()
    stable_shape.build_stable_tree(s, TREE)
    assert s.stable_links.tolist() == before


def test_each_node_has_a_log_and_a_shape_of_its_own() -> None:
    s = a_state()
    note(s, 3, nid=TREE)
    note(s, 4, 5, nid=OTHER)
    stable_shape.build_stable_tree(s, TREE)
    assert (root(s, TREE), root(s, OTHER)) == (3, None)
    assert (logged(s, TREE), logged(s, OTHER)) == ([], [4, 5])


def test_a_tree_that_is_walked_all_the_time_gets_its_shape_at_once() -> None:
    s = a_state()
    s.trees[state.STABLE_HOT, TREE] = 1
    note(s, 3, 1)
    assert (root(s), logged(s)) == (3, [])
    s.trees[state.STABLE_HOT, TREE] = 0
    note(s, -3)
    assert (root(s), logged(s)) == (3, [-3])


def test_what_comes_after_a_written_entry_is_written_too_even_if_the_tree_is_walked_by_now() -> None:
    s = a_state()
    note(s, 3)
    s.trees[state.STABLE_HOT, TREE] = 1
    note(s, 1)
    assert (root(s), logged(s)) == (None, [3, 1])


def test_a_full_log_is_done_to_the_shape_and_begins_anew() -> None:
    s = a_state()
    capacity = s.stable_log.shape[1]
    assert capacity == 2 * N_CONTENTS + 2
    for _ in range(capacity // 2):
        note(s, 3, -3)
    assert (root(s), len(logged(s))) == (None, capacity)
    note(s, 5)
    assert (root(s), logged(s)) == (None, [5])
    for _ in range(capacity // 2 - 1):
        note(s, 3, -3)
    note(s, 4)
    assert len(logged(s)) == capacity
    note(s, 6)
    assert (root(s), logged(s)) == (5, [6])


def test_a_chain_in_the_place_of_a_node_is_no_change_of_shape() -> None:
    s = tiny_state()
    plant(s, 3, 1, 4, 5)
    before = shape_of(s)
    stable_chain.alloc_stable_node_chain(s, int(s.by_content[0, 3, state.STABLE_AT]))
    assert logged(s, 0) == []
    assert shape_of(s) == before


# against the twin

BUILD, HEAT, COOL = -1, -2, -3  # beside contents: somebody looks; walks are made from now on; they are not
histories = st.lists(st.one_of(st.integers(0, N_CONTENTS - 1), st.sampled_from((BUILD, HEAT, COOL))), max_size=80)


@settings(max_examples=300)
@given(histories, st.sets(st.integers(0, 3 * N_CONTENTS), min_size=N_CONTENTS, max_size=N_CONTENTS))
def test_whenever_somebody_looks_the_shape_is_the_twins(history: list[int], places: set[int]) -> None:
    rank = tuple(sorted(places))  # contents held once have the others
    s, twin = a_state(rank), TwinTree(rank)
    for what in [*history, BUILD]:
        if what in (HEAT, COOL):
            s.trees[state.STABLE_HOT, TREE] = what == HEAT
        elif what == BUILD:
            stable_shape.build_stable_tree(s, TREE)
            assert twin.links_of(s, TREE) == twin.links()
            assert root(s) == twin.root
        elif what in twin.nodes:
            twin.erase(what)
            stable_shape.note_shape(s, TREE, -what - 1)
        else:
            twin.insert(what)
            stable_shape.note_shape(s, TREE, what + 1)
    assert not s.stable_links[OTHER].any()


def place_at_the_end_of_a_walk(twin: TwinTree, content: int) -> tuple[int, int]:
    """Where `content` would hang by a walk from the root, as find_place() says it."""
    links, parent, side = twin.links(), int(NIL), -1
    place = int(NIL) if twin.root is None else twin.root + 1
    while place != NIL:
        parent, side = place, -1 if content < place - 1 else 1
        place = links[place - 1][0 if side < 0 else 1]
    return parent, side


@settings(max_examples=100)
@given(st.randoms(use_true_random=False), st.integers(0, 1200))
def test_large_trees_that_lose_contents_too_have_the_twins_shape_and_places(random: Random, n_steps: int) -> None:
    n = random.choice((33, 700, 1100))  # words of the index have two levels, or three
    s, twin = a_state(tuple(range(n))), TwinTree(tuple(range(n)))
    for content in random.choices(range(n), k=n_steps):
        if content in twin.nodes:
            twin.erase(content)
            stable_shape.reshape(s, TREE, -content - 1)
        else:
            assert tuple(map(int, stable_shape.find_place(s, TREE, content))) == place_at_the_end_of_a_walk(twin, content)
            twin.insert(content)
            stable_shape.reshape(s, TREE, content + 1)
    assert twin.links_of(s, TREE) == twin.links()
    assert root(s) == twin.root


# where to look: contents held once, ids from N_DUP on, are searched for in a tree of contents held twice

N_DUP, N_ALL = 12, 40


@st.composite
def trees_with_something_to_look_at(draw: st.DrawFn) -> tuple[State, TwinTree, set[int]]:
    """A tree of some of the contents held twice; ranks are such that ids ascend with them in both groups. What has LOOK."""
    held_twice = sorted(draw(st.permutations(range(N_ALL)))[:N_DUP])
    held_once = [rank for rank in range(N_ALL) if rank not in held_twice]
    rank = (*held_twice, *held_once)
    s = state.allocate(n_pages=1, n_mms=1, n_nids=2, n_dup=N_DUP, rank=np.array(rank, np.uint32), checksum_class=None)
    twin = TwinTree(rank)
    looks = set[int]()
    steps = draw(st.lists(st.tuples(st.integers(0, N_DUP - 1), st.booleans()), max_size=40))
    for content, look in steps:
        if content in twin.nodes and look != (content in looks):
            stable_shape.set_look(s, TREE, content, int(look))
            looks ^= {content}
        elif content in twin.nodes:
            stable_shape.note_shape(s, TREE, -content - 1)
            twin.erase(content)
            looks -= {content}
        else:
            stable_shape.note_shape(s, TREE, content + 1)
            twin.insert(content)
    # by_content names no node here, and slot 0 is no chain and not stale, so that LOOK alone is set above
    stable_shape.build_stable_tree(s, TREE)
    return s, twin, looks


def passed_by_a_walk(twin: TwinTree, s: State, content: int) -> list[int]:
    """The contents that a walk to `content` passes in the twin's tree, before the place where it hangs or would hang."""
    found, links, place = [], twin.links(), twin.root
    while place is not None and place != content:
        found.append(place)
        child = links[place][0 if s.rank[content] < s.rank[place] else 1]
        place = None if child == NIL else child - 1
    return found


@settings(max_examples=300)
@given(trees_with_something_to_look_at())
def test_of_contents_held_once_the_next_above_one_held_twice_is_told_by_its_rank(
    drawn: tuple[State, TwinTree, set[int]],
) -> None:
    s, twin, _ = drawn
    for content in twin.nodes:
        above = [single for single in range(N_DUP, N_ALL) if s.rank[single] > s.rank[content]]
        assert stable_shape.first_after(s, TREE, content + 1) == min(above, default=N_ALL)


@settings(max_examples=300)
@given(trees_with_something_to_look_at())
def test_a_tree_knows_between_which_contents_searches_pass_something(drawn: tuple[State, TwinTree, set[int]]) -> None:
    s, twin, looks = drawn
    stable_shape.know_where_to_look(s, TREE)
    first, end = s.trees[[state.LOOK_FIRST, state.LOOK_END], TREE].tolist()
    singles = [single for single in range(N_DUP, N_ALL) if looks & set(passed_by_a_walk(twin, s, single))]
    assert all(first <= single < end for single in singles)
    if singles:  # and not much more than that
        outermost = {max(single, N_DUP) for single in (first, min(end, N_ALL) - 1)}
        assert outermost <= set(singles)
    assert s.trees[state.LOOK_KNOWN, TREE] == 1


@settings(max_examples=200)
@given(trees_with_something_to_look_at())
def test_what_is_known_of_searches_is_forgotten_when_the_tree_changes(drawn: tuple[State, TwinTree, set[int]]) -> None:
    s, twin, _ = drawn
    for content in twin.nodes:
        stable_shape.know_where_to_look(s, TREE)
        stable_shape.set_look(s, TREE, content, int(not s.stable_links[TREE, content + 1, state.LOOK]))
        assert s.trees[state.LOOK_KNOWN, TREE] == 0
        stable_shape.know_where_to_look(s, TREE)
        stable_shape.reshape(s, TREE, -content - 1)
        assert s.trees[state.LOOK_KNOWN, TREE] == 0


@settings(max_examples=300)
@given(trees_with_something_to_look_at())
def test_rows_know_whether_there_is_something_to_look_at_below_them(drawn: tuple[State, TwinTree, set[int]]) -> None:
    s, twin, looks = drawn
    links = twin.links()

    def below(row: int) -> set[int]:
        return set() if row == NIL else {row - 1} | below(links[row - 1][0]) | below(links[row - 1][1])

    for content in twin.nodes:
        assert s.stable_links[TREE, content + 1, state.LOOK] == (content in looks)
        assert s.stable_links[TREE, content + 1, state.ANY] == bool(below(content + 1) & looks)
