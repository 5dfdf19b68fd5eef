"""Pictures of a sweep in which pages move: the saving before, between and after the moves, and what they left behind.

Each function returns a matplotlib Figure made of what moves_analysis.py computes; none computes results or opens a window.
"""

from collections.abc import Sequence
from typing import Any, Final

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from ksmbatch import analysis, moves_analysis
from ksmbatch.analysis import Sweep
from ksmbatch.drawing import COLOURS, GREY, dress, headline, legend_below
from ksmbatch.layout import span

_FIRST: Final = "#222222"  # what all others are compared with: mainline, where policies are
_COLUMNS: Final = 3
_LINES: Final = 8  # more moments than this are a span
_WIDEST: Final = 3.8


def saving_around_moves(sweep: Sweep) -> Figure:
    """Memory saved over full scans (or time, as the runs went), a line for each that is compared, a panel for every setting of
    the other keys; vertical lines where pages moved. Lines get thinner towards the last, so that none hides another."""
    by_time = analysis.by_time(sweep)
    x = "time_s" if by_time else "full_scans"
    frame = moves_analysis.saving(sweep)
    names, groups = moves_analysis.row_names(sweep), moves_analysis.group_names(sweep)
    looks = _looks(list(dict.fromkeys(names)))
    alike = _alike(frame, names, groups)
    figure, axes = _panels(list(dict.fromkeys(groups)))
    lines = dict(list(frame.groupby("run_id", sort=False)))
    for group, ax in axes.items():
        own = [run_id for run_id in lines if groups[run_id] == group]
        if len(own) > 1 and len({tuple(lines[run_id][x]) + tuple(lines[run_id]["saved_mib"]) for run_id in own}) == 1:
            ax.plot(lines[own[0]][x], lines[own[0]]["saved_mib"], color=GREY, linewidth=1.8)
            ax.annotate("all the same", (0.98, 0.05), xycoords="axes fraction", ha="right", fontsize=9, color=GREY)
            continue
        for run_id in own:
            if names[run_id] in alike:
                ax.plot(lines[run_id][x], lines[run_id]["saved_mib"], **looks[names[run_id]])
    moments = moves_analysis.moments(sweep)
    what = "all is unmerged" if moves_analysis.outcomes(sweep)["unmerged"].any() else "pages move"
    for group, ax in axes.items():
        _mark(ax, sorted(set(moments.loc[moments["run_id"].map(groups) == group, x])), what)
        dress(ax)
        ax.set_ylim(0, 1.12 * (frame["saved_mib"].max() or 1))  # room for a word above
        ax.set_xlim(left=0)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    _name_axes(list(axes.values()), "simulated time, s" if by_time else "full scans", "memory saved, MiB")
    legend_below(figure, [Line2D([], [], label=label, **looks[name]) for name, label in alike.items() if name])
    headline(figure, _finding(sweep), sweep)
    return figure


def _alike(frame: pd.DataFrame, names: pd.Series, groups: pd.Series) -> dict[str, str]:
    """Of names whose saving is the same in every sample, in every panel, the first -> all of them: one line will do."""
    keyed = frame.assign(name=frame["run_id"].map(names), group=frame["run_id"].map(groups))
    first: dict[object, list[str]] = {}
    for name, part in keyed.groupby("name", sort=False):
        curve = tuple(part[["group", "full_scans", "time_s", "saved_mib"]].itertuples(index=False, name=None))
        first.setdefault(curve, []).append(str(name))
    return {names[0]: ", ".join(names) for names in first.values()}


def figure_of(sweep: Sweep, column: str, name: str, finding: str = "") -> Figure:
    """A column of `moves_analysis.outcomes` as bars: one for each that is compared, a panel for every other setting
    under which they differ."""
    table = moves_analysis.outcomes(sweep)
    names, groups = moves_analysis.row_names(sweep), moves_analysis.group_names(sweep)
    looks = _looks(list(dict.fromkeys(names)))
    differ = table[column].groupby(groups, sort=False).nunique(dropna=False) > 1
    figure, axes = _panels(list(differ.index[differ]) or list(differ.index), 0.9 + 0.27 * len(looks))
    widest = float(table[column].fillna(0).max())
    for group, ax in axes.items():
        values = pd.Series(table[column][groups == group].to_numpy(), names[groups == group]).reindex(list(looks))
        ax.barh(range(len(looks)), values.fillna(0), color=[look["color"] for look in looks.values()], height=0.7)
        for k, value in enumerate(values):
            text = "never" if np.isnan(value) else f"{value:,.0f}"
            ax.annotate(text, (0 if np.isnan(value) else value, k), (3, 0), textcoords="offset points", va="center", fontsize=8)
        _dress_bars(ax, list(looks), widest)
    _name_axes(list(axes.values()), name, "")
    headline(figure, finding or name, sweep)
    return figure


