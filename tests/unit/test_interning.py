"""From raw pages to ids: are equal pages equal, others not, and is the order memcmp's? Against numpy and plain bytes."""

import threading
import time
import tracemalloc
from collections.abc import Sequence
from typing import Any

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ksmbatch import interning, page_groups, page_order
from ksmbatch.errors import InputError
from ksmbatch.interning import ArraySource, Interned, PageSource, hash_pages, intern_pages, intern_sources
from ksmbatch.kernels.grouping import GROUP, HASH, group_pages
from ksmbatch.pagesource import PageReader

PAGE = 4096
ALL_BITS = (1 << 64) - 1
NO_BITS = 0  # every two pages collide
# where pages may differ: at the ends of words, of vectors, of what is compared at once, and of the page
PLACES = [0, 1, 6, 7, 8, 9, 15, 63, 64, 255, 256, 257, 2048, 4087, 4088, 4089, 4094, 4095]
PARTS = st.dictionaries(st.sampled_from(PLACES), st.sampled_from([1, 2, 127, 128, 255]), max_size=3)


class Streamed:
    """Pages that can only be read; it notes what is."""

    def __init__(self, pages: np.ndarray) -> None:
        self.n_pages = len(pages)
        self.reads: list[tuple[int, int]] = []
        self._pages = pages
        self._busy = threading.Lock()

    def read(self, first: int, out: np.ndarray) -> None:
        assert self._busy.acquire(blocking=False), "two threads read at a time"
        assert len(out) > 0
        assert first + len(out) <= self.n_pages
        self.reads.append((first, len(out)))
        out[:] = self._pages[first : first + len(out)]
        self._busy.release()


def page_of(parts: dict[int, int]) -> bytes:
    page = bytearray(PAGE)
    for at, value in parts.items():
        page[at] = value
    return bytes(page)


def array_of(pages: Sequence[bytes]) -> np.ndarray:
    return np.frombuffer(b"".join(pages), np.uint8).reshape(-1, PAGE)


def tiny(patch: pytest.MonkeyPatch) -> None:
    """Lets four pages be a portion, and three contents all that can be settled at once."""
    patch.setattr(page_groups, "_PORTION", 4)
    patch.setattr(page_order, "_AT_ONCE", 3)
    patch.setattr(page_order, "_AT_ONCE_IN_MEMORY", 3)
    patch.setattr(page_order, "_PART", 5)


def intern(source: PageSource, threads: int = 1, ordered: bool = True, hash_bits: int = ALL_BITS) -> Interned:
    return interning._intern(source, threads, None, ordered, np.uint64(hash_bits))


def check(found: Interned, pages: Sequence[bytes], order: Sequence[bytes]) -> None:
    """`order`: the distinct contents, as they should be numbered."""
    assert [order[content] for content in found.ids] == list(pages)
    assert found.n_contents == len(order) == len(found.checksums)
    assert found.ids.dtype == found.checksums.dtype == np.uint32
    zeros = bytes(PAGE)
    assert found.zero_id == (order.index(zeros) if zeros in order else None)
    assert found.checksums.tolist() == [int(value) & 0xFFFFFFFF for value in hash_pages(array_of(order))]


@given(
    pages=st.lists(PARTS, min_size=1, max_size=8).flatmap(lambda some: st.lists(st.sampled_from(some), max_size=25)),
    streamed=st.booleans(),
    threads=st.sampled_from([1, 2, 3]),
    hash_bits=st.sampled_from([ALL_BITS, 0xF, 1, NO_BITS, 1 << 63]),
)
def test_ids_are_places_in_the_sorted_contents_or_in_order_of_appearance(
    pages: list[dict[int, int]], streamed: bool, threads: int, hash_bits: int
) -> None:
    raw = [page_of(parts) for parts in pages]
    array = array_of(raw)
    with pytest.MonkeyPatch.context() as patch:
        tiny(patch)
        for ordered, order in ((True, sorted(set(raw))), (False, list(dict.fromkeys(raw)))):
            source = Streamed(array) if streamed else ArraySource(array)
            check(intern(source, threads, ordered, hash_bits), raw, order)


