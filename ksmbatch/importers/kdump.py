"""`kdump`: crash dumps of makedumpfile, compressed and with pages left out, through libkdumpfile.

That library is C and its Python bindings are an extra. Pages that makedumpfile left out are there as zeros if it left out
nothing but zeros (`-d 1`); otherwise nobody knows what was in them, and they are not there.
"""

import struct
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import numpy as np

from ksmbatch.errors import InputError
from ksmbatch.importers.base import Image, Importer, Probe
from ksmbatch.importers.pieces import ImageFile
from ksmbatch.pagesource import PAGE_BYTES
from ksmbatch.scenario import MAX_PAGES

_MAGICS: Final = (b"KDUMP   ", b"DISKDUMP", b"makedumpfile\x00")
_BLOCK_SIZE_AT, _DUMP_LEVEL_AT = 428, 8  # in headers of 64-bit machines, of which the second is one block behind the first
_ONLY_ZEROS: Final = 1
_LITTLE_ENDIAN: Final = 1


def _looks(probe: Probe) -> bool:
    return probe.head.startswith(_MAGICS)


def _open(probe: Probe, stack: ExitStack) -> Sequence[Image]:
    if not _looks(probe):
        raise probe.refuse("is no dump of makedumpfile")
    library = _library(probe)
    file = ImageFile(probe.path, stack)
    try:
        context = library.Context()
        context.attr["file.fd"] = file.fd
        page_bytes = context.attr["arch.page_size"]
        ram = list(_runs(context.attr["memory.pagemap"], library, page_bytes))
        stored = list(_runs(context.attr["file.pagemap"], library, page_bytes))
        zeros_only = _dump_level(file, context.attr) == _ONLY_ZEROS
    except (library.KdumpfileError, LookupError, AttributeError, NotImplementedError, OSError) as error:
        raise _damaged(probe.path, error) from None
    runs = np.array(ram if zeros_only else stored, np.int64).reshape(-1, 2)
    read_runs = np.array(stored, np.int64).reshape(-1, 2)
    if not runs.size:
        raise probe.refuse("holds no pages")
    n_ram = sum(pages for _, pages in ram)
    if n_ram > MAX_PAGES:
        raise probe.refuse(f"has more than {MAX_PAGES:,} pages")
    source = _DumpSource(probe.path, library, context, read_runs)
    return [Image(runs=runs, read_runs=read_runs, source=source, left_out=n_ram - int(runs[:, 1].sum()))]


def _library(probe: Probe) -> ModuleType:
    try:
        import kdumpfile
    except ImportError:
        raise probe.refuse(
            "is a dump of makedumpfile, and what reads it is not installed",
            "pip install 'ksmbatch[kdump]', which needs the C library libkdumpfile; or makedumpfile -E makes an ELF core of it",
        ) from None
    module: ModuleType = kdumpfile
    return module


def _damaged(path: Path, error: Exception) -> InputError:
    return InputError(where=path, rule=f"is a damaged dump of makedumpfile: {' '.join(str(error).split())}")


def _runs(bitmap: Any, library: ModuleType, page_bytes: int) -> Iterator[tuple[int, int]]:
    """First page and pages of every run of bits that are set, in pages of 4096 bytes."""
    scale = page_bytes // PAGE_BYTES
    end = 0
    while True:
        try:
            first = bitmap.find_set(end)
        except library.NoDataError:
            return
        end = bitmap.find_clear(first)
        yield first * scale, (end - first) * scale


def _dump_level(file: ImageFile, attributes: Any) -> int | None:
    """What makedumpfile was told to leave out (its -d); None if that cannot be known."""
    if not file.read(0, 8).startswith(b"KDUMP") or attributes["arch.ptr_size"] != 8:
        return None
    integer = struct.Struct("<i" if attributes["arch.byte_order"] == _LITTLE_ENDIAN else ">i")
    (block_bytes,) = integer.unpack(file.read(_BLOCK_SIZE_AT, integer.size))
    (level,) = integer.unpack(file.read(block_bytes + _DUMP_LEVEL_AT, integer.size))
    return int(level)


class _DumpSource:
    """The pages of `runs` (see `Image.read_runs`), unpacked by libkdumpfile."""

    def __init__(self, path: Path, library: ModuleType, context: Any, runs: np.ndarray) -> None:
        self.n_pages = int(runs[:, 1].sum())
        self._path = path
        self._library = library
        self._context = context
        self._runs = runs
        self._starts = np.concatenate([[0], np.cumsum(runs[:, 1])])

    def read(self, first: int, out: np.ndarray) -> None:
        """As `PageSource.read`. Raises InputError if a page cannot be unpacked."""
        done = 0
        run = int(self._starts.searchsorted(first, side="right")) - 1
        while done < len(out):
            into = first + done - int(self._starts[run])
            pages = min(int(self._runs[run, 1]) - into, len(out) - done)
            address = (int(self._runs[run, 0]) + into) * PAGE_BYTES
            try:
                data = self._context.read(self._library.MACHPHYSADDR, address, pages * PAGE_BYTES)
            except self._library.KdumpfileError as error:
                raise _damaged(self._path, error) from None
            out[done : done + pages] = np.frombuffer(data, np.uint8).reshape(pages, PAGE_BYTES)
            done += pages
            run += 1


IMPORTER = Importer(
    name="kdump",
    about="crash dumps of makedumpfile, compressed or filtered; needs the extra ksmbatch[kdump]",
    looks=_looks,
    open=_open,
)
