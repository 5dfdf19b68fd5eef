"""Writes to pages at rest: most end no rest, for it is known what ksmd's next visit will come to.

It finds that the checksum has changed, and looks for nobody. If only this page ever holds the new content, that is all, and the
page goes on resting (`cohorts.is_changed`); if others may, it is visited, when smart_scan lets it be. See docs/adr/0011.
"""

from numpy import int64

from ksmbatch.accel import kernel
from ksmbatch.kernels.cohorts import (
    FIRST_COHORT,
    IN_LINE,
    NEXT_VISIT,
    SEARCHING,
    calls_after,
    forget_change,
    is_changed,
    is_stopped_by_gate,
    note_changed,
)
from ksmbatch.kernels.cursor import last_pass, make_due
from ksmbatch.kernels.lines import leave_line
from ksmbatch.kernels.looking import watch
from ksmbatch.kernels.resting import wake
from ksmbatch.state import CHECKSUM, ITEM_NID, RESTING


@kernel
def change(s, page, old, content):
    """`page`, mapped by nobody else and no KSM page, is about to get `content` in the place of `old`, another one.

    If it is at rest its next visit is left to arithmetic or made due, or it is woken.
    Writes: pages, by_content, changed, calendar, watch, and as wake().
    """
    cohort = int64(s.cohort[page])
    if cohort == 0:
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
    elif cohort < FIRST_COHORT:
        wake(s, page)
    else:
        seq = last_pass(s, page)
        make_due(s, page, seq + NEXT_VISIT[calls_after(cohort, seq)])
