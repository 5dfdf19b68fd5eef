"""Policy `mainline`: a KSM page that moves keeps its stable node, which stays in the tree of the old node until ksmd comes
around.

It moves frames; whether and when ksmd notices is in `merge` and `stable_tree`.
"""

from numpy import int64

from ksmbatch.accel import kernel
from ksmbatch.codes import Kernel, Move
from ksmbatch.kernels.fault import free_pfn, take_pfn
from ksmbatch.kernels.rmap_walk import count_reached
from ksmbatch.metrics import NodeCounter
from ksmbatch.state import (
    FRAME,
    FRAME_FLAGS,
    FRAME_NID,
    KSM,
    MAPCOUNT,
    MAPPED,
    NO_FRAME,
    PAGE_FLAGS,
    PAGE_NID,
    PFN,
    PROT_NONE,
    ZERO,
    Knob,
)

ABSENT, ZERO_PAGE, STUCK, HIDDEN, UNMAPPED = (
    int(move) for move in (Move.ABSENT, Move.ZERO, Move.STUCK, Move.HIDDEN, Move.UNMAPPED)
)


@kernel
def move_frame(s, frame, nid):
    """`frame` moves to node `nid` with all its mappings, which have been found.

    Mirrors: migrate_folio_move(), folio_migrate_ksm(); our number of the frame stays, its pfn does not
    Writes: frames, frame_bytes, node_counters, pfns.
    """
    here = int64(s.frame_bytes[frame, FRAME_NID])
    s.node_counters[here, NodeCounter.FRAMES] -= 1
    s.node_counters[nid, NodeCounter.FRAMES] += 1
    if s.frame_bytes[frame, FRAME_FLAGS] & KSM:
        s.node_counters[here, NodeCounter.KSM_FRAMES] -= 1
        s.node_counters[nid, NodeCounter.KSM_FRAMES] += 1
    pfn = take_pfn(s, nid)
    free_pfn(s, here, int64(s.frames[frame, PFN]))
    s.frames[frame, PFN] = pfn
    s.frame_bytes[frame, FRAME_NID] = nid


@kernel
def move_page(s, links, page, nid):
    """move_pages(MPOL_MF_MOVE_ALL) of one page to node `nid`.

    Mirrors: do_pages_move(), migrate_pages(); rmap_walk_ksm() for KSM pages
    Writes: frames, node_counters. Returns: the node on which the page is now, or a `Move`.
    """
    old = s.knobs[Knob.KERNEL] < Kernel.V6_12
    flags = int64(s.page_bytes[page, PAGE_FLAGS])
    frame = int64(s.pages[page, FRAME])
    if not flags & MAPPED:
        return UNMAPPED
    if frame == NO_FRAME and not flags & ZERO:
        return ABSENT
    if old and flags & PROT_NONE:
        return HIDDEN
    if flags & ZERO:
        return ZERO_PAGE
    if s.frame_bytes[frame, FRAME_NID] == nid:
        return nid
    if s.frame_bytes[frame, FRAME_FLAGS] & KSM and count_reached(s, links, frame) != s.frames[frame, MAPCOUNT]:
        return STUCK
    move_frame(s, frame, nid)
    return nid


@kernel
def move_pages(s, links, first, end, nid, status):
    """Moves the pages [first, end) one by one; status[k] becomes what move_page() says of page first + k."""
    for page in range(first, end):
        status[page - first] = move_page(s, links, page, nid)


@kernel
def recount_remote_mappings(s):
    """Counts remote mappings anew after frames moved. Reads: pages, frames. Writes: node_counters."""
    for nid in range(len(s.node_counters)):
        s.node_counters[nid, NodeCounter.REMOTE_MAPPINGS] = 0
    for page in range(len(s.page_bytes)):
        frame = int64(s.pages[page, FRAME])
        if frame != NO_FRAME and s.frame_bytes[frame, FRAME_NID] != s.page_bytes[page, PAGE_NID]:
            s.node_counters[s.page_bytes[page, PAGE_NID], NodeCounter.REMOTE_MAPPINGS] += 1
