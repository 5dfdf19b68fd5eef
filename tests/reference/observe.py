"""What the oracle's recorder would write down of a machine: sysfs, per-process figures, page tables with frame ids.

It reads the state and changes nothing. The survey (mappings out of reach, duplicates) is ours, not the recorder's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from .memory import Frame, Mm, ZeroPage, find_mergeable_vma
from .rmap import rmap_walk_ksm
from .state import STABLE_FLAG, Ksm, RmapItem

PAGE_SIZE = 4096
RMAP_ITEM_SIZE = 64  # sizeof(struct ksm_rmap_item)
ABSENT, ZERO = -1, -2

Areas = Mapping[str, tuple[int, int]]  # name -> (first page number, pages)


def sysfs(ksm: Ksm) -> dict[str, int]:
    """Every field that some kernel has."""
    volatile = ksm.rmap_items - ksm.pages_shared - ksm.pages_sharing - ksm.pages_unshared
    return {
        "full_scans": ksm.scan.seqnr,
        "pages_shared": ksm.pages_shared,
        "pages_sharing": ksm.pages_sharing,
        "pages_unshared": ksm.pages_unshared,
        "pages_volatile": max(volatile, 0),
        "pages_scanned": ksm.pages_scanned,
        "pages_skipped": ksm.pages_skipped,
        "ksm_zero_pages": ksm.ksm_zero_pages,
        "stable_node_chains": ksm.stable_node_chains,
        "stable_node_dups": ksm.stable_node_dups,
        "general_profit": (ksm.pages_sharing + ksm.ksm_zero_pages) * PAGE_SIZE - ksm.rmap_items * RMAP_ITEM_SIZE,
        "merge_across_nodes": ksm.merge_across_nodes,
        "max_page_sharing": ksm.max_page_sharing,
        "use_zero_pages": ksm.use_zero_pages,
        "smart_scan": ksm.smart_scan,
        "stable_node_chains_prune_millisecs": ksm.stable_node_chains_prune_millisecs,
    }


def proc(mm: Mm) -> dict[str, int]:
    """/proc/PID/ksm_merging_pages and /proc/PID/ksm_stat."""
    return {
        "ksm_merging_pages": mm.ksm_merging_pages,
        "ksm_rmap_items": mm.ksm_rmap_items,
        "ksm_zero_pages": mm.ksm_zero_pages,
        "ksm_process_profit": (mm.ksm_merging_pages + mm.ksm_zero_pages) * PAGE_SIZE - mm.ksm_rmap_items * RMAP_ITEM_SIZE,
        "ksm_merge_any": int(mm.merge_any),
        "ksm_mergeable": int(any(vma.flags.mergeable for vma in mm.vmas)),
    }


class Tables:
    """Page tables as the recorder shows them, from one observation to the next.

    A frame keeps its id while a page that mapped it before maps it still; new ones are numbered in the order of first
    appearance: process in order of start, area in order of mmap, page.
    """

    def __init__(self) -> None:
        self._ids: dict[tuple[str, str, int], tuple[tuple[int, int], int]] = {}
        self._shown: dict[tuple[str, str], dict[str, Any]] = {}
        self._next_id = 0

    def changes(self, mms: Mapping[str, Mm], areas: Mapping[str, Areas]) -> dict[str, dict[str, dict[str, Any]]]:
        """Process -> area -> table, of areas whose table is not what it was at the last call."""
        pages = {
            (name, area, first): mm.page_table.get(base + first)
            for name, mm in mms.items()
            for area, (base, count) in areas[name].items()
            for first in range(count)
        }
        frames = {key: page for key, page in pages.items() if isinstance(page, Frame)}
        ids: dict[Frame, int] = {}
        for key, frame in frames.items():
            known = self._ids.get(key)
            if known is not None and known[0] == (frame.nid, frame.pfn):
                ids[frame] = known[1]
        for frame in frames.values():
            if frame not in ids:
                ids[frame] = self._next_id
                self._next_id += 1
        self._ids = {key: ((frame.nid, frame.pfn), ids[frame]) for key, frame in frames.items()}

        tables = {
            (name, area): _table([pages[name, area, k] for k in range(areas[name][area][1])], ids)
            for name in mms
            for area in areas[name]
        }
        changed: dict[str, dict[str, dict[str, Any]]] = {}
        for (name, area), table in tables.items():
            if self._shown.get((name, area)) != table:
                changed.setdefault(name, {})[area] = table
        self._shown = tables
        return changed


def _table(pages: list[Frame | ZeroPage | None], ids: Mapping[Frame, int]) -> dict[str, Any]:
    def frame_id(page: Frame | ZeroPage | None) -> int:
        if page is None:
            return ABSENT
        return ids[page] if isinstance(page, Frame) else ZERO

    return {
        "frames": [frame_id(page) for page in pages],
        "nodes": "".join(f"{page.nid:x}" if isinstance(page, Frame) else "." for page in pages),
        "ksm": "".join(str(int(page.ksm)) if isinstance(page, Frame) else "." for page in pages),
    }


def survey(ksm: Ksm, mms: Mapping[str, Mm]) -> dict[str, int]:
    """`unreachable_mappings`: mappings of KSM frames that no rmap_item reaches; `duplicates_left`: KSM frames beyond one per
    content and tree, the tree being that of the frame's own node; `stranded_pages`: pages in mergeable VMAs that map a KSM
    frame and whose rmap_item is in no stable node."""
    frames = {page: None for mm in mms.values() for page in mm.page_table.values() if isinstance(page, Frame) and page.ksm}
    copies = Counter((ksm.get_kpfn_nid(frame), frame.content) for frame in frames)
    return {
        "unreachable_mappings": sum(frame.mapcount - len(rmap_walk_ksm(frame)) for frame in frames),
        "duplicates_left": sum(copies.values()) - len(copies),
        "stranded_pages": sum(_is_stranded(item) for slot in ksm.mm_slots for item in slot.rmap_list),
    }


def _is_stranded(rmap_item: RmapItem) -> bool:
    page = rmap_item.mm.page_table.get(rmap_item.address)
    if page is None or not page.ksm or rmap_item.flags & STABLE_FLAG:
        return False
    return find_mergeable_vma(rmap_item.mm, rmap_item.address) is not None
