"""ksmd: the cursor over mms and pages, region by region, batches, and the passing of simulated time.

What it does with a page is in `merge`. One call runs many batches.
"""

from numpy import int64

from ksmbatch.accel import entry_kernel, inlined, kernel
from ksmbatch.codes import Kernel, Run, Status
from ksmbatch.kernels.cohorts import IN_LINE, IS_GATE, IS_JOIN, IS_MERGED, IS_SKIP, IS_VISIT, WAS_UNSTABLE, pass_gates, pass_of
from ksmbatch.kernels.cursor import is_due
from ksmbatch.kernels.fault import unmerge_pages
from ksmbatch.kernels.first_look import visit_unknown
from ksmbatch.kernels.hints import hint_block, hint_pages, hint_visits, list_due
from ksmbatch.kernels.join import join_listed
from ksmbatch.kernels.line_ends import follow_up, forget_lines
from ksmbatch.kernels.lines import are_lines_lively, first_that_looks_or_waits
from ksmbatch.kernels.looking import UNKNOWN, first_that_looks, is_none_watched, lively_trees, watch_for_the_lowest
from ksmbatch.kernels.merge import cmp_and_merge_page
from ksmbatch.kernels.mm_slot import unlink_slot
from ksmbatch.kernels.passing import begin_passes, end_passes, expected_passes, pass_by, pass_joins, pass_pending, take_budget
from ksmbatch.kernels.relining import draw_up_lines
from ksmbatch.kernels.resting import forget_passes, rouse, wake
from ksmbatch.kernels.retire import VISITORS, retire
from ksmbatch.kernels.rmap_item import free_rmap_item, free_rmap_items, get_next_rmap_item
from ksmbatch.kernels.smart_scan import should_skip_rmap_item
from ksmbatch.kernels.stable_chain import ksm_get_folio
from ksmbatch.kernels.stable_tree import remove_all_stable_nodes
from ksmbatch.kernels.unstable_tree import free_all_trees, reset_unstable_tree
from ksmbatch.metrics import Counter
from ksmbatch.state import (
    AT_PLACE,
    DUE_PAGE,
    END_PAGE,
    FIRST_PAGE,
    FOREVER,
    FRAME,
    HEAD,
    ITEM,
    ITEM_FLAGS,
    LEADS,
    MEMBER_NODE,
    MERGEABLE,
    MERGEABLE_VMAS,
    NEXT,
    NIL,
    NO_FRAME,
    NO_MM,
    PAGE_FLAGS,
    PAGES_PER_BLOCK,
    PASSED,
    REGISTERED,
    SLOT_NEXT,
    SPARE_MEMBERS,
    SPARE_NODES,
    USERS,
    Knob,
    Scan,
)

END_OF_SCAN = -1
LONG_SLEEP = int64(10**8)  # milliseconds that are not to be multiplied


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
    if s.scan[Scan.SEQ] == 0:
        watch_for_the_lowest(s)
    begin_passes(s)
    enter_mm(s, int64(s.scan[Scan.SLOT_FIRST]))


@inlined
def enter_mm(s, mm):
    """The cursor goes to address 0 of `mm` (NO_MM: the scan is over). Writes: scan, mms."""
    s.scan[Scan.CUR_MM] = mm
    s.scan[Scan.MOVED] = 0
    if mm == NO_MM:
        return
    if s.mms[mm, PASSED] == s.scan[Scan.SEQ]:
        s.scan[Scan.CUR_PAGE] = s.mms[mm, END_PAGE]  # it died when it was passed in this scan, and is met again
        return
    s.scan[Scan.CUR_PAGE] = s.mms[mm, FIRST_PAGE]
    s.mms[mm, PASSED] = s.scan[Scan.SEQ]
    s.mms[s.scan[Scan.PLACES], AT_PLACE] = mm
    s.scan[Scan.PLACES] += 1


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


