"""Hypothesis strategies: whole cases, i.e. a scenario, a kernel, how checksums collide, and what is done about pages that move.

Every draw is a valid scenario and shrinks by dropping operations (see oracle.fuzz, oracle.moves). What a case must show is in
`features`.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st
from oracle.fuzz import KNOBS, PROFILES, Recipe, build, random_document, random_recipe
from oracle.moves import CALLERS, MovingRecipe, random_moving_recipe
from reference import KERNELS
from reference.policies import MAINLINE_CALLERS, POLICIES

__all__ = ["Case", "PolicyCase", "cases", "policy_cases", "random_case", "random_document", "random_policy_case", "recipes"]

COLLIDE = (None, None, None, 1, 2, 3)
MAINLINE = tuple(caller for caller in CALLERS if caller in MAINLINE_CALLERS)
# who may have KSM pages moved: mostly nearly everybody, or nothing would happen
ALLOWED = (MAINLINE, CALLERS, MAINLINE, ("hotremove",), MAINLINE, ("cma", "move_pages"), CALLERS, ())


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """A scenario on a kernel. `collide`: contents equal modulo this number have equal checksums; None: only equal ones do."""

    document: dict[str, Any]
    kernel: str
    collide: int | None

    @property
    def checksum(self) -> Callable[[int], int] | None:
        """Content -> checksum, for the twin and the engine alike."""
        modulus = self.collide
        return None if modulus is None else lambda content: content % modulus + 1


@dataclass(frozen=True, kw_only=True, slots=True)
class PolicyCase(Case):
    """A case under a migration policy. `callers`: who may have KSM pages moved. Both in words."""

    policy: str
    callers: tuple[str, ...]


def _ops(max_size: int) -> st.SearchStrategy[list[tuple[int, int, int, int, int]]]:
    number = st.integers(0, 119)  # beyond 127 Hypothesis would prefer some numbers
    return st.lists(st.tuples(number, number, number, number, number), max_size=max_size)


def recipes(merge_any: bool = False) -> st.SearchStrategy[Recipe]:
    """Recipes for `build`. The operations come in several short lists, for Hypothesis draws short lists only."""
    operations = st.tuples(*[_ops(12)] * 6).map(lambda parts: [op for part in parts for op in part])
    return st.builds(
        Recipe,
        profile=st.integers(0, len(PROFILES) - 1),
        calm=st.sampled_from((False, False, True)),
        nodes=st.sampled_from((2, 2, 2, 1, 3, 4, 5, 6, 7, 8)),
        pool=st.integers(0, 9),
        knobs=st.tuples(*[st.integers(0, 89)] * KNOBS),
        start=_ops(3),
        ops=operations,
        merge_any=st.just(True) if merge_any else st.just(False),
    )


def moving_recipes() -> st.SearchStrategy[MovingRecipe]:
    """Recipes with the steps that no recorder takes, mostly for two nodes."""
    operations = st.tuples(*[_ops(12)] * 6).map(lambda parts: [op for part in parts for op in part])
    return st.builds(
        MovingRecipe,
        profile=st.integers(0, len(PROFILES) - 1),
        calm=st.sampled_from((False, True)),
        nodes=st.sampled_from((2, 2, 2, 3, 3, 4, 1, 8)),
        pool=st.integers(0, 9),
        knobs=st.tuples(*[st.integers(0, 89)] * KNOBS),
        start=_ops(3),
        ops=operations,
        merge_any=st.booleans(),
        room=st.integers(0, 15),
    )


def policy_cases() -> st.SearchStrategy[PolicyCase]:
    """Any scenario in which pages move, under any policy, on any kernel."""
    return st.builds(
        lambda recipe, **chosen: PolicyCase(document=build(recipe, "drawn"), **chosen),
        moving_recipes(),
        kernel=st.sampled_from(sorted(KERNELS)),
        collide=st.sampled_from(COLLIDE),
        policy=st.sampled_from(POLICIES),
        callers=st.sampled_from(ALLOWED),
    )


def random_policy_case(seed: int, policy: str | None = None) -> PolicyCase:
    """The case of a seed, under its own policy or the one given, without Hypothesis."""
    rng = random.Random(f"policy case {seed}")
    kernel = rng.choice(sorted(KERNELS))
    recipe = random_moving_recipe(rng, merge_any=True)
    own = rng.choice(POLICIES)
    return PolicyCase(
        document=build(recipe, f"random-moves-{seed}"),
        kernel=kernel,
        collide=rng.choice(COLLIDE),
        policy=policy or own,
        callers=rng.choice(ALLOWED),
    )


def cases(merge_any: bool = False) -> st.SearchStrategy[Case]:
    """Any scenario on any kernel; with `merge_any` whole processes register too, where the kernel knows that."""
    return st.builds(
        lambda recipe, kernel, collide: Case(document=build(recipe, "drawn"), kernel=kernel, collide=collide),
        recipes(merge_any),
        st.sampled_from(sorted(KERNELS)),
        st.sampled_from(COLLIDE),
    )


def random_case(seed: int, merge_any: bool = False) -> Case:
    """The case of a seed, without Hypothesis: for long loops."""
    rng = random.Random(f"case {seed}")
    kernel = rng.choice(sorted(KERNELS))
    recipe = random_recipe(rng, merge_any)
    return Case(document=build(recipe, f"random-{seed}"), kernel=kernel, collide=rng.choice(COLLIDE))
