"""What a region has ahead: the list of its pages that this scan visits, and hints to the CPU about what these visits look at.

A visit touches five cache lines and more, each named by the one before; on a large host every one of them is a miss. So a
stretch of the list is gone through step by step, each for all of its pages, and the misses of a step overlap. The hints change
nothing but `due`.
"""

from numpy import int64

from ksmbatch.accel import inlined, kernel, prefetch
from ksmbatch.kernels.bits import lowest_bit
from ksmbatch.kernels.stable_node import is_chain
from ksmbatch.kernels.twins import tree_of
from ksmbatch.state import (
    DUE_FRAME,
    DUE_NODE,
    DUE_PAGE,
    FOUND,
    FRAME,
    FRAME_CONTENT,
    FRAME_NID,
    HEAD,
    ITEM_FLAGS,
    KPFN,
    MEMBER_NODE,
    NIL,
    NO_FRAME,
    PAGES_PER_BLOCK,
    PAGES_PER_WORD,
    SCANS_AHEAD,
    STABLE,
    STABLE_AT,
    UNSTABLE_AT,
    Scan,
)

STRETCH = int64(64)  # pages that are hinted at together: what they need fits into the CPU's first cache
WORDS_PER_LINE = int64(16)  # of bitmaps
FEW_DUE = int64(512)  # of a block; where there are more, they are near each other, and the CPU fetches what is near by itself


@inlined
def prefetch_page(s, page):
    """Asks the CPU for what is kept of `page` itself, by its number."""
    prefetch(s.pages, page)
    prefetch(s.cohort, page)


@kernel
def list_due(s, first, end):
    """Lists the pages of [first, end), of one block, that this scan has to visit. Reads: calendar. Writes: due, scan."""
    slot = s.scan[Scan.SEQ] % SCANS_AHEAD
    n_due = int64(0)
    mask = int64(-1) << (first % PAGES_PER_WORD)
    for word in range(first // PAGES_PER_WORD, (end - 1) // PAGES_PER_WORD + 1):
        bits = int64(s.calendar[slot, word]) & mask
        mask = int64(-1)
        while bits:
            s.due[DUE_PAGE, n_due] = word * PAGES_PER_WORD + lowest_bit(bits)
            bits &= bits - 1
            n_due += 1
    while n_due > 0 and s.due[DUE_PAGE, n_due - 1] >= end:
        n_due -= 1
    s.scan[Scan.N_DUE] = n_due
    s.scan[Scan.NEXT_DUE] = 0
    s.scan[Scan.HINTED] = 0
    s.scan[Scan.NEWLY_DUE] = 0


@inlined
def hint_block(s, block):
    """Has the CPU fetch what visits of this scan will write of `block`: bitmaps, and how many pages rest.

    Reads: scan.
    """
    seq = int64(s.scan[Scan.SEQ])
    prefetch(s.cohorts, 1 + block)
    word = block * (PAGES_PER_BLOCK // PAGES_PER_WORD)
    for _ in range(PAGES_PER_BLOCK // PAGES_PER_WORD // WORDS_PER_LINE):
        prefetch(s.gated[0], word)
        prefetch(s.gated[1], word)
        prefetch(s.calendar[(seq + 1) % SCANS_AHEAD], word)
        word += WORDS_PER_LINE


@inlined
def hint_pages(s):
    """Has the CPU fetch what is kept of the listed pages themselves. Reads: due, scan."""
    n_due = int64(s.scan[Scan.N_DUE])
    if n_due < FEW_DUE:
        for k in range(n_due):
            prefetch_page(s, int64(s.due[DUE_PAGE, k]))


@kernel
def hint_visits(s, first):
    """Has the CPU fetch what the visits of the next STRETCH of listed pages, from number `first` on, will look at.

    Reads: pages, page_bytes, frames, members, by_content, nodes. Writes: due, scan.
    """
    end = min(first + STRETCH, int64(s.scan[Scan.N_DUE]))
    s.scan[Scan.HINTED] = end
    for k in range(first, end):
        page = int64(s.due[DUE_PAGE, k])
        frame = int64(s.pages[page, FRAME])
        s.due[DUE_FRAME, k] = frame
        if frame not in (NO_FRAME, page):
            prefetch(s.frames, frame)
        if s.page_bytes[page, ITEM_FLAGS] & STABLE:
            prefetch(s.members, int64(s.pages[page, HEAD]))
    for k in range(first, end):
        s.due[DUE_NODE, k] = NIL
        page = int64(s.due[DUE_PAGE, k])
        if s.page_bytes[page, ITEM_FLAGS] & STABLE:
            prefetch(s.nodes, int64(s.members[s.pages[page, HEAD], MEMBER_NODE]))
        frame = int64(s.due[DUE_FRAME, k])
        if frame == NO_FRAME:
            continue
        content = int64(s.frames[frame, FRAME_CONTENT])
        if content < s.by_content.shape[1]:
            nid = tree_of(s, s.frame_bytes[frame, FRAME_NID])
            prefetch(s.by_content[nid], content)
            s.due[DUE_NODE, k] = 1 + nid
    for k in range(first, end):
        nid = int64(s.due[DUE_NODE, k]) - 1
        if nid >= 0:
            content = int64(s.frames[s.due[DUE_FRAME, k], FRAME_CONTENT])
            s.due[DUE_NODE, k] = hint_node(s, nid, content)
    for k in range(first, end):
        node = int64(s.due[DUE_NODE, k])
        if node != NIL:
            hint_frame(s, node)


@inlined
def hint_node(s, nid, content):
    """The stable node of `content` in the tree of `nid`, or the page with it in the unstable tree. Returns: the node or NIL."""
    node = int64(s.by_content[nid, content, STABLE_AT])
    other = int64(s.by_content[nid, content, UNSTABLE_AT]) - 1
    if node != NIL:
        prefetch(s.nodes, node)
    elif other >= 0:
        prefetch_page(s, other)
    return node


@inlined
def hint_frame(s, node):
    """The frame of `node`; of a chain, the dup that was found last."""
    if is_chain(s, node):
        prefetch(s.nodes, int64(s.nodes[node, FOUND]))
        return
    frame = int64(s.nodes[node, KPFN])
    if frame != NO_FRAME:
        prefetch(s.frames, frame)
