"""The steps of a scenario, one after the other: JSON in, checked events out.

It remembers what exists, since a step may only name that. The scenario around the steps is `scenario`'s.
"""

from dataclasses import dataclass, field
from typing import Final, TypedDict

import numpy as np

from ksmbatch.codes import Caller
from ksmbatch.documents import INT32, Fields, Json, nearest
from ksmbatch.errors import InputError
from ksmbatch.events import (
    ClearFrames,
    Discard,
    Exit,
    Fork,
    FullScan,
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

MAX_PAGES: Final = 2**31 - 1  # of a whole scenario, forks included: global page numbers are int32
CONTENT_LIMIT: Final = 1 << 62
HUGE_PAGES: Final = 512  # pages of a huge page on x86-64: what compaction and khugepaged want free at once, and aligned

# fields of each op: required, then optional
_FIELDS: Final[dict[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "spawn": (("proc",), ("cpu_node",)),
    "mmap": (("proc", "area", "pages"), ("node", "mergeable")),
    "write": (("proc", "area", "contents"), ("first",)),
    "read": (("proc", "area"), ("first", "count")),
    "discard": (("proc", "area"), ("first", "count")),
    "munmap": (("proc", "area"), ("first", "count")),
    "madvise": (("proc", "area", "advice"), ("first", "count")),
    "merge_any": (("proc", "value"), ()),
    "mprotect": (("proc", "area", "prot"), ("first", "count")),
    "migrate": (("proc", "area", "node"), ("first", "count", "caller")),
    "rebind": (("proc", "area", "node"), ()),
    "offline": (("node",), ()),
    "online": (("node",), ()),
    "compaction": (("first",), ()),
    "thp": (("first",), ()),
    "cma": (("range",), ()),
    "fork": (("proc", "child"), ()),
    "exit": (("proc",), ()),
    "scan": ((), ("batches",)),
    "full_scan": ((), ("count",)),
    "knob": (("name", "value"), ()),
    "run": (("value",), ()),
}


@dataclass(slots=True)
class _Area:
    pages: int
    holes: list[tuple[int, int]] = field(default_factory=list)  # unmapped [first, stop), in the order of munmap
    readable: bool = True

    def unmapped(self, pages: np.ndarray) -> int | None:
        """The first of `pages` (int64[n], ascending) that is unmapped."""
        gone = [pages[pages.searchsorted(first) : pages.searchsorted(stop)] for first, stop in self.holes]
        return min((int(run[0]) for run in gone if run.size), default=None)


class _Span(TypedDict):
    proc: str
    area: str
    first: int
    count: int


class StepReader:
    """Reads the steps of one scenario in order.

    `where` names the scenario in errors. It has `nodes` nodes of `node_pages` frames (0: as many as needed). `knobs`: what
    a step may write.
    """

    def __init__(self, where: str, *, nodes: int, node_pages: int, knobs: tuple[str, ...]) -> None:
        self._where = where
        self._nodes = range(nodes)
        self._node_pages = node_pages
        self._knobs = knobs
        self._live: dict[str, dict[str, _Area]] = {}
        self._names: set[str] = set()
        self._pages = 0

    def read(self, number: int, raw: object) -> tuple[Step, Json]:
        """The step and its JSON with defaults filled in."""
        where = f"{self._where}: step {number}"
        if not isinstance(raw, dict):
            raise InputError(where=where, value=raw, rule="must be an object with an op")
        op = raw.get("op")
        if not isinstance(op, str) or op not in _FIELDS:
            hint = nearest(op, _FIELDS) if isinstance(op, str) else None
            raise Fields(raw, where).bad("op", "unknown op", hint)
        fields = Fields(dict(raw), f"{where} ({op})")
        required, optional = _FIELDS[op]
        fields.only(("op", *required, *optional))
        return self._step(op, fields), fields.obj

    def _step(self, op: str, fields: Fields) -> Step:
        match op:
            case "spawn":
                proc = self._new_name(fields, "proc")
                self._live[proc] = {}
                return Spawn(proc=proc, cpu_node=fields.integer("cpu_node", self._nodes, 0))
            case "mmap":
                return self._mmap(fields)
            case "write":
                return self._write(fields)
            case "read":
                return self._read(fields)
            case "discard":
                return Discard(**self._range(fields))
            case "munmap":
                span = self._range(fields)
                self._live[span["proc"]][span["area"]].holes.append((span["first"], span["first"] + span["count"]))
                return Munmap(**span)
            case "madvise":
                advice = fields.one_of("advice", ("mergeable", "unmergeable"))
                return Madvise(**self._range(fields), mergeable=advice == "mergeable")
            case "merge_any":
                return MergeAny(proc=self._process(fields), value=fields.integer("value", range(2)))
            case "mprotect":
                return self._mprotect(fields)
            case "migrate":
                return Migrate(**self._range(fields), node=fields.integer("node", self._nodes), caller=_caller(fields))
            case "rebind":
                proc, area, _ = self._area(fields)
                return Rebind(proc=proc, area=area, node=fields.integer("node", self._nodes))
            case "offline":
                return Offline(node=fields.integer("node", self._nodes))
            case "online":
                return Online(node=fields.integer("node", self._nodes))
            case "compaction" | "thp":
                return self._huge_page(fields, Caller[op.upper()])
            case "cma":
                return self._cma(fields)
            case "fork":
                return self._fork(fields)
            case "exit":
                proc = self._process(fields)
                del self._live[proc]
                return Exit(proc=proc)
            case "scan":
                return Scan(batches=fields.integer("batches", INT32, 1))
            case "full_scan":
                return FullScan(count=fields.integer("count", INT32, 1))
            case "knob":
                name = fields.one_of("name", self._knobs)
                return SetKnob(name=name, value=fields.integer("value", None))
            case _:
                return SetRun(value=fields.integer("value", range(3)))

    def _new_name(self, fields: Fields, key: str) -> str:
        name = fields.text(key)
        if name in self._names:
            raise fields.bad(key, "process names are not reused")
        self._names.add(name)
        return name

    def _process(self, fields: Fields) -> str:
        proc = fields.text("proc")
        if proc not in self._live:
            raise fields.bad("proc", "no such process", "it has exited" if proc in self._names else nearest(proc, self._live))
        return proc

    def _area(self, fields: Fields) -> tuple[str, str, _Area]:
        proc = self._process(fields)
        areas = self._live[proc]
        name = fields.text("area")
        if name not in areas:
            raise fields.bad("area", f"{proc} has no such area", nearest(name, areas))
        return proc, name, areas[name]

    def _range(self, fields: Fields) -> _Span:
        proc, name, area = self._area(fields)
        first = fields.integer("first", range(area.pages), 0)
        count = fields.integer("count", range(1, area.pages - first + 1), area.pages - first)
        return _Span(proc=proc, area=name, first=first, count=count)

    def _count_pages(self, fields: Fields, key: str, pages: int) -> None:
        self._pages += pages
        if self._pages > MAX_PAGES:
            raise fields.bad(key, f"makes {self._pages} pages in the scenario: must be at most {MAX_PAGES}")

    def _mmap(self, fields: Fields) -> Mmap:
        proc = self._process(fields)
        areas = self._live[proc]
        name = fields.text("area")
        if name in areas:
            raise fields.bad("area", "area names are not reused")
        pages = fields.integer("pages", INT32)
        node = fields.integer("node", self._nodes, 0)
        mergeable = fields.obj.setdefault("mergeable", True)
        if not isinstance(mergeable, bool):
            raise fields.bad("mergeable", "must be true or false")
        self._count_pages(fields, "pages", pages)
        areas[name] = _Area(pages)
        return Mmap(proc=proc, area=name, pages=pages, node=node, mergeable=mergeable)

    def _write(self, fields: Fields) -> Write:
        proc, name, area = self._area(fields)
        first = fields.integer("first", range(area.pages), 0)
        given = fields.obj.get("contents")
        if not isinstance(given, list) or not given:
            raise fields.bad("contents", "must be a list of at least one content id or null")
        if first + len(given) > area.pages:
            raise InputError(
                where=fields.where,
                key="contents",
                rule=f"{len(given)} pages from page {first} on: {name} has {area.pages} pages",
            )
        for k, content in enumerate(given):
            if content is not None and (type(content) is not int or not 0 <= content < CONTENT_LIMIT):
                raise InputError(
                    where=fields.where, key=f"contents[{k}]", value=content, rule="must be an integer >= 0 and < 2**62, or null"
                )
        pages = np.array([first + k for k, content in enumerate(given) if content is not None], dtype=np.int64)
        contents = np.array([content for content in given if content is not None], dtype=np.uint64)
        gone = area.unmapped(pages)
        if gone is not None:
            raise InputError(where=fields.where, key=f"contents[{gone - first}]", rule=f"page {gone} of {name} is unmapped")
        return Write(proc=proc, area=name, pages=pages, contents=contents)

    def _read(self, fields: Fields) -> Read:
        span = self._range(fields)
        area = self._live[span["proc"]][span["area"]]
        first, stop = span["first"], span["first"] + span["count"]
        if any(first < hole_stop and hole_first < stop for hole_first, hole_stop in area.holes):
            raise fields.bad("first", "reads unmapped pages")
        if not area.readable:
            raise fields.bad("area", "must not be read: its prot is none")
        return Read(**span)

    def _mprotect(self, fields: Fields) -> Mprotect:
        span = self._range(fields)
        area = self._live[span["proc"]][span["area"]]
        if span["count"] != area.pages:
            raise InputError(
                where=fields.where, key="count", value=span["count"], rule=f"must be the whole area, {area.pages} pages"
            )
        prot = fields.one_of("prot", ("none", "r", "rw"))
        area.readable = prot != "none"
        return Mprotect(proc=span["proc"], area=span["area"], prot=prot)

    def _fork(self, fields: Fields) -> Fork:
        proc = self._process(fields)
        child = self._new_name(fields, "child")
        areas = self._live[proc]
        self._count_pages(fields, "child", sum(area.pages for area in areas.values()))
        self._live[child] = {name: _Area(area.pages, list(area.holes), area.readable) for name, area in areas.items()}
        return Fork(proc=proc, child=child)

    def _huge_page(self, fields: Fields, caller: Caller) -> ClearFrames:
        first = fields.integer("first", self._frames(fields, "first"))
        if first % HUGE_PAGES:
            raise fields.bad("first", f"must be a multiple of {HUGE_PAGES}")
        return self._clear(fields, "first", first, HUGE_PAGES, caller)

    def _cma(self, fields: Fields) -> ClearFrames:
        given = fields.obj.get("range")
        if not isinstance(given, list) or len(given) != 2:
            raise fields.bad("range", "must be the first frame and how many")
        pair = Fields({"range[0]": given[0], "range[1]": given[1]}, fields.where)
        first = pair.integer("range[0]", self._frames(fields, "range"))
        return self._clear(fields, "range", first, pair.integer("range[1]", INT32), Caller.CMA)

    def _frames(self, fields: Fields, key: str) -> range:
        if not self._node_pages:
            raise fields.bad(key, "counts frames, which needs node_pages")
        return range(len(self._nodes) * self._node_pages)

    def _clear(self, fields: Fields, key: str, first: int, count: int, caller: Caller) -> ClearFrames:
        node, begin = divmod(first, self._node_pages)
        if begin + count > self._node_pages:
            end = (node + 1) * self._node_pages - 1
            raise fields.bad(key, f"must lie within one node: {count} frames, and node {node} ends with frame {end}")
        return ClearFrames(first=first, count=count, caller=caller)


def _caller(fields: Fields) -> Caller:
    # not filled in where it is left out: recordings of before it existed contain their scenarios as they were
    if "caller" not in fields.obj:
        return Caller.MOVE_PAGES
    return Caller[fields.one_of("caller", tuple(caller.word for caller in Caller)).upper()]
