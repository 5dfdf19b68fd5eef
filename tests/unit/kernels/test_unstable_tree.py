"""Does the look-up in unstable trees find what Linux's walk finds? And is the shape built late the shape that was due?

A page is visited once, in page order, as in a scan; what happens between visits is a write, or the page going.
"""

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.kernels.tiny import fill, shares, tiny_state, visit

from ksmbatch import state
from ksmbatch.codes import Kernel
from ksmbatch.kernels import fault, ksmd, mm_slot, rmap_item, unstable_tree
from ksmbatch.kernels.unstable_tree import FAULT, NO_PAGE
from ksmbatch.metrics import Counter
from ksmbatch.state import FOREVER, NO_MM, Knob, Scan, State
from ksmbatch.stateview import in_order

N_PAGES, N_CONTENTS = 16, 12
GONE = -1
Change = tuple[int, int, int]  # before the visit to this page, that page gets this content; GONE: it goes


def with_items(s: State) -> State:
    """Every page there has an rmap_item, and was last seen with its present content: it will pass the checksum gate."""
    there = s.pages[:, state.FRAME] != state.NO_FRAME
    s.page_bytes[there, state.ITEM_FLAGS] = state.ITEM
    s.pages[there, state.CHECKSUM] = s.frames[s.pages[there, state.FRAME], state.FRAME_CONTENT]
    return s


def come_to(s: State, page: int) -> None:
    """ksmd's cursor is where it is while `page` is visited, in the scan that is under way, or that begins."""
    if s.scan[Scan.CUR_MM] == NO_MM:
        ksmd.start_scan(s)
    while s.mms[s.scan[Scan.CUR_MM], state.END_PAGE] <= page:
        ksmd.enter_mm(s, int(s.mms[s.scan[Scan.CUR_MM], state.SLOT_NEXT]))
    s.scan[Scan.CUR_PAGE] = page + 1


def search(s: State, page: int, nid: int = 0) -> int:
    come_to(s, page)
    return int(unstable_tree.unstable_tree_search_insert(s, page, int(s.pages[page, state.FRAME]), nid))


def is_unstable(s: State, page: int) -> bool:
    return bool(s.page_bytes[page, state.ITEM_FLAGS] & state.UNSTABLE)


def test_a_lonely_page_is_put_into_the_tree() -> None:
    s = tiny_state()
    fill(s, 3, 4)
    with_items(s)
    assert [search(s, 0), search(s, 1)] == [NO_PAGE, NO_PAGE]
    assert is_unstable(s, 0)
    assert is_unstable(s, 1)
    assert s.counters[Counter.PAGES_UNSHARED] == 2


@pytest.mark.parametrize("force_exact", [0, 1])
def test_a_page_finds_its_partner_and_stays_out_itself(force_exact: int) -> None:
    s = tiny_state(force_exact=force_exact)
    fill(s, 3, 4, 3)
    with_items(s)
    assert [search(s, page) for page in (0, 1, 2)] == [NO_PAGE, NO_PAGE, 0]
    assert not is_unstable(s, 2)
    assert s.counters[Counter.PAGES_UNSHARED] == 2


@pytest.mark.parametrize("force_exact", [0, 1])
def test_two_mappings_of_one_frame_are_no_partners(force_exact: int) -> None:
    s = tiny_state(force_exact=force_exact)
    fill(s, 3)
    fault.map_frame(s, 1, 0)
    with_items(s)
    assert [search(s, 0), search(s, 1)] == [NO_PAGE, NO_PAGE]
    assert not is_unstable(s, 1)  # volatile for ever


@pytest.mark.parametrize("force_exact", [0, 1])
def test_a_partner_that_moved_to_another_node_is_none(force_exact: int) -> None:
    s = tiny_state(force_exact=force_exact, merge_across_nodes=0)
    fill(s, 3, 3)
    with_items(s)
    assert search(s, 0) == NO_PAGE
    s.frame_bytes[0, state.FRAME_NID] = 1
    assert search(s, 1) == NO_PAGE
    assert not is_unstable(s, 1)


