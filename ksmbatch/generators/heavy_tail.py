"""`heavy-tail`: a few contents own most of the sharing, many own a little, and a few pages change all the time.

Published: a host with pages_shared 312,514, pages_sharing 17,299,179, pages_unshared 2,334,736, pages_volatile 65,571,
stable_node_chains 30 and stable_node_dups 56,249 (Harvester, enhancement "Node Manager Support KSM"). With max_page_sharing 256
the 30 chains hold up to 56,249 x 255 mappings, 83 % of all; the other 256,265 contents have 12.5 pages each in the mean. The
defaults are these shares. How the 30 divide theirs, and how the others spread around their mean, is not published: by rank
(1, 1/2, 1/3, ...), and by a power law from 2 to 256 pages.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from ksmbatch.errors import InputError
from ksmbatch.events import Mmap, Spawn, Step, Write
from ksmbatch.generators.base import Generator, whole_number
from ksmbatch.generators.guests import check_shares, check_size
from ksmbatch.generators.mix import AREA
from ksmbatch.generators.rng import Permutation, Scramble, key, uniform
from ksmbatch.topology import Binding, place
from ksmbatch.workload import Lazy, Snapshot, Workload

_PLACES, _SIZES, _CONTENTS = range(3)  # streams of randomness
_GROUP: Final = (2, 256)  # least and greatest size of a group: a larger one would be a chain
_BITS: Final = 40  # of the weights by which sizes are drawn
_STEEPEST: Final = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class HeavyTailParameters:
    """Parameters of `heavy-tail`.

    `mms`: processes, named mm0, mm1, ... `pages_per_mm`: pages of each. `heavy`: share of all pages that hold one of
    `heavy_contents` contents, the first of which is the zeros; the k-th has one k-th of the pages of the first. `grouped`:
    share that comes in groups of 2 to 256 equal pages, spread over the mms, of k pages as often as k to the power
    -`exponent`; the rest is unique. `rewritten_per_scan`: share of all pages that is rewritten between two full scans to new
    unique contents, the same pages every time.
    """

    pages_per_mm: int
    mms: int = 16
    heavy: float = 0.7196
    heavy_contents: int = 30
    grouped: float = 0.1605
    exponent: float = 1.739
    rewritten_per_scan: float = 0.0

    def __post_init__(self) -> None:
        check_size(self.mms, self.pages_per_mm)
        check_shares(self, ("heavy", "grouped", "rewritten_per_scan"))
        whole_number("heavy_contents", self.heavy_contents, 1, self.n_pages)
        if type(self.exponent) not in (int, float) or not 0 <= self.exponent <= _STEEPEST:
            raise InputError(key="workload.exponent", value=self.exponent, rule=f"must be a number from 0 to {_STEEPEST}")
        object.__setattr__(self, "exponent", float(self.exponent))

    @property
    def n_pages(self) -> int:
        """Pages of all mms."""
        return self.mms * self.pages_per_mm


class _Tail:
    """The pages of all mms in random order: heavy contents, groups, unique ones, and last those that are rewritten."""

    def __init__(self, parameters: HeavyTailParameters, seed: int) -> None:
        n_pages = parameters.n_pages
        self._pages_per_mm = parameters.pages_per_mm
        self.names = [f"mm{number}" for number in range(parameters.mms)]
        self.n_rewritten = round(parameters.rewritten_per_scan * n_pages)
        self._first_rewritten = n_pages - self.n_rewritten
        n_heavy = min(round(parameters.heavy * n_pages), self._first_rewritten)
        n_grouped = min(round(parameters.grouped * n_pages), self._first_rewritten - n_heavy)
        sizes = np.concatenate(
            [_by_rank(n_heavy, parameters.heavy_contents), _group_sizes(n_grouped, parameters.exponent, key(seed, _SIZES))]
        )
        self._ends = sizes.cumsum()
        self._n_first = sizes.size + n_pages - int(self._ends[-1])
        self._place = Permutation(n_pages, key(seed, _PLACES))
        self._raw = Scramble(self._n_first, key(seed, _CONTENTS))

    def fill(self, mm: int) -> Write:
        place = self._places(mm)
        contents = place - int(self._ends[-1]) + self._ends.size
        shared = np.flatnonzero(place < self._ends[-1])
        contents[shared] = self._ends.searchsorted(place[shared], side="right")
        pages = np.arange(self._pages_per_mm)
        return Write(proc=self.names[mm], area=AREA, pages=pages, contents=self._raw(contents.view(np.uint64)))

    def rewrite(self, mm: int, scan: int) -> Write:
        place = self._places(mm)
        pages = np.flatnonzero(place >= self._first_rewritten)
        contents = place[pages] + (self._n_first + (scan - 1) * self.n_rewritten - self._first_rewritten)
        return Write(proc=self.names[mm], area=AREA, pages=pages, contents=self._raw(contents.view(np.uint64)))

    def _places(self, mm: int) -> np.ndarray:
        first = mm * self._pages_per_mm
        return self._place(np.arange(first, first + self._pages_per_mm, dtype=np.uint64)).view(np.int64)


def _by_rank(n_pages: int, n_contents: int) -> np.ndarray:
    """Sizes of `n_contents` contents, together `n_pages`: the k-th has a k-th of the first, which also has what is left."""
    shares = 1 / np.arange(1, n_contents + 1)
    sizes: np.ndarray = np.floor(n_pages * shares / shares.sum()).astype(np.int64)
    sizes[0] += n_pages - sizes.sum()
    return sizes


def _group_sizes(n_pages: int, exponent: float, stream: int) -> np.ndarray:
    """Sizes of groups, together at most `n_pages`, and one less at least; a single page left over is nobody's."""
    least, greatest = _GROUP
    weights = np.rint(2.0**_BITS * np.arange(least, greatest + 1) ** -exponent).astype(np.int64)
    drawn = uniform(stream, np.arange(n_pages // least + 1, dtype=np.uint64), int(weights.sum()))
    sizes = least + weights.cumsum().searchsorted(drawn, side="right")
    sizes = sizes[: sizes.cumsum().searchsorted(n_pages, side="right")]
    rest = n_pages - int(sizes.sum())
    return np.append(sizes, rest) if rest >= least else sizes


def _build(parameters: HeavyTailParameters, *, nodes: int, binding: Binding, seed: int, full_scans: int) -> Workload:
    tail = _Tail(parameters, seed)
    start: list[Step] = []
    for name, nid in zip(tail.names, place(tail.names, binding, nodes), strict=True):
        start += [Spawn(proc=name, cpu_node=nid), Mmap(proc=name, area=AREA, pages=parameters.pages_per_mm, node=nid)]

    def snapshot(scan: int) -> Snapshot:
        if scan:
            return Snapshot(time_ms=0, steps=Lazy(parameters.mms, lambda mm: tail.rewrite(mm, scan)))
        steps = Lazy(len(start) + parameters.mms, lambda k: start[k] if k < len(start) else tail.fill(k - len(start)))
        return Snapshot(time_ms=0, steps=steps)

    n_snapshots = full_scans if tail.n_rewritten else 1
    return Workload(name="heavy-tail", nodes=nodes, snapshots=Lazy(n_snapshots, snapshot), per_scan=True)


GENERATOR: Final = Generator(
    name="heavy-tail",
    about="30 contents own 83 % of the sharing, many own a little; a few pages change between any two full scans",
    parameters=HeavyTailParameters,
    build=_build,
)
