"""Does memory at a moment hold what the steps up to it said, in the order in which ksmd would scan it?"""

from typing import Any

import numpy as np
import pytest
from machines import full_scan, knob, migrate, mmap, scenario, spawn, write

from ksmbatch.codes import Kernel
from ksmbatch.errors import InputError
from ksmbatch.memory import Memory, memory_after, memory_of_contents
from ksmbatch.scenario import parse_scenario


def after(*steps: dict[str, Any], nodes: int = 2, kernel: Kernel = Kernel.V6_12) -> Memory:
    return memory_after([parse_scenario(scenario(*steps, nodes=nodes), "test").steps], nodes, kernel)


def fork(proc: str, child: str) -> dict[str, Any]:
    return {"op": "fork", "proc": proc, "child": child}


def there(op: str, area: str, first: int, count: int, **more: Any) -> dict[str, Any]:
    return {"op": op, "proc": "a", "area": area, "first": first, "count": count, **more}


def nodes_of(memory: Memory) -> list[int]:
    return [0] * memory.content.size if memory.node is None else memory.node.tolist()


def test_pages_come_mm_after_mm_and_by_address_whoever_was_written_first() -> None:
    memory = after(
        spawn("a"), spawn("b"), mmap("x", 2, proc="a"), mmap("y", 2, proc="b"), mmap("z", 1, proc="a"),
        write("z", 5, proc="a"), write("y", 3, 4, proc="b"), write("x", 1, 2, proc="a"),
    )  # fmt: skip
    assert memory.mms == ("a", "b")
    assert memory.content.tolist() == [1, 2, 5, 3, 4]
    assert memory.start.tolist() == [0, 3, 5]
    assert memory.mm.tolist() == [0, 0, 0, 1, 1]
    assert (memory.node, memory.home, memory.frame) == (None, None, None)


def test_mms_come_in_the_order_in_which_they_registered() -> None:
    advice = {"op": "madvise", "proc": "a", "area": "x", "advice": "mergeable"}
    memory = after(
        spawn("a"), spawn("b"), mmap("x", 1, proc="a", mergeable=False), mmap("x", 1, proc="b"),
        write("x", 1, proc="a"), write("x", 2, proc="b"), advice,
    )  # fmt: skip
    assert memory.mms == ("b", "a")
    assert memory.content.tolist() == [2, 1]


def test_the_last_write_counts_and_what_is_discarded_or_only_read_is_absent() -> None:
    memory = after(
        spawn(),
        mmap("x", 6),
        write("x", 1, 2, 3, 4),
        write("x", 7, first=1),
        there("discard", "x", 2, 1),
        there("read", "x", 4, 2),
    )
    assert memory.content.tolist() == [1, 7, 4]
    assert memory.absent.tolist() == [3]
    again = after(spawn(), mmap("x", 3), write("x", 1, 2, 3), there("munmap", "x", 0, 2))
    assert (again.content.tolist(), again.absent.tolist()) == ([3], [2])


def test_pages_that_are_not_mergeable_are_counted_and_left_out() -> None:
    steps = [spawn(), mmap("x", 3), mmap("y", 2, mergeable=False), write("x", 1, 2, 3), write("y", 4, 5)]
    memory = after(*steps, there("madvise", "x", 0, 1, advice="unmergeable"))
    assert (memory.content.tolist(), memory.barred.tolist()) == ([2, 3], [3])
    everything = [*steps, {"op": "merge_any", "proc": "a", "value": 1}]
    assert after(*everything).content.tolist() == [1, 2, 3, 4, 5]
    assert after(*everything, kernel=Kernel.V6_1).content.tolist() == [1, 2, 3]  # which has no such prctl


def test_frames_are_on_the_node_of_their_area_until_they_move() -> None:
    steps = [spawn(), mmap("x", 3, node=1), mmap("y", 1), write("x", 1, 2, 3), write("y", 4)]
    assert nodes_of(after(*steps)) == [1, 1, 1, 0]
    moved = after(*steps, migrate("x", 0, 1, 2))
    assert nodes_of(moved) == [1, 0, 0, 0]
    assert moved.home is not None
    assert moved.home.tolist() == [1, 1, 1, 0]
    # written in place a page stays, and one that was discarded comes back from the area's node
    rewritten = after(
        *steps, migrate("x", 0, 1, 2), write("x", 9, first=1), there("discard", "x", 2, 1), write("x", 8, first=2)
    )
    assert nodes_of(rewritten) == [1, 0, 1, 0]


def test_a_rebound_area_takes_later_frames_from_its_new_node() -> None:
    rebind = {"op": "rebind", "proc": "a", "area": "x", "node": 1}
    memory = after(spawn(), mmap("x", 3), write("x", 1), rebind, write("x", 2, 3))
    assert memory.content.tolist() == [2, 3]
    assert nodes_of(memory) == [0, 1]


def test_fork_shares_frames_until_somebody_writes() -> None:
    memory = after(spawn(), mmap("x", 3), write("x", 1, 2, 3), fork("a", "b"), write("x", 9, first=1, proc="b"))
    assert memory.mms == ("a", "b")
    assert memory.content.tolist() == [1, 2, 3, 1, 9, 3]
    assert memory.frame is not None
    shared = [int((memory.frame == frame).sum()) for frame in memory.frame]
    assert shared == [2, 1, 2, 2, 1, 2]


def test_a_forked_frame_moves_for_all_who_map_it() -> None:
    memory = after(spawn(), mmap("x", 2), write("x", 1, 2), fork("a", "b"), migrate("x", 1, 0, 1))
    assert nodes_of(memory) == [1, 0, 1, 0]


def test_who_exits_is_gone() -> None:
    memory = after(spawn("a"), mmap("x", 1), write("x", 1), fork("a", "b"), {"op": "exit", "proc": "a"})
    assert memory.mms == ("b",)


def test_scans_and_knobs_change_nothing() -> None:
    steps = [spawn(), mmap("x", 2), write("x", 7, 7)]
    memory = after(*steps, full_scan(3), knob("run", 2) | {"op": "knob", "name": "pages_to_scan", "value": 5})
    assert memory.content.tolist() == [7, 7]
    assert memory.frame is None


def test_memory_whose_node_goes_offline_is_refused() -> None:
    with pytest.raises(InputError, match="offline"):
        after(spawn(), mmap("x", 1), write("x", 1), {"op": "offline", "node": 1})


def test_contents_alone_are_memory_too() -> None:
    contents = {"a": np.array([1, 2], np.uint64), "b": np.zeros(0, np.uint64), "c": np.array([1], np.uint64)}
    memory = memory_of_contents(contents, [0, 1, 1], 2)
    assert memory.content.tolist() == [1, 2, 1]
    assert memory.start.tolist() == [0, 2, 2, 3]
    assert nodes_of(memory) == [0, 0, 1]
    assert memory_of_contents({}, [], 1).content.size == 0
