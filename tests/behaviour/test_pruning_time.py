"""Chains that wait to be pruned: are they listed by the time at which they were, and does knowing only the oldest suffice?

Several chains, delays of some batches or scans, and a machine that walks every tree beside. What one walk over a chain finds is
in tests/unit/kernels/test_stable_chain.py.
"""

import random
from itertools import zip_longest

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from machines import Player, Step, filled, full_scan, knob, scan, scenario, write
from unit.kernels.tiny import tiny_state

from ksmbatch import state
from ksmbatch.codes import Kernel
from ksmbatch.invariants import check_invariants
from ksmbatch.kernels import stable_chain, stable_node
from ksmbatch.metrics import Counter
from ksmbatch.state import NIL, Knob, State
from ksmbatch.stateview import StateView

PER_CONTENT, N_CONTENTS, N_LONELY = 7, 5, 8
N_PAGES = PER_CONTENT * N_CONTENTS + N_LONELY


def listed(s: State, nid: int) -> list[int]:
    """The chains of the tree of `nid`, as they are listed."""
    return StateView(s).listed_chains[nid]


def machines(document: Step, kernel: Kernel, sleep_ms: int) -> tuple[Player, Player]:
    """One on which pages rest, one that walks every tree; of both visits take so long that time passes within a batch, too."""
    both = Player(document, kernel), Player(document, kernel, force_exact=True)
    for player in both:
        knobs = player.machine.state.knobs
        knobs[Knob.SLEEP_MILLISECS] = sleep_ms
        knobs[[Knob.WAKEUP_NS, Knob.SKIP_NS, Knob.KSM_VISIT_NS]] = 70_001, 20_000, 900_000
        knobs[[Knob.CHECKSUM_NS, Knob.SEARCH_NS, Knob.MERGE_NS]] = 300_000, 1_100_000, 2_700_000
    return both


def counters(player: Player) -> list[int]:
    s = player.machine.state
    return [int(s.counters[counter]) for counter in Counter if counter != Counter.EXACT_VISITS]


def memory(seed: int) -> list[int]:
    """Contents of a process, in any order, so that chains are made and met in any order."""
    contents = [10 * k for k in range(1, N_CONTENTS + 1) for _ in range(PER_CONTENT)] + [7 + 9 * k for k in range(N_LONELY)]
    random.Random(seed).shuffle(contents)
    return contents


delays = st.one_of(st.integers(1, 100), st.integers(1, 5_000))
contents = st.one_of(st.integers(1, N_CONTENTS).map(lambda k: 10 * k), st.sampled_from([1, 25, 33, 48, 61, 99]))
writes = st.tuples(st.just("write"), st.integers(0, N_PAGES - 1), contents)
scans = st.tuples(st.just("scan"), st.integers(1, 9), st.booleans())
moves = st.tuples(st.just("move"), st.integers(0, N_PAGES - 1), st.integers(0, 1))
changes = st.tuples(st.just("delay"), delays, st.just(0))