def _dress_bars(ax: Axes, names: Sequence[str], widest: float) -> None:
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.set_yticks(range(len(names)), names, fontsize=9)
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(len(names) - 0.4, -0.6)  # the first on top
    ax.set_xlim(0, 1.18 * (widest or 1))  # room for the number behind the longest bar
    ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    ax.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))


def _looks(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Colour and width of each line: the first is dark; a line that hides others is wider than they are."""
    own: list[Any] = [_FIRST, *COLOURS]
    if len(names) > len(own):
        own = list(mpl.colormaps["viridis"](np.linspace(0.0, 0.9, len(names))))
    widths = np.linspace(_WIDEST, 1.2, len(names)) if len(names) > 1 else [1.8]
    return {
        name: {"color": colour, "linewidth": float(width), "solid_capstyle": "butt"}
        for name, colour, width in zip(names, own, widths, strict=False)
    }


def _panels(groups: Sequence[str], height: float = 3.5) -> tuple[Figure, dict[str, Axes]]:
    """A panel per name, four in two rows."""
    columns = 2 if len(groups) == 4 else min(len(groups), _COLUMNS)
    rows = -(-len(groups) // columns)
    figure = Figure(figsize=(max(7.5, 5.2 * columns), 1.4 + height * rows), layout="constrained")
    axes = list(figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flat)
    for unused in axes[len(groups) :]:
        unused.remove()
    for group, ax in zip(groups, axes, strict=False):
        ax.set_title(group, fontsize=10, color=GREY)
    return figure, dict(zip(groups, axes, strict=False))


def _name_axes(axes: Sequence[Axes], x_name: str, y_name: str) -> None:
    for ax in axes:
        spec = ax.get_subplotspec()
        if spec is not None and spec.is_first_col():
            ax.set_ylabel(y_name)
        if spec is not None and spec.rowspan.stop * spec.get_gridspec().ncols + spec.colspan.start >= len(axes):
            ax.set_xlabel(x_name)
            ax.tick_params(labelbottom=True)


def _mark(ax: Axes, moments: Sequence[float], what: str) -> None:
    """Where `what` happened."""
    if len(moments) > _LINES:
        ax.axvspan(moments[0], moments[-1], color="#eeeeee", zorder=0)
    else:
        for moment in moments:
            ax.axvline(moment, color=GREY, linewidth=0.9, linestyle=(0, (1, 2)), zorder=0)
    if moments:
        ax.annotate(
            what,
            (moments[0], 1),
            (4, -2),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            va="top",
            fontsize=8,
            color=GREY,
        )


def _finding(sweep: Sweep) -> str:
    """Who saves most and least in the end, where that differs most."""
    table = moves_analysis.outcomes(sweep)
    names, groups = moves_analysis.row_names(sweep), moves_analysis.group_names(sweep)
    spread = table["saved_mib"].groupby(groups, sort=False).agg(lambda part: part.max() - part.min())
    group = str(spread.idxmax())
    saved = table["saved_mib"][groups == group]
    under = f" ({group.replace(' ', ', ')})" if group else ""
    if saved.nunique() > 1 and not moves_analysis.compares_policies(sweep):
        return f"In the end KSM saves {span(saved, ',.0f')} MiB{under}"
    if saved.nunique() == 1:
        return f"KSM saves {saved.iloc[0]:,.0f} MiB in the end{under}"
    ends = [f"{saved[run_id]:,.0f} MiB with {names[run_id]}" for run_id in (saved.idxmax(), saved.idxmin())]
    return f"In the end KSM saves {ends[0]} and {ends[1]}{under}"
