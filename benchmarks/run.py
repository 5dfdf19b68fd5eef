"""The table of docs/performance.md: ours against peers on the same work, in turns, each held for equal before it is timed.

    python benchmarks/run.py [--rows NAME,NAME...] [--quick | --big] [--pages N] [--repeat N] [--json FILE] [--write]

Every name stands for a few lines of the table. `--quick` only shows that all works, and leaves out "compile", which takes a
minute. `--big` takes what needs minutes and up to 16 GiB, too. `--write` puts the rows into docs/performance.json, and the
table of what is there into docs/performance.md; lines of another machine, version or source go. Nothing is printed but the
table; progress goes to standard error. Status 1: two ways to one result lead to two.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import against
import document
import own
import processes
import raw_pages
from equality import UnequalError
from machine import machine
from memory import Size
from table import Row, encode, markdown

from ksmbatch.engine import warm_up

Bench = Callable[[Size], Iterator[Row]]
BENCHES: dict[str, Bench] = {
    "one-tib": processes.one_tib,
    "quiet": own.quiet,
    "rewritten": own.rewritten,
    "batches": own.batches,
    "midscan": own.midscan,
    "growth": own.growth,
    "readme": processes.readme,
    "compile": processes.compiling,
    "peers": against.rows,
    "interning": raw_pages.rows,
}


def main() -> int:
    """Measure, print, and write what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=_names, metavar="NAME,...", help=", ".join(BENCHES))
    parser.add_argument("--quick", action="store_true", help="1M pages, once")
    parser.add_argument("--big", action="store_true", help="hosts of 1 TiB, too")
    parser.add_argument("--pages", type=_pages, help="pages of most rows, by default 16777216")
    parser.add_argument("--repeat", type=int, help="times that everything is measured, by default 3")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    size = Size(
        pages=options.pages or (2**20 if options.quick else 2**24),
        repeat=options.repeat or (1 if options.quick else 3),
        big=options.big,
        quick=options.quick,
    )
    warm_up()
    rows: list[Row] = []
    try:
        for name in options.rows or [name for name in BENCHES if not (options.quick and name == "compile")]:
            sys.stderr.write(f"{name} ...\n")
            rows += BENCHES[name](size)
    except UnequalError as error:
        sys.stderr.write(f"{name}: not equal, so not timed: {error}\n")
        return 1
    sys.stdout.write(f"{markdown(rows)}\n")
    if options.json:
        options.json.write_text(encode(machine(), rows))
    if options.write:
        document.keep(machine(), rows, list(BENCHES))
        document.write()
    return 0


def _names(text: str) -> list[str]:
    names = text.split(",")
    for name in names:
        if name not in BENCHES:
            raise argparse.ArgumentTypeError(f"{name}: must be one of {', '.join(BENCHES)}")
    return names


def _pages(text: str) -> int:
    pages = int(text)
    if pages < 4096 or pages % 1024:
        raise argparse.ArgumentTypeError("must be a multiple of 1024, 4096 or more")
    return pages


if __name__ == "__main__":
    sys.exit(main())
