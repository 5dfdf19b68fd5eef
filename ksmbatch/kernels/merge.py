"""What ksmd does with one page: the checksum gate, the trees, and merging.

It is handed a page by the cursor (`ksmd`) and moves no cursor itself.
"""

from numpy import int64

from ksmbatch.accel import inlined, kernel
from ksmbatch.codes import Kernel, Policy
from ksmbatch.kernels.fault import break_ksm, map_zero_page_of_ksm, unmap_page
from ksmbatch.kernels.frame import map_frame, renumber
from ksmbatch.kernels.line_ends import break_lines, stop_leading
from ksmbatch.kernels.lines import append_line, line_led_by
from ksmbatch.kernels.migrate import visit_ksm_page
from ksmbatch.kernels.rmap_item import remove_rmap_item_from_tree
from ksmbatch.kernels.stable_chain import stable_node_dup_del
from ksmbatch.kernels.stable_tree import (
    get_kpfn_nid,
    mark_ksm,
    put_on_migrate_list,
    stable_tree_append,
    stable_tree_insert,
    stable_tree_search,
)
from ksmbatch.kernels.unstable_tree import FAULT, NO_PAGE, unstable_tree_search_insert
from ksmbatch.metrics import Counter
from ksmbatch.state import (
    ANON,
    CHECKSUM,
    DANGLING,
    FRAME,
    FRAME_CONTENT,
    FRAME_FLAGS,
    FRAME_NODE,
    HEAD,
    IN_MIGRATE,
    ITEM_FLAGS,
    KPFN,
    KSM,
    LEADS,
    LEN,
    MEMBER_NODE,
    MERGEABLE,
    NID,
    NIL,
    NO_FRAME,
    PAGE_FLAGS,
    STABLE,
    WHERE,
    Knob,
    Scan,
)


@inlined
def in_mergeable_vma(s, page):
    """Whether `page` lies in a mergeable VMA of a living mm. Mirrors: mm/ksm.c find_mergeable_vma(). Reads: page_bytes."""
    return s.page_bytes[page, PAGE_FLAGS] & (MERGEABLE | ANON) == MERGEABLE | ANON


@inlined
def checksum_changed(s, page, content):
    """Whether the checksum of `page` differs from the last one; remembers it.

    Mirrors: the test of oldchecksum in mm/ksm.c cmp_and_merge_page()
    Reads: checksum_class. Writes: pages.
    """
    last = int64(s.pages[page, CHECKSUM])
    s.pages[page, CHECKSUM] = content
    if last == content:
        return False
    if len(s.checksum_class) == 0 or last < 0:
        return True
    return s.checksum_class[last] != s.checksum_class[content]


@inlined
def has_zero_checksum(s, content):
    """Whether the checksum of `content` is that of the page of zeros, which is content 0. Reads: checksum_class."""
    if len(s.checksum_class) == 0:
        return content == 0
    return s.checksum_class[content] == s.checksum_class[0]


@kernel
def try_to_merge_one_page(s, page, frame, kframe):
    """Lets `page`, which maps `frame`, map `kframe` instead; NO_FRAME: makes `frame` a KSM page.

    Mirrors: mm/ksm.c try_to_merge_one_page(); KSM pages are refused by page_address_in_vma()
    Writes: pages, frames, counters. Returns: whether it was done; a frame that becomes a KSM page may get another number.
    """
    if frame == kframe:
        return True
    if s.frame_bytes[frame, FRAME_FLAGS] & KSM or s.pages[page, FRAME] != frame:
        return False
    if kframe == NO_FRAME:
        mark_ksm(s, renumber(s, page, frame))
        return True
    if s.frames[kframe, FRAME_CONTENT] != s.frames[frame, FRAME_CONTENT]:
        return False
    unmap_page(s, page)
    map_frame(s, page, kframe)
    return True


@kernel
def try_to_merge_with_ksm_page(s, page, frame, kframe):
    """As try_to_merge_one_page(), if `page` may be merged at all; then its rmap_item leaves the unstable tree.

    Mirrors: mm/ksm.c try_to_merge_with_ksm_page()
    """
    if not in_mergeable_vma(s, page):
        return False
    if not try_to_merge_one_page(s, page, frame, kframe):
        return False
    remove_rmap_item_from_tree(s, page)
    return True


@kernel
def try_to_merge_with_zero_page(s, page, frame):
    """Merges `page` with the kernel's zero page, if it is one. Mirrors: mm/ksm.c, `if (ksm_use_zero_pages && ...)`.

    Writes: pages, frames, counters, scan. Returns: whether ksmd is through with the page.
    """
    content = int64(s.frames[frame, FRAME_CONTENT])
    if not s.knobs[Knob.USE_ZERO_PAGES] or not has_zero_checksum(s, content):
        return False
    if not in_mergeable_vma(s, page):
        return True
    if content != 0 or s.frame_bytes[frame, FRAME_FLAGS] & KSM:
        return False  # equal checksum, different bytes
    unmap_page(s, page)
    map_zero_page_of_ksm(s, page)
    s.counters[Counter.PAGES_MERGED] += 1
    s.scan[Scan.VISIT] = Knob.ZERO_MERGE_NS
    return True


