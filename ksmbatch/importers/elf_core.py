"""`elf_core`: ELF cores, of processes (gcore, kernel) and of guests (virsh dump --memory-only, dump-guest-memory).

A core of a process lies at virtual addresses and its segments are VMAs; one of a machine lies at physical addresses. What a
core left out, such as unchanged mappings of files, is not there: a core does not say what was in it.
"""

import io
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any, Final, NamedTuple

from ksmbatch.errors import InputError
from ksmbatch.importers.base import Image, Importer, Probe, apart, region
from ksmbatch.importers.pieces import ImageFile, image_of_pieces
from ksmbatch.pagesource import PAGE_BYTES

_ET_CORE: Final = 4
_PT_LOAD: Final = ("PT_LOAD", 1)
_NO_ADDRESS: Final = 2**64 - 1  # physical, of what has none
# Headers and notes are Python objects, a hundred times as large as what they are read from. A VMA takes 56 bytes of headers
# and 24 and its name of a note; Linux allows 65,530 VMAs unless told otherwise.
_MAX_HEADER_BYTES: Final = 2**24


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
        loads = [header for header in headers if header.p_type in _PT_LOAD]
        is_machine = any(header.p_paddr not in (0, _NO_ADDRESS) for header in loads)
        segments = [
            _Segment(header.p_paddr if is_machine else header.p_vaddr, header.p_offset, header.p_filesz, header.p_memsz)
            for header in loads
            if not (is_machine and header.p_paddr == _NO_ADDRESS)
        ]
        names = {} if is_machine else _mapped_files(elf, [header for header in headers if header.p_type == "PT_NOTE"])
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


def _mapped_files(elf: Any, headers: Sequence[Any]) -> dict[int, str]:
    """The file mapped at an address, from NT_FILE; nothing if the notes are damaged, as they only name things."""
    from elftools.elf.notes import iter_notes

    try:
        for header in headers:
            for note in iter_notes(elf, header.p_offset, header.p_filesz):
                if note["n_type"] == "NT_FILE":
                    entries = zip(note["n_desc"]["Elf_Nt_File_Entry"], note["n_desc"]["filename"], strict=True)
                    return {entry.vm_start: name.decode("utf-8", "replace") for entry, name in entries}
    except Exception:  # see _read_headers
        pass
    return {}


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
