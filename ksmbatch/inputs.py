"""Inputs as people name them, `web=first.img@0s`, to the memory of mms over time: who is who, when, and which page is which.

Importers read the formats. What is equal to what, and the trace that is made of it, is `importing`'s.
"""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from ksmbatch.errors import InputError
from ksmbatch.importers import Image, Importer, Region, choose, find_importer, probe
from ksmbatch.pagesource import Joined
from ksmbatch.scenario import MAX_PAGES
from ksmbatch.units import format_ms, parse_ms

# the time is what looks like one: a file may be called guest@host.img
_WORD: Final = re.compile(r"(?:(?P<name>[^/=]*)=)?(?P<path>.*?)(?:@(?P<time>[0-9][0-9.]*[a-z]+))?", re.DOTALL)
_MAX_MS: Final = 2**32 - 1
_SUFFIX: Final = re.compile(r"\.[A-Za-z][A-Za-z0-9_]*")  # not the process id of core.1234


class Word(NamedTuple):
    """An input as it was named: `name` and `time_ms` are None where they were left out."""

    name: str | None
    path: Path
    time_ms: int | None


class Moment(NamedTuple):
    """`image` is the memory of an mm at `time_ms`; its source begins at page `first_id` of all sources."""

    time_ms: int
    image: Image
    importer: Importer
    first_id: int


class Span(NamedTuple):
    """`pages` pages of an mm from number `first` on are page `source` and so on of the image's source; None: a hole."""

    first: int
    pages: int
    source: int | None


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class MmImages:
    """An mm at one or several moments, in the order of time.

    `runs`: int64[k, 2], page address and pages of every run that is there at some moment, ascending. Pages of the mm are
    numbered along these.
    """

    name: str
    moments: tuple[Moment, ...]
    runs: np.ndarray

    @property
    def n_pages(self) -> int:
        """Pages that have a number."""
        return int(self.runs[:, 1].sum())

    def spans(self, image: Image) -> list[Span]:
        """Where the pages of one of its images are, ascending."""
        ends = [np.concatenate([runs[:, 0], runs.sum(axis=1)]) for runs in (self.runs, image.runs, image.read_runs)]
        cuts = np.unique(np.concatenate(ends))  # between two of these, nothing changes
        sizes = np.diff(cuts)
        there = _places(image.runs, cuts[:-1]) >= 0
        numbers = _places(self.runs, cuts[:-1][there])
        sources = _places(image.read_runs, cuts[:-1][there])
        return [
            Span(first, pages, source if source >= 0 else None)
            for first, pages, source in zip(numbers.tolist(), sizes[there].tolist(), sources.tolist(), strict=True)
        ]

    @property
    def regions(self) -> list[Region]:
        """The regions of its last image, by numbers of pages instead of addresses; what has no numbers is left out."""
        found = []
        for region in self.moments[-1].image.regions:
            numbers = _numbers_within(self.runs, region.first, region.first + region.pages)
            if numbers:
                found.append(Region(numbers.start, len(numbers), region.name))
        return found


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Inputs:
    """All inputs of a call, open. `mms`: in the order in which they start. `source`: every page that must be read, once."""

    mms: tuple[MmImages, ...]
    source: Joined

    @property
    def n_pages(self) -> int:
        """Pages of all images, holes among them."""
        return sum(moment.image.n_pages for mm in self.mms for moment in mm.moments)


def is_trace(path: Path) -> bool:
    """Whether `path` is a Parquet file, as traces are. Raises InputError if it cannot be read."""
    return probe(path).head.startswith(b"PAR1")


def parse_word(text: str) -> Word:
    """An input as it is named on the command line, [NAME=]PATH[@TIME]. Raises InputError.

    What exists under the whole of `text` is a path, whatever it looks like.

    >>> parse_word("web=first.img@1.5s")
    Word(name='web', path=PosixPath('first.img'), time_ms=1500)
    >>> parse_word("./a=b/guest@host.img")
    Word(name=None, path=PosixPath('a=b/guest@host.img'), time_ms=None)
    """
    whole = Path(text)
    if text and os.path.lexists(whole):
        return Word(None, whole, None)
    match = _WORD.fullmatch(text)
    assert match is not None  # every string has this form
    name, path, time = match["name"], match["path"], match["time"]
    if not path:
        raise InputError(where="INPUT", value=text, rule="names no file", hint="[NAME=]PATH[@TIME]")
    if name == "":
        raise InputError(where="INPUT", value=text, rule="has an empty name before =")
    try:
        time_ms = None if time is None else parse_ms(time)
    except InputError as error:
        raise error.at(where=f"INPUT {text}") from None
    if time_ms is not None and time_ms > _MAX_MS:
        raise InputError(where=f"INPUT {text}", value=time, rule=f"must be at most {format_ms(_MAX_MS)}, 49 days")
    return Word(name, Path(path), time_ms)


