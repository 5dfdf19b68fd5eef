"""Is what a region has ahead listed as the calendar has it, and do hints to the CPU change nothing?

Whether the pages listed are then visited as they should be is asked here for those that are woken meanwhile; the rest is in
test_resting.py.
"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.kernels.tiny import copied, fill, tiny_state

from ksmbatch import state
from ksmbatch.codes import Status
from ksmbatch.kernels import cursor, fault, hints, ksmd, resting
from ksmbatch.metrics import Counter
from ksmbatch.state import DUE_NODE, DUE_PAGE, FOREVER, NIL, PAGES_PER_BLOCK, SCANS_AHEAD, Scan, State

BLOCK = int(PAGES_PER_BLOCK)
STRETCH = int(hints.STRETCH)


def listed(s: State) -> list[int]:
    """The pages listed as due."""
    pages: list[int] = s.due[DUE_PAGE, : s.scan[Scan.N_DUE]].tolist()
    return pages


def opened(*contents: int, scanned: int = 2, **knobs: int) -> State:
    """Contents from page 0 on, all in mm 0, after so many scans; the next one has opened the region, and visited nobody."""
    s = tiny_state(pages_per_mm=len(contents), n_contents=max(contents) + 2, **knobs)
    fill(s, *contents)
    if scanned:
        assert ksmd.ksm_scan_thread(s, FOREVER, scanned, FOREVER) == Status.DONE
    s.scan[Scan.BUDGET] = 1000
    ksmd.start_scan(s)
    ksmd.open_region(s, len(contents), FOREVER, FOREVER, FOREVER)
    return s


def end_scan(s: State) -> None:
    """ksmd completes the scan in progress."""
    until = int(s.counters[Counter.FULL_SCANS]) + 1
    assert ksmd.ksm_scan_thread(s, FOREVER, until, FOREVER) == Status.DONE


def visited(s: State, *pages: int) -> list[bool]:
    """Whether `pages`, whose checksums were forgotten, have been looked at."""
    return (s.pages[list(pages), state.CHECKSUM] != -1).tolist()  # type: ignore[no-any-return]


@settings(max_examples=300)
@given(
    st.sets(st.integers(0, 2 * BLOCK - 1), max_size=80),
    st.sets(st.integers(0, 2 * BLOCK - 1), max_size=10),
    st.integers(0, 1),
    st.tuples(st.integers(0, BLOCK), st.integers(0, BLOCK)).filter(lambda ends: ends[0] != ends[1]),
    st.integers(1, 25),
)
def test_the_pages_listed_are_those_that_the_calendar_has_for_this_scan(
    due: set[int], due_later: set[int], block: int, ends: tuple[int, int], seq: int
) -> None:
    s = tiny_state(pages_per_mm=BLOCK)
    s.scan[[Scan.SEQ, Scan.NEXT_DUE, Scan.HINTED, Scan.NEWLY_DUE]] = seq, 5, 5, 1
    for page in due:
        cursor.make_due(s, page, seq)
    for page in due_later:
        cursor.make_due(s, page, seq + 1)
    first, end = (block * BLOCK + at for at in sorted(ends))
    hints.list_due(s, first, end)
    assert listed(s) == [page for page in sorted(due) if first <= page < end]
    assert s.scan[[Scan.NEXT_DUE, Scan.HINTED, Scan.NEWLY_DUE]].tolist() == [0, 0, 0]


def test_a_whole_block_may_be_due() -> None:
    s = tiny_state(pages_per_mm=BLOCK)
    s.calendar[:] = 2**32 - 1
    hints.list_due(s, BLOCK, 2 * BLOCK)
    assert listed(s) == list(range(BLOCK, 2 * BLOCK))


@pytest.mark.parametrize("smart_scan", [0, 1])
def test_a_page_woken_ahead_of_the_cursor_is_visited_in_this_scan(smart_scan: int) -> None:
    s = opened(*range(1, 9), smart_scan=smart_scan)
    s.scan[Scan.CUR_PAGE] = 3
    assert listed(s) == []
    for page in (3, 5, 7):
        resting.wake(s, page)
        s.pages[page, state.CHECKSUM] = -1
    assert s.scan[Scan.NEWLY_DUE] == 1
    end_scan(s)
    assert visited(s, 3, 5, 7) == [True, True, True]
    assert s.counters[Counter.PAGES_SCANNED] == 24


@pytest.mark.parametrize("smart_scan", [0, 1])
def test_a_page_woken_behind_the_cursor_is_visited_in_the_next_scan(smart_scan: int) -> None:
    s = opened(*range(1, 9), smart_scan=smart_scan)
    s.scan[Scan.CUR_PAGE] = 6
    resting.wake(s, 2)
    s.pages[2, state.CHECKSUM] = -1
    assert s.scan[Scan.NEWLY_DUE] == 0  # nothing has to be listed anew for it
    end_scan(s)
    assert visited(s, 2) == [False]
    end_scan(s)
    assert visited(s, 2) == [True]
    assert s.counters[Counter.PAGES_SCANNED] == 32


def test_a_page_woken_beyond_the_open_region_is_found_when_its_region_is_opened() -> None:
    s = opened(*range(1, 9))
    fill(s, 9, first=8)
    assert s.scan[Scan.NEWLY_DUE] == 0
    end_scan(s)
    assert visited(s, 8) == [True]


def of_all_kinds() -> State:
    """Pages that map nothing, have no rmap_item, are alone, wait for a partner, share plain nodes, stale ones and a chain."""
    s = tiny_state(pages_per_mm=100, n_contents=40, n_single=20, max_page_sharing=3, n_nodes=64, n_members=200)
    fill(s, *[1] * 9, *[2] * 2, *[3] * 2, *range(4, 40), *range(40, 60))
    assert ksmd.ksm_scan_thread(s, FOREVER, 3, FOREVER) == Status.DONE
    fault.zap_pages(s, 11, 13)
    fill(s, 5, 2, 1, first=80)
    resting.wake_all(s)
    s.scan[Scan.BUDGET] = 1000
    ksmd.start_scan(s)
    ksmd.open_region(s, 100, FOREVER, FOREVER, FOREVER)
    assert len(listed(s)) == 100
    return s


def test_hints_change_nothing_but_their_own_notes() -> None:
    s = of_all_kinds()
    before = copied(s)
    hints.hint_pages(s)
    hints.hint_visits(s, 0)
    hints.hint_visits(s, STRETCH)
    assert s.due[DUE_PAGE].tolist() == before.due[DUE_PAGE].tolist()
    assert s.scan[Scan.HINTED] == 100
    s.scan[Scan.HINTED] = before.scan[Scan.HINTED]
    kept = set(state.ARRAYS) - {"due"}
    assert [name for name in kept if getattr(s, name).tolist() != getattr(before, name).tolist()] == []


def test_hints_go_a_stretch_ahead_and_no_further_than_the_list() -> None:
    s = of_all_kinds()
    hints.hint_visits(s, 0)
    assert s.scan[Scan.HINTED] == STRETCH
    hints.hint_visits(s, STRETCH)
    assert s.scan[Scan.HINTED] == 100


def test_the_node_that_a_visit_will_find_is_hinted_at() -> None:
    s = of_all_kinds()
    hints.hint_visits(s, 0)
    nodes = s.due[DUE_NODE, :STRETCH].tolist()
    chain = int(s.by_content[0, 1, state.STABLE_AT])
    assert nodes[:9] == [chain] * 9
    assert nodes[9:11] == [int(s.by_content[0, 2, state.STABLE_AT])] * 2
    assert s.nodes[chain, state.LEN] == state.STABLE_NODE_CHAIN
    assert set(nodes[11:]) == {int(NIL)}  # those of content 3 map nothing, and the others are alone


def test_the_calendar_goes_round() -> None:
    s = tiny_state()
    for ahead in range(int(SCANS_AHEAD)):
        cursor.make_due(s, ahead % 8, ahead + 1)
    for seq in range(1, int(SCANS_AHEAD) + 1):
        s.scan[Scan.SEQ] = seq
        hints.list_due(s, 0, 8)
        assert listed(s) == [(seq - 1) % 8]
