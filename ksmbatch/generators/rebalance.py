"""`rebalance`: a process is moved to another node, at once or bit by bit, as numad and libvirt do it.

It moves what is there when its turn comes. Whether a page follows is the kernel's and the policy's decision.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from ksmbatch.codes import Caller
from ksmbatch.documents import nearest
from ksmbatch.errors import InputError
from ksmbatch.events import Migrate, Rebind, Step
from ksmbatch.generators.base import Mms, Mover, caller_of, existing_node, whole_number, yes_or_no
from ksmbatch.generators.mix import MAX_PAGES
from ksmbatch.generators.moments import Moment, When, check_every, moment, snapshot_or_time
from ksmbatch.generators.moved_mix import on_mix
from ksmbatch.topology import Topology


@dataclass(frozen=True, kw_only=True, slots=True)
class RebalanceParameters:
    """Parameters of `rebalance`.

    `mm`: the process. `node`: where it goes. `at`: after the events of which snapshot, or when. `slices`: equal runs of its
    pages, in the order of addresses, of which each is a move of its own. `every`: snapshots, or time, from one slice to
    the next. `rebind`: whether its memory policy follows, at the first slice, so that later pages come from the new
    node. `caller`: who asks for it, a word of [migration] callers.
    """

    mm: str
    node: int
    at: When
    slices: int = 1
    every: When = 1
    rebind: bool = True
    caller: str = Caller.MOVE_PAGES.word

    def __post_init__(self) -> None:
        if not isinstance(self.mm, str):
            raise InputError(key="workload.mm", value=self.mm, rule="must be the name of an mm")
        whole_number("node", self.node, 0, 2**31 - 1)
        object.__setattr__(self, "at", snapshot_or_time("at", self.at))
        whole_number("slices", self.slices, 1, MAX_PAGES)
        object.__setattr__(self, "every", snapshot_or_time("every", self.every, 1))
        yes_or_no("rebind", self.rebind)
        caller_of("caller", self.caller)
        check_every(self.at, self.every, self.slices)


def _check(parameters: RebalanceParameters, topology: Topology) -> None:
    if topology.nodes == 1:
        rule = "must be another node, and there is none"
        raise InputError(key="workload.node", value=parameters.node, rule=rule, hint="host.nodes = 1")
    existing_node("node", parameters.node, topology)


def _build(parameters: RebalanceParameters, mms: Mms, _topology: Topology) -> Iterator[tuple[Moment, Sequence[Step]]]:
    mm, node, slices = parameters.mm, parameters.node, parameters.slices
    if mm not in mms:
        raise InputError(key="workload.mm", value=mm, rule="there is no such mm", hint=nearest(mm, mms))
    n_pages = sum(mms[mm].values())
    if slices > n_pages:
        raise InputError(key="workload.slices", value=slices, rule=f"must be at most {n_pages}, the pages of {mm}")
    caller = caller_of("caller", parameters.caller)
    rebinds = [Rebind(proc=mm, area=area, node=node) for area in mms[mm]] if parameters.rebind else []
    for k in range(slices):
        moves = [
            Migrate(proc=mm, area=area, first=first, count=count, node=node, caller=caller)
            for area, first, count in _runs(mms[mm], k * n_pages // slices, (k + 1) * n_pages // slices)
        ]
        yield moment(parameters.at, parameters.every, k), moves if k else [*rebinds, *moves]


def _runs(areas: Mapping[str, int], start: int, stop: int) -> Iterator[tuple[str, int, int]]:
    """Area, first page in it and pages, where the pages `start` to `stop` - 1 of all `areas` lie."""
    begin = 0
    for area, pages in areas.items():
        first, end = max(start - begin, 0), min(stop - begin, pages)
        if first < end:
            yield area, first, end - first
        begin += pages


MOVER: Final = Mover(
    name="rebalance",
    about="a process moves to another node, its pages at once or slice by slice",
    parameters=RebalanceParameters,
    check=_check,
    build=_build,
)
GENERATOR: Final = on_mix(MOVER)
