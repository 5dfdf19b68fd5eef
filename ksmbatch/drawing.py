"""What pictures of sweeps have in common: colours, axes, legends, titles.

It knows sweeps only as far as a title names them; what is drawn is in plots.py and plots_moves.py.
"""

import textwrap
from collections.abc import Callable, Sequence
from typing import Any, Final

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import StrMethodFormatter

from ksmbatch import analysis
from ksmbatch.analysis import Sweep
from ksmbatch.units import PAGES_PER_MIB

# Okabe and Ito's colours, the ones that differ in print and for the colour-blind; a longer list of values gets a scale
COLOURS: Final = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
GREY: Final = "#555555"
_LEGEND: Final = 12


def palette(count: int) -> list[Any]:
    """So many colours, each its own if there are enough, else a scale."""
    if count <= len(COLOURS):
        return list(COLOURS[:count])
    return list(mpl.colormaps["viridis"](np.linspace(0.0, 0.9, count)))


def add_percent(sweep: Sweep, ax: Axes) -> None:
    """The same axis again on the right, in percent of the memory that the workload has."""
    memory_mib = float(analysis.memory_pages(sweep).max()) / PAGES_PER_MIB
    if memory_mib > 0:
        scale: tuple[Callable[[Any], Any], Callable[[Any], Any]] = (
            lambda mib: 100 * mib / memory_mib,
            lambda share: share * memory_mib / 100,
        )
        ax.secondary_yaxis("right", functions=scale).set_ylabel(f"% of {memory_mib:,.0f} MiB")


def legend_below(figure: Figure, handles: Sequence[Line2D]) -> None:
    """A legend of at most _LEGEND entries, spread over all if there are more: then colours are a scale."""
    if len(handles) < 2:
        return
    entries = [handles[round(at)] for at in np.linspace(0, len(handles) - 1, min(len(handles), _LEGEND))]
    width = max(len(str(entry.get_label())) for entry in entries)
    fitting = range(1, 1 + max(1, min(4, int(figure.get_figwidth() * 14 // (width + 8)))))  # some 14 letters to an inch
    columns = max(count for count in fitting if len(entries) % count == 0)
    if columns == 1:  # a prime number of them
        columns = max(fitting)
    figure.legend(handles=entries, loc="outside lower center", ncols=columns, fontsize=8.5, frameon=False)


def dress(ax: Axes) -> None:
    """No frame, lines to read heights by, whole numbers."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis="y", color="#dddddd", linewidth=0.7)
    ax.set_axisbelow(True)
    ax.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))


def headline(figure: Figure, finding: str, sweep: Sweep) -> None:
    """The finding, and below it, small, of what."""
    host = sweep.config["host"]
    about = f"{sweep.workload}, {host['nodes']} nodes, Linux {host['kernel']}"
    lines = textwrap.wrap(finding, int(9.5 * figure.get_figwidth()))  # some 9.5 letters to an inch
    point = 1 / (72 * figure.get_figheight())
    below = 8 + 16 * len(lines)
    figure.text(0.01, 1 - 8 * point, "\n".join(lines), fontsize=12, fontweight="bold", va="top")
    figure.text(0.01, 1 - below * point, about, fontsize=9, color=GREY, va="top", parse_math=False)
    figure.set_layout_engine("constrained", rect=(0, 0, 0.99, 1 - (below + 16) * point))
