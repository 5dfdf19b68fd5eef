"""The unstable trees, and taking an rmap_item out of whichever tree it is in (mm/ksm.c).

The unstable tree sorts pages that may change under it; it is right only as far as they did not. It does not merge anything.
"""

from __future__ import annotations

from .freed import UseAfterFree
from .memory import Frame, get_mergeable_page
from .rbtree import LEFT, RIGHT, rb_erase, rb_insert_color, rb_link_node
from .stable import ksm_get_folio
from .state import SEQNR_MASK, STABLE_FLAG, UNSTABLE_FLAG, Ksm, MmSlot, RmapItem


def unstable_tree_search_insert(ksm: Ksm, rmap_item: RmapItem, page: Frame) -> tuple[RmapItem, Frame] | None:
    """The item in the tree whose page equals `page`, with that page; else put `rmap_item` there, or give up, and None."""
    nid = ksm.get_kpfn_nid(page)
    root = ksm.root_unstable_tree[nid]
    parent: RmapItem | None = None
    side = LEFT
    tree_rmap_item = root.rb_node
    passed = 0
    while tree_rmap_item is not None:
        passed += 1
        if passed > ksm.rmap_items:  # items have been linked into another tree since, which leads in a circle
            raise UseAfterFree("use after free: a walk through an unstable tree that was not reset never ends")
        tree_page = get_mergeable_page(ksm, tree_rmap_item)
        if tree_page is None:
            ksm.events["unstable walk gave up at a page that is gone"] += 1
            return None
        if page is tree_page:  # don't substitute a ksm page for a forked page
            ksm.events["unstable walk met its own page"] += 1
            return None
        if tree_page.content != tree_rmap_item.keyed:
            ksm.events["unstable walk passed a changed page"] += 1
        if page.content == tree_page.content:
            if not ksm.merge_across_nodes and tree_page.nid != nid:
                ksm.events["unstable twin was on another node"] += 1
                return None
            return tree_rmap_item, tree_page
        parent = tree_rmap_item
        side = LEFT if page.content < tree_page.content else RIGHT
        tree_rmap_item = parent.child[side]
    rmap_item.flags = UNSTABLE_FLAG
    rmap_item.seqnr = ksm.scan.seqnr & SEQNR_MASK
    rmap_item.nid = nid
    rmap_item.head = None  # rb_node overlays it
    rmap_item.keyed = page.content
    rb_link_node(rmap_item, parent, side, root)
    rb_insert_color(rmap_item, root)
    ksm.pages_unshared += 1
    return None


def remove_rmap_item_from_tree(ksm: Ksm, rmap_item: RmapItem) -> None:
    """Off its stable node's list, or out of the unstable tree; uncounted either way."""
    if rmap_item.flags & STABLE_FLAG:
        stable_node = rmap_item.head
        assert stable_node is not None
        if ksm_get_folio(ksm, stable_node) is None:
            return
        stable_node.hlist.remove(rmap_item)
        if stable_node.hlist:
            ksm.pages_sharing -= 1
        else:
            ksm.pages_shared -= 1
        rmap_item.mm.ksm_merging_pages -= 1
        stable_node.rmap_hlist_len -= 1
        rmap_item.head = None
        rmap_item.flags = 0
    elif rmap_item.flags & UNSTABLE_FLAG:
        age = (ksm.scan.seqnr - rmap_item.seqnr) & SEQNR_MASK
        assert age <= 1, "BUG_ON(age > 1)"
        if not age:  # put in by this scan; the trees of earlier ones have been dropped whole
            rb_erase(rmap_item, ksm.root_unstable_tree[rmap_item.nid])
        ksm.pages_unshared -= 1
        rmap_item.flags = 0


def remove_trailing_rmap_items(ksm: Ksm, mm_slot: MmSlot, index: int) -> None:
    """Free the slot's items from `index` on."""
    while len(mm_slot.rmap_list) > index:
        rmap_item = mm_slot.rmap_list.pop(index)
        remove_rmap_item_from_tree(ksm, rmap_item)
        ksm.free_rmap_item(rmap_item)
