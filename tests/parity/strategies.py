"""Hypothesis strategies: whole cases, i.e. a scenario, a kernel, and how checksums collide.

Every draw is a valid scenario and shrinks by dropping operations (see oracle.fuzz). What a case must show is in `features`.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st
from oracle.fuzz import KNOBS, PROFILES, Recipe, build, random_document, random_recipe
from reference import KERNELS

__all__ = ["Case", "cases", "random_case", "random_document", "recipes"]

COLLIDE = (None, None, None, 1, 2, 3)


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
