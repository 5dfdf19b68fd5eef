"""Frames that move on a machine: by page, off a whole node, or out of a run of frames. What policies do is in the kernels.

It calls kernels, and enlarges pools when they ask for it; the state comes and goes as an argument, for growing makes a new one.
"""

import numpy as np
from numpy.typing import NDArray

from ksmbatch import state
from ksmbatch.codes import Caller
from ksmbatch.kernels import clear_frames as clearing
from ksmbatch.kernels import hotplug, move_pages
from ksmbatch.kernels.migrate import EDITS_TREES, frame_move
from ksmbatch.metrics import Counter
from ksmbatch.state import Knob, State

_TRIED_MISSED = {
    Caller.COMPACTION: (Counter.COMPACTION_TRIED, Counter.COMPACTION_MISSED),
    Caller.CMA: (Counter.CMA_TRIED, Counter.CMA_MISSED),
    Caller.THP: (Counter.THP_TRIED, Counter.THP_MISSED),
}


def room_for_list(s: State) -> NDArray[np.int32]:
    """int32[n_pages] for kernels that list pages; memory that is never touched costs nothing."""
    return np.empty(len(s.pages), np.int32)


def move(s: State, links: state.AnonVmas, first: int, end: int, nid: int, caller: Caller) -> tuple[State, NDArray[np.int64]]:
    """Moves the pages [first, end) to `nid`, one by one. Returns the state, and per page a node or a `codes.Move`."""
    codes = np.zeros(end - first, np.int64)
    found = room_for_list(s)
    while (first := move_pages.move_pages(s, links, first, end, nid, int(caller), codes, found)) < end:
        s = state.grow(s)
    frame_move.recount_remote_mappings(s)
    return s, codes


def edits_trees(s: State, page: int, nid: int, caller: Caller) -> bool:
    """Whether `caller`'s moving `page` to `nid` may change stable trees, so that it needs the lock that protects these."""
    frame = int(s.pages[page, state.FRAME])
    if s.knobs[Knob.MERGE_ACROSS_NODES] or not EDITS_TREES >> int(s.knobs[Knob.POLICY]) & 1 or frame == state.NO_FRAME:
        return False
    if not int(s.knobs[Knob.CALLERS]) >> caller & 1:
        return False  # a KSM page is refused before anybody looks at a tree
    return bool(s.frames[frame, state.FRAME_NODE] != state.NIL and s.frame_bytes[frame, state.FRAME_NID] != nid)


def take_offline(s: State, links: state.AnonVmas, nid: int) -> tuple[State, str | int]:
    """Memory hotremove of node `nid`. Returns the state, and 0 or the name of the error."""
    if s.numa[nid, state.OFFLINE]:
        return s, "EINVAL"
    s.counters[Counter.OFFLINE_TRIED] += 1
    s.numa[nid, state.OFFLINE] = 1
    frames = _frames_on(s, nid)
    users = np.zeros(len(s.frames), np.int32)
    present = np.flatnonzero(s.pages[:, state.FRAME] != state.NO_FRAME)
    users[s.pages[present, state.FRAME]] = present
    users, found, first = users[frames], room_for_list(s), 0
    while (first := hotplug.move_away(s, links, frames, users, first, nid, found)) < len(frames):
        s = state.grow(s)
    frame_move.recount_remote_mappings(s)
    if len(_frames_on(s, nid)):
        s.counters[Counter.OFFLINE_MISSED] += 1
        s.numa[nid, state.OFFLINE] = 0  # MEM_CANCEL_OFFLINE
        return s, "EBUSY"
    hotplug.check_stable_tree(s, nid)
    return s, 0


def clear_frames(s: State, links: state.AnonVmas, first: int, count: int, caller: Caller) -> str | int:
    """Frees `count` frames from number `first` on, all of one node, for `caller`. Returns 0 or the name of the error."""
    nid, pfn = divmod(first, int(s.numa[0, state.NODE_PAGES]))
    pfn += 1  # they begin at 1
    holder = np.full(count, -1, np.int32)
    frames = _frames_on(s, nid)
    places = s.frame_pfns[frames] - pfn
    inside = (places >= 0) & (places < count)
    holder[places[inside]] = frames[inside]
    tried, missed = _TRIED_MISSED[caller]
    s.counters[tried] += 1
    if clearing.clear_frames(s, links, nid, pfn, pfn + count, holder, int(caller)):
        return 0
    s.counters[missed] += 1
    return "EBUSY"


def _frames_on(s: State, nid: int) -> NDArray[np.int32]:
    """The frames in use on `nid` in the order of their page frame numbers, int32[n]."""
    in_use = (s.frames[:, state.MAPCOUNT] > 0) & (s.frame_bytes[:, state.FRAME_NID] == nid)
    frames = np.flatnonzero(in_use).astype(np.int32)
    return frames[np.argsort(s.frame_pfns[frames], kind="stable")]
