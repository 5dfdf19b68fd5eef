"""Does `mix` make the memory that its parameters name, and is its randomness a function of seed and place alone?"""

import tracemalloc
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksmbatch.errors import InputError
from ksmbatch.events import LazyWrite, Mmap, Spawn, Write
from ksmbatch.generators import GENERATORS, find_generator, generator_keys
from ksmbatch.generators.mix import Mix, MixParameters
from ksmbatch.generators.rng import Permutation, ascending, key, uniform
from ksmbatch.workload import Workload

SMALL = {"mms": 4, "pages_per_mm": 5000, "zero": 0.1, "duplicated": 0.2, "rewritten_per_scan": 0.01}


def mix(**given: Any) -> MixParameters:
    parameters = find_generator("mix").read(given)
    assert isinstance(parameters, MixParameters)
    return parameters


def build(seed: int = 1, full_scans: int = 5, binding: Any = None, **given: Any) -> Workload:
    return find_generator("mix").build(mix(**given), nodes=2, binding=binding, seed=seed, full_scans=full_scans)


def contents(parameters: MixParameters, seed: int = 1) -> np.ndarray:
    mix = Mix(parameters, seed)
    return np.stack([mix.first(mm, mix.ordering.raws) for mm in range(parameters.mms)])


def rewritten(parameters: MixParameters, scan: int, seed: int = 1) -> np.ndarray:
    """What is written after full scan number `scan`."""
    mix = Mix(parameters, seed)
    return mix.rewrites(scan, mix.ordering.raws)


def writes(workload: Workload, snapshot: int) -> Iterator[Write]:
    return (step.made() for step in workload.snapshots[snapshot].steps if isinstance(step, LazyWrite))


# ---- shares


@pytest.mark.parametrize("group", [(2, 100), (2, 2), (50, 50), (2, 3)])
def test_the_shares_of_zero_duplicated_and_unique_pages_are_those_asked_for(group: tuple[int, int]) -> None:
    raw, count = np.unique(contents(mix(**SMALL, group=group)), return_counts=True)
    assert raw[0] == 0
    assert count[0] == 2000
    groups = count[1:][count[1:] > 1]
    assert 4000 - group[0] < groups.sum() <= 4000
    assert groups.min() >= group[0]
    assert groups.max() <= group[1]


def test_the_sizes_of_groups_are_spread_over_their_range() -> None:
    _, count = np.unique(contents(mix(mms=2, pages_per_mm=50_000, duplicated=1.0, group=(2, 5))), return_counts=True)
    sizes, often = np.unique(count, return_counts=True)
    assert sizes.tolist() == [2, 3, 4, 5]
    assert often.min() > 0.8 * often.max()


def test_groups_are_spread_over_the_mms_and_over_their_pages() -> None:
    made = contents(mix(**SMALL))
    raw, count = np.unique(made, return_counts=True)
    largest = raw[1:][count[1:].argsort()[-20:]]
    for content in largest:
        mms, pages = np.nonzero(made == content)
        assert len(set(mms.tolist())) == 4
        assert pages.max() - pages.min() > 2500


@pytest.mark.parametrize("zero", [0.0, 1.0])
def test_all_or_nothing_is_possible(zero: float) -> None:
    made = contents(mix(mms=3, pages_per_mm=7, zero=zero))
    assert (made == 0).sum() == 21 * zero
    assert np.unique(made).size == (1 if zero else 21)


def test_a_single_page_is_possible() -> None:
    assert contents(mix(mms=1, pages_per_mm=1)).shape == (1, 1)


def test_the_order_of_contents_has_nothing_to_do_with_the_order_of_pages() -> None:
    made = contents(mix(mms=1, pages_per_mm=50_000)).ravel().astype(np.float64)
    assert abs(np.corrcoef(made, np.arange(made.size))[0, 1]) < 0.02
    assert abs(np.corrcoef(made[1:], made[:-1])[0, 1]) < 0.02


# ---- rewriting


