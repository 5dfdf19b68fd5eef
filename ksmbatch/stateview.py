"""A state with its lists and trees walked once, as Python lists: what the rules in `invariants` are recounted from.

It judges nothing and trusts nothing: where a list or tree is broken, the walk ends.
"""

from functools import cached_property
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ksmbatch import state
from ksmbatch.codes import Kernel
from ksmbatch.metrics import Counter
from ksmbatch.state import NIL, NO_FRAME, NO_MM, Knob, Scan, State

Rows: TypeAlias = list[list[int]]
# kernels.cohorts, which this must not import, since rules are checked without numba
MERGED, JOINED, SEARCHING, FIRST_COHORT, N_COHORTS, IN_LINE = 1, 2, 3, 4, 243, 247


class StateView:
    """The state with its lists and trees walked once, each only as far as it is a list or a tree."""

    def __init__(self, machine: State) -> None:
        self.state = machine
        self.knob = {knob: int(machine.knobs[knob]) for knob in Knob}
        self.scan = {field: int(machine.scan[field]) for field in Scan}
        self.counter = {counter: int(machine.counters[counter]) for counter in Counter}
        self.is_old = self.knob[Knob.KERNEL] < Kernel.V6_12
        joined = np.flatnonzero(machine.cohort == JOINED)  # to their rows nobody has written yet what they map
        self.frame = machine.pages[:, state.FRAME].copy()
        self.frame[joined] = machine.nodes[machine.members[machine.pages[joined, state.HEAD], state.MEMBER_NODE], state.KPFN]
        self.page_flags = machine.page_bytes[:, state.PAGE_FLAGS]
        self.page_nid = machine.page_bytes[:, state.PAGE_NID]
        self.item_flags = self._shown_flags()
        self.frame_flags = machine.frame_bytes[:, state.FRAME_FLAGS]
        self.n_nids = machine.trees.shape[1]
        self.nodes: Rows = machine.nodes[: self.scan[Scan.NEXT_NODE]].tolist()
        self.members: Rows = machine.members[: self.scan[Scan.NEXT_MEMBER]].tolist()
        self.mapcount = machine.frames[:, state.MAPCOUNT].copy()
        self.mapcount[joined] = 0
        for node, waiting in self.waiting.items():
            self.mapcount[self.nodes[node][state.KPFN]] -= len(waiting)

    @cached_property
    def mm_of_page(self) -> NDArray[np.int64]:
        """int64[n_pages]: the mm of each page."""
        firsts = self.state.mms[:, state.FIRST_PAGE]
        return np.searchsorted(firsts, np.arange(len(self.frame)), side="right") - 1

    @cached_property
    def mapped_frames(self) -> NDArray[np.int32]:
        """int32: the frames that pages map, once per page."""
        frames: NDArray[np.int32] = self.frame[self.frame != NO_FRAME]
        return frames

    @cached_property
    def shapes(self) -> list[list[int]]:
        """Per node: the contents in its stable tree's shape, in order, before what is logged happens to it."""
        roots = self.state.trees[state.STABLE_ROOT].tolist()
        links = self.state.stable_links.tolist()
        return [[row - 1 for row in in_order(links[nid], root)] for nid, root in enumerate(roots)]

    @cached_property
    def stable_logs(self) -> list[list[int]]:
        """Per node: what its stable tree's shape still lacks, insertions (content + 1) and erasures (-content - 1)."""
        ends = self.state.trees[state.STABLE_LOGGED].tolist()
        return [self.state.stable_log[nid, :end].tolist() for nid, end in enumerate(ends)]

    @cached_property
    def stable_contents(self) -> list[list[int]]:
        """Per node: the contents in its stable tree, in order."""
        rank = self.state.rank
        found = []
        for shape, log in zip(self.shapes, self.stable_logs, strict=True):
            held = set(shape)
            for entry in log:
                held ^= {abs(entry) - 1}
            found.append(sorted(held, key=lambda content: int(rank[content])))
        return found

    @cached_property
    def trees(self) -> list[list[int]]:
        """Per node: what hangs in its stable tree, in order."""
        return [self.state.by_content[nid, held, state.STABLE_AT].tolist() for nid, held in enumerate(self.stable_contents)]

    @cached_property
    def chains(self) -> dict[int, list[int]]:
        """Chain -> its dups."""
        heads = [node for tree in self.trees for node in tree if self.nodes[node][state.LEN] == state.STABLE_NODE_CHAIN]
        return {chain: chase(self.nodes, self.nodes[chain][state.FIRST], state.NEXT) for chain in heads}

    @cached_property
    def listed_chains(self) -> list[list[int]]:
        """Per node: the chains of its stable tree, as they are listed from the one that was pruned first."""
        return [chase(self.nodes, oldest, state.NEWER) for oldest in self.state.trees[state.OLDEST_CHAIN].tolist()]

    @cached_property
    def migrate(self) -> list[int]:
        """migrate_nodes."""
        return chase(self.nodes, self.scan[Scan.MIGRATE_FIRST], state.NEXT)

    @cached_property
    def placed(self) -> list[int]:
        """All stable nodes but the heads of chains: in trees, in chains, on migrate_nodes."""
        plain = [node for tree in self.trees for node in tree if node not in self.chains]
        return plain + [dup for dups in self.chains.values() for dup in dups] + self.migrate

    @cached_property
    def lines(self) -> list[int]:
        """The stable nodes that are still to be, for pages in line, and those that were."""
        return chase(self.nodes, self.scan[Scan.LAST_LINE], state.LINE_MADE_BEFORE)

    @cached_property
    def planned(self) -> list[int]:
        """The stable nodes that are still to be."""
        return [line for line in self.lines if self.nodes[line][state.WHERE] == state.PLANNED]

    @cached_property
    def waiting(self) -> dict[int, list[int]]:
        """Stable node made for pages in line -> those of its members whose pages have not been passed yet."""
        made = [line for line in self.lines if self.nodes[line][state.WHERE] != state.PLANNED]
        waiting = {}
        for node in made:
            members = self.present(chase(self.members, self.nodes[node][state.FIRST], state.MEMBER_NEXT))
            waiting[node] = [m for m in members if self.state.cohort[self.members[m][state.MEMBER_PAGE]] >= IN_LINE]
        return waiting

    @cached_property
    def hlists(self) -> dict[int, list[int]]:
        """Stable node -> its members."""
        return {
            node: [member for member in self.present(self.listed_members[node]) if member not in self.waiting.get(node, ())]
            for node in self.placed
        }

    def present(self, listed: list[int]) -> list[int]:
        """Of the `listed` members those that have not left."""
        return [member for member in listed if self.members[member][state.MEMBER_PAGE] >= 0]

    @cached_property
    def listed_members(self) -> dict[int, list[int]]:
        """Stable node, placed or planned -> its members, and those that have left but are still in the list."""
        nodes = self.placed + self.planned
        return {node: chase(self.members, self.nodes[node][state.FIRST], state.MEMBER_NEXT) for node in nodes}

    @cached_property
    def slots(self) -> list[int]:
        """The mms that ksmd scans."""
        return chase(self.state.mms.tolist(), self.scan[Scan.SLOT_FIRST], state.SLOT_NEXT, int(NO_MM))

    @cached_property
    def in_present_tree(self) -> NDArray[np.bool_]:
        """bool[n_pages]: whether the rmap_item was put into an unstable tree in this scan."""
        parity = bool(self.counter[Counter.FULL_SCANS] & 1)
        inserted = self.item_flags & state.UNSTABLE != 0
        present: NDArray[np.bool_] = inserted & ((self.item_flags & state.PARITY != 0) == parity)
        return present

    def per_mm(self, pages: NDArray[np.bool_]) -> NDArray[np.int64]:
        """int64[n_mms]: how many of `pages` (bool[n_pages]) each mm has."""
        return np.bincount(self.mm_of_page[pages], minlength=len(self.state.mms))

    @cached_property
    def erased(self) -> NDArray[np.int32]:
        """int32: the pages that this scan took out of unstable trees again before their shape was built."""
        erased: NDArray[np.int32] = self._log[self._log[:, 3] < 0, 0]
        return erased

    @cached_property
    def written(self) -> NDArray[np.int32]:
        """int32: the pages that were written while they were in unstable trees whose shape was not built."""
        written: NDArray[np.int32] = self._log[self._log[:, 3] >= 0, 0]
        return written

    @property
    def _log(self) -> NDArray[np.int32]:
        end = state.LOG_COLUMNS * self.scan[Scan.LOG_END]
        log: NDArray[np.int32] = self.state.unstable_log[:end].reshape(-1, state.LOG_COLUMNS)
        return log

    @cached_property
    def last_pass(self) -> NDArray[np.int64]:
        """int64[n_pages]: the scan that passed each page last, or would have, if there was anything to pass."""
        passed: NDArray[np.int64] = self.state.mms[self.mm_of_page, state.PASSED].copy()
        ahead = (self.mm_of_page == self.scan[Scan.CUR_MM]) & (np.arange(len(passed)) >= self.scan[Scan.CUR_PAGE])
        passed[ahead] -= 1
        return passed

    @cached_property
    def calls(self) -> NDArray[np.int64]:
        """int64[n_pages]: how often smart_scan was asked about each page at rest in one of its cohorts."""
        calls: NDArray[np.int64] = (self.last_pass - self.state.cohort.astype(np.int64) + FIRST_COHORT) % N_COHORTS
        return calls

    def _shown_flags(self) -> NDArray[np.uint8]:
        """uint8[n_pages]: ITEM_FLAGS, where those of pages at rest say what their passes came to."""
        flags: NDArray[np.uint8] = self.state.page_bytes[:, state.ITEM_FLAGS].copy()
        cohort = self.state.cohort
        flags[cohort == JOINED] |= np.uint8(state.STABLE)
        visited = np.isin(self.calls, (2, 3, 4, 6, 9)) | ((self.calls >= 14) & (self.calls % 9 == 14 % 9))
        in_tree = ((cohort == SEARCHING) | ((cohort >= FIRST_COHORT) & (cohort < IN_LINE) & visited)) & ~self._is_gated()
        ended = self.scan[Scan.CUR_MM] == NO_MM
        parity = (self.counter[Counter.FULL_SCANS] - (self.scan[Scan.SEQ] - self.last_pass + ended)) & 1
        unmerged = cohort >= SEARCHING
        flags[unmerged] &= np.uint8(~(state.UNSTABLE | state.PARITY) & 0xFF)
        flags[unmerged & in_tree] |= np.uint8(state.UNSTABLE)
        flags[unmerged & in_tree & (parity != 0)] |= np.uint8(state.PARITY)
        return flags

    def _is_gated(self) -> NDArray[np.bool_]:
        """bool[n_pages]: whether a page at rest was put in no tree when it was passed last, though its cohort has it there."""
        pages = np.arange(len(self.frame))
        words = self.state.gated[self.last_pass & 1, pages // int(state.PAGES_PER_WORD)]
        gated: NDArray[np.bool_] = (words >> (pages % int(state.PAGES_PER_WORD)).astype(np.uint32)) & 1 != 0
        return gated

    @cached_property
    def changed(self) -> NDArray[np.bool_]:
        """bool[n_pages]: pages at rest, but no KSM pages, whose content is not that of ksmd's last look."""
        pages = np.arange(len(self.frame))
        words = self.state.changed[pages // int(state.PAGES_PER_WORD)]
        changed: NDArray[np.bool_] = (words >> (pages % int(state.PAGES_PER_WORD)).astype(np.uint32)) & 1 != 0
        return changed

    @cached_property
    def checksum(self) -> NDArray[np.int32]:
        """int32[n_pages]: content id at ksmd's last look, which pages at rest need not say themselves; -1: none yet."""
        checksum: NDArray[np.int32] = self.state.pages[:, state.CHECKSUM].copy()
        resting = (self.state.cohort >= SEARCHING) & ~self.changed
        checksum[resting] = self.state.frames[self.frame[resting], state.FRAME_CONTENT]
        return checksum

    def is_hot(self, node: int) -> bool:
        """Whether a walk that passes `node`, which hangs in a stable tree, may change it."""
        if node in self.chains:
            return self.nodes[node][state.SETTLED] == state.UNSETTLED
        return self.nodes[node][state.KPFN] == NO_FRAME

    def has_room(self, node: int, more: int = 0) -> bool:
        """is_page_sharing_candidate()."""
        length = self.nodes[node][state.LEN]
        return length != 0 and length + more < self.knob[Knob.MAX_PAGE_SHARING]


def chase(rows: Rows, first: int, column: int, end: int = int(NIL)) -> list[int]:
    """The list that starts at row `first` and goes on where `column` says, up to `end` or to what is no list any more."""
    found: dict[int, None] = {}
    row = first
    while row != end and 0 <= row < len(rows) and row not in found:
        found[row] = None
        row = rows[row][column]
    return list(found)


def in_order(rows: Rows, root: int) -> list[int]:
    """The tree below row `root` in the order of its keys, as far as it is a tree."""
    found: list[int] = []
    path: list[int] = []
    passed = {int(NIL)}
    row = root
    while True:
        while row not in passed and 0 <= row < len(rows):
            passed.add(row)
            path.append(row)
            row = rows[row][state.LEFT]
        if not path:
            return found
        row = path.pop()
        found.append(row)
        row = rows[row][state.RIGHT]
