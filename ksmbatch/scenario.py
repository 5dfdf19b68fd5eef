"""The scenario language: JSON in, checked events out.

It refuses what the language does not allow, naming scenario, step and key. It runs nothing and knows neither frames nor
trees; what a step does to the machine is the engine's business. How a single step is read is in `steps`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ksmbatch.documents import Fields, Json, read_documents
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
from ksmbatch.steps import CONTENT_LIMIT, MAX_PAGES, StepReader

__all__ = [
    "CONTENT_LIMIT",
    "KNOBS",
    "MAX_NODES",
    "MAX_PAGES",
    "ClearFrames",
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
    "Offline",
    "Online",
    "Read",
    "Rebind",
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
_NAME_BYTES: Final = 200  # at most, for files are named so


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Scenario:
    """A scenario, checked.

    `node_pages`: frames of a node, 0 for as many as needed. `knobs` holds every knob of `KNOBS`, `run` among them, defaults
    filled in. `document` is the JSON object with all defaults filled in, as a recording contains it, but for `node_pages`
    and the callers of migrations, which older recordings do not have; treat it as read-only.
    """

    name: str
    about: str
    nodes: int
    node_pages: int
    knobs: dict[str, int]
    steps: tuple[Step, ...]
    document: Json


def parse_scenario(obj: object, where: str) -> Scenario:
    """The scenario in the JSON value `obj`; `where` names its file in errors.

    Accepts what the oracle's recorder accepts, without its limits on pages, areas and processes, and with any prune
    delay. Fields that the language does not have are errors. Steps are counted from 0, as in recordings.
    Raises InputError naming scenario, step and key. Source: the scenario section of the oracle's README.
    """
    if not isinstance(obj, dict):
        raise InputError(where=where, value=obj, rule="must be a scenario, i.e. a JSON object")
    name = obj.get("name")
    if isinstance(name, str) and name.isprintable() and len(name) <= _NAME_BYTES:
        where = f"{where}: {name}"
    top = Fields(dict(obj), where)
    top.only(("name", "about", "nodes", "node_pages", "knobs", "steps"))
    name = top.text("name")
    if "/" in name or name in ("", ".", "..") or not name.isprintable() or len(name.encode(errors="replace")) > _NAME_BYTES:
        raise top.bad("name", "must be usable as a file name")
    document: Json = {"name": name}
    about = top.text("about", default="")
    if "about" in obj:
        document["about"] = about
    document["nodes"] = nodes = top.integer("nodes", range(1, MAX_NODES + 1))
    node_pages = 0
    if "node_pages" in obj:
        document["node_pages"] = node_pages = top.integer("node_pages", range(2**31))
    knobs = _start_knobs(obj.get("knobs", {}), where)
    raw_steps = obj.get("steps")
    if not isinstance(raw_steps, list):
        raise top.bad("steps", "must be a list of steps")
    writable = tuple(knob for knob in KNOBS if knob != "run")
    reader = StepReader(where, nodes=nodes, node_pages=node_pages, knobs=writable)
    pairs = [reader.read(k, raw) for k, raw in enumerate(raw_steps)]
    document |= {"knobs": dict(knobs), "steps": [filled for _, filled in pairs]}
    return Scenario(
        name=name,
        about=about,
        nodes=nodes,
        node_pages=node_pages,
        knobs=knobs,
        steps=tuple(step for step, _ in pairs),
        document=document,
    )


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
