"""Is an estimate what ksmd comes to? Held against the simulated ksmd, converged on the same memory, counter for counter.

Memory is made by random steps: processes on several nodes, few contents, forks, writes, moves, pages that go or may not merge.
"""

from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from machines import KERNELS, Player, compiled_only, full_scan, migrate, mmap, scenario, spawn, write
from rich.console import Console
from small_generators import SMALL
from small_images import EXAMPLES, Example

from ksmbatch.codes import Kernel
from ksmbatch.estimate import Estimate, estimate
from ksmbatch.events import FullScan
from ksmbatch.generators import GENERATORS
from ksmbatch.importing import import_inputs
from ksmbatch.machine import Machine
from ksmbatch.memory import memory_after
from ksmbatch.memory_inputs import load_memory
from ksmbatch.metrics import NodeCounter, derive
from ksmbatch.program import compile_workload
from ksmbatch.scenario import parse_scenario
from ksmbatch.trace_events import trace_workload
from ksmbatch.workload import Snapshot, Workload

SCANS = 7  # two merge what stands still; what fork shares may wait for a scan or two
COUNTERS = ("pages_shared", "pages_sharing", "ksm_zero_pages", "stable_node_chains", "stable_node_dups", "general_profit")
Step = dict[str, Any]


@st.composite
def memories(draw: st.DrawFn, forks: bool) -> tuple[int, list[Step]]:
    """Nodes of a host, and steps that fill its memory."""
    nodes = draw(st.integers(1, 3))
    contents = st.integers(0, draw(st.sampled_from((1, 2, 5, 19))))
    nids = st.integers(0, nodes - 1)
    steps: list[Step] = []
    areas: dict[str, dict[str, int]] = {}
    for number in range(draw(st.integers(1, 4))):
        proc = f"p{number}"
        steps.append(spawn(proc))
        areas[proc] = {}
        for area in ("a", "b")[: draw(st.integers(1, 2))]:
            held = draw(st.lists(st.none() | contents, min_size=1, max_size=12)) * draw(st.sampled_from((1, 1, 2, 3)))
            steps.append(
                mmap(area, len(held), node=draw(nids), proc=proc, mergeable=draw(st.sampled_from((True, True, False))))
            )
            steps.append(write(area, *held, proc=proc))
            areas[proc][area] = len(held)
    for number in range(draw(st.integers(0, 9))):
        proc = draw(st.sampled_from(sorted(areas)))
        area = draw(st.sampled_from(sorted(areas[proc])))
        first = draw(st.integers(0, areas[proc][area] - 1))
        count = draw(st.integers(1, areas[proc][area] - first))
        there = {"proc": proc, "area": area, "first": first, "count": count}
        kinds = ["write", "write", "migrate", "discard", "read", "madvise", "merge_any", "rebind"]
        kinds += ["fork", "fork", "fork"] * forks + ["exit"] * (len(areas) > 1)
        match draw(st.sampled_from(kinds)):
            case "write":
                steps.append(write(area, *draw(st.lists(contents, min_size=count, max_size=count)), first=first, proc=proc))
            case "migrate":
                steps.append(migrate(area, draw(nids), first, count, proc))
            case "madvise":
                steps.append({"op": "madvise", **there, "advice": draw(st.sampled_from(("mergeable", "unmergeable")))})
            case "merge_any":
                steps.append({"op": "merge_any", "proc": proc, "value": draw(st.integers(0, 1))})
            case "rebind":
                steps.append({"op": "rebind", "proc": proc, "area": area, "node": draw(nids)})
            case "fork":
                steps.append({"op": "fork", "proc": proc, "child": f"c{number}"})
                areas[f"c{number}"] = dict(areas[proc])
            case "exit":
                steps.append({"op": "exit", "proc": proc})
                del areas[proc]
            case op:
                steps.append({"op": op, **there})
    return nodes, steps


def estimated(nodes: int, steps: list[Step], kernel: str, max_page_sharing: int) -> Estimate:
    parsed = parse_scenario(scenario(*steps, nodes=nodes), "test")
    return estimate(memory_after([parsed.steps], nodes, Kernel.parse(kernel)), max_page_sharing)


