"""The configuration of a simulated host and of a sweep over hosts: every key, its range and default, and how keys bind
each other.

It reads no workload (only the digest of its file) and simulates nothing; the text it comes from is `configfile`'s.
"""

import functools
import hashlib
import itertools
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, ValidationInfo, model_validator

from ksmbatch import MODEL_VERSION
from ksmbatch.codes import Kernel, Policy
from ksmbatch.configfile import Document, read_document, swept
from ksmbatch.documents import nearest
from ksmbatch.errors import InputError
from ksmbatch.faults import breach, validated
from ksmbatch.topology import MAX_NODES, ROUND_ROBIN, Binding, Matrix, Topology, default_distance, distance_fault
from ksmbatch.units import parse_ms

_UINT_MAX: Final = 2**32 - 1  # mm/ksm.c reads these files with kstrtouint()
_INT_MAX: Final = 2**31 - 1  # and max_page_sharing with kstrtoint()


def _kernel(word: object) -> Kernel:
    words = [kernel.word for kernel in Kernel]
    if isinstance(word, float):
        raise breach("must be a string", f'such as "{Kernel.V6_12.word}", for 6.10 is not 6.1')
    if not isinstance(word, str) or word not in words:
        raise breach(f"must be one of {', '.join(words)}")
    return Kernel.parse(word)


def _policy(word: object) -> Policy:
    words = [policy.name.lower() for policy in Policy]
    if not isinstance(word, str) or word not in words:
        raise breach(f"must be one of {', '.join(words)}", "see `ksmbatch list policies`")
    return Policy[word.upper()]


def _only(word: str) -> PlainValidator:
    def check(value: object) -> str:
        if value != word:
            raise breach(f'must be "{word}"', "nothing else exists yet")
        return word

    return PlainValidator(check)


def _file(value: object, info: ValidationInfo) -> Path:
    if not isinstance(value, str):
        raise breach("must be the path of a file")
    folder = Path(info.context["folder"])
    path = folder / value
    if not os.path.isfile(path):  # not Path.is_file(), which raises for a name that is too long
        raise breach("is a folder" if os.path.isdir(path) else "no such file", f"looked for {path}")
    return path


def _binding(value: object) -> Binding:
    if isinstance(value, dict) and all(type(nid) is int for nid in value.values()):
        return value
    if value != ROUND_ROBIN:
        raise breach(f'must be a node number per mm, or "{ROUND_ROBIN}"', "such as { web = 0, db = 1 }")
    return ROUND_ROBIN


def _scans(value: object) -> int | tuple[int, ...]:
    numbers = value if isinstance(value, tuple) else (value,)
    if not numbers or not all(type(number) is int and number >= 1 for number in numbers):
        raise breach("must be a number of full scans >= 1, or a list of one per snapshot")
    return value  # type: ignore[return-value]  # int or tuple of int: just looked


def _time(value: object) -> str:
    if not isinstance(value, str):
        raise breach('must be a time, such as "10min"')
    try:
        ms = parse_ms(value)
    except InputError as error:
        raise breach(error.rule, error.hint) from None
    if ms == 0:
        raise breach("must be longer than 0")
    return value


def _sample(value: object) -> str:
    return str(value) if value in ("full_scan", "batch") else _time(value)


class Section(BaseModel):
    """A table of the file; the docstrings of fields are what `ksmbatch list` shows."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class Host(Section):
    """[host]: the machine."""

    nodes: int = Field(1, ge=1, le=MAX_NODES)
    """NUMA nodes"""
    distance: Matrix = ()
    """ACPI SLIT; by default 10 to itself and 20 to any other node"""
    kernel: Annotated[Kernel, PlainValidator(_kernel)] = Kernel.V6_12
    """whose ksmd is simulated"""
    node_pages: int = Field(0, ge=0)
    """frames of a node; 0: as many as needed"""

    @model_validator(mode="before")
    @classmethod
    def _fill_distance(cls, given: Any) -> Any:
        nodes = given.get("nodes", 1)
        if "distance" in given or type(nodes) is not int or not 1 <= nodes <= MAX_NODES:
            return given
        return {**given, "distance": default_distance(nodes)}

    @property
    def topology(self) -> Topology:
        return Topology(nodes=self.nodes, distance=self.distance, node_pages=self.node_pages)


def _knob(default: int, low: int, high: int, unit: str, since: Kernel = Kernel.V6_1, hint: str | None = None) -> Any:
    extra = {"unit": unit, "since": since, "hint": hint or f"kernel default {default}"}
    return Field(default, ge=low, le=high, json_schema_extra=extra)


class Knobs(Section):
    """[ksm]: the files of /sys/kernel/mm/ksm, with the kernel's defaults, but run = 1."""

    merge_across_nodes: int = _knob(1, 0, 1, "1")
    """0: a KSM page is shared within one NUMA node only, each node has trees of its own; 1: across all nodes"""
    max_page_sharing: int = _knob(256, 2, _INT_MAX, "pages")
    """mappings of one KSM page, before a duplicate of it is made"""
    use_zero_pages: int = _knob(0, 0, 1, "1")
    """1: pages of zeros are mapped to the kernel's zero page, not to a KSM page"""
    smart_scan: int = _knob(1, 0, 1, "1", since=Kernel.V6_12)
    """1: a page that found no partner is passed by, for longer every time"""
    pages_to_scan: int = _knob(100, 1, _UINT_MAX, "pages")
    """pages that ksmd visits before it sleeps"""
    sleep_millisecs: int = _knob(20, 0, _UINT_MAX, "ms")
    """how long ksmd sleeps between two batches"""
    stable_node_chains_prune_millisecs: int = _knob(2000, 0, _UINT_MAX, "ms")
    """how long a chain of duplicates is left unpruned"""
    run: int = _knob(1, 0, 2, "1", hint="default 1, where the kernel has 0")
    """0: ksmd stands still; 1: it scans; 2: all KSM pages are unmerged"""


