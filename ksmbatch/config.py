"""A checked configuration: what it resolves to, the grid of its sweep, and what its keys demand of each other.

It reads no workload (only the digest of its file) and simulates nothing. The text it comes from is `configfile`'s, the
ranges of single keys are `sections`'.
"""

import functools
import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from ksmbatch import MODEL_VERSION
from ksmbatch.codes import Kernel, Run
from ksmbatch.configfile import Document, quoted, read_document, within
from ksmbatch.errors import InputError
from ksmbatch.faults import Model, refuse_unknown, validated
from ksmbatch.generators import Move, find_generator, generator_keys
from ksmbatch.generators.moments import MOMENT_KEYS
from ksmbatch.sections import KEYS, WORDS, Host, Knobs, Migration, Plan, Source, knobs
from ksmbatch.topology import distance_fault

__all__ = ["Config", "Host", "Knobs", "Migration", "Plan", "Point", "Source", "expand", "load"]


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
        source = self.workload
        files = {"trace": source.trace, "scenario": source.scenario}
        workload: dict[str, Any] = {name: f"sha256:{_digest(file)}" for name, file in files.items() if file}
        if source.generator:
            workload |= {"generator": source.generator} | asdict(source.parameters)
        if source.moves:
            workload["moves"] = [{"kind": move.mover.name} | asdict(move.parameters) for move in source.moves]
        resolved = {
            "model": MODEL_VERSION,
            "host": {**dict(self.host), "kernel": self.host.kernel.word},
            "ksm": dict(self.ksm),
            "migration": {
                "policy": self.migration.policy.word,
                "callers": sorted(caller.word for caller in self.migration.callers),
                "locking": self.migration.locking.name.lower(),
            },
            "workload": {**workload, "node": source.node},
            "run": {
                "full_scans": self.run.full_scans,
                "duration_ms": self.run.duration_ms,
                "scans_per_snapshot": self.run.scans_per_snapshot,
                "sample": self.run.sample_ms or self.run.sample,
                "seed": self.run.seed,
            },
        }
        plain: dict[str, Any] = json.loads(json.dumps(resolved))  # lists for tuples
        return plain

    def blame(self, error: InputError) -> InputError:
        """`error`, found by someone who knows only its key, named as lying where that key was written."""
        return error.at(where=self.document.place(error.key or ""))

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
    document = read_document(Path(path), overrides, KEYS, WORDS)
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
                raise InputError(where=document.place(key), key=quoted(key), value=document.sweep[key], rule=rule)
    return points


def _point(document: Document, values: Mapping[str, Any]) -> Config:
    try:
        here = document.at_point(values)
        config = Config(
            host=(host := _section(Host, "host", here)),
            ksm=_ksm(here, host.kernel),
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
    full = next((full for full in values if within(key, full)), None)
    if full is None or full in document.overridden:
        return error.at(where=document.place(key))
    return error.at(where=document.place(full), key=quoted(full) + key.removeprefix(full))


def _section(model: type[Model], name: str, document: Document) -> Model:
    keys = document.sections.get(name, {})
    refuse_unknown(name, keys, KEYS)
    return validated(model, keys, name)


def _ksm(document: Document, kernel: Kernel) -> Knobs:
    given = _section(Knobs, "ksm", document)
    absent = [knob.name for knob in knobs() if knob.since > kernel]
    for name in absent:
        if name in given.model_fields_set:
            rule = f"kernel {kernel.word} has no such knob"
            raise InputError(key=f"ksm.{name}", value=getattr(given, name), rule=rule, hint="leave it out")
    return given.model_copy(update=dict.fromkeys(absent, 0))  # what a kernel lacks is off


def _workload(document: Document) -> Source:
    keys = document.sections.get("workload", {})
    own = {name: value for name, value in keys.items() if f"workload.{name}" in KEYS}
    rest = {name: value for name, value in keys.items() if name not in own}
    given = [name for name in ("trace", "scenario", "generator") if name in own]
    refuse_unknown("workload", rest, [*KEYS, *generator_keys()])
    if len(given) != 1:
        rule = "must have exactly one of trace, scenario and generator"
        raise InputError(key="workload", rule=rule, hint=f"it has {' and '.join(given) or 'none of them'}")
    if rest and "generator" not in own:
        name, value = next(iter(rest.items()))
        raise InputError(key=f"workload.{name}", value=value, rule="is a parameter of a generator, and there is none")
    source = validated(Source, own, "workload", {"folder": document.path.parent})
    if source.generator is None:
        return source
    return source.model_copy(update={"parameters": find_generator(source.generator).read(rest)})


def _check_together(config: Config) -> None:
    """What keys demand of each other; raises InputError for the first that is not met."""
    host, source, plan = config.host, config.workload, config.run
    if rule := distance_fault(host.distance, host.nodes):
        raise InputError(key="host.distance", value=host.distance, rule=rule)
    if isinstance(source.node, dict):
        for mm, nid in source.node.items():
            if not 0 <= nid < host.nodes:
                rule = f"must be 0 to {host.nodes - 1}" if host.nodes > 1 else "must be 0"
                raise InputError(key=f"workload.node.{mm}", value=nid, rule=rule, hint=f"host.nodes = {host.nodes}")
    if source.scenario and source.node is not None:
        raise InputError(key="workload.node", value=source.node, rule="a scenario binds its areas itself", hint="leave it out")
    if source.scenario and source.moves:
        raise InputError(key="workload.moves", rule="a scenario has steps of its own, and moves among them")
    for move in source.all_moves:
        _check_move(config, move)
    if plan.scans_per_snapshot and not source.trace:
        rule = "is for traces only: nothing else has snapshots"
        raise InputError(key="run.scans_per_snapshot", value=plan.scans_per_snapshot, rule=rule)
    if source.generator and not (plan.full_scans or plan.duration):
        raise InputError(key="run", rule="must have full_scans or duration", hint=f"{source.generator} goes on for ever")
    if config.ksm.run != Run.MERGE and not plan.duration and (plan.full_scans or plan.scans_per_snapshot):
        key = "run.full_scans" if plan.full_scans else "run.scans_per_snapshot"
        rule = f"is never reached with ksm.run = {config.ksm.run}"
        value = plan.full_scans or plan.scans_per_snapshot
        raise InputError(key=key, value=value, rule=rule, hint="run.duration ends a run too")


def _check_move(config: Config, move: Move) -> None:
    for name in MOMENT_KEYS:
        when = getattr(move.parameters, name, None)
        if isinstance(when, str) and (config.workload.generator or config.run.scans_per_snapshot):
            why = "run.scans_per_snapshot" if config.run.scans_per_snapshot else f"what {config.workload.generator} makes"
            rule = f"must be a number of snapshots: {why} goes by full scans, not by time"
            raise InputError(key=f"{move.key}.{name}", value=when, rule=rule)
    try:
        move.mover.check(move.parameters, config.host.topology)
    except InputError as error:
        raise move.blame(error) from None


def _digest(file: Path) -> str:
    status = file.stat()
    return _digest_of((file, status.st_size, status.st_mtime_ns))


@functools.lru_cache(maxsize=64)
def _digest_of(state: tuple[Path, int, int]) -> str:
    # cached, because every point of a sweep asks for the same file; size and time tell when it is not the same any more
    with state[0].open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
