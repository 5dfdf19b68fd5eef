"""Memory at one moment: what every page holds after the events of a workload, where its frame lies, and who shares it by fork.

Nobody merges here: steps that scan or turn knobs are passed by. Frames never run out, so none lies anywhere but where it was
bound or moved to.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import ClassVar, TypeVar

import numpy as np

from ksmbatch.codes import Kernel
from ksmbatch.errors import InputError
from ksmbatch.events import (
    ClearFrames,
    Discard,
    Exit,
    Fork,
    FullScan,
    LazyWrite,
    Madvise,
    MergeAny,
    Migrate,
    Mmap,
    Mprotect,
    Munmap,
    Offline,
    Online,
    Read,
    Rebind,
    Scan,
    SetKnob,
    SetRun,
    Spawn,
    Step,
    Write,
)

Scalar = TypeVar("Scalar", int, bool)
Held = TypeVar("Held", bound=int | np.ndarray | None)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Memory:
    """n pages that ksmd may merge, in the order in which it scans them: mm after mm as they registered, and by address.

    `mms`: names. `nodes`: NUMA nodes there are. `start`: int64[mms + 1], the pages of mm k are start[k] to start[k + 1].
    `content`: uint64[n], equal numbers are equal pages, 0 is the page of zeros. `node`: uint8[n], the node of the page's
    frame, or None, all on node 0. `home`: uint8[n], the node to which the page's area is bound, or None, as `node`. `frame`:
    int64[n], pages of one number share a frame, or None, each has its own. `absent`, `barred`: int64[mms], pages that are not
    there (or map the kernel's zero page), and pages that are there and not mergeable.
    """

    mms: tuple[str, ...]
    nodes: int
    start: np.ndarray
    content: np.ndarray
    node: np.ndarray | None = None
    home: np.ndarray | None = None
    frame: np.ndarray | None = None
    absent: np.ndarray
    barred: np.ndarray

    @property
    def mm(self) -> np.ndarray:
        """The place in `mms` of each page's mm, int32[n]."""
        return np.repeat(np.arange(len(self.mms), dtype=np.int32), np.diff(self.start))


def memory_of_contents(
    contents: Mapping[str, np.ndarray],
    nids: Iterable[int | np.ndarray],
    nodes: int,
    absent: Iterable[int] | None = None,
) -> Memory:
    """Memory of which little is known but its `contents`, by mm those of the pages that are there, uint64[pages].

    `nids`: for each mm the node of all its pages or of each. `absent`: for each mm the pages that are not there.
    """
    sizes = [content.size for content in contents.values()]
    placed = [np.broadcast_to(np.asarray(nid, np.uint8), size) for nid, size in zip(nids, sizes, strict=True)]
    node = np.concatenate([np.zeros(0, np.uint8), *placed])
    return Memory(
        mms=tuple(contents),
        nodes=nodes,
        start=np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]),
        content=np.concatenate([np.zeros(0, np.uint64), *contents.values()]),
        node=node if node.any() else None,
        absent=np.zeros(len(sizes), np.int64) if absent is None else np.array([*absent], np.int64),
        barred=np.zeros(len(sizes), np.int64),
    )


def memory_after(snapshots: Iterable[Iterable[Step]], nodes: int, kernel: Kernel) -> Memory:
    """The memory that is there when all steps of `snapshots` have happened, on a host with nodes 0 to `nodes` - 1.

    `kernel`: whose prctl(PR_SET_MEMORY_MERGE) it is. Raises InputError where a node goes offline: where its pages went depends
    on how full the others are.
    """
    host = _Host(kernel)
    for step in chain.from_iterable(snapshots):
        host.apply(step)
    return host.memory(nodes)


def memories_after(snapshots: Iterable[Iterable[Step]], nodes: int, kernel: Kernel) -> Iterator[Memory]:
    """As `memory_after`, after each of `snapshots`."""
    host = _Host(kernel)
    for steps in snapshots:
        for step in steps:
            host.apply(step)
        yield host.memory(nodes)


