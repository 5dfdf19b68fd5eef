"""Is every rule able to fail? A sane machine in mid-scan, one number of it changed, and the rule that must notice.

One change may break several rules; the test asks for the one that is named.
"""

from collections.abc import Callable

import numpy as np
import pytest
from invariants import broken_rest
from invariants.a_machine import item_in_tree, sane, with_lines

from ksmbatch import state
from ksmbatch.codes import Policy
from ksmbatch.invariants import RULES, check_invariants
from ksmbatch.metrics import Counter, NodeCounter
from ksmbatch.state import Knob, Scan, State


def chain_of(s: State) -> int:
    return int(np.flatnonzero(s.nodes[:, state.LEN] == state.STABLE_NODE_CHAIN)[0])


def ksm_frame(s: State) -> int:
    return int(np.flatnonzero(s.frames[:, state.FRAME_NODE] != state.NIL)[0])


def lose_the_anon_vma(s: State) -> None:
    s.page_bytes[0, state.PAGE_FLAGS] &= np.uint8(0xFF & ~state.ANON)
    s.page_bytes[1, state.PAGE_FLAGS] &= np.uint8(0xFF & ~state.ANON)


def map_both_a_frame_and_the_zero_page(s: State) -> None:
    s.page_bytes[1, state.PAGE_FLAGS] |= np.uint8(state.ZERO)


def count_a_mapping_twice(s: State) -> None:
    s.frames[ksm_frame(s), state.MAPCOUNT] += 1


def lose_the_free_frames(s: State) -> None:
    assert s.scan[Scan.FREE_FRAME] != state.NO_FRAME
    s.scan[Scan.FREE_FRAME] = state.NO_FRAME


def keep_a_node_on_a_free_frame(s: State) -> None:
    s.frames[int(s.scan[Scan.FREE_FRAME]), state.FRAME_NODE] = 1


def count_a_frame_twice(s: State) -> None:
    s.node_counters[1, NodeCounter.FRAMES] += 1


def count_a_remote_mapping_twice(s: State) -> None:
    s.node_counters[0, NodeCounter.REMOTE_MAPPINGS] += 1


def count_a_frame_in_use_twice(s: State) -> None:
    s.counters[Counter.FRAMES_IN_USE] += 1


def forget_the_peak(s: State) -> None:
    s.counters[Counter.PEAK_FRAMES] = 1


def make_a_node_smaller_than_what_it_holds(s: State) -> None:
    s.numa[1, state.NODE_PAGES] = s.node_counters[1, NodeCounter.FRAMES] - 1


def number_more_frames_than_a_node_has(s: State) -> None:
    in_use = s.node_counters[0, NodeCounter.FRAMES]
    assert s.pfns[0, state.LAST_PFN] > in_use
    s.numa[0, state.NODE_PAGES] = in_use


def take_a_node_offline_with_all_that_is_on_it(s: State) -> None:
    s.numa[1, state.OFFLINE] = 1


def dangling_frame(s: State) -> int:
    return int(np.flatnonzero(s.frame_bytes[:, state.FRAME_FLAGS] & state.DANGLING)[0])


def count_a_dangling_page_twice(s: State) -> None:
    s.counters[Counter.DANGLING_PAGES] += 1


def leave_a_node_to_a_dangling_page(s: State) -> None:
    s.frames[dangling_frame(s), state.FRAME_NODE] = s.frames[ksm_frame(s), state.FRAME_NODE]


def let_a_page_dangle_that_is_no_ksm_page(s: State) -> None:
    s.frame_bytes[dangling_frame(s), state.FRAME_FLAGS] = state.DANGLING


def let_a_page_dangle_under_a_policy_that_knows_better(s: State) -> None:
    s.knobs[Knob.POLICY] = Policy.SUBSTITUTE
    s.counters[Counter.CORRUPTIONS] = 0


def follow_a_dangling_node_where_there_is_none(s: State) -> None:
    s.counters[Counter.CORRUPTIONS] += 1


def leave_a_page_marked(s: State) -> None:
    s.page_bytes[3, state.PAGE_FLAGS] |= state.SEEN


def take_a_pfn_twice(s: State) -> None:
    used = np.flatnonzero(s.frames[:, state.MAPCOUNT])
    s.frame_pfns[used[0]] = s.frame_pfns[used[1]]


