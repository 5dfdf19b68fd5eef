"""Do pages in line join as if each had been visited, and is nobody in line where somebody might notice?

Every claim is held against the same machine where nobody rests and every tree is walked. Drawn machines are in
test_lines_drawn.py.
"""

from collections.abc import Callable

import numpy as np
import pytest
from machines import Player, Step, filled, full_scan, knob, mmap, scenario, spawn, write
from unit.kernels import seen
from unit.kernels.tiny import copied, fill, shares, tiny_state

from ksmbatch import state, stateview
from ksmbatch.codes import Kernel, Policy, Status
from ksmbatch.invariants import check_invariants
from ksmbatch.kernels import cohorts, fault, ksmd, lines
from ksmbatch.kernels.cohorts import IN_LINE, JOINED
from ksmbatch.metrics import Counter, NodeCounter
from ksmbatch.state import FOREVER, Knob, Scan, State
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


def test_the_third_of_three_equal_pages_is_in_line_after_the_first_scan_and_has_joined_after_the_second() -> None:
    both = Pair(3, 3, 3)
    both.scan()
    assert (both.in_line, both.joined, shares(both.s)) == ([2], [], (0, 0, 0))
    both.scan()
    assert (both.in_line, both.joined, shares(both.s)) == ([], [2], (1, 2, 0))
    assert members_of(both.s, 3) == [2, 1, 0]


def test_two_equal_pages_are_visited_both() -> None:
    both = Pair(3, 3)
    both.scan()
    assert n_lines(both.s) == 0
    both.scan(2)


