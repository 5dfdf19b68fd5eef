"""Moves on a whole machine: by page, off a node, out of a run of frames. Answers, errors, counters, pools that grow meanwhile.

What becomes of a page that moves is in tests/unit/kernels. Moving many pages in one call remembers what it found out about
stable nodes; that this shows nowhere is a property here, on random machines under every policy.
"""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from machines import Player, Step, filled, full_scan, migrate, mmap, scan, scenario, spawn, write
from parity.strategies import random_policy_case

from ksmbatch import migration, state
from ksmbatch.codes import Caller, Kernel, Policy
from ksmbatch.events import ClearFrames, Offline, Online
from ksmbatch.invariants import check_invariants
from ksmbatch.machine import Machine
from ksmbatch.metrics import Counter, NodeCounter
from ksmbatch.state import NO_FRAME, Knob, Scan, State

SEPARATE = {"merge_across_nodes": 0}
N_SEEDS = 40  # per policy


def machine(*steps: Step, policy: Policy = Policy.MAINLINE, node_pages: int = 0, **knobs: int) -> Machine:
    """A machine on which `steps` happened; each node has its own trees."""
    player = Player(scenario(*steps, node_pages=node_pages, **SEPARATE | knobs), policy=policy)
    player.run()
    return player.machine


def pages(host: Machine, proc: str, area: str = "m") -> tuple[int, int]:
    """The global pages [first, end) of an area."""
    first, n_pages = host.program.mms[host.live[proc]].areas[area]
    return first, first + n_pages


def move(host: Machine, proc: str, nid: int, caller: Caller = Caller.MOVE_PAGES) -> tuple[int | str, ...] | None:
    """What move_pages() says of all pages of `proc`."""
    return host.migrate(*pages(host, proc), nid, caller).status


def counted(host: Machine, *names: str) -> list[int]:
    return [host.counter(Counter[name.upper()]) for name in names]


def nids(host: Machine, proc: str) -> list[int]:
    """The nodes of the frames that `proc` maps; -1: none."""
    found: list[int] = host.table(*_span(host, proc))[1].tolist()
    return found


def pfns(host: Machine, proc: str) -> list[int]:
    """The numbers of the frames that `proc` maps, as Linux counts them on each node, from 0 on."""
    first, n_pages = _span(host, proc)
    s = host.state
    numbers: list[int] = (s.frame_pfns[s.pages[first : first + n_pages, state.FRAME]] - 1).tolist()
    return numbers


def _span(host: Machine, proc: str) -> tuple[int, int]:
    first, end = pages(host, proc)
    return first, end - first


# by page


def test_each_page_gets_an_answer_in_the_words_of_move_pages() -> None:
    host = machine(*filled([1, 2, 3]), mmap("r", 2), {"op": "read", "proc": "a", "area": "r", "first": 0, "count": 1})
    assert move(host, "a", 1) == (1, 1, 1)
    assert host.migrate(*pages(host, "a", "r"), 0, Caller.MOVE_PAGES).status == ("EFAULT", "ENOENT")
    host = machine(*filled([7, 7]), full_scan(3), policy=Policy.REPLICATE)
    assert move(host, "a", 1) == ("EAGAIN", "EAGAIN")
    assert move(host, "a", 1, Caller.NUMA_BALANCING) == ("EBUSY", "EBUSY")
    host.state.numa[1, state.OFFLINE] = 1
    assert move(host, "a", 1, Caller.HOTREMOVE) == ("ENOMEM", "ENOMEM")


def test_moving_no_pages_says_nothing() -> None:
    host = machine(*filled([1]))
    first, _ = pages(host, "a")
    assert host.migrate(first, first, 1, Caller.MOVE_PAGES).status == ()


def test_pools_grow_in_the_middle_of_a_move() -> None:
    contents = list(range(1, 41))
    steps = [*filled(contents), *filled(contents, node=1, proc="b"), full_scan(1)]
    steps += filled(contents, proc="c") + filled(contents, node=1, proc="d") + [full_scan(3)]
    host = machine(*steps, policy=Policy.SUBSTITUTE, max_page_sharing=2)
    shrink(host)
    before = len(host.state.nodes)
    assert move(host, "a", 1) == (1,) * 40
    assert len(host.state.nodes) > before
    assert counted(host, "migrate_chained", "stable_node_chains") == [40, 40]
    assert check_invariants(host.state) == []


