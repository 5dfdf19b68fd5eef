"""Memory whose bytes lie as they are in files: pieces of address space, each a run of bytes of a file, as an image.

What files do not hold is not read: holes of sparse files, and bytes of a page that no piece covers, are zeros. Files are read,
not mapped, as mapped pages would count as this process's memory.
"""

import errno
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import numpy as np

from ksmbatch.errors import InputError
from ksmbatch.importers.base import Image, Region
from ksmbatch.pagesource import PAGE_BYTES
from ksmbatch.scenario import MAX_PAGES

# columns of a piece: page address and byte in that page of its first byte, how many bytes, and where they lie in which file.
# Addresses in pages, as kernel addresses in bytes do not fit into int64.
PAGE, SKIP, SIZE, OFFSET, FILE = range(5)
MAX_PIECES: Final = 2**22
_FAR: Final = 2**40  # pages: more than any piece has


class ImageFile:
    """A file that is read at any place; closed with `stack`. `size`: its bytes. Raises InputError if it cannot be opened."""

    def __init__(self, path: Path, stack: ExitStack) -> None:
        self.path = path
        try:
            self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            stack.callback(os.close, self.fd)
            self.size = os.fstat(self.fd).st_size
        except OSError as error:
            raise _unreadable(path, error) from None

    def read(self, offset: int, n_bytes: int) -> bytes:
        """Up to `n_bytes` bytes from `offset` on; fewer where the file ends. For headers."""
        try:
            return os.pread(self.fd, n_bytes, offset)
        except (OSError, OverflowError) as error:
            raise _unreadable(self.path, error) from None

    def read_into(self, offset: int, out: memoryview) -> None:
        """Fills `out` with the bytes from `offset` on. Raises InputError if the file ends before."""
        while out:
            try:
                done = os.preadv(self.fd, [out], offset)
            except OSError as error:
                raise _unreadable(self.path, error) from None
            if not done:
                raise InputError(where=self.path, rule=f"ends at byte {offset}: it shrank while it was read")
            out, offset = out[done:], offset + done

    def extents(self) -> np.ndarray:
        """int64[m, 2]: begin and end of what is no hole, ascending."""
        found = list(_extents(self.fd, self.size))
        return np.array(found, np.int64).reshape(-1, 2)


def _unreadable(path: Path, error: OSError | OverflowError) -> InputError:
    return InputError(where=path, rule=f"cannot be read: {getattr(error, 'strerror', None) or error}")


