"""Does simulated time pass as it must? Costs of visits, batches and sleep, and writes that come in the middle of them.

Which costs are right is `test_cost`'s question; here any table of costs would do.
"""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from machines import Player, compiled_only, filled, full_scan, scenario

from ksmbatch.codes import Kernel
from ksmbatch.config import load
from ksmbatch.cost import Costs
from ksmbatch.engine import RunResult, simulate
from ksmbatch.machine import Machine
from ksmbatch.metrics import Counter
from ksmbatch.program import compile_config, compile_workload
from ksmbatch.scenario import parse_scenario
from ksmbatch.state import Knob
from ksmbatch.workload import scenario_workload

WORKLOADS = Path(__file__).resolve().parent.parent.parent / "workloads"
N_PAGES = 294_912  # of the three guests
MS = 1_000_000


def run(folder: Path, text: str) -> RunResult:
    path = folder / "clock.toml"
    path.write_text(text)
    config = load(path)
    return simulate(compile_config(config), config)


@pytest.fixture(scope="module")
def by_default(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """Samples of the three guests under the kernel's default settings, every second for 96 s."""
    text = f"""
    [host]
    nodes = 2
    [workload]
    trace = {json.dumps(str(WORKLOADS / "three-vms.parquet"))}
    node = {{ web = 0, db = 1, idle = 0 }}
    [run]
    duration = "96s"
    sample = "1s"
    """
    return run(tmp_path_factory.mktemp("clock"), text).samples


@compiled_only
def test_nothing_merges_before_the_second_scan_which_begins_after_60_s(by_default: dict[str, np.ndarray]) -> None:
    second_scan = by_default["full_scans"] >= 1
    assert by_default["time_ms"][second_scan].min() == 60_000
    assert by_default["pages_merged"][~second_scan].max() == 0
    assert by_default["pages_sharing"][second_scan][2] > 0


@compiled_only
def test_at_96_s_the_second_scan_is_60_percent_done(by_default: dict[str, np.ndarray]) -> None:
    assert by_default["time_ms"][-1] == 96_000
    assert by_default["full_scans"][-1] == 1
    assert by_default["page_visits"][-1] / N_PAGES - 1 == pytest.approx(0.6, abs=0.02)


@compiled_only
def test_ksmd_sleeps_20_ms_after_every_100_pages(by_default: dict[str, np.ndarray]) -> None:
    slept_ns = by_default["time_ns"] - by_default["ksmd_cpu_ns"]
    batches = by_default["wakeups"]
    assert ((slept_ns > (batches - 1) * 20 * MS) & (slept_ns <= batches * 20 * MS)).all()
    assert (by_default["page_visits"] <= batches * 100).all()
    assert (by_default["page_visits"] > (batches - 2) * 100).all()


@compiled_only
def test_cpu_time_of_a_first_scan_is_the_sum_of_its_visits_and_wakeups(by_default: dict[str, np.ndarray]) -> None:
    first_scan = by_default["full_scans"] == 0
    costs = Costs()
    expected_ns = by_default["page_visits"] * costs.checksum_ns + by_default["wakeups"] * costs.wakeup_ns
    assert (by_default["ksmd_cpu_ns"][first_scan] == expected_ns[first_scan]).all()
    share = by_default["ksmd_cpu_ns"][first_scan][-1] / by_default["time_ns"][first_scan][-1]
    batch_ns = 100 * costs.checksum_ns + costs.wakeup_ns
    assert share == pytest.approx(batch_ns / (20 * MS + batch_ns), rel=0.001)  # 0.4 %: ksmd mostly sleeps


def test_every_visit_costs_what_it_turned_out_to_be() -> None:
    # each kind of visit has a decimal place of its own in ksmd's CPU time
    kinds = ("WAKEUP_NS", "SKIP_NS", "KSM_VISIT_NS", "CHECKSUM_NS", "SEARCH_NS", "MERGE_NS", "ZERO_MERGE_NS")
    costs = {kind: 100**place for place, kind in enumerate(kinds)}
    document = scenario(*filled([0, 0, 7, 7, 7, 8, 9]), full_scan(4), use_zero_pages=1, smart_scan=1, pages_to_scan=5)
    parsed = parse_scenario(document, "test")
    program = compile_workload(scenario_workload(parsed))
    machine = Machine(program, Kernel.V6_12, parsed.knobs, costs=costs)
    for step in program.snapshots[0][1]:
        machine.apply(step)
    spent = machine.counter(Counter.KSMD_CPU_NS)
    counted = {kind: spent // cost % 100 for kind, cost in costs.items()}
    assert counted == {
        "WAKEUP_NS": 2 + 2 + 2 + 2,
        "SKIP_NS": 0,
        "KSM_VISIT_NS": 3 + 3,  # of 7, once it is merged
        "CHECKSUM_NS": 7,  # first sight
        "SEARCH_NS": 1 + 2 * 3,  # the first 7 waits for the second; 8 and 9 stay lonely
        "MERGE_NS": 2,
        "ZERO_MERGE_NS": 2,  # then they have no rmap_item any more
    }


@pytest.mark.parametrize(("pages", "seen_in_time"), [((100, 101), False), ((9000, 9001), True)])
def test_a_write_in_the_middle_of_a_batch_comes_behind_or_before_the_cursor(
    pages: tuple[int, int], seen_in_time: bool, tmp_path: Path
) -> None:
    # one batch visits 10,000 pages in 8.5 ms; at 4 ms two of them become equal, either already visited or not yet
    n = 10_000
    rows = {
        "time_ms": np.repeat([0, 4], [n, 2]).astype(np.uint32),
        "mm": pa.array(["m"] * (n + 2)).dictionary_encode(),
        "page": np.concatenate([np.arange(n), pages]).astype(np.uint32),
        "content": np.concatenate([np.arange(1, n + 1), [n + 1, n + 1]]).astype(np.uint64),
    }
    about = {"version": 1, "page_size": 4096, "pages": {"m": n}, "content": "made up"}
    table = pa.table(rows).replace_schema_metadata({b"ksmbatch.trace": json.dumps(about)})
    pq.write_table(table, tmp_path / "late.parquet")
    samples = run(
        tmp_path,
        """
        [ksm]
        pages_to_scan = 20000
        sleep_millisecs = 1000
        smart_scan = 0
        [workload]
        trace = "late.parquet"
        [run]
        duration = "10s"
        full_scans = 3
        """,
    ).samples
    assert samples["full_scans"].tolist() == [1, 2, 3]
    assert samples["time_ns"][0] == n * Costs().checksum_ns + Costs().wakeup_ns
    assert samples["pages_sharing"].tolist() == ([0, 1, 1] if seen_in_time else [0, 0, 1])


def test_a_batch_begins_when_the_sleep_is_over_and_not_before() -> None:
    player = Player(scenario(*filled([1, 2, 3]), pages_to_scan=1))
    for _ in player.outcomes():
        pass
    machine = player.machine
    machine.state.knobs[Knob.SLEEP_MILLISECS] = 10
    times = []
    for until_ms in (0, 5, 10, 11, 20, 30, 31):
        machine.scan(until_ns=until_ms * MS)
        times.append((machine.counter(Counter.TIME_NS) // MS, machine.counter(Counter.WAKEUPS)))
    # a limit is the first moment that does not belong to the run any more
    assert times == [(0, 0), (5, 1), (10, 1), (11, 2), (20, 2), (30, 3), (31, 4)]


def test_a_run_that_nobody_is_left_to_scan_for_ends_even_if_time_is_sampled(tmp_path: Path) -> None:
    exits = {"op": "exit", "proc": "a"}
    document = scenario(*filled([1, 1]), full_scan(3), exits, full_scan(100), nodes=1)
    (tmp_path / "gone.json").write_text(json.dumps(document))
    result = run(tmp_path, '[workload]\nscenario = "gone.json"\n[run]\nsample = "1ms"')
    assert 3 <= result.last["full_scans"] < 103
