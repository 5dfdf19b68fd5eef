"""Is the first look at a run of pages in one piece what looking at them one by one would be? State, counters, where it stops.

What a single visit does is in test_merge.py, who may rest in test_retire.py.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.kernels import seen
from unit.kernels.tiny import copied, fill, tiny_state

from ksmbatch import state
from ksmbatch.codes import Kernel, Status
from ksmbatch.invariants import check_invariants
from ksmbatch.kernels import cohorts, cursor, fault, first_look, ksmd
from ksmbatch.kernels.cohorts import SEARCHING
from ksmbatch.metrics import Counter
from ksmbatch.state import FOREVER, NO_FRAME, Knob, Scan, State

PAGES_PER_MM, N_CONTENTS, N_SINGLE = 45, 20, 90  # mms begin and end within words of the calendar
SIMPLE = 20  # a page as most are
COSTS = {"wakeup_ns": 3, "skip_ns": 5, "ksm_visit_ns": 70, "checksum_ns": 900, "search_ns": 11_000, "merge_ns": 130_000}
KEPT_SCAN = [Scan.CUR_MM, Scan.BUDGET, Scan.WAKE_NS, Scan.FREE_FRAME, Scan.NEXT_FRAME]


def a_state(kernel: Kernel = Kernel.V6_12, **knobs: int) -> State:
    """Two mms of 45 pages; contents 0 to 19 may be on several frames, those from 20 on are each on one."""
    knobs = {"pages_to_scan": 7, "sleep_millisecs": 20} | COSTS | knobs
    return tiny_state(
        kernel, pages_per_mm=PAGES_PER_MM, n_contents=N_CONTENTS, n_single=N_SINGLE, n_nodes=128, n_members=256, **knobs
    )


def scan_at_once(s: State) -> None:
    """A scan, and nobody looks before it is over."""
    until = int(s.counters[Counter.FULL_SCANS]) + 1
    assert ksmd.ksm_scan_thread(s, FOREVER, until, FOREVER) == Status.DONE


def scan_page_by_page(s: State) -> None:
    """A scan of which every batch is looked at, so that no page is passed together with others."""
    until = int(s.counters[Counter.FULL_SCANS]) + 1
    while s.counters[Counter.FULL_SCANS] < until:
        assert ksmd.ksm_scan_thread(s, int(s.counters[Counter.WAKEUPS]) + 1, FOREVER, FOREVER) == Status.DONE


def differing(one: State, other: State) -> list[str]:
    """What the two differ in, once nobody is in line; cursors into what is ahead are nobody's business behind it."""
    found = seen.differing(seen.kept(one), seen.kept(other))
    return found + [field.name for field in KEPT_SCAN if one.scan[field] != other.scan[field]]


HIDDEN, SHUT, FREED, ELSEWHERE, ABSENT = range(5)  # what is peculiar about a page
contents = st.one_of(st.integers(0, 3), st.integers(0, N_CONTENTS - 1), st.just(N_CONTENTS))
peculiar = st.dictionaries(st.integers(0, 2 * PAGES_PER_MM - 1), st.integers(0, 4), max_size=12)


def peculiarly(s: State, page: int, kind: int) -> None:
    """`page`, which nobody has visited, is not like the others."""
    if kind == HIDDEN:
        s.page_bytes[page, state.PAGE_FLAGS] &= np.uint8(~state.MERGEABLE & 0xFF)
    elif kind == SHUT:
        s.page_bytes[page, state.PAGE_FLAGS] |= np.uint8(state.PROT_NONE)
    elif kind == FREED:
        s.page_bytes[page, [state.AGE, state.SKIPS]] = 7, 3  # of an rmap_item that is gone
        s.pages[page, state.CHECKSUM] = 5
    elif kind == ABSENT:
        fault.zap_pages(s, page, page + 1)


@settings(max_examples=100)
@given(
    st.lists(contents, min_size=PAGES_PER_MM, max_size=2 * PAGES_PER_MM),
    peculiar,
    st.sampled_from((0, 10, PAGES_PER_MM)),
    st.booleans(),
    st.fixed_dictionaries(
        {
            "smart_scan": st.integers(0, 1),
            "merge_across_nodes": st.integers(0, 1),
            "use_zero_pages": st.integers(0, 1),
            "max_page_sharing": st.sampled_from((2, 256)),
            "pages_to_scan": st.sampled_from((1, 7, 90, 1000)),
        }
    ),
)
def test_a_run_leaves_what_its_pages_one_by_one_leave_and_counts_what_every_visit_would_count(
    given_contents: list[int], kinds: dict[int, int], n_forked: int, collide: bool, knobs: dict[str, int]
) -> None:
    checksums = [0, 1, 2, 0, 1, *range(5, N_CONTENTS + N_SINGLE)] if collide else None
    s = a_state(**knobs)
    if checksums is not None:
        s = state.tabled(s._replace(checksum_class=np.array(checksums, np.int32)))
    s.page_bytes[[page for page, kind in kinds.items() if kind == ELSEWHERE], state.PAGE_NID] = 1
    once = iter(range(N_CONTENTS, N_CONTENTS + N_SINGLE))
    single = -1 if n_forked else N_CONTENTS  # a content that forks share is none that one page alone has
    fill(s, *(next(once) if content == single else min(content, N_CONTENTS - 1) for content in given_contents))
    if n_forked:
        fault.zap_pages(s, PAGES_PER_MM, 2 * PAGES_PER_MM)
        fault.fork_pages(s, 0, 1, n_forked)
    for page, kind in kinds.items():
        peculiarly(s, page, kind)
    one_by_one, exact = copied(s), copied(s)
    exact.knobs[Knob.FORCE_EXACT] = 1
    for _ in range(4):
        scan_at_once(s)
        scan_page_by_page(one_by_one)
        scan_at_once(exact)
        assert differing(s, one_by_one) == []
        assert seen.differing(seen.seen(s), seen.seen(exact)) == []
    assert check_invariants(s) == []