def shrink(host: Machine) -> None:
    """Leaves no more stable nodes in the pool than the next move of a page needs."""
    s = host.state
    n_nodes = max(int(s.scan[Scan.NEXT_NODE]) + state.SPARE_NODES, 8)
    nodes, prune_time = s.nodes[:n_nodes].copy(), s.node_prune_time[:n_nodes].copy()
    host.state = state.tabled(s._replace(nodes=nodes, node_prune_time=prune_time))


@pytest.mark.parametrize(
    ("policy", "knobs", "edits"),
    [
        (Policy.SUBSTITUTE, {}, [True, False, False, False]),
        (Policy.MERGE_ON_MIGRATE, {}, [True, False, False, False]),
        (Policy.V4, {}, [True, False, False, False]),
        (Policy.MAINLINE, {}, [False] * 4),
        (Policy.BREAK_COW, {}, [False] * 4),
        (Policy.SUBSTITUTE, {"merge_across_nodes": 1}, [False] * 4),
    ],
)
def test_a_move_edits_trees_if_a_ksm_page_changes_its_node_and_the_policy_acts(
    policy: Policy, knobs: dict[str, int], edits: list[bool]
) -> None:
    # a KSM page; a lonely one; nothing; and a KSM page that is there already
    host = machine(
        *[spawn(), mmap("m", 3), write("m", 7, 5)],
        *filled([7], proc="b"),
        *filled([7, 7], node=1, proc="c"),
        full_scan(3),
        policy=policy,
        **knobs,
    )
    host.state.knobs[Knob.MERGE_ACROSS_NODES] = knobs.get("merge_across_nodes", 0)
    first, _ = pages(host, "a")
    there, _ = pages(host, "c")
    asked = (first, first + 1, first + 2, there)
    assert [migration.edits_trees(host.state, page, 1, Caller.MOVE_PAGES) for page in asked] == edits
    assert not any(migration.edits_trees(host.state, page, 1, Caller.NUMA_BALANCING) for page in asked)  # which is refused


def test_a_dangling_page_has_no_node_in_any_tree() -> None:
    host = machine(*filled([7, 7]), full_scan(3), migrate("m", 1), policy=Policy.V4)
    assert not migration.edits_trees(host.state, 0, 0, Caller.MOVE_PAGES)


# off a node


def test_a_node_goes_offline_with_everything_moved_and_its_stale_nodes_pruned() -> None:
    steps = [*filled([7, 7, 1]), *filled([9, 9], proc="b"), full_scan(3), write("m", 3, 4, proc="b")]
    host = machine(*steps, policy=Policy.SUBSTITUTE)
    assert counted(host, "pages_shared") == [2]  # that of 9 is stale
    assert host.apply(Offline(node=0)).errno == 0
    assert (nids(host, "a"), nids(host, "b")) == ([1, 1, 1], [1, 1])
    assert counted(host, "offline_tried", "offline_missed", "frames_moved", "pages_shared") == [1, 0, 4, 1]
    assert host.state.numa[:, state.OFFLINE].tolist() == [1, 0]
    assert check_invariants(host.state) == []


def test_a_node_that_is_offline_cannot_go_again_until_it_is_back() -> None:
    host = machine(*filled([1]))
    assert host.apply(Offline(node=0)).errno == 0
    assert host.apply(Offline(node=0)).errno == "EINVAL"
    assert counted(host, "offline_tried") == [1]
    assert host.apply(Online(node=0)).errno == 0
    assert host.apply(Online(node=0)).errno == 0
    assert host.apply(Offline(node=0)).errno == 0
    assert counted(host, "offline_tried", "offline_missed") == [2, 0]


