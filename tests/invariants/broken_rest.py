"""What breaks the rules of pages at rest: each case a rule, what it says then, and the change to a sane machine.

The rules must notice; whether they do is asked in test_rules_can_fail.py.
"""

from collections.abc import Callable

import numpy as np
from invariants.a_machine import item_in_tree

from ksmbatch import state
from ksmbatch.state import NIL, NO_FRAME, NO_MM, Scan, State
from ksmbatch.stateview import FIRST_COHORT, IN_LINE, JOINED, MERGED, SEARCHING


def merged_page(s: State) -> int:
    return int(np.flatnonzero(s.cohort == MERGED)[0])


def node_of(s: State, page: int) -> int:
    return int(s.frames[s.pages[page, state.FRAME], state.FRAME_NODE])


def lonely_page(s: State) -> int:
    """One that is at rest for good, and whose content others may hold."""
    return int(s.by_content[:, :, state.RESTING].max()) - 1


def row_of(s: State, page: int) -> np.ndarray:
    """Its row of by_content."""
    content = s.frames[s.pages[page, state.FRAME], state.FRAME_CONTENT]
    row: np.ndarray = s.by_content[s.page_bytes[page, state.ITEM_NID], content]
    return row


def count_a_page_at_rest_twice(s: State) -> None:
    s.cohorts[1, s.cohort[lonely_page(s)]] += 1


def count_a_holder_twice(s: State) -> None:
    row_of(s, lonely_page(s))[state.HOLDERS] += 1


def lose_the_frame_of_a_merged_page(s: State) -> None:
    s.pages[merged_page(s), state.FRAME] = NO_FRAME


def let_a_merged_page_map_no_ksm_page(s: State) -> None:
    s.frame_bytes[s.pages[merged_page(s), state.FRAME], state.FRAME_FLAGS] = 0


def lose_the_item_of_a_merged_page(s: State) -> None:
    s.page_bytes[merged_page(s), state.ITEM_FLAGS] = state.ITEM


def hang_a_merged_page_in_another_node(s: State) -> None:
    page = merged_page(s)
    others = set(s.members[:, state.MEMBER_NODE].tolist()) - {int(NIL), node_of(s, page)}
    s.members[s.pages[page, state.HEAD], state.MEMBER_NODE] = min(others)


def put_the_node_of_a_merged_page_on_migrate_nodes(s: State) -> None:
    s.nodes[node_of(s, merged_page(s)), state.WHERE] = state.IN_MIGRATE


def move_the_frame_of_a_merged_page(s: State) -> None:
    s.frame_bytes[s.pages[merged_page(s), state.FRAME], state.FRAME_NID] ^= 1


def share_a_lonely_page(s: State) -> None:
    s.frames[s.pages[lonely_page(s), state.FRAME], state.MAPCOUNT] += 1


def make_a_ksm_page_of_a_lonely_one(s: State) -> None:
    s.frame_bytes[s.pages[lonely_page(s), state.FRAME], state.FRAME_FLAGS] |= np.uint8(state.KSM)


