"""Is each visit right? The checksum gate, who gives the frame, who joins whom, and what stands in the way: page by page.

How ksmd comes to a page is in test_ksmd.py.
"""

import pytest
from unit.kernels.tiny import fill, frames_of, shares, tiny_state, visit

from ksmbatch import state
from ksmbatch.codes import Kernel
from ksmbatch.kernels import cohorts, merge
from ksmbatch.metrics import Counter, NodeCounter
from ksmbatch.state import NIL, NO_FRAME, Knob, Scan, State

N = int(NO_FRAME)
OLD, NEW = Kernel.V6_1, Kernel.V6_12


def seen_once(*contents: int, kernel: Kernel = NEW, **knobs: int) -> State:
    """Pages whose checksums ksmd knows; the next batch is the visit to page 0. Frames keep their numbers, so that they tell."""
    s = tiny_state(kernel, pages_to_scan=1, keep_pfns=True, **knobs)
    fill(s, *contents)
    visit(s, len(contents) + 1)  # the last batch only finds that the scan is over
    assert s.counters[Counter.FULL_SCANS] == 1
    assert s.pages[: len(contents), state.CHECKSUM].tolist() == list(contents)
    return s


@pytest.mark.parametrize("kernel", [OLD, NEW])
def test_the_page_visited_second_gives_its_frame_and_later_ones_join(kernel: Kernel) -> None:
    s = seen_once(3, 3, 3, kernel=kernel)
    steps = []
    for _ in range(3):
        visit(s)
        steps.append((frames_of(s)[:3], shares(s)))
    assert steps == [([0, 1, 2], (0, 0, 1)), ([1, 1, 2], (1, 1, 0)), ([1, 1, 1], (1, 2, 0))]
    assert s.counters[Counter.PAGES_MERGED] == 3


def test_a_page_that_changed_since_the_last_visit_waits_for_the_next() -> None:
    s = seen_once(3, 4)
    fill(s, 5)
    visit(s, 2)
    assert shares(s) == (0, 0, 1)
    assert cohorts.last_checksum(s, 0) == 5


def test_a_change_that_keeps_the_checksum_passes_the_gate() -> None:
    # 3 and 5 have equal checksums
    s = seen_once(3, 4, checksum_class=[0, 1, 2, 3, 4, 3])
    fill(s, 5)
    visit(s, 2)
    assert shares(s) == (0, 0, 2)


@pytest.mark.parametrize(("kernel", "joined"), [(OLD, True), (NEW, False)])
def test_6_1_looks_into_the_stable_tree_before_it_looks_at_the_checksum(kernel: Kernel, joined: bool) -> None:
    s = seen_once(3, 3, 4, kernel=kernel)
    visit(s, 2)
    fill(s, None, None, 3)
    visit(s)
    assert (frames_of(s)[2] == 1) == joined


def test_a_ksm_page_in_its_place_is_left_alone() -> None:
    s = seen_once(3, 3)
    visit(s, 3)
    before = [array.tolist() for array in (s.pages, s.nodes, s.members, s.frames)]
    visit(s, 3)
    assert [array.tolist() for array in (s.pages, s.nodes, s.members, s.frames)] == before
    assert s.counters[Counter.FULL_SCANS] == 3


@pytest.mark.parametrize(("use_zero_pages", "frames"), [(0, [1, 1]), (1, [N, N])])
def test_zero_pages_merge_with_the_kernels_if_they_may(use_zero_pages: int, frames: list[int]) -> None:
    s = seen_once(0, 0, use_zero_pages=use_zero_pages)
    visit(s, 2)
    assert frames_of(s)[:2] == frames
    assert s.counters[Counter.KSM_ZERO_PAGES] == 2 * use_zero_pages
    assert s.node_counters[0, NodeCounter.MAPPED_PAGES] == 2


def test_equal_checksums_are_no_reason_to_merge() -> None:
    # 4 has the checksum of the page of zeros
    s = seen_once(4, 0, use_zero_pages=1, checksum_class=[0, 1, 2, 3, 0, 5])
    visit(s, 2)
    assert frames_of(s)[:2] == [0, N]
    assert s.counters[Counter.KSM_ZERO_PAGES] == 1
    assert shares(s) == (0, 0, 1)  # 4 goes on to the unstable tree


def test_full_nodes_make_a_chain_of_which_each_dup_has_its_own_frame() -> None:
    s = seen_once(3, 3, 3, 3, max_page_sharing=2)
    visit(s, 4)
    assert frames_of(s)[:4] == [1, 1, 3, 3]
    assert shares(s) == (2, 2, 0)
    assert s.counters[[Counter.STABLE_NODE_CHAINS, Counter.STABLE_NODE_DUPS]].tolist() == [1, 2]


