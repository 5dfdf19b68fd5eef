"""Sane machines for tests to break: one in mid-scan with something of everything in it, and one with pages in line.

It breaks nothing itself.
"""

import numpy as np
from machines import Player, filled, full_scan, knob, scan, scenario, write

from ksmbatch import state
from ksmbatch.codes import Policy
from ksmbatch.invariants import check_invariants
from ksmbatch.metrics import Counter
from ksmbatch.state import State

STEPS = (
    *filled([0, *[7] * 9, 5, 5, *[9] * 5, 30, 31, 32, 33]),
    *filled([7, 7, 40, 41, 42], node=1, proc="b"),
    *filled([7, 7, 60, 61], proc="c"),
    full_scan(3),
    write("m", 70, first=2),  # its own frame is a KSM page that others map, so it gets a spare one
    write("m", 8, 8, first=10),  # the node of content 5 is stale from now on
    write("m", 50, 51, proc="c"),
    write("m", 42, first=3, proc="b"),  # so that the other page with 42 does not rest: it is in the unstable tree of node 1
    {"op": "discard", "proc": "a", "area": "m", "first": 2, "count": 1},
    {"op": "migrate", "proc": "b", "area": "m", "first": 0, "count": 1, "node": 0},
    {"op": "fork", "proc": "a", "child": "d"},
    knob("pages_to_scan", 24),
    scan(),  # ksmd has passed a and b: the chain of 7 has a new dup, that of 9 is settled, and no unstable tree was built
)
KNOBS = {"merge_across_nodes": 0, "max_page_sharing": 3, "use_zero_pages": 1}


def sane(policy: Policy = Policy.MAINLINE, *, smart_scan: int = 0) -> State:
    """After STEPS: with smart_scan pages of b and c are at rest in its cohorts, and without in that of all who search."""
    player = Player(scenario(*STEPS, **KNOBS, smart_scan=smart_scan), policy=policy)
    player.run()
    assert check_invariants(player.machine.state) == []
    return player.machine.state


# three lines for 7 on node 0, of which the last has one leader and nobody else; one that two pages have left; one on node 1
IN_LINE_STEPS = (
    *filled([7] * 4 + [5] * 3 + [7] * 3 + [9] * 6 + [30, 31]),
    *filled([7, 7, 40, 7, 9, 9, 9], node=1, proc="b"),
    full_scan(),
    write("m", 8, 8, first=12),
)


def with_lines(*, scans: int = 0) -> State:
    """After IN_LINE_STEPS, and as many more `scans`: after one of them pages are JOINED, and nobody is in line any more."""
    steps = IN_LINE_STEPS + (full_scan(),) * scans
    player = Player(scenario(*steps, merge_across_nodes=0, max_page_sharing=3), keep_pfns=False)
    player.run()
    assert check_invariants(player.machine.state) == []
    return player.machine.state


def item_in_tree(s: State, nid: int) -> int:
    """A page whose rmap_item was put into the unstable tree of `nid` in this scan."""
    parity = state.PARITY if s.counters[Counter.FULL_SCANS] & 1 else 0
    flags = s.page_bytes[:, state.ITEM_FLAGS] & (state.UNSTABLE | state.PARITY)
    return int(np.flatnonzero((flags == state.UNSTABLE | parity) & (s.page_bytes[:, state.ITEM_NID] == nid))[0])
