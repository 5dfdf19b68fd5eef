"""Whole processes, as users start them: the README's sweep, the first compilation, a host of 1 TiB.

What happens within one is no business of this; what it says of itself is read from its results.
"""

import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
from equality import check
from memory import MIX, Size
from table import Row, Target

from ksmbatch.config import expand, load
from ksmbatch.program import compile_config

ROOT = Path(__file__).resolve().parent.parent
README_SWEEP = ROOT / "configs/merge_across_nodes.toml"
ONE_TIB = ROOT / "configs/one-tib-host.toml"


def readme(size: Size) -> Iterator[Row]:
    """The sweep of the README with compiled kernels: all of it, and what is not simulation."""
    points = expand(load(README_SWEEP))
    program = compile_config(points[0].config)
    for config, swept in points[:1] if size.quick else points:
        check(f"three-vms {swept}", program, config)
    whole, outside = [], []
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(size.repeat + 1):
            seconds, said = _timed("sweep", str(README_SWEEP), "--out", f"{folder}/{turn}")
            if turn:  # the first one may have had to compile
                whole.append(seconds)
                outside.append(seconds - _simulated(said))
    work = "three-vms, 8 settings x 25 full scans, whole process, picture included"
    yield Row(name="readme", work=work, unit="s", ours=statistics.median(whole), target=Target(of="ours", at_least=3, want=2))
    work = "of that outside simulation"
    yield Row(name="readme", work=work, unit="s", ours=statistics.median(outside), target=Target(of="ours", at_least=2))


def compiling(size: Size) -> Iterator[Row]:
    """The first run ever, which compiles; and the second."""
    del size  # it takes the same for any
    with tempfile.TemporaryDirectory() as folder:
        tiny = ("--set", "workload.pages_per_mm=64", "--out", f"{folder}/results")
        cold_s, warm_s = (_timed("run", str(MIX), *tiny, cache=f"{folder}/cache")[0] for _ in range(2))
    work = "the first run of all, of 4096 pages: whole process, compiling"
    target = Target(of="ours", at_least=30)
    yield Row(name="compile", work=work, unit="s", ours=cold_s, peer="the second run", theirs=warm_s, target=target)


def one_tib(size: Size) -> Iterator[Row]:
    """A host of 1 TiB under one setting: seconds of simulation, and memory."""
    small = load(ONE_TIB, ["workload.pages_per_mm=1024"])
    check("one-tib-host, 64k pages", compile_config(small), small)
    if not size.big:
        sys.stderr.write("one-tib: needs --big\n")
        return
    with tempfile.TemporaryDirectory() as folder:
        _timed("run", str(ONE_TIB), "--out", folder)
        (last,) = pq.read_table(f"{folder}/runs.parquet").to_pylist()
    work = "268,435,456 pages, 64 mms, 2 nodes, 25 full scans, 1 % rewritten per scan"
    exact = last["exact_visits"] / last["page_visits"]
    target = Target(of="ours", at_least=60, want=10)
    yield Row(name="one-tib", work=f"{work}, wall_s", unit="s", ours=last["wall_s"], target=target, exact=exact)
    target = Target(of="ours", at_least=16 * 2**30, want=6 * 2**30)
    yield Row(name="one-tib", work=f"{work}, peak RSS", unit="B", ours=last["peak_rss_bytes"], target=target, exact=exact)


def _timed(*arguments: str, cache: str | None = None) -> tuple[float, str]:
    """Seconds that `ksmbatch ARGUMENTS` takes from start to end, and what it prints."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | ({} if cache is None else {"KSMBATCH_CACHE_DIR": cache})
    start_s = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "ksmbatch", *arguments], env=environment, check=True, stdout=subprocess.PIPE, text=True
    )
    return time.perf_counter() - start_s, done.stdout


def _simulated(said: str) -> float:
    """Seconds from the first run's start to the last one's end, as a sweep prints them."""
    found = re.search(r"page visits in ([\d.]+) s", said)
    if found is None:
        raise RuntimeError("the sweep did not say how long it simulated")
    return float(found[1])
