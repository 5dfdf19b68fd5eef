"""The terminal's answer to a sweep or a run: tables that fit 80 columns and say what to choose and what it costs.

It lays out what analysis.py computes; it computes nothing of its own, and prints nothing but to the console it is given.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ksmbatch import tables_moves
from ksmbatch.layout import count, new_table, number, print_table, span
from ksmbatch.results import show
from ksmbatch.units import pages_to_mib

if TYPE_CHECKING:  # pandas is slow to import and `ksmbatch run` needs none of it
    import pandas as pd

    from ksmbatch.analysis import Sweep

# The scan-rate study's moments: amid and at the end of the first scan of the shipped trace with the kernel's defaults, and
# the end of the trace. Times past a run's end are left out.
MOMENTS_S: Final = (30.0, 60.0, 96.0)
PINNED_GUESTS: Final = "pinned-guests"  # the generator whose mms are one guest per node


def print_sweep(sweep: "Sweep", console: Console) -> None:
    """One table, of moves if there are any, else of the settings by full scans or by time as the runs went; then the price of
    merge_across_nodes = 0, and what guests have of it."""
    from ksmbatch import analysis, moves_analysis

    if is_about_moves := moves_analysis.is_about_moves(sweep):
        tables_moves.print_moves(sweep, console)
    else:
        print_table(times_table(sweep) if analysis.by_time(sweep) else settings_table(sweep), console)
    worth = analysis.price(sweep)
    # per policy, or per kind of move, it would say the same over and over
    if len(worth) and not (is_about_moves and moves_analysis.compares_moves(sweep)):
        print_table(price_table(sweep, worth), console)
        console.print(price_sentence(worth), highlight=False, soft_wrap=True)
    if sweep.config.get("workload", {}).get("generator") == PINNED_GUESTS:
        tables_moves.print_remote_shares(sweep, console)


def settings_table(sweep: "Sweep") -> Table:
    """One row per setting: saving, per node, full scans until 95 % of it, ksmd's CPU time, remote mappings, speed."""
    from ksmbatch import analysis

    frame = analysis.settings(sweep)
    nodes = [column for column in frame.columns if column.startswith("node")]
    heads = ["saved\nMiB", "\n%", *(f"node {column[4:-4]}\nMiB" for column in nodes)]
    heads += ["scans\nto 95%", "ksmd\nCPU s", "remote\nmappings", "M visits\nper s"]
    table = new_table(f"Memory saved by KSM, of {_memory(sweep)}", sweep.swept, heads)
    best = frame["saved_mib"].max()
    for row in frame.to_dict("records"):
        table.add_row(
            *(show(row[key]) for key in sweep.swept),
            number(row["saved_mib"]),
            number(row["saved_percent"]),
            *(number(row[column]) for column in nodes),
            count(row["full_scans_95"]),
            number(row["cpu_s"]),
            count(row["remote_mappings"]),
            number(row["visits_per_s"] / 1e6),
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
    table = new_table(title, sweep.swept, [*saved, "95 %\nafter\ns", *cpu])
    for run_id, row in frame.iterrows():
        table.add_row(
            *(show(sweep.runs.at[run_id, key]) for key in sweep.swept),
            *(number(row["saved_mib", moment]) for moment in moments),
            count(until_s[run_id]),
            *(number(row["cpu_percent", moment]) for moment in moments),
        )
    return table


def price_table(sweep: "Sweep", worth: "pd.DataFrame") -> Table:
    """`analysis.price`, for people."""
    others = [key for key in sweep.swept if key in worth.columns]
    heads = ["saved with 1\nMiB", "lost with 0\nMiB", "\n%", "remote mappings\nwith 1", "\nwith 0"]
    table = new_table("The price of merge_across_nodes = 0", others, heads)
    for row in worth.to_dict("records"):
        table.add_row(
            *(show(row[key]) for key in others),
            number(row["saved_mib"]),
            number(row["lost_mib"]),
            number(row["lost_percent"]),
            count(row["remote_mappings"]),
            count(row["remote_mappings"] - row["local_again"]),
        )
    return table


def price_sentence(worth: "pd.DataFrame") -> Text:
    """The price in a sentence, over all other settings."""
    lost, share, local = (span(worth[column], form) for column, form in _PRICE_FORMS)
    return Text(f"merge_across_nodes = 0 gives up {lost} MiB ({share} % of the saving) and avoids {local} remote mappings.")


_PRICE_FORMS: Final = (("lost_mib", ",.1f"), ("lost_percent", ".1f"), ("local_again", ",.0f"))


# What a run says only if it happened.
_TROUBLE: Final = (
    "corruptions",
    "dangling_pages",
    "stranded_pages",
    "unreachable_mappings",
    "migrate_allocations",
    "migrate_failures",
    "migrate_refused",
    "migrate_stuck",
    "knob_refused",
)


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
        ("saved", f"{number(pages_to_mib(saved))} of {number(pages_to_mib(memory))} MiB ({_percent(saved, memory)} %)"),
        *((f"  on node {one}", f"{number(pages_to_mib(pages))} MiB") for one, pages in zip(nid, mapped - frames, strict=True)),
        ("pages", ", ".join(f"{last['pages_' + name]:,} {name}" for name in ("shared", "sharing", "unshared", "volatile"))),
        ("remote mappings", f"{remote.sum():,}"),
        *_moved(last),
        ("ksmd", f"{cpu_s:,.2f} s of CPU time, {_percent(last['ksmd_cpu_ns'], last['time_ns'])} % of a core"),
        ("speed", speed(last["page_visits"], figures["wall_s"])),
    ]
    width = max(len(head) for head, _ in lines)
    for head, text in lines:
        console.print(f"{head:<{width}}  {text}", highlight=False, soft_wrap=True)


def _moved(last: Mapping[str, int]) -> list[tuple[str, str]]:
    """What moved in a run, and what came of it."""
    lines = [(name, f"{last[name]:,}") for name in _TROUBLE if last[name]]
    if last["frames_moved"]:
        lines.insert(0, ("moved", f"{last['frames_moved']:,} frames, {last['ksm_frames_moved']:,} of them KSM pages"))
        lines.insert(1, ("duplicates", f"{last['duplicates_left']:,} KSM pages beyond one per content and tree"))
    return lines


def speed(page_visits: int, wall_s: float) -> str:
    """How fast it was: page visits, seconds, visits per second."""
    rate = f": {page_visits / wall_s / 1e6:,.1f} M visits/s" if wall_s > 0 else ""
    return f"{page_visits:,} page visits in {wall_s:.2f} s{rate}"


def _memory(sweep: "Sweep") -> str:
    from ksmbatch import analysis

    return f"{pages_to_mib(analysis.memory_pages(sweep).max()):,.0f} MiB"


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole if whole else 0:.1f}"
