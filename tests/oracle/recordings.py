"""Recordings: from the lines of the guest to the format that README.md describes, and to text.

It invents nothing: only frame numbers become ids, and cumulative counters lose their baseline.
"""

import errno
import json
from collections.abc import Iterator
from typing import Any

from language import Bad, Scenario, names

FORMAT = 1
CUMULATIVE = ("pages_scanned", "pages_skipped")  # since boot
STUCK = -10000  # what the guest says where move_pages() stored no status

Recording = dict[str, Any]
Line = dict[str, Any]


def errname(number: int) -> str | int:
    """0, or the name of the error."""
    return errno.errorcode.get(number, str(number)) if number else 0


def recording(scenario: Scenario, header: Line, lines: list[Line]) -> Recording:
    """The recording of one scenario from the guest's lines about it; raises Bad if they are incomplete."""
    observer = _Observer(scenario, header, lines[0])
    initial = observer.observe(lines[0])
    steps = []
    for index, line in enumerate(lines[1:]):
        if line["i"] != index:
            raise Bad("lost a step")
        step: dict[str, Any] = {"errno": errname(line["e"])}
        if "status" in line:
            step["status"] = [s if s >= 0 else "stuck" if s == STUCK else errname(-s) for s in line["status"]]
        if "batches" in line:
            step["batches"] = line["batches"]
        steps.append(step | observer.observe(line))
    if len(steps) != len(scenario["steps"]):
        raise Bad("not all steps ran")
    return {
        "format": FORMAT,
        "kernel": header["kernel"],
        "scenario": scenario,
        "knob_errno": {knob: errname(number) for knob, number in lines[0]["knob_errno"].items()},
        "sysfs_fields": header["fields"],
        "proc_fields": observer.proc_fields,
        "initial": initial,
        "steps": steps,
    }


class _Observer:
    def __init__(self, scenario: Scenario, header: Line, first: Line) -> None:
        self.processes, self.areas = names(scenario)
        self.fields, self.ranges = header["fields"], header["ranges"]
        self.base = {f: v for f, v in zip(self.fields, first["s"], strict=True) if f in CUMULATIVE}
        self.cow = first["cow"]
        self.proc_fields: list[str] = []
        self.tables: dict[tuple[int, int], list[int]] = {}  # (process, area) -> raw entries, now
        self.known: dict[tuple[int, int, int], tuple[int, int]] = {}  # (process, area, page) -> (pfn, id) at the last step
        self.next_id = 0

    def observe(self, line: Line) -> dict[str, Any]:
        live = {process for process, *_ in line["p"]}
        self.tables = {key: raw for key, raw in self.tables.items() if key[0] in live}
        changed = {(process, area): raw for process, area, *raw in line["t"]}
        self.tables |= changed
        frames = self._frame_ids()
        tables: dict[str, dict[str, Any]] = {}
        for (process, area), raw in sorted(changed.items()):
            name = self.processes[process]
            tables.setdefault(name, {})[self.areas[name][area]] = self._table(raw, frames)
        return {
            "sysfs": [value - self.base.get(field, 0) for field, value in zip(self.fields, line["s"], strict=True)],
            "cow_ksm": line["cow"] - self.cow,
            "procs": {self.processes[process]: self._process(figures) for process, *figures in line["p"]},
            "tables": tables,
        }

    def _frame_ids(self) -> dict[int, int]:
        """pfn -> id. A frame keeps its id while some page keeps mapping it."""
        pages = [((*key, n), raw[n] >> 1) for key, raw in sorted(self.tables.items()) for n in range(len(raw)) if raw[n] >= 0]
        ids: dict[int, int] = {}
        for page, pfn in pages:
            known = self.known.get(page)
            if known is not None and known[0] == pfn:
                ids[pfn] = known[1]
        for _, pfn in pages:
            if pfn not in ids:
                ids[pfn] = self.next_id
                self.next_id += 1
        self.known = {page: (pfn, ids[pfn]) for page, pfn in pages}
        return ids

    def _table(self, raw: list[int], frames: dict[int, int]) -> dict[str, Any]:
        return {
            "frames": [frames[entry >> 1] if entry >= 0 else entry for entry in raw],
            "nodes": "".join(f"{self._nid(entry >> 1):x}" if entry >= 0 else "." for entry in raw),
            "ksm": "".join(str(entry & 1) if entry >= 0 else "." for entry in raw),
        }

    def _nid(self, pfn: int) -> int:
        for nid, low, high in self.ranges:
            if low <= pfn < high:
                return int(nid)
        raise Bad(f"pfn {pfn:#x} is in no node")

    def _process(self, figures: list[Any]) -> list[int]:
        fields = figures[::2]
        self.proc_fields = self.proc_fields or fields
        if fields != self.proc_fields:
            raise Bad(f"process fields changed: {fields}")
        return figures[1::2]


def expand(rec: Recording) -> Iterator[dict[tuple[str, str], dict[str, Any]]]:
    """All page tables after every step, {(process, area): table}, the initial ones first."""
    now: dict[tuple[str, str], dict[str, Any]] = {}
    for step in [rec["initial"], *rec["steps"]]:
        now = {key: table for key, table in now.items() if key[0] in step["procs"]}
        now |= {(process, area): table for process, areas in step["tables"].items() for area, table in areas.items()}
        yield dict(now)


def without_batches(rec: Recording) -> Recording:
    """All that must be equal in every boot: how often ksmd woke up in vain is a matter of luck."""
    steps = [{key: value for key, value in step.items() if key != "batches"} for step in rec["steps"]]
    return rec | {"steps": steps}


def first_difference(one: Recording, other: Recording) -> str:
    """Where two recordings of a scenario part, in words."""
    pairs = zip([one["initial"], *one["steps"]], [other["initial"], *other["steps"]], strict=False)
    for index, (a, b) in enumerate(pairs, -1):
        for key in a:
            if key != "batches" and a[key] != b.get(key):
                return f"step {index} {key}: {json.dumps(a[key])[:300]} / {json.dumps(b.get(key))[:300]}"
    return "header"


def dump(rec: Recording) -> str:
    """Compact JSON with one line per step."""

    def compact(value: Any) -> str:
        return json.dumps(value, separators=(",", ":"))

    head = {key: value for key, value in rec.items() if key != "steps"}
    return compact(head)[:-1] + ',"steps":[\n' + ",\n".join(map(compact, rec["steps"])) + "\n]}\n"
