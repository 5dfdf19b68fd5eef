"""Inputs that cannot be imported, and a part of the line that each gets.

Each is made in the current folder, and its name returned.
"""

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
from small_images import Load, criu_image, elf, kdump, lime_range, pagemap, snapshot

PAGE = 4096


def write(data: bytes) -> str:
    Path("x").write_bytes(data)
    return "x"


def begins(data: bytes) -> str:
    """A page that begins with `data`."""
    return write(data.ljust(PAGE, b"\0"))


def lime_header(first: int, last: int, version: int = 1) -> str:
    return write(struct.pack("<IIQQQ", 0x4C694D45, version, first, last, 0) + bytes(10))


def core_of(*loads: Load, cut: int = 0, at: int = 0, change: bytes = b"") -> str:
    elf(Path("x"), loads)
    data = bytearray(Path("x").read_bytes())
    data[at : at + len(change)] = change
    return write(data[: len(data) - cut])


def cloud(*table: object, size: int = PAGE, state: bytes | None = None) -> str:
    snapshot(Path("x"), [(0, np.ones((1, PAGE), np.uint8))])
    given = json.loads(Path("x/state.json").read_text())
    given["snapshots"]["memory-manager"]["snapshot_data"]["state"] = json.dumps({"memory_ranges": {"data": table}})
    Path("x/state.json").write_bytes(json.dumps(given).encode() if state is None else state)
    Path("x/memory-ranges").write_bytes(bytes(size))
    return "x"


def criu_of(*entries: tuple[int, int, int], n: int = 1, cut: int = 0, more: bytes = b"") -> str:
    Path("x").mkdir()
    pagemap(Path("x/pagemap-1.img"), 1, entries)
    data = Path("x/pagemap-1.img").read_bytes() + more
    Path("x/pagemap-1.img").write_bytes(data[: len(data) - cut])
    Path("x/pages-1.img").write_bytes(bytes(n * PAGE))
    return "x"


def criu_file(magic: int) -> str:
    Path("x").mkdir()
    criu_image(Path("x/pagemap-1.img"), magic)
    return "x"


def criu_without_pages() -> str:
    criu_of((0x1000, 1, 4))
    Path("x/pages-1.img").unlink()
    return "x"


def dump(at: int, change: bytes, cut: int = 0) -> str:
    """A dump of makedumpfile, changed at one place."""
    kdump(Path("x"), [(0, np.ones((2, PAGE), np.uint8))], lambda page: True, 0)
    data = bytearray(Path("x").read_bytes())
    data[at : at + len(change)] = change
    return write(data[: len(data) - cut])


def empty_folder() -> str:
    Path("x").mkdir()
    return "x"


def pipe() -> str:
    os.mkfifo("x")
    return "x"


def link(name: str, target: str, made: str = "x") -> str:
    Path(name).symlink_to(target)
    return made


