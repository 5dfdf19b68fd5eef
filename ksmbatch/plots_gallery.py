"""Pictures of what generators make: memory over time by who else holds it, and how many pages each content has.

Each function returns a matplotlib Figure of what gallery.py computes; none computes results or opens a window.
"""

from collections.abc import Mapping
from itertools import product
from typing import Any, Final

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from ksmbatch.drawing import COLOURS, GREY, dress
from ksmbatch.gallery import KINDS, copies, first_memory, over_time
from ksmbatch.plots_estimate import PARTS

_COLUMNS: Final = 3
_STYLES: Final = ("-", "--", ":")


def gallery(examples: Mapping[str, Mapping[str, Any]], full_scans: int = 20) -> Figure:
    """A panel per generator of `examples` (by name its parameters): its memory over time, and what KSM could save of it."""
    figure, axes = _panels(len(examples))
    for ax, (name, parameters) in zip(axes, examples.items(), strict=True):
        _draw_parts(over_time(name, parameters, full_scans=full_scans), ax)
        ax.set_title(name, fontsize=10, color=GREY)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, fontsize=8.5, frameon=False)
    return figure


def sizes(examples: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Pages of each content, most first, a line per generator of `examples`: how much a few contents own."""
    figure = Figure(figsize=(7.5, 4.6), layout="constrained")
    ax = figure.subplots()
    for (name, parameters), (style, colour) in zip(examples.items(), product(_STYLES, (*COLOURS, "black")), strict=False):
        pages = copies(first_memory(name, parameters))
        ax.plot(range(1, pages.size + 1), pages, style, color=colour, label=name, linewidth=1.8, drawstyle="steps-post")
    dress(ax)
    ax.set_xscale("log")
    ax.set_yscale("log")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    ax.set_xlabel("contents, most frequent first")
    ax.set_ylabel("pages of each")
    ax.legend(fontsize=8.5, frameon=False)
    return figure


def _draw_parts(frame: pd.DataFrame, ax: Axes) -> None:
    names, colours = zip(*PARTS, strict=True)
    step = frame.index[-1] / max(len(frame) - 1, 1) if len(frame) > 1 else 1
    frame = pd.concat(
        [frame, frame.iloc[-1:].rename(index={frame.index[-1]: frame.index[-1] + step})]
    )  # lasts as the others do
    ax.stackplot(frame.index, frame[list(KINDS)].T, colors=colours, labels=names, step="post")
    ax.plot(
        frame.index, frame["saved"], color=COLOURS[0], linewidth=1.6, drawstyle="steps-post", label="saved, if it stood still"
    )
    dress(ax)
    ax.margins(0)
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    ax.set_xlabel(frame.index.name or "full scans")
    ax.set_ylabel("MiB")


def _panels(count: int) -> tuple[Figure, list[Axes]]:
    rows = -(-count // _COLUMNS)
    figure = Figure(figsize=(4.2 * min(count, _COLUMNS), 0.6 + 2.9 * rows), layout="constrained")
    axes = list(figure.subplots(rows, min(count, _COLUMNS), squeeze=False).flat)
    for unused in axes[count:]:
        unused.remove()
    return figure, axes[:count]
