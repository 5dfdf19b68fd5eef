"""Two recordings of one scenario, field by field: where does the simulated kernel differ from the real one?

It compares JSON as it stands and knows no kernel; what makes a recording is in `recordings`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice, zip_longest
from typing import Any, Final, TypeAlias

from ksmbatch.documents import Json
from ksmbatch.errors import show_value

INITIAL: Final = -1  # the step of the observation before the first step

_HEAD_APART: Final = {"kernel", "initial", "steps"}
_OBSERVATION_APART: Final = {"batches", "tables"}  # batches: how often ksmd woke up depends on the guest, not on the kernel
_Leaf: TypeAlias = tuple[str, object, object]  # field, the kernel's value, ours


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """One field in which a recording and ours differ.

    `step`: the number of the step, INITIAL before the first, None for the head of the recording. `op`: what the step
    does. A value is None where the field is not there.
    """

    step: int | None
    op: str
    field: str
    kernel_value: object
    ours: object

    def __str__(self) -> str:
        place = "head" if self.step is None else "initial" if self.step == INITIAL else f"step {self.step} ({self.op})"
        return f"{place}: {self.field}: kernel {_shown(self.kernel_value)}, ours {_shown(self.ours)}"


def observations(document: Json) -> list[Any]:
    """The observations of a recording, the initial one first."""
    steps: Any = document.get("steps", [])
    return [document.get("initial", {}), *steps]


def expand(document: Json) -> Iterator[dict[tuple[str, str], Any]]:
    """All page tables, (process, area) -> table, before the first step and then after every step."""
    tables: dict[tuple[str, str], Any] = {}
    for seen in observations(document):
        live = seen.get("procs", {})
        tables = {key: table for key, table in tables.items() if key[0] in live}
        for proc, areas in seen.get("tables", {}).items():
            tables |= {(proc, area): table for area, table in areas.items()}
        yield tables


def compare(recorded: Json, simulated: Json) -> list[Difference]:
    """Every field in which two recordings of one scenario differ, the head first, then step by step.

    `batches` and `kernel` do not count. Page tables are compared as they are after each step, whether listed there or
    not; of each table only the first page that differs is named. A field, process, area, page or step that only one of
    the two has is a difference.
    """
    heads = _leaves("", _without(recorded, _HEAD_APART), _without(simulated, _HEAD_APART))
    found = [_difference(None, "", leaf) for leaf in heads]
    pairs = zip_longest(observations(recorded), observations(simulated), expand(recorded), expand(simulated))
    for step, (theirs, ours, their_tables, our_tables) in enumerate(pairs, start=INITIAL):
        leaves: Iterator[_Leaf]
        if theirs is None or ours is None:
            leaves = iter([("observation", theirs, ours)])
        elif "undefined" in ours:
            leaves = iter([("undefined", theirs.get("undefined"), ours["undefined"])])
        else:
            leaves = chain(
                _leaves("", _named(theirs, recorded), _named(ours, simulated)), _table_leaves(their_tables, our_tables)
            )
        found += [_difference(step, _op(recorded, step), leaf) for leaf in leaves]
    return found


def exact_observations(recorded: Json, differences: Sequence[Difference]) -> tuple[int, int]:
    """How many observations of `recorded` show no difference, and how many it has."""
    total = len(observations(recorded))
    return total - len({found.step for found in differences if found.step in range(INITIAL, total + INITIAL)}), total


def _difference(step: int | None, op: str, leaf: _Leaf) -> Difference:
    field, theirs, ours = leaf
    return Difference(step=step, op=op, field=field, kernel_value=theirs, ours=ours)


def _op(recorded: Json, step: int) -> str:
    scenario: Any = recorded["scenario"]
    return str(scenario["steps"][step]["op"]) if 0 <= step < len(scenario["steps"]) else ""


def _without(obj: Mapping[str, Any], apart: set[str]) -> dict[str, Any]:
    return {key: value for key, value in obj.items() if key not in apart}


def _named(seen: Mapping[str, Any], document: Mapping[str, Any]) -> dict[str, Any]:
    """An observation with its lists of numbers turned into name -> number, so that a difference has a name."""
    named = _without(seen, _OBSERVATION_APART)
    if "sysfs" in named:
        named["sysfs"] = _by_name(document.get("sysfs_fields", []), named["sysfs"])
    if "procs" in named:
        named["procs"] = {proc: _by_name(document.get("proc_fields", []), numbers) for proc, numbers in named["procs"].items()}
    if "tables" in seen:
        named["tables"] = {}  # that it is there counts here, what it lists is compared expanded
    return named


def _by_name(names: Sequence[str], numbers: Sequence[Any]) -> dict[str, Any]:
    return {names[k] if k < len(names) else f"[{k}]": number for k, number in enumerate(numbers)}


def _leaves(path: str, theirs: Any, ours: Any) -> Iterator[_Leaf]:
    """What differs below `path`."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        for key in theirs | ours:
            below = f"{path}.{key}" if path else str(key)
            if key in theirs and key in ours:
                yield from _leaves(below, theirs[key], ours[key])
            else:
                yield below, theirs.get(key), ours.get(key)
    elif isinstance(theirs, list) and isinstance(ours, list):
        for k, (one, other) in enumerate(zip_longest(theirs, ours)):
            yield from _leaves(f"{path}[{k}]", one, other)
    elif theirs != ours:
        yield path, theirs, ours


def _table_leaves(theirs: dict[tuple[str, str], Any], ours: dict[tuple[str, str], Any]) -> Iterator[_Leaf]:
    for key in theirs | ours:
        if theirs.get(key) == ours.get(key):
            continue
        path = f"tables.{key[0]}.{key[1]}"
        if key not in theirs or key not in ours:
            yield path, theirs.get(key), ours.get(key)
            continue
        for part in theirs[key] | ours[key]:
            pages = zip_longest(theirs[key].get(part, ()), ours[key].get(part, ()))
            differing = ((f"{path}.{part}[{page}]", one, other) for page, (one, other) in enumerate(pages) if one != other)
            yield from islice(differing, 1)


def _shown(value: object) -> str:
    return "nothing" if value is None else show_value(value)
