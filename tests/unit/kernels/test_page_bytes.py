"""Comparing pages, and reading their words: compiled as these functions are used, and as they run without the JIT."""

from typing import Any

import numba
import numpy as np
import pytest

from ksmbatch.accel import entry_kernel
from ksmbatch.kernels import page_bytes
from ksmbatch.kernels.page_bytes import big_endian_word, equal_bytes, equal_pairs, prefetch


@entry_kernel
def compiled_equal_bytes(pages: Any, one: Any, other: Any) -> Any:
    return equal_bytes(pages, one, other)


@entry_kernel
def compiled_word(pages: Any, row: Any, at: Any) -> Any:
    prefetch(pages, at)
    return big_endian_word(pages, row, at)


@pytest.mark.parametrize("function", [equal_bytes, compiled_equal_bytes])
@pytest.mark.parametrize(
    ("at", "equal"), [(0, 0), (255, 0), (256, 256), (511, 256), (2048, 2048), (3839, 3584), (3840, 3840), (4095, 3840)]
)
def test_pages_are_equal_up_to_the_stretch_in_which_they_differ(function: Any, at: int, equal: int) -> None:
    pages = np.full((3, 4096), 7, np.uint8)
    pages[2, at] = 8
    assert function(pages, 0, 2) == function(pages, 2, 1) == equal


@pytest.mark.parametrize("function", [equal_bytes, compiled_equal_bytes])
def test_only_equal_pages_are_equal_in_all_4096_bytes(function: Any) -> None:
    pages = np.random.default_rng(1).integers(0, 256, (1, 4096), np.uint8).repeat(2, axis=0)
    assert function(pages, 0, 1) == 4096
    assert function(pages, 1, 1) == 4096


@pytest.mark.parametrize("at", [0, 63, 64, 2048, 4095])
@pytest.mark.parametrize("code", ["plain", "for one at a time", "for many"])
def test_two_pairs_are_equal_if_both_are(code: str, at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    function = equal_pairs
    if code != "plain":
        monkeypatch.setattr(page_bytes, "takes_many", lambda _context: code == "for many")
        function = numba.njit(lambda pages, a, b, c, d: equal_pairs(pages, a, b, c, d))
    pages = np.random.default_rng(1).integers(0, 256, (1, 4096), np.uint8).repeat(4, axis=0)
    pages[3, at] ^= 1
    assert function(pages, 0, 1, 1, 2)
    assert not function(pages, 0, 3, 1, 2)
    assert not function(pages, 0, 1, 3, 2)
    assert not function(pages, 0, 3, 3, 1)


@pytest.mark.parametrize("function", [big_endian_word, compiled_word])
@pytest.mark.parametrize("at", [0, 3, 4088])
def test_a_word_compares_as_its_bytes_do(function: Any, at: int) -> None:
    pages = np.zeros((2, 4096), np.uint8)
    pages[1, at : at + 8] = [0x80, 1, 2, 3, 4, 5, 6, 0xFF]
    assert int(function(pages, 1, at)) == 0x80010203040506FF
