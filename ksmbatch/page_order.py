"""Contents in memcmp order, from their first words; only those whose first words tie are read again.

The numbers of contents travel in the low bits of the words that are sorted. What they displace, and what follows the first
word, is settled in rounds, in which tied contents are compared with one of them. That contents differ is taken for granted;
where memory has changed since, some order comes out.
"""

from collections.abc import Iterator
from typing import Final

import numpy as np

from ksmbatch.kernels import grouping, radix_sort
from ksmbatch.kernels.radix_sort import DIGITS, VALUES
from ksmbatch.pagesource import PAGE_BYTES, PageReader

_PART: Final = 1 << 20  # elements of an array that are handled at once, so that temporaries stay small
# Contents that are settled at once, from memory or from a buffer of 64 MiB. The number of a content, that of its tie, the side,
# the place and the whole of the first byte that differs must fit into 64 bits: that is what makes every round split every tie.
_AT_ONCE_IN_MEMORY: Final = 1 << 16
_AT_ONCE: Final = 1 << 14


def parts(n: int) -> Iterator[slice]:
    """Slices that cover `n` elements."""
    for start in range(0, n, _PART):
        yield slice(start, min(start + _PART, n))


def first_pages(ids: np.ndarray, n: int) -> np.ndarray:
    """The first page of each of `n` contents: uint32[n]. `ids`: uint32[n_pages], the content of each page."""
    first_page = np.empty(n, np.uint32)
    for part in reversed(list(parts(ids.size))):
        first_page[ids[part][::-1]] = np.arange(part.start, part.stop, dtype=np.uint32)[::-1]  # the last one written stays
    return first_page


def order_of_appearance(ids: np.ndarray, first_page: np.ndarray) -> np.ndarray:
    """The contents in the order of their first pages `first_page`: uint32[n]. `ids` as for `first_pages`."""
    is_first = np.zeros(ids.size, np.bool_)
    is_first[first_page] = True
    return ids[is_first]


def renumber(ids: np.ndarray, order: np.ndarray) -> None:
    """Lets `ids` (uint32[n_pages]) say the place of each content in `order` (every content once)."""
    place = np.empty(order.size, np.uint32)
    for part in parts(order.size):
        place[order[part]] = np.arange(part.start, part.stop, dtype=np.uint32)
    for part in parts(ids.size):
        ids[part] = place[ids[part]]


