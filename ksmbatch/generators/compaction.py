"""`compaction`: aligned runs of frames are to be free, for a huge page or a device, and what is on them moves aside.

It names frames, not pages: what lies there when the time comes, and whether it may move, is the machine's business.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from ksmbatch.codes import Caller
from ksmbatch.errors import InputError
from ksmbatch.events import ClearFrames, Step
from ksmbatch.generators.base import Mms, Mover, caller_of, existing_node, whole_number
from ksmbatch.generators.mix import MAX_PAGES
from ksmbatch.generators.moments import Moment, When, check_every, moment, snapshot_or_time
from ksmbatch.generators.moved_mix import on_mix
from ksmbatch.steps import HUGE_PAGES
from ksmbatch.topology import Topology

_CALLERS: Final = (Caller.COMPACTION, Caller.THP, Caller.CMA)


@dataclass(frozen=True, kw_only=True, slots=True)
class CompactionParameters:
    """Parameters of `compaction`.

    `node`: whose frames. `at`: after the events of which snapshot, or when. `every`: snapshots, or time, from one try to the
    next. `times`: tries. `runs`: runs of 512 aligned frames that each try wants free; it goes on where the last ended,
    upwards, and from the node's end to its beginning. `first`: the run within the node that comes first. `caller`: who wants
    them, "compaction", "thp" or "cma".
    """

    node: int
    at: When
    every: When = 1
    times: int = 1
    runs: int = 1
    first: int = 0
    caller: str = Caller.COMPACTION.word

    def __post_init__(self) -> None:
        whole_number("node", self.node, 0, 2**31 - 1)
        object.__setattr__(self, "at", snapshot_or_time("at", self.at))
        object.__setattr__(self, "every", snapshot_or_time("every", self.every, 1))
        whole_number("times", self.times, 1, MAX_PAGES)
        whole_number("runs", self.runs, 1, MAX_PAGES)
        whole_number("first", self.first, 0, MAX_PAGES)
        caller_of("caller", self.caller, _CALLERS)
        check_every(self.at, self.every, self.times)


def _check(parameters: CompactionParameters, topology: Topology) -> None:
    existing_node("node", parameters.node, topology)
    if not topology.node_pages:
        rule = "clears frames by their numbers, which needs host.node_pages > 0"
        raise InputError(key="workload.node", value=parameters.node, rule=rule)
    n_runs = len(_aligned_runs(parameters.node, topology))
    hint = f"host.node_pages = {topology.node_pages}"
    if parameters.runs > n_runs:
        rule = f"must be at most {n_runs}, the runs of {HUGE_PAGES} aligned frames of node {parameters.node}"
        raise InputError(key="workload.runs", value=parameters.runs, rule=rule, hint=hint)
    if parameters.first >= n_runs:
        rule = f"must be 0 to {n_runs - 1}, the runs of {HUGE_PAGES} aligned frames of node {parameters.node}"
        raise InputError(key="workload.first", value=parameters.first, rule=rule, hint=hint)


def _aligned_runs(nid: int, topology: Topology) -> range:
    """The first frame of each run on node `nid`."""
    begin, end = nid * topology.node_pages, (nid + 1) * topology.node_pages
    return range(-(-begin // HUGE_PAGES) * HUGE_PAGES, end - HUGE_PAGES + 1, HUGE_PAGES)


def _build(parameters: CompactionParameters, _mms: Mms, topology: Topology) -> Iterator[tuple[Moment, Sequence[Step]]]:
    frames = _aligned_runs(parameters.node, topology)
    caller = caller_of("caller", parameters.caller, _CALLERS)
    run = parameters.first
    for k in range(parameters.times):
        steps = [
            ClearFrames(first=frames[number % len(frames)], count=HUGE_PAGES, caller=caller)
            for number in range(run, run + parameters.runs)
        ]
        run += parameters.runs
        yield moment(parameters.at, parameters.every, k), steps


MOVER: Final = Mover(
    name="compaction",
    about="runs of 512 frames of a node are wanted free, by compaction, THP or CMA, and their pages move aside",
    parameters=CompactionParameters,
    check=_check,
    build=_build,
)
GENERATOR: Final = on_mix(MOVER)
