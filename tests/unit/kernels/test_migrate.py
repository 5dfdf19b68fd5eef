"""Is each step right when frames move? What move_pages() says, what it changes, and whom the rmap walk of KSM pages finds.

What ksmd makes of a KSM page that moved is in test_stable_tree.py and test_merge.py.
"""

import numpy as np
import pytest
from unit.kernels.tiny import PAGES_PER_MM, fill, frames_of, tiny_state, visit

from ksmbatch import state
from ksmbatch.codes import Kernel, Move
from ksmbatch.kernels import fault, rmap_walk
from ksmbatch.kernels.migrate import mainline
from ksmbatch.kernels.stable_tree import mark_ksm
from ksmbatch.metrics import NodeCounter
from ksmbatch.state import AnonVmas, State

HERE, THERE = 0, 1
NO_FORKS = AnonVmas(*(np.zeros(0, np.int32) for _ in range(4)))


def links(*anon_vmas: int, chains: tuple[tuple[int, ...], ...]) -> AnonVmas:
    """Of each page its VMA's anon_vma, and the anon_vmas that the VMA is linked to."""
    starts = np.cumsum([0, 0, *map(len, chains)])
    return AnonVmas(
        page_anon_vma=np.array(anon_vmas, np.int32),
        page_chain=np.arange(1, len(chains) + 1, dtype=np.int32),
        chain_start=starts.astype(np.int32),
        chain_anon_vma=np.array([anon_vma for chain in chains for anon_vma in chain], np.int32),
    )


def move(s: State, first: int, end: int, nid: int = THERE, of: AnonVmas = NO_FORKS) -> list[int]:
    status = np.zeros(end - first, np.int64)
    mainline.move_pages(s, of, first, end, nid, status)
    mainline.recount_remote_mappings(s)
    return status.tolist()


def node_counters(s: State) -> dict[str, list[int]]:
    return {counter.name.lower(): s.node_counters[:, counter].tolist() for counter in NodeCounter}


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


def test_a_frame_moves_with_everybody_who_maps_it_and_gets_a_pfn_there() -> None:
    s = tiny_state(keep_pfns=True)
    fill(s, 1, 2)
    fault.map_frame(s, 5, 1)
    assert move(s, 5, 6) == [THERE]
    assert node_counters(s) == {"mapped_pages": [3, 0], "frames": [1, 1], "ksm_frames": [0, 0], "remote_mappings": [2, 0]}
    assert frames_of(s)[1] == frames_of(s)[5] == 1  # our number stays
    assert s.frames[:2, state.PFN].tolist() == [1, 1]  # the first of either node
    assert move(s, 0, 2) == [THERE, THERE]
    assert s.pfns[HERE, state.FREE_PFN] == 1
    assert move(s, 1, 2, HERE) == [HERE]
    assert node_counters(s)["frames"] == [1, 1]
    assert s.frames[:2, state.PFN].tolist() == [2, 1]


def test_a_page_that_is_there_already_stays() -> None:
    s = tiny_state(keep_pfns=True)
    fill(s, 1)
    before = s.frames.tolist()
    assert move(s, 0, 1, HERE) == [HERE]
    assert s.frames.tolist() == before


def test_a_ksm_page_moves_if_its_items_lead_to_all_its_mappings() -> None:
    s = tiny_state()
    fill(s, 3, 3)
    visit(s, 2)
    assert move(s, 0, 1) == [THERE]
    assert node_counters(s)["ksm_frames"] == [0, 1]
    fault.map_frame(s, 5, 1)  # no rmap_item leads there
    assert move(s, 0, 1, HERE) == [Move.STUCK]
    assert rmap_walk.count_unreachable(s, NO_FORKS) == 1


def test_a_ksm_page_without_a_stable_node_is_stuck() -> None:
    s = tiny_state()
    fill(s, 3)
    mark_ksm(s, 0)
    assert move(s, 0, 1) == [Move.STUCK]
    assert rmap_walk.count_unreachable(s, NO_FORKS) == 1


# after a fork: mm 1 has the pages of mm 0, and its VMA is linked to the anon_vma of its parent's, 1, and to its own, 2

PARENTS, CHILDS = 1, 2
FAMILY = ((PARENTS,),) * PAGES_PER_MM + ((PARENTS, CHILDS),) * PAGES_PER_MM
OWN = (PARENTS,) * PAGES_PER_MM + (CHILDS,) * PAGES_PER_MM


def forked() -> State:
    """Pages 0 and 1 of the parent share a KSM frame, and so do their copies in the child, which ksmd has not passed."""
    s = tiny_state()
    fill(s, 3, 3)
    visit(s, 2)
    s.page_bytes[PAGES_PER_MM:] = 0
    fault.fork_pages(s, 0, 1, PAGES_PER_MM)
    assert s.frames[1, state.MAPCOUNT] == 4
    return s


def test_a_parents_item_leads_to_the_child() -> None:
    s, family = forked(), links(*OWN, chains=FAMILY)
    assert rmap_walk.count_reached(s, family, 1) == 4
    assert move(s, 4, 5, of=family) == [THERE]


def test_an_item_leads_to_the_same_address_only() -> None:
    s, family = forked(), links(*OWN, chains=FAMILY)
    fault.map_frame(s, 7, 1)
    assert rmap_walk.count_reached(s, family, 1) == 4


def test_who_is_not_linked_to_the_items_anon_vma_is_not_found() -> None:
    strangers = ((PARENTS,),) * PAGES_PER_MM + ((CHILDS,),) * PAGES_PER_MM
    s = forked()
    assert rmap_walk.count_reached(s, links(*OWN, chains=strangers), 1) == 2
    assert rmap_walk.count_unreachable(s, links(*OWN, chains=strangers)) == 2


def test_a_mapping_to_which_two_items_lead_counts_once() -> None:
    s, family = forked(), links(*OWN, chains=FAMILY)
    visit(s)  # now the child's pages have rmap_items in the same node
    node = int(s.frames[1, state.FRAME_NODE])
    assert s.nodes[node, state.LEN] == 4
    assert rmap_walk.count_reached(s, family, 1) == 4


def test_a_childs_item_does_not_lead_to_the_parent() -> None:
    s, family = forked(), links(*OWN, chains=FAMILY)
    visit(s)
    fill(s, 4)  # the parent's page 0 has a frame of its own; when ksmd passes it, its item leaves the node
    visit(s)
    assert rmap_walk.count_reached(s, family, 1) == 3
    fault.unmap_page(s, 0)
    fault.map_frame(s, 0, 1)  # and back, without an item
    assert rmap_walk.count_reached(s, family, 1) == 3
