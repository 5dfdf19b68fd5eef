"""On which nodes a trace's pages are, as areas bound to nodes and pages that move.

A page's home is the node on which it was first seen: its area is bound there, so its frame comes from there, and so do copies
after later writes. It makes no events.
"""

from typing import Final, NamedTuple

import numpy as np

from ksmbatch.trace_format import NO_NODE
from ksmbatch.traces import Trace

# Areas cost the machine a walk through the list of an mm's VMAs per write. Interleaved memory has a run for every page, and is
# rounded to blocks of pages until there are no more runs than this.
MAX_AREAS: Final = 512


class Area(NamedTuple):
    """`pages` pages of an mm from page `first` on, bound to `nid`."""

    name: str
    first: int
    pages: int
    nid: int


def areas_of(trace: Trace, rows: np.ndarray, n_pages: int) -> list[Area]:
    """The areas of the mm that has the rows numbered `rows`, and `n_pages` pages; together they are all of these."""
    home = seen = _homes(trace, rows, n_pages)
    block = 1
    while (starts := _starts(home)).size > MAX_AREAS:
        block *= 2
        home = _most_common(seen, block)
    if starts.size == 1:
        return [Area("memory", 0, n_pages, int(home[0]))]
    return [
        Area(f"memory{k}", first, pages, int(home[first]))
        for k, (first, pages) in enumerate(zip(starts.tolist(), np.diff(starts, append=n_pages).tolist(), strict=True))
    ]


def mark_moves(trace: Trace, rows: np.ndarray, moved_to: np.ndarray) -> None:
    """Puts the node to which its page moved, while it was there, into `moved_to` (int16[all rows]) for every row of `rows`.

    `rows`: all of one mm. A page that comes back after it was gone has not moved, wherever it is now.
    """
    assert trace.node is not None, "asked for only where nodes are known"
    # by page, and for each page by time: the sort is stable
    order = rows[trace.page[rows].argsort(kind="stable")]
    gone = np.zeros(order.size, np.bool_) if trace.gone is None else trace.gone[order]
    known = np.flatnonzero((trace.node[order] != NO_NODE) | gone)
    order, gone = order[known], gone[known]
    page, node = trace.page[order], trace.node[order]
    follows = (page[1:] == page[:-1]) & ~gone[1:] & ~gone[:-1] & (node[1:] != node[:-1])
    moved_to[order[1:][follows]] = node[1:][follows]


def _homes(trace: Trace, rows: np.ndarray, n_pages: int) -> np.ndarray:
    """int16[n_pages]: the node on which each page was first seen; that of its neighbour where it never was, in the end 0."""
    assert trace.node is not None, "asked for only where nodes are known"
    home: np.ndarray = np.full(n_pages, NO_NODE, np.int16)
    known = rows[trace.node[rows] != NO_NODE][::-1]
    if known.size == 0:
        return np.zeros(n_pages, np.int16)
    home[trace.page[known]] = trace.node[known]  # of several rows of a page the last one written counts: the earliest
    place = np.maximum.accumulate(np.where(home == NO_NODE, 0, np.arange(n_pages)))
    home = home[place]
    first = int((home != NO_NODE).argmax())
    home[:first] = home[first]
    return home


def _starts(home: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.flatnonzero(np.diff(home)) + 1])


def _most_common(home: np.ndarray, block: int) -> np.ndarray:
    """Every block of `block` pages on the node that most of its pages are on, the smallest of these."""
    n_blocks = -(-home.size // block)
    padded = np.pad(home, (0, n_blocks * block - home.size), mode="edge").reshape(n_blocks, block)
    nids = np.unique(home)
    counts = np.stack([(padded == nid).sum(1) for nid in nids])
    common: np.ndarray = np.repeat(nids[counts.argmax(0)], block)[: home.size]
    return common
