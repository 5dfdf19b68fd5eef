"""`mix`: memory of zero, duplicated and unique pages in given shares, some of it rewritten from scan to scan.

It has no hot and cold pages and no locality: every page is as likely to be shared or rewritten as any other.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np

from ksmbatch.errors import InputError
from ksmbatch.events import Mmap, Spawn, Step, Write
from ksmbatch.generators.base import Generator, share, whole_number
from ksmbatch.generators.rng import Permutation, Scramble, key, uniform
from ksmbatch.topology import Binding, place
from ksmbatch.workload import Lazy, Snapshot, Workload

AREA: Final = "memory"
MAX_PAGES: Final = 2**30  # pages are int32, and frames need twice as many numbers
_PLACES, _SIZES, _CONTENTS, _REWRITTEN, _PICKED = range(5)  # streams of randomness


@dataclass(frozen=True, kw_only=True, slots=True)
class MixParameters:
    """Parameters of `mix`.

    `mms`: processes, named mm0, mm1, ... `pages_per_mm`: pages of each. `zero`, `duplicated`: shares of all pages that are
    zero, and that come in groups of equal pages, spread over the mms; the rest is unique. `group`: least and greatest size
    of a group; of the duplicated pages fewer than the least may be left over, and are unique. `rewritten_per_scan`: share
    of all pages that is rewritten between two full scans, one half to new unique contents, the other half to the contents
    of groups (if there are none, to zeros; without zeros, to what some other page held first).
    """

    mms: int
    pages_per_mm: int
    zero: float = 0.0
    duplicated: float = 0.0
    group: tuple[int, int] = (2, 100)
    rewritten_per_scan: float = 0.0

    def __post_init__(self) -> None:
        whole_number("mms", self.mms, 1, MAX_PAGES)
        whole_number("pages_per_mm", self.pages_per_mm, 1, MAX_PAGES)
        if self.n_pages > MAX_PAGES:
            rule = f"makes {self.n_pages} pages with mms = {self.mms}: must be at most {MAX_PAGES}"
            raise InputError(key="workload.pages_per_mm", value=self.pages_per_mm, rule=rule)
        for name in ("zero", "duplicated", "rewritten_per_scan"):
            object.__setattr__(self, name, share(name, getattr(self, name)))  # 1 and 1.0 are the same workload
        if self.zero + self.duplicated > 1:
            rule = f"must be at most 1 together with zero = {self.zero}"
            raise InputError(key="workload.duplicated", value=self.duplicated, rule=rule)
        self._check_group()

    def _check_group(self) -> None:
        if not isinstance(self.group, (tuple, list)) or len(self.group) != 2:
            raise InputError(key="workload.group", value=self.group, rule="must be the least and the greatest size of a group")
        object.__setattr__(self, "group", tuple(self.group))
        least = whole_number("group[0]", self.group[0], 2, MAX_PAGES)
        whole_number("group[1]", self.group[1], least, MAX_PAGES)
        if self.duplicated and round(self.duplicated * self.n_pages) < least:
            rule = f"makes {round(self.duplicated * self.n_pages)} of {self.n_pages} pages: too few for a group of {least}"
            raise InputError(key="workload.duplicated", value=self.duplicated, rule=rule)

    @property
    def n_pages(self) -> int:
        """Pages of all mms."""
        return self.mms * self.pages_per_mm


class Mix:
    """What each page of a `mix` holds, and what is written to which page when. Pages of all mms are numbered through.

    Contents are numbered too: 0 the zeros, then the groups, the unique pages, and what rewriting brings. The raw content id
    is that number scrambled, so that the order of contents has nothing to do with the order of pages.
    """

    def __init__(self, parameters: MixParameters, seed: int) -> None:
        self._parameters = parameters
        self._seed = seed
        n_pages = parameters.n_pages
        self._n_zero = round(parameters.zero * n_pages)
        sizes = self._group_sizes(min(round(parameters.duplicated * n_pages), n_pages - self._n_zero))
        self._group_at = np.repeat(np.arange(1, sizes.size + 1, dtype=np.uint32), sizes)
        self._n_shared = self._n_zero + self._group_at.size
        self._n_first = 1 + sizes.size + n_pages - self._n_shared  # contents before anything is rewritten
        self._n_rewritten = round(parameters.rewritten_per_scan * n_pages)
        self._n_fresh = (self._n_rewritten + 1) // 2
        self._place = Permutation(n_pages, key(seed, _PLACES))
        self._raw = Scramble(self._n_first, key(seed, _CONTENTS))

    def contents(self, mm: int) -> np.ndarray:
        """Raw content ids of the pages of `mm` at the start, uint64[pages_per_mm]."""
        first = mm * self._parameters.pages_per_mm
        return self._raw(self._first_contents(np.arange(first, first + self._parameters.pages_per_mm, dtype=np.uint64)))

    def rewrites(self, scan: int) -> list[Write]:
        """The writes between full scan number `scan` (from 1 on) and the next, mm after mm, no page twice."""
        pages = Permutation(self._parameters.n_pages, key(self._seed, _REWRITTEN, scan))(
            np.arange(self._n_rewritten, dtype=np.uint64)
        )
        fresh = self._n_first + (scan - 1) * self._n_fresh + np.arange(self._n_fresh, dtype=np.uint64)
        contents = self._raw(np.concatenate([fresh, self._pick_shared(scan, self._n_rewritten - self._n_fresh)]))
        names = [name_of(mm) for mm in range(self._parameters.mms)]
        return writes_by_mm(names, self._parameters.pages_per_mm, pages, contents)

    def _group_sizes(self, n_duplicated: int) -> np.ndarray:
        """Sizes of the groups, int64[groups], together at most `n_duplicated` and more than that less the least size."""
        least, greatest = self._parameters.group
        counters = np.arange(n_duplicated // least + 1, dtype=np.uint64)
        sizes = least + uniform(key(self._seed, _SIZES), counters, greatest - least + 1)
        ends = sizes.cumsum()
        sizes = sizes[: ends.searchsorted(n_duplicated, side="right")]
        rest = n_duplicated - int(sizes.sum())
        return np.append(sizes, rest) if rest >= least else sizes

    def _first_contents(self, pages: np.ndarray) -> np.ndarray:
        """Content numbers of `pages` (uint64[n]) at the start, uint64[n]."""
        place = self._place(pages)
        shared = np.flatnonzero(place < self._n_shared)
        contents = (place.view(np.int64) + (self._n_first - self._parameters.n_pages)).view(np.uint64)
        contents[shared] = self._shared_contents(place[shared])
        return contents

    def _shared_contents(self, place: np.ndarray) -> np.ndarray:
        """Content numbers of the zero and duplicated pages at `place` (uint64[n], each below n_shared), uint64[n]."""
        contents = np.zeros(place.size, np.uint64)
        grouped = np.flatnonzero(place >= self._n_zero)
        contents[grouped] = self._group_at[place[grouped].view(np.int64) - self._n_zero]
        return contents

    def _pick_shared(self, scan: int, n: int) -> np.ndarray:
        stream, counters = key(self._seed, _PICKED, scan), np.arange(n, dtype=np.uint64)
        contents: np.ndarray
        if self._group_at.size:
            contents = self._group_at[uniform(stream, counters, self._group_at.size)].astype(np.uint64)
            return contents
        if self._n_zero:
            return np.zeros(n, np.uint64)
        return self._first_contents(uniform(stream, counters, self._parameters.n_pages).view(np.uint64))


def writes_by_mm(names: Sequence[str], pages_per_mm: int, pages: np.ndarray, contents: np.ndarray) -> list[Write]:
    """One Write per mm that any of `pages` is in, page numbers ascending.

    `pages`: uint64[n], all different, in any order; those of mm k begin with k * `pages_per_mm`. `contents`: uint64[n].
    """
    order = pages.argsort()
    pages, contents = pages[order], contents[order]
    edges = pages.searchsorted(np.arange(len(names) + 1, dtype=np.uint64) * np.uint64(pages_per_mm))
    return [
        Write(
            proc=names[mm],
            area=AREA,
            pages=pages[first:stop].astype(np.int64) - mm * pages_per_mm,
            contents=contents[first:stop],
        )
        for mm, (first, stop) in enumerate(pairwise(edges))
        if first < stop
    ]


def name_of(mm: int) -> str:
    """The name of mm number `mm`."""
    return f"mm{mm}"


def _build(parameters: MixParameters, *, nodes: int, binding: Binding, seed: int, full_scans: int) -> Workload:
    mix = Mix(parameters, seed)
    names = [name_of(mm) for mm in range(parameters.mms)]
    start: list[Step] = []
    for name, nid in zip(names, place(names, binding, nodes), strict=True):
        start += [Spawn(proc=name, cpu_node=nid), Mmap(proc=name, area=AREA, pages=parameters.pages_per_mm, node=nid)]

    def first_step(k: int) -> Step:
        if k < len(start):
            return start[k]
        mm = k - len(start)
        return Write(proc=names[mm], area=AREA, pages=np.arange(parameters.pages_per_mm), contents=mix.contents(mm))

    def snapshot(scan: int) -> Snapshot:
        return Snapshot(time_ms=0, steps=mix.rewrites(scan) if scan else Lazy(len(start) + len(names), first_step))

    return Workload(
        name="mix", nodes=nodes, snapshots=Lazy(full_scans if parameters.rewritten_per_scan else 1, snapshot), per_scan=True
    )


GENERATOR: Final = Generator(
    name="mix",
    about="shares of zero, duplicated and unique pages, of which a share is rewritten between two full scans",
    parameters=MixParameters,
    build=_build,
)
