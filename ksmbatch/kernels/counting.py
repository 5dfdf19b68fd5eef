"""What is counted over a whole machine at the end of a run, and kept by nobody. It changes nothing.

Pages at rest need no look, since all of them are alike: those of cohort MERGED map the KSM page of their own stable node, the
others map no KSM page (see `retire`). What is left is looked at in the order of memory, and fetched ahead of that.
"""

from numpy import int64

from ksmbatch.accel import entry_kernel, inlined, kernel, prefetch
from ksmbatch.kernels.rmap_walk import count_reached, hangs_in
from ksmbatch.kernels.twins import tree_of
from ksmbatch.state import (
    FRAME,
    FRAME_CONTENT,
    FRAME_FLAGS,
    FRAME_NID,
    FRAME_NODE,
    HEAD,
    ITEM,
    ITEM_FLAGS,
    KSM,
    MAPCOUNT,
    MERGEABLE,
    NIL,
    NO_FRAME,
    PAGE_FLAGS,
    PAGES_PER_BLOCK,
    STABLE,
    Scan,
)

WINDOW = int64(64)  # pages or frames that the CPU is told of before they are looked at


@entry_kernel
def survey(s, links, seen):
    """Looks at all frames and pages. `seen`: uint8[n_nids, n_dup], all 0: which contents have a KSM page in which tree.

    Returns: mappings of KSM pages that no rmap_item leads to; KSM pages beyond one per content and tree; pages that map one in
    a mergeable VMA and have an rmap_item, but in no stable node.
    """
    unreachable, stranded = count_lost(s)
    if len(links.page_chain) != 0:
        unreachable = count_unreachable(s, links)  # an rmap_item leads to relatives, too
    return unreachable, count_duplicates(s, seen), stranded


@kernel
def count_lost(s):
    """Pages that map a KSM page but do not hang in its stable node, and those of them that are stranded (see survey()).

    Reads: cohort, cohorts, pages, page_bytes, frames, frame_bytes, members.
    """
    lost = int64(0)
    stranded = int64(0)
    n_pages = len(s.pages)
    for block in range((n_pages + PAGES_PER_BLOCK - 1) // PAGES_PER_BLOCK):
        end = min((block + 1) * PAGES_PER_BLOCK, n_pages)
        if count_at_rest(s, block) == end - block * PAGES_PER_BLOCK:
            continue
        for first in range(block * PAGES_PER_BLOCK, end, WINDOW):
            last = min(first + WINDOW, end)
            announce_pages(s, first, last)
            for page in range(first, last):
                if s.cohort[page] != 0:
                    continue
                frame = int64(s.pages[page, FRAME])
                if frame == NO_FRAME or not s.frame_bytes[frame, FRAME_FLAGS] & KSM:
                    continue
                node = int64(s.frames[frame, FRAME_NODE])
                lost += int64(node == NIL or not hangs_in(s, page, node))
                if s.page_bytes[page, PAGE_FLAGS] & MERGEABLE:
                    stranded += int64(int64(s.page_bytes[page, ITEM_FLAGS]) & (ITEM | STABLE) == ITEM)
    return lost, stranded


@inlined
def count_at_rest(s, block):
    """How many pages of `block` are at rest. Reads: cohorts."""
    n_pages = int64(0)
    for cohort in range(s.cohorts.shape[1]):
        n_pages += s.cohorts[1 + block, cohort]
    return n_pages


@inlined
def announce_pages(s, first, end):
    """Asks the CPU for what the pages of [first, end) that are awake map, and for their members. Reads: cohort, pages."""
    for page in range(first, end):
        if s.cohort[page] != 0:
            continue
        frame = int64(s.pages[page, FRAME])
        if frame not in (NO_FRAME, page):
            prefetch(s.frames, frame)
            prefetch(s.members, int64(s.pages[page, HEAD]))


@kernel
def count_unreachable(s, links):
    """Mappings of KSM pages that no rmap_item leads to, where mms were forked. Reads: frames, and as count_reached()."""
    unreachable = int64(0)
    for frame in range(s.scan[Scan.NEXT_FRAME]):
        if s.frame_bytes[frame, FRAME_FLAGS] & KSM and s.frames[frame, MAPCOUNT] != 0:
            unreachable += s.frames[frame, MAPCOUNT] - count_reached(s, links, frame)
    return unreachable


@kernel
def count_duplicates(s, seen):
    """KSM pages beyond one per content and tree. Reads: frames, frame_bytes, knobs. Writes: seen."""
    duplicates = int64(0)
    n_frames = int64(s.scan[Scan.NEXT_FRAME])
    for first in range(0, n_frames, WINDOW):
        end = min(first + WINDOW, n_frames)
        for frame in range(first, end):
            if s.frame_bytes[frame, FRAME_FLAGS] & KSM:
                prefetch(seen[tree_of(s, s.frame_bytes[frame, FRAME_NID])], int64(s.frames[frame, FRAME_CONTENT]))
        for frame in range(first, end):
            if s.frame_bytes[frame, FRAME_FLAGS] & KSM and s.frames[frame, MAPCOUNT] != 0:
                tree = tree_of(s, s.frame_bytes[frame, FRAME_NID])
                content = int64(s.frames[frame, FRAME_CONTENT])
                duplicates += int64(seen[tree, content])
                seen[tree, content] = 1
    return duplicates
