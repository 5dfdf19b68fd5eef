"""Hints to the CPU: what ksmd's next visits will look at is fetched from memory while it makes the present ones.

They change nothing but two fields and the rings of `scan` that are theirs. A visit touches five cache lines, each named by the
one before; on a large host every one of them is a miss.
"""

from numpy import int64

from ksmbatch.accel import inlined, prefetch
from ksmbatch.kernels.resting import next_due
from ksmbatch.kernels.stable_node import is_chain
from ksmbatch.kernels.twins import tree_of
from ksmbatch.state import (
    FIRST,
    FOUND,
    FRAME,
    FRAME_CONTENT,
    FRAME_NID,
    KPFN,
    N_HINTED,
    NIL,
    NO_FRAME,
    STABLE_AT,
    UNSTABLE_AT,
    Scan,
)

HINT_STEP = 7  # due pages between two steps of hint_ahead(), of which there are four
HINTED = int64(len(Scan))


@inlined
def hint_ahead(s):
    """Has the CPU fetch what the visits of the pages next due will look at, in steps, each of which needs the one before.

    Where the next hint of each is, three rings in `scan` remember: pages, rows of by_content, and stable nodes.
    Reads: calendar, pages, frames, by_content, nodes. Writes: scan.
    """
    end = int64(s.scan[Scan.REGION_END])
    told = 1 if s.scan[Scan.HINTS] else HINT_STEP * 4
    for _ in range(told):
        place = int64(s.scan[Scan.HINTS])
        s.scan[Scan.HINTS] = place + 1
        page = next_due(s, int64(s.scan[Scan.HINT]), end)
        s.scan[Scan.HINT] = min(page + 1, end)
        frame = int64(s.pages[page, FRAME]) if page < end else NO_FRAME
        s.scan[HINTED + place % N_HINTED] = frame
        if frame != NO_FRAME:
            prefetch(s.frames, frame)
            prefetch(s.frame_bytes, frame)
        if place >= HINT_STEP:
            hint_content(s, place - HINT_STEP)
        if place >= 2 * HINT_STEP:
            hint_node(s, place - 2 * HINT_STEP)
        if place >= 3 * HINT_STEP:
            hint_frame(s, place - 3 * HINT_STEP)


@inlined
def hint_content(s, place):
    """The second step: what the trees have of the content of a frame, if others may hold it, too."""
    frame = int64(s.scan[HINTED + place % N_HINTED])
    row = int64(-1)
    if frame != NO_FRAME:
        content = int64(s.frames[frame, FRAME_CONTENT])
        if content < s.by_content.shape[1]:
            row = content
            nid = tree_of(s, s.frame_bytes[frame, FRAME_NID])
            prefetch(s.by_content[nid], content)
            row += nid * s.by_content.shape[1]
    s.scan[HINTED + N_HINTED + place % N_HINTED] = row


@inlined
def hint_node(s, place):
    """The third step: the stable node of that content, or the page with it in the unstable tree."""
    row = int64(s.scan[HINTED + N_HINTED + place % N_HINTED])
    node = NIL
    if row >= 0:
        nid = row // s.by_content.shape[1]
        content = row - nid * s.by_content.shape[1]
        node = int64(s.by_content[nid, content, STABLE_AT])
        other = int64(s.by_content[nid, content, UNSTABLE_AT]) - 1
        if node != NIL:
            prefetch(s.nodes, node)
        elif other >= 0:
            prefetch(s.pages, other)
            prefetch(s.page_bytes, other)
    s.scan[HINTED + 2 * N_HINTED + place % N_HINTED] = node


@inlined
def hint_frame(s, place):
    """The last step: the frame of that node, and its first member."""
    node = int64(s.scan[HINTED + 2 * N_HINTED + place % N_HINTED])
    if node == NIL:
        return
    if is_chain(s, node):
        prefetch(s.nodes, int64(s.nodes[node, FOUND]))
        return
    prefetch(s.members, int64(s.nodes[node, FIRST]))
    frame = int64(s.nodes[node, KPFN])
    if frame != NO_FRAME:
        prefetch(s.frames, frame)
        prefetch(s.frame_bytes, frame)
