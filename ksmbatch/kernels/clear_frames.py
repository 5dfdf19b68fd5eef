"""Compaction, CMA and huge pages: somebody wants a run of frames of a node free, and what is in it moves within the node.

Frames are known by their page frame numbers here, which begin at 1 on every node. No policy has a say: nodes do not differ.
"""

from numpy import int64

from ksmbatch.accel import entry_kernel, kernel
from ksmbatch.kernels.frame import give_pfn, pfn_of, take_pfn
from ksmbatch.kernels.move_pages import is_reached, may_move_ksm
from ksmbatch.metrics import Counter
from ksmbatch.state import (
    FRAME_FLAGS,
    FREE_PFN,
    KSM,
    LAST_PFN,
    MAPCOUNT,
    NIL,
    NODE_PAGES,
    PFNS_BEFORE,
    Knob,
    Scan,
)


@kernel
def isolate(s, nid, first, end):
    """Takes the free pfns [first, end) of `nid` out of its stack; those below that were never used go on it. Writes: pfns.

    Mirrors: start_isolate_page_range()
    """
    pfns = s.pfns[nid]
    kept = NIL  # the last one that stays on the stack
    pfn = int64(pfns[FREE_PFN])
    pfns[FREE_PFN] = NIL
    while pfn != NIL:
        before = int64(pfns[PFNS_BEFORE + pfn])
        if not first <= pfn < end:
            if kept == NIL:
                pfns[FREE_PFN] = pfn
            else:
                pfns[PFNS_BEFORE + kept] = pfn
            pfns[PFNS_BEFORE + pfn] = NIL
            kept = pfn
        pfn = before
    last = int64(pfns[LAST_PFN])
    if last < end - 1:
        for pfn in range(first - 1, last, -1):
            push(pfns, pfn)
        pfns[LAST_PFN] = end - 1


@kernel
def push(pfns, pfn):
    """Puts `pfn` on the stack. Writes: pfns."""
    pfns[PFNS_BEFORE + pfn] = pfns[FREE_PFN]
    pfns[FREE_PFN] = pfn


@entry_kernel
def clear_frames(s, links, nid, first, end, holder, caller):
    """Moves what is in the pfns [first, end) of `nid` elsewhere on the node, and gives the range back.

    `holder`: int32[end - first], the frame in each pfn or -1.
    Mirrors: alloc_contig_range(), compact_zone(), as far as they move pages
    Writes: pfns, frames, counters. Returns: whether all of it could be moved.
    """
    s.scan[Scan.MOVE_CALL] += 1
    isolate(s, nid, first, end)
    cleared = True
    for pfn in range(first, end):
        frame = int64(holder[pfn - first])
        if frame >= 0 and not move_within(s, links, frame, nid, caller):
            cleared = False
    for pfn in range(end - 1, first - 1, -1):
        frame = int64(holder[pfn - first])
        if frame < 0 or pfn_of(s, frame) != pfn:
            push(s.pfns[nid], pfn)
    return cleared


@kernel
def move_within(s, links, frame, nid, caller):
    """`frame` gets another pfn on its node. Writes: pfns, frames, counters. Returns: whether it did."""
    is_ksm = s.frame_bytes[frame, FRAME_FLAGS] & KSM
    if is_ksm and not (may_move_ksm(s, caller) and is_reached(s, links, frame)):
        return False
    if s.pfns[nid, FREE_PFN] == NIL and s.pfns[nid, LAST_PFN] >= s.numa[nid, NODE_PAGES]:
        s.counters[Counter.MIGRATE_FAILURES] += 1
        return False
    give_pfn(s, frame, take_pfn(s, nid))
    s.counters[Counter.FRAMES_MOVED] += 1
    s.counters[Counter.KSM_FRAMES_MOVED] += int64(is_ksm != 0)
    s.counters[Counter.MOVE_CPU_NS] += s.knobs[Knob.MOVE_NS] + (s.frames[frame, MAPCOUNT] - 1) * s.knobs[Knob.REMAP_NS]
    return True
