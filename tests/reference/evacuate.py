"""Emptying memory: all of a NUMA node (mm/memory_hotplug.c), or a range of page frames within one (mm/compaction.c,
alloc_contig_range() of mm/page_alloc.c).

A page that cannot move stays where it is, and the others have moved all the same. Which pages may is `migrate`'s business.
"""

from __future__ import annotations

from .memory import Frame
from .migrate import is_refused, is_stuck, migrate_folio, replace_folio
from .numa import nearest_with_room
from .stable import ksm_check_stable_tree
from .state import Ksm


def offline_pages(ksm: Ksm, nid: int) -> str | int:
    """Memory hotremove of a whole node. Returns an errno; "EBUSY": some page stayed, and the node is online again."""
    node = ksm.nodes[nid]
    if not node.online:
        return "EINVAL"
    node.online = False
    ksm.counted["offline_tried"] += 1
    for _, folio in sorted(node.frames.items()):
        _hotremove(ksm, folio)
    if node.frames:
        ksm.counted["offline_missed"] += 1
        node.online = True
        return "EBUSY"
    ksm_check_stable_tree(ksm, nid)
    return 0


def _hotremove(ksm: Ksm, folio: Frame) -> None:
    if is_refused(ksm, folio, "hotremove"):
        return
    nid = nearest_with_room(ksm.nodes, folio.nid)
    if nid is None:
        ksm.counted["migrate_failures"] += 1
    else:
        migrate_folio(ksm, folio, nid)


def alloc_contig_range(ksm: Ksm, nid: int, pfns: range, caller: str) -> str | int:
    """`caller` ("compaction", "thp" or "cma") wants `pfns` of the node free. Returns an errno; "EBUSY": some are not."""
    node = ksm.nodes[nid]
    ksm.counted[f"{caller}_tried"] += 1
    node.isolate(pfns)
    for pfn in pfns:
        if pfn in node.frames:
            _move_within_node(ksm, node.frames[pfn], caller)
    node.release()
    if any(pfn in node.frames for pfn in pfns):
        ksm.counted[f"{caller}_missed"] += 1
        return "EBUSY"
    return 0


def _move_within_node(ksm: Ksm, folio: Frame, caller: str) -> None:
    if is_refused(ksm, folio, caller) or is_stuck(ksm, folio):
        return
    if not ksm.nodes[folio.nid].has_free_pfn:
        ksm.counted["migrate_failures"] += 1
        return
    ksm.counted["frames_moved"] += 1
    ksm.counted["ksm_frames_moved"] += folio.ksm
    ksm.events["page moved within its node"] += 1
    replace_folio(ksm, folio, folio.nid)
