"""Raw pages to dense ids: equal ids for equal bytes, and ids in memcmp order, from sources that need not fit into memory.

Pages are grouped by hash, and every page is compared with the first one of its group, so a collision of hashes never merges
pages that differ. What the ids are used for, and how a workload's writes are numbered from them (`contents`), is not here.
"""

import itertools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

import numpy as np

from ksmbatch.errors import InputError
from ksmbatch.kernels import xxhash
from ksmbatch.page_groups import group_all
from ksmbatch.page_order import first_pages, order_of_appearance, renumber, settle_ties, sort_by_first_word
from ksmbatch.pagesource import PAGE_BYTES, ArraySource, Joined, PageReader, PageSource, writable

__all__ = ["ArraySource", "Interned", "PageSource", "hash_pages", "intern_pages", "intern_sources"]

Progress: TypeAlias = Callable[[int], None]

_MAX_PAGES: Final = (1 << 32) - 2
_ALL_BITS: Final = np.uint64(0xFFFFFFFFFFFFFFFF)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Interned:
    """The contents of some pages, n of them.

    `ids`: uint32[n_pages], the content of each page: equal ids for equal bytes, from 0 to n - 1, in memcmp order or in
    that of first appearance. `n_contents`: n. `zero_id`: the id of the page of zeros, None if there is none. `checksums`:
    uint32[n], ksmd's checksum of each content: the low 32 bits of its XXH64.
    """

    ids: np.ndarray
    n_contents: int
    zero_id: int | None
    checksums: np.ndarray


def intern_pages(
    source: PageSource, *, threads: int | None = None, progress: Progress | None = None, ordered: bool = True
) -> Interned:
    """The contents of all pages of `source`.

    `threads`: how many work, by default one per core; the result does not depend on it. `progress` is called with the number
    of pages that are done so far, one call at a time, by any of the threads. `ordered`: ids in memcmp order, otherwise in that
    of first appearance.

    It takes 26 bytes per page where all pages differ, less where they repeat, 10 more where most begin with the same 8 bytes;
    and, if `source` does not show its pages in memory, 12 MiB per thread, 256 MiB at most. Every page is read once; again the
    first one of a content, when later ones may equal it, and one of each content that ties with others in its first bytes.
    What `source` raises comes out here. Raises InputError for more than 4,294,967,294 pages.
    """
    if source.n_pages > _MAX_PAGES:
        raise InputError(key="pages", value=source.n_pages, rule=f"must be at most {_MAX_PAGES:,}, which is 16 TiB")
    threads = len(os.sched_getaffinity(0)) if threads is None else threads
    if threads < 1:
        raise InputError(key="threads", value=threads, rule="must be >= 1")
    return _intern(source, threads, progress, ordered, _ALL_BITS)


def intern_sources(
    sources: Sequence[PageSource], *, threads: int | None = None, progress: Progress | None = None, ordered: bool = True
) -> list[Interned]:
    """As `intern_pages`, for several sources in one numbering: an id is the same content in all of them."""
    if len(sources) == 1:
        return [intern_pages(sources[0], threads=threads, progress=progress, ordered=ordered)]
    joined = Joined(sources)
    whole = intern_pages(joined, threads=threads, progress=progress, ordered=ordered)
    return [replace(whole, ids=whole.ids[start:end]) for start, end in itertools.pairwise(joined.starts)]


def hash_pages(pages: np.ndarray, seed: int = 0, *, threads: int = 1) -> np.ndarray:
    """XXH64 of each of `pages` (contiguous uint8[n, 4096]) with a 64-bit `seed`: uint64[n].

    With seed 0 the low 32 bits are ksmd's checksum.
    """
    out = np.empty(len(pages), np.uint64)
    plain = writable(ArraySource(pages).pages)
    cuts = np.linspace(0, len(pages), threads + 1).astype(np.int64).tolist()
    spans = [slice(start, end) for start, end in itertools.pairwise(cuts)]
    if threads == 1:
        xxhash.hash_pages(plain, np.uint64(seed), out)
    else:
        with ThreadPoolExecutor(threads) as pool:
            tuple(pool.map(lambda span: xxhash.hash_pages(plain[span], np.uint64(seed), out[span]), spans))
    return out


def _intern(source: PageSource, threads: int, progress: Progress | None, ordered: bool, hash_bits: np.uint64) -> Interned:
    """As `intern_pages`; of the hashes only `hash_bits` are looked at, for tests of what a collision does."""
    reader = PageReader(source)
    ids, keys, checksums = group_all(reader, threads, hash_bits, progress)
    if ordered:
        order, starts, ends = sort_by_first_word(keys)
        del keys
        first_page = first_pages(ids, order.size)
        settle_ties(order, starts, ends, first_page, reader)
    else:
        del keys
        first_page = first_pages(ids, checksums.size)
        order = order_of_appearance(ids, first_page)
    renumber(ids, order)
    checksums = checksums[order]
    zero_id = _find_zero(source, checksums, order, first_page)
    return Interned(ids=ids, n_contents=checksums.size, zero_id=zero_id, checksums=checksums)


def _find_zero(source: PageSource, checksums: np.ndarray, order: np.ndarray, first_page: np.ndarray) -> int | None:
    """The content that is the page of zeros, None if there is none. `first_page` of what is content `order[id]` there."""
    page = np.zeros((1, PAGE_BYTES), np.uint8)
    checksum = hash_pages(page)[0] & np.uint64(0xFFFFFFFF)
    for content in np.flatnonzero(checksums == checksum).tolist():
        source.read(int(first_page[order[content]]), page)
        if not page.any():
            return int(content)
    return None
