"""Are lines of one content drawn up anew where pages have left all but the last of them, or led one, and only there?

Every claim is held against the same machine where every page is visited, hlist by hlist, and members and slots are recounted.
"""

import numpy as np
import pytest
from unit.kernels.pairs import N_PAGES, Pair
from unit.kernels.redrawn import drawn_up
from unit.kernels.tiny import visit

from ksmbatch import state
from ksmbatch.kernels.cohorts import IN_LINE
from ksmbatch.state import Scan, State
from ksmbatch.stateview import StateView

ALL_EQUAL = 30  # pages, on both mms
OTHERS = range(4, 11)  # contents that one page each comes to hold


def equal_pages(n: int, most: int, **knobs: int) -> Pair:
    """So many pages with content 3 from page 0 on, which have been looked at once."""
    both = Pair(*[3] * n, max_page_sharing=most, **knobs)
    both.scan()
    return both


def leave(both: Pair, pages: list[int]) -> None:
    """These pages are written, each with something else."""
    for k, page in enumerate(pages):
        both.write(OTHERS[k % len(OTHERS)], first=page)
    both.compare()


def leaders(s: State) -> list[int]:
    found: list[int] = np.flatnonzero(s.page_bytes[:, state.ITEM_FLAGS] & state.LEADS).tolist()
    return found


def lines_of(s: State) -> list[list[int]]:
    """The pages of each line, in the order in which they will join, the lines in the order in which they were made."""
    view = StateView(s)
    return [
        [view.members[member][state.MEMBER_PAGE] for member in reversed(view.present(view.listed_members[line]))]
        for line in reversed(view.planned)
    ]


def cut(pages: list[int], most: int) -> list[list[int]]:
    """The `pages` as lines, all of which but the last have `most`."""
    return [pages[first : first + most] for first in range(0, len(pages), most)]


def follow(both: Pair) -> None:
    """The lines are passed, and what they came to stays what it is for some scans."""
    both.scan(3)
    assert both.in_line == []
    assert leaders(both.s) == []


# who has left


@pytest.mark.parametrize("most", [2, 3, 4, 5])
@pytest.mark.parametrize("page", [0, 1, 2, 3, 4, 5, 7, 12, 16, 28, 29])
def test_lines_close_up_where_a_page_has_left(most: int, page: int) -> None:
    both = equal_pages(ALL_EQUAL, most)
    leave(both, [page])
    others = [other for other in range(ALL_EQUAL) if other != page]
    drawn = drawn_up(both.s)
    assert [line for line in lines_of(drawn) if line] == cut(others, most)
    assert leaders(drawn) == [other for k, other in enumerate(others) if k % most < 2]
    follow(both)


@pytest.mark.parametrize("most", [3, 4, 5])
@pytest.mark.parametrize("seed", range(12))
def test_lines_close_up_where_many_have_left(most: int, seed: int) -> None:
    both = equal_pages(ALL_EQUAL, most)
    rng = np.random.default_rng(seed)
    leave(both, sorted(rng.choice(ALL_EQUAL, size=int(rng.integers(2, ALL_EQUAL)), replace=False).tolist()))
    follow(both)


@pytest.mark.parametrize("most", [3, 4, 5])
def test_one_that_led_follows_and_one_that_followed_leads(most: int) -> None:
    both = equal_pages(12, most)
    leave(both, [2])
    before, after = set(leaders(both.s)), set(leaders(drawn_up(both.s)))
    assert (bool(before - after), bool(after - before)) == (True, True)
    follow(both)