class _Area:
    """The pages of one mapping. What is the same for all of them is a scalar, or None, until it is not."""

    def __init__(self, pages: int, nid: int, mergeable: bool) -> None:
        self.pages = pages
        self.nid = nid  # where its next frames come from
        self.content: np.ndarray | None = None
        self.present = np.zeros(0, np.bool_)  # with the first write it has a place for every page, as content does
        self.mergeable: bool | np.ndarray = mergeable
        self.node: int | np.ndarray = nid  # where its frames are
        self.frame: np.ndarray | None = None

    def write(self, pages: np.ndarray | slice, contents: np.ndarray, frames: "_Frames") -> None:
        """New contents; what was absent or shared a frame by fork gets a frame of its own."""
        if self.content is None:
            self.content, self.present = np.zeros(self.pages, np.uint64), np.zeros(self.pages, np.bool_)
        if not (isinstance(self.node, int) and self.node == self.nid):
            in_place = self.present[pages]
            if self.frame is not None:
                in_place &= ~frames.are_shared(self.frame[pages])
            self.node = _changed(self.node, self.pages, np.arange(self.pages)[pages][~in_place], self.nid)
        if self.frame is not None:
            self.frame[pages] = frames.new(contents.size)  # a page that was written in place has nobody to share the old number
        self.content[pages] = contents
        self.present[pages] = True

    def forget(self, first: int, count: int) -> None:
        """Pages that are there no more."""
        if self.content is not None:
            self.present[first : first + count] = False

    def move(self, first: int, count: int, nid: int) -> np.ndarray:
        """The frames of these pages move to node `nid`. Returns: their numbers, if any is shared by fork."""
        if self.content is None:
            return np.zeros(0, np.int64)
        pages = first + np.flatnonzero(self.present[first : first + count])
        self.node = _changed(self.node, self.pages, pages, nid)
        return np.zeros(0, np.int64) if self.frame is None else self.frame[pages]

    def follow(self, frames: np.ndarray, nid: int) -> None:
        """What maps any of `frames` has it on node `nid`."""
        if self.frame is not None and frames.size:
            self.node = _changed(self.node, self.pages, np.flatnonzero(np.isin(self.frame, frames) & self.present), nid)

    def advise(self, first: int, count: int, mergeable: bool) -> None:
        """Pages become mergeable, or are so no more."""
        if count == self.pages:
            self.mergeable = mergeable
        else:
            self.mergeable = _changed(self.mergeable, self.pages, slice(first, first + count), mergeable)

    def fork(self, frames: "_Frames") -> "_Area":
        """The same in a child; frames are shared from now on, and have numbers."""
        if self.frame is None and self.content is not None:
            self.frame = frames.new(self.pages)
        child = _Area(self.pages, self.nid, mergeable=False)
        child.content, child.present = _copy(self.content), self.present.copy()
        child.mergeable, child.node, child.frame = _copy(self.mergeable), _copy(self.node), _copy(self.frame)
        return child

    def candidates(self) -> np.ndarray:
        """The pages that ksmd may merge, ascending, int64."""
        if not isinstance(self.mergeable, np.ndarray):
            return np.flatnonzero(self.present) if self.mergeable else np.zeros(0, np.int64)
        return np.flatnonzero(self.present & self.mergeable) if self.content is not None else np.zeros(0, np.int64)


class _Frames:
    """Numbers for frames, which pages have only where somebody forked, and who else has a frame."""

    def __init__(self, areas: Callable[[], Iterable[_Area]]) -> None:
        self._areas = areas
        self._next = 0

    def new(self, n: int) -> np.ndarray:
        """`n` numbers that no frame has, int64."""
        first, self._next = self._next, self._next + n
        return np.arange(first, self._next)

    def are_shared(self, frames: np.ndarray) -> np.ndarray:
        """Whether several pages have each of `frames`, bool."""
        times = np.zeros(frames.size, np.int64)
        for area in self._areas():
            if area.frame is not None:
                times += np.isin(frames, area.frame[area.present])
        shared: np.ndarray = times > 1
        return shared


@dataclass(slots=True)
class _Process:
    areas: dict[str, _Area]
    merge_any: bool = False


