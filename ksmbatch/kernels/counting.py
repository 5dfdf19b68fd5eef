"""What is counted over a whole machine at the end of a run, and kept by nobody. It changes nothing."""

from numpy import int64

from ksmbatch.accel import entry_kernel
from ksmbatch.kernels.rmap_walk import count_reached
from ksmbatch.kernels.twins import tree_of
from ksmbatch.state import (
    FRAME,
    FRAME_CONTENT,
    FRAME_FLAGS,
    FRAME_NID,
    ITEM,
    ITEM_FLAGS,
    KSM,
    MAPCOUNT,
    MERGEABLE,
    NO_FRAME,
    PAGE_FLAGS,
    STABLE,
    Scan,
)


@entry_kernel
def survey(s, links, seen):
    """Looks at all frames and pages. `seen`: uint8[n_nids, n_dup], all 0: which contents have a KSM page in which tree.

    Returns: mappings of KSM pages that no rmap_item leads to; KSM pages beyond one per content and tree; pages that map one in
    a mergeable VMA and have an rmap_item, but in no stable node.
    """
    unreachable = int64(0)
    duplicates = int64(0)
    stranded = int64(0)
    for frame in range(s.scan[Scan.NEXT_FRAME]):
        if not s.frame_bytes[frame, FRAME_FLAGS] & KSM or s.frames[frame, MAPCOUNT] == 0:
            continue
        unreachable += s.frames[frame, MAPCOUNT] - count_reached(s, links, frame)
        tree = tree_of(s, s.frame_bytes[frame, FRAME_NID])
        content = int64(s.frames[frame, FRAME_CONTENT])
        duplicates += int64(seen[tree, content])
        seen[tree, content] = 1
    for page in range(len(s.pages)):
        frame = int64(s.pages[page, FRAME])
        if frame != NO_FRAME and s.frame_bytes[frame, FRAME_FLAGS] & KSM and s.page_bytes[page, PAGE_FLAGS] & MERGEABLE:
            stranded += int64(int64(s.page_bytes[page, ITEM_FLAGS]) & (ITEM | STABLE) == ITEM)
    return unreachable, duplicates, stranded
