"""Pages at rest: those whose next passes only move counters, so that ksmd passes them by arithmetic, a block at a time.

A page at rest belongs to a cohort. Those of one cohort are passed alike in every scan: they are KSM pages in their place
(MERGED), or pages that search for a partner in vain in every scan (SEARCHING), or in those that smart_scan leaves them; these
are told apart by the scan since which should_skip_rmap_item() was asked about them, since age and remaining_skips depend on
nothing but how often that was. A page that must be visited is awake, or at rest until the scan for which the calendar has
it: one that was written, say, need not be seen before smart_scan stops passing it by.

Whoever changes what a page maps, or what can be found for it, wakes it. Who may rest is `retire`'s decision. See docs/adr/0009.
"""

import numpy as np
from numpy import int64

from ksmbatch.accel import entry_kernel, inlined, kernel, prefetch
from ksmbatch.metrics import Counter
from ksmbatch.state import (
    AGE,
    CHECKSUM,
    END_PAGE,
    FIRST_PAGE,
    ITEM_FLAGS,
    ITEM_NID,
    NO_MM,
    PAGES_PER_BLOCK,
    PAGES_PER_WORD,
    PARITY,
    PASSED,
    RESTING,
    SCANS_AHEAD,
    SKIPS,
    UNSTABLE,
    UNSTABLE_AT,
    WATCHED,
    Knob,
    Scan,
)

# cohorts: 0 is awake
MERGED, SEARCHING, FIRST_COHORT = int64(1), int64(2), int64(3)
N_COHORTS = int64(252)  # of smart_scan, from FIRST_COHORT on; a multiple of its period of 9
# row 0 of `cohorts`: what the pass of a page in this scan is
IS_MERGED, IS_VISIT, IS_SKIP, WAS_UNSTABLE = int64(1), int64(2), int64(4), int64(8)
PERIOD, SATURATED = int64(9), int64(14)  # from call 14 on smart_scan lets a page be visited every 9th time
OLDEST = int64(243)  # calls after which a cohort is renamed to one as many periods younger as there are
RENAMED_BY = int64(225)


def _visits() -> np.ndarray:
    """bool[N_COHORTS + SCANS_AHEAD]: whether call n of should_skip_rmap_item() lets a page be visited. Mirrors: skip_age()."""
    visits = np.zeros(int(N_COHORTS + SCANS_AHEAD), np.bool_)
    visits[[1, 2, 3, 4, 6, 9]] = True
    visits[int(SATURATED) :: int(PERIOD)] = True
    return visits


VISITS = _visits()
NEXT_VISIT = np.array([1 + int(VISITS[n + 1 :].argmax()) for n in range(int(N_COHORTS))], np.int64)  # calls from n to it
SKIPS_LEFT = np.where(np.arange(int(N_COHORTS)) < 4, 0, NEXT_VISIT - 1)  # remaining_skips after call n

BIT_OF = np.zeros(32, np.int64)
BIT_OF[[(0x077CB531 << bit & 0xFFFFFFFF) >> 27 for bit in range(32)]] = np.arange(32)


@inlined
def calls_of(age, skips):
    """How often should_skip_rmap_item() has been asked, up to whole periods. Mirrors: its effect on age, remaining_skips."""
    if age < SATURATED:
        return age
    return SATURATED + PERIOD - 1 - skips


@inlined
def calls_after(cohort, seq):
    """As calls_of(), of a page of `cohort` that scan `seq` has passed."""
    return (seq - cohort + FIRST_COHORT + N_COHORTS) % N_COHORTS


@inlined
def cohort_of(calls, seq):
    """The cohort of a page that scan `seq` has passed, and that was asked about for the `calls`th time there."""
    return FIRST_COHORT + (seq - calls + N_COHORTS) % N_COHORTS


