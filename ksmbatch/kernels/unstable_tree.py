"""The unstable trees: found by content while nothing in them changed, walked from the root as soon as something did.

While no page in a tree has changed since it was put there, all its keys differ, so that a walk finds what `by_content` says.
Before the first change (`note_unstable_change`) the tree is built in Linux's shape, and followed from then on until the next
scan forgets it. Who was put in when needs no log: ksmd does it in the order of its scan; erasures are written down. See
docs/adr/0002.
"""

from numpy import int64

from ksmbatch.accel import entry_kernel, inlined, kernel
from ksmbatch.codes import Kernel
from ksmbatch.kernels.cohorts import IS_VISIT, is_gated, last_checksum
from ksmbatch.kernels.cursor import is_in_progress, last_pass, parity_of
from ksmbatch.kernels.rbtree import rb_erase, rb_link_and_insert
from ksmbatch.kernels.resting import wake
from ksmbatch.kernels.twins import tree_of
from ksmbatch.metrics import Counter
from ksmbatch.state import (
    ANON,
    AT_PLACE,
    END_PAGE,
    ERASED,
    FIRST_PAGE,
    FRAME,
    FRAME_CONTENT,
    FRAME_FLAGS,
    FRAME_NID,
    FREED,
    HOLDERS,
    ITEM_FLAGS,
    ITEM_NID,
    KEY,
    KSM,
    LEFT,
    LINKED,
    LOG_COLUMNS,
    MERGEABLE,
    NIL,
    NO_FRAME,
    NO_MM,
    PAGE_FLAGS,
    PARITY,
    PROT_NONE,
    RIGHT,
    UNSTABLE,
    UNSTABLE_AT,
    UNSTABLE_CHANGED,
    UNSTABLE_EXACT,
    UNSTABLE_LEFTOVER,
    UNSTABLE_ROOT,
    USERS,
    Knob,
    Scan,
)

NO_PAGE = -1  # no partner in the tree
FAULT = -2  # the walk met a freed rmap_item
AT_THE_END = int64(2**31 - 1)  # a cursor behind all pages


@inlined
def in_present_tree(s, page):
    """Whether the rmap_item of `page` was put into an unstable tree in this scan.

    Mirrors: the age test in mm/ksm.c remove_rmap_item_from_tree()
    Reads: page_bytes, counters; of a page at rest what its passes came to.
    """
    cohort = int64(s.cohort[page])
    if cohort != 0:
        was_passed = is_in_progress(s) and last_pass(s, page) == s.scan[Scan.SEQ]
        return was_passed and (s.cohorts[0, cohort] & IS_VISIT) != 0 and not is_gated(s, page, s.scan[Scan.SEQ])
    flags = int64(s.page_bytes[page, ITEM_FLAGS])
    if not flags & UNSTABLE:
        return False
    return ((flags & PARITY) != 0) == ((s.counters[Counter.FULL_SCANS] & 1) != 0)


@kernel
def reset_unstable_tree(s, nid):
    """Forgets the tree of `nid`.

    Mirrors: root_unstable_tree[nid] = RB_ROOT.
    Writes: trees.
    """
    s.trees[UNSTABLE_ROOT, nid] = NIL
    s.trees[UNSTABLE_EXACT, nid] = 0
    s.trees[UNSTABLE_LEFTOVER, nid] = 0
    s.trees[UNSTABLE_CHANGED, nid] = 0


@kernel
def insert_as_found(s, nid, page):
    """Puts `page` into the shape of the tree of `nid`, by the contents that the pages there had when it was put in.

    Every page put in was last looked at in this scan, so its checksum says what it had then itself.
    Reads: pages, rank. Writes: unstable_links, trees.
    """
    content = last_checksum(s, page)
    key = s.rank[content]
    parent = NIL
    side = 0
    current = int64(s.trees[UNSTABLE_ROOT, nid])
    while current != NIL:
        parent = current
        if key < s.rank[s.unstable_links[current, KEY]]:
            side = -1
            current = int64(s.unstable_links[current, LEFT])
        else:
            side = 1
            current = int64(s.unstable_links[current, RIGHT])
    s.unstable_links[page + 1, KEY] = content
    rb_link_and_insert(s.unstable_links, s.trees[UNSTABLE_ROOT], nid, page + 1, parent, side)


