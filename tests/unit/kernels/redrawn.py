"""Lines of one content that are drawn up anew, looked at before anybody is passed: for tests that compare what comes of it.

It says what happens, and not whether that is right, but for the invariants.
"""

from unit.kernels.tiny import copied

from ksmbatch import state
from ksmbatch.invariants import check_invariants
from ksmbatch.kernels import relining
from ksmbatch.kernels.cohorts import IN_LINE
from ksmbatch.state import NIL, NO_MM, Scan, State
from ksmbatch.stateview import StateView


def drawn_up(before: State) -> State:
    """A copy of the machine as it stands when the lines have been drawn up, which they will be."""
    assert before.scan[Scan.LINES_LEFT]
    s = copied(before)
    relining.draw_up_lines(s)
    assert check_invariants(s) == []
    return s


def redrawn(before: State) -> set[str]:
    """What becomes of lines that are drawn up anew, as ksmd is about to pass them."""
    if not before.scan[Scan.LINES_LEFT] or before.scan[Scan.CUR_MM] != NO_MM:
        return set()
    s = drawn_up(before)
    led, leads = (machine.page_bytes[:, state.ITEM_FLAGS] & state.LEADS != 0 for machine in (before, s))
    waited, waits = before.cohort >= IN_LINE, s.cohort >= IN_LINE
    view = StateView(s)
    first = -s.by_content[:, :, state.RESTING]
    empty = [line for line in view.planned if view.nodes[line][state.LEN] == 0]
    of_empty = [int(first[view.nodes[line][state.NID], view.nodes[line][state.CONTENT]]) for line in empty]
    names = {
        "one that was in line leads": (waited & leads).any(),
        "one that led is in line": (led & waits).any(),
        "lines that are too many": any(line > NIL for line in of_empty),
    }
    return {name for name, is_shown in names.items() if is_shown}
