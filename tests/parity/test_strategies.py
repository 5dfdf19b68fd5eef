"""Do the drawn scenarios deserve trust: valid, varied, within the kernel's own rules? The twin runs them, not the engine."""

from hypothesis import given, settings
from oracle.language import normalise
from parity.features import ALL, Tally, features
from parity.strategies import Case, PolicyCase, cases, policy_cases, random_case, random_policy_case
from reference import Machine

SEEDS = 300


def run(case: Case, check: bool) -> set[str]:
    """The features shown; with `check` the kernel's rules hold after every step."""
    machine = Machine(case.document, case.kernel, case.checksum)
    observations, unreachable = [], 0
    for index in range(len(machine.steps)):
        observations.append(machine.step(index))
        assert "undefined" not in observations[-1]
        assert not check or machine.invariants() == []
        unreachable = max(unreachable, machine.survey()["unreachable_mappings"])
    return features(case.document, case.kernel, observations, machine.events, unreachable)


@settings(max_examples=60)
@given(cases(merge_any=True))
def test_drawn_scenarios_are_what_the_recorder_takes(case: Case) -> None:
    assert normalise(case.document) == case.document


@settings(max_examples=60)
@given(cases(merge_any=True))
def test_the_kernels_rules_hold_after_every_step(case: Case) -> None:
    run(case, check=True)


@settings(max_examples=60)
@given(policy_cases())
def test_the_rules_hold_after_every_step_whatever_moves(case: PolicyCase) -> None:
    machine = Machine(case.document, case.kernel, case.checksum, policy=case.policy, callers=case.callers)
    for index in range(len(machine.steps)):  # none of which raises OutOfMemory
        assert "undefined" not in machine.step(index)
        assert machine.invariants() == []


def test_a_seed_is_a_policy_case_and_its_scenario_is_the_same_for_all_policies() -> None:
    assert random_policy_case(5) == random_policy_case(5) != random_policy_case(6)
    assert random_policy_case(5, "v4").document == random_policy_case(5, "nuksm").document


def test_a_seed_is_a_case() -> None:
    assert random_case(5) == random_case(5) != random_case(6)


def test_seeded_cases_show_every_feature_often_enough() -> None:
    tally = Tally()
    for seed in range(SEEDS):
        tally.add(run(random_case(seed), check=False))
    assert tally.scarce() == {}


def test_a_feature_that_is_missing_is_named() -> None:
    tally = Tally()
    for _ in range(20):
        tally.add(ALL - {"fork"})
    tally.add(set(ALL))
    assert list(tally.scarce()) == ["fork"]
