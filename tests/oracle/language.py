"""Scenarios: read them, check them, fill in the defaults, and write them as the text that guest.c reads.

The limits on sizes are the guest's. It says what is wrong with a scenario and repairs nothing.
"""

import gzip
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

MAX_PROC, MAX_AREA, MAX_PAGES = 32, 64, 4095
MAX_CONTENT = 1 << 62
NEVER = 100000000  # milliseconds: "never prune" for stable_node_chains_prune_millisecs
KNOBS = {  # the oracle's defaults; not all are the kernel's
    "merge_across_nodes": 1,
    "max_page_sharing": 256,
    "use_zero_pages": 0,
    "smart_scan": 0,
    "pages_to_scan": 100000,
    "stable_node_chains_prune_millisecs": 0,
    "run": 1,
}
PROTECTIONS = {"none": 0, "r": 1, "rw": 3}

Scenario = dict[str, Any]


class Bad(Exception):
    """A scenario that cannot be recorded."""


def load(paths: Iterable[str | Path]) -> list[Scenario]:
    """All scenarios of files and directories, normalised; a file holds one scenario or a list, plain or gzipped."""
    files: list[Path] = []
    for path in map(Path, paths):
        files += sorted([*path.glob("*.json"), *path.glob("*.json.gz")]) if path.is_dir() else [path]
    scenarios: list[Scenario] = []
    for file in files:
        data = file.read_bytes()
        found = json.loads(gzip.decompress(data) if file.suffix == ".gz" else data)
        scenarios += [normalise(one) for one in (found if isinstance(found, list) else [found])]
    names = [one["name"] for one in scenarios]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise Bad(f"names used twice: {twice}")
    return scenarios


def normalise(scenario: Scenario) -> Scenario:
    """Check a scenario and fill in every default; returns a new one, raises Bad."""
    return _Checker(scenario).checked()


