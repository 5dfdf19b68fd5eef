"""Policy `break_cow`: every mapping gets a private copy on the new node, and ksmd merges them again when it comes around.

Andrea Arcangeli's other answer, and Hugh Dickins's objection to it: there is no end to the pages that this may allocate in the
middle of a migration, and each allocation may fail. If one does, the mappings that are left keep the KSM page where it is.
"""

from numpy import int64

from ksmbatch.accel import kernel
from ksmbatch.kernels.fault import unmap_page
from ksmbatch.kernels.frame import alloc_frame_on, has_room, map_frame
from ksmbatch.kernels.migrate.frame_move import move_frame
from ksmbatch.kernels.rmap_walk import collect_reached
from ksmbatch.metrics import Counter
from ksmbatch.state import FRAME_CONTENT, Knob

ALLOCATES_ITSELF = True


@kernel
def migrate_ksm_page(s, links, frame, nid, found):
    """Copies `frame` to `nid` for each of its mappings, in the order in which the rmap walk finds them.

    Mirrors: break_ksm() over rmap_walk_ksm(); rmap_items stay in the node until ksmd passes
    Writes: everything. Returns: whether all mappings are away.
    """
    if s.knobs[Knob.MERGE_ACROSS_NODES]:
        move_frame(s, frame, nid)
        return True
    content = int64(s.frames[frame, FRAME_CONTENT])
    for k in range(collect_reached(s, links, frame, found)):
        if not has_room(s, nid):
            s.counters[Counter.MIGRATE_FAILURES] += 1
            return False
        page = int64(found[k])
        copy = alloc_frame_on(s, page, content, nid)
        unmap_page(s, page)
        map_frame(s, page, copy)
        s.counters[Counter.COW_KSM] += 1
        s.counters[Counter.MIGRATE_ALLOCATIONS] += 1
        s.counters[Counter.MOVE_CPU_NS] += s.knobs[Knob.COW_NS]
    s.counters[Counter.FRAMES_MOVED] += 1
    s.counters[Counter.KSM_FRAMES_MOVED] += 1
    return True
