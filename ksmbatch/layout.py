"""How tables look on a terminal: as airy as it is wide, and every number whole.

It lays out what it is given; what tables say is in tables.py and tables_moves.py.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from rich import box
from rich.console import Console
from rich.segment import Segment, Segments
from rich.table import Table

from ksmbatch.results import short

if TYPE_CHECKING:
    import pandas as pd

_WIDEST: Final = 10_000
_PADDINGS: Final = ((0, 1), (0, 1, 0, 0), (0, 0))


def new_table(title: str, keys: Sequence[str], heads: Sequence[str]) -> Table:
    """A table with a column for each swept key of `keys`, and one for each of `heads`."""
    table = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False)
    for head in (*(break_name(short(key)) for key in keys), *heads):
        table.add_column(head, justify="right", no_wrap=True, vertical="bottom")
    return table


def width_of(table: Table, console: Console, padding: tuple[int, ...] = _PADDINGS[-1]) -> int:
    """Columns of the terminal that `table` takes, by default with as few blanks as there can be."""
    table.padding = padding  # type: ignore[assignment]  # rich takes what CSS takes
    return console.measure(table, options=console.options.update(width=_WIDEST)).maximum


def print_table(table: Table, console: Console, headings: Mapping[int, str] | None = None, room: int | None = None) -> None:
    """The title, then the table. `headings`: lines that stand above the rows of these numbers, which are of one line each.
    `room`: columns of the terminal that may be used, by default all."""
    title, table.title = table.title, None
    console.print(title, style="bold", highlight=False, soft_wrap=True)
    for padding in _PADDINGS:
        width = width_of(table, console, padding)
        if width <= (room or console.width):
            break
    # a number that is cut is worse than a line that is long: pipes have 80 columns by default, and hosts many nodes
    lines = console.render_lines(table, console.options.update(width=width), pad=False)
    first_row = 1 + next(k for k, line in enumerate(lines) if any("─" in segment.text for segment in line))
    for k, line in enumerate(lines):
        if headings and k - first_row in headings:
            space = "\n" if k > first_row else ""
            console.print(f"{space} {headings[k - first_row]}", style="italic", highlight=False, markup=False, soft_wrap=True)
        console.print(Segments([*line, Segment.line()]), soft_wrap=True)


def break_name(name: str) -> str:
    """A knob's name over lines of about 8 characters, so that a column is no wider than its values need."""
    lines = [""]
    for word in name.split("_"):
        joined = f"{lines[-1]}_{word}" if lines[-1] else word
        if lines[-1] and len(joined) > 7:
            lines[-1] += "_"
            lines.append(word)
        else:
            lines[-1] = joined
    return "\n".join(lines)


def number(value: float, none: str = "-") -> str:
    """With one decimal; `none` for NaN."""
    return none if value != value else f"{value:,.1f}"


def count(value: float, none: str = "-") -> str:
    """Whole; `none` for NaN."""
    return none if value != value else f"{value:,.0f}"


def span(values: "pd.Series", form: str) -> str:
    """The values' range in `form`, as one number if it shows as one."""
    low, high = f"{values.min():{form}}", f"{values.max():{form}}"
    return low if low == high else f"{low} to {high}"
