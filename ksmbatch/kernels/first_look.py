"""ksmd's first look at pages that have no rmap_item yet: a run of them at once, of which it takes down the checksums.

It does what `visit` does by way of `rmap_item`, `smart_scan`, `merge` and `retire`, for pages about which all is plain, and
stops at the first other one. Not for 6.1, which searches the stable tree before it looks at a checksum.
"""

from numpy import int64

from ksmbatch.accel import inlined, kernel, prefetch
from ksmbatch.kernels.cohorts import SEARCHING, cohort_of, gate
from ksmbatch.kernels.lines import get_in_line, may_make_lines
from ksmbatch.kernels.looking import watch
from ksmbatch.kernels.merge import has_zero_checksum
from ksmbatch.kernels.passing import take_budget
from ksmbatch.kernels.twins import tree_of
from ksmbatch.metrics import Counter
from ksmbatch.state import (
    AGE,
    ANON,
    CHECKSUM,
    FRAME,
    FRAME_CONTENT,
    FRAME_FLAGS,
    FRAME_NID,
    FREED,
    HOLDERS,
    ITEM,
    ITEM_FLAGS,
    ITEM_NID,
    ITEMS,
    KSM,
    LIST_ITEMS,
    MAPCOUNT,
    MERGEABLE,
    NIL,
    NO_FRAME,
    PAGE_FLAGS,
    PAGES_PER_BLOCK,
    PAGES_PER_WORD,
    PROT_NONE,
    RESTING,
    SCANS_AHEAD,
    SKIPS,
    STABLE_AT,
    Knob,
    Scan,
)

AHEAD = 32  # pages of whose contents the CPU is told before they are looked at
FIRST_CALL = int64(1)  # of should_skip_rmap_item()


@inlined
def hint_content(s, page):
    """Has the CPU fetch what the trees have of what is most likely the content of `page`, if others may hold it, too.

    Most pages map the frame with their own number. Reads: frames.
    """
    content = int64(s.frames[page, FRAME_CONTENT])
    if 0 <= content < s.by_content.shape[1]:
        prefetch(s.by_content[tree_of(s, s.frame_bytes[page, FRAME_NID])], content)


@inlined
def hint_line(s, page):
    """As hint_content(), later, for the line in which `page` may get, and its row of `by_content` is there. Reads: as that."""
    content = int64(s.frames[page, FRAME_CONTENT])
    if 0 <= content < s.by_content.shape[1]:
        line = -int64(s.by_content[tree_of(s, s.frame_bytes[page, FRAME_NID]), content, RESTING])
        if line > 0:
            prefetch(s.nodes, line)


@inlined
def is_alone_for_now(s, page, frame, tree, content):
    """As retire.is_alone(), for a page that had no rmap_item, and without telling anybody. Reads: page_bytes, by_content."""
    if s.frames[frame, MAPCOUNT] != 1:
        return False
    if s.page_bytes[page, PAGE_FLAGS] & (MERGEABLE | ANON | PROT_NONE) != MERGEABLE | ANON:
        return False
    if s.knobs[Knob.USE_ZERO_PAGES] and has_zero_checksum(s, content):
        return False
    if content >= s.by_content.shape[1]:
        return True
    return s.by_content[tree, content, HOLDERS] == 1 and s.by_content[tree, content, STABLE_AT] == NIL


@kernel
def visit_unknown(s, first, mm, lines):
    """Visits the pages of the open region from `first` on that are due and have no rmap_item, as long as there are only such.

    `lines`: whether pages may get in line for KSM pages that will be.
    Mirrors: mm/ksm.c get_next_rmap_item(), should_skip_rmap_item(), cmp_and_merge_page()
    Writes: pages, page_bytes, mms, counters, scan, and as retire(). Returns: where it stopped.
    """
    seq = int64(s.scan[Scan.SEQ])
    end = int64(s.scan[Scan.REGION_END])
    smart = s.knobs[Knob.SMART_SCAN] != 0
    lines = lines and may_make_lines(s)
    cohort = cohort_of(FIRST_CALL, seq) if smart else SEARCHING
    next_slot = (seq + 1) % SCANS_AHEAD
    n_resting = int64(0)
    awake = int64(0)  # of the pages of this word
    seen = int64(0)
    due = int64(s.calendar[seq % SCANS_AHEAD, first // PAGES_PER_WORD])
    page = first
    while page < end:
        bit = int64(1) << (page % PAGES_PER_WORD)
        if not due & bit:
            break
        frame = int64(s.pages[page, FRAME])
        flags = int64(s.page_bytes[page, ITEM_FLAGS])
        if flags & ITEM or frame == NO_FRAME or not s.page_bytes[page, PAGE_FLAGS] & MERGEABLE:
            break
        if s.frame_bytes[frame, FRAME_FLAGS] & KSM:
            break
        if page + AHEAD < end:
            hint_content(s, page + AHEAD)
            hint_line(s, page + AHEAD // 2)
        content = int64(s.frames[frame, FRAME_CONTENT])
        tree = tree_of(s, s.frame_bytes[frame, FRAME_NID])
        s.page_bytes[page, ITEM_FLAGS] = flags & FREED | ITEM
        s.page_bytes[page, AGE] = smart
        s.page_bytes[page, SKIPS] = 0
        s.pages[page, CHECKSUM] = content
        if is_alone_for_now(s, page, frame, tree, content):
            if content < s.by_content.shape[1]:
                s.by_content[tree, content, RESTING] = page + 1
            s.page_bytes[page, ITEM_NID] = tree
            watch(s, page, tree, content)
            s.cohort[page] = cohort
            n_resting += 1
            if not smart:
                gate(s, page)
        elif not lines or content >= s.by_content.shape[1] or not get_in_line(s, page, tree, content):
            awake |= bit
        seen |= bit
        page += 1
        if page % PAGES_PER_WORD == 0:
            enter_word(s, next_slot, page - 1, seen, awake)
            seen = int64(0)
            awake = int64(0)
            due = int64(s.calendar[seq % SCANS_AHEAD, page // PAGES_PER_WORD])
    if seen:
        enter_word(s, next_slot, page - 1, seen, awake)
    s.cohorts[1 + first // PAGES_PER_BLOCK, cohort] += n_resting
    count_first_looks(s, mm, page - first)
    s.scan[Scan.CUR_PAGE] = page
    return page


@inlined
def enter_word(s, slot, page, seen, awake):
    """Of the pages that were `seen`, all in the word of `page`, the scan of `slot` visits those that are `awake`.

    Writes: calendar.
    """
    word = page // PAGES_PER_WORD
    s.calendar[slot, word] = int64(s.calendar[slot, word]) & ~seen | awake


@inlined
def count_first_looks(s, mm, n_pages):
    """So many pages of `mm` were looked at for the first time. Writes: counters, mms, scan."""
    s.scan[Scan.VISIT] = Knob.CHECKSUM_NS
    s.counters[Counter.KSM_RMAP_ITEMS] += n_pages
    s.mms[mm, ITEMS] += n_pages
    s.mms[mm, LIST_ITEMS] += n_pages
    s.counters[Counter.PAGES_SCANNED] += n_pages
    s.counters[Counter.KSMD_CPU_NS] += n_pages * s.knobs[Knob.CHECKSUM_NS]
    s.counters[Counter.TIME_NS] += n_pages * s.knobs[Knob.CHECKSUM_NS]
    take_budget(s, n_pages)
