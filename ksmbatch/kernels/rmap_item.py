"""rmap_items: made when ksmd first sees a page, taken out of the trees before it is looked at again, freed when it is gone.

An rmap_item is its page's number; mm/ksm.c keeps a list of them per mm, here they stand in the page's own slot.
"""

from numpy import int64

from ksmbatch.accel import inlined, kernel
from ksmbatch.kernels.cursor import mm_of
from ksmbatch.kernels.resting import wake
from ksmbatch.kernels.stable_chain import ksm_get_folio
from ksmbatch.kernels.stable_tree import leave_stable_node
from ksmbatch.kernels.unstable_tree import erase_unstable, forget_item, in_present_tree
from ksmbatch.metrics import Counter
from ksmbatch.state import (
    AGE,
    CHECKSUM,
    FREED,
    HEAD,
    ITEM,
    ITEM_FLAGS,
    ITEMS,
    LIST_ITEMS,
    MEMBER_NODE,
    NO_FRAME,
    SKIPS,
    STABLE,
    UNSTABLE,
)


@kernel
def remove_rmap_item_from_tree(s, page):
    """The rmap_item of `page` leaves the tree in which it hangs, if any.

    Mirrors: mm/ksm.c remove_rmap_item_from_tree()
    Writes: page_bytes, members, nodes, mms, counters, stable_*, unstable_*.
    """
    flags = int64(s.page_bytes[page, ITEM_FLAGS])
    if flags & STABLE:
        node = int64(s.members[s.pages[page, HEAD], MEMBER_NODE])
        if ksm_get_folio(s, node) != NO_FRAME:
            leave_stable_node(s, page, node)
    elif flags & UNSTABLE:
        if in_present_tree(s, page):
            erase_unstable(s, page)
        s.counters[Counter.PAGES_UNSHARED] -= 1
        s.page_bytes[page, ITEM_FLAGS] = flags & ~UNSTABLE


@inlined
def get_next_rmap_item(s, page, mm):
    """Makes an rmap_item for `page` of `mm` if it has none.

    Mirrors: mm/ksm.c get_next_rmap_item().
    Writes: page_bytes, mms, counters.
    """
    if s.page_bytes[page, ITEM_FLAGS] & ITEM:
        return
    s.page_bytes[page, ITEM_FLAGS] = int64(s.page_bytes[page, ITEM_FLAGS]) & FREED | ITEM
    s.page_bytes[page, AGE] = 0
    s.page_bytes[page, SKIPS] = 0
    s.pages[page, CHECKSUM] = -1
    s.counters[Counter.KSM_RMAP_ITEMS] += 1
    s.mms[mm, ITEMS] += 1
    s.mms[mm, LIST_ITEMS] += 1


@kernel
def free_rmap_item(s, page, mm):
    """Frees the rmap_item of `page` of `mm`. Mirrors: mm/ksm.c remove_trailing_rmap_items(). Writes: as the two above."""
    wake(s, page)
    remove_rmap_item_from_tree(s, page)
    forget_item(s, page)
    s.counters[Counter.KSM_RMAP_ITEMS] -= 1
    s.mms[mm, ITEMS] -= 1
    s.mms[mm, LIST_ITEMS] -= 1


@kernel
def free_rmap_items(s, first, end):
    """Frees all rmap_items of the pages [first, end), which belong to one mm."""
    for page in range(first, end):
        if s.page_bytes[page, ITEM_FLAGS] & ITEM:
            free_rmap_item(s, page, mm_of(s, page))