@kernel
def mm_of(s, page):
    """The mm to which virtual page `page` belongs. Reads: mms (FIRST_PAGE ascending). Writes: scan."""
    low = int64(s.scan[Scan.LAST_MM])  # mostly the same as for the page before
    if s.mms[low, FIRST_PAGE] <= page < s.mms[low, END_PAGE]:
        return low
    low = int64(0)
    high = len(s.mms) - 1
    while low < high:
        middle = (low + high + 1) // 2
        if s.mms[middle, FIRST_PAGE] <= page:
            low = middle
        else:
            high = middle - 1
    s.scan[Scan.LAST_MM] = low
    return low


@inlined
def last_pass(s, page):
    """The scan that passed `page` last, or would have, if there was anything to pass. Reads: mms, scan."""
    mm = int64(s.scan[Scan.CUR_MM])
    if mm != NO_MM and s.mms[mm, FIRST_PAGE] <= page < s.mms[mm, END_PAGE]:
        return int64(s.mms[mm, PASSED]) - int64(page >= s.scan[Scan.CUR_PAGE])
    return int64(s.mms[mm_of(s, page), PASSED])


@inlined
def lowest_bit(bits):
    """The number of the lowest bit that is set in `bits`, of 32. Source: Leiserson and others, de Bruijn sequences."""
    return BIT_OF[((bits & -bits) * 0x077CB531 & 0xFFFFFFFF) >> 27]


@inlined
def prefetch_page(s, page):
    """Asks the CPU for what is kept of `page` itself, by its number."""
    prefetch(s.pages, page)
    prefetch(s.cohort, page)


