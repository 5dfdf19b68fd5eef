"""What the mms of a trace hold at a moment: the rows up to a snapshot, laid over each other.

Without simulated time; what ksmd would make of it is not its business.
"""

from typing import NamedTuple

import numpy as np

from ksmbatch.trace_format import NO_NODE
from ksmbatch.traces import Trace


class MmMemory(NamedTuple):
    """The pages of an mm.

    `content`: uint64[pages], 0 where absent. `present`: bool[pages]. `node`: int16[pages], -1 where not known.
    """

    content: np.ndarray
    present: np.ndarray
    node: np.ndarray


def memory_at(trace: Trace, snapshot: int = -1) -> dict[str, MmMemory]:
    """What every mm that lives after snapshot number `snapshot` holds, in the order of the metadata's pages.

    Negative numbers count from the end, as in a list; raises IndexError for one that there is not.
    """
    time_ms = trace.snapshots[snapshot]
    end = int(np.searchsorted(trace.time_ms, np.uint32(time_ms), side="right"))
    rows_of = trace.mm[:end].argsort(kind="stable")  # by mm, and for each mm by time
    ends = trace.mm[rows_of].searchsorted(np.arange(-1, len(trace.pages)), side="right")
    memory = {}
    for (mm, pages), a, b in zip(trace.pages.items(), ends[:-1], ends[1:], strict=True):
        if trace.start_ms.get(mm, 0) <= time_ms < trace.exit_ms.get(mm, 2**32):
            memory[mm] = _laid_over(trace, rows_of[a:b], pages)
    return memory


def _laid_over(trace: Trace, rows: np.ndarray, n_pages: int) -> MmMemory:
    # of several rows of a page the last one assigned counts: the latest
    page = trace.page[rows]
    content, present = np.zeros(n_pages, np.uint64), np.zeros(n_pages, np.bool_)
    node: np.ndarray = np.full(n_pages, NO_NODE, np.int16)
    content[page] = trace.content[rows]
    present[page] = True if trace.gone is None else ~trace.gone[rows]
    if trace.node is not None:
        node[page] = trace.node[rows]
    return MmMemory(content, present, node)
