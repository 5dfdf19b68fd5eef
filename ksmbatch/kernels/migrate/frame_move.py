"""Moving one frame: its NUMA node and its page frame number change, its number of ours and all its mappings stay.

It neither asks whether the frame may move nor touches stable nodes.
"""

from numpy import int64

from ksmbatch.accel import entry_kernel, inlined, kernel
from ksmbatch.kernels.frame import free_pfn, give_pfn, pfn_of, take_pfn
from ksmbatch.kernels.members import next_member, wake_members
from ksmbatch.kernels.twins import holder_comes, holder_goes
from ksmbatch.metrics import Counter, NodeCounter
from ksmbatch.state import (
    FIRST,
    FRAME,
    FRAME_CONTENT,
    FRAME_FLAGS,
    FRAME_NID,
    FRAME_NODE,
    KSM,
    MAPCOUNT,
    MEMBER_PAGE,
    NIL,
    NO_FRAME,
    PAGE_NID,
    Knob,
    Scan,
)


@inlined
def count_remote(s, page, here, there):
    """A mapping of `page` is backed by node `there` now instead of `here`. Writes: node_counters."""
    home = int64(s.page_bytes[page, PAGE_NID])
    s.node_counters[home, NodeCounter.REMOTE_MAPPINGS] += int64(there != home) - int64(here != home)


@kernel
def move_frame(s, frame, nid):
    """`frame` moves to node `nid` with all its mappings, which have been found.

    Mirrors: migrate_folio_move(); folio_migrate_ksm() rewrites kpfn, which here is the number that stays
    Reads: nodes, members, pages. Writes: frames, frame_bytes, node_counters, counters, pfns, scan.
    """
    here = int64(s.frame_bytes[frame, FRAME_NID])
    node = int64(s.frames[frame, FRAME_NODE])
    change_place(s, frame, nid)
    counted = 0
    member = int64(s.nodes[node, FIRST]) if node != NIL else NIL
    while member != NIL:
        page = int64(s.members[member, MEMBER_PAGE])
        if s.pages[page, FRAME] == frame:
            count_remote(s, page, here, nid)
            counted += 1
        member = next_member(s, member)
    if counted != s.frames[frame, MAPCOUNT]:
        s.scan[Scan.REMOTE_UNKNOWN] = 1  # relatives map it, too


@inlined
def change_place(s, frame, nid):
    """As move_frame(), but for REMOTE_MAPPINGS. Writes: frames, frame_bytes, node_counters, counters, pfns."""
    here = int64(s.frame_bytes[frame, FRAME_NID])
    s.node_counters[here, NodeCounter.FRAMES] -= 1
    s.node_counters[nid, NodeCounter.FRAMES] += 1
    s.counters[Counter.FRAMES_MOVED] += 1
    if s.frame_bytes[frame, FRAME_FLAGS] & KSM:
        s.node_counters[here, NodeCounter.KSM_FRAMES] -= 1
        s.node_counters[nid, NodeCounter.KSM_FRAMES] += 1
        s.counters[Counter.KSM_FRAMES_MOVED] += 1
        if not s.knobs[Knob.MERGE_ACROSS_NODES] and s.frames[frame, FRAME_NODE] != NIL:
            wake_members(s, int64(s.frames[frame, FRAME_NODE]))  # their tree is not the page's own any more
    else:
        holder_goes(s, here, int64(s.frames[frame, FRAME_CONTENT]))
        holder_comes(s, nid, int64(s.frames[frame, FRAME_CONTENT]))
    s.counters[Counter.MOVE_CPU_NS] += s.knobs[Knob.MOVE_NS] + (s.frames[frame, MAPCOUNT] - 1) * s.knobs[Knob.REMAP_NS]
    pfn = take_pfn(s, nid)
    free_pfn(s, here, pfn_of(s, frame))
    give_pfn(s, frame, pfn)
    s.frame_bytes[frame, FRAME_NID] = nid


@entry_kernel
def recount_remote_mappings(s):
    """Counts REMOTE_MAPPINGS anew where moves lost count. Reads: pages, frames. Writes: node_counters, scan."""
    if not s.scan[Scan.REMOTE_UNKNOWN]:
        return
    s.scan[Scan.REMOTE_UNKNOWN] = 0
    for nid in range(len(s.node_counters)):
        s.node_counters[nid, NodeCounter.REMOTE_MAPPINGS] = 0
    for page in range(len(s.page_bytes)):
        frame = int64(s.pages[page, FRAME])
        if frame != NO_FRAME and s.frame_bytes[frame, FRAME_NID] != s.page_bytes[page, PAGE_NID]:
            s.node_counters[s.page_bytes[page, PAGE_NID], NodeCounter.REMOTE_MAPPINGS] += 1