@inlined
def is_due(s, page, seq):
    """Whether scan `seq` visits `page`. Reads: calendar."""
    return (int64(s.calendar[seq % SCANS_AHEAD, page // PAGES_PER_WORD]) >> (page % PAGES_PER_WORD)) & 1


@inlined
def make_due(s, page, seq):
    """Scan `seq` shall visit `page`. Writes: calendar."""
    s.calendar[seq % SCANS_AHEAD, page // PAGES_PER_WORD] |= np.uint32(1 << (page % PAGES_PER_WORD))


@inlined
def make_undue(s, page, seq):
    """Scan `seq` need not visit `page`. Writes: calendar."""
    s.calendar[seq % SCANS_AHEAD, page // PAGES_PER_WORD] &= np.uint32(0xFFFFFFFF ^ (1 << (page % PAGES_PER_WORD)))


@inlined
def is_gated(s, page, seq):
    """Whether `page`, at rest, was visited in scan `seq`, the present or the last one, and put in no tree. Reads: gated."""
    return (int64(s.gated[seq & 1, page // PAGES_PER_WORD]) >> (page % PAGES_PER_WORD)) & 1


@inlined
def gate(s, page):
    """`page`, which begins a rest, was visited in this scan, and put in no tree: its checksum had changed. Writes: gated."""
    s.gated[s.scan[Scan.SEQ] & 1, page // PAGES_PER_WORD] |= np.uint32(1 << (page % PAGES_PER_WORD))


@inlined
def pass_of(s, page):
    """What the pass of `page`, at rest, comes to in this scan, as in row 0 of `cohorts`. Reads: cohort, cohorts, gated."""
    phase = int64(s.cohorts[0, s.cohort[page]])
    if phase & WAS_UNSTABLE and is_gated(s, page, s.scan[Scan.SEQ] - 1):
        phase -= WAS_UNSTABLE
    return phase


@inlined
def rest(s, page, cohort):
    """`page`, which is awake, rests in `cohort` from now on. Writes: cohort, cohorts."""
    s.cohort[page] = cohort
    s.cohorts[1 + page // PAGES_PER_BLOCK, cohort] += 1


@inlined
def is_in_progress(s):
    """Whether scan SEQ has not ended yet. Reads: scan."""
    return s.scan[Scan.CUR_MM] != NO_MM


@inlined
def parity_of(s, seq):
    """What FULL_SCANS & 1 was while scan `seq` ran. Reads: counters, scan."""
    ago = s.scan[Scan.SEQ] - seq + (0 if is_in_progress(s) else 1)
    return (s.counters[Counter.FULL_SCANS] - ago) & 1


@kernel
def show(s, page, seq):
    """Writes to the rmap_item of `page`, which is at rest and was passed last by scan `seq`, what its passes came to.

    Mirrors: what should_skip_rmap_item() and cmp_and_merge_page() leave in an rmap_item
    Writes: page_bytes.
    """
    cohort = int64(s.cohort[page])
    unstable = cohort == SEARCHING
    if cohort >= FIRST_COHORT:
        calls = calls_after(cohort, seq)
        s.page_bytes[page, AGE] = calls if calls < SATURATED else SATURATED + (calls - SATURATED) % PERIOD
        s.page_bytes[page, SKIPS] = SKIPS_LEFT[calls]
        unstable = VISITS[calls] and calls >= 2
    if cohort == MERGED:
        return
    flags = int64(s.page_bytes[page, ITEM_FLAGS])
    if unstable and not is_gated(s, page, seq):
        flags |= UNSTABLE
        flags = flags | PARITY if parity_of(s, seq) else flags & ~PARITY
    else:
        flags &= ~UNSTABLE
    s.page_bytes[page, ITEM_FLAGS] = flags


@kernel
def rouse(s, page, seq):
    """`page`, which is at rest and was passed last by scan `seq`, is awake; the caller sees to the calendar.

    Writes: page_bytes, by_content, cohort, cohorts, gated.
    """
    show(s, page, seq)
    cohort = int64(s.cohort[page])
    s.cohorts[1 + page // PAGES_PER_BLOCK, cohort] -= 1
    s.cohort[page] = 0
    s.gated[seq & 1, page // PAGES_PER_WORD] &= np.uint32(0xFFFFFFFF ^ (1 << (page % PAGES_PER_WORD)))
    content = int64(s.pages[page, CHECKSUM])
    if cohort == MERGED or not 0 <= content < s.by_content.shape[1]:
        return
    nid = int64(s.page_bytes[page, ITEM_NID])
    if s.by_content[nid, content, RESTING] == page + 1:
        s.by_content[nid, content, RESTING] = 0
        if s.page_bytes[page, ITEM_FLAGS] & UNSTABLE and seq == s.scan[Scan.SEQ]:
            s.by_content[nid, content, UNSTABLE_AT] = page + 1


@kernel
def wake(s, page):
    """`page` shall be visited when ksmd comes to it next: to be called before anything changes that a visit looks at.

    Writes: page_bytes, by_content, cohort, cohorts, calendar, scan, and as pass_by().
    """
    seq = last_pass(s, page)
    cohort = int64(s.cohort[page])
    if cohort != 0:
        if s.scan[Scan.PASSED_TO] <= page < s.scan[Scan.REGION_END]:
            if page >= s.scan[Scan.CUR_PAGE]:
                expect(s, pass_of(s, page), int64(-1))
            else:
                catch_up(s)
        rouse(s, page, seq)
    make_due(s, page, seq + 1)
    if s.scan[Scan.CUR_PAGE] <= page < s.scan[Scan.REGION_END]:
        s.scan[Scan.NEWLY_DUE] = 1


@kernel
def change(s, page):
    """`page`, which is mapped by nobody else and no KSM page, is about to get another content: it is visited at its next visit.

    Writes: as wake().
    """
    cohort = int64(s.cohort[page])
    if cohort == 0:
        return
    if cohort < FIRST_COHORT:
        wake(s, page)
        return
    seq = last_pass(s, page)
    make_due(s, page, seq + NEXT_VISIT[calls_after(cohort, seq)])
    content = int64(s.pages[page, CHECKSUM])
    if 0 <= content < s.by_content.shape[1]:
        nid = int64(s.page_bytes[page, ITEM_NID])
        if s.by_content[nid, content, RESTING] == page + 1:
            s.by_content[nid, content, RESTING] = 0


# ---- passing


@inlined
def expect(s, phase, by):
    """A page of the open region whose pass in this scan is `phase` is one of those to be counted (1), or no more (-1)."""
    s.scan[Scan.PENDING_MERGED] += by * (phase & IS_MERGED)
    s.scan[Scan.PENDING_VISITS] += by * ((phase & IS_VISIT) // IS_VISIT)
    s.scan[Scan.PENDING_SKIPS] += by * ((phase & IS_SKIP) // IS_SKIP)
    s.scan[Scan.PENDING_WAS] += by * ((phase & WAS_UNSTABLE) // WAS_UNSTABLE)


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
def pass_by(s, merged, visits, skips, was):
    """Passes of pages at rest: KSM pages in place, visits, skips; `was`: how many of those were in the unstable tree.

    Mirrors: mm/ksm.c cmp_and_merge_page() where it finds nobody, should_skip_rmap_item()
    Writes: counters, scan.
    """
    s.counters[Counter.PAGES_SCANNED] += merged + visits
    s.counters[Counter.PAGES_SKIPPED] += skips
    s.counters[Counter.PAGES_UNSHARED] += visits - was
    s.counters[Counter.TREE_SEARCHES] += visits
    cost = merged * s.knobs[Knob.KSM_VISIT_NS] + visits * s.knobs[Knob.SEARCH_NS] + skips * s.knobs[Knob.SKIP_NS]
    s.counters[Counter.KSMD_CPU_NS] += cost
    s.counters[Counter.TIME_NS] += cost
    if s.scan[Scan.CAREFUL]:
        s.scan[Scan.BUDGET] -= merged + visits
    else:
        take_budget(s, merged + visits)


@kernel
def pass_pending(s):
    """All pages at rest that are left of the open region are passed. Writes: as pass_by()."""
    pass_by(
        s,
        int64(s.scan[Scan.PENDING_MERGED]),
        int64(s.scan[Scan.PENDING_VISITS]),
        int64(s.scan[Scan.PENDING_SKIPS]),
        int64(s.scan[Scan.PENDING_WAS]),
    )
    s.scan[Scan.PASSED_TO] = s.scan[Scan.REGION_END]


@kernel
def catch_up(s):
    """Brings time and counters to where the cursor is: the pages at rest before the page under visit are passed.

    Writes: as pass_by().
    """
    first = int64(s.scan[Scan.PASSED_TO])
    end = int64(s.scan[Scan.CUR_PAGE]) - 1
    if s.scan[Scan.REGION_END] == 0 or end <= first:
        return
    seq = int64(s.scan[Scan.SEQ])
    merged = int64(0)
    visits = int64(0)
    skips = int64(0)
    was = int64(0)
    for page in range(first, end):
        if s.cohort[page] != 0 and not is_due(s, page, seq):  # what was visited just now has been counted
            phase = pass_of(s, page)
            merged += phase & IS_MERGED
            visits += (phase & IS_VISIT) // IS_VISIT
            skips += (phase & IS_SKIP) // IS_SKIP
            was += (phase & WAS_UNSTABLE) // WAS_UNSTABLE
    s.scan[Scan.PENDING_MERGED] -= merged
    s.scan[Scan.PENDING_VISITS] -= visits
    s.scan[Scan.PENDING_SKIPS] -= skips
    s.scan[Scan.PENDING_WAS] -= was
    s.scan[Scan.PASSED_TO] = end
    pass_by(s, merged, visits, skips, was)


@inlined
def count_gated(s, first, end):
    """How many pages at rest of [first, end), which are whole words, are in no tree though their cohort is. Reads: gated."""
    row = (s.scan[Scan.SEQ] - 1) & 1
    found = int64(0)
    for word in range(first // PAGES_PER_WORD, end // PAGES_PER_WORD):
        bits = int64(s.gated[row, word])
        while bits:
            page = word * PAGES_PER_WORD + lowest_bit(bits)
            bits &= bits - 1
            found += (int64(s.cohorts[0, s.cohort[page]]) & WAS_UNSTABLE) // WAS_UNSTABLE
    return found


@kernel
def expected_passes(s, first, end):
    """What passing the pages at rest of [first, end), all of one block, comes to in this scan; no page there may be due.

    Reads: cohort, cohorts, gated. Returns: KSM pages in place, visits, skips; how many of those were in the unstable tree.
    """
    merged = int64(0)
    visits = int64(0)
    skips = int64(0)
    was = int64(0)
    if end - first == PAGES_PER_BLOCK:
        block = 1 + first // PAGES_PER_BLOCK
        merged = int64(s.cohorts[block, MERGED])
        for cohort in range(s.cohorts.shape[1]):
            n_pages = int64(s.cohorts[block, cohort])
            phase = int64(s.cohorts[0, cohort])
            visits += n_pages * ((phase >> 1) & 1)
            skips += n_pages * ((phase >> 2) & 1)
            was += n_pages * ((phase >> 3) & 1)
        return merged, visits, skips, was - count_gated(s, first, end)
    for page in range(first, end):
        phase = pass_of(s, page)
        merged += phase & IS_MERGED
        visits += (phase & IS_VISIT) // IS_VISIT
        skips += (phase & IS_SKIP) // IS_SKIP
        was += (phase & WAS_UNSTABLE) // WAS_UNSTABLE
    return merged, visits, skips, was


# ---- scans


@kernel
def begin_passes(s):
    """A new scan: what its passes come to, per cohort. Writes: scan, cohorts, cohort."""
    s.scan[Scan.SEQ] += 1
    s.scan[Scan.PLACES] = 0
    seq = int64(s.scan[Scan.SEQ])
    rename_oldest(s, cohort_of(OLDEST, seq), cohort_of(OLDEST - RENAMED_BY, seq))
    s.cohorts[0, MERGED] = IS_MERGED
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
def rename_oldest(s, old, new):
    """The pages of cohort `old` are of cohort `new` now, which differs by whole periods. Writes: cohort, cohorts."""
    for block in range(1, len(s.cohorts)):
        if s.cohorts[block, old] == 0:
            continue
        s.cohorts[block, new] += s.cohorts[block, old]
        s.cohorts[block, old] = 0
        first = (block - 1) * PAGES_PER_BLOCK
        for page in range(first, min(first + PAGES_PER_BLOCK, len(s.pages))):
            if s.cohort[page] == old:
                s.cohort[page] = new


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


@entry_kernel
def wake_all(s):
    """Every page is visited when ksmd comes to it next. Writes: as wake(), trees."""
    for nid in range(s.trees.shape[1]):
        s.trees[WATCHED, nid] = 0
    for page in range(len(s.pages)):
        if s.cohort[page] != 0:
            rouse(s, page, last_pass(s, page))
    seq = int64(s.scan[Scan.SEQ])
    for word in range(s.calendar.shape[1]):
        s.calendar[(seq + 1) % SCANS_AHEAD, word] = 0xFFFFFFFF
        if is_in_progress(s):
            s.calendar[seq % SCANS_AHEAD, word] = 0xFFFFFFFF


@kernel
def forget_passes(s):
    """The scan in progress is broken off, and the next one will visit every page. Writes: as wake_all(), mms, scan."""
    for mm in range(len(s.mms)):
        s.mms[mm, PASSED] = s.scan[Scan.SEQ]
    s.scan[Scan.PLACES] = 0
    wake_all(s)
    end_passes(s)


@entry_kernel
def wake_pages(s, pages):
    """As wake(), for all of `pages` (int64[n])."""
    for k in range(len(pages)):
        wake(s, int64(pages[k]))


@entry_kernel
def show_all(s):
    """Writes to all rmap_items of pages at rest what they would say if each had been visited. Writes: page_bytes."""
    for page in range(len(s.pages)):
        if s.cohort[page] != 0:
            show(s, page, last_pass(s, page))
