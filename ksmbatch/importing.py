"""`ksmbatch import`: memory from outside, interned and written as a trace.

It reads no format itself (`importers`), and hashes nothing (`interning`).
"""

import secrets
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from ksmbatch import __version__
from ksmbatch.errors import InputError
from ksmbatch.inputs import Inputs, MmImages, Moment, open_inputs, parse_word
from ksmbatch.interning import intern_pages
from ksmbatch.pagesource import PAGE_BYTES
from ksmbatch.trace_writer import TraceWriter
from ksmbatch.units import format_ms

_BLOCK: Final = 2**20  # pages at a time, so that temporaries stay small


def import_inputs(
    words: Sequence[str],
    out: Path,
    format: str | None = None,  # noqa: A002
    *,
    private: bool = False,
    console: Console | None = None,
) -> int:
    """Write the memory named by `words` (see `inputs.parse_word`) as a trace to `out`, and say what it is on `console`.

    `format`: the importer for all of them; by default what each looks like. `private`: content ids in random order, and kinds
    of VMAs instead of names. Progress goes to stderr. Returns 0. Raises InputError for bad input and if `out` cannot be
    written; there is no file then.
    """
    console = console or Console(highlight=False, markup=False, soft_wrap=True)
    with open_inputs(words, format) as inputs:
        _check_out(out, words)
        gone = any(moment.image.n_pages < mm.n_pages for mm in inputs.mms for moment in mm.moments)
        order = "none" if private else "memcmp"
        with TraceWriter(out, order=order, about=_about(inputs), gone=gone, made_by=_made_by(inputs)) as writer:
            with _Bar(inputs.source.n_pages) as progress:
                contents = _Contents(inputs, progress, shuffled=private)
            lines = _write(writer, inputs, contents, gone)
            for mm in inputs.mms:
                writer.vmas(mm.name, [each._replace(name=_kind(each.name)) if private else each for each in mm.regions])
        for line in lines:
            console.print(line)
        console.print(f"{out}: {inputs.n_pages:,} pages, {contents.n:,} contents")
    return 0


def read_inputs(
    words: Sequence[str],
    format: str | None = None,  # noqa: A002
    progress: Callable[[int], None] | None = None,
) -> dict[str, np.ndarray]:
    """Content ids of every page of every mm at its last moment, uint64[pages]: 0 is the page of zeros, order is memcmp's.

    Pages that are not there are left out. See `import_inputs`; `progress` is called with the number of pages read.
    """
    with open_inputs(words, format) as inputs:
        contents = _Contents(inputs, progress)
        found = {}
        for mm in inputs.mms:
            content, there = contents.at(mm, mm.moments[-1])
            found[mm.name] = content[there].astype(np.uint64)
    return found


class _Contents:
    """What is equal to what in `inputs`. `n`: contents, that of zeros included if there is one."""

    def __init__(self, inputs: Inputs, progress: Callable[[int], None] | None, *, shuffled: bool = False) -> None:
        interned = intern_pages(inputs.source, progress=progress, ordered=not shuffled)
        zero = interned.zero_id
        self._ids = interned.ids
        numbers = np.arange(1, interned.n_contents + (zero is None), dtype=np.uint32)
        if shuffled:
            np.random.default_rng(secrets.randbits(128)).shuffle(numbers)
        # by what interning calls them, which is their order; zeros are 0, if there are any
        self._numbers = numbers if zero is None else np.insert(numbers, zero, 0)
        holes = any(moment.image.n_pages > moment.image.source.n_pages for mm in inputs.mms for moment in mm.moments)
        self.n = interned.n_contents + (holes and zero is None)

    def at(self, mm: MmImages, moment: Moment) -> tuple[np.ndarray, np.ndarray]:
        """Content id of every page of `mm`, uint32[pages], and whether it is there, bool[pages]."""
        content = np.zeros(mm.n_pages, np.uint32)
        there = np.zeros(mm.n_pages, np.bool_)
        for first, pages, source in mm.spans(moment.image):
            there[first : first + pages] = True
            if source is not None:
                content[first : first + pages] = self._numbers[self._ids[moment.first_id + source :][:pages]]
        return content, there


