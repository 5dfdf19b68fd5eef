"""Does the engine count what the real ksmd counted on the memory of three real guests? Every counter, after every scan.

How the truth was made is told in tests/truth/README.md; nothing here is fitted to it.
"""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from machines import TRUTH, compiled_only

from ksmbatch.codes import Kernel, Run
from ksmbatch.events import FullScan, Migrate, Scan, SetKnob
from ksmbatch.machine import Machine
from ksmbatch.metrics import derive
from ksmbatch.program import Program, compile_workload
from ksmbatch.trace_events import trace_workload

pytestmark = compiled_only

Observation = dict[str, int]

FULL_SCANS = json.loads((TRUTH / "three-vms-24k.truth.json").read_text())
MID_SCAN = json.loads((TRUTH / "three-vms-24k.midscan.json").read_text())
ONE_BATCH = 1_000_000_000  # pages_to_scan with which a full scan is one batch
UNCOUNTED = {"snapshot", "migrated", "scan", "after"}  # what an observation says of itself


@pytest.fixture(scope="module")
def program() -> Program:
    assert FULL_SCANS["placement"] == MID_SCAN["placement"]
    placement = dict(FULL_SCANS["placement"])
    return compile_workload(trace_workload(TRUTH / "three-vms-24k.parquet", placement.pop("nodes"), placement))


def machine(program: Program, run: dict[str, Any], force_exact: bool = False) -> Machine:
    unchanging = {"pages_to_scan": ONE_BATCH, "stable_node_chains_prune_millisecs": 100_000_000, "use_zero_pages": 0}
    knobs = run["knobs"] | unchanging | {"run": Run.MERGE}
    return Machine(program, Kernel.V6_12, knobs, force_exact=force_exact)


def counted(host: Machine, like: Observation) -> Observation:
    counters = derive(host.state.counters)
    return {name: counters[name] for name in like if name not in UNCOUNTED}


def after_full_scans(program: Program, run: dict[str, Any], host: Machine) -> Iterator[None]:
    """Comes back after every full scan: three over the first snapshot, two over each later one, four after the migration."""
    for k, (_, steps) in enumerate(program.snapshots):
        for step in steps:
            host.apply(step)
        for _ in range(2 if k else 3):
            host.apply(FullScan(count=1))
            yield
    moved = FULL_SCANS["migrate"]
    host.apply(Migrate(proc=moved["mm"], area="memory", first=moved["first"], count=moved["count"], node=moved["node"]))
    for _ in range(4):
        host.apply(FullScan(count=1))
        yield


def in_mid_scan(program: Program, run: dict[str, Any], host: Machine) -> Iterator[None]:
    """Comes back after every guest's writes and 7 batches, after 25 more, and after the full scans before and at the end."""
    for step in program.snapshots[0][1]:
        host.apply(step)
    for _ in range(2):
        host.apply(FullScan(count=1))
        yield
    host.apply(SetKnob(name="pages_to_scan", value=run["knobs"]["pages_to_scan"]))
    for _, steps in program.snapshots[1:]:
        writes = {step.proc: step for step in steps}  # type: ignore[union-attr]  # later snapshots only write
        for proc in host.live:
            if proc in writes:
                host.apply(writes[proc])
            host.apply(Scan(batches=7))
            yield
        host.apply(Scan(batches=25))
        yield
    host.apply(SetKnob(name="pages_to_scan", value=ONE_BATCH))
    for _ in range(3):
        host.apply(FullScan(count=1))
        yield


def label(run: dict[str, Any]) -> str:
    return "-".join(str(value) for value in run["knobs"].values())


@pytest.mark.parametrize("force_exact", [False, True], ids=["look-ups", "walks"])
@pytest.mark.parametrize("run", FULL_SCANS["runs"], ids=label)
def test_counters_are_the_real_ones_after_every_full_scan(program: Program, run: dict[str, Any], force_exact: bool) -> None:
    host = machine(program, run, force_exact)
    truth = run["full_scans"]
    assert len(truth) == 29
    for row, _ in zip(truth, after_full_scans(program, run, host), strict=True):
        expected = {name: value for name, value in row.items() if name not in UNCOUNTED}
        assert {"stable_node_chains", "stable_node_dups"} <= expected.keys()
        assert counted(host, row) == expected, f"snapshot {row['snapshot']}, scan {row['scan']}"


@pytest.mark.parametrize("run", MID_SCAN["runs"], ids=label)
def test_counters_are_the_real_ones_in_mid_scan(program: Program, run: dict[str, Any]) -> None:
    host = machine(program, run)
    truth = run["observations"]
    assert len(truth) == 49
    for row, _ in zip(truth, in_mid_scan(program, run, host), strict=True):
        expected = {name: value for name, value in row.items() if name not in UNCOUNTED}
        assert counted(host, row) == expected, f"snapshot {row['snapshot']}, after {row['after']}"


def test_the_truth_is_a_test_of_the_knobs() -> None:
    # the four settings differ in what they share, so that an engine which ignored a knob would be found out
    last = [run["full_scans"][-1] for run in FULL_SCANS["runs"]]
    assert len({(row["pages_sharing"], row["pages_scanned"], row["stable_node_dups"]) for row in last}) == 4
