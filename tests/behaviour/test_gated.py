"""Pages that the checksum gate stops rest at once: does it show, when something happens to one of them right then?

Every event at every place of two scans, against a machine that visits every page; seen after every batch, or only at the end
of scans, when many pages are passed at once.
"""

from collections.abc import Iterator
from itertools import zip_longest

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from machines import Player, Step, filled, full_scan, knob, scan, scenario, spawn, write

from ksmbatch import state
from ksmbatch.codes import Kernel
from ksmbatch.invariants import check_invariants
from ksmbatch.metrics import Counter
from ksmbatch.stateview import StateView

N_PAGES, BATCH = 6, 2
GATED = 20  # content of the page that is stopped at the gate

EVENTS: dict[str, list[Step]] = {
    "nothing": [],
    "is written with what it had": [write("m", GATED, first=3)],
    "is written with what it had before": [write("m", 13, first=3)],
    "is written with something new": [write("m", 21, first=3)],
    "is written twice": [write("m", 21, first=3), write("m", GATED, first=3)],
    "gets a twin in its mm": [write("m", GATED, first=5)],
    "gets a twin in another mm": [write("m", GATED, first=1, proc="b")],
    "gets a twin that goes": [write("m", GATED, first=1, proc="b"), write("m", 22, first=1, proc="b")],
    "is discarded": [{"op": "discard", "proc": "a", "area": "m", "first": 3, "count": 1}],
    "is discarded and written": [
        {"op": "discard", "proc": "a", "area": "m", "first": 3, "count": 1},
        write("m", GATED, first=3),
    ],
    "is unmapped": [{"op": "munmap", "proc": "a", "area": "m", "first": 3, "count": 1}],
    "is shared after a fork": [{"op": "fork", "proc": "a", "child": "c"}],
    "is shared for a while": [{"op": "fork", "proc": "a", "child": "c"}, {"op": "exit", "proc": "c"}],
    "moves": [{"op": "migrate", "proc": "a", "area": "m", "first": 3, "count": 1, "node": 1}],
    "moves away and back": [
        {"op": "migrate", "proc": "a", "area": "m", "first": 3, "count": 1, "node": 1},
        {"op": "migrate", "proc": "a", "area": "m", "first": 3, "count": 1, "node": 0},
    ],
    "is no longer mergeable": [{"op": "madvise", "proc": "a", "area": "m", "advice": "unmergeable", "first": 3, "count": 1}],
    "is not to be accessed": [{"op": "mprotect", "proc": "a", "area": "m", "prot": "none", "first": 0, "count": N_PAGES}],
    "loses its process": [{"op": "exit", "proc": "a"}],
    "is unmerged, and merges across nodes": [
        {"op": "run", "value": 2},
        knob("merge_across_nodes", 1),
        {"op": "run", "value": 1},
    ],
    "is counted by smart_scan from now on": [knob("smart_scan", 1)],
    "is visited in every scan from now on": [knob("smart_scan", 0)],
}


Shown = dict[str, list[int]]


def seen(player: Player) -> Shown:
    """What shows of a machine, and what its rmap_items say."""
    s = player.machine.state
    view = StateView(s)
    in_tree = view.item_flags & state.UNSTABLE != 0
    return {
        "counters": [int(s.counters[counter]) for counter in Counter if counter != Counter.EXACT_VISITS],
        "frames": s.pages[:, state.FRAME].tolist(),
        "items": (view.item_flags & (state.ITEM | state.STABLE | state.UNSTABLE)).tolist(),
        "parity": (view.item_flags & state.PARITY)[in_tree].tolist(),
        "checksums": view.checksum[view.item_flags & state.ITEM != 0].tolist(),
        "mms": s.mms[:, [state.MERGING, state.ITEMS, state.LIST_ITEMS, state.ZERO_PAGES]].ravel().tolist(),
    }


def both(document: Step, kernel: Kernel, *, rules: bool = True) -> Iterator[tuple[int, Shown, Shown]]:
    """After every step what shows of a machine whose pages rest, and of one that visits them all."""
    resting, exact = Player(document, kernel), Player(document, kernel, force_exact=True)
    for step, (one, other) in enumerate(zip_longest(resting.outcomes(), exact.outcomes())):
        assert (one.errno, one.undefined) == (other.errno, other.undefined)
        assert not rules or check_invariants(resting.machine.state) == []
        yield step, seen(resting), seen(exact)


