"""Is a stable node's hlist, in which members that leave are only marked, the list that it would be without them?

Who joins and leaves when is in test_stable_tree.py and test_rmap_item.py.
"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.kernels.tiny import tiny_state

from ksmbatch import state
from ksmbatch.kernels import cursor, members, stable_node
from ksmbatch.state import NIL, Scan, State

N_PAGES, N_NODES = 40, 3
FEW = int(members.FEW)


def a_state() -> State:
    """Nodes 1 to 3 without members."""
    s = tiny_state(pages_per_mm=N_PAGES // 2, n_members=N_PAGES + 1)
    for node in range(1, N_NODES + 1):
        assert stable_node.alloc_stable_node(s, 3, 0, 0) == node
    return s


def add(s: State, *pages: int, node: int = 1) -> None:
    """The pages join `node`, whose length follows."""
    for page in pages:
        s.pages[page, state.HEAD] = members.add_member(s, node, page)
        s.nodes[node, state.LEN] += 1


def drop(s: State, *pages: int) -> None:
    """The pages leave their node."""
    for page in pages:
        head = int(s.pages[page, state.HEAD])
        node = int(s.members[head, state.MEMBER_NODE])
        members.drop_member(s, head)
        s.nodes[node, state.LEN] -= 1


def living(s: State, node: int = 1) -> list[int]:
    """The pages in `node`, as a walk meets them."""
    found, member = [], int(s.nodes[node, state.FIRST])
    while member != NIL:
        found.append(int(s.members[member, state.MEMBER_PAGE]))
        member = int(members.next_member(s, member))
    return found


def in_list(s: State, node: int = 1) -> list[int]:
    """The members in the hlist of `node`, with those that have left."""
    found, member = [], int(s.nodes[node, state.FIRST])
    while member != NIL:
        found.append(member)
        member = int(s.members[member, state.MEMBER_NEXT])
    return found


def free(s: State) -> list[int]:
    """The slots that were given back, the one that is taken next first."""
    found, member = [], int(s.scan[Scan.FREE_MEMBER])
    while member != NIL:
        found.append(member)
        member = int(s.members[member, state.MEMBER_NEXT])
    return found


def left(s: State, node: int = 1) -> int:
    return int(s.nodes[node, state.N_LEFT])


def test_a_new_member_is_the_first_of_its_node() -> None:
    s = a_state()
    add(s, 4, 5, 6)
    assert living(s) == [6, 5, 4]
    assert (s.members[in_list(s), state.MEMBER_NODE] == 1).all()


@pytest.mark.parametrize("gone", [4, 5, 6])
def test_a_member_may_leave_from_anywhere(gone: int) -> None:
    s = a_state()
    add(s, 4, 5, 6)
    drop(s, gone)
    assert living(s) == [page for page in (6, 5, 4) if page != gone]


def test_a_member_that_leaves_from_behind_the_first_touches_nobody_and_keeps_its_slot() -> None:
    s = a_state()
    add(s, 4, 5, 6)
    before, slots = in_list(s), s.members[:, state.MEMBER_NEXT].tolist()
    drop(s, 4)
    assert in_list(s) == before
    assert s.members[:, state.MEMBER_NEXT].tolist() == slots
    assert (free(s), left(s)) == ([], 1)


def test_when_the_first_leaves_those_behind_it_that_have_left_go_with_it() -> None:
    s = a_state()
    add(s, 4, 5, 6, 7)
    drop(s, 6, 5)
    first = in_list(s)[:3]
    drop(s, 7)
    assert living(s) == [4]
    assert (sorted(free(s)), left(s)) == (sorted(first), 0)


def test_the_slot_given_back_last_is_taken_first() -> None:
    s = a_state()
    add(s, 4, 5, 6)
    slot = int(s.pages[6, state.HEAD])
    drop(s, 6)
    add(s, 9, node=2)
    assert s.pages[9, state.HEAD] == slot
    assert (living(s), living(s, 2)) == ([5, 4], [9])


def test_when_all_have_left_nothing_is_in_the_list() -> None:
    s = a_state()
    add(s, 4, 5, 6)
    drop(s, 4, 5, 6)
    assert (s.nodes[1, state.FIRST], left(s), len(free(s))) == (NIL, 0, 3)


def test_a_list_in_which_more_have_left_than_stay_is_swept() -> None:
    s = a_state()
    add(s, *range(12))  # the first is page 11
    drop(s, *range(5))
    assert (len(in_list(s)), left(s)) == (12, 5)
    drop(s, 5, 6, 7, 8, 9)
    assert left(s) == 10 <= 2 + 1 + FEW
    assert len(in_list(s)) == 12
    drop(s, 10)  # 11 have left, and one stays
    assert (living(s), len(in_list(s)), left(s), len(free(s))) == ([11], 1, 0, 11)


def test_sweeping_a_list_in_which_nobody_has_left_changes_nothing() -> None:
    s = a_state()
    add(s, 4, 5, 6)
    before = s.members.tolist()
    members.sweep(s, 1)
    assert s.members.tolist() == before


def test_waking_the_members_of_a_node_wakes_those_that_stay() -> None:
    s = a_state()
    add(s, 4, 5, 6, 7)
    add(s, 8, node=2)
    s.calendar[:] = 0
    drop(s, 5)  # who leaves is woken
    assert [page for page in range(N_PAGES) if cursor.is_due(s, page, 1)] == [5]
    s.calendar[:] = 0
    members.wake_members(s, 1)
    assert [page for page in range(N_PAGES) if cursor.is_due(s, page, 1)] == [4, 6, 7]


steps = st.lists(st.tuples(st.integers(0, N_PAGES - 1), st.integers(1, N_NODES), st.booleans()), max_size=300)


@settings(max_examples=200)
@given(steps, st.sampled_from((0.1, 0.5, 0.9)))
def test_whatever_happens_the_living_are_those_of_plain_lists_and_no_slot_is_lost(
    history: list[tuple[int, int, bool]], mostly: float
) -> None:
    s = a_state()
    lists: dict[int, list[int]] = {node: [] for node in range(1, N_NODES + 1)}
    where: dict[int, int] = {}
    for page, node, last in history:
        if page not in where and (len(where) < N_PAGES * mostly):
            add(s, page, node=node)
            lists[node].insert(0, page)
            where[page] = node
        elif where:
            goes = page if page in where else lists[where[min(where)]][-1 if last else 0]
            drop(s, goes)
            lists[where.pop(goes)].remove(goes)
        used = [member for one in lists for member in in_list(s, one)]
        assert sorted(used + free(s)) == list(range(1, int(s.scan[Scan.NEXT_MEMBER])))
        for one, pages in lists.items():
            assert living(s, one) == pages
            assert left(s, one) == len(in_list(s, one)) - len(pages) <= len(pages) + 1 + FEW
            first = int(s.nodes[one, state.FIRST])
            assert (first == NIL) == (not pages)
            assert first == NIL or s.members[first, state.MEMBER_PAGE] == pages[0]
    assert s.scan[Scan.NEXT_MEMBER] <= 1 + 2 * N_PAGES + N_NODES * (FEW + 1)
