"""Recordings: what a kernel, real or simulated, showed before and after every step of a scenario (the oracle's format 1).

It reads and writes them; `conformance` compares them, `pagetables` makes their tables. It runs nothing: what goes into a
simulated recording comes from the machine.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from ksmbatch.codes import Kernel
from ksmbatch.conformance import INITIAL, Difference, compare, exact_observations, expand, observations
from ksmbatch.documents import Fields, Json, read_documents
from ksmbatch.errors import InputError
from ksmbatch.pagetables import ABSENT, ZERO_PAGE, Area, TableTracker
from ksmbatch.scenario import Scenario, parse_scenario

__all__ = [
    "ABSENT",
    "INITIAL",
    "ZERO_PAGE",
    "Area",
    "Difference",
    "Recording",
    "TableTracker",
    "compare",
    "exact_observations",
    "expand",
    "kernel_of",
    "load_recordings",
    "make_observation",
    "make_recording",
    "proc_fields",
    "recording_text",
    "sysfs_fields",
]

FORMAT: Final = 1

_SYSFS: Final = (
    "full_scans",
    "pages_shared",
    "pages_sharing",
    "pages_unshared",
    "pages_volatile",
    "pages_scanned",
    "pages_skipped",
    "ksm_zero_pages",
    "stable_node_chains",
    "stable_node_dups",
    "general_profit",
    "merge_across_nodes",
    "max_page_sharing",
    "use_zero_pages",
    "smart_scan",
    "stable_node_chains_prune_millisecs",
)
_NOT_IN_6_1: Final = {"pages_scanned", "pages_skipped", "ksm_zero_pages", "general_profit", "smart_scan"}
_PROC: Final = ("ksm_merging_pages", "ksm_rmap_items", "ksm_zero_pages", "ksm_process_profit", "ksm_merge_any", "ksm_mergeable")
_PROC_COUNT: Final = {Kernel.V6_1: 2, Kernel.V6_12: 4, Kernel.V7_2: 6}


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Recording:
    """A recording as it was read from the file `where`, of the kernel `release`.

    `document` is its JSON. Types are checked; whether anything is missing or too much is for `compare` to find.
    """

    where: str
    release: str
    scenario: Scenario
    document: Json


def sysfs_fields(kernel: Kernel) -> tuple[str, ...]:
    """Names of the numbers in `sysfs` of a recording of `kernel`."""
    return tuple(name for name in _SYSFS if kernel >= Kernel.V6_12 or name not in _NOT_IN_6_1)


def proc_fields(kernel: Kernel) -> tuple[str, ...]:
    """Names of the numbers in `procs` of a recording of `kernel`."""
    return _PROC[: _PROC_COUNT[kernel]]


def kernel_of(release: str, where: str) -> Kernel:
    """The kernel of a release or name such as "6.12.95+deb12-cloud-amd64"; raises InputError for one that is not modelled."""
    for kernel in Kernel:
        if release == kernel.word or release.startswith((f"{kernel.word}.", f"{kernel.word}-", f"{kernel.word}+")):
            return kernel
    known = ", ".join(kernel.word for kernel in Kernel)
    raise InputError(where=where, key="kernel", value=release, rule=f"must be a release of {known}")


def load_recordings(path: str | Path) -> list[Recording]:
    """All recordings in `path`: a file, a list in a file, or a folder of these, .json or .json.gz.

    Raises InputError for what is no recording, or has values of the wrong type.
    """
    return [_recording(where, obj) for where, obj in read_documents(path)]


def make_observation(
    kernel: Kernel,
    *,
    sysfs: Mapping[str, int],
    cow_ksm: int,
    procs: Mapping[str, Mapping[str, int]],
    tables: Mapping[str, Mapping[str, Json]],
    errno: int | str | None = None,
    status: Sequence[int | str] | None = None,
    batches: int | None = None,
) -> Json:
    """An observation in the oracle's shape.

    `sysfs`, and for each process `procs`: numbers by name; those that `kernel` does not have are left out. `errno` is None
    in the initial observation only; `status` belongs to migrations, `batches` to scans.
    """
    head = {"errno": errno, "status": None if status is None else list(status), "batches": batches}
    names = proc_fields(kernel)
    return {key: value for key, value in head.items() if value is not None} | {
        "sysfs": [int(sysfs[name]) for name in sysfs_fields(kernel)],
        "cow_ksm": int(cow_ksm),
        "procs": {proc: [int(numbers[name]) for name in names] for proc, numbers in procs.items()},
        "tables": tables,
    }


def make_recording(
    kernel: Kernel, scenario: Scenario, *, knob_errno: Mapping[str, str], initial: Json, steps: Sequence[Json]
) -> Json:
    """A recording in the oracle's shape; its `kernel` is the name of the simulated one."""
    return {
        "format": FORMAT,
        "kernel": kernel.word,
        "scenario": scenario.document,
        "knob_errno": dict(knob_errno),
        "sysfs_fields": list(sysfs_fields(kernel)),
        "proc_fields": list(proc_fields(kernel)),
        "initial": initial,
        "steps": list(steps),
    }


