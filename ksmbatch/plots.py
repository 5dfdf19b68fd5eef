"""Pictures of a sweep: saving over full scans or time, against remote mappings, against ksmd's CPU time.

Each function returns a matplotlib Figure made of what analysis.py computes; none computes results or opens a window.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import StrMethodFormatter

from ksmbatch import analysis
from ksmbatch.analysis import Sweep
from ksmbatch.results import label, short, show
from ksmbatch.tables import MOMENTS_S, span

PICTURE: Final = "saving.png"
# Okabe and Ito's colours, the ones that differ in print and for the colour-blind; a longer list of values gets a scale
_COLOURS: Final = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
_DASHES: Final[tuple[Any, ...]] = ("solid", (0, (4, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)))
_MARKERS: Final = ("o", "s", "^", "D", "v", "P")
_GREY: Final = "#555555"


def save(sweep: Sweep, out: Path) -> Path:
    """Draw the picture that suits how the runs went, over time or over full scans, into `out`; returns its path."""
    figure = scan_rate(sweep) if analysis.by_time(sweep) else saving_over_scans(sweep)
    path = out / PICTURE
    partial = path.with_name(f".{path.name}.partial")
    figure.savefig(partial, format="png", dpi=150)
    partial.replace(path)
    return path


def saving_over_scans(sweep: Sweep) -> Figure:
    """Memory saved after every full scan, one line per setting; a panel for every value of the third key."""
    frame = analysis.saving_over_time(sweep)
    styles = _styles(sweep)
    figure, axes = _panels(styles)
    for run_id, part in frame.groupby("run_id", sort=False):
        style = styles[run_id]
        axes[style.panel].plot(part["full_scans"], part["saved_mib"], **style.line())
    _finish_panels(sweep, figure, axes, styles, "full scans")
    return figure


def saving_over_time(sweep: Sweep) -> Figure:
    """Memory saved over simulated time, one line per setting; a panel for every value of the third key."""
    frame = analysis.saving_over_time(sweep)
    styles = _styles(sweep)
    figure, axes = _panels(styles)
    for run_id, part in frame.groupby("run_id", sort=False):
        style = styles[run_id]
        axes[style.panel].plot(part["time_s"], part["saved_mib"], **style.line())
    _finish_panels(sweep, figure, axes, styles, "simulated time, s")
    return figure


def saving_against_remote(sweep: Sweep) -> Figure:
    """Memory saved at the end against mappings that cross nodes, one point per setting."""
    return _scatter(sweep, "remote_mappings", "mappings whose frame is on another node", "{x:,.0f}")


def saving_against_cpu(sweep: Sweep) -> Figure:
    """Memory saved at the end against ksmd's CPU time, one point per setting."""
    if analysis.by_time(sweep):
        return _scatter(sweep, "cpu_percent", "ksmd's share of a core since the start, %", "{x:g}")
    return _scatter(sweep, "cpu_s", "ksmd's CPU time, s", "{x:g}")


def scan_rate(sweep: Sweep, times_s: Sequence[float] = MOMENTS_S) -> Figure:
    """Saving (above) and ksmd's share of a core (below): over time, and, if one number is swept, at given times against it."""
    keys = analysis.varying(sweep)
    against = len(keys) == 1 and pd.api.types.is_numeric_dtype(sweep.runs[keys[0]])
    figure = Figure(figsize=(11 if against else 7.5, 6.4), layout="constrained")
    axes = figure.subplots(2, 2 if against else 1, sharex="col", sharey="row", squeeze=False)
    table = analysis.at_times(sweep, times_s)
    _draw_time(sweep, axes[:, 0], table)
    if against:
        _draw_moments(sweep, keys[0], axes[:, 1], table)
    axes[0, 0].set_ylabel("memory saved, MiB")
    axes[1, 0].set_ylabel("ksmd's share of a core\nsince the start, %")
    for ax in axes.flat:
        _dress(ax)
        ax.set_ylim(bottom=0)
    _title(figure, _rate_finding(sweep), sweep)
    return figure