@kernel
def happen_up_to(s, nid, entry, place, cursor):
    """Does what the log says from `entry` on, as far as it happened when the scan was at its mm number `place`, at `cursor`.

    Reads: unstable_log. Writes: unstable_links, trees, page_bytes. Returns: the entry that comes next.
    """
    while entry < s.scan[Scan.LOG_END]:
        row = LOG_COLUMNS * entry
        if s.unstable_log[row + 1] != place or s.unstable_log[row + 2] > cursor:
            break
        page = int64(s.unstable_log[row])
        if s.page_bytes[page, ITEM_NID] == nid:
            if s.unstable_log[row + 3] < 0:
                rb_erase(s.unstable_links, s.trees[UNSTABLE_ROOT], nid, page + 1)
            else:
                s.unstable_links[page + 1, KEY] = s.unstable_log[row + 3]
        entry += 1
    return entry


@kernel
def build_unstable_tree(s, nid):
    """Gives the tree of `nid` its shape, from what this scan did to it so far, and has it walked from now on.

    Reads: unstable_log, pages, page_bytes, cohort, mms, rank. Writes: unstable_links, trees.
    """
    if s.trees[UNSTABLE_EXACT, nid]:
        return
    s.trees[UNSTABLE_EXACT, nid] = 1
    s.trees[UNSTABLE_ROOT, nid] = NIL
    for entry in range(s.scan[Scan.LOG_END]):
        if s.unstable_log[LOG_COLUMNS * entry + 3] < 0:
            s.page_bytes[s.unstable_log[LOG_COLUMNS * entry], ITEM_FLAGS] |= ERASED
    parity = parity_of(s, int64(s.scan[Scan.SEQ]))
    entry = int64(0)
    for place in range(s.scan[Scan.PLACES]):
        mm = int64(s.mms[place, AT_PLACE])
        end = int64(s.mms[mm, END_PAGE])
        if mm == s.scan[Scan.CUR_MM]:
            end = int64(s.scan[Scan.CUR_PAGE])
        for page in range(s.mms[mm, FIRST_PAGE], end):
            cohort = int64(s.cohort[page])
            if cohort != 0:
                if not s.cohorts[0, cohort] & IS_VISIT or is_gated(s, page, s.scan[Scan.SEQ]):
                    continue
            else:
                flags = int64(s.page_bytes[page, ITEM_FLAGS])
                if not flags & ERASED and (not flags & UNSTABLE or ((flags & PARITY) != 0) != (parity != 0)):
                    continue
            entry = happen_up_to(s, nid, entry, place, page)
            if s.page_bytes[page, ITEM_NID] == nid:
                insert_as_found(s, nid, page)
        entry = happen_up_to(s, nid, entry, place, AT_THE_END)
    for entry in range(s.scan[Scan.LOG_END]):
        page = int64(s.unstable_log[LOG_COLUMNS * entry])
        s.page_bytes[page, ITEM_FLAGS] = int64(s.page_bytes[page, ITEM_FLAGS]) & ~ERASED


@kernel
def note_unstable_change(s, page):
    """To be called before `page` changes its content, goes, or stops being mergeable, by other hands than ksmd's.

    Reads: page_bytes. Writes: as build_unstable_tree().
    """
    if in_present_tree(s, page):
        build_unstable_tree(s, int64(s.page_bytes[page, ITEM_NID]))


@kernel
def erase_unstable(s, page):
    """Takes the rmap_item of `page` out of the present tree.

    Mirrors: rb_erase() in mm/ksm.c remove_rmap_item_from_tree()
    Reads: page_bytes. Writes: unstable_links, trees, unstable_log, scan.
    """
    nid = int64(s.page_bytes[page, ITEM_NID])
    if s.trees[UNSTABLE_EXACT, nid]:
        rb_erase(s.unstable_links, s.trees[UNSTABLE_ROOT], nid, page + 1)
        return
    write_down(s, page, int64(-1))


@kernel
def write_down(s, page, content):
    """An entry for the log: `page`, in an unstable tree, was written with `content`; -1: was taken out. Writes: scan."""
    entry = int64(s.scan[Scan.LOG_END])
    mm = int64(s.scan[Scan.CUR_MM])
    s.unstable_log[LOG_COLUMNS * entry] = page
    s.unstable_log[LOG_COLUMNS * entry + 1] = s.scan[Scan.PLACES] - 1
    s.unstable_log[LOG_COLUMNS * entry + 2] = s.scan[Scan.CUR_PAGE] if s.mms[mm, USERS] else AT_THE_END
    s.unstable_log[LOG_COLUMNS * entry + 3] = content
    s.scan[Scan.LOG_END] = entry + 1


