"""Are sizes and times read and shown exactly?"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksmbatch.errors import InputError
from ksmbatch.units import format_bytes, format_ms, pages_to_mib, parse_bytes, parse_ms


@pytest.mark.parametrize(
    ("text", "ms"), [("0s", 0), ("1ms", 1), ("0.5s", 500), ("96s", 96_000), (" 10 min ", 600_000), ("2d", 172_800_000)]
)
def test_times_are_read_in_milliseconds(text: str, ms: int) -> None:
    assert parse_ms(text) == ms


@pytest.mark.parametrize("text", ["", "10", "min", "-1s", "1 m", "1 sec", "1e3s", "0.5ms", "1s 1s", "inf s", "٣s"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="must be"):
        parse_ms(text)


@pytest.mark.parametrize(("text", "n_bytes"), [("1B", 1), ("4KiB", 4096), ("0.5 MiB", 2**19), ("1TiB", 2**40)])
def test_sizes_are_read_in_bytes(text: str, n_bytes: int) -> None:
    assert parse_bytes(text) == n_bytes


@pytest.mark.parametrize("text", ["", "4", "4K", "4 kb", "0.3B"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="must be"):
        parse_bytes(text)


@given(st.integers(min_value=0, max_value=10**12))
def test_a_time_is_read_back_as_it_was_shown(ms: int) -> None:
    assert parse_ms(format_ms(ms)) == ms


def test_a_size_is_shown_in_the_largest_unit_that_fits() -> None:
    assert [format_bytes(n) for n in (0, 1023, 1024, 2**40 + 2**39)] == ["0 B", "1023 B", "1 KiB", "1.5 TiB"]


def test_256_pages_are_one_mib() -> None:
    assert pages_to_mib(256) == 1.0
