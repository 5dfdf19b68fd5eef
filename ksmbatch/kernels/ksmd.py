"""ksmd: the cursor over mms and pages, smart_scan, batches, and the passing of simulated time.

What it does with a page is in `merge`. One call runs many batches.
"""

from numpy import int64

from ksmbatch.accel import entry_kernel, inlined, kernel
from ksmbatch.codes import Kernel, Run, Status
from ksmbatch.kernels.fault import unmerge_pages
from ksmbatch.kernels.merge import cmp_and_merge_page
from ksmbatch.kernels.mm_slot import unlink_slot
from ksmbatch.kernels.rmap_item import free_rmap_item, free_rmap_items, get_next_rmap_item, remove_rmap_item_from_tree
from ksmbatch.kernels.stable_chain import ksm_get_folio
from ksmbatch.kernels.stable_tree import remove_all_stable_nodes
from ksmbatch.kernels.unstable_tree import free_all_trees, reset_unstable_tree
from ksmbatch.metrics import Counter
from ksmbatch.state import (
    AGE,
    END_PAGE,
    FIRST_PAGE,
    FOREVER,
    FRAME,
    FRAME_FLAGS,
    ITEM,
    ITEM_FLAGS,
    KSM,
    MERGEABLE,
    MERGEABLE_VMAS,
    NEXT,
    NIL,
    NO_FRAME,
    NO_MM,
    PAGE_FLAGS,
    REGISTERED,
    SKIPS,
    SLOT_NEXT,
    SPARE_MEMBERS,
    SPARE_NODES,
    USERS,
    Knob,
    Scan,
)

END_OF_SCAN = -1
SKIPPED = -2


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
def start_scan(s):
    """A new scan: stale nodes on the migrate list go, the unstable trees are forgotten.

    Mirrors: mm/ksm.c scan_get_next_rmap_item(), `if (mm_slot == &ksm_mm_head)`
    Writes: nodes, page_bytes, counters, unstable_*, scan.
    """
    n_nids = s.trees.shape[1]
    if s.knobs[Knob.MERGE_ACROSS_NODES]:
        n_nids = 1
    else:
        node = int64(s.scan[Scan.MIGRATE_FIRST])
        while node != NIL:
            after = int64(s.nodes[node, NEXT])
            ksm_get_folio(s, node)
            node = after
    for nid in range(n_nids):
        reset_unstable_tree(s, nid)
    s.scan[Scan.LOG_END] = 0
    enter_mm(s, int64(s.scan[Scan.SLOT_FIRST]))


@inlined
def enter_mm(s, mm):
    """The cursor goes to address 0 of `mm` (NO_MM: the scan is over). Writes: scan."""
    s.scan[Scan.CUR_MM] = mm
    s.scan[Scan.MOVED] = 0
    if mm != NO_MM:
        s.scan[Scan.CUR_PAGE] = s.mms[mm, FIRST_PAGE]


@kernel
def leave_mm(s, mm):
    """All pages of `mm` were passed: the cursor goes to the next mm; one that is dead or has nothing mergeable is dropped.

    Mirrors: the end of mm/ksm.c scan_get_next_rmap_item()
    Writes: mms, scan.
    """
    after = int64(s.mms[mm, SLOT_NEXT])
    if not s.scan[Scan.MOVED]:
        unlink_slot(s, mm)
        s.mms[mm, REGISTERED] = 0
    enter_mm(s, after)


@inlined
def next_page_of_mm(s, mm):
    """Moves the cursor to the next page of `mm` that ksmd looks at; rmap_items of pages passed that are gone are freed.

    Reads: pages. Writes: page_bytes, scan, counters, trees. Returns: the page, or END_OF_SCAN if `mm` has no more.
    """
    page = int64(s.scan[Scan.CUR_PAGE])
    end = int64(s.mms[mm, END_PAGE])
    if not s.mms[mm, USERS]:
        free_rmap_items(s, int64(s.mms[mm, FIRST_PAGE]), end)
        s.scan[Scan.MOVED] = 0
        return END_OF_SCAN
    if s.mms[mm, MERGEABLE_VMAS] != 0:
        s.scan[Scan.MOVED] = 1
    while page < end:
        if s.page_bytes[page, PAGE_FLAGS] & MERGEABLE and s.pages[page, FRAME] != NO_FRAME:
            s.scan[Scan.CUR_PAGE] = page + 1
            return page
        if s.page_bytes[page, ITEM_FLAGS] & ITEM:
            free_rmap_item(s, page, mm)
        page += 1
    s.scan[Scan.CUR_PAGE] = end
    return END_OF_SCAN


