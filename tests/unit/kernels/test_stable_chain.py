"""Is the dup of a chain that a walk takes the one that mm/ksm.c's loop over all of them takes, whatever is known beforehand?

Against that loop, written down once more over a list. What hangs chains into trees is in test_stable_tree.py.
"""

from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st
from unit.kernels.tiny import tiny_state

from ksmbatch import state
from ksmbatch.codes import Kernel
from ksmbatch.kernels import stable_chain, stable_node
from ksmbatch.kernels.stable_chain import MAY_PRUNE, NO_PRUNE
from ksmbatch.metrics import Counter
from ksmbatch.state import NIL, NO_FRAME, State

CONTENT, MAX_SHARING, DELAY_MS = 3, 6, 2000
NEVER_MS = 2**31


@dataclass(eq=False)
class Dup:
    """`node`: its slot in ours."""

    node: int
    length: int
    stale: bool = False

    def has_room(self, more: int = 0) -> bool:
        return self.length != 0 and self.length + more < MAX_SHARING


class Pair:
    """A chain of ours, and the list that should be it."""

    def __init__(self, kernel: Kernel, delay_ms: int, lengths: list[int]) -> None:
        self.s: State = tiny_state(kernel, max_page_sharing=MAX_SHARING, stable_node_chains_prune_millisecs=delay_ms)
        self._old = kernel < Kernel.V6_12
        self._delay_ms = delay_ms
        self.dups: list[Dup] = []
        self._now_ms = self._prune_ms = 0
        first = self._made(lengths[-1])
        stable_chain.tree_insert(self.s, first.node, 0)
        self.head = int(stable_chain.alloc_stable_node_chain(self.s, first.node))
        self.dups.append(first)
        for length in reversed(lengths[:-1]):
            self.add(length)

    def _made(self, length: int) -> Dup:
        dup = Dup(int(stable_node.alloc_stable_node(self.s, CONTENT, 0, 0)), length)
        self.s.nodes[dup.node, [state.LEN, state.KPFN]] = length, dup.node
        return dup

    def add(self, length: int) -> None:
        dup = self._made(length)
        stable_chain.add_dup(self.s, dup.node, self.head)
        self.dups.insert(0, dup)

    def change(self, dup: Dup, by: int) -> None:
        dup.length += by
        stable_node.change_length(self.s, dup.node, by)

    def lose(self, dup: Dup) -> None:
        dup.stale = True
        stable_node.kpfn_gone(self.s, dup.node, 0)

    def wait(self, time_ms: int) -> None:
        self._now_ms += time_ms
        self.s.counters[Counter.TIME_NS] += time_ms * 1_000_000

    @property
    def order(self) -> list[int]:
        found, dup = [], int(self.s.nodes[self.head, state.FIRST])
        while dup != NIL:
            found.append(dup)
            dup = int(self.s.nodes[dup, state.NEXT])
        return found

    def walk(self, may_prune: int) -> tuple[int, int, int]:
        return tuple(map(int, stable_chain.stable_node_chain(self.s, self.head, may_prune)))  # type: ignore[return-value]

    def expected(self, may_prune: int) -> tuple[int, int, int]:
        """What walk() has to return: frame, dup and node in the tree. Does to the list what the walk does."""
        prunes = may_prune != NO_PRUNE and self._delay_ms < NEVER_MS and self._now_ms >= self._prune_ms + self._delay_ms
        if prunes:
            self._prune_ms = self._now_ms
        found: Dup | None = None
        for dup in list(self.dups):
            if dup.stale:
                self.dups.remove(dup)
            elif (found is None and not (self._old and not dup.has_room())) or (
                found is not None and dup.has_room() and (not found.has_room() or dup.length > found.length)
            ):
                found = dup
                if not prunes and dup.has_room():
                    break
        if not self.dups:
            return int(NO_FRAME), int(NIL), self.head
        if found is None:  # 6.1: all full
            return self.dups[0].node, int(NIL), self.head
        if len(self.dups) == 1 and (prunes or not self._old):
            return found.node, found.node, found.node
        if self.dups[0] is not found and found.has_room(1):
            self.dups.remove(found)
            self.dups.insert(0, found)
        return found.node, found.node, self.head


def known(pair: Pair) -> tuple[int, int, int]:
    """ROOM_FROM, TOP, TOP_FROM"""
    return tuple(pair.s.nodes[pair.head, [state.ROOM_FROM, state.TOP, state.TOP_FROM]].tolist())


lengths = st.integers(1, MAX_SHARING)
walks = st.tuples(st.just("walk"), st.sampled_from((MAY_PRUNE, MAY_PRUNE, NO_PRUNE)))
waits = st.tuples(st.just("wait"), st.sampled_from((400, DELAY_MS)))
merges = st.tuples(st.just("merge"), st.sampled_from((MAY_PRUNE, MAY_PRUNE, NO_PRUNE)))
leaves = st.tuples(st.just("leave"), st.integers(0, 99))
losses = st.tuples(st.just("lose"), st.integers(0, 99))
additions = st.tuples(st.just("add"), st.integers(0, MAX_SHARING))
# chains that settle, and are gone over again and again, have few changes
calm = st.lists(st.one_of(walks, walks, walks, waits, waits, leaves), min_size=20, max_size=50)
eventful = st.lists(st.one_of(walks, walks, waits, merges, merges, leaves, losses, additions), max_size=50)