@kernel
def note_unstable_write(s, page, content):
    """To be called before `page`, which alone maps its frame, is written in place with `content`.

    The shape of its tree begins to matter when somebody looks for a partner there (see has_rivals). Till then the write is
    only written down, with room left for every page to be taken out.
    Reads: page_bytes, frame_bytes. Writes: as build_unstable_tree(), unstable_log, trees.
    """
    if not in_present_tree(s, page):
        return
    nid = int64(s.page_bytes[page, ITEM_NID])
    if s.trees[UNSTABLE_EXACT, nid]:
        return
    moved = tree_of(s, s.frame_bytes[s.pages[page, FRAME], FRAME_NID]) != nid
    if moved or s.scan[Scan.LOG_END] >= len(s.pages) // 2:
        build_unstable_tree(s, nid)
        return
    write_down(s, page, content)
    s.trees[UNSTABLE_CHANGED, nid] += 1


@kernel
def note_shared_soon(s, page):
    """To be called before the frame of `page` is mapped once more, or moves: then has_rivals() could no longer tell.

    Reads: trees, page_bytes. Writes: as build_unstable_tree().
    """
    nid = int64(s.page_bytes[page, ITEM_NID])
    if s.trees[UNSTABLE_CHANGED, nid] and in_present_tree(s, page):
        build_unstable_tree(s, nid)


@inlined
def has_rivals(s, nid, content):
    """Whether somebody else in the tree of `nid` may have `content`, or had it when put in. Reads: by_content, pages."""
    if content >= s.by_content.shape[1]:
        return False
    if s.by_content[nid, content, HOLDERS] > 1:
        return True
    other = int64(s.by_content[nid, content, UNSTABLE_AT]) - 1
    return other >= 0 and in_present_tree(s, other) and last_checksum(s, other) == content


@inlined
def mergeable_frame(s, page):
    """The frame of `page` if ksmd may use it, else NO_FRAME; its mm lives as long as anything of it is mapped.

    Mirrors: mm/ksm.c get_mergeable_page(); 6.1 does so with follow_page(), which does not see into PROT_NONE areas
    Reads: page_bytes, pages.
    """
    flags = int64(s.page_bytes[page, PAGE_FLAGS])
    if flags & (MERGEABLE | ANON) != MERGEABLE | ANON:
        return NO_FRAME
    if flags & PROT_NONE and s.knobs[Knob.KERNEL] < Kernel.V6_12:
        return NO_FRAME
    return int64(s.pages[page, FRAME])


@inlined
def mark_inserted(s, page, nid):
    """The rmap_item of `page` is in the tree of `nid` now. Reads: counters. Writes: page_bytes, counters."""
    flags = int64(s.page_bytes[page, ITEM_FLAGS]) | UNSTABLE
    if s.counters[Counter.FULL_SCANS] & 1:
        flags |= PARITY
    else:
        flags &= ~PARITY
    s.page_bytes[page, ITEM_FLAGS] = flags
    s.page_bytes[page, ITEM_NID] = nid
    s.counters[Counter.PAGES_UNSHARED] += 1


@inlined
def unstable_look_up(s, page, frame, nid, content):
    """As unstable_walk(), for a tree of which nothing changed."""
    has_twins = content < s.by_content.shape[1]  # a content that only one page ever holds is never looked for
    if has_twins:
        other = int64(s.by_content[nid, content, UNSTABLE_AT]) - 1
        if (
            other >= 0
            and in_present_tree(s, other)
            and s.page_bytes[other, ITEM_NID] == nid
            and last_checksum(s, other) == content
        ):
            other_frame = int64(s.pages[other, FRAME])
            if other_frame == frame:
                return NO_PAGE
            if not s.knobs[Knob.MERGE_ACROSS_NODES] and s.frame_bytes[other_frame, FRAME_NID] != nid:
                return NO_PAGE
            return other
        s.by_content[nid, content, UNSTABLE_AT] = page + 1
    mark_inserted(s, page, nid)
    return NO_PAGE


