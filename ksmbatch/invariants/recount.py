"""How rules compare what is kept with what is recounted: a line for every difference, and nothing if there is none.

It knows lists, trees and arrays, and nothing of what they mean.
"""

from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ksmbatch import state
from ksmbatch.state import NIL
from ksmbatch.stateview import Rows

Faults: TypeAlias = Iterator[str]


def differs(what: str, kept: Any, recounted: Any) -> Faults:
    """A line for every place where the arrays, or numbers, `kept` and `recounted` differ."""
    kept, recounted = np.atleast_1d(kept), np.atleast_1d(recounted)
    for place in np.flatnonzero(kept != recounted).tolist():
        name = f"{what}[{place}]" if len(kept) > 1 else what
        yield f"{name} is {kept[place]}, recounted {recounted[place]}"


def all_hold(what: str, holds: NDArray[np.bool_], rows: Iterable[int] | None = None) -> Faults:
    """A line for the first rows (by default numbered from 0) of which `holds` (bool[n]) is false."""
    if not holds.all():
        wrong = np.flatnonzero(~holds)[:3]
        yield f"{what} {', '.join(map(str, wrong if rows is None else np.asarray(list(rows))[wrong]))}"


def linked(what: str, rows: list[int], previous: list[int], end: int = int(NIL)) -> Faults:
    """The links back, `previous`, must be those of the list `rows`, before which there is `end`."""
    if previous != [end, *rows[:-1]][: len(rows)]:
        yield f"{what} is {rows} forwards, and its links back are {previous}"


def partition(what: str, rows: list[int], end: int) -> Faults:
    """`rows` must be 1 ... end - 1 in any order."""
    lost = set(range(1, end)) - set(rows)
    if lost or len(rows) != end - 1:
        yield f"{len(rows)} of {end - 1} {what} are in use or free, {len(lost)} lost"


def red_black(rows: Rows, root: int) -> Faults:
    """What keeps the rows below `root` from being a red-black tree with parent links. Source: lib/rbtree.c, its comment."""
    faults: list[str] = []
    passed: set[int] = set()

    def black_height(row: int, parent: int) -> int:
        if row == NIL:
            return 0
        if not 0 < row < len(rows) or row in passed:
            faults.append(f"{row} is below {parent}, and elsewhere or nowhere")
            return 0
        passed.add(row)
        if rows[row][state.PARENT] != parent:
            faults.append(f"{row} hangs below {parent}, and names {rows[row][state.PARENT]}")
        if not rows[row][state.BLACK] and (parent == NIL or not rows[parent][state.BLACK]):
            faults.append(f"{row} is red, at the root or below a red one")
        left, right = (black_height(rows[row][side], row) for side in (state.LEFT, state.RIGHT))
        if left != right:
            faults.append(f"{left} black ones to the left of {row}, {right} to the right")
        return left + bool(rows[row][state.BLACK])

    black_height(root, int(NIL))
    yield from faults
