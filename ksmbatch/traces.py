"""Traces in: real memory over time, free of contents (docs/formats.md), strictly checked, from Parquet files.

A trace that breaks the format is refused with one line, never repaired. It makes no traces (`trace_writer` does) and no
events (`trace_events` does).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ksmbatch.documents import nearest
from ksmbatch.errors import InputError
from ksmbatch.trace_format import COLUMNS, NO_NODE, OPTIONAL_COLUMNS
from ksmbatch.trace_metadata import Metadata, Vma, parse_metadata

_BATCH_ROWS: Final = 2**20
_ROW_BYTES: Final = 64  # of a Trace, with what checking its rows takes beside it
_MAX_NODE: Final = 1023  # Linux's largest


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Trace:
    """A trace of n rows, checked.

    `version`: 1 or 2. `pages`: pages of each mm, in the order in which the mms start. `about`: what the contents are.
    `order`: "memcmp" or "none", what the order of content ids means. `order_ties`: contents whose place among some others
    is arbitrary all the same. `snapshots`: times in ms, ascending. `start_ms`, `exit_ms`: of mms that start later than the
    first snapshot, and of those that end. `vmas`: by mm, where known.

    `time_ms`: uint32[n]. `mm`: int32[n], place of the row's mm in `pages`. `page`: uint32[n]. `content`: uint64[n].
    `node`: int16[n], -1 where not known, or None. `gone`: bool[n], the page is there no more, or None. Rows are in the
    order of time, mm, page.
    """

    path: Path
    version: int
    pages: dict[str, int]
    about: str
    order: str
    order_ties: int
    snapshots: tuple[int, ...]
    start_ms: dict[str, int]
    exit_ms: dict[str, int]
    vmas: dict[str, tuple[Vma, ...]]
    time_ms: np.ndarray
    mm: np.ndarray
    page: np.ndarray
    content: np.ndarray
    node: np.ndarray | None
    gone: np.ndarray | None


def read_trace(path: str | Path) -> Trace:
    """The trace in the Parquet file `path`.

    Raises InputError if the file cannot be read, lacks a column or the metadata, has other columns or types, no rows,
    nulls, rows that the metadata does not allow, that are unsorted or twice there, or too many for this machine's memory.
    """
    path = Path(path)
    with _Reader(path) as reader:
        meta = reader.metadata
        columns = reader.columns()
    snapshots = meta.snapshots
    if snapshots is None:
        snapshots = tuple(np.unique(columns["time_ms"]).tolist())
    trace = Trace(
        path=path,
        version=meta.version,
        pages=meta.pages,
        about=meta.about,
        order=meta.order,
        order_ties=meta.order_ties,
        snapshots=snapshots,
        start_ms=meta.start_ms,
        exit_ms=meta.exit_ms,
        vmas=meta.vmas,
        time_ms=columns["time_ms"],
        mm=columns["mm"],
        page=columns["page"],
        content=columns["content"],
        node=columns.get("node"),
        gone=columns.get("gone"),
    )
    _check_pages(trace)
    _check_times(trace)
    _check_order(trace)
    _check_nodes(trace)
    return trace


def order_of(path: str | Path) -> str:
    """What the order of content ids means in the trace `path`: "memcmp" or "none". Reads no rows; raises InputError."""
    with _Reader(Path(path)) as reader:
        return reader.metadata.order


def order_note(path: str | Path) -> str | None:
    """What to say beside results from the trace `path` if its contents have no order; None if they have. As `order_of`."""
    if order_of(path) == "memcmp":
        return None
    return (
        f"{Path(path).name} keeps no order of contents: the shapes of ksmd's trees, and what depends on them within a scan,"
        " are those of one random order"
    )


class _Reader:
    """An open Parquet file of a trace; whatever pyarrow raises over a damaged one becomes one InputError."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> "_Reader":
        try:
            self._file = pq.ParquetFile(self._path, page_checksum_verification=True)
        except FileNotFoundError:
            raise InputError(where=self._path, rule="no such file") from None
        except (pa.ArrowException, OSError, ValueError) as error:  # which one depends on where the damage is
            raise self._unreadable(error) from None
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    @property
    def metadata(self) -> Metadata:
        """What the file says of itself, its columns checked."""
        try:
            schema = self._file.schema_arrow
        except (pa.ArrowException, OSError, ValueError) as error:
            raise self._unreadable(error) from None
        _check_columns(self._path, schema)
        meta = parse_metadata(self._path, schema.metadata)
        if meta.version == 1:
            for name in OPTIONAL_COLUMNS:
                if name in schema.names:
                    raise InputError(where=self._path, key=name, rule="unknown column in version 1 of the format")
        return meta

    def columns(self) -> dict[str, np.ndarray]:
        """All rows, by column; mms as their places in `pages`."""
        meta, schema = self.metadata, self._file.schema_arrow
        n_rows = self._file.metadata.num_rows
        _check_size(self._path, n_rows)
        kinds = {name: np.dtype(kind) for name, kind in (COLUMNS | OPTIONAL_COLUMNS).items() if name != "mm"}
        kinds["mm"] = np.dtype(np.int32)
        columns = {name: np.empty(n_rows, kinds[name]) for name in schema.names}
        first = 0
        for batch in self._batches():
            end = first + batch.num_rows
            if end > n_rows:
                break
            for name, column in columns.items():
                column[first:end] = self._values(name, batch.column(name), first, meta)
            first = end
        if first != n_rows:
            raise InputError(where=self._path, rule=f"is no readable Parquet file: it has not the {n_rows} rows it speaks of")
        return columns

    def _batches(self) -> Iterator[Any]:
        try:
            for batch in self._file.iter_batches(_BATCH_ROWS):
                batch.validate(full=True)
                yield batch
        except (pa.ArrowException, OSError, ValueError) as error:
            raise self._unreadable(error) from None

    def _values(self, name: str, column: Any, first: int, meta: Metadata) -> np.ndarray:
        if column.null_count or (name == "mm" and column.dictionary.null_count):
            raise InputError(where=self._path, key=name, rule="must not be null anywhere")
        if name != "mm":
            is_flag = pa.types.is_boolean(column.type)  # bits, which have to be unpacked
            values: np.ndarray = column.to_numpy(zero_copy_only=False) if is_flag else np.from_dlpack(column)
            return values
        names = column.dictionary.to_pylist()
        numbers = {mm: k for k, mm in enumerate(meta.pages)}
        number: np.ndarray = np.array([numbers.get(mm, -1) for mm in names], np.int32)[np.from_dlpack(column.indices)]
        if number.size and number.min() < 0:
            row = int(number.argmin())
            mm = str(names[column.indices[row].as_py()])
            where, rule = f"{self._path}: row {first + row}", "is not among the metadata's pages"
            raise InputError(where=where, key="mm", value=mm, rule=rule, hint=nearest(mm, meta.pages))
        return number

    def _unreadable(self, error: Exception) -> InputError:
        reason = str(error).partition("\n")[0]
        return InputError(where=self._path, rule=f"is no readable Parquet file: {reason}")


