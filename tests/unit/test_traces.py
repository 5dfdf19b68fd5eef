"""Is a trace that breaks the format refused with one line, and a good one turned into the right events?"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ksmbatch.errors import InputError
from ksmbatch.scenario import Mmap, Spawn, Write
from ksmbatch.trace_events import trace_workload
from ksmbatch.traces import read_trace

META = {"version": 1, "page_size": 4096, "pages": {"web": 4, "db": 2}, "content": "ids"}
META_2 = META | {"version": 2, "order": "none", "snapshots": [0, 8, 20], "start_ms": {"db": 8}, "exit_ms": {"web": 20}}
ROWS = [(0, "web", 0, 5), (0, "web", 3, 0), (0, "db", 1, 5), (8, "db", 0, 7), (20, "web", 3, 2**64 - 1)]
MM = pa.dictionary(pa.int8(), pa.string())
COLUMNS = {"time_ms": pa.uint32(), "mm": MM, "page": pa.uint32(), "content": pa.uint64()}
COLUMNS_2 = COLUMNS | {"node": pa.int16(), "gone": pa.bool_()}
ROWS_2 = [(0, "web", 0, 5, 0, False), (8, "web", 0, 0, -1, True), (8, "db", 1, 5, 1, False)]


def write_trace(
    path: Path,
    rows: list[Any] = ROWS,
    meta: object = META,
    types: Mapping[str, Any] = COLUMNS,
    rename: Mapping[str, str] | None = None,
) -> Path:
    values = list(zip(*rows, strict=True)) or [()] * len(COLUMNS)
    columns = {}
    for (name, kind), column in zip(types.items(), values, strict=True):
        array = pa.array(column, kind.value_type).dictionary_encode().cast(kind) if kind == MM else pa.array(column, kind)
        columns[(rename or {}).get(name, name)] = array
    metadata = {} if meta is None else {"ksmbatch.trace": meta if isinstance(meta, str) else json.dumps(meta)}
    pq.write_table(pa.table(columns).replace_schema_metadata(metadata), path)
    return path


def message(path: Path) -> str:
    with pytest.raises(InputError) as error:
        read_trace(path)
    line = str(error.value)
    assert line.startswith(str(path))
    assert "\n" not in line
    return line


def test_a_trace_becomes_starts_then_writes_per_snapshot(tmp_path: Path) -> None:
    workload = trace_workload(write_trace(tmp_path / "t.parquet"), 2, {"db": 1})
    assert (workload.name, workload.nodes, workload.per_scan) == ("t", 2, False)
    assert [snapshot.time_ms for snapshot in workload.snapshots] == [0, 8, 20]
    first, second, third = (list(snapshot.steps) for snapshot in workload.snapshots)
    assert first[:4] == [
        Spawn(proc="web", cpu_node=0),
        Mmap(proc="web", area="memory", pages=4, node=0),
        Spawn(proc="db", cpu_node=1),
        Mmap(proc="db", area="memory", pages=2, node=1),
    ]
    writes = [
        [(step.proc, step.area, step.pages.tolist(), step.contents.tolist()) for step in steps if isinstance(step, Write)]
        for steps in (first, second, third)
    ]
    assert writes == [
        [("web", "memory", [0, 3], [5, 0]), ("db", "memory", [1], [5])],
        [("db", "memory", [0], [7])],
        [("web", "memory", [3], [2**64 - 1])],
    ]
    assert all(step.pages.dtype == np.int64 and step.contents.dtype == np.uint64 for step in first if isinstance(step, Write))


def test_times_count_from_the_first_snapshot(tmp_path: Path) -> None:
    rows = [(1000 + time, *rest) for time, *rest in ROWS]
    workload = trace_workload(write_trace(tmp_path / "t.parquet", rows), 1, None)
    assert [snapshot.time_ms for snapshot in workload.snapshots] == [0, 8, 20]


def test_an_mm_that_is_never_written_starts_all_the_same(tmp_path: Path) -> None:
    workload = trace_workload(
        write_trace(tmp_path / "t.parquet", meta=META | {"pages": {"new": 9, "web": 4, "db": 2}}), 1, None
    )
    assert [step.proc for step in workload.snapshots[0].steps if isinstance(step, Spawn)] == ["new", "web", "db"]


def test_mms_are_bound_round_robin_in_the_order_of_their_start(tmp_path: Path) -> None:
    workload = trace_workload(write_trace(tmp_path / "t.parquet"), 2, "round_robin")
    assert [step.node for step in workload.snapshots[0].steps if isinstance(step, Mmap)] == [0, 1]


@pytest.mark.parametrize(
    ("binding", "line"),
    [
        ({"webb": 1}, "workload.node.webb = 1: there is no such mm (nearest: web)"),
        ({"db": 2}, "workload.node.db = 2: must be a node, 0 to 1"),
        ({"db": -1}, "workload.node.db = -1: must be a node, 0 to 1"),
    ],
)
def test_a_binding_to_what_does_not_exist_is_refused(tmp_path: Path, binding: dict[str, int], line: str) -> None:
    with pytest.raises(InputError) as error:
        trace_workload(write_trace(tmp_path / "t.parquet"), 2, binding)
    assert line in str(error.value)


def test_the_first_snapshot_need_not_have_all_pages(tmp_path: Path) -> None:
    assert read_trace(write_trace(tmp_path / "t.parquet", [(0, "web", 2, 1)])).page.tolist() == [2]


@pytest.mark.parametrize(
    ("rows", "line"),
    [
        ([], ": has no rows"),
        ([(5, "web", 0, 1), (4, "web", 1, 1)], ": row 1: rows must be in the order of time_ms, mm"),
        ([(0, "db", 0, 1), (0, "web", 0, 1)], ": row 1: rows must be in the order of time_ms, mm"),
        ([(0, "web", 0, 1), (0, "web", 2, 1), (0, "web", 1, 1)], ": row 2: rows must be in the order of time_ms, mm"),
        ([(0, "web", 1, 1), (0, "web", 1, 2)], ": row 1: has the time, mm and page of the row before"),
        ([(0, "web", 3, 1), (0, "db", 2, 1)], ": row 1: page = 2: db has 2 pages, numbered from 0"),
        ([(0, "web", 3, 1), (0, "dbx", 0, 1)], ': row 1: mm = "dbx": is not among the metadata\'s pages (nearest: db)'),
        ([(0, "web", 0, None)], ": content: must not be null anywhere"),
        ([(0, None, 0, 1)], ": mm: must not be null anywhere"),
        ([(None, "web", 0, 1)], ": time_ms: must not be null anywhere"),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, rows: list[Any], line: str) -> None:
    assert line in message(write_trace(tmp_path / "t.parquet", rows))


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        ("time_ms", pa.int64()),
        ("time_ms", pa.uint64()),
        ("mm", pa.string()),
        ("page", pa.int32()),
        ("content", pa.int64()),
        ("content", pa.float64()),
    ],
)
def test_a_column_of_another_type_is_refused(tmp_path: Path, column: str, kind: Any) -> None:
    rows = [(0, "web", 0, 5)]
    line = message(write_trace(tmp_path / "t.parquet", rows, types=COLUMNS | {column: kind}))
    assert f": {column}: is of type {kind}: must be " in line


@pytest.mark.parametrize("index", [pa.int8(), pa.int16(), pa.int32(), pa.uint8()])
def test_any_index_type_of_the_mm_dictionary_will_do(tmp_path: Path, index: Any) -> None:
    path = write_trace(tmp_path / "t.parquet")
    table = pq.read_table(path)
    mm = table.column("mm").combine_chunks()
    other = pa.DictionaryArray.from_arrays(mm.indices.cast(index), mm.dictionary)
    pq.write_table(table.set_column(1, "mm", other), path)
    assert read_trace(path).mm.tolist() == [0, 0, 1, 1, 0]


def test_dictionaries_that_differ_between_row_groups_are_one_set_of_mms(tmp_path: Path) -> None:
    path = write_trace(tmp_path / "t.parquet")
    table = pq.read_table(path)
    with pq.ParquetWriter(path, table.schema) as writer:
        for first, names in ((0, ["web", "db"]), (3, ["db", "web"])):
            part = table.slice(first, 3)
            mm = pa.array(part.column("mm").to_pylist())
            codes = pa.array([names.index(name) for name in mm.to_pylist()], pa.int8())
            writer.write_table(part.set_column(1, "mm", pa.DictionaryArray.from_arrays(codes, pa.array(names))))
    assert read_trace(path).mm.tolist() == [0, 0, 1, 1, 0]


@pytest.mark.parametrize("column", COLUMNS)
def test_a_missing_column_is_named(tmp_path: Path, column: str) -> None:
    types = {name: kind for name, kind in COLUMNS.items() if name != column}
    rows = [tuple(value for name, value in zip(COLUMNS, row, strict=True) if name != column) for row in ROWS]
    assert f": {column}: column is missing (a trace has time_ms, mm, page, content)" in message(
        write_trace(tmp_path / "t.parquet", rows, types=types)
    )


def test_an_unknown_column_is_named_with_the_nearest(tmp_path: Path) -> None:
    rows = [(*row, 1) for row in ROWS]
    path = write_trace(tmp_path / "t.parquet", rows, types=COLUMNS | {"pages": pa.uint32()})
    assert ": pages: unknown column (nearest: page)" in message(path)


def test_a_column_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    path = write_trace(tmp_path / "t.parquet")
    table = pq.read_table(path)
    pq.write_table(table.append_column("page", table.column("page")), path)
    assert ": page: column is there twice" in message(path)


@pytest.mark.parametrize(
    ("meta", "line"),
    [
        (None, "ksmbatch.trace: metadata is missing (is this file a trace?)"),
        ("{", "ksmbatch.trace: is no JSON"),
        ("[" * 100_000, "ksmbatch.trace: is no JSON"),
        ([], "ksmbatch.trace = []: must be an object"),
        (META | {"version": 3}, "ksmbatch.trace: version = 3: must be an integer from 1 to 2"),
        ({"page_size": 4096, "pages": {"web": 1}}, "ksmbatch.trace: version: is missing"),
        (META | {"page_size": 65536}, "ksmbatch.trace: page_size = 65536: must be an integer from 4096 to 4096"),
        (META | {"pages": {}}, "ksmbatch.trace: pages = {}: must be an object: pages by mm"),
        (META | {"pages": [1]}, "ksmbatch.trace: pages = [1]: must be an object"),
        (META | {"pages": {"web": 0, "db": 2}}, "ksmbatch.trace: pages: web = 0: must be an integer >= 1"),
        (META | {"pages": {"web": 2**31 - 1, "db": 2}}, "pages = {"),
        (META | {"content": 3}, "ksmbatch.trace: content = 3: must be a string"),
    ],
)
def test_bad_metadata_is_named(tmp_path: Path, meta: object, line: str) -> None:
    assert line in message(write_trace(tmp_path / "t.parquet", meta=meta))


def test_version_2_knows_lives_nodes_and_what_is_gone(tmp_path: Path) -> None:
    trace = read_trace(write_trace(tmp_path / "t.parquet", ROWS_2, META_2 | {"vmas": {"web": [[0, 2, ""]]}}, COLUMNS_2))
    assert (trace.version, trace.order, trace.order_ties, trace.snapshots) == (2, "none", 0, (0, 8, 20))
    assert (trace.start_ms, trace.exit_ms, trace.vmas) == ({"db": 8}, {"web": 20}, {"web": ((0, 2, ""),)})
    assert trace.node is not None
    assert trace.gone is not None
    assert (trace.node.tolist(), trace.gone.tolist()) == ([0, -1, 1], [False, True, False])


def test_version_1_is_ordered_and_has_the_snapshots_of_its_rows(tmp_path: Path) -> None:
    trace = read_trace(write_trace(tmp_path / "t.parquet"))
    assert (trace.version, trace.order, trace.snapshots, trace.start_ms, trace.exit_ms) == (1, "memcmp", (0, 8, 20), {}, {})
    assert (trace.node, trace.gone, trace.vmas) == (None, None, {})


@pytest.mark.parametrize("column", ["node", "gone"])
def test_each_column_of_version_2_may_be_left_out(tmp_path: Path, column: str) -> None:
    place = list(COLUMNS_2).index(column)
    rows = [(*row[:place], *row[place + 1 :]) for row in ROWS_2 if not row[5]]
    types = {name: kind for name, kind in COLUMNS_2.items() if name != column}
    assert getattr(read_trace(write_trace(tmp_path / "t.parquet", rows, META_2, types)), column) is None


@pytest.mark.parametrize(
    ("meta", "line"),
    [
        ({"order": "random"}, 'order = "random": must be one of memcmp, none'),
        ({"order": None}, "order = null: must be one of memcmp, none"),
        ({"order_ties": -1}, "order_ties = -1: must be an integer >= 0"),
        ({"snapshot": []}, "snapshot = []: unknown field (nearest: snapshots)"),
        ({"snapshots": []}, "snapshots = []: must be a list of times in ms"),
        ({"snapshots": [0, 8, 2**32]}, "snapshots = [0, 8, 4294967296]: must be a list of times in ms"),
        ({"snapshots": [0, True]}, "snapshots = [0, true]: must be a list of times in ms"),
        ({"snapshots": [0, 20, 8]}, "snapshots = [0, 20, 8]: must ascend"),
        ({"snapshots": [0, 8, 8, 20]}, "snapshots = [0, 8, 8, 20]: must ascend"),
        ({"start_ms": {"dbx": 8}}, "start_ms: dbx = 8: there is no such mm among the pages (nearest: db)"),
        ({"start_ms": {"db": 9}}, "start_ms: db = 9: must be one of the snapshots"),
        ({"start_ms": [8]}, "start_ms = [8]: must be an object, by mm"),
        ({"exit_ms": {"db": 8}}, "exit_ms: db = 8: must be later than its start, 8"),
        ({"exit_ms": {"web": 0}}, "exit_ms: web = 0: must be later than its start, 0"),
        ({"exit_ms": {"web": "20"}}, 'exit_ms: web = "20": must be one of the snapshots'),
        ({"vmas": {"web": 3}}, "vmas: web = 3: must be a list of [first, pages, name]"),
        ({"vmas": {"web": [[0, 1]]}}, "vmas: web[0] = [0, 1]: must be [first, pages, name]"),
        ({"vmas": {"web": [[False, 1, ""]]}}, 'vmas: web[0] = [false, 1, ""]: must be [first, pages, name]'),
        (
            {"vmas": {"web": [[0, 5, ""]]}},
            'vmas: web[0] = [0, 5, ""]: must lie behind the one before, within the 4 pages of web',
        ),
        ({"vmas": {"web": [[0, 2, ""], [1, 1, ""]]}}, 'vmas: web[1] = [1, 1, ""]: must lie behind the one before'),
        ({"vmas": {"web": [[0, 0, ""]]}}, 'vmas: web[0] = [0, 0, ""]: must lie behind the one before'),
        ({"made_by": "x" * 2**25}, "ksmbatch.trace: has 33554"),
    ],
)
def test_bad_metadata_of_version_2_is_named(tmp_path: Path, meta: dict[str, object], line: str) -> None:
    assert line in message(write_trace(tmp_path / "t.parquet", ROWS_2, META_2 | meta, COLUMNS_2))


@pytest.mark.parametrize("key", ["order", "snapshots"])
def test_what_version_2_must_say_is_named_where_it_is_missing(tmp_path: Path, key: str) -> None:
    meta = {name: value for name, value in META_2.items() if name != key}
    assert f"ksmbatch.trace: {key}: is missing: must be " in message(
        write_trace(tmp_path / "t.parquet", ROWS_2, meta, COLUMNS_2)
    )


@pytest.mark.parametrize(
    ("rows", "line"),
    [
        ([(7, "web", 0, 5, 0, False)], ": row 0: time_ms = 7: is not among the metadata's snapshots"),
        ([(21, "web", 0, 5, 0, False)], ": row 0: time_ms = 21: is not among the metadata's snapshots"),
        ([(0, "web", 1, 5, 0, False), (0, "db", 0, 5, 0, False)], ": row 1: time_ms = 0: db starts at 8"),
        ([(20, "web", 1, 5, 0, False)], ": row 0: time_ms = 20: web is no more from 20 on"),
        ([(0, "web", 0, 5, -2, False)], ": row 0: node = -2: must be a node, 0 to 1023, or -1 where it is not known"),
        ([(0, "web", 0, 5, 1024, False)], ": row 0: node = 1024: must be a node"),
        ([(0, "web", 0, 5, -1, True)], ": row 0: content = 5: must be 0 where the page is gone"),
        ([(0, "web", 0, 0, 0, True)], ": row 0: node = 0: must be -1 where the page is gone"),
        ([(0, "web", 0, 0, 0, None)], ": gone: must not be null anywhere"),
        ([(0, "web", 0, 0, None, False)], ": node: must not be null anywhere"),
    ],
)
def test_bad_rows_of_version_2_are_named(tmp_path: Path, rows: list[Any], line: str) -> None:
    assert line in message(write_trace(tmp_path / "t.parquet", rows, META_2, COLUMNS_2))


@pytest.mark.parametrize("column", ["node", "gone"])
def test_version_1_has_no_column_of_version_2(tmp_path: Path, column: str) -> None:
    rows = [(0, "web", 0, 5, True)] if column == "gone" else [(0, "web", 0, 5, 0)]
    path = write_trace(tmp_path / "t.parquet", rows, types=COLUMNS | {column: COLUMNS_2[column]})
    assert f": {column}: unknown column in version 1 of the format" in message(path)


def test_a_file_that_claims_more_rows_than_memory_holds_is_refused_unread(tmp_path: Path) -> None:
    # equal rows take no room in a file, but 64 bytes each in memory
    n_rows = 2**20
    table = pa.table(
        {
            "time_ms": pa.array(np.zeros(n_rows, np.uint32)),
            "mm": pa.DictionaryArray.from_arrays(np.zeros(n_rows, np.int8), ["web"]),
            "page": pa.array(np.zeros(n_rows, np.uint32)),
            "content": pa.array(np.zeros(n_rows, np.uint64)),
        }
    ).replace_schema_metadata({"ksmbatch.trace": json.dumps(META)})
    path = tmp_path / "t.parquet"
    with pq.ParquetWriter(path, table.schema, compression="zstd") as writer:
        for _ in range(16):
            writer.write_table(table)
    assert path.stat().st_size < 1_000_000
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ksmbatch.traces._free_bytes", lambda: 2**29)
        assert "has 16,777,216 rows, which take 1 GiB of memory: 0 GiB are free" in message(path)


def test_a_file_cut_anywhere_is_one_line(tmp_path: Path) -> None:
    whole = write_trace(tmp_path / "whole.parquet").read_bytes()
    for length in (0, 3, 8, len(whole) // 2, len(whole) - 9, len(whole) - 1):
        path = tmp_path / f"cut{length}.parquet"
        path.write_bytes(whole[:length])
        assert ": is no readable Parquet file: " in message(path)


def test_a_damaged_file_is_one_line_or_still_a_good_trace(tmp_path: Path) -> None:
    whole = write_trace(tmp_path / "whole.parquet").read_bytes()
    path = tmp_path / "damaged.parquet"
    lines = []
    for place in range(0, len(whole), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            read_trace(path)
        except InputError as error:
            lines.append(str(error))
    assert len(lines) > 50
    assert not any("\n" in line for line in lines)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert ": no such file" in message(tmp_path / "none.parquet")
    assert ": is no readable Parquet file: " in message(tmp_path)


def test_the_trace_of_three_guests_is_read_whole(root: Path) -> None:
    workload = trace_workload(root / "workloads/three-vms.parquet", 2, {"web": 0, "db": 1, "idle": 0})
    assert len(workload.snapshots) == 12
    writes = [step for snapshot in workload.snapshots for step in snapshot.steps if isinstance(step, Write)]
    assert sum(write.pages.size for write in writes) == 541_942
    assert [write.proc for write in writes[:3]] == ["web", "db", "idle"]
    assert all((np.diff(write.pages) > 0).all() for write in writes)
