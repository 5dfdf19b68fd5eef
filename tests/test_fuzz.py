"""Configurations, scenarios and recordings from strangers: answered or refused in one line, soon and in little memory.

Traces and images have tests of their own, `tests/unit/test_trace_fuzz.py` and `tests/test_import_fuzz.py`. What is well
formed and large, a million full scans, is no fault of its file: numbers that are tried are small, or beyond what is allowed.
"""

import contextlib
import copy
import gzip
import io
import json
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from machines import compiled_only, full_scan, migrate, mmap, scenario, spawn, write
from small_sweep import write_small_sweep

from ksmbatch.cli import main
from ksmbatch.codes import Kernel
from ksmbatch.recordings import recording_text
from ksmbatch.replay import record
from ksmbatch.scenario import parse_scenario

MAX_SECONDS = 20  # long enough for a busy machine
MAX_GROWTH_KIB = 2**19
pytestmark = compiled_only
quietly = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


def answer(*arguments: str) -> int:
    """Exit status of `ksmbatch ARGUMENTS`; fails for one without a meaning, a refusal that is no line, and what takes long."""
    out, err = io.StringIO(), io.StringIO()
    start_s = time.perf_counter()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert time.perf_counter() - start_s < MAX_SECONDS
    status = exit_.value.code
    assert isinstance(status, int)
    assert status in (0, 1, 2), err.getvalue()
    if status == 2:
        line = err.getvalue().splitlines()[-1]
        assert line, out.getvalue()
        assert len(line) < 1500
        assert "Traceback" not in err.getvalue()
    return status


@pytest.fixture(autouse=True)
def _memory_is_bounded() -> Iterator[None]:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MAX_GROWTH_KIB


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_small_sweep(tmp_path)
    (tmp_path / "pair.json").write_text(json.dumps(SCENARIO))
    monkeypatch.chdir(tmp_path)
    return tmp_path


# ---- what is put in place of something good

NUMBERS = st.sampled_from([0, 1, 2, 3, 5, 8, -1, -(2**63), 2**31, 2**32, 2**63, 2**64, 10**40])
LEAVES = st.one_of(
    NUMBERS,
    st.none(),
    st.booleans(),
    st.sampled_from([0.5, -0.0, 1e308, float("nan"), float("inf")]),
    st.text(max_size=4),
    st.sampled_from(["", "x", "a", "1s", "\0", "\ud800", "\u2028", "round_robin", "6.1", "all"]),
)
JSON = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3), max_leaves=5
)


