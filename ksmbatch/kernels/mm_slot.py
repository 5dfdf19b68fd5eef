"""The list of mms that ksmd scans: who stands where, and what registering and exiting do to it.

It moves mms about; it never looks at their pages.
"""

from numpy import int64

from ksmbatch.accel import entry_kernel, kernel
from ksmbatch.codes import Run
from ksmbatch.kernels.resting import wake
from ksmbatch.state import (
    END_PAGE,
    FIRST_PAGE,
    FRAME,
    LIST_ITEMS,
    NO_FRAME,
    NO_MM,
    PASSED,
    REGISTERED,
    SLOT_NEXT,
    SLOT_PREV,
    USERS,
    Knob,
    Scan,
)


@kernel
def link_slot(s, mm, before):
    """Puts `mm` before `before` (NO_MM: at the end). Writes: mms, scan."""
    if before == NO_MM:
        after = NO_MM
        previous = int64(s.scan[Scan.SLOT_LAST])
        s.scan[Scan.SLOT_LAST] = mm
    else:
        after = before
        previous = int64(s.mms[before, SLOT_PREV])
        s.mms[before, SLOT_PREV] = mm
    s.mms[mm, SLOT_NEXT] = after
    s.mms[mm, SLOT_PREV] = previous
    if previous == NO_MM:
        s.scan[Scan.SLOT_FIRST] = mm
    else:
        s.mms[previous, SLOT_NEXT] = mm


@kernel
def unlink_slot(s, mm):
    """Takes `mm` out. Writes: mms, scan."""
    after = int64(s.mms[mm, SLOT_NEXT])
    previous = int64(s.mms[mm, SLOT_PREV])
    if previous == NO_MM:
        s.scan[Scan.SLOT_FIRST] = after
    else:
        s.mms[previous, SLOT_NEXT] = after
    if after == NO_MM:
        s.scan[Scan.SLOT_LAST] = previous
    else:
        s.mms[after, SLOT_PREV] = previous


@entry_kernel
def ksm_enter(s, mm):
    """Registers `mm`: last in the running scan, that is just before the cursor.

    Mirrors: mm/ksm.c __ksm_enter()
    Writes: mms, scan, and as wake().
    """
    cursor = int64(s.scan[Scan.CUR_MM])
    link_slot(s, mm, NO_MM if s.knobs[Knob.RUN] == Run.UNMERGE else cursor)
    s.mms[mm, REGISTERED] = 1
    s.mms[mm, PASSED] = s.scan[Scan.SEQ]
    for page in range(s.mms[mm, FIRST_PAGE], s.mms[mm, END_PAGE]):
        if s.pages[page, FRAME] != NO_FRAME:
            wake(s, page)


@entry_kernel
def ksm_exit(s, mm):
    """`mm` dies: its rmap_items, if it has any, are left for ksmd, just behind the cursor.

    Mirrors: mm/ksm.c __ksm_exit()
    Writes: mms, scan.
    """
    s.mms[mm, USERS] = 0
    cursor = int64(s.scan[Scan.CUR_MM])
    if not s.mms[mm, REGISTERED] or mm == cursor:
        return
    unlink_slot(s, mm)
    if s.mms[mm, LIST_ITEMS] == 0:
        s.mms[mm, REGISTERED] = 0
        return
    behind = int64(s.scan[Scan.SLOT_FIRST]) if cursor == NO_MM else int64(s.mms[cursor, SLOT_NEXT])
    link_slot(s, mm, behind)
