"""ksmd: the cursor over mms and pages, smart_scan, batches, and the passing of simulated time.

What it does with a page is in `merge`. One call runs many batches.
"""

from numpy import int64

from ksmbatch.accel import entry_kernel, inlined, kernel, prefetch
from ksmbatch.codes import Kernel, Run, Status
from ksmbatch.kernels.fault import unmerge_pages
from ksmbatch.kernels.merge import cmp_and_merge_page
from ksmbatch.kernels.mm_slot import unlink_slot
from ksmbatch.kernels.resting import (
    IS_MERGED,
    IS_SKIP,
    IS_VISIT,
    WAS_UNSTABLE,
    begin_passes,
    end_passes,
    expected_passes,
    forget_passes,
    is_due,
    lowest_bit,
    pass_by,
    pass_pending,
    rouse,
    take_budget,
    wake,
)
from ksmbatch.kernels.retire import retire
from ksmbatch.kernels.rmap_item import free_rmap_item, free_rmap_items, get_next_rmap_item, remove_rmap_item_from_tree
from ksmbatch.kernels.stable_chain import ksm_get_folio
from ksmbatch.kernels.stable_node import is_chain
from ksmbatch.kernels.stable_shape import know_where_to_look
from ksmbatch.kernels.stable_tree import is_calm, meets_something, remove_all_stable_nodes
from ksmbatch.kernels.twins import tree_of
from ksmbatch.kernels.unstable_tree import free_all_trees, reset_unstable_tree
from ksmbatch.metrics import Counter
from ksmbatch.state import (
    AGE,
    AT_PLACE,
    CHECKSUM,
    END_PAGE,
    FIRST,
    FIRST_PAGE,
    FOREVER,
    FOUND,
    FRAME,
    FRAME_CONTENT,
    FRAME_FLAGS,
    FRAME_NID,
    FREED,
    ITEM,
    ITEM_FLAGS,
    ITEM_NID,
    ITEMS,
    KPFN,
    KSM,
    LIST_ITEMS,
    LOOK_END,
    LOOK_FIRST,
    LOOK_KNOWN,
    MERGEABLE,
    MERGEABLE_VMAS,
    N_HINTED,
    NEXT,
    NIL,
    NO_FRAME,
    NO_MM,
    PAGE_FLAGS,
    PAGES_PER_BLOCK,
    PAGES_PER_WORD,
    PASSED,
    REGISTERED,
    SCANS_AHEAD,
    SKIPS,
    SLOT_NEXT,
    SPARE_MEMBERS,
    SPARE_NODES,
    STABLE_AT,
    UNSTABLE_AT,
    UNSTABLE_EXACT,
    USERS,
    Knob,
    Scan,
)

