"""Does every registered mover keep the promises of a mover? A new one is tested here before its author writes a test.

What each mover does is tested beside it; here each is made with the least that it needs, and laid over small memory.
"""

import importlib
from dataclasses import FrozenInstanceError, asdict, fields, is_dataclass, replace
from typing import Any

import pytest
from small_moves import HOST, MOVES

from ksmbatch.errors import InputError
from ksmbatch.events import (
    ClearFrames,
    LazyWrite,
    Migrate,
    Mmap,
    Offline,
    Online,
    Rebind,
    SetKnob,
    SetRun,
    Spawn,
    Step,
    Write,
)
from ksmbatch.generators import GENERATORS, MOVERS, Move, Mover
from ksmbatch.generators.moves import lay
from ksmbatch.scenario import parse_scenario
from ksmbatch.workload import Snapshot, Workload

MIX = {"mms": 3, "pages_per_mm": 200, "duplicated": 0.3, "rewritten_per_scan": 0.1}
OPS = {
    Spawn: "spawn",
    Mmap: "mmap",
    Migrate: "migrate",
    Rebind: "rebind",
    Offline: "offline",
    Online: "online",
    SetKnob: "knob",
    SetRun: "run",
}


@pytest.fixture(params=list(MOVERS))
def mover(request: pytest.FixtureRequest) -> Mover:
    return MOVERS[request.param]


def memory(full_scans: int = 8) -> Workload:
    mix = GENERATORS["mix"]
    return mix.build(mix.read(MIX), nodes=2, binding=None, seed=1, full_scans=full_scans)


def clocked(full_scans: int = 8) -> Workload:
    """The same, but by a clock, a snapshot every second, as a trace has it."""
    made = memory(full_scans)
    snapshots = tuple(Snapshot(time_ms=1000 * k, steps=snapshot.steps) for k, snapshot in enumerate(made.snapshots))
    return replace(made, snapshots=snapshots, per_scan=False)


def laid(mover: Mover, workload: Workload) -> Workload:
    return lay(workload, [Move(mover, mover.read(MOVES[mover.name], "workload.moves[0]"), "workload.moves[0]")], HOST)


def document(step: Step) -> dict[str, Any]:
    """The step as the scenario language has it."""
    if isinstance(step, LazyWrite):
        step = step.made()
    if isinstance(step, Write):
        contents: list[int | None] = [None] * (int(step.pages[-1]) + 1)
        for page, content in zip(step.pages, step.contents.tolist(), strict=True):
            contents[page] = content
        return {"op": "write", "proc": step.proc, "area": step.area, "contents": contents}
    if isinstance(step, ClearFrames):
        if step.caller.word == "cma":
            return {"op": "cma", "range": [step.first, step.count]}
        assert step.count == 512
        return {"op": step.caller.word, "first": step.first}
    given = {name: value.word if name == "caller" else value for name, value in asdict(step).items()}
    return {"op": OPS[type(step)], **given}


def events(workload: Workload) -> list[tuple[int, int, str]]:
    """All events with the number and the time of their snapshot, as text, so that they compare."""
    return [
        (number, snapshot.time_ms, repr(document(step)))
        for number, snapshot in enumerate(workload.snapshots)
        for step in snapshot.steps
    ]


def test_every_mover_has_the_name_of_its_file_and_is_a_generator_too(mover: Mover) -> None:
    module = importlib.import_module(f"ksmbatch.generators.{mover.name.replace('-', '_')}")
    assert module.MOVER is mover
    assert module.GENERATOR is GENERATORS[mover.name]
    assert module.GENERATOR.mover is mover
    assert "[[workload.moves]]" in module.GENERATOR.about
    assert set(MOVES) == set(MOVERS)


def test_it_is_explained(mover: Mover) -> None:
    assert mover.about
    assert "\n" not in mover.about
    assert mover.parameters.__doc__
    for name in mover.keys:
        assert f"`{name}`" in mover.parameters.__doc__


def test_its_parameters_are_frozen_and_hashable(mover: Mover) -> None:
    parameters = mover.read(MOVES[mover.name], "k")
    assert is_dataclass(parameters)
    assert hash(parameters) == hash(mover.read(MOVES[mover.name], "k"))
    with pytest.raises(FrozenInstanceError):
        setattr(parameters, fields(parameters)[0].name, 1)


def test_an_unknown_or_missing_key_is_named_under_its_table(mover: Mover) -> None:
    with pytest.raises(
        InputError, match=rf"^workload\.moves\[1\]\.{mover.keys[0]}x = 1: unknown key \(nearest: {mover.keys[0]}\)$"
    ):
        mover.read({mover.keys[0] + "x": 1}, "workload.moves[1]")
    with pytest.raises(InputError, match=rf"^workload\.moves\[1\]\.\w+: is missing: {mover.name} needs it$"):
        mover.read({}, "workload.moves[1]")
    with pytest.raises(InputError, match=r"^workload\.move = 3: must be a table"):
        mover.read(3, "workload.move")


@pytest.mark.parametrize("wrong", [[], {}, -1, 1.5, float("inf"), "1 parsec", None])
def test_no_parameter_takes_just_anything(mover: Mover, wrong: object) -> None:
    for field in fields(mover.parameters):
        if field.default is wrong or (isinstance(wrong, str) and field.name == "mm"):
            continue  # left out; the name of an mm may be anything, and is looked for later
        with pytest.raises(InputError, match=rf"^workload\.moves\[0\]\.{field.name}"):
            mover.read(MOVES[mover.name] | {field.name: wrong}, "workload.moves[0]")


def test_its_events_are_of_the_scenario_language_and_in_its_rules(mover: Mover) -> None:
    for workload in (memory(), clocked()):
        steps = [document(step) for snapshot in laid(mover, workload).snapshots for step in snapshot.steps]
        parsed = parse_scenario({"name": "laid", "nodes": 2, "node_pages": HOST.node_pages, "steps": steps}, "f")
        assert [document(step) for step in parsed.steps] == steps


def test_the_host_is_checked(mover: Mover) -> None:
    mover.check(mover.read(MOVES[mover.name], "k"), HOST)
    if "node" in mover.keys:
        with pytest.raises(InputError, match=r"^workload\.node = 2: must be 0 to 1 \(host\.nodes = 2\)$"):
            mover.check(mover.read(MOVES[mover.name] | {"node": 2}, "k"), HOST)


def test_the_same_parameters_give_the_same_events_in_any_order(mover: Mover) -> None:
    once = events(laid(mover, memory()))
    workload = laid(mover, memory())
    for number in reversed(range(len(workload.snapshots))):
        assert len(list(workload.snapshots[number].steps)) == sum(each == number for each, *_ in once)
    assert events(workload) == once


def test_a_longer_run_begins_as_a_shorter_one_does(mover: Mover) -> None:
    for make in (memory, clocked):
        short, long = events(laid(mover, make(8))), events(laid(mover, make(12)))
        assert long[: len(short)] == short


def test_what_the_memory_does_by_itself_stays_and_comes_first(mover: Mover) -> None:
    for make in (memory, clocked):
        before, after = make(), laid(mover, make())
        assert len(after.snapshots) == len(before.snapshots)
        n_added = 0
        for own, both in zip(before.snapshots, after.snapshots, strict=True):
            steps = [document(step) for step in both.steps]
            assert steps[: len(own.steps)] == [document(step) for step in own.steps]
            assert own.time_ms == both.time_ms
            n_added += len(steps) - len(own.steps)
        assert n_added > 0