def _write(writer: TraceWriter, inputs: Inputs, contents: _Contents, gone: bool) -> list[str]:
    """Writes all snapshots; returns what to say of each image."""
    said = []
    now: dict[str, tuple[np.ndarray, np.ndarray]] = {}  # of mms that are seen again
    for time_ms in sorted({moment.time_ms for mm in inputs.mms for moment in mm.moments}):
        writer.snapshot(time_ms)
        for mm in inputs.mms:
            moment = next((moment for moment in mm.moments if moment.time_ms == time_ms), None)
            if moment is None:
                continue
            if moment is mm.moments[0]:
                writer.start(mm.name, mm.n_pages)
            content, there = contents.at(mm, moment)
            for page in _changed_pages(content, there, now.pop(mm.name, None)):
                writer.rows(mm.name, page, content[page], gone=~there[page] if gone else None)
            if moment is not mm.moments[-1]:
                now[mm.name] = content, there
            said.append(_line(mm, moment, int(np.count_nonzero(there & (content == 0)))))
    return said


def _changed_pages(
    content: np.ndarray, there: np.ndarray, before: tuple[np.ndarray, np.ndarray] | None
) -> Iterator[np.ndarray]:
    """Numbers of the pages that are not as `before`, ascending, in portions."""
    for start in range(0, content.size, _BLOCK):
        part = slice(start, start + _BLOCK)
        if before is None:
            changed = there[part]
        else:
            changed = (content[part] != before[0][part]) | (there[part] != before[1][part])
        yield np.flatnonzero(changed) + start


def _kind(name: str) -> str:
    """What the name of a region says without telling whose it is, in the words of `capture`."""
    if name.startswith("["):
        return name.strip("[]")
    return "ram" if name.startswith("ram 0x") else "file" if name else "anonymous"


def _check_out(out: Path, words: Sequence[str]) -> None:
    if out.is_dir():
        raise InputError(where=out, rule="is a folder: the trace is a file")
    for word in words:
        if out.exists() and out.samefile(parse_word(word).path):
            raise InputError(where=out, rule="is an input: the trace would replace it")


def _about(inputs: Inputs) -> str:
    formats = sorted({moment.importer.name for mm in inputs.mms for moment in mm.moments})
    return f"bytes of memory images ({', '.join(formats)})"


def _made_by(inputs: Inputs) -> dict[str, object]:
    formats = {mm.name: mm.moments[0].importer.name for mm in inputs.mms}
    return {"software": f"ksmbatch {__version__} import", "formats": formats}


def _line(mm: MmImages, moment: Moment, zeros: int) -> str:
    image = moment.image
    when = f" at {format_ms(moment.time_ms)}" if len(mm.moments) > 1 or moment.time_ms else ""
    line = f"{mm.name}{when}: {image.n_pages:,} pages, {zeros:,} of them zeros ({moment.importer.name})"
    if image.left_out:
        line += f"; {image.left_out:,} more are not in the file"
    if image.padded:
        line += f"; of {image.padded:,} only a part is, the rest counts as zeros"
    return line


class _Bar:
    """Progress on a terminal, in bytes; elsewhere nothing."""

    def __init__(self, n_pages: int) -> None:
        console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(True), TransferSpeedColumn())
        self._bar = Progress(*columns, TimeRemainingColumn(), console=console, transient=True, disable=not console.is_terminal)
        self._n_pages = n_pages
        self._task = self._bar.add_task("reading", total=n_pages * PAGE_BYTES)

    def __enter__(self) -> Callable[[int], None]:
        self._bar.start()
        return self._update

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.stop()

    def _update(self, n_done: int) -> None:
        description = "reading" if n_done < self._n_pages else "sorting"
        self._bar.update(self._task, completed=n_done * PAGE_BYTES, description=description)
