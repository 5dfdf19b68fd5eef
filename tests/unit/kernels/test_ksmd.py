"""Is each step right in ksmd's loop? The cursor, batches and their budget, smart_scan's ages, limits, pools that fill up.

What ksmd does with a page is in test_merge.py.
"""

import numpy as np
import pytest
from unit.kernels.tiny import fill, shares, tiny_state, visit

from ksmbatch import state
from ksmbatch.codes import Kernel, Status
from ksmbatch.kernels import fault, ksmd, mm_slot, smart_scan
from ksmbatch.metrics import Counter
from ksmbatch.state import FOREVER, NO_MM, Knob, Scan, State

AGES = [1] * 4 + [2] * 2 + [4] * 3 + [8] * 4


def run(s: State, *, wakeups: int = FOREVER, full_scans: int = FOREVER, until_ns: int = FOREVER) -> Status:
    return Status(ksmd.ksm_scan_thread(s, wakeups, full_scans, until_ns))


def counters(s: State, *names: str) -> list[int]:
    return [int(s.counters[Counter[name.upper()]]) for name in names]


@pytest.mark.parametrize(("age", "skips"), list(enumerate(AGES)))
def test_the_older_a_page_the_more_scans_pass_it_by(age: int, skips: int) -> None:
    assert smart_scan.skip_age(age) == skips


def test_pages_are_visited_mm_after_mm_in_address_order() -> None:
    s = tiny_state(pages_to_scan=1)
    fill(s, 1, None, 2)
    fill(s, None, 3, 4, first=4)
    passed = []
    for _ in range(4):
        visit(s)
        passed.append(int(s.scan[Scan.CUR_PAGE]) - 1)
    assert passed == [0, 2, 5, 6]


def test_a_batch_ends_after_its_budget_and_the_scan_with_a_batch_that_finds_no_page() -> None:
    s = tiny_state(pages_to_scan=2)
    fill(s, 1, 2, 3, 4)
    seen = []
    for _ in range(3):
        visit(s)
        seen.append(counters(s, "pages_scanned", "full_scans"))
    assert seen == [[2, 0], [4, 0], [4, 1]]


def test_a_batch_ends_with_the_scan_even_with_budget_left() -> None:
    s = tiny_state(pages_to_scan=3)
    fill(s, 1, 2, 3, 4)
    visit(s, 2)
    assert counters(s, "pages_scanned", "full_scans") == [4, 1]
    assert s.scan[Scan.CUR_MM] == NO_MM


def test_a_page_that_smart_scan_passes_by_costs_no_budget() -> None:
    s = tiny_state(pages_to_scan=4, smart_scan=1)
    fill(s, 1, 2, 3, 4)
    assert run(s, full_scans=4) == Status.DONE
    before = counters(s, "wakeups", "pages_scanned", "pages_skipped")
    assert run(s, full_scans=5) == Status.DONE  # the first scan that passes them by: one batch, with its budget untouched
    assert np.subtract(counters(s, "wakeups", "pages_scanned", "pages_skipped"), before).tolist() == [1, 0, 4]


@pytest.mark.parametrize(("kernel", "smart_scan"), [(Kernel.V6_1, 1), (Kernel.V6_12, 0)])
def test_without_smart_scan_every_page_is_visited_in_every_scan(kernel: Kernel, smart_scan: int) -> None:
    s = tiny_state(kernel, smart_scan=smart_scan)
    fill(s, 1, 2, 3)
    run(s, full_scans=10)
    assert counters(s, "pages_scanned", "pages_skipped") == [30, 0]


def test_a_page_passed_by_leaves_the_unstable_tree() -> None:
    s = tiny_state(smart_scan=1)
    fill(s, 1)
    unshared = []
    for full_scans in range(1, 10):
        run(s, full_scans=full_scans)
        unshared.append(shares(s)[2])
    assert unshared == [0, 1, 1, 1, 0, 1, 0, 0, 1]  # visited in scans 1 2 3 4 6 9


