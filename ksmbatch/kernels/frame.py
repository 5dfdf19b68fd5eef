"""Frames: which NUMA node has one free, taking it, giving it back, and its page frame number.

It knows no page tables but for the entry that maps a frame; what happens to memory is `fault`'s and `migrate`'s business.
"""

from numpy import int64

from ksmbatch.accel import inlined, kernel
from ksmbatch.kernels.resting import wake
from ksmbatch.kernels.stable_node import kpfn_gone
from ksmbatch.kernels.twins import holder_comes, holder_goes
from ksmbatch.metrics import Counter, NodeCounter
from ksmbatch.state import (
    DANGLING,
    FRAME,
    FRAME_CONTENT,
    FRAME_FLAGS,
    FRAME_NID,
    FRAME_NODE,
    FREE_PFN,
    KSM,
    LAST_PFN,
    MAPCOUNT,
    NEAREST,
    NIL,
    NO_FRAME,
    NODE_PAGES,
    OFFLINE,
    PAGE_NID,
    PFNS_BEFORE,
    Scan,
)

NOWHERE = int64(-1)  # no node has a frame left


@inlined
def has_room(s, nid):
    """Whether `nid` is online and has a free frame. Reads: numa, node_counters."""
    n_pages = int64(s.numa[nid, NODE_PAGES])
    return not s.numa[nid, OFFLINE] and (n_pages == 0 or s.node_counters[nid, NodeCounter.FRAMES] < n_pages)


@kernel
def nearest_with_room(s, nid):
    """The nearest of the other nodes that has a free frame, or NOWHERE. Mirrors: the zonelist's order. Reads: as has_room()."""
    for k in range(len(s.numa) - 1):
        other = int64(s.numa[nid, NEAREST + k])
        if has_room(s, other):
            return other
    return NOWHERE


@kernel
def alloc_frame(s, page, content):
    """A free frame with `content` for `page`: on the node of its memory policy, or the nearest that has one.

    Mirrors: alloc_anon_folio() under MPOL_PREFERRED. Where no node has a frame left, scan[OUT_OF_MEMORY] says so
    Reads: page_bytes. Writes: as alloc_frame_on(). Returns: the frame, not yet mapped.
    """
    nid = int64(s.page_bytes[page, PAGE_NID])
    if not has_room(s, nid):
        other = nearest_with_room(s, nid)
        if other == NOWHERE:
            s.scan[Scan.OUT_OF_MEMORY] = 1
        else:
            nid = other
    return alloc_frame_on(s, page, content, nid)


@kernel
def alloc_frame_on(s, page, content, nid):
    """A free frame with `content` on `nid`: number `page` if that is free, else a spare one.

    Writes: frames, frame_bytes, node_counters, counters, scan, pfns. Returns: the frame, not yet mapped.
    """
    frame = page if s.frames[page, MAPCOUNT] == 0 else spare_frame(s)
    s.frames[frame, FRAME_CONTENT] = content
    s.frames[frame, FRAME_NODE] = NIL
    s.frame_bytes[frame, FRAME_FLAGS] = 0
    s.frame_bytes[frame, FRAME_NID] = nid
    give_pfn(s, frame, take_pfn(s, nid))
    holder_comes(s, nid, content)
    s.node_counters[nid, NodeCounter.FRAMES] += 1
    s.counters[Counter.FRAMES_IN_USE] += 1
    s.counters[Counter.PEAK_FRAMES] = max(s.counters[Counter.PEAK_FRAMES], s.counters[Counter.FRAMES_IN_USE])
    return frame


@inlined
def spare_frame(s):
    """The number of a spare frame that is free, which is used from now on. Reads: frames. Writes: scan."""
    frame = int64(s.scan[Scan.FREE_FRAME])
    if frame != NO_FRAME:
        s.scan[Scan.FREE_FRAME] = s.frames[frame, FRAME_CONTENT]
    else:
        frame = int64(s.scan[Scan.NEXT_FRAME])
        s.scan[Scan.NEXT_FRAME] = frame + 1
    return frame


