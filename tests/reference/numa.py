"""The page frames of NUMA nodes: which are in use, which is handed out next (mm/page_alloc.c, mm/page_isolation.c).

Frame numbers count from 0 on each node. Nothing here looks at a page or at who maps it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .memory import Frame


class OutOfMemory(Exception):
    """No node has a page frame left: Linux would kill a process here."""


class NumaNode:
    """struct pglist_data with `pages` page frames; 0: as many as are wanted.

    `free`: frame numbers given back, the one freed last at the end, as in a CPU's list of free pages. `used`: how many numbers
    were ever handed out, i.e. the first one that never was. `isolated`: numbers that are not handed out now.
    """

    def __init__(self, pages: int) -> None:
        self.pages = pages
        self.online = True
        self.frames: dict[int, Frame] = {}
        self.free: list[int] = []
        self.used = 0
        self.isolated = range(0)

    @property
    def has_room(self) -> bool:
        """Whether a page could be had here."""
        return self.online and not 0 < self.pages <= len(self.frames)

    @property
    def has_free_pfn(self) -> bool:
        """Whether there is a frame number to hand out, those that are isolated aside."""
        return bool(self.free) or self.used != self.pages

    def take_pfn(self) -> int:
        """The number freed last, else one never used."""
        if self.free:
            return self.free.pop()
        self.used += 1
        return self.used - 1

    def give_pfn(self, pfn: int) -> None:
        """Nobody needs it any more."""
        if pfn not in self.isolated:
            self.free.append(pfn)

    def isolate(self, pfns: range) -> None:
        """start_isolate_page_range(): from now on none of `pfns` is handed out, though it be free."""
        self.free = [pfn for pfn in self.free if pfn not in pfns]
        self.free += reversed(range(self.used, pfns.start))
        self.used = max(self.used, pfns.stop)
        self.isolated = pfns

    def release(self) -> None:
        """undo_isolate_page_range(): what is free of the range may be handed out again, the lowest first."""
        self.free += [pfn for pfn in reversed(self.isolated) if pfn not in self.frames]
        self.isolated = range(0)


def nearest_with_room(nodes: list[NumaNode], nid: int) -> int | None:
    """The first of the other nodes that has room, or None; all are equally far apart, so it goes by number."""
    return next((other for other, node in enumerate(nodes) if other != nid and node.has_room), None)
