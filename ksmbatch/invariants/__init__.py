"""What must hold of a machine between any two steps: every counter, list and tree recounted from the arrays alone.

It repairs nothing and runs without numba. What the kernel lets lag (counters behind page tables, stale nodes, empty chains) is
not wrong here, and what a walk through trees that the kernel forgot to reset may meet is not looked at.
"""

from collections.abc import Callable
from types import FunctionType, ModuleType
from typing import Final

from ksmbatch.invariants import items, memory, rest, stable
from ksmbatch.invariants.recount import Faults
from ksmbatch.state import State
from ksmbatch.stateview import StateView

Rule = Callable[[StateView], Faults]


def check_invariants(machine: State) -> list[str]:
    """What is wrong with the state `machine`, one line each, "name of the rule: what"; empty if nothing is.

    It may be called before and after any event, never within a kernel. Takes seconds where there are millions of pages.
    """
    view = StateView(machine)
    return [f"{rule.__name__.replace('_', ' ')}: {fault}" for rule in RULES for fault in rule(view)]


def _rules_of(module: ModuleType) -> tuple[Rule, ...]:
    """The functions that `module` defines for others, in their order."""
    functions = [member for member in vars(module).values() if isinstance(member, FunctionType)]
    return tuple(f for f in functions if f.__module__ == module.__name__ and not f.__name__.startswith("_"))


RULES: Final[tuple[Rule, ...]] = _rules_of(memory) + _rules_of(items) + _rules_of(rest) + _rules_of(stable)
