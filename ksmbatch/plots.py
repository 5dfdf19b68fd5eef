"""Pictures of a sweep: saving over full scans or time, against remote mappings, against ksmd's CPU time.

Each function returns a matplotlib Figure made of what analysis.py computes; none computes results or opens a window.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from ksmbatch import analysis, moves_analysis, plots_moves
from ksmbatch.analysis import Sweep
from ksmbatch.drawing import COLOURS, GREY, add_percent, dress, headline, legend_below, palette
from ksmbatch.layout import span
from ksmbatch.results import label, short, show
from ksmbatch.tables import MOMENTS_S
from ksmbatch.units import PAGES_PER_MIB

PICTURE: Final = "saving.png"
_DASHES: Final[tuple[Any, ...]] = ("solid", (0, (4, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)))
_MARKERS: Final = ("o", "s", "^", "D", "v", "P")
_PANEL_COLUMNS: Final = 3
_PANELS: Final = 9  # a third key of more values shares one panel


def save(sweep: Sweep, out: Path) -> Path:
    """Draw the picture that suits how the runs went, over time or over full scans, or around moves, into `out`; returns its
    path."""
    if moves_analysis.is_about_moves(sweep):
        figure = plots_moves.saving_around_moves(sweep)
    else:
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
    figure, remote = _scatter(sweep, "remote_mappings", "mappings whose frame is on another node", "{x:,.0f}")
    headline(figure, f"{_range_saved(sweep)} with {span(remote, ',.0f')} mappings across nodes", sweep)
    return figure


def saving_against_cpu(sweep: Sweep) -> Figure:
    """Memory saved at the end against ksmd's share of a core over the whole run, one point per setting."""
    figure, cpu = _scatter(sweep, "cpu_percent", "ksmd's share of a core, %", "{x:g}")
    headline(figure, f"{_range_saved(sweep)} for {span(cpu, '.1f')} % of a core", sweep)
    return figure


def scan_rate(sweep: Sweep, times_s: Sequence[float] = MOMENTS_S) -> Figure:
    """Saving (above) and ksmd's share of a core (below): over time, and, if one number is swept, at given times against it."""
    keys = analysis.varying(sweep)
    against = len(keys) == 1 and pd.api.types.is_numeric_dtype(sweep.runs[keys[0]])
    figure = Figure(figsize=(11 if against else 7.5, 6.4), layout="constrained")
    axes = figure.subplots(2, 2 if against else 1, sharex="col", sharey="row", squeeze=False)
    table = analysis.at_times(sweep, times_s)
    moments = [moment for _, moment in table[["saved_mib"]].columns]
    _draw_time(sweep, list(axes[:, 0]), moments)
    if against:
        _draw_moments(sweep, keys[0], list(axes[:, 1]), table, moments)
    axes[0, 0].set_ylabel("memory saved, MiB")
    axes[1, 0].set_ylabel("ksmd's share of a core\nsince the start, %")
    for ax in axes.flat:
        dress(ax)
        ax.set_ylim(bottom=0)
    legend_below(figure, _handles(_styles(sweep)))
    headline(figure, _rate_finding(sweep), sweep)
    return figure


def _draw_time(sweep: Sweep, axes: Sequence[Axes], moments: Sequence[float]) -> None:
    frame = analysis.saving_over_time(sweep)
    styles = _styles(sweep)
    for run_id, part in frame.groupby("run_id", sort=False):
        for ax, column in zip(axes, ("saved_mib", "cpu_percent"), strict=True):
            ax.plot(part["time_s"], part[column], **styles[run_id].line())
    for moment in moments[:-1]:
        for ax in axes:
            ax.axvline(moment, color=GREY, linewidth=0.8, linestyle=(0, (1, 2)), zorder=0)
        axes[0].annotate(f"{moment:g} s", (moment, 1), xycoords=("data", "axes fraction"), ha="center", va="bottom", fontsize=8)
    axes[-1].set_xlabel("simulated time, s")
    axes[-1].set_xlim(left=0)


def _draw_moments(sweep: Sweep, key: str, axes: Sequence[Axes], table: pd.DataFrame, moments: Sequence[float]) -> None:
    values = sweep.runs[key]
    shades = mpl.colormaps["plasma"](np.linspace(0.8, 0.0, len(moments)))
    for moment, shade, marker in zip(moments, shades, _cycle(_MARKERS, len(moments)), strict=True):
        name = "the end" if moment == moments[-1] else f"{moment:g} s"
        for ax, column in zip(axes, ("saved_mib", "cpu_percent"), strict=True):
            ax.plot(values, table[column, moment], color=shade, marker=marker, markersize=5, label=f"at {name}")
    axes[-1].set_xlabel(short(key))
    if values.min() > 0 and values.max() / values.min() >= 20:
        axes[-1].set_xscale("log")
        axes[-1].xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes[-1].legend(fontsize=8.5, frameon=False, loc="best")


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
    """By run_id. A key of many values takes the colours, else merge_across_nodes, the question of the house."""
    shown = {key: sweep.runs[key].map(show) for key in analysis.varying(sweep)}
    ranks = {key: {value: rank for rank, value in enumerate(dict.fromkeys(column))} for key, column in shown.items()}
    keys = sorted(ranks, key=lambda key: (len(ranks[key]) <= len(_DASHES), key != analysis.ACROSS))
    in_panels = [key for key in keys[2:3] if len(ranks[key]) <= _PANELS]
    colours = palette(len(ranks[keys[0]])) if keys else [COLOURS[1]]
    styles = {}
    for run_id in sweep.runs.index:
        rank = [ranks[key][shown[key][run_id]] for key in [*keys[:2], *in_panels]] + [0, 0, 0]
        styles[run_id] = _Style(
            colour=colours[rank[0]],
            dash=_cycle(_DASHES, rank[1] + 1)[-1],
            marker=_cycle(_MARKERS, rank[1] + 1)[-1],
            panel=rank[2],
            panel_name=label({key: sweep.runs.at[run_id, key] for key in in_panels}),
            name=label({key: sweep.runs.at[run_id, key] for key in keys[:2]}),
        )
    return styles


