"""Is the scenario language read as the oracle's recorder reads it, and is what it does not allow refused by name?"""

import copy
import gzip
import importlib.util
import json
import random
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from ksmbatch.codes import Caller
from ksmbatch.errors import InputError
from ksmbatch.scenario import (
    KNOBS,
    MAX_PAGES,
    ClearFrames,
    Discard,
    Exit,
    Fork,
    FullScan,
    Madvise,
    Migrate,
    Mmap,
    Mprotect,
    Munmap,
    Offline,
    Online,
    Read,
    Rebind,
    Scan,
    SetKnob,
    SetRun,
    Spawn,
    Write,
    load_scenarios,
    parse_scenario,
)

SPAWN = {"op": "spawn", "proc": "a"}
MMAP = {"op": "mmap", "proc": "a", "area": "heap", "pages": 8}
HEAP = {"proc": "a", "area": "heap"}


def scenario(*steps: Any, **fields: Any) -> dict[str, Any]:
    return {"name": "s", "nodes": 2, "steps": [SPAWN, MMAP, *steps]} | fields


def message(obj: object) -> str:
    with pytest.raises(InputError) as error:
        parse_scenario(obj, "f.json")
    line = str(error.value)
    assert "\n" not in line
    return line


@pytest.mark.parametrize(
    ("step", "event"),
    [
        ({"op": "spawn", "proc": "b", "cpu_node": 1}, Spawn(proc="b", cpu_node=1)),
        ({"op": "spawn", "proc": "b"}, Spawn(proc="b", cpu_node=0)),
        (
            {"op": "mmap", "proc": "a", "area": "x", "pages": 5000, "node": 1, "mergeable": False},
            Mmap(proc="a", area="x", pages=5000, node=1, mergeable=False),
        ),
        ({"op": "read", **HEAP, "first": 3}, Read(**HEAP, first=3, count=5)),
        ({"op": "discard", **HEAP, "first": 3, "count": 2}, Discard(**HEAP, first=3, count=2)),
        ({"op": "munmap", **HEAP}, Munmap(**HEAP, first=0, count=8)),
        ({"op": "madvise", **HEAP, "advice": "unmergeable"}, Madvise(**HEAP, first=0, count=8, mergeable=False)),
        ({"op": "madvise", **HEAP, "advice": "mergeable"}, Madvise(**HEAP, first=0, count=8, mergeable=True)),
        ({"op": "mprotect", **HEAP, "prot": "r"}, Mprotect(**HEAP, prot="r")),
        ({"op": "migrate", **HEAP, "count": 1, "node": 1}, Migrate(**HEAP, first=0, count=1, node=1)),
        (
            {"op": "migrate", **HEAP, "node": 1, "caller": "numa_balancing"},
            Migrate(**HEAP, first=0, count=8, node=1, caller=Caller.NUMA_BALANCING),
        ),
        ({"op": "rebind", **HEAP, "node": 1}, Rebind(**HEAP, node=1)),
        ({"op": "offline", "node": 1}, Offline(node=1)),
        ({"op": "online", "node": 0}, Online(node=0)),
        ({"op": "compaction", "first": 512}, ClearFrames(first=512, count=512, caller=Caller.COMPACTION)),
        ({"op": "thp", "first": 1024}, ClearFrames(first=1024, count=512, caller=Caller.THP)),
        ({"op": "cma", "range": [1030, 7]}, ClearFrames(first=1030, count=7, caller=Caller.CMA)),
        ({"op": "cma", "range": [0, 1024]}, ClearFrames(first=0, count=1024, caller=Caller.CMA)),
        ({"op": "fork", "proc": "a", "child": "b"}, Fork(proc="a", child="b")),
        ({"op": "exit", "proc": "a"}, Exit(proc="a")),
        ({"op": "scan"}, Scan(batches=1)),
        ({"op": "full_scan", "count": 3}, FullScan(count=3)),
        ({"op": "knob", "name": "max_page_sharing", "value": 1}, SetKnob(name="max_page_sharing", value=1)),
        ({"op": "run", "value": 2}, SetRun(value=2)),
    ],
)
def test_a_step_becomes_its_event(step: dict[str, Any], event: object) -> None:
    assert parse_scenario(scenario(step, node_pages=1024), "f").steps[2:] == (event,)


