"""How many frames per second does the migration kernel move, and what does the worst case of `break_cow` cost?

    python benchmarks/migrate.py [--frames N] [--repeat N]

First it checks, on fewer frames, that moving all pages in one call leaves the same state as one call per page. Then it times
one call for N frames: private ones, and KSM pages of two mappings each, half of which collide with one on the new node, under
every policy (merge_across_nodes = 0, max_page_sharing = 1,000,000). Last the objection to break_cow: one frame with
max_page_sharing mappings, and a node that is full. One thread; medians. The state is made here, not simulated.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
from machine import headline
from rich.console import Console

from ksmbatch import migration, state
from ksmbatch.codes import CALLER_PRESETS, Caller, Kernel, Policy
from ksmbatch.metrics import Counter, NodeCounter
from ksmbatch.state import Knob, Scan, State

HERE, THERE = 0, 1
NO_FORKS = state.AnonVmas(*(np.zeros(0, np.int32) for _ in range(4)))
READY = state.MAPPED | state.MERGEABLE | state.ANON
Make = Callable[[int], State]


def blank(n_pages: int, n_contents: int, n_nodes: int, n_members: int, policy: Policy, node_pages: int = 0) -> State:
    """A machine of two nodes and one mm, with all knobs set and nothing mapped."""
    s = state.allocate(
        n_pages=n_pages,
        n_mms=1,
        n_nids=2,
        n_dup=n_contents,
        rank=np.arange(n_contents, dtype=np.uint32),
        checksum_class=None,
        n_nodes=n_nodes + 8,
        n_members=n_members + 8,
        node_pages=node_pages,
    )
    s.mms[0, [state.FIRST_PAGE, state.END_PAGE, state.USERS]] = 0, n_pages, 1
    s.knobs[[Knob.KERNEL, Knob.MAX_PAGE_SHARING, Knob.POLICY]] = Kernel.V6_12, 1_000_000, policy
    s.knobs[Knob.CALLERS] = sum(1 << caller for caller in CALLER_PRESETS["mainline"])
    s.page_bytes[:, state.PAGE_FLAGS] = READY
    return s


def private_frames(n: int, policy: Policy = Policy.MAINLINE) -> State:
    """`n` pages of node HERE, each with a frame of its own there."""
    s = blank(n, 8, 8, 8, policy)
    s.pages[:, state.FRAME] = np.arange(n)
    s.frames[:n, state.MAPCOUNT] = 1
    s.by_content[HERE, 0, state.HOLDERS] = n
    s.node_counters[HERE, [NodeCounter.FRAMES, NodeCounter.MAPPED_PAGES]] = n
    return s


def ksm_frames(n: int, policy: Policy) -> State:
    """`n` KSM frames of two mappings each on HERE (pages 0 to 2n - 1); half of their contents are on THERE, too, twice."""
    half = n // 2
    s = blank(2 * n + 2 * half, n, n + half, 2 * n + 2 * half, policy)
    _plant(s, np.arange(n), HERE, first_page=0, first_node=1)
    _plant(s, np.arange(half), THERE, first_page=2 * n, first_node=n + 1)
    if policy in (Policy.NUKSM, Policy.REPLICATE):  # these stay at home: the memory policy has changed before
        s.page_bytes[: 2 * n, state.PAGE_NID] = THERE
        s.node_counters[:, NodeCounter.MAPPED_PAGES] = 0, len(s.pages)
        s.node_counters[THERE, NodeCounter.REMOTE_MAPPINGS] = 2 * n
    return s


def _plant(s: State, contents: np.ndarray, nid: int, first_page: int, first_node: int) -> None:
    """One stable node and one frame, with a spare number, per content on `nid`, mapped by two pages that have rmap_items."""
    k = len(contents)
    pages = first_page + np.arange(2 * k)
    frames = int(s.scan[Scan.NEXT_FRAME]) + np.arange(k)
    nodes = first_node + np.arange(k)
    members = pages + 1
    s.pages[pages, state.FRAME] = np.tile(frames, 2)
    s.pages[pages, state.HEAD] = members
    s.page_bytes[pages, state.PAGE_NID] = nid
    s.page_bytes[pages, state.ITEM_FLAGS] = state.ITEM | state.STABLE
    s.frames[frames, state.FRAME_CONTENT], s.frames[frames, state.MAPCOUNT] = contents, 2
    s.frames[frames, state.FRAME_NODE] = nodes
    s.frame_bytes[frames, state.FRAME_FLAGS], s.frame_bytes[frames, state.FRAME_NID] = state.KSM, nid
    s.members[members, state.MEMBER_PAGE], s.members[members, state.MEMBER_NODE] = pages, np.tile(nodes, 2)
    s.members[members[:k], state.MEMBER_NEXT] = members[k:]
    for column, value in (
        (state.CONTENT, contents),
        (state.KPFN, frames),
        (state.LEN, 2),
        (state.FIRST, members[:k]),
        (state.NID, nid),
        (state.WHERE, state.IN_TREE),
    ):
        s.nodes[nodes, column] = value
    s.by_content[nid, contents, state.STABLE_AT] = nodes
    s.stable_log[nid, :k] = contents + 1
    s.trees[state.STABLE_LOGGED, nid] = k
    s.scan[[Scan.NEXT_FRAME, Scan.NEXT_NODE, Scan.NEXT_MEMBER]] = frames[-1] + 1, first_node + k, members[-1] + 1
    s.node_counters[nid, [NodeCounter.FRAMES, NodeCounter.KSM_FRAMES]] += k
    s.node_counters[nid, NodeCounter.MAPPED_PAGES] += 2 * k
    s.counters[[Counter.PAGES_SHARED, Counter.PAGES_SHARING]] += k
    s.counters[[Counter.FRAMES_IN_USE, Counter.PEAK_FRAMES]] += k
    s.counters[Counter.KSM_RMAP_ITEMS] += 2 * k
    s.mms[0, [state.MERGING, state.ITEMS, state.LIST_ITEMS]] += 2 * k


def check(make: Make, n: int, n_moved: int) -> None:
    """Raises AssertionError unless one call for `n_moved` pages does what a call for each of them does."""
    at_once, one_by_one = make(n), make(n)
    at_once, _ = migration.move(at_once, NO_FORKS, 0, n_moved, THERE, Caller.MOVE_PAGES)
    for page in range(n_moved):
        one_by_one, _ = migration.move(one_by_one, NO_FORKS, page, page + 1, THERE, Caller.MOVE_PAGES)
    for s in (at_once, one_by_one):
        s.scan[Scan.MOVE_CALL] = 0  # how many calls it took, and what was remembered for the length of one
        s.nodes[:, [state.HOME, state.HOME_CALL, state.STUCK_CALL]] = 0
    for name, ours, theirs in zip(State._fields, at_once, one_by_one, strict=True):
        if name == "table":
            continue  # where the arrays are in memory
        n_rows = min(len(ours), len(theirs))  # the pool of nodes may have grown at other moments
        assert np.array_equal(ours[:n_rows], theirs[:n_rows]), name


def measure(make: Make, n: int, n_moved: int, repeat: int) -> tuple[float, State]:
    """Median seconds to move the pages [0, `n_moved`); the state afterwards."""
    seconds = []
    for _ in range(repeat):
        s = make(n)
        start_s = time.perf_counter()
        s, _ = migration.move(s, NO_FORKS, 0, n_moved, THERE, Caller.MOVE_PAGES)
        seconds.append(time.perf_counter() - start_s)
    return statistics.median(seconds), s


def worst_break_cow(max_page_sharing: int, room: int) -> tuple[float, State]:
    """One frame with `max_page_sharing` mappings is to move to a node with `room` frames left."""
    s = blank(max_page_sharing, 1, 1, max_page_sharing, Policy.BREAK_COW, node_pages=max_page_sharing)
    pages = np.arange(max_page_sharing)
    frame = int(s.scan[Scan.NEXT_FRAME])
    s.pages[pages, state.FRAME], s.pages[pages, state.HEAD] = frame, pages + 1
    s.page_bytes[pages, state.ITEM_FLAGS] = state.ITEM | state.STABLE
    s.frames[frame, [state.MAPCOUNT, state.FRAME_NODE]] = max_page_sharing, 1
    s.frame_bytes[frame, state.FRAME_FLAGS] = state.KSM
    members = pages + 1
    s.members[members, state.MEMBER_PAGE], s.members[members, state.MEMBER_NODE] = pages, 1
    s.members[members[:-1], state.MEMBER_NEXT] = members[1:]
    s.nodes[1, [state.KPFN, state.LEN, state.FIRST, state.WHERE]] = frame, max_page_sharing, 1, state.IN_TREE
    s.by_content[HERE, 0, state.STABLE_AT] = 1
    s.stable_log[HERE, 0] = s.trees[state.STABLE_LOGGED, HERE] = 1
    s.scan[[Scan.NEXT_FRAME, Scan.NEXT_NODE, Scan.NEXT_MEMBER]] = frame + 1, 2, max_page_sharing + 1
    s.node_counters[HERE, [NodeCounter.FRAMES, NodeCounter.KSM_FRAMES]] = 1
    s.node_counters[HERE, NodeCounter.MAPPED_PAGES] = max_page_sharing
    s.node_counters[THERE, NodeCounter.FRAMES] = max_page_sharing - room
    start_s = time.perf_counter()
    s, _ = migration.move(s, NO_FORKS, 0, 1, THERE, Caller.MOVE_PAGES)
    return time.perf_counter() - start_s, s


def main() -> None:
    """Parity first, then medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=10_000_000)
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    n = options.frames
    say = Console(highlight=False, markup=False, soft_wrap=True).print
    say(f"{headline()}; one thread, medians of {options.repeat}")
    check(private_frames, 1000, 1000)
    seconds, s = measure(private_frames, n, n, options.repeat)
    moved = int(s.counters[Counter.FRAMES_MOVED])
    say(f"{'private frames':<18} {moved:>12,} moved  {n / seconds / 1e6:8.1f} M frames/s")
    for policy in Policy:

        def make(frames: int, policy: Policy = policy) -> State:
            return ksm_frames(frames, policy)

        check(make, 1000, 2000)
        # the second mapping of a frame finds it moved: pages 0 to n - 1 are all there is to do
        seconds, s = measure(make, n, n, options.repeat)
        moved = int(s.counters[Counter.KSM_FRAMES_MOVED])
        counted = {name: int(s.counters[name]) for name in Counter if name.name.startswith(("MIGRATE_", "DANGLING"))}
        say(
            f"KSM {policy.word:<16}{moved:>11,} moved  {n / seconds / 1e6:8.1f} M frames/s  "
            + ", ".join(f"{name.name.lower()} {value:,}" for name, value in counted.items() if value)
        )
    for room in (256, 255, 128, 0):
        seconds, s = worst_break_cow(256, room)
        allocated, failed = int(s.counters[Counter.MIGRATE_ALLOCATIONS]), int(s.counters[Counter.MIGRATE_FAILURES])
        left = int((s.frame_bytes[s.pages[:, state.FRAME], state.FRAME_NID] == HERE).sum())
        say(
            f"break_cow, one frame of 256 mappings, room for {room:>3}: {allocated} allocated, {failed} failed, "
            f"{left} mappings left behind, {seconds * 1e6:.0f} us"
        )


if __name__ == "__main__":
    main()
