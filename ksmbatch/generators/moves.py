"""Movers laid over a workload: their events join its snapshots, or get snapshots of their own, in the order of time.

What is laid over is looked at only as far as its processes start, so memory that is made when asked for stays so.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import takewhile

from ksmbatch.errors import InputError
from ksmbatch.events import Mmap, Spawn, Step
from ksmbatch.generators.base import Mms, Move
from ksmbatch.generators.moments import Moment
from ksmbatch.topology import Topology
from ksmbatch.units import format_ms
from ksmbatch.workload import Lazy, Snapshot, Workload


def lay(
    workload: Workload, moves: Sequence[Move], topology: Topology, *, full_scans: int | None = None, end_ms: int | None = None
) -> Workload:
    """`workload` with the events of `moves`: at any moment its own come first, then the moves' in their order.

    A workload that goes by full scans gets empty snapshots for moves that come after its own. `full_scans`, `end_ms`: when
    the run ends, where that is known. Raises InputError, under the key of the table, for an mm that is not there, and for a
    moment that does not come before the end.
    """
    mms = _mms(workload)
    timeline = _Timeline(workload, full_scans, end_ms)
    added = defaultdict[int, list[Step]](list)
    for move in moves:
        try:
            for moment, steps in move.mover.build(move.parameters, mms, topology):
                if fault := timeline.fault(moment):
                    raise InputError(key=moment.key, value=getattr(move.parameters, moment.key), rule=fault)
                added[timeline.place(moment)] += steps
        except InputError as error:
            raise move.blame(error) from None
    return replace(workload, snapshots=timeline.with_added(added))


def _mms(workload: Workload) -> Mms:
    mms: dict[str, dict[str, int]] = {}
    # processes start before anything is written; of what is written no more than one step is made here
    for step in takewhile(lambda step: isinstance(step, Spawn | Mmap), workload.snapshots[0].steps):
        match step:
            case Spawn(proc=proc):
                mms[proc] = {}
            case Mmap(proc=proc, area=area, pages=pages):
                mms[proc][area] = pages
            case _:
                pass
    return mms


class _Timeline:
    """The snapshots of a workload by place: that is a snapshot's number where full scans drive, and else its time."""

    def __init__(self, workload: Workload, full_scans: int | None, end_ms: int | None) -> None:
        self._snapshots = workload.snapshots
        self._per_scan = workload.per_scan
        self._end_ms = end_ms
        self._count = full_scans if workload.per_scan else len(workload.snapshots)
        if workload.per_scan:
            self._places: Sequence[int] = range(len(workload.snapshots))
        else:
            self._places = [snapshot.time_ms for snapshot in workload.snapshots]

    def fault(self, moment: Moment) -> str | None:
        """Why `moment` never comes; None if it does."""
        if self._count is not None and moment.snapshot >= self._count:
            return f"leads to snapshot {moment.snapshot}, and there are {self._count}, 0 to {self._count - 1}"
        if self._end_ms is not None and not self._per_scan and self.place(moment) >= self._end_ms:
            return f"leads to {format_ms(self.place(moment))}, and the run ends after {format_ms(self._end_ms)}"
        return None

    def place(self, moment: Moment) -> int:
        """The place of `moment`, which comes."""
        return moment.snapshot if self._per_scan else self._places[moment.snapshot] + moment.later_ms

    def with_added(self, added: Mapping[int, Sequence[Step]]) -> Sequence[Snapshot]:
        """The snapshots, and what is `added` to each place, each made when asked for."""
        number = {place: k for k, place in enumerate(self._places)}
        places: Sequence[int] = sorted(number.keys() | added.keys())
        if self._per_scan:
            places = range(places[-1] + 1)

        def make(k: int) -> Snapshot:
            place = places[k]
            own = self._snapshots[number[place]] if place in number else _nothing(0 if self._per_scan else place)
            steps = added.get(place)
            return replace(own, steps=_chained(own.steps, steps)) if steps else own

        return Lazy(len(places), make)


def _nothing(time_ms: int) -> Snapshot:
    return Snapshot(time_ms=time_ms, steps=())


def _chained(first: Sequence[Step], second: Sequence[Step]) -> Sequence[Step]:
    return Lazy(len(first) + len(second), lambda k: first[k] if k < len(first) else second[k - len(first)])
