"""Does a survey that leaves out pages at rest find what a look at everything finds?

Which figures the kernel would have is another question: see parity/test_parity.py and parity/test_policies.py.
"""

from collections.abc import Iterator

import numpy as np
import pytest
from machines import Player
from parity.strategies import random_case, random_policy_case
from unit.kernels.moving import NO_FORKS

from ksmbatch import state
from ksmbatch.codes import Caller, Policy
from ksmbatch.kernels import counting, rmap_walk
from ksmbatch.machine import Machine
from ksmbatch.state import AnonVmas, Knob, State

N_CASES = 25


def walked(s: State, links: AnonVmas) -> tuple[int, int, int]:
    """The figures of a survey, by a walk from every KSM page to all its rmap_items, and a look at every page."""
    frames = np.flatnonzero((s.frame_bytes[:, state.FRAME_FLAGS] & state.KSM != 0) & (s.frames[:, state.MAPCOUNT] > 0))
    reached = sum(rmap_walk.count_reached(s, links, frame) for frame in frames)
    tree = s.frame_bytes[frames, state.FRAME_NID] * (not s.knobs[Knob.MERGE_ACROSS_NODES])
    known = set(zip(tree.tolist(), s.frames[frames, state.FRAME_CONTENT].tolist(), strict=True))
    stranded = np.isin(s.pages[:, state.FRAME], frames)
    stranded &= s.page_bytes[:, state.PAGE_FLAGS] & state.MERGEABLE != 0
    stranded &= s.page_bytes[:, state.ITEM_FLAGS] & (state.ITEM | state.STABLE) == state.ITEM
    return int(s.frames[frames, state.MAPCOUNT].sum()) - reached, len(frames) - len(known), int(stranded.sum())


def surveyed(s: State, links: AnonVmas) -> tuple[int, int, int]:
    unreachable, duplicates, stranded = counting.survey(s, links, np.zeros(s.by_content.shape[:2], np.uint8))
    return int(unreachable), int(duplicates), int(stranded)


def surveys(player: Player) -> Iterator[tuple[int, int, int]]:
    """After every step, held against the walks: as if nothing had been forked, and as it was."""
    machine: Machine = player.machine
    for _ in player.outcomes():
        assert surveyed(machine.state, NO_FORKS) == walked(machine.state, NO_FORKS)
        found = surveyed(machine.state, machine._spaces.links)
        assert found == walked(machine.state, machine._spaces.links)
        yield found


def test_a_survey_equals_walks_after_every_step_of_random_scenarios() -> None:
    unreachable = duplicates = 0
    for seed in range(N_CASES):
        case = random_case(seed, merge_any=True)
        for found in surveys(Player(case.document, case.kernel, checksum=case.checksum)):
            unreachable += found[0]
            duplicates += found[1]
    assert unreachable > 0
    assert duplicates > 0


@pytest.mark.parametrize("policy", list(Policy))
def test_a_survey_equals_walks_under_every_policy(policy: Policy) -> None:
    duplicates = stranded = 0
    for seed in range(N_CASES):
        case = random_policy_case(seed, policy.word)
        callers = [Caller[caller.upper()] for caller in case.callers]
        player = Player(case.document, case.kernel, checksum=case.checksum, policy=policy, callers=callers)
        for found in surveys(player):
            duplicates += found[1]
            stranded += found[2]
    assert duplicates > 0
    assert stranded > 0 or policy != Policy.V4