def steps_of(history: list[tuple[str, int, int]]) -> list[Step]:
    found: list[Step] = []
    for what, number, more in history:
        if what == "write":
            found.append(write("m", more, first=number))
        elif what == "scan":
            found += [full_scan(1 + number // 4)] if more else [scan()] * number
        elif what == "move":
            found.append({"op": "migrate", "proc": "a", "area": "m", "first": number, "count": 1, "node": more})
        else:
            found.append(knob("stable_node_chains_prune_millisecs", number))
    return found


@settings(max_examples=80)
@given(
    st.integers(0, 99),
    delays,
    st.sampled_from([Kernel.V6_1, Kernel.V6_12]),
    st.integers(0, 1),
    st.sampled_from([(2, 3), (5, 20), (100, 200)]),
    st.lists(st.one_of(scans, scans, writes, writes, moves, changes), max_size=30),
)
def test_a_run_with_chains_shows_what_walking_every_tree_shows_whatever_the_delay(
    seed: int, delay_ms: int, kernel: Kernel, across: int, pace: tuple[int, int], history: list[tuple[str, int, int]]
) -> None:
    batch, sleep_ms = pace
    knobs = {"stable_node_chains_prune_millisecs": delay_ms, "merge_across_nodes": across, "max_page_sharing": 2}
    steps = [*filled(memory(seed)), full_scan(2), *steps_of(history), *[scan()] * 9, full_scan(2)]
    resting, exact = machines(scenario(*steps, pages_to_scan=batch, **knobs), kernel, sleep_ms)
    for _ in zip_longest(resting.outcomes(), exact.outcomes()):
        assert counters(resting) == counters(exact)
        one, other = resting.machine.state, exact.machine.state
        assert one.pages[:, state.FRAME].tolist() == other.pages[:, state.FRAME].tolist()
        for s in (one, other):
            assert check_invariants(s) == []


@pytest.mark.parametrize("delay_ms", [1, 3, 4, 5, 8, 20, 77, 100, 444, 1000, 2000, 5000])
def test_every_batch_of_many_scans_shows_what_walking_every_tree_shows(delay_ms: int) -> None:
    knobs = {"stable_node_chains_prune_millisecs": delay_ms, "max_page_sharing": 3, "pages_to_scan": 7}
    events = [write("m", 1000 + k, first=5 * k % N_PAGES) for k in range(12)]
    steps = [step for event in events for step in (event, *[scan()] * 11)]
    document = scenario(*filled(memory(delay_ms)), full_scan(2), *steps, **knobs)
    resting, exact = machines(document, Kernel.V6_12, 13)
    n_chains = set()
    for _ in zip_longest(resting.outcomes(), exact.outcomes()):
        assert counters(resting) == counters(exact)
        n_chains.add(len(listed(resting.machine.state, 0)))
    assert max(n_chains) > 2


# the list itself


def a_chain(s: State, content: int, nid: int = 0, n_dups: int = 2) -> int:
    """A chain of `content` in the tree of `nid`, made now."""
    first = int(stable_node.alloc_stable_node(s, content, 0, nid))
    s.nodes[first, state.LEN] = 1
    stable_chain.tree_insert(s, first, nid)
    chain = int(stable_chain.alloc_stable_node_chain(s, first))
    for frame in range(1, n_dups):
        dup = int(stable_node.alloc_stable_node(s, content, frame, nid))
        s.nodes[dup, state.LEN] = 1
        stable_chain.add_dup(s, dup, chain)
    return chain


def wait(s: State, ms: int) -> None:
    s.counters[Counter.TIME_NS] += ms * 1_000_000


def test_a_chain_is_listed_when_it_is_made_and_goes_to_the_end_when_it_is_pruned() -> None:
    s = tiny_state(stable_node_chains_prune_millisecs=100)
    a, b, c = (a_chain(s, content) for content in (4, 2, 3))
    assert listed(s, 0) == [a, b, c]
    wait(s, 100)
    assert stable_chain.may_prune(s, b, stable_chain.MAY_PRUNE)
    assert listed(s, 0) == [a, c, b]
    assert not stable_chain.may_prune(s, b, stable_chain.MAY_PRUNE)
    assert not stable_chain.may_prune(s, a, stable_chain.NO_PRUNE)
    assert listed(s, 0) == [a, c, b]
    assert stable_chain.may_prune(s, a, stable_chain.MAY_PRUNE)
    assert listed(s, 0) == [c, b, a]
    assert s.trees[[state.OLDEST_CHAIN, state.NEWEST_CHAIN], 0].tolist() == [c, a]


@pytest.mark.parametrize("gone", [0, 1, 2])
def test_a_chain_that_goes_is_listed_no_more(gone: int) -> None:
    s = tiny_state(stable_node_chains_prune_millisecs=100)
    chains = [a_chain(s, content, n_dups=1) for content in (4, 2, 3)]
    stable_chain.collapse_chain(s, chains[gone], int(s.nodes[chains[gone], state.FIRST]))
    assert listed(s, 0) == chains[:gone] + chains[gone + 1 :]
    for chain in listed(s, 0):
        stable_chain.collapse_chain(s, chain, int(s.nodes[chain, state.FIRST]))
    assert s.trees[[state.OLDEST_CHAIN, state.NEWEST_CHAIN], 0].tolist() == [NIL, NIL]


def test_an_empty_chain_that_is_freed_is_listed_no_more() -> None:
    s = tiny_state(stable_node_chains_prune_millisecs=100)
    a, b = (a_chain(s, content, n_dups=1) for content in (4, 2))
    stable_node.kpfn_gone(s, int(s.nodes[a, state.FIRST]), 0)
    stable_chain.ksm_get_folio(s, int(s.nodes[a, state.FIRST]))
    stable_chain.free_stable_node_chain(s, a)
    assert listed(s, 0) == [b]


def test_each_tree_has_a_list_of_its_own() -> None:
    s = tiny_state(stable_node_chains_prune_millisecs=100, merge_across_nodes=0)
    a, b = a_chain(s, 4, nid=0), a_chain(s, 4, nid=1)
    assert (listed(s, 0), listed(s, 1)) == ([a], [b])


actions = st.lists(st.tuples(st.sampled_from(("make", "prune", "prune", "collapse", "wait")), st.integers(0, 99)), max_size=60)


@settings(max_examples=200)
@given(actions, st.integers(1, 30))
def test_the_order_is_that_of_the_times_of_pruning(history: list[tuple[str, int]], delay_ms: int) -> None:
    s = tiny_state(n_contents=30, n_nodes=80, stable_node_chains_prune_millisecs=delay_ms)
    chains: dict[int, tuple[int, int]] = {}  # content: chain, and how many were pruned before
    for n, (what, number) in enumerate(history):
        content = number % 30
        some = list(chains)[number % len(chains)] if chains else None
        if what == "make" and content not in chains and s.by_content[0, content, state.STABLE_AT] == NIL:
            chains[content] = a_chain(s, content, n_dups=1), n
        elif what == "prune" and some is not None:
            chain = chains[some][0]
            due = int(s.node_prune_time[chain] + stable_chain.jiffies_of(delay_ms))
            is_due = int(s.counters[Counter.TIME_NS]) // stable_chain.NS_PER_JIFFY >= due
            assert stable_chain.may_prune(s, chain, stable_chain.MAY_PRUNE) == is_due
            if is_due:
                chains[some] = chain, n
        elif what == "collapse" and some is not None:
            chain, _ = chains.pop(some)
            stable_chain.collapse_chain(s, chain, int(s.nodes[chain, state.FIRST]))
        elif what == "wait":
            wait(s, number)
        assert listed(s, 0) == [chain for chain, _ in sorted(chains.values(), key=lambda made: made[1])]
        times = s.node_prune_time[listed(s, 0)].tolist()
        assert times == sorted(times)
