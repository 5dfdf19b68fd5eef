"""Pages to groups of equal ones, portion by portion and on several threads: the bookkeeping around `kernels.grouping`.

Portions are looked up one at a time, by whoever is there; hashing and comparing, nine tenths of the work, go on side by side.
So threads decide in which order contents are found. Putting these in an order that does not depend on threads is not done here.
"""

import hashlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import numpy as np

from ksmbatch.kernels import grouping
from ksmbatch.kernels.grouping import COMPARE, GROUP, HASH, STRAY
from ksmbatch.pagesource import PAGE_BYTES, PageReader

_PORTION: Final = 1024  # pages that a thread handles at a time: 4 MiB, still in the last-level cache when they are compared
_PORTION_ALONE: Final = 1 << 16  # one thread, and all pages in memory: the kernel has its own, smaller, blocks
_BUFFERS: Final = 1 << 16  # pages in the buffers of all threads: 256 MiB
_ROOM: Final = 3  # size of a buffer in portions: one, and at most as many pages to compare it with, and what lies between those
_LOW: Final = np.uint64(0xFFFFFFFF)


@dataclass(kw_only=True, slots=True, eq=False)
class _Portion:
    """Pages that a thread handles together: `n` pages from number `page` on, in `pages` from row `row` on."""

    pages: np.ndarray  # all there are; or a buffer, in which the firsts of groups that are not in the portion follow it
    hashes: np.ndarray  # uint64
    first_page: np.ndarray  # uint32, the first page of the group of each
    first_row: np.ndarray  # uint32, its row in `pages`; the same array where rows are numbers of pages
    page: int = 0
    row: int = 0
    n: int = 0


def group_all(
    reader: PageReader, threads: int, hash_bits: np.uint64, progress: Callable[[int], None] | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Groups all pages: the content of each page (uint32), and by content its first word (uint64, big-endian) and checksum
    (uint32). Contents are numbered as they are found. Of the hashes only the bits `hash_bits` are looked at.
    """
    groups = _Groups(reader, hash_bits, progress)
    if threads == 1:
        fused = reader.pages is not None
        groups.work(groups.portion(_PORTION_ALONE if fused else _PORTION), fused)
        return groups.result()
    size = min(_PORTION, _BUFFERS // (_ROOM * threads))
    with ThreadPoolExecutor(threads) as pool:
        workers = [pool.submit(groups.work, groups.portion(size), False) for _ in range(threads)]
        try:
            for worker in workers:
                worker.result()
        except BaseException:
            groups.stop()
            raise
    return groups.result()


class _Groups:
    def __init__(self, reader: PageReader, hash_bits: np.uint64, progress: Callable[[int], None] | None) -> None:
        n = reader.source.n_pages
        self._reader = reader
        self._hash_bits = hash_bits
        self._progress = progress
        self._n_pages = n
        self._table = np.zeros(n + n // 7 + 1, np.uint64)  # 7/8 full where all pages differ
        self._ids = np.empty(n, np.uint32)
        self._keys = np.empty(n, np.uint64)  # by content; what is never written takes no memory
        self._checksums = np.empty(n, np.uint32)
        self._n_groups = np.zeros(1, np.uint64)
        # Contents that have the hash of a group but are not it, by a digest that nobody can make collide: XXH64 is easily made
        # to, and comparing with one after the other could take forever. They are numbered from n - 1 downwards.
        self._strays: dict[bytes, int] = {}
        self._source = threading.Lock()  # of who reads, and takes pages
        self._n_taken = 0
        self._looking_up = threading.Lock()
        self._noting = threading.Lock()
        self._n_done = 0

    def work(self, portion: _Portion, fused: bool) -> None:
        """Groups portions until there are none left, in as many threads at once as wanted, each with a `portion` of its own.

        `fused`: all steps in one go, for one thread and pages in memory.
        """
        try:
            while self._take(portion):
                if fused:
                    n_strays = self._step(HASH | GROUP | COMPARE, portion)
                else:
                    self._step(HASH, portion)
                    with self._looking_up:
                        self._step(GROUP, portion)
                    self._read_firsts(portion)
                    n_strays = self._step(COMPARE, portion)
                with self._noting:
                    self._note(portion, n_strays)
        except BaseException:
            self.stop()  # the others would go on for nothing
            raise

    def stop(self) -> None:
        """Leaves no pages to be taken."""
        with self._source:
            self._n_taken = self._n_pages

    def result(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """As `group_all`; to be called once, at the end."""
        n_groups, n_strays = int(self._n_groups[0]), len(self._strays)
        n = n_groups + n_strays
        if n_strays:
            for array in (self._keys, self._checksums):
                array[n_groups:n] = array[self._n_pages - n_strays :].copy()
            self._ids[self._ids >= self._n_pages - n_strays] -= np.uint32(self._n_pages - n)
        return self._ids, self._keys[:n], self._checksums[:n]

    def portion(self, size: int) -> _Portion:
        """Room for `size` pages, or for all of them if they are fewer."""
        size = min(size, self._n_pages)
        pages = self._reader.pages
        first_page = np.empty(size, np.uint32)
        return _Portion(
            pages=np.empty((_ROOM * size, PAGE_BYTES), np.uint8) if pages is None else pages,
            hashes=np.empty(size, np.uint64),
            first_page=first_page,
            first_row=np.empty(size, np.uint32) if pages is None else first_page,
        )

    def _take(self, portion: _Portion) -> bool:
        """Fills `portion` with the next pages; False if there are none."""
        with self._source:
            portion.page = self._n_taken
            portion.n = min(portion.hashes.size, self._n_pages - portion.page)
            self._n_taken += portion.n
            if self._reader.pages is not None:
                portion.row = portion.page
            elif portion.n:
                self._reader.source.read(portion.page, portion.pages[: portion.n])
        return portion.n > 0

    def _step(self, steps: int, portion: _Portion) -> int:
        return int(
            grouping.group_pages(
                np.int64(steps),
                portion.pages,
                np.uint64(portion.row),
                np.uint64(portion.n),
                np.uint64(portion.page),
                self._hash_bits,
                portion.hashes,
                portion.first_page,
                portion.first_row,
                self._table,
                self._ids,
                self._keys,
                self._checksums,
                self._n_groups,
            )
        )

    def _read_firsts(self, portion: _Portion) -> None:
        """Brings what the pages of `portion` are compared with behind them in the buffer, if there is one."""
        if self._reader.pages is not None:
            return
        first_page, first_row = portion.first_page[: portion.n], portion.first_row[: portion.n]
        np.subtract(first_page, np.uint32(portion.page), out=first_row)  # beyond n for a page before, too: it wraps
        elsewhere = first_row >= portion.n
        wanted, place = np.unique(first_page[elsewhere], return_inverse=True)
        with self._source:
            row = self._reader.read_scattered(wanted, portion.pages[portion.n :])
        first_row[elsewhere] = portion.n + row[place]

    def _note(self, portion: _Portion, n_strays: int) -> None:
        """Finds the strays of `portion` their contents, and reports progress."""
        if n_strays:
            for k in np.flatnonzero(portion.first_page[: portion.n] == STRAY).tolist():
                page = portion.pages[portion.row + k]
                content = self._n_pages - 1 - len(self._strays)
                content = self._strays.setdefault(hashlib.blake2b(page, digest_size=32).digest(), content)
                self._ids[portion.page + k] = content
                self._keys[content] = int.from_bytes(page[:8].tobytes(), "big")
                self._checksums[content] = portion.hashes[k] & _LOW
        self._n_done += portion.n
        if self._progress is not None:
            self._progress(self._n_done)
