"""Who may rest? Each thing that a visit looks at and that keeps a page awake, one by one.

What rest comes to is in test_resting.py.
"""

from collections.abc import Callable

import pytest
from unit.kernels.tiny import fill, tiny_state

from ksmbatch import state
from ksmbatch.codes import KSMD_MOVES, Kernel, Policy, Status
from ksmbatch.kernels import fault, ksmd, resting, retire, stable_tree
from ksmbatch.kernels.cohorts import FIRST_COHORT, MERGED, SEARCHING, cohort_of, is_gated
from ksmbatch.kernels.cursor import is_due
from ksmbatch.metrics import Counter
from ksmbatch.state import FOREVER, SCANS_AHEAD, Knob, Scan, State

AWAKE = 0
SINGLE = 6  # a content that is never on two frames


def machine(*contents: int | None, scanned: int = 2, kernel: Kernel = Kernel.V6_12, **knobs: int) -> State:
    """Contents from page 0 on, after so many scans. There are contents 0 to 5, and SINGLE and the one after it."""
    s = tiny_state(kernel, n_single=2, **knobs)
    fill(s, *contents)
    scans(s, scanned)
    return s


def scans(s: State, n: int) -> None:
    assert ksmd.ksm_scan_thread(s, FOREVER, int(s.counters[Counter.FULL_SCANS]) + n, FOREVER) == Status.DONE


def cohorts(s: State) -> list[int]:
    found: list[int] = s.cohort[:4].tolist()
    return found


def scans_to_visit(s: State, page: int) -> int | None:
    """After how many scans the calendar has `page`."""
    seq = int(s.scan[Scan.SEQ])
    return next((k for k in range(1, int(SCANS_AHEAD)) if is_due(s, page, seq + k)), None)


# unmerged pages


@pytest.mark.parametrize("scanned", [1, 2, 3])
def test_a_page_that_will_search_in_vain_rests_from_its_first_visit_on(scanned: int) -> None:
    s = machine(1, scanned=scanned)
    assert cohorts(s)[0] == SEARCHING
    assert scans_to_visit(s, 0) is None
    assert s.by_content[0, 1, state.RESTING] == 1
    assert bool(is_gated(s, 0, 1)) == (scanned == 1)  # the first visit took its checksum down, and put it in no tree


def test_6_1_lets_it_rest_just_so_with_smart_scan_or_without() -> None:
    assert cohorts(machine(1, kernel=Kernel.V6_1, smart_scan=1))[0] == SEARCHING


def test_with_smart_scan_it_rests_from_its_first_visit_on() -> None:
    for scanned in range(1, 30):
        s = machine(1, scanned=scanned, smart_scan=1)
        assert cohorts(s)[0] == cohort_of(1, 1)  # that of all who were seen first by the first scan
        assert scans_to_visit(s, 0) is None


def test_a_page_whose_content_nobody_else_ever_has_rests_without_anybody_knowing() -> None:
    s = machine(SINGLE)
    assert cohorts(s)[0] == SEARCHING
    assert not s.by_content[:, :, state.RESTING].any()


def two_of_a_kind(s: State) -> None:
    fill(s, 1, first=4)


def in_the_stable_tree(s: State) -> None:
    s.by_content[0, 1, state.STABLE_AT] = 1


def checksum_of_another(s: State) -> None:
    s.pages[0, state.CHECKSUM] = 2


def without_access(s: State) -> None:
    s.page_bytes[0, state.PAGE_FLAGS] |= state.PROT_NONE


def without_anon_vma(s: State) -> None:
    s.page_bytes[0, state.PAGE_FLAGS] &= ~state.ANON & 0xFF


def not_mergeable(s: State) -> None:
    s.page_bytes[0, state.PAGE_FLAGS] &= ~state.MERGEABLE & 0xFF


def shared_after_a_fork(s: State) -> None:
    fault.map_frame(s, 4, 0)


def gone(s: State) -> None:
    s.pages[0, state.FRAME] = state.NO_FRAME


def where_every_page_is_visited(s: State) -> None:
    s.knobs[Knob.FORCE_EXACT] = 1


