"""A workload made ready for the engine: where every mm's pages lie in the arrays, and contents as dense ids.

It is made once and shared, read-only, by all runs of a sweep. It holds no state of a machine.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TypeAlias

import numpy as np

from ksmbatch.config import Config
from ksmbatch.contents import ContentTable, intern
from ksmbatch.errors import InputError
from ksmbatch.events import ClearFrames, Fork, Mmap, Offline, Spawn, Step, Write
from ksmbatch.scenario import load_scenarios
from ksmbatch.state import NO_MM
from ksmbatch.workload import Workload, scenario_workload

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
    parent: int = int(NO_MM)
    inherited: int = 0  # pages of the areas that it has from its parent
    areas: dict[str, tuple[int, int]] = field(default_factory=dict)
    first: int = 0
    end: int = 0


@dataclass(frozen=True, slots=True)
class Program:
    """What a machine needs to know of its workload.

    `mms`: in the order in which they start, each with its pages behind those of the one before. `snapshots`: (time in ms,
    steps). `per_scan`: snapshot k happens when k full scans are over, whatever its time. `end_ms`: as in Workload.
    `needs_frames`: some step asks for frames by number, so that they must be numbered as the kernel does. `first_s`,
    `later_s`: seconds that it took to make the first snapshot with all else, and the later ones.
    """

    name: str
    n_nids: int
    mms: tuple[MmLayout, ...]
    contents: ContentTable
    snapshots: tuple[tuple[int, tuple[ReadyStep, ...]], ...]
    per_scan: bool
    end_ms: int | None
    needs_frames: bool
    first_s: float
    later_s: float

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
    start_s = time.perf_counter()
    stream = iter(workload.snapshots)
    first = [(snapshot.time_ms, tuple(snapshot.steps)) for snapshot in islice(stream, 1)]
    later_start_s = time.perf_counter()
    later = [(snapshot.time_ms, tuple(snapshot.steps)) for snapshot in stream]
    later_s = time.perf_counter() - later_start_s
    steps = [step for _, group in first + later for step in group]
    mms = _lay_out(steps)
    written = [step.contents for step in steps if isinstance(step, Write)]
    if any(isinstance(step, Fork) for step in steps):
        written *= 2  # ksmd also meets a frame again that parent and child share, whose content was written once
    table = intern(written, checksum)
    areas = {mm.name: mm.areas for mm in mms}

    def ready(step: Step) -> ReadyStep:
        if not isinstance(step, Write):
            return step
        base, _ = areas[step.proc][step.area]
        return DenseWrite(step.proc, step.area, base, step.pages, table.lookup(step.contents))

    ready_first = [(time_ms, tuple(ready(step) for step in group)) for time_ms, group in first]
    later_start_s = time.perf_counter()
    ready_later = [(time_ms, tuple(ready(step) for step in group)) for time_ms, group in later]
    end_s = time.perf_counter()
    later_s += end_s - later_start_s
    return Program(
        name=workload.name,
        n_nids=workload.nodes,
        mms=mms,
        contents=table,
        snapshots=tuple(ready_first + ready_later),
        per_scan=workload.per_scan,
        end_ms=workload.end_ms,
        needs_frames=any(isinstance(step, Offline | ClearFrames) for step in steps),
        first_s=end_s - start_s - later_s,
        later_s=later_s,
    )


def compile_config(config: Config) -> Program:
    """The program of the workload that `config` names.

    A scenario's own knobs do not count, [ksm] does. Raises InputError for what is wrong with the workload or its file.
    """
    try:
        return compile_workload(_workload(config))
    except InputError as error:
        if error.where is not None:  # in the trace or scenario, which is named
            raise
        raise config.blame(error) from None


def _workload(config: Config) -> Workload:
    workload = _memory(config)
    if not config.workload.all_moves:
        return workload
    from ksmbatch.generators.moves import lay

    plan = config.run
    end_ms = None  # where full scans drive, nobody knows how long they take
    if plan.scans_per_snapshot is None:
        end_ms = workload.end_ms if plan.duration_ms is None and plan.full_scans is None else plan.duration_ms
    return lay(workload, config.workload.all_moves, config.host.topology, full_scans=plan.full_scans, end_ms=end_ms)


def _memory(config: Config) -> Workload:
    source, nodes = config.workload, config.host.nodes
    if source.trace is not None:
        from ksmbatch.trace_events import trace_workload

        return trace_workload(source.trace, nodes, source.node)
    if source.scenario is not None:
        return _one_scenario(source.scenario, config)
    from ksmbatch.generators import find_generator

    generator = find_generator(str(source.generator))
    full_scans = config.run.full_scans
    if full_scans is None:
        if getattr(source.parameters, "rewritten_per_scan", 0):
            rule = "must be given where workload.rewritten_per_scan says how much is written per full scan"
            raise InputError(where=config.path, key="run.full_scans", rule=rule)
        full_scans = 1  # nothing is written after the start
    build = generator.build
    return build(source.parameters, nodes=nodes, binding=source.node, seed=config.run.seed, full_scans=full_scans)


def _one_scenario(path: Path, config: Config) -> Workload:
    nodes, node_pages = config.host.nodes, config.host.node_pages
    scenarios = load_scenarios(path)
    if len(scenarios) != 1:
        rule = f"must hold one scenario, and holds {len(scenarios)}"
        raise InputError(where=path, rule=rule, hint="`ksmbatch replay` takes lists")
    scenario, _ = scenarios[0]
    if scenario.nodes > nodes:
        raise InputError(where=path, key="nodes", value=scenario.nodes, rule=f"must be at most host.nodes = {nodes}")
    if scenario.node_pages not in (0, node_pages):  # its frames are numbered by it
        rule = f"must be host.node_pages, which is {node_pages}"
        raise InputError(where=path, key="node_pages", value=scenario.node_pages, rule=rule)
    return replace(scenario_workload(scenario), nodes=nodes)
