"""Do the nodes, lives and absences of a trace become the right events, and does the machine then hold that memory?"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ksmbatch.codes import Kernel, Run
from ksmbatch.errors import InputError
from ksmbatch.events import Discard, Exit, Migrate, Mmap, Spawn, Write
from ksmbatch.machine import Machine
from ksmbatch.metrics import Counter, NodeCounter
from ksmbatch.program import compile_workload
from ksmbatch.trace_events import trace_workload
from ksmbatch.trace_memory import memory_at
from ksmbatch.trace_nodes import MAX_AREAS
from ksmbatch.trace_writer import TraceWriter
from ksmbatch.traces import Trace, read_trace
from ksmbatch.workload import Workload

Row = tuple[int, int, int, bool]  # page, content, node, gone


def write(path: Path, *snapshots: dict[str, list[Row]], exits: dict[str, int] | None = None, pages: int = 8) -> Path:
    """A trace with a snapshot per second; an mm starts at the first one that names it."""
    started = set[str]()
    with TraceWriter(path, order="none", nodes=True, gone=True) as writer:
        for k, rows in enumerate(snapshots):
            writer.snapshot(1000 * (k + 1))
            for mm, when in (exits or {}).items():
                if when == k:
                    writer.exit(mm)
            for mm in [mm for mm in rows if mm not in started]:
                writer.start(mm, pages=pages)
                started.add(mm)
            for mm, changes in rows.items():
                page, content, node, gone = (np.array(column) for column in zip(*changes, strict=True))
                writer.rows(mm, page, content.astype(np.uint64), node=node, gone=gone)
    return path


def said(step: Any) -> Any:
    """A step without its arrays."""
    if isinstance(step, Write):
        return (step.proc, step.area, step.pages.tolist(), step.contents.tolist())
    return step


def steps(path: Path, nodes: int = 2, binding: Any = None) -> list[list[Any]]:
    return [[said(step) for step in snapshot.steps] for snapshot in trace_workload(path, nodes, binding).snapshots]


def test_areas_are_runs_of_pages_first_seen_on_one_node(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", {"a": [(0, 1, 1, False), (1, 2, 1, False), (3, 3, 0, False), (6, 4, 1, False)]})
    assert steps(path) == [
        [
            Spawn(proc="a", cpu_node=1),
            Mmap(proc="a", area="memory0", pages=3, node=1),
            Mmap(proc="a", area="memory1", pages=3, node=0),
            Mmap(proc="a", area="memory2", pages=2, node=1),
            ("a", "memory0", [0, 1], [1, 2]),
            ("a", "memory1", [0], [3]),
            ("a", "memory2", [0], [4]),
        ]
    ]


def test_memory_on_one_node_is_one_area(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", {"a": [(1, 1, 1, False), (7, 2, 1, False)]})
    assert steps(path)[0][1] == Mmap(proc="a", area="memory", pages=8, node=1)


def test_an_mm_whose_nodes_nobody_knows_is_on_node_0(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", {"a": [(1, 1, -1, False)]})
    assert steps(path)[0][:2] == [Spawn(proc="a"), Mmap(proc="a", area="memory", pages=8)]


def test_a_page_seen_on_another_node_later_migrates_after_the_writes(tmp_path: Path) -> None:
    first = [(0, 1, 0, False), (1, 1, 0, False), (2, 1, 0, False), (5, 1, 0, False)]
    later = [(0, 1, 1, False), (1, 9, 1, False), (2, 9, 0, False), (5, 1, 1, False)]
    path = write(tmp_path / "t.parquet", {"a": first}, {"a": later})
    assert steps(path)[1] == [
        ("a", "memory", [0, 1, 2, 5], [1, 9, 9, 1]),
        Migrate(proc="a", area="memory", first=0, count=2, node=1),
        Migrate(proc="a", area="memory", first=5, count=1, node=1),
    ]


def test_a_page_that_comes_back_on_another_node_has_not_moved(tmp_path: Path) -> None:
    there, gone, back = [(0, 1, 0, False)], [(0, 0, -1, True)], [(0, 1, 1, False)]
    path = write(tmp_path / "t.parquet", {"a": there}, {"a": gone}, {"a": back})
    assert steps(path)[1:] == [[Discard(proc="a", area="memory", first=0, count=1)], [("a", "memory", [0], [1])]]


def test_pages_that_are_gone_are_discarded_before_anything_is_written(tmp_path: Path) -> None:
    full = [(page, 1, page // 4, False) for page in range(8)]
    later = [(page, 0, -1, True) if page in (1, 2, 3, 4, 6) else (page, 7, page // 4, False) for page in (0, 1, 2, 3, 4, 6)]
    path = write(tmp_path / "t.parquet", {"a": full}, {"a": later})
    assert steps(path)[1] == [
        Discard(proc="a", area="memory0", first=1, count=3),
        Discard(proc="a", area="memory1", first=0, count=1),
        Discard(proc="a", area="memory1", first=2, count=1),
        ("a", "memory0", [0], [7]),
    ]


def test_mms_come_and_go_and_exits_come_first(tmp_path: Path) -> None:
    row = [(0, 1, 0, False)]
    path = write(tmp_path / "t.parquet", {"a": row}, {"b": row}, {}, exits={"a": 1, "b": 2})
    assert [[type(step).__name__ for step in trace] for trace in steps(path)] == [
        ["Spawn", "Mmap", "tuple"],
        ["Exit", "Spawn", "Mmap", "tuple"],
        ["Exit"],
    ]
    assert steps(path)[1][0] == Exit(proc="a")


def test_a_snapshot_without_rows_is_one_all_the_same(tmp_path: Path) -> None:
    workload = trace_workload(write(tmp_path / "t.parquet", {"a": [(0, 1, 0, False)]}, {}, {}), 1, None)
    assert [snapshot.time_ms for snapshot in workload.snapshots] == [0, 1000, 2000]
    assert workload.end_ms == 3000
    assert not workload.ordered


def test_the_users_nodes_override_the_traces(tmp_path: Path) -> None:
    row = [(0, 1, 1, False), (1, 1, 0, False)]
    moved = [(0, 1, 0, False)]
    path = write(tmp_path / "t.parquet", {"a": row, "b": row}, {"a": moved, "b": moved})
    named = steps(path, 2, {"a": 0})
    assert named[0][1] == Mmap(proc="a", area="memory", pages=8, node=0)
    assert named[0][3:5] == [
        Mmap(proc="b", area="memory0", pages=1, node=1),
        Mmap(proc="b", area="memory1", pages=7, node=0),
    ]
    assert [step.proc for step in named[1] if isinstance(step, Migrate)] == ["b"]  # what nobody names is where it was seen
    robin = steps(path, 2, "round_robin")
    assert [step.node for step in robin[0] if isinstance(step, Mmap)] == [0, 1]
    assert not any(isinstance(step, Migrate) for step in robin[1])


def test_a_host_with_too_few_nodes_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", {"a": [(0, 1, 2, False)]})
    with pytest.raises(InputError, match=r"^host.nodes = 2: must be at least 3: the trace has pages of a on node 2 \(or let "):
        trace_workload(path, 2, None)
    trace_workload(path, 2, {"a": 1})


def test_interleaved_memory_is_rounded_to_blocks_on_their_most_common_node(tmp_path: Path) -> None:
    n = 32 * MAX_AREAS
    nodes = np.where(np.arange(n) % 4 == 0, 1, 0)  # three pages of every four on node 0, in the other half on node 1
    nodes[n // 2 :] = 1 - nodes[n // 2 :]
    rows = [(page, 1, int(nodes[page]), False) for page in range(n)]
    path = write(tmp_path / "t.parquet", {"a": rows}, pages=n)
    mmaps = [step for step in steps(path)[0] if isinstance(step, Mmap)]
    assert [(mmap.pages, mmap.node) for mmap in mmaps] == [(n // 2, 0), (n // 2, 1)]
    assert not any(isinstance(step, Migrate) for step in steps(path)[0])


def write_version_1(path: Path, rows: list[tuple[int, str, int, int]], pages: dict[str, int]) -> Path:
    """Rows: time, mm, page, content, in order."""
    time_ms, mm, page, content = zip(*rows, strict=True)
    table = pa.table(
        {
            "time_ms": pa.array(time_ms, pa.uint32()),
            "mm": pa.array(mm).dictionary_encode(),
            "page": pa.array(page, pa.uint32()),
            "content": pa.array(content, pa.uint64()),
        }
    )
    about = {"version": 1, "page_size": 4096, "pages": pages, "content": "any"}
    pq.write_table(table.replace_schema_metadata({"ksmbatch.trace": json.dumps(about)}), path)
    return path


def as_version_2(old: Trace, path: Path) -> Path:
    with TraceWriter(path, order="memcmp", about=old.about) as writer:
        for time_ms in old.snapshots:
            writer.snapshot(time_ms)
            for number, (mm, pages) in enumerate(old.pages.items()):
                if time_ms == old.snapshots[0]:
                    writer.start(mm, pages=pages)
                rows = (old.time_ms == time_ms) & (old.mm == number)
                writer.rows(mm, old.page[rows], old.content[rows])
    return path


ROWS_1 = st.dictionaries(
    st.tuples(st.integers(0, 2**32 - 1), st.sampled_from(["a", "b"]), st.integers(0, 9)), st.integers(0, 2**64 - 1), min_size=1
)


@given(drawn=ROWS_1)
@settings(deadline=None, max_examples=60)
def test_a_trace_of_version_1_gives_the_same_events_as_the_same_trace_of_version_2(
    tmp_path_factory: pytest.TempPathFactory, drawn: dict[tuple[int, str, int], int]
) -> None:
    folder = tmp_path_factory.mktemp("versions")
    rows = [(*key, content) for key, content in sorted(drawn.items())]
    path = write_version_1(folder / "old.parquet", rows, {"a": 10, "b": 12})
    old = read_trace(path)
    read_back = zip(
        old.time_ms.tolist(), ["ab"[number] for number in old.mm], old.page.tolist(), old.content.tolist(), strict=True
    )
    assert list(read_back) == rows
    new = as_version_2(old, folder / "new.parquet")
    for binding in (None, "round_robin", {"b": 1}):
        assert steps(new, 2, binding) == steps(path, 2, binding)
    first = steps(path, 2, {"b": 1})[0]
    assert first[:4] == [
        Spawn(proc="a"),
        Mmap(proc="a", area="memory", pages=10),
        Spawn(proc="b", cpu_node=1),
        Mmap(proc="b", area="memory", pages=12, node=1),
    ]
    written = [step for snapshot in steps(path, 2, None) for step in snapshot if isinstance(step, tuple)]
    assert [(mm, page, content) for mm, _, pages, of in written for page, content in zip(pages, of, strict=True)] == [
        row[1:] for row in rows
    ]


# ---- any trace


@st.composite
def traces(draw: st.DrawFn) -> tuple[list[dict[str, list[Row]]], dict[str, int]]:
    row = st.tuples(st.integers(0, 3), st.integers(0, 1), st.booleans())
    snapshots: list[dict[str, list[Row]]] = []
    exits: dict[str, int] = {}
    living = ["a"]
    for k in range(draw(st.integers(1, 4))):
        if k and draw(st.booleans()):
            living.append(f"mm{k}")
        if k and len(living) > 1 and draw(st.booleans()):
            exits[living.pop(0)] = k
        changes = {mm: draw(st.dictionaries(st.integers(0, 7), row, min_size=1, max_size=8)) for mm in living}
        snapshots.append(
            {
                mm: [
                    (page, 0 if gone else content, -1 if gone else node, gone)
                    for page, (content, node, gone) in sorted(of.items())
                ]
                for mm, of in changes.items()
            }
        )
    known = {mm for snapshot in snapshots for mm in snapshot}
    return snapshots, {mm: k for mm, k in exits.items() if mm in known}


def replayed(workload: Workload, n_snapshots: int) -> dict[str, dict[int, tuple[int, int]]]:
    """Of each living mm: page -> (content, node) after the first snapshots, by the plainest reading of the events."""
    held: dict[str, dict[int, tuple[int, int]]] = {}
    areas: dict[tuple[str, str], tuple[int, int]] = {}
    for snapshot in workload.snapshots[:n_snapshots]:
        for step in snapshot.steps:
            match step:
                case Spawn(proc=mm):
                    held[mm] = {}
                case Mmap(proc=mm, area=area, node=node):
                    areas[mm, area] = sum(mmap.pages for mmap in mmaps(workload, mm, before=area)), node
                case Exit(proc=mm):
                    del held[mm]
                case Write(proc=mm, area=area):
                    first, node = areas[mm, area]
                    for page, content in zip((step.pages + first).tolist(), step.contents.tolist(), strict=True):
                        held[mm][page] = content, held[mm].get(page, (0, node))[1]
                case Discard(proc=mm, area=area, first=start, count=count):
                    for page in range(start, start + count):
                        held[mm].pop(areas[mm, area][0] + page, None)
                case Migrate(proc=mm, area=area, first=start, count=count, node=node):
                    for page in range(areas[mm, area][0] + start, areas[mm, area][0] + start + count):
                        held[mm][page] = held[mm][page][0], node
                case _:
                    pytest.fail(f"no trace says {step}")
    return held


def mmaps(workload: Workload, mm: str, before: str) -> list[Mmap]:
    """The areas of `mm` below the one called `before`."""
    of = [step for snapshot in workload.snapshots for step in snapshot.steps if isinstance(step, Mmap) and step.proc == mm]
    return of[: [mmap.area for mmap in of].index(before)]


@given(drawn=traces())
@settings(deadline=None, max_examples=60)
def test_the_events_leave_what_the_trace_says(tmp_path_factory: pytest.TempPathFactory, drawn: Any) -> None:
    snapshots, exits = drawn
    path = write(tmp_path_factory.mktemp("any") / "t.parquet", *snapshots, exits=exits)
    trace = read_trace(path)
    assert trace.gone is not None
    workload = trace_workload(path, 2, None)
    came_back = set(zip(trace.mm[trace.gone].tolist(), trace.page[trace.gone].tolist(), strict=True))
    for k in range(len(snapshots)):
        held = replayed(workload, k + 1)
        expected = memory_at(trace, k)
        assert set(held) == set(expected)
        for number, (mm, _) in enumerate(trace.pages.items()):
            if mm not in held:
                continue
            there = np.flatnonzero(expected[mm].present).tolist()
            assert sorted(held[mm]) == there
            assert [held[mm][page][0] for page in there] == expected[mm].content[there].tolist()
            stayed = [page for page in there if (number, page) not in came_back]
            assert [held[mm][page][1] for page in stayed] == expected[mm].node[stayed].tolist()


@given(drawn=traces())
@settings(deadline=None, max_examples=10)
def test_the_machine_takes_the_events_of_any_trace(tmp_path_factory: pytest.TempPathFactory, drawn: Any) -> None:
    snapshots, exits = drawn
    path = write(tmp_path_factory.mktemp("any") / "t.parquet", *snapshots, exits=exits)
    program = compile_workload(trace_workload(path, 2, None))
    machine = Machine(program, Kernel.V6_12, {"run": Run.MERGE, "pages_to_scan": 100, "merge_across_nodes": 0})
    for _, ready in program.snapshots:
        for step in ready:
            machine.apply(step)
        machine.scan(until_full_scans=machine.counter(Counter.FULL_SCANS) + 3)
    memory = memory_at(read_trace(path))
    assert set(machine.live) == set(memory)
    mapped = machine.state.node_counters[:, NodeCounter.MAPPED_PAGES].sum()
    assert mapped == sum(int(of.present.sum()) for of in memory.values())
