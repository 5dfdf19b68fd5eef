"""smart_scan, and what it and ksmd do with a page that has no rmap_item yet.

How often smart_scan passes which page is also known to `resting`, as arithmetic.
"""

from numpy import int64

from ksmbatch.accel import inlined, kernel
from ksmbatch.codes import Kernel
from ksmbatch.kernels.resting import is_due, take_budget
from ksmbatch.kernels.retire import retire
from ksmbatch.kernels.rmap_item import remove_rmap_item_from_tree
from ksmbatch.metrics import Counter
from ksmbatch.state import (
    AGE,
    CHECKSUM,
    FRAME,
    FRAME_CONTENT,
    FRAME_FLAGS,
    FREED,
    ITEM,
    ITEM_FLAGS,
    ITEMS,
    KSM,
    LIST_ITEMS,
    MERGEABLE,
    NO_FRAME,
    PAGE_FLAGS,
    SKIPS,
    Knob,
    Scan,
)


@kernel
def skip_age(age):
    """How many scans a page of this age is passed by. Mirrors: mm/ksm.c skip_age()."""
    if age <= 3:
        return 1
    if age <= 5:
        return 2
    if age <= 8:
        return 4
    return 8


@inlined
def should_skip_rmap_item(s, page):
    """Whether smart_scan passes `page` by; ages its rmap_item.

    Mirrors: mm/ksm.c should_skip_rmap_item(); 6.1 has no smart_scan
    Writes: page_bytes, counters, unstable_*.
    """
    if not s.knobs[Knob.SMART_SCAN] or s.knobs[Knob.KERNEL] < Kernel.V6_12:
        return False
    if s.frame_bytes[s.pages[page, FRAME], FRAME_FLAGS] & KSM:
        return False
    age = int64(s.page_bytes[page, AGE])
    if age != 255:
        s.page_bytes[page, AGE] = age + 1
    if age < 3:
        return False
    skips = int64(s.page_bytes[page, SKIPS])
    if skips == 0:
        s.page_bytes[page, SKIPS] = skip_age(age)
        return False
    s.counters[Counter.PAGES_SKIPPED] += 1
    s.page_bytes[page, SKIPS] = skips - 1
    remove_rmap_item_from_tree(s, page)
    return True


@kernel
def visit_unknown(s, first, mm):
    """Visits the pages of the open region from `first` on that are due and have no rmap_item, as long as there are only such.

    ksmd takes down their checksums, and nothing else. Not for 6.1, which searches the stable tree first.
    Mirrors: mm/ksm.c get_next_rmap_item(), should_skip_rmap_item(), cmp_and_merge_page()
    Writes: pages, page_bytes, mms, counters, scan, and as retire(). Returns: where it stopped.
    """
    page = first
    seq = int64(s.scan[Scan.SEQ])
    end = int64(s.scan[Scan.REGION_END])
    s.scan[Scan.VISIT] = Knob.CHECKSUM_NS
    while page < end and is_due(s, page, seq):
        frame = int64(s.pages[page, FRAME])
        flags = int64(s.page_bytes[page, ITEM_FLAGS])
        if flags & ITEM or frame == NO_FRAME or not s.page_bytes[page, PAGE_FLAGS] & MERGEABLE:
            break
        if s.frame_bytes[frame, FRAME_FLAGS] & KSM:
            break
        s.page_bytes[page, ITEM_FLAGS] = flags & FREED | ITEM
        s.page_bytes[page, AGE] = s.knobs[Knob.SMART_SCAN]
        s.page_bytes[page, SKIPS] = 0
        s.pages[page, CHECKSUM] = s.frames[frame, FRAME_CONTENT]
        retire(s, page)
        page += 1
    n_pages = page - first
    s.counters[Counter.KSM_RMAP_ITEMS] += n_pages
    s.mms[mm, ITEMS] += n_pages
    s.mms[mm, LIST_ITEMS] += n_pages
    s.counters[Counter.PAGES_SCANNED] += n_pages
    s.counters[Counter.KSMD_CPU_NS] += n_pages * s.knobs[Knob.CHECKSUM_NS]
    s.counters[Counter.TIME_NS] += n_pages * s.knobs[Knob.CHECKSUM_NS]
    take_budget(s, n_pages)
    s.scan[Scan.CUR_PAGE] = page
    return page
