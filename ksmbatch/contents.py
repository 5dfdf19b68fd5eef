"""Contents by number: dense ids, so that a content is an index into arrays and its place in memcmp order a number.

It sees numbers, not bytes, and it does not know who writes what: a content is whatever a workload calls by one number.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Final, TypeAlias

import numpy as np

Checksum: TypeAlias = Callable[[np.ndarray], np.ndarray]

MAX_CONTENTS: Final = 2**31 - 2  # ids are int32, and tables of them count from 1
ZERO_RAW: Final = 0  # the page of zeros
INTERN_BYTES: Final = 44  # that `intern` takes per content written, its raw number and its id included
_CHUNK: Final = 1 << 18  # ranks made at a time: 2 MiB of int64


@dataclass(frozen=True, kw_only=True, eq=False)  # no slots: `rank` is kept
class ContentTable:
    """All contents that a workload ever writes, `n` of them, numbered from 0.

    The contents written at least twice come first, in memcmp order, then the others ("singles"), in memcmp order: only the
    first `n_dup` can ever be on two frames, so tables that look for partners need no room for the rest. Id 0 is the page of
    zeros, whether it is written or not: unsharing the kernel's zero page brings it back.

    `singles_below`: uint32[n_dup], how many singles are smaller; with it any two contents can be compared: two of the same kind
    by their ids, and single `s` is smaller than `d` if `s - n_dup < singles_below[d]`. `checksum_class`: int32[n], the smallest
    content with an equal 32-bit checksum, or None if all checksums differ.
    """

    n: int
    singles_below: np.ndarray
    checksum_class: np.ndarray | None = None

    @property
    def n_dup(self) -> int:
        """Contents written at least twice, the page of zeros among them."""
        return self.singles_below.size

    @cached_property
    def rank(self) -> np.ndarray:
        """uint32[n], place in memcmp order. Made when first asked for: most is said by `singles_below` in less."""
        rank = np.arange(self.n, dtype=np.uint32)
        rank[: self.n_dup] += self.singles_below
        singles = rank[self.n_dup :]
        singles -= np.uint32(self.n_dup)
        for first in range(0, singles.size, _CHUNK):
            part = singles[first : first + _CHUNK]
            below, end = self.singles_below.searchsorted((first + 1, first + part.size))
            bounds = np.concatenate([[first], self.singles_below[below:end].astype(np.int64), [first + part.size]])
            part += np.repeat(np.arange(below, end + 1, dtype=np.uint32), np.diff(bounds))
        return rank


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Interned:
    """The `table` of some contents, and their raw numbers. `raw`: uint64[n], by id."""

    table: ContentTable
    raw: np.ndarray
    _dense: np.ndarray | None  # int32[largest raw + 1]: id of a raw number, -1 for none; None where that would be too large
    _ordered: np.ndarray  # uint64[n]: raw numbers, ascending
    _id_by_rank: np.ndarray  # int32[n]

    def lookup(self, raw: np.ndarray) -> np.ndarray:
        """Ids of the raw numbers `raw` (uint64[k]) as int32[k]. Raises KeyError for one that was not interned."""
        if self._dense is not None:
            if raw.size and raw.max() >= self._dense.size:
                raise KeyError(int(raw.max()))
            ids = self._dense[raw.view(np.int64)]
            if raw.size and ids.min() < 0:
                raise KeyError(int(raw[ids.argmin()]))
            return ids
        order = raw.argsort()  # searching in order stays in the cache: five times as fast, the sort included
        place = np.empty(raw.size, np.int64)
        place[order] = self._ordered.searchsorted(raw[order])
        place[place == self._ordered.size] = 0
        wrong = self._ordered[place] != raw
        if wrong.any():
            raise KeyError(int(raw[wrong.argmax()]))
        return self._id_by_rank[place]


def intern(arrays: Iterable[np.ndarray], checksum: Checksum | None = None) -> Interned:
    """All contents in `arrays` (each uint64[k], the contents of one write, repeats included), numbered.

    `checksum` maps raw numbers (uint64[n]) to checksums (uint32[n]), for tests of what a collision does; None: no two
    contents collide. Takes up to INTERN_BYTES per content written while it runs.
    """
    written = np.concatenate([np.full(2, ZERO_RAW, np.uint64), *arrays])  # twice: the page of zeros counts as duplicated
    ordered, count = _count(written)
    del written
    duplicated = count >= 2
    dups = np.flatnonzero(duplicated)
    id_to_rank = np.concatenate([dups, np.flatnonzero(~duplicated)])
    id_by_rank = np.empty(ordered.size, np.int32)
    id_by_rank[id_to_rank] = np.arange(ordered.size, dtype=np.int32)
    raw = ordered[id_to_rank]
    table = ContentTable(
        n=ordered.size,
        singles_below=(dups - np.arange(dups.size)).astype(np.uint32),
        checksum_class=None if checksum is None else _classes(checksum(raw)),
    )
    return Interned(table=table, raw=raw, _dense=_dense(ordered, id_by_rank), _ordered=ordered, _id_by_rank=id_by_rank)


def _is_compact(largest: int, n: int) -> bool:
    # a gather costs a thirtieth of a sort or a binary search; worth it while the table is no larger than their arrays
    return largest < 3 * n + 1024


def _count(written: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct values of `written` (uint64[k], left in any order), ascending, and how often each occurs."""
    if _is_compact(int(written.max()), written.size):
        count = np.bincount(written.view(np.int64))
        found = np.flatnonzero(count)
        return found.view(np.uint64), count[found]
    written.sort()
    fresh = np.empty(written.size, np.bool_)
    fresh[0] = True
    np.not_equal(written[1:], written[:-1], out=fresh[1:])
    first = np.flatnonzero(fresh)
    return written[first], np.diff(first, append=written.size)


def _dense(ordered: np.ndarray, id_by_rank: np.ndarray) -> np.ndarray | None:
    largest = int(ordered[-1])
    if not _is_compact(largest, ordered.size):
        return None
    dense = np.full(largest + 1, -1, np.int32)
    dense[ordered.view(np.int64)] = id_by_rank
    return dense


def _classes(checksums: np.ndarray) -> np.ndarray:
    _, smallest, inverse = np.unique(checksums, return_index=True, return_inverse=True)
    return np.asarray(smallest[inverse], dtype=np.int32)
