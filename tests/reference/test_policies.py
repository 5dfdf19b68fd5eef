"""What becomes of a KSM page that moves, policy by policy, in scenarios small enough to be worked out by hand: pages merge, a
frame moves, and then one of its pages is written, or it moves again.

The page tables are read as the recorder shows them; how the engine does all this is the parity tests' question.
"""

import pytest

from reference.machine import Step
from reference.policies import CALLERS, MAINLINE_CALLERS, POLICIES
from reference.steps import (
    ALONE,
    PAIR,
    counted,
    counters,
    discard,
    fork,
    frames,
    full_scan,
    knob,
    migrate,
    mmap,
    nodes_of,
    observe,
    offline,
    online,
    pfns_in_use,
    rebind,
    run,
    scan,
    spawn,
    unmerge,
    write,
)
from reference.steps import numa_machine as machine

SUBSTITUTES = ("merge_on_migrate", "substitute")


# ---- all of them


@pytest.mark.parametrize("policy", [policy for policy in POLICIES if policy != "nuksm"])
def test_where_pages_merge_across_nodes_a_move_is_a_move(policy: str) -> None:
    moved = machine(*ALONE, migrate("m", 0, 1, 1), migrate("m", 0, 2, 0), full_scan(), policy=policy, merge_across_nodes=1)
    seen = observe(moved)
    assert [seen[4]["status"], seen[5]["status"]] == [[1], [0, 0]]
    assert counted(moved) == {"frames_moved": 2, "ksm_frames_moved": 2}
    assert counters(moved, seen[-1])["pages_sharing"] == 1


@pytest.mark.parametrize("policy", POLICIES)
def test_a_caller_that_may_not_move_ksm_pages_is_refused(policy: str) -> None:
    steps = (
        *ALONE,
        mmap("n", 1),
        write("n", 9),
        migrate("m", 0, 2, 1, "numa_balancing"),
        migrate("n", 0, 1, 1, "numa_balancing"),
    )
    refused = machine(*steps, policy=policy)
    seen = observe(refused)
    assert [step["status"] for step in seen[-2:]] == [["EBUSY", "EBUSY"], [1]]
    assert counted(refused) == {"migrate_refused": 2, "frames_moved": 1}


def test_mainline_refuses_numa_balancing_alone() -> None:
    assert set(CALLERS) - MAINLINE_CALLERS == {"numa_balancing"}


@pytest.mark.parametrize("policy", sorted(set(POLICIES) - {"break_cow", "nuksm", "replicate"}))
def test_a_page_does_not_move_to_a_full_node(policy: str) -> None:
    full = machine(*ALONE, mmap("n", 2, node=1), write("n", 8, 9), migrate("m", 0, 1, 1), policy=policy, node_pages=2)
    assert observe(full)[-1]["status"] == ["ENOMEM"]
    assert counted(full) == {"migrate_failures": 1}


@pytest.mark.parametrize("policy", POLICIES)
def test_a_page_that_the_rmap_walk_does_not_find_everywhere_is_stuck(policy: str) -> None:
    # the parent's rmap_items are gone, and ksmd has passed only the first of the child's pages
    steps = (fork("b"), unmerge("m", 2), knob("pages_to_scan", 1), scan(), migrate("m", 0, 2, 1, "hotremove", proc="b"))
    stuck = machine(*ALONE, *steps, policy=policy)
    assert observe(stuck)[-1]["status"] == ["stuck", "stuck"]
    assert counted(stuck) == {"migrate_stuck": 2}


# ---- mainline


def test_mainline_leaves_a_collision_to_ksmd() -> None:
    collided = machine(*PAIR, migrate("m", 0, 1, 1), full_scan(), policy="mainline")
    seen = observe(collided)
    assert counters(collided, seen[-2])["stable_node_chains"] == 0
    assert counters(collided, seen[-1])["stable_node_chains"] == 1
    assert counted(collided) == {"frames_moved": 1, "ksm_frames_moved": 1}


# ---- v4


def test_v4_leaves_the_page_dangling() -> None:
    freed = machine(*ALONE, migrate("m", 0, 1, 1), policy="v4")
    shown = run(freed)
    assert nodes_of(freed, "m") == [1, 1]
    assert (shown["pages_shared"], shown["pages_sharing"], shown["pages_volatile"]) == (0, 0, 2)
    assert counted(freed) == {"frames_moved": 1, "ksm_frames_moved": 1, "dangling_pages": 1}
    assert freed.survey() == {"unreachable_mappings": 2, "duplicates_left": 0, "stranded_pages": 2}


