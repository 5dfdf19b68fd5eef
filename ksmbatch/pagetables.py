"""Page tables as recordings show them: frames numbered by the order in which they appear, areas listed when they changed.

It only looks at what is mapped where; what a frame holds, and which counters went up, is not its concern.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from ksmbatch.documents import Json

ABSENT: Final = -1
ZERO_PAGE: Final = -2

_HEX: Final = np.frombuffer(b"0123456789abcdef", np.uint8)
_NONE: Final = np.uint8(ord("."))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Area:
    """What the page table of an area of n pages holds.

    `frames`: int64[n], numbers >= 0 that tell frames apart, ABSENT, or ZERO_PAGE for the kernel's zero page. A page that
    gets another frame must show another number, even where the old frame's number is free again. `nodes`: int8[n], node of
    the frame. `ksm`: bool[n], whether the frame is a KSM page. Where there is no frame, both mean nothing.
    """

    proc: str
    area: str
    frames: np.ndarray
    nodes: np.ndarray
    ksm: np.ndarray


@dataclass(frozen=True, slots=True)
class _Seen:
    area: Area
    ids: np.ndarray  # int64[n]: the frame's id, ABSENT or ZERO_PAGE


class TableTracker:
    """Numbers frames and finds the areas that changed, observation after observation.

    Ids are given in the order of first appearance: by observation, then process, area and page in the order in which
    they are shown. A frame keeps its id as long as at least one page keeps mapping it from one observation to the next.
    Source: the oracle's README, "Recordings".
    """

    def __init__(self) -> None:
        self._next_id = 0
        self._seen: dict[tuple[str, str], _Seen] = {}

    def observe(self, areas: Sequence[Area]) -> dict[str, dict[str, Json]]:
        """process -> area -> table, of each area that differs from the observation before.

        `areas`: all areas of all live processes, processes in the order of their start, areas in the order of mmap. Their
        arrays are copied where they are kept.
        """
        before = [self._seen.get((area.proc, area.area)) for area in areas]
        changed = [seen is None or not _same(seen.area, area) for seen, area in zip(before, areas, strict=True)]
        if not any(changed):
            self._seen = {(seen.area.proc, seen.area.area): seen for seen in before if seen is not None}
            return {}
        self._seen = {}
        tables: dict[str, dict[str, Json]] = {}
        for area, ids, differs in zip(areas, self._identify(areas, before), changed, strict=True):
            self._seen[area.proc, area.area] = _Seen(_copy(area), ids)
            if differs:
                tables.setdefault(area.proc, {})[area.area] = _table(area, ids)
        return tables

    def _identify(self, areas: Sequence[Area], before: Sequence[_Seen | None]) -> list[np.ndarray]:
        """Per area the id of each page's frame, int64[n]."""
        ids = np.concatenate([area.frames for area in areas])
        gone = [np.full(area.frames.size, ABSENT) if seen is None else None for seen, area in zip(before, areas, strict=True)]
        old_frames = np.concatenate([seen.area.frames if seen else none for seen, none in zip(before, gone, strict=True)])
        old_ids = np.concatenate([seen.ids if seen else none for seen, none in zip(before, gone, strict=True)])
        page = np.flatnonzero(ids >= 0)
        frame, first, place = np.unique(ids[page], return_index=True, return_inverse=True)
        kept = ids[page] == old_frames[page]
        frame_id = np.full(frame.size, ABSENT)
        frame_id[place[kept]] = old_ids[page][kept]
        new = np.flatnonzero(frame_id == ABSENT)
        new = new[first[new].argsort()]
        frame_id[new] = np.arange(self._next_id, self._next_id + new.size)
        self._next_id += new.size
        ids[page] = frame_id[place]
        return np.split(ids, np.cumsum([area.frames.size for area in areas])[:-1])


def _same(old: Area, new: Area) -> bool:
    if not np.array_equal(old.frames, new.frames):
        return False
    mapped = new.frames >= 0
    return bool(((old.nodes == new.nodes) & (old.ksm == new.ksm) | ~mapped).all())


def _copy(area: Area) -> Area:
    return replace(area, frames=area.frames.copy(), nodes=area.nodes.copy(), ksm=area.ksm.copy())


def _table(area: Area, ids: np.ndarray) -> Json:
    mapped = ids >= 0
    return {
        "frames": ids.tolist(),
        "nodes": _text(np.where(mapped, _HEX[area.nodes], _NONE)),
        "ksm": _text(np.where(mapped, _HEX[area.ksm.astype(np.int8)], _NONE)),
    }


def _text(characters: np.ndarray) -> str:
    return characters.tobytes().decode("ascii")
