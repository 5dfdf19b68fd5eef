"""Do drawn machines come to the same with lines and without, whatever happens to processes and in the midst of scans?

Here all goes by way of Machine, which has pages step out of lines before something happens to them. Drawn memory that is only
written is in test_lines_drawn.py; single claims are in test_lines.py, test_lines_end.py and test_relining.py.
"""

from collections import Counter as Bag
from collections.abc import Iterator

import numba
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from machines import Player, Step, scenario
from unit.kernels import seen
from unit.kernels.drawn_events import Draft, Op, fills, knobs, programs
from unit.kernels.pairs import COSTS
from unit.kernels.redrawn import redrawn
from unit.kernels.tiny import copied

from ksmbatch.invariants import check_invariants
from ksmbatch.kernels.cohorts import IN_LINE, JOINED
from ksmbatch.metrics import Counter
from ksmbatch.state import Knob, Scan, State

INTERPRETED = bool(numba.config.DISABLE_JIT)
EVENTS = ("discard", "munmap", "madvise", "mprotect", "rebind", "fork", "exit", "migrate", "merge_any", "spawn", "knob")


def states(draft: Draft, drawn: dict[str, int], sleep: int, *, force_exact: bool) -> Iterator[State]:
    """The machine behind each step of `draft`. Nothing follows where the kernel would use freed memory."""
    player = Player(scenario(*draft.steps, **drawn), force_exact=force_exact, keep_pfns=False)
    for name, cost in (COSTS | {"sleep_millisecs": sleep}).items():
        player.machine.state.knobs[Knob[name.upper()]] = cost
    for number, outcome in enumerate(player.outcomes()):
        if outcome.undefined:
            return
        if number in draft.stops:
            now = int(player.machine.state.counters[Counter.TIME_NS])
            player.machine.scan(until_ns=now + 1000 * draft.stops[number])
        yield player.machine.state


def test_drawn_processes_come_to_the_same_with_lines_and_without() -> None:
    found = Bag[str]()

    @settings(max_examples=5 if INTERPRETED else 500)
    @given(fills, programs, knobs, st.sampled_from((20, 0, 1)))
    def play(filled_with: list[list[int]], program: list[Op], drawn: dict[str, int], sleep: int) -> None:
        draft = Draft(filled_with)
        n_filled = len(draft.steps)
        for op in program:
            draft.add(op)
        with_lines = states(draft, drawn, sleep, force_exact=False)
        without = states(draft, drawn, sleep, force_exact=True)
        before: State | None = None
        for number, (s, exact) in enumerate(zip(with_lines, without, strict=True)):
            if number < n_filled:
                continue
            assert check_invariants(s) == []
            assert seen.differing(seen.seen(s), seen.seen(exact)) == []
            assert seen.calls(s) == seen.calls(exact)
            if before is not None:
                found.update(shown(draft.steps[number], before, s))
            before = copied(s)

    play()
    if not INTERPRETED:
        assert {name: found[name] for name in FEATURES if found[name] < 2} == {}


FEATURES = {f"{op} {when}" for op in EVENTS for when in ("in mid-scan", "between scans")} | {
    "a limit in mid-scan",
    "a page in line ahead is written in mid-scan",
    "a page that has joined is written in mid-scan",
    "one that was in line leads",
    "one that led is in line",
    "some step out of lines, and others do not",
    "some are in line in mid-scan after memory went",
}


def shown(step: Step, before: State, s: State) -> set[str]:
    """What `step` has shown, from the machine `before` it to `s`."""
    waited, waits = before.cohort >= IN_LINE, s.cohort[: len(before.cohort)] >= IN_LINE
    if not waited.any():
        return set()
    is_running = bool(before.scan[Scan.LINES_SEQ] != before.scan[Scan.SEQ])
    op = step["op"]
    if op in EVENTS:
        names = {f"{op} {'in mid-scan' if is_running else 'between scans'}"}
        if (waited & ~waits).any() and waits.any():
            names.add("some step out of lines, and others do not")
        if is_running and op in ("discard", "munmap", "exit") and waits.any():
            names.add("some are in line in mid-scan after memory went")
        return names
    if op == "write" and is_running:
        names = {"a page in line ahead is written in mid-scan"} if (waited & ~waits).any() else set()
        return names | ({"a page that has joined is written in mid-scan"} if (left_joined(before, s)).any() else set())
    if op not in ("scan", "full_scan"):
        return set()
    names = {"a limit in mid-scan"} if s.scan[Scan.LINES_SEQ] not in (0, s.scan[Scan.SEQ]) else set()
    return names | redrawn(before)


def left_joined(before: State, s: State) -> np.ndarray:
    """bool[n_pages]: whether the page was JOINED, and is not now."""
    left: np.ndarray = (before.cohort == JOINED) & (s.cohort[: len(before.cohort)] != JOINED)
    return left
