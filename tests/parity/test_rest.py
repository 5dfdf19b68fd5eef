"""Do runs come to the same whether pages rest or every page is visited and every tree walked, while time passes?

All tables are compared value for value, but for `exact_visits`, and what pages map at the end. The normal run draws some dozens
and runs as many seeds; `HYPOTHESIS_PROFILE=nightly` does much more.
"""

import os
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numba
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from machines import compiled_only
from oracle.fuzz import build
from parity.strategies import moving_recipes
from parity.timed import NUMBERS, Seen, TimedCase, Timing, random_timed_case, run, timed_case

from ksmbatch.codes import Kernel
from ksmbatch.config import load
from ksmbatch.cost import Costs
from ksmbatch.program import compile_config
from ksmbatch.scenario import parse_scenario

NIGHTLY = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"
INTERPRETED = bool(numba.config.DISABLE_JIT)
SEEDS = range(2_000) if NIGHTLY else range(6 if INTERPRETED else 100)
MOST_PAGES = 200 if INTERPRETED else 2**20

THREE_VMS = Path(__file__).resolve().parents[2] / "workloads" / "three-vms.parquet"


def compare(case: TimedCase, *, rules: bool = False) -> Seen:
    """Runs `case` in both ways; returns what was seen where pages rest."""
    rested, forced = run(case, force_exact=False, rules=rules), run(case, force_exact=True)
    assert rested.error == forced.error
    for name, table in forced.tables.items():
        for column, values in table.items():
            assert rested.tables[name][column] == values, f"{name}.{column}"
    for name, values in forced.pages.items():
        assert rested.pages[name] == values, f"{name} of pages at the end"
    assert rested.exact_visits <= forced.exact_visits
    return rested


def features_of(case: TimedCase, seen: Seen) -> set[str]:
    """What a run has shown that pages at rest may get wrong."""
    config, last = case.config, {name: values[0] for name, values in seen.tables["last"].items()}
    samples = seen.tables["samples"]
    shown = {
        f"kernel {config.host.kernel.word}": True,
        f"merge_across_nodes = {config.ksm.merge_across_nodes}": True,
        f"policy {config.migration.policy.word}": last["frames_moved"] > 0,
        f"sampled by {config.run.sample.lstrip('0123456789')}": len(samples["time_ms"]) > 5,
        "smart_scan passes pages by": last["pages_skipped"] > last["pages_scanned"] / 4,
        "chains": max(samples["stable_node_chains"]) > 0,
        "zero pages": max(samples["ksm_zero_pages"]) > 0,
        "trees are walked": seen.exact_visits > 0,
        "most visits walk no tree": 0 < seen.exact_visits < seen.page_visits / 10,
        "several blocks": case.program.n_pages > 3 * 4096,
        "300 scans": last["full_scans"] > 300,
        "a move waits for ksmd": last["locks_waited"] > 0,
        "ksmd waits for a move": last["ksmd_wait_ns"] > 0,
        "never asleep": config.ksm.sleep_millisecs == 0,
    }
    return {name for name, is_shown in shown.items() if is_shown}


# what happens to memory when, and what is seen


timings = st.builds(
    Timing,
    knobs=st.lists(st.integers(0, 119), min_size=NUMBERS, max_size=NUMBERS),
    gaps=st.lists(st.integers(0, 119), max_size=NUMBERS),
)


@settings(max_examples=2_000 if NIGHTLY else 5 if INTERPRETED else 60)
@given(moving_recipes(), st.sampled_from(list(Kernel)), timings)
def test_drawn_runs_come_to_the_same(recipe: Any, kernel: Kernel, timing: Timing) -> None:
    case = timed_case(parse_scenario(build(recipe, "drawn"), "drawn"), kernel, timing)
    if case.program.n_pages <= MOST_PAGES:
        compare(case)


