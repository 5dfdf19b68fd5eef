"""Pieces of address space in files, against bytes put into place one by one; and files with holes."""

import os
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ksmbatch.errors import InputError
from ksmbatch.importers.base import Image
from ksmbatch.importers.pieces import ImageFile, image_of_pieces

PAGE = 4096
Piece = tuple[int, int, int]  # address, bytes, offset


def image_of(path: Path, pieces: list[Piece], stack: ExitStack) -> Image:
    return image_of_pieces([ImageFile(path, stack)], [(at // PAGE, at % PAGE, n, offset, 0) for at, n, offset in pieces])


def pages_of(image: Image) -> dict[int, bytes]:
    """The bytes of every page by its address, read in portions of three."""
    found = {int(first) + k: bytes(PAGE) for first, n in image.runs for k in range(n)}
    stored = [int(first) + k for first, n in image.read_runs for k in range(n)]
    for start in range(0, len(stored), 3):
        out = np.full((len(stored[start : start + 3]), PAGE), 0xA5, np.uint8)
        image.source.read(start, out)
        for page, row in zip(stored[start:], out, strict=False):
            found[page] = row.tobytes()
    return found


@st.composite
def layouts(draw: st.DrawFn) -> list[Piece]:
    """Pieces that do not overlap, neither in memory nor in the file, where they are in any order."""
    edge = st.integers(0, 6 * PAGE) | st.integers(0, 6).map(lambda pages: pages * PAGE)
    edges = sorted(draw(st.lists(edge, min_size=2, max_size=10, unique=True)))
    chosen = draw(st.lists(st.booleans(), min_size=len(edges) - 1, max_size=len(edges) - 1).filter(any))
    pieces = []
    offset = 0
    for a, b in draw(st.permutations([(a, b) for a, b, here in zip(edges, edges[1:], chosen, strict=False) if here])):
        offset += draw(st.integers(0, 100))
        pieces.append((a, b - a, offset))
        offset += b - a
    return pieces


@given(layouts())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_bytes_are_where_pieces_put_them_and_zeros_elsewhere(tmp_path: Path, pieces: list[Piece]) -> None:
    data = np.random.default_rng(0).integers(1, 256, 7 * PAGE, np.uint8).tobytes()
    (tmp_path / "f").write_bytes(data)
    memory = bytearray(8 * PAGE)
    for address, n, offset in pieces:
        memory[address : address + n] = data[offset : offset + n]
    touched = {page for address, n, _ in pieces for page in range(address // PAGE, -(-(address + n) // PAGE))}
    covered = [
        sum(min(at + n, (p + 1) * PAGE) - max(at, p * PAGE) for at, n, _ in pieces if at < (p + 1) * PAGE and at + n > p * PAGE)
        for p in touched
    ]
    with ExitStack() as stack:
        image = image_of(tmp_path / "f", pieces, stack)
        assert pages_of(image) == {page: bytes(memory[page * PAGE : (page + 1) * PAGE]) for page in touched}
        assert image.padded == sum(n < PAGE for n in covered)


def test_holes_are_known_without_reading(tmp_path: Path) -> None:
    with (tmp_path / "f").open("wb") as file:
        file.truncate(2**36)
        file.seek(2**35)
        file.write(b"x" * PAGE)
    if (tmp_path / "f").stat().st_blocks * 512 > 2**30:
        pytest.skip("this file system has no holes")
    with ExitStack() as stack:
        image = image_of(tmp_path / "f", [(0, 2**36, 0)], stack)
        assert image.n_pages == 2**24
        assert image.source.n_pages < 2**12
        assert pages_of_run(image, 2**35 // PAGE) == b"x" * PAGE


def pages_of_run(image: Image, address: int) -> bytes:
    (first, _), *_ = image.read_runs.tolist()
    out = np.empty((1, PAGE), np.uint8)
    image.source.read(address - first, out)
    return out.tobytes()


def test_a_hole_that_ends_within_a_page_is_zeros_up_to_there(tmp_path: Path) -> None:
    with (tmp_path / "f").open("wb") as file:
        file.seek(64 * PAGE)
        file.write(b"y" * 64 * PAGE)
    with ExitStack() as stack:  # the piece begins at odd addresses, so that no page of it ends where the hole does
        image = image_of(tmp_path / "f", [(100, 128 * PAGE, 0)], stack)
        found = pages_of(image)
    assert b"".join(found[page] for page in sorted(found)) == bytes(64 * PAGE + 100) + b"y" * 64 * PAGE + bytes(PAGE - 100)
    assert image.padded == 2


def test_pieces_come_from_several_files(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).write_bytes(name.encode() * 2 * PAGE)
    with ExitStack() as stack:
        files = [ImageFile(tmp_path / name, stack) for name in "ab"]
        image = image_of_pieces(files, [(0, 0, PAGE, 0, 1), (1, 0, PAGE, PAGE, 0), (5, 0, PAGE, PAGE, 1)])
        assert {page: data[:1] for page, data in pages_of(image).items()} == {0: b"b", 1: b"a", 5: b"b"}


@pytest.mark.parametrize(
    ("pieces", "line"),
    [
        ([], "holds no pages"),
        ([(0, 0, 0)], "holds no pages"),
        ([(0, PAGE, PAGE + 1)], "ends at byte 8192, but should hold memory up to byte 8193: truncated or damaged"),
        ([(0, PAGE, 2**63)], "damaged"),
        ([(0, PAGE, 2**63 - 1)], "truncated or damaged"),
        ([(0, 2**63 - 1, 0)], "has more than [0-9,]+ pages"),
        ([(0, PAGE, 0), (PAGE - 1, 2, 0)], "holds address 0xfff twice: damaged"),
        ([(2**64 - PAGE, PAGE, 0), (2**64 - PAGE, PAGE, 0)], "holds address 0xfffffffffffff000 twice"),
        ([(0, PAGE, 0), (2 * PAGE, PAGE, PAGE - 1)], "claims that what is at byte 4095 is at several addresses: damaged"),
    ],
)
def test_pieces_that_cannot_be_are_refused(pieces: list[Piece], line: str, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(bytes(2 * PAGE))
    with pytest.raises(InputError, match=line), ExitStack() as stack:
        image_of(tmp_path / "f", pieces, stack)


def test_a_file_that_shrinks_while_it_is_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(bytes([1]) * 3 * PAGE)
    with ExitStack() as stack:
        image = image_of(tmp_path / "f", [(0, 3 * PAGE, 0)], stack)
        os.truncate(tmp_path / "f", PAGE + 10)
        with pytest.raises(InputError, match="ends at byte 4106: it shrank while it was read"):
            image.source.read(0, np.empty((3, PAGE), np.uint8))