def test_a_node_of_which_something_stays_is_online_again_and_keeps_its_stale_nodes() -> None:
    steps = [*filled([7, 7, 1]), *filled([9, 9], proc="b"), full_scan(3), write("m", 3, 4, proc="b")]
    host = machine(*steps, policy=Policy.V4)
    assert move(host, "a", 1) == (1, 1, 1)
    assert move(host, "a", 0)[:2] == ("stuck", "stuck")  # type: ignore[index]  # it dangles
    assert host.apply(Offline(node=1)).errno == "EBUSY"
    assert counted(host, "offline_tried", "offline_missed") == [1, 1]
    assert host.state.numa[:, state.OFFLINE].tolist() == [0, 0]
    assert counted(host, "pages_shared") == [1]
    assert check_invariants(host.state) == []


def test_the_last_node_cannot_go() -> None:
    host = machine(*filled([1, 2]))
    assert host.apply(Offline(node=1)).errno == 0
    assert host.apply(Offline(node=0)).errno == "EBUSY"
    assert counted(host, "offline_tried", "offline_missed", "migrate_failures") == [2, 1, 2]
    assert nids(host, "a") == [0, 0]


def test_frames_leave_in_the_order_of_their_numbers_and_those_that_find_no_room_stay() -> None:
    # pages 0 and 1 swap their numbers: 1 0 2
    steps = [*filled([1, 2, 3]), {"op": "discard", "proc": "a", "area": "m", "first": 0, "count": 2}]
    steps += [write("m", 1), write("m", 2, first=1), *filled([5, 6], node=1, proc="b")]
    host = machine(*steps, node_pages=4)
    assert pfns(host, "a") == [1, 0, 2]
    assert host.apply(Offline(node=0)).errno == "EBUSY"
    assert nids(host, "a") == [1, 1, 0]
    host = machine(*steps, *filled([5], node=1, proc="c"), node_pages=4)
    assert host.apply(Offline(node=0)).errno == "EBUSY"
    assert nids(host, "a") == [0, 1, 0]
    assert counted(host, "migrate_failures") == [2]
    assert check_invariants(host.state) == []


def test_pools_grow_while_a_node_goes_offline() -> None:
    contents = list(range(1, 41))
    steps = filled(contents) + filled(contents, node=1, proc="b") + filled(contents, proc="c")
    steps += [*filled(contents, node=1, proc="d"), full_scan(3)]
    host = machine(*steps, policy=Policy.SUBSTITUTE, max_page_sharing=2)
    shrink(host)
    assert host.apply(Offline(node=0)).errno == 0
    assert counted(host, "migrate_chained") == [40]
    assert check_invariants(host.state) == []


# out of a run of frames


@pytest.mark.parametrize("caller", [Caller.COMPACTION, Caller.CMA, Caller.THP])
def test_a_run_of_frames_is_numbered_through_all_nodes_and_counted_for_who_wants_it(caller: Caller) -> None:
    host = machine(*filled([1, 2, 3]), *filled([4, 5, 6], node=1, proc="b"), node_pages=8)
    assert host.apply(ClearFrames(first=9, count=2, caller=caller)).errno == 0
    assert (pfns(host, "a"), pfns(host, "b")) == ([0, 1, 2], [0, 3, 4])
    names = [f"{one}_{what}" for one in ("compaction", "cma", "thp") for what in ("tried", "missed")]
    assert dict(zip(names, counted(host, *names), strict=True)) == dict.fromkeys(names, 0) | {f"{caller.word}_tried": 1}
    assert check_invariants(host.state) == []


def test_a_run_of_which_something_stays_is_missed() -> None:
    host = machine(*filled([7, 7, 3]), full_scan(3), node_pages=8)
    host.state.knobs[Knob.CALLERS] = 0
    assert host.apply(ClearFrames(first=0, count=4, caller=Caller.CMA)).errno == "EBUSY"
    assert counted(host, "cma_tried", "cma_missed", "migrate_refused", "frames_moved") == [1, 1, 1, 1]
    assert check_invariants(host.state) == []


