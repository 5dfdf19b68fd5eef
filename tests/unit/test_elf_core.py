"""What only ELF cores have: more segments than a header can count, notes that name things, and headers without end."""

from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from small_images import Load, elf, mapped_files, note, some_pages

from ksmbatch.errors import InputError
from ksmbatch.importers import IMPORTERS, Image, Region, elf_core, probe

PAGE = 4096
FILES = [(0x1000, 0x2000, "/lib/a"), (0x9000, 0xA000, "/lib/b")]


def opened(path: Path, stack: ExitStack) -> Image:
    (image,) = IMPORTERS["elf_core"].open(probe(path), stack)
    return image


def core(path: Path, notes: bytes, *, extended: bool = False) -> np.ndarray:
    pages = some_pages(2, 1)
    elf(path, [Load(0x1000, 0, pages[0].tobytes()), Load(0x9000, 0, pages[1].tobytes())], notes, extended=extended)
    return pages


def test_the_number_of_segments_may_stand_in_a_section(tmp_path: Path) -> None:
    pages = core(tmp_path / "x", b"", extended=True)
    with ExitStack() as stack:
        image = opened(tmp_path / "x", stack)
        out = np.empty_like(pages)
        image.source.read(0, out)
        assert np.array_equal(out, pages)


@pytest.mark.parametrize("before", [b"", note(1, b"CORE", bytes(337)), note(3, b"", b"")])
def test_mapped_files_name_vmas(before: bytes, tmp_path: Path) -> None:
    core(tmp_path / "x", before + mapped_files(FILES))
    with ExitStack() as stack:
        assert opened(tmp_path / "x", stack).regions == (Region(1, 1, "/lib/a"), Region(9, 1, "/lib/b"))


@pytest.mark.parametrize(
    "notes",
    [
        mapped_files(FILES)[:40],
        mapped_files(FILES)[:19],
        note(0x46494C45, b"CORE", b"\xff" * 100),
        note(0x46494C45, b"CORE", b""),
        note(1, b"CORE", b"")[:11],
        b"\xff" * 100,
    ],
)
def test_damaged_notes_cost_names_but_no_pages(notes: bytes, tmp_path: Path) -> None:
    core(tmp_path / "x", notes)
    with ExitStack() as stack:
        image = opened(tmp_path / "x", stack)
        assert image.n_pages == 2
        assert [region.name for region in image.regions] == ["", ""]


def test_headers_without_end_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elf_core, "_MAX_HEADER_BYTES", 5000)
    elf(tmp_path / "x", [Load(0x1000 * k, 0, b"\1") for k in range(1, 5000)])
    with ExitStack() as stack, pytest.raises(InputError, match="has more headers than a core can have: damaged"):
        opened(tmp_path / "x", stack)


def test_page_addresses_of_a_guest_are_kept_once(tmp_path: Path) -> None:
    # with paging=on, dump-guest-memory writes a segment per mapping; those of one page have the same bytes of the file
    pages = some_pages(3, 2)
    elf(tmp_path / "x", [Load(0xFFFF0000, 0x2000, pages.tobytes()), Load(0xC0000000, 0x3000, pages[:2].tobytes())])
    with ExitStack() as stack:
        assert opened(tmp_path / "x", stack).runs.tolist() == [[2, 3]]
