"""What generators of similar guests have in common: one area each, written at the start, and in part after every full scan.

What the pages hold is each generator's own; a common case are guests with a pool of pages, free ones and zeroed, and used ones.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Final

import numpy as np

from ksmbatch.errors import InputError
from ksmbatch.events import Mmap, Spawn, Step, Write
from ksmbatch.generators.base import share, whole_number
from ksmbatch.generators.mix import AREA, MAX_PAGES
from ksmbatch.generators.rng import Permutation, Scramble, key
from ksmbatch.topology import Binding, place
from ksmbatch.workload import Lazy, Snapshot, Workload

_PLACES: Final = 2**32  # streams of randomness, beyond those that generators number for themselves
_CONTENTS: Final = 2**32 + 1


def check_size(mms: object, pages_per_mm: object, *, name: str = "mms") -> None:
    """Raises InputError if these, under the keys `name` and `pages_per_mm`, are no numbers of things that fit a host."""
    n_mms = whole_number(name, mms, 1, MAX_PAGES)
    n_pages = whole_number("pages_per_mm", pages_per_mm, 1, MAX_PAGES)
    if n_mms * n_pages > MAX_PAGES:
        rule = f"makes {n_mms * n_pages} pages with {name} = {n_mms}: must be at most {MAX_PAGES}"
        raise InputError(key="workload.pages_per_mm", value=n_pages, rule=rule)


def check_shares(parameters: object, whole: Sequence[str], *others: str) -> None:
    """Makes the fields `whole` and `others` of frozen `parameters` floats; raises InputError if one is no share, or if `whole`
    are more than 1 together."""
    for name in (*whole, *others):
        object.__setattr__(parameters, name, share(name, getattr(parameters, name)))  # 1 and 1.0 are the same workload
    total = 0.0
    for before, name in pairwise(["", *whole]):
        total += getattr(parameters, name)
        if total > 1 + 1e-9:
            rule = f"must be at most 1 together with {', '.join(whole[: whole.index(before) + 1])}"
            raise InputError(key=f"workload.{name}", value=getattr(parameters, name), rule=rule)


class Guests:
    """`names` of guests of `pages` pages each, whose contents are numbered from 0, the zeros, to `n_first` - 1 at the start.

    A page's place is its number in a random order that all guests share, as clones of one machine do.
    """

    def __init__(self, names: Sequence[str], pages: int, n_first: int, seed: int) -> None:
        self.names = names
        self.pages = pages
        self._place = Permutation(pages, key(seed, _PLACES))
        self._raw = Scramble(n_first, key(seed, _CONTENTS))

    def fill(self, guest: int, by_place: np.ndarray) -> Write:
        """The first write to guest number `guest`: `by_place`, uint64[pages], content numbers by place."""
        return self._write(guest, np.arange(self.pages), by_place[self._places(np.arange(self.pages, dtype=np.uint64))])

    def rewrite(self, guest: int, places: np.ndarray, contents: np.ndarray) -> Write:
        """A later write: content numbers `contents` (uint64[n]) at `places` (int64[n], all different)."""
        here = np.zeros(self.pages, np.bool_)
        here[places] = True
        new = np.zeros(self.pages, np.uint64)
        new[places] = contents
        place = self._places(np.arange(self.pages, dtype=np.uint64))
        pages = np.flatnonzero(here[place])
        return self._write(guest, pages, new[place[pages]])

    def _write(self, guest: int, pages: np.ndarray, contents: np.ndarray) -> Write:
        return Write(proc=self.names[guest], area=AREA, pages=pages, contents=self._raw(contents))

    def _places(self, pages: np.ndarray) -> np.ndarray:
        return self._place(pages).view(np.int64)

    def workload(
        self,
        name: str,
        *,
        nodes: int,
        binding: Binding,
        first: Callable[[int], np.ndarray],
        later: Callable[[int, int], tuple[np.ndarray, np.ndarray]],
        n_snapshots: int,
    ) -> Workload:
        """The guests start, and are filled with `first(guest)`; after full scan number k, from 1 to `n_snapshots` - 1,
        `later(guest, k)` are the places and contents that are rewritten."""
        start: list[Step] = []
        for proc, nid in zip(self.names, place(self.names, binding, nodes), strict=True):
            start += [Spawn(proc=proc, cpu_node=nid), Mmap(proc=proc, area=AREA, pages=self.pages, node=nid)]
        n_guests = len(self.names)

        def first_step(k: int) -> Step:
            return start[k] if k < len(start) else self.fill(k - len(start), first(k - len(start)))

        def snapshot(scan: int) -> Snapshot:
            if not scan:
                return Snapshot(time_ms=0, steps=Lazy(len(start) + n_guests, first_step))
            return Snapshot(time_ms=0, steps=Lazy(n_guests, lambda guest: self.rewrite(guest, *later(guest, scan))))

        return Workload(name=name, nodes=nodes, snapshots=Lazy(n_snapshots, snapshot), per_scan=True)


class Pooled:
    """`mms` guests of `pages` pages, first what all hold, then a pool, of which `n_zero` pages are free, and zeros.

    `n_alike`: pages that all guests hold, each content once per guest. `n_fixed`: pages behind them that are each guest's own
    and never change. The rest is the pool. The free pages of a pool are a row, and the row goes round: after each full scan
    `step` pages are taken into use at its one end, with new contents, and as many are freed and zeroed at its other. So there
    are always as many zeros, and which pages they are changes.

    Contents are numbered: 0 the zeros, then what all hold, each guest's own, and what comes into use after each scan.
    """

    def __init__(self, *, mms: int, pages: int, n_alike: int, n_fixed: int, n_zero: int, step: int) -> None:
        self._mms = mms
        self._pages = pages
        self._n_alike = min(n_alike, pages)
        self._pool = min(self._n_alike + n_fixed, pages)  # its first place
        self._n_pool = pages - self._pool
        self._n_zero = min(n_zero, self._n_pool)
        self._step = min(step, self._n_zero, self._n_pool - self._n_zero)
        self._n_own = pages - self._n_alike - self._n_zero
        self.n_first = 1 + self._n_alike + mms * self._n_own

    def first(self, guest: int) -> np.ndarray:
        """Content numbers of a guest's places at the start, uint64[pages]."""
        by_place = np.zeros(self._pages, np.uint64)
        by_place[: self._n_alike] = np.arange(1, self._n_alike + 1)
        is_own = np.arange(self._pages) >= self._n_alike
        is_own[self._pool : self._pool + self._n_zero] = False
        by_place[is_own] = np.arange(self._n_own) + (1 + self._n_alike + guest * self._n_own)
        return by_place

    def later(self, guest: int, scan: int) -> tuple[np.ndarray, np.ndarray]:
        """Places (int64) that are rewritten after full scan number `scan` (from 1 on), and what they hold then (uint64)."""
        moved = (scan - 1) * self._step + np.arange(self._step)
        used, freed = moved % max(self._n_pool, 1), (moved + self._n_zero) % max(self._n_pool, 1)
        before = self.n_first + ((scan - 1) * self._mms + guest) * self._step
        contents = np.concatenate([before + np.arange(self._step), np.zeros(self._step, np.int64)]).astype(np.uint64)
        return self._pool + np.concatenate([used, freed]), contents
