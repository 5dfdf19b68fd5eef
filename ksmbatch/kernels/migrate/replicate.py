"""Policy `replicate`: a KSM page stays where it is; ksmd gives each mapping the copy of its own node when it passes, and makes
one where there is none.

Nobody's proposal: what a kernel could do that never moves a page for others. It acts with merge_across_nodes = 0; for memory
hotremove, which cannot wait for ksmd, it is `substitute`.
"""

from numpy import int64

from ksmbatch.accel import kernel
from ksmbatch.codes import Caller
from ksmbatch.kernels.fault import unmap_page
from ksmbatch.kernels.frame import alloc_frame_on, has_room, map_frame
from ksmbatch.kernels.migrate.substitute import find_candidate, hang_in, look_up
from ksmbatch.kernels.migrate.substitute import migrate_ksm_page as migrate_ksm_page
from ksmbatch.kernels.stable_node import alloc_stable_node
from ksmbatch.kernels.stable_tree import leave_stable_node, mark_ksm, stable_tree_append
from ksmbatch.metrics import Counter
from ksmbatch.state import (
    FRAME,
    FRAME_CONTENT,
    FRAME_NID,
    FRAME_NODE,
    HEAD,
    KPFN,
    MEMBER_NODE,
    NIL,
    OFFLINE,
    PAGE_NID,
    Knob,
)


@kernel
def stays(s, frame, nid, caller):  # noqa: ARG001  # a hook's signature
    """Always, but for hotremove; across nodes there is one tree, and nothing to replicate."""
    return caller != Caller.HOTREMOVE and not s.knobs[Knob.MERGE_ACROSS_NODES]


@kernel
def copy_to(s, page, content, nid, there):
    """A KSM page on `nid` for `page`, with a stable node beside `there` (or NIL). Writes: everything. Returns: the node."""
    copy = alloc_frame_on(s, page, content, nid)
    mark_ksm(s, copy)
    node = alloc_stable_node(s, content, copy, nid)
    s.frames[copy, FRAME_NODE] = node
    hang_in(s, node, nid, there)
    s.counters[Counter.MIGRATE_ALLOCATIONS] += 1
    return node


@kernel
def visit_ksm_page(s, page):
    """ksmd passes a page that maps a KSM page of another node than its own: it gets its own node's. Writes: everything."""
    frame = int64(s.pages[page, FRAME])
    nid = int64(s.page_bytes[page, PAGE_NID])
    if s.knobs[Knob.MERGE_ACROSS_NODES] or s.frame_bytes[frame, FRAME_NID] == nid or s.numa[nid, OFFLINE]:
        return
    content = int64(s.frames[frame, FRAME_CONTENT])
    there = look_up(s, nid, content)
    target = find_candidate(s, there, int64(1)) if there != NIL else NIL
    if target == NIL and not has_room(s, nid):
        s.counters[Counter.MIGRATE_FAILURES] += 1
        return
    leave_stable_node(s, page, int64(s.members[s.pages[page, HEAD], MEMBER_NODE]))
    if target == NIL:
        target = copy_to(s, page, content, nid, there)
    unmap_page(s, page)
    map_frame(s, page, int64(s.nodes[target, KPFN]))
    stable_tree_append(s, page, target)
