"""Who is who, when, and which page is which: words to mms, addresses to numbers."""

from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksmbatch.errors import InputError
from ksmbatch.importers import IMPORTERS, Image, Region
from ksmbatch.inputs import MmImages, Moment, Word, is_trace, open_inputs, parse_word
from ksmbatch.pagesource import ArraySource


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("a.img", Word(None, Path("a.img"), None)),
        ("web=a.img", Word("web", Path("a.img"), None)),
        ("a.img@60s", Word(None, Path("a.img"), 60_000)),
        ("web=dir/a.img@1.5min", Word("web", Path("dir/a.img"), 90_000)),
        ("web=a=b.img", Word("web", Path("a=b.img"), None)),
        ("./a=b.img", Word(None, Path("a=b.img"), None)),  # a name holds no slash
        ("/x/user@host", Word(None, Path("/x/user@host"), None)),  # not a time
        ("/x/user@10.0.0.1", Word(None, Path("/x/user@10.0.0.1"), None)),
        ("w=a@b@2s", Word("w", Path("a@b"), 2000)),
        ("w=a b\n@0ms", Word("w", Path("a b\n"), 0)),
    ],
)
def test_a_word_is_a_name_a_path_and_a_time(text: str, word: Word) -> None:
    assert parse_word(text) == word


def test_what_exists_is_a_path_whatever_it_looks_like(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("web=a@5s").touch()
    assert parse_word("web=a@5s") == Word(None, Path("web=a@5s"), None)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "names no file"),
        ("web=", "names no file"),
        ("@5s", "names no file"),
        ("=a.img", "has an empty name"),
        ("a@5parsecs", "must be a time"),
        ("a@1.2.3s", "must be a time"),
        ("a@0.5ms", "must be whole milliseconds"),
        ("a@50d", "must be at most"),
    ],
)
def test_a_word_that_cannot_be_read_is_refused(text: str, line: str) -> None:
    with pytest.raises(InputError, match=line):
        parse_word(text)


@given(st.text(max_size=30))
def test_every_word_is_read_or_refused(text: str) -> None:
    try:
        word = parse_word(text.replace("\0", ""))
    except InputError:
        return
    assert word.name != ""


# ---- names and times


def file(folder: Path, name: str, n: int = 2) -> str:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(bytes([len(name)]) * 4096 * n)
    return str(path)


@pytest.mark.parametrize(
    ("name", "mm"),
    [("web.img", "web"), ("mem", "mem"), ("core.1234", "core.1234"), ("a.b.raw", "a.b"), (".img", ".img"), ("x.lime2", "x")],
)
def test_an_mm_is_called_as_its_file(name: str, mm: str, tmp_path: Path) -> None:
    with open_inputs([file(tmp_path, name)]) as inputs:
        assert [each.name for each in inputs.mms] == [mm]


def test_a_name_that_is_no_text_becomes_one(tmp_path: Path) -> None:
    with open_inputs([file(tmp_path, "a\udcff.img")]) as inputs:
        assert [each.name for each in inputs.mms] == ["a�"]


def test_mms_start_in_the_order_of_time_then_of_words(tmp_path: Path) -> None:
    paths = [file(tmp_path, name) for name in ("b", "a", "c")]
    with open_inputs([f"{paths[0]}@1s", paths[1], f"{paths[2]}@0s", f"d={paths[0]}"]) as inputs:
        assert [mm.name for mm in inputs.mms] == ["a", "c", "d", "b"]
        assert inputs.n_pages == inputs.source.n_pages == 8


def test_moments_of_an_mm_are_in_order_whatever_the_order_of_words(tmp_path: Path) -> None:
    paths = [file(tmp_path, name) for name in ("a", "bb")]
    with open_inputs([f"m={paths[1]}@2s", f"m={paths[0]}"]) as inputs:
        (mm,) = inputs.mms
        assert [moment.time_ms for moment in mm.moments] == [0, 2000]
        assert [moment.first_id for moment in mm.moments] == [0, 2]


