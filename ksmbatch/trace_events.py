"""Traces as workloads: what the rows of a trace say, as events in the order of time.

It reads no files (`traces` does). How nodes of pages become areas and moves is in `trace_nodes`.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ksmbatch.errors import InputError
from ksmbatch.events import Discard, Exit, Migrate, Mmap, Spawn, Step, Write
from ksmbatch.topology import Binding, place
from ksmbatch.trace_format import NO_NODE
from ksmbatch.trace_nodes import Area, areas_of, mark_moves
from ksmbatch.traces import Trace, read_trace
from ksmbatch.workload import Snapshot, Workload


def trace_workload(path: str | Path, nodes: int, binding: Binding) -> Workload:
    """The trace in `path` as a workload on a host with `nodes` nodes.

    `binding`: node by mm, "round_robin" (mm k on node k mod `nodes`) or None. An mm that it names is a process with one area
    "memory", bound to that node. Of others the trace's own nodes count: an area for every run of pages that were first seen
    on one node, and a migration for every page seen on another later; without nodes in the trace it is node 0. An mm starts
    at its first snapshot and exits at its last; pages that are gone are discarded. Times count from the first snapshot.
    Raises InputError as `read_trace` does, and for an mm or node that does not exist.
    """
    trace = read_trace(path)
    mms = _mms(trace, nodes, binding)
    snapshots = []
    starts = np.searchsorted(trace.time_ms, np.array(trace.snapshots, np.uint32))
    for time_ms, first, end in zip(trace.snapshots, starts, [*starts[1:], trace.time_ms.size], strict=True):
        steps = tuple(_steps(trace, mms, time_ms, int(first), int(end)))
        snapshots.append(Snapshot(time_ms=time_ms - trace.snapshots[0], steps=steps))
    # the last snapshot lasts as long as the one before
    end_ms = 2 * snapshots[-1].time_ms - snapshots[-2].time_ms if len(snapshots) > 1 else None
    return Workload(
        name=trace.path.stem, nodes=nodes, snapshots=tuple(snapshots), end_ms=end_ms, ordered=trace.order == "memcmp"
    )


def _mms(trace: Trace, nodes: int, binding: Binding) -> "list[_Mm]":
    bound = place(list(trace.pages), binding, nodes)
    moved_to: np.ndarray | None = None
    if trace.node is not None:
        moved_to = np.full(trace.mm.size, NO_NODE, np.int16)
        by_mm = trace.mm.argsort(kind="stable")
        ends = trace.mm[by_mm].searchsorted(np.arange(-1, len(bound)), side="right")
    mms = list[_Mm]()
    for number, (mm, nid) in enumerate(zip(trace.pages, bound, strict=True)):
        if not 0 <= nid < nodes:
            raise InputError(key=f"workload.node.{mm}", value=nid, rule=f"must be a node, 0 to {nodes - 1}")
        areas = [Area("memory", 0, trace.pages[mm], nid)]
        if moved_to is not None and (binding is None or (not isinstance(binding, str) and mm not in binding)):
            rows = by_mm[ends[number] : ends[number + 1]]
            _check_nodes(trace, mm, rows, nodes)
            areas = areas_of(trace, rows, trace.pages[mm])
            mark_moves(trace, rows, moved_to)
        mms.append(_Mm(trace, mm, areas, moved_to))
    return mms


def _check_nodes(trace: Trace, mm: str, rows: np.ndarray, nodes: int) -> None:
    assert trace.node is not None, "asked for only where nodes are known"
    largest = int(trace.node[rows].max(initial=0))
    if largest >= nodes:
        rule = f"must be at least {largest + 1}: the trace has pages of {mm} on node {largest}"
        raise InputError(key="host.nodes", value=nodes, rule=rule, hint="or let workload.node say where they are")


def _steps(trace: Trace, mms: "list[_Mm]", time_ms: int, first: int, end: int) -> Iterator[Step]:
    """What happens at the snapshot `time_ms`, whose rows are `first` to `end` - 1."""
    for mm in mms:
        if trace.exit_ms.get(mm.name) == time_ms:
            yield Exit(proc=mm.name)
    for mm in mms:
        if trace.start_ms.get(mm.name, trace.snapshots[0]) == time_ms:
            yield from mm.start()
    ends = first + trace.mm[first:end].searchsorted(np.arange(-1, len(mms)), side="right")
    for mm, a, b in zip(mms, ends[:-1], ends[1:], strict=True):
        if a < b:
            yield from mm.change(slice(int(a), int(b)))


class _Mm:
    """One mm of a trace: its areas, and the events of its rows. `moved_to`: int16[all rows], see `mark_moves`; or None."""

    def __init__(self, trace: Trace, name: str, areas: list[Area], moved_to: np.ndarray | None) -> None:
        self.name = name
        self._trace = trace
        self._areas = areas
        self._moved_to = moved_to

    def start(self) -> Iterator[Step]:
        """Its birth, with all areas that it will ever have."""
        yield Spawn(proc=self.name, cpu_node=self._areas[0].nid)
        for area in self._areas:
            yield Mmap(proc=self.name, area=area.name, pages=area.pages, node=area.nid)

    def change(self, rows: slice) -> Iterator[Step]:
        """The rows of one snapshot: what goes, what is written, what moved."""
        trace = self._trace
        page, content = trace.page[rows], trace.content[rows]
        moved_to = None if self._moved_to is None else self._moved_to[rows]
        if trace.gone is not None and (gone := trace.gone[rows]).any():
            for name, first, count, _ in self._runs(page[gone], None):
                yield Discard(proc=self.name, area=name, first=first, count=count)
            page, content = page[~gone], content[~gone]
            moved_to = None if moved_to is None else moved_to[~gone]
        for area, a, b in self._split(page):
            pages = page[a:b].astype(np.int64) - area.first
            yield Write(proc=self.name, area=area.name, pages=pages, contents=content[a:b])
        if moved_to is not None and (moved := moved_to >= 0).any():
            for name, first, count, nid in self._runs(page[moved], moved_to[moved]):
                yield Migrate(proc=self.name, area=name, first=first, count=count, node=nid)

    def _split(self, page: np.ndarray) -> Iterator[tuple[Area, int, int]]:
        """The areas in which pages `page` (ascending) lie, each with the place of its first page in `page` and of its end."""
        ends = page.searchsorted(np.array([area.first + area.pages for area in self._areas]))
        for area, a, b in zip(self._areas, [0, *ends[:-1].tolist()], ends.tolist(), strict=True):
            if a < b:
                yield area, a, b

    def _runs(self, page: np.ndarray, node: np.ndarray | None) -> Iterator[tuple[str, int, int, int]]:
        """Runs of successive pages of `page` (ascending) within an area, and on one node: area, first, count, node."""
        for area, a, b in self._split(page):
            run = page[a:b].astype(np.int64) - area.first
            breaks = np.diff(run) != 1
            if node is not None:
                breaks |= np.diff(node[a:b]) != 0
            firsts = np.concatenate([[0], np.flatnonzero(breaks) + 1])
            for k, count in zip(firsts.tolist(), np.diff(firsts, append=run.size).tolist(), strict=True):
                yield area.name, int(run[k]), count, -1 if node is None else int(node[a + k])
