"""Does an estimate say who shares with whom, what it costs, and why nothing merges? On memory that can be counted by hand."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksmbatch.codes import Kernel
from ksmbatch.estimate import Estimate, Pair, estimate
from ksmbatch.events import Fork, Mmap, Spawn, Write
from ksmbatch.memory import Memory, memory_after, memory_of_contents

CONTENTS = {"web": [0, 0, 1, 1, 2, 3], "db": [0, 1, 2, 4, 4, 4], "idle": [5, 0, 0, 2]}


def memory(contents: dict[str, list[int]], nids: list[int] | None = None, nodes: int = 2) -> Memory:
    arrays = {mm: np.array(held, np.uint64) for mm, held in contents.items()}
    return memory_of_contents(arrays, nids or [k % nodes for k in range(len(arrays))], nodes)


def found(**options: int) -> Estimate:
    return estimate(memory(CONTENTS), **options)


def raw_pages(contents: list[int]) -> bytes:
    """Pages as they lie in RAM: 4096 bytes each, zeros for content 0."""
    rng = np.random.default_rng(5)
    table = rng.integers(0, 256, (max(contents) + 1, 4096), np.uint8)
    table[0] = 0
    return table[contents].tobytes()


# ---- totals


def test_duplicates_are_what_is_left_when_every_content_is_kept_once() -> None:
    assert found().duplicates.value == 16 - 6
    assert (found().pages, found().zero_pages) == (16, 5)


def test_raw_bytes_counted_with_numpy_say_the_same() -> None:
    rng = np.random.default_rng(3)
    held = {mm: rng.choice(400, 300, p=np.r_[0.3, np.full(399, 0.7 / 399)]).tolist() for mm in ("a", "b", "c")}
    pages = np.frombuffer(raw_pages([each for mm in held.values() for each in mm]), "V4096")
    _, counts = np.unique(pages, return_counts=True)
    zeros = int((pages == np.zeros(1, "V4096")).sum())
    seen = estimate(memory(held))
    assert (seen.pages, seen.zero_pages, seen.duplicates.value) == (900, zeros, 900 - counts.size)
    for most in (2, 5, 256):
        setting = estimate(memory(held), most).setting(1)
        full, rest = counts // most, counts % most
        assert setting.pages_shared.value == (full + (rest > 1)).sum()
        assert setting.pages_sharing.value == (full * (most - 1) + np.maximum(rest - 1, 0)).sum()


def test_self_inter_and_zeros_make_up_all_duplicates() -> None:
    seen = found()
    assert seen.self_pages.value == 1 + 2  # a 1 of web, two 4s of db
    assert seen.inter_pages.value == 1 + 2  # the 1 that two hold, the 2 that three hold
    assert seen.self_pages.value + seen.inter_pages.value + seen.zero_pages - 1 == seen.duplicates.value


def test_every_page_of_an_mm_is_one_of_four_kinds() -> None:
    seen = found()
    assert seen.mm_zero.tolist() == [2, 1, 2]
    assert seen.mm_self.tolist() == [1, 2, 0]
    assert seen.mm_inter.tolist() == [2, 2, 1]
    assert seen.mm_alone.tolist() == [1, 1, 1]
    assert (seen.mm_zero + seen.mm_self + seen.mm_inter + seen.mm_alone == seen.mm_pages).all()


# ---- who with whom


def test_the_matrix_counts_contents_that_two_hold_both() -> None:
    assert np.asarray(found().matrix).tolist() == [[1, 2, 1], [2, 2, 1], [1, 1, 0]]
    assert found().pairs() == [Pair(0, 1, 2), Pair(0, 2, 1), Pair(1, 2, 1)]


contents = st.lists(st.integers(0, 12), max_size=12)


@given(st.lists(contents, min_size=1, max_size=5))
def test_the_matrix_sums_up(held: list[list[int]]) -> None:
    named = {f"m{k}": each for k, each in enumerate(held)}
    seen = estimate(memory(named, nodes=1))
    matrix = np.asarray(seen.matrix)
    sets = [set(each) - {0} for each in held]
    assert (matrix == matrix.T).all()
    assert np.diag(matrix).sum() == seen.self_pages.value
    for one, other in combinations(range(len(held)), 2):
        assert matrix[one, other] == len(sets[one] & sets[other])
        # placed together, alone: so much more than each for itself, zeros apart
        both = [each for each in held[one] + held[other] if each]
        alone = (
            len([each for each in held[one] if each])
            - len(sets[one])
            + len([each for each in held[other] if each])
            - len(sets[other])
        )
        assert matrix[one, other] == len(both) - len(set(both)) - alone
    if len(held) == 2:
        assert matrix[0, 1] == seen.inter_pages.value
    n_pairs = np.triu(matrix, 1).sum()
    assert n_pairs >= seen.inter_pages.value


def test_a_matrix_of_more_mms_than_anybody_reads_is_left_out() -> None:
    many = estimate(memory({f"m{k}": [k % 7] for k in range(257)}, nodes=1))
    assert many.matrix is None
    assert many.pairs() == []
    assert many.duplicates.value == 250


# ---- nodes


def test_with_merge_across_nodes_0_each_node_keeps_its_own() -> None:
    seen = estimate(memory({"a": [1, 1, 2], "b": [1, 1, 2]}))
    assert (seen.setting(1).pages_shared.value, seen.setting(1).pages_sharing.value) == (2, 4)
    assert (seen.setting(0).pages_shared.value, seen.setting(0).pages_sharing.value) == (2, 2)
    # the second page of each content gave its frame: 1 is on node 0, 2 on node 1
    assert seen.setting(1).remote_mappings.value == 3  # type: ignore[union-attr]  # asked for
    assert seen.setting(0).remote_mappings.value == 0  # type: ignore[union-attr]  # asked for
    assert [(node.pages, node.saved_apart, node.saved_across, node.remote_mappings) for node in seen.nodes] == [
        (3, 1, 2, 1),
        (3, 1, 2, 2),
    ]


def test_what_the_nodes_save_is_what_is_saved() -> None:
    seen = found(max_page_sharing=2)
    for across, name in ((1, "saved_across"), (0, "saved_apart")):
        assert sum(getattr(node, name) for node in seen.nodes) == seen.setting(across).pages_sharing.value


# ---- price


def test_metadata_costs_64_bytes_per_page_even_where_nothing_merges() -> None:
    assert found().setting(1).general_profit.value == 10 * 4096 - 16 * 64
    assert estimate(memory({"a": [1, 2, 3]})).setting(1).general_profit.value == -3 * 64


def test_use_zero_pages_saves_the_last_zero_page_and_its_metadata() -> None:
    with_zero = found().setting(1, use_zero_pages=1)
    assert (with_zero.ksm_zero_pages, with_zero.pages_sharing.value) == (5, 6)
    assert with_zero.general_profit.value == 11 * 4096 - 11 * 64


def test_max_page_sharing_is_shown_for_the_usual_values_and_the_one_asked_for() -> None:
    rows = [one for one in found(max_page_sharing=3).by_sharing if one.merge_across_nodes]
    assert [one.max_page_sharing for one in rows] == [2, 3, 16, 256, 1_000_000]
    assert [one.pages_sharing.value for one in rows] == [5, 9, 10, 10, 10]
    assert [(one.stable_node_chains.value, one.stable_node_dups.value) for one in rows[:3]] == [(1, 2), (1, 2), (0, 0)]


# ---- why not


@pytest.mark.parametrize(
    ("contents", "reason"),
    [
        ({}, "no page is there"),
        ({"a": []}, "no page is there"),
        ({"a": [0]}, "there is only one page"),
        ({"a": [1, 2], "b": [3, 0]}, "no two pages are equal"),
        ({"a": [1, 0], "b": [1, 0]}, "with merge_across_nodes = 0: pages that are equal are on different nodes, one on each"),
    ],
)
def test_it_says_why_nothing_merges(contents: dict[str, list[int]], reason: str) -> None:
    assert estimate(memory(contents)).reasons == (reason,)


def test_it_says_nothing_where_all_is_well() -> None:
    assert found().reasons == ()


def test_pages_that_fork_shares_already_and_pages_that_may_not_merge_are_named() -> None:
    def process(mergeable: bool) -> Memory:
        pages, contents = np.arange(2), np.array([1, 2], np.uint64)
        steps = [Spawn(proc="a"), Mmap(proc="a", area="m", pages=2, mergeable=mergeable)]
        steps += [Write(proc="a", area="m", pages=pages, contents=contents), Fork(proc="a", child="b")]
        return memory_after([steps], 1, Kernel.V6_12)

    forked = estimate(process(mergeable=True))
    assert forked.reasons == ("pages that are equal are on one frame already, which fork shares",)
    assert (forked.forked_pages, forked.duplicates.value, forked.setting(1).saved_pages.value) == (2, 2, 0)
    no_page, hint = estimate(process(mergeable=False)).reasons
    assert no_page == "no page is mergeable"
    assert hint.startswith("4 pages are there and not mergeable: madvise(MADV_MERGEABLE)")


# ---- samples


def test_a_sample_scales_up_and_says_how_far_it_may_be_wrong() -> None:
    rng = np.random.default_rng(2)
    held = {mm: rng.integers(0, 30_000, 60_000).tolist() for mm in ("a", "b", "c")}
    whole, sample = estimate(memory(held)), estimate(memory(held), fraction=0.1)
    assert (sample.fraction, whole.fraction) == (0.1, None)
    assert (sample.pages, sample.zero_pages) == (whole.pages, whole.zero_pages)
    for name in ("duplicates", "self_pages", "inter_pages"):
        truth, figure = getattr(whole, name).value, getattr(sample, name)
        assert figure.low < truth < figure.high
        assert figure.high - figure.low < 0.2 * truth
    assert np.allclose(sample.matrix, whole.matrix, rtol=0.1)  # type: ignore[arg-type]  # three mms have one
    assert np.allclose(sample.mm_alone, whole.mm_alone, atol=0.05 * 60_000)


def test_a_sample_of_all_is_no_sample() -> None:
    assert estimate(memory(CONTENTS), fraction=1.0).fraction is None
