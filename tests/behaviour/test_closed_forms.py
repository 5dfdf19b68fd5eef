"""Is the shape right? Where a formula says what KSM must come to, the machine comes to it.

The kernel's own word on single steps is in the recordings; here are the numbers that anyone can work out.
"""

import pytest
from machines import KERNELS, Player, filled, full_scan, mmap, play, scenario, spawn, write

from ksmbatch.metrics import NodeCounter

SCANS = 4  # first sight, merging, and two more in which nothing may change


def shares(counters: dict[str, int]) -> tuple[int, int, int, int]:
    return tuple(counters[f"pages_{kind}"] for kind in ("shared", "sharing", "unshared", "volatile"))  # type: ignore[return-value]


def node_counter(player: Player, counter: NodeCounter) -> list[int]:
    return player.machine.state.node_counters[:, counter].tolist()


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("n", [2, 3, 7, 100])
def test_n_clones_are_one_shared_and_n_minus_1_sharing(n: int, kernel: str) -> None:
    assert shares(play(*filled([7] * n), full_scan(SCANS), kernel=kernel)) == (1, n - 1, 0, 0)


@pytest.mark.parametrize("kernel", KERNELS)
def test_nothing_merges_at_first_sight(kernel: str) -> None:
    assert shares(play(*filled([7] * 5), full_scan(), kernel=kernel)) == (0, 0, 0, 5)


@pytest.mark.parametrize("kernel", KERNELS)
def test_n_processes_share_as_n_pages_do(kernel: str) -> None:
    steps = [step for proc in "abcdefg" for step in filled([7, 8], proc=proc)]
    assert shares(play(*steps, full_scan(SCANS), kernel=kernel)) == (2, 12, 0, 0)


@pytest.mark.parametrize("kernel", KERNELS)
def test_lonely_pages_stay_in_the_unstable_tree(kernel: str) -> None:
    assert shares(play(*filled(list(range(1, 51))), full_scan(SCANS), kernel=kernel)) == (0, 0, 50, 0)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("nodes", [1, 2, 4, 8])
def test_without_merging_across_nodes_each_node_keeps_one(nodes: int, kernel: str) -> None:
    areas = [step for nid in range(nodes) for step in (mmap(f"m{nid}", 5, node=nid), write(f"m{nid}", *[7] * 5))]
    for across, shared in ((0, nodes), (1, 1)):
        player = Player(scenario(spawn(), *areas, full_scan(SCANS), nodes=nodes, merge_across_nodes=across), kernel)
        assert shares(player.run()) == (shared, 5 * nodes - shared, 0, 0)
        remote = [0] + [5 * across] * (nodes - 1)  # the page scanned second, on node 0, gave its frame
        assert node_counter(player, NodeCounter.REMOTE_MAPPINGS) == remote
        assert node_counter(player, NodeCounter.FRAMES) == ([1] + [0] * (nodes - 1) if across else [1] * nodes)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(
    ("n", "most"), [(4, 2), (5, 2), (9, 3), (10, 3), (11, 3), (100, 16), (256, 256), (257, 256), (600, 256)]
)
def test_max_page_sharing_makes_a_chain_of_full_dups(n: int, most: int, kernel: str) -> None:
    counters = play(*filled([7] * n), full_scan(SCANS), kernel=kernel, max_page_sharing=most)
    dups = n // most + (n % most >= 2)
    alone = int(n % most == 1)  # the last page finds no dup with room, and nobody to make another one with
    assert shares(counters) == (dups, n - dups - alone, alone, 0)
    assert (counters["stable_node_chains"], counters["stable_node_dups"]) == ((1, dups) if dups > 1 else (0, 0))


@pytest.mark.parametrize("kernel", ["6.12", "7.2"])
def test_smart_scan_visits_a_lonely_page_ever_more_rarely(kernel: str) -> None:
    player = Player(scenario(*filled([7]), *[full_scan()] * 41, smart_scan=1), kernel)
    scanned = [player.counters()["pages_scanned"] for _ in player.outcomes()][3:]
    visited = [
        scan for scan, (before, after) in enumerate(zip([0, *scanned], scanned, strict=False), start=1) if after > before
    ]
    assert visited == [1, 2, 3, 4, 6, 9, 14, 23, 32, 41]


@pytest.mark.parametrize("kernel", ["6.12", "7.2"])
def test_a_visit_and_a_skip_per_page_and_scan_make_all_page_visits(kernel: str) -> None:
    counters = play(*filled([1, 2, 3, 4, 7, 7]), full_scan(20), kernel=kernel, smart_scan=1)
    assert counters["pages_skipped"] > 0
    assert counters["page_visits"] == counters["pages_scanned"] + counters["pages_skipped"] == 20 * 6


@pytest.mark.parametrize("kernel", KERNELS)
def test_zero_pages_merge_with_the_kernels_or_like_any_other(kernel: str) -> None:
    steps = [*filled([0] * 6), full_scan(SCANS)]
    own = play(*steps, kernel=kernel, use_zero_pages=1)
    assert (shares(own), own["ksm_zero_pages"], own["ksm_rmap_items"], own["saved_pages"]) == ((0, 0, 0, 0), 6, 0, 6)
    ordinary = play(*steps, kernel=kernel, use_zero_pages=0)
    assert (shares(ordinary), ordinary["ksm_zero_pages"], ordinary["saved_pages"]) == ((1, 5, 0, 0), 0, 5)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_write_gives_back_a_zero_page_and_is_no_copy_of_a_ksm_page(kernel: str) -> None:
    counters = play(*filled([0] * 6), full_scan(2), write("m", 5, 0), kernel=kernel, use_zero_pages=1)
    assert (counters["ksm_zero_pages"], counters["cow_ksm"]) == (4, 0)


@pytest.mark.parametrize("kernel", KERNELS)
def test_every_write_to_a_ksm_page_copies_it_even_the_last(kernel: str) -> None:
    clones = [*filled([7] * 4), full_scan(2)]
    assert play(*clones, write("m", 1, 2, 7, 7), kernel=kernel)["cow_ksm"] == 4
    assert shares(play(*clones, write("m", 1, 2, 3), full_scan(), kernel=kernel)) == (1, 0, 0, 3)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("contents", [[7] * 30, [7] * 10 + [8] * 10 + [9] * 10, list(range(30)), [0] * 15 + [1] * 15])
def test_a_page_saved_is_a_frame_freed(contents: list[int], kernel: str) -> None:
    player = Player(scenario(*filled(contents), full_scan(SCANS), nodes=1, use_zero_pages=1), kernel)
    counters = player.run()
    assert node_counter(player, NodeCounter.FRAMES) == [30 - counters["saved_pages"]]
    assert node_counter(player, NodeCounter.KSM_FRAMES) == [counters["pages_shared"]]
    assert counters["general_profit"] == counters["saved_pages"] * 4096 - counters["ksm_rmap_items"] * 64
    assert counters["pages_merged"] == counters["saved_pages"] + counters["pages_shared"]


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_stopped_ksmd_visits_nothing_and_unmerging_undoes_everything(kernel: str) -> None:
    clones = [*filled([7] * 5), full_scan(2)]
    stopped = play(*clones, {"op": "run", "value": 0}, full_scan(), kernel=kernel)
    assert (stopped["full_scans"], shares(stopped)) == (2, (1, 4, 0, 0))
    unmerged = play(*clones, {"op": "run", "value": 2}, kernel=kernel)
    assert (unmerged["full_scans"], shares(unmerged), unmerged["cow_ksm"]) == (0, (0, 0, 0, 0), 5)
