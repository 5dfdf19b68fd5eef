"""`dance`: merge_across_nodes is switched in mid-run, the only way that works: unmerge all, write the knob, merge again.

The plain write comes first, since it is what people try; the kernel refuses it while anything is shared.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from ksmbatch.codes import Run
from ksmbatch.events import SetKnob, SetRun, Step
from ksmbatch.generators.base import Mms, Mover, whole_number
from ksmbatch.generators.moments import Moment, When, moment, snapshot_or_time
from ksmbatch.generators.moved_mix import on_mix
from ksmbatch.topology import Topology


@dataclass(frozen=True, kw_only=True, slots=True)
class DanceParameters:
    """Parameters of `dance`.

    `at`: after the events of which snapshot, or when. `merge_across_nodes`: what the knob becomes, 0 or 1.
    """

    at: When
    merge_across_nodes: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "at", snapshot_or_time("at", self.at))
        whole_number("merge_across_nodes", self.merge_across_nodes, 0, 1)


def _check(_parameters: DanceParameters, _topology: Topology) -> None:
    pass  # any host has the knob


def _build(parameters: DanceParameters, _mms: Mms, _topology: Topology) -> Iterator[tuple[Moment, Sequence[Step]]]:
    knob = SetKnob(name="merge_across_nodes", value=parameters.merge_across_nodes)
    yield moment(parameters.at), [knob, SetRun(value=int(Run.UNMERGE)), knob, SetRun(value=int(Run.MERGE))]


MOVER: Final = Mover(
    name="dance",
    about="merge_across_nodes is switched in mid-run: refused at first, then by unmerging everything",
    parameters=DanceParameters,
    check=_check,
    build=_build,
)
GENERATOR: Final = on_mix(MOVER)
