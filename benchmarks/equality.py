"""Are two results the same, value for value? Everything is timed only after it has been found equal to what it is held against.

The other way to a result of ours is to walk every tree as Linux does, whatever the engine knows better: no config says so.
"""

import os

import numpy as np

from ksmbatch.config import Config
from ksmbatch.engine import RunResult, simulate
from ksmbatch.program import Program

APART = frozenset({"exact_visits"})  # how a result came about, not what it is


class UnequalError(Exception):
    """Two ways to one result that lead to two."""


def walking(program: Program, config: Config) -> RunResult:
    """As simulate(), with every tree walked."""
    return simulate(program, config, force_exact=True)


def differences(one: RunResult, other: RunResult, apart: frozenset[str] = APART) -> list[str]:
    """Names of what two runs do not have in common, at any sample; without those in `apart`."""
    tables = [(one.samples, other.samples), (one.nodes, other.nodes)]
    found = {name for mine, yours in tables for name in mine if not np.array_equal(mine[name], yours[name])}
    found |= {name for name in one.last if one.last[name] != other.last[name]}
    return sorted(found - apart)


def check(what: str, program: Program, config: Config) -> None:
    """Raises UnequalError unless `program` comes to the same with every tree walked."""
    if wrong := differences(simulate(program, config), walking(program, config)):
        raise UnequalError(f"{what}: walking every tree gives another {', '.join(wrong)}")


def same(what: str, ours: np.ndarray, theirs: np.ndarray) -> None:
    """Raises UnequalError unless two arrays are equal."""
    if not np.array_equal(ours, theirs):
        raise UnequalError(f"{what}:{os.linesep}{ours}{os.linesep}is not{os.linesep}{theirs}")
