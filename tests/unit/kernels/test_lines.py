"""Do pages in line join as if each had been visited, and who gets in line, and who leaves?

Every claim is held against the same machine where every page is visited. Who and what ends whole lines is in
test_lines_end.py, drawn machines in test_lines_drawn.py.
"""

from collections.abc import Callable

import numpy as np
import pytest
from unit.kernels.pairs import N_PAGES, Pair, in_line, members_of, n_lines, scan_on
from unit.kernels.tiny import fill, shares, tiny_state, visit

from ksmbatch import state, stateview
from ksmbatch.codes import Kernel, Policy, Status
from ksmbatch.kernels import cohorts, fault, ksmd
from ksmbatch.metrics import NodeCounter
from ksmbatch.state import FOREVER, Scan, State
from ksmbatch.stateview import StateView


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
    # of those who are left the first two lead
    assert both.joined == [other for other in range(6) if other != page][2:]
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


def test_those_in_an_earlier_line_have_joined_when_one_that_leads_a_later_one_turns_out_to_be_written() -> None:
    both = Pair(*[3] * 8, max_page_sharing=4, pages_to_scan=4)
    both.scan()
    assert both.in_line == [2, 3, 6, 7]
    both.do(visit)
    both.write(4, first=4)  # when it is too late to draw up lines anew
    assert (both.joined, both.in_line) == ([2, 3], [6, 7])
    both.scan()
    assert (both.joined, both.in_line) == ([2, 3], [])
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


@pytest.mark.parametrize("back", [[], [0], [1], [0, 1], [2], [0, 1, 2, 3]])
@pytest.mark.parametrize("late", [1, 2, 4])
def test_a_line_that_all_have_left_before_the_scan_comes_to_others_is_theirs_no_more(late: int, back: list[int]) -> None:
    both = Pair(*[3] * 4, pages_to_scan=4, max_page_sharing=3)
    both.write(*[5, 6] * 6, first=N_PAGES)
    # the fourth batch ends behind these: only the first mm is passed at once
    both.do(lambda s: ksmd.ksm_scan_thread(s, 4, FOREVER, FOREVER))
    both.compare()
    assert (both.in_line, int(both.s.scan[Scan.CUR_PAGE])) == ([2], N_PAGES + 12)
    both.write(7, 8, 9, 10)
    both.write(*[3] * late, first=N_PAGES + 12)
    both.scan()
    for page in back:
        both.write(3, first=page)
    both.scan(3)


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
