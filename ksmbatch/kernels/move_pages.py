"""move_pages(): who may move which page, whether there is room, whether all its mappings are found; then the policy moves it.

What becomes of a KSM page that moves is in `migrate`, one policy a file.
"""

from numpy import int64

from ksmbatch.accel import entry_kernel, inlined, kernel
from ksmbatch.codes import Kernel, Move
from ksmbatch.kernels.frame import has_room
from ksmbatch.kernels.migrate import ALLOCATES_ITSELF, migrate_ksm_page, stays
from ksmbatch.kernels.migrate.frame_move import change_place, count_remote
from ksmbatch.kernels.resting import wake
from ksmbatch.kernels.rmap_walk import count_reached
from ksmbatch.kernels.unstable_tree import note_shared_soon
from ksmbatch.metrics import Counter
from ksmbatch.state import (
    DANGLING,
    FRAME,
    FRAME_FLAGS,
    FRAME_NID,
    FRAME_NODE,
    KSM,
    MAPCOUNT,
    MAPPED,
    NIL,
    NO_FRAME,
    PAGE_FLAGS,
    PROT_NONE,
    SPARE_NODES,
    STUCK_CALL,
    ZERO,
    Knob,
    Scan,
)

ABSENT, ZERO_PAGE, STUCK, HIDDEN, UNMAPPED, REFUSED, FULL, LEFT = (
    int64(move) for move in (Move.ABSENT, Move.ZERO, Move.STUCK, Move.HIDDEN, Move.UNMAPPED, Move.REFUSED, Move.FULL, Move.LEFT)
)


@inlined
def may_move_ksm(s, caller):
    """Whether `caller` may move KSM pages; counts a refusal. Reads: knobs. Writes: counters."""
    if (s.knobs[Knob.CALLERS] >> caller) & 1:
        return True
    s.counters[Counter.MIGRATE_REFUSED] += 1
    return False


@kernel
def is_reached(s, links, frame):
    """Whether the rmap walk finds all mappings of KSM page `frame`; counts what comes of it if not.

    Mirrors: try_to_migrate() with rmap_walk_ksm(); of a freed stable node it finds nothing
    Reads: members, pages, links. Writes: counters, nodes, where a walk in vain is remembered for the rest of the call.
    """
    node = int64(s.frames[frame, FRAME_NODE])
    if s.frame_bytes[frame, FRAME_FLAGS] & DANGLING:
        s.counters[Counter.CORRUPTIONS] += 1
    elif node != NIL and s.nodes[node, STUCK_CALL] != s.scan[Scan.MOVE_CALL]:
        if count_reached(s, links, frame) == s.frames[frame, MAPCOUNT]:
            return True
        s.nodes[node, STUCK_CALL] = s.scan[Scan.MOVE_CALL]
    s.counters[Counter.MIGRATE_STUCK] += 1
    return False


@kernel
def move_ksm_frame(s, links, frame, nid, caller, found):
    """Moves KSM page `frame` to another node, `nid`. `found`: int32[n_pages], room for a list.

    Mirrors: migrate_pages()
    Writes: everything. Returns: `nid`, or a `Move`.
    """
    if not may_move_ksm(s, caller):
        return REFUSED
    if stays(s, frame, nid, caller):
        return LEFT
    itself = (ALLOCATES_ITSELF >> s.knobs[Knob.POLICY]) & 1 and not s.knobs[Knob.MERGE_ACROSS_NODES]
    if not itself and not has_room(s, nid):
        s.counters[Counter.MIGRATE_FAILURES] += 1
        return FULL
    if not is_reached(s, links, frame):
        return STUCK
    return nid if migrate_ksm_page(s, links, frame, nid, found) else FULL


@kernel
def move_private_frame(s, page, frame, nid):
    """Moves `frame`, which `page` maps and which is no KSM page. Returns: `nid`, or FULL. Writes: as change_place()."""
    if not has_room(s, nid):
        s.counters[Counter.MIGRATE_FAILURES] += 1
        return FULL
    here = int64(s.frame_bytes[frame, FRAME_NID])
    if not s.knobs[Knob.MERGE_ACROSS_NODES]:
        note_shared_soon(s, page)
        wake(s, page)
    change_place(s, frame, nid)
    if s.frames[frame, MAPCOUNT] == 1:
        count_remote(s, page, here, nid)
    else:
        s.scan[Scan.REMOTE_UNKNOWN] = 1
    return nid


@inlined
def move_page(s, links, page, nid, caller, found):
    """move_pages(MPOL_MF_MOVE_ALL) of one page to node `nid`, or what other callers do with it.

    Mirrors: do_pages_move(), migrate_pages()
    Writes: everything. Returns: the node on which the page is now, or a `Move`.
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
    if s.frame_bytes[frame, FRAME_FLAGS] & KSM:
        return move_ksm_frame(s, links, frame, nid, caller, found)
    return move_private_frame(s, page, frame, nid)


@inlined
def nodes_are_short(s):
    """Whether a move could run out of stable nodes."""
    return s.scan[Scan.NEXT_NODE] + SPARE_NODES > len(s.nodes)


@entry_kernel
def move_pages(s, links, first, end, nid, caller, status, found):
    """Moves the pages [first, end) one by one; status[k] becomes what move_page() says of page end - len(status) + k.

    Returns: `end`, or the page at which it stopped for want of stable nodes: enlarge the pool and go on there.
    """
    offset = end - len(status)
    s.scan[Scan.MOVE_CALL] += 1
    for page in range(first, end):
        if nodes_are_short(s):
            return page
        status[page - offset] = move_page(s, links, page, nid, caller, found)
    return end
