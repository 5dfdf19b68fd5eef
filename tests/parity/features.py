"""What a run has shown: features counted over many runs, so that a generator that no longer reaches one is noticed.

A feature is judged by the observations and by the twin's own account of what happened inside. It says nothing about right or
wrong. Runs under migration policies have features of their own, one set per policy.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field
from typing import Any

from reference import KERNELS

LEAST_SHARE = 0.05
LEAST_SHARE_OF_MOVES = 0.02

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

# the same for runs under a policy: feature -> events of the twin
MOVES_BY_EVENT = {
    "page moved to another node": ("page moved",),
    "KSM page moved to another node": ("KSM page moved",),
    "page moved within its node": ("page moved within its node",),
    "fault on another node": ("fault fell back to another node",),
    "rmap walk misses a mapping": ("page stuck",),
    "page left to ksmd": ("page left to ksmd",),
    "dangling page arises": ("page left dangling",),
    "dangling page visited": ("dangling page visited",),
    "dangling page unmapped": ("dangling page unmapped",),
    "dangling page asked to move": ("dangling page asked to move",),
    "COW broken": ("KSM page copied apart",),
    "COW broken half-way": ("KSM page not copied apart for want of room",),
    "ksmd moves a page": ("ksmd moved a page to its majority",),
    "ksmd makes a replica": ("ksmd made a replica",),
    "ksmd joins a replica": ("ksmd joined a page to a replica",),
    "ksmd finds no room for a replica": ("ksmd found no room for a replica",),
    "ksmd places a moved node": ("moved stable node inserted", "moved stable node became a dup of its twin"),
}
# feature -> what is counted
MOVES_BY_COUNTER = {
    "inserted": "migrate_inserted",
    "merged": "migrate_merged",
    "chained": "migrate_chained",
    "copied in vain": "migrate_copies",
    "allocation failed": "migrate_failures",
    "caller refused": "migrate_refused",
    "node not emptied": "offline_missed",
}
_RANGES = ("compaction", "thp", "cma")
MOVES_OBSERVED = {"node emptied", "range emptied", "range not emptied", "compaction", "thp", "cma", "rebound"}
_COMMON = MOVES_OBSERVED | {
    "page moved to another node",
    "KSM page moved to another node",
    "page moved within its node",
    "fault on another node",
    "allocation failed",
    "caller refused",
    "node not emptied",
}
_PLACED = {"inserted", "merged", "chained"}
_STUCK = {"rmap walk misses a mapping"}
OF_POLICY: Mapping[str, Set[str]] = {
    "mainline": _COMMON | _STUCK | {"ksmd places a moved node"},
    "v4": _COMMON | _STUCK | {feature for feature in MOVES_BY_EVENT if feature.startswith("dangling")},
    "merge_on_migrate": _COMMON | _STUCK | _PLACED | {"copied in vain"},
    "substitute": _COMMON | _STUCK | _PLACED,
    "break_cow": _COMMON | _STUCK | {"COW broken", "COW broken half-way"},
    "nuksm": _COMMON | _PLACED | {"page left to ksmd", "ksmd moves a page"},
    "replicate": _COMMON
    | _PLACED
    | {"page left to ksmd", "ksmd makes a replica", "ksmd joins a replica", "ksmd finds no room for a replica"},
}


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


def features_of_moves(document: Mapping[str, Any], events: Counter[str], counted: Mapping[str, int]) -> set[str]:
    """The features of one run under a policy."""
    shown = {feature for feature, names in MOVES_BY_EVENT.items() if any(events[name] for name in names)}
    shown |= {feature for feature, name in MOVES_BY_COUNTER.items() if counted[name]}
    shown |= {name for name in _RANGES if counted[f"{name}_tried"]}
    if counted["offline_tried"] > counted["offline_missed"]:
        shown.add("node emptied")
    if any(counted[f"{name}_tried"] > counted[f"{name}_missed"] for name in _RANGES):
        shown.add("range emptied")
    if any(counted[f"{name}_missed"] for name in _RANGES):
        shown.add("range not emptied")
    if any(step["op"] == "rebind" for step in document["steps"]):
        shown.add("rebound")
    return shown


@dataclass(slots=True)
class Tally:
    """How many of the runs so far showed each of the features `expected`, and which were in fewer than `least` of them."""

    expected: Set[str] = frozenset(ALL)
    least: float = LEAST_SHARE
    runs: int = 0
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, shown: set[str]) -> None:
        """Count one run."""
        self.runs += 1
        self.counts.update(shown)

    def scarce(self) -> dict[str, float]:
        """Features in too few runs, with their share; empty if there are enough of all."""
        shares = {feature: self.counts[feature] / max(self.runs, 1) for feature in self.expected}
        return {feature: share for feature, share in sorted(shares.items()) if share < self.least}