@inlined
def scan_get_next_rmap_item(s):
    """The next page to look at.

    Mirrors: mm/ksm.c scan_get_next_rmap_item()
    Writes: scan, page_bytes, mms, counters, trees. Returns: the page; SKIPPED if smart_scan passed one by; END_OF_SCAN.
    """
    if s.scan[Scan.SLOT_FIRST] == NO_MM:
        return END_OF_SCAN
    if s.scan[Scan.CUR_MM] == NO_MM:
        start_scan(s)
    while s.scan[Scan.CUR_MM] != NO_MM:
        mm = int64(s.scan[Scan.CUR_MM])
        page = next_page_of_mm(s, mm)
        if page == END_OF_SCAN:
            leave_mm(s, mm)
            continue
        get_next_rmap_item(s, page, mm)
        if should_skip_rmap_item(s, page):
            return SKIPPED
        return page
    s.counters[Counter.FULL_SCANS] += 1
    return END_OF_SCAN


@inlined
def spend(s, cost):
    """ksmd spends CPU time. Writes: counters."""
    s.counters[Counter.KSMD_CPU_NS] += s.knobs[cost]
    s.counters[Counter.TIME_NS] += s.knobs[cost]


@inlined
def pools_are_full(s):
    """Whether a visit could run out of stable nodes or members."""
    return s.scan[Scan.NEXT_NODE] + SPARE_NODES > len(s.nodes) or s.scan[Scan.NEXT_MEMBER] + SPARE_MEMBERS > len(s.members)


@inlined
def ksm_do_scan(s, until_ns):
    """Goes on with the batch begun, up to simulated time `until_ns`.

    Mirrors: mm/ksm.c ksm_do_scan()
    Writes: everything. Returns: Status; DONE at the end of the batch.
    """
    while s.scan[Scan.BUDGET] > 0:
        if s.counters[Counter.TIME_NS] >= until_ns:
            return Status.TIME
        if pools_are_full(s):
            return Status.GROW
        page = scan_get_next_rmap_item(s)
        if page == END_OF_SCAN:
            s.scan[Scan.BUDGET] = 0
            break
        if page == SKIPPED:
            s.scan[Scan.VISIT] = Knob.SKIP_NS
            spend(s, int64(Knob.SKIP_NS))
            continue
        s.scan[Scan.EXACT] = 0
        if not cmp_and_merge_page(s, page):
            return Status.UNDEFINED
        spend(s, int64(s.scan[Scan.VISIT]))
        s.counters[Counter.EXACT_VISITS] += s.scan[Scan.EXACT]
        s.counters[Counter.PAGES_SCANNED] += 1
        s.scan[Scan.BUDGET] -= 1
    return Status.DONE


@entry_kernel
def ksm_scan_thread(s, until_wakeups, until_full_scans, until_ns):
    """ksmd wakes, runs a batch, sleeps, until one of three limits: batches, full scans (both at the end of a batch), time.

    Mirrors: mm/ksm.c ksm_scan_thread()
    Writes: everything. Returns: Status.
    """
    while True:
        if s.scan[Scan.BUDGET] == 0:
            if s.counters[Counter.WAKEUPS] >= until_wakeups or s.counters[Counter.FULL_SCANS] >= until_full_scans:
                return Status.DONE
            if s.knobs[Knob.RUN] != Run.MERGE or s.scan[Scan.SLOT_FIRST] == NO_MM or s.scan[Scan.WAKE_NS] >= until_ns:
                if until_ns != FOREVER:
                    s.counters[Counter.TIME_NS] = max(s.counters[Counter.TIME_NS], until_ns)
                return Status.TIME
            s.counters[Counter.TIME_NS] = max(s.counters[Counter.TIME_NS], s.scan[Scan.WAKE_NS])
            s.scan[Scan.BUDGET] = s.knobs[Knob.PAGES_TO_SCAN]
            s.counters[Counter.WAKEUPS] += 1
            s.scan[Scan.VISIT] = Knob.WAKEUP_NS
            spend(s, int64(Knob.WAKEUP_NS))
        status = ksm_do_scan(s, until_ns)
        if status != Status.DONE:
            return status
        s.scan[Scan.WAKE_NS] = s.counters[Counter.TIME_NS] + s.knobs[Knob.SLEEP_MILLISECS] * 1_000_000


@entry_kernel
def unmerge_and_remove_all_rmap_items(s):
    """run = 2: breaks every merged page, frees all rmap_items, and begins to count scans anew.

    Mirrors: mm/ksm.c unmerge_and_remove_all_rmap_items()
    Writes: everything.
    """
    free_all_trees(s)
    mm = int64(s.scan[Scan.SLOT_FIRST])
    while mm != NO_MM:
        after = int64(s.mms[mm, SLOT_NEXT])
        first = int64(s.mms[mm, FIRST_PAGE])
        end = int64(s.mms[mm, END_PAGE])
        if s.mms[mm, USERS]:
            unmerge_pages(s, first, end)
        free_rmap_items(s, first, end)
        if not s.mms[mm, USERS]:
            unlink_slot(s, mm)
        mm = after
    s.scan[Scan.CUR_MM] = NO_MM
    s.scan[Scan.BUDGET] = 0
    remove_all_stable_nodes(s)
    s.counters[Counter.FULL_SCANS] = 0