class _Checker:
    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.where = str(scenario.get("name"))
        self.live: dict[str, dict[str, int]] = {}  # process -> area -> pages
        self.seen: set[str] = set()
        self.holes: dict[tuple[str, str], set[int]] = {}  # unmapped pages
        self.no_access: set[tuple[str, str]] = set()  # areas with prot none

    def checked(self) -> Scenario:
        scenario = self.scenario
        name = self.need(scenario, "name", str)
        self.nodes = self.need(scenario, "nodes", int)
        if not 1 <= self.nodes <= 8:
            self.bad("nodes must be 1..8")
        knobs = dict(KNOBS)
        for knob, value in scenario.get("knobs", {}).items():
            if knob not in KNOBS:
                self.bad(f"unknown knob {knob}")
            knobs[knob] = value
        if knobs["run"] not in (0, 1, 2):
            self.bad("run")
        self.check_prune_delay(knobs["stable_node_chains_prune_millisecs"])
        steps = [self.step(index, dict(step)) for index, step in enumerate(self.need(scenario, "steps", list))]
        if len(self.seen) > MAX_PROC:
            self.bad("too many processes")
        about = {"about": scenario["about"]} if "about" in scenario else {}
        return {"name": name, **about, "nodes": self.nodes, "knobs": knobs, "steps": steps}

    def step(self, index: int, step: dict[str, Any]) -> dict[str, Any]:
        self.where = f"{self.scenario['name']}: step {index} {step}"
        op = self.need(step, "op", str)
        check: Callable[[dict[str, Any]], None] | None = getattr(self, f"_{op}", None)
        if check is None:
            self.bad("unknown op")
        else:
            check(step)
        return step

    # ---- what the checks share

    def bad(self, why: str) -> None:
        raise Bad(f"{self.where}: {why}")

    def need(self, of: dict[str, Any], key: str, kind: type) -> Any:
        if key not in of:
            self.bad(f"missing {key!r}")
        if not isinstance(of[key], kind) or (kind is int and isinstance(of[key], bool)):
            self.bad(f"{key!r} is not {kind.__name__}")
        return of[key]

    def process(self, step: dict[str, Any]) -> dict[str, int]:
        name = self.need(step, "proc", str)
        if name not in self.live:
            self.bad("no such process")
        return self.live[name]

    def new_process(self, step: dict[str, Any], key: str) -> str:
        name: str = self.need(step, key, str)
        if name in self.seen:
            self.bad("process names are not reused")
        self.seen.add(name)
        return name

    def area(self, step: dict[str, Any]) -> int:
        pages = self.process(step).get(self.need(step, "area", str))
        if pages is None:
            self.bad("no such area")
        step.setdefault("first", 0)
        return pages or 0

    def range(self, step: dict[str, Any]) -> set[int]:
        pages = self.area(step)
        step.setdefault("count", pages - step["first"])
        first, count = step["first"], step["count"]
        if count < 1 or first < 0 or first + count > pages:
            self.bad("range")
        return set(range(first, first + count))

    def node(self, step: dict[str, Any], key: str) -> None:
        if not 0 <= self.need(step, key, int) < self.nodes:
            self.bad(f"{key} out of range")

    def check_prune_delay(self, milliseconds: int) -> None:
        if 0 < milliseconds < NEVER:
            self.bad(f"stable_node_chains_prune_millisecs must be 0 or >= {NEVER}: anything between goes by the clock")

    # ---- one check per op

    def _spawn(self, step: dict[str, Any]) -> None:
        step.setdefault("cpu_node", 0)
        self.node(step, "cpu_node")
        self.live[self.new_process(step, "proc")] = {}

    def _mmap(self, step: dict[str, Any]) -> None:
        own, name = self.process(step), self.need(step, "area", str)
        if name in own:
            self.bad("area names are not reused")
        step.setdefault("node", 0)
        step.setdefault("mergeable", True)
        self.node(step, "node")
        if not 1 <= self.need(step, "pages", int) <= MAX_PAGES:
            self.bad("pages")
        own[name] = step["pages"]
        self.holes[step["proc"], name] = set()
        if len(own) > MAX_AREA:
            self.bad("too many areas")

    def _write(self, step: dict[str, Any]) -> None:
        pages = self.area(step)
        contents = self.need(step, "contents", list)
        if not contents or step["first"] < 0 or step["first"] + len(contents) > pages:
            self.bad("range")
        written = {step["first"] + k for k, content in enumerate(contents) if content is not None}
        if self.holes[step["proc"], step["area"]] & written:
            self.bad("writes to an unmapped page")
        if any(content is not None and not (isinstance(content, int) and 0 <= content < MAX_CONTENT) for content in contents):
            self.bad("contents")

    def _read(self, step: dict[str, Any]) -> None:
        pages, area = self.range(step), (step["proc"], step["area"])
        if self.holes[area] & pages or area in self.no_access:
            self.bad("reads where it may not")

    def _discard(self, step: dict[str, Any]) -> None:
        self.range(step)

    def _munmap(self, step: dict[str, Any]) -> None:
        pages = self.range(step)
        self.holes[step["proc"], step["area"]] |= pages

    def _madvise(self, step: dict[str, Any]) -> None:
        self.range(step)
        if step.get("advice") not in ("mergeable", "unmergeable"):
            self.bad("advice")

    def _mprotect(self, step: dict[str, Any]) -> None:
        if self.range(step) != set(range(self.live[step["proc"]][step["area"]])):
            self.bad("whole areas only")
        if step.get("prot") not in PROTECTIONS:
            self.bad("prot")
        area = step["proc"], step["area"]
        (self.no_access.add if step["prot"] == "none" else self.no_access.discard)(area)

    def _migrate(self, step: dict[str, Any]) -> None:
        self.range(step)
        self.node(step, "node")

    def _fork(self, step: dict[str, Any]) -> None:
        parent = self.process(step)
        child = self.new_process(step, "child")
        self.live[child] = dict(parent)
        for area in parent:
            self.holes[child, area] = set(self.holes[step["proc"], area])
            if (step["proc"], area) in self.no_access:
                self.no_access.add((child, area))

    def _exit(self, step: dict[str, Any]) -> None:
        self.process(step)
        del self.live[step["proc"]]

    def _merge_any(self, step: dict[str, Any]) -> None:
        self.process(step)
        if self.need(step, "value", int) not in (0, 1):
            self.bad("value")

    def _scan(self, step: dict[str, Any]) -> None:
        step.setdefault("batches", 1)
        if self.need(step, "batches", int) < 1:
            self.bad("batches")

    def _full_scan(self, step: dict[str, Any]) -> None:
        step.setdefault("count", 1)
        if self.need(step, "count", int) < 1:
            self.bad("count")

    def _knob(self, step: dict[str, Any]) -> None:
        if self.need(step, "name", str) not in KNOBS or step["name"] == "run":
            self.bad("unknown knob")
        value = self.need(step, "value", int)
        if step["name"] == "stable_node_chains_prune_millisecs":
            self.check_prune_delay(value)

    def _run(self, step: dict[str, Any]) -> None:
        if self.need(step, "value", int) not in (0, 1, 2):
            self.bad("value")