def counted(found: Estimate, across: int, zero: int) -> dict[str, int]:
    setting = found.setting(across, zero)
    return {name: getattr(getattr(setting, name), "value", getattr(setting, name)) for name in COUNTERS}


def agree(nodes: int, steps: list[Step], kernel: str, max_page_sharing: int, across: int, zero: int, smart_scan: int) -> None:
    knobs = {"merge_across_nodes": across, "max_page_sharing": max_page_sharing, "use_zero_pages": zero}
    knobs |= {} if kernel == "6.1" else {"smart_scan": smart_scan}
    player = Player(scenario(*steps, full_scan(SCANS), nodes=nodes, **knobs), kernel)
    counters = player.run()
    found = estimated(nodes, steps, kernel, max_page_sharing)
    assert counted(found, across, zero) == {name: counters[name] for name in COUNTERS}
    assert counters["saved_pages"] == found.setting(across, zero).saved_pages.value
    if found.mm_barred.any():
        return  # those have frames, too, which the machine counts and the estimate does not
    by_node = player.machine.state.node_counters.tolist()
    remote = sum(node[NodeCounter.REMOTE_MAPPINGS] for node in by_node)
    assert found.setting(across, zero).remote_mappings.value == remote  # type: ignore[union-attr]  # asked for
    if zero:
        return
    saved = [node.saved_across if across else node.saved_apart for node in found.nodes]
    assert saved == [node[NodeCounter.MAPPED_PAGES] - node[NodeCounter.FRAMES] for node in by_node]
    if across:
        assert [node.remote_mappings for node in found.nodes] == [node[NodeCounter.REMOTE_MAPPINGS] for node in by_node]


SETTINGS = {
    "kernel": st.sampled_from(KERNELS),
    "max_page_sharing": st.sampled_from((2, 3, 4, 7, 256)),
    "across": st.integers(0, 1),
    "zero": st.integers(0, 1),
    "smart_scan": st.integers(0, 1),
}


@given(memories(forks=False), st.fixed_dictionaries(SETTINGS))
def test_the_closed_form_is_what_ksmd_comes_to(made: tuple[int, list[Step]], settings: dict[str, Any]) -> None:
    agree(*made, **settings)


@given(memories(forks=True), st.fixed_dictionaries(SETTINGS))
def test_it_is_so_where_fork_shares_frames(made: tuple[int, list[Step]], settings: dict[str, Any]) -> None:
    agree(*made, **settings)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("most", [2, 3, 5, 16])
def test_every_number_of_pages_up_to_three_full_ksm_pages(most: int, kernel: str) -> None:
    areas = [step for n in range(1, 3 * most + 2) for step in (mmap(f"m{n}", n), write(f"m{n}", *[n] * n))]
    agree(1, [spawn(), *areas], kernel, most, across=1, zero=0, smart_scan=0)


def converged(workload: Workload, kernel: Kernel, **knobs: int) -> dict[str, int]:
    """The counters when ksmd has made of the workload's last memory what it can, without having seen what was before."""
    steps = (*chain.from_iterable(snapshot.steps for snapshot in workload.snapshots), FullScan(count=SCANS))
    program = compile_workload(replace(workload, snapshots=(Snapshot(time_ms=0, steps=steps),), per_scan=False))
    machine = Machine(program, kernel, {"pages_to_scan": 10**6, "run": 1, **knobs})
    for step in program.snapshots[0][1]:
        assert not machine.apply(step).undefined
    return derive(machine.state.counters.tolist())


@compiled_only
@pytest.mark.parametrize("across", [0, 1])
def test_the_estimate_of_real_memory_is_what_ksmd_comes_to(root: Path, across: int) -> None:
    workload = trace_workload(root / "workloads/three-vms.parquet", 2, "round_robin")
    found = estimate(memory_after((snapshot.steps for snapshot in workload.snapshots), 2, Kernel.V6_12), 16)
    counters = converged(workload, Kernel.V6_12, merge_across_nodes=across, max_page_sharing=16, smart_scan=1)
    assert counted(found, across, 0) == {counter: counters[counter] for counter in COUNTERS}