def test_half_of_what_is_rewritten_is_new_and_half_is_shared() -> None:
    parameters = mix(**SMALL)
    raw, count = np.unique(contents(parameters), return_counts=True)
    shared = set(raw[(count > 1) & (raw > 0)].tolist())
    seen = set(raw.tolist())
    for scan in (1, 2, 3):
        written = rewritten(parameters, scan).tolist()
        assert len(written) == 200
        fresh = [content for content in written if content not in seen]
        assert len(set(fresh)) == len(fresh) == 100
        assert all(content in shared for content in written if content in seen)
        seen.update(fresh)


def test_rewritten_pages_are_ascending_and_no_page_is_written_twice() -> None:
    pages = []
    for write in writes(build(**SMALL), 1):
        assert (np.diff(write.pages) > 0).all()
        assert 0 <= min(write.pages) <= max(write.pages) < 5000
        assert write.contents.shape == (len(write.pages),)
        pages += [(write.proc, int(page)) for page in write.pages]
    assert len(set(pages)) == 200
    assert {proc for proc, _ in pages} == {"mm0", "mm1", "mm2", "mm3"}


def test_other_pages_are_rewritten_in_every_scan() -> None:
    first, second = (set(Mix(mix(**SMALL), 1).rewritten(scan).tolist()) for scan in (1, 2))
    assert len(first) == len(second) == 200
    assert len(first & second) < 20


def test_which_half_is_new_has_nothing_to_do_with_the_place_of_a_page() -> None:
    parameters = mix(**SMALL | {"rewritten_per_scan": 0.5})
    is_new = ~np.isin(rewritten(parameters, 1), contents(parameters))
    assert is_new.sum() == 5000
    assert abs(is_new[:5000].sum() - 2500) < 150
    assert abs((is_new[1:] & is_new[:-1]).sum() - 2500) < 150


def test_without_groups_the_shared_half_is_zeros_and_without_zeros_what_others_hold() -> None:
    assert (rewritten(mix(**SMALL | {"duplicated": 0.0}), 1) == 0).sum() == 100
    parameters = mix(**SMALL | {"duplicated": 0.0, "zero": 0.0})
    assert np.isin(rewritten(parameters, 1), contents(parameters)).sum() == 100


def test_new_contents_stay_new_however_long_the_run_is() -> None:
    parameters = mix(mms=1, pages_per_mm=100, rewritten_per_scan=1.0)
    fresh = np.concatenate([rewritten(parameters, scan, 3) for scan in range(1, 50)])
    raw, count = np.unique(np.concatenate([fresh, contents(mix(mms=1, pages_per_mm=100), 3).ravel()]), return_counts=True)
    assert (count == 1).sum() >= 49 * 50
    assert raw.max() < 2**62


def test_everything_may_be_rewritten() -> None:
    workload = build(mms=2, pages_per_mm=10, rewritten_per_scan=1.0)
    assert [list(write.pages) for write in writes(workload, 1)] == [list(range(10))] * 2


# ---- the workload


def test_mms_start_in_the_order_of_their_numbers_on_the_nodes_they_are_bound_to() -> None:
    workload = build(binding="round_robin", **SMALL)
    steps = list(workload.snapshots[0].steps)
    assert [step.proc for step in steps if isinstance(step, Spawn)] == ["mm0", "mm1", "mm2", "mm3"]
    assert [(step.proc, step.pages, step.node) for step in steps if isinstance(step, Mmap)] == [
        ("mm0", 5000, 0),
        ("mm1", 5000, 1),
        ("mm2", 5000, 0),
        ("mm3", 5000, 1),
    ]
    assert [write.proc for write in writes(workload, 0)] == ["mm0", "mm1", "mm2", "mm3"]
    assert workload.per_scan


def test_there_is_a_snapshot_between_any_two_full_scans_if_anything_is_rewritten() -> None:
    assert len(build(full_scans=5, **SMALL).snapshots) == 5
    assert len(build(full_scans=5, **SMALL | {"rewritten_per_scan": 0.0}).snapshots) == 1


def test_a_longer_run_begins_as_a_shorter_one_does() -> None:
    short, long = build(full_scans=2, **SMALL), build(full_scans=9, **SMALL)
    for snapshot in range(2):
        for one, other in zip(writes(short, snapshot), writes(long, snapshot), strict=True):
            assert one.proc == other.proc
            assert np.array_equal(one.pages, other.pages)
            assert np.array_equal(one.contents, other.contents)


