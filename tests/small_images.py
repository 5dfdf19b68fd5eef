"""Small images in every format that an importer reads, made byte by byte, with the pages that are in them.

The writers are independent of the importers: they follow the formats' own definitions.
"""

import json
import struct
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

PAGE = 4096


class Example(NamedTuple):
    """`make(folder)` makes an input of the format `importer`, and returns its path and the pages of each mm in it.

    mms are named as they are if the input is called "x".
    """

    name: str
    importer: str
    make: Callable[[Path], tuple[Path, dict[str, np.ndarray]]]


def some_pages(n: int, seed: int) -> np.ndarray:
    """uint8[n, 4096]: zeros, pages that are equal, that differ in the last byte only, in the first only, and in all."""
    rng = np.random.default_rng(seed)
    alike = np.repeat(rng.integers(0, 256, (1, PAGE), np.uint8), 4, axis=0)
    alike[1, -1] ^= 1
    alike[2, 0] ^= 0x80
    alike[3, 8] ^= 1  # behind the first word
    last = np.zeros((1, PAGE), np.uint8)
    last[0, -1] = 1
    pool = np.concatenate([np.zeros((2, PAGE), np.uint8), alike, last, rng.integers(0, 2, (n // 3 + 1, PAGE), np.uint8)])
    pages: np.ndarray = pool[rng.integers(0, len(pool), n)]
    return pages


# ---- raw


def raw(folder: Path) -> tuple[Path, dict[str, np.ndarray]]:
    pages = some_pages(100, 1)
    (folder / "x.img").write_bytes(pages.tobytes())
    return folder / "x.img", {"x": pages}


def sparse(folder: Path) -> tuple[Path, dict[str, np.ndarray]]:
    """Holes at the start, in the middle and at the end; one ends within a page."""
    pages = np.zeros((300, PAGE), np.uint8)
    pages[64:96] = some_pages(32, 2)
    pages[200:201] = some_pages(1, 3) | 1
    with (folder / "x.img").open("wb") as file:
        for first, end in ((64, 96), (200, 201)):
            file.seek(first * PAGE)
            file.write(pages[first:end].tobytes())
        file.truncate(pages.size)
    return folder / "x.img", {"x": pages}


# ---- cloud_hypervisor


def cloud_hypervisor(folder: Path) -> tuple[Path, dict[str, np.ndarray]]:
    """The range at the higher address comes first in the file."""
    low, high = some_pages(40, 4), some_pages(70, 5)
    snapshot(folder / "x", [(0x1_0000_0000, high), (0, low)])
    return folder / "x", {"x": np.concatenate([low, high])}


def snapshot(folder: Path, ranges: Sequence[tuple[int, np.ndarray]]) -> None:
    """A snapshot of Cloud Hypervisor: pages at guest physical addresses, in the order of the file."""
    folder.mkdir()
    table = [{"gpa": address, "length": pages.size} for address, pages in ranges]
    manager = {"memory_ranges": {"data": table}, "boot_ram": 1 << 30}
    component = {"snapshots": {}, "snapshot_data": {"state": json.dumps(manager)}}
    state = {"snapshots": {"cpu-manager": {}, "memory-manager": component}, "snapshot_data": None}
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "config.json").write_text(json.dumps({"memory": {"size": 1 << 30}}))
    (folder / "memory-ranges").write_bytes(b"".join(pages.tobytes() for _, pages in ranges))


# ---- elf_core


class Load(NamedTuple):
    """A segment: virtual and physical address, the bytes in the file, and its bytes in memory if these are more."""

    vaddr: int
    paddr: int
    data: bytes
    memory_bytes: int = 0


def elf(
    path: Path, loads: Sequence[Load], notes: bytes = b"", *, bits: int = 64, order: str = "<", extended: bool = False
) -> None:
    """An ELF core; `extended`: with the number of program headers where it goes if there are 65,535 or more."""
    header = struct.Struct(order + ("HHIQQQIHHHHHH" if bits == 64 else "HHIIIIIHHHHHH"))
    section = struct.Struct(order + ("IIQQQQIIQQ" if bits == 64 else "10I"))
    program = struct.Struct(order + ("IIQQQQQQ" if bits == 64 else "8I"))
    n = len(loads) + 1
    start = 16 + header.size
    sections_at = start + n * program.size
    offset = sections_at + section.size
    ident = b"\x7fELF" + bytes([bits // 32, 1 if order == "<" else 2, 1]) + bytes(9)
    n_told, sections = (0xFFFF, 1) if extended else (n, 0)
    parts = [ident, header.pack(4, 62, 1, 0, start, sections_at, 0, start, program.size, n_told, section.size, sections, 0)]

    def entry(kind: int, at: int, load: Load) -> bytes:
        sizes = len(load.data), max(load.memory_bytes, len(load.data))
        if bits == 64:
            return program.pack(kind, 6, at, load.vaddr, load.paddr, *sizes, PAGE)
        return program.pack(kind, at, load.vaddr, load.paddr, *sizes, 6, PAGE)

    bodies = [notes, *(load.data for load in loads)]
    for kind, load in zip([4] + [1] * len(loads), [Load(0, 0, notes), *loads], strict=True):
        parts.append(entry(kind, offset, load))
        offset += len(load.data)
    parts.append(section.pack(0, 0, 0, 0, 0, 0, 0, n if extended else 0, 0, 0))
    path.write_bytes(b"".join(parts + bodies))


def note(kind: int, name: bytes, text: bytes) -> bytes:
    """An ELF note."""
    padded = [data + bytes(-len(data) % 4) for data in (name + b"\0", text)]
    return struct.pack("<III", len(name) + 1, len(text), kind) + b"".join(padded)


def mapped_files(files: Sequence[tuple[int, int, str]]) -> bytes:
    """NT_FILE: first address, address behind, and path of every mapped file."""
    entries = b"".join(struct.pack("<QQQ", start, end, 0) for start, end, _ in files)
    names = b"".join(name.encode() + b"\0" for _, _, name in files)
    return note(0x46494C45, b"CORE", struct.pack("<QQ", len(files), PAGE) + entries + names)


def process_core(folder: Path) -> tuple[Path, dict[str, np.ndarray]]:
    """VMAs in no order, one of which the core left out, one it cut off, and one at the top of the address space."""
    pages = some_pages(60, 6)
    loads = [
        Load(0x7F0000000000, 0, pages[10:30].tobytes(), 25 * PAGE),
        Load(0x400000, 0, pages[:10].tobytes()),
        Load(0x500000, 0, b"", 100 * PAGE),
        Load(0x7F0000019000, 0, pages[30:59].tobytes()),  # right behind what was cut off
        Load(0xFFFFFFFFFF600000, 0, pages[59:].tobytes()),
    ]
    elf(folder / "x.core", loads, note(1, b"CORE", bytes(336)) + mapped_files([(0x400000, 0x40A000, "/bin/x")]))
    return folder / "x.core", {"x": pages}


def guest_core(folder: Path) -> tuple[Path, dict[str, np.ndarray]]:
    """Physical addresses; the kernel's text, which is mapped twice, comes first."""
    pages = some_pages(80, 7)
    loads = [
        Load(0xFFFFFFFF81000000, 0x105000, pages[55:60].tobytes()),
        Load(0xFFFF888000000000, 0, pages[:50].tobytes()),
        Load(0xFFFF888000100000, 0x100000, pages[50:].tobytes()),
        Load(0xFFFFC90000000000, 2**64 - 1, bytes(PAGE)),  # has no physical address
    ]
    elf(folder / "x.core", loads, note(0, b"VMCOREINFO", b"OSRELEASE=6.12\n"))
    return folder / "x.core", {"x": pages}


def core_of_32_bits(folder: Path) -> tuple[Path, dict[str, np.ndarray]]:
    pages = some_pages(20, 8)
    loads = [Load(0x8048000, 0, pages[:5].tobytes()), Load(0xB7000000, 0, pages[5:].tobytes())]
    elf(folder / "x.core", loads, bits=32, order=">")
    return folder / "x.core", {"x": pages}


# ---- lime


def lime_range(start: int, data: bytes) -> bytes:
    """A range of LiME, of version 1."""
    return struct.pack("<IIQQQ", 0x4C694D45, 1, start, start + len(data) - 1, 0) + data


def lime(folder: Path) -> tuple[Path, dict[str, np.ndarray]]:
    """As on a PC: the first range ends within a page, the second begins in the same; the third in no page of another."""
    pages = some_pages(50, 9)
    pages[9, 0xC80:0xD00] = 0  # between the ranges
    pages[20, :100] = 0  # before the third
    low, rest = pages[:9].tobytes() + pages[9, :0xC80].tobytes(), pages[9, 0xD00:].tobytes() + pages[10:20].tobytes()
    parts = [(0x1000, low), (0x1000 + 9 * PAGE + 0xD00, rest), (0x100064, pages[20:].tobytes()[100:])]
    (folder / "x.lime").write_bytes(b"".join(lime_range(*part) for part in parts))
    return folder / "x.lime", {"x": pages}


# ---- criu


def varint(value: int) -> bytes:
    """An integer as protocol buffers write it."""
    parts = []
    while value >= 0x80:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


def message(*fields: tuple[int, int | bytes]) -> bytes:
    """A message of protocol buffers: number and value of its fields."""
    return b"".join(
        varint(number << 3) + varint(value) if isinstance(value, int) else varint(number << 3 | 2) + varint(len(value)) + value
        for number, value in fields
    )


def criu_image(path: Path, magic: int, *messages: bytes) -> None:
    """An image file of CRIU."""
    sized = b"".join(struct.pack("<I", len(each)) + each for each in messages)
    path.write_bytes(struct.pack("<II", 0x54564319, magic) + sized)


def pagemap(path: Path, pages_id: int, entries: Sequence[tuple[int, int, int]]) -> None:
    """pagemap-PID.img: address, pages and flags of every entry."""
    written = [message((1, address), (2, pages), (4, flags), (5, pages)) for address, pages, flags in entries]
    criu_image(path, 0x56084025, message((1, pages_id)), *written)


def criu(folder: Path) -> tuple[Path, dict[str, np.ndarray]]:
    """Two processes, one with its name and VMAs, and shared memory that does not count."""
    top = folder / "x"
    top.mkdir()
    nginx, other = some_pages(30, 10), some_pages(12, 11)
    pagemap(top / "pagemap-7.img", 1, [(0x400000, 10, 4), (0x500000, 3, 2), (0x7F0000000000, 20, 4)])
    (top / "pages-1.img").write_bytes(nginx.tobytes())
    pagemap(top / "pagemap-12.img", 2, [(0x400000, 12, 4)])
    (top / "pages-2.img").write_bytes(other.tobytes())
    pagemap(top / "pagemap-shmem-55.img", 3, [(0, 5, 4)])
    (top / "pages-3.img").write_bytes(some_pages(5, 12).tobytes())
    core = message((1, 1), (3, message((1, 1), (6, b"nginx"))), (5, b""))
    criu_image(top / "core-7.img", 0x55053847, core)
    vmas = [
        (14, message((1, 0x400000), (2, 0x40A000), (7, 1))),
        (14, message((1, 0x7F0000000000), (2, 0x7F0000014000), (7, 33))),
    ]
    criu_image(top / "mm-7.img", 0x57492820, message((1, 0x400000), (12, 3), *vmas))
    return top, {"x/nginx.7": nginx, "x/12": other}


def criu_increment(folder: Path) -> tuple[Path, dict[str, np.ndarray]]:
    """Runs that come from the image before, and one from the image before that."""
    pages = some_pages(30, 13)
    first, second, third = folder / "first", folder / "second", folder / "x"
    for each in (first, second, third):
        each.mkdir()
    old = some_pages(30, 14)
    old[5:10], old[20:22] = pages[5:10], pages[20:22]
    pagemap(first / "pagemap-1.img", 1, [(0x1000, 30, 4)])
    (first / "pages-1.img").write_bytes(old.tobytes())
    pagemap(second / "pagemap-1.img", 1, [(0x1000, 20, 4), (0x15000, 2, 1), (0x17000, 8, 4)])
    middle = np.concatenate([old[:5], old[5:10], pages[10:20], pages[22:30]])
    (second / "pages-1.img").write_bytes(middle.tobytes())
    pagemap(third / "pagemap-1.img", 9, [(0x1000, 5, 4), (0x6000, 25, 1)])
    (third / "pages-9.img").write_bytes(pages[:5].tobytes())
    (second / "parent").symlink_to("../first")
    (third / "parent").symlink_to("../second")
    return third, {"x": pages}


# ---- kdump


def kdump(path: Path, runs: Sequence[tuple[int, np.ndarray]], stored: Callable[[np.ndarray], bool], dump_level: int) -> None:
    """A dump of makedumpfile, version 6, zlib: pages at page addresses, of which those are left out that are not `stored`."""
    n = max(first + len(pages) for first, pages in runs)
    bitmap_bytes = -(-n // (8 * PAGE)) * PAGE
    ram, dumped = np.zeros((2, bitmap_bytes * 8), np.bool_)
    bodies: list[bytes] = []
    for first, pages in runs:
        ram[first : first + len(pages)] = True
        for k, page in enumerate(pages):
            if stored(page):
                dumped[first + k] = True
                bodies.append(zlib.compress(page.tobytes()))
    names = b"".join(text.ljust(65, b"\0") for text in (b"Linux", b"", b"6.12.0", b"", b"x86_64", b""))
    counts = (PAGE, 1, 2 * bitmap_bytes // PAGE, n, 0, 0, len(bodies), 0, 1)
    header = b"KDUMP   " + struct.pack("<i", 6) + names + bytes(6) + struct.pack("<qqI9i", 0, 0, 1, *counts)
    second = struct.pack("<Qii2Q6Q3Q", 0, dump_level, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, n, n)
    parts = [header.ljust(PAGE, b"\0"), second.ljust(PAGE, b"\0")]
    parts += [np.packbits(bits, bitorder="little").tobytes() for bits in (ram, dumped)]
    offset = sum(map(len, parts)) + 24 * len(bodies)
    for body in bodies:
        parts.append(struct.pack("<QIIQ", offset, len(body), 1, 0))
        offset += len(body)
    path.write_bytes(b"".join(parts + bodies))


def kdump_without_zeros(folder: Path) -> tuple[Path, dict[str, np.ndarray]]:
    pages = some_pages(90, 15)
    kdump(folder / "x.kdump", [(1, pages[:40]), (256, pages[40:])], lambda page: bool(page.any()), 1)
    return folder / "x.kdump", {"x": pages}


def kdump_filtered(folder: Path) -> tuple[Path, dict[str, np.ndarray]]:
    """Nobody knows what was in the pages that are left out, so they are not there."""
    pages = some_pages(90, 16)
    kdump(folder / "x.kdump", [(1, pages[:40]), (256, pages[40:])], lambda page: bool(page[7] & 1), 31)
    return folder / "x.kdump", {"x": pages[pages[:, 7] & 1 == 1]}


EXAMPLES = (
    Example("raw", "raw", raw),
    Example("sparse", "raw", sparse),
    Example("cloud_hypervisor", "cloud_hypervisor", cloud_hypervisor),
    Example("process_core", "elf_core", process_core),
    Example("guest_core", "elf_core", guest_core),
    Example("core_of_32_bits", "elf_core", core_of_32_bits),
    Example("lime", "lime", lime),
    Example("criu", "criu", criu),
    Example("criu_increment", "criu", criu_increment),
    Example("kdump_without_zeros", "kdump", kdump_without_zeros),
    Example("kdump_filtered", "kdump", kdump_filtered),
)
