"""What no recording shows: the clock of chain pruning, colliding checksums, freed memory, and that the invariants can fail."""

from collections.abc import Callable

import pytest

from reference import Machine
from reference.machine import Step
from reference.memory import Frame, get_page
from reference.state import MAX_JIFFY_OFFSET, StableNode, msecs_to_jiffies
from reference.steps import (
    ALONE,
    discard,
    frames,
    full_scan,
    knob,
    machine,
    migrate,
    mmap,
    numa_machine,
    run,
    scan,
    spawn,
    write,
)

MS = 1_000_000
NEVER = 100_000_000


# ---- the clock


@pytest.mark.parametrize(("milliseconds", "jiffies"), [(0, 0), (1, 1), (4, 1), (5, 2), (2000, 500), (NEVER, 25_000_000)])
def test_delays_are_rounded_up_to_jiffies_of_4_ms(milliseconds: int, jiffies: int) -> None:
    assert msecs_to_jiffies(milliseconds) == jiffies


def test_a_delay_that_is_negative_as_int_is_never_over() -> None:
    assert msecs_to_jiffies(2**31) == msecs_to_jiffies(2**32 - 1) == MAX_JIFFY_OFFSET


@pytest.mark.parametrize(("then_ms", "pruned"), [(0, False), (99, False), (100, True), (5000, True)])
@pytest.mark.parametrize("kernel", ["6.1", "6.12", "7.2"])
def test_a_chain_is_pruned_when_its_delay_is_over_to_the_jiffy(kernel: str, then_ms: int, pruned: bool) -> None:
    # two dups of two pages each; one of them becomes stale, and a page of greater content walks past the chain
    chain = machine(
        spawn(),
        mmap("m", 4),
        write("m", 7, 7, 7, 7),
        full_scan(2),
        discard("m", 0, 2),
        mmap("n", 1),
        write("n", 9),
        full_scan(2),
        kernel=kernel,
        max_page_sharing=2,
        stable_node_chains_prune_millisecs=100,
    )
    before = run(chain, 7)
    assert (before["stable_node_chains"], before["stable_node_dups"]) == (1, 2)
    chain.now_ns = then_ms * MS
    chain.step(7)
    assert (chain.events["chain walked to prune"] > 0) == pruned
    assert chain.invariants() == []


def test_pruning_starts_the_delay_anew() -> None:
    chain = machine(
        spawn(), mmap("m", 6), write("m", 7, 7, 7, 7, 7, 9), full_scan(2), full_scan(), full_scan(), full_scan(),
        max_page_sharing=2, stable_node_chains_prune_millisecs=100,
    )  # fmt: skip
    run(chain, 4)
    walks = []
    for index, now_ms in ((4, 100), (5, 199), (6, 200)):
        chain.now_ns = now_ms * MS
        chain.step(index)
        walks.append(chain.events["chain walked to prune"])
    assert walks == [1, 1, 2]


def test_time_that_stands_still_is_never_over() -> None:
    chain = machine(
        spawn(), mmap("m", 6), write("m", 7, 7, 7, 7, 7, 9), full_scan(9), max_page_sharing=2,
        stable_node_chains_prune_millisecs=1,
    )  # fmt: skip
    run(chain)
    assert chain.events["chain walked to prune"] == 0


# ---- the checksum gate


def everything_collides(content: int) -> int:
    return 1


def test_a_rewrite_that_keeps_its_checksum_passes_the_gate() -> None:
    steps = [spawn(), mmap("m", 2), write("m", 7, 8), full_scan(), write("m", 8, 9), full_scan()]
    assert run(machine(*steps))["pages_unshared"] == 0
    assert run(machine(*steps, checksum=everything_collides))["pages_unshared"] == 2


def test_pages_are_compared_whatever_their_checksums() -> None:
    steps = [spawn(), mmap("m", 3), write("m", 7, 8, 7), full_scan(2)]
    shown = run(machine(*steps, checksum=everything_collides))
    assert (shown["pages_shared"], shown["pages_sharing"], shown["pages_unshared"]) == (1, 1, 1)


@pytest.mark.parametrize("kernel", ["6.1", "6.12", "7.2"])
def test_a_page_with_the_checksum_of_zeros_is_not_taken_for_zeros(kernel: str) -> None:
    steps = [spawn(), mmap("m", 3), write("m", 0, 7, 7), full_scan(2)]
    shown = run(machine(*steps, kernel=kernel, checksum=everything_collides, use_zero_pages=1))
    assert (shown["pages_shared"], shown["pages_sharing"]) == (1, 1)
    assert shown.get("ksm_zero_pages", 1) == 1


def test_the_checksum_of_a_new_rmap_item_is_0() -> None:
    # so a page whose checksum happens to be 0 is merged on its first visit
    steps = [spawn(), mmap("m", 2), write("m", 7, 7), full_scan()]
    assert run(machine(*steps, checksum=lambda content: 0))["pages_sharing"] == 1
    assert run(machine(*steps))["pages_sharing"] == 0


# ---- freed memory


