"""Traces in: real memory over time, free of contents (format version 1), strictly checked, as a workload.

A trace that breaks the format is refused with one line, never repaired. It makes no traces: importers do.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ksmbatch.arrow import to_numpy
from ksmbatch.documents import INT32, Fields, nearest
from ksmbatch.errors import InputError
from ksmbatch.events import Mmap, Spawn, Step, Write
from ksmbatch.scenario import MAX_PAGES
from ksmbatch.topology import Binding, place
from ksmbatch.workload import Snapshot, Workload

VERSION: Final = 1
PAGE_SIZE: Final = 4096
METADATA_KEY: Final = b"ksmbatch.trace"
COLUMNS: Final[dict[str, str]] = {
    "time_ms": "uint32",
    "mm": "dictionary of strings",
    "page": "uint32",
    "content": "uint64",
}
AREA: Final = "memory"  # each mm of a trace has one


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Trace:
    """A trace of n rows, checked.

    `pages`: pages of each mm, in the order in which the mms start. `about`: what the contents are. `time_ms`: uint32[n].
    `mm`: int32[n], place of the row's mm in `pages`. `page`: uint32[n]. `content`: uint64[n]. Rows are in the order of
    time, mm, page.
    """

    path: Path
    pages: dict[str, int]
    about: str
    time_ms: np.ndarray
    mm: np.ndarray
    page: np.ndarray
    content: np.ndarray


def read_trace(path: str | Path) -> Trace:
    """The trace in the Parquet file `path`.

    Raises InputError if the file cannot be read, lacks a column or the metadata, has other columns or types, no rows,
    nulls, an mm or page that the metadata does not have, or rows that are unsorted or twice there.
    """
    path = Path(path)
    table = _read_table(path)
    pages, about = _metadata(path, table.schema.metadata)
    if table.num_rows == 0:
        raise InputError(where=path, rule="has no rows")
    for name in COLUMNS:
        if table.column(name).null_count:
            raise InputError(where=path, key=name, rule="must not be null anywhere")
    trace = Trace(
        path=path,
        pages=pages,
        about=about,
        time_ms=to_numpy(table.column("time_ms")),
        mm=_mm_numbers(path, table, pages),
        page=to_numpy(table.column("page")),
        content=to_numpy(table.column("content")),
    )
    _check_pages(trace)
    _check_order(trace)
    return trace


def trace_workload(path: str | Path, nodes: int, binding: Binding) -> Workload:
    """The trace in `path` as a workload: a process per mm, with one area "memory" bound to the node that `binding` says.

    `binding`: node by mm (0 for what is not named), "round_robin" (mm k on node k mod `nodes`) or None (node 0). Snapshot
    0 starts all mms in the order of the metadata and then writes their memory; the later ones only write. Times count
    from the first snapshot. Raises InputError as `read_trace` does, and for an mm or node that does not exist.
    """
    trace = read_trace(path)
    nids = place(list(trace.pages), binding, nodes)
    for mm, nid in zip(trace.pages, nids, strict=True):
        if not 0 <= nid < nodes:
            raise InputError(key=f"workload.node.{mm}", value=nid, rule=f"must be a node, 0 to {nodes - 1}")
    start: list[Step] = []
    for (mm, pages), nid in zip(trace.pages.items(), nids, strict=True):
        start += [Spawn(proc=mm, cpu_node=nid), Mmap(proc=mm, area=AREA, pages=pages, node=nid)]
    snapshots = []
    for time_ms, writes in _writes(trace):
        snapshots.append(Snapshot(time_ms=time_ms, steps=(*start, *writes)))
        start = []
    # the last snapshot lasts as long as the one before
    end_ms = 2 * snapshots[-1].time_ms - snapshots[-2].time_ms if len(snapshots) > 1 else None
    return Workload(name=trace.path.stem, nodes=nodes, snapshots=tuple(snapshots), end_ms=end_ms)


def _writes(trace: Trace) -> Iterator[tuple[int, list[Write]]]:
    """Time since the start and writes of every snapshot."""
    names = list(trace.pages)
    snapshot_starts = np.flatnonzero(np.diff(trace.time_ms, prepend=trace.time_ms[0] ^ 1))
    for first, stop in zip(snapshot_starts, [*snapshot_starts[1:], trace.time_ms.size], strict=True):
        ends = first + trace.mm[first:stop].searchsorted(np.arange(-1, len(names)), side="right")
        yield (
            int(trace.time_ms[first]) - int(trace.time_ms[0]),
            [
                Write(proc=name, area=AREA, pages=trace.page[a:b].astype(np.int64), contents=trace.content[a:b])
                for name, a, b in zip(names, ends[:-1], ends[1:], strict=True)
                if a < b
            ],
        )


def _read_table(path: Path) -> Any:
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            _check_columns(path, file.schema_arrow)
            table = file.read().unify_dictionaries()
            table.validate(full=True)
            return table
    except FileNotFoundError:
        raise InputError(where=path, rule="no such file") from None
    except (pa.ArrowException, OSError, ValueError) as error:  # what a damaged file raises depends on where the damage is
        reason = str(error).partition("\n")[0]
        raise InputError(where=path, rule=f"is no readable Parquet file: {reason}") from None


def _check_columns(path: Path, schema: Any) -> None:
    for name in COLUMNS:
        if name not in schema.names:
            raise InputError(where=path, key=name, rule="column is missing", hint=f"a trace has {', '.join(COLUMNS)}")
    for field in schema:
        if field.name not in COLUMNS:
            raise InputError(where=path, key=field.name, rule="unknown column", hint=nearest(field.name, COLUMNS))
        if schema.names.count(field.name) > 1:
            raise InputError(where=path, key=field.name, rule="column is there twice")
        if not _has_type(field.type, field.name):
            raise InputError(where=path, key=field.name, rule=f"is of type {field.type}: must be {COLUMNS[field.name]}")


def _has_type(kind: Any, column: str) -> bool:
    word = str(kind)
    if column == "mm":  # whatever the indices are: writers choose them by the number of mms
        return word.startswith(("dictionary<values=string,", "dictionary<values=large_string,"))
    return word == COLUMNS[column]


def _metadata(path: Path, metadata: dict[bytes, bytes] | None) -> tuple[dict[str, int], str]:
    key = METADATA_KEY.decode()
    text = (metadata or {}).get(METADATA_KEY)
    if text is None:
        raise InputError(where=path, key=key, rule="metadata is missing", hint="is this file a trace?")
    try:
        given = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(where=path, key=key, rule=f"is no JSON: {error}") from None
    if not isinstance(given, dict):
        raise InputError(where=path, key=key, value=given, rule="must be an object")
    fields = Fields(given, f"{path}: {key}")
    fields.integer("version", range(VERSION, VERSION + 1))
    fields.integer("page_size", range(PAGE_SIZE, PAGE_SIZE + 1))
    about = fields.text("content", default="")
    if not isinstance(given.get("pages"), dict) or not given["pages"]:
        raise fields.bad("pages", "must be an object: pages by mm")
    by_mm = Fields(given["pages"], f"{path}: {key}: pages")
    pages = {mm: by_mm.integer(mm, INT32) for mm in by_mm.obj}
    if sum(pages.values()) > MAX_PAGES:
        raise fields.bad("pages", f"must be at most {MAX_PAGES} together")
    return pages, about


def _mm_numbers(path: Path, table: Any, pages: dict[str, int]) -> np.ndarray:
    column = table.column("mm").combine_chunks()
    names = column.dictionary.to_pylist()
    numbers = {mm: k for k, mm in enumerate(pages)}
    number: np.ndarray = np.array([numbers.get(name, -1) for name in names], np.int32)[np.from_dlpack(column.indices)]
    if number.min() < 0:
        row = int(number.argmin())
        name = names[column.indices[row].as_py()]
        rule = "is not among the metadata's pages"
        raise InputError(where=f"{path}: row {row}", key="mm", value=name, rule=rule, hint=nearest(str(name), pages))
    return number


def _check_pages(trace: Trace) -> None:
    limit = np.array(list(trace.pages.values()), np.uint32)[trace.mm]
    beyond = trace.page >= limit
    if beyond.any():
        row = int(beyond.argmax())
        mm = list(trace.pages)[trace.mm[row]]
        rule = f"{mm} has {limit[row]} pages, numbered from 0"
        raise InputError(where=f"{trace.path}: row {row}", key="page", value=int(trace.page[row]), rule=rule)


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