@pytest.mark.parametrize("force_exact", [0, 1])
def test_each_node_has_a_tree_of_its_own(force_exact: int) -> None:
    s = tiny_state(force_exact=force_exact, merge_across_nodes=0)
    fill(s, 3, 3, 3)
    s.frame_bytes[1, state.FRAME_NID] = 1
    with_items(s)
    assert [search(s, 0, 0), search(s, 1, 1), search(s, 2, 0)] == [NO_PAGE, NO_PAGE, 0]


def test_the_tree_is_built_when_a_partner_is_sought_after_a_page_in_it_has_changed_and_not_before() -> None:
    s = tiny_state()
    fill(s, 3, 4, 5)
    with_items(s)
    search(s, 0)
    search(s, 1)
    fill(s, None, None, 1)  # not in the tree
    assert s.trees[state.UNSTABLE_EXACT, 0] == 0
    fill(s, None, 4)  # the same content again
    assert s.trees[state.UNSTABLE_EXACT, 0] == 0
    fill(s, None, 2)
    assert s.trees[[state.UNSTABLE_EXACT, state.UNSTABLE_CHANGED], 0].tolist() == [0, 1]
    search(s, 2)  # nobody else has its content, and never had
    assert s.trees[state.UNSTABLE_EXACT, 0] == 0
    fill(s, None, None, None, 3)
    search(s, 3)  # page 0 has it, too
    assert s.trees[state.UNSTABLE_EXACT, 0] == 1
    assert s.trees[state.UNSTABLE_ROOT, 0] != state.NIL


def test_the_tree_is_built_before_a_page_in_it_goes() -> None:
    s = tiny_state()
    fill(s, 3, 4)
    with_items(s)
    search(s, 0)
    search(s, 1)
    fault.zap_pages(s, 1, 2)
    assert s.trees[state.UNSTABLE_EXACT, 0] == 1


def test_a_walk_goes_astray_at_a_page_that_changed() -> None:
    # root 3, below it 1 and 5; then 3 becomes 0, so that a second 1 is sought to the right of it, and not found
    s = tiny_state()
    fill(s, 3, 1, 5, 1)
    with_items(s)
    for page in range(3):
        search(s, page)
    fill(s, 0)
    assert search(s, 3) == NO_PAGE
    assert is_unstable(s, 3)


def test_a_walk_gives_up_at_a_page_that_is_gone() -> None:
    s = tiny_state()
    fill(s, 3, 1, 5, 1)
    with_items(s)
    for page in range(3):
        search(s, page)
    fault.zap_pages(s, 0, 1)
    assert search(s, 3) == NO_PAGE
    assert not is_unstable(s, 3)


@pytest.mark.parametrize(("kernel", "seen"), [(Kernel.V6_1, False), (Kernel.V6_12, True)])
def test_a_page_without_access_is_out_of_6_1s_sight(kernel: Kernel, seen: bool) -> None:
    s = tiny_state(kernel)
    fill(s, 3, 3)
    with_items(s)
    search(s, 0)
    fault.note_pages_hidden(s, 0, 1)
    s.page_bytes[0, state.PAGE_FLAGS] |= state.PROT_NONE
    assert search(s, 1) == (0 if seen else NO_PAGE)
    assert not is_unstable(s, 1)


def test_an_item_of_the_last_scan_is_in_no_tree_of_this_one() -> None:
    s = tiny_state()
    fill(s, 3, 3)
    with_items(s)
    search(s, 0)
    s.counters[Counter.FULL_SCANS] += 1
    s.scan[Scan.CUR_MM] = NO_MM  # the next visit is of the next scan
    assert search(s, 1) == NO_PAGE
    assert is_unstable(s, 1)


def test_a_walk_over_a_freed_item_in_a_forgotten_tree_is_a_fault() -> None:
    s = tiny_state(merge_across_nodes=0)
    fill(s, 3, 3)
    with_items(s)
    search(s, 0, 1)
    unstable_tree.keep_leftover_trees(s)
    s.counters[Counter.FULL_SCANS] += 1  # it is in no tree that the kernel knows, so freeing it erases it from none
    rmap_item.free_rmap_item(s, 0, 0)
    assert search(s, 1, 1) == FAULT
    assert s.scan[Scan.FAULT_PAGE] == 0


