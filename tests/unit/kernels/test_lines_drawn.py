"""Do drawn machines come to the same whether equal pages get in line or every page is visited? And do all cases occur?

Single claims are in test_lines.py; what can happen to processes in test_lines_events.py; whole runs in tests/parity.
"""

from collections import Counter as Bag

import numba
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.kernels import seen
from unit.kernels.redrawn import redrawn
from unit.kernels.tiny import copied, fill, tiny_state

from ksmbatch import state
from ksmbatch.codes import Status
from ksmbatch.invariants import check_invariants
from ksmbatch.kernels import fault, ksmd, line_ends, resting
from ksmbatch.kernels.cohorts import IN_LINE, JOINED
from ksmbatch.metrics import Counter
from ksmbatch.state import FOREVER, Knob, Scan, State
from ksmbatch.stateview import StateView

INTERPRETED = bool(numba.config.DISABLE_JIT)
PAGES_PER_MM, N_CONTENTS, N_SINGLE = 24, 6, 100
COSTS = {"wakeup_ns": 3, "skip_ns": 5, "ksm_visit_ns": 70, "checksum_ns": 900, "search_ns": 11_000, "merge_ns": 130_000}
LATE = 8  # pages at the end of the second mm that are absent at first

pages = st.integers(0, 2 * PAGES_PER_MM - 1)
contents = st.one_of(st.integers(0, 2), st.integers(0, N_CONTENTS - 1), st.just(N_CONTENTS))
writes = st.tuples(st.sampled_from(("write", "flicker")), pages, contents)  # flicker: something else, and then what was there
steps = st.one_of(
    st.tuples(st.just("late"), st.integers(1, LATE), contents),
    st.tuples(st.just("pages_to_scan"), st.sampled_from((1, 2, 7, 1000)), st.just(0)),
    st.tuples(st.just("smart_scan"), st.integers(0, 1), st.just(0)),
    st.tuples(st.just("discard"), pages, st.just(0)),
    st.tuples(st.just("stop"), st.integers(1, 40), st.sampled_from((1, 300, 20_000))),  # in mid-scan, mostly
)
# what happens before each scan
programs = st.lists(
    st.tuples(st.lists(steps, max_size=2), st.lists(writes, max_size=5)).map(lambda parts: [*parts[0], *parts[1]]),
    min_size=3,
    max_size=6,
)
knobs = st.fixed_dictionaries(
    {
        "smart_scan": st.integers(0, 1),
        "merge_across_nodes": st.integers(0, 1),
        "use_zero_pages": st.integers(0, 1),
        "max_page_sharing": st.sampled_from((3, 2, 4, 256)),
        "pages_to_scan": st.sampled_from((3, 2, 1000)),
        "sleep_millisecs": st.sampled_from((20, 0, 1)),
        "stable_node_chains_prune_millisecs": st.sampled_from((0, 20, 60, 200, 100_000)),
    }
)


class Singles:
    """Contents that one page alone ever has."""

    def __init__(self) -> None:
        self._left = iter(range(N_CONTENTS, N_CONTENTS + N_SINGLE))

    def content(self, drawn: int) -> int:
        return next(self._left) if drawn == N_CONTENTS else drawn


def write_up(s: State) -> None:
    """As Machine does before something may look at pages."""
    line_ends.break_all_lines(s)
    resting.write_all_joined(s)