def test_a_node_has_as_many_frames_as_needed_unless_told_otherwise() -> None:
    assert parse_scenario(scenario(), "f").node_pages == 0
    assert parse_scenario(scenario(node_pages=100), "f").node_pages == 100


def test_what_older_recordings_do_not_have_is_not_filled_in() -> None:
    plain = parse_scenario(scenario({"op": "migrate", **HEAP, "node": 1}), "f").document
    assert "node_pages" not in plain
    assert "caller" not in plain["steps"][2]  # type: ignore[index]  # a list, as JSON has it
    told = parse_scenario(scenario({"op": "migrate", **HEAP, "node": 1, "caller": "thp"}, node_pages=0), "f").document
    assert list(told) == ["name", "nodes", "node_pages", "knobs", "steps"]
    assert told["steps"][2]["caller"] == "thp"  # type: ignore[index]


def test_null_contents_leave_their_pages_alone() -> None:
    write = parse_scenario(scenario({"op": "write", **HEAP, "first": 2, "contents": [7, None, 2**62 - 1]}), "f").steps[2]
    assert isinstance(write, Write)
    assert (write.pages.tolist(), write.pages.dtype) == ([2, 4], np.int64)
    assert (write.contents.tolist(), write.contents.dtype) == ([7, 2**62 - 1], np.uint64)


def test_a_write_of_nulls_writes_nothing() -> None:
    write = parse_scenario(scenario({"op": "write", **HEAP, "contents": [None]}), "f").steps[2]
    assert isinstance(write, Write)
    assert write.pages.size == write.contents.size == 0


def test_defaults_are_filled_in_and_the_given_object_is_left_alone() -> None:
    given = scenario({"op": "read", **HEAP}, knobs={"smart_scan": 1}, about="why")
    before = copy.deepcopy(given)
    parsed = parse_scenario(given, "f")
    assert given == before
    assert parsed.knobs == KNOBS | {"smart_scan": 1}
    assert parsed.document == {
        "name": "s",
        "about": "why",
        "nodes": 2,
        "knobs": KNOBS | {"smart_scan": 1},
        "steps": [
            {**SPAWN, "cpu_node": 0},
            {**MMAP, "node": 0, "mergeable": True},
            {"op": "read", **HEAP, "first": 0, "count": 8},
        ],
    }


def test_a_prune_delay_between_never_and_always_is_allowed() -> None:
    assert (
        parse_scenario(scenario(knobs={"stable_node_chains_prune_millisecs": 2000}), "f").knobs[
            "stable_node_chains_prune_millisecs"
        ]
        == 2000
    )


@pytest.mark.parametrize("value", [1, -1, 2**64])
def test_a_knob_value_that_the_kernel_refuses_is_no_error_of_the_scenario(value: int) -> None:
    step = {"op": "knob", "name": "max_page_sharing", "value": value}
    parsed = parse_scenario(scenario(step, knobs={"max_page_sharing": value}), "f")
    assert parsed.knobs["max_page_sharing"] == value
    assert parsed.steps[2] == SetKnob(name="max_page_sharing", value=value)


def test_sizes_go_beyond_the_recorder() -> None:
    steps = [{"op": "spawn", "proc": f"p{k}"} for k in range(40)]
    steps += [{"op": "mmap", "proc": "p0", "area": f"m{k}", "pages": 10_000_000} for k in range(100)]
    assert len(parse_scenario(scenario(*steps), "f").steps) == 142


def test_a_process_name_may_be_an_area_name_of_another_process_too() -> None:
    steps = [{"op": "spawn", "proc": "heap"}, {"op": "mmap", "proc": "heap", "area": "heap", "pages": 1}]
    assert len(parse_scenario(scenario(*steps), "f").steps) == 4