def _check_size(path: Path, n_rows: int) -> None:
    if n_rows == 0:
        raise InputError(where=path, rule="has no rows")
    needed, free = n_rows * _ROW_BYTES, _free_bytes()
    if free is not None and needed > free:
        # a file of some bytes may claim any number of equal rows
        rule = f"has {n_rows:,} rows, which take {needed / 2**30:,.0f} GiB of memory: {free / 2**30:,.0f} GiB are free"
        raise InputError(where=path, rule=rule)


def _free_bytes() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


def _check_columns(path: Path, schema: Any) -> None:
    for name in COLUMNS:
        if name not in schema.names:
            raise InputError(where=path, key=name, rule="column is missing", hint=f"a trace has {', '.join(COLUMNS)}")
    known = COLUMNS | OPTIONAL_COLUMNS
    for field in schema:
        if field.name not in known:
            raise InputError(where=path, key=field.name, rule="unknown column", hint=nearest(field.name, known))
        if schema.names.count(field.name) > 1:
            raise InputError(where=path, key=field.name, rule="column is there twice")
        if not _has_type(field.type, field.name):
            raise InputError(where=path, key=field.name, rule=f"is of type {field.type}: must be {known[field.name]}")


def _has_type(kind: Any, column: str) -> bool:
    word = str(kind)
    if column == "mm":  # whatever the indices are: writers choose them by the number of mms
        return word.startswith(("dictionary<values=string,", "dictionary<values=large_string,"))
    return word == (COLUMNS | OPTIONAL_COLUMNS)[column]


