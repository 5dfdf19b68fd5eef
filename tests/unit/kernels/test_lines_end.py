"""Does every line end before anybody might notice that its pages are not visited?

Every claim is held against the same machine where every page is visited. Who gets in line is in test_lines.py.
"""

import numpy as np
import pytest
from machines import Player, Step, compiled_only, filled, full_scan, knob, mmap, scenario, spawn, write
from unit.kernels import seen
from unit.kernels.pairs import COSTS, N_PAGES, SLOW, Pair, in_line, n_lines, scan_on
from unit.kernels.tiny import copied, fill, tiny_state

from ksmbatch import state
from ksmbatch.invariants import check_invariants
from ksmbatch.kernels import ksmd, lines
from ksmbatch.kernels.cohorts import IN_LINE, JOINED
from ksmbatch.metrics import Counter
from ksmbatch.state import FOREVER, Knob, Scan, State
from ksmbatch.stateview import StateView

# who comes in between


@pytest.mark.parametrize("page", [0, 4, 9])
def test_a_third_party_that_searches_for_the_content_ends_its_lines(page: int) -> None:
    both = Pair(**{"max_page_sharing": 4})
    both.write(4, first=page)
    both.scan()
    both.write(3, first=page)  # ksmd sees in the next scan that it has changed, and searches in the one after that
    others = [other for other in range(10) if other != page]
    both.do(lambda s: fill(s, *[None if other == page else 3 for other in range(10)]))
    both.scan()
    assert both.in_line == [other for place, other in enumerate(others) if place % 4 >= 2]
    both.scan()
    assert both.joined == [other for place, other in enumerate(others) if place % 4 >= 2 and other < page]
    both.scan(2)


@pytest.mark.parametrize("delay", [0, 1, 20, 45, 100, 250])
@pytest.mark.parametrize("batch", [2, 3, 50])
@pytest.mark.parametrize("stale", [False, True])
def test_pages_in_line_pass_chains_that_are_due_for_pruning(delay: int, batch: int, stale: bool) -> None:
    both = Pair(*[3] * 9, stable_node_chains_prune_millisecs=delay, **SLOW | {"pages_to_scan": batch})
    both.scan(2)
    assert StateView(both.s).chains
    if stale:
        both.write(8, 8, 8, 8)  # all pages of a dup
    both.write(4, 2, 4, 2, 4, 2, 4, 2, 4, 2, first=N_PAGES)
    both.scan()
    assert len(both.in_line) == 4
    both.scan(4)


@pytest.mark.parametrize(("delay", "n_passed"), [(30, 1), (80, 3), (300, 8)])
def test_a_page_in_line_is_visited_if_it_passes_a_chain_that_is_due_and_so_are_those_behind_it(
    delay: int, n_passed: int
) -> None:
    both = Pair(*[3] * 9, stable_node_chains_prune_millisecs=delay, **SLOW)
    both.scan(2)
    both.write(*[4] * 16, first=N_PAGES)
    both.scan()
    waiting = both.in_line
    assert len(waiting) == 8
    both.scan()
    assert [page for page in both.joined if page in waiting] == waiting[:n_passed]
    both.scan(2)


def test_a_chain_of_pages_in_line_is_pruned_when_it_is_due() -> None:
    both = Pair(*[3] * 16, stable_node_chains_prune_millisecs=45, **SLOW)
    both.scan()
    assert len(both.in_line) == 8
    both.scan()
    assert both.joined
    both.scan(2)


# what ends all lines


def test_lines_go_on_after_a_limit_in_mid_scan() -> None:
    both = Pair(*[3] * 8, pages_to_scan=5)
    both.scan()
    both.do(lambda s: ksmd.ksm_scan_thread(s, int(s.counters[Counter.WAKEUPS]) + 1, FOREVER, FOREVER))
    assert (both.in_line, both.joined, n_lines(both.s)) == ([5, 6, 7], [2, 3, 4], 0)
    both.compare()
    both.scan(2)


