"""`elf_core`: ELF cores, of processes (gcore, kernel) and of guests (virsh dump --memory-only, dump-guest-memory).

A core of a process lies at virtual addresses and its segments are VMAs; one of a machine lies at physical addresses. What a
core left out, such as unchanged mappings of files, is not there: a core does not say what was in it.
"""

import io
import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any, Final, NamedTuple

import numpy as np

from ksmbatch.errors import InputError
from ksmbatch.importers.base import Image, Importer, Probe, apart, region
from ksmbatch.importers.pieces import ImageFile, image_of_pieces
from ksmbatch.pagesource import PAGE_BYTES

_ET_CORE: Final = 4
_NO_ADDRESS: Final = 2**64 - 1  # physical, of what has none
_MAX_HEADER_BYTES: Final = 2**24  # 56 for a VMA; Linux allows 65,530 VMAs unless told otherwise
_MAX_NOTE_BYTES: Final = 2**26  # some thousand for a thread
_NT_FILE: Final = 0x46494C45


class _Segment(NamedTuple):
    address: int
    offset: int
    file_bytes: int
    memory_bytes: int


class _TooMuch(Exception):
    """More was read of headers than any real core has."""


class _Headers(io.RawIOBase):
    """What pyelftools sees of a core: all of it, but not more than _MAX_HEADER_BYTES in total."""

    def __init__(self, file: ImageFile) -> None:
        super().__init__()
        self._file = file
        self._at = 0
        self._left = _MAX_HEADER_BYTES

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        self._at = max(0, offset + (0, self._at, self._file.size)[whence])
        return self._at

    def readinto(self, buffer: Any, /) -> int:
        data = self._file.read(self._at, len(buffer))
        self._at += len(data)
        self._left -= len(data)
        if self._left < 0:
            raise _TooMuch
        buffer[: len(data)] = data
        return len(data)


def _looks(probe: Probe) -> bool:
    head = probe.head
    if head[:4] != b"\x7fELF" or len(head) < 18:
        return False
    return int.from_bytes(head[16:18], "big" if head[5] == 2 else "little") == _ET_CORE


def _open(probe: Probe, stack: ExitStack) -> Sequence[Image]:
    if not _looks(probe):
        raise probe.refuse("is no ELF core")
    file = ImageFile(probe.path, stack)
    segments, names, is_machine = _read_headers(file)
    stored = [segment for segment in segments if segment.file_bytes]
    if not stored:
        raise probe.refuse("holds no memory: it has no segment with contents", "a core of Xen, or one that was cut off?")
    if is_machine:
        stored = list(_once(stored))
    pieces = [(at.address // PAGE_BYTES, at.address % PAGE_BYTES, at.file_bytes, at.offset, 0) for at in stored]
    regions = [
        region(f"ram {at.address:#x}" if is_machine else names.get(at.address, ""), at.address, at.file_bytes) for at in stored
    ]
    left_out = 0 if is_machine else sum(max(at.memory_bytes - at.file_bytes, 0) // PAGE_BYTES for at in segments)
    return [image_of_pieces([file], pieces, regions=apart(regions), left_out=left_out)]


def _read_headers(file: ImageFile) -> tuple[list[_Segment], dict[int, str], bool]:
    """Segments by address, names of VMAs by address, and whether addresses are physical."""
    from elftools.elf.elffile import ELFFile

    stream = io.BufferedReader(_Headers(file))
    try:
        elf = ELFFile(stream)
        headers = list(_program_headers(elf, file))
        loads = [header for header in headers if header.p_type == "PT_LOAD"]
        is_machine = any(header.p_paddr not in (0, _NO_ADDRESS) for header in loads)
        segments = [
            _Segment(header.p_paddr if is_machine else header.p_vaddr, header.p_offset, header.p_filesz, header.p_memsz)
            for header in loads
            if not (is_machine and header.p_paddr == _NO_ADDRESS)
        ]
        notes = (header for header in headers if header.p_type == "PT_NOTE")
        names = {} if is_machine else _mapped_files(file, elf, notes)
    except InputError:
        raise
    except _TooMuch:
        raise InputError(where=file.path, rule="has more headers than a core can have: damaged") from None
    except Exception as error:  # what pyelftools raises for a damaged file depends on where the damage is
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(where=file.path, rule=f"is a damaged ELF core: {reason}") from None
    return sorted(segments), names, is_machine


def _program_headers(elf: Any, file: ImageFile) -> Iterator[Any]:
    # not elf.iter_segments(): that parses what some segments hold, of which a core has none
    n_headers, size, start = elf.num_segments(), elf.header.e_phentsize, elf.header.e_phoff
    if n_headers and (size < elf.structs.Elf_Phdr.sizeof() or start + n_headers * size > file.size):
        raise InputError(where=file.path, rule="ends before its program headers do: truncated or damaged")
    for k in range(n_headers):
        elf.stream.seek(start + k * size)
        yield elf.structs.Elf_Phdr.parse_stream(elf.stream)


def _mapped_files(file: ImageFile, elf: Any, headers: Iterable[Any]) -> dict[int, str]:
    """The path of the file mapped at an address, from the note NT_FILE; nothing if notes are damaged, as they only name things.

    Not read by pyelftools, which goes byte by byte: a process with 60,000 VMAs took 15 s.
    """
    order = "<" if elf.little_endian else ">"
    header = struct.Struct(order + "III")
    for notes in (file.read(each.p_offset, min(each.p_filesz, _MAX_NOTE_BYTES)) for each in headers):
        at = 0
        while at + header.size <= len(notes):
            name_bytes, text_bytes, kind = header.unpack_from(notes, at)
            text = at + header.size + _padded(name_bytes)
            if kind == _NT_FILE:
                return _paths(notes[text : text + text_bytes], np.dtype(f"{order}u{elf.elfclass // 8}"))
            at = text + _padded(text_bytes)
    return {}


def _paths(text: bytes, word: np.dtype[Any]) -> dict[int, str]:
    """NT_FILE: how many files, the size of a page; of every file address, end, offset; then their paths."""
    if len(text) < 2 * word.itemsize:
        return {}
    n = int(np.frombuffer(text, word, 1)[0])
    names_at = (2 + 3 * n) * word.itemsize
    if names_at > len(text):
        return {}
    starts = np.frombuffer(text, word, 3 * n, 2 * word.itemsize)[::3].tolist()
    return {start: path.decode("utf-8", "replace") for start, path in zip(starts, text[names_at:].split(b"\0"), strict=False)}


def _padded(n_bytes: int) -> int:
    return -(-n_bytes // 4) * 4


def _once(segments: Sequence[_Segment]) -> Iterator[_Segment]:
    """The segments without what an earlier one has: a crashed kernel's text is mapped twice."""
    end = 0
    for at in segments:
        skip = min(max(end - at.address, 0), at.file_bytes)
        if skip < at.file_bytes:
            yield _Segment(at.address + skip, at.offset + skip, at.file_bytes - skip, at.memory_bytes - skip)
            end = at.address + at.file_bytes


IMPORTER = Importer(
    name="elf_core",
    about="ELF cores: gcore of a process; virsh dump --memory-only, dump-guest-memory",
    looks=_looks,
    open=_open,
)
