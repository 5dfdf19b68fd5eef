"""The memcmp order of contents that nobody ever looks at: made up, so that every content's place in it can be computed.

A memory has zeros, groups of equal pages, unique pages, and pages that are unique when they are rewritten. Their contents are
numbered, kind by kind. The order begins with the zeros; then come the unique ones by number, and spread evenly among them the
groups by number, and as many slots as a scan brings fresh contents: slot k holds the k-th of every scan, scan after scan. So
the order of any two contents does not depend on how long the run is, and yet nothing needs to be sorted or counted.

It knows neither pages nor sizes of groups. Pages hold contents in random order, that is the generator's task.
"""

from typing import Final, Protocol

import numpy as np

from ksmbatch.contents import MAX_CONTENTS, ContentTable
from ksmbatch.errors import InputError

_SCAN_BITS: Final = np.uint64(30)  # of a raw number; the rest, less than 32 bits, is the place in the order


class Names(Protocol):
    """What contents are called: dense ids or raw numbers. All arguments are uint32[n] or int64[n]."""

    @property
    def dtype(self) -> np.dtype:
        """Of all names."""

    def groups(self, group: np.ndarray) -> np.ndarray:
        """Names of the contents of groups number `group`, counted from 1; 0: the zeros."""

    def uniques(self, number: np.ndarray) -> np.ndarray:
        """Names of unique contents, counted from 0."""

    def fresh(self, scan: int, number: np.ndarray) -> np.ndarray:
        """Names of the contents that come after full scan `scan`, both counted from 1 and from 0."""


class _Marks:
    """`n` marks spread evenly among `n_base` things in a row, both less than 2**31."""

    def __init__(self, n: int, n_base: int) -> None:
        self.n: Final = n
        self.n_base: Final = n_base
        self._per_thing = np.uint64((n << 32) // n_base if n_base else 0)

    def before(self, thing: np.ndarray) -> np.ndarray:
        """How many marks come before things number `thing` (uint64[k], each below n_base), uint64[k]."""
        marks = thing + np.uint64(1)
        marks *= self._per_thing
        marks >>= np.uint64(32)
        return marks

    def things_before(self, mark: np.ndarray) -> np.ndarray:
        """How many things come before marks number `mark` (uint64[k], each below n), uint64[k]."""
        if not self._per_thing:
            return np.full(mark.shape, self.n_base, np.uint64)
        thing = ((mark + np.uint64(1) << np.uint64(32)) - np.uint64(1)) // self._per_thing
        things: np.ndarray = np.minimum(thing, np.uint64(self.n_base))
        return things


class Ordering:
    """The order of the contents of a memory with `groups`, `uniques`, and `fresh` more after each of `scans` full scans.

    `n_dup`: how many of all `n` are the zeros and the groups, which are the ones that are written at least twice. `ids`:
    dense ids, as in ContentTable. `raws`: raw numbers, the same for any number of scans. Raises InputError if there are more
    contents than ids.
    """

    def __init__(self, *, groups: int, uniques: int, fresh: int, scans: int) -> None:
        self.n_dup: Final = 1 + groups
        self.n: Final = self.n_dup + uniques + fresh * scans
        if self.n > MAX_CONTENTS:
            rule = f"makes {self.n} contents, {fresh} of them per full scan: must be at most {MAX_CONTENTS}"
            raise InputError(key="run.full_scans", value=scans + 1, rule=rule)
        self._scans = scans
        self._groups = _Marks(groups, uniques)
        self._slots = _Marks(fresh, uniques)
        self.ids: Final[Names] = _Ids(self.n_dup, self._slots, scans)
        self.raws: Final[Names] = _Raws(self._groups, self._slots)

    def table(self) -> ContentTable:
        """All contents."""
        uniques, slots = _before_groups(self._groups, self._slots, np.arange(self._groups.n, dtype=np.uint64))
        singles = uniques + slots * np.uint64(self._scans)
        return ContentTable(n=self.n, singles_below=np.concatenate([np.zeros(1, np.uint32), singles.astype(np.uint32)]))


class _Ids:
    dtype: Final = np.dtype(np.int32)

    def __init__(self, n_dup: int, slots: _Marks, scans: int) -> None:
        self._n_dup = n_dup
        self._slots = slots
        self._scans = scans

    def groups(self, group: np.ndarray) -> np.ndarray:
        return group.astype(np.int32)

    def uniques(self, number: np.ndarray) -> np.ndarray:
        number = number.astype(np.uint64)
        ids = self._slots.before(number)
        ids *= np.uint64(self._scans)
        ids += number
        ids += np.uint64(self._n_dup)
        return ids.astype(np.int32)

    def fresh(self, scan: int, number: np.ndarray) -> np.ndarray:
        number = number.astype(np.uint64)
        ids = self._slots.things_before(number)
        ids += number * np.uint64(self._scans)
        ids += np.uint64(self._n_dup + scan - 1)
        return ids.astype(np.int32)


class _Raws:
    """The place in the order of a run of no scans, and the scan."""

    dtype: Final = np.dtype(np.uint64)

    def __init__(self, groups: _Marks, slots: _Marks) -> None:
        self._groups = groups
        self._slots = slots

    def groups(self, group: np.ndarray) -> np.ndarray:
        uniques, slots = _before_groups(self._groups, self._slots, np.maximum(group, 1).astype(np.uint64) - np.uint64(1))
        place: np.ndarray = (group.astype(np.uint64) + uniques + slots) * (group > 0)  # 0 for the zeros
        return place << _SCAN_BITS

    def uniques(self, number: np.ndarray) -> np.ndarray:
        number = number.astype(np.uint64)
        place: np.ndarray = number + self._groups.before(number) + self._slots.before(number) + np.uint64(1)
        return place << _SCAN_BITS

    def fresh(self, scan: int, number: np.ndarray) -> np.ndarray:
        number = number.astype(np.uint64)
        uniques = self._slots.things_before(number)
        groups = np.where(uniques < self._groups.n_base, self._groups.before(uniques), np.uint64(self._groups.n))
        place: np.ndarray = number + uniques + groups + np.uint64(1)
        return place << _SCAN_BITS | np.uint64(scan)


def _before_groups(groups: _Marks, slots: _Marks, group: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How many uniques and how many slots come before groups number `group` (uint64[k], counted from 0).

    Before one unique groups stand before slots, so what comes before the unique before that one comes before the group.
    """
    uniques = groups.things_before(group)
    return uniques, slots.before(uniques - np.uint64(1))  # 0 - 1 wraps round, and before that there is none