@contextmanager
def open_inputs(words: Sequence[str], format: str | None = None) -> Iterator[Inputs]:  # noqa: A002  # --format
    """The inputs named by `words` (see `parse_word`), all read by the importer called `format`, or each by what it looks like.

    Raises InputError if one is damaged, if two are the same mm at the same time, or if they have more pages than a trace can.
    """
    if not words:
        raise InputError(where="INPUT", rule="is missing")
    importer = None if format is None else find_importer(format)
    with ExitStack() as stack:
        found: dict[str, dict[int, tuple[Image, Importer, Path]]] = {}
        for word in map(parse_word, words):
            _add(found, word, importer, stack)
        yield _inputs(found)


def _add(
    found: dict[str, dict[int, tuple[Image, Importer, Path]]], word: Word, importer: Importer | None, stack: ExitStack
) -> None:
    given = probe(word.path)
    importer = importer or choose(given)
    images = importer.open(given, stack)
    # as text that a file can hold: the name of a file may be anything
    name = os.fsencode(word.name or _name_of(word.path)).decode("utf-8", "replace")
    time_ms = word.time_ms or 0
    for image in images:
        mm = f"{name}/{image.mm}" if image.mm else name
        same = found.setdefault(mm, {})
        if time_ms in same:
            rule = f"is {mm} at {format_ms(time_ms)}, and so is {same[time_ms][2]}"
            hint = f"as two mms: one={same[time_ms][2]} two={word.path}; as two moments: {mm}={word.path}@60s"
            raise InputError(where=word.path, rule=rule, hint=hint)
        same[time_ms] = image, importer, word.path


def _name_of(path: Path) -> str:
    name = (path if path.name else path.resolve()).name
    suffix = Path(name).suffix
    return name.removesuffix(suffix) if _SUFFIX.fullmatch(suffix) else name


def _inputs(found: dict[str, dict[int, tuple[Image, Importer, Path]]]) -> Inputs:
    mms = []
    sources = []
    first_id = 0
    for name, moments in sorted(found.items(), key=lambda item: min(item[1])):  # stable: else in the order of the words
        placed = []
        for time_ms, (image, importer, _) in sorted(moments.items(), key=lambda item: item[0]):
            placed.append(Moment(time_ms, image, importer, first_id))
            sources.append(image.source)
            first_id += image.source.n_pages
        mms.append(MmImages(name=name, moments=tuple(placed), runs=_union([moment.image.runs for moment in placed])))
    n_pages = sum(mm.n_pages for mm in mms)
    if n_pages > MAX_PAGES:
        raise InputError(where="INPUT", key="pages", value=n_pages, rule=f"must be at most {MAX_PAGES} together")
    return Inputs(mms=tuple(mms), source=Joined(sources))


def _union(several: Sequence[np.ndarray]) -> np.ndarray:
    """The runs of pages that are in one of `several` runs."""
    if len(several) == 1:
        return several[0]
    runs = np.concatenate(several)
    runs = runs[runs[:, 0].argsort()]
    ends = np.maximum.accumulate(runs.sum(axis=1))
    first = np.flatnonzero(np.concatenate([[True], runs[1:, 0] > ends[:-1]]))
    last = np.concatenate([first[1:] - 1, [len(runs) - 1]])
    return np.stack([runs[first, 0], ends[last] - runs[first, 0]], axis=1)


def _places(runs: np.ndarray, addresses: np.ndarray) -> np.ndarray:
    """How many pages of `runs` come before each address, int64; -1 where the address is in none of them."""
    if not len(runs):
        return np.full(addresses.size, -1)
    run = runs[:, 0].searchsorted(addresses, side="right") - 1
    into = addresses - runs[run, 0]
    before = np.cumsum(runs[:, 1]) - runs[:, 1]
    return np.where((run >= 0) & (into < runs[run, 1]), before[run] + into, -1)


def _numbers_within(runs: np.ndarray, first: int, end: int) -> range:
    """The numbers of the pages of `runs` with addresses from `first` to `end` - 1."""
    before = np.concatenate([[0], np.cumsum(runs[:, 1])])
    bounds = []
    for address in (first, end):
        run = int(runs[:, 0].searchsorted(address, side="right")) - 1
        bounds.append(int(before[run] + min(address - int(runs[run, 0]), int(runs[run, 1]))) if run >= 0 else 0)
    return range(*bounds)
