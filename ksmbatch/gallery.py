"""What generators make, snapshot by snapshot, as tables: how much is zero, equal to what, and how many pages a content has.

It estimates what KSM would save; it neither simulates ksmd nor draws (plots_gallery.py).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from ksmbatch.codes import Kernel
from ksmbatch.estimate import Estimate, estimate
from ksmbatch.generators import find_generator
from ksmbatch.memory import Memory, memories_after
from ksmbatch.units import pages_to_mib
from ksmbatch.workload import Workload

KINDS = ("zero", "self", "inter", "alone")  # what a page of an mm is; see Estimate


def first_memory(name: str, parameters: Mapping[str, Any]) -> Memory:
    """The memory that the generator `name` makes at the start. Raises InputError for parameters that it does not take."""
    workload = _workload(name, parameters, full_scans=1)
    return next(memories_after((snapshot.steps for snapshot in workload.snapshots), workload.nodes, Kernel.V6_12))


def shape(name: str, parameters: Mapping[str, Any]) -> pd.Series:
    """The generator's first memory: `mms`; `memory_mib`; `zero`, `self`, `inter`, `alone` and `saved` in percent of it;
    `ratio`, pages_sharing by pages_shared with the kernel's defaults; `largest`, pages of its most frequent content."""
    memory = first_memory(name, parameters)
    found = estimate(memory)
    setting = found.setting(1)
    percent = {kind: 100 * getattr(found, f"mm_{kind}").sum() / found.pages for kind in KINDS}
    return pd.Series(
        {
            "mms": len(found.mms),
            "memory_mib": pages_to_mib(found.pages),
            **percent,
            "saved": 100 * setting.saved_pages.value / found.pages,
            "ratio": setting.pages_sharing.value / max(setting.pages_shared.value, 1),
            "largest": int(copies(memory)[0]),
        },
        name=name,
    )


def shapes(examples: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """A row of `shape` for each generator in `examples`, by name its parameters."""
    return pd.DataFrame([shape(name, parameters) for name, parameters in examples.items()])


def over_time(name: str, parameters: Mapping[str, Any], *, full_scans: int = 20) -> pd.DataFrame:
    """A row per snapshot, by full scans, or by seconds where a clock drives: `zero`, `self`, `inter` and `alone`, MiB, which
    are all memory, and `saved`, MiB, what KSM would save if memory stood still then."""
    workload = _workload(name, parameters, full_scans=full_scans)
    now = memories_after((snapshot.steps for snapshot in workload.snapshots), workload.nodes, Kernel.V6_12)
    rows = [_parts(estimate(memory)) for memory in now]
    if workload.per_scan:
        index = pd.RangeIndex(len(rows), name="full scans")
    else:
        index = pd.Index([snapshot.time_ms / 1000 for snapshot in workload.snapshots], name="seconds")
    return pd.DataFrame(rows, index=index, columns=[*KINDS, "saved"])


def copies(memory: Memory) -> np.ndarray:
    """Pages of each content, most first, int64[contents]."""
    _, pages = np.unique(memory.content, return_counts=True)
    return np.sort(pages)[::-1]


def _workload(name: str, parameters: Mapping[str, Any], *, full_scans: int) -> Workload:
    generator = find_generator(name)
    return generator.build(generator.read(parameters), nodes=1, binding=None, seed=1, full_scans=full_scans)


def _parts(found: Estimate) -> list[float]:
    pages = [getattr(found, f"mm_{kind}").sum() for kind in KINDS]
    return [pages_to_mib(each) for each in (*pages, found.setting(1).saved_pages.value)]
