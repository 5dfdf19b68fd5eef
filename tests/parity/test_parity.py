"""Does fast equal slow? Engine and twin run the same scenarios, and every field is compared after every step.

The normal run draws a few hundred; `HYPOTHESIS_PROFILE=nightly` draws 2,000 and runs as many seeds again.
"""

import os
import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from parity.features import Tally, features
from parity.strategies import Case, cases, random_case
from reference import Machine as Twin

from ksmbatch.codes import Kernel
from ksmbatch.contents import Checksum
from ksmbatch.invariants import check_invariants
from ksmbatch.metrics import Counter as Metric
from ksmbatch.replay import Session
from ksmbatch.scenario import parse_scenario

NIGHTLY = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"
SEEDS = range(2_000) if NIGHTLY else range(200)


def checksum_of(case: Case) -> Checksum | None:
    """The checksums of `case` for arrays of contents, as `Case.checksum` has them for one."""
    modulus = case.collide
    if modulus is None:
        return None
    return lambda raw: (raw % np.uint64(modulus) + np.uint64(1)).astype(np.uint32)


def compare(case: Case, force_exact: bool, rules: bool) -> set[str]:
    """Runs `case` on both; with `rules` the engine's arrays are checked after every step. Returns the features shown."""
    twin = Twin(case.document, case.kernel, case.checksum)
    scenario = parse_scenario(case.document, "drawn")
    engine = Session(scenario, Kernel.parse(case.kernel), force_exact=force_exact, checksum=checksum_of(case))
    assert engine.initial == twin.initial
    assert engine.machine.knob_errno == twin.knob_errno
    seen = []
    unreachable = 0
    for step, ours in enumerate(engine.steps()):
        theirs = twin.step(step)
        seen.append(theirs)
        assert ours == theirs, f"step {step}: {case.document['steps'][step]}"
        surveyed = twin.survey()
        assert engine.machine.survey() == surveyed
        unreachable = max(unreachable, surveyed["unreachable_mappings"])
        if rules:
            assert check_invariants(engine.machine.state) == []
    assert len(seen) == len(case.document["steps"])
    return features(case.document, case.kernel, seen, twin.events, unreachable)


@settings(max_examples=2_000 if NIGHTLY else 150)
@given(cases(merge_any=True))
def test_engine_equals_twin_after_every_step_of_drawn_scenarios(case: Case) -> None:
    compare(case, force_exact=False, rules=False)


@settings(max_examples=500 if NIGHTLY else 40)
@given(cases(merge_any=True))
def test_walking_every_tree_equals_the_twin_too(case: Case) -> None:
    compare(case, force_exact=True, rules=False)


def test_engine_equals_twin_on_seeded_scenarios_that_show_every_feature() -> None:
    tally = Tally()
    for seed in SEEDS:
        tally.add(compare(random_case(seed, merge_any=True), force_exact=seed % 2 == 1, rules=seed % 4 == 0))
    assert tally.scarce() == {}


def test_chains_are_pruned_when_their_delay_is_over_as_in_the_twin() -> None:
    pruned = Counter[str]()
    for seed in SEEDS:
        case = random_case(seed)
        rng = random.Random(seed)
        delays = {"stable_node_chains_prune_millisecs": rng.choice((1, 10, 50)), "max_page_sharing": rng.choice((2, 3, 4))}
        document = case.document | {"knobs": case.document["knobs"] | delays}
        twin = Twin(document, case.kernel, case.checksum)
        scenario = parse_scenario(document, "drawn")
        engine = Session(scenario, Kernel.parse(case.kernel), force_exact=seed % 2 == 1, checksum=checksum_of(case))
        for step, ours in enumerate(engine.steps()):
            assert ours == twin.step(step), f"seed {seed}, step {step}: {document['steps'][step]}"
            passes_ns = rng.choice((0, 1_000_000, 7_000_000, 30_000_000))
            twin.now_ns += passes_ns
            engine.machine.state.counters[Metric.TIME_NS] += passes_ns
        pruned.update(twin.events)
    assert pruned["chain collapsed"] > 0
    assert pruned["dup moved to the front of its chain"] > 0


def test_a_difference_would_be_seen() -> None:
    case = random_case(1)
    twin = Twin(case.document, case.kernel, case.checksum)
    engine = Session(parse_scenario(case.document, "drawn"), Kernel.parse(case.kernel), checksum=checksum_of(case))
    engine.machine.state.knobs[1] += 1  # max_page_sharing
    with pytest.raises(AssertionError):
        assert [*engine.steps()] == [twin.step(step) for step in range(len(twin.steps))]
