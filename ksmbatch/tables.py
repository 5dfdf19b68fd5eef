"""The terminal's answer to a sweep or a run: tables that fit 80 columns and say what to choose and what it costs.

It lays out what analysis.py computes; it computes nothing of its own, and prints nothing but to the console it is given.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.segment import Segment, Segments
from rich.table import Table
from rich.text import Text

from ksmbatch.results import short, show
from ksmbatch.units import pages_to_mib

if TYPE_CHECKING:  # pandas is slow to import and `ksmbatch run` needs none of it
    import pandas as pd

    from ksmbatch.analysis import Sweep

# The scan-rate study's moments: amid and at the end of the first scan of the shipped trace with the kernel's defaults, and
# the end of the trace. Times past a run's end are left out.
MOMENTS_S: Final = (30.0, 60.0, 96.0)
_WIDEST: Final = 10_000


def print_sweep(sweep: "Sweep", console: Console) -> None:
    """The settings' table, by full scans or by time as the runs went, and the price of merge_across_nodes = 0."""
    from ksmbatch import analysis

    _print(times_table(sweep) if analysis.by_time(sweep) else settings_table(sweep), console)
    worth = analysis.price(sweep)
    if len(worth):
        _print(price_table(sweep, worth), console)
        console.print(price_sentence(worth), highlight=False, soft_wrap=True)


def settings_table(sweep: "Sweep") -> Table:
    """One row per setting: saving, per node, full scans until 95 % of it, ksmd's CPU time, remote mappings, speed."""
    from ksmbatch import analysis

    frame = analysis.settings(sweep)
    nodes = [column for column in frame.columns if column.startswith("node")]
    heads = ["saved\nMiB", "\n%", *(f"node {column[4:-4]}\nMiB" for column in nodes)]
    heads += ["scans\nto 95%", "ksmd\nCPU s", "remote\nmappings", "M visits\nper s"]
    table = _table(f"Memory saved by KSM, of {_memory(sweep)}", sweep.swept, heads)
    best = frame["saved_mib"].max()
    for row in frame.to_dict("records"):
        table.add_row(
            *(show(row[key]) for key in sweep.swept),
            _number(row["saved_mib"]),
            _number(row["saved_percent"]),
            *(_number(row[column]) for column in nodes),
            _count(row["full_scans_95"]),
            _number(row["cpu_s"]),
            _count(row["remote_mappings"]),
            _number(row["visits_per_s"] / 1e6),
            style="bold" if row["saved_mib"] == best else None,
        )
    return table


def times_table(sweep: "Sweep", times_s: Sequence[float] = MOMENTS_S) -> Table:
    """One row per setting: saving and ksmd's share of a core at the given times and at the end, and the time of 95 %."""
    from ksmbatch import analysis

    frame = analysis.at_times(sweep, times_s)
    until_s = analysis.until_share(sweep)["time_s"]
    moments = [moment for _, moment in frame[["saved_mib"]].columns]
    names = [*(f"{moment:g} s" for moment in moments[:-1]), "end" if moments[-1] == float("inf") else f"{moments[-1]:g} s"]
    saved, cpu = (
        [f"{group}\n{name}" if name == names[0] else f"\n\n{name}" for name in names]
        for group in ("saved\nMiB at", "ksmd\nCPU % at")
    )
    title = f"Memory saved by KSM, of {_memory(sweep)}; when 95 % of it; ksmd's share of a core so far"
    table = _table(title, sweep.swept, [*saved, "95 %\nafter\ns", *cpu])
    for run_id, row in frame.iterrows():
        table.add_row(
            *(show(sweep.runs.at[run_id, key]) for key in sweep.swept),
            *(_number(row["saved_mib", moment]) for moment in moments),
            _count(until_s[run_id]),
            *(_number(row["cpu_percent", moment]) for moment in moments),
        )
    return table


def price_table(sweep: "Sweep", worth: "pd.DataFrame") -> Table:
    """`analysis.price`, for people."""
    others = [key for key in sweep.swept if key in worth.columns]
    heads = ["saved with 1\nMiB", "lost with 0\nMiB", "\n%", "remote mappings\nwith 1", "\nwith 0"]
    table = _table("The price of merge_across_nodes = 0", others, heads)
    for row in worth.to_dict("records"):
        table.add_row(
            *(show(row[key]) for key in others),
            _number(row["saved_mib"]),
            _number(row["lost_mib"]),
            _number(row["lost_percent"]),
            _count(row["remote_mappings"]),
            _count(row["remote_mappings"] - row["local_again"]),
        )
    return table