ONE = bytes([1]) * PAGE
LOAD = Load(0x1000, 0, ONE)
RANGE = {"gpa": 0, "length": PAGE}
NO_TABLE = "x/state.json: has no table of memory ranges that can be understood"
BAD: dict[str, tuple[Callable[[], str], str]] = {
    "missing": (lambda: "gone", "gone: cannot be read: No such file or directory"),
    "empty": (lambda: write(b""), "x: is empty"),
    "a pipe": (pipe, "x: is neither a file nor a folder"),
    "a link to itself": (lambda: link("x", "x"), "x: cannot be read: Too many levels of symbolic links"),
    "a path through a file": (lambda: write(ONE) + "/y", "x/y: cannot be read: Not a directory"),
    "an empty folder": (empty_folder, "x: is a folder of no known kind (importers: cloud_hypervisor, criu,"),
    "raw: cut off": (lambda: write(ONE + b"1"), "x: has 4097 bytes: raw memory is whole pages of 4096 (truncated,"),
    "raw: a text": (lambda: write(b"hello\n"), "x: has 6 bytes: raw memory is whole pages of 4096"),
    "a picture": (lambda: begins(b"\x89PNG\r\n\x1a\n"), "x: looks like a PNG picture, not like memory"),
    "gzip": (lambda: begins(b"\x1f\x8b\x08"), "x: looks like gzip, not like memory (unpack it first"),
    "a disk": (lambda: begins(b"QFI\xfb"), "x: looks like a QEMU disk image (qcow2), not like memory (make a core"),
    "a trace": (lambda: begins(b"PAR1"), "x: looks like a Parquet file, not like memory (a trace needs no import"),
    "lime: header cut off": (lambda: write(lime_range(0, b"abc") + b"EMiL"), "x: ends in the header at byte 35: truncated"),
    "lime: range cut off": (lambda: write(lime_range(0, ONE)[:-1]), "x: ends at byte 4127, but its range at byte 32 has 4096"),
    "lime: no second header": (lambda: write(lime_range(0, ONE) + bytes(32)), "x: has no header at byte 4128: damaged"),
    "lime: end before start": (lambda: lime_header(9, 3), "x: has a bad header at byte 0: damaged"),
    "lime: up to 2^64": (
        lambda: lime_header(0, 2**64 - 1),
        "x: ends at byte 42, but its range at byte 32 has 18446744073709551616",
    ),
    "lime: version 7": (lambda: lime_header(0, 9, 7), "x: has a bad header at byte 0: damaged"),
    "lime: AVML's": (lambda: lime_header(0, 9, 2), "x: is compressed, as AVML does (avml-convert"),
    "lime: twice": (lambda: write(2 * lime_range(0x1000, ONE)), "x: holds address 0x1000 twice: damaged"),
    "elf: a program": (
        lambda: core_of(LOAD, at=16, change=b"\2\0"),
        "x: looks like an ELF file, not like memory (of ELF files",
    ),
    "elf: cut off": (lambda: core_of(LOAD, cut=1), "x: ends at byte 4335, but should hold memory up to byte 4336: truncated"),
    "elf: headers cut off": (lambda: core_of(LOAD, cut=PAGE + 100), "x: ends before its program headers do: truncated"),
    "elf: 20 bytes": (lambda: core_of(LOAD, cut=PAGE + 220), "x: is a damaged ELF core: "),
    "elf: class 7": (lambda: core_of(LOAD, at=4, change=b"\7"), "x: is a damaged ELF core: Invalid EI_CLASS"),
    "elf: no memory": (lambda: core_of(Load(0x1000, 0, b"", PAGE)), "x: holds no memory: it has no segment with contents"),
    "elf: no segments": (core_of, "x: holds no memory: it has no segment with contents"),
    "elf: twice": (lambda: core_of(LOAD, LOAD), "x: holds address 0x1000 twice: damaged"),
    "elf: small headers": (lambda: core_of(LOAD, at=54, change=b"\1"), "x: ends before its program headers do"),
    "elf: offset 2^64": (lambda: core_of(LOAD, at=128, change=b"\xff" * 8), "x: has memory beyond byte 2^63 of the file"),
    "elf: size 2^63": (lambda: core_of(LOAD, at=159, change=b"\x7f"), "x: has more than "),
    "elf: shared bytes": (
        lambda: core_of(LOAD, Load(0x9000, 0, ONE), at=184, change=struct.pack("<Q", 296)),
        "x: claims that what is at byte 296 is at several addresses: damaged",
    ),
    "cloud: state is no JSON": (lambda: cloud(state=b"{"), NO_TABLE),
    "cloud: state is no text": (lambda: cloud(state=b"\xff"), NO_TABLE),
    "cloud: deep JSON": (lambda: cloud(state=b"[" * 100_000), NO_TABLE),
    "cloud: other JSON": (lambda: cloud(state=b"[1]"), NO_TABLE),
    "cloud: no length": (lambda: cloud({"gpa": 0}), NO_TABLE),
    "cloud: negative": (lambda: cloud({"gpa": -1, "length": 5}), "x/state.json: memory_ranges = [-1, 5]: must be an address"),
    "cloud: a word": (lambda: cloud({"gpa": "0", "length": 5}), 'x/state.json: memory_ranges = ["0", 5]: must be an address'),
    "cloud: cut off": (lambda: cloud(RANGE, size=99), "x/memory-ranges: has 99 bytes, but the ranges in state.json have 4096"),
    "cloud: twice": (lambda: cloud(RANGE, RANGE, size=2 * PAGE), "x/memory-ranges: holds address 0x0 twice: damaged"),
    "cloud: no ranges": (lambda: cloud(size=0), "x/memory-ranges: holds no pages"),
    "criu: cut off": (lambda: criu_of((0x1000, 1, 4), cut=1), "x/pagemap-1.img: ends within a message: truncated"),
    "criu: size cut off": (lambda: criu_of(more=b"\1\0"), "x/pagemap-1.img: has a message of"),
    "criu: endless integer": (lambda: criu_of(more=b"\1\0\0\0\x80"), "x/pagemap-1.img: is damaged: an integer has no end"),
    "criu: no pages file": (criu_without_pages, "x/pages-1.img: cannot be read: No such file"),
    "criu: pages cut off": (lambda: criu_of((0x1000, 2, 4)), "x/pages-1.img: ends at byte 4096, but should hold memory up to"),
    "criu: 2^40 pages": (lambda: criu_of((0x1000, 2**40, 4)), "x/pages-1.img: has more than "),
    "criu: 2^60 pages": (lambda: criu_of((0x1000, 2**60, 4)), "x/pages-1.img: has memory beyond byte 2^63"),
    "criu: no pages": (criu_of, "x: holds no pages"),
    "criu: odd address": (lambda: criu_of((0x1001, 1, 4)), "x/pagemap-1.img: has an entry without an address"),
    "criu: twice": (lambda: criu_of((0x1000, 1, 4), (0x1000, 1, 4), n=2), "x/pages-1.img: holds address 0x1000 twice"),
    "criu: no parent": (lambda: criu_of((0x1000, 1, 1)), "x: is an incremental image whose folder `parent` is missing"),
    "criu: its own parent": (lambda: link(criu_of((0x1000, 1, 1)) + "/parent", "."), "x: has more than 100 parents"),
    "criu: a pagemap": (lambda: criu_of((0x1000, 1, 4)) + "/pagemap-1.img", "x/pagemap-1.img: is a file: images of CRIU are a"),
    "criu: another image": (lambda: criu_file(7), "x/pagemap-1.img: does not begin as an image of CRIU of its name does"),
    "kdump: flattened": (lambda: begins(b"makedumpfile\0"), "x: is a flattened dump of makedumpfile (makedumpfile -R"),
    "kdump: header only": (lambda: begins(b"KDUMP   "), "x: is a damaged dump of makedumpfile: or of a machine of 32 bits"),
    "kdump: version 5": (lambda: dump(8, b"\5"), "x: is a dump of makedumpfile of version 5: must be 6 or later"),
    "kdump: a part": (lambda: dump(PAGE + 12, b"\1"), "x: is one part of a dump (makedumpfile --reassemble"),
    "kdump: large bitmaps": (lambda: dump(436, b"\xff\xff"), "x: is a damaged dump of makedumpfile: it ends at byte"),
    "kdump: large notes": (lambda: dump(PAGE + 63, b"\1"), "x: is a damaged dump of makedumpfile: it ends at byte"),
    "criu: no head": (lambda: criu_file(0x56084025), "x/pagemap-1.img: does not say which pages-N.img it belongs to"),
}
