"""Is a range that is written in one piece what it would be page by page? On machines in the middle of all kinds of things.

What a single write does is in test_fault.py.
"""

import random
from collections.abc import Iterator

import numpy as np
from machines import Player
from parity.strategies import random_case, random_policy_case
from unit.kernels.tiny import copied, fill, tiny_state

from ksmbatch import state
from ksmbatch.invariants import check_invariants
from ksmbatch.kernels import fault
from ksmbatch.kernels.cohorts import SEARCHING
from ksmbatch.kernels.fill import fill_run, make_all_due, write_range
from ksmbatch.metrics import NodeCounter
from ksmbatch.state import Scan, State

N_CASES = 40
LONG = 75  # pages per mm, so that ranges begin and end within words of the calendar


def page_by_page(s: State, first: int, contents: np.ndarray) -> None:
    for k, content in enumerate(contents.tolist()):
        fault.store(s, first + k, content)


def differing(one: State, other: State) -> list[str]:
    one.scan[Scan.LAST_MM] = other.scan[Scan.LAST_MM]  # which mm was asked for last is no part of what happened
    return [name for name in state.ARRAYS if not np.array_equal(getattr(one, name), getattr(other, name))]


def machines() -> Iterator[tuple[State, random.Random]]:
    """After every fourth step of random scenarios; pfns are forgotten, nodes may be nearly full or offline."""
    for seed in range(N_CASES):
        rng = random.Random(f"fill {seed}")
        case = random_policy_case(seed) if seed % 2 else random_case(seed, merge_any=True)
        player = Player(case.document, case.kernel, checksum=case.checksum, force_exact=seed % 8 == 7)
        for step, _ in enumerate(player.outcomes()):
            if step % 4:
                continue
            s = player.machine.state
            n_nids = len(s.numa)
            s = copied(s._replace(pfns=np.zeros((n_nids, 0), np.int32), frame_pfns=np.zeros(0, np.int32)))
            for nid in range(n_nids):
                room = rng.choice((None, None, 0, 1, 3, 10))
                used = s.node_counters[nid, NodeCounter.FRAMES]
                s.numa[nid, state.NODE_PAGES] = 0 if room is None else max(used + room, 1)
                s.numa[nid, state.OFFLINE] = int(rng.random() < 0.1)
            yield s, rng


def test_writing_a_range_equals_writing_its_pages_on_random_machines() -> None:
    n_runs = n_written = 0
    for s, rng in machines():
        mm = rng.randrange(len(s.mms))
        begin, end = s.mms[mm, [state.FIRST_PAGE, state.END_PAGE]].tolist()
        if begin == end:
            continue
        first = rng.randrange(begin, end)
        n_pages = rng.randint(1, end - first)
        contents = np.array([rng.randrange(len(s.rank)) for _ in range(n_pages)], np.int32)
        one, other, third = copied(s), copied(s), copied(s)
        write_range(one, first, contents)
        page_by_page(other, first, contents)
        assert differing(one, other) == []
        n_runs += s.pages[first, state.FRAME] == state.NO_FRAME and fill_run(third, first, contents, 0) > 1
        n_written += 1
    assert n_runs > n_written / 8


def long_state(**knobs: int) -> State:
    return tiny_state(pages_per_mm=LONG, n_members=2 * LONG + 8, n_nodes=2 * LONG, n_single=4, **knobs)


def test_a_first_fill_is_one_run() -> None:
    s, other = long_state(), long_state()
    contents = np.arange(LONG, dtype=np.int32) % 10
    page_by_page(other, LONG, contents)
    assert fill_run(s, LONG, contents, 0) == LONG
    assert differing(s, other) == []
    assert check_invariants(s) == []


def test_a_run_ends_where_something_is_mapped() -> None:
    s = long_state()
    fill(s, 1, first=40)
    assert fill_run(s, 3, np.zeros(60, np.int32), 0) == 37
    assert fill_run(s, 3, np.zeros(60, np.int32), 37) == 0
    assert fill_run(s, 3, np.zeros(60, np.int32), 38) == 22


def test_a_run_ends_where_another_page_has_the_frame() -> None:
    s = long_state()
    s.frames[9, state.MAPCOUNT] = 1
    assert fill_run(s, 0, np.zeros(20, np.int32), 0) == 9


def test_a_run_ends_at_the_zero_page_and_at_another_home() -> None:
    s = long_state()
    fault.read_pages(s, 5, 6)
    s.page_bytes[12:, state.PAGE_NID] = 1
    assert fill_run(s, 0, np.zeros(20, np.int32), 0) == 5
    assert fill_run(s, 0, np.zeros(20, np.int32), 6) == 6


def test_a_run_ends_with_the_room_on_its_node() -> None:
    s = long_state(node_pages=7)
    assert fill_run(s, 0, np.zeros(20, np.int32), 0) == 7
    assert fill_run(s, 0, np.zeros(20, np.int32), 7) == 0
    s = long_state()
    s.numa[0, state.OFFLINE] = 1
    assert fill_run(s, 0, np.zeros(20, np.int32), 0) == 0


def test_a_run_ends_at_the_cursor_of_ksmd() -> None:
    s = long_state()
    s.scan[[Scan.CUR_MM, Scan.CUR_PAGE]] = 0, 33
    assert fill_run(s, 0, np.zeros(60, np.int32), 0) == 33
    assert fill_run(s, 0, np.zeros(60, np.int32), 33) == 27


def test_where_pfns_are_kept_each_frame_is_taken_for_itself() -> None:
    s = long_state(keep_pfns=True)
    assert fill_run(s, 0, np.zeros(60, np.int32), 0) == 0
    write_range(s, 0, np.zeros(60, np.int32))
    assert s.frame_pfns[:60].tolist() == list(range(1, 61))


def test_who_rests_alone_is_woken_by_a_fill() -> None:
    s = long_state()
    fill(s, 1)
    s.by_content[0, 1, state.RESTING] = 1
    s.cohort[0] = SEARCHING
    s.cohorts[1, SEARCHING] = 1
    s.pages[0, state.CHECKSUM] = 1
    assert fill_run(s, 1, np.ones(3, np.int32), 0) == 3
    assert s.cohort[0] == 0
    assert s.by_content[0, 1, [state.HOLDERS, state.RESTING]].tolist() == [4, 0]


def test_whole_words_of_the_calendar_are_set_with_their_ends() -> None:
    s = long_state()
    for first, end in ((0, 0), (0, 1), (31, 33), (5, 9), (32, 64), (3, 150), (149, 150)):
        s.calendar[:] = 0
        make_all_due(s, first, end, 12)
        bits = [(int(s.calendar[2, page // 32]) >> (page % 32)) & 1 for page in range(150)]
        assert bits == [int(first <= page < end) for page in range(150)]
        assert not s.calendar[[0, 1, *range(3, 10)]].any()
