"""Where raw 4 KiB pages come from: anything that can fill an array with them, from an array in memory to an image on disk.

It knows no file format (each importer has its own source) and nothing of what pages hold.
"""

from collections.abc import Sequence
from typing import Any, Final, Protocol

import numpy as np

PAGE_BYTES: Final = 4096
_BRIDGED: Final = 4  # pages that are read for nothing rather than call a source once more


class PageSource(Protocol):
    """Pages by number, as often as wanted. A source that has all in memory may show them as `pages`: uint8[n_pages, 4096]."""

    @property
    def n_pages(self) -> int:
        """How many pages there are."""

    def read(self, first: int, out: np.ndarray) -> None:
        """Fills `out` (uint8[k, 4096]) with the pages `first` to `first` + k - 1; in any order, by one thread at a time."""


class ArraySource:
    """The pages of an array in memory."""

    def __init__(self, pages: np.ndarray) -> None:
        """`pages`: uint8[n, 4096], in one piece; it is read, not copied, and must stay as it is."""
        if pages.dtype != np.uint8 or pages.ndim != 2 or pages.shape[1] != PAGE_BYTES or not pages.flags.c_contiguous:
            raise ValueError(f"pages must be contiguous uint8[n, {PAGE_BYTES}], not {pages.dtype}{list(pages.shape)}")
        self.pages = pages
        self.n_pages = len(pages)

    def read(self, first: int, out: np.ndarray) -> None:
        """As `PageSource.read`."""
        out[:] = self.pages[first : first + len(out)]


class Joined:
    """The pages of several sources, one source after the other."""

    def __init__(self, sources: Sequence[PageSource]) -> None:
        self._sources = tuple(sources)
        self.starts = np.concatenate([[0], np.cumsum([source.n_pages for source in sources], dtype=np.int64)]).tolist()
        self.n_pages: int = self.starts[-1]

    def read(self, first: int, out: np.ndarray) -> None:
        """As `PageSource.read`; a portion may lie in several sources."""
        for source, start, end in zip(self._sources, self.starts[:-1], self.starts[1:], strict=True):
            low, high = max(first, start), min(first + len(out), end)
            if low < high:
                source.read(low - start, out[low - first : high - first])


class PageReader:
    """Rows of pages for the kernels: those of the array itself where the source has one, otherwise read to a buffer."""

    def __init__(self, source: PageSource) -> None:
        self.source = source
        pages: np.ndarray | None = getattr(source, "pages", None)
        self.pages = None if pages is None else writable(ArraySource(pages).pages)

    def read_scattered(self, wanted: np.ndarray, out: np.ndarray) -> np.ndarray:
        """Reads the pages `wanted` (ascending, each once) to `out` (uint8[k, 4096], room for all) and returns their rows in it.

        Neighbours are read at once, and where there is room so is the little that lies between two of them: one call of a
        source costs as much as several pages.
        """
        gap = np.diff(wanted)
        for bridged in (_BRIDGED, 0):
            first = np.append(0, np.flatnonzero(gap > bridged + 1) + 1)[: wanted.size]  # of each stretch, in `wanted`
            length = np.diff(first, append=wanted.size)
            start = wanted[first].astype(np.int64)
            size = wanted[first + length - 1] + 1 - start
            if size.sum() <= len(out):
                break
        row = np.cumsum(size) - size
        for stretch in zip(start.tolist(), row.tolist(), (row + size).tolist(), strict=True):
            self.source.read(stretch[0], out[stretch[1] : stretch[2]])
        return np.asarray(wanted - np.repeat(start - row, length))


class _Writable:
    """The memory of an array, shown as writable."""

    def __init__(self, array: np.ndarray) -> None:
        self._array = array  # kept alive
        interface: dict[str, Any] = dict(array.__array_interface__)
        self.__array_interface__ = interface | {"data": (interface["data"][0], False)}


def writable(pages: np.ndarray) -> np.ndarray:
    """`pages` (contiguous) as what every kernel takes, whoever made it: numba compiles read-only arrays a second time."""
    plain = pages.view(np.ndarray)
    return plain if plain.flags.writeable else np.asarray(_Writable(plain))
