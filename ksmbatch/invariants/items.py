"""Rules of rmap_items and their counters, of the list of mms, and of the unstable trees."""

import numpy as np
from numpy.typing import NDArray

from ksmbatch import state
from ksmbatch.invariants.recount import Faults, all_hold, differs, linked, partition, red_black
from ksmbatch.metrics import Counter
from ksmbatch.state import NO_FRAME, NO_MM, Knob, Scan
from ksmbatch.stateview import Rows, StateView, chase, in_order


def rmap_items_are_recounted(v: StateView) -> Faults:
    """ksm_rmap_items, of the machine and of each mm, and an mm's merging pages; 6.1 copies an mm's numbers at fork."""
    mms = v.state.mms
    has_item = v.item_flags & state.ITEM != 0
    yield from differs("ksm_rmap_items", v.counter[Counter.KSM_RMAP_ITEMS], has_item.sum())
    yield from differs("items on the list of mm", mms[:, state.LIST_ITEMS], v.per_mm(has_item))
    if not v.is_old:
        yield from differs("ksm_rmap_items of mm", mms[:, state.ITEMS], v.per_mm(has_item))
        yield from differs("ksm_merging_pages of mm", mms[:, state.MERGING], v.per_mm(v.item_flags & state.STABLE != 0))


def rmap_items_are_where_they_may_be(v: StateView) -> Faults:
    """A page has an rmap_item only if ksmd scans its mm; it hangs in one tree at most."""
    has_item = v.item_flags & state.ITEM != 0
    hangs = v.item_flags & (state.STABLE | state.UNSTABLE)
    scanned = np.zeros(len(v.state.mms) + 1, np.bool_)
    scanned[v.slots] = True
    yield from all_hold("an item of an mm that is not scanned: page", ~has_item | scanned[v.mm_of_page])
    yield from all_hold("in a tree without an item: page", has_item | (hangs == 0))
    yield from all_hold("in two trees: page", hangs != state.STABLE | state.UNSTABLE)


def counters_of_pages_are_recounted(v: StateView) -> Faults:
    """pages_shared, pages_sharing, pages_unshared and pages_volatile, from rmap_items and stable nodes alone."""
    lengths = [len(members) for members in v.hlists.values()]
    kept = {name: v.counter[Counter[name.upper()]] for name in ("pages_shared", "pages_sharing", "pages_unshared")}
    unstable = (v.item_flags & state.UNSTABLE != 0).sum()
    loose = (v.item_flags & (state.ITEM | state.STABLE | state.UNSTABLE) == state.ITEM).sum()
    yield from differs("pages_shared", kept["pages_shared"], sum(length > 0 for length in lengths))
    yield from differs("pages_sharing", kept["pages_sharing"], sum(max(length - 1, 0) for length in lengths))
    yield from differs("pages_unshared", kept["pages_unshared"], unstable)
    yield from differs("pages_volatile", v.counter[Counter.KSM_RMAP_ITEMS] - sum(kept.values()), loose)


def members_are_the_items_of_their_node(v: StateView) -> Faults:
    """An hlist has as many members as its node says, the stable items alone, and those that left; the others are free."""
    seen: list[int] = []
    listed = [member for members in v.listed_members.values() for member in members]
    for node, members in v.hlists.items():
        rows = [v.members[member] for member in members]
        present = v.present(v.listed_members[node])
        yield from differs(f"left in node {node}", v.nodes[node][state.N_LEFT], len(v.listed_members[node]) - len(present))
        if v.listed_members[node][:1] != present[:1]:
            yield f"the first of node {node} has left"
        yield from differs(f"length of node {node}", v.nodes[node][state.LEN], len(present))
        if any(row[state.MEMBER_NODE] != node for row in rows):
            yield f"hlist of node {node} has a member of another"
        seen += members
    pages = np.array([v.members[member][state.MEMBER_PAGE] for member in seen], np.int64)
    yield from all_hold("not the head of its page: member", v.state.pages[pages, state.HEAD] == seen, seen)
    yield from all_hold("not a stable item: page", v.item_flags[pages] & state.STABLE != 0, pages)
    yield from differs("stable items", (v.item_flags & state.STABLE != 0).sum(), len(np.unique(pages)))
    free = chase(v.members, v.scan[Scan.FREE_MEMBER], state.MEMBER_NEXT)
    yield from partition("members", [*listed, *free], len(v.members))


# ---- the scan