END_OF_SCAN = -1
HINT_STEP = 8  # due pages between two steps of hint_ahead()
HINTED = int64(len(Scan))
LONG_SLEEP = int64(10**8)  # milliseconds that are not to be multiplied


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
    """The pages of [first, end), of one block, that this scan has to visit are awake. Returns: how many there are."""
    seq = int64(s.scan[Scan.SEQ])
    due = 0
    for word in range(first // PAGES_PER_WORD, (end - 1) // PAGES_PER_WORD + 1):
        bits = int64(s.calendar[seq % SCANS_AHEAD, word])
        while bits:
            page = word * PAGES_PER_WORD + lowest_bit(bits)
            bits &= bits - 1
            if first <= page < end:
                due += 1
                if s.cohort[page] != 0:
                    rouse(s, page, seq - 1)
    return due


@kernel
def open_region(s, end, until_wakeups, until_full_scans, until_ns):
    """Looks at the pages from the cursor to `end`, of one block: who is to be visited, what the passes of the others come to.

    Writes: scan, and as rouse().
    """
    first = int64(s.scan[Scan.CUR_PAGE])
    due = rouse_the_due(s, first, end)
    merged, visits, skips, was = expected_passes(s, first, end)
    costs = s.knobs[Knob.SKIP_NS : Knob.ZERO_MERGE_NS + 1]
    dearest = int64(0)
    for k in range(len(costs)):
        dearest = max(dearest, costs[k])
    batch = int64(s.knobs[Knob.PAGES_TO_SCAN])
    wakeups = 1 + (merged + visits + due) // max(batch, 1)
    # visits at rest cannot become dearer than any other
    latest = (merged + visits + skips + due) * dearest
    latest += wakeups * (s.knobs[Knob.WAKEUP_NS] + s.knobs[Knob.SLEEP_MILLISECS] * 1_000_000)
    careful = (
        batch == 0
        or s.knobs[Knob.SLEEP_MILLISECS] > LONG_SLEEP
        or s.counters[Counter.FULL_SCANS] >= until_full_scans
        or s.counters[Counter.WAKEUPS] + wakeups >= until_wakeups
        or s.counters[Counter.TIME_NS] + latest >= until_ns
    )
    s.scan[Scan.REGION_END] = end
    s.scan[Scan.HINT] = first
    s.scan[Scan.HINTS] = 0
    s.scan[Scan.CAREFUL] = careful
    s.scan[Scan.PASSED_TO] = end if careful else first
    if not careful:
        s.scan[Scan.PENDING_MERGED] = merged
        s.scan[Scan.PENDING_VISITS] = visits
        s.scan[Scan.PENDING_SKIPS] = skips
        s.scan[Scan.PENDING_WAS] = was


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
def lively_trees(s):
    """The nids, as bits, of the trees whose shape searches may see or change; nids above 31 share bits. Reads: trees, knobs."""
    lively = int64(0)
    for nid in range(1 if s.knobs[Knob.MERGE_ACROSS_NODES] else s.trees.shape[1]):
        if s.trees[UNSTABLE_EXACT, nid] or not is_calm(s, nid):
            lively |= int64(1) << (nid & 31)
    return lively


@kernel
def must_look(s, page, nid, content):
    """Whether `page`, at rest, which searches the trees of `nid` in this scan, may see or change their shape. Reads: trees."""
    if s.trees[UNSTABLE_EXACT, nid]:
        return True
    if is_calm(s, nid):
        return False
    know_where_to_look(s, nid)
    if content >= s.by_content.shape[1] and not s.trees[LOOK_FIRST, nid] <= content < s.trees[LOOK_END, nid]:
        return False
    s.scan[Scan.CUR_PAGE] = page + 1  # time is told by it, where a chain may be due for pruning
    return meets_something(s, nid, content)


@kernel
def first_that_looks(s, first, end, lively):
    """The first of the pages [first, end), none of which is due, that must look, see above; `end` if none must.

    Reads: cohort, cohorts. Writes: scan, and as meets_something().
    """
    n_dup = s.by_content.shape[1]
    for page in range(first, end):
        if not s.cohorts[0, s.cohort[page]] & IS_VISIT:
            continue
        nid = int64(s.page_bytes[page, ITEM_NID])
        if not (lively >> (nid & 31)) & 1:
            continue
        content = int64(s.pages[page, CHECKSUM])
        known = s.trees[LOOK_KNOWN, nid] and content >= n_dup and not s.trees[UNSTABLE_EXACT, nid]
        if known and not s.trees[LOOK_FIRST, nid] <= content < s.trees[LOOK_END, nid]:
            continue
        if must_look(s, page, nid, content):
            return page
    return end


@inlined
def next_due(s, page, end):
    """The first page from `page` on, before `end`, that this scan has to visit; or `end`. Reads: calendar."""
    slot = s.scan[Scan.SEQ] % SCANS_AHEAD
    word = page // PAGES_PER_WORD
    mask = int64(-1) << (page % PAGES_PER_WORD)
    while word * PAGES_PER_WORD < end:
        bits = int64(s.calendar[slot, word]) & mask
        if bits:
            return min(word * PAGES_PER_WORD + lowest_bit(bits), end)
        mask = int64(-1)
        word += 1
    return end


@inlined
def hint_ahead(s):
    """Has the CPU fetch what the visits of the pages next due will look at, in three steps, each of which needs the one before.

    Reads: calendar, pages, frames, by_content, nodes. Writes: scan.
    """
    told = 1 if s.scan[Scan.HINTS] else HINT_STEP * 3
    for _ in range(told):
        place = int64(s.scan[Scan.HINTS])
        page = next_due(s, int64(s.scan[Scan.HINT]), int64(s.scan[Scan.REGION_END]))
        s.scan[HINTED + place % N_HINTED] = page if page < s.scan[Scan.REGION_END] else -1
        s.scan[Scan.HINT] = min(page + 1, s.scan[Scan.REGION_END])
        s.scan[Scan.HINTS] = place + 1
        if page < s.scan[Scan.REGION_END]:
            hint_content(s, page)
        if place >= HINT_STEP:
            hint_node(s, int64(s.scan[HINTED + (place - HINT_STEP) % N_HINTED]))
        if place >= 2 * HINT_STEP:
            hint_frame(s, int64(s.scan[HINTED + (place - 2 * HINT_STEP) % N_HINTED]))


@inlined
def held_twice(s, page):
    """The tree and content of `page`, if it maps a frame with a content that others may hold; else content -1."""
    frame = int64(s.pages[page, FRAME]) if page >= 0 else NO_FRAME
    if frame == NO_FRAME or s.frames[frame, FRAME_CONTENT] >= s.by_content.shape[1]:
        return int64(0), int64(-1)
    return tree_of(s, s.frame_bytes[frame, FRAME_NID]), int64(s.frames[frame, FRAME_CONTENT])


@inlined
def hint_content(s, page):
    """First step: what the trees have of the content of `page`."""
    nid, content = held_twice(s, page)
    if content >= 0:
        prefetch(s.by_content[nid], content)


@inlined
def hint_node(s, page):
    """Second step: the stable node of that content, or the page with it in the unstable tree."""
    nid, content = held_twice(s, page)
    if content < 0:
        return
    node = int64(s.by_content[nid, content, STABLE_AT])
    if node != NIL:
        prefetch(s.nodes, node)
        return
    other = int64(s.by_content[nid, content, UNSTABLE_AT]) - 1
    if other >= 0:
        prefetch(s.pages, other)
        prefetch(s.page_bytes, other)


@inlined
def hint_frame(s, page):
    """Third step: the frame of that node, and its first member."""
    nid, content = held_twice(s, page)
    if content < 0:
        return
    node = int64(s.by_content[nid, content, STABLE_AT])
    if node == NIL:
        return
    if is_chain(s, node):
        prefetch(s.nodes, int64(s.nodes[node, FOUND]))
        return
    prefetch(s.members, int64(s.nodes[node, FIRST]))
    frame = int64(s.nodes[node, KPFN])
    if frame != NO_FRAME:
        prefetch(s.frames, frame)
        prefetch(s.frame_bytes, frame)


@inlined
def is_passed_at_rest(s, page):
    """Whether `page`, in a careful region, is passed at rest, which is counted; if it should be but must not, it is woken.

    Writes: scan, counters, and as wake().
    """
    if is_due(s, page, int64(s.scan[Scan.SEQ])):
        return False
    lively = lively_trees(s)
    if lively and first_that_looks(s, page, page + 1, lively) == page:
        s.scan[Scan.CUR_PAGE] = page
        wake(s, page)
        return False
    phase = int64(s.cohorts[0, s.cohort[page]])
    if phase:
        if phase & IS_MERGED:
            s.scan[Scan.VISIT] = Knob.KSM_VISIT_NS
        else:
            s.scan[Scan.VISIT] = Knob.SEARCH_NS if phase & IS_VISIT else Knob.SKIP_NS
        was = (phase & WAS_UNSTABLE) // WAS_UNSTABLE
        pass_by(s, phase & IS_MERGED, (phase & IS_VISIT) // IS_VISIT, (phase & IS_SKIP) // IS_SKIP, was)
    return True


@inlined
def page_to_visit(s, lively):
    """The next page of the open region, not a careful one, that is to be visited; or the region's end. Writes: scan, wake()."""
    page = int64(s.scan[Scan.CUR_PAGE])
    due = next_due(s, page, int64(s.scan[Scan.REGION_END]))
    if lively and s.scan[Scan.PENDING_VISITS] != 0:
        looking = first_that_looks(s, page, due, lively)
        if looking < due:
            s.scan[Scan.CUR_PAGE] = looking
            wake(s, looking)
            due = looking
    s.scan[Scan.CUR_PAGE] = due
    return due


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


@inlined
def visit(s, page, mm):
    """ksmd looks at `page` of `mm`, or skips it. Writes: everything. Returns: False if the kernel would use freed memory."""
    if not s.page_bytes[page, PAGE_FLAGS] & MERGEABLE or s.pages[page, FRAME] == NO_FRAME:
        if s.page_bytes[page, ITEM_FLAGS] & ITEM:
            free_rmap_item(s, page, mm)
        return True
    get_next_rmap_item(s, page, mm)
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
    retire(s, page)
    return True


@inlined
def scan_region(s, until_ns):
    """Passes the pages of the open region. Writes: everything. Returns: Status; DONE at its end, or that of batch or time."""
    mm = int64(s.scan[Scan.CUR_MM])
    at_once = s.knobs[Knob.KERNEL] >= Kernel.V6_12 and not s.knobs[Knob.FORCE_EXACT] and not s.scan[Scan.CAREFUL]
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
            if page == s.scan[Scan.REGION_END]:
                pass_pending(s)
                break
            if at_once and not s.page_bytes[page, ITEM_FLAGS] & ITEM and visit_unknown(s, page, mm) > page:
                continue
        if pools_are_full(s):
            return Status.GROW
        hint_ahead(s)
        s.scan[Scan.CUR_PAGE] = page + 1
        if not visit(s, page, mm):
            return Status.UNDEFINED
        page += 1
        lively = lively_trees(s)
    s.scan[Scan.REGION_END] = 0
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
                start_scan(s)
            end = next_region(s)
            if end == END_OF_SCAN:
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
