"""Does what is written read back, whole or not at all, and is a caller that breaks the format stopped?"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ksmbatch.errors import InputError
from ksmbatch.trace_memory import memory_at
from ksmbatch.trace_writer import TraceWriter
from ksmbatch.traces import order_note, order_of, read_trace


def pages(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


def small(path: Path, **options: Any) -> TraceWriter:
    return TraceWriter(path, **{"order": "none", **options})


def started(writer: TraceWriter) -> None:
    writer.snapshot(5)
    writer.start("a", pages=4)
    writer.start("b")


def write(path: Path, *calls: Callable[[TraceWriter], object]) -> None:
    with small(path) as writer:
        for call in calls:
            call(writer)


def test_a_small_trace_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    with small(path, nodes=True, gone=True, about="by hand", made_by={"tool": "test"}) as writer:
        writer.snapshot(100)
        writer.start("web", pages=8)
        writer.rows("web", pages(0, 7), np.array([5, 0]), node=np.array([1, 0]))
        writer.snapshot(200)
        writer.start("db")
        writer.rows("web", pages(7), np.array([9]), gone=np.array([True]), node=np.array([0]))
        writer.rows("db", pages(3), np.array([5]))
        writer.snapshot(300)
        writer.exit("web")
        writer.vmas("db", [(0, 4, "[heap]")])
    trace = read_trace(path)
    assert (trace.pages, trace.snapshots, trace.start_ms, trace.exit_ms) == (
        {"web": 8, "db": 4},
        (100, 200, 300),
        {"db": 200},
        {"web": 300},
    )
    assert (trace.about, trace.order, trace.vmas) == ("by hand", "none", {"db": ((0, 4, "[heap]"),)})
    assert trace.node is not None
    assert trace.gone is not None
    assert trace.content.tolist() == [5, 0, 0, 5]
    assert trace.node.tolist() == [1, 0, -1, -1]
    assert trace.gone.tolist() == [False, False, True, False]
    assert json.loads(pq.read_schema(path).metadata[b"ksmbatch.trace"])["made_by"] == {"tool": "test"}


def test_any_parquet_reader_sees_plain_columns(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    with small(path) as writer:
        writer.snapshot(0)
        writer.start("web")
        writer.rows("web", pages(0, 1), np.array([2**64 - 1, 1], np.uint64))
    table = pq.read_table(path)
    assert table.to_pydict() == {"time_ms": [0, 0], "mm": ["web", "web"], "page": [0, 1], "content": [2**64 - 1, 1]}


def test_a_long_trace_has_many_row_groups_and_reads_back(tmp_path: Path) -> None:
    path, n = tmp_path / "t.parquet", 300_000
    with small(path) as writer:
        writer.snapshot(0)
        for number in range(8):
            writer.start(f"mm{number}", pages=n)
            for first in range(0, n, 100_000):
                writer.rows(f"mm{number}", np.arange(first, first + 100_000), np.arange(100_000, dtype=np.uint64))
    assert pq.ParquetFile(path).metadata.num_row_groups > 1
    trace = read_trace(path)
    assert trace.mm.tolist() == np.repeat(np.arange(8), n).tolist()
    assert (trace.content == np.tile(np.arange(100_000), 24)).all()


def test_nothing_is_left_where_the_caller_fails(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        write(tmp_path / "t.parquet", started, lambda w: w.rows("a", pages(0), pages(1)), lambda w: 1 // 0)
    assert list(tmp_path.iterdir()) == []


def test_an_older_trace_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    path.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError):
        write(path, started, lambda w: w.rows("a", pages(0), pages(1)), lambda w: 1 // 0)
    assert path.read_bytes() == b"old"


def test_a_trace_without_rows_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"t\.parquet: is not written: there is no page to write"):
        write(tmp_path / "t.parquet", started)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none/t\.parquet: cannot be written: No such file or directory"):
        write(tmp_path / "none" / "t.parquet", started)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda w: w.snapshot(5),
        lambda w: w.snapshot(2**32),
        lambda w: w.start("a"),
        lambda w: w.start("\ud800"),
        lambda w: w.rows("c", pages(0), pages(1)),
        lambda w: w.rows("a", pages(4), pages(1)),
        lambda w: w.rows("a", pages(-1), pages(1)),
        lambda w: w.rows("a", pages(1, 1), pages(1, 1)),
        lambda w: (w.rows("a", pages(2), pages(1)), w.rows("a", pages(1), pages(1))),
        lambda w: (w.rows("b", pages(2), pages(1)), w.rows("a", pages(1), pages(1))),
        lambda w: w.rows("a", pages(0), pages(1), node=pages(0)),
        lambda w: w.rows("a", pages(0), pages(1), gone=pages(0)),
        lambda w: w.exit("a"),
        lambda w: (w.rows("a", pages(0), pages(1)), w.snapshot(6), w.rows("a", pages(0), pages(2)), w.exit("a")),
        lambda w: (w.rows("a", pages(0), pages(1)), w.snapshot(6), w.exit("a"), w.rows("a", pages(0), pages(2))),
        lambda w: w.vmas("c", []),
    ],
)
def test_calls_that_break_the_format_are_refused(tmp_path: Path, wrong: Callable[[TraceWriter], object]) -> None:
    with pytest.raises(ValueError, match=r"."):
        write(tmp_path / "t.parquet", started, wrong)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wrong", [lambda w: w.start("a"), lambda w: w.rows("a", pages(0), pages(0))])
def test_a_snapshot_comes_before_everything(tmp_path: Path, wrong: Callable[[TraceWriter], object]) -> None:
    with pytest.raises(ValueError, match=r"snapshot\(\) comes first"):
        write(tmp_path / "t.parquet", wrong)


def test_an_unknown_order_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="order is one of"):
        small(tmp_path / "t.parquet", order="random")


def test_the_order_of_contents_can_be_asked_for_alone(tmp_path: Path, root: Path) -> None:
    path = tmp_path / "t.parquet"
    with small(path) as writer:
        started(writer)
        writer.rows("a", pages(0), pages(1))
    assert order_of(path) == "none"
    assert str(order_note(path)).startswith("t.parquet keeps no order of contents")
    assert order_note(root / "workloads/three-vms.parquet") is None


# ---- any trace


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[int, list[str], list[str], dict[str, dict[int, tuple[int, int, bool]]]]]:
    """Per snapshot: time, who starts, who exits, and of each living mm: page -> (content, node, gone)."""
    n_snapshots = draw(st.integers(1, 4))
    times = sorted(draw(st.sets(st.integers(0, 2**32 - 1), min_size=n_snapshots, max_size=n_snapshots)))
    history = []
    living: list[str] = []
    n_mms = 0
    for k, time_ms in enumerate(times):
        exits = [mm for mm in living if draw(st.booleans())] if k else []
        living = [mm for mm in living if mm not in exits]
        starts = [f"mm{n_mms + j}" for j in range(draw(st.integers(k == 0, 2)))]
        n_mms += len(starts)
        living += starts
        row = st.tuples(st.integers(0, 2**64 - 1), st.integers(-1, 3), st.booleans())
        rows = {mm: draw(st.dictionaries(st.integers(0, 9), row, max_size=6)) for mm in living}
        history.append((time_ms, starts, exits, rows))
    if not history[0][3][history[0][1][0]]:
        history[0][3][history[0][1][0]][0] = (1, -1, False)
    return history


@given(history=histories())
@settings(deadline=None, max_examples=60)
def test_whatever_is_written_reads_back(tmp_path_factory: pytest.TempPathFactory, history: list[Any]) -> None:
    path = tmp_path_factory.mktemp("any") / "t.parquet"
    held: dict[str, dict[int, tuple[int, int]]] = {}
    after = []
    with small(path, nodes=True, gone=True) as writer:
        for time_ms, starts, exits, rows in history:
            writer.snapshot(time_ms)
            for mm in exits:
                writer.exit(mm)
                del held[mm]
            for mm in starts:
                writer.start(mm, pages=10)
                held[mm] = {}
            for mm, changes in rows.items():
                page = np.array(sorted(changes), np.int64)
                content = np.array([changes[number][0] for number in page.tolist()], np.uint64)
                node = np.array([changes[number][1] for number in page.tolist()], np.int64)
                gone = np.array([changes[number][2] for number in page.tolist()], np.bool_)
                writer.rows(mm, page, content, node=node, gone=gone)
                for number, (raw, nid, is_gone) in changes.items():
                    held[mm].pop(number, None)
                    if not is_gone:
                        held[mm][number] = raw, nid
            after.append({mm: dict(of) for mm, of in held.items()})
    trace = read_trace(path)
    assert trace.snapshots == tuple(time_ms for time_ms, *_ in history)
    for k, expected in enumerate(after):
        memory = memory_at(trace, k)
        assert {
            mm: {int(page): (int(of.content[page]), int(of.node[page])) for page in np.flatnonzero(of.present)}
            for mm, of in memory.items()
        } == expected