def test_a_forgotten_tree_of_which_nothing_was_freed_is_walked_like_any_other() -> None:
    s = tiny_state(merge_across_nodes=0)
    fill(s, 3, 3)
    with_items(s)
    search(s, 0, 1)
    unstable_tree.keep_leftover_trees(s)
    s.frame_bytes[:2, state.FRAME_NID] = 1
    assert s.trees[state.UNSTABLE_LEFTOVER].tolist() == [0, 1]
    assert search(s, 1, 1) == 0


def test_after_unmerging_every_tree_is_full_of_freed_items_until_a_scan_resets_it() -> None:
    s = tiny_state()
    fill(s, 3, 3)
    with_items(s)
    search(s, 0)
    unstable_tree.free_all_trees(s)
    unstable_tree.forget_item(s, 0)
    assert search(s, 1) == FAULT
    unstable_tree.reset_unstable_tree(s, 0)
    assert search(s, 1) == NO_PAGE


# who was put in, derived from the scan


def searched_twice(s: State, *contents: int) -> None:
    """Two scans over pages 0 to 3 of mm 0 and 4 to 7 of mm 1, with these contents; lonely ones rest after that."""
    fill(s, *contents)
    ksmd.ksm_scan_thread(s, FOREVER, 2, FOREVER)


def held(s: State, nid: int = 0) -> list[int]:
    """The pages in the tree of `nid`, which is built now."""
    unstable_tree.build_unstable_tree(s, nid)
    return sorted(row - 1 for row in in_order(s.unstable_links.tolist(), int(s.trees[state.UNSTABLE_ROOT, nid])))


def visits(s: State, n: int) -> None:
    """ksmd visits `n` pages in batches of one, of a scan that begins."""
    s.knobs[Knob.PAGES_TO_SCAN] = 1
    visit(s, n)


@pytest.mark.parametrize("n", range(1, 8))
def test_pages_at_rest_are_in_the_tree_as_far_as_the_scan_has_come(n: int) -> None:
    s = tiny_state(n_contents=9)
    searched_twice(s, 1, 2, 3, 4, 5, 6, 7, 8)
    assert s.cohort[:8].all()
    visits(s, n)
    assert held(s) == list(range(n))


def test_of_an_mm_that_dies_under_the_cursor_only_pages_that_were_passed_are_in_the_tree() -> None:
    s = tiny_state(n_contents=9)
    searched_twice(s, 1, 2, 3, 4, 5, 6, 7, 8)
    visits(s, 6)
    mm_slot.ksm_exit(s, 1)
    fault.zap_pages(s, 4, 8)  # the tree is built now, before the first of them goes
    assert held(s) == [0, 1, 2, 3, 4, 5]


# look-up against walk


def scan(s: State, contents: list[int], changes: list[Change]) -> Iterator[tuple[int, bool]]:
    """One scan over all pages: per page its partner, and whether it was put into the tree."""
    fill(s, *contents)
    with_items(s)
    for page in range(N_PAGES):
        for when, changed, content in changes:
            if when == page and content == GONE:
                fault.zap_pages(s, changed, changed + 1)
            elif when == page:
                fill(s, content, first=changed)
        come_to(s, page)
        frame = int(s.pages[page, state.FRAME])
        # one that changed since the last scan has another checksum, and goes no further
        if frame == state.NO_FRAME or s.frames[frame, state.FRAME_CONTENT] != s.pages[page, state.CHECKSUM]:
            continue
        partner = search(s, page)
        yield partner, is_unstable(s, page)
        if partner != NO_PAGE:
            rmap_item.remove_rmap_item_from_tree(s, partner)  # as merging does


numbers = st.integers(0, N_CONTENTS - 1)
changes = st.lists(
    st.tuples(st.integers(0, N_PAGES - 1), st.integers(0, N_PAGES - 1), st.integers(GONE, N_CONTENTS - 1)), max_size=6
)


