"""What exists by name: knobs, kernels, policies, workloads, importers and metrics, each with a line of explanation.

It keeps no list of its own; every name comes from the table or registry in which the thing itself is entered.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from ksmbatch.documents import nearest
from ksmbatch.errors import InputError

# `name` and `doc` of one thing, and of a knob or metric also what its table says
Entry: TypeAlias = Mapping[str, Any]


def entries(kind: str) -> Sequence[Entry]:
    """The members of `kind`, one of `KINDS`; raises InputError."""
    if kind not in KINDS:
        raise InputError(
            where="ksmbatch list", value=kind, rule=f"must be one of {', '.join(KINDS)}", hint=nearest(kind, KINDS)
        )
    return KINDS[kind]()


def show(members: Sequence[Entry], as_json: bool, echo: Callable[[str], object]) -> None:
    """Give `echo` the members as a table, or as one JSON list; nothing if there are none."""
    if not members:
        return
    if as_json:
        echo(json.dumps(members, indent=1, ensure_ascii=False))
        return
    rows = [[str(member["name"]), *_facts(member), str(member["doc"])] for member in members]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _facts(member: Entry) -> list[str]:
    if "default" in member:
        return [f"{member['default']}", f"{member['min']}..{member['max']}", "" if member["unit"] == "1" else member["unit"]]
    if "unit" in member:
        return ["" if member["unit"] == "1" else member["unit"], member["kind"], member["table"]]
    return []


def _knobs() -> list[Entry]:
    from ksmbatch.codes import Kernel
    from ksmbatch.sections import knobs

    return [
        {
            "name": knob.name,
            "default": knob.default,
            "min": knob.low,
            "max": knob.high,
            "unit": knob.unit,
            "kernels": [kernel.word for kernel in Kernel if kernel >= knob.since],
            "doc": knob.doc,
        }
        for knob in knobs()
    ]


def _kernels() -> list[Entry]:
    from ksmbatch.codes import KERNEL_DOCS

    return [{"name": kernel.word, "doc": doc} for kernel, doc in KERNEL_DOCS.items()]


def _policies() -> list[Entry]:
    from ksmbatch.codes import POLICY_DOCS

    return [{"name": policy.name.lower(), "doc": doc} for policy, doc in POLICY_DOCS.items()]


def _workloads() -> list[Entry]:
    from ksmbatch.generators import GENERATORS

    return [{"name": name, "doc": generator.about} for name, generator in GENERATORS.items()]


def _importers() -> list[Entry]:
    from ksmbatch.importers import IMPORTERS

    return [{"name": name, "doc": importer.about} for name, importer in IMPORTERS.items()]


def _metrics() -> list[Entry]:
    from ksmbatch.metrics import NODE_COUNTERS, SURVEYED
    from ksmbatch.results import FIGURES, SAMPLED

    tables = {"samples": SAMPLED, "nodes": NODE_COUNTERS, "runs": (*SURVEYED, *FIGURES)}
    return [
        {"name": metric.name, "unit": metric.unit, "kind": metric.kind, "table": table, "doc": metric.doc}
        for table, metrics in tables.items()
        for metric in metrics
    ]


KINDS: Final[Mapping[str, Callable[[], Sequence[Entry]]]] = {
    "knobs": _knobs,
    "kernels": _kernels,
    "policies": _policies,
    "workloads": _workloads,
    "importers": _importers,
    "metrics": _metrics,
}