@pytest.mark.parametrize(
    ("obj", "line"),
    [
        ([], "f.json: []: must be a scenario, i.e. a JSON object"),
        ({}, "f.json: name: is missing: must be a string"),
        (scenario(name=3), "f.json: name = 3: must be a string"),
        (scenario(name="a/b"), 'f.json: a/b: name = "a/b": must be usable as a file name'),
        (scenario(name=".."), 'f.json: ..: name = "..": must be usable as a file name'),
        (scenario(name=""), 'name = "": must be usable as a file name'),
        (scenario(name="a\nb"), "must be usable as a file name"),
        (scenario(nodes=9), "f.json: s: nodes = 9: must be an integer from 1 to 8"),
        (scenario(nodes=True), "f.json: s: nodes = true: must be an integer from 1 to 8"),
        (scenario(nodes=2.0), "f.json: s: nodes = 2.0: must be an integer"),
        (scenario(node_pages=-1), "f.json: s: node_pages = -1: must be an integer >= 0"),
        (scenario(node_pages=None), "f.json: s: node_pages = null: must be an integer >= 0"),
        (scenario(abuot="x"), 'f.json: s: abuot = "x": unknown field (nearest: about)'),
        (scenario(about=1), "f.json: s: about = 1: must be a string"),
        (scenario(steps={}), "f.json: s: steps = {}: must be a list of steps"),
        ({"name": "s", "nodes": 1}, "f.json: s: steps: is missing: must be a list of steps"),
        (scenario(knobs=[]), "f.json: s: knobs = []: must be an object"),
        (scenario(knobs={"smartscan": 1}), "f.json: s: knobs: smartscan = 1: unknown field (nearest: smart_scan)"),
        (scenario(knobs={"sleep_millisecs": 1}), "f.json: s: knobs: sleep_millisecs = 1: unknown field"),
        (scenario(knobs={"run": 3}), "f.json: s: knobs: run = 3: must be an integer from 0 to 2"),
        (scenario(knobs={"pages_to_scan": "9"}), 'f.json: s: knobs: pages_to_scan = "9": must be an integer'),
    ],
)
def test_a_bad_head_is_named(obj: object, line: str) -> None:
    assert line in message(obj)