def lose_the_free_pfns(s: State) -> None:
    assert s.pfns[0, state.FREE_PFN] != state.NIL
    s.pfns[0, state.FREE_PFN] = state.NIL


def count_a_zero_page_twice(s: State) -> None:
    s.counters[Counter.KSM_ZERO_PAGES] += 1


def give_an_mm_one_item_more(s: State) -> None:
    s.mms[0, state.ITEMS] += 1


def give_an_mm_one_merging_page_less(s: State) -> None:
    s.mms[0, state.MERGING] -= 1


def hang_an_item_in_two_trees(s: State) -> None:
    s.page_bytes[item_in_tree(s, 1), state.ITEM_FLAGS] |= np.uint8(state.STABLE)


def share_one_page_less(s: State) -> None:
    s.counters[Counter.PAGES_SHARING] -= 1


def leave_a_page_unshared(s: State) -> None:
    s.counters[Counter.PAGES_UNSHARED] += 1


def long_node(s: State) -> int:
    """A stable node in which more than one page hangs."""
    return int(np.flatnonzero((s.nodes[:, state.LEN] > 1) & (s.nodes[:, state.WHERE] != state.FREE))[0])


def let_the_first_member_leave_unnoticed(s: State) -> None:
    s.members[s.nodes[long_node(s), state.FIRST], state.MEMBER_PAGE] = -1


def count_a_member_that_left_twice(s: State) -> None:
    s.nodes[long_node(s), state.N_LEFT] += 1


def cut_the_list_of_members(s: State) -> None:
    s.members[s.nodes[long_node(s), state.FIRST], state.MEMBER_NEXT] = state.NIL


def hang_a_member_in_another_node(s: State) -> None:
    s.members[s.nodes[long_node(s), state.FIRST], state.MEMBER_NODE] += 1


def make_a_node_longer_than_it_is(s: State) -> None:
    s.nodes[s.frames[ksm_frame(s), state.FRAME_NODE], state.LEN] += 1


def give_a_page_another_head(s: State) -> None:
    s.pages[np.flatnonzero(s.page_bytes[:, state.ITEM_FLAGS] & state.STABLE)[0], state.HEAD] += 1


def lose_the_free_members(s: State) -> None:
    assert s.scan[Scan.FREE_MEMBER] != state.NIL
    s.scan[Scan.FREE_MEMBER] = state.NIL


def lose_a_node_on_the_way_to_migrate_nodes(s: State) -> None:
    s.nodes[s.frames[ksm_frame(s), state.FRAME_NODE], state.WHERE] = state.IN_MIGRATE


def give_a_frame_anothers_node(s: State) -> None:
    s.frames[ksm_frame(s), state.FRAME_NODE] += 1


def write_to_a_ksm_frame_in_place(s: State) -> None:
    s.frames[ksm_frame(s), state.FRAME_CONTENT] += 1


def root_of_shape(s: State) -> int:
    root = int(s.trees[state.STABLE_ROOT, 0])
    assert (s.stable_links[0, root, [state.LEFT, state.RIGHT]] != state.NIL).any()  # walks have been made here
    return root


def paint_the_root_red(s: State) -> None:
    s.stable_links[0, root_of_shape(s), state.BLACK] = 0


def hang_the_root_below_itself(s: State) -> None:
    root = root_of_shape(s)
    s.stable_links[0, root, state.RIGHT] = root


def content_in_tree(s: State, nid: int = 0) -> int:
    return int(np.flatnonzero(s.by_content[nid, :, state.STABLE_AT])[0])


def log(s: State, entry: int, nid: int = 0) -> None:
    s.stable_log[nid, s.trees[state.STABLE_LOGGED, nid]] = entry
    s.trees[state.STABLE_LOGGED, nid] += 1


def log_an_insertion_of_what_is_there(s: State) -> None:
    log(s, content_in_tree(s) + 1)


def log_an_erasure_of_what_is_not_there(s: State) -> None:
    missing = int(np.flatnonzero(s.by_content[0, :, state.STABLE_AT] == state.NIL)[0])
    log(s, -missing - 1)


def log_an_insertion_twice_and_an_erasure_so_that_all_is_there_in_the_end(s: State) -> None:
    for entry in (1, 1, -1):
        log(s, entry * (content_in_tree(s) + 1))


def log_nothing(s: State) -> None:
    log(s, 0)