def happen(s: State, kind: str, number: int, content: int, other: int) -> None:
    """A step of a program. `content`, `other`: one may be held by one page alone; of a stop microseconds."""
    if kind == "write":
        fill(s, content, first=number)
    elif kind == "flicker":
        frame = int(StateView(s).frame[number])
        before = int(s.frames[frame, state.FRAME_CONTENT]) if frame != state.NO_FRAME else N_CONTENTS
        if before < N_CONTENTS:
            fill(s, other, first=number)
            fill(s, before, first=number)
    elif kind == "late":
        fill(s, *[content if content < N_CONTENTS else 0] * number, first=2 * PAGES_PER_MM - LATE)
    elif kind == "pages_to_scan":
        s.knobs[Knob.PAGES_TO_SCAN] = number
    elif kind == "smart_scan":
        write_up(s)
        resting.wake_all(s)
        s.knobs[Knob.SMART_SCAN] = number
    elif kind == "stop":
        ksmd.ksm_scan_thread(s, FOREVER, FOREVER, int(s.counters[Counter.TIME_NS]) + number * content * 1000)
    else:
        line_ends.step_out(s, number, number + 1, 1)
        fault.zap_pages(s, number, number + 1)


def scan(s: State) -> None:
    assert ksmd.ksm_scan_thread(s, FOREVER, int(s.counters[Counter.FULL_SCANS]) + 1, FOREVER) == Status.DONE


def n_waiting(s: State) -> int:
    return int(np.count_nonzero(s.cohort >= IN_LINE))


def test_drawn_machines_come_to_the_same_with_lines_and_without() -> None:
    found = Bag[str]()

    @settings(max_examples=10 if INTERPRETED else 500)
    @given(
        st.lists(contents, min_size=2 * PAGES_PER_MM - LATE, max_size=2 * PAGES_PER_MM - LATE),
        st.sampled_from(((0, 1, 1, 0), (0, 0, 0, 0), (0, 0, 1, 0), (1, 0, 0, 1), (1, 0, 1, 0))),  # nodes of pages
        programs,
        knobs,
    )
    def play(begin: list[int], nids: tuple[int, ...], program: list[list[tuple[str, int, int]]], drawn: dict[str, int]) -> None:
        single = Singles()
        s = tiny_state(
            pages_per_mm=PAGES_PER_MM, n_contents=N_CONTENTS, n_single=N_SINGLE, n_nodes=256, n_members=512, **COSTS | drawn
        )
        s.page_bytes[:, state.PAGE_NID] = np.resize(nids, 2 * PAGES_PER_MM)
        fill(s, *map(single.content, begin))
        exact = copied(s)
        exact.knobs[Knob.FORCE_EXACT] = 1
        for between in program:
            for kind, number, content in between:
                waited = n_waiting(s)
                given_content = single.content(content) if kind == "write" else content
                other = single.content(N_CONTENTS)
                for machine in (s, exact):
                    happen(machine, kind, number, given_content, other)
                found["pages leave lines"] += 0 < n_waiting(s) < waited
            found.update(redrawn(s))
            waiting, joined = n_waiting(s), int(s.scan[Scan.N_JOINED])
            for machine in (s, exact):
                scan(machine)
            assert check_invariants(s) == []
            assert seen.differing(seen.seen(s), seen.seen(exact)) == []
            assert seen.calls(s) == seen.calls(exact)
            note(s, waiting, int(s.scan[Scan.N_JOINED]) - joined)

    def note(s: State, waited: int, n_joined: int) -> None:
        """What the scan has shown: so many `waited`, and `n_joined` of them have joined."""
        view = StateView(s)
        led = [view.nodes[line][state.CONTENT] for line in view.planned]
        found["lines of several contents"] += len(set(led)) > 1
        found["several lines of a content"] += len(set(led)) < len(led)
        found["pages join"] += n_joined > 0
        found["lines are cut"] += 0 < n_joined < waited
        found["chains of pages that have joined"] += n_joined > 0 and bool(view.chains)
        found["remote pages have joined"] += bool(np.any((s.cohort == JOINED) & is_remote(view)))

    def is_remote(view: StateView) -> np.ndarray:
        remote: np.ndarray = view.state.frame_bytes[view.frame, state.FRAME_NID] != view.page_nid
        return remote

    play()
    assert len(found) == 10
    assert INTERPRETED or min(found.values()) >= 10, found  # there are 60 of the rarest
