"""Rules of pages at rest: who may, who knows of them, and that nobody who is awake is forgotten."""

import numpy as np
from numpy.typing import NDArray

from ksmbatch import state
from ksmbatch.invariants.recount import Faults, all_hold, differs
from ksmbatch.state import NIL, NO_FRAME, NO_MM, Knob, Scan
from ksmbatch.stateview import IN_LINE, JOINED, MERGED, SEARCHING, StateView, chase

WORD = int(state.PAGES_PER_WORD)


def cohorts_are_recounted(v: StateView) -> Faults:
    """The pages at rest of every block, by cohort."""
    for block, counted in enumerate(v.state.cohorts[1:]):
        cohort = v.state.cohort[block * state.PAGES_PER_BLOCK : (block + 1) * state.PAGES_PER_BLOCK]
        found = np.bincount(cohort[cohort != 0], minlength=256)
        yield from differs(f"pages at rest of block {block}, cohort", counted, found)


def holders_are_recounted(v: StateView) -> Faults:
    """The frames of every content that are no KSM pages, per tree."""
    frames = np.flatnonzero((v.mapcount > 0) & (v.frame_flags & state.KSM == 0))
    content = v.state.frames[frames, state.FRAME_CONTENT]
    tree = v.state.frame_bytes[frames, state.FRAME_NID] * (not v.knob[Knob.MERGE_ACROSS_NODES])
    kept = v.state.by_content[:, :, state.HOLDERS].copy()
    for node, waiting in v.waiting.items():  # those in line for a node that is there are its members already
        kept[v.nodes[node][state.NID], v.nodes[node][state.CONTENT]] += len(waiting)
    counted = np.zeros_like(kept)
    known = content < kept.shape[1]
    np.add.at(counted, (tree[known], content[known]), 1)
    yield from differs("holders", kept.ravel(), counted.ravel())


def merged_pages_at_rest_are_in_place(v: StateView) -> Faults:
    """Such a page maps the KSM page of the node in which its item hangs, in the tree where that belongs."""
    pages = np.flatnonzero((v.state.cohort == MERGED) | (v.state.cohort == JOINED))
    frames = v.frame[pages]
    yield from all_hold("merged and at rest, but maps nothing: page", frames != NO_FRAME, pages)
    node = v.state.frames[frames, state.FRAME_NODE]
    yield from all_hold("merged and at rest, but no KSM page: page", v.frame_flags[frames] & state.KSM != 0, pages)
    yield from all_hold("merged and at rest, without an item: page", v.item_flags[pages] & state.STABLE != 0, pages)
    own = v.state.members[v.state.pages[pages, state.HEAD], state.MEMBER_NODE]
    yield from all_hold("merged and at rest, in another node: page", (own == node) & (node != NIL), pages)
    where = v.state.nodes[node, state.WHERE]
    yield from all_hold("merged and at rest, on migrate_nodes: page", where != state.IN_MIGRATE, pages)
    if not v.knob[Knob.MERGE_ACROSS_NODES]:
        at_home = v.state.nodes[node, state.NID] == v.state.frame_bytes[frames, state.FRAME_NID]
        yield from all_hold("merged and at rest, in another tree: page", at_home, pages)


def unmerged_pages_at_rest_are_alone_or_expected(v: StateView) -> Faults:
    """A page that is in nobody's calendar has its content for itself, and had it at ksmd's last look if others ever hold it."""
    cohort = v.state.cohort
    pages = _at_rest_for_good(v)
    frames = v.frame[pages]
    content = v.state.frames[frames, state.FRAME_CONTENT]
    yield from all_hold("at rest, but shared: page", v.mapcount[frames] == 1, pages)
    yield from all_hold("at rest, but a KSM page: page", v.frame_flags[frames] & state.KSM == 0, pages)
    known = content < v.state.by_content.shape[1]
    yield from all_hold("at rest, but changed to what others hold: page", ~(v.changed[pages] & known), pages)
    tree = v.state.frame_bytes[frames, state.FRAME_NID] * (not v.knob[Knob.MERGE_ACROSS_NODES])
    yield from all_hold("at rest, in another tree: page", v.state.page_bytes[pages, state.ITEM_NID] == tree, pages)
    rows = v.state.by_content[tree[known], content[known]]
    yield from all_hold("at rest, and others have its content: page", rows[:, state.HOLDERS] == 1, pages[known])
    yield from all_hold("at rest, though merged by others: page", rows[:, state.STABLE_AT] == NIL, pages[known])
    yield from all_hold("at rest, unknown to others: page", rows[:, state.RESTING] == pages[known] + 1, pages[known])
    smart = v.state.knobs[Knob.SMART_SCAN] and not v.is_old
    yield from all_hold("at rest as if smart_scan was off, or the reverse: page", (cohort[pages] > SEARCHING) == smart, pages)


