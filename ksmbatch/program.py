"""A workload made ready for the engine: where every mm's pages lie in the arrays, and contents as dense ids.

It is made once and shared, read-only, by all runs of a sweep. It holds no state of a machine.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice, takewhile
from pathlib import Path
from typing import Protocol, TypeAlias

import numpy as np

from ksmbatch.capacity import Size, check
from ksmbatch.config import Config
from ksmbatch.contents import INTERN_BYTES, Checksum, ContentTable, intern
from ksmbatch.errors import InputError
from ksmbatch.events import ClearFrames, Fork, LazyWrite, Mmap, Offline, Spawn, Step, Write
from ksmbatch.scenario import load_scenarios
from ksmbatch.state import NO_MM
from ksmbatch.workload import Lazy, Snapshot, Workload, scenario_workload

MAX_PAGES = 2**30 - 2  # frames are int32, and there are twice as many numbers for frames as pages


class _Arrays(Protocol):
    """The arrays of a DenseWrite; `events.Arrays` are such."""

    def prepare(self) -> None: ...
    def pages(self) -> np.ndarray | range: ...
    def ids(self) -> np.ndarray: ...


@dataclass(frozen=True, slots=True, eq=False)
class DenseWrite:
    """A Write whose pages are counted from global page `first` and whose contents are dense ids.

    Both arrays may be made when asked for, so take each once.
    """

    proc: str
    area: str
    first: int
    arrays: _Arrays

    @property
    def pages(self) -> np.ndarray | range:
        """int64[n], ascending; a range, if they are all from one to another."""
        return self.arrays.pages()

    @property
    def contents(self) -> np.ndarray:
        """int32[n]."""
        return self.arrays.ids()


@dataclass(frozen=True, slots=True, eq=False)
class _Kept:
    """Arrays that are there."""

    _pages: np.ndarray | range
    _ids: np.ndarray

    def prepare(self) -> None:
        pass

    def pages(self) -> np.ndarray | range:
        return self._pages

    def ids(self) -> np.ndarray:
        return self._ids


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


@dataclass(frozen=True, slots=True, eq=False)
class Program:
    """What a machine needs to know of its workload.

    `mms`: in the order in which they start, each with its pages behind those of the one before. `snapshots`: (time in ms,
    steps), made when asked for and not kept where they are large. `kinds`: the types of all steps. `per_scan`: snapshot k
    happens when k full scans are over, whatever its time. `end_ms`: as in Workload. `first_s`, `later_s`: seconds that it
    took to make the first snapshot with all else, and the later ones, but for what is made when asked for.
    """

    name: str
    n_nids: int
    mms: tuple[MmLayout, ...]
    contents: ContentTable
    snapshots: Sequence[tuple[int, Sequence[ReadyStep]]]
    kinds: frozenset[type]
    per_scan: bool
    end_ms: int | None
    first_s: float
    later_s: float

    @property
    def n_pages(self) -> int:
        """Virtual pages of all mms that ever live."""
        return self.mms[-1].end if self.mms else 0

    def ahead(self) -> Iterator[tuple[int, Sequence[ReadyStep]]]:
        """The snapshots in turn, for one run: what one writes is made by a thread while the one before is used."""
        thread = ThreadPoolExecutor(1, "ksmbatch-writes")
        try:
            following = thread.submit(self._prepared, 0)
            for k in range(1, len(self.snapshots) + 1):
                snapshot = following.result()
                if k < len(self.snapshots):
                    following = thread.submit(self._prepared, k)
                yield snapshot
        finally:
            thread.shutdown(wait=False, cancel_futures=True)  # a run that ends early waits for nobody

    def _prepared(self, k: int) -> tuple[int, Sequence[ReadyStep]]:
        snapshot = self.snapshots[k]
        for step in snapshot[1] if k else ():  # the first writes all memory, and is made write by write
            if isinstance(step, DenseWrite):
                step.arrays.prepare()
        return snapshot

    @property
    def needs_frames(self) -> bool:
        """Whether some step asks for frames by number, so that they must be numbered as the kernel does."""
        return not self.kinds.isdisjoint((Offline, ClearFrames))

    @property
    def size(self) -> Size:
        """What its machines take memory for."""
        return Size(
            n_pages=self.n_pages,
            n_nids=self.n_nids,
            n_contents=self.contents.n,
            n_dup=self.contents.n_dup,
            needs_frames=self.needs_frames,
        )


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


def compile_workload(workload: Workload, checksum: Checksum | None = None) -> Program:
    """Lays out the pages of `workload` and numbers its contents, unless it has done that itself.

    `checksum`: uint64[n] raw content ids -> uint32[n], where contents shall share checksums; by default all differ.
    Raises InputError if it is too large, or if a machine that runs it would not fit into the memory of this one.
    """
    if workload.contents is None or checksum is not None:
        size = _size_at_start(workload)
        check(size, making=INTERN_BYTES * size.n_pages)
        program = _interned(workload, checksum)
    else:
        program = _numbered(workload, workload.contents)
    check(program.size)
    return program


def _numbered(workload: Workload, contents: ContentTable) -> Program:
    """The program of a workload that knows the ids of its contents; nothing that it writes is made yet."""
    start_s = time.perf_counter()
    mms = _lay_out(step for snapshot in workload.snapshots for step in snapshot.steps)
    areas = {mm.name: mm.areas for mm in mms}

    def ready(step: Step) -> ReadyStep:
        if not isinstance(step, LazyWrite):
            return step
        return DenseWrite(step.proc, step.area, areas[step.proc][step.area][0], step.arrays)

    def snapshot(k: int) -> tuple[int, Sequence[ReadyStep]]:
        made = workload.snapshots[k]
        return made.time_ms, tuple(ready(step) for step in made.steps)

    snapshots = Lazy(len(workload.snapshots), snapshot)
    return Program(
        name=workload.name,
        n_nids=workload.nodes,
        mms=mms,
        contents=contents,
        snapshots=snapshots,
        kinds=frozenset(type(step) for _, steps in snapshots for step in steps),
        per_scan=workload.per_scan,
        end_ms=workload.end_ms,
        first_s=time.perf_counter() - start_s,
        later_s=0.0,
    )


def _interned(workload: Workload, checksum: Checksum | None) -> Program:
    """The program of a workload whose contents are known when all that it writes has been made."""
    start_s = time.perf_counter()
    stream = iter(workload.snapshots)
    first = [_made(snapshot) for snapshot in islice(stream, 1)]
    later_start_s = time.perf_counter()
    later = [_made(snapshot) for snapshot in stream]
    later_s = time.perf_counter() - later_start_s
    steps = [step for _, group in first + later for step in group]
    mms = _lay_out(steps)
    written = [step.contents for step in steps if isinstance(step, Write)]
    if any(isinstance(step, Fork) for step in steps):
        written *= 2  # ksmd also meets a frame again that parent and child share, whose content was written once
    interned = intern(written, checksum)
    areas = {mm.name: mm.areas for mm in mms}

    def ready(step: Step) -> ReadyStep:
        if not isinstance(step, Write):
            return step
        arrays = _Kept(_span(step.pages), interned.lookup(step.contents))
        return DenseWrite(step.proc, step.area, areas[step.proc][step.area][0], arrays)

    ready_first = [(time_ms, tuple(ready(step) for step in group)) for time_ms, group in first]
    later_start_s = time.perf_counter()
    ready_later = [(time_ms, tuple(ready(step) for step in group)) for time_ms, group in later]
    end_s = time.perf_counter()
    later_s += end_s - later_start_s
    return Program(
        name=workload.name,
        n_nids=workload.nodes,
        mms=mms,
        contents=interned.table,
        snapshots=(*ready_first, *ready_later),
        kinds=frozenset(type(step) for _, group in ready_first + ready_later for step in group),
        per_scan=workload.per_scan,
        end_ms=workload.end_ms,
        first_s=end_s - start_s - later_s,
        later_s=later_s,
    )


def _size_at_start(workload: Workload) -> Size:
    """What can be told before anything is written: the pages that are mapped first, and contents if the workload knows them."""
    start = takewhile(lambda step: isinstance(step, Spawn | Mmap), workload.snapshots[0].steps)
    n_pages = sum(step.pages for step in start if isinstance(step, Mmap))
    if workload.contents is None:
        return Size(n_pages=n_pages, n_nids=workload.nodes)
    return Size(n_pages=n_pages, n_nids=workload.nodes, n_contents=workload.contents.n, n_dup=workload.contents.n_dup)


def _made(snapshot: Snapshot) -> tuple[int, tuple[Step, ...]]:
    return snapshot.time_ms, tuple(step.made() if isinstance(step, LazyWrite) else step for step in snapshot.steps)


def _span(pages: np.ndarray | range) -> np.ndarray | range:
    """`pages` (ascending) as a range if they are one: 8 bytes per page less."""
    if isinstance(pages, range) or pages.size == 0 or pages[-1] - pages[0] >= pages.size:
        return pages
    return range(int(pages[0]), int(pages[-1]) + 1)


def compile_config(config: Config) -> Program:
    """The program of the workload that `config` names.

    A scenario's own knobs do not count, [ksm] does. Raises InputError for what is wrong with the workload or its file.
    """
    try:
        return compile_workload(workload_of(config))
    except InputError as error:
        if error.where is not None:  # in the trace or scenario, which is named
            raise
        raise config.blame(error) from None


def size_at_start(config: Config) -> Size:
    """What machines for this generator's memory will take memory for, as far as it can be told before the memory is made.

    Raises InputError as `compile_config` does, and so if one would not fit.
    """
    try:
        workload = _memory(config)
        size = _size_at_start(workload)
        check(size)
    except InputError as error:
        raise config.blame(error) from None
    return size


def workload_of(config: Config) -> Workload:
    """The workload that `config` names, with its moves. Raises InputError for what is wrong with it or its file."""
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
