"""Is passing by arithmetic what passing one by one would be? smart_scan's cohorts, batches, regions, the calendar, waking.

Who may rest is in test_retire.py. Whole runs, where pages rest and where none does, are compared in tests/parity/test_rest.py.
"""

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.kernels import seen
from unit.kernels.tiny import fill, frames_of, shares, tiny_state, visit

from ksmbatch import state
from ksmbatch.accel import entry_kernel, prefetch
from ksmbatch.codes import Run, Status
from ksmbatch.kernels import bits, cohorts, cursor, fault, ksmd, mm_slot, passing, resting, smart_scan
from ksmbatch.kernels.cohorts import (
    FIRST_COHORT,
    IS_MERGED,
    IS_SKIP,
    IS_VISIT,
    MERGED,
    N_COHORTS,
    NEXT_VISIT,
    OLDEST,
    RENAMED_BY,
    SEARCHING,
    SKIPS_LEFT,
    VISITS,
    WAS_UNSTABLE,
)
from ksmbatch.metrics import Counter
from ksmbatch.state import FOREVER, NO_MM, PAGES_PER_BLOCK, SCANS_AHEAD, Knob, Scan, State

N_CALLS = 600


def literal_smart_scan(n_calls: int) -> Iterator[tuple[bool, int, int]]:
    """Per call of should_skip_rmap_item() for a page that never merges: whether it is visited, age and remaining_skips then.

    Mirrors: mm/ksm.c should_skip_rmap_item(), line by line
    """
    age = remaining_skips = 0
    for _ in range(n_calls):
        before = age
        if age != 255:
            age += 1
        if before < 3:
            yield True, age, remaining_skips
        elif not remaining_skips:
            remaining_skips = int(smart_scan.skip_age(before))
            yield True, age, remaining_skips
        else:
            remaining_skips -= 1
            yield False, age, remaining_skips


LITERAL = list(literal_smart_scan(N_CALLS))
VISITED = [visited for visited, _, _ in LITERAL]


def counters(s: State, *names: str) -> list[int]:
    return [int(s.counters[Counter[name.upper()]]) for name in names]


def scans(s: State, n: int) -> None:
    """ksmd completes `n` scans."""
    before = counters(s, "full_scans")[0]
    assert ksmd.ksm_scan_thread(s, FOREVER, before + n, FOREVER) == Status.DONE


def due_in(s: State, page: int) -> list[int]:
    """The scans, of the present one and those after it as far as the calendar goes, that have to visit `page`."""
    seq = int(s.scan[Scan.SEQ])
    return [scan for scan in range(seq, seq + int(SCANS_AHEAD)) if cursor.is_due(s, page, scan)]


