"""Writes to a range of pages, with memory that was never touched taken run by run: the first fill of a machine.

What a write does is `fault`'s business. This is the same, in one loop, for pages of which nobody knows anything yet.
"""

import numpy as np
from numpy import int64

from ksmbatch.accel import entry_kernel, inlined, kernel, prefetch
from ksmbatch.kernels.cursor import last_pass, mm_of
from ksmbatch.kernels.fault import store
from ksmbatch.kernels.twins import tree_of, wake_alone
from ksmbatch.metrics import Counter, NodeCounter
from ksmbatch.state import (
    END_PAGE,
    FRAME,
    FRAME_CONTENT,
    FRAME_FLAGS,
    FRAME_NID,
    FRAME_NODE,
    HOLDERS,
    MAPCOUNT,
    NIL,
    NO_FRAME,
    NODE_PAGES,
    OFFLINE,
    PAGE_FLAGS,
    PAGE_NID,
    PAGES_PER_WORD,
    RESTING,
    SCANS_AHEAD,
    ZERO,
    Scan,
)

AHEAD = 16  # pages of whose contents the CPU is told before they are written
WHOLE_WORD = int64(0xFFFFFFFF)


@entry_kernel
def write_range(s, first, contents):
    """Writes contents[k] to page first + k, all of one mm, in this order. Writes: as store()."""
    k = int64(0)
    while k < len(contents):
        end = k
        if s.pages[first + k, FRAME] == NO_FRAME:
            end = k + fill_run(s, first, contents, k)
        if end == k:
            store(s, first + k, int64(contents[k]))
            end += 1
        k = end


@inlined
def most_at_once(s, page):
    """How many pages from `page` on, at home where it is, may get frames as it does, and are passed next by the same scan.

    Reads: numa, node_counters, pfns, mms, scan. Returns: 0 where each frame needs a thought of its own.
    """
    nid = int64(s.page_bytes[page, PAGE_NID])
    if s.pfns.shape[1] != 0 or s.numa[nid, OFFLINE]:
        return int64(0)
    mm = mm_of(s, page)
    end = int64(s.mms[mm, END_PAGE])
    cursor = int64(s.scan[Scan.CUR_PAGE])
    if mm == s.scan[Scan.CUR_MM] and page < cursor:
        end = min(end, cursor)
    room = end - page
    if s.numa[nid, NODE_PAGES] != 0:
        room = min(room, s.numa[nid, NODE_PAGES] - s.node_counters[nid, NodeCounter.FRAMES])
    return room


@kernel
def fill_run(s, first, contents, begin):
    """Writes contents[k] to page first + k from `begin` on, as long as these are awake, map nothing and have their own frame.

    Mirrors: do_anonymous_page(), for one page after the other; see fault.fresh_page()
    Writes: pages, frames, frame_bytes, by_content, calendar, counters, node_counters, and as wake_alone(). Returns: how many.
    """
    nid = int64(s.page_bytes[first + begin, PAGE_NID])
    seq = last_pass(s, first + begin)
    end = min(int64(len(contents)), begin + most_at_once(s, first + begin))
    tree = tree_of(s, nid)
    known = s.by_content[tree]
    k = begin
    while k < end:
        page = first + k
        if s.pages[page, FRAME] != NO_FRAME or s.frames[page, MAPCOUNT] != 0 or s.cohort[page] != 0:
            break
        if s.page_bytes[page, PAGE_NID] != nid or s.page_bytes[page, PAGE_FLAGS] & ZERO:
            break
        if k + AHEAD < end and contents[k + AHEAD] < len(known):
            prefetch(known, int64(contents[k + AHEAD]))
        content = int64(contents[k])
        s.pages[page, FRAME] = page
        s.frames[page, FRAME_CONTENT] = content
        s.frames[page, MAPCOUNT] = 1
        s.frames[page, FRAME_NODE] = NIL
        s.frame_bytes[page, FRAME_FLAGS] = 0
        s.frame_bytes[page, FRAME_NID] = nid
        if content < len(known):
            known[content, HOLDERS] += 1
            if known[content, RESTING] != 0:
                wake_alone(s, tree, content)
        k += 1
    n_pages = max(k - begin, int64(0))
    make_all_due(s, first + begin, first + begin + n_pages, seq + 1)
    s.node_counters[nid, NodeCounter.FRAMES] += n_pages
    s.node_counters[nid, NodeCounter.MAPPED_PAGES] += n_pages
    s.counters[Counter.FRAMES_IN_USE] += n_pages
    s.counters[Counter.PEAK_FRAMES] = max(s.counters[Counter.PEAK_FRAMES], s.counters[Counter.FRAMES_IN_USE])
    return n_pages


@inlined
def make_all_due(s, first, end, seq):
    """Scan `seq` shall visit the pages of [first, end). Writes: calendar."""
    slot = seq % SCANS_AHEAD
    page = first
    while page < end:
        word = page // PAGES_PER_WORD
        bit = page % PAGES_PER_WORD
        n_bits = min(PAGES_PER_WORD - bit, end - page)
        s.calendar[slot, word] |= np.uint32((WHOLE_WORD >> (PAGES_PER_WORD - n_bits)) << bit)
        page += n_bits