# where a run ends


def at_the_beginning(*given_contents: int | None, **knobs: int) -> State:
    """The first scan has opened the region of mm 0."""
    s = a_state(**{"pages_to_scan": 1000} | knobs)
    fill(s, *given_contents)
    s.scan[Scan.BUDGET] = 1000
    ksmd.start_scan(s)
    ksmd.open_region(s, PAGES_PER_MM, FOREVER, FOREVER, FOREVER)
    return s


@pytest.fixture(params=[False, True], ids=["without_lines", "with_lines"])
def lines(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


ALONE = range(N_CONTENTS, N_CONTENTS + PAGES_PER_MM)


def test_a_run_goes_to_the_end_of_the_region(lines: bool) -> None:
    s = at_the_beginning(*ALONE)
    assert first_look.visit_unknown(s, 0, 0, lines) == PAGES_PER_MM == s.scan[Scan.CUR_PAGE]
    assert s.counters[[Counter.PAGES_SCANNED, Counter.KSM_RMAP_ITEMS]].tolist() == [PAGES_PER_MM] * 2
    assert s.cohorts[1, SEARCHING] == PAGES_PER_MM


def an_item(s: State) -> None:
    s.page_bytes[SIMPLE, state.ITEM_FLAGS] |= np.uint8(state.ITEM)


def nothing_mapped(s: State) -> None:
    s.pages[SIMPLE, state.FRAME] = NO_FRAME


def not_mergeable(s: State) -> None:
    s.page_bytes[SIMPLE, state.PAGE_FLAGS] &= np.uint8(~state.MERGEABLE & 0xFF)


def a_ksm_page(s: State) -> None:
    s.frame_bytes[SIMPLE, state.FRAME_FLAGS] |= np.uint8(state.KSM)


def not_due(s: State) -> None:
    cursor.make_undue(s, SIMPLE, 1)


@pytest.mark.parametrize("change", [an_item, nothing_mapped, not_mergeable, a_ksm_page, not_due], ids=lambda one: one.__name__)
def test_a_run_ends_before_a_page_that_is_not_seen_for_the_first_time(change, lines: bool) -> None:  # type: ignore[no-untyped-def]
    s = at_the_beginning(*ALONE)
    change(s)
    before = s.page_bytes[SIMPLE].tolist()
    assert first_look.visit_unknown(s, 0, 0, lines) == SIMPLE == s.scan[Scan.CUR_PAGE]
    assert s.page_bytes[SIMPLE].tolist() == before
    assert first_look.visit_unknown(s, SIMPLE, 0, lines) == SIMPLE
    assert s.counters[Counter.PAGES_SCANNED] == SIMPLE


# who rests behind it


@pytest.mark.parametrize("smart_scan", [0, 1])
def test_those_that_nobody_can_be_merged_with_rest_and_the_others_are_visited_next(smart_scan: int, lines: bool) -> None:
    # two of a kind; one page of zeros; one alone with a content that others may have; one that nobody else has
    s = at_the_beginning(3, 3, 0, 4, N_CONTENTS, smart_scan=smart_scan, use_zero_pages=1)
    assert first_look.visit_unknown(s, 0, 0, lines) == 5
    assert [bool(s.cohort[page]) for page in range(5)] == [False, False, False, True, True]
    assert [bool(cursor.is_due(s, page, 2)) for page in range(5)] == [True, True, True, False, False]
    assert s.by_content[0, 4, state.RESTING] == 3 + 1
    assert [bool(cohorts.is_gated(s, page, 1)) for page in range(5)] == [False, False, False, *[not smart_scan] * 2]
    assert s.page_bytes[:5, state.AGE].tolist() == [smart_scan] * 5


def test_a_page_of_zeros_rests_where_those_are_not_mapped_to_the_zero_page(lines: bool) -> None:
    s = at_the_beginning(0)
    first_look.visit_unknown(s, 0, 0, lines)
    assert s.cohort[0] == SEARCHING


@pytest.mark.parametrize("bit", [state.PROT_NONE, state.ANON])
def test_a_page_without_access_or_anon_vma_does_not_rest(bit: int, lines: bool) -> None:
    s = at_the_beginning(4)
    s.page_bytes[0, state.PAGE_FLAGS] ^= np.uint8(bit)
    assert first_look.visit_unknown(s, 0, 0, lines) == 1
    assert s.cohort[0] == 0
    assert cursor.is_due(s, 0, 2)


def test_a_page_shared_after_a_fork_does_not_rest(lines: bool) -> None:
    s = at_the_beginning(4)
    fault.fork_pages(s, 0, 1, PAGES_PER_MM)
    assert first_look.visit_unknown(s, 0, 0, lines) == 1
    assert s.cohort[0] == 0


def test_a_batch_may_end_within_a_run(lines: bool) -> None:
    s = at_the_beginning(*ALONE)
    s.scan[Scan.BUDGET] = 3
    s.knobs[Knob.PAGES_TO_SCAN] = 10
    first_look.visit_unknown(s, 0, 0, lines)
    assert s.counters[Counter.WAKEUPS] == 1 + (PAGES_PER_MM - 3) // 10
    assert s.scan[Scan.BUDGET] == 8


def test_6_1_looks_at_its_pages_one_by_one() -> None:
    # it searches the stable tree before it looks at a checksum
    s = a_state(Kernel.V6_1)
    fill(s, 3, 3, 3)
    scan_at_once(s)
    scan_at_once(s)
    fill(s, 3, first=3)
    scan_at_once(s)
    assert s.counters[Counter.PAGES_SHARING] == 3
