"""One address space, round after round: which of its pages are there, which changed since the round before.

It keeps a fingerprint and a node per page, no contents.
"""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ksmbatch.capture.distinct import Distinct
from ksmbatch.capture.fingerprint import Fingerprints, order_keys
from ksmbatch.capture.interrupts import Interrupts
from ksmbatch.capture.mappings import Mapping, mergeable, parse
from ksmbatch.capture.memory import Memory
from ksmbatch.capture.nodes import nodes_of
from ksmbatch.capture.pace import Pace
from ksmbatch.capture.pagemap import Pagemap, Pages
from ksmbatch.capture.processes import PROC, Process
from ksmbatch.capture.spill import Changes
from ksmbatch.errors import InputError
from ksmbatch.trace_format import NO_NODE

_VANISHED = (errno.ENOENT, errno.ESRCH)


class Stopped(Exception):
    """The user wants no more, in the middle of a round that can be left out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tools:
    """What all followers share. `chosen`: which mappings to look at. `known_nodes`: whether to ask for nodes.
    `only_mergeable`: only what is registered with KSM. `soft_dirty`: clear these bits, and read only where they are set."""

    fingerprints: Fingerprints
    distinct: Distinct
    pace: Pace
    interrupts: Interrupts
    chosen: Callable[[Mapping], bool]
    anonymous_only: bool
    only_mergeable: bool
    known_nodes: bool
    soft_dirty: bool


class _Seen(NamedTuple):
    """Pages of a round: `vpn` uint64[n], ascending, `fingerprint` uint64[n], `node` int16[n]."""

    vpn: np.ndarray
    fingerprint: np.ndarray
    node: np.ndarray


class Follower:
    """The address space of `process`; `name`: what it is called in the trace.

    `mappings`: those looked at, of every round in which they differed from the round before. `n_pages`: pages that are
    there; `n_unread`: pages that were there and could not be read. `is_whole`: False if the first round was cut short.
    """

    def __init__(self, process: Process, tools: Tools) -> None:
        self.process = process
        self.name = ""
        self.mappings: list[list[Mapping]] = []
        self.n_unread = 0
        self.is_whole = True
        self._tools = tools
        self._seen: _Seen | None = None

    @property
    def n_pages(self) -> int:
        """Pages that are there."""
        return 0 if self._seen is None else self._seen.vpn.size

    def forget(self) -> None:
        """It is over: lets go of what is known of its pages."""
        self._seen = None

    def look(self) -> Changes | None:
        """What changed since the last look; None if the process is gone.

        Raises InputError where the kernel does not let us look, Stopped if the user stops a look that is not the first.
        """
        try:
            with _permitted(self.process):
                seen = self._look()
        except ProcessLookupError:
            return None
        if seen is None:
            return None
        changes = _difference(self._seen, seen)
        self._seen = seen
        return changes

    def _look(self) -> _Seen | None:
        folder = PROC / str(self.process.pid)
        mappings = parse((folder / "maps").read_text(errors="replace"))
        if not mappings:
            return None  # it is dying
        chosen = [mapping for mapping in mappings if self._tools.chosen(mapping)]
        if self._tools.only_mergeable:
            registered = mergeable((folder / "smaps").read_text(errors="replace"))
            chosen = [mapping for mapping in chosen if mapping.first in registered]
        if not self.mappings or self.mappings[-1] != chosen:
            self.mappings.append(chosen)
        with _opened(folder / "pagemap") as pagemap, _opened(folder / "mem") as mem:
            pages = self._present(Pagemap(pagemap, anonymous_only=self._tools.anonymous_only), chosen)
            vpn, fingerprint = self._read(Memory(mem), pages)
        node: np.ndarray = np.full(vpn.size, NO_NODE, np.int16)
        if self._tools.known_nodes:
            node = nodes_of(self.process.pid, vpn)
        return _Seen(vpn, fingerprint, node)

    def _present(self, pagemap: Pagemap, mappings: list[Mapping]) -> Pages:
        parts = []
        for first, end in _spans(mappings):
            for pages in pagemap.pages(first, end):
                parts.append(pages)
                self._rest()
        if not parts:
            return Pages(np.zeros(0, np.uint64), np.zeros(0, np.bool_))
        return Pages(np.concatenate([pages.vpn for pages in parts]), np.concatenate([pages.soft_dirty for pages in parts]))

    def _read(self, memory: Memory, pages: Pages) -> tuple[np.ndarray, np.ndarray]:
        """Page numbers and fingerprints of all pages that can be read, or need not be because nobody wrote to them."""
        fingerprint: np.ndarray = np.zeros(pages.vpn.size, np.uint64)
        is_known: np.ndarray = np.zeros(pages.vpn.size, np.bool_)
        if self._tools.soft_dirty:
            if self._seen is not None:
                at, is_known = _places(self._seen.vpn, pages.vpn)
                is_known &= ~pages.soft_dirty
                fingerprint[is_known] = self._seen.fingerprint[at[is_known]]
            clear_soft_dirty(self.process.pid)
        wanted = np.flatnonzero(~is_known)
        for places, contents in memory.blocks(pages.vpn[wanted]):
            found = self._tools.fingerprints.of(contents)
            fingerprint[wanted[places]] = found
            is_known[wanted[places]] = True
            self._meet(pages.vpn[wanted[places]], found, contents)
            if not self._rest():
                break
        else:
            self.n_unread = pages.vpn.size - int(is_known.sum())
        return pages.vpn[is_known], fingerprint[is_known]

    def _meet(self, vpn: np.ndarray, found: np.ndarray, contents: np.ndarray) -> None:
        """Notes contents that were not on the same page before."""
        is_new: np.ndarray = np.ones(vpn.size, np.bool_)
        if self._seen is not None:
            at, was_there = _places(self._seen.vpn, vpn)
            is_new[was_there] = self._seen.fingerprint[at[was_there]] != found[was_there]
        if is_new.any():
            ordered = self._tools.distinct.ordered
            self._tools.distinct.add(found[is_new], order_keys(contents[is_new]) if ordered else None)

    def _rest(self) -> bool:
        """Sleeps as the pace demands; False if the first look ends here, with what it has."""
        self._tools.pace.rest()
        if self._tools.interrupts.have_come():
            if self._seen is not None:
                raise Stopped
            self.is_whole = False
        return self.is_whole


def clear_soft_dirty(pid: int) -> None:
    """Clears the soft-dirty bits of all pages of `pid`; the next write to each of them costs it a fault."""
    (PROC / str(pid) / "clear_refs").write_text("4")


def _places(ordered: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For every number of `wanted`: its place in `ordered` (ascending), and whether it is there at all."""
    if ordered.size == 0:
        return np.zeros(wanted.size, np.int64), np.zeros(wanted.size, np.bool_)
    at = np.minimum(ordered.searchsorted(wanted), ordered.size - 1)
    return at, ordered[at] == wanted


