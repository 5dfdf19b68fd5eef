"""rmap_items: made when ksmd first sees a page, taken out of the trees before it is looked at again, freed when it is gone.

An rmap_item is its page's number; mm/ksm.c keeps a list of them per mm, here they stand in the page's own slot.
"""

from ksmbatch.accel import kernel
from ksmbatch.kernels.fault import mm_of
from ksmbatch.kernels.stable_tree import ksm_get_folio, leave_stable_node
from ksmbatch.kernels.unstable_tree import erase_unstable, forget_item, in_present_tree
from ksmbatch.metrics import Counter
from ksmbatch.state import FREED, ITEM, ITEMS, LIST_ITEMS, MEMBER_NODE, NO_FRAME, STABLE, UNSTABLE


@kernel
def remove_rmap_item_from_tree(s, page):
    """The rmap_item of `page` leaves the tree in which it hangs, if any.

    Mirrors: mm/ksm.c remove_rmap_item_from_tree()
    Writes: items, members, nodes, mms, counters, stable_*, unstable_*.
    """
    flags = int(s.item_flags[page])
    if flags & STABLE:
        node = int(s.members[s.item_head[page], MEMBER_NODE])
        if ksm_get_folio(s, node) != NO_FRAME:
            leave_stable_node(s, page, node)
    elif flags & UNSTABLE:
        if in_present_tree(s, page):
            erase_unstable(s, page)
        s.counters[Counter.PAGES_UNSHARED] -= 1
        s.item_flags[page] = flags & ~UNSTABLE


@kernel
def get_next_rmap_item(s, page, mm):
    """Makes an rmap_item for `page` of `mm` if it has none. Mirrors: mm/ksm.c get_next_rmap_item(). Writes: items, mms, counters."""
    if s.item_flags[page] & ITEM:
        return
    s.item_flags[page] = int(s.item_flags[page]) & FREED | ITEM
    s.item_age[page] = 0
    s.item_skips[page] = 0
    s.item_checksum[page] = -1
    s.counters[Counter.KSM_RMAP_ITEMS] += 1
    s.mms[mm, ITEMS] += 1
    s.mms[mm, LIST_ITEMS] += 1


@kernel
def free_rmap_item(s, page, mm):
    """Frees the rmap_item of `page` of `mm`. Mirrors: mm/ksm.c remove_trailing_rmap_items(). Writes: as the two above."""
    remove_rmap_item_from_tree(s, page)
    forget_item(s, page)
    s.counters[Counter.KSM_RMAP_ITEMS] -= 1
    s.mms[mm, ITEMS] -= 1
    s.mms[mm, LIST_ITEMS] -= 1


@kernel
def free_rmap_items(s, first, end):
    """Frees all rmap_items of the pages [first, end), which belong to one mm."""
    for page in range(first, end):
        if s.item_flags[page] & ITEM:
            free_rmap_item(s, page, mm_of(s, page))
