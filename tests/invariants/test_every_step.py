"""Is the state sane after every step? All recorded scenarios of 6.12, random ones on all kernels, and a whole trace.

Whether the numbers are the kernel's is another question: see test_conform.py and test_truth.py.
"""

from collections.abc import Iterator

import pytest
from machines import RECORDINGS, TRUTH, Player, compiled_only
from parity.strategies import random_case, random_policy_case

from ksmbatch.codes import Caller, Kernel, Policy
from ksmbatch.invariants import check_invariants
from ksmbatch.machine import Machine
from ksmbatch.metrics import Counter
from ksmbatch.program import compile_workload
from ksmbatch.recordings import Recording, load_recordings
from ksmbatch.trace_events import trace_workload

N_RANDOM, PER_TEST = 100, 20
N_MOVING = 30  # per policy


def faults(player: Player) -> Iterator[str]:
    yield from check_invariants(player.machine.state)
    for step, _ in enumerate(player.outcomes()):
        yield from (f"step {step}: {fault}" for fault in check_invariants(player.machine.state))


@pytest.fixture(scope="module")
def recorded() -> list[Recording]:
    return load_recordings(RECORDINGS / "6.12.json.gz")


def test_every_recorded_scenario_keeps_the_rules(recorded: list[Recording]) -> None:
    assert len(recorded) == 331
    for one in recorded:
        assert list(faults(Player(one.scenario))) == [], one.scenario.name


def test_walking_every_tree_keeps_the_rules(recorded: list[Recording]) -> None:
    for one in recorded[::8]:
        assert list(faults(Player(one.scenario, force_exact=True))) == [], one.scenario.name


@pytest.mark.parametrize("first", range(0, N_RANDOM, PER_TEST))
def test_random_scenarios_keep_the_rules(first: int) -> None:
    for seed in range(first, first + PER_TEST):
        case = random_case(seed, merge_any=True)
        assert list(faults(Player(case.document, case.kernel, checksum=case.checksum))) == [], f"seed {seed}"


@pytest.mark.parametrize("policy", list(Policy))
def test_random_scenarios_in_which_pages_move_keep_the_rules_under_every_policy(policy: Policy) -> None:
    for seed in range(N_MOVING):
        case = random_policy_case(seed, policy.word)
        player = Player(
            case.document,
            case.kernel,
            force_exact=seed % 4 == 3,
            checksum=case.checksum,
            policy=policy,
            callers=[Caller[caller.upper()] for caller in case.callers],
        )
        assert list(faults(player)) == [], f"seed {seed}"


@compiled_only
def test_a_whole_trace_keeps_the_rules_in_mid_scan() -> None:
    # three guests with chains of hundreds of dups, so that pools grow; writes come while ksmd is at work
    program = compile_workload(trace_workload(TRUTH / "three-vms-24k.parquet", 2, {"web": 0, "db": 1, "idle": 0}))
    knobs = {"merge_across_nodes": 0, "max_page_sharing": 16, "smart_scan": 1, "pages_to_scan": 50_000, "run": 1}
    machine = Machine(program, Kernel.V6_12, knobs)
    for _, steps in program.snapshots[:2]:
        for step in steps:
            machine.apply(step)
        machine.scan(until_wakeups=machine.counter(Counter.WAKEUPS) + 3)
        assert check_invariants(machine.state) == []