class Migration(Section):
    """[migration]: what becomes of KSM pages that move between nodes."""

    policy: Annotated[Policy, PlainValidator(_policy)] = Policy.MAINLINE
    """what becomes of the stable node of a KSM page that moves"""
    callers: Annotated[str, _only("mainline")] = "mainline"
    """who may move KSM pages"""
    locking: Annotated[str, _only("none")] = "none"
    """which locks delay a move"""


class Source(Section):
    """[workload]: exactly one of `trace`, `scenario` and `generator`; any other key is a parameter of the generator."""

    trace: Annotated[Path | None, PlainValidator(_file)] = None
    """a trace of page contents, relative to the configuration's folder"""
    scenario: Annotated[Path | None, PlainValidator(_file)] = None
    """a scenario, relative to the configuration's folder"""
    generator: str | None = None
    """the name of a generator: `ksmbatch list workloads`"""
    node: Annotated[Binding, PlainValidator(_binding)] = None
    """the node of each mm's memory, or "round_robin"; what is left out is on node 0"""
    parameters: Any = None
    """the generator's own parameters, a frozen dataclass"""

    @property
    def file(self) -> Path | None:
        return self.trace or self.scenario

    @property
    def label(self) -> str:
        """What to call the workload in a title."""
        return self.file.name if self.file else str(self.generator)


class Plan(Section):
    """[run]: how long a run takes and when it is sampled."""

    full_scans: int | None = Field(None, ge=1)
    """full scans after which a run ends"""
    duration: Annotated[str | None, PlainValidator(_time)] = None
    """simulated time after which a run ends"""
    scans_per_snapshot: Annotated[int | tuple[int, ...] | None, PlainValidator(_scans)] = None
    """traces: full scans between two snapshots, a number or a list; left out, the trace's own clock drives"""
    sample: Annotated[str, PlainValidator(_sample)] = "full_scan"
    """when counters are sampled: at every full scan ("full_scan"), every batch ("batch") or every so often ("1s")"""
    seed: int = Field(1, ge=0, le=2**63 - 1)
    """of everything random"""

    @property
    def duration_ms(self) -> int | None:
        return None if self.duration is None else parse_ms(self.duration)

    @property
    def sample_ms(self) -> int | None:
        """The time between two samples; None where full scans or batches are sampled."""
        return None if self.sample in ("full_scan", "batch") else parse_ms(self.sample)


