"""Does each mover say what its parameters ask for, at the moments that they name, and over memory that stays lazy?"""

from typing import Any

import numpy as np
import pytest

from ksmbatch.codes import Caller
from ksmbatch.errors import InputError
from ksmbatch.events import ClearFrames, Migrate, Mmap, Offline, Online, Rebind, SetKnob, SetRun, Spawn, Step, Write
from ksmbatch.generators import MOVERS, Move, find_mover
from ksmbatch.generators.moves import lay
from ksmbatch.topology import Topology, default_distance
from ksmbatch.workload import Lazy, Snapshot, Workload

AREAS = {"heap": 5, "stack": 1, "cache": 4}


def host(nodes: int = 2, node_pages: int = 0) -> Topology:
    return Topology(nodes=nodes, distance=default_distance(nodes), node_pages=node_pages)


def clocked(*times_ms: int) -> Workload:
    """One process with three areas, by a clock; every snapshot writes page 0 of its heap."""
    start: list[Step] = [Spawn(proc="web"), *(Mmap(proc="web", area=area, pages=pages) for area, pages in AREAS.items())]
    snapshots = [Snapshot(time_ms=time_ms, steps=[own(k)]) for k, time_ms in enumerate(times_ms)]
    snapshots[0] = Snapshot(time_ms=0, steps=[*start, own(0)])
    return Workload(name="clocked", nodes=2, snapshots=snapshots)


def own(k: int) -> Write:
    return Write(proc="web", area="heap", pages=np.array([0]), contents=np.array([k], np.uint64))


def move(kind: str, key: str = "workload.moves[0]", **given: Any) -> Move:
    return Move(MOVERS[kind], MOVERS[kind].read(given, key), key)


def added(workload: Workload) -> list[tuple[int, list[Step]]]:
    """Time, and steps that are not the workload's own, of every snapshot."""
    mine = Spawn | Mmap | Write
    return [(each.time_ms, [step for step in each.steps if not isinstance(step, mine)]) for each in workload.snapshots]


def migrations(workload: Workload) -> list[list[tuple[str, int, int]]]:
    """Area, first page and pages of the migrations of every snapshot that has any."""
    groups = [[step for step in snapshot.steps if isinstance(step, Migrate)] for snapshot in workload.snapshots]
    return [[(step.area, step.first, step.count) for step in group] for group in groups if group]


def message(*moves: Move, workload: Workload | None = None, **end: int) -> str:
    with pytest.raises(InputError) as error:
        lay(workload or clocked(0, 1000, 2000), moves, host(), **end)
    return str(error.value)


# ---- rebalance


def test_a_process_moves_at_once_with_its_memory_policy() -> None:
    steps = dict(added(lay(clocked(0, 1000, 2000), [move("rebalance", mm="web", node=1, at=1)], host())))
    assert steps[0] == steps[2000] == []
    assert steps[1000] == [
        *(Rebind(proc="web", area=area, node=1) for area in AREAS),
        *(Migrate(proc="web", area=area, first=0, count=pages, node=1) for area, pages in AREAS.items()),
    ]


@pytest.mark.parametrize("slices", range(1, 11))
def test_slices_are_equal_runs_that_cover_every_page_once_in_address_order(slices: int) -> None:
    groups = migrations(lay(clocked(0), [move("rebalance", mm="web", node=1, at="0s", slices=slices, every="1s")], host()))
    sizes = [sum(count for _, _, count in group) for group in groups]
    assert len(groups) == slices
    assert max(sizes) - min(sizes) <= 1
    pages = [(area, first + k) for group in groups for area, first, count in group for k in range(count)]
    assert pages == [(area, page) for area, n_pages in AREAS.items() for page in range(n_pages)]


def test_the_memory_policy_follows_at_the_first_slice_or_not_at_all() -> None:
    sliced = {"mm": "web", "node": 1, "at": 0, "slices": 3}
    with_, without = (lay(clocked(0, 1, 2), [move("rebalance", **sliced, rebind=rebind)], host()) for rebind in (True, False))
    assert [sum(isinstance(step, Rebind) for step in steps) for _, steps in added(with_)] == [3, 0, 0]
    assert [sum(isinstance(step, Rebind) for step in steps) for _, steps in added(without)] == [0, 0, 0]
    assert migrations(with_) == migrations(without)


def test_the_caller_is_said_with_every_migration() -> None:
    laid = lay(clocked(0), [move("rebalance", mm="web", node=1, at=0, caller="numa_balancing")], host())
    assert {step.caller for _, steps in added(laid) for step in steps if isinstance(step, Migrate)} == {Caller.NUMA_BALANCING}