def test_items_of_pages_that_are_gone_are_freed_when_the_cursor_passes() -> None:
    s = tiny_state(pages_to_scan=1)
    fill(s, 1, 2, 3)
    visit(s, 4)
    fault.zap_pages(s, 1, 2)
    assert counters(s, "ksm_rmap_items") == [3]
    visit(s)
    assert counters(s, "ksm_rmap_items") == [3]
    visit(s)
    assert counters(s, "ksm_rmap_items") == [2]


def test_a_dead_mm_is_dropped_with_all_its_items_when_the_cursor_comes_to_it() -> None:
    s = tiny_state()
    fill(s, 1, 2)
    fill(s, 3, 4, first=4)
    visit(s)
    mm_slot.ksm_exit(s, 1)
    fault.zap_pages(s, 4, 8)
    assert counters(s, "ksm_rmap_items") == [4]
    visit(s)
    assert counters(s, "ksm_rmap_items") == [2]
    assert s.mms[:, state.REGISTERED].tolist() == [1, 0]
    assert s.scan[[Scan.SLOT_FIRST, Scan.SLOT_LAST]].tolist() == [0, 0]


def test_ksmd_sleeps_while_there_is_nothing_to_do() -> None:
    idle = tiny_state(run=0)
    fill(idle, 1)
    assert run(idle, wakeups=5) == Status.TIME
    assert run(idle, until_ns=7) == Status.TIME
    assert counters(idle, "wakeups", "time_ns") == [0, 7]
    nobody = tiny_state()
    for mm in range(2):
        mm_slot.ksm_exit(nobody, mm)
    assert run(nobody, full_scans=1) == Status.TIME
    assert counters(nobody, "wakeups") == [0]


def test_a_limit_of_time_interrupts_a_batch_which_goes_on_later() -> None:
    s = tiny_state(checksum_ns=10, wakeup_ns=5, sleep_millisecs=1)
    fill(s, 1, 2, 3, 4)
    assert run(s, until_ns=26) == Status.TIME
    assert counters(s, "time_ns", "pages_scanned", "full_scans") == [35, 3, 0]  # a visit begun is finished
    assert run(s, until_ns=1_000_000) == Status.TIME
    assert counters(s, "time_ns", "pages_scanned", "full_scans", "wakeups") == [1_000_000, 4, 1, 1]
    assert s.scan[Scan.WAKE_NS] == 45 + 1_000_000


def test_ksmd_spends_what_the_table_of_costs_says() -> None:
    s = tiny_state(wakeup_ns=1, checksum_ns=10, search_ns=100, merge_ns=1000, ksm_visit_ns=10_000)
    fill(s, 1, 2, 2)
    spent = []
    for _ in range(3):
        before = counters(s, "ksmd_cpu_ns")[0]
        visit(s)
        spent.append(counters(s, "ksmd_cpu_ns")[0] - before)
    assert spent == [31, 1201, 20_101]


def test_ksmd_asks_for_larger_pools_before_they_are_full_and_loses_nothing() -> None:
    contents = [1 + k // 2 for k in range(32)]
    wide = tiny_state(pages_per_mm=32, n_contents=40, n_nodes=64, n_members=64)
    small = tiny_state(pages_per_mm=32, n_contents=40, n_nodes=8, n_members=8)
    for s in (wide, small):
        fill(s, *contents)
    visit(wide, 3)
    asked = 0
    while (status := run(small, wakeups=3)) == Status.GROW:
        small = state.grow(small)
        asked += 1
    assert (status, asked > 1) == (Status.DONE, True)
    assert small.counters.tolist() == wide.counters.tolist()
    n = int(wide.scan[Scan.NEXT_NODE])
    assert small.nodes[:n].tolist() == wide.nodes[:n].tolist()
    assert shares(small) == (16, 16, 0)


def test_unmerging_gives_every_page_its_own_and_forgets_all_items() -> None:
    s = tiny_state()
    fill(s, 3, 3, 3, 5)
    visit(s, 2)
    s.knobs[Knob.RUN] = 2
    ksmd.unmerge_and_remove_all_rmap_items(s)
    assert shares(s) == (0, 0, 0)
    assert counters(s, "ksm_rmap_items", "full_scans", "cow_ksm") == [0, 0, 3]
    assert len(set(s.pages[:4, state.FRAME].tolist())) == 4
    assert not s.trees[[state.STABLE_ROOT, state.STABLE_LOGGED]].any()