def test_two_files_of_one_name_need_names_or_times(tmp_path: Path) -> None:
    paths = [file(tmp_path, "1/mem"), file(tmp_path, "2/mem")]
    with (
        pytest.raises(InputError, match=r"2/mem: is mem at 0ms, and so is .*1/mem \(as two mms: one=.*1/mem two=.*60s\)"),
        open_inputs(paths),
    ):
        pass
    with open_inputs([f"one={paths[0]}", f"two={paths[1]}"]) as inputs:
        assert [mm.name for mm in inputs.mms] == ["one", "two"]
    with open_inputs([paths[0], f"{paths[1]}@60s"]) as inputs:
        assert [len(mm.moments) for mm in inputs.mms] == [2]


def test_a_trace_is_told_from_an_image(tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes(b"PAR1....PAR1")
    assert is_trace(tmp_path / "t")
    assert not is_trace(Path(file(tmp_path, "a")))


# ---- numbers of pages


def image(there: list[bool], stored: list[bool], regions: tuple[Region, ...] = ()) -> Image:
    """An image whose page k is there, and must be read, as the lists say."""
    source = ArraySource(np.zeros((sum(stored), 4096), np.uint8))
    return Image(runs=runs_of(there), read_runs=runs_of(stored), source=source, regions=regions)


def runs_of(bits: list[bool]) -> np.ndarray:
    edges = np.flatnonzero(np.diff(np.array([False, *bits, False]).astype(np.int8)))
    return np.stack([edges[::2], edges[1::2] - edges[::2]], axis=1).astype(np.int64)


def mm_of(*images: Image) -> MmImages:
    several = [each.runs for each in images]
    everywhere = np.zeros(64, np.bool_)
    for first, pages in np.concatenate(several):
        everywhere[first : first + pages] = True
    moments = tuple(Moment(k, each, IMPORTERS["raw"], 0) for k, each in enumerate(images))
    return MmImages(name="x", moments=moments, runs=runs_of(everywhere.tolist()))


@st.composite
def images(draw: st.DrawFn) -> tuple[list[bool], list[bool]]:
    there = draw(st.lists(st.booleans(), min_size=30, max_size=30).filter(any))
    holes = draw(st.lists(st.booleans(), min_size=30, max_size=30))
    return there, [a and not b for a, b in zip(there, holes, strict=True)]


@given(st.lists(images(), min_size=1, max_size=3))
def test_spans_number_every_page_as_counting_does(given_images: list[tuple[list[bool], list[bool]]]) -> None:
    mm = mm_of(*(image(*each) for each in given_images))
    numbered = [page for page in range(30) if any(there[page] for there, _ in given_images)]
    assert mm.n_pages == len(numbered)
    for (there, stored), moment in zip(given_images, mm.moments, strict=True):
        expected = [
            (number, sum(stored[:page]) if stored[page] else None) for number, page in enumerate(numbered) if there[page]
        ]
        found = [
            (span.first + k, None if span.source is None else span.source + k)
            for span in mm.spans(moment.image)
            for k in range(span.pages)
        ]
        assert found == expected


def test_regions_are_told_by_numbers_of_pages() -> None:
    there = [False, True, True, False, True, False, True, True]
    regions = (Region(0, 1, "nothing there"), Region(1, 4, "heap"), Region(6, 1, ""), Region(7, 9, "beyond"))
    assert mm_of(image(there, there, regions)).regions == [Region(0, 3, "heap"), Region(3, 1, ""), Region(4, 1, "beyond")]


def test_inputs_close_what_they_opened_even_when_the_second_is_bad(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(InputError, match="No such file"), ExitStack() as stack:
        stack.enter_context(open_inputs([file(tmp_path, "a"), "gone"]))
    assert len(list(Path("/proc/self/fd").iterdir())) == before
