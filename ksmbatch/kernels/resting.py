"""Pages at rest: those whose next passes only move counters, so that ksmd passes them by arithmetic, a block at a time.

A page at rest belongs to a cohort (see `cohorts`), and what passing them comes to is added up (see `passing`). A page that must
be visited is awake, or at rest until the scan for which the calendar (see `cursor`) has it: one that was written, say, need not
be seen before smart_scan stops passing it by.

Whoever changes what a page maps, or what can be found for it, wakes it. Who may rest is `retire`'s decision. See docs/adr/0009.
"""

import numpy as np
from numpy import int64

from ksmbatch.accel import entry_kernel, inlined, kernel
from ksmbatch.kernels.cohorts import (
    FIRST_COHORT,
    IN_LINE,
    JOINED,
    MERGED,
    PERIOD,
    SATURATED,
    SEARCHING,
    SKIPS_LEFT,
    VISITS,
    calls_after,
    forget_change,
    is_gated,
    last_checksum,
    pass_of,
)
from ksmbatch.kernels.cursor import is_in_progress, last_pass, make_due, parity_of
from ksmbatch.kernels.passing import catch_up, end_passes, expect
from ksmbatch.state import (
    AGE,
    CHECKSUM,
    FRAME,
    HEAD,
    ITEM_FLAGS,
    ITEM_NID,
    KPFN,
    MAPCOUNT,
    MEMBER_NODE,
    PAGES_PER_BLOCK,
    PAGES_PER_WORD,
    PARITY,
    PASSED,
    RESTING,
    SCANS_AHEAD,
    SKIPS,
    STABLE,
    UNSTABLE,
    UNSTABLE_AT,
    WATCHED,
    Knob,
    Scan,
)


@inlined
def rest(s, page, cohort):
    """`page`, which is awake, rests in `cohort` from now on. Writes: cohort, cohorts."""
    s.cohort[page] = cohort
    s.cohorts[1 + page // PAGES_PER_BLOCK, cohort] += 1


@kernel
def write_joined(s, page):
    """Writes to the row of `page`, which joined a stable node when it was passed in line, what came of it: it is MERGED.

    Mirrors: what should_skip_rmap_item() and cmp_and_merge_page() leave, when it was looked at for the second time
    Writes: pages, page_bytes, frames, cohort, cohorts, scan.
    """
    s.cohort[page] = MERGED
    s.cohorts[1 + page // PAGES_PER_BLOCK, JOINED] -= 1
    s.cohorts[1 + page // PAGES_PER_BLOCK, MERGED] += 1
    s.scan[Scan.N_JOINED] -= 1
    s.frames[page, MAPCOUNT] = 0
    s.pages[page, FRAME] = s.nodes[s.members[s.pages[page, HEAD], MEMBER_NODE], KPFN]
    s.page_bytes[page, ITEM_FLAGS] |= STABLE
    s.page_bytes[page, AGE] += s.knobs[Knob.SMART_SCAN]


@entry_kernel
def write_all_joined(s):
    """No page is JOINED any more. Writes: as write_joined()."""
    if s.scan[Scan.N_JOINED] == 0:
        return
    for block in range(len(s.cohorts) - 1):
        if s.cohorts[1 + block, JOINED] != 0:
            for page in range(block * PAGES_PER_BLOCK, min((block + 1) * PAGES_PER_BLOCK, len(s.pages))):
                if s.cohort[page] == JOINED:
                    write_joined(s, page)


@kernel
def show(s, page, seq):
    """Writes to the rmap_item of `page`, which is at rest and was passed last by scan `seq`, what its passes came to.

    Mirrors: what should_skip_rmap_item() and cmp_and_merge_page() leave in an rmap_item
    Writes: pages, page_bytes.
    """
    if s.cohort[page] == JOINED:
        write_joined(s, page)
    cohort = int64(s.cohort[page])
    if cohort == MERGED or cohort >= IN_LINE:
        return
    unstable = cohort == SEARCHING
    if cohort >= FIRST_COHORT:
        calls = calls_after(cohort, seq)
        s.page_bytes[page, AGE] = calls if calls < SATURATED else SATURATED + (calls - SATURATED) % PERIOD
        s.page_bytes[page, SKIPS] = SKIPS_LEFT[calls]
        unstable = VISITS[calls] and calls >= 2
    s.pages[page, CHECKSUM] = last_checksum(s, page)
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

    Writes: pages, page_bytes, by_content, cohort, cohorts, gated, changed.
    """
    show(s, page, seq)
    forget_change(s, page)
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
def show_all(s):
    """Writes to all rmap_items of pages at rest what they would say if each had been visited. Writes: page_bytes."""
    for page in range(len(s.pages)):
        if s.cohort[page] != 0:
            show(s, page, last_pass(s, page))
