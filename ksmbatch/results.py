"""Results on disk: one directory of Parquet tables that holds every finished run, whole, whatever stops the sweep.

It knows schemas, names and durability. It does not run anything, and it never reads what it wrote but to resume; analysis.py
does the looking. docs/formats.md describes the files.
"""

import fcntl
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Protocol, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ksmbatch import provenance
from ksmbatch.arrow import from_numpy, repeated, strings
from ksmbatch.errors import InputError, KsmbatchError
from ksmbatch.metrics import COUNTERS, DERIVED, NODE_COUNTERS, SURVEYED, Metric

SCHEMA_VERSION: Final = 2  # of docs/formats.md; a change that readers would notice raises it

RUNS: Final = "runs.parquet"
SAMPLES: Final = "samples"
NODES: Final = "nodes"
_LOCK: Final = ".ksmbatch.lock"

FIGURES: Final = (
    Metric("setup_s", "s", "gauge", "ours: making and interning the initial contents, allocating"),
    Metric("wall_s", "s", "gauge", "ours: from then to the last sample, with the making of every later write"),
    Metric("compile_s", "s", "gauge", "ours: compiling kernels, in neither of the two before"),
    Metric("process_s", "s", "gauge", "ours: CPU time of the thread that ran it"),
    Metric("peak_rss_bytes", "bytes", "gauge", "ours: the process's largest resident set so far"),
)
TIME: Final = Metric("time_ms", "ms", "cumulative", "ours: simulated time of the sample")
NID: Final = Metric("nid", "1", "gauge", "NUMA node")

SAMPLED: Final = (*COUNTERS, *(derived.metric for derived in DERIVED))
_FULL_SCANS: Final = next(metric for metric in COUNTERS if metric.name == "full_scans")
SAMPLE_COLUMNS: Final = (TIME, *SAMPLED)
NODE_COLUMNS: Final = (TIME, _FULL_SCANS, NID, *NODE_COUNTERS)
RUN_COLUMNS: Final = (*SAMPLED, *SURVEYED, *FIGURES)

# Ours, and nothing else, is ever deleted: the names that this module gives, and for whole files our metadata in them.
_RUN_FILE: Final = re.compile(r"[0-9a-f]{8,64}\.parquet")
_PARTIAL_FILE: Final = re.compile(r"\.(runs|[0-9a-f]{8,64})\.parquet\.partial")


class RunTables(Protocol):
    """What a simulation hands over; arrays are int64, of equal length within a group."""

    @property
    def samples(self) -> Mapping[str, NDArray[np.int64]]:
        """SAMPLE_COLUMNS by name, one entry per sample, in the order of time."""

    @property
    def nodes(self) -> Mapping[str, NDArray[np.int64]]:
        """NODE_COLUMNS by name, one entry per sample and node."""

    @property
    def last(self) -> Mapping[str, int]:
        """SAMPLED and SURVEYED at the end."""

    @property
    def figures(self) -> Mapping[str, float]:
        """FIGURES by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GridRun:
    """One run of a grid: `run_id`; `swept`: the values of the swept keys, in the order of `[sweep]`; `origin`: what its
    files' provenance says beside software and environment."""

    run_id: str
    swept: Mapping[str, Any]
    origin: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumed:
    """What was found in the directory: `kept`: run_ids that need not run again; `dropped`: number of runs that went; `why`:
    lines for the user where keeping may surprise."""

    kept: frozenset[str]
    dropped: int
    why: tuple[str, ...]


