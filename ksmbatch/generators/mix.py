"""`mix`: memory of zero, duplicated and unique pages in given shares, some of it rewritten from scan to scan.

It has no hot and cold pages and no locality: every page is as likely to be shared or rewritten as any other.
"""

from dataclasses import dataclass
from functools import cached_property
from threading import Lock
from typing import Final

import numpy as np

from ksmbatch.errors import InputError
from ksmbatch.events import LazyWrite, Mmap, Spawn, Step
from ksmbatch.generators.base import Generator, share, whole_number
from ksmbatch.generators.ordering import Names, Ordering
from ksmbatch.generators.rng import Permutation, ascending, chunks, key, uniform
from ksmbatch.topology import Binding, place
from ksmbatch.workload import Lazy, Snapshot, Workload

AREA: Final = "memory"
MAX_PAGES: Final = 2**30  # pages are int32, and frames need twice as many numbers
_PLACES, _SIZES, _HALVES, _REWRITTEN, _PICKED = range(5)  # streams of randomness


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

    `scans`: full scans after which something is rewritten. In a random order of all pages the zeros come first, then group
    after group, then the unique ones: so the number of a content has nothing to do with the place of its page.
    """

    def __init__(self, parameters: MixParameters, seed: int, scans: int = 0) -> None:
        n_pages = parameters.n_pages
        self.parameters: Final = parameters
        self._seed = seed
        self._n_zero = round(parameters.zero * n_pages)
        self._sizes = self._group_sizes(min(round(parameters.duplicated * n_pages), n_pages - self._n_zero))
        self._n_shared = self._n_zero + int(self._sizes.sum())
        self.n_rewritten: Final = round(parameters.rewritten_per_scan * n_pages)
        self.n_fresh: Final = (self.n_rewritten + 1) // 2
        self._place = Permutation(n_pages, key(seed, _PLACES))
        self._lock = Lock()
        self._groups: np.ndarray | None = None
        self.ordering: Final = Ordering(
            groups=self._sizes.size, uniques=n_pages - self._n_shared, fresh=self.n_fresh, scans=scans
        )

    @property
    def only_groups_are_shared(self) -> bool:
        """Whether nothing that one page held is ever written to another, but for zeros and the contents of groups."""
        return bool(self._n_shared or not self.n_rewritten)

    def first(self, mm: int, names: Names) -> np.ndarray:
        """Contents of the pages of `mm` at the start by their `names`, [pages_per_mm]."""
        first = mm * self.parameters.pages_per_mm
        contents = np.empty(self.parameters.pages_per_mm, names.dtype)
        for part in chunks(contents.size):  # so that their places stay in the cache, too
            contents[part] = self._contents(np.arange(first + part.start, first + part.stop, dtype=np.uint32), names)
        return contents

    def rewritten(self, scan: int) -> np.ndarray:
        """The pages rewritten between full scan number `scan` (from 1 on) and the next, int64[n_rewritten], ascending."""
        return ascending(key(self._seed, _REWRITTEN, scan), self.n_rewritten, self.parameters.n_pages)

    def rewrites(self, scan: int, names: Names) -> np.ndarray:
        """What these pages then hold, by its `names`, [n_rewritten]."""
        order = Permutation(max(self.n_rewritten, 1), key(self._seed, _HALVES, scan))
        turn = order(np.arange(self.n_rewritten, dtype=np.uint32))
        contents = np.empty(turn.size, names.dtype)
        for part in chunks(turn.size):
            is_fresh = turn[part] < self.n_fresh
            here, there = np.flatnonzero(is_fresh), np.flatnonzero(~is_fresh)
            contents[part][here] = names.fresh(scan, turn[part][here])
            contents[part][there] = self._picked(scan, turn[part][there] - np.uint32(self.n_fresh), names)
        return contents

    def _group_sizes(self, n_duplicated: int) -> np.ndarray:
        """Sizes of the groups, int64[groups], together at most `n_duplicated` and more than that less the least size."""
        least, greatest = self.parameters.group
        drawn, left = [np.empty(0, np.int64)], n_duplicated
        for part in chunks(n_duplicated // least + 1):
            sizes = uniform(key(self._seed, _SIZES), np.arange(part.start, part.stop, dtype=np.uint64), greatest - least + 1)
            sizes += least
            sizes = sizes[: sizes.cumsum().searchsorted(left, side="right")]
            drawn.append(sizes)
            left -= int(sizes.sum())
            if sizes.size < part.stop - part.start:
                break
        return np.append(np.concatenate(drawn), [left] if left >= least else np.empty(0, np.int64))

    def _group_at(self, place: np.ndarray) -> np.ndarray:
        """Groups, from 1 on, of the duplicated pages number `place` ([n], any integers), uint32[n]."""
        with self._lock:
            if self._groups is None:  # 4 bytes per duplicated page: not before somebody needs them
                self._groups = np.repeat(np.arange(1, self._sizes.size + 1, dtype=np.uint32), self._sizes)
        groups: np.ndarray = self._groups[place]
        return groups

    def _contents(self, pages: np.ndarray, names: Names) -> np.ndarray:
        """Contents of `pages` (uint32[n]) at the start."""
        place = self._place(pages)
        contents = np.empty(place.size, names.dtype)
        for part in chunks(place.size):
            here = place[part]
            shared = np.flatnonzero(here < self._n_shared)
            contents[part] = names.uniques(here - np.uint32(self._n_shared))  # those of shared pages mean nothing
            contents[part][shared] = names.groups(self._shared(here[shared]))
        return contents

    def _shared(self, place: np.ndarray) -> np.ndarray:
        """Groups of the zero (0) and duplicated pages at `place` (uint32[n], each below n_shared), uint32[n]."""
        groups = np.zeros(place.size, np.uint32)
        grouped = np.flatnonzero(place >= self._n_zero)
        groups[grouped] = self._group_at(place[grouped] - np.uint32(self._n_zero))
        return groups

    def _picked(self, scan: int, number: np.ndarray, names: Names) -> np.ndarray:
        """Contents that others hold, one for each of `number` (uint32[n])."""
        stream, counters = key(self._seed, _PICKED, scan), number.astype(np.uint64)
        if self._sizes.size:
            return names.groups(self._group_at(uniform(stream, counters, self._n_shared - self._n_zero)))
        if self._n_zero:
            return names.groups(np.zeros(number.size, np.uint32))
        return self._contents(uniform(stream, counters, self.parameters.n_pages).astype(np.uint32), names)


class _First:
    """Arrays of the first write to an mm."""

    def __init__(self, mix: Mix, mm: int) -> None:
        self._mix = mix
        self._mm = mm

    def prepare(self) -> None:
        pass

    def pages(self) -> range:
        return range(self._mix.parameters.pages_per_mm)

    def contents(self) -> np.ndarray:
        return self._mix.first(self._mm, self._mix.ordering.raws)

    def ids(self) -> np.ndarray:
        return self._mix.first(self._mm, self._mix.ordering.ids)


class _Rewriting:
    """What is rewritten after a full scan, in all mms; made once, and gone when the last write that points here is."""

    def __init__(self, mix: Mix, scan: int) -> None:
        self.mix: Final = mix
        self._scan = scan

    @cached_property
    def pages(self) -> np.ndarray:
        return self.mix.rewritten(self._scan)

    @cached_property
    def ends(self) -> np.ndarray:
        parameters = self.mix.parameters
        return self.pages.searchsorted(np.arange(parameters.mms + 1) * parameters.pages_per_mm)

    @cached_property
    def contents(self) -> np.ndarray:
        return self.mix.rewrites(self._scan, self.mix.ordering.raws)

    @cached_property
    def ids(self) -> np.ndarray:
        return self.mix.rewrites(self._scan, self.mix.ordering.ids)


class _Rewritten:
    """Arrays of the writes to an mm after a full scan."""

    def __init__(self, rewriting: _Rewriting, mm: int) -> None:
        self._all = rewriting
        self._mm = mm

    def prepare(self) -> None:
        _ = self._all.ends, self._all.ids

    def _part(self) -> slice:
        return slice(self._all.ends[self._mm], self._all.ends[self._mm + 1])

    def pages(self) -> np.ndarray:
        return self._all.pages[self._part()] - self._mm * self._all.mix.parameters.pages_per_mm

    def contents(self) -> np.ndarray:
        return self._all.contents[self._part()]

    def ids(self) -> np.ndarray:
        return self._all.ids[self._part()]


def name_of(mm: int) -> str:
    """The name of mm number `mm`."""
    return f"mm{mm}"


def _build(parameters: MixParameters, *, nodes: int, binding: Binding, seed: int, full_scans: int) -> Workload:
    n_snapshots = full_scans if parameters.rewritten_per_scan else 1
    mix = Mix(parameters, seed, scans=n_snapshots - 1)
    names = [name_of(mm) for mm in range(parameters.mms)]
    start: list[Step] = []
    for name, nid in zip(names, place(names, binding, nodes), strict=True):
        start += [Spawn(proc=name, cpu_node=nid), Mmap(proc=name, area=AREA, pages=parameters.pages_per_mm, node=nid)]
    start += [LazyWrite(proc=name, area=AREA, arrays=_First(mix, mm)) for mm, name in enumerate(names)]

    def snapshot(scan: int) -> Snapshot:
        if scan == 0:
            return Snapshot(time_ms=0, steps=start)
        rewriting = _Rewriting(mix, scan)
        writes = [LazyWrite(proc=name, area=AREA, arrays=_Rewritten(rewriting, mm)) for mm, name in enumerate(names)]
        return Snapshot(time_ms=0, steps=writes)

    return Workload(
        name="mix",
        nodes=nodes,
        snapshots=Lazy(n_snapshots, snapshot),
        per_scan=True,
        contents=mix.ordering.table() if mix.only_groups_are_shared else None,
    )


GENERATOR: Final = Generator(
    name="mix",
    about="shares of zero, duplicated and unique pages, of which a share is rewritten between two full scans",
    parameters=MixParameters,
    build=_build,
)
