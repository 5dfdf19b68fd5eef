"""Writes to pages at rest: most end no rest, for it is known what ksmd's next visit will come to.

It finds that the checksum has changed, and looks for nobody. If only this page ever holds the new content, that is all, and the
page goes on resting (`cohorts.is_changed`); if others may, it rests until the visit after that, if the calendar goes so far.
See docs/adr/0011.
"""

import numpy as np
from numpy import int64

from ksmbatch.accel import kernel
from ksmbatch.kernels.cohorts import (
    FIRST_COHORT,
    IN_LINE,
    N_COHORTS,
    NEXT_VISIT,
    SEARCHING,
    calls_after,
    forget_change,
    gate_comes_first,
    is_changed,
    is_stopped_by_gate,
    note_changed,
)
from ksmbatch.kernels.cursor import last_pass, make_due
from ksmbatch.kernels.line_ends import leave_line, note_leader_write
from ksmbatch.kernels.looking import watch
from ksmbatch.kernels.resting import wake
from ksmbatch.state import CHECKSUM, ITEM_NID, RESTING, SCANS_AHEAD, Scan


def _second_visit() -> np.ndarray:
    """int64[N_COHORTS]: calls from n to the visit after the next one; to the next one if the calendar does not go so far."""
    first = np.arange(int(N_COHORTS)) + NEXT_VISIT
    second = NEXT_VISIT + NEXT_VISIT[np.minimum(first, int(N_COHORTS) - 1)]  # of the last calls it is too far away anyhow
    return np.where(second < int(SCANS_AHEAD), second, NEXT_VISIT)


SECOND_VISIT = _second_visit()


@kernel
def change(s, page, old, content):
    """`page`, mapped by nobody else and no KSM page, is about to get `content` in the place of `old`, another one.

    If it is at rest its next visit is left to arithmetic or made due, or it is woken.
    Writes: pages, by_content, changed, calendar, watch, and as wake().
    """
    cohort = int64(s.cohort[page])
    if cohort == 0:
        if s.scan[Scan.LINES_SEQ] == s.scan[Scan.SEQ]:
            note_leader_write(s, page)
        return
    if cohort >= IN_LINE:
        leave_line(s, page)
        return
    if cohort < SEARCHING:
        wake(s, page)
        return
    nid = int64(s.page_bytes[page, ITEM_NID])
    if old < s.by_content.shape[1] and s.by_content[nid, old, RESTING] == page + 1:
        s.by_content[nid, old, RESTING] = 0
    if not is_changed(s, page):
        s.pages[page, CHECKSUM] = old
        note_changed(s, page)
    if is_stopped_by_gate(s, content):
        if s.pages[page, CHECKSUM] == content:
            forget_change(s, page)
        watch(s, page, nid, content)
        return
    is_stopped = gate_comes_first(s) and s.pages[page, CHECKSUM] != content
    seq = last_pass(s, page)
    if cohort >= FIRST_COHORT:
        calls = calls_after(cohort, seq)
        make_due(s, page, seq + (SECOND_VISIT[calls] if is_stopped else NEXT_VISIT[calls]))
    elif is_stopped:
        make_due(s, page, seq + 2)
    else:
        wake(s, page)
