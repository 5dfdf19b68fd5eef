"""docs/performance.json, the rows of the last release, and the parts of docs/performance.md that are made of it.

    python benchmarks/document.py    makes them anew

A part stands between `<!-- NAME -->` and `<!-- end of NAME -->`. It writes no other text, and it measures nothing.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from table import Row, about, decode, encode, markdown

DOCS = Path(__file__).resolve().parent.parent / "docs"
DOCUMENT, KEPT = DOCS / "performance.md", DOCS / "performance.json"


def keep(machine: Mapping[str, Any], rows: Iterable[Row], order: Sequence[str]) -> None:
    """Puts rows into KEPT in the place of those of the same name, which stand in `order`. Those of another machine or source
    go: a table has one."""
    rows = list(rows)
    names = {row.name for row in rows}
    before, kept = decode(KEPT.read_text()) if KEPT.exists() else ({}, [])
    if {**before, "day": None} != {**machine, "day": None}:
        kept = []
    rows += [row for row in kept if row.name not in names]
    KEPT.write_text(encode(machine, sorted(rows, key=lambda row: order.index(row.name))))


def parts() -> dict[str, str]:
    """Name -> text."""
    machine, rows = decode(KEPT.read_text())
    return {"machine": about(machine), "table": markdown(rows)}


def put(text: str) -> str:
    """`text` with every part replaced by the one of now; raises KeyError for one that has no place in it."""
    for name, part in parts().items():
        place = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end of {name} -->)", re.DOTALL)
        if not place.search(text):
            raise KeyError(name)
        text = place.sub(lambda found, part=part: f"{found[1]}{part}\n{found[2]}", text)  # type: ignore[misc]
    return text


def write() -> None:
    """Puts the parts into DOCUMENT."""
    DOCUMENT.write_text(put(DOCUMENT.read_text()))


if __name__ == "__main__":
    write()
