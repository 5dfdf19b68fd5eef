"""The table of metrics: every number a run reports, with unit, kind and source.

The columns of samples, runs and nodes, and the table in docs/model.md are generated from these rows; kernels index by the
enums, of which each member has one row, in their order. It computes derived metrics; it never counts anything itself.
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


class Counter(IntEnum):
    """Index into `State.counters`; COUNTERS says what each member counts."""

    FULL_SCANS = 0
    PAGES_SHARED = 1
    PAGES_SHARING = 2
    PAGES_UNSHARED = 3
    KSM_RMAP_ITEMS = 4
    PAGES_SCANNED = 5
    PAGES_SKIPPED = 6
    KSM_ZERO_PAGES = 7
    STABLE_NODE_CHAINS = 8
    STABLE_NODE_DUPS = 9
    COW_KSM = 10
    KSMD_CPU_NS = 11
    TIME_NS = 12
    WAKEUPS = 13
    PAGES_MERGED = 14
    EXACT_VISITS = 15
    CORRUPTIONS = 16
    DANGLING_PAGES = 17
    MIGRATE_ALLOCATIONS = 18
    MIGRATE_FAILURES = 19
    FRAMES_MOVED = 20
    KSM_FRAMES_MOVED = 21
    MIGRATE_INSERTED = 22
    MIGRATE_MERGED = 23
    MIGRATE_CHAINED = 24
    MIGRATE_COPIES = 25
    MIGRATE_REFUSED = 26
    MIGRATE_STUCK = 27
    COMPACTION_TRIED = 28
    COMPACTION_MISSED = 29
    CMA_TRIED = 30
    CMA_MISSED = 31
    THP_TRIED = 32
    THP_MISSED = 33
    OFFLINE_TRIED = 34
    OFFLINE_MISSED = 35
    KNOB_REFUSED = 36
    FRAMES_IN_USE = 37
    PEAK_FRAMES = 38
    MOVE_CPU_NS = 39
    LOCKS_TAKEN = 40
    LOCKS_WAITED = 41
    LOCK_WAIT_NS = 42
    LOCK_HOLD_NS = 43
    TREE_SEARCHES = 44
    KSMD_WAIT_NS = 45


class NodeCounter(IntEnum):
    """Column of `State.node_counters`; NODE_COUNTERS says what each member counts."""

    MAPPED_PAGES = 0
    FRAMES = 1
    KSM_FRAMES = 2
    REMOTE_MAPPINGS = 3


def _row(index: IntEnum, unit: str, kind: Kind, doc: str) -> Metric:
    return Metric(index.name.lower(), unit, kind, doc)


COUNTERS: tuple[Metric, ...] = (
    _row(Counter.FULL_SCANS, "1", "cumulative", "sysfs: complete passes of ksmd; run = 2 zeroes it"),
    _row(Counter.PAGES_SHARED, "pages", "gauge", "sysfs: stable nodes with at least one rmap_item, i.e. KSM frames in use"),
    _row(Counter.PAGES_SHARING, "pages", "gauge", "sysfs: further mappings of those frames, i.e. pages saved"),
    _row(Counter.PAGES_UNSHARED, "pages", "gauge", "sysfs: rmap_items in the unstable tree"),
    _row(Counter.KSM_RMAP_ITEMS, "1", "gauge", "ksm.c ksm_rmap_items: pages that ksmd keeps an rmap_item for"),
    _row(Counter.PAGES_SCANNED, "pages", "cumulative", "sysfs: pages that reached cmp_and_merge_page()"),
    _row(Counter.PAGES_SKIPPED, "pages", "cumulative", "sysfs: pages that smart_scan passed by"),
    _row(Counter.KSM_ZERO_PAGES, "pages", "gauge", "sysfs: mappings of the zero page that ksmd made"),
    _row(Counter.STABLE_NODE_CHAINS, "1", "gauge", "sysfs: stable nodes that are heads of chains"),
    _row(Counter.STABLE_NODE_DUPS, "1", "gauge", "sysfs: stable nodes that hang in chains"),
    _row(Counter.COW_KSM, "pages", "cumulative", "/proc/vmstat: copies of KSM pages by write faults and unmerging"),
    _row(Counter.KSMD_CPU_NS, "ns", "cumulative", "ours: CPU time that ksmd spent, by the table of costs"),
    _row(Counter.TIME_NS, "ns", "cumulative", "ours: simulated time"),
    _row(Counter.WAKEUPS, "1", "cumulative", "ours: batches, i.e. calls of ksm_do_scan()"),
    _row(Counter.PAGES_MERGED, "pages", "cumulative", "ours: rmap_items that joined a stable node, and zero pages merged"),
    _row(Counter.EXACT_VISITS, "pages", "cumulative", "ours: visits that walked a tree because its shape could be observed"),
    _row(Counter.CORRUPTIONS, "1", "cumulative", "ours: events in which the kernel would follow a dangling stable node"),
    _row(Counter.DANGLING_PAGES, "pages", "gauge", "ours: mapped KSM frames whose stable node is gone"),
    _row(
        Counter.MIGRATE_ALLOCATIONS,
        "pages",
        "cumulative",
        "ours: frames that a policy allocated beyond the move itself",
    ),
    _row(Counter.MIGRATE_FAILURES, "1", "cumulative", "ours: moves that failed for want of memory"),
    _row(Counter.FRAMES_MOVED, "pages", "cumulative", "ours: frames that moved to another place, KSM pages or not"),
    _row(Counter.KSM_FRAMES_MOVED, "pages", "cumulative", "ours: KSM pages that moved, or were merged away in moving"),
    _row(Counter.MIGRATE_INSERTED, "1", "cumulative", "ours: stable nodes that a move put into the new node's tree"),
    _row(Counter.MIGRATE_MERGED, "1", "cumulative", "ours: stable nodes that a move merged with the new node's"),
    _row(Counter.MIGRATE_CHAINED, "1", "cumulative", "ours: stable nodes that a move put into a chain, for want of room"),
    _row(Counter.MIGRATE_COPIES, "pages", "cumulative", "ours: second copies that a move made, to be merged away at once"),
    _row(Counter.MIGRATE_REFUSED, "1", "cumulative", "ours: moves of KSM pages refused, because of who asked for them"),
    _row(Counter.MIGRATE_STUCK, "1", "cumulative", "ours: moves given up: a mapping was not found by the rmap walk"),
    _row(Counter.COMPACTION_TRIED, "1", "cumulative", "ours: runs of 512 frames that compaction wanted to free"),
    _row(Counter.COMPACTION_MISSED, "1", "cumulative", "ours: those of them that it could not"),
    _row(Counter.CMA_TRIED, "1", "cumulative", "ours: ranges of frames that CMA wanted to free"),
    _row(Counter.CMA_MISSED, "1", "cumulative", "ours: those of them that it could not"),
    _row(Counter.THP_TRIED, "1", "cumulative", "ours: huge pages that were to be formed"),
    _row(Counter.THP_MISSED, "1", "cumulative", "ours: those of them that could not"),
    _row(Counter.OFFLINE_TRIED, "1", "cumulative", "ours: NUMA nodes whose memory was to be taken offline"),
    _row(Counter.OFFLINE_MISSED, "1", "cumulative", "ours: those of them that could not"),
    _row(Counter.KNOB_REFUSED, "1", "cumulative", "ours: writes to files of sysfs that failed, with EBUSY for instance"),
    _row(Counter.FRAMES_IN_USE, "pages", "gauge", "ours: anonymous frames in use, on all nodes"),
    _row(Counter.PEAK_FRAMES, "pages", "gauge", "ours: the most of them at any moment since the sample before"),
    _row(Counter.MOVE_CPU_NS, "ns", "cumulative", "ours: CPU time that moving pages took, by the table of costs"),
    _row(Counter.LOCKS_TAKEN, "1", "cumulative", "ours: moves that took the lock of migration.locking"),
    _row(Counter.LOCKS_WAITED, "1", "cumulative", "ours: those of them that found it taken by ksmd"),
    _row(Counter.LOCK_WAIT_NS, "ns", "cumulative", "ours: how long these waited"),
    _row(Counter.LOCK_HOLD_NS, "ns", "cumulative", "ours: how long moves held it"),
    _row(
        Counter.TREE_SEARCHES, "1", "cumulative", "ours: ksmd's visits that search trees, for which it would hold a tree mutex"
    ),
    _row(Counter.KSMD_WAIT_NS, "ns", "cumulative", "ours: how long ksmd has waited for moves that held it"),
)

# what moves come to, and nothing else: CORRUPTIONS to MIGRATE_STUCK, and what callers tried
MOVE_COUNTERS = COUNTERS[Counter.CORRUPTIONS : Counter.OFFLINE_MISSED + 1]

NODE_COUNTERS: tuple[Metric, ...] = (
    _row(
        NodeCounter.MAPPED_PAGES,
        "pages",
        "gauge",
        "present pages of areas bound to this node, the zero page's mappings by ksmd among them",
    ),
    _row(NodeCounter.FRAMES, "pages", "gauge", "anonymous frames in use on this node"),
    _row(NodeCounter.KSM_FRAMES, "pages", "gauge", "those of them that are KSM pages"),
    _row(NodeCounter.REMOTE_MAPPINGS, "pages", "gauge", "present pages of areas bound to this node whose frame is on another"),
)


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
    Metric(
        "stranded_pages", "pages", "gauge", "ours: pages of KSM frames whose rmap_item has no stable node: they never merge"
    ),
)


def derive(row: Sequence[int]) -> dict[str, int]:
    """All sampled metrics by name, raw and derived, from one row of raw counters (int64[len(COUNTERS)])."""
    values = {metric.name: int(row[k]) for k, metric in enumerate(COUNTERS)}
    values |= {derived.metric.name: derived.of(row) for derived in DERIVED}
    return values


if [metric.name for metric in COUNTERS] != [index.name.lower() for index in Counter]:
    raise AssertionError("COUNTERS must have one row per member of Counter, in its order")
if [metric.name for metric in NODE_COUNTERS] != [index.name.lower() for index in NodeCounter]:
    raise AssertionError("NODE_COUNTERS must have one row per member of NodeCounter, in its order")
