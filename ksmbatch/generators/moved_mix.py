"""A mover as a generator: memory as `mix` makes it, which the mover then moves.

Over any other memory, a trace for example, a mover is laid by a table of [[workload.moves]].
"""

from dataclasses import dataclass
from typing import Any

from ksmbatch.generators import mix
from ksmbatch.generators.base import Generator, Mover


@dataclass(frozen=True, kw_only=True, slots=True)
class MovedMixParameters(mix.MixParameters):
    """Parameters of `mix`, and those of a mover.

    `mms`, `pages_per_mm`, `zero`, `duplicated`, `group`, `rewritten_per_scan`: as for `mix`. `move`: a table with the
    mover's own keys, in a table of its own because [workload] has some of their names already.
    """

    move: Any


def on_mix(mover: Mover) -> Generator:
    """The generator with the name of `mover`."""
    return Generator(
        name=mover.name,
        about=f"{mover.about}; on memory as of mix, or over a trace as [[workload.moves]]",
        parameters=MovedMixParameters,
        build=mix.GENERATOR.build,
        mover=mover,
    )