def until_the_gate(scanned: int) -> list[Step]:
    """Two processes that ksmd has passed so often; then a page is written, so that its next visit ends at the gate."""
    return [
        *filled([10, 11, 12, 13, 14, 15]),
        *filled([30, 31, 32, 33], proc="b"),
        *([full_scan(scanned)] if scanned else []),
        write("m", GATED, first=3),
    ]


SCAN = (N_PAGES + 4) // BATCH  # batches


OLD, NEW = Kernel.V6_1, Kernel.V6_12


@pytest.mark.parametrize("event", EVENTS)
# the 9th call of smart_scan lets pages be visited again
@pytest.mark.parametrize(("kernel", "smart_scan", "scanned"), [(OLD, 0, 1), (NEW, 0, 0), (NEW, 0, 1), (NEW, 1, 0), (NEW, 1, 8)])
def test_an_event_in_the_scan_of_the_gate_or_in_the_next_shows_as_if_every_page_was_visited(
    kernel: Kernel, smart_scan: int, scanned: int, event: str
) -> None:
    if kernel == OLD and "smart_scan" in str(EVENTS[event]):
        return  # it has none
    for after in range(2 * SCAN + 1):
        steps = [*until_the_gate(scanned), *[scan()] * after, *EVENTS[event], *[scan()] * (3 * SCAN)]
        knobs = {"pages_to_scan": BATCH, "merge_across_nodes": 0} | ({"smart_scan": 1} if smart_scan else {})
        for step, one, other in both(scenario(*steps, **knobs), kernel, rules=False):
            assert one == other, f"after {after} batches: step {step}"


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("smart_scan", [0, 1])
def test_an_event_between_two_scans_shows_as_if_every_page_was_visited(smart_scan: int, event: str) -> None:
    for scanned in (0, 1, 2, 3, 5, 8):
        for after in (0, 1):
            steps = [*until_the_gate(scanned), *[full_scan()] * after, *EVENTS[event], *[full_scan()] * 5]
            document = scenario(*steps, pages_to_scan=BATCH, merge_across_nodes=0, smart_scan=smart_scan)
            for step, one, other in both(document, Kernel.V6_12):
                assert one == other, f"{scanned} scans, {after} after: step {step}"


@pytest.mark.parametrize("smart_scan", [0, 1])
def test_of_a_whole_block_pages_stopped_at_the_gate_are_not_counted_as_unshared(smart_scan: int) -> None:
    steps: list[Step] = [spawn(), {"op": "mmap", "proc": "a", "area": "m", "pages": 5000, "node": 0, "mergeable": True}]
    steps.append(write("m", *range(10, 5010)))
    for first in (0, 31, 32, 4000, 4095, 4096, 4990):
        steps += [full_scan(), write("m", 9000 + first, first=first), write("m", 9001 + first, first=first + 3)]
    steps += [full_scan(), full_scan(2), full_scan(5)]
    for _, one, other in both(scenario(*steps, pages_to_scan=1000, smart_scan=smart_scan), Kernel.V6_12, rules=False):
        assert one == other


writes = st.lists(st.tuples(st.integers(0, N_PAGES - 1), st.sampled_from((0, 1, 2, 3, 3)), st.integers(0, 4)), max_size=14)


@settings(max_examples=80)
@given(writes, st.integers(0, 9), st.integers(0, 1), st.integers(1, 2 * N_PAGES))
def test_pages_rewritten_at_any_time_show_as_if_every_page_was_visited(
    history: list[tuple[int, int, int]], scanned: int, smart_scan: int, batch: int
) -> None:
    # each page comes and goes between contents of its own, and one that all of them take now and then
    steps = until_the_gate(scanned)[:-1]
    for page, which, batches in history:
        steps += [write("m", 99 if which == 3 else 100 + 10 * page + which, first=page), *[scan()] * batches]
    document = scenario(*steps, full_scan(4), pages_to_scan=batch, smart_scan=smart_scan)
    for step, one, other in both(document, NEW):
        assert one == other, f"step {step}"
