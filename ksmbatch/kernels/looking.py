"""Pages at rest that must be visited all the same: those whose searches would see or change the shape of a tree.

What a walk may meet is `stable_tree`'s and `stable_shape`'s knowledge; here pages are looked through for it.
"""

from numpy import int64

from ksmbatch.accel import inlined, kernel
from ksmbatch.kernels.resting import IS_VISIT, SEARCHING
from ksmbatch.kernels.stable_shape import know_where_to_look, may_meet_something
from ksmbatch.kernels.stable_tree import is_calm, meets_something
from ksmbatch.state import (
    CHECKSUM,
    COHORT,
    ITEM_NID,
    LOOK_END,
    LOOK_FIRST,
    LOOK_KNOWN,
    UNSTABLE_EXACT,
    Knob,
    Scan,
)

STRETCH = 32  # pages that are looked through at once


@inlined
def lively_trees(s):
    """The nids, as bits, of the trees whose shape searches may see or change; nids above 31 share bits. Reads: trees, knobs."""
    lively = int64(0)
    for nid in range(1 if s.knobs[Knob.MERGE_ACROSS_NODES] else s.trees.shape[1]):
        if s.trees[UNSTABLE_EXACT, nid] or not is_calm(s, nid):
            lively |= int64(1) << (nid & 31)
    return lively


@kernel
def must_look(s, page, nid, content):
    """Whether `page`, at rest, which searches the trees of `nid` in this scan, may see or change their shape. Reads: trees."""
    if s.trees[UNSTABLE_EXACT, nid]:
        return True
    if is_calm(s, nid) or (s.trees[LOOK_KNOWN, nid] and not may_meet_something(s, nid, content)):
        return False
    s.scan[Scan.CUR_PAGE] = page + 1  # time is told by it, where a chain may be due for pruning
    return meets_something(s, nid, content)


@inlined
def end_of_uninteresting(s, first, end, low, high):
    """How far from `first` on no page at rest has a content held twice, or one from `low` to before `high`; at least so far."""
    n_dup = s.by_content.shape[1]
    while first < end:
        stop = min(first + STRETCH, end)
        found = 0
        for page in range(first, stop):  # without a branch, for these are nearly always in vain
            content = s.pages[page, CHECKSUM]
            found |= (s.page_bytes[page, COHORT] >= SEARCHING) & ((content < n_dup) | ((content >= low) & (content < high)))
        if found:
            break
        first = stop
    return first


@kernel
def first_that_looks(s, first, end, lively):
    """The first of the pages [first, end), none of which is due, that must look, see above; `end` if none must.

    Reads: cohort, cohorts. Writes: scan, and as meets_something().
    """
    low = int64(2**31)
    high = int64(0)
    for nid in range(1 if s.knobs[Knob.MERGE_ACROSS_NODES] else s.trees.shape[1]):
        if not (lively >> (nid & 31)) & 1:
            continue
        if s.trees[UNSTABLE_EXACT, nid]:
            low = int64(0)
            high = int64(2**31)
        else:
            know_where_to_look(s, nid)
            low = min(low, int64(s.trees[LOOK_FIRST, nid]))
            high = max(high, int64(s.trees[LOOK_END, nid]))
    start = end_of_uninteresting(s, first, end, low, high)
    while start < end:
        stop = min(start + STRETCH, end)
        for page in range(start, stop):
            if not s.cohorts[0, s.page_bytes[page, COHORT]] & IS_VISIT:
                continue
            nid = int64(s.page_bytes[page, ITEM_NID])
            content = int64(s.pages[page, CHECKSUM])
            if (lively >> (nid & 31)) & 1 and must_look(s, page, nid, content):
                return page
        start = end_of_uninteresting(s, stop, end, low, high)
    return end
