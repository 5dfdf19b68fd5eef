"""`lime`: memory of a machine in the format of LiME: ranges of physical addresses, each behind a header of 32 bytes.

Compressed files, which AVML writes, share the first bytes and are refused.
"""

import struct
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Final

from ksmbatch.errors import InputError
from ksmbatch.importers.base import Image, Importer, Probe, apart, region
from ksmbatch.importers.pieces import ImageFile, image_of_pieces
from ksmbatch.pagesource import PAGE_BYTES

_HEADER: Final = struct.Struct("<IIQQQ")  # magic, version, first and last byte, reserved
_MAGIC: Final = 0x4C694D45
_VERSION, _COMPRESSED = 1, 2
_MAX_RANGES: Final = 2**16  # a machine has tens


def _looks(probe: Probe) -> bool:
    return probe.head[:4] == _MAGIC.to_bytes(4, "little")


def _open(probe: Probe, stack: ExitStack) -> Sequence[Image]:
    if not _looks(probe):
        raise probe.refuse("is no LiME file: those begin with EMiL")
    file = ImageFile(probe.path, stack)
    pieces: list[tuple[int, int, int, int, int]] = []
    regions = []
    for start, size, offset in _ranges(file):
        if len(pieces) == _MAX_RANGES:
            raise probe.refuse(f"has more than {_MAX_RANGES:,} ranges: damaged")
        page, skip = divmod(start, PAGE_BYTES)
        pieces.append((page, skip, size, offset, 0))
        regions.append(region(f"ram {start:#x}", start, size))
    return [image_of_pieces([file], pieces, regions=apart(regions))]


def _ranges(file: ImageFile) -> Iterator[tuple[int, int, int]]:
    """First byte, bytes, and place in the file of every range."""
    offset = 0
    while offset < file.size:
        header = file.read(offset, _HEADER.size)
        if len(header) < _HEADER.size:
            raise InputError(where=file.path, rule=f"ends in the header at byte {offset}: truncated")
        magic, version, first, last, _ = _HEADER.unpack(header)
        if magic != _MAGIC:
            raise InputError(where=file.path, rule=f"has no header at byte {offset}: damaged")
        if version == _COMPRESSED:
            raise InputError(where=file.path, rule="is compressed, as AVML does", hint="avml-convert makes a plain one of it")
        if version != _VERSION or last < first:
            raise InputError(where=file.path, rule=f"has a bad header at byte {offset}: damaged")
        offset += _HEADER.size
        size = last - first + 1
        if size > file.size - offset:
            rule = f"ends at byte {file.size}, but its range at byte {offset} has {size} bytes: truncated or damaged"
            raise InputError(where=file.path, rule=rule)
        yield first, size, offset
        offset += size


IMPORTER = Importer(
    name="lime", about="LiME: physical memory of a machine (also AVML's, uncompressed)", looks=_looks, open=_open
)