@given(seed=st.integers(0, 1 << 32), shared=st.sampled_from([0, 3, 8, 64, 2048, 4090]))
@settings(max_examples=20)
def test_random_pages_with_long_common_beginnings_are_numbered_as_numpy_numbers_them(seed: int, shared: int) -> None:
    random = np.random.default_rng(seed)
    contents = np.zeros((40, PAGE), np.uint8)
    contents[:, shared:] = random.integers(0, 3, (40, PAGE - shared))
    pages = contents[random.integers(0, 40, 120)]
    distinct, ids = np.unique(pages.view(f"V{PAGE}").ravel(), return_inverse=True)
    for source in (ArraySource(pages), Streamed(pages)):
        found = intern_pages(source, threads=2)
        assert found.ids.tolist() == ids.tolist()
        assert found.n_contents == len(distinct)


def test_no_pages_have_no_contents() -> None:
    nothing = np.empty((0, PAGE), np.uint8)
    for source in (ArraySource(nothing), Streamed(nothing)):
        for threads in (1, 2):
            found = intern_pages(source, threads=threads)
            assert (found.ids.size, found.n_contents, found.zero_id, found.checksums.size) == (0, 0, None, 0)


@pytest.mark.parametrize("content", [page_of({}), page_of({4095: 1})])
def test_one_page_has_id_0(content: bytes) -> None:
    check(intern_pages(ArraySource(array_of([content]))), [content], [content])


def test_the_page_of_zeros_has_id_0_in_memcmp_order_and_its_own_otherwise() -> None:
    pages = array_of([page_of({0: 9}), page_of({4095: 1}), page_of({})])
    assert intern_pages(ArraySource(pages)).zero_id == 0
    assert intern_pages(ArraySource(pages), ordered=False).zero_id == 2


def test_a_page_with_the_checksum_of_zeros_is_not_taken_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    pages = array_of([page_of({0: 9}), page_of({})])
    monkeypatch.setattr(interning, "hash_pages", lambda _: hash_pages(pages[:1]))
    assert intern_pages(ArraySource(pages[:1])).zero_id is None


def test_pages_whose_hashes_collide_stay_apart_on_all_ways_to_them() -> None:
    raw = [page_of({at: 1}) for at in (0, 5, 4095, 0, 5, 77)] + [page_of({})] * 2
    for hash_bits in (NO_BITS, 1, 1 << 32):
        for threads in (1, 2):
            for source in (ArraySource(array_of(raw)), Streamed(array_of(raw))):
                check(intern(source, threads, hash_bits=hash_bits), raw, sorted(set(raw)))


def test_two_pages_that_xxh64_cannot_tell_apart_stay_apart() -> None:
    # a lane takes in its words one after the other: whatever the first one does to it, the second can undo
    prime_1, prime_2 = 0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F
    start = (prime_1 + prime_2) & ALL_BITS

    def after(word: int) -> int:
        lane = (start + word * prime_2) & ALL_BITS
        return (lane << 31 | lane >> 33) * prime_1 & ALL_BITS

    undo = (after(0) - after(1)) * pow(prime_2, -1, 1 << 64) & ALL_BITS
    forged = bytearray(PAGE)
    forged[0:8], forged[32:40] = (1).to_bytes(8, "little"), undo.to_bytes(8, "little")
    raw = [bytes(PAGE), bytes(forged), bytes(PAGE)]
    one, other, _ = hash_pages(array_of(raw))
    assert one == other
    found = intern_pages(ArraySource(array_of(raw)))
    assert found.ids.tolist() == [0, 1, 0]
    assert found.zero_id == 0


def test_several_sources_are_numbered_together() -> None:
    raw = [page_of({0: value}) for value in (3, 1, 2, 1, 3, 0)]
    sources = [Streamed(array_of(raw[:2])), ArraySource(array_of(raw[2:2])), ArraySource(array_of(raw[2:]))]
    first, none, last = intern_sources(sources, threads=2)
    assert first.ids.tolist() == [3, 1]
    assert none.ids.tolist() == []
    assert last.ids.tolist() == [2, 1, 3, 0]
    assert {found.n_contents for found in (first, none, last)} == {4}