def _cycle(items: Sequence[Any], count: int) -> list[Any]:
    return [items[position % len(items)] for position in range(count)]


def _panels(styles: dict[str, _Style]) -> tuple[Figure, list[Axes]]:
    count = 1 + max(style.panel for style in styles.values())
    columns = min(count, _PANEL_COLUMNS)
    rows = -(-count // columns)
    figure = Figure(figsize=(max(7.5, 5.2 * columns), 1.2 + 3.7 * rows), layout="constrained")
    axes = list(figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flat)
    for unused in axes[count:]:
        unused.remove()
    return figure, axes[:count]


def _finish_panels(sweep: Sweep, figure: Figure, axes: list[Axes], styles: dict[str, _Style], x_name: str) -> None:
    names = {style.panel: style.panel_name for style in styles.values()}
    for panel, ax in enumerate(axes):
        dress(ax)
        ax.set_ylim(bottom=0)
        ax.set_xlim(left=0)
        ax.set_xlabel(x_name)
        ax.set_title(names[panel], fontsize=10, color=GREY)
    for ax in axes[::_PANEL_COLUMNS]:
        ax.set_ylabel("memory saved, MiB")
    add_percent(sweep, axes[-1])
    legend_below(figure, _handles(styles))
    headline(figure, _finding(sweep), sweep)


def _handles(styles: dict[str, _Style]) -> list[Line2D]:
    unique = {style.name: style for style in styles.values() if style.name}
    return [Line2D([], [], label=name, **style.line()) for name, style in unique.items()]


def _scatter(sweep: Sweep, column: str, x_name: str, x_form: str) -> tuple[Figure, pd.Series]:
    frame = analysis.settings(sweep)
    styles = _styles(sweep)
    figure = Figure(figsize=(9.4, 5.4), layout="constrained")
    ax = figure.subplots()
    for run_id, row in frame.iterrows():
        style = styles[run_id]
        # the values of the third key are a dot and rings around it: equal results stay visible
        look = {"markersize": 7, "markerfacecolor": style.colour} if style.panel == 0 else {"markersize": 8 + 4 * style.panel}
        name = label({key: row[key] for key in analysis.varying(sweep)})
        ax.plot(
            row[column],
            row["saved_mib"],
            style.marker,
            **{"color": style.colour, "markerfacecolor": "none", "label": name} | look,
        )
    dress(ax)
    ax.xaxis.set_major_locator(MaxNLocator(6))
    ax.xaxis.set_major_formatter(StrMethodFormatter(x_form))
    ax.margins(0.08)
    ax.set_ylim(0, 1.08 * max(frame["saved_mib"].max(), 1))
    ax.set_xlabel(x_name)
    ax.set_ylabel("memory saved at the end, MiB")
    legend_below(figure, ax.lines)
    return figure, frame[column]


def _finding(sweep: Sweep) -> str:
    """What the saving says, in one line."""
    worth = analysis.price(sweep)
    if len(worth):
        lost = span(worth["lost_mib"], ",.0f")
        return f"merge_across_nodes = 0 gives up {lost} MiB, {span(worth['lost_percent'], '.0f')} % of the saving"
    best = sweep.runs["saved_pages"].idxmax()
    return f"{_range_saved(sweep)}, most with {sweep.label(best)}" if len(sweep.runs) > 1 else _range_saved(sweep)


def _range_saved(sweep: Sweep) -> str:
    return f"KSM saves {span(sweep.runs['saved_pages'] / PAGES_PER_MIB, ',.0f')} MiB"


def _rate_finding(sweep: Sweep) -> str:
    """How soon the saving is there, in one line."""
    until_s = analysis.until_share(sweep)["time_s"].dropna()
    if until_s.empty:
        return "KSM saves nothing in this time"
    slow, fast = until_s.idxmax(), until_s.idxmin()
    if slow == fast:
        return f"95 % of the saving takes {until_s[slow]:,.0f} s"
    after = [f"{until_s[run_id]:,.0f} s with {sweep.label(run_id)}" for run_id in (slow, fast)]
    return f"95 % of the saving takes {', '.join(after)}"