def sort_by_first_word(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Contents by their first words `keys` (uint64[n], big-endian; lost), and what that leaves open.

    Returns the order, uint32[n], the content of each place; and where runs of contents that tie begin and end in it. Takes 8
    bytes per content while it runs. Fewer than 64 bits of a word count, as few as 32 where there are 4 billion contents.
    """
    bits, low = _number_and_sort(keys)
    order = np.empty(keys.size, np.uint32)
    np.bitwise_and(keys, low, out=order, casting="unsafe")
    keys >>= bits
    return order, *_runs(keys)


def settle_ties(order: np.ndarray, starts: np.ndarray, ends: np.ndarray, first_page: np.ndarray, reader: PageReader) -> None:
    """Puts the contents in each of the runs order[starts[k] : ends[k]] in memcmp order.

    `first_page`: uint32[n], a page that has the content. Takes up to 64 MiB, and 20 bytes per content in the longest run.
    """
    if starts.size:
        _Ties(order, first_page, reader).settle(starts, ends)


def _number_and_sort(words: np.ndarray) -> tuple[np.uint64, np.uint64]:
    """Sorts `words` (uint64[n]) with their numbers in their low bits. Returns how many bits those are, and their mask."""
    bits = max(words.size - 1, 0).bit_length()
    low = np.uint64((1 << bits) - 1)
    words &= ~low
    for part in parts(words.size):
        words[part] |= np.arange(part.start, part.stop, dtype=np.uint64)
    if words.size:
        spare = np.empty_like(words)
        if radix_sort.sort_words(words, spare, np.empty((DIGITS, VALUES), np.uint64), np.uint64(bits)):
            words[:] = spare
    return np.uint64(bits), low


def _runs(ordered: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where runs of two or more equal elements begin and end."""
    same = np.zeros(ordered.size + 1, np.int8)
    np.equal(ordered[1:], ordered[:-1], out=same[1:-1].view(np.bool_))
    edges = np.diff(same)
    return np.flatnonzero(edges == 1), np.flatnonzero(edges == -1) + 1


def _elements(starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """The indices in all of the ranges starts[k] to ends[k], one range after the other."""
    length = ends - starts
    return np.repeat(starts - np.cumsum(length) + length, length) + np.arange(length.sum())


class _Ties:
    """Contents in `order` that tie with their neighbours."""

    def __init__(self, order: np.ndarray, first_page: np.ndarray, reader: PageReader) -> None:
        self._order = order
        self._first_page = first_page
        self._reader = reader
        self._at_once = _AT_ONCE if reader.pages is None else _AT_ONCE_IN_MEMORY
        self._buffer: np.ndarray | None = None

    def settle(self, starts: np.ndarray, ends: np.ndarray) -> None:
        """As `settle_ties`."""
        pending = [(starts, ends)]
        while pending:
            starts, ends = pending.pop()
            long = ends - starts > self._at_once
            pending += [self._split(start, end) for start, end in zip(starts[long].tolist(), ends[long].tolist(), strict=True)]
            starts, ends = starts[~long], ends[~long]
            load = np.cumsum(ends - starts)
            k = 0
            while k < starts.size:  # as many runs as can be settled at once
                before = load[k - 1] if k else 0
                following = int(load.searchsorted(before + self._at_once, side="right"))
                self._settle_at_once(starts[k:following], ends[k:following])
                k = following

    def _settle_at_once(self, starts: np.ndarray, ends: np.ndarray) -> None:
        """All rounds of some runs, which are read once."""
        place = _elements(starts, ends)  # in order, of the contents that still tie
        content = self._order[place]
        pages, row = self._load(self._first_page[content])
        length = ends - starts
        while place.size:
            run = np.repeat(np.arange(length.size, dtype=np.uint64), length)
            pivot = np.cumsum(length) - length + length // 2
            keys = np.empty(run.size, np.uint64)
            grouping.compare_with_pivots(pages, row, np.repeat(row[pivot], length), keys)
            above = np.uint64((length.size - 1).bit_length())
            keys = run << (np.uint64(64) - above) | keys >> above  # its run comes first
            bits, low = _number_and_sort(keys)
            moved = (keys & low).astype(np.int64)
            content, row = content[moved], row[moved]
            self._order[place] = content
            starts, ends = _runs(keys >> bits)
            # a run that no round splits is one of pages that have become equal since they were grouped: any order will do
            split = ends - starts < length[np.cumsum(length).searchsorted(starts, side="right")]
            starts, ends = starts[split], ends[split]
            left = _elements(starts, ends)
            place, content, row, length = place[left], content[left], row[left], ends - starts

    def _split(self, start: int, end: int) -> tuple[np.ndarray, np.ndarray]:
        """One round for a run that is too long to be read at once. Returns the runs in it that are left."""
        contents = self._order[start:end].copy()
        keys = np.empty(contents.size, np.uint64)
        pivot = self._first_page[contents[contents.size // 2]]
        for at in range(0, contents.size, self._at_once):
            portion = contents[at : at + self._at_once]
            pages, row = self._load(np.append(self._first_page[portion], pivot))
            grouping.compare_with_pivots(pages, row[:-1], np.full(portion.size, row[-1]), keys[at : at + portion.size])
        bits, low = _number_and_sort(keys)
        run = self._order[start:end]
        for part in parts(keys.size):
            run[part] = contents[(keys[part] & low).astype(np.int64)]
        keys >>= bits
        starts, ends = _runs(keys)
        split = ends - starts < contents.size  # see _settle_at_once
        return starts[split] + start, ends[split] + start

    def _load(self, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """An array of pages, and the rows (uint32) in it of the pages `wanted`."""
        if self._reader.pages is not None:
            return self._reader.pages, wanted
        if self._buffer is None:
            self._buffer = np.empty((self._at_once + 1, PAGE_BYTES), np.uint8)
        page, place = np.unique(wanted, return_inverse=True)
        row = self._reader.read_scattered(page, self._buffer)
        return self._buffer, row[place].astype(np.uint32)