@pytest.mark.parametrize(
    ("then", "corruptions", "dangling", "stuck"),
    [
        ((write("m", 9),), 1, 1, 0),
        ((write("m", 9, 9),), 2, 0, 0),
        ((discard("m", 1, 1),), 1, 1, 0),
        (({"op": "exit", "proc": "a"},), 2, 0, 0),
        (({"op": "run", "value": 2},), 2, 0, 0),
        ((full_scan(),), 2, 1, 0),
        ((full_scan(3),), 6, 1, 0),
        ((migrate("m", 0, 2, 0),), 2, 1, 2),
        ((migrate("m", 0, 2, 0, "numa_balancing"),), 0, 1, 0),
        ((migrate("m", 0, 2, 1),), 0, 1, 0),
        ((offline(1),), 1, 1, 1),
        ((fork("b"),), 0, 1, 0),
        ((fork("b"), {"op": "exit", "proc": "a"}), 2, 1, 0),
        ((fork("b"), {"op": "exit", "proc": "b"}, write("m", 9, 9)), 4, 0, 0),
    ],
)
def test_v4_follows_the_dangling_node(then: tuple[Step, ...], corruptions: int, dangling: int, stuck: int) -> None:
    freed = machine(*ALONE, migrate("m", 0, 1, 1), *then, policy="v4")
    observe(freed)
    found = freed.counted()
    assert (found["corruptions"], found["dangling_pages"], found["migrate_stuck"]) == (corruptions, dangling, stuck)


def test_nothing_of_a_dangling_page_keeps_the_knob_busy() -> None:
    freed = machine(*ALONE, migrate("m", 0, 1, 1), knob("merge_across_nodes", 1), policy="v4")
    assert observe(freed)[-1]["errno"] == 0


def test_v4_frees_a_dup_of_a_chain() -> None:
    chain = machine(
        spawn(), mmap("m", 4), write("m", 7, 7, 7, 7), full_scan(2), migrate("m", 0, 1, 1), policy="v4", max_page_sharing=2
    )
    shown = run(chain)
    assert (shown["stable_node_chains"], shown["stable_node_dups"], shown["pages_shared"]) == (1, 1, 1)


# ---- substitute, merge_on_migrate


@pytest.mark.parametrize("policy", SUBSTITUTES)
def test_a_page_without_a_twin_takes_its_node_along(policy: str) -> None:
    moved = machine(*ALONE, migrate("m", 0, 1, 1), full_scan(), migrate("m", 1, 1, 0), full_scan(), policy=policy)
    shown = run(moved)
    assert (shown["pages_shared"], shown["pages_sharing"]) == (1, 1)
    assert counted(moved) == {"frames_moved": 2, "ksm_frames_moved": 2, "migrate_inserted": 2}
    assert not moved.ksm.migrate_nodes


@pytest.mark.parametrize("policy", SUBSTITUTES)
def test_a_page_with_a_twin_becomes_it(policy: str) -> None:
    merged = machine(*PAIR, migrate("m", 0, 2, 1), write("m", 9), policy=policy)
    seen = observe(merged)
    assert seen[-2]["status"] == [1, 1]  # the second page is there already
    shown = counters(merged, seen[-2])
    assert (shown["pages_shared"], shown["pages_sharing"]) == (1, 3)
    written, *others = frames(merged, "m", "k")
    assert len(set(others)) == 1
    assert (written.nid, written.ksm, merged.ksm.cow_ksm) == (0, False, 1)
    copies = {"migrate_copies": 1} if policy == "merge_on_migrate" else {}
    assert counted(merged) == {"frames_moved": 1, "ksm_frames_moved": 1, "migrate_merged": 1, **copies}
    assert merged.ksm.pages_shared == 1


@pytest.mark.parametrize("policy", SUBSTITUTES)
@pytest.mark.parametrize(("max_page_sharing", "fits"), [(4, True), (3, False), (2, False)])
def test_a_twin_without_room_gets_a_dup(policy: str, max_page_sharing: int, fits: bool) -> None:
    met = machine(*PAIR, migrate("m", 0, 1, 1), policy=policy, max_page_sharing=max_page_sharing)
    shown = run(met)
    assert (shown["stable_node_chains"], shown["stable_node_dups"]) == ((0, 0) if fits else (1, 2))
    found = met.counted()
    assert (found["migrate_merged"], found["migrate_chained"]) == (int(fits), int(not fits))
    if not fits:
        assert met.ksm.root_stable_tree[1].rb_node.hlist[0].kpage is frames(met, "m")[0]


@pytest.mark.parametrize("policy", SUBSTITUTES)
def test_a_stale_twin_makes_room(policy: str) -> None:
    alone = machine(*PAIR, discard("k", 0, 2), migrate("m", 0, 1, 1), policy=policy)
    seen = observe(alone)
    assert counters(alone, seen[-2])["pages_shared"] == 2
    assert counters(alone, seen[-1])["pages_shared"] == 1
    assert alone.counted()["migrate_inserted"] == 1