def test_a_run_on_a_node_from_which_a_frame_was_moved_away_holds_it_no_more() -> None:
    host = machine(*filled([1, 2, 3]), migrate("m", 1, first=1), node_pages=8)
    assert host.apply(ClearFrames(first=0, count=2, caller=Caller.CMA)).errno == 0
    assert counted(host, "frames_moved") == [2]
    assert (nids(host, "a"), pfns(host, "a")) == ([0, 1, 0], [3, 0, 2])


# random machines

PAGES = 6
PROCS = ("a", "b", "child1", "child2")


def one_of(*options: Any) -> st.SearchStrategy[Any]:
    """Any of `options`, the same one several times for more weight; Hypothesis has its own mind about sampled_from()."""
    return st.integers(0, 119).map(lambda number: options[number % len(options)])


OPS = ("write", "scan", "fork", "write", "full_scan", "scan", "migrate", "write", "rebind", "scan", "fork", "discard")
ops = st.lists(st.tuples(one_of(*OPS), *[st.integers(0, 119)] * 3), min_size=3, max_size=6)
hosts = st.fixed_dictionaries(
    {
        "ops": st.tuples(ops, ops, ops).map(lambda parts: [op for part in parts for op in part]),
        "kernel": one_of(*Kernel),
        "callers": one_of(tuple(Caller), (Caller.HOTREMOVE, Caller.MOVE_PAGES), tuple(Caller), (Caller.HOTREMOVE,)),
        "is_tight": st.booleans(),
        "merge_across_nodes": one_of(0, 0, 0, 1),
        "max_page_sharing": one_of(2, 3, 4, 256),
        "pages_to_scan": one_of(3, 5, 100),
    }
)


