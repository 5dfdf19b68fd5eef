"""Image files of CRIU: old ones, and protocol buffers as they may be written."""

from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_images import criu_image, message, some_pages

from ksmbatch.errors import InputError
from ksmbatch.importers import IMPORTERS, probe
from ksmbatch.importers.criu_files import Message


@given(st.lists(st.tuples(st.integers(1, 2**29 - 1), st.integers(0, 2**64 - 1) | st.binary(max_size=300))))
def test_what_is_written_is_read(fields: list[tuple[int, int | bytes]]) -> None:
    assert Message(Path("x"), message(*fields)).fields() == fields


def test_numbers_of_fixed_size_are_passed_by(tmp_path: Path) -> None:
    content = bytes([1 << 3 | 1, *range(8), 2 << 3 | 5, *range(4), 3 << 3, 7])
    assert Message(tmp_path, content).integers()[3] == 7


@pytest.mark.parametrize("content", [b"\x80", b"\x08" + b"\xff" * 10, b"\x12\x05abc", b"\x0b", b"\x0d123", b"\x08"])
def test_what_is_no_message_is_refused(content: bytes) -> None:
    with pytest.raises(InputError, match="x: is damaged: "):
        Message(Path("x"), content).fields()


def test_images_without_flags_are_read(tmp_path: Path) -> None:
    # CRIU before 2.4: no flags, in_parent instead, and the number of pages in its old field only
    pages = some_pages(5, 1)
    for folder, entries in {"old": [(0x1000, 5, 0)], "new": [(0x1000, 3, 1), (0x4000, 2, 0)]}.items():
        (tmp_path / folder).mkdir()
        written = [message((1, address), (2, n), *([(3, 1)] if inherited else [])) for address, n, inherited in entries]
        criu_image(tmp_path / folder / "pagemap-1.img", 0x56084025, message((1, 1)), *written)
        (tmp_path / folder / "pages-1.img").write_bytes((pages if folder == "old" else pages[3:]).tobytes())
    (tmp_path / "new/parent").symlink_to("../old")
    with ExitStack() as stack:
        (image,) = IMPORTERS["criu"].open(probe(tmp_path / "new"), stack)
        out = pages * 0
        image.source.read(0, out)
    assert out.tobytes() == pages.tobytes()
