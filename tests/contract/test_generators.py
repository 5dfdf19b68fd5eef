"""Does every registered generator keep the promises of a generator? A new one is tested here before its author writes a test.

A generator's own parameters are tested beside it; here each is made with the least that it needs.
"""

import pkgutil
from dataclasses import FrozenInstanceError, fields, is_dataclass
from typing import Any

import numpy as np
import pytest
from small_generators import COME_AND_GO, FORKED, SMALL

from ksmbatch import generators
from ksmbatch.errors import InputError
from ksmbatch.events import Exit, Fork, LazyWrite, Mmap, Spawn, Step, Write
from ksmbatch.generators import GENERATORS, Generator
from ksmbatch.workload import Workload

HELPERS = {"base", "guests", "moments", "moved_mix", "moves", "ordering", "rng"}


@pytest.fixture(params=list(GENERATORS))
def generator(request: pytest.FixtureRequest) -> Generator:
    return GENERATORS[request.param]


def build(generator: Generator, seed: int = 1, binding: Any = None, full_scans: int = 4) -> Workload:
    parameters = generator.read(SMALL[generator.name])
    return generator.build(parameters, nodes=2, binding=binding, seed=seed, full_scans=full_scans)


def made(step: Step) -> Step:
    return step.made() if isinstance(step, LazyWrite) else step


def events(workload: Workload) -> list[tuple[Any, ...]]:
    """All events, arrays turned into bytes, so that they compare."""
    return [
        (number, step.proc, step.area, np.array(step.pages).tobytes(), step.contents.tobytes())
        if isinstance(step, Write)
        else (number, step)
        for number, snapshot in enumerate(workload.snapshots)
        for step in map(made, snapshot.steps)
    ]


def test_every_file_of_the_folder_is_a_generator_of_its_name_or_a_helper() -> None:
    files = {module.name.replace("_", "-") for module in pkgutil.iter_modules(generators.__path__)}
    assert files - {name.replace("_", "-") for name in HELPERS} == set(GENERATORS)
    assert set(SMALL) == set(GENERATORS)


def test_it_is_explained_in_one_line(generator: Generator) -> None:
    assert generator.about
    assert "\n" not in generator.about
    assert generator.parameters.__doc__
    for name in generator.keys:
        assert f"`{name}`" in generator.parameters.__doc__


def test_its_parameters_are_frozen_and_hashable(generator: Generator) -> None:
    parameters = generator.read(SMALL[generator.name])
    assert is_dataclass(parameters)
    assert hash(parameters) == hash(generator.read(SMALL[generator.name]))
    with pytest.raises(FrozenInstanceError):
        setattr(parameters, fields(parameters)[0].name, 1)


def test_an_unknown_key_names_the_nearest(generator: Generator) -> None:
    with pytest.raises(InputError, match=rf"unknown key \(nearest: {generator.keys[0]}\)"):
        generator.read({generator.keys[0] + "x": 1})


@pytest.mark.parametrize("wrong", [None, "x", [], {}, -1, float("inf")])
def test_no_parameter_takes_just_anything(generator: Generator, wrong: object) -> None:
    for name in generator.keys:
        with pytest.raises(InputError, match=rf"^workload\.{name}"):
            generator.read(SMALL[generator.name] | {name: wrong})


def test_the_same_seed_gives_the_same_events_and_another_seed_others(generator: Generator) -> None:
    once = events(build(generator))
    assert once == events(build(generator))
    assert once != events(build(generator, seed=2))


def test_snapshots_are_the_same_in_any_order_and_any_number_of_times(generator: Generator) -> None:
    once = events(build(generator))
    workload = build(generator)
    for number in reversed(range(len(workload.snapshots))):
        steps = list(workload.snapshots[number].steps)
        assert len(steps) == sum(each == number for each, *_ in once)
    assert events(workload) == once


def test_a_longer_run_begins_as_a_shorter_one_does(generator: Generator) -> None:
    short, long = events(build(generator, full_scans=2)), events(build(generator, full_scans=6))
    assert long[: len(short)] == short


def test_processes_start_before_they_are_written_and_every_write_stays_in_its_area(generator: Generator) -> None:
    workload = build(generator, binding="round_robin")
    sizes: dict[tuple[str, str], int] = {}
    started: list[str] = []
    n_writes = 0
    for snapshot in workload.snapshots:
        for step in map(made, snapshot.steps):
            if isinstance(step, Spawn):
                assert n_writes == 0 or generator.name in COME_AND_GO
                started.append(step.proc)
            elif isinstance(step, Fork):
                assert generator.name in FORKED
                sizes |= {(step.child, area): pages for (proc, area), pages in sizes.items() if proc == step.proc}
            elif isinstance(step, Exit):
                assert generator.name in COME_AND_GO
                sizes = {(proc, area): pages for (proc, area), pages in sizes.items() if proc != step.proc}
            elif isinstance(step, Mmap):
                assert step.node == started.index(step.proc) % 2
                sizes[step.proc, step.area] = step.pages
            else:
                assert isinstance(step, Write)
                n_writes += 1
                pages = np.array(step.pages)
                assert pages.dtype == np.int64
                assert step.contents.dtype == np.uint64
                assert pages.shape == step.contents.shape
                assert (np.diff(pages) > 0).all()
                assert 0 <= pages[0] <= pages[-1] < sizes[step.proc, step.area]
                assert step.contents.max() < 2**62
    assert len(set(started)) == len(started)
    assert n_writes >= len(started)


def test_what_comes_and_goes_and_what_is_forked_does_so(generator: Generator) -> None:
    steps = {type(step) for snapshot in build(generator).snapshots for step in snapshot.steps}
    assert (Exit in steps) == (generator.name in COME_AND_GO)
    assert (Fork in steps) == (generator.name in FORKED)


def test_a_binding_to_an_mm_that_is_not_there_is_refused(generator: Generator) -> None:
    with pytest.raises(InputError, match="there is no such mm"):
        build(generator, binding={"nobody": 1})