@compiled_only
@pytest.mark.parametrize("column", ["WAKEUPS", "TIME_NS"])
def test_those_that_were_passed_before_a_limit_came_near_have_joined(column: str) -> None:
    block = int(state.PAGES_PER_BLOCK)
    s = tiny_state(
        pages_per_mm=block + 500,
        n_members=block * 4,
        max_page_sharing=block * 4,
        pages_to_scan=100,
        sleep_millisecs=20,
        **COSTS,
    )
    fill(s, *[3] * (block + 500))
    exact = copied(s)
    exact.knobs[Knob.FORCE_EXACT] = 1
    scan_on(s)
    limits = [FOREVER, FOREVER]
    if column == "WAKEUPS":
        limits[0] = int(s.counters[Counter.WAKEUPS]) + 43
    else:
        limits[1] = int(s.counters[Counter.TIME_NS]) + 1_450_000_000
    scan_on(exact)
    for machine in (s, exact):
        ksmd.ksm_scan_thread(machine, limits[0], FOREVER, limits[1])
    assert block <= s.scan[Scan.CUR_PAGE] < block + 500
    assert in_line(s) == []
    assert np.flatnonzero(s.cohort == JOINED).tolist() == list(range(2, block))
    assert seen.differing(seen.seen(s), seen.seen(exact)) == []
    assert check_invariants(s) == []


SEEING = {
    "discard": {"op": "discard", "proc": "a", "area": "m", "first": 3, "count": 1},
    "munmap": {"op": "munmap", "proc": "a", "area": "m", "first": 3, "count": 2},
    "unmerge": {"op": "madvise", "proc": "a", "area": "m", "first": 0, "count": 3, "advice": "unmergeable"},
    "mprotect": {"op": "mprotect", "proc": "a", "area": "m", "prot": "none"},
    "migrate": {"op": "migrate", "proc": "a", "area": "m", "first": 0, "count": 4, "node": 1},
    "fork": {"op": "fork", "proc": "a", "child": "c"},
    "exit": {"op": "exit", "proc": "a"},
    "smart_scan": knob("smart_scan", 1),
    "use_zero_pages": knob("use_zero_pages", 1),
    "max_page_sharing": knob("max_page_sharing", 2),
    "merge_across_nodes": knob("merge_across_nodes", 0),
    "run": {"op": "run", "value": 2},
}
BLIND = {
    "read": {"op": "read", "proc": "a", "area": "m", "first": 2, "count": 3},
    "spawn": spawn("c"),
    "mmap": mmap("n", 4, proc="a"),
    "write": write("m", 9, first=6),
    "pages_to_scan": knob("pages_to_scan", 3),
}


def played(step: Step, scans: int, *, force_exact: bool) -> list[State]:
    """The machine behind each of some steps, of which one is `step`, so many scans after the first look."""
    begin = [*filled([3] * 6 + [5, 0, 0, 0]), *filled([3, 3, 5, 5, 5, 5], node=1, proc="b")]
    steps = [*begin, *[full_scan()] * scans, step, *[full_scan()] * 4]
    player = Player(scenario(*steps), force_exact=force_exact, keep_pfns=False)
    found = [copied(player.machine.state) for _ in player.outcomes()]
    return found[len(begin) :]


@pytest.mark.parametrize("scans", [1, 2])
@pytest.mark.parametrize("name", [*SEEING, *BLIND])
def test_whatever_happens_between_two_scans_comes_to_the_same(name: str, scans: int) -> None:
    steps = SEEING | BLIND
    with_lines = played(steps[name], scans, force_exact=False)
    assert len(in_line(with_lines[0])) == 10
    # the others end lines, or what joined in them is written up
    assert bool(np.any(with_lines[scans].cohort >= IN_LINE)) == (name in BLIND and scans == 1)
    assert bool(np.any(with_lines[scans].cohort == JOINED)) == (name in BLIND and scans == 2)
    for s, exact in zip(with_lines, played(steps[name], scans, force_exact=True), strict=True):
        assert check_invariants(s) == []
        assert seen.differing(seen.seen(s), seen.seen(exact)) == []


def test_lines_end_only_once() -> None:
    both = Pair(*[3] * 6)
    both.scan()
    lines.break_all_lines(both.s)
    before = seen.kept(both.s)
    lines.break_all_lines(both.s)
    assert seen.kept(both.s) == before
    both.scan(2)
