"""Sizes and times as people write them: "10min" to milliseconds, pages to MiB.

It does not know what is measured; simulated time within a run is integer nanoseconds, in files it is milliseconds.
"""

import re
from decimal import Decimal
from typing import Final

from ksmbatch.errors import InputError

PAGES_PER_MIB: Final = 256

# to milliseconds; "min" and "h" as in systemd.time, no months to trip over
_MS: Final = {"ms": 1, "s": 1_000, "min": 60_000, "h": 3_600_000, "d": 86_400_000}
_BYTES: Final = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_QUANTITY: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([A-Za-z]+)")


def parse_ms(text: str) -> int:
    """A time such as "500ms", "1s", "1.5 min" in whole milliseconds; raises InputError.

    >>> parse_ms("500ms"), parse_ms("96s"), parse_ms("10min"), parse_ms("1.5 h")
    (500, 96000, 600000, 5400000)
    """
    return _parse(text, _MS, 'must be a time: a number and one of ms, s, min, h, d, such as "10min"', "whole milliseconds")


def parse_bytes(text: str) -> int:
    """A size such as "4KiB", "1.5 GiB" in whole bytes; raises InputError.

    >>> parse_bytes("4KiB"), parse_bytes("1.5 GiB")
    (4096, 1610612736)
    """
    rule = 'must be a size: a number and one of B, KiB, MiB, GiB, TiB, such as "4GiB"'
    return _parse(text, _BYTES, rule, "whole bytes")


def format_ms(ms: int) -> str:
    """Milliseconds in the largest unit that shows them exactly.

    >>> format_ms(500), format_ms(96_000), format_ms(600_000), format_ms(0)
    ('500ms', '96s', '10min', '0ms')
    """
    unit = max((unit for unit in _MS if ms % _MS[unit] == 0 and ms >= _MS[unit]), key=_MS.__getitem__, default="ms")
    return f"{ms // _MS[unit]}{unit}"


def format_bytes(n_bytes: int) -> str:
    """Bytes in the largest unit of which there is at least one, with one decimal where it says something.

    >>> format_bytes(512), format_bytes(1536), format_bytes(2**30), format_bytes(-3 * 2**20)
    ('512 B', '1.5 KiB', '1 GiB', '-3 MiB')
    """
    unit = max((unit for unit in _BYTES if abs(n_bytes) >= _BYTES[unit]), key=_BYTES.__getitem__, default="B")
    return f"{n_bytes / _BYTES[unit]:.1f}".removesuffix(".0") + f" {unit}"


def pages_to_mib(n_pages: float) -> float:
    """Pages of 4096 bytes in MiB.

    >>> pages_to_mib(294_912)
    1152.0
    """
    return n_pages / PAGES_PER_MIB


def _parse(text: str, factors: dict[str, int], rule: str, whole: str) -> int:
    match = _QUANTITY.fullmatch(text.strip())
    if match is None or match[2] not in factors:
        raise InputError(value=text, rule=rule)
    amount = Decimal(match[1]) * factors[match[2]]
    if amount != int(amount):
        raise InputError(value=text, rule=f"must be {whole}")
    return int(amount)
