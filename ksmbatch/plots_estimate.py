"""The picture of an estimate: each mm's memory by who else holds it, what two have in common, and saving by max_page_sharing.

It draws what estimate.py computed; it computes nothing and opens no window.
"""

from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator, StrMethodFormatter

from ksmbatch.drawing import COLOURS, GREY, dress
from ksmbatch.errors import InputError
from ksmbatch.estimate import Estimate
from ksmbatch.tables_estimate import headline
from ksmbatch.units import pages_to_mib

# what the stacks are made of, from the axis outwards: what KSM saves most surely first
PARTS: Final = (
    ("zeros", COLOURS[1]),
    ("equal to own pages", COLOURS[4]),
    ("held by others too", COLOURS[2]),
    ("held by nobody else", "#d9d9d9"),
)
_MOST_MMS: Final = 16
_LEGEND: Final[dict[str, Any]] = {
    "fontsize": 8.5,
    "frameon": False,
    "loc": "upper center",
    "bbox_to_anchor": (0.5, 0),
    "borderaxespad": 5,
}
_NUMBERED_MMS: Final = 8


def save(found: Estimate, title: str, path: Path) -> None:
    """Draw the picture into the file `path`, as PNG; raises InputError if that cannot be written."""
    figure = draw(found, title)
    partial = path.with_name(f".{path.name}.partial")
    try:
        figure.savefig(partial, format="png", dpi=150)
        partial.replace(path)
    except OSError as error:
        raise InputError(where=path, rule=f"cannot be written: {error.strerror}") from None
    finally:
        if partial.exists():
            partial.unlink()


def draw(found: Estimate, title: str) -> Figure:
    """Two panels, or three where there are several mms to compare."""
    with_matrix = found.matrix is not None and len(found.mms) >= 2
    rows = min(len(found.mms), _MOST_MMS + 1)
    panels = 3 if with_matrix else 2
    figure = Figure(figsize=(4.6 * panels, max(4.4, 2.2 + 0.25 * rows)), layout="constrained")
    axes = list(figure.subplots(1, panels))
    _draw_memory(found, axes[0])
    if with_matrix:
        _draw_matrix(found, axes[1])
    _draw_sharing(found, axes[-1])
    answer, _, about = headline(found, title).partition(": ")
    point = 1 / (72 * figure.get_figheight())
    figure.text(0.01, 1 - 8 * point, answer, fontsize=12, fontweight="bold", va="top")
    figure.text(0.01, 1 - 24 * point, about, fontsize=9, color=GREY, va="top", parse_math=False)
    figure.set_layout_engine("constrained", rect=(0, 0, 0.99, 1 - 40 * point), wspace=0.06)
    return figure


def _draw_memory(found: Estimate, ax: Axes) -> None:
    parts = np.stack([found.mm_zero, found.mm_self, found.mm_inter, found.mm_alone])
    names = list(found.mms)
    if len(names) > _MOST_MMS:
        rest = parts[:, _MOST_MMS:].sum(axis=1, keepdims=True) / (len(names) - _MOST_MMS)
        names = [*names[:_MOST_MMS], f"mean of {len(names) - _MOST_MMS} more"]
        parts = np.concatenate([parts[:, :_MOST_MMS], rest], axis=1)
    places, left = np.arange(len(names)), np.zeros(len(names))
    for (name, colour), pages in zip(PARTS, parts, strict=True):
        width = np.array([pages_to_mib(each) for each in pages])
        ax.barh(places, width, left=left, color=colour, label=name, height=0.75)
        left += width
    ax.set_yticks(places, names, parse_math=False)
    ax.set_ylim(len(names) - 0.4, -0.6)
    dress(ax)
    ax.grid(axis="y", visible=False)
    ax.grid(axis="x", color="#dddddd", linewidth=0.7)
    ax.yaxis.set_major_formatter(mpl.ticker.FixedFormatter(names))
    ax.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    ax.set_xlabel("MiB")
    ax.set_title("Memory, by who else holds it", fontsize=10, color=GREY)
    ax.legend(**_LEGEND, ncols=2)


def _draw_matrix(found: Estimate, ax: Axes) -> None:
    assert found.matrix is not None, "looked at before"
    mib = found.matrix * pages_to_mib(1)
    image = ax.imshow(mib, cmap="Blues", vmin=0)
    n_mms = len(found.mms)
    if n_mms <= _NUMBERED_MMS:
        for row in range(n_mms):
            for column in range(n_mms):
                dark = mib[row, column] > 0.6 * max(mib.max(), 1e-9)
                ax.text(
                    column, row, f"{mib[row, column]:,.1f}", ha="center", va="center", fontsize=8, color="w" if dark else "k"
                )
    else:
        assert ax.figure is not None
        ax.figure.colorbar(image, ax=ax, location="bottom", shrink=0.8)
    every = -(-n_mms // 16)
    ticks = np.arange(0, n_mms, every)
    names = [found.mms[k] for k in ticks]
    ax.set_xticks(ticks, names, rotation=90 if n_mms > 4 else 0, parse_math=False)
    ax.set_yticks(ticks, names, parse_math=False)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.set_title("What two hold both, MiB\n(diagonal: saved by one alone; no zeros)", fontsize=10, color=GREY)


def _draw_sharing(found: Estimate, ax: Axes) -> None:
    styles = ((1, COLOURS[1], "-"), (0, COLOURS[0], "--"))
    for across, colour, style in styles[: len(found.nodes)]:
        line = [one for one in found.by_sharing if one.merge_across_nodes == across]
        most = [one.max_page_sharing for one in line]
        low, mib, high = ([pages_to_mib(getattr(one.saved_pages, bound)) for one in line] for bound in ("low", "value", "high"))
        ax.plot(most, mib, style, color=colour, marker="o", markersize=5, label=f"merge_across_nodes = {across}")
        if found.fraction is not None:
            ax.fill_between(most, low, high, color=colour, alpha=0.15, linewidth=0)
    zeros = pages_to_mib(found.zero_pages)
    ax.axhline(zeros, color=GREY, linewidth=0.9, linestyle=(0, (1, 2)), label="zeros alone (use_zero_pages = 1)")
    dress(ax)
    ax.set_xscale("log")
    ax.set_xticks([one.max_page_sharing for one in line], [_short(one.max_page_sharing) for one in line])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_ylim(bottom=0)
    ax.set_xlabel("max_page_sharing")
    ax.set_ylabel("saved, MiB")
    ax.set_title("Saving by max_page_sharing", fontsize=10, color=GREY)
    ax.legend(**_LEGEND)


def _short(number: int) -> str:
    return f"{number / 1e6:g}M" if number >= 10**6 else f"{number:,}"