def overlook_a_content_in_the_index(s: State) -> None:
    s.stable_index[0, (root_of_shape(s) - 1) // 32] ^= np.uint32(1 << (root_of_shape(s) - 1) % 32)


def overlook_a_word_of_the_index(s: State) -> None:
    s.stable_index[0, -1] = 0


def forget_where_a_content_hangs(s: State) -> None:
    s.by_content[:, :, state.STABLE_AT] = state.NIL


def give_two_nodes_one_key(s: State) -> None:
    assert root_of_shape(s) != state.NIL
    s.rank[:] = 1
    s.stable_links[:, :, state.KEY] = 1


def hang_a_node_where_another_content_belongs(s: State) -> None:
    s.nodes[s.by_content[0, content_in_tree(s), state.STABLE_AT], state.CONTENT] += 1


def hang_a_node_into_another_nodes_tree(s: State) -> None:
    s.nodes[s.by_content[0, content_in_tree(s), state.STABLE_AT], state.NID] = 1


def forget_one_content_of_the_shape(s: State) -> None:
    log(s, -content_in_tree(s) - 1)


def move_a_ksm_frame_and_leave_its_node_behind(s: State) -> None:
    s.frame_bytes[ksm_frame(s), state.FRAME_NID] ^= 1


def let_a_node_wait_on_migrate_nodes(s: State) -> None:
    s.scan[Scan.MIGRATE_FIRST] = s.frames[ksm_frame(s), state.FRAME_NODE]


def note_another_key(s: State) -> None:
    s.stable_links[0, root_of_shape(s), state.KEY] += 1


def overlook_a_chain_on_the_way(s: State) -> None:
    chain = chain_of(s)
    s.stable_links[s.nodes[chain, state.NID], s.nodes[chain, state.CONTENT] + 1, state.LOOK] = 0


def overlook_what_is_below_the_root(s: State) -> None:
    root = root_of_shape(s)
    assert s.stable_links[0, root, state.ANY]
    s.stable_links[0, root, state.ANY] = 0


def lose_a_dup(s: State) -> None:
    chain = chain_of(s)
    s.nodes[chain, state.FIRST] = s.nodes[s.nodes[chain, state.FIRST], state.NEXT]


def give_a_dup_another_chain(s: State) -> None:
    s.nodes[s.nodes[chain_of(s), state.FIRST], state.CHAIN] = 0


def count_a_stale_dup_more(s: State) -> None:
    s.nodes[chain_of(s), state.STALE_DUPS] += 1


def count_a_dup_with_room_more(s: State) -> None:
    s.nodes[chain_of(s), state.ROOMY_DUPS] += 1


def forget_the_chain_that_was_pruned_first(s: State) -> None:
    assert s.trees[state.OLDEST_CHAIN, 0] != s.trees[state.NEWEST_CHAIN, 0]
    s.trees[state.OLDEST_CHAIN, 0] = s.nodes[s.trees[state.OLDEST_CHAIN, 0], state.NEWER]


def prune_a_chain_unnoticed(s: State) -> None:
    s.node_prune_time[s.trees[state.OLDEST_CHAIN, 0]] = s.node_prune_time[s.trees[state.NEWEST_CHAIN, 0]] + 1


def cut_a_chains_link_back(s: State) -> None:
    s.nodes[s.trees[state.NEWEST_CHAIN, 0], state.OLDER] = state.NIL


def take_the_first_chain_for_the_last(s: State) -> None:
    s.trees[state.NEWEST_CHAIN, 0] = s.trees[state.OLDEST_CHAIN, 0]


def overlook_a_stale_node(s: State) -> None:
    assert s.trees[state.STABLE_HOT, 0] > 0
    s.trees[state.STABLE_HOT, 0] -= 1


def count_a_chain_more(s: State) -> None:
    s.trees[state.STABLE_CHAINS, 1] += 1


def note_the_wrong_dup(s: State) -> None:
    settled = np.flatnonzero(s.nodes[:, state.SETTLED] != state.UNSETTLED)[0]
    s.nodes[settled, state.FOUND] = state.NIL


def give_a_dup_the_stamp_of_the_next(s: State) -> None:
    first = np.flatnonzero((s.nodes[:, state.WHERE] == state.IN_CHAIN) & (s.nodes[:, state.NEXT] != state.NIL))[0]
    s.nodes[first, state.STAMP] = s.nodes[s.nodes[first, state.NEXT], state.STAMP]


def look_for_the_fullest_in_another_chain(s: State) -> None:
    chain = chain_of(s)
    others = (s.nodes[:, state.WHERE] == state.IN_CHAIN) & (s.nodes[:, state.CHAIN] != chain)
    s.nodes[chain, state.TOP_FROM] = np.flatnonzero(others)[0]


def expect_less_in_dups_with_room(s: State) -> None:
    roomy = (s.nodes[:, state.WHERE] == state.IN_CHAIN) & (s.nodes[:, state.LEN] == s.knobs[Knob.MAX_PAGE_SHARING] - 1)
    s.nodes[s.nodes[np.flatnonzero(roomy)[0], state.CHAIN], state.TOP] = 1


def look_for_room_behind_the_first_that_has_some(s: State) -> None:
    of_chain = (s.nodes[:, state.WHERE] == state.IN_CHAIN) & (s.nodes[:, state.LEN] < s.knobs[Knob.MAX_PAGE_SHARING])
    roomy = np.flatnonzero(of_chain & (s.nodes[:, state.NEXT] != state.NIL))[0]
    s.nodes[s.nodes[roomy, state.CHAIN], state.ROOM_FROM] = s.nodes[roomy, state.NEXT]


def cut_the_list_of_mms(s: State) -> None:
    s.mms[s.scan[Scan.SLOT_FIRST], state.SLOT_NEXT] = state.NO_MM


def move_the_cursor_out_of_its_mm(s: State) -> None:
    s.scan[Scan.CUR_PAGE] = s.mms[s.scan[Scan.CUR_MM], state.END_PAGE] + 1


def unregister_a_living_mm(s: State) -> None:
    s.mms[s.scan[Scan.SLOT_FIRST], state.REGISTERED] = 0


def log_an_erasure_of_a_page_that_is_still_there(s: State) -> None:
    s.unstable_log[:3] = item_in_tree(s, 1), 0, 0
    s.scan[Scan.LOG_END] = 1


def forget_a_page_of_the_unstable_tree(s: State) -> None:
    s.by_content[0, s.pages[item_in_tree(s, 0), state.CHECKSUM], state.UNSTABLE_AT] = 0


def change_a_page_unnoticed(s: State) -> None:
    page = item_in_tree(s, 1)
    s.frames[s.pages[page, state.FRAME], state.FRAME_CONTENT] += 1


def hide_a_page_unnoticed(s: State) -> None:
    s.page_bytes[item_in_tree(s, 1), state.PAGE_FLAGS] &= np.uint8(0xFF & ~state.MERGEABLE)


CASES: list[tuple[str, Callable[[State], None]]] = [
    ("pages_map_what_there_is", lose_the_anon_vma),
    ("pages_map_what_there_is", map_both_a_frame_and_the_zero_page),
    ("mapcounts_are_recounted", count_a_mapping_twice),
    ("free_frames_are_free", lose_the_free_frames),
    ("free_frames_are_free", keep_a_node_on_a_free_frame),
    ("frames_of_nodes_are_recounted", count_a_frame_twice),
    ("frames_of_nodes_are_recounted", count_a_remote_mapping_twice),
    ("frames_in_use_are_recounted", count_a_frame_in_use_twice),
    ("frames_in_use_are_recounted", forget_the_peak),
    ("nodes_hold_no_more_than_they_can", make_a_node_smaller_than_what_it_holds),
    ("nodes_hold_no_more_than_they_can", number_more_frames_than_a_node_has),
    ("nodes_hold_no_more_than_they_can", take_a_node_offline_with_all_that_is_on_it),
    ("dangling_pages_are_v4s", count_a_dangling_page_twice),
    ("dangling_pages_are_v4s", leave_a_node_to_a_dangling_page),
    ("dangling_pages_are_v4s", let_a_page_dangle_that_is_no_ksm_page),
    ("dangling_pages_are_v4s", let_a_page_dangle_under_a_policy_that_knows_better),
    ("dangling_pages_are_v4s", follow_a_dangling_node_where_there_is_none),
    ("no_rmap_walk_is_under_way", leave_a_page_marked),
    ("pfns_are_taken_or_free_once", take_a_pfn_twice),
    ("pfns_are_taken_or_free_once", lose_the_free_pfns),
    ("zero_pages_are_recounted", count_a_zero_page_twice),
    ("rmap_items_are_recounted", give_an_mm_one_item_more),
    ("rmap_items_are_recounted", give_an_mm_one_merging_page_less),
    ("rmap_items_are_where_they_may_be", hang_an_item_in_two_trees),
    ("counters_of_pages_are_recounted", share_one_page_less),
    ("counters_of_pages_are_recounted", leave_a_page_unshared),
    ("members_are_the_items_of_their_node", let_the_first_member_leave_unnoticed),
    ("members_are_the_items_of_their_node", count_a_member_that_left_twice),
    ("members_are_the_items_of_their_node", cut_the_list_of_members),
    ("members_are_the_items_of_their_node", hang_a_member_in_another_node),
    ("members_are_the_items_of_their_node", make_a_node_longer_than_it_is),
    ("members_are_the_items_of_their_node", give_a_page_another_head),
    ("members_are_the_items_of_their_node", lose_the_free_members),
    ("stable_nodes_are_where_they_say", lose_a_node_on_the_way_to_migrate_nodes),
    ("ksm_frames_and_nodes_name_each_other", give_a_frame_anothers_node),
    ("ksm_frames_and_nodes_name_each_other", write_to_a_ksm_frame_in_place),
    ("stable_trees_are_red_black", paint_the_root_red),
    ("stable_trees_are_red_black", hang_the_root_below_itself),
    ("stable_logs_fit_their_shapes", log_an_insertion_of_what_is_there),
    ("stable_logs_fit_their_shapes", log_an_erasure_of_what_is_not_there),
    ("stable_logs_fit_their_shapes", log_an_insertion_twice_and_an_erasure_so_that_all_is_there_in_the_end),
    ("stable_logs_fit_their_shapes", log_nothing),
    ("stable_indexes_have_what_is_in_shape", overlook_a_content_in_the_index),
    ("stable_indexes_have_what_is_in_shape", overlook_a_word_of_the_index),
    ("keys_of_stable_trees_ascend", forget_where_a_content_hangs),
    ("keys_of_stable_trees_ascend", give_two_nodes_one_key),
    ("keys_of_stable_trees_ascend", note_another_key),
    ("keys_of_stable_trees_ascend", hang_a_node_where_another_content_belongs),
    ("keys_of_stable_trees_ascend", hang_a_node_into_another_nodes_tree),
    ("keys_of_stable_trees_ascend", forget_one_content_of_the_shape),
    ("nodes_hang_where_their_frames_are", move_a_ksm_frame_and_leave_its_node_behind),
    ("nodes_hang_where_their_frames_are", let_a_node_wait_on_migrate_nodes),
    ("chains_are_recounted", lose_a_dup),
    ("chains_are_recounted", give_a_dup_another_chain),
    ("chains_are_recounted", count_a_stale_dup_more),
    ("chains_are_recounted", count_a_dup_with_room_more),
    ("chains_are_listed_by_pruning_time", forget_the_chain_that_was_pruned_first),
    ("chains_are_listed_by_pruning_time", prune_a_chain_unnoticed),
    ("chains_are_listed_by_pruning_time", cut_a_chains_link_back),
    ("chains_are_listed_by_pruning_time", take_the_first_chain_for_the_last),
    ("chains_know_where_there_is_room", give_a_dup_the_stamp_of_the_next),
    ("chains_know_where_there_is_room", look_for_the_fullest_in_another_chain),
    ("chains_know_where_there_is_room", expect_less_in_dups_with_room),
    ("chains_know_where_there_is_room", look_for_room_behind_the_first_that_has_some),
    ("trees_know_what_walks_change", overlook_a_stale_node),
    ("trees_know_what_walks_change", count_a_chain_more),
    ("trees_know_what_walks_change", overlook_a_chain_on_the_way),
    ("trees_know_what_walks_change", overlook_what_is_below_the_root),
    ("settled_chains_stay_as_they_are", note_the_wrong_dup),
    ("mm_list_is_linked_both_ways", cut_the_list_of_mms),
    ("mm_list_is_linked_both_ways", move_the_cursor_out_of_its_mm),
    ("mm_list_is_linked_both_ways", unregister_a_living_mm),
    ("unstable_trees_hold_this_scans_items", log_an_erasure_of_a_page_that_is_still_there),
    ("unstable_trees_hold_this_scans_items", forget_a_page_of_the_unstable_tree),
    ("unstable_trees_hold_this_scans_items", change_a_page_unnoticed),
    ("unstable_trees_hold_this_scans_items", hide_a_page_unnoticed),
]
# under mainline nothing dangles, and nodes may be left behind
POLICY_OF = {
    count_a_dangling_page_twice: Policy.V4,
    leave_a_node_to_a_dangling_page: Policy.V4,
    let_a_page_dangle_that_is_no_ksm_page: Policy.V4,
    let_a_page_dangle_under_a_policy_that_knows_better: Policy.V4,
    move_a_ksm_frame_and_leave_its_node_behind: Policy.SUBSTITUTE,
    let_a_node_wait_on_migrate_nodes: Policy.SUBSTITUTE,
}


@pytest.mark.parametrize(("rule", "change"), CASES, ids=[change.__name__ for _, change in CASES])
def test_a_rule_notices_what_breaks_it(rule: str, change: Callable[[State], None]) -> None:
    s = sane(POLICY_OF.get(change, Policy.MAINLINE))
    change(s)
    assert rule.replace("_", " ") in {fault.split(":")[0] for fault in check_invariants(s)}


@pytest.mark.parametrize(
    ("smart_scan", "rule", "said", "change"),
    [(0, *case) for case in broken_rest.CASES] + [(1, *case) for case in broken_rest.SMART_CASES],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_a_rule_of_pages_at_rest_notices_what_breaks_it(
    smart_scan: int, rule: str, said: str, change: Callable[[State], None]
) -> None:
    s = sane(smart_scan=smart_scan)
    change(s)
    said_by_rule = [fault for fault in check_invariants(s) if fault.startswith(f"{rule.replace('_', ' ')}: ")]
    assert any(said in fault for fault in said_by_rule)


@pytest.mark.parametrize(
    ("scans", "rule", "said", "change"),
    [(0, *case) for case in broken_rest.LINE_CASES] + [(1, *case) for case in broken_rest.JOINED_CASES],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_a_rule_of_pages_in_line_notices_what_breaks_it(
    scans: int, rule: str, said: str, change: Callable[[State], None]
) -> None:
    s = with_lines(scans=scans)
    change(s)
    said_by_rule = [fault for fault in check_invariants(s) if fault.startswith(f"{rule.replace('_', ' ')}: ")]
    assert any(said in fault for fault in said_by_rule)


def test_a_built_unstable_tree_must_hold_its_items() -> None:
    s = sane()
    assert item_in_tree(s, 1) >= 0
    s.trees[state.UNSTABLE_EXACT, 1] = 1  # it claims to have been built, and is empty
    s.trees[state.UNSTABLE_ROOT, 1] = state.NIL
    assert any(fault.startswith("unstable trees hold this scans items: tree 1") for fault in check_invariants(s))


def test_a_node_may_hold_more_than_it_has_once_memory_ran_out() -> None:
    s = sane()
    make_a_node_smaller_than_what_it_holds(s)
    s.scan[Scan.OUT_OF_MEMORY] = 1
    assert check_invariants(s) == []


@pytest.mark.parametrize("policy", [policy for policy in Policy if policy != Policy.MAINLINE])
def test_only_mainline_may_leave_the_nodes_of_moved_frames_behind(policy: Policy) -> None:
    s = sane()
    s.knobs[Knob.POLICY] = policy
    assert check_invariants(s) == []
    move_a_ksm_frame_and_leave_its_node_behind(s)
    faults = {fault.split(":")[0] for fault in check_invariants(s)}
    assert "nodes hang where their frames are" in faults
    s.knobs[Knob.POLICY] = Policy.MAINLINE
    assert {fault.split(":")[0] for fault in check_invariants(s)} == faults - {"nodes hang where their frames are"}


def test_every_rule_is_tried() -> None:
    of_rest = [*broken_rest.CASES, *broken_rest.LINE_CASES, *broken_rest.JOINED_CASES]
    assert {rule for rule, *_ in [*CASES, *of_rest]} == {rule.__name__ for rule in RULES}


def test_every_rule_says_what_it_is() -> None:
    assert all(rule.__doc__ for rule in RULES)