def test_what_a_rebalance_cannot_do_is_named() -> None:
    assert message(move("rebalance", "workload.moves[3]", mm="wbe", node=1, at=0)) == (
        'workload.moves[3].mm = "wbe": there is no such mm (nearest: web)'
    )
    line = message(move("rebalance", "workload.move", mm="web", node=1, at=0, slices=11, every="1s"))
    assert line == "workload.move.slices = 11: must be at most 10, the pages of web"


def test_on_one_node_there_is_nowhere_to_go() -> None:
    wanted = move("rebalance", mm="web", node=0, at=0)
    with pytest.raises(InputError, match=r"^workload\.node = 0: must be another node, and there is none \(host\.nodes = 1\)$"):
        wanted.mover.check(wanted.parameters, host(nodes=1))


# ---- compaction


def cleared(topology: Topology, **given: Any) -> list[list[int]]:
    """The first frames of the runs of every try."""
    wanted = move("compaction", **given)
    wanted.mover.check(wanted.parameters, topology)
    groups = [steps for _, steps in added(lay(clocked(0, 1, 2, 3), [wanted], topology)) if steps]
    assert all(isinstance(step, ClearFrames) and step.count == 512 for group in groups for step in group)
    return [[step.first for step in group if isinstance(step, ClearFrames)] for group in groups]


