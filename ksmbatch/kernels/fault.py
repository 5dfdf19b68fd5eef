"""What page faults and system calls do to memory: frames come and go, page tables change, KSM pages are copied on write.

It knows nothing of ksmd but what a change must tell it: a stable node whose frame went, a page that changed in the unstable
tree.
"""

from numpy import int64

from ksmbatch.accel import entry_kernel, inlined, kernel, prefetch
from ksmbatch.codes import Kernel
from ksmbatch.kernels.cohorts import JOINED
from ksmbatch.kernels.cursor import mm_of
from ksmbatch.kernels.frame import alloc_frame, free_frame, map_frame
from ksmbatch.kernels.hints import prefetch_page
from ksmbatch.kernels.line_ends import note_ksm_write
from ksmbatch.kernels.resting import wake, write_joined
from ksmbatch.kernels.rewriting import change
from ksmbatch.kernels.twins import holder_comes, holder_goes, tree_of
from ksmbatch.kernels.unstable_tree import note_shared_soon, note_unstable_change, note_unstable_write
from ksmbatch.metrics import Counter, NodeCounter
from ksmbatch.state import (
    ANON,
    DANGLING,
    FIRST_PAGE,
    FRAME,
    FRAME_CONTENT,
    FRAME_FLAGS,
    FRAME_NID,
    HEAD,
    KPFN,
    KSM,
    MAPCOUNT,
    MEMBER_NODE,
    MERGEABLE,
    NO_FRAME,
    PAGE_FLAGS,
    PAGE_NID,
    PROT_NONE,
    ZERO,
    ZERO_BY_KSM,
    ZERO_PAGES,
    Knob,
    Scan,
)

AT_ONCE = int64(64)  # writes of which the CPU is told before they are done
ZERO_CONTENT = int64(0)  # the page of zeros is always content 0


@kernel
def unmap_page(s, page):
    """Empties the pte of `page`, whatever it holds.

    Mirrors: zap_pte_range(), ksm_might_unmap_zero_page()
    Writes: pages, frames, mms, counters, node_counters, nodes, and as wake().
    """
    wake(s, page)
    nid = int64(s.page_bytes[page, PAGE_NID])
    flags = int64(s.page_bytes[page, PAGE_FLAGS])
    if flags & ZERO:
        s.page_bytes[page, PAGE_FLAGS] = flags & ~(ZERO | ZERO_BY_KSM)
        if flags & ZERO_BY_KSM:
            s.counters[Counter.KSM_ZERO_PAGES] -= 1
            s.mms[mm_of(s, page), ZERO_PAGES] -= 1
            s.node_counters[nid, NodeCounter.MAPPED_PAGES] -= 1
        return
    frame = int64(s.pages[page, FRAME])
    if frame == NO_FRAME:
        return
    if s.frame_bytes[frame, FRAME_FLAGS] & DANGLING:
        s.counters[Counter.CORRUPTIONS] += 1
    s.pages[page, FRAME] = NO_FRAME
    s.node_counters[nid, NodeCounter.MAPPED_PAGES] -= 1
    if s.frame_bytes[frame, FRAME_NID] != nid:
        s.node_counters[nid, NodeCounter.REMOTE_MAPPINGS] -= 1
    s.frames[frame, MAPCOUNT] -= 1
    if s.frames[frame, MAPCOUNT] == 0:
        free_frame(s, frame)


@kernel
def map_zero_page_of_ksm(s, page):
    """ksmd maps the zero page at the empty pte of `page`. Mirrors: ksm_map_zero_page(). Writes: page_bytes, counters, mms."""
    s.page_bytes[page, PAGE_FLAGS] |= ZERO | ZERO_BY_KSM
    s.counters[Counter.KSM_ZERO_PAGES] += 1
    s.mms[mm_of(s, page), ZERO_PAGES] += 1
    s.node_counters[s.page_bytes[page, PAGE_NID], NodeCounter.MAPPED_PAGES] += 1


@kernel
def fresh_page(s, page, content):
    """Maps a new frame with `content`, in the place of what was there.

    Mirrors: do_anonymous_page(), wp_page_copy(): the new frame is there before the old one goes
    Writes: as alloc_frame(), unmap_page(), map_frame().
    """
    frame = alloc_frame(s, page, content)
    unmap_page(s, page)
    map_frame(s, page, frame)