@pytest.mark.parametrize("policy", SUBSTITUTES)
def test_the_first_dup_with_room_is_taken(policy: str) -> None:
    # k's six pages make three dups of two; the scans leave the last but one of them with one page, the first with none
    steps = (
        spawn(), mmap("m", 1), mmap("x", 1), mmap("k", 6, node=1), write("m", 7), write("x", 7), write("k", 7, 7, 7, 7, 7, 7),
        full_scan(2), write("x", 9), full_scan(), write("k", 8, 9, 8), full_scan(), migrate("m", 0, 1, 1),
    )  # fmt: skip
    met = machine(*steps, policy=policy, max_page_sharing=2, stable_node_chains_prune_millisecs=100_000_000)
    observe(met)
    assert met.counted()["migrate_merged"] == 1
    assert frames(met, "m") == frames(met, "k")[3:4]


@pytest.mark.parametrize("policy", SUBSTITUTES)
def test_a_chain_that_is_all_stale_goes(policy: str) -> None:
    steps = (
        spawn(), mmap("m", 2), mmap("k", 4, node=1), write("m", 7, 7), write("k", 7, 7, 7, 7), full_scan(2), discard("k", 0, 4),
        migrate("m", 0, 1, 1),
    )  # fmt: skip
    left = machine(*steps, policy=policy, max_page_sharing=2)
    seen = observe(left)
    assert counters(left, seen[-2])["stable_node_chains"] == 1
    assert counters(left, seen[-1])["stable_node_chains"] == 0
    assert left.counted()["migrate_inserted"] == 1


def test_the_frame_number_of_the_copy_is_free_again() -> None:
    merged = machine(*PAIR, migrate("m", 0, 1, 1), mmap("n", 1, node=1), write("n", 5), policy="substitute")
    observe(merged)
    before = machine(*PAIR, mmap("n", 1, node=1), write("n", 5), policy="substitute")
    observe(before)
    assert pfns_in_use(merged, 1) == pfns_in_use(before, 1)
    assert pfns_in_use(merged, 0) == []


# ---- break_cow


def test_break_cow_copies_every_mapping_and_ksmd_merges_them_again() -> None:
    broken = machine(*ALONE, migrate("m", 0, 1, 1), full_scan(), policy="break_cow")
    seen = observe(broken, 5)
    first, second = frames(broken, "m")
    assert first is not second
    assert (first.nid, second.nid, first.ksm, second.ksm) == (1, 1, False, False)
    assert (seen[-1]["status"], seen[-1]["cow_ksm"]) == ([1], 2)
    assert counters(broken, seen[-1])["pages_sharing"] == 1  # until ksmd passes
    assert counted(broken) == {"migrate_allocations": 2, "frames_moved": 1, "ksm_frames_moved": 1}
    broken.step(5)
    assert frames(broken, "m")[0] is frames(broken, "m")[1]
    assert nodes_of(broken, "m") == [1, 1]


def test_break_cow_stops_where_memory_ends() -> None:
    # of node 1's three frames one is free; the page scanned last is the first of the list
    broken = machine(
        *ALONE, mmap("n", 2, node=1), write("n", 8, 9), migrate("m", 0, 1, 1), migrate("m", 0, 1, 1),
        policy="break_cow", node_pages=3,
    )  # fmt: skip
    seen = observe(broken)
    assert [step["status"] for step in seen[-2:]] == [["ENOMEM"], ["ENOMEM"]]
    assert [(frame.nid, frame.ksm) for frame in frames(broken, "m")] == [(0, True), (1, False)]
    assert counted(broken) == {"migrate_allocations": 1, "migrate_failures": 2}


def test_break_cow_goes_by_the_list_and_then_by_age_of_the_process() -> None:
    broken = machine(*ALONE, fork("b"), migrate("m", 0, 1, 1), policy="break_cow")
    observe(broken)
    in_order = [
        frames(broken, "m")[1],
        frames(broken, "m", proc="b")[1],
        frames(broken, "m")[0],
        frames(broken, "m", proc="b")[0],
    ]
    assert [frame.pfn for frame in in_order] == [0, 1, 2, 3]


# ---- nuksm


def test_nuksm_moves_a_page_when_most_of_its_pages_have_another_home() -> None:
    across = machine(*ALONE, migrate("m", 0, 1, 1), rebind("m", 1), full_scan(), policy="nuksm", merge_across_nodes=1)
    seen = observe(across)
    assert seen[4]["status"] == ["EAGAIN"]
    assert nodes_of(across, "m") == [1, 1]
    assert counted(across) == {"frames_moved": 1, "ksm_frames_moved": 1}