def test_a_try_goes_on_where_the_last_ended_and_wraps_at_the_end_of_the_node() -> None:
    tries = cleared(host(node_pages=5 * 512), node=1, at=0, times=4, runs=2, first=2)
    assert [[first // 512 for first in group] for group in tries] == [[7, 8], [9, 5], [6, 7], [8, 9]]


def test_runs_are_aligned_even_where_nodes_do_not_begin_so() -> None:
    assert cleared(host(node_pages=1500), node=1, at=0, runs=2) == [[1536, 2048]]
    assert cleared(host(node_pages=1500), node=0, at=0, runs=2) == [[0, 512]]


def test_who_wants_the_frames_is_said() -> None:
    laid = lay(clocked(0), [move("compaction", node=0, at=0, caller="cma")], host(node_pages=512))
    assert added(laid) == [(0, [ClearFrames(first=0, count=512, caller=Caller.CMA)])]


@pytest.mark.parametrize(
    ("given", "node_pages", "line"),
    [
        ({}, 0, "workload.node = 0: clears frames by their numbers, which needs host.node_pages > 0"),
        ({}, 511, "workload.runs = 1: must be at most 0, the runs of 512 aligned frames of node 0 (host.node_pages = 511)"),
        ({"runs": 3}, 1024, "workload.runs = 3: must be at most 2, the runs"),
        ({"first": 2}, 1024, "workload.first = 2: must be 0 to 1, the runs of 512 aligned frames of node 0"),
    ],
)
def test_runs_that_the_node_does_not_have_are_named(given: dict[str, Any], node_pages: int, line: str) -> None:
    wanted = move("compaction", node=0, at=0, **given)
    with pytest.raises(InputError) as error:
        wanted.mover.check(wanted.parameters, host(node_pages=node_pages))
    assert str(error.value).startswith(line)


# ---- hotremove, dance


def test_a_node_goes_and_comes_back_or_stays_away() -> None:
    back = added(lay(clocked(0, 1, 2, 3), [move("hotremove", node=1, at=1, back=3)], host()))
    assert back == [(0, []), (1, [Offline(node=1)]), (2, []), (3, [Online(node=1)])]
    gone = added(lay(clocked(0, 1, 2, 3), [move("hotremove", node=1, at=1)], host()))
    assert gone == [(0, []), (1, [Offline(node=1)]), (2, []), (3, [])]


@pytest.mark.parametrize(
    ("at", "back", "rule"),
    [
        (3, 3, "must come later than `at` (at = 3)"),
        ("2s", "2000ms", "must come later than `at` (at = 2s)"),
        (3, "9s", "must be a number of snapshots, as `at` is (at = 3)"),
        ("2s", 3, "must be a time, as `at` is (at = 2s)"),
    ],
)
def test_a_node_comes_back_later(at: object, back: object, rule: str) -> None:
    with pytest.raises(InputError) as error:
        move("hotremove", node=1, at=at, back=back)
    assert rule in str(error.value)


def test_the_dance_tries_the_plain_way_first() -> None:
    knob = SetKnob(name="merge_across_nodes", value=0)
    laid = lay(clocked(0), [move("dance", at=0, merge_across_nodes=0)], host())
    assert added(laid) == [(0, [knob, SetRun(value=2), knob, SetRun(value=1)])]


# ---- moments


def test_a_time_between_two_snapshots_gets_one_of_its_own_and_one_of_a_snapshot_joins_it() -> None:
    laid = lay(clocked(0, 1000, 2000), [move("rebalance", mm="web", node=1, at="500ms", slices=4, every="500ms")], host())
    assert [snapshot.time_ms for snapshot in laid.snapshots] == [0, 500, 1000, 1500, 2000]
    assert [len(steps) for _, steps in added(laid)] == [0, 4, 1, 2, 1]
    assert [any(isinstance(step, Write) for step in snapshot.steps) for snapshot in laid.snapshots] == [
        True,
        False,
        True,
        False,
        True,
    ]


def test_slices_may_go_on_by_time_from_a_snapshot() -> None:
    laid = lay(clocked(0, 1000), [move("rebalance", mm="web", node=1, at=1, slices=2, every="250ms")], host())
    assert [snapshot.time_ms for snapshot in laid.snapshots] == [0, 1000, 1250]


def test_but_not_by_snapshots_from_a_time() -> None:
    with pytest.raises(InputError, match=r"^workload\.moves\[0\]\.every = 1: must be a time, as `at` is \(at = 48s\)$"):
        move("rebalance", mm="web", node=1, at="48s", slices=2)
    move("rebalance", mm="web", node=1, at="48s")  # one slice goes nowhere


def test_equal_times_are_equal_parameters() -> None:
    assert move("dance", at="60s", merge_across_nodes=0) == move("dance", at="1min", merge_across_nodes=0)


def test_moves_of_one_moment_come_in_the_order_of_the_list() -> None:
    moves = [move("hotremove", node=1, at=2), move("hotremove", node=0, at="2s"), move("hotremove", node=1, at=1, back=2)]
    steps = dict(added(lay(clocked(0, 1000, 2000), moves, host())))
    assert steps[2000] == [Offline(node=1), Offline(node=0), Online(node=1)]


def test_a_moment_that_never_comes_is_named_with_the_count() -> None:
    assert message(move("dance", at=3, merge_across_nodes=0)) == (
        "workload.moves[0].at = 3: leads to snapshot 3, and there are 3, 0 to 2"
    )
    line = message(move("rebalance", mm="web", node=1, at=1, slices=4, every=1))
    assert line == "workload.moves[0].at = 1: leads to snapshot 3, and there are 3, 0 to 2"
    assert "moves[0].back = 5: leads to snapshot 5" in message(move("hotremove", node=1, at=1, back=5))


def test_a_time_after_the_end_is_named_where_the_end_is_known() -> None:
    late = move("dance", at="3s", merge_across_nodes=0)
    assert message(late, end_ms=3000) == 'workload.moves[0].at = "3s": leads to 3s, and the run ends after 3s'
    assert len(lay(clocked(0, 1000), [late], host()).snapshots) == 3
    assert len(lay(clocked(0, 1000), [late], host(), end_ms=3001).snapshots) == 3


def test_by_full_scans_empty_snapshots_follow_until_the_last_scan() -> None:
    memory = Workload(name="m", nodes=2, snapshots=clocked(0).snapshots, per_scan=True)
    last = move("dance", at=4, merge_across_nodes=0)
    assert [len(steps) for _, steps in added(lay(memory, [last], host(), full_scans=5))] == [0, 0, 0, 0, 4]
    assert len(lay(memory, [last], host()).snapshots) == 5  # nobody knows how many full scans a run of some duration makes
    assert "at = 4: leads to snapshot 4, and there are 4, 0 to 3" in message(last, workload=memory, full_scans=4)


def test_memory_that_is_made_when_asked_for_stays_so() -> None:
    made: list[int] = []

    def step(k: int) -> Step:
        made.append(k)
        return [*clocked(0).snapshots[0].steps, own(1), own(2)][k]

    memory = Workload(name="m", nodes=2, snapshots=Lazy(1, lambda k: Snapshot(time_ms=k, steps=Lazy(7, step))), per_scan=True)
    laid = lay(memory, [move("dance", at=0, merge_across_nodes=0)], host())
    assert made == [0, 1, 2, 3, 4]  # the process, its areas, and one write, which shows that there are no more
    steps = laid.snapshots[0].steps
    assert (len(steps), isinstance(steps[10], SetRun), len(made)) == (11, True, 5)


def test_an_unknown_mover_is_named_with_the_nearest() -> None:
    with pytest.raises(InputError, match=r'^k = "balance": unknown mover \(nearest: rebalance\)$'):
        find_mover("balance", "k")
    with pytest.raises(InputError, match=r"^k = 3: unknown mover \(there are compaction, dance, hotremove, rebalance\)$"):
        find_mover(3, "k")
