"""XXH64 of pages, against the xxhash package."""

import numba
import numpy as np
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from ksmbatch.interning import hash_pages
from ksmbatch.kernels import xxhash as kernel
from ksmbatch.kernels.xxhash import PAGES_AT_ONCE, xxh64_many, xxh64_one

SEEDS = [0, 1, 0x0123456789ABCDEF, (1 << 64) - 1]


def random_pages(n: int) -> np.ndarray:
    return np.random.default_rng(n).integers(0, 256, (n, 4096), np.uint8)


def expected(pages: np.ndarray, seed: int = 0) -> list[int]:
    return [xxhash.xxh64_intdigest(page.tobytes(), seed) for page in pages]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("n", [0, 1, 7, 8, 9, 17])  # pages are hashed eight at a time, and those that are left over singly
def test_every_page_has_the_hash_that_the_xxhash_package_gives_it(n: int, seed: int) -> None:
    pages = random_pages(n)
    assert hash_pages(pages, seed).tolist() == expected(pages, seed)


@pytest.mark.parametrize("value", [0x00, 0x01, 0x7F, 0x80, 0xFF])
def test_pages_of_one_byte_have_the_right_hash(value: int) -> None:
    pages = np.full((1, 4096), value, np.uint8)
    assert hash_pages(pages).tolist() == expected(pages)


@given(at=st.integers(0, 4095), value=st.integers(1, 255), seed=st.integers(0, (1 << 64) - 1))
def test_no_byte_is_left_out(at: int, value: int, seed: int) -> None:
    pages = np.zeros((2, 4096), np.uint8)
    pages[1, at] = value
    assert hash_pages(pages, seed).tolist() == expected(pages, seed)


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
def test_threads_hash_the_same(threads: int) -> None:
    pages = random_pages(5)
    assert hash_pages(pages, threads=threads).tolist() == expected(pages)


def test_memory_that_cannot_be_written_or_is_not_aligned_is_hashed_all_the_same() -> None:
    data = random_pages(3).tobytes()
    pages = np.frombuffer(b"?" + data, np.uint8, offset=1).reshape(3, 4096)
    assert hash_pages(pages).tolist() == expected(pages)


def test_what_runs_without_the_jit_gives_the_same() -> None:
    pages = random_pages(PAGES_AT_ONCE + 2)
    out = np.zeros(len(pages), np.uint64)
    xxh64_one(pages, 0, 7, out, 0)
    xxh64_many(pages, 1, 7, out, 1)
    assert out[:-1].tolist() == expected(pages[:-1], 7)
    assert out[-1] == 0


@pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="nothing is compiled")
@pytest.mark.parametrize("many", [False, True])
def test_code_for_either_kind_of_cpu_hashes_the_same(many: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "takes_many", lambda _context: many)

    @numba.njit
    def hash_some(pages: np.ndarray, seed: np.uint64, out: np.ndarray) -> None:
        xxh64_many(pages, 1, seed, out, 2)

    pages = random_pages(PAGES_AT_ONCE + 2)
    out = np.zeros(PAGES_AT_ONCE + 3, np.uint64)
    hash_some(pages, np.uint64(7), out)
    assert out.tolist() == [0, 0, *expected(pages[1:-1], 7), 0]


def test_what_is_no_array_of_pages_is_refused() -> None:
    for wrong in (np.zeros((2, 4095), np.uint8), np.zeros((2, 512), np.uint64), np.zeros((2, 8192), np.uint8)[:, ::2]):
        with pytest.raises(ValueError, match="contiguous uint8"):
            hash_pages(wrong)
