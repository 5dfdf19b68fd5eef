"""Where ksmd's cursor is, as seen from a page: which scan has passed it last, and which have to visit it.

It moves nothing, that is `ksmd`'s business, but it keeps the calendar of visits.
"""

import numpy as np
from numpy import int64

from ksmbatch.accel import inlined, kernel
from ksmbatch.metrics import Counter
from ksmbatch.state import END_PAGE, FIRST_PAGE, NO_MM, PAGES_PER_WORD, PASSED, SCANS_AHEAD, Scan


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
def is_in_progress(s):
    """Whether scan SEQ has not ended yet. Reads: scan."""
    return s.scan[Scan.CUR_MM] != NO_MM


@inlined
def parity_of(s, seq):
    """What FULL_SCANS & 1 was while scan `seq` ran. Reads: counters, scan."""
    ago = s.scan[Scan.SEQ] - seq + (0 if is_in_progress(s) else 1)
    return (s.counters[Counter.FULL_SCANS] - ago) & 1


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