@pytest.mark.parametrize(
    ("step", "line"),
    [
        (3, "step 2: 3: must be an object with an op"),
        ({}, "step 2: op: is missing: unknown op"),
        ({"op": 1}, "step 2: op = 1: unknown op"),
        ({"op": "wirte"}, 'step 2: op = "wirte": unknown op (nearest: write)'),
        ({"op": "scan", "batch": 2}, "step 2 (scan): batch = 2: unknown field (nearest: batches)"),
        ({"op": "scan", "batches": 0}, "step 2 (scan): batches = 0: must be an integer >= 1"),
        ({"op": "scan", "batches": None}, "step 2 (scan): batches = null: must be an integer >= 1"),
        ({"op": "full_scan", "count": True}, "step 2 (full_scan): count = true: must be an integer >= 1"),
        ({"op": "spawn"}, "step 2 (spawn): proc: is missing: must be a string"),
        ({"op": "spawn", "proc": "a"}, 'step 2 (spawn): proc = "a": process names are not reused'),
        ({"op": "spawn", "proc": "b", "cpu_node": 2}, "step 2 (spawn): cpu_node = 2: must be an integer from 0 to 1"),
        ({**MMAP}, 'step 2 (mmap): area = "heap": area names are not reused'),
        ({**MMAP, "proc": "b"}, 'step 2 (mmap): proc = "b": no such process (nearest: a)'),
        ({**MMAP, "area": "x", "pages": 0}, "step 2 (mmap): pages = 0: must be an integer >= 1"),
        ({**MMAP, "area": "x", "node": 2}, "step 2 (mmap): node = 2: must be an integer from 0 to 1"),
        ({**MMAP, "area": "x", "mergeable": 1}, "step 2 (mmap): mergeable = 1: must be true or false"),
        (
            {**MMAP, "area": "x", "pages": MAX_PAGES},
            f"makes {MAX_PAGES + 8} pages in the scenario: must be at most {MAX_PAGES}",
        ),
        ({"op": "write", **HEAP}, "step 2 (write): contents: is missing: must be a list"),
        ({"op": "write", **HEAP, "contents": []}, "step 2 (write): contents = []: must be a list of at least one"),
        (
            {"op": "write", **HEAP, "contents": [1, 2, -1]},
            "f.json: s: step 2 (write): contents[2] = -1: must be an integer >= 0 and < 2**62",
        ),
        (
            {"op": "write", **HEAP, "contents": [2**62]},
            "contents[0] = 4611686018427387904: must be an integer >= 0 and < 2**62",
        ),
        ({"op": "write", **HEAP, "contents": [True]}, "contents[0] = true: must be"),
        ({"op": "write", **HEAP, "contents": [1.0]}, "contents[0] = 1.0: must be"),
        ({"op": "write", **HEAP, "first": 7, "contents": [1, 2]}, "contents: 2 pages from page 7 on: heap has 8 pages"),
        ({"op": "write", **HEAP, "first": -1, "contents": [1]}, "step 2 (write): first = -1: must be an integer from 0 to 7"),
        ({"op": "write", **HEAP, "count": 1, "contents": [1]}, "step 2 (write): count = 1: unknown field"),
        ({"op": "read", "proc": "a", "area": "hep"}, 'step 2 (read): area = "hep": a has no such area (nearest: heap)'),
        ({"op": "read", **HEAP, "first": 8}, "step 2 (read): first = 8: must be an integer from 0 to 7"),
        ({"op": "discard", **HEAP, "first": 4, "count": 5}, "step 2 (discard): count = 5: must be an integer from 1 to 4"),
        ({"op": "munmap", **HEAP, "count": 0}, "step 2 (munmap): count = 0: must be an integer from 1 to 8"),
        ({"op": "madvise", **HEAP}, "step 2 (madvise): advice: is missing: must be one of mergeable, unmergeable"),
        ({"op": "madvise", **HEAP, "advice": []}, "step 2 (madvise): advice = []: must be one of"),
        ({"op": "mprotect", **HEAP, "prot": "x"}, 'step 2 (mprotect): prot = "x": must be one of none, r, rw'),
        ({"op": "mprotect", **HEAP, "count": 1, "prot": "r"}, "count = 1: must be the whole area, 8 pages"),
        ({"op": "migrate", **HEAP}, "step 2 (migrate): node: is missing: must be an integer from 0 to 1"),
        (
            {"op": "migrate", **HEAP, "node": 1, "caller": "numad"},
            'step 2 (migrate): caller = "numad": must be one of hotremove, compaction, cma, thp, numa_balancing, move_pages',
        ),
        ({"op": "migrate", **HEAP, "node": 1, "caller": None}, "step 2 (migrate): caller = null: must be one of"),
        ({"op": "rebind", **HEAP}, "step 2 (rebind): node: is missing: must be an integer from 0 to 1"),
        ({"op": "rebind", **HEAP, "first": 0, "node": 1}, "step 2 (rebind): first = 0: unknown field"),
        ({"op": "offline", "node": 2}, "step 2 (offline): node = 2: must be an integer from 0 to 1"),
        ({"op": "online"}, "step 2 (online): node: is missing: must be an integer from 0 to 1"),
        ({"op": "thp", "first": 0}, "step 2 (thp): first = 0: counts frames, which needs node_pages"),
        ({"op": "cma", "range": [0, 1]}, "step 2 (cma): range = [0, 1]: counts frames, which needs node_pages"),
        ({"op": "fork", "proc": "a", "child": "a"}, 'step 2 (fork): child = "a": process names are not reused'),
        ({"op": "exit", "proc": "z"}, 'step 2 (exit): proc = "z": no such process (nearest: a)'),
        ({"op": "knob", "name": "run", "value": 1}, 'step 2 (knob): name = "run": must be one of merge_across_nodes,'),
        ({"op": "knob", "name": "smart_scan"}, "step 2 (knob): value: is missing: must be an integer"),
        ({"op": "run", "value": 3}, "step 2 (run): value = 3: must be an integer from 0 to 2"),
    ],
)
def test_a_bad_step_is_named_with_its_key(step: object, line: str) -> None:
    assert line in message(scenario(step))


