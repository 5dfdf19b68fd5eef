"""`vm-clones`: virtual machines cloned from one golden image, which drift apart with every write, and are updated alike.

Published: ten VMs with the TailBench suite need 48 % less memory with KSM (Skarlatos, Kim, Torrellas, MICRO 2017). How fast
clones drift apart, nobody has published: `rewritten_per_scan` is yours to measure.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from ksmbatch.generators.base import Generator
from ksmbatch.generators.guests import Guests, check_shares, check_size
from ksmbatch.generators.rng import Permutation, key
from ksmbatch.topology import Binding
from ksmbatch.workload import Workload

_ALIKE, _APART = range(2)  # streams of randomness


@dataclass(frozen=True, kw_only=True, slots=True)
class VmClonesParameters:
    """Parameters of `vm-clones`.

    `mms`: clones, named vm0, vm1, ... `pages_per_mm`: pages of each. `image`: share of them that holds the image, each content
    once per clone. `zero`: share that is zero; the rest is each clone's own. `rewritten_per_scan`: share of each clone's pages
    that is rewritten between two full scans, to contents of its own. `updated`: share of these that all clones rewrite at once,
    to equal contents, as an update does.
    """

    pages_per_mm: int
    mms: int = 10
    image: float = 0.48
    zero: float = 0.05
    rewritten_per_scan: float = 0.0
    updated: float = 0.0

    def __post_init__(self) -> None:
        check_size(self.mms, self.pages_per_mm)
        check_shares(self, ("image", "zero"), "rewritten_per_scan", "updated")


class _Clones:
    """Contents are numbered: 0 the zeros, then the image, each clone's own, and what each scan brings."""

    def __init__(self, parameters: VmClonesParameters, seed: int) -> None:
        self._seed = seed
        self._pages = pages = parameters.pages_per_mm
        self._mms = parameters.mms
        self._n_image = round(parameters.image * pages)
        self._n_shared = min(self._n_image + round(parameters.zero * pages), pages)
        self._n_own = pages - self._n_shared
        self.n_first = 1 + self._n_image + self._mms * self._n_own
        n_rewritten = round(parameters.rewritten_per_scan * pages)
        self._n_alike = round(parameters.updated * n_rewritten)
        self._n_apart = n_rewritten - self._n_alike

    def first(self, clone: int) -> np.ndarray:
        by_place = np.zeros(self._pages, np.uint64)
        by_place[: self._n_image] = np.arange(1, self._n_image + 1)
        by_place[self._n_shared :] = np.arange(self._n_own) + (1 + self._n_image + clone * self._n_own)
        return by_place

    def later(self, clone: int, scan: int) -> tuple[np.ndarray, np.ndarray]:
        # one order of the places for all clones, whose first are updated; of the others each clone takes its own
        order = Permutation(self._pages, key(self._seed, _ALIKE, scan))
        own = Permutation(self._pages - self._n_alike, key(self._seed, _APART, scan, clone))
        turns = np.concatenate(
            [
                np.arange(self._n_alike, dtype=np.uint64),
                own(np.arange(self._n_apart, dtype=np.uint64)) + np.uint64(self._n_alike),
            ]
        )
        before = self.n_first + (scan - 1) * (self._n_alike + self._mms * self._n_apart)
        contents = np.arange(turns.size, dtype=np.uint64) + np.uint64(before)
        contents[self._n_alike :] += np.uint64(clone * self._n_apart)
        return order(turns).view(np.int64), contents


def _build(parameters: VmClonesParameters, *, nodes: int, binding: Binding, seed: int, full_scans: int) -> Workload:
    clones = _Clones(parameters, seed)
    guests = Guests([f"vm{number}" for number in range(parameters.mms)], parameters.pages_per_mm, clones.n_first, seed)
    return guests.workload(
        "vm-clones",
        nodes=nodes,
        binding=binding,
        first=clones.first,
        later=clones.later,
        n_snapshots=full_scans if parameters.rewritten_per_scan else 1,
    )


GENERATOR: Final = Generator(
    name="vm-clones",
    about="virtual machines cloned from a golden image, which drift apart with every write and are updated alike",
    parameters=VmClonesParameters,
    build=_build,
)