@settings(max_examples=300)
@given(st.lists(numbers, min_size=N_PAGES, max_size=N_PAGES), changes)
def test_look_ups_find_what_walks_find_and_the_shape_is_the_same(contents: list[int], changes: list[Change]) -> None:
    looked_up, walked = (
        tiny_state(pages_per_mm=N_PAGES // 2, n_contents=N_CONTENTS, force_exact=force_exact) for force_exact in (0, 1)
    )
    assert list(scan(looked_up, contents, changes)) == list(scan(walked, contents, changes))
    for s in (looked_up, walked):
        unstable_tree.build_unstable_tree(s, 0)
    held = np.flatnonzero(walked.page_bytes[:, state.ITEM_FLAGS] & state.UNSTABLE) + 1
    assert looked_up.trees[state.UNSTABLE_ROOT].tolist() == walked.trees[state.UNSTABLE_ROOT].tolist()
    assert looked_up.unstable_links[held, :4].tolist() == walked.unstable_links[held, :4].tolist()
    assert looked_up.page_bytes.tolist() == walked.page_bytes.tolist()


# over many scans, with pages at rest: what is built against what was done literally, insertion by insertion, erasure by erasure

N_RESTED = 10  # pages of each of two mms
SHAPE = [state.LEFT, state.RIGHT, state.PARENT, state.BLACK]
writes = st.lists(st.tuples(st.integers(0, 2 * N_RESTED - 1), st.integers(1, 29)), max_size=4)


def same_trees(late: State, literal: State, n_nids: int) -> None:
    """The trees of `late`, which are built now, are those of `literal`, which were there all along."""
    assert shares(late) == shares(literal)
    for nid in range(n_nids):
        rows = [page + 1 for page in held(late, nid)]
        assert held(literal, nid) == [row - 1 for row in rows]
        assert late.trees[state.UNSTABLE_ROOT, nid] == literal.trees[state.UNSTABLE_ROOT, nid]
        assert late.unstable_links[rows][:, SHAPE].tolist() == literal.unstable_links[rows][:, SHAPE].tolist()


@settings(max_examples=300)
@given(
    st.lists(st.integers(1, 29), min_size=2 * N_RESTED, max_size=2 * N_RESTED),
    st.lists(writes, min_size=1, max_size=12),
    st.lists(st.tuples(st.integers(0, 8), writes), max_size=5),
    st.sampled_from([(Kernel.V6_1, 0), (Kernel.V6_12, 0), (Kernel.V6_12, 1)]),
    st.integers(0, 1),
)
def test_a_tree_built_in_mid_scan_is_the_tree_that_was_there_all_along(
    contents: list[int],
    rounds: list[list[tuple[int, int]]],
    in_mid_scan: list[tuple[int, list[tuple[int, int]]]],
    how: tuple[Kernel, int],
    across: int,
) -> None:
    kernel, smart_scan = how
    machines = [
        tiny_state(
            kernel,
            pages_per_mm=N_RESTED,
            n_contents=30,
            n_nodes=64,
            n_members=128,
            smart_scan=smart_scan,
            merge_across_nodes=across,
            force_exact=force_exact,
        )
        for force_exact in (0, 1)
    ]
    for s in machines:
        s.page_bytes[::3, state.PAGE_NID] = 1
        fill(s, *contents)
        for k, pages in enumerate(rounds):
            ksmd.ksm_scan_thread(s, FOREVER, k + 1, FOREVER)
            for page, content in pages:
                fill(s, content, first=page)
        for n_visits, pages in in_mid_scan:
            visits(s, n_visits)
            for page, content in pages:
                fill(s, content, first=page)
    late, literal = machines
    assert late.counters[Counter.FULL_SCANS] == literal.counters[Counter.FULL_SCANS]
    if late.scan[Scan.CUR_MM] != NO_MM:  # else the trees are of a scan that is over
        same_trees(late, literal, 1 if across else 2)


@settings(max_examples=200)
@given(st.permutations(range(8)), st.integers(0, 8), st.sets(st.integers(0, 7)))
def test_what_was_erased_is_put_in_and_taken_out_in_turn(order: list[int], n_before: int, erased: set[int]) -> None:
    # erasures after the visit of page n_before + k, by hand; with order a permutation all contents differ
    late, literal = (tiny_state(n_contents=8, force_exact=force_exact) for force_exact in (0, 1))
    for s in (late, literal):
        fill(s, *order)
        with_items(s)
        gone = sorted(page for page in erased if page < n_before)
        for page in range(8):
            search(s, page)
            if page >= n_before and gone:
                rmap_item.remove_rmap_item_from_tree(s, gone.pop())
    assert late.trees[state.UNSTABLE_EXACT, 0] == 0
    same_trees(late, literal, 1)
