"""Does every line end before anybody might notice that its pages are not visited?

Every claim is held against the same machine where every page is visited. Who gets in line is in test_lines.py.
"""

import numpy as np
import pytest
from machines import Player, Step, compiled_only, filled, full_scan, knob, mmap, scenario, spawn, write
from unit.kernels import seen
from unit.kernels.pairs import COSTS, N_PAGES, SLOW, Pair, in_line, n_lines, scan_on
from unit.kernels.tiny import copied, fill, shares, tiny_state

from ksmbatch import state
from ksmbatch.invariants import check_invariants
from ksmbatch.kernels import ksmd, line_ends
from ksmbatch.kernels.cohorts import JOINED
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
def test_pages_in_line_are_passed_one_by_one_where_a_limit_is_near(column: str) -> None:
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
    cursor = int(s.scan[Scan.CUR_PAGE])
    assert block < cursor < block + 500
    assert in_line(s) == list(range(cursor, block + 500))
    assert np.flatnonzero(s.cohort == JOINED).tolist() == list(range(2, cursor))
    assert seen.differing(seen.seen(s), seen.seen(exact)) == []
    assert check_invariants(s) == []


ALL = [2, 3, 4, 5, 9, 10, 11, 13, 14, 15]  # who is in line below
OF_B = [10, 11, 13, 14, 15]
# what happens; who is still in line if it does so after the first scan, and who has joined, and not been written up, after two
HAPPENS = {
    "discard": ({"op": "discard", "proc": "a", "area": "m", "first": 3, "count": 1}, [2, *ALL[2:]], [2, *ALL[2:]]),
    "munmap": ({"op": "munmap", "proc": "a", "area": "m", "first": 3, "count": 2}, [2, *ALL[3:]], [2, *ALL[3:]]),
    # pages that lead lines are among these
    "unmerge": (
        {"op": "madvise", "proc": "a", "area": "m", "first": 0, "count": 3, "advice": "unmergeable"},
        [9, 13, 14, 15],
        ALL[1:],
    ),
    "mprotect": ({"op": "mprotect", "proc": "a", "area": "m", "prot": "none"}, [], OF_B),
    "rebind": ({"op": "rebind", "proc": "a", "area": "m", "node": 1}, [], OF_B),
    "fork": ({"op": "fork", "proc": "a", "child": "c"}, [], OF_B),
    "exit": ({"op": "exit", "proc": "a"}, [], OF_B),
    # all are written up
    "merge_any": ({"op": "merge_any", "proc": "a", "value": 1}, [], []),
    "migrate": ({"op": "migrate", "proc": "a", "area": "m", "first": 0, "count": 4, "node": 1}, [], []),
    "smart_scan": (knob("smart_scan", 1), [], []),
    "use_zero_pages": (knob("use_zero_pages", 1), [], []),
    "max_page_sharing": (knob("max_page_sharing", 2), [], []),
    "merge_across_nodes": (knob("merge_across_nodes", 0), [], []),
    "run": ({"op": "run", "value": 2}, [], []),
    # nobody is concerned
    "read": ({"op": "read", "proc": "a", "area": "m", "first": 2, "count": 3}, ALL, ALL),
    "spawn": (spawn("c"), ALL, ALL),
    "mmap": (mmap("n", 4, proc="b"), ALL, ALL),
    "write": (write("m", 9, first=6), ALL, ALL),
    "pages_to_scan": (knob("pages_to_scan", 3), ALL, ALL),
}


def played(step: Step, scans: int, *, force_exact: bool) -> list[State]:
    """The machine behind each of some steps, of which one is `step`, so many scans after the first look."""
    begin = [*filled([3] * 6 + [5, 0, 0, 0]), *filled([3, 3, 5, 5, 5, 5], node=1, proc="b")]
    steps = [*begin, *[full_scan()] * scans, step, *[full_scan()] * 4]
    player = Player(scenario(*steps), force_exact=force_exact, keep_pfns=False)
    found = [copied(player.machine.state) for _ in player.outcomes()]
    return found[len(begin) :]


@pytest.mark.parametrize("scans", [1, 2])
@pytest.mark.parametrize("name", HAPPENS)
def test_whatever_happens_between_two_scans_comes_to_the_same(name: str, scans: int) -> None:
    step, waiting, joined = HAPPENS[name]
    with_lines = played(step, scans, force_exact=False)
    assert in_line(with_lines[0]) == ALL
    assert in_line(with_lines[scans]) == (waiting if scans == 1 else [])
    assert np.flatnonzero(with_lines[scans].cohort == JOINED).tolist() == (joined if scans == 2 else [])
    for s, exact in zip(with_lines, played(step, scans, force_exact=True), strict=True):
        assert check_invariants(s) == []
        assert seen.differing(seen.seen(s), seen.seen(exact)) == []


def test_lines_end_only_once() -> None:
    both = Pair(*[3] * 6)
    both.scan()
    line_ends.break_all_lines(both.s)
    before = seen.kept(both.s)
    line_ends.break_all_lines(both.s)
    assert seen.kept(both.s) == before
    both.scan(2)


def batch(s: State) -> None:
    ksmd.ksm_scan_thread(s, int(s.counters[Counter.WAKEUPS]) + 1, FOREVER, FOREVER)


def test_a_line_whose_ksm_page_goes_in_mid_scan_takes_no_other_line_with_it() -> None:
    # the smallest machine in which its slot was used again, and lines made before were forgotten
    both = Pair(4, 3, 3, 3, pages_to_scan=4)
    both.write(8, 8, 4, 4, first=N_PAGES)
    both.scan()
    assert both.in_line == [3, N_PAGES + 3]
    both.do(batch)
    both.write(5, 6, 7, first=1)
    both.scan()
    assert both.joined == [N_PAGES + 3]
    both.scan(2)


def test_one_that_leads_and_is_written_in_mid_scan_may_become_another_ones_partner() -> None:
    # the smallest machine in which the line still named it
    both = Pair(3, 2, 3, 3, pages_to_scan=1)
    both.scan()
    both.do(batch)
    both.write(2)
    both.do(batch)
    both.compare()
    assert (both.in_line, shares(both.s)[:2]) == ([], (1, 1))
    both.scan(2)