def test_all_memory_is_written_without_a_list_of_its_pages_and_no_array_is_made_before_it_is_asked_for() -> None:
    tracemalloc.start()
    workload = build(full_scans=10, mms=4, pages_per_mm=250_000, duplicated=0.5, rewritten_per_scan=0.1)
    snapshots = [list(snapshot.steps) for snapshot in workload.snapshots]
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 1_000_000
    pages = [step.arrays.pages() for step in snapshots[0] if isinstance(step, LazyWrite)]
    assert pages == [range(250_000)] * 4


def test_what_was_written_after_a_scan_is_forgotten_with_its_snapshot() -> None:
    workload = build(**SMALL)
    steps = [step for step in workload.snapshots[1].steps if isinstance(step, LazyWrite)]
    made = [weakref.ref(step.arrays.ids().base) for step in steps]
    assert len({id(array()) for array in made}) == 1  # one for all mms
    assert made[0]() is not None
    del steps
    assert made[0]() is None


# ---- parameters


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"mms": 0}, "workload.mms = 0: must be a whole number, 1 to 1073741824"),
        ({"mms": True}, "workload.mms = true: must be a whole number"),
        ({"mms": 2.0}, "workload.mms = 2.0: must be a whole number"),
        ({"mms": "2"}, 'workload.mms = "2": must be a whole number'),
        ({"pages_per_mm": 2**29}, "workload.pages_per_mm = 536870912: makes 2147483648 pages with mms = 4: must be at most"),
        ({"zero": -0.1}, "workload.zero = -0.1: must be a number from 0 to 1"),
        ({"zero": float("nan")}, "workload.zero = NaN: must be a number from 0 to 1"),
        ({"zero": True}, "workload.zero = true: must be a number from 0 to 1"),
        ({"duplicated": 0.95}, "workload.duplicated = 0.95: must be at most 1 together with zero = 0.1"),
        ({"group": 2}, "workload.group = 2: must be the least and the greatest size of a group"),
        ({"group": [2]}, "workload.group = [2]: must be the least and the greatest size of a group"),
        ({"group": [1, 5]}, "workload.group[0] = 1: must be a whole number, 2 to"),
        ({"group": [5, 4]}, "workload.group[1] = 4: must be a whole number, 5 to"),
        ({"group": [2.0, 4]}, "workload.group[0] = 2.0: must be a whole number"),
        ({"duplicated": 1e-6}, "workload.duplicated = 1e-06: makes 0 of 20000 pages: too few for a group of 2"),
        ({"rewritten_per_scan": 1.5}, "workload.rewritten_per_scan = 1.5: must be a number from 0 to 1"),
        ({"rewriten_per_scan": 0.1}, "workload.rewriten_per_scan = 0.1: unknown key (nearest: rewritten_per_scan)"),
    ],
)
def test_a_bad_parameter_is_named(given: dict[str, Any], line: str) -> None:
    with pytest.raises(InputError) as error:
        find_generator("mix").read(SMALL | given)
    assert line in str(error.value)


def test_a_parameter_without_default_is_needed() -> None:
    for name in ("mms", "pages_per_mm"):
        with pytest.raises(InputError, match=rf'^workload\.{name}: is missing: generator "mix" needs it$'):
            find_generator("mix").read({other: value for other, value in SMALL.items() if other != name})


def test_what_means_the_same_workload_is_equal() -> None:
    assert mix(mms=1, pages_per_mm=2, zero=1, group=[2, 3]) == mix(mms=1, pages_per_mm=2, zero=1.0, group=(2, 3))


def test_an_unknown_generator_is_named_with_the_nearest() -> None:
    with pytest.raises(InputError, match=r'workload\.generator = "mixx": unknown generator \(nearest: mix\)'):
        find_generator("mixx")


def test_the_keys_of_all_generators_are_known() -> None:
    assert "workload.rewritten_per_scan" in generator_keys()
    assert len(set(generator_keys())) == len(generator_keys())
    assert list(GENERATORS) == sorted(GENERATORS)