class _Host:
    """Lets steps happen to processes, without ksmd."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._processes: dict[str, _Process] = {}
        self._registered: dict[str, None] = {}  # with ksmd, in the order in which it scans them
        self._frames = _Frames(self._areas)

    def apply(self, step: Step) -> None:
        """Lets `step` happen."""
        self._handlers[type(step)](self, step)

    def _spawn(self, step: Spawn) -> None:
        self._processes[step.proc] = _Process({})

    def _mmap(self, step: Mmap) -> None:
        process = self._processes[step.proc]
        mergeable = step.mergeable or process.merge_any
        process.areas[step.area] = _Area(step.pages, step.node, mergeable)
        self._register(step.proc, mergeable)

    def _lazy_write(self, step: LazyWrite) -> None:
        self._write(step.made())

    def _write(self, step: Write) -> None:
        if step.contents.size:
            self._area(step).write(_places(step.pages), step.contents, self._frames)

    def _forget(self, step: Discard | Munmap) -> None:
        self._area(step).forget(step.first, step.count)

    def _madvise(self, step: Madvise) -> None:
        self._area(step).advise(step.first, step.count, step.mergeable)
        self._register(step.proc, step.mergeable)

    def _merge_any(self, step: MergeAny) -> None:
        process = self._processes[step.proc]
        if self._kernel < Kernel.V6_12 or process.merge_any == bool(step.value):
            return
        process.merge_any = bool(step.value)
        for area in process.areas.values():
            area.advise(0, area.pages, process.merge_any)
        self._register(step.proc, process.merge_any)

    def _migrate(self, step: Migrate) -> None:
        shared = self._area(step).move(step.first, step.count, step.node)
        for area in self._areas():
            area.follow(shared, step.node)

    def _rebind(self, step: Rebind) -> None:
        self._area(step).nid = step.node

    def _fork(self, step: Fork) -> None:
        parent = self._processes[step.proc]
        areas = {name: area.fork(self._frames) for name, area in parent.areas.items()}
        self._processes[step.child] = _Process(areas, parent.merge_any)
        self._register(step.child, step.proc in self._registered)

    def _exit(self, step: Exit) -> None:
        del self._processes[step.proc]
        self._registered.pop(step.proc, None)

    def _offline(self, step: Offline) -> None:
        rule = "takes no memory whose nodes go offline: where its pages go depends on how full the others are"
        raise InputError(key="offline", value=step.node, rule=rule, hint="an earlier snapshot may do")

    def _nothing(self, step: Step) -> None:
        """What is read is the kernel's zero page, which ksmd passes by; the other steps are not about what pages hold."""

    _handlers: ClassVar[dict[type, Callable[..., None]]] = {
        Spawn: _spawn,
        Mmap: _mmap,
        Write: _write,
        LazyWrite: _lazy_write,
        Discard: _forget,
        Munmap: _forget,
        Madvise: _madvise,
        MergeAny: _merge_any,
        Migrate: _migrate,
        Rebind: _rebind,
        Fork: _fork,
        Exit: _exit,
        Offline: _offline,
        **dict.fromkeys((Read, Mprotect, Online, ClearFrames, Scan, FullScan, SetKnob, SetRun), _nothing),
    }

    def _areas(self) -> Iterator[_Area]:
        return (area for process in self._processes.values() for area in process.areas.values())

    def _area(self, step: Write | Discard | Munmap | Madvise | Migrate | Rebind) -> _Area:
        return self._processes[step.proc].areas[step.area]

    def _register(self, proc: str, mergeable: bool) -> None:
        if mergeable:
            self._registered.setdefault(proc)

    # ---- what is there

    def memory(self, nodes: int) -> Memory:
        """What is there now."""
        mms = [*self._registered, *(name for name in self._processes if name not in self._registered)]
        areas = [(k, area) for k, name in enumerate(mms) for area in self._processes[name].areas.values()]
        parts = [(area, area.candidates()) for _, area in areas]
        per_mm = np.zeros((3, len(mms)), np.int64)  # mapped, there, mergeable too
        for (k, area), (_, pages) in zip(areas, parts, strict=True):
            per_mm[:, k] += np.array([area.pages, np.count_nonzero(area.present), pages.size])
        mapped, there, mergeable = per_mm
        n_pages = int(mergeable.sum())
        node = _joined(((pages, area.node) for area, pages in parts), n_pages, np.uint8)
        home = _joined(((pages, area.nid) for area, pages in parts), n_pages, np.uint8)
        return Memory(
            mms=tuple(mms),
            nodes=nodes,
            start=np.concatenate([[0], mergeable.cumsum()]),
            content=_joined(((pages, area.content) for area, pages in parts), n_pages, np.uint64),
            node=node if node.any() else None,
            home=None if np.array_equal(home, node) else home,
            frame=self._frames_of(parts, n_pages),
            absent=mapped - there,
            barred=there - mergeable,
        )

    def _frames_of(self, parts: Sequence[tuple[_Area, np.ndarray]], n_pages: int) -> np.ndarray | None:
        if all(area.frame is None for area, _ in parts):
            return None
        for area, _ in parts:
            if area.frame is None:
                area.frame = self._frames.new(area.pages)
        return _joined(((pages, area.frame) for area, pages in parts), n_pages, np.int64)


def _joined(parts: Iterable[tuple[np.ndarray, int | np.ndarray | None]], n: int, kind: type[np.generic]) -> np.ndarray:
    """For every (pages, values) the values of those pages, one after the other; a number is the value of all."""
    joined = np.empty(n, kind)
    end = 0
    for pages, values in parts:
        first, end = end, end + pages.size
        joined[first:end] = values[pages] if isinstance(values, np.ndarray) else (values or 0)
    return joined


def _places(pages: object) -> np.ndarray | slice:
    """Page numbers, an array or a range, as what an array takes at once."""
    return slice(pages.start, pages.stop) if isinstance(pages, range) else np.asarray(pages)


def _changed(values: Scalar | np.ndarray, n: int, where: np.ndarray | slice, value: Scalar) -> np.ndarray:
    """`values`, of n pages, with `value` at some."""
    if not isinstance(values, np.ndarray):
        values = np.full(n, values, np.bool_ if isinstance(values, bool) else np.uint8)
    values[where] = value
    return values


def _copy(value: Held) -> Held:
    return value.copy() if isinstance(value, np.ndarray) else value
