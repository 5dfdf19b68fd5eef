"""Is each step right in the policies under which a KSM page that moves is none any more, or has no node any more?

mm 0 is at home on node 0 (HERE), mm 1 on node 1 (THERE); pages of content 3 move from HERE to THERE.
"""

from unit.kernels.moving import (
    HERE,
    THERE,
    assert_sane,
    chains,
    counted,
    dups_at,
    fork,
    items_of,
    move,
    moves,
    nids_of,
    node_at,
    node_counters,
    share,
    two_homes,
)
from unit.kernels.tiny import fill, frames_of, shares, visit

from ksmbatch import state
from ksmbatch.codes import Move, Policy
from ksmbatch.kernels import fault, stable_tree
from ksmbatch.state import NIL, NO_FRAME

MOVED = {"frames_moved": 1, "ksm_frames_moved": 1}


# break_cow


def test_break_cow_gives_every_mapping_a_copy_of_its_own_on_the_new_node() -> None:
    s = two_homes((3, 3), (3,), Policy.BREAK_COW)
    node, twin = share(s, 0, 1), share(s, 4)
    assert move(s, 0, 1) == [THERE]
    assert moves(s) == MOVED | {"migrate_allocations": 2}
    assert counted(s, "cow_ksm") == [2]
    assert nids_of(s, 0, 1) == [THERE, THERE]
    assert frames_of(s)[:2] == [8, 1]  # page 0's own frame was the KSM page when its copy was made
    assert not s.frame_bytes[frames_of(s)[:2], state.FRAME_FLAGS].any()
    assert (dups_at(s, 0, 3), dups_at(s, 1, 3)) == ([node], [twin])
    assert s.nodes[node, state.KPFN] == NO_FRAME  # stale; its rmap_items stay until ksmd passes
    assert items_of(s, node) == [1, 0]
    assert node_counters(s) == {"mapped_pages": [2, 1], "frames": [0, 3], "ksm_frames": [0, 1], "remote_mappings": [2, 0]}
    assert_sane(s)
    visit(s, 2)
    assert items_of(s, twin) == [1, 0, 4]  # ksmd merges them again
    assert_sane(s)


def test_break_cow_stops_where_the_node_is_full_and_the_mappings_that_are_left_keep_the_page() -> None:
    s = two_homes((3, 3, 3), (1, 2), Policy.BREAK_COW, node_pages=4)
    share(s, 0, 1, 2)
    assert move(s, 0, 1) == [Move.FULL]
    assert moves(s) == {"migrate_allocations": 2, "migrate_failures": 1}
    assert counted(s, "cow_ksm") == [2]
    assert nids_of(s, 0, 1, 2) == [HERE, THERE, THERE]  # in the order of the hlist: page 2, page 1, page 0
    assert items_of(s, node_at(s, 0)) == [2, 1, 0]
    assert_sane(s)
    assert move(s, 0, 1) == [Move.FULL]
    assert moves(s) == {"migrate_allocations": 2, "migrate_failures": 2}
    fault.zap_pages(s, 4, 5)
    assert move(s, 0, 1) == [THERE]
    assert moves(s) == MOVED | {"migrate_allocations": 3, "migrate_failures": 2}
    assert_sane(s)


def test_break_cow_copies_for_relatives_of_a_fork_right_after_the_item_that_leads_to_them() -> None:
    s = two_homes((3, 3), (), Policy.BREAK_COW)
    share(s, 0, 1)
    relatives = fork(s)
    s.numa[THERE, state.NODE_PAGES] = 2
    assert move(s, 0, 1, of=relatives) == [Move.FULL]
    assert nids_of(s, 0, 1, 4, 5) == [HERE, THERE, HERE, THERE]  # in the order 1 5 0 4
    assert_sane(s)


# v4


def dangling(*contents: int, **knobs: int) -> state.State:
    """Pages of content 3 share a KSM page that has moved, so that it dangles."""
    s = two_homes(contents, (), Policy.V4, **knobs)
    share(s, *[page for page, content in enumerate(contents) if content == 3])
    assert move(s, 0, 1) == [THERE]
    return s


