"""Which pages of a range are there, and are what KSM looks at: by the ioctl PAGEMAP_SCAN, or by /proc/PID/pagemap before 6.7.

Pages in swap are not there: reading them would bring them back. It reads no contents. Source: the kernel's
Documentation/admin-guide/mm/pagemap.rst.
"""

import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np

_PAGE_BITS: Final = 12
_ENTRY_BYTES: Final = 8

# include/uapi/linux/fs.h
_PAGEMAP_SCAN: Final = 0xC0606610  # _IOWR('f', 16, struct pm_scan_arg)
_SCAN_ARG: Final = struct.Struct("12Q")
_IS_FILE, _IS_PRESENT, _IS_PFNZERO, _IS_SOFT_DIRTY = 1 << 2, 1 << 3, 1 << 5, 1 << 7
_SCAN_PAGES: Final = 2**18  # the kernel holds mmap_lock for one call: milliseconds
_MAX_REGIONS: Final = 4096

# bits of an entry of /proc/PID/pagemap
_SOFT_DIRTY, _FILE, _PRESENT = np.uint64(1 << 55), np.uint64(1 << 61), np.uint64(1 << 63)
_READ_PAGES: Final = 2**16


class Pages(NamedTuple):
    """`vpn`: uint64[n], virtual page numbers, ascending. `soft_dirty`: bool[n], as the kernel's bit says."""

    vpn: np.ndarray
    soft_dirty: np.ndarray


class Pagemap:
    """The open /proc/PID/pagemap `fd`. `anonymous_only`: pages of files, and of shared memory, are not looked for."""

    def __init__(self, fd: int, *, anonymous_only: bool) -> None:
        self._fd = fd
        self._anonymous_only = anonymous_only
        self._has_scan = True

    def pages(self, first: int, end: int) -> Iterator[Pages]:
        """The pages of [first, end) that are there, some at a time, in the order of addresses; raises OSError."""
        while self._has_scan and first < end:
            stop = min(first + _SCAN_PAGES, end)
            try:
                pages, first = self._scan(first, stop)
            except OSError as error:
                if error.errno not in (errno.ENOTTY, errno.EINVAL):
                    raise
                self._has_scan = False
            else:
                yield pages
        while first < end:
            stop = min(first + _READ_PAGES, end)
            yield self._read(first, stop)
            first = stop

    def _scan(self, first: int, end: int) -> tuple[Pages, int]:
        """Pages of [first, end), and where the kernel stopped."""
        regions = np.zeros((_MAX_REGIONS, 3), np.uint64)
        absent = _IS_PFNZERO | (_IS_FILE if self._anonymous_only else 0)
        argument = bytearray(
            _SCAN_ARG.pack(
                _SCAN_ARG.size,
                0,
                first << _PAGE_BITS,
                end << _PAGE_BITS,
                0,  # walk_end, from the kernel
                regions.ctypes.data,
                _MAX_REGIONS,
                0,  # any number of pages
                absent,  # category_inverted
                absent | _IS_PRESENT,  # category_mask: all of these
                0,
                _IS_PRESENT | _IS_SOFT_DIRTY,  # return_mask
            )
        )
        n_regions = fcntl.ioctl(self._fd, _PAGEMAP_SCAN, argument)
        walk_end = _SCAN_ARG.unpack(argument)[4] >> _PAGE_BITS
        found = regions[:n_regions]
        starts, counts = found[:, 0] >> np.uint64(_PAGE_BITS), (found[:, 1] - found[:, 0]) >> np.uint64(_PAGE_BITS)
        dirty = (found[:, 2] & np.uint64(_IS_SOFT_DIRTY)) != 0
        return Pages(_ranges(starts, counts), dirty.repeat(counts.astype(np.int64))), max(walk_end, first + 1)

    def _read(self, first: int, end: int) -> Pages:
        raw = os.pread(self._fd, (end - first) * _ENTRY_BYTES, first * _ENTRY_BYTES)
        entry = np.frombuffer(raw, np.uint64, len(raw) // _ENTRY_BYTES)
        taken = (entry & _PRESENT) != 0
        if self._anonymous_only:
            taken &= (entry & _FILE) == 0
        return Pages(np.flatnonzero(taken).astype(np.uint64) + np.uint64(first), (entry[taken] & _SOFT_DIRTY) != 0)


def _ranges(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """All numbers of all ranges that begin at `starts` (uint64[k]) and hold `counts` numbers."""
    ends = counts.cumsum()
    total = int(ends[-1]) if ends.size else 0
    ranges: np.ndarray = np.arange(total, dtype=np.uint64) + (starts - (ends - counts)).repeat(counts.astype(np.int64))
    return ranges
