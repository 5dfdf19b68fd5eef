"""The rows of benchmarks/interning.py, hashing and interning of raw pages, with what was asked for."""

import importlib.util
import sys
from collections.abc import Iterator

from equality import UnequalError
from memory import Size
from table import Row, Target

PAGES = 2**18  # 1 GiB, far more than fits into a cache
TARGETS = {
    ("XXH64 of pages", "read bandwidth"): Target(of="ratio", at_least=0.8, want=0.9),
    ("pages to ids", "read bandwidth"): Target(of="ours", at_least=8e9, want=14e9),
}
UNITS = {"GB/s": ("B/s", 1e9), "M/s": ("pages/s", 1e6)}


def rows(size: Size) -> Iterator[Row]:
    """Each against its peers, on pages in memory; rates of one thread are by its CPU time."""
    if importlib.util.find_spec("interning") is None:
        sys.stderr.write("interning: is not here yet\n")
        return
    import interning

    try:
        measured = interning.rows(min(PAGES, size.pages), size.repeat if size.quick else max(size.repeat, 9))
    except AssertionError as error:
        raise UnequalError(f"hashing or interning: {error}") from None
    for row in measured:
        unit, scale = UNITS[row["unit"]]
        yield Row(
            name="interning",
            work=row["work"],
            unit=unit,
            ours=row["ours"] * scale,
            peer=row["peer"],
            theirs=row["theirs"] * scale,
            target=TARGETS.get((row["work"], row["peer"])),
        )
