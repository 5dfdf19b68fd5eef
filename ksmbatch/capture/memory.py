"""Contents of pages of another process, from /proc/PID/mem into one buffer, a block at a time.

Pages that went away since they were looked up are left out. It keeps nothing: the next block overwrites the buffer.
"""

import os
from collections.abc import Iterator
from typing import Final

import numpy as np

PAGE_BYTES: Final = 4096
BLOCK_PAGES: Final = 512


class Memory:
    """The open /proc/PID/mem `fd`."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._buffer = np.zeros((BLOCK_PAGES, PAGE_BYTES), np.uint8)

    def blocks(self, vpn: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Places in `vpn` (uint64[n], ascending) of the pages read, and their contents (uint8[k, 4096], until the next block).

        Raises ProcessLookupError if the address space is gone.
        """
        for first in range(0, vpn.size, BLOCK_PAGES):
            block = vpn[first : first + BLOCK_PAGES]
            was_read = self._fill(block)
            yield (
                first + np.flatnonzero(was_read),
                self._buffer[: block.size] if was_read.all() else self._buffer[: block.size][was_read],
            )

    def _fill(self, vpn: np.ndarray) -> np.ndarray:
        """Reads the pages `vpn` to the beginning of the buffer; returns which of them could be read, bool[n]."""
        was_read: np.ndarray = np.zeros(vpn.size, np.bool_)
        starts = np.flatnonzero(np.diff(vpn, prepend=vpn[:1]) != 1)
        for start, end in zip(starts.tolist(), [*starts[1:].tolist(), vpn.size], strict=True):
            place = start
            while place < end:
                n_pages = self._read(int(vpn[place]), place, end)
                was_read[place : place + n_pages] = True
                place += n_pages + (place + n_pages < end)  # past what could not be read
        return was_read

    def _read(self, vpn: int, place: int, end: int) -> int:
        """Reads from page `vpn` on into the places [place, end) of the buffer; returns how many pages that were."""
        try:
            n_bytes = os.preadv(self._fd, [self._buffer[place:end].data], vpn * PAGE_BYTES)
        except OSError:  # EIO: the first of them is there no more
            return 0
        if n_bytes == 0:  # no end of file, but that of the address space
            raise ProcessLookupError
        return n_bytes // PAGE_BYTES