def _check_pages(trace: Trace) -> None:
    limit = np.array(list(trace.pages.values()), np.uint32)[trace.mm]
    beyond = trace.page >= limit
    if beyond.any():
        row = int(beyond.argmax())
        rule = f"{_mm_of(trace, row)} has {limit[row]} pages, numbered from 0"
        raise InputError(where=f"{trace.path}: row {row}", key="page", value=int(trace.page[row]), rule=rule)


def _check_times(trace: Trace) -> None:
    """Are the rows' times among the snapshots, and within the lives of their mms?"""
    snapshots = np.array(trace.snapshots, np.uint32)
    place = snapshots.searchsorted(trace.time_ms)
    unknown = snapshots[np.minimum(place, snapshots.size - 1)] != trace.time_ms
    if unknown.any():
        raise _bad_time(trace, int(unknown.argmax()), "is not among the metadata's snapshots")
    start = np.array([trace.start_ms.get(mm, trace.snapshots[0]) for mm in trace.pages], np.int64)
    early = trace.time_ms < start[trace.mm]
    if early.any():
        row = int(early.argmax())
        raise _bad_time(trace, row, f"{_mm_of(trace, row)} starts at {start[trace.mm[row]]}")
    if trace.exit_ms:
        end = np.array([trace.exit_ms.get(mm, 2**32) for mm in trace.pages], np.int64)
        late = trace.time_ms >= end[trace.mm]
        if late.any():
            row = int(late.argmax())
            raise _bad_time(trace, row, f"{_mm_of(trace, row)} is no more from {end[trace.mm[row]]} on")


def _bad_time(trace: Trace, row: int, rule: str) -> InputError:
    return InputError(where=f"{trace.path}: row {row}", key="time_ms", value=int(trace.time_ms[row]), rule=rule)


def _mm_of(trace: Trace, row: int) -> str:
    return list(trace.pages)[int(trace.mm[row])]


def _check_order(trace: Trace) -> None:
    later_time, same_time = _order(trace.time_ms)
    later_mm, same_mm = _order(trace.mm)
    later_page, same_page = _order(trace.page)
    sorted_ = later_time | (same_time & (later_mm | (same_mm & (later_page | same_page))))
    if not sorted_.all():
        row = int(sorted_.argmin()) + 1
        rule = "rows must be in the order of time_ms, mm (as in the metadata's pages), page"
        raise InputError(where=f"{trace.path}: row {row}", rule=rule)
    twice = same_time & same_mm & same_page
    if twice.any():
        raise InputError(
            where=f"{trace.path}: row {int(twice.argmax()) + 1}", rule="has the time, mm and page of the row before"
        )


def _order(column: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Per row but the first: is it greater than, is it equal to the row before?"""
    return column[1:] > column[:-1], column[1:] == column[:-1]


def _check_nodes(trace: Trace) -> None:
    if trace.node is not None:
        wrong = (trace.node < NO_NODE) | (trace.node > _MAX_NODE)
        if wrong.any():
            row = int(wrong.argmax())
            rule = f"must be a node, 0 to {_MAX_NODE}, or {NO_NODE} where it is not known"
            raise InputError(where=f"{trace.path}: row {row}", key="node", value=int(trace.node[row]), rule=rule)
    if trace.gone is None:
        return
    for name, column, nothing in (("content", trace.content, 0), ("node", trace.node, NO_NODE)):
        if column is not None and (wrong := trace.gone & (column != nothing)).any():
            row = int(wrong.argmax())
            rule = f"must be {nothing} where the page is gone"
            raise InputError(where=f"{trace.path}: row {row}", key=name, value=int(column[row]), rule=rule)
