"""What does a write to a page at rest come to? Which go on resting, which are due, and what ksmd's next visit finds.

Whether all of it shows as if every page was visited is asked in tests/behaviour/test_gated.py.
"""

import pytest
from unit.kernels.tiny import fill, tiny_state, visit

from ksmbatch import state
from ksmbatch.codes import Kernel
from ksmbatch.kernels import cohorts, resting
from ksmbatch.metrics import Counter
from ksmbatch.state import State

OWN, OTHER = 16, 17  # contents that only one page ever holds; those below may be held by several
COSTS = {"checksum_ns": 1, "search_ns": 100, "skip_ns": 10_000}


def a_page_at_rest(*, scans: int = 3, kernel: Kernel = Kernel.V6_12, **knobs: int) -> State:
    """Page 0 has been passed so often, alone with content OWN."""
    s = tiny_state(kernel, n_contents=16, n_single=4, pages_to_scan=100, **{**COSTS, **knobs})
    fill(s, OWN)
    visit(s, scans)
    assert s.cohort[0] > cohorts.MERGED
    return s


def is_due(s: State) -> bool:
    return bool((s.calendar[:, 0] & 1).any())


def spent(s: State, batches: int = 1) -> int:
    before = int(s.counters[Counter.KSMD_CPU_NS])
    visit(s, batches)
    return int(s.counters[Counter.KSMD_CPU_NS]) - before


@pytest.mark.parametrize("smart_scan", [0, 1])
def test_a_page_that_gets_a_content_of_its_own_rests_on_and_its_next_visit_is_stopped_by_the_gate(smart_scan: int) -> None:
    s = a_page_at_rest(smart_scan=smart_scan)
    fill(s, OTHER)
    assert not is_due(s)
    assert s.cohort[0] > cohorts.MERGED
    assert cohorts.is_changed(s, 0)
    assert cohorts.last_checksum(s, 0) == OWN
    assert spent(s) == COSTS["checksum_ns"]
    assert not cohorts.is_changed(s, 0)
    assert cohorts.last_checksum(s, 0) == OTHER
    assert s.counters[Counter.PAGES_UNSHARED] == 0  # it is in no tree
    visit(s, 0 if not smart_scan else 1)  # a scan in which smart_scan skips it
    assert spent(s) == COSTS["search_ns"]
    assert s.counters[Counter.PAGES_UNSHARED] == 1


def test_a_page_that_has_its_content_back_before_the_visit_has_not_changed() -> None:
    s = a_page_at_rest()
    fill(s, OTHER)
    fill(s, OTHER + 1)
    assert cohorts.last_checksum(s, 0) == OWN
    fill(s, OWN)
    assert not cohorts.is_changed(s, 0)
    assert spent(s) == COSTS["search_ns"]


def test_after_the_visit_what_it_had_before_is_a_change_like_any_other() -> None:
    s = a_page_at_rest()
    fill(s, OTHER)
    visit(s)
    fill(s, OWN)
    assert cohorts.last_checksum(s, 0) == OTHER
    assert spent(s) == COSTS["checksum_ns"]


@pytest.mark.parametrize("smart_scan", [0, 1])
def test_a_page_that_gets_what_others_may_hold_is_visited_when_the_gate_lets_it_pass(smart_scan: int) -> None:
    s = a_page_at_rest(smart_scan=smart_scan)
    fill(s, 5)
    assert is_due(s)
    assert spent(s) == COSTS["checksum_ns"]
    assert s.cohort[0] != 0  # that was arithmetic
    assert cohorts.last_checksum(s, 0) == 5
    visit(s, 0 if not smart_scan else 1)  # a scan in which smart_scan skips it
    assert spent(s) == COSTS["search_ns"]
    assert s.pages[0, state.CHECKSUM] == 5


@pytest.mark.parametrize("smart_scan", [0, 1])
def test_a_page_that_has_back_what_others_may_hold_before_the_visit_passes_the_gate_then(smart_scan: int) -> None:
    s = a_page_at_rest(smart_scan=smart_scan)
    fill(s, 5)
    visit(s, 3)
    fill(s, 6)
    fill(s, 5)
    visit(s, 0 if not smart_scan else 2)  # scans in which smart_scan skips it
    assert spent(s) == COSTS["search_ns"]


def test_where_the_visit_after_the_next_is_too_far_away_for_the_calendar_the_next_one_is_made() -> None:
    s = a_page_at_rest(scans=10, smart_scan=1)  # visits are the 14th and the 23rd
    fill(s, 5)
    visit(s, 3)
    assert s.cohort[0] != 0
    assert spent(s) == COSTS["checksum_ns"]
    assert s.pages[0, state.CHECKSUM] == 5
    assert spent(s, 8) == 8 * COSTS["skip_ns"]
    assert spent(s) == COSTS["search_ns"]


def test_6_1_looks_into_the_stable_tree_first_so_that_the_page_is_visited() -> None:
    s = a_page_at_rest(kernel=Kernel.V6_1)
    fill(s, OTHER)
    assert is_due(s)
    assert s.cohort[0] == 0


def test_where_contents_share_checksums_the_page_is_visited() -> None:
    s = a_page_at_rest(checksum_class=[*range(16), OWN, OWN, 18, 19])
    fill(s, OTHER)
    assert is_due(s)
    assert spent(s) == COSTS["search_ns"]  # it seems to be what it was


def test_a_page_that_is_woken_says_itself_what_ksmd_saw_last() -> None:
    s = a_page_at_rest()
    fill(s, OTHER)
    visit(s)
    fill(s, OTHER + 1)
    resting.wake(s, 0)
    assert s.cohort[0] == 0
    assert not cohorts.is_changed(s, 0)
    assert s.pages[0, state.CHECKSUM] == OTHER
