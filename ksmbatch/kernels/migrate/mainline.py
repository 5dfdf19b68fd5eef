"""Policy `mainline`: a KSM page that moves keeps its stable node, which stays in the tree of the old node until ksmd comes around.

It moves frames; whether and when ksmd notices is in `merge` and `stable_tree`.
"""

from ksmbatch.accel import kernel
from ksmbatch.codes import Kernel, Move
from ksmbatch.kernels.fault import mm_of, new_generation
from ksmbatch.metrics import NodeCounter
from ksmbatch.state import (
    END_PAGE,
    FIRST,
    FIRST_PAGE,
    INHERITED,
    KSM,
    MEMBER_NEXT,
    MEMBER_NODE,
    MEMBER_PAGE,
    NIL,
    NO_FRAME,
    NO_MM,
    PARENT_MM,
    PROT_NONE,
    STABLE,
    ZERO,
    Knob,
)

NO_PAGE = -1


@kernel
def parent_page(s, page, mm):
    """The page of the parent of `mm` whose anon_vma the VMA of `page` is linked to, or NO_PAGE. Reads: page_flags, mms."""
    if not s.page_flags[page] & INHERITED:
        return NO_PAGE
    parent = int(s.mms[mm, PARENT_MM])
    return int(s.mms[parent, FIRST_PAGE]) + page - int(s.mms[mm, FIRST_PAGE])


@kernel
def hangs_in(s, page, node):
    """Whether the rmap_item of `page` hangs in stable node `node`. Reads: items, members."""
    return s.item_flags[page] & STABLE and s.members[s.item_head[page], MEMBER_NODE] == node


@kernel
def count_reached_from(s, page, node, frame):
    """How many mappings of `frame` the rmap walk finds by the rmap_item of `page`, and by no nearer one.

    An rmap_item leads to the VMAs linked to the anon_vma of its own: its page, and the same address in processes forked later.
    Mirrors: mm/ksm.c rmap_walk_ksm()
    Reads: pages, items, members, mms.
    """
    mm = mm_of(s, page)
    reached = 1 if s.page_frame[page] == frame else 0
    for other in range(mm + 1, len(s.mms)):
        if s.mms[other, PARENT_MM] == NO_MM:
            continue
        twin = int(s.mms[other, FIRST_PAGE]) + page - int(s.mms[mm, FIRST_PAGE])
        if twin >= s.mms[other, END_PAGE] or s.page_frame[twin] != frame:
            continue
        ancestor = twin
        ancestor_mm = other
        while ancestor != NO_PAGE and ancestor_mm > mm and not hangs_in(s, ancestor, node):
            ancestor = parent_page(s, ancestor, ancestor_mm)
            ancestor_mm = int(s.mms[ancestor_mm, PARENT_MM])
        if ancestor == page:
            reached += 1
    return reached


@kernel
def count_reached(s, frame):
    """How many mappings of the KSM page `frame` its rmap_items lead to. Mirrors: mm/ksm.c rmap_walk_ksm(). Reads: everything."""
    node = int(s.frame_node[frame])
    if node == NIL:
        return 0
    reached = 0
    member = int(s.nodes[node, FIRST])
    while member != NIL:
        reached += count_reached_from(s, int(s.members[member, MEMBER_PAGE]), node, frame)
        member = int(s.members[member, MEMBER_NEXT])
    return reached


@kernel
def count_unreachable(s):
    """Mappings of KSM pages that no rmap_item leads to, over the whole machine. Reads: everything."""
    unreachable = 0
    for frame in range(len(s.frame_flags)):
        if s.frame_flags[frame] & KSM and s.frame_mapcount[frame] > 0:
            unreachable += s.frame_mapcount[frame] - count_reached(s, frame)
    return unreachable


@kernel
def move_frame(s, frame, nid):
    """`frame` moves to node `nid` with all its mappings, which have been found. Mirrors: migrate_folio_move(), folio_migrate_ksm()."""
    here = s.frame_nid[frame]
    s.node_counters[here, NodeCounter.FRAMES] -= 1
    s.node_counters[nid, NodeCounter.FRAMES] += 1
    if s.frame_flags[frame] & KSM:
        s.node_counters[here, NodeCounter.KSM_FRAMES] -= 1
        s.node_counters[nid, NodeCounter.KSM_FRAMES] += 1
    s.frame_nid[frame] = nid
    new_generation(s, frame)


@kernel
def move_page(s, page, nid):
    """move_pages(MPOL_MF_MOVE_ALL) of one page to node `nid`.

    Mirrors: do_pages_move(), migrate_pages(); rmap_walk_ksm() for KSM pages
    Writes: frames, node_counters. Returns: the node on which the page is now, or a `Move`.
    """
    old = s.knobs[Knob.KERNEL] < Kernel.V6_12
    frame = int(s.page_frame[page])
    is_zero = s.page_flags[page] & ZERO
    if frame == NO_FRAME and not is_zero:
        return int(Move.ABSENT)
    if old and s.page_flags[page] & PROT_NONE:
        return int(Move.HIDDEN)
    if is_zero:
        return int(Move.ZERO)
    if s.frame_nid[frame] == nid:
        return nid
    if s.frame_flags[frame] & KSM and count_reached(s, frame) != s.frame_mapcount[frame]:
        return int(Move.STUCK)
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
    for page in range(len(s.page_frame)):
        frame = int(s.page_frame[page])
        if frame != NO_FRAME and s.frame_nid[frame] != s.page_nid[page]:
            s.node_counters[s.page_nid[page], NodeCounter.REMOTE_MAPPINGS] += 1