@inlined
def renumber(s, page, frame):
    """`frame`, mapped by `page`, is about to become a KSM page: if it is the page's own, it gets the number of a spare one.

    Nothing but numbers changes; but those of KSM pages are near each other then, and on a large host so are their rows.
    Writes: frames, pages, scan. Returns: its number.
    """
    if frame != page or s.frames[frame, MAPCOUNT] != 1 or s.pfns.shape[1] != 0:
        return frame
    other = spare_frame(s)
    s.frames[other, FRAME_CONTENT] = s.frames[frame, FRAME_CONTENT]
    s.frames[other, MAPCOUNT] = 1
    s.frames[other, FRAME_NODE] = s.frames[frame, FRAME_NODE]
    s.frame_bytes[other, FRAME_FLAGS] = s.frame_bytes[frame, FRAME_FLAGS]
    s.frame_bytes[other, FRAME_NID] = s.frame_bytes[frame, FRAME_NID]
    s.frames[frame, MAPCOUNT] = 0
    s.frame_bytes[frame, FRAME_FLAGS] = 0
    s.pages[page, FRAME] = other
    return other


@inlined
def take_pfn(s, nid):
    """The page frame number of a new frame on `nid`: the one freed there last, else one never used.

    Mirrors: the per-CPU free lists of mm/page_alloc.c, as far as a step of a scenario can show them
    Writes: pfns. Returns: 0 where pfns are not kept.
    """
    if s.pfns.shape[1] == 0:
        return int64(0)
    pfn = int64(s.pfns[nid, FREE_PFN])
    if pfn != NIL:
        s.pfns[nid, FREE_PFN] = s.pfns[nid, PFNS_BEFORE + pfn]
        return pfn
    s.pfns[nid, LAST_PFN] += 1
    return int64(s.pfns[nid, LAST_PFN])


@inlined
def give_pfn(s, frame, pfn):
    """`frame` has `pfn` from now on, where these are kept. Writes: frame_pfns."""
    if len(s.frame_pfns) != 0:
        s.frame_pfns[frame] = pfn


@inlined
def pfn_of(s, frame):
    """The page frame number of `frame`; 0 where these are not kept. Reads: frame_pfns."""
    return int64(s.frame_pfns[frame]) if len(s.frame_pfns) != 0 else int64(0)


@inlined
def free_pfn(s, nid, pfn):
    """Gives `pfn` of `nid` back. Writes: pfns."""
    if s.pfns.shape[1] != 0:
        s.pfns[nid, PFNS_BEFORE + pfn] = s.pfns[nid, FREE_PFN]
        s.pfns[nid, FREE_PFN] = pfn


@kernel
def free_frame(s, frame):
    """The last mapping of `frame` went.

    Mirrors: free_unref_folio(); page->mapping no longer names the stable node, which is how ksmd will notice
    Writes: frames, nodes, trees, node_counters, counters, scan.
    """
    nid = int64(s.frame_bytes[frame, FRAME_NID])
    s.node_counters[nid, NodeCounter.FRAMES] -= 1
    s.counters[Counter.FRAMES_IN_USE] -= 1
    flags = int64(s.frame_bytes[frame, FRAME_FLAGS])
    if flags & KSM:
        s.node_counters[nid, NodeCounter.KSM_FRAMES] -= 1
        if s.frames[frame, FRAME_NODE] != NIL:
            kpfn_gone(s, int64(s.frames[frame, FRAME_NODE]), nid)
        if flags & DANGLING:
            s.counters[Counter.DANGLING_PAGES] -= 1
    else:
        holder_goes(s, nid, int64(s.frames[frame, FRAME_CONTENT]))
    s.frame_bytes[frame, FRAME_FLAGS] = 0
    s.frames[frame, FRAME_NODE] = NIL
    free_pfn(s, nid, pfn_of(s, frame))
    if frame >= len(s.pages):
        s.frames[frame, FRAME_CONTENT] = s.scan[Scan.FREE_FRAME]
        s.scan[Scan.FREE_FRAME] = frame


@inlined
def map_frame(s, page, frame):
    """Enters `frame` into the empty pte of `page`. Writes: pages, frames, node_counters, and as wake()."""
    wake(s, page)
    nid = int64(s.page_bytes[page, PAGE_NID])
    s.pages[page, FRAME] = frame
    s.frames[frame, MAPCOUNT] += 1
    s.node_counters[nid, NodeCounter.MAPPED_PAGES] += 1
    if s.frame_bytes[frame, FRAME_NID] != nid:
        s.node_counters[nid, NodeCounter.REMOTE_MAPPINGS] += 1