@pytest.mark.parametrize("most", [2, 3, 4])
@pytest.mark.parametrize("n", range(1, 13))
def test_a_line_is_as_long_as_ksm_pages_may_be_shared_and_then_the_next_begins(most: int, n: int) -> None:
    both = Pair(*[3] * n, max_page_sharing=most)
    both.scan()
    waiting = [page for page in range(n) if page % most >= 2]
    assert both.in_line == waiting
    assert n_lines(both.s) == (-(-n // most) if n > 2 else 0)
    both.scan()
    assert both.joined == waiting
    assert bool(StateView(both.s).chains) == (n - n % most >= 2 * most or n > most + 1)
    both.scan(2)


@pytest.mark.parametrize("smart_scan", [0, 1])
def test_lines_of_several_contents_stand_beside_each_other(smart_scan: int) -> None:
    both = Pair(3, 4, 4, 3, 5, 4, 3, 3, 4, 1, 3, smart_scan=smart_scan, max_page_sharing=3)
    both.write(4, 3, 3, 5, 5, first=N_PAGES)
    both.scan()
    assert both.in_line == [5, 6, N_PAGES + 1, N_PAGES + 4]
    both.scan(4)


# who leaves


@pytest.mark.parametrize("page", [0, 1, 2, 3, 5])
def test_a_page_that_is_written_leads_no_line_and_is_in_none(page: int) -> None:
    both = Pair(*[3] * 6)
    both.scan()
    both.write(4, first=page)
    both.compare()
    assert both.in_line == [other for other in range(2, 6) if other != page]
    both.scan()
    # those who lead must be there; of the others each goes alone
    assert both.joined == ([] if page < 2 else [other for other in range(2, 6) if other != page])
    both.scan(2)


@pytest.mark.parametrize("page", [0, 1, 2, 3, 5])
def test_a_page_whose_content_comes_back_is_visited_and_so_are_those_behind_it(page: int) -> None:
    both = Pair(*[3] * 6)
    both.scan()
    both.write(4, first=page)
    both.write(3, first=page)
    both.compare()
    both.scan()
    assert both.joined == [other for other in range(2, 6) if other < page or page < 2]
    both.scan(2)


def test_all_may_leave_a_line() -> None:
    both = Pair(*[3] * 6)
    both.scan()
    both.write(*range(4, 10))
    both.compare()
    assert both.in_line == []
    both.scan(3)


def test_of_all_pages_with_a_content_the_one_that_leads_may_be_left() -> None:
    # the smallest machine in which a page came to rest that a line was named for, and was forgotten
    both = Pair(3, 3, 3)
    both.scan()
    both.write(5, 2, first=1)
    both.scan()
    assert both.s.by_content[0, 3, state.RESTING] == 1
    both.write(3, first=4)
    both.scan(3)
    assert shares(both.s)[:2] == (1, 1)


def test_one_that_leads_and_meets_nobody_leads_no_more() -> None:
    # the smallest machine in which its member was lost
    both = Pair(3, 3, 3, max_page_sharing=2)
    both.scan()
    assert n_lines(both.s) == 2
    both.scan()
    assert not np.any(both.s.page_bytes[:, state.ITEM_FLAGS] & state.LEADS)


def test_a_line_that_all_have_left_before_the_scan_came_to_others_is_nobodys() -> None:
    # ksmd has looked at 4 pages, and is stopped; what they hold then is another's
    both = Pair(*[3] * 4, pages_to_scan=4)
    both.do(lambda s: fill(s, 3, 3, 3, 3, first=N_PAGES))
    block = int(both.s.mms[0, state.END_PAGE])
    assert block == N_PAGES
    # a limit that is met in the second mm only
    both.do(lambda s: ksmd.ksm_scan_thread(s, FOREVER, FOREVER, 9 * COSTS["checksum_ns"]))
    both.compare()
    both.write(4, 4, 5, 3)
    both.write(6, 3, first=N_PAGES)
    both.scan(3)


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
    assert 0 < len(both.joined)
    both.scan(2)


# what ends all lines


def test_a_limit_in_mid_scan_ends_all_lines() -> None:
    both = Pair(*[3] * 8, pages_to_scan=5)
    both.scan()
    both.do(lambda s: ksmd.ksm_scan_thread(s, int(s.counters[Counter.WAKEUPS]) + 1, FOREVER, FOREVER))
    assert (both.in_line, both.joined, n_lines(both.s)) == ([], [], 0)
    both.compare()
    both.scan(2)


@pytest.mark.parametrize("column", ["WAKEUPS", "TIME_NS"])
def test_those_that_were_passed_before_a_limit_came_near_have_joined(column: str) -> None:
    block = int(state.PAGES_PER_BLOCK)
    s = tiny_state(pages_per_mm=block + 500, n_members=block * 4, max_page_sharing=block * 4, pages_to_scan=100, sleep_millisecs=20, **COSTS)
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


# where nobody gets in line


def without_lines(s: State) -> None:
    """Five equal pages are looked at, and nobody is in line."""
    fill(s, *[3] * 4, first=0)
    fill(s, 3, first=4)
    scan_on(s)
    assert s.scan[Scan.LAST_LINE] == state.NIL
    assert in_line(s) == []


@pytest.mark.parametrize(
    "built",
    [
        pytest.param({"checksum_class": list(range(6))}, id="where_contents_may_share_checksums"),
        pytest.param({"keep_pfns": True}, id="where_page_frame_numbers_show"),
        pytest.param({"n_nids": 5}, id="on_five_nodes"),
        pytest.param({"kernel": Kernel.V6_1}, id="on_6_1"),
        pytest.param({"policy": Policy.NUKSM}, id="where_ksmd_moves_pages"),
        pytest.param({"policy": Policy.REPLICATE}, id="where_ksmd_copies_pages"),
        pytest.param({"n_nodes": 8}, id="with_few_stable_nodes_left"),
        pytest.param({"n_members": 8}, id="with_few_members_left"),
    ],
)
def test_nobody_gets_in_line(built: dict[str, object]) -> None:
    without_lines(tiny_state(**built))  # type: ignore[arg-type]


def test_nobody_gets_in_line_near_a_limit() -> None:
    s = tiny_state()
    fill(s, 3, 3, 3)
    assert ksmd.ksm_scan_thread(s, 2, FOREVER, FOREVER) == Status.DONE
    assert in_line(s) == []


def without_flag(bit: int) -> Callable[[State], None]:
    def change(s: State) -> None:
        s.page_bytes[3, state.PAGE_FLAGS] ^= np.uint8(bit)

    return change


def a_freed_item(s: State) -> None:
    s.page_bytes[3, state.ITEM_FLAGS] |= np.uint8(state.FREED)


def far_from_home(s: State) -> None:
    s.page_bytes[3, state.PAGE_NID] = 1


PECULIAR = {
    "without_access": without_flag(state.PROT_NONE),
    "without_an_anon_vma": without_flag(state.ANON),
    "not_mergeable": without_flag(state.MERGEABLE),
    "with_a_freed_item": a_freed_item,
    "far_from_home": far_from_home,
}


@pytest.mark.parametrize("name", PECULIAR)
def test_a_page_that_is_peculiar_is_in_no_line(name: str) -> None:
    s = tiny_state()
    fill(s, *[3] * 4)
    PECULIAR[name](s)
    scan_on(s)
    assert in_line(s) == [2]


def test_pages_shared_after_a_fork_are_in_no_line() -> None:
    s = tiny_state()
    fill(s, *[3] * 4)
    fault.fork_pages(s, 0, 1, 4)
    scan_on(s)
    assert n_lines(s) == 0


def test_pages_of_zeros_are_in_line_where_they_are_merged_as_any() -> None:
    both = Pair(*[0] * 4)
    both.scan()
    assert both.in_line == [2, 3]
    zeros = Pair(*[0] * 4, use_zero_pages=1)
    zeros.scan()
    assert n_lines(zeros.s) == 0
    for each in (both, zeros):
        each.scan(2)


def test_nobody_waits_for_a_ksm_page_that_there_is() -> None:
    both = Pair(3, 3)
    both.scan(2)
    both.write(3, 3, 3, first=4)
    both.scan()
    assert n_lines(both.s) == 0
    both.scan(2)


def test_nobody_gets_in_line_while_others_are_passed() -> None:
    both = Pair(3, 3, 3)
    both.scan()
    both.write(4, 4, 4, first=N_PAGES)
    both.scan()
    assert n_lines(both.s) == 0
    both.scan(2)


# where frames are


@pytest.mark.parametrize(
    ("across", "waiting", "frames", "remote"),
    [
        # the frame of page 1 remains, on node 1, for 4 pages that are at home on node 0
        (1, [2, 3, 4, 5, 6], [0, 1], [4, 0]),
        (0, [3, 4, 6], [1, 1], [0, 0]),
    ],
)
def test_frames_go_and_mappings_become_remote_where_pages_in_line_are_passed(
    across: int, waiting: list[int], frames: list[int], remote: list[int]
) -> None:
    both = Pair(merge_across_nodes=across)
    nids = [0, 1, 0, 0, 0, 1, 1]
    both.do(lambda s: s.page_bytes.__setitem__((slice(0, 7), state.PAGE_NID), nids))
    both.write(*[3] * 7)
    both.scan()
    assert both.in_line == waiting
    both.scan()
    assert both.s.node_counters[:, NodeCounter.FRAMES].tolist() == frames
    assert both.s.node_counters[:, NodeCounter.REMOTE_MAPPINGS].tolist() == remote
    both.scan(2)


def test_what_is_shown_knows_the_cohorts() -> None:
    for name in ("MERGED", "JOINED", "SEARCHING", "FIRST_COHORT", "N_COHORTS", "IN_LINE"):
        assert getattr(stateview, name) == getattr(cohorts, name)