def _difference(old: _Seen | None, new: _Seen) -> Changes:
    if old is None:
        return Changes(*new, gone=np.zeros(new.vpn.size, np.bool_))
    at, was_there = _places(old.vpn, new.vpn)
    at, changed = at[was_there], ~was_there
    changed[was_there] = (old.fingerprint[at] != new.fingerprint[was_there]) | (old.node[at] != new.node[was_there])
    _, is_there = _places(new.vpn, old.vpn)
    gone = old.vpn[~is_there]
    vpn = np.concatenate([new.vpn[changed], gone])
    order = vpn.argsort(kind="stable")
    return Changes(
        vpn[order],
        np.concatenate([new.fingerprint[changed], np.zeros(gone.size, np.uint64)])[order],
        np.concatenate([new.node[changed], np.full(gone.size, NO_NODE, np.int16)])[order],
        np.concatenate([np.zeros(vpn.size - gone.size, np.bool_), np.ones(gone.size, np.bool_)])[order],
    )


def _spans(mappings: list[Mapping]) -> Iterator[tuple[int, int]]:
    """The pages of `mappings`, neighbours together."""
    span: tuple[int, int] | None = None
    for mapping in mappings:
        if span is not None and span[1] == mapping.first:
            span = span[0], mapping.end
            continue
        if span is not None:
            yield span
        span = mapping.first, mapping.end
    if span is not None:
        yield span


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def _permitted(process: Process) -> Iterator[None]:
    """A process that is gone is a ProcessLookupError, one that cannot be looked at an InputError."""
    try:
        yield
    except OSError as error:
        if error.errno in _VANISHED or isinstance(error, ProcessLookupError):
            raise ProcessLookupError from None
        may_not = isinstance(error, PermissionError)
        rule = f"its memory {'may not' if may_not else 'cannot'} be read: {error.strerror}"
        hint = _remedy() if may_not else None
        raise InputError(where=f"process {process.pid} ({process.name})", rule=rule, hint=hint) from None


def _remedy() -> str:
    scope = "0"
    with suppress(OSError):
        scope = Path("/proc/sys/kernel/yama/ptrace_scope").read_text().strip()
    if scope == "0":
        return "be its user, or have CAP_SYS_PTRACE, as root does"
    return f"have CAP_SYS_PTRACE, as root does: kernel.yama.ptrace_scope is {scope}"
