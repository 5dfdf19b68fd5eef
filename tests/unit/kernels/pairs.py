"""A machine whose pages get in line, and the same where every page is visited and every tree walked, to be held against it."""

from collections.abc import Callable

import numpy as np
from unit.kernels import seen
from unit.kernels.tiny import copied, fill, tiny_state

from ksmbatch import state
from ksmbatch.codes import Status
from ksmbatch.invariants import check_invariants
from ksmbatch.kernels import ksmd
from ksmbatch.kernels.cohorts import IN_LINE, JOINED
from ksmbatch.metrics import Counter
from ksmbatch.state import FOREVER, Knob, State
from ksmbatch.stateview import StateView

N_PAGES = 16  # of each mm
COSTS = {"wakeup_ns": 3, "skip_ns": 5, "ksm_visit_ns": 70, "checksum_ns": 900, "search_ns": 11_000, "merge_ns": 130_000}

SLOW = {"max_page_sharing": 4, "pages_to_scan": 2, "sleep_millisecs": 20}  # time passes within a scan


class Pair:
    """A machine and the same once more, where nobody rests or is in line."""

    def __init__(self, *contents: int | None, **knobs: int) -> None:
        self.s = tiny_state(pages_per_mm=N_PAGES, n_contents=12, n_nodes=128, n_members=256, **COSTS | knobs)
        self.exact = copied(self.s)
        self.exact.knobs[Knob.FORCE_EXACT] = 1
        self.write(*contents)

    def write(self, *contents: int | None, first: int = 0) -> None:
        self.do(lambda s: fill(s, *contents, first=first))

    def do(self, change: Callable[[State], None]) -> None:
        """Lets something happen to both."""
        change(self.s)
        change(self.exact)

    def scan(self, n: int = 1) -> None:
        """Full scans, behind each of which the two must not differ."""
        for _ in range(n):
            self.do(scan_on)
            self.compare()

    def compare(self) -> None:
        assert check_invariants(self.s) == []
        assert seen.differing(seen.seen(self.s), seen.seen(self.exact)) == []
        assert seen.calls(self.s) == seen.calls(self.exact)

    @property
    def in_line(self) -> list[int]:
        return in_line(self.s)

    @property
    def joined(self) -> list[int]:
        found: list[int] = np.flatnonzero(self.s.cohort == JOINED).tolist()
        return found


def scan_on(s: State) -> None:
    assert ksmd.ksm_scan_thread(s, FOREVER, int(s.counters[Counter.FULL_SCANS]) + 1, FOREVER) == Status.DONE


def in_line(s: State) -> list[int]:
    found: list[int] = np.flatnonzero(s.cohort >= IN_LINE).tolist()
    return found


def members_of(s: State, content: int) -> list[int]:
    """The pages in the hlist of the plain stable node of `content`, which came last first."""
    view = StateView(s)
    hlist = view.hlists[int(s.by_content[0, content, state.STABLE_AT])]
    return [view.members[member][state.MEMBER_PAGE] for member in hlist]


def n_lines(s: State) -> int:
    return len(StateView(s).planned)
