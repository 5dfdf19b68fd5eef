"""A workload made ready for the engine: where every mm's pages lie in the arrays, and contents as dense ids.

It is made once and shared, read-only, by all runs of a sweep. It holds no state of a machine.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from ksmbatch.contents import ContentTable, intern
from ksmbatch.errors import InputError
from ksmbatch.events import Fork, Mmap, Spawn, Step, Write
from ksmbatch.state import NO_MM
from ksmbatch.workload import Workload

MAX_PAGES = 2**30 - 2  # frames are int32, and there are twice as many numbers for frames as pages


@dataclass(frozen=True, slots=True)
class DenseWrite:
    """A Write whose pages are counted from global page `first` (int64[n]) and whose contents are dense ids (int32[n])."""

    proc: str
    area: str
    first: int
    pages: np.ndarray
    contents: np.ndarray


ReadyStep: TypeAlias = Step | DenseWrite


@dataclass(slots=True)
class MmLayout:
    """An mm that lives at some time: `areas` name -> (first global page, pages), in address order, from `first` to `end`."""

    name: str
    parent: int = NO_MM
    inherited: int = 0  # pages of the areas that it has from its parent
    areas: dict[str, tuple[int, int]] = field(default_factory=dict)
    first: int = 0
    end: int = 0


@dataclass(frozen=True, slots=True)
class Program:
    """What a machine needs to know of its workload.

    `mms`: in the order in which they start, each with its pages behind those of the one before. `snapshots`: (time in ms, steps).
    """

    name: str
    n_nids: int
    mms: tuple[MmLayout, ...]
    contents: ContentTable
    snapshots: tuple[tuple[int, tuple[ReadyStep, ...]], ...]

    @property
    def n_pages(self) -> int:
        """Virtual pages of all mms that ever live."""
        return self.mms[-1].end if self.mms else 0


def _lay_out(steps: Iterable[Step]) -> tuple[MmLayout, ...]:
    sizes: dict[str, dict[str, int]] = {}
    layouts: dict[str, MmLayout] = {}
    order = list[str]()
    for step in steps:
        match step:
            case Spawn(proc=proc):
                sizes[proc] = {}
                layouts[proc] = MmLayout(proc)
                order.append(proc)
            case Mmap(proc=proc, area=area, pages=pages):
                sizes[proc][area] = pages
            case Fork(proc=proc, child=child):
                sizes[child] = dict(sizes[proc])
                layouts[child] = MmLayout(child, parent=order.index(proc), inherited=sum(sizes[proc].values()))
                order.append(child)
            case _:
                pass
    page = 0
    for name in order:
        layout = layouts[name]
        layout.first = page
        for area, pages in sizes[name].items():
            layout.areas[area] = (page, pages)
            page += pages
        layout.end = page
    if page > MAX_PAGES:
        raise InputError(key="pages", value=page, rule=f"must be at most {MAX_PAGES} over all processes")
    return tuple(layouts[name] for name in order)


def compile_workload(workload: Workload, checksum: Callable[[np.ndarray], np.ndarray] | None = None) -> Program:
    """Lays out the pages of `workload` and interns its contents.

    `checksum`: uint64[n] raw content ids -> uint32[n], where contents shall share checksums; by default all differ.
    Raises InputError if it is too large.
    """
    snapshots = [(snapshot.time_ms, snapshot.steps) for snapshot in workload.snapshots]
    steps = [step for _, group in snapshots for step in group]
    mms = _lay_out(steps)
    written = [step.contents for step in steps if isinstance(step, Write)]
    if any(isinstance(step, Fork) for step in steps):
        written *= 2  # ksmd also meets a frame again that parent and child share, whose content was written once
    table = intern(written, checksum)
    areas = {mm.name: mm.areas for mm in mms}

    def ready(step: Step) -> ReadyStep:
        if not isinstance(step, Write):
            return step
        first, _ = areas[step.proc][step.area]
        return DenseWrite(step.proc, step.area, first, step.pages, table.lookup(step.contents))

    return Program(
        name=workload.name,
        n_nids=workload.nodes,
        mms=mms,
        contents=table,
        snapshots=tuple((time_ms, tuple(ready(step) for step in group)) for time_ms, group in snapshots),
    )
