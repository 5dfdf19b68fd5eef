"""A workload: what happens to memory and when, whoever says so.

It orders events into snapshots. It neither reads files nor invents contents: scenarios, traces and generators do.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar, overload

from ksmbatch.contents import ContentTable
from ksmbatch.events import Step
from ksmbatch.scenario import Scenario

Item = TypeVar("Item")


class Lazy(Sequence[Item]):
    """`n` items, item k made by `make(k)` whenever it is asked for: memory of hosts that does not fit twice into ours."""

    def __init__(self, n: int, make: Callable[[int], Item]) -> None:
        self._places = range(n)
        self._make = make

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, k: int) -> Item: ...
    @overload
    def __getitem__(self, k: slice) -> tuple[Item, ...]: ...
    def __getitem__(self, k: int | slice) -> Item | tuple[Item, ...]:
        if isinstance(k, slice):
            return tuple(self._make(place) for place in self._places[k])
        return self._make(self._places[k])


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """Everything that happens at `time_ms` (milliseconds since the first snapshot), in order."""

    time_ms: int
    steps: Sequence[Step]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Workload:
    """`snapshots` in the order of time, the first at 0, on a host with NUMA nodes 0 to `nodes` - 1.

    `per_scan`: no clock drives; snapshot k comes the moment that full scan number k is complete, and times mean nothing.
    `end_ms`: when it is over by its own clock; None where that does not say. `contents`: all that it ever writes, where it can
    tell without being looked through; all its writes are LazyWrites then, and nothing forks. `ordered`: whether the order of
    content ids is that of memcmp; else it is random, and so are the shapes of ksmd's trees. Snapshots and steps may be made
    when asked for, the same every time, so take each once if you can.
    """

    name: str
    nodes: int
    snapshots: Sequence[Snapshot]
    per_scan: bool = False
    end_ms: int | None = None
    contents: ContentTable | None = None
    ordered: bool = True


def scenario_workload(scenario: Scenario) -> Workload:
    """A scenario as a workload: one snapshot with all its steps, scans and knobs included."""
    return Workload(name=scenario.name, nodes=scenario.nodes, snapshots=(Snapshot(time_ms=0, steps=scenario.steps),))
