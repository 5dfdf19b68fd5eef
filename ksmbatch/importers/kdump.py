"""`kdump`: crash dumps of makedumpfile, compressed and with pages left out, through libkdumpfile.

That library is C and its Python bindings are an extra. It believes what a header says, so headers are checked here first. Pages
that makedumpfile left out are there as zeros if it left out nothing but zeros (`-d 1`); otherwise nobody knows what was in
them, and they are not there.
"""

import struct
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Any, Final, NamedTuple

import numpy as np

from ksmbatch.errors import InputError
from ksmbatch.importers.base import Image, Importer, Probe
from ksmbatch.importers.pieces import MAX_PIECES, ImageFile
from ksmbatch.pagesource import PAGE_BYTES
from ksmbatch.scenario import MAX_PAGES

_MAGIC: Final = b"KDUMP   "
_FLATTENED: Final = b"makedumpfile\x00"
_VERSION: Final = 6  # since 2013
_ONLY_ZEROS: Final = 1
_PAGE_SIZES: Final = [2**bits for bits in range(12, 19)]

# struct disk_dump_header: version; bytes of a block, blocks of the second header, blocks of both bitmaps
_VERSION_AT, _BLOCKS_AT = 8, 428
_BLOCK_BYTES_OF_32_BITS_AT: Final = 416
# struct kdump_sub_header, which lies one block behind: dump level, split; offset and size of three blobs
_LEVEL_AT, _BLOBS_AT = 8, 32
_DESCRIPTORS_AT_ONCE: Final = 2**16


class _Header(NamedTuple):
    order: str
    level: int
    descriptors_at: int


def _looks(probe: Probe) -> bool:
    return probe.head.startswith((_MAGIC, _FLATTENED))


