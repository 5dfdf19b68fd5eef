"""What ksmd's work costs in CPU time, and how these figures follow from a measurement.

It is the clock's table only: it moves no time itself, and it says nothing about the time that applications lose to faults.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Final

import numpy as np

# A visit of a page that is a KSM page already: the mode of cmp_and_merge_page() is 256-512 ns (histograms on linux-mm,
# msg386161); the middle. The measurement cannot tell it from the visits of lonely pages beside it: see `fit`.
PUBLISHED_KSM_VISIT_NS: Final = 384

# Real ksmd, 6.18, 524,288 pages, smart_scan, a scan that skipped all it may: 157,000 KSM pages visited at 1.1 million per
# second of CPU time, 367,000 pages skipped beside them.
SKIP_SCAN_VISITS: Final = 157_000
SKIP_SCAN_VISITS_PER_S: Final = 1_100_000
SKIP_SCAN_SKIPS: Final = 367_000

# ksmd leaves the CPU and comes back: two voluntary switches of about 1.3 us (albertnetymk.github.io/2022/12/18/context_switch)
PUBLISHED_SWITCH_NS: Final = 1300

# move_pages() moves 3.31 to 3.55 GB/s on two sockets of Zen 3 (7.0, 7.1-rc): 1.15 to 1.24 us a page, of which copying is at
# most 26.6 % (kernel mailing lists, 2026)
PUBLISHED_MOVE_NS: Final = 1200
PUBLISHED_COPY_SHARE: Final = 0.266

# A write to a merged page 2.19 us, to another 1.09 us (selftest ksm_tests -C, August 2021)
PUBLISHED_COW_NS: Final = 1100

_FITTED: Final = ("checksum_ns", "search_ns", "merge_ns", "zero_merge_ns")


@dataclass(frozen=True, kw_only=True, slots=True)
class Costs:
    """Nanoseconds of ksmd's CPU time, each a whole number.

    A visit of a page costs one of these figures, by what it turned out to be: everything in it is included, from the
    cursor to the tree. Pages without an rmap_item (absent, or mapped to the zero page) are passed by at no cost. The
    defaults are what `fit` makes of the measurement named there, on an AMD EPYC (Zen 4); other machines differ.

    `wakeup_ns`: per batch, beside its visits; published, see PUBLISHED_SWITCH_NS.
    `skip_ns`: page that smart_scan passes by; from a measured scan, see SKIP_SCAN_VISITS.
    `ksm_visit_ns`: page that is a KSM page in its place; published, see PUBLISHED_KSM_VISIT_NS.
    `checksum_ns`: page whose checksum changed: hashed, nothing else; fitted.
    `search_ns`: page hashed and searched in both trees in vain, and put into the unstable one; fitted.
    `merge_ns`: page hashed, found in a tree and merged; fitted. Less than `search_ns`, because most are found in the stable
    tree, and the unstable tree, whose every level needs a walk of a page table, is not searched.
    `zero_merge_ns`: page of zeros hashed and mapped to the zero page; fitted.

    What follows is no time of ksmd's, and the clock does not wait for it; it says what moving pages costs, by policy.

    `move_ns`: a frame that moves to another node, one mapping; published, see PUBLISHED_MOVE_NS.
    `copy_ns`: what of it goes into copying the page; published, see PUBLISHED_COPY_SHARE.
    `remap_ns`: each further mapping, unmapped and mapped again: half of what is left of `move_ns`, an estimate.
    `cow_ns`: a private copy of a KSM page; published, see PUBLISHED_COW_NS.
    `tree_ns`: a stable tree searched, or changed: what `merge_ns` has over `zero_merge_ns`.
    """

    wakeup_ns: int = 2600
    skip_ns: int = 225
    ksm_visit_ns: int = 384
    checksum_ns: int = 853
    search_ns: int = 6580
    merge_ns: int = 4545
    zero_merge_ns: int = 3155
    move_ns: int = 1200
    copy_ns: int = 319
    remap_ns: int = 440
    cow_ns: int = 1100
    tree_ns: int = 1390


def fit(document: Mapping[str, Any]) -> Costs:
    """The costs that explain a measurement of ksmd's CPU time per full scan best.

    `document`: JSON as in three-vms.cpu.json: `runs`, each with its `full_scans` from the first on over memory that does
    not change, each with `ksmd_cpu_ms` and the counters of sysfs. Such counters say how often each kind of visit happened
    (`visits`). Of the five kinds, `ksm_visit_ns` is taken from publications, since lonely pages are visited in the same
    scans and the two numbers vary together too little to be told apart at an error of 5 %. The other four are the
    non-negative solution with the least sum of squared relative errors. Deviations on three-vms.cpu.json: at most 5.8 %.
    """
    rows = [row for run in document["runs"] for row in visits(run["full_scans"])]
    measured = np.array([scan["ksmd_cpu_ms"] * 1e6 for run in document["runs"] for scan in run["full_scans"]])
    known = np.array([row["ksm_visit_ns"] for row in rows]) * PUBLISHED_KSM_VISIT_NS
    counts = np.array([[row[name] for name in _FITTED] for row in rows], dtype=np.float64)
    relative = _non_negative(counts / measured[:, None], (measured - known) / measured)
    fitted = {name: round(float(value)) for name, value in zip(_FITTED, relative, strict=True)}
    copy_ns = round(PUBLISHED_MOVE_NS * PUBLISHED_COPY_SHARE)
    return Costs(
        wakeup_ns=2 * PUBLISHED_SWITCH_NS,
        skip_ns=round(
            (SKIP_SCAN_VISITS * 1e9 / SKIP_SCAN_VISITS_PER_S - SKIP_SCAN_VISITS * PUBLISHED_KSM_VISIT_NS) / SKIP_SCAN_SKIPS
        ),
        ksm_visit_ns=PUBLISHED_KSM_VISIT_NS,
        move_ns=PUBLISHED_MOVE_NS,
        copy_ns=copy_ns,
        remap_ns=(PUBLISHED_MOVE_NS - copy_ns) // 2,
        cow_ns=PUBLISHED_COW_NS,
        tree_ns=fitted["merge_ns"] - fitted["zero_merge_ns"],
        **fitted,
    )


def visits(full_scans: Sequence[Mapping[str, int]]) -> list[dict[str, int]]:
    """Per full scan over memory that does not change: field of `Costs` -> visits of that kind, from the counters alone.

    `full_scans`: counters after each full scan, from ksmd's first one on; smart_scan 0.
    """
    rows = []
    before: Mapping[str, int] = dict.fromkeys(("pages_scanned", "pages_shared", "pages_sharing", "ksm_zero_pages"), 0)
    for k, after in enumerate(full_scans):
        grown = {name: after[name] - before[name] for name in before}
        row = {
            "ksm_visit_ns": before["pages_shared"] + before["pages_sharing"],
            "checksum_ns": grown["pages_scanned"] if k == 0 else 0,  # the first sight of any page
            "merge_ns": grown["pages_sharing"],  # a KSM page counts one mapping as shared: the page that waited for it
            "zero_merge_ns": grown["ksm_zero_pages"],
        }
        rows.append(row | {"search_ns": grown["pages_scanned"] - sum(row.values())})
        before = after
    return rows


def _non_negative(matrix: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The x >= 0 with the least |matrix x - target|: the best of the solutions with some columns left out."""
    best, least = np.zeros(matrix.shape[1]), float(target @ target)
    for n in range(1, matrix.shape[1] + 1):
        for columns in combinations(range(matrix.shape[1]), n):
            x = np.zeros(matrix.shape[1])
            x[list(columns)] = np.linalg.lstsq(matrix[:, columns], target, rcond=None)[0]
            error = float(((matrix @ x - target) ** 2).sum())
            if (x >= 0).all() and error < least:
                best, least = x, error
    return best
