"""From what a capture spilled to a trace: pages get their numbers, fingerprints dense ids, addresses and names go.

Only what is in the trace afterwards leaves this process. It looks at no process.
"""

import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from ksmbatch.capture.distinct import Distinct, dense_ids
from ksmbatch.capture.fingerprint import ZERO
from ksmbatch.capture.follower import Follower
from ksmbatch.capture.pace import Pace
from ksmbatch.capture.spill import Changes, Part, Spill
from ksmbatch.errors import InputError
from ksmbatch.trace_writer import TraceWriter

_PIECE: Final = 2**17  # rows written between two rests
_ABOUT: Final = "fingerprints of pages of a live machine, as ids"


@dataclass(frozen=True, kw_only=True, slots=True)
class Round:
    """What one round found: who `started` and `exited` since the round before, and what changed in whom, in their order."""

    time_ms: int
    started: list[int] = field(default_factory=list)
    exited: list[int] = field(default_factory=list)
    parts: list[tuple[int, Part]] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True, slots=True)
class Captured:
    """All that was captured: `rounds`, in which address spaces are places in `followers`, and changes are in `spill`."""

    rounds: Sequence[Round]
    followers: Sequence[Follower]
    spill: Spill
    distinct: Distinct


@dataclass(frozen=True, kw_only=True, slots=True)
class Wishes:
    """What the trace shall hold beside contents: `nodes` of pages, full `vma_names` (else only kinds), and `made_by`."""

    nodes: bool
    vma_names: bool
    made_by: Mapping[str, Any]


def write_trace(out: Path, captured: Captured, wishes: Wishes, pace: Pace) -> None:
    """Writes the trace `out` of what was `captured`, at `pace`. Raises InputError."""
    rounds, followers, spill = captured.rounds, captured.followers, captured.spill
    universes = _universes(rounds, spill)
    if not any(universe.size for universe in universes.values()):
        raise InputError(
            where="ksmbatch capture",
            rule="there is nothing to write: no page that KSM could take",
            hint="--all-vmas takes shared memory and files, too",
        )
    numbering = _Numbering(captured)
    order = "memcmp" if captured.distinct.ordered else "none"
    with TraceWriter(out, order=order, about=_ABOUT, nodes=wishes.nodes, gone=True, made_by=wishes.made_by) as writer:
        writer.order_ties = numbering.n_ties
        for one in rounds:
            writer.snapshot(one.time_ms)
            for number in one.exited:
                if number in universes:
                    writer.exit(followers[number].name)
            for number in one.started:
                if number in universes:
                    writer.start(followers[number].name, pages=universes[number].size)
            for number, part in one.parts:
                for some in _pieces(spill.get(part)):
                    page, content = universes[number].searchsorted(some.vpn), numbering.ids(some.fingerprint)
                    node = some.node if wishes.nodes else None
                    writer.rows(followers[number].name, page, content, node=node, gone=some.gone)
                    pace.rest()
        for number, universe in universes.items():
            writer.vmas(followers[number].name, _vmas(followers[number], universe, wishes.vma_names))


class _Numbering:
    """Fingerprints to content ids; `n_ties`: see `distinct.dense_ids`."""

    def __init__(self, captured: Captured) -> None:
        fingerprints, keys = captured.distinct.all()
        # what only a round has met that was not kept gets no number, so that these are dense
        is_content: np.ndarray = np.zeros(fingerprints.size, np.bool_)
        for one in captured.rounds:
            for _, part in one.parts:
                changes = captured.spill.get(part)
                is_content[fingerprints.searchsorted(changes.fingerprint[~changes.gone])] = True
        is_content &= fingerprints != ZERO
        self._fingerprints = fingerprints[is_content]
        self._ids, self.n_ties = dense_ids(
            self._fingerprints, None if keys is None else keys[is_content], secrets.randbits(128)
        )

    def ids(self, fingerprints: np.ndarray) -> np.ndarray:
        """uint64[n]: the ids of `fingerprints` (uint64[n])."""
        content: np.ndarray = np.zeros(fingerprints.size, np.uint64)
        is_content = fingerprints != ZERO
        content[is_content] = self._ids[self._fingerprints.searchsorted(fingerprints[is_content])]
        return content


def _pieces(changes: Changes) -> Iterator[Changes]:
    for first in range(0, changes.vpn.size, _PIECE):
        yield Changes(*(column[first : first + _PIECE] for column in changes))


def _universes(rounds: Sequence[Round], spill: Spill) -> dict[int, np.ndarray]:
    """Of every address space that ever had a page: the addresses of all its pages, ascending; their places are page numbers."""
    universes: dict[int, np.ndarray] = {}
    for one in rounds:
        for number, part in one.parts:
            vpn = spill.get(part).vpn
            if vpn.size:
                universes[number] = np.union1d(universes[number], vpn) if number in universes else vpn
    return universes


def _vmas(follower: Follower, universe: np.ndarray, names: bool) -> Iterator[tuple[int, int, str]]:
    """Runs of pages that one mapping held when it was last seen: first page, pages, name."""
    known = dict.fromkeys(mapping for mappings in follower.mappings for mapping in mappings)
    number_of = {mapping: number for number, mapping in enumerate(known)}
    owner: np.ndarray = np.full(universe.size, -1, np.int64)
    for mappings in follower.mappings:
        firsts = universe.searchsorted(np.array([mapping.first for mapping in mappings], np.uint64))
        ends = universe.searchsorted(np.array([mapping.end for mapping in mappings], np.uint64))
        for mapping, first, end in zip(mappings, firsts.tolist(), ends.tolist(), strict=True):
            owner[first:end] = number_of[mapping]
    by_number = list(known)
    starts = np.flatnonzero(np.diff(owner, prepend=-2))
    for first, pages in zip(starts.tolist(), np.diff(starts, append=universe.size).tolist(), strict=True):
        mapping = by_number[int(owner[first])]
        yield first, pages, mapping.name if names else mapping.kind