def recording_text(document: Json) -> str:
    """What the oracle writes into a recording's file: compact JSON, a line per step."""
    head = {key: value for key, value in document.items() if key != "steps"}
    steps = ",\n".join(_compact(seen) for seen in observations(document)[1:])
    return f'{_compact(head)[:-1]},"steps":[\n{steps}\n]}}\n'


def _recording(where: str, obj: Json) -> Recording:
    if "scenario" not in obj:
        raise InputError(where=where, key="scenario", rule="is missing: must be a recording", hint="`replay` takes scenarios")
    fields = Fields(obj, where)
    fields.integer("format", range(FORMAT, FORMAT + 1))
    release = fields.text("kernel")
    scenario = parse_scenario(obj["scenario"], where)
    fields = Fields(obj, f"{where}: {scenario.name}")
    for key, (fits, rule) in _HEAD_TYPES.items():
        if not fits(obj.get(key)):
            raise fields.bad(key, rule)
    for step, seen in enumerate(observations(obj), start=INITIAL):
        place = "initial" if step == INITIAL else f"step {step}"
        for key, (fits, rule) in _OBSERVATION_TYPES.items():
            if key in seen and not fits(seen[key]):
                raise Fields(seen, f"{fields.where}: {place}").bad(key, rule)
    return Recording(where=where, release=release, scenario=scenario, document=obj)


def _is_list(value: object, *kinds: type) -> bool:
    # type() and not isinstance(): true is no number
    return type(value) is list and all(type(item) in kinds for item in value)


def _is_object(value: object, fits: Callable[[object], bool]) -> bool:
    return type(value) is dict and all(fits(item) for item in value.values())


def _is_table(value: object) -> bool:
    return type(value) is dict and all(
        _is_list(part, int) if name == "frames" else type(part) is str for name, part in value.items()
    )


_Types: TypeAlias = dict[str, tuple[Callable[[object], bool], str]]
_HEAD_TYPES: Final[_Types] = {
    "knob_errno": (
        lambda value: _is_object(value, lambda name: type(name) is str),
        "must be an object: knob -> name of an error",
    ),
    "sysfs_fields": (lambda value: _is_list(value, str), "must be a list of names"),
    "proc_fields": (lambda value: _is_list(value, str), "must be a list of names"),
    "initial": (lambda value: type(value) is dict, "must be an observation"),
    "steps": (lambda value: _is_list(value, dict), "must be a list of observations"),
}
_OBSERVATION_TYPES: Final[_Types] = {
    "errno": (lambda value: type(value) in (int, str), "must be 0 or the name of an error"),
    "status": (lambda value: _is_list(value, int, str), "must be a list of nodes and names of errors"),
    "batches": (lambda value: type(value) is int, "must be an integer"),
    "sysfs": (lambda value: _is_list(value, int), "must be a list of integers"),
    "cow_ksm": (lambda value: type(value) is int, "must be an integer"),
    "procs": (
        lambda value: _is_object(value, lambda row: _is_list(row, int)),
        "must be an object: process -> list of integers",
    ),
    "tables": (
        lambda value: _is_object(value, lambda areas: _is_object(areas, _is_table)),
        "must be an object: process -> area -> table of frames, nodes, ksm",
    ),
}


def _compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
