"""Is each step right with rmap_items? Made, taken out of their trees, and freed, with every counter on the way.

It knows nothing of trees' shapes: those are in test_unstable_tree.py and test_stable_tree.py.
"""

from unit.kernels.tiny import fill, frames_of, shares, tiny_state, visit

from ksmbatch import state
from ksmbatch.kernels import fault, resting, rmap_item
from ksmbatch.metrics import Counter
from ksmbatch.state import NIL, NO_FRAME, Scan, State


def items(s: State) -> tuple[int, list[int], list[int]]:
    """ksm_rmap_items, and per mm ksm_rmap_items and ksm_merging_pages."""
    assert s.mms[:, state.LIST_ITEMS].tolist() == s.mms[:, state.ITEMS].tolist()  # but for forks on 6.1
    return (
        int(s.counters[Counter.KSM_RMAP_ITEMS]),
        s.mms[:, state.ITEMS].tolist(),
        s.mms[:, state.MERGING].tolist(),
    )


def merged() -> State:
    """Pages 0, 1 and 4 share frame 1; page 2 is in the unstable tree."""
    s = tiny_state(keep_pfns=True)
    fill(s, 3, 3, 5)
    fill(s, 3, first=4)
    visit(s, 2)
    assert frames_of(s)[:5] == [1, 1, 2, NO_FRAME, 1]
    assert shares(s) == (1, 2, 1)
    return s


def test_a_page_seen_gets_an_item_with_no_checksum_and_no_age() -> None:
    s = tiny_state()
    s.page_bytes[2, [state.AGE, state.SKIPS]] = 7, 3  # of an item that was freed
    s.pages[2, state.CHECKSUM] = 4
    rmap_item.get_next_rmap_item(s, 2, 0)
    rmap_item.get_next_rmap_item(s, 2, 0)  # it has one now
    assert items(s) == (1, [1, 0], [0, 0])
    assert s.page_bytes[2, [state.ITEM_FLAGS, state.AGE, state.SKIPS]].tolist() == [state.ITEM, 0, 0]
    assert s.pages[2, state.CHECKSUM] == -1


def test_an_item_that_leaves_its_stable_node_is_one_sharing_less() -> None:
    s = merged()
    node = int(s.frames[1, state.FRAME_NODE])
    rmap_item.remove_rmap_item_from_tree(s, 4)
    assert shares(s) == (1, 1, 1)
    assert items(s) == (4, [3, 1], [2, 0])
    assert s.nodes[node, state.LEN] == 2


def test_the_last_item_that_leaves_is_one_shared_less_and_the_node_stays() -> None:
    s = merged()
    node = int(s.frames[1, state.FRAME_NODE])
    for page in (0, 1, 4):
        rmap_item.remove_rmap_item_from_tree(s, page)
    assert shares(s) == (0, 0, 1)
    assert s.nodes[node, [state.LEN, state.FIRST, state.WHERE]].tolist() == [0, NIL, state.IN_TREE]


def test_an_item_that_leaves_a_stale_node_takes_the_node_and_all_others_with_it() -> None:
    s = merged()
    for page in (0, 1, 4):
        fault.zap_pages(s, page, page + 1)
    assert shares(s) == (1, 2, 1)  # the counters lag
    rmap_item.remove_rmap_item_from_tree(s, 1)
    assert shares(s) == (0, 0, 1)
    assert items(s) == (4, [3, 1], [0, 0])
    assert s.by_content[0, 3, state.STABLE_AT] == NIL


def test_an_item_of_this_scan_leaves_the_unstable_tree_itself_one_of_the_last_only_its_count() -> None:
    s = tiny_state(pages_to_scan=1)
    fill(s, 3, 4)
    visit(s, 3)  # a scan, and a batch that only completes it
    visit(s, 2)  # both pages again: in the tree
    resting.wake(s, 1)  # pages at rest do not say where they are
    rmap_item.remove_rmap_item_from_tree(s, 1)
    assert s.scan[Scan.LOG_END] == 1
    assert s.unstable_log[:3].tolist() == [1, 0, 2]  # in the first mm of the scan, with the cursor at page 2
    visit(s)
    assert s.counters[Counter.FULL_SCANS] == 2
    resting.wake(s, 0)
    rmap_item.remove_rmap_item_from_tree(s, 0)
    assert s.scan[Scan.LOG_END] == 1
    assert shares(s) == (0, 0, 0)


def test_a_freed_item_leaves_nothing_behind() -> None:
    s = merged()
    rmap_item.free_rmap_items(s, 0, 8)
    assert items(s) == (0, [0, 0], [0, 0])
    assert shares(s) == (0, 0, 0)
    assert not s.page_bytes[:, state.ITEM_FLAGS].any()
