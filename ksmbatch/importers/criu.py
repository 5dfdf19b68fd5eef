"""`criu`: images of CRIU: a folder with, for every process, pagemap-PID.img (which pages) and pages-N.img (their bytes).

Pages of an incremental image that did not change are in the image before, in its folder `parent`. Pages that CRIU does not
store, such as unchanged ones of mapped files, are not there; shared memory has images of its own, which are left alone: ksmd
does not merge it.
"""

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final, NamedTuple

from ksmbatch.errors import InputError
from ksmbatch.importers.base import Image, Importer, Probe, Region, apart, region
from ksmbatch.importers.criu_files import Message, messages, starts_with_magic
from ksmbatch.importers.pieces import MAX_PIECES, ImageFile, image_of_pieces
from ksmbatch.pagesource import PAGE_BYTES

_PAGEMAP_MAGIC: Final = 0x56084025
_MM_MAGIC: Final = 0x57492820
_CORE_MAGIC: Final = 0x55053847
_MAX_PARENTS: Final = 100
_PAGEMAP: Final = re.compile(r"pagemap-([0-9]+)\.img", re.ASCII)

# numbers of fields in CRIU's images/*.proto
_PAGES_ID: Final = 1  # pagemap_head
_ADDRESS, _OLD_PAGES, _OLD_IN_PARENT, _FLAGS, _PAGES = 1, 2, 3, 4, 5  # pagemap_entry
_TASK, _COMM = 3, 6  # core_entry, task_core_entry
_VMAS: Final = 14  # mm_entry
_START, _END, _STATUS = 1, 2, 7  # vma_entry

_IN_PARENT, _PRESENT = 1, 4  # flags of a pagemap_entry
_STATUS_NAMES: Final = {1 << 5: "[heap]", 1 << 1: "[stack]", 1 << 3: "[vdso]"}


class _Run(NamedTuple):
    """`pages` pages from page address `first` on, from byte `offset` of a file on."""

    first: int
    pages: int
    offset: int
    file: int


def _looks(probe: Probe) -> bool:
    if probe.names is None:
        return starts_with_magic(probe.head, _PAGEMAP_MAGIC)
    return any(_PAGEMAP.fullmatch(name) for name in probe.names)


def _open(probe: Probe, stack: ExitStack) -> Sequence[Image]:
    if probe.names is None:
        raise probe.refuse("is a file: images of CRIU are a folder", "name the folder that has pagemap-*.img and pages-*.img")
    pids = sorted(int(match[1]) for name in probe.names if (match := _PAGEMAP.fullmatch(name)))
    if not pids:
        raise probe.refuse("holds no pagemap-PID.img, as images of CRIU do")
    images = [_open_process(probe.path, pid, stack, alone=len(pids) == 1) for pid in pids]
    held = [image for image in images if image is not None]
    if not held:
        raise probe.refuse("holds no pages")
    return held


def _open_process(folder: Path, pid: int, stack: ExitStack, *, alone: bool) -> Image | None:
    """The memory of a process; None if it has none of its own, as one that shares that of another."""
    files: list[ImageFile] = []
    runs, left_out = _page_runs(folder, pid, files, stack)
    if not runs:
        return None
    pieces = [(run.first, 0, run.pages * PAGE_BYTES, run.offset, run.file) for run in runs]
    name = "" if alone else ".".join([*_command(folder, pid), str(pid)])
    return image_of_pieces(files, pieces, mm=name, regions=apart(_vmas(folder, pid)), left_out=left_out)


