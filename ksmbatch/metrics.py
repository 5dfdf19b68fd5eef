"""The table of metrics: every number a run reports, with unit, kind and source.

The `Counter` and `NodeCounter` enums that kernels index with, the columns of samples, runs and nodes, and the table in
docs/model.md are generated from these rows. It computes derived metrics; it never counts anything itself.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

PAGE_BYTES = 4096
RMAP_ITEM_BYTES = 64  # sizeof(struct ksm_rmap_item)

Kind = Literal["gauge", "cumulative"]


@dataclass(frozen=True, slots=True)
class Metric:
    """One number.

    `name`: its column, the sysfs name where sysfs has it. `unit`: "pages", "bytes", "1", "ns". `kind`: a gauge is a state,
    a cumulative one only grows (but for a reset by run = 2). `doc`: one line with the source.
    """

    name: str
    unit: str
    kind: Kind
    doc: str


COUNTERS: tuple[Metric, ...] = (
    Metric("full_scans", "1", "cumulative", "sysfs: complete passes of ksmd; run = 2 zeroes it"),
    Metric("pages_shared", "pages", "gauge", "sysfs: stable nodes with at least one rmap_item, i.e. KSM frames in use"),
    Metric("pages_sharing", "pages", "gauge", "sysfs: further mappings of those frames, i.e. pages saved"),
    Metric("pages_unshared", "pages", "gauge", "sysfs: rmap_items in the unstable tree"),
    Metric("ksm_rmap_items", "1", "gauge", "ksm.c ksm_rmap_items: pages that ksmd keeps an rmap_item for"),
    Metric("pages_scanned", "pages", "cumulative", "sysfs: pages that reached cmp_and_merge_page()"),
    Metric("pages_skipped", "pages", "cumulative", "sysfs: pages that smart_scan passed by"),
    Metric("ksm_zero_pages", "pages", "gauge", "sysfs: mappings of the zero page that ksmd made"),
    Metric("stable_node_chains", "1", "gauge", "sysfs: stable nodes that are heads of chains"),
    Metric("stable_node_dups", "1", "gauge", "sysfs: stable nodes that hang in chains"),
    Metric("cow_ksm", "pages", "cumulative", "/proc/vmstat: copies of KSM pages by write faults and unmerging"),
    Metric("ksmd_cpu_ns", "ns", "cumulative", "ours: CPU time that ksmd spent, by the table of costs"),
    Metric("time_ns", "ns", "cumulative", "ours: simulated time"),
    Metric("wakeups", "1", "cumulative", "ours: batches, i.e. calls of ksm_do_scan()"),
    Metric("pages_merged", "pages", "cumulative", "ours: rmap_items that joined a stable node, and zero pages merged"),
    Metric("exact_visits", "pages", "cumulative", "ours: visits that walked a tree because its shape could be observed"),
    Metric("corruptions", "1", "cumulative", "ours: events in which the kernel would follow a dangling stable node"),
    Metric("dangling_pages", "pages", "gauge", "ours: mapped KSM frames whose stable node is gone"),
    Metric(
        "migrate_allocations", "pages", "cumulative", "ours: frames that a migration policy allocated beyond the move itself"
    ),
    Metric("migrate_failures", "1", "cumulative", "ours: moves that failed for want of memory"),
)

NODE_COUNTERS: tuple[Metric, ...] = (
    Metric(
        "mapped_pages",
        "pages",
        "gauge",
        "present pages of areas bound to this node, the zero page's mappings by ksmd among them",
    ),
    Metric("frames", "pages", "gauge", "anonymous frames in use on this node"),
    Metric("ksm_frames", "pages", "gauge", "those of them that are KSM pages"),
    Metric("remote_mappings", "pages", "gauge", "present pages of areas bound to this node whose frame is on another"),
)

Counter = IntEnum("Counter", [metric.name.upper() for metric in COUNTERS], start=0)  # type: ignore[misc]
NodeCounter = IntEnum("NodeCounter", [metric.name.upper() for metric in NODE_COUNTERS], start=0)  # type: ignore[misc]


@dataclass(frozen=True, slots=True)
class Derived:
    """A metric computed from counters: `of` takes the row of raw counters (int64[len(COUNTERS)]) and returns an int."""

    metric: Metric
    of: Callable[[Sequence[int]], int]


def _volatile(row: Sequence[int]) -> int:
    # pages_volatile_show(): may be momentarily negative in the kernel, which then shows 0
    rest = row[Counter.KSM_RMAP_ITEMS] - row[Counter.PAGES_SHARED] - row[Counter.PAGES_SHARING] - row[Counter.PAGES_UNSHARED]
    return max(int(rest), 0)


def _saved(row: Sequence[int]) -> int:
    return int(row[Counter.PAGES_SHARING] + row[Counter.KSM_ZERO_PAGES])


def _general_profit(row: Sequence[int]) -> int:
    return _saved(row) * PAGE_BYTES - int(row[Counter.KSM_RMAP_ITEMS]) * RMAP_ITEM_BYTES


DERIVED: tuple[Derived, ...] = (
    Derived(
        Metric("pages_volatile", "pages", "gauge", "sysfs: rmap_items that are neither shared, sharing nor unshared"), _volatile
    ),
    Derived(
        Metric("general_profit", "bytes", "gauge", "sysfs: (pages_sharing + ksm_zero_pages) * 4096 - ksm_rmap_items * 64"),
        _general_profit,
    ),
    Derived(Metric("saved_pages", "pages", "gauge", "ours: pages_sharing + ksm_zero_pages"), _saved),
    Derived(
        Metric("page_visits", "pages", "cumulative", "ours: pages_scanned + pages_skipped"),
        lambda row: int(row[Counter.PAGES_SCANNED] + row[Counter.PAGES_SKIPPED]),
    ),
)

# Found by looking at the whole state, so only where asked for: at the end of a run and in recordings.
SURVEYED: tuple[Metric, ...] = (
    Metric("unreachable_mappings", "pages", "gauge", "ours: mappings of KSM frames that no rmap_item reaches"),
    Metric("duplicates_left", "pages", "gauge", "ours: KSM frames beyond one per content and stable tree"),
)


def derive(row: Sequence[int]) -> dict[str, int]:
    """All sampled metrics by name, raw and derived, from one row of raw counters (int64[len(COUNTERS)])."""
    values = {metric.name: int(row[k]) for k, metric in enumerate(COUNTERS)}
    values |= {derived.metric.name: derived.of(row) for derived in DERIVED}
    return values