def price_sentence(worth: "pd.DataFrame") -> Text:
    """The price in a sentence, over all other settings."""
    lost, share, local = (span(worth[column], form) for column, form in _PRICE_FORMS)
    return Text(f"merge_across_nodes = 0 gives up {lost} MiB ({share} % of the saving) and avoids {local} remote mappings.")


_PRICE_FORMS: Final = (("lost_mib", ",.1f"), ("lost_percent", ".1f"), ("local_again", ",.0f"))


def print_run(
    last: Mapping[str, int], nodes: Mapping[str, NDArray[np.int64]], figures: Mapping[str, float], console: Console
) -> None:
    """A short summary of one run. `last`: its last counters; `nodes`: node counters by name (all samples); `figures`."""
    n_nodes = len(np.unique(nodes["nid"]))
    nid, mapped, frames, remote = (nodes[name][-n_nodes:] for name in ("nid", "mapped_pages", "frames", "remote_mappings"))
    saved, memory = last["saved_pages"], int(mapped.sum())
    cpu_s = last["ksmd_cpu_ns"] / 1e9
    lines = [
        ("simulated", f"{last['time_ns'] / 1e9:,.1f} s, {last['full_scans']:,} full scans"),
        ("saved", f"{_number(pages_to_mib(saved))} of {_number(pages_to_mib(memory))} MiB ({_percent(saved, memory)} %)"),
        *((f"  on node {one}", f"{_number(pages_to_mib(pages))} MiB") for one, pages in zip(nid, mapped - frames, strict=True)),
        ("pages", ", ".join(f"{last['pages_' + name]:,} {name}" for name in ("shared", "sharing", "unshared", "volatile"))),
        ("remote mappings", f"{remote.sum():,}"),
        ("ksmd", f"{cpu_s:,.2f} s of CPU time, {_percent(last['ksmd_cpu_ns'], last['time_ns'])} % of a core"),
        ("speed", speed(last["page_visits"], figures["wall_s"])),
    ]
    for name in ("corruptions", "dangling_pages", "unreachable_mappings"):
        if last[name]:
            lines.append((name, f"{last[name]:,}"))
    width = max(len(head) for head, _ in lines)
    for head, text in lines:
        console.print(f"{head:<{width}}  {text}", highlight=False, soft_wrap=True)


def speed(page_visits: int, wall_s: float) -> str:
    """How fast it was: page visits, seconds, visits per second."""
    rate = f": {page_visits / wall_s / 1e6:,.1f} M visits/s" if wall_s > 0 else ""
    return f"{page_visits:,} page visits in {wall_s:.2f} s{rate}"


def span(values: "pd.Series", form: str) -> str:
    """The values' range in `form`, as one number if it shows as one."""
    low, high = f"{values.min():{form}}", f"{values.max():{form}}"
    return low if low == high else f"{low} to {high}"


def _table(title: str, keys: Sequence[str], heads: Sequence[str]) -> Table:
    table = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False)
    for head in (*(_break(short(key)) for key in keys), *heads):
        table.add_column(head, justify="right", no_wrap=True, vertical="bottom")
    return table


def _print(table: Table, console: Console) -> None:
    """The title, then the table, as airy as the console is wide."""
    title, table.title = table.title, None
    console.print(title, style="bold", highlight=False, soft_wrap=True)
    widest = console.options.update(width=_WIDEST)
    for padding in ((0, 1), (0, 1, 0, 0), (0, 0)):
        table.padding = padding
        width = console.measure(table, options=widest).maximum
        if width <= console.width:
            break
    # a number that is cut is worse than a line that is long: pipes have 80 columns by default, and hosts many nodes
    for line in console.render_lines(table, widest.update(width=width), pad=False):
        console.print(Segments([*line, Segment.line()]), soft_wrap=True)


def _break(name: str) -> str:
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


def _memory(sweep: "Sweep") -> str:
    from ksmbatch import analysis

    return f"{pages_to_mib(analysis.memory_pages(sweep).max()):,.0f} MiB"


def _number(value: float) -> str:
    return "-" if value != value else f"{value:,.1f}"


def _count(value: float) -> str:
    return "-" if value != value else f"{value:,.0f}"


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole if whole else 0:.1f}"