def mm_list_is_linked_both_ways(v: StateView) -> Faults:
    """ksmd scans the living mms that are registered, and dead ones that have items or are at the cursor."""
    mms = v.state.mms
    yield from linked("list of mms", v.slots, mms[v.slots, state.SLOT_PREV].tolist(), int(NO_MM))
    yield from differs("last of the list", v.scan[Scan.SLOT_LAST], v.slots[-1] if v.slots else NO_MM)
    cursor = v.scan[Scan.CUR_MM]
    if cursor != NO_MM and cursor not in v.slots:
        yield f"the cursor is at mm {cursor}, which is not on the list"
    elif cursor != NO_MM and not mms[cursor, state.FIRST_PAGE] <= v.scan[Scan.CUR_PAGE] <= mms[cursor, state.END_PAGE]:
        yield f"the cursor is at page {v.scan[Scan.CUR_PAGE]}, outside of mm {cursor}"
    listed = np.zeros(len(mms), np.bool_)
    listed[v.slots] = True
    alive = mms[:, state.USERS] > 0
    kept = (mms[:, state.LIST_ITEMS] > 0) | (np.arange(len(mms)) == cursor)
    registered = mms[:, state.REGISTERED] != 0
    yield from all_hold("alive and registered, but not on the list, or the reverse: mm", ~alive | (listed == registered))
    yield from all_hold("dead, without items, but on the list: mm", alive | ~listed | kept)
    has_mergeable = v.per_mm(v.page_flags & state.MERGEABLE != 0) > 0
    has_vma = mms[:, state.MERGEABLE_VMAS] > 0
    yield from all_hold("mergeable pages, but no VMA, or the reverse: mm", ~alive | (has_mergeable == has_vma))


def unstable_trees_hold_this_scans_items(v: StateView) -> Faults:
    """Built, such a tree is red-black; not built, its pages are as they were put in, differ, and are found by content."""
    if v.scan[Scan.CUR_MM] == NO_MM:
        # the trees are left as they are, and dropped at the start of the next scan; FULL_SCANS has told the items so
        yield from all_hold("of a scan that has not begun: page", ~v.in_present_tree)
        return
    trees = v.state.trees
    for nid in range(1 if v.knob[Knob.MERGE_ACROSS_NODES] else v.n_nids):
        if trees[state.UNSTABLE_LEFTOVER, nid]:
            continue
        items = np.flatnonzero(v.in_present_tree & (v.state.page_bytes[:, state.ITEM_NID] == nid))
        if trees[state.UNSTABLE_EXACT, nid]:
            links: Rows = v.state.unstable_links.tolist()
            root = int(trees[state.UNSTABLE_ROOT, nid])
            yield from (f"tree {nid}: {fault}" for fault in red_black(links, root))
            held = [row - 1 for row in in_order(links, root)]
        else:
            held = items.tolist()
            yield from (f"tree {nid}: {fault}" for fault in _unchanged(v, items, nid))
            yield from all_hold(f"was taken out of tree {nid}: page", ~np.isin(items, v.erased), items)
        if sorted(held) != items.tolist():
            yield f"tree {nid} holds {len(held)} items, and {len(items)} say so, not all the same"


def _unchanged(v: StateView, items: NDArray[np.int64], nid: int) -> Faults:
    """What the look-up in an unstable tree relies on."""
    inserted = v.checksum[items]
    needed = state.MERGEABLE | state.ANON
    hidden = v.page_flags[items] & state.PROT_NONE != 0
    yield from all_hold("gone: page", v.frame[items] != NO_FRAME, items)
    yield from all_hold("not mergeable: page", v.page_flags[items] & needed == needed, items)
    yield from all_hold("out of the sight of 6.1: page", ~(hidden & v.is_old), items)
    unchanged = v.state.frames[v.frame[items], state.FRAME_CONTENT] == inserted
    yield from all_hold("changed: page", unchanged | np.isin(items, v.written), items)
    if len(np.unique(inserted)) != len(inserted):
        yield "two pages have one content"
    known = inserted < v.state.by_content.shape[1]
    found = v.state.by_content[nid, inserted[known], state.UNSTABLE_AT] - 1
    alone = v.state.by_content[nid, inserted[known], state.RESTING] - 1
    is_found = (found == items[known]) | (alone == items[known]) | np.isin(items[known], v.written)
    yield from all_hold("not found: page", is_found, items[known])
