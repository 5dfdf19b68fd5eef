"""What can be read of a machine beside its counters: /proc of a process, page tables, figures that take a look at all of it.

It changes nothing.
"""

import numpy as np

from ksmbatch import state
from ksmbatch.kernels import counting
from ksmbatch.metrics import PAGE_BYTES, RMAP_ITEM_BYTES
from ksmbatch.state import AnonVmas, State


def process_counters(s: State, number: int) -> dict[str, int]:
    """/proc/PID/ksm_merging_pages and the lines of /proc/PID/ksm_stat of mm `number`."""
    mm = s.mms[number]
    merging, items, zero = int(mm[state.MERGING]), int(mm[state.ITEMS]), int(mm[state.ZERO_PAGES])
    return {
        "ksm_merging_pages": merging,
        "ksm_rmap_items": items,
        "ksm_zero_pages": zero,
        "ksm_process_profit": (merging + zero) * PAGE_BYTES - items * RMAP_ITEM_BYTES,
        "ksm_merge_any": int(mm[state.MERGE_ANY]),
        "ksm_mergeable": int(bool(mm[state.MERGEABLE_VMAS])),
    }


def page_table(s: State, first: int, pages: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The page table of `pages` pages from global page `first`, on a machine that keeps pfns.

    Returns: int64[pages] node and pfn in one number (-1 absent, -2 zero page); int8[pages] node (-1: none); bool[pages]
    whether PageKsm.
    """
    frames = s.pages[first : first + pages, state.FRAME]
    present = frames != state.NO_FRAME
    frame = np.where(present, frames, 0)
    keys = s.frame_bytes[frame, state.FRAME_NID].astype(np.int64) << 32 | s.frame_pfns[frame]
    keys[~present] = -1
    keys[s.page_bytes[first : first + pages, state.PAGE_FLAGS] & state.ZERO != 0] = -2
    nids = np.where(present, s.frame_bytes[frame, state.FRAME_NID], -1).astype(np.int8)
    return keys, nids, present & (s.frame_bytes[frame, state.FRAME_FLAGS] & state.KSM != 0)


def survey(s: State, links: AnonVmas) -> dict[str, int]:
    """The metrics of `metrics.SURVEYED`."""
    seen = np.zeros(s.by_content.shape[:2], np.uint8)
    unreachable, duplicates, stranded = counting.survey(s, links, seen)
    return {"unreachable_mappings": int(unreachable), "duplicates_left": int(duplicates), "stranded_pages": int(stranded)}