def test_a_page_that_is_not_mergeable_any_more_keeps_its_frame() -> None:
    s = seen_once(3, 3)
    s.page_bytes[1, state.PAGE_FLAGS] &= 0xFF & ~state.MERGEABLE
    assert not merge.try_to_merge_with_ksm_page(s, 1, 1, 0)
    assert frames_of(s)[:2] == [0, 1]


def test_a_ksm_page_is_never_merged_into_another() -> None:
    # page_address_in_vma() refuses KSM pages
    s = seen_once(3, 3, 3)
    visit(s, 2)
    assert not merge.try_to_merge_one_page(s, 0, 1, 2)
    assert not merge.try_to_merge_with_ksm_page(s, 0, 1, 2)
    assert merge.try_to_merge_one_page(s, 0, 1, 1)  # with itself it need not


def test_only_equal_pages_merge() -> None:
    s = seen_once(3, 4)
    assert not merge.try_to_merge_one_page(s, 1, 1, 0)
    assert frames_of(s)[:2] == [0, 1]


def test_if_the_partner_cannot_merge_the_page_gets_a_copy_of_its_own_back() -> None:
    s = seen_once(3, 3)
    s.page_bytes[0, state.PAGE_FLAGS] &= 0xFF & ~state.MERGEABLE
    merge.try_to_merge_two_pages(s, 1, 1, 0)
    assert shares(s) == (0, 0, 0)
    assert frames_of(s)[:2] == [0, 8]
    assert not s.frame_bytes[frames_of(s)[1], state.FRAME_FLAGS] & state.KSM
    assert s.counters[Counter.COW_KSM] == 1
    assert s.node_counters[0, NodeCounter.KSM_FRAMES] == 0


# a KSM page that moved to another node, with merge_across_nodes = 0


def test_a_moved_page_stays_in_the_old_tree_until_ksmd_passes_it() -> None:
    s = seen_once(3, 3, merge_across_nodes=0)
    visit(s, 3)
    s.frame_bytes[1, state.FRAME_NID] = 1
    node = int(s.frames[1, state.FRAME_NODE])
    assert s.by_content[:, 3, state.STABLE_AT].tolist() == [node, NIL]
    visit(s)
    assert s.by_content[:, 3, state.STABLE_AT].tolist() == [NIL, node]
    assert s.nodes[node, [state.WHERE, state.NID]].tolist() == [state.IN_TREE, 1]
    assert shares(s) == (1, 1, 0)


def test_a_moved_page_with_several_mappings_and_its_twin_on_the_new_node_make_a_chain() -> None:
    s = tiny_state(merge_across_nodes=0, keep_pfns=True)
    s.page_bytes[4:, state.PAGE_NID] = 1
    fill(s, 3, 3)
    fill(s, 3, 3, first=4)
    visit(s, 2)
    assert frames_of(s)[0::4] == [1, 5]
    s.frame_bytes[1, state.FRAME_NID] = 1
    visit(s)
    assert shares(s) == (2, 2, 0)
    assert s.counters[[Counter.STABLE_NODE_CHAINS, Counter.STABLE_NODE_DUPS]].tolist() == [1, 2]
    assert s.by_content[0, 3, state.STABLE_AT] == NIL


def test_a_moved_page_met_by_a_page_of_its_old_node_waits_on_migrate_nodes() -> None:
    s = tiny_state(merge_across_nodes=0, keep_pfns=True)
    fill(s, 3, 3, first=4)
    visit(s, 2)
    node = int(s.frames[5, state.FRAME_NODE])
    fill(s, 3)
    visit(s)  # page 0 is seen for the first time
    s.frame_bytes[5, state.FRAME_NID] = 1
    s.knobs[Knob.PAGES_TO_SCAN] = 1
    visit(s)  # page 0 finds its twin in the tree of node 0, where it is no more
    assert s.nodes[node, state.WHERE] == state.IN_MIGRATE
    assert s.scan[Scan.MIGRATE_FIRST] == node
    assert s.by_content[:, 3, state.STABLE_AT].tolist() == [NIL, NIL]
    assert shares(s) == (1, 1, 1)
    visit(s)  # page 4 finds its own node waiting there
    assert s.by_content[:, 3, state.STABLE_AT].tolist() == [NIL, node]
    assert s.scan[Scan.MIGRATE_FIRST] == NIL
