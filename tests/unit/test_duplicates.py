"""Are equal pages found, all of them, and does a sample of contents say how far it may be wrong?"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksmbatch.duplicates import Draw, Figure, Groups, group, regroup


def as_dict(groups: Groups) -> dict[int, list[int]]:
    parts = np.split(groups.page, groups.start[1:-1]) if groups.content.size else []
    return {int(content): pages.tolist() for content, pages in zip(groups.content, parts, strict=True)}


def by_hand(content: list[int]) -> dict[int, list[int]]:
    pages: dict[int, list[int]] = {}
    for page, each in enumerate(content):
        pages.setdefault(each, []).append(page)
    return {each: where for each, where in sorted(pages.items()) if len(where) > 1}


@given(st.lists(st.integers(0, 9)), st.sampled_from([1, 2**40, 2**60]))
def test_groups_are_the_pages_of_every_content_that_is_there_twice(content: list[int], scale: int) -> None:
    # dense ids are counted, others are sorted
    scaled = [each * scale for each in content]
    assert as_dict(group(np.array(scaled, np.uint64))) == by_hand(scaled)


def test_ids_may_use_all_64_bits() -> None:
    assert as_dict(group(np.array([2**64 - 1, 5, 2**64 - 1], np.uint64))) == {2**64 - 1: [0, 2]}


def test_groups_split_by_node_keep_lonely_pages() -> None:
    content = np.array([7, 7, 8, 7, 8, 9], np.uint64)
    node = np.array([0, 1, 1, 0, 0, 0], np.uint8)
    parts = regroup(group(content), node, 2)
    assert parts.content.tolist() == [7, 7, 8, 8]
    assert [pages.tolist() for pages in np.split(parts.page, parts.start[1:-1])] == [[0, 3], [1], [4], [2]]


def test_of_all_groups_a_total_is_the_sum() -> None:
    groups = group(np.array([1, 1, 2, 2, 2], np.uint64))
    assert groups.total(groups.size) == Figure(5, 5, 5)
    assert groups.total_by(np.array([0, 1, 1, 1, 0]), np.array([1, 1, 1, 1, 10]), 3).tolist() == [11, 3, 0]


# ---- samples


def memory(kind: str) -> np.ndarray:
    rng = np.random.default_rng(7)
    sizes = {
        "groups": rng.integers(1, 60, 4000),
        "pairs": np.concatenate([np.full(15_000, 2), np.ones(20_000, int)]),
        "few": np.concatenate([np.full(150, 2), np.ones(40_000, int)]),
        "heavy tail": np.concatenate([np.full(30, 4000), rng.integers(2, 100, 1000), np.ones(5000, int)]),
    }[kind]
    content = np.repeat(np.arange(1, sizes.size + 1), sizes).astype(np.uint64)
    rng.shuffle(content)
    return content * np.uint64(0x9E3779B97F4A7C15)


@pytest.mark.parametrize("kind", ["groups", "pairs", "few", "heavy tail"])
@pytest.mark.parametrize("fraction", [0.02, 0.1])
def test_nineteen_in_twenty_intervals_hold_the_truth_and_estimates_are_right_in_the_mean(kind: str, fraction: float) -> None:
    content = memory(kind)
    everything = group(content)
    node = (np.arange(content.size) % 2).astype(np.uint8)
    truth = [everything.total(everything.size - 1), (apart := regroup(everything, node, 2)).total(apart.size - 1)]
    n, held, sums = 120, [0, 0], [0, 0]
    for seed in range(n):
        sample = group(content, Draw(content, fraction, seed))
        for k, groups in enumerate((sample, regroup(sample, node, 2))):
            figure = groups.total(groups.size - 1)
            held[k] += figure.low <= truth[k].value <= figure.high
            sums[k] += figure.value
    assert min(held) >= 0.9 * n
    # the mean of many lies nearer to the truth than one of them may
    typical = max(figure.high - figure.value, 1)
    for k in range(2):
        assert abs(sums[k] / n - truth[k].value) < typical / 2


def test_what_is_frequent_is_looked_at_in_any_case_and_the_rest_is_bounded() -> None:
    content = memory("heavy tail")
    values, pages = np.unique(content, return_counts=True)
    for seed in range(5):
        draw = Draw(content, 0.01, seed)
        certain = draw.is_certain(values)
        assert certain[pages >= 4000].all()
        assert pages[~certain].max() <= draw.most_left < 1000


def test_a_sample_has_all_pages_of_a_content_or_none_and_zeros_always() -> None:
    content = np.concatenate([memory("groups"), np.zeros(1000, np.uint64)])
    everything, sample = as_dict(group(content)), as_dict(group(content, Draw(content, 0.05, 1)))
    assert 0.02 * len(everything) < len(sample) < 0.2 * len(everything)
    assert sample == {each: everything[each] for each in sample}
    assert 0 in sample


def test_an_interval_is_never_empty_where_something_was_left_to_chance() -> None:
    content = np.arange(1, 50_000).astype(np.uint64)
    figure = (groups := group(content, Draw(content, 0.01, 1))).total(groups.size)
    assert figure.value == figure.low == 0
    assert 100 < figure.high < 1000


def test_one_seed_draws_once() -> None:
    content = memory("groups")
    first, again, other = (as_dict(group(content, Draw(content, 0.05, seed))) for seed in (1, 1, 2))
    assert first == again != other


def test_an_empty_memory_has_no_groups() -> None:
    nothing = np.zeros(0, np.uint64)
    assert group(nothing).content.size == group(nothing, Draw(nothing, 0.1, 1)).content.size == 0
    assert regroup(group(nothing), np.zeros(0, np.uint8), 2).content.size == 0
