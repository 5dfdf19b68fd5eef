"""A machine small enough to be written down: pages in 2 mms on 2 nodes, few contents, no program around it.

It only builds; what the kernels then do to it is the tests' to say.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ksmbatch import state
from ksmbatch.codes import Caller, Kernel, Run, Status
from ksmbatch.kernels import fault, ksmd, mm_slot, stable_shape
from ksmbatch.metrics import Counter
from ksmbatch.state import FOREVER, NIL, Knob, State

PAGES_PER_MM, N_CONTENTS = 4, 6
EVERYBODY = sum(1 << caller for caller in Caller)  # knobs[CALLERS]
READY = np.uint8(state.MAPPED | state.MERGEABLE | state.ANON)  # PAGE_FLAGS of a page that ksmd may merge once it is there


def tiny_state(
    kernel: Kernel = Kernel.V6_12,
    *,
    pages_per_mm: int = PAGES_PER_MM,
    n_contents: int = N_CONTENTS,
    n_single: int = 0,
    checksum_class: list[int] | None = None,
    keep_pfns: bool = False,
    n_nodes: int = 32,
    n_members: int = 32,
    n_nids: int = 2,
    node_pages: int = 0,
    distance: Sequence[Sequence[int]] | None = None,
    **knobs: int,
) -> State:
    """mm 0 has pages 0 to 3, mm 1 pages 4 to 7, all in mergeable VMAs on node 0, none present; both mms are registered.

    Contents are numbered in memcmp order; `n_single` more, behind them, are never on two frames at once. `checksum_class`: the
    smallest content with the same checksum, for each. Everybody may move KSM pages.
    """
    s = state.allocate(
        n_pages=2 * pages_per_mm,
        n_mms=2,
        n_nids=n_nids,
        n_dup=n_contents,
        rank=np.arange(n_contents + n_single, dtype=np.uint32),
        checksum_class=None if checksum_class is None else np.array(checksum_class, np.int32),
        keep_pfns=keep_pfns,
        n_nodes=n_nodes,
        n_members=n_members,
        node_pages=node_pages,
        distance=distance,
    )
    defaults = {"kernel": kernel, "merge_across_nodes": 1, "max_page_sharing": 256, "pages_to_scan": 100, "run": Run.MERGE}
    defaults["callers"] = EVERYBODY
    for name, value in (defaults | knobs).items():
        s.knobs[Knob[name.upper()]] = value
    s.page_bytes[:, state.PAGE_FLAGS] = READY
    for mm in range(2):
        s.mms[mm, [state.FIRST_PAGE, state.END_PAGE]] = pages_per_mm * mm, pages_per_mm * (mm + 1)
        s.mms[mm, [state.USERS, state.MERGEABLE_VMAS]] = 1, 1
        mm_slot.ksm_enter(s, mm)
    return s


def copied(s: State) -> State:
    """The same machine once more; what shares memory does so there, too."""
    copy = State(*(array.copy() for array in s))
    pages = copy.frames[: len(s.pages)]
    return state.tabled(copy._replace(pages=pages, page_bytes=pages.view(np.uint8), frame_bytes=copy.frames.view(np.uint8)))


def fill(s: State, *contents: int | None, first: int = 0) -> None:
    """Writes contents to the pages from `first` on; None leaves one alone."""
    given = [(page, content) for page, content in enumerate(contents) if content is not None]
    pages = np.array([page for page, _ in given], np.int64)
    fault.write_pages(s, first, pages, np.array([content for _, content in given], np.int32))


def visit(s: State, n: int = 1) -> None:
    """Lets ksmd run `n` batches; with pages_to_scan = 1 these are visits."""
    status = ksmd.ksm_scan_thread(s, int(s.counters[Counter.WAKEUPS]) + n, FOREVER, FOREVER)
    assert status == Status.DONE


def shares(s: State) -> tuple[int, int, int]:
    """pages_shared, pages_sharing, pages_unshared."""
    return tuple(s.counters[[Counter.PAGES_SHARED, Counter.PAGES_SHARING, Counter.PAGES_UNSHARED]].tolist())


def frames_of(s: State) -> list[int]:
    """Per page the frame that it maps."""
    frames: list[int] = s.pages[:, state.FRAME].tolist()
    return frames


def shape_of(s: State, nid: int = 0) -> Any:
    """The stable tree of `nid` as it stands now: (left, content, right), red ones negative, a leaf its content alone.

    Only for contents above 0, in whose places something hangs.
    """
    stable_shape.build_stable_tree(s, nid)

    def below(row: int) -> Any:
        if row == NIL:
            return None
        left, right, black = s.stable_links[nid, row, [state.LEFT, state.RIGHT, state.BLACK]].tolist()
        assert s.by_content[nid, row - 1, state.STABLE_AT] != NIL
        content = row - 1 if black else 1 - row
        return content if left == right == NIL else (below(left), content, below(right))

    return below(int(s.trees[state.STABLE_ROOT, nid]))
