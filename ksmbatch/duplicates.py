"""Pages grouped by content, of all contents or of a random sample of them, and totals over the groups.

It counts and sorts; what ksmd makes of a group is in convergence.py.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from ksmbatch.generators.rng import key

_CHUNK: Final = 1 << 20  # pages looked at at a time
_CACHED: Final = 1 << 14  # pages hashed at a time
_BUCKET_BITS: Final = 20
_CHANCE_BITS: Final = 32
_FACTORS: Final = tuple(np.uint64(key(k) | 1) for k in range(3))
_FAR_FULLER: Final = 4
_Z: Final = 1.959963984540054  # of a normal distribution, 95 % lie within so many standard deviations
_UNSEEN: Final = math.log(20)  # where so many were to be expected, that none is seen has a chance of 5 %


class Figure(NamedTuple):
    """A number, and the interval in which it lies: of a sample with a probability of 95 %, else the number itself."""

    value: int
    low: int
    high: int

    def times(self, factor: int, more: int = 0) -> "Figure":
        """`factor` (positive) times as much, and `more`."""
        return Figure(*(factor * each + more for each in self))


@dataclass(frozen=True, slots=True, eq=False)
class Groups:
    """g groups of at least two equal pages, m pages in all.

    `content`: uint64[g], ascending. `start`: int64[g + 1], the pages of group k are page[start[k]] to page[start[k + 1] - 1].
    `page`: int64[m], places in the memory, ascending within a group. `fraction`: the probability with which a group that is
    not `certain` (bool[g]) came into the sample; 1: these are all groups.
    """

    content: np.ndarray
    start: np.ndarray
    page: np.ndarray
    certain: np.ndarray
    fraction: float = 1.0

    @property
    def size(self) -> np.ndarray:
        """Pages of each group, int64[g]."""
        size: np.ndarray = np.diff(self.start)
        return size

    @property
    def of_page(self) -> np.ndarray:
        """The group of each of `page`, int64[m]."""
        return np.repeat(np.arange(self.content.size), self.size)

    @property
    def weight(self) -> np.ndarray:
        """For how many groups each stands, float64[g]."""
        return np.where(self.certain, 1.0, 1 / self.fraction)

    def total(self, amount: np.ndarray) -> Figure:
        """The sum over all groups there are of an `amount`, int64[g].

        Of a sample it is the Horvitz-Thompson estimate: what has the chance p counts 1 / p times, so the expectation is the
        sum itself. The interval is that of a normal distribution with the estimated variance, to which a group is added of
        the usual size that was not drawn: so it is not empty where hardly anything was. Where no amount is negative, what was
        seen is there at least.
        """
        seen = int(amount.sum())
        if self.fraction == 1:
            return Figure(seen, seen, seen)
        # what is drawn is contents: the parts of one that is split by node come together
        first = np.flatnonzero(np.diff(self.content, prepend=~self.content[:1]))
        by_content = np.add.reduceat(amount, first) if first.size else amount
        drawn = by_content[~self.certain[first]].astype(np.float64)
        drawn = drawn[drawn != 0]
        value = seen + drawn.sum() * (1 / self.fraction - 1)
        usual = (drawn**2).mean() if drawn.size else 1.0
        variance = ((drawn**2).sum() + _UNSEEN * usual) * (1 - self.fraction) / self.fraction**2
        margin = _Z * math.sqrt(variance)
        low = math.floor(value - margin)
        return Figure(round(value), max(seen, low) if amount.min(initial=0) >= 0 else low, math.ceil(value + margin))

    def total_by(self, place: np.ndarray, amount: np.ndarray, n: int) -> np.ndarray:
        """Sums, int64[n]: `amount` (int64[m]) of each of `page` counts for its `place` (integers below n, [m]). Estimates."""
        sums: np.ndarray = np.rint(np.bincount(place, amount * self.weight[self.of_page], minlength=n)).astype(np.int64)
        return sums


class Draw:
    """Which contents are looked at: the page of zeros and what is frequent in any case, others with probability `fraction`.

    Chance is a hash of the content, so all pages of a content are looked at, or none. Contents are counted by hash in
    buckets first; those far fuller than the mean are looked at in any case, and at least the fullest, with a share of
    `fraction` of all pages. So a content that is left to chance has at most `most_left` pages.
    """

    def __init__(self, content: np.ndarray, fraction: float, seed: int) -> None:
        self.fraction = fraction
        self._key = np.uint64(key(seed))
        # some 64 pages to a bucket, so that one content of thousands makes its bucket stand out
        bits = min(max((content.size // 64).bit_length(), 4), _BUCKET_BITS)
        self._mask = np.uint64((1 << bits) - 1)
        pages = np.zeros(1 << bits, np.int64)
        for part in _chunks(content):
            bucket, _ = self._hash(part[part != 0])
            pages += np.bincount(bucket, minlength=pages.size)
        fullest = pages.argsort(kind="stable")[::-1]
        affordable = int(pages[fullest].cumsum().searchsorted(fraction * pages.sum(), side="right"))
        n_certain = max(affordable, int(np.count_nonzero(pages > _FAR_FULLER * pages.mean())))
        self._certain = np.zeros(pages.size, np.bool_)
        self._certain[fullest[:n_certain]] = True
        self.most_left = int(pages[fullest[n_certain]]) if n_certain < pages.size else 0

    def pages(self, content: np.ndarray) -> np.ndarray:
        """The places of the pages that are looked at, ascending, int64."""
        found = [np.zeros(0, np.int64)]
        for number, part in enumerate(_chunks(content)):
            bucket, drawn = self._hash(part)
            found.append(np.flatnonzero(self._certain[bucket] | drawn | (part == 0)) + number * _CHUNK)
        return np.concatenate(found)

    def is_certain(self, content: np.ndarray) -> np.ndarray:
        """Whether each of these contents is looked at in any case, bool."""
        bucket, _ = self._hash(content)
        certain: np.ndarray = self._certain[bucket] | (content == 0)
        return certain

    def _hash(self, content: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The bucket of each content, and whether it is drawn."""
        mixed = content.copy()
        for first in range(0, mixed.size, _CACHED):
            part = mixed[first : first + _CACHED]
            part ^= self._key
            for factor in _FACTORS:
                part ^= part >> np.uint64(32)
                part *= factor
        # the upper bits of a product depend on all bits of its factors
        chance = mixed >> np.uint64(64 - _CHANCE_BITS)
        mixed >>= np.uint64(64 - _CHANCE_BITS - _BUCKET_BITS)
        mixed &= self._mask
        return mixed.view(np.int64), chance < np.uint64(round(self.fraction * 2**_CHANCE_BITS))