def steps_of(drawn: list[tuple[str, int, int, int]]) -> list[Step]:
    """Two processes with an area each on their nodes, and at most two children of the first."""
    made = [spawn("a"), mmap("m", PAGES), spawn("b"), mmap("m", PAGES, node=1, proc="b")]
    made += [write("m", 7, 7, 7, 8, 8, 8, proc=proc) for proc in "ab"]
    made += [full_scan(2)]
    live = 2
    for op, who, number, more in drawn:
        proc, first = PROCS[who % live], number % PAGES
        if op == "write":
            contents = [(0, 7, 7, 8)[more // 4**k % 4] for k in range(1 + number // PAGES % 3)]
            made.append(write("m", *contents[: PAGES - first], first=first, proc=proc))
        elif op in ("scan", "full_scan"):
            made.append(scan(1 + number % 2) if op == "scan" else full_scan(1 + number % 2))
        elif op == "fork" and live < len(PROCS):
            made.append({"op": "fork", "proc": "a", "child": PROCS[live]})
            live += 1
        elif op == "discard":
            made.append({"op": "discard", "proc": proc, "area": "m", "first": first, "count": 1})
        elif op == "migrate":
            made.append(migrate("m", more % 2, first=first, proc=proc))
        elif op == "rebind":
            made.append({"op": "rebind", "proc": proc, "area": "m", "node": number % 2})
    return made


def play(host: dict[str, Any], policy: Policy) -> Machine:
    """The machine that was drawn, with a pool of stable nodes that is nearly full; tight ones have two frames to spare."""
    knobs = {name: host[name] for name in ("merge_across_nodes", "max_page_sharing", "pages_to_scan")}
    steps = steps_of(host["ops"])
    n_pages = PAGES * (2 + sum(step["op"] == "fork" for step in steps))
    document = scenario(*steps, node_pages=(n_pages // 2 + 1) * host["is_tight"], use_zero_pages=1, **knobs)
    player = Player(document, host["kernel"], policy=policy, callers=host["callers"])
    player.run()
    shrink(player.machine)
    return player.machine


def observed(s: State) -> dict[str, Any]:
    """All of the state that means something: without spare room in pools, and what the present call has found out of nodes."""
    kept = {name: array.copy() for name, array in s._asdict().items() if name != "table"}  # addresses
    kept["scan"][Scan.MOVE_CALL] = 0
    nodes = kept["nodes"] = kept["nodes"][: s.scan[Scan.NEXT_NODE]]
    kept["node_prune_time"] = kept["node_prune_time"][: len(nodes)]
    plain = nodes[:, state.LEN] != state.STABLE_NODE_CHAIN
    live = nodes[:, state.KPFN] != NO_FRAME
    nodes[np.ix_(plain, [state.HOME_CALL, state.STUCK_CALL])] = 0
    nodes[plain & live, state.HOME] = 0
    free = nodes[:, state.WHERE] == state.FREE
    nodes[np.ix_(free, [column for column in range(state.NODE_COLUMNS) if column not in (state.WHERE, state.NEXT)])] = 0
    return {name: array.tolist() for name, array in kept.items()}


@pytest.mark.parametrize("policy", list(Policy))
@settings(max_examples=100)
@given(hosts, one_of(*PROCS), one_of(1, 1, 0), one_of(Caller.MOVE_PAGES, Caller.MOVE_PAGES, Caller.HOTREMOVE))
def test_moving_a_range_at_once_is_moving_page_by_page(
    policy: Policy, host: dict[str, Any], proc: str, away: int, caller: Caller
) -> None:
    at_once, one_by_one = play(host, policy), play(host, policy)
    first, end = pages(at_once, proc if proc in at_once.live else "a")
    nid = away ^ (proc == "b")
    answers = at_once.migrate(first, end, nid, caller).status
    singly = [one_by_one.migrate(page, page + 1, nid, caller).status for page in range(first, end)]
    assert answers == tuple(answer for one in singly for answer in one or ())
    assert observed(at_once.state) == observed(one_by_one.state)
    assert check_invariants(at_once.state) == []


@pytest.mark.parametrize("policy", list(Policy))
def test_nor_does_it_make_a_difference_after_the_scenarios_with_which_engine_and_twin_are_compared(policy: Policy) -> None:
    seen = set()
    for seed in range(N_SEEDS):
        case = random_policy_case(seed, policy.word)
        at_once, one_by_one = (
            Player(case.document, case.kernel, checksum=case.checksum, policy=policy, callers=list(Caller)) for _ in range(2)
        )
        if any(outcome.undefined for player in (at_once, one_by_one) for outcome in player.outcomes()):
            continue
        n_nids = at_once.machine.program.n_nids
        for number, (proc, mm) in enumerate(at_once.machine.live.items()):
            for area in at_once.machine.program.mms[mm].areas:
                first, end = pages(at_once.machine, proc, area)
                nid = (seed + number) % n_nids
                answers = at_once.machine.migrate(first, end, nid, Caller.MOVE_PAGES).status
                singly = [
                    one_by_one.machine.migrate(page, page + 1, nid, Caller.MOVE_PAGES).status for page in range(first, end)
                ]
                assert answers == tuple(answer for one in singly for answer in one or ()), f"seed {seed}"
                seen |= set(answers)
        assert observed(at_once.machine.state) == observed(one_by_one.machine.state), f"seed {seed}"
        assert check_invariants(at_once.machine.state) == [], f"seed {seed}"
    assert seen >= {0, 1, "ENOENT", "EFAULT", "ENOMEM"}
    assert seen >= ({"EAGAIN"} if policy in (Policy.NUKSM, Policy.REPLICATE) else {"stuck"})


@pytest.mark.parametrize("policy", list(Policy))
@settings(max_examples=50)
@given(hosts, st.integers(0, 1))
def test_a_node_is_offline_and_empty_or_online_and_not(policy: Policy, host: dict[str, Any], nid: int) -> None:
    evacuated = play(host, policy)
    errno = evacuated.apply(Offline(node=nid)).errno
    s = evacuated.state
    left = int(s.node_counters[nid, NodeCounter.FRAMES])
    assert (errno, bool(s.numa[nid, state.OFFLINE])) == (("EBUSY", False) if left else (0, True))
    nodes = s.nodes[1 : s.scan[Scan.NEXT_NODE]]
    is_stale = (nodes[:, state.KPFN] == NO_FRAME) & (nodes[:, state.LEN] != state.STABLE_NODE_CHAIN)
    here = nodes[:, state.LAST_NID] == nid
    assert left or not (is_stale & here & (nodes[:, state.WHERE] != state.FREE)).any()
    assert check_invariants(s) == []
