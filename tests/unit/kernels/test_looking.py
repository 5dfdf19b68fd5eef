"""Which pages at rest must look at a stable tree all the same? Against a plain walk of each of them, from the root.

Contents and trees are put together by hand, so that they can be of any kind. What visits then do is in test_stable_tree.py.
"""

from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.kernels.tiny import fill, tiny_state, visit

from ksmbatch import state
from ksmbatch.codes import Kernel
from ksmbatch.kernels import cohorts, looking, passing, resting, stable_chain, stable_node, stable_shape
from ksmbatch.kernels.cohorts import IS_VISIT, SEARCHING
from ksmbatch.state import NIL, NO_FRAME, Scan, State

N_HELD, N_SINGLE, PAGES_PER_MM = 128, 640, 96
N_PAGES = 2 * PAGES_PER_MM
PAYS = N_PAGES // int(looking.IN_VAIN) + 1  # so many looks in vain
BLOCK_PAYS = int(state.PAGES_PER_BLOCK // looking.MANY)  # so many pages of a block that search


def a_state(*, across: int = 1, n_single: int = N_SINGLE, seed: int = 0) -> State:
    """Two mms in mid-scan without a page; contents held once, and held twice, are mixed in memcmp order."""
    s = tiny_state(
        pages_per_mm=PAGES_PER_MM, n_contents=N_HELD, n_single=n_single, n_nodes=256, merge_across_nodes=across, smart_scan=1
    )
    held = [0, 2, 5, 8, *sorted(Random(seed).sample(range(9, N_HELD + n_single), N_HELD - 4))]
    s.rank[:N_HELD] = held
    s.rank[N_HELD:] = np.setdiff1d(np.arange(N_HELD + n_single), held)
    for _ in range(20):
        passing.begin_passes(s)
    s.page_bytes[:, state.ITEM_FLAGS] = state.ITEM
    return s


def plant(s: State, *contents: int, nid: int = 0) -> None:
    """Plain nodes in the tree of `nid`, with frames."""
    for content in contents:
        stable_chain.tree_insert(s, int(stable_node.alloc_stable_node(s, content, 0, nid)), nid)


def lose(s: State, *contents: int, nid: int = 0) -> None:
    """The nodes of these contents are stale from now on: walks that pass them change them."""
    for content in contents:
        stable_node.kpfn_gone(s, int(s.by_content[nid, content, state.STABLE_AT]), nid)


def prune(s: State, content: int, nid: int = 0) -> None:
    """A walk has met the stale node of `content`."""
    stable_chain.ksm_get_folio(s, int(s.by_content[nid, content, state.STABLE_AT]))


def rest(s: State, page: int, content: int, nid: int = 0, cohort: int = int(SEARCHING)) -> None:
    """`page` searches the tree of `nid` for `content`, and rests; if others may have that, it is alone with it."""
    if content < N_HELD:
        assert s.by_content[nid, content, [state.RESTING, state.STABLE_AT]].tolist() == [0, NIL]
        s.by_content[nid, content, state.RESTING] = page + 1
    s.pages[page, state.FRAME] = page
    s.frames[page, state.FRAME_CONTENT] = content
    s.page_bytes[page, state.ITEM_NID] = nid
    resting.rest(s, page, cohort)
    looking.watch(s, page, nid, content)


def plainly_meets(s: State, nid: int, content: int) -> bool:
    """Whether a walk from the root passes something stale above where `content` hangs."""
    stable_shape.build_stable_tree(s, nid)
    row = int(s.trees[state.STABLE_ROOT, nid])
    while row != NIL and row - 1 != content:
        if s.nodes[s.by_content[nid, row - 1, state.STABLE_AT], state.KPFN] == NO_FRAME:
            return True
        row = int(s.stable_links[nid, row, state.LEFT if s.rank[content] < s.rank[row - 1] else state.RIGHT])
    return False


def plainly_look(s: State) -> list[int]:
    """The pages at rest that search in this scan, and whose searches meet something."""
    found = []
    for page in range(N_PAGES):
        if s.cohorts[0, s.cohort[page]] & IS_VISIT:
            nid, content = int(s.page_bytes[page, state.ITEM_NID]), int(s.frames[page, state.FRAME_CONTENT])
            found += [page] if plainly_meets(s, nid, content) else []
    return found


def look(s: State, first: int = 0, end: int = N_PAGES) -> list[int]:
    """The pages of [first, end) that must look, one after the other."""
    found = []
    s.scan[Scan.N_SEARCHERS] = looking.UNKNOWN
    while first < end:
        first = int(looking.first_that_looks(s, first, end, looking.lively_trees(s)))
        if first < end:
            found.append(first)
        first += 1
    return found


def let_it_pay(s: State) -> None:
    """Enough pages were looked at in vain to watch for other contents, and enough of the block search to look it through."""
    s.scan[Scan.LOOKED_IN_VAIN] = PAYS
    s.scan[Scan.PENDING_VISITS] = BLOCK_PAYS


def unwatched(s: State) -> list[int]:
    """The pages at rest that `watch` lacks, though their block was looked through for those of their content."""
    return [
        page
        for page in np.flatnonzero(s.cohort >= SEARCHING).tolist()
        if s.watch_of_block[page // int(state.PAGES_PER_BLOCK)] == s.scan[Scan.WATCH]
        and looking.is_watched(s, int(s.page_bytes[page, state.ITEM_NID]), int(s.frames[page, state.FRAME_CONTENT]))
        and not s.watch[page // 32] >> np.uint32(page % 32) & 1
    ]


def full_house(s: State, nid: int = 0, *, stale: tuple[int, ...] = (8,)) -> None:
    """A node for every other content held twice, some stale; pages with contents held once rest all over."""
    plant(s, *range(0, N_HELD, 2), nid=nid)
    lose(s, *stale, nid=nid)
    for page in range(N_PAGES):
        rest(s, page, N_HELD + page * N_SINGLE // N_PAGES, nid)


# what is found


moves = st.lists(
    st.tuples(
        st.sampled_from(("plant", "lose", "lose", "prune", "rest", "rest", "rest", "wake", "look", "look all")),
        st.integers(0, 10_000),
        st.integers(0, 1),
    ),
    max_size=80,
)


@settings(max_examples=150)
@given(st.integers(0, 5), st.integers(0, 1), st.booleans(), moves)
def test_the_pages_found_are_those_that_a_plain_walk_of_every_page_finds(
    seed: int, across: int, pays: bool, history: list[tuple[str, int, int]]
) -> None:
    s = a_state(across=across, seed=seed)
    plant(s, *range(0, N_HELD, 3))
    for page in range(0, N_PAGES, 2):
        rest(s, page, N_HELD + 3 * page)
    for page in range(1, N_HELD, 3):
        rest(s, 2 * (page // 3) + 1, page)
    for what, number, nid in history:
        tree = 0 if across else nid
        hanging = np.flatnonzero(s.by_content[tree, :, state.STABLE_AT]).tolist()
        stale = [node for node in hanging if s.nodes[s.by_content[tree, node, state.STABLE_AT], state.KPFN] == NO_FRAME]
        live = [content for content in hanging if content not in stale]
        page = number % N_PAGES
        if what == "plant" and number % N_HELD not in hanging:
            plant(s, number % N_HELD, nid=tree)
        elif what == "lose" and live:
            lose(s, live[number % len(live)], nid=tree)
        elif what == "prune" and stale:
            prune(s, stale[number % len(stale)], nid=tree)
        elif what == "rest" and s.cohort[page] == 0:
            content = number % (N_HELD if number % 2 else N_HELD + N_SINGLE)
            if content >= N_HELD or (content not in hanging and s.by_content[tree, content, state.RESTING] == 0):
                rest(s, page, content, tree, int(SEARCHING) + number % 7)
        elif what == "wake" and s.cohort[page] != 0:
            resting.rouse(s, page, int(s.scan[Scan.SEQ]) - 1)
        elif what.startswith("look"):
            if pays:
                let_it_pay(s)
            ends = (0, N_PAGES) if what == "look all" else sorted((page, number // 7 % (N_PAGES + 1)))
            assert look(s, *ends) == [page for page in plainly_look(s) if ends[0] <= page < ends[1]]
        s.calendar[:] = 0  # what wakes pages
        assert unwatched(s) == []
    assert look(s) == plainly_look(s)


@pytest.mark.parametrize("pays", [False, True])
def test_pages_that_are_skipped_in_this_scan_need_not_look(pays: bool) -> None:
    s = a_state()
    full_house(s)
    found = look(s)
    assert len(found) > 1
    s.cohort[found[0]] = cohorts.cohort_of(5, int(s.scan[Scan.SEQ]))
    assert not s.cohorts[0, s.cohort[found[0]]] & IS_VISIT
    if pays:
        let_it_pay(s)
    assert look(s) == found[1:]


def test_nobody_must_look_where_every_tree_is_calm() -> None:
    s = a_state()
    full_house(s, stale=())
    assert looking.lively_trees(s) == 0
    assert look(s) == []


def test_where_the_unstable_tree_is_walked_every_page_that_searches_must_look() -> None:
    s = a_state()
    full_house(s, stale=())
    s.trees[state.UNSTABLE_EXACT, 0] = 1
    s.cohort[3] = 0
    assert look(s) == [page for page in range(N_PAGES) if page != 3]


def test_only_the_pages_of_lively_trees_must_look() -> None:
    s = a_state(across=0)
    full_house(s, nid=1)
    for page in range(0, N_PAGES, 2):
        s.page_bytes[page, state.ITEM_NID] = 0
    assert looking.lively_trees(s) == 2
    assert look(s) == plainly_look(s)
    assert look(s)
    assert all(page % 2 for page in look(s))


# what is watched


def watched(s: State) -> int:
    """How many pages `watch` has."""
    return sum(int(word).bit_count() for word in s.watch)


def test_other_contents_are_watched_for_only_when_enough_pages_were_looked_at_in_vain() -> None:
    s = a_state()
    full_house(s)
    must = plainly_look(s)
    n_before = min(must)
    assert look(s, 0, n_before) == []
    assert s.scan[Scan.LOOKED_IN_VAIN] == n_before  # each of them searches
    s.scan[Scan.LOOKED_IN_VAIN] = PAYS - 1
    looking.first_that_looks(s, 0, 1, 1)
    assert (s.trees[state.WATCHED, 0], s.scan[Scan.WATCH]) == (0, 0)
    s.scan[Scan.LOOKED_IN_VAIN] = PAYS
    assert look(s) == must
    assert (s.trees[state.WATCHED, 0], s.scan[Scan.WATCH]) == (1, 1)


def test_looks_that_no_watch_could_spare_are_not_in_vain() -> None:
    s = a_state()
    full_house(s, stale=(0, N_HELD - 2))
    look(s)
    assert not looking.is_narrow(s, 0)
    assert s.scan[Scan.LOOKED_IN_VAIN] == 0


@pytest.mark.parametrize(("in_vain", "pending"), [(0, BLOCK_PAYS), (BLOCK_PAYS, 0), (BLOCK_PAYS + 7, 1)])
def test_a_block_is_looked_through_when_it_has_many_pages_that_search_or_looks_in_vain_have_paid_for_it(
    in_vain: int, pending: int
) -> None:
    s = a_state()
    full_house(s)
    let_it_pay(s)
    s.scan[Scan.PENDING_VISITS] = 0
    assert look(s) == plainly_look(s)
    assert (s.scan[Scan.WATCH], s.watch_of_block[0], watched(s)) == (1, 0, 0)
    s.scan[Scan.LOOKED_IN_VAIN], s.scan[Scan.PENDING_VISITS] = in_vain, pending
    looking.first_that_looks(s, N_PAGES - 1, N_PAGES, 1)  # which is not watched
    assert s.scan[Scan.LOOKED_IN_VAIN] == max(in_vain - BLOCK_PAYS, 0)
    assert s.watch_of_block[0] == 1
    assert unwatched(s) == []
    assert 0 < watched(s) < N_PAGES / 2
    assert look(s) == plainly_look(s)


def test_what_is_watched_is_more_than_what_must_look_now_so_that_it_covers_a_tree_that_turns() -> None:
    s = a_state()
    full_house(s)
    let_it_pay(s)
    must = look(s)
    assert looking.is_covered(s, 0)
    assert watched(s) > len(must)


@pytest.mark.parametrize(
    ("watch", "look_at", "by"),
    [
        (state.WATCH_FIRST, state.LOOK_FIRST, 1),
        (state.WATCH_END, state.LOOK_END, -1),
        (state.WATCH_LOW, state.LOOK_LOW, 1),
        (state.WATCH_HIGH, state.LOOK_HIGH, -1),
    ],
)
def test_a_tree_is_covered_if_none_of_its_four_bounds_is_beyond_what_is_watched(watch: int, look_at: int, by: int) -> None:
    s = a_state()
    full_house(s)
    let_it_pay(s)
    look(s)
    s.trees[watch, 0] = s.trees[look_at, 0]
    assert looking.is_covered(s, 0)
    s.trees[watch, 0] += by
    assert not looking.is_covered(s, 0)


def test_a_page_that_begins_its_rest_is_watched_if_its_content_is() -> None:
    s = a_state()
    full_house(s)
    let_it_pay(s)
    must = look(s)
    content = int(s.frames[must[0], state.FRAME_CONTENT])
    s.cohort[190:] = 0
    s.watch[5] = 0
    rest(s, 190, content + 1)
    rest(s, 191, N_HELD + N_SINGLE - 1)
    assert [bool(s.watch[5] >> np.uint32(page % 32) & 1) for page in (190, 191)] == [True, False]
    assert look(s) == plainly_look(s)


@pytest.mark.parametrize("kernel", [Kernel.V6_1, Kernel.V6_12])
@pytest.mark.parametrize(("batch", "smart_scan"), [(1, 0), (1000, 0), (1, 1), (1000, 1)])
def test_whatever_lets_a_page_rest_has_it_watched(kernel: Kernel, batch: int, smart_scan: int) -> None:
    # pages seen for the first time, one by one or as a run; later one that has changed, and one that comes back from a KSM page
    s = tiny_state(kernel, n_single=4, pages_to_scan=batch, smart_scan=smart_scan)
    s.trees[[state.WATCHED, state.WATCH_END, state.WATCH_HIGH], 0] = 1, 99, 99
    s.trees[state.WATCH_LOW, 0] = -1
    fill(s, 1, 6, 3, 3)
    fill(s, 2, 7, first=4)
    for contents in ((), (5, 8), (None, None, 4)):
        fill(s, *contents)
        for _ in range(12):
            visit(s, 10)
            assert unwatched(s) == []
    assert (s.cohort[[0, 1, 2, 4, 5]] >= SEARCHING).all()
    assert [page for page in range(8) if s.watch[0] >> np.uint32(page) & 1] == [0, 1, 2, 4, 5]


def test_a_tree_that_gets_something_to_look_at_elsewhere_is_no_longer_covered_and_all_pages_are_gone_through() -> None:
    s = a_state()
    full_house(s)
    let_it_pay(s)
    assert look(s) == plainly_look(s)
    before = s.watch.tolist()
    lose(s, N_HELD - 2)
    stable_shape.know_where_to_look(s, 0)
    assert not looking.is_covered(s, 0)
    s.scan[Scan.LOOKED_IN_VAIN] = 0
    assert look(s) == plainly_look(s)
    assert max(look(s)) > N_PAGES * 0.9
    assert s.watch.tolist() == before  # from one end of the tree to the other there are too many to watch


def test_where_almost_all_contents_may_meet_something_nobody_is_watched_though_it_would_pay() -> None:
    s = a_state()
    full_house(s, stale=(0, N_HELD - 2))
    let_it_pay(s)
    assert look(s) == plainly_look(s)
    assert not looking.is_narrow(s, 0)
    assert (s.trees[state.WATCHED, 0], watched(s)) == (0, 0)


def test_watch_is_made_anew_when_it_has_far_more_than_it_needs_and_looks_in_vain() -> None:
    s = a_state(n_single=8 * N_SINGLE)
    plant(s, *range(2, N_HELD))
    lose(s, 2)  # a leaf, below which 5 contents held once belong
    for page in range(N_PAGES):
        rest(s, page, N_HELD + page)
    let_it_pay(s)
    look(s)
    assert not looking.is_loose(s, 0)
    s.trees[state.WATCH_END, 0] = N_HELD + 4 * N_SINGLE  # as if there had been more to look at
    assert looking.is_loose(s, 0)
    s.scan[Scan.LOOKED_IN_VAIN] = 0
    looking.first_that_looks(s, 0, 1, 1)
    assert s.trees[state.WATCH_END, 0] == N_HELD + 4 * N_SINGLE  # it does not pay yet
    let_it_pay(s)
    assert look(s) == plainly_look(s)
    assert s.trees[state.WATCH_END, 0] < N_HELD + 4 * N_SINGLE


def test_who_wakes_all_pages_watches_for_nobody() -> None:
    s = a_state()
    full_house(s)
    let_it_pay(s)
    look(s)
    resting.wake_all(s)
    assert not s.trees[state.WATCHED].any()
    assert look(s) == []


@settings(max_examples=300)
@given(st.integers(-1, 2**31 - 1), st.integers(0, 2**31 - 1), st.integers(0, 2**20))
def test_widened_bounds_hold_the_narrow_ones_and_are_int32(low: int, more: int, most: int) -> None:
    high = min(low + more, 2**31 - 1)
    wide_low, wide_high = map(int, looking.widened(low, high, most))
    assert -1 <= wide_low <= low
    assert high <= wide_high <= 2**31 - 1
    assert low - wide_low <= most
    assert wide_high - high <= most