def _open(probe: Probe, stack: ExitStack) -> Sequence[Image]:
    if probe.head.startswith(_FLATTENED):
        raise probe.refuse("is a flattened dump of makedumpfile", "makedumpfile -R makes a plain one of it")
    if not _looks(probe):
        raise probe.refuse("is no dump of makedumpfile")
    file = ImageFile(probe.path, stack)
    header = _read_header(file)
    library = _library(probe)
    try:
        context = library.Context()
        # read, not mapped: a map counts as memory of this process
        context.attr["file.mmap_policy"] = library.MMAP_NEVER
        context.attr["file.fd"] = file.fd
        page_bytes = context.attr["arch.page_size"]
        ram = _runs(context.attr["memory.pagemap"], library, page_bytes)
        stored = _runs(context.attr["file.pagemap"], library, page_bytes)
    except (library.KdumpfileError, LookupError, AttributeError, NotImplementedError, OSError) as error:
        raise _damaged(probe.path, error) from None
    runs = ram if header.level == _ONLY_ZEROS else stored
    n_ram, n_stored = int(ram[:, 1].sum()), int(stored[:, 1].sum())
    if not runs.size:
        raise probe.refuse("holds no pages")
    if n_ram > MAX_PAGES:
        raise probe.refuse(f"has more than {MAX_PAGES:,} pages")
    _check_descriptors(file, header, n_stored * PAGE_BYTES // page_bytes)
    if not _is_within(stored, ram):
        raise probe.refuse("is a damaged dump of makedumpfile: it holds pages that are no RAM")
    source = _DumpSource(probe.path, library, context, stored)
    return [Image(runs=runs, read_runs=stored, source=source, left_out=n_ram - int(runs[:, 1].sum()))]


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


def _damaged(path: Path, why: object) -> InputError:
    return InputError(where=path, rule=f"is a damaged dump of makedumpfile: {' '.join(str(why).split())}")


def _read_header(file: ImageFile) -> _Header:
    """What the headers say, if it can be, of a dump of a 64-bit machine."""
    first = file.read(0, PAGE_BYTES).ljust(PAGE_BYTES, b"\0")
    for order in "<>":
        block_bytes, header_blocks, bitmap_blocks = struct.unpack_from(f"{order}III", first, _BLOCKS_AT)
        (other,) = struct.unpack_from(f"{order}I", first, _BLOCK_BYTES_OF_32_BITS_AT)
        if other in _PAGE_SIZES:  # libkdumpfile would take it for one of 32 bits
            break
        if block_bytes in _PAGE_SIZES:
            return _check_header(file, order, block_bytes, header_blocks, bitmap_blocks)
    raise _damaged(file.path, "or of a machine of 32 bits")


def _check_header(file: ImageFile, order: str, block_bytes: int, header_blocks: int, bitmap_blocks: int) -> _Header:
    (version,) = struct.unpack(f"{order}i", file.read(_VERSION_AT, 4))
    if version < _VERSION:
        raise InputError(where=file.path, rule=f"is a dump of makedumpfile of version {version}: must be {_VERSION} or later")
    second = file.read(block_bytes, PAGE_BYTES).ljust(PAGE_BYTES, b"\0")
    level, is_split = struct.unpack_from(f"{order}ii", second, _LEVEL_AT)
    if is_split:
        raise InputError(where=file.path, rule="is one part of a dump", hint="makedumpfile --reassemble joins them")
    blobs = struct.unpack_from(f"{order}6Q", second, _BLOBS_AT)
    descriptors_at = (1 + header_blocks + bitmap_blocks) * block_bytes
    for end in (descriptors_at, *(offset + size for offset, size in zip(blobs[::2], blobs[1::2], strict=True))):
        if end > file.size:
            raise _damaged(file.path, f"it ends at byte {file.size}, and a header speaks of byte {end}")
    return _Header(order, level, descriptors_at)


def _check_descriptors(file: ImageFile, header: _Header, n: int) -> None:
    """Refuses a dump that ends before the last of its `n` pages: those behind would be zeros, or anything."""
    fields = {"offset": "u8", "size": "u4", "flags": "u4", "page_flags": "u8"}  # struct page_desc
    kind = np.dtype([(name, header.order + kind) for name, kind in fields.items()])
    for start in range(0, n, _DESCRIPTORS_AT_ONCE):
        count = min(n - start, _DESCRIPTORS_AT_ONCE)
        data = file.read(header.descriptors_at + start * kind.itemsize, count * kind.itemsize)
        if len(data) < count * kind.itemsize:
            raise _damaged(file.path, f"it ends at byte {file.size}, before the descriptors of its pages do")
        table = np.frombuffer(data, kind)
        if (table["offset"] > file.size).any() or (table["offset"] + table["size"]).max() > file.size:
            raise _damaged(file.path, f"it ends at byte {file.size}, before its last page does")


def _runs(bitmap: Any, library: ModuleType, page_bytes: int) -> np.ndarray:
    """int64[k, 2]: first page and pages of every run of bits that are set, in pages of 4096 bytes."""
    found = np.array(list(_runs_of_bits(bitmap, library)), np.int64).reshape(-1, 2)
    return found * (page_bytes // PAGE_BYTES)


def _runs_of_bits(bitmap: Any, library: ModuleType) -> Iterator[tuple[int, int]]:
    end = 0
    for _ in range(MAX_PIECES):
        try:
            first = bitmap.find_set(end)
        except library.NoDataError:
            return
        end = bitmap.find_clear(first)
        yield first, end - first
    raise library.CorruptError(f"more than {MAX_PIECES:,} runs of pages")


def _is_within(inner: np.ndarray, outer: np.ndarray) -> bool:
    """Whether each of the runs `inner` lies in one of the runs `outer`, both ascending."""
    if not len(outer):
        return not len(inner)
    run = outer[:, 0].searchsorted(inner[:, 0], side="right") - 1
    return bool(((run >= 0) & (inner.sum(axis=1) <= outer[run].sum(axis=1))).all())


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
