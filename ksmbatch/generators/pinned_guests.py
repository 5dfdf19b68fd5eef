"""`pinned-guests`: one guest per NUMA node, pinned there, all booted from one image, as in the measurements of 2012.

Guests differ in what is not of the image. They do not grow, and no guest is larger than another.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np

from ksmbatch.errors import InputError
from ksmbatch.events import Mmap, Spawn, Step, Write
from ksmbatch.generators.base import Generator, share, whole_number, yes_or_no
from ksmbatch.generators.mix import AREA, MAX_PAGES
from ksmbatch.generators.rng import Permutation, Scramble, key
from ksmbatch.topology import MAX_NODES, Binding, place
from ksmbatch.workload import Lazy, Snapshot, Workload

_PLACES, _CONTENTS, _REWRITTEN = range(3)  # streams of randomness


@dataclass(frozen=True, kw_only=True, slots=True)
class PinnedGuestsParameters:
    """Parameters of `pinned-guests`.

    `pages_per_guest`: pages of each guest. `image`: share of them that holds the image, the same in all guests, each content
    once per guest. `zero`: share that is zero; the rest is unique. `shuffled`: whether the image lies elsewhere in every
    guest, or at the same page numbers. `rewritten_per_scan`: share of all pages that is rewritten between two full scans,
    to new unique contents.
    """

    pages_per_guest: int
    image: float = 0.5
    zero: float = 0.0
    shuffled: bool = False
    rewritten_per_scan: float = 0.0

    def __post_init__(self) -> None:
        whole_number("pages_per_guest", self.pages_per_guest, 1, MAX_PAGES // MAX_NODES)
        for name in ("image", "zero", "rewritten_per_scan"):
            object.__setattr__(self, name, share(name, getattr(self, name)))  # 1 and 1.0 are the same workload
        if self.image + self.zero > 1:
            rule = f"must be at most 1 together with image = {self.image}"
            raise InputError(key="workload.zero", value=self.zero, rule=rule)
        yes_or_no("shuffled", self.shuffled)


class PinnedGuests:
    """What each page of `guests` guests holds, and what is written when.

    Contents are numbered: 0 the zeros, then the image, then each guest's own, and what rewriting brings.
    """

    def __init__(self, parameters: PinnedGuestsParameters, guests: int, seed: int) -> None:
        self._parameters = parameters
        self._seed = seed
        self.names = [f"guest{guest}" for guest in range(guests)]
        n_pages = parameters.pages_per_guest
        self._n_image = round(parameters.image * n_pages)
        self._n_shared = min(self._n_image + round(parameters.zero * n_pages), n_pages)
        self._n_own = n_pages - self._n_shared
        self._n_first = 1 + self._n_image + guests * self._n_own  # contents before anything is rewritten
        self._n_all = guests * n_pages
        self._n_rewritten = round(parameters.rewritten_per_scan * self._n_all)
        self._raw = Scramble(self._n_first, key(seed, _CONTENTS))

    def contents(self, guest: int) -> np.ndarray:
        """Raw content ids of the pages of `guest` at the start, uint64[pages_per_guest]."""
        n_pages = self._parameters.pages_per_guest
        order = Permutation(n_pages, key(self._seed, _PLACES, guest if self._parameters.shuffled else 0))
        place_of = order(np.arange(n_pages, dtype=np.uint64)).view(np.int64)
        by_place = np.zeros(n_pages, np.uint64)  # the image, then zeros, then its own
        by_place[: self._n_image] = np.arange(1, self._n_image + 1)
        by_place[self._n_shared :] = np.arange(self._n_own) + (1 + self._n_image + guest * self._n_own)
        return self._raw(by_place[place_of])

    def rewrites(self, scan: int) -> list[Write]:
        """The writes between full scan number `scan` (from 1 on) and the next, guest after guest, no page twice."""
        numbers = np.arange(self._n_rewritten, dtype=np.uint64)
        pages = Permutation(self._n_all, key(self._seed, _REWRITTEN, scan))(numbers)
        contents = self._raw(numbers + np.uint64(self._n_first + (scan - 1) * self._n_rewritten))
        return self._by_guest(pages, contents)

    def _by_guest(self, pages: np.ndarray, contents: np.ndarray) -> list[Write]:
        """A Write for every guest that any of `pages` (uint64[n], all different, in any order) is in."""
        n_pages = self._parameters.pages_per_guest
        order = pages.argsort()
        pages, contents = pages[order].view(np.int64), contents[order]
        edges = pages.searchsorted(np.arange(len(self.names) + 1) * n_pages)
        return [
            Write(proc=self.names[guest], area=AREA, pages=pages[first:stop] - guest * n_pages, contents=contents[first:stop])
            for guest, (first, stop) in enumerate(pairwise(edges))
            if first < stop
        ]


def _build(parameters: PinnedGuestsParameters, *, nodes: int, binding: Binding, seed: int, full_scans: int) -> Workload:
    guests = PinnedGuests(parameters, nodes, seed)
    names, n_pages = guests.names, parameters.pages_per_guest
    # guest k belongs on node k; who says otherwise in workload.node is believed
    nids = range(nodes) if binding is None else place(names, binding, nodes)
    start: list[Step] = []
    for name, nid in zip(names, nids, strict=True):
        start += [Spawn(proc=name, cpu_node=nid), Mmap(proc=name, area=AREA, pages=n_pages, node=nid)]

    def first_step(k: int) -> Step:
        if k < len(start):
            return start[k]
        guest = k - len(start)
        return Write(proc=names[guest], area=AREA, pages=range(n_pages), contents=guests.contents(guest))

    def snapshot(scan: int) -> Snapshot:
        return Snapshot(time_ms=0, steps=guests.rewrites(scan) if scan else Lazy(len(start) + len(names), first_step))

    n_snapshots = full_scans if parameters.rewritten_per_scan else 1
    return Workload(name="pinned-guests", nodes=nodes, snapshots=Lazy(n_snapshots, snapshot), per_scan=True)


GENERATOR: Final = Generator(
    name="pinned-guests",
    about="one guest per NUMA node, bound to it, all with the pages of one image, zeros and pages of their own",
    parameters=PinnedGuestsParameters,
    build=_build,
)
