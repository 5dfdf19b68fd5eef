"""The reverse mapping of KSM pages: which mappings of a frame its rmap_items lead to.

An rmap_item leads to the VMAs that are linked to the anon_vma of its own VMA: its page, and the same address in relatives. It
only counts; what a page does that cannot be reached is `migrate`'s business.
"""

from numpy import int64

from ksmbatch.accel import inlined, kernel
from ksmbatch.kernels.cursor import mm_of
from ksmbatch.kernels.members import next_member
from ksmbatch.state import (
    END_PAGE,
    FIRST,
    FIRST_PAGE,
    FRAME,
    FRAME_NODE,
    HEAD,
    ITEM_FLAGS,
    MEMBER_NODE,
    MEMBER_PAGE,
    NIL,
    PAGE_FLAGS,
    SEEN,
    STABLE,
)


@inlined
def hangs_in(s, page, node):
    """Whether the rmap_item of `page` hangs in stable node `node`. Reads: page_bytes, pages, members."""
    return s.page_bytes[page, ITEM_FLAGS] & STABLE and s.members[s.pages[page, HEAD], MEMBER_NODE] == node


@kernel
def is_linked(links, page, anon_vma):
    """Whether the VMA of `page` is linked to `anon_vma`. Reads: links."""
    chain = links.page_chain[page]
    for entry in range(links.chain_start[chain], links.chain_start[chain + 1]):
        if links.chain_anon_vma[entry] == anon_vma:
            return True
    return False


@kernel
def is_reached_before(s, links, twin, offset, mm, node):
    """Whether an rmap_item in `node`, at the same address in an mm before `mm`, leads to page `twin` already."""
    for other in range(mm):
        page = int64(s.mms[other, FIRST_PAGE]) + offset
        if page < s.mms[other, END_PAGE] and hangs_in(s, page, node) and is_linked(links, twin, links.page_anon_vma[page]):
            return True
    return False


@kernel
def count_reached_from(s, links, page, node, frame):
    """How many mappings of `frame` the rmap_item of `page` leads to, and none of an mm before.

    Mirrors: mm/ksm.c rmap_walk_ksm()
    Reads: pages, page_bytes, members, mms, links.
    """
    if len(links.page_chain) == 0:
        return int64(s.pages[page, FRAME] == frame)  # nothing was ever forked
    mm = mm_of(s, page)
    offset = page - int64(s.mms[mm, FIRST_PAGE])
    anon_vma = links.page_anon_vma[page]
    reached = 0
    for other in range(len(s.mms)):
        twin = int64(s.mms[other, FIRST_PAGE]) + offset
        if twin >= s.mms[other, END_PAGE] or s.pages[twin, FRAME] != frame:
            continue
        if is_linked(links, twin, anon_vma) and not is_reached_before(s, links, twin, offset, mm, node):
            reached += 1
    return reached


@kernel
def count_reached(s, links, frame):
    """How many mappings of the KSM page `frame` its rmap_items lead to. Mirrors: mm/ksm.c rmap_walk_ksm()."""
    node = int64(s.frames[frame, FRAME_NODE])
    if node == NIL:
        return 0
    reached = 0
    member = int64(s.nodes[node, FIRST])
    while member != NIL:
        reached += count_reached_from(s, links, int64(s.members[member, MEMBER_PAGE]), node, frame)
        member = next_member(s, member)
    return reached


@kernel
def collect_reached(s, links, frame, found):
    """Lists in `found` the pages that map the KSM page `frame` and that its rmap_items lead to: by item, and then by mm.

    Mirrors: mm/ksm.c rmap_walk_ksm()
    Reads: nodes, members, pages, mms, links. Writes: found, page_bytes (SEEN, for the time being). Returns: how many.
    """
    n_found = int64(0)
    node = int64(s.frames[frame, FRAME_NODE])
    member = int64(s.nodes[node, FIRST]) if node != NIL else NIL
    while member != NIL:
        page = int64(s.members[member, MEMBER_PAGE])
        if len(links.page_chain) == 0:
            if s.pages[page, FRAME] == frame:
                found[n_found] = page
                n_found += 1
        else:
            n_found = collect_reached_from(s, links, page, frame, found, n_found)
        member = next_member(s, member)
    if len(links.page_chain) != 0:
        for k in range(n_found):
            s.page_bytes[found[k], PAGE_FLAGS] = int64(s.page_bytes[found[k], PAGE_FLAGS]) & ~SEEN
    return n_found


@kernel
def collect_reached_from(s, links, page, frame, found, n_found):
    """As collect_reached(), for the rmap_item of `page`, behind the `n_found` there are. Returns: how many there are now."""
    offset = page - int64(s.mms[mm_of(s, page), FIRST_PAGE])
    for other in range(len(s.mms)):
        twin = int64(s.mms[other, FIRST_PAGE]) + offset
        if twin >= s.mms[other, END_PAGE] or s.pages[twin, FRAME] != frame or s.page_bytes[twin, PAGE_FLAGS] & SEEN:
            continue
        if is_linked(links, twin, links.page_anon_vma[page]):
            s.page_bytes[twin, PAGE_FLAGS] |= SEEN
            found[n_found] = twin
            n_found += 1
    return n_found
