"""The one vocabulary of events: what scenarios, traces and generators say, and all that reaches the engine.

It only holds what was said. Checking it against the rules of the language is `scenario`'s task, acting on it the engine's.
"""

from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np

from ksmbatch.codes import Caller


@dataclass(frozen=True, kw_only=True, slots=True)
class Spawn:
    """A new process `proc` without memory, on a CPU of `cpu_node` (which matters to nobody: every area is bound)."""

    proc: str
    cpu_node: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Mmap:
    """Anonymous memory of `pages` pages, bound to `node`, above all earlier areas of `proc`; registered if `mergeable`."""

    proc: str
    area: str
    pages: int
    node: int = 0
    mergeable: bool = True


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Write:
    """Page `pages[k]` gets raw content id `contents[k]`, in this order.

    `pages`: int64[n], page numbers within the area, strictly ascending, or a range of them. `contents`: uint64[n]. n may be 0
    (every content was null). Never compared by value: the arrays may hold all memory of a host.
    """

    proc: str
    area: str
    pages: np.ndarray | range
    contents: np.ndarray


class Arrays(Protocol):
    """The arrays of a write, made when asked for, the same every time and on any thread. Take each once."""

    def prepare(self) -> None:
        """Makes what `pages` and `ids` would have to make, if that is kept."""

    def pages(self) -> np.ndarray | range:
        """As `Write.pages`."""

    def contents(self) -> np.ndarray:
        """As `Write.contents`."""

    def ids(self) -> np.ndarray:
        """int32[n], the same contents as dense ids, where the workload knows them (`Workload.contents`)."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LazyWrite:
    """A Write whose arrays are made when they are asked for, because those of a whole host would not fit."""

    proc: str
    area: str
    arrays: Arrays

    def made(self) -> Write:
        """The Write."""
        return Write(proc=self.proc, area=self.area, pages=self.arrays.pages(), contents=self.arrays.contents())


@dataclass(frozen=True, kw_only=True, slots=True)
class _Range:
    proc: str
    area: str
    first: int
    count: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Read(_Range):
    """Read faults: an absent page gets the kernel's zero page."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Discard(_Range):
    """madvise(MADV_DONTNEED)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Munmap(_Range):
    """munmap(); the pages are never mapped again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Madvise(_Range):
    """madvise(MADV_MERGEABLE), or MADV_UNMERGEABLE if not `mergeable`."""

    mergeable: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class MergeAny:
    """prctl(PR_SET_MEMORY_MERGE, `value`): the whole process, what it maps later included, is mergeable (1) or not (0)."""

    proc: str
    value: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Mprotect:
    """mprotect() of a whole area; `prot` is "none", "r" or "rw"."""

    proc: str
    area: str
    prot: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Migrate(_Range):
    """Page after page: move_pages(MPOL_MF_MOVE_ALL) to `node`, the frame with all its mappings; `caller` asks for it."""

    node: int
    caller: Caller = Caller.MOVE_PAGES


@dataclass(frozen=True, kw_only=True, slots=True)
class Rebind:
    """mbind(MPOL_BIND) of a whole area to `node`: later frames come from there, and nothing moves."""

    proc: str
    area: str
    node: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Offline:
    """Memory hotremove of `node`: everything on it moves elsewhere; if that fails the node stays."""

    node: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Online:
    """The memory of `node` is there again."""

    node: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ClearFrames:
    """CMA, COMPACTION or THP (`caller`) wants `count` frames from number `first` on to be free, all on one node.

    Frames are numbered through all nodes: node n has n * node_pages to (n + 1) * node_pages - 1.
    """

    first: int
    count: int
    caller: Caller


@dataclass(frozen=True, kw_only=True, slots=True)
class Fork:
    """`child` becomes a copy of `proc`, with all its areas under the same names."""

    proc: str
    child: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Exit:
    """The process exits and is reaped."""

    proc: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Scan:
    """`batches` times ksm_do_scan(pages_to_scan)."""

    batches: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class FullScan:
    """Batches until `full_scans` has grown by `count`."""

    count: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class SetKnob:
    """Write `value` to the sysfs file `name`; the kernel may refuse it (EBUSY, EINVAL)."""

    name: str
    value: int


@dataclass(frozen=True, kw_only=True, slots=True)
class SetRun:
    """Write `value` to `run`: 0 stop, 1 merge, 2 unmerge."""

    value: int


Step: TypeAlias = (
    Spawn
    | Mmap
    | Write
    | LazyWrite
    | Read
    | Discard
    | Munmap
    | Madvise
    | MergeAny
    | Mprotect
    | Migrate
    | Rebind
    | Offline
    | Online
    | ClearFrames
    | Fork
    | Exit
    | Scan
    | FullScan
    | SetKnob
    | SetRun
)