def _draw_time(sweep: Sweep, axes: Sequence[Axes], table: pd.DataFrame) -> None:
    frame = analysis.saving_over_time(sweep)
    styles = _styles(sweep)
    for run_id, part in frame.groupby("run_id", sort=False):
        for ax, column in zip(axes, ("saved_mib", "cpu_percent"), strict=True):
            ax.plot(part["time_s"], part[column], **styles[run_id].line())
    for _, moment in table[["saved_mib"]].columns[:-1]:
        for ax in axes:
            ax.axvline(moment, color=_GREY, linewidth=0.8, linestyle=(0, (1, 2)), zorder=0)
    axes[-1].set_xlabel("simulated time, s")
    axes[0].legend(handles=_handles(styles), fontsize=8, loc="lower right", ncols=2)


def _draw_moments(sweep: Sweep, key: str, axes: Sequence[Axes], table: pd.DataFrame) -> None:
    values = sweep.runs[key]
    moments = [moment for _, moment in table[["saved_mib"]].columns]
    shades = mpl.colormaps["viridis"](np.linspace(0.85, 0.0, len(moments)))
    for moment, shade, marker in zip(moments, shades, _cycle(_MARKERS, len(moments)), strict=True):
        name = "end" if moment == moments[-1] else f"{moment:g} s"
        for ax, column in zip(axes, ("saved_mib", "cpu_percent"), strict=True):
            ax.plot(
                values,
                table[column, moment],
                color=shade,
                marker=marker,
                markersize=5,
                label=f"at {name}".replace("at end", "at the end"),
            )
    axes[-1].set_xlabel(short(key))
    if values.min() > 0 and values.max() / values.min() >= 20:
        axes[-1].set_xscale("log")
        axes[-1].xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes[0].legend(fontsize=8, loc="lower right")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Style:
    """How a run looks: `panel` by the third varying key, colour by the first, dash and marker by the second."""

    colour: Any
    dash: Any
    marker: str
    panel: int
    panel_name: str
    name: str

    def line(self) -> dict[str, Any]:
        return {"color": self.colour, "linestyle": self.dash, "linewidth": 1.8}


def _styles(sweep: Sweep) -> dict[str, _Style]:
    """By run_id. merge_across_nodes, the question of the house, takes the colours where it is swept."""
    keys = sorted(analysis.varying(sweep), key=lambda key: key != analysis.ACROSS)
    shown = {key: sweep.runs[key].map(show) for key in keys}
    ranks = {key: {value: rank for rank, value in enumerate(dict.fromkeys(column))} for key, column in shown.items()}
    colours = _colours(len(ranks[keys[0]])) if keys else [_COLOURS[1]]
    styles = {}
    for run_id in sweep.runs.index:
        rank = [ranks[key][shown[key][run_id]] for key in keys] + [0, 0, 0]
        styles[run_id] = _Style(
            colour=colours[rank[0]],
            dash=_cycle(_DASHES, rank[1] + 1)[-1],
            marker=_cycle(_MARKERS, rank[1] + 1)[-1],
            panel=rank[2],
            panel_name=label({key: sweep.runs.at[run_id, key] for key in keys[2:3]}),
            name=label({key: sweep.runs.at[run_id, key] for key in keys[:2]}),
        )
    return styles


def _colours(count: int) -> list[Any]:
    if count <= len(_COLOURS):
        return list(_COLOURS[:count])
    return list(mpl.colormaps["viridis"](np.linspace(0.0, 0.9, count)))


def _cycle(items: Sequence[Any], count: int) -> list[Any]:
    return [items[position % len(items)] for position in range(count)]


def _panels(styles: dict[str, _Style]) -> tuple[Figure, list[Axes]]:
    count = 1 + max(style.panel for style in styles.values())
    figure = Figure(figsize=(max(7.5, 5.2 * count), 4.9), layout="constrained")
    return figure, list(figure.subplots(1, count, sharex=True, sharey=True, squeeze=False)[0])


