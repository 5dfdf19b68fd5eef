"""Is it known who is alone with a content, and is he woken when somebody comes? Frames that hold a content, per tree.

What is counted is recounted after every step of random runs by tests/invariants.
"""

import pytest
from unit.kernels.tiny import fill, tiny_state

from ksmbatch import state
from ksmbatch.codes import Status
from ksmbatch.kernels import cursor, fault, ksmd, twins
from ksmbatch.kernels.cohorts import SEARCHING
from ksmbatch.kernels.migrate import frame_move
from ksmbatch.kernels.stable_tree import mark_ksm
from ksmbatch.metrics import Counter
from ksmbatch.state import FOREVER, Knob, State

SINGLE = 6  # a content that is never on two frames


def holders(s: State, content: int) -> list[int]:
    """Per tree."""
    counted: list[int] = s.by_content[:, content, state.HOLDERS].tolist()
    return counted


def at_rest(*contents: int, **knobs: int) -> State:
    """Contents from page 0 on, after two scans."""
    s = tiny_state(n_single=1, **knobs)
    fill(s, *contents)
    assert ksmd.ksm_scan_thread(s, FOREVER, 2, FOREVER) == Status.DONE
    return s


@pytest.mark.parametrize(("across", "tree"), [(0, 1), (1, 0)])
def test_a_frame_belongs_to_the_tree_of_its_node_or_to_the_only_one(across: int, tree: int) -> None:
    assert twins.tree_of(tiny_state(merge_across_nodes=across), 1) == tree


def test_frames_are_counted_when_they_come_change_and_go() -> None:
    s = tiny_state(merge_across_nodes=0)
    fill(s, 3, 3, 4)
    assert (holders(s, 3), holders(s, 4)) == ([2, 0], [1, 0])
    fill(s, 4)  # in place
    assert (holders(s, 3), holders(s, 4)) == ([1, 0], [2, 0])
    fault.zap_pages(s, 1, 3)
    assert (holders(s, 3), holders(s, 4)) == ([0, 0], [1, 0])


def test_a_frame_that_is_mapped_twice_counts_once() -> None:
    s = tiny_state()
    fill(s, 3)
    fault.map_frame(s, 1, 0)
    assert holders(s, 3) == [1, 0]
    fault.zap_pages(s, 0, 1)
    assert holders(s, 3) == [1, 0]
    fault.zap_pages(s, 1, 2)
    assert holders(s, 3) == [0, 0]


def test_a_frame_that_moves_is_counted_where_it_comes_to() -> None:
    s = tiny_state(merge_across_nodes=0)
    fill(s, 3)
    frame_move.change_place(s, 0, 1)
    assert holders(s, 3) == [0, 1]


def test_a_ksm_page_is_in_the_stable_tree_and_not_counted() -> None:
    s = tiny_state()
    fill(s, 3)
    mark_ksm(s, 0)
    assert holders(s, 3) == [0, 0]
    fault.zap_pages(s, 0, 1)
    assert holders(s, 3) == [0, 0]


def test_copies_of_a_ksm_page_are_counted_again() -> None:
    s = at_rest(3, 3)
    assert holders(s, 3) == [0, 0]
    fault.unmerge_pages(s, 0, 8)
    assert holders(s, 3) == [2, 0]


def test_nobody_counts_contents_that_only_one_page_ever_has() -> None:
    s = at_rest(SINGLE)
    assert s.cohort[0] == SEARCHING
    assert not s.by_content[:, :, state.HOLDERS].any()
    twins.holder_comes(s, 0, SINGLE)
    twins.holder_goes(s, 0, SINGLE)
    assert not s.by_content[:, :, state.HOLDERS].any()


def test_who_is_alone_is_woken_by_the_second_that_comes() -> None:
    s = at_rest(3, 4)
    assert s.cohort[:2].tolist() == [SEARCHING, SEARCHING]
    fill(s, 3, first=4)
    assert s.cohort[:2].tolist() == [0, SEARCHING]
    assert s.by_content[0, 3, state.RESTING] == 0
    assert cursor.is_due(s, 0, 3)


def test_a_twin_in_another_tree_wakes_nobody() -> None:
    s = at_rest(3, merge_across_nodes=0)
    s.page_bytes[4, state.PAGE_NID] = 1
    fill(s, 3, first=4)
    assert s.cohort[0] == SEARCHING
    frame_move.change_place(s, 4, 0)
    assert s.cohort[0] == 0


def test_who_goes_wakes_nobody() -> None:
    s = at_rest(3, 4)
    fault.zap_pages(s, 1, 2)
    assert s.cohort[:2].tolist() == [SEARCHING, 0]


def test_a_page_that_wrote_itself_out_of_its_content_is_no_twin_of_its_next_holder() -> None:
    s = at_rest(3, smart_scan=1)
    fill(s, 4)  # it sleeps on
    cohort = int(s.cohort[0])
    fill(s, 3, first=4)
    assert s.cohort[0] == cohort != 0
    assert holders(s, 3) == [1, 0]


def test_when_the_trees_change_frames_are_counted_anew_for_those_there_are_then() -> None:
    s = tiny_state(merge_across_nodes=0)
    s.page_bytes[4:, state.PAGE_NID] = 1
    fill(s, 3, 3, 5)
    fill(s, 3, 4, 4, first=4)
    mark_ksm(s, 2)
    assert (holders(s, 3), holders(s, 4)) == ([2, 1], [0, 2])
    s.knobs[Knob.MERGE_ACROSS_NODES] = 1
    twins.recount_holders(s)
    assert [holders(s, content) for content in (3, 4, 5)] == [[3, 0], [2, 0], [0, 0]]
    s.knobs[Knob.MERGE_ACROSS_NODES] = 0
    twins.recount_holders(s)
    assert (holders(s, 3), holders(s, 4)) == ([2, 1], [0, 2])


def test_nobody_is_counted_for_a_content_that_nobody_has() -> None:
    s = at_rest(1, 2, 3, 1)
    fault.zap_pages(s, 0, 8)
    assert not s.by_content[:, :, state.HOLDERS].any()
    assert s.counters[Counter.FRAMES_IN_USE] == 0
