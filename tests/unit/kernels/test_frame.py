"""Is each step right with frames? Which NUMA node has one, who gets which, what is counted, what goes with the last mapping.

Writes, copies and forks are in test_fault.py.
"""

import pytest
from unit.kernels.moving import HERE, THERE, counted, nids_of, node_counters, share, two_homes
from unit.kernels.tiny import fill, frames_of, tiny_state

from ksmbatch import state
from ksmbatch.kernels import fault, frame
from ksmbatch.kernels.frame import NOWHERE
from ksmbatch.kernels.stable_tree import mark_ksm
from ksmbatch.metrics import Counter, NodeCounter
from ksmbatch.state import NO_FRAME, Scan, State

# a square of nodes: 0 - 1 - 2 - 3 - 0 are neighbours, across it is far
SQUARE = ((10, 20, 30, 20), (20, 10, 20, 30), (30, 20, 10, 20), (20, 30, 20, 10))
N = int(NO_FRAME)


def use(s: State, *frames: int) -> State:
    """So many frames of each node are in use."""
    s.node_counters[:, NodeCounter.FRAMES] = frames
    return s


@pytest.mark.parametrize(
    ("node_pages", "in_use", "offline", "has_room"),
    [(0, 7, 0, True), (8, 7, 0, True), (7, 7, 0, False), (0, 0, 1, False), (8, 7, 1, False)],
)
def test_a_node_has_room_if_it_is_online_and_not_full(node_pages: int, in_use: int, offline: int, has_room: bool) -> None:
    s = use(tiny_state(node_pages=node_pages), 0, in_use)
    s.numa[1, state.OFFLINE] = offline
    assert bool(frame.has_room(s, 1)) == has_room


def test_nodes_that_are_equally_far_away_come_by_number() -> None:
    s = tiny_state(n_nids=4)
    assert s.numa[:, state.NEAREST : state.NEAREST + 3].tolist() == [[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]]


@pytest.mark.parametrize(
    ("nid", "full", "nearest"),
    [
        (0, (), 1),
        (0, (1,), 3),  # a neighbour before the lower number across
        (0, (1, 3), 2),
        (0, (1, 2, 3), NOWHERE),
        (2, (), 1),
        (2, (1,), 3),
        (3, (), 0),
        (3, (0, 2), 1),
        (0, (0,), 1),  # it does not matter whether it has room itself
    ],
)
@pytest.mark.parametrize("by", ["full", "offline"])
def test_the_nearest_node_that_has_room_is_the_first_by_distance_and_then_by_number(
    nid: int, full: tuple[int, ...], nearest: int, by: str
) -> None:
    s = tiny_state(n_nids=4, node_pages=5, distance=SQUARE)
    if by == "full":
        use(s, *(5 if other in full else 4 for other in range(4)))
    else:
        s.numa[list(full), state.OFFLINE] = 1
    assert frame.nearest_with_room(s, nid) == nearest


def test_a_host_of_one_node_has_no_other() -> None:
    assert frame.nearest_with_room(tiny_state(n_nids=1), 0) == NOWHERE


def test_a_page_gets_its_frame_at_home_and_when_home_is_full_on_the_nearest_node() -> None:
    s = tiny_state(n_nids=3, node_pages=2, keep_pfns=True)
    fill(s, 1, 2, 3, 4, 5, 1)
    assert nids_of(s, *range(6)) == [0, 0, 1, 1, 2, 2]
    assert s.frame_pfns[:6].tolist() == [1, 2] * 3
    assert node_counters(s)["frames"] == [2, 2, 2]
    assert node_counters(s)["remote_mappings"] == [4, 0, 0]
    fault.zap_pages(s, 1, 3)  # one at home, one abroad
    fill(s, 3, 4, first=6)
    assert nids_of(s, 6, 7) == [0, 1]
    assert s.scan[Scan.OUT_OF_MEMORY] == 0


def test_a_page_whose_home_is_offline_gets_its_frame_elsewhere_until_it_is_back() -> None:
    s = tiny_state()
    s.numa[HERE, state.OFFLINE] = 1
    fill(s, 1)
    s.numa[HERE, state.OFFLINE] = 0
    fill(s, None, 2)
    assert nids_of(s, 0, 1) == [THERE, HERE]


def test_a_copy_on_write_needs_its_frame_before_the_old_one_goes() -> None:
    s = two_homes((3,), node_pages=1)
    share(s, 0)
    fill(s, 4)
    assert nids_of(s, 0) == [THERE]
    assert node_counters(s)["frames"] == [0, 1]
    assert counted(s, "frames_in_use", "peak_frames") == [1, 2]