def test_seeded_runs_come_to_the_same_and_show_what_may_go_wrong() -> None:
    counts = Counter[str]()
    for seed in SEEDS:
        case = random_timed_case(seed)
        if case.program.n_pages <= MOST_PAGES:
            counts.update(features_of(case, compare(case, rules=seed % 4 == 0)))
    if not INTERPRETED:
        assert {name: n for name, n in counts.items() if n < len(SEEDS) / 50} == {}
        assert len(counts) == N_FEATURES


N_FEATURES = 25


# memory that no scenario has: one that is rewritten from scan to scan, and three virtual machines


MIX = """
[host]
nodes = 2
[workload]
generator = "mix"
node = "round_robin"
mms = 3
pages_per_mm = {pages}
zero = 0.05
duplicated = 0.4
group = [2, 40]
rewritten_per_scan = {rewritten}
[run]
full_scans = {scans}
"""


def of_file(file: Path, *overrides: str) -> TimedCase:
    config = load(file, overrides)
    return TimedCase(program=compile_config(config), config=config, costs=Costs())


def of_mix(folder: Path, *overrides: str, pages: int, scans: int, rewritten: float = 0.01) -> TimedCase:
    file = folder / "mix.toml"
    file.write_text(MIX.format(pages=pages, scans=scans, rewritten=rewritten))
    return of_file(file, *overrides)


@compiled_only
@pytest.mark.parametrize("across", [0, 1])
@pytest.mark.parametrize("smart", [0, 1])
@pytest.mark.parametrize(("batch", "sample"), [(100, "full_scan"), (997, "batch"), (1_000_000, "batch"), (100, "11ms")])
def test_blocks_that_belong_to_two_mms_come_to_the_same(
    tmp_path: Path, across: int, smart: int, batch: int, sample: str
) -> None:
    # 15,000 pages are 3 blocks and a part, of which the second and third have pages of two mms
    knobs = [f"ksm.merge_across_nodes={across}", f"ksm.smart_scan={smart}", f"ksm.pages_to_scan={batch}"]
    case = of_mix(tmp_path, *knobs, f"run.sample={sample}", "ksm.max_page_sharing=16", pages=5000, scans=16)
    seen = compare(case)
    assert seen.exact_visits > 0


@compiled_only
@pytest.mark.parametrize("rewritten", [0.0, 0.02])
def test_cohorts_live_on_after_they_are_renamed(tmp_path: Path, rewritten: float) -> None:
    # a cohort is renamed 243 calls after its pages began
    case = of_mix(tmp_path, "ksm.sleep_millisecs=1", pages=20, scans=800, rewritten=rewritten)
    seen = compare(case)
    assert seen.tables["last"]["full_scans"] == [800]


@compiled_only
@pytest.mark.parametrize(
    "knobs",
    [
        ["ksm.merge_across_nodes=0"],
        ["ksm.max_page_sharing=16", "ksm.stable_node_chains_prune_millisecs=50", "ksm.pages_to_scan=1000"],
        ["ksm.use_zero_pages=1", "ksm.smart_scan=0", "run.sample=1s"],
        ["host.kernel=6.1", "ksm.max_page_sharing=3", "ksm.pages_to_scan=5000"],
    ],
    ids=" ".join,
)
def test_three_vms_come_to_the_same(tmp_path: Path, knobs: list[str]) -> None:
    file = tmp_path / "three-vms.toml"
    file.write_text(f'[host]\nnodes = 3\n[workload]\ntrace = "{THREE_VMS}"\nnode = "round_robin"\n[run]\nduration = "2min"\n')
    seen = compare(of_file(file, *knobs))
    assert seen.page_visits > 0


# the comparison itself


def test_a_run_that_takes_longer_would_be_noticed() -> None:
    case = random_timed_case(0)
    slower = replace(case, costs=replace(case.costs, search_ns=case.costs.search_ns + 1))
    assert run(case, force_exact=True).tables != run(slower, force_exact=True).tables


def test_a_seed_is_a_run() -> None:
    assert run(random_timed_case(5), force_exact=False) == run(random_timed_case(5), force_exact=False)
