"""Writing the files of /sys/kernel/mm/ksm: ranges, errnos, and what some of them do at once.

It does not scan: run = 1 only allows the machine to.
"""

from __future__ import annotations

from collections.abc import Callable

from .memory import break_ksm
from .stable import remove_all_stable_nodes
from .state import Ksm
from .unstable import remove_trailing_rmap_items

KSM_RUN_UNMERGE = 2
INT_MAX, UINT_MAX, ULONG_MAX = 2**31 - 1, 2**32 - 1, 2**64 - 1

Errno = str | int


def write_knob(ksm: Ksm, name: str, value: int) -> Errno:
    """0, or the name of the error."""
    if name not in (*ksm.kernel.sysfs_fields, "pages_to_scan", "run"):
        return "ENOENT"
    return _STORES[name](ksm, value)


def _merge_across_nodes_store(ksm: Ksm, knob: int) -> Errno:
    if knob > ULONG_MAX:
        return "ERANGE"
    if not 0 <= knob <= 1:
        return "EINVAL"
    if ksm.merge_across_nodes != knob:
        if ksm.pages_shared or not remove_all_stable_nodes(ksm):
            return "EBUSY"
        if ksm.scan.mm_slot is not None:
            ksm.events["merge_across_nodes switched in mid-scan"] += 1
        ksm.merge_across_nodes = knob  # the unstable trees stay as they are
    return 0


def _max_page_sharing_store(ksm: Ksm, knob: int) -> Errno:
    if not -INT_MAX - 1 <= knob <= INT_MAX:
        return "ERANGE"
    if knob < 2:
        return "EINVAL"
    if ksm.max_page_sharing != knob:
        if ksm.pages_shared or not remove_all_stable_nodes(ksm):
            return "EBUSY"
        ksm.max_page_sharing = knob
    return 0


def _use_zero_pages_store(ksm: Ksm, value: int) -> Errno:
    parsed = _kstrtobool(value)
    if parsed is None:
        return "EINVAL"
    ksm.use_zero_pages = parsed
    return 0


def _smart_scan_store(ksm: Ksm, value: int) -> Errno:
    parsed = _kstrtobool(value)
    if parsed is None:
        return "EINVAL"
    ksm.smart_scan = parsed
    return 0


def _prune_millisecs_store(ksm: Ksm, milliseconds: int) -> Errno:
    if not 0 <= milliseconds <= UINT_MAX:
        return "EINVAL"
    ksm.stable_node_chains_prune_millisecs = milliseconds
    return 0


def _pages_to_scan_store(ksm: Ksm, pages: int) -> Errno:
    # the recorder writes it only for the length of a batch, and ignores the error
    ksm.pages_to_scan = pages if 0 <= pages <= UINT_MAX else 0
    return 0


def run_store(ksm: Ksm, flags: int) -> Errno:
    """2 unmerges, unless it is 2 already."""
    if not 0 <= flags <= KSM_RUN_UNMERGE:
        return "EINVAL"
    if ksm.run != flags:
        ksm.run = flags
        if flags == KSM_RUN_UNMERGE:
            unmerge_and_remove_all_rmap_items(ksm)
    return 0


def unmerge_and_remove_all_rmap_items(ksm: Ksm) -> None:
    """Every KSM page is copied back, every rmap_item freed; registered mms stay, full_scans begins anew."""
    for mm_slot in list(ksm.mm_slots):
        mm = mm_slot.mm
        for vma in mm.vmas if mm.mm_users else []:
            if vma.flags.mergeable and vma.anon_vma is not None:
                for address in range(vma.start, vma.end):
                    break_ksm(ksm, vma, address)
        remove_trailing_rmap_items(ksm, mm_slot, 0)
        if not mm.mm_users:
            ksm.mm_slots.remove(mm_slot)
    ksm.scan.mm_slot = None
    if not remove_all_stable_nodes(ksm):
        ksm.events["KSM pages survived run = 2"] += 1
    ksm.scan.seqnr = 0


def _kstrtobool(value: int) -> int | None:
    return {"0": 0, "1": 1}.get(str(value)[0])


_STORES: dict[str, Callable[[Ksm, int], Errno]] = {
    "merge_across_nodes": _merge_across_nodes_store,
    "max_page_sharing": _max_page_sharing_store,
    "use_zero_pages": _use_zero_pages_store,
    "smart_scan": _smart_scan_store,
    "stable_node_chains_prune_millisecs": _prune_millisecs_store,
    "pages_to_scan": _pages_to_scan_store,
    "run": run_store,
}