def have_changed(s: State, page: int) -> None:
    s.changed[page // 32] |= np.uint32(1 << page % 32)


def let_a_lonely_page_have_changed(s: State) -> None:
    have_changed(s, lonely_page(s))


def let_a_merged_page_have_changed(s: State) -> None:
    have_changed(s, merged_page(s))


def let_a_page_that_is_awake_have_changed(s: State) -> None:
    page = item_in_tree(s, 0)
    assert s.cohort[page] == 0
    have_changed(s, page)


def move_a_lonely_page_unnoticed(s: State) -> None:
    s.frame_bytes[s.pages[lonely_page(s), state.FRAME], state.FRAME_NID] ^= 1


def give_a_lonely_page_a_twin(s: State) -> None:
    row_of(s, lonely_page(s))[state.HOLDERS] = 2


def hang_the_content_of_a_lonely_page_in_the_stable_tree(s: State) -> None:
    row_of(s, lonely_page(s))[state.STABLE_AT] = node_of(s, merged_page(s))


def forget_who_is_alone(s: State) -> None:
    row_of(s, lonely_page(s))[state.RESTING] = 0


def put_a_lonely_page_into_a_cohort_of_smart_scan(s: State) -> None:
    s.cohort[lonely_page(s)] = FIRST_COHORT


def let_a_lonely_page_search_in_every_scan(s: State) -> None:
    s.cohort[lonely_page(s)] = SEARCHING


def take_a_page_that_is_awake_for_one_at_rest(s: State) -> None:
    page = item_in_tree(s, 0)
    assert s.cohort[page] == 0
    row_of(s, page)[state.RESTING] = page + 1


def lose_the_calendar(s: State) -> None:
    s.calendar[:] = 0


def watch_for_all_contents_and_for_no_page(s: State) -> None:
    s.trees[[state.WATCHED, state.WATCH_HIGH, state.WATCH_END]] = [[1], [99], [99]]
    s.trees[[state.WATCH_LOW, state.WATCH_FIRST]] = -1
    s.watch[:] = 0


def watch_for_one_page_less(s: State) -> None:
    watch_for_all_contents_and_for_no_page(s)
    page = lonely_page(s)
    s.watch[:] = 2**32 - 1
    s.watch[page // 32] ^= np.uint32(1 << page % 32)


def leave_a_region_open(s: State) -> None:
    s.scan[Scan.REGION_END] = s.scan[Scan.CUR_PAGE]


def end_the_scan_too_early(s: State) -> None:
    s.scan[Scan.CUR_MM] = NO_MM


def page_in_line(s: State) -> int:
    return int(np.flatnonzero(s.cohort >= IN_LINE)[0])


def searching_page(s: State) -> int:
    """One that is at rest for good, with a content that nobody else has."""
    return int(np.flatnonzero(s.cohort == SEARCHING)[0])


def line_of(s: State) -> int:
    """The line of page_in_line()."""
    return int(s.members[s.pages[page_in_line(s), state.HEAD], state.MEMBER_NODE])


def named_line(s: State) -> np.ndarray:
    """The row of by_content that names a line for the content of page_in_line()."""
    row: np.ndarray = s.by_content[s.nodes[line_of(s), state.NID], s.nodes[line_of(s), state.CONTENT]]
    assert row[state.RESTING] < 0
    return row


def make_a_line_longer_than_it_is(s: State) -> None:
    s.nodes[line_of(s), state.LEN] += 1


def give_a_page_in_line_another_head(s: State) -> None:
    s.pages[page_in_line(s), state.HEAD] += 1


def let_a_line_be_led_by_nobody(s: State) -> None:
    s.page_bytes[s.nodes[line_of(s), state.LEADER] - 1, state.ITEM_FLAGS] = state.ITEM


def name_another_second(s: State) -> None:
    s.nodes[line_of(s), state.SECOND] += 1


def write_to_a_page_in_line_unnoticed(s: State) -> None:
    s.frames[s.pages[page_in_line(s), state.FRAME], state.FRAME_CONTENT] += 1


def move_a_page_in_line_unnoticed(s: State) -> None:
    s.frame_bytes[s.pages[page_in_line(s), state.FRAME], state.FRAME_NID] ^= 1


def move_the_frame_that_a_line_will_join(s: State) -> None:
    s.nodes[line_of(s), state.KNID] ^= 1


def forget_the_lines_of_a_content(s: State) -> None:
    named_line(s)[state.RESTING] = 0


def lose_a_line_on_the_way_to_those_before(s: State) -> None:
    last = -int(named_line(s)[state.RESTING])
    assert last != line_of(s)
    s.nodes[last, state.LINE_BEFORE] = NIL


def put_a_page_in_line_that_nobody_expects(s: State) -> None:
    s.cohort[searching_page(s)] = IN_LINE


def let_a_page_lead_that_leads_no_line(s: State) -> None:
    s.page_bytes[searching_page(s), state.ITEM_FLAGS] |= np.uint8(state.LEADS)


def name_a_free_node_as_a_line(s: State) -> None:
    named_line(s)[state.RESTING] = -int(s.scan[Scan.NEXT_NODE])


def forget_that_there_are_lines(s: State) -> None:
    s.scan[Scan.LINES_SEQ] = 0


def keep_a_line_when_nobody_is_in_line(s: State) -> None:
    s.scan[Scan.LAST_LINE] = 1


def let_lines_be_of_the_next_scan(s: State) -> None:
    s.scan[Scan.LINES_SEQ] += 1


def joined_page(s: State) -> int:
    return int(np.flatnonzero(s.cohort == JOINED)[0])


def count_a_joined_page_twice(s: State) -> None:
    s.scan[Scan.N_JOINED] += 1


def put_the_node_of_a_joined_page_on_migrate_nodes(s: State) -> None:
    s.nodes[s.members[s.pages[joined_page(s), state.HEAD], state.MEMBER_NODE], state.WHERE] = state.IN_MIGRATE


Change = Callable[[State], None]

CASES: list[tuple[str, str, Change]] = [
    ("cohorts_are_recounted", "pages at rest of block 0, cohort", count_a_page_at_rest_twice),
    ("holders_are_recounted", "holders", count_a_holder_twice),
    ("merged_pages_at_rest_are_in_place", "but maps nothing", lose_the_frame_of_a_merged_page),
    ("merged_pages_at_rest_are_in_place", "but no KSM page", let_a_merged_page_map_no_ksm_page),
    ("merged_pages_at_rest_are_in_place", "without an item", lose_the_item_of_a_merged_page),
    ("merged_pages_at_rest_are_in_place", "in another node", hang_a_merged_page_in_another_node),
    ("merged_pages_at_rest_are_in_place", "on migrate_nodes", put_the_node_of_a_merged_page_on_migrate_nodes),
    ("merged_pages_at_rest_are_in_place", "in another tree", move_the_frame_of_a_merged_page),
    ("unmerged_pages_at_rest_are_alone_or_expected", "but shared", share_a_lonely_page),
    ("unmerged_pages_at_rest_are_alone_or_expected", "but a KSM page", make_a_ksm_page_of_a_lonely_one),
    ("unmerged_pages_at_rest_are_alone_or_expected", "but changed to what others hold", let_a_lonely_page_have_changed),
    ("unmerged_pages_at_rest_are_alone_or_expected", "in another tree", move_a_lonely_page_unnoticed),
    ("unmerged_pages_at_rest_are_alone_or_expected", "others have its content", give_a_lonely_page_a_twin),
    (
        "unmerged_pages_at_rest_are_alone_or_expected",
        "merged by others",
        hang_the_content_of_a_lonely_page_in_the_stable_tree,
    ),
    ("unmerged_pages_at_rest_are_alone_or_expected", "unknown to others", forget_who_is_alone),
    (
        "unmerged_pages_at_rest_are_alone_or_expected",
        "as if smart_scan was off, or the reverse",
        put_a_lonely_page_into_a_cohort_of_smart_scan,
    ),
    ("pages_that_have_changed_rest", "awake or merged", let_a_merged_page_have_changed),
    ("pages_that_have_changed_rest", "awake or merged", let_a_page_that_is_awake_have_changed),
    ("pages_known_to_rest_do", "awake, or merged", take_a_page_that_is_awake_for_one_at_rest),
    ("pages_awake_are_expected", "awake, and not expected", lose_the_calendar),
    ("watched_pages_are_in_watch", "to be watched, and is not", watch_for_all_contents_and_for_no_page),
    ("watched_pages_are_in_watch", "to be watched, and is not", watch_for_one_page_less),
    ("no_region_is_open", "the end of the open region", leave_a_region_open),
    ("no_region_is_open", "passed by another scan than the last", end_the_scan_too_early),
]
# the same rules, where smart_scan has cohorts of its own
SMART_CASES: list[tuple[str, str, Change]] = [
    (
        "unmerged_pages_at_rest_are_alone_or_expected",
        "as if smart_scan was off, or the reverse",
        let_a_lonely_page_search_in_every_scan,
    ),
    ("unmerged_pages_at_rest_are_alone_or_expected", "but changed to what others hold", let_a_lonely_page_have_changed),
    ("unmerged_pages_at_rest_are_alone_or_expected", "unknown to others", forget_who_is_alone),
    ("cohorts_are_recounted", "pages at rest of block 0, cohort", count_a_page_at_rest_twice),
    ("pages_awake_are_expected", "awake, and not expected", lose_the_calendar),
    ("watched_pages_are_in_watch", "to be watched, and is not", watch_for_one_page_less),
]
# rules of pages in line, where there are some, and of pages that have joined
LINE_CASES: list[tuple[str, str, Change]] = [
    ("lines_are_of_pages_that_will_be_merged", "length of line", make_a_line_longer_than_it_is),
    ("lines_are_of_pages_that_will_be_merged", "its head is elsewhere", give_a_page_in_line_another_head),
    ("lines_are_of_pages_that_will_be_merged", "is led by", let_a_line_be_led_by_nobody),
    ("lines_are_of_pages_that_will_be_merged", "is led by", name_another_second),
    ("lines_are_of_pages_that_will_be_merged", "for another content", write_to_a_page_in_line_unnoticed),
    ("lines_are_of_pages_that_will_be_merged", "in another cohort", move_a_page_in_line_unnoticed),
    ("lines_are_of_pages_that_will_be_merged", "in another cohort", move_the_frame_that_a_line_will_join),
    ("lines_are_of_pages_that_will_be_merged", "which is not found", forget_the_lines_of_a_content),
    ("lines_are_of_pages_that_will_be_merged", "which is not found", lose_a_line_on_the_way_to_those_before),
    ("lines_are_of_pages_that_will_be_merged", "are members of lines", put_a_page_in_line_that_nobody_expects),
    ("lines_are_of_pages_that_will_be_merged", "leads no line", let_a_page_lead_that_leads_no_line),
    ("lines_are_of_pages_that_will_be_merged", "named as a line, and is none", name_a_free_node_as_a_line),
    ("lines_are_of_one_scan", "pages in line", forget_that_there_are_lines),
    ("lines_are_of_one_scan", "passed, and still in line", let_lines_be_of_the_next_scan),
]
JOINED_CASES: list[tuple[str, str, Change]] = [
    ("lines_are_of_one_scan", "the line made last", keep_a_line_when_nobody_is_in_line),
    ("joined_pages_are_recounted", "pages joined", count_a_joined_page_twice),
    ("merged_pages_at_rest_are_in_place", "on migrate_nodes", put_the_node_of_a_joined_page_on_migrate_nodes),
]