def test_one_source_alone_is_taken_as_it_is() -> None:
    pages = array_of([page_of({0: 1}), page_of({})])
    (found,) = intern_sources([ArraySource(pages)])
    assert found.ids.tolist() == [1, 0]


def test_pages_that_differ_in_their_hash_and_first_word_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_groups, "_PORTION", 4)
    source = Streamed(array_of([page_of({0: k}) for k in range(1, 11)]))
    intern_pages(source, threads=1)
    assert source.reads == [(0, 4), (4, 4), (8, 2)]


def test_the_first_of_a_group_is_read_once_a_portion_and_neighbours_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_groups, "_PORTION", 4)
    source = Streamed(array_of([page_of({0: k}) for k in (1, 2, 3, 4, 2, 2, 3, 4)]))
    intern_pages(source, threads=1)
    assert source.reads == [(0, 4), (4, 4), (1, 3)]


def test_a_source_is_read_by_one_thread_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(Streamed):
        def read(self, first: int, out: np.ndarray) -> None:
            super().read(first, _Sleeping(out))  # type: ignore[arg-type]

    class _Sleeping:
        """Memory that takes a while to be written, so that a second reader would come in between."""

        def __init__(self, out: np.ndarray) -> None:
            self._out = out

        def __len__(self) -> int:
            return len(self._out)

        def __setitem__(self, key: slice, pages: np.ndarray) -> None:
            time.sleep(0.002)
            self._out[key] = pages

    monkeypatch.setattr(page_groups, "_PORTION", 4)
    raw = [page_of({0: k % 7}) for k in range(60)]
    check(intern_pages(Slow(array_of(raw)), threads=3), raw, sorted(set(raw)))


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("ordered", [False, True])
def test_the_order_in_which_threads_look_up_does_not_show(
    ordered: bool, streamed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    others_were_first, busy = threading.Event(), threading.Lock()
    looked_up: list[int] = []

    class Delayed:
        @staticmethod
        def group_pages(*arguments: Any) -> int:
            steps, page = int(arguments[0]), int(arguments[4])
            if (steps, page) == (HASH, 0):
                assert others_were_first.wait(60)
            if steps != GROUP:
                return int(group_pages(*arguments))
            assert busy.acquire(blocking=False), "two threads look up at a time"
            time.sleep(0.002)  # so that a second one would come in between
            done = int(group_pages(*arguments))
            looked_up.append(page)
            if len(looked_up) == 3:
                others_were_first.set()
            busy.release()
            return done

    monkeypatch.setattr(page_groups, "_PORTION", 4)
    monkeypatch.setattr(page_groups, "grouping", Delayed)
    raw = [page_of({0: 100 - k % 9}) for k in range(30)]
    source = Streamed(array_of(raw)) if streamed else ArraySource(array_of(raw))
    check(intern_pages(source, threads=2, ordered=ordered), raw, sorted(set(raw)) if ordered else list(dict.fromkeys(raw)))
    assert looked_up.index(0) >= 3


def test_what_lies_between_two_pages_is_read_with_them_if_it_is_little_and_there_is_room() -> None:
    pages = np.arange(40, dtype=np.uint8)[:, None].repeat(PAGE, axis=1)
    wanted = np.array([1, 2, 5, 20, 22, 30], np.uint32)
    for room, reads in ((9, [(1, 5), (20, 3), (30, 1)]), (8, [(1, 2), (5, 1), (20, 1), (22, 1), (30, 1)])):
        source, out = Streamed(pages), np.empty((room, PAGE), np.uint8)
        rows = PageReader(source).read_scattered(wanted, out)
        assert out[rows, 0].tolist() == wanted.tolist()
        assert source.reads == reads


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_progress_grows_to_the_number_of_pages(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_groups, "_PORTION", 4)
    done: list[int] = []
    intern_pages(Streamed(array_of([page_of({})] * 11)), threads=threads, progress=done.append)
    assert done[-1] == 11
    assert done == sorted(done)
    assert len(done) == 3


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("bad_page", [0, 9, 20])
def test_what_a_source_raises_comes_out_and_nobody_waits_forever(
    bad_page: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Damaged(Streamed):
        def read(self, first: int, out: np.ndarray) -> None:
            if first <= bad_page < first + len(out):
                raise InputError(rule="is damaged")
            super().read(first, out)

    monkeypatch.setattr(page_groups, "_PORTION", 4)
    with pytest.raises(InputError, match="is damaged"):
        intern_pages(Damaged(array_of([page_of({0: k}) for k in range(30)])), threads=threads)


def test_after_an_error_the_other_threads_read_no_further(monkeypatch: pytest.MonkeyPatch) -> None:
    class Damaged(Streamed):
        def read(self, first: int, out: np.ndarray) -> None:
            if first == 8:
                raise InputError(rule="is damaged")
            time.sleep(0.001)
            super().read(first, out)

    monkeypatch.setattr(page_groups, "_PORTION", 4)
    source = Damaged(array_of([page_of({0: k % 256}) for k in range(2000)]))
    with pytest.raises(InputError, match="is damaged"):
        intern_pages(source, threads=2)
    assert len(source.reads) < 100


@pytest.mark.parametrize("threads", [1, 2])
def test_an_interruption_ends_the_threads(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(page_groups, "_PORTION", 4)
    with pytest.raises(KeyboardInterrupt):
        intern_pages(Streamed(array_of([page_of({0: k}) for k in range(30)])), threads=threads, progress=interrupt)


def test_more_pages_than_ids_are_refused_before_anything_is_read() -> None:
    class Huge:
        n_pages = (1 << 32) - 1

        def read(self, first: int, out: np.ndarray) -> None:
            raise AssertionError(first, out)

    with pytest.raises(InputError, match="pages = 4294967295: must be at most"):
        intern_pages(Huge())


def test_no_threads_are_refused() -> None:
    with pytest.raises(InputError, match="threads = 0: must be >= 1"):
        intern_pages(ArraySource(array_of([])), threads=0)


MIX = np.uint64(0x9E3779B97F4A7C15)


class Counting:
    """Pages that all differ, made when they are read; `tied`: they share their first 4,000 bytes."""

    def __init__(self, n_pages: int, tied: bool) -> None:
        self.n_pages = n_pages
        self._at = 4000 if tied else 0

    def read(self, first: int, out: np.ndarray) -> None:
        out[:] = 0
        words = out[:, self._at : self._at + 8].view(np.uint64)
        words[:, 0] = np.arange(1 + first, 1 + first + len(out), dtype=np.uint64) * MIX


@pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="takes minutes without compiled kernels")
@pytest.mark.parametrize(("tied", "bytes_per_page"), [(False, 26), (True, 38)])
def test_memory_is_bounded_by_the_number_of_pages(tied: bool, bytes_per_page: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_groups, "_PORTION", 64)
    monkeypatch.setattr(page_order, "_AT_ONCE", 1024)
    monkeypatch.setattr(page_order, "_PART", 1024)
    buffers = 1025 * PAGE if tied else 128 * PAGE
    intern_pages(Counting(10, tied), threads=1)  # compiled before it is measured
    source = Counting(100_000, tied)
    tracemalloc.start()
    found = intern_pages(source, threads=1)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.n_contents == 100_000
    assert peak < bytes_per_page * source.n_pages + buffers + 300_000


def test_a_deep_staircase_of_ties_is_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_order, "_AT_ONCE_IN_MEMORY", 40)  # and long runs are split
    stairs: list[Any] = [page_of(dict.fromkeys(range(step), 255)) for step in range(0, 200)]
    np.random.default_rng(1).shuffle(stairs)
    check(intern_pages(ArraySource(array_of(stairs))), stairs, sorted(stairs))
