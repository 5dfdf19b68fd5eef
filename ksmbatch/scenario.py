"""The scenario language: JSON in, checked events out.

It refuses what the language does not allow, naming scenario, step and key. It runs nothing and knows neither frames nor
trees; what a step does to the machine is the engine's business.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypedDict

import numpy as np

from ksmbatch.documents import INT32, Fields, Json, nearest, read_documents
from ksmbatch.errors import InputError
from ksmbatch.events import (
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
    Read,
    Scan,
    SetKnob,
    SetRun,
    Spawn,
    Step,
    Write,
)

__all__ = [
    "CONTENT_LIMIT",
    "KNOBS",
    "MAX_NODES",
    "MAX_PAGES",
    "Discard",
    "Exit",
    "Fork",
    "FullScan",
    "Madvise",
    "MergeAny",
    "Migrate",
    "Mmap",
    "Mprotect",
    "Munmap",
    "Read",
    "Scan",
    "Scenario",
    "SetKnob",
    "SetRun",
    "Spawn",
    "Step",
    "Write",
    "load_scenarios",
    "parse_scenario",
]

KNOBS: Final[dict[str, int]] = {  # the oracle's defaults, which are not always the kernel's
    "merge_across_nodes": 1,
    "max_page_sharing": 256,
    "use_zero_pages": 0,
    "smart_scan": 0,
    "pages_to_scan": 100_000,
    "stable_node_chains_prune_millisecs": 0,
    "run": 1,
}
MAX_NODES: Final = 8
MAX_PAGES: Final = 2**31 - 1  # of a whole scenario, forks included: global page numbers are int32
CONTENT_LIMIT: Final = 1 << 62


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Scenario:
    """A scenario, checked.

    `knobs` holds every knob of `KNOBS`, `run` among them, defaults filled in. `document` is the JSON object with all
    defaults filled in, as a recording contains it; treat it as read-only.
    """

    name: str
    about: str
    nodes: int
    knobs: dict[str, int]
    steps: tuple[Step, ...]
    document: Json


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
    "migrate": (("proc", "area", "node"), ("first", "count")),
    "fork": (("proc", "child"), ()),
    "exit": (("proc",), ()),
    "scan": ((), ("batches",)),
    "full_scan": ((), ("count",)),
    "knob": (("name", "value"), ()),
    "run": (("value",), ()),
}


def parse_scenario(obj: object, where: str) -> Scenario:
    """The scenario in the JSON value `obj`; `where` names its file in errors.

    Accepts what the oracle's recorder accepts, without its limits on pages, areas and processes, and with any prune
    delay. Fields that the language does not have are errors. Steps are counted from 0, as in recordings.
    Raises InputError naming scenario, step and key. Source: the scenario section of the oracle's README.
    """
    if not isinstance(obj, dict):
        raise InputError(where=where, value=obj, rule="must be a scenario, i.e. a JSON object")
    name = obj.get("name")
    if isinstance(name, str) and name.isprintable():
        where = f"{where}: {name}"
    top = Fields(dict(obj), where)
    top.only(("name", "about", "nodes", "knobs", "steps"))
    name = top.text("name")
    if "/" in name or name in ("", ".", "..") or not name.isprintable() or len(name.encode(errors="replace")) > 200:
        raise top.bad("name", "must be usable as a file name")
    document: Json = {"name": name}
    about = top.text("about", default="")
    if "about" in obj:
        document["about"] = about
    nodes = top.integer("nodes", range(1, MAX_NODES + 1))
    knobs = _start_knobs(obj.get("knobs", {}), where)
    raw_steps = obj.get("steps")
    if not isinstance(raw_steps, list):
        raise top.bad("steps", "must be a list of steps")
    reader = _StepReader(where, nodes)
    pairs = [reader.read(k, raw) for k, raw in enumerate(raw_steps)]
    document |= {"nodes": nodes, "knobs": dict(knobs), "steps": [filled for _, filled in pairs]}
    return Scenario(name=name, about=about, nodes=nodes, knobs=knobs, steps=tuple(step for step, _ in pairs), document=document)


def load_scenarios(path: str | Path) -> list[tuple[Scenario, str | None]]:
    """All scenarios of `path` with the kernel release they were recorded on (None for a bare scenario).

    `path`: a JSON file (.json or .json.gz) with a scenario, a recording, or a list of these; or a directory, searched
    through all its levels in the order of names. Raises InputError for what cannot be read or breaks a rule.
    """
    loaded: list[tuple[Scenario, str | None]] = []
    for where, obj in read_documents(path):
        if "scenario" in obj:  # a recording; `recordings` reads the rest of it
            release = obj.get("kernel")
            if not isinstance(release, str):
                raise InputError(where=where, key="kernel", value=release, rule="must be a kernel release")
            loaded.append((parse_scenario(obj["scenario"], where), release))
        else:
            loaded.append((parse_scenario(obj, where), None))
    return loaded


def _start_knobs(raw: object, where: str) -> dict[str, int]:
    if not isinstance(raw, dict):
        raise InputError(where=where, key="knobs", value=raw, rule="must be an object")
    fields = Fields(dict(raw), f"{where}: knobs")
    fields.only(tuple(KNOBS))
    # any number: what the kernel refuses is no error of the scenario, `knob_errno` of the recording says so
    return {name: fields.integer(name, range(3) if name == "run" else None, default) for name, default in KNOBS.items()}


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


class _StepReader:
    """Reads the steps of one scenario in order; remembers what exists, since a step may only name that."""

    def __init__(self, where: str, nodes: int) -> None:
        self._where = where
        self._nodes = range(nodes)
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
                return Migrate(**self._range(fields), node=fields.integer("node", self._nodes))
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
                name = fields.one_of("name", tuple(knob for knob in KNOBS if knob != "run"))
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
