"""Whom does the rmap walk of KSM pages find? Pages with rmap_items of their own, relatives without, each once and in order.

What becomes of a page of which it misses a mapping is in test_move_pages.py.
"""

from unit.kernels.moving import CHILDS, NO_FORKS, PARENTS, THERE, family, fork, links, move, room, two_homes, unreachable
from unit.kernels.tiny import PAGES_PER_MM, fill, tiny_state, visit

from ksmbatch import state
from ksmbatch.kernels import fault, rmap_walk
from ksmbatch.kernels.stable_tree import mark_ksm
from ksmbatch.state import AnonVmas, State


def forked() -> State:
    """Pages 0 and 1 of the parent share a KSM frame, and so do their copies in the child, which ksmd has not passed."""
    s = tiny_state(keep_pfns=True)
    fill(s, 3, 3)
    visit(s, 2)
    fork(s)
    assert s.frames[1, state.MAPCOUNT] == 4
    return s


def collected(s: State, of: AnonVmas, frame: int = 1) -> list[int]:
    found = room(s)
    n_found = rmap_walk.collect_reached(s, of, frame, found)
    assert not (s.page_bytes[:, state.PAGE_FLAGS] & state.SEEN).any()
    pages: list[int] = found[:n_found].tolist()
    assert len(pages) == rmap_walk.count_reached(s, of, frame)
    return pages


def test_a_parents_item_leads_to_the_child() -> None:
    s = forked()
    assert rmap_walk.count_reached(s, family(s), 1) == 4
    assert move(s, 4, 5, of=family(s)) == [THERE]


def test_an_item_leads_to_the_same_address_only() -> None:
    s = forked()
    fault.map_frame(s, 7, 1)
    assert rmap_walk.count_reached(s, family(s), 1) == 4
    assert 7 not in collected(s, family(s))


def test_who_is_not_linked_to_the_items_anon_vma_is_not_found() -> None:
    own = (PARENTS,) * PAGES_PER_MM + (CHILDS,) * PAGES_PER_MM
    strangers = links(*own, chains=((PARENTS,),) * PAGES_PER_MM + ((CHILDS,),) * PAGES_PER_MM)
    s = forked()
    assert rmap_walk.count_reached(s, strangers, 1) == 2
    assert unreachable(s, strangers) == 2
    assert collected(s, strangers) == [1, 0]


def test_a_mapping_to_which_two_items_lead_counts_once() -> None:
    s = forked()
    visit(s)  # now the child's pages have rmap_items in the same node
    node = int(s.frames[1, state.FRAME_NODE])
    assert s.nodes[node, state.LEN] == 4
    assert rmap_walk.count_reached(s, family(s), 1) == 4


def test_a_childs_item_does_not_lead_to_the_parent() -> None:
    s = forked()
    visit(s)
    fill(s, 4)  # the parent's page 0 has a frame of its own; when ksmd passes it, its item leaves the node
    visit(s)
    assert rmap_walk.count_reached(s, family(s), 1) == 3
    fault.unmap_page(s, 0)
    fault.map_frame(s, 0, 1)  # and back, without an item
    assert rmap_walk.count_reached(s, family(s), 1) == 3


def test_mappings_are_listed_item_by_item_and_then_by_mm() -> None:
    s = forked()
    assert collected(s, family(s)) == [1, 5, 0, 4]


def test_a_mapping_to_which_two_items_lead_is_listed_where_the_first_finds_it() -> None:
    s = forked()
    visit(s)  # the hlist is that of pages 5 4 1 0
    assert collected(s, family(s)) == [5, 4, 1, 0]


def test_without_forks_the_items_own_pages_are_listed_unless_they_map_something_else_by_now() -> None:
    s = tiny_state(keep_pfns=True)
    fill(s, 3, 3, 3)
    visit(s, 2)
    assert collected(s, NO_FORKS) == [2, 1, 0]
    fill(s, 4)  # its item stays until ksmd passes
    assert collected(s, NO_FORKS) == [2, 1]


def test_a_ksm_page_without_a_stable_node_has_nobody_to_list() -> None:
    s = two_homes((3,))
    mark_ksm(s, 0)
    assert collected(s, NO_FORKS, frame=0) == []