def group(content: np.ndarray, draw: Draw | None = None) -> Groups:
    """The groups of equal pages among `content` (uint64[n]); with `draw` those of the contents that it looks at."""
    if draw is None:
        return _grouped(content, None)
    pages = draw.pages(content)
    groups = _grouped(content[pages], pages)
    return Groups(groups.content, groups.start, groups.page, draw.is_certain(groups.content), draw.fraction)


def regroup(groups: Groups, node: np.ndarray, nodes: int) -> Groups:
    """The groups split by the NUMA node of each page: `node`, integers below `nodes`, for all pages of the memory.

    Parts of one page stay, unlike in `group`: a page alone is one that its node's tree has no partner for.
    """
    part = groups.of_page * nodes + node[groups.page]
    order = part.argsort(kind="stable")  # pages of a part stay ascending
    part = part[order]
    first = np.flatnonzero(np.diff(part, prepend=-1))
    owner = part[first] // nodes
    return Groups(
        groups.content[owner],
        np.append(first, part.size),
        groups.page[order],
        groups.certain[owner],
        groups.fraction,
    )


def _chunks(content: np.ndarray) -> Iterator[np.ndarray]:
    return (content[first : first + _CHUNK] for first in range(0, content.size, _CHUNK))


def _grouped(content: np.ndarray, places: np.ndarray | None) -> Groups:
    """Groups of `content`; `places`: where its pages are in the memory, None: at 0, 1, 2, ..."""
    values, number, pages = _twins(content)
    # sorted by group and then by page: both in one number, for sorting numbers is what numpy does fastest
    bits = np.uint64(max(content.size - 1, 1).bit_length())
    keys = (number << bits) | pages
    keys.sort()
    number = keys >> bits
    keys &= (np.uint64(1) << bits) - np.uint64(1)
    pages = keys.view(np.int64)
    start = np.append(number.searchsorted(np.arange(values.size, dtype=np.uint64)), number.size)
    return Groups(values, start, pages if places is None else places[pages], np.ones(values.size, np.bool_))


def _twins(content: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Contents of at least two pages (uint64[g], ascending); the group and the place of each such page (both uint64[m])."""
    if content.size == 0:
        nothing = np.zeros(0, np.uint64)
        return nothing, nothing, nothing
    if int(content.max()) < 4 * content.size + 1024:  # ids are dense: counting is a tenth of sorting
        count = np.bincount(content.view(np.int64))
        values = np.flatnonzero(count >= 2)
        number = np.full(count.size, -1, np.int32)
        number[values] = np.arange(values.size)
        pages = np.flatnonzero(number[content] >= 0)
        return values.view(np.uint64), number[content[pages]].astype(np.uint64), pages.view(np.uint64)
    pages = content.argsort()
    ordered = content[pages]
    first = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    size = np.diff(first, append=ordered.size)
    twins = size >= 2
    kept = np.repeat(twins, size)
    number = np.repeat(np.arange(int(twins.sum()), dtype=np.uint64), size[twins])
    return ordered[first[twins]], number, pages[kept].view(np.uint64)
