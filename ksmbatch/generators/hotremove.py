"""`hotremove`: the memory of a node is taken away, and perhaps comes back.

Where its pages go, and what happens if they cannot go, is the machine's business.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from ksmbatch.errors import InputError
from ksmbatch.events import Offline, Online, Step
from ksmbatch.generators.base import Mms, Mover, existing_node, whole_number
from ksmbatch.generators.moments import Moment, When, moment, snapshot_or_time
from ksmbatch.generators.moved_mix import on_mix
from ksmbatch.topology import Topology


@dataclass(frozen=True, kw_only=True, slots=True)
class HotremoveParameters:
    """Parameters of `hotremove`.

    `node`: whose memory goes. `at`: after the events of which snapshot, or when. `back`: after which snapshot, or when, it
    is there again; left out, never.
    """

    node: int
    at: When
    back: When | None = None

    def __post_init__(self) -> None:
        whole_number("node", self.node, 0, 2**31 - 1)
        object.__setattr__(self, "at", snapshot_or_time("at", self.at))
        if self.back is None:
            return
        object.__setattr__(self, "back", snapshot_or_time("back", self.back))
        if isinstance(self.back, str) != isinstance(self.at, str):
            kind = "time" if isinstance(self.at, str) else "number of snapshots"
            raise InputError(key="workload.back", value=self.back, rule=f"must be a {kind}, as `at` is", hint=f"at = {self.at}")
        if moment(self.back) <= moment(self.at):
            raise InputError(key="workload.back", value=self.back, rule="must come later than `at`", hint=f"at = {self.at}")


def _check(parameters: HotremoveParameters, topology: Topology) -> None:
    existing_node("node", parameters.node, topology)


def _build(parameters: HotremoveParameters, _mms: Mms, _topology: Topology) -> Iterator[tuple[Moment, Sequence[Step]]]:
    yield moment(parameters.at), [Offline(node=parameters.node)]
    if parameters.back is not None:
        yield moment(parameters.back)._replace(key="back"), [Online(node=parameters.node)]


MOVER: Final = Mover(
    name="hotremove",
    about="the memory of a node goes offline, its pages move elsewhere, and it may come back",
    parameters=HotremoveParameters,
    check=_check,
    build=_build,
)
GENERATOR: Final = on_mix(MOVER)