def _extents(fd: int, size: int) -> Iterator[tuple[int, int]]:
    end = 0
    while end < size:
        try:
            begin = os.lseek(fd, end, os.SEEK_DATA)
            end = os.lseek(fd, begin, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole up to the end
                return
            yield end, size  # a file system that cannot tell
            return
        yield begin, end


def image_of_pieces(
    files: Sequence[ImageFile],
    pieces: np.ndarray | Sequence[tuple[int, int, int, int, int]],
    *,
    mm: str = "",
    regions: Iterable[Region] = (),
    left_out: int = 0,
) -> Image:
    """The image whose bytes are in `pieces` (int64[n, 5], see PAGE to FILE) of `files`.

    Raises InputError if there are none, if they overlap, or if one lies beyond the end of its file.
    """
    try:
        table = np.array(pieces, np.int64).reshape(-1, 5)
    except OverflowError:
        raise InputError(where=files[0].path, rule="has memory beyond byte 2^63 of the file: damaged") from None
    table = table[table[:, SIZE] > 0]
    if not table.size:
        raise InputError(where=files[0].path, rule="holds no pages")
    _check_ends(files, table)
    table = table[np.lexsort((table[:, SKIP], table[:, PAGE]))]
    _check_overlap(files, table)
    stored = _without_holes(files, table)
    runs, read_runs = _runs(table), _runs(stored)
    return Image(
        mm=mm,
        runs=runs,
        read_runs=read_runs,
        source=PieceSource(files, stored, read_runs),
        regions=tuple(regions),
        left_out=left_out,
        padded=_partial_pages(table),
    )


def _check_ends(files: Sequence[ImageFile], table: np.ndarray) -> None:
    if table[:, SIZE].max() > MAX_PAGES * PAGE_BYTES:  # of a sparse file; sizes beyond would overflow
        raise InputError(where=files[0].path, rule=f"has more than {MAX_PAGES:,} pages")
    for number, file in enumerate(files):
        own = table[table[:, FILE] == number]
        beyond = own[:, OFFSET] > file.size - own[:, SIZE]
        if beyond.any():
            piece = own[int(beyond.argmax())]
            end = int(piece[OFFSET]) + int(piece[SIZE])
            rule = f"ends at byte {file.size}, but should hold memory up to byte {end}: truncated or damaged"
            raise InputError(where=file.path, rule=rule)


def _check_overlap(files: Sequence[ImageFile], table: np.ndarray) -> None:
    distance = np.minimum(np.diff(table[:, PAGE]), _FAR) * PAGE_BYTES + np.diff(table[:, SKIP])
    twice = distance < table[:-1, SIZE]
    if twice.any():
        piece = table[int(twice.argmax()) + 1]
        address = int(piece[PAGE]) * PAGE_BYTES + int(piece[SKIP])
        raise InputError(where=files[piece[FILE]].path, rule=f"holds address {address:#x} twice: damaged")
    # or a file of a few bytes could claim to be terabytes
    table = table[np.lexsort((table[:, OFFSET], table[:, FILE]))]
    twice = (np.diff(table[:, FILE]) == 0) & (np.diff(table[:, OFFSET]) < table[:-1, SIZE])
    if twice.any():
        piece = table[int(twice.argmax()) + 1]
        rule = f"claims that what is at byte {piece[OFFSET]} is at several addresses: damaged"
        raise InputError(where=files[piece[FILE]].path, rule=rule)


def _end_page(table: np.ndarray) -> np.ndarray:
    """The page behind the last one that each piece touches."""
    end: np.ndarray = table[:, PAGE] + (table[:, SKIP] + table[:, SIZE] + PAGE_BYTES - 1) // PAGE_BYTES
    return end


def _runs(table: np.ndarray) -> np.ndarray:
    """int64[k, 2]: first page and pages of the runs that the pieces of `table`, sorted, touch."""
    if not table.size:
        return np.zeros((0, 2), np.int64)
    first, end = table[:, PAGE], _end_page(table)
    apart = np.flatnonzero(first[1:] > end[:-1]) + 1  # ends ascend, as pieces do not overlap
    starts = first[np.concatenate([[0], apart])]
    ends = end[np.concatenate([apart - 1, [len(table) - 1]])]
    return np.stack([starts, ends - starts], axis=1)


def _partial_pages(table: np.ndarray) -> int:
    """Pages of which the pieces hold only a part."""
    last = table[:, SKIP] + table[:, SIZE] - 1
    ragged = (table[:, SKIP] > 0) | ((last + 1) % PAGE_BYTES > 0)
    covered: dict[int, int] = {}
    for page, skip, size in table[ragged][:, [PAGE, SKIP, SIZE]].tolist():
        last_page, behind = divmod(skip + size, PAGE_BYTES)
        if not last_page:
            covered[page] = covered.get(page, 0) + size
            continue
        covered[page] = covered.get(page, 0) + PAGE_BYTES - skip
        if behind:
            covered[page + last_page] = covered.get(page + last_page, 0) + behind
    return sum(n_bytes < PAGE_BYTES for n_bytes in covered.values())


def _without_holes(files: Sequence[ImageFile], table: np.ndarray) -> np.ndarray:
    """The pieces of `table`, cut to what is no hole in their files; sorted as they were."""
    found = []
    for number, file in enumerate(files):
        own = table[table[:, FILE] == number]
        if not own.size:
            continue
        extents = file.extents()
        offset, end = own[:, OFFSET], own[:, OFFSET] + own[:, SIZE]
        first = np.searchsorted(extents[:, 1], offset, side="right")
        count = np.searchsorted(extents[:, 0], end, side="left") - first
        which = np.repeat(np.arange(len(own)), count)
        extent = np.arange(which.size) - np.repeat(np.cumsum(count) - count - first, count)
        low = np.maximum(offset[which], extents[extent, 0])
        high = np.minimum(end[which], extents[extent, 1])
        cut = own[which]
        place = cut[:, SKIP] + (low - cut[:, OFFSET])
        cut[:, PAGE] += place // PAGE_BYTES
        cut[:, SKIP] = place % PAGE_BYTES
        cut[:, OFFSET], cut[:, SIZE] = low, high - low
        found.append(cut)
    stored = np.concatenate(found)
    return stored[np.lexsort((stored[:, SKIP], stored[:, PAGE]))]


class PieceSource:
    """The pages of `runs` (see `Image.read_runs`) from `pieces` (sorted) of `files`; bytes between pieces are zeros."""

    def __init__(self, files: Sequence[ImageFile], pieces: np.ndarray, runs: np.ndarray) -> None:
        self.n_pages = int(runs[:, 1].sum())
        self._files = files
        before = np.cumsum(runs[:, 1]) - runs[:, 1]
        run = np.searchsorted(runs[:, 0], pieces[:, PAGE], side="right") - 1
        # where each piece begins and ends among the bytes of all runs, one after the other
        self._begin = (before[run] + pieces[:, PAGE] - runs[run, 0]) * PAGE_BYTES + pieces[:, SKIP]
        self._end = self._begin + pieces[:, SIZE]
        self._offset = pieces[:, OFFSET]
        self._file = pieces[:, FILE]

    def read(self, first: int, out: np.ndarray) -> None:
        """As `PageSource.read`. Raises InputError if a file cannot be read, or has become shorter."""
        flat = memoryview(out.reshape(-1))  # type: ignore[arg-type]  # an array is one
        low = first * PAGE_BYTES
        high = low + len(flat)
        done = low
        piece = int(self._end.searchsorted(low, side="right"))
        while done < high and piece < self._end.size and self._begin[piece] < high:
            begin, end = max(int(self._begin[piece]), low), min(int(self._end[piece]), high)
            if begin > done:
                out.reshape(-1)[done - low : begin - low] = 0
            offset = int(self._offset[piece]) + begin - int(self._begin[piece])
            self._files[self._file[piece]].read_into(offset, flat[begin - low : end - low])
            done = end
            piece += 1
        if done < high:
            out.reshape(-1)[done - low :] = 0