def test_v4_frees_the_node_and_leaves_the_page_dangling() -> None:
    s = two_homes((3, 3, 3), (3,), Policy.V4)
    node, twin = share(s, 0, 1, 2), share(s, 4)
    assert move(s, 0, 1) == [THERE]
    assert moves(s) == MOVED | {"dangling_pages": 1}
    assert frames_of(s)[:3] == [0, 0, 0]
    assert nids_of(s, 0) == [THERE]
    assert s.frame_bytes[0, state.FRAME_FLAGS] == state.KSM | state.DANGLING
    assert s.frames[0, state.FRAME_NODE] == NIL
    assert s.nodes[node, state.WHERE] == state.FREE
    assert (dups_at(s, 0, 3), dups_at(s, 1, 3)) == ([], [twin])
    # the rmap_items are forgotten, but they are still there
    assert s.page_bytes[:3, state.ITEM_FLAGS].tolist() == [state.ITEM] * 3
    assert shares(s) == (1, 0, 0)
    assert s.mms[:, state.MERGING].tolist() == [0, 1]
    assert counted(s, "ksm_rmap_items") == [4]
    assert node_counters(s)["ksm_frames"] == [0, 2]
    assert_sane(s)


def test_under_v4_a_dup_leaves_its_chain_to_the_others() -> None:
    s = two_homes((3, 3), (), Policy.V4)
    stays, goes = share(s, 1), share(s, 0)
    assert dups_at(s, 0, 3) == [goes, stays]
    assert move(s, 0, 1) == [THERE]
    assert dups_at(s, 0, 3) == [stays]
    assert chains(s) == [1, 1]
    assert_sane(s)


def test_each_pte_of_a_dangling_page_that_is_cleared_reads_freed_memory() -> None:
    s = dangling(3, 3, 3, 3)
    fault.zap_pages(s, 0, 1)
    assert moves(s) == MOVED | {"corruptions": 1, "dangling_pages": 1}
    fill(s, 5, first=1)  # copied on write
    assert counted(s, "corruptions", "cow_ksm") == [2, 1]
    fault.unmerge_pages(s, 2, 3)
    assert counted(s, "corruptions", "cow_ksm", "dangling_pages") == [3, 2, 1]
    fault.zap_pages(s, 3, 4)  # the last
    assert moves(s) == MOVED | {"corruptions": 4}
    assert s.frames[0, state.MAPCOUNT] == 0
    assert_sane(s)


def test_each_visit_of_ksmd_to_a_dangling_page_reads_freed_memory_and_does_nothing_else() -> None:
    s = dangling(3, 3, 3, ksm_visit_ns=7)
    checksums = s.pages[:, state.CHECKSUM].tolist()
    visit(s)
    assert counted(s, "corruptions", "pages_scanned", "ksmd_cpu_ns") == [3, 3, 21]
    assert s.pages[:, state.CHECKSUM].tolist() == checksums
    assert s.page_bytes[:3, state.ITEM_FLAGS].tolist() == [state.ITEM] * 3
    assert shares(s) == (0, 0, 0)
    assert_sane(s)


def test_nobody_finds_the_mappings_of_a_dangling_page_so_it_is_stuck() -> None:
    s = dangling(3, 3)
    assert move(s, 0, 2, HERE) == [Move.STUCK, Move.STUCK]
    assert moves(s) == MOVED | {"corruptions": 2, "migrate_stuck": 2, "dangling_pages": 1}
    assert move(s, 0, 1, THERE) == [THERE]  # but it is there
    s.numa[HERE, state.OFFLINE] = 1
    assert move(s, 0, 1, HERE) == [Move.FULL]
    assert moves(s) == MOVED | {"corruptions": 2, "migrate_stuck": 2, "dangling_pages": 1, "migrate_failures": 1}


def test_a_fork_maps_a_dangling_page_without_looking_at_its_node() -> None:
    s = dangling(3, 3)
    fork(s)
    assert frames_of(s)[0::4] == [0, 0]
    assert moves(s) == MOVED | {"dangling_pages": 1}
    assert_sane(s)


def test_dangling_pages_have_no_node_that_would_keep_a_knob_busy() -> None:
    s = dangling(3, 3)
    assert shares(s) == (0, 0, 0)
    assert not stable_tree.remove_all_stable_nodes(s)