def lonely(*, scanned: int, n: int = 8, **knobs: int) -> State:
    """Pages 0 to n - 1 of two mms, each with a content of its own, after so many scans."""
    s = tiny_state(pages_per_mm=max(4, n // 2), n_contents=n + 4, **knobs)
    fill(s, *range(1, n + 1))
    scans(s, scanned)
    return s


# smart_scan by arithmetic


def test_calls_tell_whether_a_page_is_visited_how_many_skips_are_left_and_when_the_next_visit_is() -> None:
    for n, (visited, age, skips) in enumerate(LITERAL[:500], start=1):
        calls = int(cohorts.calls_of(age, skips))
        assert calls == n if n < 14 else calls >= 14
        assert (n - calls) % cohorts.PERIOD == 0
        assert bool(VISITS[calls]) == visited
        assert SKIPS_LEFT[calls] == skips
        assert NEXT_VISIT[calls] == VISITED.index(True, n) + 1 - n


def test_no_page_is_passed_by_for_longer_than_the_calendar_goes() -> None:
    assert max(NEXT_VISIT) < SCANS_AHEAD


@pytest.mark.parametrize("began", [1, 2, 3, 4, 5, 7, 9, 13, 14, 15, 22, 23, 200])
def test_the_passes_of_a_cohort_are_those_of_the_literal_machine_for_600_calls(began: int) -> None:
    # pages that began in other scans stand beside it, so that cohorts are renamed into others that are in use
    s = state.allocate(n_pages=4, n_mms=1, n_nids=1, n_dup=1, rank=np.zeros(1, np.uint32), checksum_class=None)
    s.mms[0, [state.FIRST_PAGE, state.END_PAGE]] = 0, 4
    s.pages[:, state.FRAME] = range(4)
    _, age, skips = LITERAL[began - 1]
    passing.begin_passes(s)
    resting.rest(s, 0, int(cohorts.cohort_of(int(cohorts.calls_of(age, skips)), int(s.scan[Scan.SEQ]))))
    s.page_bytes[:, state.ITEM_FLAGS] = state.ITEM
    for n in range(began + 1, N_CALLS + 1):
        passing.begin_passes(s)
        if n % 50 == 0:
            resting.rest(s, n // 50 % 3 + 1, int(cohorts.cohort_of(23, int(s.scan[Scan.SEQ])))) if n <= 150 else None
        visited, age, skips = LITERAL[n - 1]
        was_in_tree = VISITED[n - 2] and n - 1 >= 2
        expected = (IS_VISIT if visited else IS_SKIP) | (WAS_UNSTABLE if was_in_tree else 0)
        if n >= 3:  # before that it rests in no tree, and this is the scan in which it began
            assert s.cohorts[0, s.cohort[0]] == expected, f"call {n}"
        resting.show(s, 0, int(s.scan[Scan.SEQ]))
        shown_age, shown_skips = s.page_bytes[0, [state.AGE, state.SKIPS]].tolist()
        assert shown_age == age if age < 14 else 14 <= shown_age < 14 + cohorts.PERIOD
        assert shown_skips == skips
        assert bool(s.page_bytes[0, state.ITEM_FLAGS] & state.UNSTABLE) == (visited and n >= 2)
        assert int(cohorts.calls_of(shown_age, shown_skips)) % 9 == n % 9


def test_a_page_whose_age_has_come_to_its_end_goes_on_as_before() -> None:
    assert LITERAL[254][1] == LITERAL[599][1] == 255
    s = lonely(scanned=1, smart_scan=1)
    seen = []
    for _ in range(N_CALLS - 1):
        before = counters(s, "pages_scanned", "pages_skipped")
        scans(s, 1)
        seen.append(np.subtract(counters(s, "pages_scanned", "pages_skipped"), before).tolist())
    assert seen == [[8, 0] if visited else [0, 8] for visited in VISITED[1:]]


def test_a_cohort_is_renamed_by_whole_periods_with_all_its_pages() -> None:
    s = state.allocate(n_pages=9000, n_mms=1, n_nids=1, n_dup=1, rank=np.zeros(1, np.uint32), checksum_class=None)
    assert RENAMED_BY % cohorts.PERIOD == 0
    assert N_COHORTS % cohorts.PERIOD == 0
    old, new = 10, 20
    for page in (5, 4100, 8999):
        resting.rest(s, page, old)
    resting.rest(s, 6, new)
    cohorts.rename_oldest(s, old, new)
    assert np.flatnonzero(s.cohort == new).tolist() == [5, 6, 4100, 8999]
    assert s.cohorts[1:, new].tolist() == [2, 1, 1]
    assert not s.cohorts[1:, old].any()
    assert int(cohorts.calls_after(int(cohorts.cohort_of(int(OLDEST), 7)), 7)) == OLDEST


@pytest.mark.parametrize("bit", range(32))
def test_the_lowest_bit_is_found(bit: int) -> None:
    assert bits.lowest_bit(1 << bit) == bit
    assert bits.lowest_bit(0xFFFFFFFF >> bit << bit) == bit


# passing


@settings(max_examples=300)
@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=6),
    st.integers(1, 12),
    st.integers(1, 12),
    st.integers(0, 3),
    st.integers(0, 9),
)
def test_batches_end_where_visits_one_by_one_would_end_them(
    visits: list[int], batch: int, left: int, sleep_ms: int, wakeup_ns: int
) -> None:
    s = tiny_state(pages_to_scan=batch, sleep_millisecs=sleep_ms, wakeup_ns=wakeup_ns)
    s.scan[Scan.BUDGET] = budget = min(left, batch)
    wakeups = 0
    for n in visits:
        passing.take_budget(s, n)
        for _ in range(n):
            budget -= 1
            if budget == 0:
                budget = batch
                wakeups += 1
    assert s.scan[Scan.BUDGET] == budget
    times = [wakeups, wakeups * wakeup_ns, wakeups * (wakeup_ns + sleep_ms * 1_000_000)]
    assert counters(s, "wakeups", "ksmd_cpu_ns", "time_ns") == times


def test_passes_cost_what_visits_and_skips_cost() -> None:
    s = tiny_state(pages_to_scan=1000, ksm_visit_ns=1, search_ns=100, skip_ns=10_000, checksum_ns=1_000_000)
    s.scan[Scan.BUDGET] = 500
    s.counters[Counter.PAGES_UNSHARED] = 50
    passing.pass_by(s, 7, 5, 3, 4, 2, 0)
    assert counters(s, "pages_scanned", "pages_skipped", "tree_searches") == [12, 3, 3]
    assert counters(s, "pages_unshared") == [49]  # of the 5 that are visited 3 come, and 4 of the 8 had been there
    assert counters(s, "ksmd_cpu_ns", "time_ns") == [2_030_307, 2_030_307]
    assert s.scan[Scan.BUDGET] == 488


def test_a_careful_region_takes_from_the_budget_only() -> None:
    s = tiny_state(pages_to_scan=4)
    s.scan[[Scan.BUDGET, Scan.CAREFUL]] = 1, 1
    passing.pass_by(s, 0, 1, 0, 0, 0, 0)
    assert s.scan[Scan.BUDGET] == 0
    assert counters(s, "wakeups") == [0]


@settings(max_examples=100)
@given(
    st.sampled_from((20, 272)),
    st.lists(
        st.tuples(st.integers(0, 2 * 4096 - 1), st.integers(0, 253), st.booleans(), st.booleans()),
        max_size=60,
        unique_by=lambda each: each[0],
    ),
)
def test_a_whole_block_comes_to_what_its_pages_come_to(scans: int, at_rest: list[tuple[int, int, bool, bool]]) -> None:
    s = state.allocate(n_pages=8192, n_mms=1, n_nids=1, n_dup=1, rank=np.zeros(1, np.uint32), checksum_class=None)
    for _ in range(scans):
        passing.begin_passes(s)
    for page, number, has_changed, was_stopped in at_rest:
        cohort = 1 + number % min(2 + scans, 254)  # one that has begun
        resting.rest(s, page, cohort)
        if has_changed and cohort >= SEARCHING:
            cohorts.note_changed(s, page)
        if was_stopped and s.cohorts[0, cohort] & cohorts.WAS_UNSTABLE:
            s.gated[s.scan[Scan.SEQ] - 1 & 1, page // 32] |= np.uint32(1 << page % 32)
    block = int(PAGES_PER_BLOCK)
    for first in (0, block):
        at_once = passing.expected_passes(s, first, first + block)
        by_page = [
            passing.expected_passes(s, page, page + 1) for page in (p for p, *_ in at_rest) if first <= page < first + block
        ]
        assert list(map(int, at_once)) == np.array(by_page, np.int64).reshape(-1, 6).sum(axis=0).tolist()


limits = st.lists(st.tuples(st.sampled_from(("wakeups", "full_scans", "ns")), st.integers(1, 9)), max_size=30)


@settings(max_examples=60)
@given(
    st.lists(st.integers(1, 30), min_size=12, max_size=12),
    st.integers(1, 5),
    st.integers(0, 1),
    st.integers(0, 1),
    st.integers(0, 1),
    limits,
)
def test_how_often_somebody_looks_changes_nothing(
    contents: list[int], batch: int, smart_scan: int, sleep_ms: int, across: int, stops: list[tuple[str, int]]
) -> None:
    # with a limit of batches, scans or time near, pages are passed one by one
    def machine() -> State:
        s = tiny_state(
            pages_per_mm=6,
            n_contents=31,
            pages_to_scan=batch,
            smart_scan=smart_scan,
            sleep_millisecs=sleep_ms,
            merge_across_nodes=across,
            max_page_sharing=2,
            stable_node_chains_prune_millisecs=4,
            wakeup_ns=3,
            skip_ns=5,
            ksm_visit_ns=70,
            checksum_ns=900,
            search_ns=11_000,
            merge_ns=130_000,
        )
        fill(s, *contents)
        return s

    at_once, in_steps = machine(), machine()
    for kind, by in stops:
        until = {"wakeups": FOREVER, "full_scans": FOREVER, "ns": FOREVER}
        now = {name: counters(in_steps, column)[0] for name, column in (("wakeups", "wakeups"), ("full_scans", "full_scans"))}
        until[kind] = counters(in_steps, "time_ns")[0] + by * 7000 if kind == "ns" else now[kind] + by
        ksmd.ksm_scan_thread(in_steps, until["wakeups"], until["full_scans"], until["ns"])
    if counters(in_steps, "full_scans")[0] < 20:
        scans(in_steps, 20 - counters(in_steps, "full_scans")[0])
    end = counters(in_steps, "wakeups")[0] + 3
    for s in (at_once, in_steps):
        assert ksmd.ksm_scan_thread(s, end, FOREVER, FOREVER) == Status.DONE
    assert seen.differing(seen.seen(at_once), seen.seen(in_steps)) == []
    assert at_once.counters.tolist() == in_steps.counters.tolist()
    assert seen.ages(at_once) == seen.ages(in_steps)


# an open region


def opened(cursor: int, **knobs: int) -> State:
    """8 lonely pages at rest in mm 0, of which a scan has just opened the region, and come to `cursor`."""
    s = tiny_state(pages_per_mm=8, n_contents=12, search_ns=100, **knobs)
    fill(s, *range(1, 9))
    scans(s, 2)
    s.scan[Scan.BUDGET] = 50
    ksmd.start_scan(s)
    ksmd.open_region(s, 8, FOREVER, FOREVER, FOREVER)
    assert s.scan[[Scan.PENDING_VISITS, Scan.PASSED_TO, Scan.CAREFUL]].tolist() == [8, 0, 0]
    s.scan[Scan.CUR_PAGE] = cursor
    return s


def test_a_page_woken_ahead_of_the_cursor_is_visited_in_this_scan_and_no_longer_counted_as_passed() -> None:
    s = opened(3)
    resting.wake(s, 5)
    assert s.scan[[Scan.PENDING_VISITS, Scan.PENDING_WAS, Scan.PASSED_TO]].tolist() == [7, 7, 0]
    assert due_in(s, 5) == [3]
    assert (s.cohort[5], s.cohorts[1, SEARCHING]) == (0, 7)


def test_a_page_woken_behind_the_cursor_has_been_passed_and_is_visited_in_the_next_scan() -> None:
    s = opened(6)
    before = counters(s, "pages_scanned", "time_ns")
    resting.wake(s, 2)
    # page 5, which is under visit, has not been passed yet
    assert np.subtract(counters(s, "pages_scanned", "time_ns"), before).tolist() == [5, 500]
    assert s.scan[[Scan.PENDING_VISITS, Scan.PASSED_TO]].tolist() == [3, 5]
    assert due_in(s, 2) == [4]
    assert s.by_content[0, 3, state.UNSTABLE_AT] == 3  # it was put into the tree in passing, and can be found there


def test_catching_up_leaves_out_what_was_visited() -> None:
    s = opened(6)
    cursor.make_due(s, 1, 3)
    cursor.make_due(s, 4, 3)
    before = counters(s, "pages_scanned")[0]
    passing.catch_up(s)
    assert counters(s, "pages_scanned")[0] - before == 3  # 0, 2 and 3
    passing.catch_up(s)
    assert counters(s, "pages_scanned")[0] - before == 3


def test_what_is_left_of_a_region_is_passed_at_its_end() -> None:
    s = opened(6)
    passing.catch_up(s)
    passing.pass_pending(s)
    assert counters(s, "pages_scanned") == [24]
    assert s.scan[Scan.PASSED_TO] == 8


def test_nobody_catches_up_while_no_region_is_open() -> None:
    s = lonely(scanned=2)
    before = s.counters.tolist()
    passing.catch_up(s)
    assert s.counters.tolist() == before


# waking


def test_a_page_is_woken_as_if_each_of_its_passes_had_been_made() -> None:
    for n in range(2, 40):
        s = lonely(scanned=n, smart_scan=1)
        literal = lonely(scanned=n, smart_scan=1, force_exact=1)
        resting.wake(s, 3)
        assert s.cohort[3] == 0
        assert s.page_bytes[3, state.SKIPS] == literal.page_bytes[3, state.SKIPS]
        assert min(s.page_bytes[3, state.AGE], 14) == min(literal.page_bytes[3, state.AGE], 14)
        in_tree = [bool(one.page_bytes[3, state.ITEM_FLAGS] & state.UNSTABLE) for one in (s, literal)]
        assert in_tree == [VISITED[n - 1]] * 2
        assert due_in(s, 3) == [n + 1]


def test_a_page_that_is_awake_stays_so_and_is_visited_next() -> None:
    s = tiny_state()
    fill(s, 1)
    resting.wake(s, 0)
    assert due_in(s, 0) == [1]


@pytest.mark.parametrize("written_after", range(2, 30))
def test_a_page_written_at_rest_is_seen_to_have_changed_by_its_next_visit_and_sleeps_on_to_the_one_after_it(
    written_after: int,
) -> None:
    s = lonely(scanned=written_after, smart_scan=1, checksum_ns=1)
    fill(s, 10)
    next_visit = VISITED.index(True, written_after) + 1
    one_after = VISITED.index(True, next_visit) + 1
    is_too_far = one_after - written_after >= int(SCANS_AHEAD)  # then it is visited before
    assert due_in(s, 0) == [next_visit if is_too_far else one_after]
    assert s.cohort[0] >= FIRST_COHORT
    while counters(s, "full_scans")[0] < next_visit - 1:
        scans(s, 1)
        assert cohorts.last_checksum(s, 0) == 1
    scans(s, 1)
    assert cohorts.last_checksum(s, 0) == 10
    assert counters(s, "ksmd_cpu_ns") == [8 + 1]  # every page was hashed once, and this one a second time


def test_a_page_written_twice_at_rest_is_visited_once() -> None:
    s = lonely(scanned=6, smart_scan=1)
    fill(s, 10)
    fill(s, 11)
    assert due_in(s, 0) == [14]  # the 9th looks at the checksum
    assert s.by_content[0, 1, state.RESTING] == 0


def test_without_smart_scan_a_page_written_at_rest_is_visited_in_the_scan_after_the_next() -> None:
    s = lonely(scanned=3)
    assert s.cohort[0] == SEARCHING
    fill(s, 10)
    assert (s.cohort[0], due_in(s, 0)) == (SEARCHING, [5])


def test_the_calendar_is_used_again_and_again_and_keeps_nothing() -> None:
    s = lonely(scanned=1, smart_scan=1)
    for scan in range(2, 60):
        if scan % 7 == 0:
            fill(s, scan % 3 + 9, first=2)
        scans(s, 1)
        assert not s.calendar[scan % int(SCANS_AHEAD)].any()
        for page in range(8):
            assert len(due_in(s, page)) <= 1
    assert counters(s, "pages_scanned")[0] < 8 * 30


def test_all_pages_can_be_woken_at_once() -> None:
    s = lonely(scanned=6, smart_scan=1)
    resting.wake_all(s)
    assert not s.cohort.any()
    assert not s.cohorts[1:].any()
    assert all(due_in(s, page) == [7] for page in range(8))


def test_in_mid_scan_all_pages_that_are_woken_are_visited_in_the_scan_in_which_the_cursor_meets_them() -> None:
    s = lonely(scanned=2, pages_to_scan=1)
    visit(s, 3)
    resting.wake_all(s)
    scans(s, 1)
    assert counters(s, "pages_scanned") == [24]
    assert shares(s) == (0, 0, 8)


# events in mid-scan


@pytest.mark.parametrize("smart_scan", [0, 1])
def test_unmerging_in_mid_scan_breaks_the_scan_off_and_the_next_visits_every_page(smart_scan: int) -> None:
    s = tiny_state(pages_to_scan=1, smart_scan=smart_scan)
    fill(s, 1, 2, 3, 3)
    fill(s, 3, 4, first=4)
    scans(s, 3)
    visit(s, 3)
    s.knobs[Knob.RUN] = Run.UNMERGE
    ksmd.unmerge_and_remove_all_rmap_items(s)
    assert not s.cohort.any()
    assert s.scan[[Scan.CUR_MM, Scan.REGION_END, Scan.PLACES]].tolist() == [NO_MM, 0, 0]
    assert counters(s, "full_scans", "ksm_rmap_items") == [0, 0]
    assert all(due_in(s, page)[0] == s.scan[Scan.SEQ] + 1 for page in range(6))
    s.knobs[Knob.RUN] = Run.MERGE
    before = counters(s, "pages_scanned")[0]
    scans(s, 3)
    assert counters(s, "pages_scanned")[0] - before == 18
    assert shares(s) == (1, 2, 3)


def test_an_mm_that_registers_in_mid_scan_is_passed_in_the_next_for_the_first_time() -> None:
    s = tiny_state(pages_to_scan=1)
    mm_slot.unlink_slot(s, 1)
    s.mms[1, state.REGISTERED] = 0
    fill(s, 1, 2, 3, 4)
    fill(s, 5, 1, first=4)
    scans(s, 2)
    visit(s, 2)
    mm_slot.ksm_enter(s, 1)
    assert s.mms[1, state.PASSED] == 3
    assert [due_in(s, page) for page in (4, 5)] == [[4], [4]]
    scans(s, 1)
    assert counters(s, "pages_scanned") == [12]
    scans(s, 2)
    assert counters(s, "pages_scanned") == [24]
    assert shares(s) == (1, 1, 4)  # page 5 found page 0, which was at rest


def test_a_fork_wakes_the_lonely_pages_of_the_parent_and_no_merged_ones() -> None:
    s = tiny_state()
    fill(s, 1, 2, 3, 3)
    scans(s, 3)
    assert s.cohort[:4].tolist() == [SEARCHING, SEARCHING, MERGED, MERGED]
    fault.fork_pages(s, 0, 1, 4)
    assert s.cohort[:4].tolist() == [0, 0, MERGED, MERGED]
    assert due_in(s, 0) == [4]
    assert s.frames[frames_of(s)[:4], state.MAPCOUNT].tolist() == [2, 2, 4, 4]


# telling the CPU ahead


@entry_kernel
def _tell(array, row):  # type: ignore[no-untyped-def]
    prefetch(array, row)
    return row


def test_asking_for_a_cache_line_changes_nothing_compiled_or_not() -> None:
    array = np.arange(64, dtype=np.int32).reshape(8, 8)
    before = array.tolist()
    assert prefetch(array, 3) is None  # type: ignore[func-returns-value]
    assert _tell(array, 7) == 7
    assert array.tolist() == before


def test_phases_tell_ksm_pages_visits_and_skips_apart() -> None:
    assert [int(IS_MERGED), int(IS_VISIT), int(IS_SKIP), int(WAS_UNSTABLE)] == [1, 2, 4, 8]
    s = lonely(scanned=2)
    ksmd.start_scan(s)
    assert s.cohorts[0, [0, MERGED, SEARCHING]].tolist() == [0, IS_MERGED, IS_VISIT | WAS_UNSTABLE]
