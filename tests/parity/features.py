"""What a run has shown: features counted over many runs, so that a generator that no longer reaches one is noticed.

A feature is judged by the observations and by the twin's own account of what happened inside. It says nothing about right or
wrong.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from reference import KERNELS

LEAST_SHARE = 0.05

# feature -> events of the twin, any of which shows it
BY_EVENT = {
    "chain built": ("chain created",),
    "chain pruned": ("chain collapsed", "chain freed", "dup moved to the front of its chain"),
    "stale node pruned": ("stale stable node removed",),
    "checksums collide": ("changed page passed the checksum gate", "merge refused: equal checksums, different pages"),
    "zero pages": ("zero page merged",),
    "page migrated": ("page moved",),
    "KSM page migrated": ("KSM page moved",),
    "migrated KSM page meets its twin": (
        "moved stable node became a dup of its twin",
        "moved KSM page with one mapping met its twin",
        "stable node replaced by a walk",
    ),
    "migrated KSM page finds a place": ("moved stable node inserted",),
    "migration stuck": ("page stuck",),
    "smart_scan skips": ("page skipped by smart_scan",),
    "process exits in mid-scan": ("mm exits in mid-scan",),
    "process registers in mid-scan": ("mm registered in mid-scan",),
    "walk depends on the stable tree's shape": ("stable walk passed a chain", "stale stable node removed"),
    "walk depends on the unstable tree's shape": (
        "unstable walk passed a changed page",
        "unstable walk gave up at a page that is gone",
        "unstable twin was on another node",
    ),
    "fork shares a frame with the unstable tree": ("unstable walk met its own page",),
}
# feature -> operations of the scenario, any of which shows it
BY_OPERATION = {
    "fork": ("fork",),
    "exit": ("exit",),
    "unmapping": ("munmap", "discard"),
    "protection changes": ("mprotect",),
    "registration changes": ("madvise", "merge_any"),
    "unmerging": ("run",),
    "knob in between": ("knob",),
}
KERNEL_FEATURES = {f"kernel {name}" for name in KERNELS}
OBSERVED = {"mid-scan observation", "knob refused", "unreachable mapping", "merge_across_nodes = 0", "more than two nodes"}
ALL = KERNEL_FEATURES | OBSERVED | BY_EVENT.keys() | BY_OPERATION.keys()


def features(
    document: Mapping[str, Any], kernel: str, observations: Iterable[Mapping[str, Any]], events: Counter[str], unreachable: int
) -> set[str]:
    """The features of one run. `unreachable`: the most unreachable_mappings of any of its steps."""
    shown = {f"kernel {kernel}"}
    shown |= {feature for feature, names in BY_EVENT.items() if any(events[name] for name in names)}
    operations = {step["op"] for step in document["steps"]}
    shown |= {feature for feature, names in BY_OPERATION.items() if operations & set(names)}
    if "scan" in operations:
        shown.add("mid-scan observation")
    if any(observation.get("errno") in ("EBUSY", "EINVAL") for observation in observations):
        shown.add("knob refused")
    if unreachable:
        shown.add("unreachable mapping")
    if not document["knobs"]["merge_across_nodes"]:
        shown.add("merge_across_nodes = 0")
    if document["nodes"] > 2:
        shown.add("more than two nodes")
    return shown


@dataclass(slots=True)
class Tally:
    """How many of the runs so far showed each feature."""

    runs: int = 0
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, shown: set[str]) -> None:
        """Count one run."""
        self.runs += 1
        self.counts.update(shown)

    def scarce(self) -> dict[str, float]:
        """Features in too few runs, with their share; empty if there are enough of all."""
        shares = {feature: self.counts[feature] / max(self.runs, 1) for feature in ALL}
        return {feature: share for feature, share in sorted(shares.items()) if share < LEAST_SHARE}