def test_when_no_node_has_a_frame_left_that_is_noted_and_the_page_gets_one_at_home_all_the_same() -> None:
    s = tiny_state(node_pages=1)
    fill(s, 1, 2)
    assert s.scan[Scan.OUT_OF_MEMORY] == 0
    fill(s, None, None, 3)
    assert s.scan[Scan.OUT_OF_MEMORY] == 1
    assert nids_of(s, 0, 1, 2) == [HERE, THERE, HERE]


def test_frames_in_use_and_the_most_of_them_at_any_moment_are_counted() -> None:
    s = tiny_state()
    fill(s, 3, 3, 3)
    assert counted(s, "frames_in_use", "peak_frames") == [3, 3]
    share(s, 0, 1, 2)
    assert counted(s, "frames_in_use", "peak_frames") == [1, 3]
    fill(s, 4)
    fault.zap_pages(s, 0, 3)
    assert counted(s, "frames_in_use", "peak_frames") == [0, 3]


def test_a_frame_has_its_pages_number_and_if_that_is_taken_a_spare_one() -> None:
    s = tiny_state()
    taken = [int(frame.alloc_frame_on(s, 1, 5, THERE))]
    frame.map_frame(s, 0, taken[0])
    taken += [int(frame.alloc_frame_on(s, 1, 4, HERE)) for _ in range(2)]
    assert taken == [1, len(s.pages), len(s.pages) + 1]
    assert s.frames[taken, state.FRAME_CONTENT].tolist() == [5, 4, 4]
    assert s.frame_bytes[taken, state.FRAME_NID].tolist() == [THERE, HERE, HERE]
    assert node_counters(s)["frames"] == [2, 1]


def test_the_spare_frame_freed_last_is_taken_first() -> None:
    s = tiny_state()
    fill(s, 3)
    spare = [int(frame.alloc_frame_on(s, 0, 4, HERE)) for _ in range(3)]
    for one in spare:
        frame.free_frame(s, one)
    assert s.scan[Scan.FREE_FRAME] == spare[2]
    assert [int(frame.alloc_frame_on(s, 0, 4, HERE)) for _ in range(3)] == spare[::-1]
    assert s.scan[Scan.FREE_FRAME] == NO_FRAME


def test_a_frame_that_is_taken_again_remembers_nothing() -> None:
    s = two_homes((3, 3), keep_pfns=True)
    share(s, 0, 1)
    fault.zap_pages(s, 0, 2)
    fill(s, 5)
    assert frames_of(s)[:2] == [0, N]
    assert s.frames[0, [state.FRAME_CONTENT, state.MAPCOUNT, state.FRAME_NODE]].tolist() == [5, 1, state.NIL]
    assert s.frame_bytes[0, [state.FRAME_FLAGS, state.FRAME_NID]].tolist() == [0, HERE]
    assert s.frame_pfns[0] == 1


def test_a_ksm_page_that_loses_its_last_mapping_leaves_its_stable_node_stale() -> None:
    s = two_homes((), (3, 3))
    node = share(s, 4, 5)
    fault.zap_pages(s, 4, 5)
    assert s.nodes[node, state.KPFN] == 4
    assert node_counters(s)["ksm_frames"] == [0, 1]
    fault.zap_pages(s, 5, 6)
    assert s.nodes[node, [state.KPFN, state.LAST_NID]].tolist() == [NO_FRAME, THERE]
    assert node_counters(s)["ksm_frames"] == node_counters(s)["frames"] == [0, 0]
    assert s.trees[state.STABLE_HOT].tolist() == [0, 1]


def test_a_ksm_page_without_a_stable_node_just_goes() -> None:
    s = two_homes((3,))
    mark_ksm(s, 0)
    fault.zap_pages(s, 0, 1)
    assert node_counters(s)["ksm_frames"] == [0, 0]
    assert s.frame_bytes[0, state.FRAME_FLAGS] == 0


def test_a_dangling_page_is_counted_until_its_last_mapping_goes() -> None:
    s = two_homes((3,))
    mark_ksm(s, 0)
    s.frame_bytes[0, state.FRAME_FLAGS] |= state.DANGLING
    s.counters[Counter.DANGLING_PAGES] = 1
    fault.map_frame(s, 1, 0)
    fault.zap_pages(s, 0, 1)
    assert counted(s, "dangling_pages") == [1]
    fault.zap_pages(s, 1, 2)
    assert counted(s, "dangling_pages") == [0]