@pytest.mark.parametrize(
    ("step", "line"),
    [
        ({"op": "compaction"}, "(compaction): first: is missing: must be an integer from 0 to 1999"),
        ({"op": "compaction", "first": 2048}, "first = 2048: must be an integer from 0 to 1999"),
        ({"op": "compaction", "first": 500}, "first = 500: must be a multiple of 512"),
        ({"op": "thp", "first": 512}, "first = 512: must lie within one node: 512 frames, and node 0 ends with frame 999"),
        ({"op": "thp", "first": 0, "count": 512}, "(thp): count = 512: unknown field"),
        ({"op": "cma"}, "(cma): range: is missing: must be the first frame and how many"),
        ({"op": "cma", "range": [1]}, "range = [1]: must be the first frame and how many"),
        ({"op": "cma", "range": [2000, 1]}, "range[0] = 2000: must be an integer from 0 to 1999"),
        ({"op": "cma", "range": [1, 0]}, "range[1] = 0: must be an integer >= 1"),
        ({"op": "cma", "range": [1, True]}, "range[1] = true: must be an integer >= 1"),
        ({"op": "cma", "range": [1998, 3]}, "range = [1998, 3]: must lie within one node: 3 frames, and node 1 ends with"),
    ],
)
def test_frames_that_cannot_be_cleared_are_named(step: object, line: str) -> None:
    assert line in message(scenario(step, node_pages=1000))


@pytest.mark.parametrize(
    ("steps", "line"),
    [
        (
            [{"op": "munmap", **HEAP, "first": 2, "count": 3}, {"op": "write", **HEAP, "contents": [1, None, None, 1]}],
            "step 3 (write): contents[3]: page 3 of heap is unmapped",
        ),
        (
            [{"op": "munmap", **HEAP, "first": 2, "count": 1}, {"op": "read", **HEAP}],
            "step 3 (read): first = 0: reads unmapped pages",
        ),
        (
            [
                {"op": "munmap", **HEAP, "first": 7},
                {"op": "fork", "proc": "a", "child": "b"},
                {"op": "write", "proc": "b", "area": "heap", "first": 7, "contents": [1]},
            ],
            "step 4 (write): contents[0]: page 7 of heap is unmapped",
        ),
        (
            [
                {"op": "mprotect", **HEAP, "prot": "none"},
                {"op": "fork", "proc": "a", "child": "b"},
                {"op": "read", "proc": "b", "area": "heap"},
            ],
            'step 4 (read): area = "heap": must not be read: its prot is none',
        ),
        (
            [{"op": "exit", "proc": "a"}, {"op": "exit", "proc": "a"}],
            'step 3 (exit): proc = "a": no such process (it has exited)',
        ),
        (
            [{"op": "exit", "proc": "a"}, {"op": "spawn", "proc": "a"}],
            'step 3 (spawn): proc = "a": process names are not reused',
        ),
        (
            [{"op": "mmap", "proc": "a", "area": "x", "pages": 2**30}, {"op": "fork", "proc": "a", "child": "b"}],
            'step 3 (fork): child = "b": makes 2147483664 pages in the scenario: must be at most 2147483647',
        ),
    ],
)
def test_what_earlier_steps_forbid_is_named(steps: list[Any], line: str) -> None:
    assert line in message(scenario(*steps))


@pytest.mark.parametrize(
    "steps",
    [
        [{"op": "munmap", **HEAP, "first": 2, "count": 3}, {"op": "write", **HEAP, "contents": [1, 1, None, None, None, 1]}],
        [{"op": "munmap", **HEAP, "first": 2, "count": 3}, {"op": "discard", **HEAP}, {"op": "migrate", **HEAP, "node": 1}],
        [{"op": "mprotect", **HEAP, "prot": "none"}, {"op": "write", **HEAP, "contents": [1]}],
        [{"op": "mprotect", **HEAP, "prot": "none"}, {"op": "mprotect", **HEAP, "prot": "rw"}, {"op": "read", **HEAP}],
    ],
)
def test_what_earlier_steps_leave_possible_is_accepted(steps: list[Any]) -> None:
    assert len(parse_scenario(scenario(*steps), "f").steps) == 2 + len(steps)


# ---- files


def test_every_recorded_scenario_is_read_and_its_document_is_the_recorded_one(root: Path) -> None:
    file = root / "tests/recordings/6.12.json.gz"
    recorded = json.loads(gzip.decompress(file.read_bytes()))
    loaded = load_scenarios(file)
    assert len(loaded) == 331
    assert {release for _, release in loaded} == {"6.12.95+deb12-cloud-amd64"}
    for recording, (parsed, _) in zip(recorded, loaded, strict=True):
        assert json.dumps(parsed.document) == json.dumps(recording["scenario"])


