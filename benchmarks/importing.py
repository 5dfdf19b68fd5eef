"""How fast does `ksmbatch import` read a raw image from the page cache, and in how much memory? Parity first.

    python benchmarks/importing.py [--gib N] [--repeat N] [--folder DIR]

The image is made in DIR, of contents as in benchmarks/interning.py, and deleted afterwards; it is made smaller where less than
twice its size is free there. Each run is a process of its own, measured whole; beside it reading alone, by os.preadv into one
buffer. The goal: 1 GB/s on 2 cores, peak RSS under 1 GiB + 16 bytes per page.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np
from interning import mixed_pages
from rich.console import Console
from rich.table import Table

from ksmbatch.provenance import environment
from ksmbatch.traces import read_trace

PAGE: Final = 4096
PORTION: Final = 2**15  # pages that are made, and written, at once
GOAL_GB_S: Final = 1.0


@contextmanager
def image(folder: Path, n_pages: int) -> Iterator[Path]:
    """A raw image of `n_pages` pages in `folder`, while the block lasts."""
    with tempfile.TemporaryDirectory(dir=folder) as made:
        path = Path(made) / "guest.img"
        with path.open("wb") as file:
            for start in range(0, n_pages, PORTION):
                file.write(mixed_pages(min(PORTION, n_pages - start), start).data)
        yield path


def imported(path: Path) -> tuple[float, int]:
    """Seconds and peak RSS in bytes of `ksmbatch import`."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "ksmbatch", "import", str(path), "--out", str(path.with_suffix(".parquet"))]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return time.perf_counter() - start, usage.ru_maxrss * 1024


def read_alone(path: Path) -> float:
    """Seconds that reading the file takes."""
    buffer = memoryview(bytearray(2**22))
    start = time.perf_counter()
    with path.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass
    return time.perf_counter() - start


def check(folder: Path) -> None:
    """Raises AssertionError unless a trace of 20,000 pages has the ids that numpy counts."""
    with image(folder, 20_000) as path:
        imported(path)
        pages = np.fromfile(path, np.uint8).reshape(-1, PAGE)
        ids = np.unique(pages.view(f"V{PAGE}").ravel(), return_inverse=True)[1]
        assert np.array_equal(read_trace(path.with_suffix(".parquet")).content, ids)


def main() -> None:
    """Medians, and whether the goal is met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gib", type=float, default=4)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    options = parser.parse_args()
    check(options.folder)
    n_pages = int(min(options.gib * 2**30, shutil.disk_usage(options.folder).free / 2) / PAGE)
    with image(options.folder, n_pages) as path:
        read_alone(path)  # into the page cache
        runs = [(read_alone(path), *imported(path)) for _ in range(options.repeat)]
        trace_bytes = path.with_suffix(".parquet").stat().st_size
    read_s, import_s, peak = (statistics.median(column) for column in zip(*runs, strict=True))
    gigabytes = n_pages * PAGE / 1e9
    most = 2**30 + 16 * n_pages
    about = environment()
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"{about['cpu']}, {about['cores']} cores, load {os.getloadavg()[0]:.1f}, Python {about['python']}")
    console.print(f"{about['packages']}; {n_pages:,} pages, medians of {options.repeat}")
    table = Table("", "here", "goal")
    table.add_row("reading alone", f"{gigabytes / read_s:.2f} GB/s", "")
    table.add_row("ksmbatch import, whole process", f"{gigabytes / import_s:.2f} GB/s", f">= {GOAL_GB_S:.2f} GB/s")
    table.add_row("peak RSS", f"{peak / 2**20:.0f} MiB", f"< {most / 2**20:.0f} MiB")
    table.add_row("trace", f"{trace_bytes / n_pages:.2f} bytes per page", "")
    console.print(table)


if __name__ == "__main__":
    main()