def test_nuksm_lets_a_page_be_asked_home() -> None:
    asked = machine(*ALONE, rebind("m", 1), migrate("m", 0, 1, 1), policy="nuksm")
    assert observe(asked)[-1]["status"] == [1]
    assert counted(asked) == {"frames_moved": 1, "ksm_frames_moved": 1, "migrate_inserted": 1}


def test_nuksm_stays_where_it_is_if_nobody_is_in_the_majority() -> None:
    steps = (spawn(), mmap("m", 1), mmap("k", 1, node=1), write("m", 7), write("k", 7), full_scan(2))
    tie = machine(
        *steps, migrate("m", 0, 1, 0), migrate("m", 0, 1, 0, "hotremove"), full_scan(), policy="nuksm", merge_across_nodes=1
    )
    seen = observe(tie)
    assert [step.get("status") for step in seen[-3:]] == [["EAGAIN"], [0], None]
    assert nodes_of(tie, "m", "k") == [0, 0]


def test_nuksm_merges_with_the_twin_that_it_finds() -> None:
    met = machine(*PAIR, rebind("m", 1), full_scan(), policy="nuksm")
    shown = run(met)
    assert (shown["pages_shared"], shown["pages_sharing"]) == (1, 3)
    assert counted(met) == {"frames_moved": 1, "ksm_frames_moved": 1, "migrate_merged": 1}


def test_nuksm_moves_no_page_that_has_other_mappings() -> None:
    forked = machine(*ALONE, fork("b"), rebind("m", 1), knob("pages_to_scan", 2), {"op": "scan", "batches": 1}, policy="nuksm")
    observe(forked)
    assert counted(forked) == {}


def test_nuksm_waits_for_room() -> None:
    full = machine(*ALONE, mmap("n", 2, node=1), write("n", 8, 9), rebind("m", 1), full_scan(), policy="nuksm", node_pages=2)
    observe(full)
    assert counted(full) == {}
    assert nodes_of(full, "m") == [0, 0]


# ---- replicate


def test_replicate_gives_each_mapping_its_own_nodes_copy() -> None:
    copied = machine(*ALONE, migrate("m", 0, 1, 1), rebind("m", 1), full_scan(), write("m", 9), policy="replicate")
    seen = observe(copied, 7)
    assert seen[4]["status"] == ["EAGAIN"]
    first, second = frames(copied, "m")
    assert first is second
    assert (first.nid, first.ksm) == (1, True)
    shown = counters(copied, seen[-1])
    assert (shown["pages_shared"], shown["pages_sharing"]) == (1, 1)
    assert counted(copied) == {"migrate_allocations": 1}
    assert pfns_in_use(copied, 0) == []
    copied.step(7)
    assert (frames(copied, "m")[0].nid, copied.ksm.cow_ksm, copied.invariants()) == (1, 1, [])


@pytest.mark.parametrize(("max_page_sharing", "allocations"), [(4, 0), (3, 1), (2, 1)])
def test_replicate_joins_a_copy_while_there_is_room(max_page_sharing: int, allocations: int) -> None:
    joined = machine(*PAIR, rebind("m", 1), full_scan(), policy="replicate", max_page_sharing=max_page_sharing)
    shown = run(joined)
    assert counted(joined) == ({"migrate_allocations": allocations} if allocations else {})
    assert shown["pages_shared"] == 1 + allocations
    assert shown["stable_node_dups"] == 2 * allocations


def test_replicate_finds_no_room_at_every_visit() -> None:
    full = machine(
        *ALONE, mmap("n", 2, node=1), write("n", 8, 9), rebind("m", 1), full_scan(2), policy="replicate", node_pages=2
    )
    observe(full)
    assert counted(full) == {"migrate_failures": 4}
    assert nodes_of(full, "m") == [0, 0]


def test_replicate_leaves_pages_where_they_are_while_their_home_is_offline() -> None:
    away = machine(*ALONE, rebind("m", 1), offline(1), full_scan(), online(1), full_scan(), policy="replicate")
    observe(away, 8)
    assert nodes_of(away, "m") == [0, 0]
    away.step(8)
    assert nodes_of(away, "m") == [1, 1]


def test_replicate_moves_pages_for_hotremove_alone() -> None:
    removed = machine(*PAIR, migrate("m", 0, 1, 1, "hotremove"), policy="replicate")
    assert observe(removed)[-1]["status"] == [1]
    assert counted(removed) == {"frames_moved": 1, "ksm_frames_moved": 1, "migrate_merged": 1}