Change = Callable[[State], None]
CHANGES: list[Change] = [
    two_of_a_kind,
    in_the_stable_tree,
    checksum_of_another,
    without_access,
    without_anon_vma,
    not_mergeable,
    shared_after_a_fork,
    gone,
    where_every_page_is_visited,
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_page_that_would_rest_but_for_one_thing_is_visited_by_the_next_scan(change: Change) -> None:
    s = machine(1)
    resting.wake_all(s)
    s.calendar[:] = 0
    change(s)
    s.calendar[:] = 0
    retire.retire(s, 0)
    assert (cohorts(s)[0], scans_to_visit(s, 0)) == (AWAKE, 1)


def test_but_for_these_it_would_rest() -> None:
    s = machine(1)
    resting.wake_all(s)
    retire.retire(s, 0)
    assert (cohorts(s)[0], scans_to_visit(s, 0)) == (SEARCHING, None)


def test_a_page_of_zeros_rests_unless_it_is_to_be_mapped_to_the_zero_page() -> None:
    s = machine(0)
    assert cohorts(s)[0] == SEARCHING
    resting.wake_all(s)
    s.knobs[Knob.USE_ZERO_PAGES] = 1
    retire.retire(s, 0)
    assert cohorts(s)[0] == AWAKE


def test_nor_does_a_page_rest_whose_checksum_is_that_of_zeros() -> None:
    # equal checksum, different bytes
    s = machine(3, use_zero_pages=1, checksum_class=[0, 1, 2, 0, 4, 5, 6, 7])
    assert cohorts(s)[0] == AWAKE


def test_a_page_that_cannot_rest_for_good_rests_while_smart_scan_passes_it_by() -> None:
    # page 0 has no access, so that it is nobody's partner whatever comes
    s = tiny_state(smart_scan=1)
    fill(s, 1)
    s.page_bytes[0, state.PAGE_FLAGS] |= state.PROT_NONE
    seen = []
    for _ in range(15):
        scans(s, 1)
        seen.append((int(s.cohort[0]) >= FIRST_COHORT, scans_to_visit(s, 0)))
    at_rest = {4: 2, 5: 1, 6: 3, 7: 2, 8: 1, 9: 5, 10: 4, 11: 3, 12: 2, 13: 1, 14: 9, 15: 8}  # until the next visit
    assert seen == [(n in at_rest, at_rest.get(n, 1)) for n in range(1, 16)]


@pytest.mark.parametrize(("smart_scan", "scanned"), [(0, 3), (1, 6)])
def test_a_page_that_its_visit_put_in_no_tree_rests_and_is_known_to_be_in_none(smart_scan: int, scanned: int) -> None:
    s = machine(1, scanned=scanned, smart_scan=smart_scan)
    resting.wake(s, 0)
    assert not is_gated(s, 0, scanned)
    s.page_bytes[0, state.ITEM_FLAGS] = state.ITEM
    retire.retire(s, 0)
    assert cohorts(s)[0] != AWAKE
    assert is_gated(s, 0, scanned)
    resting.wake(s, 0)
    assert not is_gated(s, 0, scanned)
    assert s.page_bytes[0, state.ITEM_FLAGS] == state.ITEM


def test_the_arithmetic_is_left_alone_where_a_page_is_in_a_tree_in_which_it_would_not_be() -> None:
    s = machine(1, scanned=5, smart_scan=1)  # which passed it by
    resting.wake(s, 0)
    s.page_bytes[0, state.ITEM_FLAGS] |= state.UNSTABLE
    retire.retire(s, 0)
    assert cohorts(s)[0] == AWAKE


# merged pages


def merged(**knobs: int) -> State:
    """Pages 0 and 1 are mapped to one KSM page, found in its place by a third scan."""
    s = machine(1, 1, scanned=3, **knobs)
    assert s.counters[Counter.PAGES_SHARING] == 1
    return s


def again(s: State, page: int = 0) -> int:
    """The cohort of `page`, if it was visited now."""
    resting.wake(s, page)
    retire.retire(s, page)
    return int(s.cohort[page])


@pytest.mark.parametrize("kernel", [Kernel.V6_1, Kernel.V6_12])
@pytest.mark.parametrize("smart_scan", [0, 1])
def test_merged_pages_rest_from_the_visit_on_that_merges_them(kernel: Kernel, smart_scan: int) -> None:
    s = machine(1, 1, scanned=2, kernel=kernel, smart_scan=smart_scan)
    # page 0 was merged when page 1 was visited, after its own visit
    assert cohorts(s)[:2] == [AWAKE, MERGED]
    scans(s, 1)
    assert cohorts(s)[:2] == [MERGED, MERGED]
    assert scans_to_visit(s, 0) is scans_to_visit(s, 1) is None


@pytest.mark.parametrize("policy", list(Policy))
def test_merged_pages_rest_unless_the_policy_has_ksmd_move_them(policy: Policy) -> None:
    assert again(merged(policy=policy)) == (AWAKE if policy in KSMD_MOVES else MERGED)


def test_a_page_whose_stable_node_waits_on_migrate_nodes_does_not_rest() -> None:
    s = merged()
    node = int(s.frames[s.pages[0, state.FRAME], state.FRAME_NODE])
    stable_tree.put_on_migrate_list(s, node)
    assert cohorts(s)[:2] == [AWAKE, AWAKE]  # it woke them
    assert again(s) == AWAKE


def test_a_page_whose_stable_node_is_in_another_nodes_tree_does_not_rest() -> None:
    s = merged(merge_across_nodes=0)
    s.frame_bytes[s.pages[0, state.FRAME], state.FRAME_NID] = 1
    assert again(s) == AWAKE
    s.knobs[Knob.MERGE_ACROSS_NODES] = 1  # then there is one tree
    assert again(s) == MERGED


def test_a_page_that_maps_a_ksm_page_without_an_rmap_item_there_does_not_rest() -> None:
    s = merged()
    fault.map_frame(s, 2, int(s.pages[0, state.FRAME]))
    assert again(s, 2) == AWAKE


def test_a_page_that_maps_another_ksm_page_than_its_item_says_does_not_rest() -> None:
    s = machine(1, 1, 2, 2, scanned=3)
    s.pages[0, state.FRAME], s.pages[2, state.FRAME] = s.pages[2, state.FRAME], s.pages[0, state.FRAME]
    assert again(s) == AWAKE


def test_a_ksm_page_whose_stable_node_was_freed_does_not_rest() -> None:
    s = merged()
    s.frames[s.pages[0, state.FRAME], state.FRAME_NODE] = state.NIL
    assert again(s) == AWAKE
