"""The plain-Python peer: lists, and a dict for each of the two trees."""

import time
from typing import NamedTuple

import numpy as np


class Scans(NamedTuple):
    """What a peer says of its full scans, one row each: `seconds` float64[n_scans]; `counters` int64[n_scans, 3], which are
    pages_shared, pages_sharing and pages_unshared afterwards."""

    seconds: np.ndarray
    counters: np.ndarray


def scans(contents: np.ndarray, n_scans: int) -> Scans:
    """`n_scans` full scans of pages that hold `contents` (uint64[n_pages], equal numbers for equal pages) all the time."""
    held = contents.tolist()
    checksum = [-1] * len(held)
    merged = bytearray(len(held))
    waiting = bytearray(len(held))  # in the unstable tree
    stable: dict[int, int] = {}
    shared = sharing = unshared = 0
    seconds, counters = [], []
    for _ in range(n_scans):
        start_s = time.perf_counter()
        unstable: dict[int, int] = {}
        for page, content in enumerate(held):
            if merged[page]:
                continue
            if waiting[page]:
                waiting[page] = 0
                unshared -= 1
            if checksum[page] != content:
                checksum[page] = content
                continue
            if content in stable:
                merged[page] = 1
                sharing += 1
                continue
            partner = unstable.pop(content, None)
            if partner is None:
                unstable[content] = page
                waiting[page] = 1
                unshared += 1
                continue
            waiting[partner] = 0
            merged[page] = merged[partner] = 1
            stable[content] = page
            unshared -= 1
            shared += 1
            sharing += 1
        seconds.append(time.perf_counter() - start_s)
        counters.append((shared, sharing, unshared))
    return Scans(np.array(seconds), np.array(counters, np.int64))
