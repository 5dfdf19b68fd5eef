"""How fast are raw pages hashed and interned, against the memory's bandwidth and what else there is? Parity first.

    python benchmarks/interning.py [--pages N] [--repeat N]

A tenth of the pages are zero, a fifth in groups of 2 to 100, the others unlike, in random order. They lie in memory, by
default 1 GiB of them, far more than fits into a cache. Every row is ours against a peer on the same pages, run in turns;
medians. One thread is measured by its CPU time, which other programs prolong less, several by the clock.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import numba
import numpy as np
import pandas as pd
import xxhash
from rich.console import Console
from rich.table import Table

from ksmbatch.interning import ArraySource, hash_pages, intern_pages
from ksmbatch.kernels.grouping import GROUP, group_pages
from ksmbatch.provenance import environment

PAGE: Final = 4096
Row = dict[str, Any]


def mixed_pages(n: int, seed: int = 3) -> np.ndarray:
    """uint8[n, 4096], of contents as in the module's docstring."""
    random = np.random.default_rng(seed)
    zero, grouped = n // 10, n // 10 + n // 5
    content = np.zeros(n, np.uint64)
    at, number = zero, 1
    while at < grouped:
        size = min(int(random.integers(2, 101)), grouped - at)
        content[at : at + size] = number
        at, number = at + size, number + 1
    content[grouped:] = np.arange(number, number + n - grouped)
    random.shuffle(content)
    base = random.integers(0, 1 << 64, (1024, PAGE // 8), np.uint64)
    pages = np.empty((n, PAGE // 8), np.uint64)
    for start in range(0, n, 1024):
        some = content[start : start + 1024]
        words = base[(some % np.uint64(1024)).astype(np.int64)] * (some[:, None] * np.uint64(2) + np.uint64(1))
        words[some == 0] = 0
        pages[start : start + 1024] = words ^ words >> np.uint64(29)
    return pages.view(np.uint8)


@numba.njit(nogil=True)
def add_up(words: np.ndarray) -> np.uint64:
    """Reads all of `words` (uint64[n]): what one core can take from memory. numba vectorises with an unsigned index only."""
    total = np.uint64(0)
    for k in range(np.uint64(len(words))):
        total += words[k]
    return total


def on_threads(threads: int, function: Callable[[np.ndarray], object], array: np.ndarray) -> None:
    """`function` of as many pieces of `array` as there are `threads`."""
    with ThreadPoolExecutor(threads) as pool:
        tuple(pool.map(function, np.array_split(array, threads)))


def xxhash_each(pages: np.ndarray) -> list[int]:
    """python-xxhash, page by page."""
    view = memoryview(pages).cast("B")
    return [xxhash.xxh64_intdigest(view[at : at + PAGE]) for at in range(0, len(view), PAGE)]


def group_hashes(pages: np.ndarray, hashes: np.ndarray) -> np.ndarray:
    """Ids by hash alone, in the order of appearance: what pandas.factorize does."""
    n = len(pages)
    table, ids, first = np.zeros(n + n // 7 + 1, np.uint64), np.empty(n, np.uint32), np.empty(n, np.uint32)
    numbers: list[Any] = [np.uint64(0), np.uint64(n), np.uint64(0), np.uint64((1 << 64) - 1)]
    results = [table, ids, np.empty(n, np.uint64), np.empty(n, np.uint32), np.zeros(1, np.uint64)]
    group_pages(np.int64(GROUP), pages, *numbers, hashes, first, first, *results)
    return ids


def unique_pages(pages: np.ndarray) -> np.ndarray:
    """Ids in memcmp order by numpy, of pages taken as single items."""
    return np.unique(pages.view(f"V{PAGE}").ravel(), return_inverse=True)[1]


def dict_of_bytes(pages: np.ndarray) -> list[int]:
    """Ids in memcmp order in plain Python."""
    raw = [page.tobytes() for page in pages]
    rank = {content: place for place, content in enumerate(sorted(set(raw)))}
    return [rank[content] for content in raw]


def check(pages: np.ndarray) -> None:
    """Raises AssertionError unless all of them, on some pages, say the same."""
    some = pages[:4096]
    assert hash_pages(some).tolist() == xxhash_each(some)
    expected = unique_pages(some).tolist()
    assert dict_of_bytes(some) == expected
    for threads in (1, 2):
        assert intern_pages(ArraySource(some), threads=threads).ids.tolist() == expected
    hashes = hash_pages(pages)
    grouped = group_hashes(pages, hashes)
    assert np.array_equal(grouped, pd.factorize(hashes)[0])
    assert np.array_equal(grouped, intern_pages(ArraySource(pages), threads=2, ordered=False).ids)


def seconds(functions: Sequence[Callable[[], object]], repeat: int, clock: Callable[[], float]) -> list[float]:
    """The median time of each of `functions`, which take turns."""
    times: list[list[float]] = [[] for _ in functions]
    for _ in range(repeat):
        for function, taken in zip(functions, times, strict=True):
            start = clock()
            function()
            taken.append(clock() - start)
    return [statistics.median(taken) for taken in times]


def rows(n_pages: int = 1 << 18, repeat: int = 9) -> list[Row]:
    """One row per comparison: `work`, `peer`, `ours` and `theirs` in `unit`, and `ratio`, ours over theirs."""
    pages = mixed_pages(n_pages)
    check(pages)
    words = pages.view(np.uint64).ravel()
    source, hashes = ArraySource(pages), hash_pages(pages)
    found: list[Row] = []

    def compare(
        work: str,
        ours: Callable[[], object],
        peers: dict[str, Callable[[], object]],
        n: int = n_pages,
        *,
        unit: str = "GB/s",
        threads: int = 1,
    ) -> None:
        amount = n * PAGE / 1e9 if unit == "GB/s" else n / 1e6
        clock = time.process_time if threads == 1 else time.perf_counter
        our_s, *their_s = seconds([ours, *peers.values()], repeat, clock)
        for peer, peer_s in zip(peers, their_s, strict=True):
            rate, peer_rate = amount / our_s, amount / peer_s
            found.append(
                {"work": work, "peer": peer, "ours": rate, "theirs": peer_rate, "ratio": rate / peer_rate, "unit": unit}
            )

    few, fewer = pages[: n_pages // 4], pages[: n_pages // 16]
    compare("XXH64 of pages", lambda: hash_pages(pages), {"read bandwidth": lambda: add_up(words)})
    compare(
        "XXH64 of pages, 2 threads",
        lambda: hash_pages(pages, threads=2),
        {"read bandwidth, 2 threads": lambda: on_threads(2, add_up, words)},
        threads=2,
    )
    compare("XXH64 of pages", lambda: hash_pages(few), {"python-xxhash per page": lambda: xxhash_each(few)}, len(few))
    compare("pages to ids", lambda: intern_pages(source, threads=1), {"read bandwidth": lambda: add_up(words)})
    compare(
        "pages to ids, 2 threads",
        lambda: intern_pages(source, threads=2),
        {
            "pages to ids, 1 thread": lambda: intern_pages(source, threads=1),
            "read bandwidth, 2 threads": lambda: on_threads(2, add_up, words),
        },
        threads=2,
    )
    compare(
        "hashes to groups",
        lambda: group_hashes(pages, hashes),
        {
            "pandas.factorize": lambda: pd.factorize(hashes),
            "numpy.unique": lambda: np.unique(hashes, return_inverse=True),
        },
        unit="M/s",
    )
    compare(
        "pages to ids",
        lambda: intern_pages(ArraySource(fewer), threads=1),
        {"numpy.unique": lambda: unique_pages(fewer), "dict of bytes": lambda: dict_of_bytes(fewer)},
        len(fewer),
    )
    return found


def main() -> None:
    """The rows as a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=int, default=1 << 18)
    parser.add_argument("--repeat", type=int, default=9)
    options = parser.parse_args()
    about = environment()
    console = Console(highlight=False, soft_wrap=True)
    table = Table("work", "peer", "ours", "theirs", "unit", "ratio")
    for row in rows(options.pages, options.repeat):
        rates = (f"{row['ours']:.2f}", f"{row['theirs']:.3g}")
        table.add_row(row["work"], row["peer"], *rates, row["unit"], f"{row['ratio']:.2f}")
    console.print(f"{about['cpu']}, {about['cores']} cores, load {os.getloadavg()[0]:.1f}, Python {about['python']}")
    console.print(f"{about['packages']}; {options.pages:,} pages, medians of {options.repeat}")
    console.print(table)


if __name__ == "__main__":
    main()
