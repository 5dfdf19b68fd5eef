"""ksmd's passes over pages at rest, by arithmetic: sums per block, counters, time, and where a scan begins and ends.

Which passes may be left to it is decided by `retire`; what a single one is, is known to `cohorts`.
"""

from numpy import int64

from ksmbatch.accel import inlined, kernel
from ksmbatch.kernels.bits import count_bits
from ksmbatch.kernels.cohorts import (
    FIRST_COHORT,
    IN_LINE,
    IS_GATE,
    IS_JOIN,
    IS_MERGED,
    IS_SKIP,
    IS_VISIT,
    JOINED,
    MERGED,
    MOST_NIDS,
    N_COHORTS,
    OLDEST,
    RENAMED_BY,
    SEARCHING,
    VISITS,
    WAS_UNSTABLE,
    calls_after,
    class_of,
    cohort_of,
    count_marked,
    pass_gates,
    pass_of,
    rename_oldest,
)
from ksmbatch.kernels.cursor import is_due
from ksmbatch.metrics import Counter, NodeCounter
from ksmbatch.state import MERGING, PAGES_PER_BLOCK, PAGES_PER_WORD, SCANS_AHEAD, Knob, Scan


@inlined
def expect(s, phase, by):
    """A page of the open region whose pass in this scan is `phase` is one of those to be counted (1), or no more (-1)."""
    s.scan[Scan.PENDING_MERGED] += by * (phase & IS_MERGED)
    s.scan[Scan.PENDING_VISITS] += by * ((phase & IS_VISIT) // IS_VISIT)
    s.scan[Scan.PENDING_SKIPS] += by * ((phase & IS_SKIP) // IS_SKIP)
    s.scan[Scan.PENDING_WAS] += by * ((phase & WAS_UNSTABLE) // WAS_UNSTABLE)
    s.scan[Scan.PENDING_GATES] += by * ((phase & IS_GATE) // IS_GATE)
    s.scan[Scan.PENDING_JOINS] += by * ((phase & IS_JOIN) // IS_JOIN)


@kernel
def take_budget(s, visits):
    """So many visits are made; where a batch ends among them, ksmd sleeps and wakes. Writes: scan, counters.

    Mirrors: mm/ksm.c ksm_scan_thread(), for callers who know that nothing else happens meanwhile
    """
    budget = int64(s.scan[Scan.BUDGET])
    if visits < budget:
        s.scan[Scan.BUDGET] = budget - visits
        return
    rest_of_them = visits - budget
    batch = int64(s.knobs[Knob.PAGES_TO_SCAN])
    wakeups = 1 + rest_of_them // batch
    s.scan[Scan.BUDGET] = batch - rest_of_them % batch
    s.counters[Counter.WAKEUPS] += wakeups
    s.counters[Counter.KSMD_CPU_NS] += wakeups * s.knobs[Knob.WAKEUP_NS]
    s.counters[Counter.TIME_NS] += wakeups * (s.knobs[Knob.WAKEUP_NS] + s.knobs[Knob.SLEEP_MILLISECS] * 1_000_000)


@kernel
def pass_by(s, merged, visits, skips, was, gates, joins):
    """Passes of pages at rest: KSM pages in place, visits, skips; `was`: how many of those were in the unstable tree.

    `gates`: visits that the checksum gate stops; `joins`: pages in line, which pass_joins() is told of, too.
    Mirrors: mm/ksm.c cmp_and_merge_page() where it finds nobody, should_skip_rmap_item()
    Writes: counters, scan.
    """
    searches = visits - gates
    s.counters[Counter.PAGES_SCANNED] += merged + visits + joins
    s.counters[Counter.PAGES_SKIPPED] += skips
    s.counters[Counter.PAGES_UNSHARED] += searches - was
    s.counters[Counter.TREE_SEARCHES] += searches + joins
    cost = merged * s.knobs[Knob.KSM_VISIT_NS] + searches * s.knobs[Knob.SEARCH_NS] + skips * s.knobs[Knob.SKIP_NS]
    cost += gates * s.knobs[Knob.CHECKSUM_NS] + joins * s.knobs[Knob.MERGE_NS]
    s.counters[Counter.KSMD_CPU_NS] += cost
    s.counters[Counter.TIME_NS] += cost
    if s.scan[Scan.CAREFUL]:
        s.scan[Scan.BUDGET] -= merged + visits + joins
    else:
        take_budget(s, merged + visits + joins)


@kernel
def pass_pending(s):
    """All pages at rest that are left of the open region are passed. Writes: as pass_by(), pass_gates(), pass_joins()."""
    pass_by(
        s,
        int64(s.scan[Scan.PENDING_MERGED]),
        int64(s.scan[Scan.PENDING_VISITS]),
        int64(s.scan[Scan.PENDING_SKIPS]),
        int64(s.scan[Scan.PENDING_WAS]),
        int64(s.scan[Scan.PENDING_GATES]),
        int64(s.scan[Scan.PENDING_JOINS]),
    )
    if s.scan[Scan.PENDING_JOINS] != 0:
        pass_joins(s, int64(s.scan[Scan.PASSED_TO]), int64(s.scan[Scan.REGION_END]))
        s.scan[Scan.PENDING_JOINS] = 0
    if s.scan[Scan.PENDING_GATES] != 0:
        pass_gates(s, int64(s.scan[Scan.PASSED_TO]), int64(s.scan[Scan.REGION_END]))
    s.scan[Scan.PASSED_TO] = s.scan[Scan.REGION_END]


@kernel
def pass_joins(s, first, end):
    """The pages in line of [first, end), of one block and of the mm under the cursor, are passed: they have joined their nodes.

    Mirrors: mm/ksm.c try_to_merge_with_ksm_page(), stable_tree_append()
    Writes: cohort, cohorts, counters, node_counters, mms, scan.
    """
    block = 1 + first // PAGES_PER_BLOCK
    total = int64(0)
    for nid in range(min(MOST_NIDS, s.trees.shape[1])):
        for is_remote in range(2):
            cohort = class_of(nid, nid + is_remote)
            n_pages = int64(s.cohorts[block, cohort])
            if n_pages != 0 and end - first != PAGES_PER_BLOCK:
                n_pages = int64(0)
                for page in range(first, end):
                    n_pages += int64(s.cohort[page] == cohort)
            s.cohorts[block, cohort] -= n_pages
            s.node_counters[nid, NodeCounter.FRAMES] -= n_pages
            s.node_counters[nid, NodeCounter.REMOTE_MAPPINGS] += is_remote * n_pages
            total += n_pages
    for page in range(first, end):
        cohort = s.cohort[page]
        s.cohort[page] = JOINED if cohort >= IN_LINE else cohort
    s.cohorts[block, JOINED] += total
    s.scan[Scan.N_JOINED] += total
    s.mms[s.scan[Scan.CUR_MM], MERGING] += total
    s.counters[Counter.FRAMES_IN_USE] -= total
    s.counters[Counter.PAGES_SHARING] += total
    s.counters[Counter.PAGES_MERGED] += total


@kernel
def sum_passes(s, first, end):
    """What passing the pages at rest of [first, end) comes to in this scan; those that are due were visited, and are counted.

    Reads: cohort, cohorts, gated, changed, calendar.
    Returns: KSM pages in place, visits, skips; how many of those were in the unstable tree; visits that the gate stops; pages
    in line.
    """
    merged = int64(0)
    visits = int64(0)
    skips = int64(0)
    was = int64(0)
    gates = int64(0)
    joins = int64(0)
    for page in range(first, end):
        if s.cohort[page] != 0 and not is_due(s, page, int64(s.scan[Scan.SEQ])):
            phase = pass_of(s, page)
            merged += phase & IS_MERGED
            visits += (phase & IS_VISIT) // IS_VISIT
            skips += (phase & IS_SKIP) // IS_SKIP
            was += (phase & WAS_UNSTABLE) // WAS_UNSTABLE
            gates += (phase & IS_GATE) // IS_GATE
            joins += (phase & IS_JOIN) // IS_JOIN
    return merged, visits, skips, was, gates, joins


@kernel
def catch_up(s):
    """Brings time and counters to where the cursor is: the pages at rest before the page under visit are passed.

    Writes: as pass_by(), pass_gates(), pass_joins().
    """
    first = int64(s.scan[Scan.PASSED_TO])
    end = int64(s.scan[Scan.CUR_PAGE]) - 1
    if s.scan[Scan.REGION_END] == 0 or end <= first:
        return
    merged, visits, skips, was, gates, joins = sum_passes(s, first, end)
    s.scan[Scan.PENDING_MERGED] -= merged
    s.scan[Scan.PENDING_VISITS] -= visits
    s.scan[Scan.PENDING_SKIPS] -= skips
    s.scan[Scan.PENDING_WAS] -= was
    s.scan[Scan.PENDING_GATES] -= gates
    s.scan[Scan.PENDING_JOINS] -= joins
    if joins != 0:
        pass_joins(s, first, end)
    if gates != 0:
        pass_gates(s, first, end)
    s.scan[Scan.PASSED_TO] = end
    pass_by(s, merged, visits, skips, was, gates, joins)


@inlined
def cohorts_in_use(s):
    """All cohorts that any page is of have lower numbers: in each scan a new one begins, until the numbers are used up.

    Reads: scan.
    """
    return min(FIRST_COHORT + s.scan[Scan.SEQ] + 1, s.cohorts.shape[1])


@kernel
def expected_passes(s, first, end):
    """As sum_passes(), for the pages from the cursor to `end`, all of one block, of which nobody is due and at rest.

    Reads: cohort, cohorts, gated, changed, calendar.
    """
    if end - first != PAGES_PER_BLOCK:
        return sum_passes(s, first, end)
    block = 1 + first // PAGES_PER_BLOCK
    visits = int64(0)
    skips = int64(0)
    was = int64(0)
    for cohort in range(cohorts_in_use(s)):
        n_pages = int64(s.cohorts[block, cohort])
        phase = int64(s.cohorts[0, cohort])
        visits += n_pages * ((phase >> 1) & 1)
        skips += n_pages * ((phase >> 2) & 1)
        was += n_pages * ((phase >> 3) & 1)
    # whoever was stopped by the gate in the last scan would otherwise have gone into the tree
    row = (s.scan[Scan.SEQ] - 1) & 1
    for word in range(first // PAGES_PER_WORD, end // PAGES_PER_WORD):
        was -= count_bits(s.gated[row, word])
    gates = count_marked(s, s.changed, first, end, IS_VISIT) if visits else int64(0)
    joins = int64(0)
    if s.scan[Scan.LINES_SEQ] != 0 and s.scan[Scan.LINES_SEQ] != s.scan[Scan.SEQ]:
        for cohort in range(IN_LINE, s.cohorts.shape[1]):
            joins += s.cohorts[block, cohort]
    return int64(s.cohorts[block, MERGED]) + int64(s.cohorts[block, JOINED]), visits, skips, was, gates, joins


@kernel
def begin_passes(s):
    """A new scan: what its passes come to, per cohort. Writes: scan, cohorts, cohort."""
    s.scan[Scan.SEQ] += 1
    s.scan[Scan.PLACES] = 0
    seq = int64(s.scan[Scan.SEQ])
    rename_oldest(s, cohort_of(OLDEST, seq), cohort_of(OLDEST - RENAMED_BY, seq))
    s.cohorts[0, MERGED] = IS_MERGED
    s.cohorts[0, JOINED] = IS_MERGED
    for cohort in range(IN_LINE, s.cohorts.shape[1]):
        s.cohorts[0, cohort] = 0 if s.scan[Scan.LINES_SEQ] == 0 else IS_JOIN
    s.cohorts[0, SEARCHING] = IS_VISIT | WAS_UNSTABLE
    for cohort in range(FIRST_COHORT, FIRST_COHORT + N_COHORTS):
        calls = calls_after(cohort, seq)
        if calls < 2:
            s.cohorts[0, cohort] = 0  # its pages begin their rest in this scan, and are in no tree yet
            continue
        phase = IS_VISIT if VISITS[calls] else IS_SKIP
        if calls >= 3 and VISITS[calls - 1]:
            phase |= WAS_UNSTABLE
        s.cohorts[0, cohort] = phase


@kernel
def end_passes(s):
    """Scan SEQ is over: its place in the calendar is needed again, and that of the scan before in `gated`.

    Writes: calendar, gated.
    """
    slot = s.scan[Scan.SEQ] % SCANS_AHEAD
    row = (s.scan[Scan.SEQ] - 1) & 1
    for word in range(s.calendar.shape[1]):
        s.calendar[slot, word] = 0
        s.gated[row, word] = 0