class ResultsDir:
    """The directory of a sweep, held by one process at a time.

    `with ResultsDir(out, grid, origin) as results`: creates and locks it. Then `look()` and `begin()`, and `add()` for
    every run that finishes. A run exists once runs.parquet has its row; its samples and nodes are in place before. Each file is
    written whole under a temporary name and renamed, so there is no moment at which a reader sees half a file. Nothing is
    synced: a kill loses nothing, and what a power cut damages is found by its missing footer and run again.

    Raises InputError where `out` cannot be used: not a directory, not writable, another process's, or foreign files under
    the names of ours; KsmbatchError where writing fails later on.
    """

    def __init__(self, out: Path, grid: Sequence[GridRun], origin: Mapping[str, Any]) -> None:
        self._out = out
        self._grid = {run.run_id: run for run in grid}
        self._origin = origin
        self._rows: dict[str, Mapping[str, Any]] = {}
        self._lock: int | None = None

    def __enter__(self) -> Self:
        try:
            for folder in (self._out, self._out / SAMPLES, self._out / NODES):
                folder.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self._out / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise InputError(
                where=error.filename or self._out, rule=f"cannot hold results: {error.strerror}", hint="choose another --out"
            ) from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(self._lock, 32).decode(errors="replace").strip() or "unknown"
            self._release()
            raise InputError(
                where=self._out,
                rule=f"another ksmbatch is writing here (process {holder})",
                hint="wait for it, or choose another --out",
            ) from None
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._release()

    def look(self, *, fresh: bool = False) -> Resumed:
        """Which finished runs of the directory this grid can keep (with `fresh`: none); changes nothing on disk."""
        listed = self._listed() or {}
        found, why = ({}, ()) if fresh else self._usable(listed)
        self._rows = {run_id: found[run_id] for run_id in self._grid if run_id in found}
        return Resumed(kept=frozenset(self._rows), dropped=len(listed) - len(self._rows), why=why)

    def begin(self) -> None:
        """Let go what `look` did not keep: first its rows, then its files, then halves of files of a sweep that was killed."""
        if (self._out / RUNS).exists():
            self._write_runs()
        for folder in (self._out, self._out / SAMPLES, self._out / NODES):
            for path in folder.iterdir():
                if _PARTIAL_FILE.fullmatch(path.name) or (folder != self._out and self._is_orphan(path)):
                    path.unlink()

    def add(self, run_id: str, result: RunTables) -> None:
        """Write a finished run of the grid; once this returns it survives a kill."""
        run = self._grid[run_id]
        for table, columns, values in (
            (SAMPLES, SAMPLE_COLUMNS, result.samples),
            (NODES, NODE_COLUMNS, result.nodes),
        ):
            document = provenance.provenance(table, SCHEMA_VERSION, run.origin)
            _write(_series_table(run_id, columns, values, document), self._out / table / f"{run_id}.parquet")
        self._rows[run_id] = {**result.last, **result.figures}
        self._write_runs()

    def _listed(self) -> dict[str, Mapping[str, Any]] | None:
        """The rows of runs.parquet by run_id, without those that another schema makes useless; None where there is none."""
        path = self._out / RUNS
        if not path.exists():
            return None
        document = _read_provenance(path)
        if document is None:
            raise InputError(where=path, rule="is not a results file of ksmbatch", hint="move it away, or choose another --out")
        if document.get("schema") != SCHEMA_VERSION:
            return {}
        columns = ["run_id", *(metric.name for metric in RUN_COLUMNS)]
        return {row.pop("run_id"): row for row in _read_table(path, columns).to_pylist()}

    def _usable(self, listed: Mapping[str, Mapping[str, Any]]) -> tuple[dict[str, Mapping[str, Any]], tuple[str, ...]]:
        """Those rows that have their files. Other model versions need no test: they have other run_ids."""
        ours = provenance.software()
        kept: dict[str, Mapping[str, Any]] = {}
        n_other_sources = 0
        for run_id in self._grid.keys() & listed.keys():
            documents = [_read_provenance(self._out / table / f"{run_id}.parquet") for table in (SAMPLES, NODES)]
            software = [document["software"] for document in documents if document is not None]
            if len(software) == len(documents):
                kept[run_id] = listed[run_id]
                n_other_sources += any(one != ours for one in software)
        if n_other_sources == 0:
            return kept, ()
        return kept, (
            f"{n_other_sources} of the finished runs are by another state of ksmbatch's sources; --fresh runs them again",
        )

    def _write_runs(self) -> None:
        document = provenance.provenance("runs", SCHEMA_VERSION, self._origin)
        _write(_runs_table(list(self._grid.values()), self._rows, document), self._out / RUNS)

    def _is_orphan(self, path: Path) -> bool:
        """A whole file of ours, of a run that runs.parquet does not list."""
        return bool(_RUN_FILE.fullmatch(path.name)) and path.stem not in self._rows and _read_provenance(path) is not None

    def _release(self) -> None:
        if self._lock is not None:
            os.close(self._lock)  # the lock goes with it; the file stays, for removing it would race with the next holder
            self._lock = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tables:
    """A results directory in memory: Arrow tables of docs/formats.md, the swept keys in order, the provenance of `runs`."""

    runs: pa.Table
    samples: pa.Table
    nodes: pa.Table
    swept: tuple[str, ...]
    provenance: Mapping[str, Any]


def read(out: Path) -> Tables:
    """Everything that runs.parquet lists, in its order; raises InputError where there is nothing of ours."""
    path = out / RUNS
    if not path.exists():
        raise InputError(where=out, rule=f"holds no results: no {RUNS}", hint="`ksmbatch sweep CONFIG --out DIR` writes them")
    document = _read_provenance(path)
    if document is None:
        raise InputError(where=path, rule="is not a results file of ksmbatch")
    if document.get("schema") != SCHEMA_VERSION:
        rule = f"is of another schema: must be {SCHEMA_VERSION}, which docs/formats.md describes"
        raise InputError(where=path, value=document.get("schema"), rule=rule, hint="the same sweep run again replaces it")
    runs = _read_table(path)
    run_ids = runs["run_id"].to_pylist()
    measured = {"run_id", *(metric.name for metric in RUN_COLUMNS)}
    return Tables(
        runs=runs,
        samples=_read_series(out / SAMPLES, run_ids, SAMPLE_COLUMNS),
        nodes=_read_series(out / NODES, run_ids, NODE_COLUMNS),
        swept=tuple(name for name in runs.column_names if name not in measured),
        provenance=document,
    )


