"""`ksmbatch check`: is this file a good trace, and what is in it, in a few lines.

What makes a trace good is `traces`' to say; this only counts.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ksmbatch.trace_memory import memory_at
from ksmbatch.traces import Trace, read_trace
from ksmbatch.units import format_ms, pages_to_mib


def check_trace(path: str | Path, as_json: bool, echo: Callable[[str], object]) -> None:
    """Give `echo` a summary of the trace `path`, as text or as one JSON object. Raises InputError for the first fault."""
    facts = summary(read_trace(path))
    if as_json:
        echo(json.dumps(facts, ensure_ascii=False))
        return
    lines = [
        ("version", f"{facts['version']}, order of contents: {_ORDERS[facts['order']]}"),
        ("mms", f"{facts['mms']:,}, with {facts['pages']:,} pages ({pages_to_mib(facts['pages']):,.1f} MiB)"),
        ("snapshots", f"{facts['snapshots']:,} over {format_ms(facts['span_ms'])}, {facts['rows']:,} rows"),
        ("at the end", f"{facts['present_pages']:,} pages in {facts['living_mms']:,} mms"),
        ("  of zeros", f"{facts['zero_pages']:,}"),
        ("  distinct", f"{facts['distinct_contents']:,} contents, of {facts['contents']:,} in all snapshots"),
        ("NUMA nodes", ", ".join(map(str, facts["nodes"])) or "not known"),
    ]
    echo(f"{path}: a good trace")
    for head, text in lines:
        echo(f"{head:<10}  {text}")


_ORDERS = {"memcmp": "memcmp's", "none": "random"}


def summary(trace: Trace) -> dict[str, Any]:
    """What `trace` holds, ready for JSON: counts of mms, pages, snapshots, rows and contents, over all and at the end."""
    last = memory_at(trace)
    held = np.concatenate([memory.content[memory.present] for memory in last.values()] or [np.zeros(0, np.uint64)])
    written = trace.content if trace.gone is None else trace.content[~trace.gone]
    return {
        "trace": str(trace.path),
        "version": trace.version,
        "order": trace.order,
        "order_ties": trace.order_ties,
        "mms": len(trace.pages),
        "pages": sum(trace.pages.values()),
        "snapshots": len(trace.snapshots),
        "span_ms": trace.snapshots[-1] - trace.snapshots[0],
        "rows": int(trace.page.size),
        "contents": _count_distinct(written),
        "living_mms": len(last),
        "present_pages": int(held.size),
        "zero_pages": int((held == 0).sum()),
        "distinct_contents": _count_distinct(held),
        "nodes": [] if trace.node is None else [int(node) for node in np.unique(trace.node) if node >= 0],
    }


def _count_distinct(contents: np.ndarray) -> int:
    # np.unique() hashes where it need not sort, at a seventh of the speed on 20 M contents
    ordered = np.sort(contents)
    return int(np.count_nonzero(ordered[1:] != ordered[:-1])) + (ordered.size > 0)
