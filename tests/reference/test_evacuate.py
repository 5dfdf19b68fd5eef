"""Nodes that go and come back, ranges that are to be emptied, faults on full nodes: which pages move, and to which frames.

Scenarios are small enough to be worked out by hand; what policies make of stable nodes is in test_policies.
"""

import pytest

from reference.numa import OutOfMemory
from reference.policies import POLICIES
from reference.steps import (
    ALONE,
    PAIR,
    cma,
    counted,
    counters,
    discard,
    frames,
    full_scan,
    migrate,
    mmap,
    nodes_of,
    observe,
    offline,
    online,
    pfns_in_use,
    spawn,
    write,
)
from reference.steps import numa_machine as machine


@pytest.mark.parametrize("policy", POLICIES)
def test_a_node_goes_with_all_its_pages_and_comes_back(policy: str) -> None:
    removed = machine(
        *ALONE, mmap("n", 1), write("n", 5), offline(0), offline(0), write("n", 6), write("m", 9), online(0),
        write("m", None, 9), policy=policy,
    )  # fmt: skip
    seen = observe(removed)
    assert [step["errno"] for step in seen[6:8]] == [0, "EINVAL"]
    in_place = policy == "break_cow"  # no KSM page is left to be copied
    assert nodes_of(removed, "n", "m") == [1, 1, 1 if in_place else 0]
    found = removed.counted()
    assert (found["offline_tried"], found["offline_missed"]) == (1, 0)
    assert (found["frames_moved"], found["ksm_frames_moved"]) == (2, 1)


def test_a_node_stays_if_one_page_stays() -> None:
    kept = machine(*ALONE, mmap("n", 1), write("n", 5), offline(0), write("m", 9), policy="substitute", callers=("cma",))
    assert observe(kept)[6]["errno"] == "EBUSY"
    assert counted(kept) == {"offline_tried": 1, "offline_missed": 1, "migrate_refused": 1, "frames_moved": 1}
    assert nodes_of(kept, "m", "n") == [0, 0, 1]


def test_a_node_stays_if_the_others_are_full() -> None:
    kept = machine(spawn(), mmap("m", 3), write("m", 1, 2, 3), offline(0), policy="mainline", node_pages=2)
    assert observe(kept)[-1]["errno"] == "EBUSY"
    assert counted(kept) == {"offline_tried": 1, "offline_missed": 1, "migrate_failures": 1, "frames_moved": 1}
    assert pfns_in_use(kept, 1) == [0, 1]  # the third page was written there


def test_stale_nodes_go_with_the_memory_of_their_pages() -> None:
    stale = machine(*PAIR, discard("m", 0, 2), discard("k", 0, 2), offline(1), offline(0), policy="substitute")
    assert [counters(stale, step)["pages_shared"] for step in observe(stale)[-4:]] == [2, 2, 1, 0]


def test_a_stale_node_goes_with_the_node_on_which_its_page_was_last() -> None:
    # it hangs in the tree of node 0, as ksmd has not passed since
    steps = (*ALONE, migrate("m", 0, 1, 1), discard("m", 0, 2), offline(0), online(0), offline(1))
    stale = machine(*steps, policy="mainline")
    assert [counters(stale, step)["pages_shared"] for step in observe(stale)[-3:]] == [1, 1, 0]


@pytest.mark.parametrize("policy", POLICIES)
def test_faults_fall_back_to_the_other_node_and_then_end(policy: str) -> None:
    steps = (spawn(), mmap("m", 5), write("m", 1, 2, 3, 4), write("m", 1, 2, 3, 4, 5))
    small = machine(*steps, policy=policy, node_pages=2)
    observe(small, 3)
    assert [frame.nid for frame in frames(small, "m")[:4]] == [0, 0, 1, 1]
    with pytest.raises(OutOfMemory):
        small.step(3)


# ---- ranges


def test_a_range_is_emptied_and_its_lowest_frame_comes_first() -> None:
    emptied = machine(
        spawn(), mmap("m", 4), mmap("n", 1), write("m", 1, 2, 3, 4), cma(0, 2), write("n", 5), policy="mainline", node_pages=8
    )  # fmt: skip
    seen = observe(emptied)
    assert seen[4]["errno"] == 0
    assert [frame.pfn for frame in frames(emptied, "m", "n")] == [4, 5, 2, 3, 0]
    assert counted(emptied) == {"cma_tried": 1, "frames_moved": 2}


def test_frames_below_a_range_that_were_never_used_come_after_it() -> None:
    steps = (spawn(), mmap("m", 1), mmap("n", 6), write("m", 1), cma(8 + 4, 2), cma(4, 2), write("n", 2, 3, 4, 5, 6, 7))
    emptied = machine(*steps, policy="mainline", node_pages=8)
    observe(emptied)
    assert [frame.pfn for frame in frames(emptied, "m", "n")] == [0, 4, 5, 1, 2, 3, 6]
    assert counted(emptied) == {"cma_tried": 2}


def test_a_range_of_a_full_node_stays() -> None:
    full = machine(
        spawn(), mmap("m", 4), write("m", 1, 2, 3, 4), cma(0, 2), discard("m", 3, 1), cma(0, 2), policy="mainline", node_pages=4
    )
    seen = observe(full)
    assert [seen[3]["errno"], seen[5]["errno"]] == ["EBUSY", "EBUSY"]
    assert counted(full) == {"cma_tried": 2, "cma_missed": 2, "migrate_failures": 3, "frames_moved": 1}
    assert [frame.pfn for frame in frames(full, "m")[:3]] == [3, 1, 2]


@pytest.mark.parametrize("policy", POLICIES)
def test_no_policy_minds_a_move_within_a_node(policy: str) -> None:
    moved = machine(*ALONE, cma(0, 2), full_scan(), policy=policy, node_pages=8)
    seen = observe(moved)
    assert seen[-2]["errno"] == 0
    assert counted(moved) == {"cma_tried": 1, "frames_moved": 1, "ksm_frames_moved": 1}
    shown = counters(moved, seen[-1])
    assert (shown["pages_shared"], shown["pages_sharing"]) == (1, 1)


def test_a_range_with_a_page_that_may_not_move_stays() -> None:
    refused = machine(*ALONE, cma(0, 2), policy="mainline", callers=("hotremove", "compaction"), node_pages=8)
    assert observe(refused)[-1]["errno"] == "EBUSY"
    assert counted(refused) == {"cma_tried": 1, "cma_missed": 1, "migrate_refused": 1}


def test_a_range_with_a_dangling_page_stays() -> None:
    dangling = machine(*ALONE, migrate("m", 0, 1, 1), cma(8, 1), policy="v4", node_pages=8)
    assert observe(dangling)[-1]["errno"] == "EBUSY"
    found = dangling.counted()
    assert (found["corruptions"], found["migrate_stuck"], found["cma_missed"]) == (1, 1, 1)


@pytest.mark.parametrize("op", ["compaction", "thp"])
def test_a_huge_page_is_512_frames_wherever_nodes_begin(op: str) -> None:
    # frame 1024 is number 24 of node 1
    steps = (spawn(), mmap("m", 1, node=1), write("m", 1), cma(1000, 24), {"op": op, "first": 1024})
    huge = machine(*steps, policy="mainline", node_pages=1000)
    observe(huge, 4)
    assert pfns_in_use(huge, 1) == [24]
    assert huge.step(4)["errno"] == 0
    assert pfns_in_use(huge, 1) == [0]
    assert counted(huge) == {"cma_tried": 1, f"{op}_tried": 1, "frames_moved": 2}