WORDS = ["a", "b", "x", "mm1", "6.1", "7.2", "v4", "nuksm", "replicate", "all", "batch", "5ms", "mergeable", "1s", "EBUSY"]
ALIKE = {int: st.integers(0, 4), float: st.sampled_from([0.0, 0.25, 1.0]), str: st.sampled_from(WORDS)}


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container in `value` with every key or index of it."""
    for key in list(value) if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], dict | list):
            yield from places(value[key])


def changed(draw: st.DrawFn, good: Any, values: st.SearchStrategy[Any]) -> Any:
    """`good` with one to three things in it replaced, left out, doubled or named otherwise."""
    document = copy.deepcopy(good)
    for _ in range(draw(st.integers(1, 3))):
        found = list(places(document))
        if not found:
            break
        container, key = draw(st.sampled_from(found))
        how = draw(st.sampled_from(["alike", "alike", "alike", "alike", "replace", "remove", "again", "rename"]))
        if how == "alike" and type(container[key]) in ALIKE:  # which is allowed, often
            container[key] = draw(ALIKE[type(container[key])])
        elif how in ("alike", "replace"):
            container[key] = draw(values)
        elif how == "remove":
            del container[key]
        elif isinstance(container, list):
            container.insert(key, copy.deepcopy(container[key]))
        else:
            container[draw(st.text(max_size=3)) if how == "rename" else key] = container.pop(key)
    return document


@st.composite
def documents(draw: st.DrawFn, good: Any) -> bytes:
    return json.dumps(changed(draw, good, JSON)).encode("utf-8", "surrogatepass")


@st.composite
def damaged(draw: st.DrawFn, good: bytes) -> bytes:
    """`good` with some of its bytes others, and perhaps cut off."""
    data = bytearray(good)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data) - 1))
        data[at : at + draw(st.integers(0, 3))] = draw(
            st.binary(max_size=4) | st.sampled_from([b"[" * 3000, b'"', b"9" * 5000])
        )
        data = data or bytearray(b" ")
    return bytes(data[: draw(st.integers(0, len(data)))] if draw(st.booleans()) else data)


# ---- scenarios and recordings

SCENARIO = scenario(
    spawn("a"),
    mmap("x", 4, node=1, proc="a"),
    write("x", 7, 7, 0, None, proc="a"),
    {"op": "fork", "proc": "a", "child": "b"},
    full_scan(2),
    migrate("x", 0, 1, 2, "a"),
    {"op": "madvise", "proc": "a", "area": "x", "advice": "unmergeable"},
    {"op": "knob", "name": "max_page_sharing", "value": 3},
    {"op": "compaction", "first": 0},
    {"op": "offline", "node": 1},
    {"op": "exit", "proc": "b"},
    full_scan(1),
    nodes=2,
    node_pages=1024,
)


RECORDING = json.loads(recording_text(record(parse_scenario(SCENARIO, "test"), Kernel.V6_12)))


@given(data=documents(SCENARIO) | damaged(json.dumps(SCENARIO).encode()) | st.binary(max_size=60))
@quietly
def test_any_scenario_is_replayed_or_refused(folder: Path, data: bytes) -> None:
    (folder / "s.json").write_bytes(data)
    answer("replay", "s.json", "--out", "o")


@given(data=documents(RECORDING) | damaged(json.dumps(RECORDING).encode()) | documents([RECORDING, SCENARIO]))
@quietly
def test_any_recording_is_compared_or_refused(folder: Path, data: bytes) -> None:
    (folder / "r.json").write_bytes(data)
    answer("conform", "r.json")


@given(data=damaged(gzip.compress(json.dumps(RECORDING).encode())))
@quietly
def test_any_damaged_gzip_is_compared_or_refused(folder: Path, data: bytes) -> None:
    (folder / "r.json.gz").write_bytes(data)
    answer("conform", "r.json.gz")


def test_a_little_gzip_that_is_large_inside_is_refused(folder: Path) -> None:
    with gzip.open(folder / "r.json.gz", "wb", compresslevel=1) as file:
        for _ in range(1024):
            file.write(b" " * 2**20)
    assert answer("conform", "r.json.gz") == 2


# ---- configurations

CONFIG = {
    "host": {"nodes": 2, "kernel": "6.12", "distance": [[10, 20], [20, 10]], "node_pages": 0},
    "ksm": {"merge_across_nodes": 0, "max_page_sharing": 8, "pages_to_scan": 200, "sleep_millisecs": 20, "run": 1},
    "migration": {"policy": "mainline", "callers": ["move_pages"], "locking": "none"},
    "workload": {
        "generator": "mix",
        "mms": 2,
        "pages_per_mm": 64,
        "zero": 0.1,
        "duplicated": 0.5,
        "group": [2, 4],
        "rewritten_per_scan": 0.1,
        "node": {"mm0": 0, "mm1": 1},
        "moves": [{"kind": "rebalance", "mm": "mm0", "node": 1, "at": 1}],
    },
    "run": {"full_scans": 2, "sample": "full_scan", "seed": 1},
    "sweep": {"ksm.smart_scan": [0, 1]},
}
OF_TRACE = CONFIG | {
    "workload": {"trace": "memory.parquet", "node": "round_robin"},
    "run": {"duration": "1s", "scans_per_snapshot": [2, 1, 1], "sample": "1s"},
}
OF_SCENARIO = {"host": {"nodes": 2, "node_pages": 1024}, "workload": {"scenario": "pair.json"}, "run": {"full_scans": 5}}
CONFIGS = (CONFIG, OF_TRACE, OF_SCENARIO)


def toml(value: Any) -> str:
    """`value` as TOML; what TOML does not have as an empty string."""
    match value:
        case bool():
            return "true" if value else "false"
        case dict():
            pairs = (f"{json.dumps(key)} = {toml(item)}" for key, item in value.items())
            return f"{{ {', '.join(pairs)} }}"
        case list():
            return f"[{', '.join(map(toml, value))}]"
        case int() | float():
            return str(value)
        case _:
            return json.dumps(value or "")


def config(sections: Any) -> bytes:
    lines = (f"{json.dumps(name)} = {toml(section)}" for name, section in sections.items())
    return "\n".join(lines).encode("utf-8", "surrogatepass")


@st.composite
def configs(draw: st.DrawFn) -> bytes:
    return config(changed(draw, draw(st.sampled_from(CONFIGS)), JSON))


@given(data=configs())
@quietly
def test_any_configuration_is_run_or_refused(folder: Path, data: bytes) -> None:
    (folder / "c.toml").write_bytes(data)
    answer("run", "c.toml", "--out", "o")
    answer("estimate", "c.toml", "--json")


@given(data=st.sampled_from([*map(config, CONFIGS)]).flatmap(damaged) | st.binary(max_size=60), given=st.text(max_size=12))
@quietly
def test_any_bytes_and_any_set_are_run_or_refused(folder: Path, data: bytes, given: str) -> None:
    (folder / "c.toml").write_bytes(data)
    answer("run", "c.toml", "--out", "o")
    (folder / "c.toml").write_bytes(config(CONFIG))
    for section in ("ksm.", "workload.moves[0].", "sweep.", ""):
        answer("estimate", "c.toml", "--json", f"--set={section}{given}")


def test_what_is_changed_is_good_to_begin_with(folder: Path) -> None:
    for good in CONFIGS:
        (folder / "c.toml").write_bytes(config(good))
        assert answer("run", "c.toml", "--out", "o") == 0
    (folder / "r.json").write_text(json.dumps(RECORDING))
    assert answer("conform", "r.json") == 0
