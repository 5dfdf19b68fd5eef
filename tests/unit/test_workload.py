"""Does a workload keep the order of its events, and make lazily what is lazy?"""

import pytest

from ksmbatch.scenario import FullScan, Spawn, parse_scenario
from ksmbatch.workload import Lazy, scenario_workload


def test_a_scenario_is_one_snapshot_with_all_its_steps() -> None:
    scenario = parse_scenario({"name": "s", "nodes": 3, "steps": [{"op": "spawn", "proc": "a"}, {"op": "full_scan"}]}, "f")
    workload = scenario_workload(scenario)
    assert (workload.name, workload.nodes, workload.per_scan) == ("s", 3, False)
    assert [(snapshot.time_ms, snapshot.steps) for snapshot in workload.snapshots] == [(0, (Spawn(proc="a"), FullScan()))]


def test_lazy_items_are_made_when_asked_for_and_not_before() -> None:
    made: list[int] = []

    def make(k: int) -> int:
        made.append(k)
        return 10 * k

    lazy = Lazy(3, make)
    assert len(lazy) == 3
    assert made == []
    assert lazy[1] == 10
    assert made == [1]
    assert list(lazy) == [0, 10, 20]
    assert lazy[-1] == 20
    assert lazy[1:] == (10, 20)
    with pytest.raises(IndexError):
        lazy[3]