@inlined
def change_content(s, page, frame, content):
    """`page`, which alone maps `frame`, no KSM page, is written in place. Writes: frames, by_content, and as wake()."""
    nid = int64(s.frame_bytes[frame, FRAME_NID])
    old = int64(s.frames[frame, FRAME_CONTENT])
    if old == content:
        return
    note_unstable_write(s, page, content)
    change(s, page, old, content)
    holder_goes(s, nid, old)
    s.frames[frame, FRAME_CONTENT] = content
    holder_comes(s, nid, content)


@kernel
def store(s, page, content):
    """A write of `content` to `page`, which lies in a VMA.

    Mirrors: handle_mm_fault() for a write; a KSM page is always copied, a page mapped once is written in place
    Writes: all of memory, counters.
    """
    if s.cohort[page] == JOINED:
        write_joined(s, page)
    frame = int64(s.pages[page, FRAME])
    if frame == NO_FRAME:
        fresh_page(s, page, content)
        return
    is_ksm = s.frame_bytes[frame, FRAME_FLAGS] & KSM
    if not is_ksm and s.frames[frame, MAPCOUNT] == 1:
        change_content(s, page, frame, content)
        return
    if s.frames[frame, FRAME_CONTENT] != content:
        note_unstable_change(s, page)
    if is_ksm:
        s.counters[Counter.COW_KSM] += 1
        if s.scan[Scan.LINES_SEQ] not in (0, s.scan[Scan.SEQ]):
            note_ksm_write(s, frame)
    fresh_page(s, page, content)


@kernel
def hint_writes(s, first, pages, contents, begin, end):
    """Has the CPU fetch what the writes number `begin` to before `end` of write_pages() will look at, step by step.

    Reads: pages, frames, frame_bytes, cohort, members, nodes.
    """
    for k in range(end, min(end + AT_ONCE, int64(len(pages)))):
        prefetch_page(s, first + int64(pages[k]))
    for k in range(begin, end):
        page = first + int64(pages[k])
        frame = int64(s.pages[page, FRAME])
        if s.cohort[page] == JOINED:
            prefetch(s.members, int64(s.pages[page, HEAD]))
        elif frame not in (NO_FRAME, page):
            prefetch(s.frames, frame)
        if contents[k] < s.by_content.shape[1]:
            prefetch(s.by_content[tree_of(s, s.page_bytes[page, PAGE_NID])], int64(contents[k]))
    for k in range(begin, end):
        page = first + int64(pages[k])
        if s.cohort[page] == JOINED:
            prefetch(s.nodes, int64(s.members[s.pages[page, HEAD], MEMBER_NODE]))
            continue
        frame = int64(s.pages[page, FRAME])
        if frame != NO_FRAME and s.frames[frame, FRAME_CONTENT] < s.by_content.shape[1]:
            prefetch(s.by_content[tree_of(s, s.frame_bytes[frame, FRAME_NID])], int64(s.frames[frame, FRAME_CONTENT]))
    for k in range(begin, end):
        page = first + int64(pages[k])
        if s.cohort[page] == JOINED:
            prefetch(s.frames, int64(s.nodes[s.members[s.pages[page, HEAD], MEMBER_NODE], KPFN]))


@entry_kernel
def write_pages(s, first, pages, contents):
    """Writes contents[k] to page first + pages[k], in this order. Returns: nothing. Writes: as store()."""
    n_pages = int64(len(pages))
    for k in range(min(AT_ONCE, n_pages)):
        prefetch_page(s, first + int64(pages[k]))
    for begin in range(0, n_pages, AT_ONCE):
        end = min(begin + AT_ONCE, n_pages)
        hint_writes(s, first, pages, contents, begin, end)
        for k in range(begin, end):
            store(s, first + int64(pages[k]), int64(contents[k]))


@entry_kernel
def read_pages(s, first, end):
    """Read faults: absent pages of [first, end) map the zero page. Writes: page_bytes."""
    for page in range(first, end):
        if s.pages[page, FRAME] == NO_FRAME:
            s.page_bytes[page, PAGE_FLAGS] |= ZERO