@kernel
def unstable_walk(s, page, frame, nid, content):
    """Looks for a partner of `page` in the tree of `nid`, from the root, and inserts it if there is none.

    Mirrors: mm/ksm.c unstable_tree_search_insert()
    Reads: pages, frames, page_bytes. Writes: unstable_links, trees, page_bytes, counters, scan.
    Returns: the partner; NO_PAGE; FAULT if the walk met a freed rmap_item.
    """
    s.scan[Scan.EXACT] = 1
    key = s.rank[content]
    parent = NIL
    side = 0
    current = int64(s.trees[UNSTABLE_ROOT, nid])
    leftover = s.trees[UNSTABLE_LEFTOVER, nid]
    steps = 0
    while current != NIL:
        other = current - 1
        if leftover:
            steps += 1
            if leftover == 2 or s.page_bytes[other, ITEM_FLAGS] & FREED or steps > len(s.pages):
                s.scan[Scan.FAULT_PAGE] = other
                return FAULT
        other_frame = mergeable_frame(s, other)
        if other_frame in (NO_FRAME, frame):
            return NO_PAGE
        other_content = int64(s.frames[other_frame, FRAME_CONTENT])
        parent = current
        if content == other_content:
            if not s.knobs[Knob.MERGE_ACROSS_NODES] and s.frame_bytes[other_frame, FRAME_NID] != nid:
                return NO_PAGE
            return other
        if key < s.rank[other_content]:
            side = -1
            current = int64(s.unstable_links[current, LEFT])
        else:
            side = 1
            current = int64(s.unstable_links[current, RIGHT])
    rb_link_and_insert(s.unstable_links, s.trees[UNSTABLE_ROOT], nid, page + 1, parent, side)
    mark_inserted(s, page, nid)
    return NO_PAGE


@kernel
def unstable_tree_search_insert(s, page, frame, nid):
    """Partner of `page` in the unstable tree of `nid`; without one the page is put there itself, unless the walk broke off.

    Mirrors: mm/ksm.c unstable_tree_search_insert()
    Returns: the partner; NO_PAGE; FAULT.
    """
    content = int64(s.frames[frame, FRAME_CONTENT])
    if s.frame_bytes[frame, FRAME_FLAGS] & KSM or s.page_bytes[page, PAGE_FLAGS] & PROT_NONE or s.knobs[Knob.FORCE_EXACT]:
        # a KSM page passes no checksum gate, so its key could not be told later; 6.1 cannot see a PROT_NONE page again
        build_unstable_tree(s, nid)
    elif s.trees[UNSTABLE_CHANGED, nid] and has_rivals(s, nid, content):
        build_unstable_tree(s, nid)
    if s.trees[UNSTABLE_EXACT, nid]:
        other = unstable_walk(s, page, frame, nid, content)
    else:
        other = unstable_look_up(s, page, frame, nid, content)
    if other >= 0:
        wake(s, other)
    return other


@entry_kernel
def keep_leftover_trees(s):
    """merge_across_nodes becomes 1: from now on the kernel resets the tree of node 0 only, and forgets the others.

    Mirrors: scan_get_next_rmap_item(), `for (nid = 0; nid < ksm_nr_node_ids; nid++)` with ksm_nr_node_ids 1
    All pages must be awake. Reads: unstable_log, scan. Writes: unstable_*, page_bytes.
    """
    for nid in range(1, s.trees.shape[1]):
        if s.trees[UNSTABLE_LEFTOVER, nid] == 0:
            build_unstable_tree(s, nid)
            if s.trees[UNSTABLE_ROOT, nid] != NIL:
                s.trees[UNSTABLE_LEFTOVER, nid] = 1
    between_scans = s.scan[Scan.CUR_MM] == NO_MM
    for page in range(len(s.page_bytes)):
        hangs = s.page_bytes[page, ITEM_FLAGS] & UNSTABLE and (between_scans or in_present_tree(s, page))
        if hangs and s.trees[UNSTABLE_LEFTOVER, s.page_bytes[page, ITEM_NID]] == 1:
            s.page_bytes[page, ITEM_FLAGS] |= LINKED


@kernel
def free_all_trees(s):
    """All rmap_items are freed, but the roots of the trees stay as they are until a scan resets them.

    Mirrors: mm/ksm.c unmerge_and_remove_all_rmap_items()
    Reads: unstable_log, page_bytes. Writes: unstable_*, page_bytes, scan.
    """
    for nid in range(s.trees.shape[1]):
        build_unstable_tree(s, nid)
        if s.trees[UNSTABLE_ROOT, nid] != NIL:
            s.trees[UNSTABLE_LEFTOVER, nid] = 2
    s.scan[Scan.LOG_END] = 0


@kernel
def forget_item(s, page):
    """The rmap_item of `page` is freed; remembers so if it still hangs in a forgotten tree. Writes: page_bytes."""
    s.page_bytes[page, ITEM_FLAGS] = FREED if s.page_bytes[page, ITEM_FLAGS] & (LINKED | FREED) else 0