@kernel
def try_to_merge_two_pages(s, page, frame, other):
    """`page` and its partner in the unstable tree become one KSM page, on the frame of `page`.

    Mirrors: mm/ksm.c try_to_merge_two_pages() and what follows it in cmp_and_merge_page()
    Writes: everything.
    """
    if not try_to_merge_with_ksm_page(s, page, frame, NO_FRAME):
        return
    frame = int64(s.pages[page, FRAME])  # it has another number now
    if not try_to_merge_with_ksm_page(s, other, int64(s.pages[other, FRAME]), frame):
        if in_mergeable_vma(s, page):
            break_ksm(s, page)  # break_cow()
        return
    line = line_led_by(s, page, other, frame) if s.scan[Scan.LINES_SEQ] != 0 else NIL
    length = int64(s.nodes[line, LEN])
    node = stable_tree_insert(s, frame, line)
    if line != NIL:
        append_line(s, node, frame, page, other, length)
    else:
        if s.page_bytes[other, ITEM_FLAGS] & LEADS:
            stop_leading(s, other)
        stable_tree_append(s, other, node)
        stable_tree_append(s, page, node)
    s.scan[Scan.VISIT] = Knob.MERGE_NS


@inlined
def cmp_and_merge_page(s, page):
    """One visit of ksmd to `page`, which maps a frame and has an rmap_item.

    Mirrors: mm/ksm.c cmp_and_merge_page(); 6.1 searches the stable tree before it looks at the checksum
    Writes: everything but the cursor; scan[VISIT], scan[EXACT] say what it was. Returns: False if the kernel would use freed
    memory.
    """
    old = s.knobs[Knob.KERNEL] < Kernel.V6_12
    frame = int64(s.pages[page, FRAME])
    s.scan[Scan.VISIT] = Knob.SEARCH_NS
    if s.frame_bytes[frame, FRAME_FLAGS] & DANGLING:
        s.counters[Counter.CORRUPTIONS] += 1  # page_stable_node() points to freed memory
        s.scan[Scan.VISIT] = Knob.KSM_VISIT_NS
        return True
    node = int64(s.frames[frame, FRAME_NODE]) if s.frame_bytes[frame, FRAME_FLAGS] & KSM else NIL
    own_node = NIL
    if s.page_bytes[page, ITEM_FLAGS] & STABLE:
        own_node = int64(s.members[s.pages[page, HEAD], MEMBER_NODE])
    if node != NIL:
        if s.nodes[node, WHERE] != IN_MIGRATE and get_kpfn_nid(s, int64(s.nodes[node, KPFN])) != s.nodes[node, NID]:
            stable_node_dup_del(s, node)
            put_on_migrate_list(s, node)
        if s.nodes[node, WHERE] != IN_MIGRATE and own_node == node:
            s.scan[Scan.VISIT] = Knob.KSM_VISIT_NS
            if s.knobs[Knob.POLICY] != Policy.MAINLINE:
                visit_ksm_page(s, page)
            return True
    elif not old:
        remove_rmap_item_from_tree(s, page)
        own_node = NIL
        if checksum_changed(s, page, int64(s.frames[frame, FRAME_CONTENT])):
            s.scan[Scan.VISIT] = Knob.CHECKSUM_NS
            return True
        if try_to_merge_with_zero_page(s, page, frame):
            return True
    s.counters[Counter.TREE_SEARCHES] += 1
    if s.scan[Scan.LINES_SEQ] != 0:
        break_lines(s, page, frame)
    kframe = stable_tree_search(s, frame)
    if kframe == frame and own_node == node:
        return True
    remove_rmap_item_from_tree(s, page)
    if kframe != NO_FRAME:
        if try_to_merge_with_ksm_page(s, page, frame, kframe):
            stable_tree_append(s, page, int64(s.frames[kframe, FRAME_NODE]))
            s.scan[Scan.VISIT] = Knob.MERGE_NS
        return True
    if old:
        if checksum_changed(s, page, int64(s.frames[frame, FRAME_CONTENT])):
            s.scan[Scan.VISIT] = Knob.CHECKSUM_NS
            return True
        if try_to_merge_with_zero_page(s, page, frame):
            return True
    other = unstable_tree_search_insert(s, page, frame, get_kpfn_nid(s, frame))
    if other == FAULT:
        return False
    if other != NO_PAGE:
        try_to_merge_two_pages(s, page, frame, other)
    return True