@kernel
def next_region(s):
    """The cursor goes to the next pages that ksmd may look at, at most to the end of a block; the rmap_items of dead mms go.

    Mirrors: mm/ksm.c scan_get_next_rmap_item(), as far as it goes from mm to mm
    Writes: scan, mms, page_bytes, counters, trees. Returns: where they end; END_OF_SCAN.
    """
    while s.scan[Scan.CUR_MM] != NO_MM:
        mm = int64(s.scan[Scan.CUR_MM])
        page = int64(s.scan[Scan.CUR_PAGE])
        end = int64(s.mms[mm, END_PAGE])
        if not s.mms[mm, USERS]:
            free_rmap_items(s, int64(s.mms[mm, FIRST_PAGE]), end)
            s.scan[Scan.MOVED] = 0
        else:
            if s.mms[mm, MERGEABLE_VMAS] != 0:
                s.scan[Scan.MOVED] = 1
            if page < end:
                return min(end, page - page % PAGES_PER_BLOCK + PAGES_PER_BLOCK)
        leave_mm(s, mm)
    return END_OF_SCAN


@kernel
def rouse_the_due(s, first, end):
    """The pages of [first, end), of one block, that this scan has to visit are listed, and awake. Returns: their number."""
    seq = int64(s.scan[Scan.SEQ])
    list_due(s, first, end)
    hint_pages(s)
    hint_block(s, 1 + first // PAGES_PER_BLOCK)
    n_due = int64(s.scan[Scan.N_DUE])
    for k in range(n_due):
        page = int64(s.due[DUE_PAGE, k])
        if s.cohort[page] != 0:
            rouse(s, page, seq - 1)
    return n_due


@kernel
def open_region(s, end, until_wakeups, until_full_scans, until_ns):
    """Looks at the pages from the cursor to `end`, of one block: who is to be visited, what the passes of the others come to.

    Writes: scan, and as rouse().
    """
    first = int64(s.scan[Scan.CUR_PAGE])
    s.scan[Scan.N_SEARCHERS] = UNKNOWN
    s.scan[Scan.NEXT_WATCHED] = UNKNOWN
    due = rouse_the_due(s, first, end)
    merged, visits, skips, was, gates, joins = expected_passes(s, first, end)
    costs = s.knobs[Knob.SKIP_NS : Knob.ZERO_MERGE_NS + 1]
    dearest = int64(0)
    for k in range(len(costs)):
        dearest = max(dearest, costs[k])
    batch = int64(s.knobs[Knob.PAGES_TO_SCAN])
    wakeups = 1 + (merged + visits + joins + due) // max(batch, 1)
    # visits at rest cannot become dearer than any other
    latest = (merged + visits + joins + skips + due) * dearest
    latest += wakeups * (s.knobs[Knob.WAKEUP_NS] + s.knobs[Knob.SLEEP_MILLISECS] * 1_000_000)
    careful = (
        batch == 0
        or s.knobs[Knob.SLEEP_MILLISECS] > LONG_SLEEP
        or s.counters[Counter.FULL_SCANS] >= until_full_scans
        or s.counters[Counter.WAKEUPS] + wakeups >= until_wakeups
        or s.counters[Counter.TIME_NS] + latest >= until_ns
    )
    s.scan[Scan.REGION_END] = end
    s.scan[Scan.CAREFUL] = careful
    s.scan[Scan.LATEST_NS] = FOREVER if careful else s.counters[Counter.TIME_NS] + latest
    s.scan[Scan.PASSED_TO] = end if careful else first
    if not careful:
        s.scan[Scan.PENDING_MERGED] = merged
        s.scan[Scan.PENDING_VISITS] = visits
        s.scan[Scan.PENDING_SKIPS] = skips
        s.scan[Scan.PENDING_WAS] = was
        s.scan[Scan.PENDING_GATES] = gates
        s.scan[Scan.PENDING_JOINS] = joins


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
def is_passed_at_rest(s, page):
    """Whether `page`, in a careful region, is passed at rest, which is counted; if it should be but must not, it is woken.

    Writes: scan, counters, and as wake().
    """
    if is_due(s, page, int64(s.scan[Scan.SEQ])):
        return False
    lively = lively_trees(s)
    if lively and s.cohort[page] >= IN_LINE:
        if first_that_looks_or_waits(s, page, page + 1, lively) == page:
            return False
    elif lively and first_that_looks(s, page, page + 1, lively) == page:
        s.scan[Scan.CUR_PAGE] = page
        wake(s, page)
        return False
    phase = pass_of(s, page)
    if phase:
        if phase & IS_MERGED:
            s.scan[Scan.VISIT] = Knob.KSM_VISIT_NS
        elif phase & IS_JOIN:
            s.scan[Scan.VISIT] = Knob.MERGE_NS
            pass_joins(s, page, page + 1)
        elif phase & IS_GATE:
            s.scan[Scan.VISIT] = Knob.CHECKSUM_NS
            pass_gates(s, page, page + 1)
        else:
            s.scan[Scan.VISIT] = Knob.SEARCH_NS if phase & IS_VISIT else Knob.SKIP_NS
        was = (phase & WAS_UNSTABLE) // WAS_UNSTABLE
        gates = (phase & IS_GATE) // IS_GATE
        joins = (phase & IS_JOIN) // IS_JOIN
        pass_by(s, phase & IS_MERGED, (phase & IS_VISIT) // IS_VISIT, (phase & IS_SKIP) // IS_SKIP, was, gates, joins)
    return True


@inlined
def page_to_visit(s, lively):
    """The next page of the open region, not a careful one, that is to be visited; or the region's end. Writes: scan, wake()."""
    if s.scan[Scan.NEWLY_DUE]:
        list_due(s, int64(s.scan[Scan.CUR_PAGE]), int64(s.scan[Scan.REGION_END]))
    k = int64(s.scan[Scan.NEXT_DUE])
    due = int64(s.due[DUE_PAGE, k]) if k < s.scan[Scan.N_DUE] else int64(s.scan[Scan.REGION_END])
    if lively and s.scan[Scan.PENDING_JOINS] != 0 and are_lines_lively(s, (due - 1) // PAGES_PER_BLOCK):
        looking = first_that_looks_or_waits(s, int64(s.scan[Scan.CUR_PAGE]), due, lively)
        if looking < due:
            s.scan[Scan.CUR_PAGE] = looking
            wake(s, looking)
            return looking
    elif lively and s.scan[Scan.PENDING_VISITS] != 0 and not is_none_watched(s, due, lively):
        looking = first_that_looks(s, int64(s.scan[Scan.CUR_PAGE]), due, lively)
        if looking < due:
            s.scan[Scan.CUR_PAGE] = looking
            wake(s, looking)
            s.scan[Scan.NEWLY_DUE] = 0  # it is the very next one
            return looking
    if k >= s.scan[Scan.HINTED]:
        hint_visits(s, k)
    s.scan[Scan.NEXT_DUE] = k + 1
    return due


@kernel
def visit(s, page, mm):
    """ksmd looks at `page` of `mm`, or skips it. Writes: everything. Returns: False if the kernel would use freed memory."""
    if not s.page_bytes[page, PAGE_FLAGS] & MERGEABLE or s.pages[page, FRAME] == NO_FRAME:
        if s.page_bytes[page, ITEM_FLAGS] & ITEM:
            free_rmap_item(s, page, mm)
        return True
    get_next_rmap_item(s, page, mm)
    line = NIL
    if s.page_bytes[page, ITEM_FLAGS] & LEADS:
        line = int64(s.members[s.pages[page, HEAD], MEMBER_NODE])
    s.scan[Scan.EXACT] = 0
    if should_skip_rmap_item(s, page):
        s.scan[Scan.VISIT] = Knob.SKIP_NS
        spend(s, int64(Knob.SKIP_NS))
    else:
        if not cmp_and_merge_page(s, page):
            return False
        spend(s, int64(s.scan[Scan.VISIT]))
        s.counters[Counter.EXACT_VISITS] += s.scan[Scan.EXACT]
        s.counters[Counter.PAGES_SCANNED] += 1
        if s.scan[Scan.CAREFUL]:
            s.scan[Scan.BUDGET] -= 1
        else:
            take_budget(s, int64(1))
    if line != NIL:
        follow_up(s, page, line)
    retire(s, page)
    return True


@inlined
def is_listed(s, k, page):
    """Whether `page` is the listed page number `k`. Reads: due, scan."""
    return 0 <= k < s.scan[Scan.N_DUE] and s.due[DUE_PAGE, k] == page


@inlined
def scan_region(s, until_ns):
    """Passes the pages of the open region. Writes: everything. Returns: Status; DONE at its end, or that of batch or time."""
    mm = int64(s.scan[Scan.CUR_MM])
    at_once = s.knobs[Knob.KERNEL] >= Kernel.V6_12 and not s.knobs[Knob.FORCE_EXACT] and not s.scan[Scan.CAREFUL]
    joins = at_once and not (VISITORS >> s.knobs[Knob.POLICY]) & 1
    lively = lively_trees(s)
    page = int64(s.scan[Scan.CUR_PAGE])
    while True:
        if s.scan[Scan.CAREFUL]:
            if page == s.scan[Scan.REGION_END] or s.scan[Scan.BUDGET] == 0 or s.counters[Counter.TIME_NS] >= until_ns:
                break
            if is_passed_at_rest(s, page):
                page += 1
                s.scan[Scan.CUR_PAGE] = page
                continue
        else:
            page = page_to_visit(s, lively)
            s.scan[Scan.CUR_PAGE] = page
            if page == s.scan[Scan.REGION_END]:
                pass_pending(s)
                break
            if at_once and not s.page_bytes[page, ITEM_FLAGS] & ITEM:
                stop = visit_unknown(s, page, mm, joins)
                if stop > page:
                    s.scan[Scan.NEXT_DUE] += stop - page - 1
                    continue
        if pools_are_full(s):
            s.scan[Scan.NEWLY_DUE] = 1
            return Status.GROW
        s.scan[Scan.CUR_PAGE] = page + 1
        if joins:
            k = int64(s.scan[Scan.NEXT_DUE]) - 1
            # where pages at rest between the listed ones may have to be visited, one at a time
            stop = join_listed(s, mm, k, k + 1 if lively else int64(s.scan[Scan.N_DUE])) if is_listed(s, k, page) else k
            if stop > k:
                s.scan[Scan.NEXT_DUE] = stop
                page = int64(s.scan[Scan.CUR_PAGE])
                if lively:
                    lively = lively_trees(s)
                continue
        if not visit(s, page, mm):
            return Status.UNDEFINED
        page += 1
        lively = lively_trees(s)
    s.scan[Scan.REGION_END] = 0
    s.scan[Scan.LATEST_NS] = FOREVER
    return Status.DONE


@inlined
def ksm_do_scan(s, until_wakeups, until_full_scans, until_ns):
    """Goes on with the batch begun, and with those after it as long as no limit is near.

    Mirrors: mm/ksm.c ksm_do_scan(), scan_get_next_rmap_item()
    Writes: everything. Returns: Status; DONE at the end of a batch.
    """
    while s.scan[Scan.BUDGET] > 0:
        if s.scan[Scan.REGION_END] == 0:
            if s.counters[Counter.TIME_NS] >= until_ns:
                return Status.TIME
            if s.scan[Scan.SLOT_FIRST] == NO_MM:
                s.scan[Scan.BUDGET] = 0
                break
            if s.scan[Scan.CUR_MM] == NO_MM:
                if s.scan[Scan.LINES_LEFT]:
                    draw_up_lines(s)
                start_scan(s)
            end = next_region(s)
            if end == END_OF_SCAN:
                if s.scan[Scan.LINES_SEQ] not in (0, s.scan[Scan.SEQ]):
                    forget_lines(s)
                end_passes(s)
                s.counters[Counter.FULL_SCANS] += 1
                s.scan[Scan.BUDGET] = 0
                break
            open_region(s, end, until_wakeups, until_full_scans, until_ns)
        status = scan_region(s, until_ns)
        if status != Status.DONE:
            return status
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
        status = ksm_do_scan(s, until_wakeups, until_full_scans, until_ns)
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
    forget_passes(s)
    s.counters[Counter.FULL_SCANS] = 0