def _finish_panels(sweep: Sweep, figure: Figure, axes: list[Axes], styles: dict[str, _Style], x_name: str) -> None:
    names = {style.panel: style.panel_name for style in styles.values()}
    for panel, ax in enumerate(axes):
        _dress(ax)
        ax.set_ylim(bottom=0)
        ax.set_xlim(left=0)
        ax.set_xlabel(x_name)
        ax.set_title(names[panel], fontsize=10, color=_GREY)
    axes[0].set_ylabel("memory saved, MiB")
    _add_percent(sweep, axes[-1])
    handles = _handles(styles)
    if len(handles) > 1:
        figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 4), fontsize=9, frameon=False)
    _title(figure, _finding(sweep), sweep)


def _add_percent(sweep: Sweep, ax: Axes) -> None:
    """The same axis again on the right, in percent of the memory that the workload has."""
    memory_mib = float(analysis.memory_pages(sweep).max()) / analysis.PAGES_PER_MIB
    if memory_mib > 0:
        scale: tuple[Callable[[Any], Any], Callable[[Any], Any]] = (
            lambda mib: 100 * mib / memory_mib,
            lambda share: share * memory_mib / 100,
        )
        ax.secondary_yaxis("right", functions=scale).set_ylabel(f"% of {memory_mib:,.0f} MiB")


def _handles(styles: dict[str, _Style]) -> list[Line2D]:
    unique = {style.name: style for style in styles.values() if style.name}
    return [Line2D([], [], label=name, **style.line()) for name, style in unique.items()]


def _scatter(sweep: Sweep, column: str, x_name: str, x_form: str) -> Figure:
    frame = analysis.settings(sweep)
    styles = _styles(sweep)
    figure = Figure(figsize=(8.6, 4.6), layout="constrained")
    ax = figure.subplots()
    for run_id, row in frame.iterrows():
        style = styles[run_id]
        filled = style.colour if style.panel == 0 else "none"
        name = label({key: row[key] for key in analysis.varying(sweep)})
        ax.plot(
            row[column],
            row["saved_mib"],
            style.marker,
            color=style.colour,
            markerfacecolor=filled,
            markersize=9,
            label=name or None,
        )
    _dress(ax)
    ax.xaxis.set_major_formatter(StrMethodFormatter(x_form))
    ax.margins(0.08)
    ax.set_xlabel(x_name)
    ax.set_ylabel("memory saved at the end, MiB")
    if len(frame) > 1:
        figure.legend(loc="outside right upper", fontsize=8, frameon=False)
    return figure


def _finding(sweep: Sweep) -> str:
    """What the saving says, in one line."""
    worth = analysis.price(sweep)
    if len(worth):
        lost = span(worth["lost_mib"], ",.0f")
        return f"merge_across_nodes = 0 gives up {lost} MiB, {span(worth['lost_percent'], '.0f')} % of the saving"
    frame = analysis.settings(sweep)
    best = frame["saved_mib"].idxmax()
    text = f"KSM saves {span(frame['saved_mib'], ',.0f')} MiB"
    return f"{text}, most with {sweep.label(best)}" if len(frame) > 1 else text


def _rate_finding(sweep: Sweep) -> str:
    """How soon the saving is there, in one line."""
    until_s = analysis.until_share(sweep)["time_s"].dropna()
    if until_s.empty:
        return "KSM saves nothing in this time"
    slow, fast = until_s.idxmax(), until_s.idxmin()
    if slow == fast:
        return f"95 % of the saving is there after {until_s[slow]:,.0f} s"
    after = [f"{until_s[run_id]:,.0f} s with {sweep.label(run_id)}" for run_id in (slow, fast)]
    return f"95 % of the saving is there after {', '.join(after)}"


def _dress(ax: Axes) -> None:
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis="y", color="#dddddd", linewidth=0.7)
    ax.set_axisbelow(True)
    ax.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))


def _title(figure: Figure, finding: str, sweep: Sweep) -> None:
    host = sweep.config["host"]
    about = f"{sweep.workload}, {host['nodes']} nodes, Linux {host['kernel']}"
    figure.suptitle(f"{finding}\n", fontsize=12, fontweight="bold", x=0.01, ha="left")
    figure.text(0.01, 0.925, about, fontsize=9, color=_GREY)
