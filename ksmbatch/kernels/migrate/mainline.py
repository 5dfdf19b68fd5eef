"""Policy `mainline`: a KSM page that moves keeps its stable node, which stays in the tree of the old node until ksmd comes around.

It moves frames; whether and when ksmd notices is in `merge` and `stable_tree`.
"""

from numpy import int64

from ksmbatch.accel import kernel
from ksmbatch.codes import Kernel, Move
from ksmbatch.kernels.fault import mm_of, new_generation
from ksmbatch.metrics import NodeCounter
from ksmbatch.state import (
    END_PAGE,
    FIRST,
    FIRST_PAGE,
    FRAME,
    FRAME_FLAGS,
    FRAME_NID,
    FRAME_NODE,
    HEAD,
    INHERITED,
    ITEM_FLAGS,
    KSM,
    MAPCOUNT,
    MEMBER_NEXT,
    MEMBER_NODE,
    MEMBER_PAGE,
    NIL,
    NO_FRAME,
    NO_MM,
    PAGE_FLAGS,
    PAGE_NID,
    PARENT_MM,
    PROT_NONE,
    STABLE,
    ZERO,
    Knob,
)

NO_PAGE = -1
ABSENT, ZERO_PAGE, STUCK, HIDDEN = int64(Move.ABSENT), int64(Move.ZERO), int64(Move.STUCK), int64(Move.HIDDEN)


@kernel
def parent_page(s, page, mm):
    """The page of the parent of `mm` whose anon_vma the VMA of `page` is linked to, or NO_PAGE. Reads: page_flags, mms."""
    if not s.page_bytes[page, PAGE_FLAGS] & INHERITED:
        return NO_PAGE
    parent = int64(s.mms[mm, PARENT_MM])
    return int64(s.mms[parent, FIRST_PAGE]) + page - int64(s.mms[mm, FIRST_PAGE])


@kernel
def hangs_in(s, page, node):
    """Whether the rmap_item of `page` hangs in stable node `node`. Reads: items, members."""
    return s.page_bytes[page, ITEM_FLAGS] & STABLE and s.members[s.pages[page, HEAD], MEMBER_NODE] == node


@kernel
def count_reached_from(s, page, node, frame):
    """How many mappings of `frame` the rmap walk finds by the rmap_item of `page`, and by no nearer one.

    An rmap_item leads to the VMAs linked to the anon_vma of its own: its page, and the same address in processes forked later.
    Mirrors: mm/ksm.c rmap_walk_ksm()
    Reads: pages, items, members, mms.
    """
    mm = mm_of(s, page)
    reached = 1 if s.pages[page, FRAME] == frame else 0
    for other in range(mm + 1, len(s.mms)):
        if s.mms[other, PARENT_MM] == NO_MM:
            continue
        twin = int64(s.mms[other, FIRST_PAGE]) + page - int64(s.mms[mm, FIRST_PAGE])
        if twin >= s.mms[other, END_PAGE] or s.pages[twin, FRAME] != frame:
            continue
        ancestor = twin
        ancestor_mm = other
        while ancestor != NO_PAGE and ancestor_mm > mm and not hangs_in(s, ancestor, node):
            ancestor = parent_page(s, ancestor, ancestor_mm)
            ancestor_mm = int64(s.mms[ancestor_mm, PARENT_MM])
        if ancestor == page:
            reached += 1
    return reached


@kernel
def count_reached(s, frame):
    """How many mappings of the KSM page `frame` its rmap_items lead to. Mirrors: mm/ksm.c rmap_walk_ksm(). Reads: everything."""
    node = int64(s.frames[frame, FRAME_NODE])
    if node == NIL:
        return 0
    reached = 0
    member = int64(s.nodes[node, FIRST])
    while member != NIL:
        reached += count_reached_from(s, int64(s.members[member, MEMBER_PAGE]), node, frame)
        member = int64(s.members[member, MEMBER_NEXT])
    return reached


@kernel
def count_unreachable(s):
    """Mappings of KSM pages that no rmap_item leads to, over the whole machine. Reads: everything."""
    unreachable = 0
    for frame in range(len(s.frame_bytes)):
        if s.frame_bytes[frame, FRAME_FLAGS] & KSM and s.frames[frame, MAPCOUNT] > 0:
            unreachable += s.frames[frame, MAPCOUNT] - count_reached(s, frame)
    return unreachable


@kernel
def move_frame(s, frame, nid):
    """`frame` moves to node `nid` with all its mappings, which have been found. Mirrors: migrate_folio_move(), folio_migrate_ksm()."""
    here = s.frame_bytes[frame, FRAME_NID]
    s.node_counters[here, NodeCounter.FRAMES] -= 1
    s.node_counters[nid, NodeCounter.FRAMES] += 1
    if s.frame_bytes[frame, FRAME_FLAGS] & KSM:
        s.node_counters[here, NodeCounter.KSM_FRAMES] -= 1
        s.node_counters[nid, NodeCounter.KSM_FRAMES] += 1
    s.frame_bytes[frame, FRAME_NID] = nid
    new_generation(s, frame)


@kernel
def move_page(s, page, nid):
    """move_pages(MPOL_MF_MOVE_ALL) of one page to node `nid`.

    Mirrors: do_pages_move(), migrate_pages(); rmap_walk_ksm() for KSM pages
    Writes: frames, node_counters. Returns: the node on which the page is now, or a `Move`.
    """
    old = s.knobs[Knob.KERNEL] < Kernel.V6_12
    frame = int64(s.pages[page, FRAME])
    is_zero = s.page_bytes[page, PAGE_FLAGS] & ZERO
    if frame == NO_FRAME and not is_zero:
        return ABSENT
    if old and s.page_bytes[page, PAGE_FLAGS] & PROT_NONE:
        return HIDDEN
    if is_zero:
        return ZERO_PAGE
    if s.frame_bytes[frame, FRAME_NID] == nid:
        return nid
    if s.frame_bytes[frame, FRAME_FLAGS] & KSM and count_reached(s, frame) != s.frames[frame, MAPCOUNT]:
        return STUCK
    move_frame(s, frame, nid)
    return nid


@kernel
def move_pages(s, first, end, nid, status):
    """Moves the pages [first, end) one by one; status[k] becomes what move_page() says of page first + k."""
    for page in range(first, end):
        status[page - first] = move_page(s, page, nid)


@kernel
def recount_remote_mappings(s):
    """Counts remote mappings anew after frames moved. Reads: pages, frames. Writes: node_counters."""
    for nid in range(len(s.node_counters)):
        s.node_counters[nid, NodeCounter.REMOTE_MAPPINGS] = 0
    for page in range(len(s.pages)):
        frame = int64(s.pages[page, FRAME])
        if frame != NO_FRAME and s.frame_bytes[frame, FRAME_NID] != s.page_bytes[page, PAGE_NID]:
            s.node_counters[s.page_bytes[page, PAGE_NID], NodeCounter.REMOTE_MAPPINGS] += 1