# ---- randomness


@given(st.integers(min_value=1, max_value=3000), st.integers(min_value=0, max_value=2**64 - 1))
def test_a_permutation_gives_every_number_once(n: int, stream: int) -> None:
    places = Permutation(n, stream)(np.arange(n, dtype=np.uint64))
    assert np.array_equal(np.sort(places), np.arange(n, dtype=np.uint64))


def test_a_permutation_is_the_same_whatever_is_asked_for_and_in_which_order() -> None:
    order = Permutation(100_000, 9)
    places = order(np.arange(100_000, dtype=np.uint64))
    some = np.array([99_999, 5, 70_000, 5], np.uint64)
    assert np.array_equal(order(some), places[some.astype(np.int64)])


@pytest.mark.parametrize("n", [1000, 4096, 100_000])
def test_a_permutation_leaves_no_order(n: int) -> None:
    numbers = np.arange(n, dtype=np.uint64)
    correlations = [np.corrcoef(numbers, Permutation(n, stream)(numbers))[0, 1] for stream in range(40)]
    assert np.abs(correlations).mean() < 2 / np.sqrt(n)


@given(st.integers(min_value=1, max_value=2**32), st.integers(min_value=0, max_value=2**64 - 1))
def test_a_permutation_of_short_words_is_that_of_long_ones(n: int, stream: int) -> None:
    numbers = uniform(1, np.arange(50, dtype=np.uint64), n).astype(np.uint64)
    places = Permutation(n, stream)(numbers.astype(np.uint32))
    assert places.dtype == np.uint32
    assert places.tolist() == Permutation(n, stream)(numbers).tolist()


@given(st.integers(min_value=1, max_value=3000), st.integers(min_value=0, max_value=2**64 - 1), st.data())
def test_ascending_numbers_are_as_many_as_asked_for(below: int, stream: int, data: st.DataObject) -> None:
    n = data.draw(st.integers(min_value=0, max_value=below))
    numbers = ascending(stream, n, below)
    assert numbers.shape == (n,)
    assert (np.diff(numbers) > 0).all()
    assert n == 0 or (numbers[0] >= 0 and numbers[-1] < below)


@pytest.mark.parametrize(("n", "below"), [(1, 7), (3, 10), (9, 10), (2, 60)])
def test_among_ascending_numbers_every_number_is_as_likely_as_any_other(n: int, below: int) -> None:
    times = 4000
    often = np.bincount(np.concatenate([ascending(key(stream), n, below) for stream in range(times)]), minlength=below)
    expected = times * n / below
    assert np.abs(often - expected).max() < 5 * np.sqrt(expected)


def test_gaps_between_ascending_numbers_are_those_of_chance() -> None:
    gaps = np.diff(ascending(3, 50_000, 5_000_000))
    for share in (0.1, 0.5, 0.9, 0.99):  # of a geometric distribution
        assert np.quantile(gaps, share) == pytest.approx(-100 * np.log(1 - share), rel=0.1, abs=2)


def test_zero_stays_zero_in_a_power_of_two() -> None:
    assert all(Permutation(1 << bits, 5)(np.zeros(1, np.uint64))[0] == 0 for bits in range(1, 40))


def test_uniform_numbers_are_uniform_and_depend_on_stream_and_counter_only() -> None:
    counters = np.arange(60_000, dtype=np.uint64)
    numbers = uniform(3, counters, 6)
    _, often = np.unique(numbers, return_counts=True)
    assert often.size == 6
    assert np.abs(often - 10_000).max() < 400
    assert np.array_equal(uniform(3, counters[::-1], 6), numbers[::-1])
    assert not np.array_equal(uniform(4, counters, 6), numbers)


def test_keys_depend_on_every_part_and_their_order() -> None:
    keys = [key(1), key(1, 0), key(0, 1), key(1, 2), key(2, 1), key(1, 2, 0), key(2**63), key(2**63, 1)]
    assert len(set(keys)) == len(keys)
    assert all(0 <= each < 2**64 for each in keys)
    assert key(0) == 0xE220A8397B1DCDAF  # the first output of splitmix64 seeded with 0