def pages_that_have_changed_rest(v: StateView) -> Faults:
    """`changed` has pages at rest that are no KSM pages, and whose content is another one than ksmd saw."""
    pages = np.flatnonzero(v.changed)
    yield from all_hold("awake or merged, and said to have changed: page", v.state.cohort[pages] >= SEARCHING, pages)


def watched_pages_are_in_watch(v: StateView) -> Faults:
    """Of the pages that rest for good in blocks that were looked through, `watch` has those with contents to watch for."""
    pages = _at_rest_for_good(v)
    pages = pages[v.state.watch_of_block[pages // int(state.PAGES_PER_BLOCK)] == v.scan[Scan.WATCH]]
    content = v.state.frames[v.frame[pages], state.FRAME_CONTENT]
    trees = v.state.trees.astype(np.int64)[:, v.state.page_bytes[pages, state.ITEM_NID]]
    is_held = content < v.state.by_content.shape[1]
    first = np.where(is_held, trees[state.WATCH_LOW] + 1, trees[state.WATCH_FIRST])
    end = np.where(is_held, trees[state.WATCH_HIGH], trees[state.WATCH_END])
    watched = (trees[state.WATCHED] != 0) & (first <= content) & (content < end)
    yield from all_hold("to be watched, and is not: page", ~watched | _bits(v.state.watch, pages), pages)


def pages_known_to_rest_do(v: StateView) -> Faults:
    """RESTING names pages at rest."""
    known = v.state.by_content[:, :, state.RESTING].ravel()
    pages = known[known > 0] - 1
    yield from all_hold("awake, or merged: page", v.state.cohort[pages] >= SEARCHING, pages)


def pages_awake_are_expected(v: StateView) -> Faults:
    """Who is awake in an mm that is scanned, and maps a frame mergeably or has an item, is visited at its next pass."""
    scanned = np.zeros(len(v.state.mms) + 1, np.bool_)
    scanned[v.slots] = True
    alive = v.state.mms[v.mm_of_page, state.USERS] != 0
    looked_at = ((v.frame != NO_FRAME) & (v.page_flags & state.MERGEABLE != 0)) | (v.item_flags & state.ITEM != 0)
    expected = scanned[v.mm_of_page] & alive & looked_at & (v.state.cohort == 0)
    pages = np.flatnonzero(expected)
    due = _in_calendar(v, v.last_pass[pages] + 1, pages)
    yield from all_hold("awake, and not expected: page", due, pages)


def lines_are_of_pages_that_will_be_merged(v: StateView) -> Faults:
    """A planned node has two leaders, which are not in line, and behind them the pages in line, all alike."""
    in_line = [v.members[member][state.MEMBER_PAGE] for waiting in v.waiting.values() for member in waiting]
    all_leaders = set[int]()
    for node in v.planned:
        row = v.nodes[node]
        listed = v.present(v.listed_members[node])
        yield from differs(f"length of line {node}", row[state.LEN], len(listed))
        pages = np.array([v.members[member][state.MEMBER_PAGE] for member in listed], np.int64)
        yield from all_hold(
            f"in line {node}, and its head is elsewhere: page", v.state.pages[pages, state.HEAD] == listed, pages
        )
        leaders = {row[state.LEADER] - 1, row[state.SECOND] - 1} - {-1} if listed else set()
        leads = v.item_flags[pages] & state.LEADS != 0
        if set(pages[leads].tolist()) != leaders:
            yield f"line {node} is led by {sorted(pages[leads].tolist())}, and says {sorted(leaders)}"
        all_leaders |= leaders
        others = pages[~leads]
        in_line += others.tolist()
        content = v.state.frames[v.frame[others], state.FRAME_CONTENT]
        yield from all_hold(f"in line {node} for another content: page", content == row[state.CONTENT], others)
        nid = v.state.frame_bytes[v.frame[others], state.FRAME_NID].astype(np.int64)
        cohort = IN_LINE + 2 * nid + (nid != row[state.KNID])
        yield from all_hold(f"in line {node}, and in another cohort: page", v.state.cohort[others] == cohort, others)
        last = -int(v.state.by_content[row[state.NID], row[state.CONTENT], state.RESTING])
        found = chase(v.nodes, max(last, int(NIL)), state.LINE_BEFORE)
        yield from all_hold(f"in line {node}, which is not found: page", np.full(len(others), node in found), others)
    if sorted(in_line) != np.flatnonzero(v.state.cohort >= IN_LINE).tolist():
        yield f"{len(in_line)} pages in line are members of lines, of {(v.state.cohort >= IN_LINE).sum()}"
    strays = np.setdiff1d(np.flatnonzero(v.item_flags & state.LEADS), list(all_leaders))
    yield from all_hold("leads no line: page", np.zeros(len(strays), np.bool_), strays)
    named = v.state.by_content[:, :, state.RESTING].ravel()
    yield from all_hold("named as a line, and is none: node", np.isin(-named[named < 0], v.lines), -named[named < 0])


def lines_are_of_one_scan(v: StateView) -> Faults:
    """Nobody is in line, or from the present or the last scan on; and if from the last, no page that was passed still is."""
    if v.scan[Scan.LINES_SEQ] == 0:
        yield from differs("pages in line", (v.state.cohort >= IN_LINE).sum(), 0)
        yield from differs("the line made last", v.scan[Scan.LAST_LINE], NIL)
    else:
        in_line = np.flatnonzero(v.state.cohort >= IN_LINE)
        passed = v.last_pass[in_line]
        yield from all_hold("passed, and still in line: page", passed == v.scan[Scan.LINES_SEQ], in_line)


def joined_pages_are_recounted(v: StateView) -> Faults:
    """Pages whose rows do not say yet what they map."""
    yield from differs("pages joined", v.scan[Scan.N_JOINED], (v.state.cohort == JOINED).sum())


def no_region_is_open(v: StateView) -> Faults:
    """Between two calls of kernels the cursor is in no region of which passes are still to be counted."""
    yield from differs("the end of the open region", v.scan[Scan.REGION_END], 0)
    if v.scan[Scan.CUR_MM] == NO_MM:
        passed = v.state.mms[v.slots, state.PASSED]
        yield from all_hold("passed by another scan than the last: mm", passed == v.scan[Scan.SEQ], v.slots)


def _at_rest_for_good(v: StateView) -> NDArray[np.int64]:
    """The unmerged pages at rest that are in nobody's calendar."""
    pages = np.arange(len(v.frame))
    due = np.zeros(len(pages), np.bool_)
    for ahead in range(1, int(state.SCANS_AHEAD)):
        due |= _in_calendar(v, v.last_pass + ahead, pages)
    return np.flatnonzero((v.state.cohort >= SEARCHING) & (v.state.cohort < IN_LINE) & ~due)


def _in_calendar(v: StateView, scans: NDArray[np.int64], pages: NDArray[np.int64]) -> NDArray[np.bool_]:
    """bool[n]: whether scan scans[k] has to visit pages[k]."""
    return _bits(v.state.calendar.reshape(-1), scans % int(state.SCANS_AHEAD) * v.state.calendar.shape[1] * WORD + pages)


def _bits(words: NDArray[np.uint32], places: NDArray[np.int64]) -> NDArray[np.bool_]:
    """bool[n]: the bits of `words` at `places`."""
    found: NDArray[np.bool_] = (words[places // WORD] >> (places % WORD).astype(np.uint32)) & 1 != 0
    return found
