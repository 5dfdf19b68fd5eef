"""Who may rest: the decision that ksmd's next passes over a page can be left to arithmetic (see `resting`).

It is taken after a page was passed. What ends a rest is seen to by whoever does it: `resting.wake` and `twins`.
"""

from numpy import int64

from ksmbatch.accel import inlined
from ksmbatch.codes import KSMD_MOVES, Kernel
from ksmbatch.kernels.cohorts import (
    MERGED,
    NEXT_VISIT,
    SEARCHING,
    VISITS,
    calls_of,
    cohort_of,
    gate,
    is_stopped_by_gate,
    note_changed,
)
from ksmbatch.kernels.cursor import make_due, make_undue
from ksmbatch.kernels.looking import watch
from ksmbatch.kernels.merge import has_zero_checksum
from ksmbatch.kernels.resting import rest
from ksmbatch.kernels.twins import tree_of
from ksmbatch.state import (
    AGE,
    ANON,
    CHECKSUM,
    FRAME,
    FRAME_CONTENT,
    FRAME_FLAGS,
    FRAME_NID,
    FRAME_NODE,
    HEAD,
    HOLDERS,
    IN_MIGRATE,
    ITEM_FLAGS,
    ITEM_NID,
    KSM,
    MAPCOUNT,
    MEMBER_NODE,
    MERGEABLE,
    NID,
    NIL,
    NO_FRAME,
    PAGE_FLAGS,
    PROT_NONE,
    RESTING,
    SKIPS,
    STABLE,
    STABLE_AT,
    UNSTABLE,
    WHERE,
    Knob,
    Scan,
)

VISITORS = sum(1 << policy for policy in KSMD_MOVES)  # policies that do something when ksmd passes a KSM page in its place


@inlined
def is_alone(s, page, frame):
    """Whether `page`, which alone maps `frame`, will be visited in vain from now on; if so, `twins` knows of it.

    Reads: pages, page_bytes, frames, by_content, knobs. Writes: by_content, page_bytes, watch.
    """
    content = int64(s.frames[frame, FRAME_CONTENT])
    if s.pages[page, CHECKSUM] != content and not is_stopped_by_gate(s, content):
        return False
    if s.page_bytes[page, PAGE_FLAGS] & (MERGEABLE | ANON | PROT_NONE) != MERGEABLE | ANON:
        return False
    if s.knobs[Knob.USE_ZERO_PAGES] and has_zero_checksum(s, content):
        return False
    tree = tree_of(s, s.frame_bytes[frame, FRAME_NID])
    if content < s.by_content.shape[1]:
        if s.by_content[tree, content, HOLDERS] != 1 or s.by_content[tree, content, STABLE_AT] != NIL:
            return False
        s.by_content[tree, content, RESTING] = page + 1
    s.page_bytes[page, ITEM_NID] = tree
    watch(s, page, tree, content)
    return True


@inlined
def rests_unmerged(s, page, frame):
    """Lets `page`, which alone maps `frame`, rest if it may, for good or until its next visit.

    Writes: calendar, and as is_alone(), rest(), gate().
    """
    seq = int64(s.scan[Scan.SEQ])
    in_tree = s.page_bytes[page, ITEM_FLAGS] & UNSTABLE != 0
    if not s.knobs[Knob.SMART_SCAN] or s.knobs[Knob.KERNEL] < Kernel.V6_12:
        if not is_alone(s, page, frame):
            return False
        rest(s, page, SEARCHING)
        if not in_tree:
            gate(s, page)
        return True
    calls = calls_of(int64(s.page_bytes[page, AGE]), int64(s.page_bytes[page, SKIPS]))
    should_be = VISITS[calls] and calls >= 2
    if in_tree and not should_be:
        return False  # the arithmetic takes the contrary for granted, see resting.show()
    if not is_alone(s, page, frame):
        if NEXT_VISIT[calls] == 1:
            return False
        make_due(s, page, seq + NEXT_VISIT[calls])
    rest(s, page, cohort_of(calls, seq))
    if s.pages[page, CHECKSUM] != s.frames[frame, FRAME_CONTENT]:  # as when it was skipped
        note_changed(s, page)
    if should_be and not in_tree:
        gate(s, page)
    return True


@inlined
def is_in_place(s, page, frame):
    """Whether `page`, which maps the KSM page `frame`, will be found to be in its place. Reads: page_bytes, nodes, frames.

    Mirrors: mm/ksm.c cmp_and_merge_page(), `if (stable_node->head != &migrate_nodes && rmap_item->head == stable_node)`
    """
    node = int64(s.frames[frame, FRAME_NODE])
    if node == NIL or not s.page_bytes[page, ITEM_FLAGS] & STABLE:
        return False
    if s.members[s.pages[page, HEAD], MEMBER_NODE] != node or s.nodes[node, WHERE] == IN_MIGRATE:
        return False
    return s.nodes[node, NID] == tree_of(s, s.frame_bytes[frame, FRAME_NID])


@inlined
def retire(s, page):
    """Lets `page`, which was passed just now, rest if it may; else the next scan visits it. Writes: as rest(), calendar."""
    frame = int64(s.pages[page, FRAME])
    if frame != NO_FRAME and not s.knobs[Knob.FORCE_EXACT]:
        flags = int64(s.frame_bytes[frame, FRAME_FLAGS])
        if flags & KSM:
            if is_in_place(s, page, frame) and not (VISITORS >> s.knobs[Knob.POLICY]) & 1:
                rest(s, page, MERGED)
                make_undue(s, page, s.scan[Scan.SEQ] + 1)
                return
        elif s.frames[frame, MAPCOUNT] == 1 and rests_unmerged(s, page, frame):
            make_undue(s, page, s.scan[Scan.SEQ] + 1)
            return
    make_due(s, page, s.scan[Scan.SEQ] + 1)