@settings(max_examples=1500)
@given(
    st.sampled_from((Kernel.V6_12, Kernel.V6_1)),
    st.sampled_from((DELAY_MS, 0, NEVER_MS)),
    st.lists(lengths, min_size=2, max_size=7),
    st.one_of(calm, eventful),
)
def test_every_walk_finds_and_leaves_what_the_loop_over_all_dups_does(
    kernel: Kernel, delay_ms: int, start: list[int], history: list[tuple[str, int]]
) -> None:
    pair = Pair(kernel, delay_ms, start)
    for what, number in history:
        live = [dup for dup in pair.dups if not dup.stale]
        if what in ("walk", "merge"):
            expected = pair.expected(number)
            assert pair.walk(number) == expected
            if expected[2] != pair.head or not pair.dups:
                return  # the chain has collapsed, or is freed
            found = next((dup for dup in pair.dups if dup.node == expected[1]), None)
            if what == "merge" and found is not None and found.has_room():
                pair.change(found, 1)
        elif what == "leave" and live and live[number % len(live)].length:
            pair.change(live[number % len(live)], -1)
        elif what == "lose" and live:
            pair.lose(live[number % len(live)])
        elif what == "add":
            pair.add(number)
        elif what == "wait":
            pair.wait(number)
        assert pair.order == [dup.node for dup in pair.dups]
        room_from, top, top_from = known(pair)
        roomy = [dup for dup in pair.dups if dup.has_room() and not dup.stale]
        assert not {dup.node for dup in roomy} & set(pair.order[: pair.order.index(room_from) if room_from != NIL else 0])
        assert all(dup.length <= (top or MAX_SHARING) for dup in roomy)
        fullest = {dup.node for dup in roomy if dup.length == (top or MAX_SHARING - 1)}
        assert not fullest & set(pair.order[: pair.order.index(top_from) if top_from != NIL else 0])


def test_a_dup_that_a_walk_which_prunes_has_moved_to_the_front_is_the_first_with_room_from_then_on() -> None:
    pair = Pair(Kernel.V6_12, DELAY_MS, [2, 3])
    emptier, fuller = pair.order
    assert pair.walk(MAY_PRUNE)[1] == emptier  # the delay is not over, and the chain settles
    pair.wait(DELAY_MS)
    assert pair.walk(MAY_PRUNE)[1] == fuller
    assert pair.order == [fuller, emptier]
    assert pair.walk(MAY_PRUNE)[1] == fuller


def test_a_walk_that_prunes_goes_on_where_the_last_one_found_the_fullest() -> None:
    pair = Pair(Kernel.V6_12, 0, [1, 2, 5, 3, 5])
    a, b, c, d, e = pair.dups
    assert known(pair) == (NIL, 0, NIL)
    assert [pair.walk(MAY_PRUNE)[1], *known(pair)] == [c.node, a.node, 5, c.node]
    pair.change(c, 1)  # full
    assert known(pair) == (a.node, 5, c.node)
    assert [pair.walk(MAY_PRUNE)[1], *known(pair)] == [e.node, a.node, 5, e.node]
    pair.change(c, -1)  # before e
    assert known(pair) == (a.node, 5, c.node)
    pair.change(c, -1)
    pair.change(e, -2)
    assert known(pair) == (a.node, 5, c.node)  # nobody has 5 now
    assert pair.walk(MAY_PRUNE)[1] == c.node
    assert (pair.order[0], *known(pair)) == (c.node, c.node, 4, c.node)  # it came to the front
    pair.change(d, 2)
    assert known(pair) == (c.node, 5, d.node)
    assert (a.length, b.length, e.length) == (1, 2, 3)


def test_no_dup_is_passed_twice_to_find_the_first_with_room_until_one_gets_room() -> None:
    full = MAX_SHARING
    pair = Pair(Kernel.V6_12, NEVER_MS, [full, full, full - 1, full - 1, 1])
    a, b, c, d, _ = pair.dups
    assert [pair.walk(MAY_PRUNE)[1], known(pair)[0]] == [c.node, c.node]
    pair.change(c, 1)
    assert known(pair)[0] == c.node
    assert [pair.walk(MAY_PRUNE)[1], known(pair)[0]] == [d.node, d.node]
    pair.change(b, -1)
    assert known(pair)[0] == b.node
    pair.change(a, -1)
    assert known(pair)[0] == a.node
    pair.change(b, 1)
    assert [pair.walk(MAY_PRUNE)[1], known(pair)[0]] == [a.node, a.node]


def test_stamps_begin_anew_when_there_are_no_more() -> None:
    pair = Pair(Kernel.V6_12, 0, [2, 3, 2])
    pair.s.nodes[pair.order[0], state.STAMP] = state.LAST_STAMP
    pair.add(4)
    assert pair.s.nodes[pair.order, state.STAMP].tolist() == [4, 3, 2, 1]
