"""The tables of docs/model.md, made from the tables of the program, so that they cannot fall behind it.

    python docs/tables.py            print them
    python docs/tables.py --write    put them into docs/model.md

A table stands between `<!-- NAME -->` and `<!-- end of NAME -->`. It writes no other text.
"""

import argparse
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path

from ksmbatch.codes import Kernel
from ksmbatch.cost import Costs
from ksmbatch.metrics import Metric
from ksmbatch.results import FIGURES, NODE_COLUMNS, SAMPLE_COLUMNS, SURVEYED
from ksmbatch.sections import SECTIONS, knobs

MODEL = Path(__file__).resolve().parent / "model.md"


def tables() -> dict[str, str]:
    """Name -> Markdown table."""
    return {
        "knobs": _knobs(),
        "other keys": _other_keys(),
        "costs": _table(("cost", "ns"), ((f"`{field.name}`", f"{field.default:,}") for field in fields(Costs))),
        "metrics of samples": _metrics(SAMPLE_COLUMNS),
        "metrics of nodes": _metrics(NODE_COLUMNS),
        "metrics of runs": _metrics((*SURVEYED, *FIGURES)),
    }


def put(text: str) -> str:
    """`text` with every table replaced by the one of now; raises KeyError for a table that has no place in it."""
    for name, table in tables().items():
        place = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end of {name} -->)", re.DOTALL)
        if not place.search(text):
            raise KeyError(name)
        text = place.sub(lambda found, table=table: f"{found[1]}{table}\n{found[2]}", text)  # type: ignore[misc]
    return text


def _knobs() -> str:
    rows = (
        (
            f"`{knob.name}`",
            f"{knob.default}",
            f"{knob.low} to {knob.high}",
            "" if knob.unit == "1" else knob.unit,
            ", ".join(kernel.word for kernel in Kernel if kernel >= knob.since),
            knob.doc,
        )
        for knob in knobs()
    )
    return _table(("knob", "default", "range", "unit", "kernels", "meaning"), rows)


def _other_keys() -> str:
    rows = (
        (f"`{section}.{name}`", field.description or "")
        for section, model in SECTIONS.items()
        if section != "ksm"
        for name, field in model.model_fields.items()
        if name != "parameters"
    )
    return _table(("key", "meaning"), rows)


def _metrics(metrics: Sequence[Metric]) -> str:
    rows = ((f"`{metric.name}`", "" if metric.unit == "1" else metric.unit, metric.kind, metric.doc) for metric in metrics)
    return _table(("name", "unit", "kind", "meaning"), rows)


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def main() -> None:
    """Print the tables, or write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    if parser.parse_args().write:
        MODEL.write_text(put(MODEL.read_text()))
        return
    for name, table in tables().items():
        sys.stdout.write(f"## {name}\n\n{table}\n\n")


if __name__ == "__main__":
    main()