def names(scenario: Scenario) -> tuple[list[str], dict[str, list[str]]]:
    """Processes by the guest's number, and per process its areas by theirs."""
    processes: list[str] = []
    areas: dict[str, list[str]] = {}
    for step in scenario["steps"]:
        if step["op"] == "spawn":
            processes.append(step["proc"])
            areas[step["proc"]] = []
        elif step["op"] == "mmap":
            areas[step["proc"]].append(step["area"])
        elif step["op"] == "fork":
            processes.append(step["child"])
            areas[step["child"]] = list(areas[step["proc"]])
    return processes, areas


def script(index: int, scenario: Scenario) -> str:
    """The text that guest.c reads."""
    processes, areas = names(scenario)
    lines = [f"scenario {index}"]
    lines += [f"init {knob} {value}" for knob, value in scenario["knobs"].items() if knob != "run"]
    lines += [f"init run {scenario['knobs']['run']}", "begin"]
    for k, step in enumerate(scenario["steps"]):
        process = processes.index(step["proc"]) if "proc" in step else -1
        area = areas[step["proc"]].index(step["area"]) if "area" in step else -1
        lines.append(f"step {k} {_words(step, process, area, processes)}")
    return "\n".join([*lines, "end", ""])


def _words(step: dict[str, Any], process: int, area: int, processes: list[str]) -> str:
    op = step["op"]
    if op == "spawn":
        return f"spawn {process} {step['cpu_node']}"
    if op == "mmap":
        return f"mmap {process} {area} {step['pages']} {step['node']} {int(step['mergeable'])}"
    if op == "write":
        contents = " ".join("-1" if content is None else str(content) for content in step["contents"])
        return f"write {process} {area} {step['first']} {len(step['contents'])} {contents}"
    if op in ("read", "discard", "munmap"):
        return f"{op} {process} {area} {step['first']} {step['count']}"
    if op == "madvise":
        return f"{step['advice']} {process} {area} {step['first']} {step['count']}"
    if op == "mprotect":
        return f"mprotect {process} {area} {PROTECTIONS[step['prot']]}"
    if op == "migrate":
        return f"migrate {process} {area} {step['first']} {step['count']} {step['node']}"
    if op == "fork":
        return f"fork {process} {processes.index(step['child'])}"
    if op == "exit":
        return f"exit {process}"
    if op == "merge_any":
        return f"merge_any {process} {step['value']}"
    if op == "scan":
        return f"scan {step['batches']}"
    if op == "full_scan":
        return f"full_scan {step['count']}"
    if op == "knob":
        return f"knob {step['name']} {step['value']}"
    return f"run {step['value']}"