def _page_runs(folder: Path, pid: int, files: list[ImageFile], stack: ExitStack, parents: int = 0) -> tuple[list[_Run], int]:
    """Where the pages of a process are, ascending, and how many of its pages are nowhere; adds to `files`."""
    path = folder / f"pagemap-{pid}.img"
    entries = messages(path, _PAGEMAP_MAGIC)
    pages_id = next(entries, Message(path, b"")).integers().get(_PAGES_ID)
    if pages_id is None:
        raise InputError(where=path, rule="does not say which pages-N.img it belongs to: damaged")
    runs: list[_Run] = []
    inherited: list[tuple[int, int]] = []
    left_out = offset = 0
    for first, pages, flags in map(_entry, entries):
        if len(runs) + len(inherited) == MAX_PIECES:
            raise InputError(where=path, rule=f"has more than {MAX_PIECES:,} entries")
        if flags & _PRESENT:
            runs.append(_Run(first, pages, offset, len(files)))
            offset += pages * PAGE_BYTES
        elif flags & _IN_PARENT:
            inherited.append((first, pages))
        else:  # to be fetched from a page server
            left_out += pages
    if runs:
        files.append(ImageFile(folder / f"pages-{pages_id}.img", stack))
    if inherited:
        if parents == _MAX_PARENTS:
            raise InputError(where=folder, rule=f"has more than {_MAX_PARENTS} parents")
        parent = _parent(folder)
        older, _ = _page_runs(parent, pid, files, stack, parents + 1)
        for first, pages in inherited:
            parts = list(_part(older, first, pages))
            if sum(part.pages for part in parts) != pages:
                rule = f"lacks pages at {first * PAGE_BYTES:#x}, which {folder} takes from it"
                raise InputError(where=parent, rule=rule)
            runs += parts
    return sorted(runs), left_out


def _parent(folder: Path) -> Path:
    """The folder of the image before."""
    try:
        return (folder / "parent").resolve(strict=True)
    except (OSError, RuntimeError):  # RuntimeError: links in a circle
        raise InputError(where=folder, rule="is an incremental image whose folder `parent` is missing") from None


def _entry(message: Message) -> tuple[int, int, int]:
    """Page address, pages and flags of an entry of a pagemap."""
    given = message.integers()
    address, pages = given.get(_ADDRESS), given.get(_PAGES, given.get(_OLD_PAGES))
    if address is None or pages is None or address % PAGE_BYTES:
        raise InputError(where=message.file, rule="has an entry without an address or a number of pages: damaged")
    # flags came with CRIU 2.4
    return address // PAGE_BYTES, pages, given.get(_FLAGS, _IN_PARENT if given.get(_OLD_IN_PARENT) else _PRESENT)


def _part(runs: Sequence[_Run], first: int, pages: int) -> Iterator[_Run]:
    """What `runs` (ascending) have of the `pages` pages from `first` on."""
    end = first + pages
    place = max(bisect_right(runs, first, key=lambda run: run.first) - 1, 0)
    while place < len(runs) and (run := runs[place]).first < end:
        low, high = max(first, run.first), min(end, run.first + run.pages)
        if low < high:
            yield _Run(low, high - low, run.offset + (low - run.first) * PAGE_BYTES, run.file)
        place += 1


def _only(path: Path, magic: int) -> list[Message]:
    """The message of an image that has one, and may be missing."""
    return [next(messages(path, magic), Message(path, b""))] if path.is_file() else []


def _command(folder: Path, pid: int) -> list[str]:
    """The name of a process, if it is known: comm of its task."""
    core = _only(folder / f"core-{pid}.img", _CORE_MAGIC)
    return [
        comm.content.decode("utf-8", "replace") for entry in core for task in entry.texts(_TASK) for comm in task.texts(_COMM)
    ]


def _vmas(folder: Path, pid: int) -> Iterator[Region]:
    """The VMAs of a process, if they are known; those of files have no name, as it is in yet other images."""
    for mm in _only(folder / f"mm-{pid}.img", _MM_MAGIC):
        for vma in mm.texts(_VMAS):
            given = vma.integers()
            start, end, status = (given.get(number, 0) for number in (_START, _END, _STATUS))
            if start < end:
                names = [name for flag, name in _STATUS_NAMES.items() if status & flag]
                yield region(names[0] if names else "", start, end - start)


IMPORTER = Importer(name="criu", about="image folders of CRIU (pagemap-*.img, pages-*.img)", looks=_looks, open=_open)