def test_scenarios_lists_recordings_and_folders_are_all_read(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "b.json").write_text(json.dumps(scenario(name="bare")))
    (tmp_path / "a.json").write_text(json.dumps([scenario(name="one"), scenario(name="two")]))
    recording = {"kernel": "6.1.0-56", "scenario": scenario(name="recorded")}
    (tmp_path / "sub" / "c.json.gz").write_bytes(gzip.compress(json.dumps(recording).encode()))
    (tmp_path / "notes.txt").write_text("not read")
    found = [(parsed.name, release) for parsed, release in load_scenarios(tmp_path)]
    assert found == [("one", None), ("two", None), ("bare", None), ("recorded", "6.1.0-56")]


@pytest.mark.parametrize(
    ("data", "rule"),
    [
        (b"", "is no JSON"),
        (b'{"name": ', "is no JSON"),
        (b"\xff\xfe{", "is no JSON"),
        (b"[" * 100_000, "is no JSON"),
        (b'{"name": "s", "nodes": ' + b"1" * 5000 + b"}", "is no JSON"),
        (b"3", "[0] = 3: must be a scenario or a recording"),
        (b'[{"name": "s", "nodes": 1, "steps": []}, null]', "[1] = null: must be a scenario or a recording"),
        (gzip.compress(b"{}" * 100)[:-10], "truncated or damaged gzip"),
        (gzip.compress(b"{}")[:-1] + b"x", "cannot be read"),
        (b'{"scenario": {}, "kernel": 6}', "kernel = 6: must be a kernel release"),
        (b'{"scenario": {}, "kernel": "6.1"}', "name: is missing"),
        (b'{"name": "s", "nodes": NaN, "steps": []}', "nodes = NaN: must be an integer"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path, data: bytes, rule: str) -> None:
    file = tmp_path / "x.json"
    file.write_bytes(data)
    with pytest.raises(InputError) as error:
        load_scenarios(file)
    assert str(error.value).startswith(str(file))
    assert rule in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_file_and_an_empty_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        load_scenarios(tmp_path / "none.json")
    with pytest.raises(InputError, match=r"holds no \.json"):
        load_scenarios(tmp_path)


# ---- against the recorder


def _recorder(shared: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("oracle_record", shared / "oracle/record.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _damage(document: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    """A scenario with one step lost, moved or changed, within what the recorder checks at all."""
    damaged: dict[str, Any] = copy.deepcopy(document)
    steps = damaged["steps"]
    k = rng.randrange(len(steps))
    kind = rng.randrange(4)
    if kind == 0:
        del steps[k]
    elif kind == 1:
        steps.insert(rng.randrange(len(steps)), steps.pop(k))
    else:
        key = rng.choice([key for key in steps[k] if key not in ("op", "mergeable")])
        value = steps[k][key]
        if kind == 2 and key not in ("first", "count"):
            del steps[k][key]
        elif isinstance(value, int):
            steps[k][key] = value + rng.choice([-9, -1, 1, 2, 9])
        elif isinstance(value, str):
            steps[k][key] = rng.choice(["a", "b", "m0", "heap", "rw", "r", "none", "mergeable", "unmergeable", "smart_scan"])
        else:
            value[rng.randrange(len(value))] = rng.choice([None, -1, 2**62, 2**62 - 1, True, "1"])
    return damaged


def test_damaged_scenarios_are_accepted_exactly_when_the_recorder_accepts_them(root: Path, shared: Path) -> None:
    recorder = _recorder(shared)
    rng = random.Random(20261123)
    outcomes = {True: 0, False: 0}
    for parsed, _ in load_scenarios(root / "tests/recordings/6.12.json.gz"):
        for _ in range(8):
            damaged = _damage(parsed.document, rng)
            if any(content is True for step in damaged["steps"] for content in step.get("contents", ())):
                continue  # the recorder takes true for 1; we do not
            try:
                expected = recorder.normalise(damaged)
            except recorder.Bad:
                expected = None
            if expected is None:
                with pytest.raises(InputError):
                    parse_scenario(damaged, "f")
            else:
                assert parse_scenario(damaged, "f").document == expected
            outcomes[expected is not None] += 1
    assert min(outcomes.values()) > 500