SECTIONS: Final[Mapping[str, type[Section]]] = {
    "host": Host,
    "ksm": Knobs,
    "migration": Migration,
    "workload": Source,
    "run": Plan,
}
KEYS: Final = tuple(
    f"{section}.{name}" for section, model in SECTIONS.items() for name in model.model_fields if name != "parameters"
)
_WORDS: Final = frozenset(
    {"host.kernel", "migration.policy", "workload.trace", "workload.scenario", "workload.generator", "run.duration"}
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """A checked configuration.

    With a sweep, the sections are those of the first point of its grid. `sweep`: full key -> its values, as written.
    `path`: the file, as the user named it. `document`: what was written, from which `expand` makes the points.
    """

    host: Host
    ksm: Knobs
    migration: Migration
    workload: Source
    run: Plan
    sweep: Mapping[str, tuple[Any, ...]]
    path: Path
    document: Document

    def resolved(self) -> dict[str, Any]:
        """Everything that decides the results, defaults filled in, as JSON: two configurations that resolve to the same
        give the same tables. A workload's file is named by its contents, so that moving it changes nothing."""
        workload = {name: f"sha256:{_digest(file)}" for name in ("trace", "scenario") if (file := getattr(self.workload, name))}
        if self.workload.generator:
            workload |= {"generator": self.workload.generator} | _plain(asdict(self.workload.parameters))
        return {
            "model": MODEL_VERSION,
            "host": {**self.host.model_dump(mode="json"), "kernel": self.host.kernel.word},
            "ksm": self.ksm.model_dump(mode="json"),
            "migration": {**self.migration.model_dump(mode="json"), "policy": self.migration.policy.name.lower()},
            "workload": {**workload, "node": self.workload.node},
            "run": {
                "full_scans": self.run.full_scans,
                "duration_ms": self.run.duration_ms,
                "scans_per_snapshot": _plain(self.run.scans_per_snapshot),
                "sample": self.run.sample_ms or self.run.sample,
                "seed": self.run.seed,
            },
        }

    @property
    def run_id(self) -> str:
        """16 hex digits of a digest of `resolved()`."""
        text = json.dumps(self.resolved(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def snapshot_scans(self, n_snapshots: int) -> tuple[int, ...] | None:
        """Full scans after each of a trace's snapshots; None where the trace's own clock drives. Raises InputError."""
        scans = self.run.scans_per_snapshot
        if isinstance(scans, tuple) and len(scans) != n_snapshots:
            key = "run.scans_per_snapshot"
            rule = f"must have one number per snapshot: the trace has {n_snapshots}, the list {len(scans)}"
            raise InputError(where=self.document.place(key), key=key, value=scans, rule=rule)
        return (scans,) * n_snapshots if isinstance(scans, int) else scans


class Point(NamedTuple):
    """One run of a sweep: its configuration, without a sweep, and the values of the swept keys, as written."""

    config: Config
    values: dict[str, Any]


def load(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """The configuration in the TOML file `path`, changed by `overrides` ("KEY=VALUE", as `--set` takes them).

    Every point of its sweep is checked. Raises InputError.
    """
    document = read_document(Path(path), overrides, list(SECTIONS), _WORDS)
    first = _points(document)[0].config
    return replace(first, sweep=document.sweep, document=document)


def expand(config: Config) -> list[Point]:
    """The runs of a sweep in the order of its grid: the product of the lists, the last key fastest; one without a sweep."""
    return _points(config.document)


def _points(document: Document) -> list[Point]:
    values = [dict(zip(document.sweep, row, strict=True)) for row in itertools.product(*document.sweep.values())]
    points = [Point(_point(document, row), row) for row in values]
    if len(points) > 1:
        seen: dict[str, dict[str, Any]] = {}
        for config, row in points:
            if (twin := seen.setdefault(config.run_id, row)) is not row:
                key = next((key for key in row if row[key] != twin[key]), next(iter(row)))
                rule = "holds two values that give the same run"
                raise InputError(where=document.place(key), key=swept(key), value=document.sweep[key], rule=rule)
    return points


def _point(document: Document, values: Mapping[str, Any]) -> Config:
    try:
        here = document.at_point(values)
        config = Config(
            host=_section(Host, "host", here),
            ksm=_ksm(here),
            migration=_section(Migration, "migration", here),
            workload=_workload(here),
            run=_section(Plan, "run", here),
            sweep={},
            path=document.path,
            document=here,
        )
        _check_together(config)
    except InputError as error:
        raise _placed(error, document, values) from None
    return config


def _placed(error: InputError, document: Document, values: Mapping[str, Any]) -> InputError:
    key = error.key or ""
    full = next((full for full in values if key == full or key.startswith((f"{full}.", f"{full}["))), None)
    if full is None:
        return error.at(where=document.place(key))
    return error.at(where=document.place(full), key=swept(full) + key.removeprefix(full))


def _section(model: type[Model], name: str, document: Document) -> Model:
    keys = document.sections.get(name, {})
    _refuse_unknown(name, keys, KEYS)
    return validated(model, keys, name, {"folder": document.path.parent})


def _refuse_unknown(section: str, keys: Mapping[str, Any], known: Sequence[str]) -> None:
    for name, value in keys.items():
        if (key := f"{section}.{name}") not in known:
            raise InputError(key=key, value=value, rule="unknown key", hint=nearest(key, known))


def _ksm(document: Document, kernel: Kernel) -> Knobs:
    knobs = _section(Knobs, "ksm", document)
    absent = [name for name, since in knob_kernels().items() if since > kernel]
    for name in absent:
        if name in knobs.model_fields_set:
            rule = f"kernel {kernel.word} has no such knob"
            raise InputError(key=f"ksm.{name}", value=getattr(knobs, name), rule=rule, hint="leave it out")
    return knobs.model_copy(update=dict.fromkeys(absent, 0))  # what a kernel lacks is off


def knob_kernels() -> dict[str, Kernel]:
    """Every knob with the first of our kernels that has it."""
    extras = {name: field.json_schema_extra for name, field in Knobs.model_fields.items()}
    return {name: extra["since"] for name, extra in extras.items() if isinstance(extra, dict)}  # type: ignore[misc]


def _workload(document: Document) -> Source:
    keys = document.sections.get("workload", {})
    source = {name: value for name, value in keys.items() if f"workload.{name}" in KEYS}
    rest = {name: value for name, value in keys.items() if name not in source}
    if rest and "generator" not in keys:
        _refuse_unknown("workload", rest, KEYS + generator_keys())
    given = [name for name in ("trace", "scenario", "generator") if name in keys]
    if len(given) != 1:
        hint = f"it has {' and '.join(given) or 'none'}"
        raise InputError(key="workload", rule="must have exactly one of trace, scenario, generator", hint=hint)