@pytest.mark.parametrize("most", [3, 4])
def test_all_pages_may_have_gone(most: int) -> None:
    both = equal_pages(11, most)
    leave(both, list(range(11)))
    assert lines_of(drawn_up(both.s)) == [[]] * -(-11 // most)
    follow(both)


@pytest.mark.parametrize("most", [3, 4, 5])
def test_all_that_lead_may_have_gone_and_one_that_did_not(most: int) -> None:
    both = equal_pages(ALL_EQUAL, most)
    leave(both, leaders(both.s))
    leave(both, both.in_line[:1])
    left = both.in_line
    assert lines_of(drawn_up(both.s))[: -(-len(left) // most)] == cut(left, most)
    follow(both)


@pytest.mark.parametrize("most", [2, 3, 4, 5])
def test_all_that_lead_may_have_gone(most: int) -> None:
    both = equal_pages(ALL_EQUAL, most)
    leave(both, leaders(both.s))
    follow(both)


@pytest.mark.parametrize("most", [3, 4])
@pytest.mark.parametrize("left", [0, 1, 2, 3, 4, 7])
def test_lines_are_too_many_where_few_pages_stay(most: int, left: int) -> None:
    both = equal_pages(20, most)
    leave(both, list(range(20 - left)))
    drawn = lines_of(drawn_up(both.s))
    stay = cut(list(range(20 - left, 20)), most)
    assert drawn == stay + [[]] * (len(drawn) - len(stay))
    assert len(drawn) == -(-20 // most)
    follow(both)


@pytest.mark.parametrize("most", [3, 4])
@pytest.mark.parametrize("who", [0, 1, 4, 5])
def test_one_that_leads_and_whose_content_came_back_keeps_its_place(most: int, who: int) -> None:
    # it was looked at with this content last, so that it will pass the checksum gate
    both = equal_pages(14, most)
    leave(both, [2])
    both.write(9, first=who)
    both.write(3, first=who)
    both.compare()
    follow(both)


@pytest.mark.parametrize("most", [3, 4])
def test_lines_of_several_contents_close_up_each(most: int) -> None:
    both = Pair(*[3, 4, 5] * 10, max_page_sharing=most)
    both.scan()
    leave(both, [6, 10])  # of 3 and 4
    drawn = lines_of(drawn_up(both.s))
    for content, gone in ((3, 6), (4, 10), (5, None)):
        of_content = [page for page in range(content - 3, ALL_EQUAL, 3) if page != gone]
        assert [line for line in drawn if line and line[0] % 3 == content - 3] == cut(of_content, most)
    follow(both)


# where nothing is drawn up


@pytest.mark.parametrize("pages", [[2], [4], [2, 3, 4, 5]])
def test_nothing_is_drawn_up_where_pages_have_left_a_single_line(pages: list[int]) -> None:
    both = equal_pages(6, 256)
    leave(both, pages)
    assert not both.s.scan[Scan.LINES_LEFT]
    follow(both)


@pytest.mark.parametrize("gone", [[0], [1], [0, 1], [0, 1, 2], [0, 3], [0, 1, 2, 3, 4], [0, 1, 2, 3, 4, 5]])
def test_a_single_line_gets_leaders_again(gone: list[int]) -> None:
    both = equal_pages(6, 256)
    leave(both, gone)
    others = [page for page in range(6) if page not in gone]
    drawn = drawn_up(both.s)
    assert (lines_of(drawn), leaders(drawn)) == ([others], others[:2])
    follow(both)


def test_nothing_is_drawn_up_in_mid_scan() -> None:
    both = equal_pages(12, 3, pages_to_scan=4)
    both.do(visit)
    both.write(9, first=8)
    both.compare()
    before = leaders(both.s)
    both.do(visit)
    assert set(leaders(both.s)) <= set(before)
    follow(both)


# where frames are


@pytest.mark.parametrize("across", [0, 1])
@pytest.mark.parametrize("page", [2, 3, 10])
def test_pages_in_line_are_of_another_class_where_the_ksm_page_will_be_elsewhere(across: int, page: int) -> None:
    both = Pair(merge_across_nodes=across, max_page_sharing=4)
    nids = np.resize([0, 1, 1, 0, 0], 2 * N_PAGES)
    both.do(lambda s: s.page_bytes.__setitem__((slice(None), state.PAGE_NID), nids))
    both.write(*[3] * ALL_EQUAL)
    both.scan()
    waited = both.in_line
    assert page in waited or not across
    leave(both, [page])
    if both.s.scan[Scan.LINES_LEFT]:
        drawn = drawn_up(both.s)
        changed = [other for other in waited if drawn.cohort[other] >= IN_LINE and drawn.cohort[other] != both.s.cohort[other]]
        assert bool(set(changed) - {page}) == bool(across)
    follow(both)
