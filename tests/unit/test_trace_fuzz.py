"""Does a trace from a stranger ever lead to more than one clear line: a traceback, a hang, memory without bound?"""

import json
import resource
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ksmbatch.errors import InputError
from ksmbatch.trace_check import summary
from ksmbatch.trace_events import trace_workload
from ksmbatch.trace_writer import TraceWriter
from ksmbatch.traces import read_trace

# long enough for a busy machine, short enough to tell a hang
PATIENT = settings(
    deadline=timedelta(seconds=20), max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
MAX_GROWTH_KIB = 2**19


def read_or_one_line(path: Path) -> bool:
    """Whether `path` is a good trace; fails if it is neither that nor refused in one line."""
    try:
        trace = read_trace(path)
    except InputError as error:
        line = str(error)
        assert line.startswith(str(path))
        assert len(line.splitlines()) == 1
        assert len(line) < 1000
        return False
    summary(trace)
    nodes = 1 if trace.node is None else int(trace.node.max(initial=0)) + 1
    for snapshot in trace_workload(path, nodes, None).snapshots:
        tuple(snapshot.steps)
    return True


@pytest.fixture(autouse=True)
def _memory_is_bounded() -> Any:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MAX_GROWTH_KIB


def good_trace(path: Path) -> bytes:
    with TraceWriter(path, order="none", nodes=True, gone=True) as writer:
        for k in range(3):
            writer.snapshot(10 * k)
            if k == 0:
                writer.start("web", pages=50)
                writer.start("db")
            writer.rows("web", np.arange(50), np.arange(50) * (k + 3) % 17, node=np.arange(50) % 2)
            writer.rows("db", np.arange(3, 20), np.arange(17) * (k + 3) % 17)
        writer.vmas("web", [(0, 50, "[heap]")])
    return path.read_bytes()


def without_checksums(path: Path) -> bytes:
    """The same, as a writer would make it that is not ours, so that damage reaches the decoders."""
    good_trace(path)
    pq.write_table(pq.read_table(path), path, compression="none")
    return path.read_bytes()


@st.composite
def damages(draw: st.DrawFn) -> list[tuple[float, int, bytes]]:
    """Places (shares of the file, mostly in its footer), how many bytes go there, and what comes instead."""
    place = st.one_of(st.floats(0, 1), st.floats(0.6, 1))
    instead = st.one_of(st.binary(max_size=8), st.sampled_from([b"\xff\xff\xff\x7f", b"\xff" * 5, b"\x80" * 4, b"\0" * 4]))
    return draw(st.lists(st.tuples(place, st.integers(0, 8), instead), min_size=1, max_size=4))


@pytest.mark.parametrize("make", [good_trace, without_checksums])
@given(damage=damages())
@PATIENT
def test_a_damaged_file_is_refused_in_one_line_or_still_a_good_trace(
    tmp_path: Path, make: Callable[[Path], bytes], damage: list[tuple[float, int, bytes]]
) -> None:
    whole = tmp_path / "whole.parquet"
    data = bytearray(whole.read_bytes() if whole.exists() else make(whole))
    for share, n_bytes, instead in damage:
        place = int(share * (len(data) - 1))
        data[place : place + n_bytes] = instead
    path = tmp_path / "damaged.parquet"
    path.write_bytes(data)
    read_or_one_line(path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 2**64) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from(["a", "b"])
TIMES = st.integers(0, 3)
META = {
    "version": 2,
    "page_size": 4096,
    "order": "none",
    "content": "any",
    "pages": {"a": 4, "b": 3},
    "snapshots": [0, 1, 2, 3],
    "start_ms": {"b": 1},
    "exit_ms": {"a": 3},
    "vmas": {"a": [[0, 2, "[heap]"], [3, 1, ""]]},
}
INSTEAD = st.one_of(
    JSON,
    st.sampled_from([1, 2, 3, "memcmp", [0, 1], [3], [1, 1]]),
    st.dictionaries(NAMES, st.one_of(st.integers(-1, 5), st.lists(st.just([0, 1, "x"]), max_size=2), JSON), max_size=2),
)
KEYS = st.one_of(st.sampled_from([*META, "made_by", "order_ties"]), st.text(max_size=3))
ROW = st.tuples(TIMES, NAMES, st.integers(0, 3), st.integers(0, 3), st.integers(-1, 2), st.booleans())
KINDS = {
    "time_ms": pa.uint32(),
    "mm": pa.dictionary(pa.int8(), pa.string()),
    "page": pa.uint32(),
    "content": pa.uint64(),
    "node": pa.int16(),
    "gone": pa.bool_(),
}


def is_allowed(row: tuple[Any, ...]) -> bool:
    time_ms, mm, page, content, node, gone = row
    return (
        (mm, page) != ("b", 3)
        and time_ms in ((0, 1, 2) if mm == "a" else (1, 2, 3))
        and (not gone or (content, node) == (0, -1))
    )


@st.composite
def tables(draw: st.DrawFn) -> tuple[Any, list[tuple[Any, ...]], int]:
    """A trace's metadata, rows and number of columns: good, but for what went wrong here and there."""
    rows = draw(st.lists(ROW, min_size=1, max_size=8))
    if draw(st.integers(0, 3)):
        rows = [row for row in rows if is_allowed(row)]
    if draw(st.integers(0, 3)):
        rows = [row for _, row in sorted({row[:3]: row for row in rows}.items())]
    wrong = draw(st.dictionaries(KEYS, INSTEAD, max_size=2)) if draw(st.booleans()) else {}
    return META | wrong, rows, draw(st.sampled_from([4, 5, 6, 6, 6, 6]))


@given(drawn=tables())
@PATIENT
def test_a_random_table_is_refused_in_one_line_or_a_good_trace(tmp_path: Path, drawn: Any) -> None:
    meta, rows, n_columns = drawn
    columns = list(zip(*rows, strict=True)) or [()] * len(KINDS)
    table = pa.table(
        {
            name: pa.array(values, kind.value_type).dictionary_encode().cast(kind) if name == "mm" else pa.array(values, kind)
            for (name, kind), values in list(zip(KINDS.items(), columns, strict=True))[:n_columns]
        }
    )
    path = tmp_path / "random.parquet"
    pq.write_table(table.replace_schema_metadata({"ksmbatch.trace": json.dumps(meta)}), path)
    read_or_one_line(path)


def test_the_trace_that_is_damaged_is_a_good_one(tmp_path: Path) -> None:
    path = tmp_path / "good.parquet"
    good_trace(path)
    assert read_or_one_line(path)
