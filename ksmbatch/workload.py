"""A workload: what happens to memory and when, whoever says so.

It orders events into snapshots. It neither reads files nor invents contents: scenarios, traces and generators do.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from ksmbatch.events import Step
from ksmbatch.scenario import Scenario


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """Everything that happens at `time_ms` (milliseconds since the first snapshot), in order."""

    time_ms: int
    steps: Sequence[Step]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Workload:
    """`snapshots` in the order of time, the first at 0, on a host with NUMA nodes 0 to `nodes` - 1.

    Both sequences may make their items when asked for, the same every time, so take each item once if you can.
    """

    name: str
    nodes: int
    snapshots: Sequence[Snapshot]


def scenario_workload(scenario: Scenario) -> Workload:
    """A scenario as a workload: one snapshot with all its steps, scans and knobs included."""
    return Workload(name=scenario.name, nodes=scenario.nodes, snapshots=(Snapshot(time_ms=0, steps=scenario.steps),))