def forgotten_tree(*last: Step) -> Machine:
    """merge_across_nodes 0 -> 1 -> 0 in mid-scan: node 1's unstable tree was not reset by the scan in between."""
    return machine(
        spawn(), mmap("m", 4), mmap("k", 4, node=1), write("m", 1, 2, 3, 4), write("k", 11, 12, 13, 14), full_scan(2),
        knob("merge_across_nodes", 1), discard("k", 0, 2), full_scan(), knob("pages_to_scan", 5), scan(),
        knob("merge_across_nodes", 0), scan(), *last, merge_across_nodes=0,
    )  # fmt: skip


def test_walking_a_forgotten_unstable_tree_is_use_after_free() -> None:
    forgotten = forgotten_tree()
    run(forgotten, 12)
    assert forgotten.step(12)["undefined"].startswith("use after free: ")


def test_a_replay_ends_where_memory_is_freed() -> None:
    from reference import replay

    forgotten = forgotten_tree(full_scan())
    steps = replay(forgotten.document, "6.12")["steps"]
    assert len(steps) == 13
    assert list(steps[-1]) == ["undefined"]


def test_switching_between_scans_is_safe() -> None:
    safe = machine(
        spawn(), mmap("m", 4), mmap("k", 4, node=1), write("m", 1, 2, 3, 4), write("k", 11, 12, 13, 14), full_scan(2),
        knob("merge_across_nodes", 1), discard("k", 0, 2), full_scan(), knob("merge_across_nodes", 0), full_scan(),
        merge_across_nodes=0,
    )  # fmt: skip
    assert run(safe)["pages_unshared"] == 6


# ---- the invariants


def loose_items(ran: Machine) -> None:
    ran.ksm.mm_slots[0].rmap_list.pop()


def wrong_mapcount(ran: Machine) -> None:
    ran.mms["a"].page_table.popitem()


def lost_dup(ran: Machine) -> None:
    chain = ran.ksm.root_stable_tree[0].rb_node
    chain.hlist.pop()


def disorder(ran: Machine) -> None:
    chain = ran.ksm.root_stable_tree[0].rb_node
    chain.child[0], chain.child[1] = chain.child[1], chain.child[0]


def held_page(ran: Machine) -> None:
    get_page(next(page for page in ran.mms["a"].page_table.values() if isinstance(page, Frame)))


def miscount(ran: Machine) -> None:
    ran.ksm.pages_sharing += 1


@pytest.mark.parametrize("harm", [loose_items, wrong_mapcount, lost_dup, disorder, held_page, miscount])
def test_harm_breaks_an_invariant(harm: Callable[[Machine], None]) -> None:
    sound = machine(spawn(), mmap("m", 8), write("m", 7, 7, 7, 7, 5, 5, 9, 9), full_scan(3), max_page_sharing=2)
    run(sound)
    harm(sound)
    assert sound.invariants()


def forgotten_kpfn(ran: Machine) -> None:
    node: StableNode = ran.ksm.root_stable_tree[1].rb_node
    node.kpage = Frame(node.kpage.content, 1, 99)


def wrong_tree(ran: Machine) -> None:
    for frame in set(frames(ran, "m")):
        ran.ksm.nodes[0].frames[frame.pfn] = ran.ksm.nodes[1].frames.pop(frame.pfn)
        frame.nid = 0


def dangling_elsewhere(ran: Machine) -> None:
    frames(ran, "m")[0].dangling = True


def lost_frame_number(ran: Machine) -> None:
    ran.ksm.nodes[0].free.pop()


def in_use_and_offline(ran: Machine) -> None:
    ran.ksm.nodes[1].online = False


@pytest.mark.parametrize("harm", [forgotten_kpfn, wrong_tree, dangling_elsewhere, lost_frame_number, in_use_and_offline])
def test_harm_to_a_page_that_moved_breaks_an_invariant(harm: Callable[[Machine], None]) -> None:
    sound = numa_machine(*ALONE, migrate("m", 0, 1, 1), policy="substitute")
    run(sound)
    harm(sound)
    assert sound.invariants()


# ---- the survey


def test_a_grandchild_that_no_rmap_item_reaches_is_surveyed() -> None:
    steps = [
        spawn(), mmap("m", 1), {"op": "fork", "proc": "a", "child": "b"}, write("m", 7), write("m", 7, proc="b"),
        full_scan(2), {"op": "fork", "proc": "b", "child": "c"}, write("m", 1, proc="b"), knob("pages_to_scan", 1), scan(2),
    ]  # fmt: skip
    orphan = machine(*steps)
    run(orphan)
    assert orphan.survey() == {"unreachable_mappings": 1, "duplicates_left": 0, "stranded_pages": 0}


def test_dups_of_a_chain_are_duplicates_left() -> None:
    chain = machine(spawn(), mmap("m", 6), write("m", 7, 7, 7, 7, 7, 7), full_scan(2), max_page_sharing=2)
    run(chain)
    assert chain.survey() == {"unreachable_mappings": 0, "duplicates_left": 2, "stranded_pages": 0}
