"""Traces out: pages that changed, snapshot by snapshot, to a Parquet file of format version 2 (docs/formats.md).

It streams, so memory is bounded by a row group whatever the trace's size. It looks at no memory and makes no content ids:
importers and `capture` do. What it refuses with ValueError is a mistake of theirs, not of a user.
"""

import base64
import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ksmbatch.errors import InputError
from ksmbatch.trace_format import METADATA_KEY, NO_NODE, ORDERS, PAGE_SIZE, VERSION

_ROW_GROUP: Final = 2**20
_UINT32: Final = range(2**32)


class TraceWriter:
    """A trace that is written to `path`: `with TraceWriter(path, order="none") as writer: ...`.

    `order`: "memcmp" if the order of content ids is that of memcmp, else "none". `about`: a sentence on where contents come
    from. `nodes`, `gone`: whether rows say on which node a page is, and that it is there no more. `made_by`: anything JSON.
    `order_ties` may be set at any time: contents whose place among some others is arbitrary.

    The file appears under its name when the block ends; an exception leaves nothing. Raises InputError where it cannot be
    written, or holds no rows.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        order: str,
        about: str = "",
        nodes: bool = False,
        gone: bool = False,
        made_by: Mapping[str, Any] | None = None,
    ) -> None:
        if order not in ORDERS:
            raise ValueError(f"order is one of {ORDERS}, not {order!r}")
        self.order_ties = 0
        self._path = Path(path)
        self._partial = self._path.with_name(f".{self._path.name}.partial")
        self._about: dict[str, Any] = {"version": VERSION, "page_size": PAGE_SIZE, "order": order, "content": about}
        self._made_by = made_by
        self._schema = _schema(nodes=nodes, gone=gone)
        self._pages: dict[str, int] = {}  # of each mm, so far
        self._given: set[str] = set()  # mms that came with a number of pages
        self._numbers: dict[str, int] = {}
        self._snapshots: list[int] = []
        self._start_ms: dict[str, int] = {}
        self._exit_ms: dict[str, int] = {}
        self._vmas: dict[str, list[tuple[int, int, str]]] = {}
        self._place = (-1, -1)  # mm and page of the last row of this snapshot
        self._pending: list[dict[str, np.ndarray]] = []
        self._n_pending = 0
        self._n_rows = 0

    def __enter__(self) -> Self:
        try:
            self._stream = self._partial.open("wb")
        except OSError as error:
            raise self._unwritable(error) from None
        self._file = pq.ParquetWriter(
            self._stream,
            self._schema,
            compression="zstd",
            store_schema=False,  # _finish() does it, and can say what is known only at the end
            use_dictionary=["mm"],
            write_page_checksum=True,
            column_encoding={"time_ms": "DELTA_BINARY_PACKED", "page": "DELTA_BINARY_PACKED"},
        )
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if kind is None:
                self._finish()
        except OSError as failure:
            raise self._unwritable(failure) from None
        finally:
            for let_go in (self._file.close, self._stream.close, self._partial.unlink):
                with suppress(OSError):
                    let_go()

    def snapshot(self, time_ms: int) -> None:
        """What follows is seen at `time_ms`, later than the snapshot before. A snapshot may stay empty."""
        if time_ms not in _UINT32 or (self._snapshots and time_ms <= self._snapshots[-1]):
            raise ValueError(f"snapshots ascend within uint32: {time_ms} after {self._snapshots[-1:]}")
        self._snapshots.append(int(time_ms))
        self._place = (-1, -1)

    def start(self, mm: str, pages: int | None = None) -> None:
        """The new `mm` lives from this snapshot on, with `pages` pages; None: one more than the largest that is written."""
        self._need_snapshot()
        if mm in self._pages:
            raise ValueError(f"{mm!r} has started before")
        mm.encode()  # what is no Unicode raises a ValueError too
        self._numbers[mm] = len(self._numbers)
        self._pages[mm] = 0 if pages is None else int(pages)
        if pages is not None:
            self._given.add(mm)
        if len(self._snapshots) > 1:
            self._start_ms[mm] = self._snapshots[-1]

    def exit(self, mm: str) -> None:
        """From this snapshot on `mm` is no more."""
        self._need_snapshot()
        self._need_living(mm)
        started = self._start_ms.get(mm, self._snapshots[0])
        if started == self._snapshots[-1]:
            raise ValueError(f"{mm!r} starts and exits at the same snapshot")
        if self._place[0] == self._numbers[mm]:
            raise ValueError(f"{mm!r} has rows in the snapshot at which it exits")
        self._exit_ms[mm] = self._snapshots[-1]

    def rows(
        self, mm: str, page: np.ndarray, content: np.ndarray, *, node: np.ndarray | None = None, gone: np.ndarray | None = None
    ) -> None:
        """Pages `page` (integers[n], ascending) of `mm` have `content` (uint64[n]) now.

        `node`: integers[n], -1 where not known. `gone`: bool[n], where a page is there no more; content and node mean
        nothing there. mms come in the order in which they started; one mm may come in several calls.
        """
        self._need_snapshot()
        self._need_living(mm)
        page = np.asarray(page)
        if page.size == 0:
            return
        place = (self._numbers[mm], int(page[0]))
        if place <= self._place or not (page[1:] > page[:-1]).all() or page[0] < 0:
            raise ValueError(f"rows of a snapshot are in the order of mms and pages, each once: {mm!r}, page {place[1]}")
        self._place = (place[0], int(page[-1]))
        if mm in self._given:
            if self._place[1] >= self._pages[mm]:
                raise ValueError(f"{mm!r} has {self._pages[mm]} pages, numbered from 0, and none {self._place[1]}")
        else:
            self._pages[mm] = max(self._pages[mm], self._place[1] + 1)
        self._add(self._batch(place[0], page, content, node, gone))

    def vmas(self, mm: str, runs: Iterable[tuple[int, int, str]]) -> None:
        """The VMAs of `mm`: first page, pages and name of each, in the order of pages, not overlapping."""
        if mm not in self._pages:
            raise ValueError(f"{mm!r} has not started")
        self._vmas[mm] = [(int(first), int(pages), name) for first, pages, name in runs]

    def _need_snapshot(self) -> None:
        if not self._snapshots:
            raise ValueError("snapshot() comes first")

    def _need_living(self, mm: str) -> None:
        if mm not in self._pages or mm in self._exit_ms:
            raise ValueError(f"{mm!r} does not live now")

    def _batch(
        self, number: int, page: np.ndarray, content: np.ndarray, node: np.ndarray | None, gone: np.ndarray | None
    ) -> dict[str, np.ndarray]:
        n = page.size
        for name, given in (("node", node), ("gone", gone)):
            if given is not None and name not in self._schema.names:
                raise ValueError(f"{name} is given, and the trace has no such column")
        content = np.asarray(content, np.uint64)
        node = np.full(n, NO_NODE) if node is None else np.asarray(node)
        if gone is not None:
            content = np.where(gone, np.uint64(0), content)
            node = np.where(gone, NO_NODE, node)
        columns = {
            "time_ms": np.full(n, self._snapshots[-1], np.uint32),
            "mm": np.full(n, number, np.int32),
            "page": page.astype(np.uint32),
            "content": content,
            "node": node.astype(np.int16),
            "gone": np.zeros(n, np.bool_) if gone is None else np.asarray(gone, np.bool_),
        }
        return {name: columns[name] for name in self._schema.names}

    def _add(self, batch: dict[str, np.ndarray]) -> None:
        self._pending.append(batch)
        self._n_pending += batch["page"].size
        self._n_rows += batch["page"].size
        if self._n_pending >= _ROW_GROUP:
            self._flush()

    def _flush(self) -> None:
        if self._pending:
            columns = {name: np.concatenate([batch[name] for batch in self._pending]) for name in self._schema.names}
            mm = pa.DictionaryArray.from_arrays(columns.pop("mm"), list(self._numbers))
            table = pa.table({"mm": mm} | columns).select(self._schema.names).cast(self._schema)
            self._file.write_table(table, row_group_size=_ROW_GROUP)
        self._pending, self._n_pending = [], 0

    def _finish(self) -> None:
        if self._n_rows == 0:
            raise InputError(where=self._path, rule="is not written: there is no page to write")
        for mm, pages in self._pages.items():
            self._pages[mm] = max(pages, 1)  # an mm without pages is one of which none was ever there
        self._flush()
        text = json.dumps(self._metadata(), ensure_ascii=False, separators=(",", ":"))
        metadata = {METADATA_KEY: text.encode()}
        # readers take a schema's metadata from the serialised schema, which pyarrow would write without this
        schema = base64.b64encode(self._schema.with_metadata(metadata).serialize())
        self._file.add_key_value_metadata(metadata | {b"ARROW:schema": schema})
        self._file.close()
        self._stream.close()
        self._partial.replace(self._path)

    def _metadata(self) -> dict[str, Any]:
        told: dict[str, Any] = self._about | {"pages": self._pages, "snapshots": self._snapshots}
        optional: dict[str, Any] = {
            "order_ties": self.order_ties,
            "start_ms": self._start_ms,
            "exit_ms": self._exit_ms,
            "vmas": self._vmas,
            "made_by": self._made_by,
        }
        return told | {name: value for name, value in optional.items() if value}

    def _unwritable(self, error: OSError) -> InputError:
        return InputError(where=self._path, rule=f"cannot be written: {error.strerror or error}")


def _schema(*, nodes: bool, gone: bool) -> Any:
    fields = [
        ("time_ms", pa.uint32()),
        ("mm", pa.dictionary(pa.int32(), pa.string())),
        ("page", pa.uint32()),
        ("content", pa.uint64()),
    ]
    if nodes:
        fields.append(("node", pa.int16()))
    if gone:
        fields.append(("gone", pa.bool_()))
    return pa.schema(fields)
