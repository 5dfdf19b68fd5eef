"""Rules of frames, page tables and NUMA nodes."""

import numpy as np

from ksmbatch import state
from ksmbatch.codes import Policy
from ksmbatch.invariants.recount import Faults, all_hold, differs, partition
from ksmbatch.metrics import Counter, NodeCounter
from ksmbatch.state import NIL, NO_FRAME, Knob, Scan
from ksmbatch.stateview import Rows, StateView, chase


def pages_map_what_there_is(v: StateView) -> Faults:
    """A page maps a frame, the zero page or nothing; only a VMA's pages map anything, only written VMAs have frames."""
    flags = v.page_flags
    present = v.frame != NO_FRAME
    zero = flags & state.ZERO != 0
    yield from all_hold("no such frame at page", (v.frame >= NO_FRAME) & (v.frame < v.scan[Scan.NEXT_FRAME]))
    yield from all_hold("frame and zero page at page", ~(present & zero))
    yield from all_hold("ksmd's zero page is none at page", zero | (flags & state.ZERO_BY_KSM == 0))
    yield from all_hold("something mapped outside of VMAs at page", ~(present | zero) | (flags & state.MAPPED != 0))
    yield from all_hold("a frame in a VMA that was never written at page", ~present | (flags & state.ANON != 0))
    yield from all_hold("mergeable outside of VMAs: page", (flags & state.MERGEABLE == 0) | (flags & state.MAPPED != 0))


def mapcounts_are_recounted(v: StateView) -> Faults:
    """The mapcount of a frame is the number of pages that map it."""
    yield from differs("mapcount", v.mapcount, np.bincount(v.mapped_frames, minlength=len(v.mapcount)))


def free_frames_are_free(v: StateView) -> Faults:
    """A frame that nobody maps is no KSM page, has no node, and if it is a spare one, it is on the free list, once."""
    frames = v.state.frames
    free = v.mapcount == 0
    yield from all_hold("still a KSM page: frame", ~free | (v.frame_flags == 0))
    yield from all_hold("still has a node: frame", ~free | (frames[:, state.FRAME_NODE] == NIL))
    n_pages, end = len(v.frame), v.scan[Scan.NEXT_FRAME]
    spare: Rows = frames[:end].tolist()
    listed = chase(spare, v.scan[Scan.FREE_FRAME], state.FRAME_CONTENT, int(NO_FRAME))
    if sorted(listed) != [frame for frame in range(n_pages, end) if free[frame]]:
        yield f"the free list has {len(listed)} frames, and is not that of all {int(free[n_pages:end].sum())} spare ones"


def frames_of_nodes_are_recounted(v: StateView) -> Faults:
    """frames, ksm_frames, mapped_pages and remote_mappings of every NUMA node."""
    nids = v.state.frame_bytes[:, state.FRAME_NID]
    present = v.frame != NO_FRAME
    used = v.mapcount > 0
    remote = present.copy()
    remote[present] = nids[v.mapped_frames] != v.page_nid[present]
    for counter, counted in (
        (NodeCounter.FRAMES, nids[used]),
        (NodeCounter.KSM_FRAMES, nids[used & (v.frame_flags & state.KSM != 0)]),
        (NodeCounter.MAPPED_PAGES, v.page_nid[present | (v.page_flags & state.ZERO_BY_KSM != 0)]),
        (NodeCounter.REMOTE_MAPPINGS, v.page_nid[remote]),
    ):
        kept = v.state.node_counters[:, counter]
        yield from differs(counter.name.lower(), kept, np.bincount(counted, minlength=v.n_nids))


def frames_in_use_are_recounted(v: StateView) -> Faults:
    """frames_in_use, and that peak_frames is not below it."""
    used = (v.mapcount > 0).sum()
    yield from differs("frames_in_use", v.counter[Counter.FRAMES_IN_USE], used)
    if v.counter[Counter.PEAK_FRAMES] < used:
        yield f"peak_frames is {v.counter[Counter.PEAK_FRAMES]}, and {used} are in use"


def nodes_hold_no_more_than_they_can(v: StateView) -> Faults:
    """Unless memory ran out, a NUMA node has no more frames in use or numbered than it is large, and none if it is offline."""
    if v.scan[Scan.OUT_OF_MEMORY]:
        return
    limit = v.state.numa[:, state.NODE_PAGES]
    used = v.state.node_counters[:, NodeCounter.FRAMES]
    yield from all_hold("more frames than it has are in use: node", (limit == 0) | (used <= limit))
    yield from all_hold("offline, and in use: node", (v.state.numa[:, state.OFFLINE] == 0) | (used == 0))
    if v.state.pfns.shape[1]:
        numbered = v.state.pfns[:, state.LAST_PFN]
        yield from all_hold("more pfns than it has were used: node", (limit == 0) | (numbered <= limit))


def dangling_pages_are_v4s(v: StateView) -> Faults:
    """dangling_pages are mapped KSM pages without a stable node; only v4 leaves any, or has corruptions."""
    dangling = (v.frame_flags & state.DANGLING != 0) & (v.mapcount > 0)
    is_ksm = v.frame_flags & state.KSM != 0
    yield from differs("dangling_pages", v.counter[Counter.DANGLING_PAGES], dangling.sum())
    yield from all_hold("dangling, but no KSM page: frame", ~dangling | is_ksm)
    yield from all_hold("dangling, but it names a node: frame", ~dangling | (v.state.frames[:, state.FRAME_NODE] == NIL))
    if v.knob[Knob.POLICY] != Policy.V4:
        yield from all_hold("dangling: frame", ~dangling)
        yield from differs("corruptions", v.counter[Counter.CORRUPTIONS], 0)


def no_rmap_walk_is_under_way(v: StateView) -> Faults:
    """A walk over the mappings of a KSM page marks the pages that it has found, and clears the marks."""
    yield from all_hold("marked: page", v.page_flags & state.SEEN == 0)


def pfns_are_taken_or_free_once(v: StateView) -> Faults:
    """Where pfns are kept, each up to the last is that of one frame on its node, or free."""
    pfns = v.state.pfns
    if pfns.shape[1] == 0:
        return
    for nid, row in enumerate(pfns.tolist()):
        taken = v.state.frame_pfns[(v.mapcount > 0) & (v.state.frame_bytes[:, state.FRAME_NID] == nid)].tolist()
        before: Rows = [[0], *([pfn] for pfn in row[state.PFNS_BEFORE + 1 :])]
        free = chase(before, row[state.FREE_PFN], 0)
        yield from partition(f"pfns of node {nid}", [*taken, *free], row[state.LAST_PFN] + 1)


def zero_pages_are_recounted(v: StateView) -> Faults:
    """ksm_zero_pages, of the machine and of each mm."""
    by_ksm = v.page_flags & state.ZERO_BY_KSM != 0
    yield from differs("ksm_zero_pages", v.counter[Counter.KSM_ZERO_PAGES], by_ksm.sum())
    yield from differs("ksm_zero_pages of mm", v.state.mms[:, state.ZERO_PAGES], v.per_mm(by_ksm))