def short(key: str) -> str:
    """A swept key without its section, and without the tables it stands in if they are not one of several.

    >>> short("ksm.smart_scan"), short("workload.node.web"), short("workload.moves[0].at")
    ('smart_scan', 'web', 'moves[0].at')
    """
    return key.partition(".")[2] if "[" in key else key.rpartition(".")[2]


def show(value: Any) -> str:
    """A swept value as its user wrote it, but strings without quotes.

    >>> show(False), show(2.0), show("1s"), show((3, 2))
    ('false', '2', '1s', '[3, 2]')
    """
    if isinstance(value, str):
        return value
    if isinstance(value, float | np.floating):
        return f"{value:g}"
    return json.dumps(value.tolist() if isinstance(value, np.generic | np.ndarray) else value)


def label(swept: Mapping[str, Any]) -> str:
    """A setting in words.

    >>> label({"ksm.merge_across_nodes": 0, "ksm.smart_scan": 1})
    'merge_across_nodes=0 smart_scan=1'
    """
    return " ".join(f"{short(key)}={show(value)}" for key, value in swept.items())


def _read_series(folder: Path, run_ids: Iterable[str], columns: Sequence[Metric]) -> pa.Table:
    schema = _schema(columns)
    parts = [schema.empty_table()]
    for run_id in run_ids:
        path = folder / f"{run_id}.parquet"
        if not path.exists():
            raise InputError(
                where=path, rule="is missing, though runs.parquet lists it", hint="run the sweep again; it fills the gap"
            )
        parts.append(_read_table(path).replace_schema_metadata(None).cast(schema))
    return pa.concat_tables(parts)


def _dtype(metric: Metric) -> type[np.float64 | np.int64]:
    return np.float64 if metric.unit == "s" else np.int64


def _field(metric: Metric) -> pa.Field:
    kind = pa.from_numpy_dtype(_dtype(metric))
    return pa.field(metric.name, kind, nullable=False, metadata={"unit": metric.unit, "kind": metric.kind, "doc": metric.doc})


def _schema(columns: Sequence[Metric]) -> pa.Schema:
    return pa.schema([pa.field("run_id", pa.string(), nullable=False), *map(_field, columns)])


def _series_table(
    run_id: str, columns: Sequence[Metric], values: Mapping[str, NDArray[np.int64]], document: Mapping[str, Any]
) -> pa.Table:
    n_rows = len(values[columns[0].name])
    arrays = [repeated(run_id, n_rows), *(from_numpy(values[metric.name].astype(np.int64, copy=False)) for metric in columns)]
    return pa.Table.from_arrays(arrays, schema=_schema(columns).with_metadata(provenance.encode(document)))


def _runs_table(grid: Sequence[GridRun], rows: Mapping[str, Mapping[str, Any]], document: Mapping[str, Any]) -> pa.Table:
    """The finished runs in grid order. The types of the swept columns come from the whole grid, so that they don't
    depend on which runs have finished."""
    finished = [run.run_id in rows for run in grid]
    run_ids = [run.run_id for run in grid if run.run_id in rows]
    fields, arrays = [pa.field("run_id", pa.string(), nullable=False)], [strings(run_ids)]
    for key in grid[0].swept:
        swept = pa.array([run.swept[key] for run in grid])
        fields.append(pa.field(key, swept.type, metadata={"doc": "swept"}))
        arrays.append(swept.filter(pa.array(finished)))
    for metric in RUN_COLUMNS:
        measured = [rows[run_id][metric.name] for run_id in run_ids]
        fields.append(_field(metric))
        arrays.append(from_numpy(np.array(measured, _dtype(metric))))
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields, metadata=provenance.encode(document)))


def _write(table: pa.Table, path: Path) -> None:
    """`table` at `path`, whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    packed = [field.name for field in table.schema if field.type == pa.int64()]
    try:
        with partial.open("wb") as file:
            # ADR 0004: counters that move little from row to row; a third of the bytes and of the time of the default
            pq.write_table(
                table,
                file,
                compression="none",
                use_dictionary=[field.name for field in table.schema if field.type == pa.string()],
                column_encoding=dict.fromkeys(packed, "DELTA_BINARY_PACKED"),
            )
        partial.replace(path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise KsmbatchError(f"{path}: cannot be written: {error.strerror or error}") from error


def _read_table(path: Path, columns: list[str] | None = None) -> pa.Table:
    """One file; pq.read_table would take a folder named "a=b" for a partition and add a column."""
    with pq.ParquetFile(path) as file:
        return file.read(columns)


def _read_provenance(path: Path) -> dict[str, Any] | None:
    """The provenance in a file of ours; None where it is missing, no Parquet, or not ours."""
    try:
        return provenance.decode(pq.read_schema(path).metadata)
    except (OSError, pa.ArrowInvalid):
        return None
