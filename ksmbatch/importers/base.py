"""What every importer is, what it looks at to know its format, and what it makes of an input.

It knows no format, and nothing of traces.
"""

import stat
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

import numpy as np

from ksmbatch.errors import InputError
from ksmbatch.pagesource import PAGE_BYTES, PageSource

HEAD_BYTES: Final = 4096


class Region(NamedTuple):
    """`pages` pages from page address `first` on (an address divided by 4096) that belong together, such as a VMA."""

    first: int
    pages: int
    name: str


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Image:
    """The memory of one mm at one moment.

    `mm`: what tells it from the others of its input, such as its process; "" where there are none. `runs`: int64[k, 2], page
    address and number of pages of each run that is there, ascending, with gaps between them. `read_runs`: int64[m, 2], the
    parts of these that must be read; the rest are holes, pages of zeros. `source`: the pages of `read_runs`, one after the
    other. `regions`: ascending, not overlapping; pages that are not there may lie in them. `left_out`: pages of the memory
    that the input does not hold. `padded`: pages of which it holds a part; the rest counts as zeros.
    """

    mm: str = ""
    runs: np.ndarray
    read_runs: np.ndarray
    source: PageSource
    regions: Sequence[Region] = ()
    left_out: int = 0
    padded: int = 0

    @property
    def n_pages(self) -> int:
        """Pages that are there."""
        return int(self.runs[:, 1].sum())


@dataclass(frozen=True, kw_only=True, slots=True)
class Probe:
    """An input as importers see it first. `names`: what is in it, if it is a folder, else None. `head`: its first bytes."""

    path: Path
    names: frozenset[str] | None
    head: bytes
    size: int

    def refuse(self, rule: str, hint: str | None = None) -> InputError:
        """The error that this input breaks `rule`."""
        return InputError(where=self.path, rule=rule, hint=hint)


Looks: TypeAlias = Callable[[Probe], bool]
Open: TypeAlias = Callable[[Probe, ExitStack], Sequence[Image]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Importer:
    """A format that can be read.

    `about`: one line for `ksmbatch list importers`. `looks`: whether an input is of this format, by its contents; the
    fallback's is asked when no other said yes. `open`: its images, at least one; what it opens is closed with the stack.
    Raises InputError if the input is damaged, truncated, or not of this format.
    """

    name: str
    about: str
    looks: Looks
    open: Open
    fallback: bool = False


def region(name: str, address: int, n_bytes: int) -> Region:
    """The pages that `n_bytes` bytes from `address` on touch."""
    first = address // PAGE_BYTES
    return Region(first, -(-(address + n_bytes) // PAGE_BYTES) - first, name)


def apart(regions: Iterable[Region]) -> list[Region]:
    """`regions` in ascending order, a page that two of them touch only in the first."""
    found: list[Region] = []
    end = 0
    for each in sorted(regions):
        first = max(each.first, end)
        end = max(each.first + each.pages, end)
        if first < end:
            found.append(Region(first, end - first, each.name))
    return found


def probe(path: Path) -> Probe:
    """A first look at `path`. Raises InputError if it is neither a file nor a folder, empty, or cannot be read."""
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            return Probe(path=path, names=frozenset(each.name for each in path.iterdir()), head=b"", size=0)
        if not stat.S_ISREG(status.st_mode):  # to open a pipe would wait for its writer
            raise InputError(where=path, rule="is neither a file nor a folder")
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        raise InputError(where=path, rule=f"cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if not head:
        raise InputError(where=path, rule="is empty")
    return Probe(path=path, names=None, head=head, size=status.st_size)