@entry_kernel
def zap_pages(s, first, end):
    """Unmaps the pages of [first, end): MADV_DONTNEED, munmap, exit. Writes: as note_unstable_change(), unmap_page()."""
    for page in range(first, end):
        note_unstable_change(s, page)
        unmap_page(s, page)


@kernel
def break_ksm(s, page):
    """Gives `page` a copy of its own if ksmd merged it.

    Mirrors: mm/ksm.c break_ksm(); 6.1 looks with follow_page(), which sees neither zero pages nor into PROT_NONE areas
    Writes: as fresh_page(), counters.
    """
    flags = int64(s.page_bytes[page, PAGE_FLAGS])
    old = s.knobs[Knob.KERNEL] < Kernel.V6_12
    if old and flags & PROT_NONE:
        return
    if flags & ZERO:
        if flags & ZERO_BY_KSM and not old:
            fresh_page(s, page, ZERO_CONTENT)
        return
    frame = int64(s.pages[page, FRAME])
    if frame != NO_FRAME and s.frame_bytes[frame, FRAME_FLAGS] & KSM:
        s.counters[Counter.COW_KSM] += 1
        fresh_page(s, page, int64(s.frames[frame, FRAME_CONTENT]))


@entry_kernel
def unmerge_pages(s, first, end):
    """Breaks all merged pages of [first, end) that lie in mergeable VMAs. Mirrors: mm/ksm.c unmerge_ksm_pages()."""
    for page in range(first, end):
        if s.page_bytes[page, PAGE_FLAGS] & (MERGEABLE | ANON) == MERGEABLE | ANON:
            break_ksm(s, page)


@entry_kernel
def rebind_pages(s, first, end, nid):
    """The memory policy of the pages [first, end) names `nid` from now on; nothing moves.

    Mirrors: mbind() without MPOL_MF_MOVE
    Writes: page_bytes, node_counters.
    """
    for page in range(first, end):
        old = int64(s.page_bytes[page, PAGE_NID])
        s.page_bytes[page, PAGE_NID] = nid
        frame = int64(s.pages[page, FRAME])
        if frame != NO_FRAME:
            here = int64(s.frame_bytes[frame, FRAME_NID])
            s.node_counters[old, NodeCounter.REMOTE_MAPPINGS] -= int64(here != old)
            s.node_counters[nid, NodeCounter.REMOTE_MAPPINGS] += int64(here != nid)
        if frame != NO_FRAME or s.page_bytes[page, PAGE_FLAGS] & ZERO_BY_KSM:
            s.node_counters[old, NodeCounter.MAPPED_PAGES] -= 1
            s.node_counters[nid, NodeCounter.MAPPED_PAGES] += 1


@entry_kernel
def note_pages_hidden(s, first, end):
    """The pages of [first, end) are about to stop being mergeable or readable. Writes: as note_unstable_change()."""
    for page in range(first, end):
        note_unstable_change(s, page)


@entry_kernel
def fork_pages(s, parent, child, end):
    """Copies the page tables of mm `parent`, up to its page `end`, into `child`, which has the same VMAs at its beginning.

    Mirrors: copy_page_range(): VMAs without anon_vma are left to be faulted in again
    Reads: pages. Writes: pages, frames, mms, counters, node_counters.
    """
    first = int64(s.mms[parent, FIRST_PAGE])
    copy = int64(s.mms[child, FIRST_PAGE])
    for page in range(first, end):
        flags = int64(s.page_bytes[page, PAGE_FLAGS])
        twin = copy + page - first
        s.page_bytes[twin, PAGE_NID] = s.page_bytes[page, PAGE_NID]
        s.page_bytes[twin, PAGE_FLAGS] = flags & ~(ZERO | ZERO_BY_KSM)
        if not flags & ANON:
            continue
        if flags & ZERO_BY_KSM:
            map_zero_page_of_ksm(s, twin)
        elif flags & ZERO:
            s.page_bytes[twin, PAGE_FLAGS] |= ZERO
        elif s.pages[page, FRAME] != NO_FRAME:
            if not s.frame_bytes[s.pages[page, FRAME], FRAME_FLAGS] & KSM:
                note_shared_soon(s, page)
                wake(s, page)
            map_frame(s, twin, int64(s.pages[page, FRAME]))
