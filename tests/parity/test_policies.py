"""Does fast equal slow where pages move? Engine and twin run the same scenarios under every migration policy, and everything
that can be seen or is counted is compared after every step.

The normal run draws a hundred and runs as many seeds per policy; `HYPOTHESIS_PROFILE=nightly` does much more.
"""

import os
from dataclasses import replace

import pytest
from hypothesis import given, settings
from parity.features import LEAST_SHARE_OF_MOVES, OF_POLICY, Tally, features_of_moves
from parity.strategies import PolicyCase, policy_cases, random_policy_case
from parity.test_parity import checksum_of
from reference import Machine as Twin
from reference.policies import CALLERS, COUNTED, MAINLINE_CALLERS, POLICIES

from ksmbatch.codes import CALLER_PRESETS, Caller, Kernel, Policy
from ksmbatch.invariants import check_invariants
from ksmbatch.metrics import Counter as Metric
from ksmbatch.replay import Session
from ksmbatch.scenario import parse_scenario

NIGHTLY = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"
MOVING_SEED = 4  # of a case in which KSM pages cross nodes
SEEDS = range(1_000) if NIGHTLY else range(100)


def twin_of(case: PolicyCase) -> Twin:
    return Twin(case.document, case.kernel, case.checksum, policy=case.policy, callers=case.callers)


def engine_of(case: PolicyCase, force_exact: bool = False) -> Session:
    return Session(
        parse_scenario(case.document, "drawn"),
        Kernel.parse(case.kernel),
        force_exact=force_exact,
        checksum=checksum_of(case),
        policy=Policy[case.policy.upper()],
        callers=tuple(Caller[caller.upper()] for caller in case.callers),
    )


def counted(engine: Session) -> dict[str, int]:
    """The engine's counters by the twin's names."""
    return {name: int(engine.machine.state.counters[Metric[name.upper()]]) for name in COUNTED}


def compare(case: PolicyCase, force_exact: bool, rules: bool) -> Twin:
    """Runs `case` on both; with `rules` the engine's arrays are checked after every step, and the kernel's rules in the twin.

    Returns the twin, as it is at the end.
    """
    twin = twin_of(case)
    compare_with(twin, engine_of(case, force_exact), rules)
    return twin


def compare_with(twin: Twin, engine: Session, rules: bool) -> None:
    assert engine.initial == twin.initial
    steps = 0
    for step, ours in enumerate(engine.steps()):
        where = f"{twin.ksm.policy}, step {step}: {twin.steps[step]}"
        theirs = twin.step(step)
        assert "undefined" not in theirs, where
        assert ours == theirs, where
        assert counted(engine) == twin.counted(), where
        assert engine.machine.survey() == twin.survey(), where
        if rules:
            assert check_invariants(engine.machine.state) == [], where
            assert twin.invariants() == [], where
        steps += 1
    assert steps == len(twin.steps)


@settings(max_examples=2_000 if NIGHTLY else 100)
@given(policy_cases())
def test_engine_equals_twin_after_every_step_of_drawn_scenarios(case: PolicyCase) -> None:
    twin = compare(case, force_exact=False, rules=True)
    if case.policy != "v4":
        assert twin.counted()["corruptions"] == twin.counted()["dangling_pages"] == 0


@settings(max_examples=500 if NIGHTLY else 30)
@given(policy_cases())
def test_walking_every_tree_equals_the_twin_too(case: PolicyCase) -> None:
    compare(case, force_exact=True, rules=False)


@pytest.mark.parametrize("policy", POLICIES)
def test_engine_equals_twin_on_seeded_scenarios_that_show_what_the_policy_can_do(policy: str) -> None:
    tally = Tally(expected=OF_POLICY[policy], least=LEAST_SHARE_OF_MOVES)
    corrupted = 0
    for seed in SEEDS:
        case = random_policy_case(seed, policy)
        twin = compare(case, force_exact=seed % 2 == 1, rules=seed % 4 == 0)
        tally.add(features_of_moves(case.document, twin.events, twin.counted()))
        corrupted += twin.counted()["corruptions"] > 0
    assert tally.scarce() == {}
    assert corrupted >= len(SEEDS) / 3 if policy == "v4" else corrupted == 0


def test_both_know_the_same_policies_and_callers() -> None:
    assert [policy.word for policy in Policy] == list(POLICIES)
    assert {caller.word for caller in Caller} == set(CALLERS)
    assert {caller.word for caller in CALLER_PRESETS["mainline"]} == MAINLINE_CALLERS


def test_another_policy_would_be_noticed() -> None:
    case = random_policy_case(MOVING_SEED, "substitute")
    with pytest.raises(AssertionError):
        compare_with(twin_of(replace(case, policy="mainline")), engine_of(case), rules=False)
