"""Rows of the table of benchmarks: a figure of ours, a peer's for the same work, their ratio, and what was asked for.

It lays out and judges; it measures nothing. Rows travel as JSON, and the table is made of that alone (docs/performance.md).
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

LESS_IS_BETTER = ("s", "B")  # seconds, bytes of memory; everything else is a rate
HEADS = ("row", "work", "ours", "peer", "ratio", "at least", "want", "reached", "walked")


@dataclass(frozen=True, kw_only=True)
class Target:
    """What was asked for, of `of`, which is "ours" (in the row's unit) or "ratio". `want`: a number, or words."""

    of: str
    at_least: float
    want: float | str | None = None


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line. `unit` of `ours` and `theirs`: "visits/s", "B/s", "s" or "B". `peer`: who or what `theirs` is of. `exact`: the
    share of ksmd's visits that walked a tree. Figures are medians."""

    name: str
    work: str
    unit: str
    ours: float
    peer: str = ""
    theirs: float | None = None
    target: Target | None = None
    exact: float | None = None

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        """The row that `asdict` made a document of."""
        target = document["target"]
        return cls(**{**document, "target": None if target is None else Target(**target)})

    @property
    def ratio(self) -> float | None:
        """How many times better than the peer; below 1: worse."""
        if self.theirs is None:
            return None
        return self.theirs / self.ours if self.unit in LESS_IS_BETTER else self.ours / self.theirs

    @property
    def cells(self) -> tuple[str, ...]:
        """What stands under HEADS."""
        peer = f"{self.peer}: {amount(self.theirs, self.unit)}" if self.theirs is not None else self.peer
        at_least, want = ("", "") if self.target is None else (self._asked(self.target.at_least), self._asked(self.target.want))
        return (
            self.name,
            self.work,
            amount(self.ours, self.unit),
            peer,
            "" if self.ratio is None else amount(self.ratio, "x"),
            at_least,
            want,
            self._reached(),
            "" if self.exact is None else f"{100 * self.exact:.2g} %",
        )

    def _asked(self, value: float | str | None) -> str:
        assert self.target is not None
        if value is None or isinstance(value, str):
            return value or ""
        return amount(value, "x" if self.target.of == "ratio" else self.unit)

    def _reached(self) -> str:
        target = self.target
        value = None if target is None else self.ours if target.of == "ours" else self.ratio
        if target is None or value is None:
            return ""
        less = target.of == "ours" and self.unit in LESS_IS_BETTER

        def enough(limit: float) -> bool:
            return value <= limit if less else value >= limit

        if isinstance(target.want, float | int) and enough(target.want):
            return "as wanted"
        return "yes" if enough(target.at_least) else "**no**"


def amount(value: float, unit: str) -> str:
    """A figure for people.

    >>> [amount(*figure) for figure in ((512.3e6, "visits/s"), (0.38e6, "visits/s"), (8.1e12, "visits/s"), (1340, "x"))]
    ['512 M visits/s', '0.38 M visits/s', '8,100 G visits/s', '1,340x']
    >>> [amount(*figure) for figure in ((9.871, "s"), (0.0213, "s"), (6 * 2**30, "B"), (8.7e9, "B/s"), (0.667, "x"))]
    ['9.87 s', '21.3 ms', '6 GiB', '8.7 GB/s', '0.667x']
    """
    match unit:
        case "x":
            return f"{_three(value)}x"
        case "s":
            return f"{_three(value)} s" if value >= 1 else f"{_three(1e3 * value)} ms"
        case "B":
            return f"{_three(value / 2**30)} GiB"
        case "B/s":
            return f"{_three(value / 1e9)} GB/s"
    return f"{_three(value / 1e6)} M {unit}" if value < 1e9 else f"{_three(value / 1e9)} G {unit}"


def _three(value: float) -> str:
    """Three digits that count, and no power of ten."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def markdown(rows: Iterable[Row]) -> str:
    """The table, its columns as wide as their cells, so that it can be read as it is, too."""
    lines = [HEADS, *(row.cells for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADS))]

    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True))} |"

    return "\n".join([line(HEADS), line(["-" * width for width in widths]), *map(line, lines[1:])])


def about(machine: Mapping[str, Any]) -> str:
    """The machine and the versions, in a sentence."""
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {amount(machine['memory'], 'B')} of memory, {machine['system']}; "
        f"Python {machine['python']}, {packages}, LLVM {machine['llvm']}, g++ {machine['g++'] or 'missing'}; "
        f"ksmbatch {machine['version']}, sources {machine['sources']}; {machine['day']}."
    )


def encode(machine: Mapping[str, Any], rows: Iterable[Row]) -> str:
    """Machine and rows as JSON, a row per line so that a difference between two can be read."""
    lines = ",\n".join(f"  {json.dumps(asdict(row))}" for row in rows)
    return f'{{"machine": {json.dumps(dict(machine))},\n "rows": [\n{lines}\n]}}\n'


def decode(text: str) -> tuple[dict[str, Any], list[Row]]:
    """What `encode` wrote."""
    document = json.loads(text)
    return document["machine"], [Row.of(row) for row in document["rows"]]