def without_limit(contents: np.ndarray, nid: np.ndarray) -> list[int]:
    """pages_sharing where no content reaches max_page_sharing, for merge_across_nodes 0 and 1, by counting alone.

    `contents`: [pages, ...], whatever can be told apart; `nid`: the node of each, int[pages].
    """

    def spared(some: np.ndarray) -> int:
        return len(some) - len(np.unique(some, axis=0))

    return [sum(spared(contents[nid == node]) for node in np.unique(nid)), spared(contents)]


def sharing(workload: Workload, most: int) -> list[int]:
    """pages_sharing of the converged simulation for merge_across_nodes 0 and 1."""
    knobs = {"max_page_sharing": most, "smart_scan": 0}
    return [converged(workload, Kernel.V6_12, merge_across_nodes=across, **knobs)["pages_sharing"] for across in (0, 1)]


NO_LIMIT = 10**6
# that of `mix` says beforehand what it will write, if it can: with these parameters it cannot
MADE = SMALL | {"mix, told page by page": {"mms": 3, "pages_per_mm": 200, "duplicated": 0, "rewritten_per_scan": 0.4}}


@pytest.mark.parametrize("name", MADE)
@pytest.mark.parametrize("most", [3, 256])
def test_the_estimate_of_every_generator_is_what_ksmd_comes_to(name: str, most: int) -> None:
    generator = GENERATORS[name.partition(",")[0]]
    workload = generator.build(generator.read(MADE[name]), nodes=2, binding="round_robin", seed=1, full_scans=3)
    if name.startswith("mix"):
        assert (workload.contents is not None) == (name == "mix")
    memory = memory_after((snapshot.steps for snapshot in workload.snapshots), 2, Kernel.V6_12)
    found = estimate(memory, most)
    for across in (0, 1):
        counters = converged(workload, Kernel.V6_12, merge_across_nodes=across, max_page_sharing=most, smart_scan=0)
        assert counted(found, across, 0) == {counter: counters[counter] for counter in COUNTERS}
    # by a count that knows neither
    _, pages = np.unique(memory.content, return_counts=True)
    assert found.duplicates.value == memory.content.size - pages.size
    if memory.frame is not None:
        return  # what fork shares is no duplicate
    nid = np.zeros(memory.content.size) if memory.node is None else memory.node
    found = estimate(memory, NO_LIMIT)
    by_contents = without_limit(memory.content, nid)
    assert [found.setting(across, 0).pages_sharing.value for across in (0, 1)] == by_contents == sharing(workload, NO_LIMIT)


def test_every_generator_is_among_these() -> None:
    assert set(SMALL) == set(GENERATORS)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_the_estimate_of_every_importers_example_is_what_ksmd_comes_to(example: Example, tmp_path: Path) -> None:
    if example.importer == "kdump":
        pytest.importorskip("kdumpfile")
    path, bytes_by_mm = example.make(tmp_path)
    found = estimate(load_memory([str(path)], nodes=2).memory, 3)
    _, pages = np.unique(np.concatenate([*bytes_by_mm.values()]), axis=0, return_counts=True)
    assert found.duplicates.value == pages.sum() - pages.size
    import_inputs([str(path)], tmp_path / "trace.parquet", console=Console(quiet=True))
    workload = trace_workload(tmp_path / "trace.parquet", 2, "round_robin")
    for across in (0, 1):
        counters = converged(workload, Kernel.V6_12, merge_across_nodes=across, max_page_sharing=3, smart_scan=0)
        assert counted(found, across, 0) == {counter: counters[counter] for counter in COUNTERS}
    nid = np.repeat(np.arange(len(bytes_by_mm)) % 2, [len(held) for held in bytes_by_mm.values()])
    by_bytes = without_limit(np.concatenate([*bytes_by_mm.values()]), nid)
    found = estimate(load_memory([str(path)], nodes=2).memory, NO_LIMIT)
    assert [found.setting(across, 0).pages_sharing.value for across in (0, 1)] == by_bytes == sharing(workload, NO_LIMIT)
