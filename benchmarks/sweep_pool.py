"""Threads or processes for a sweep? The same runs one after another, on threads and on processes; results must be equal.

    python benchmarks/sweep_pool.py CONFIG [--set KEY=VALUE]... [--jobs N] [--repeat N]

It reports seconds from the start of the pool to the last result, kernels being compiled already, and decides nothing; the
decision is docs/adr/0003-sweep-threads.md.
"""

import argparse
import multiprocessing
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

from equality import differences
from machine import headline
from rich.console import Console

from ksmbatch.config import Config, expand, load
from ksmbatch.engine import RunResult, simulate, warm_up
from ksmbatch.program import Program, compile_config
from ksmbatch.provenance import cores

_program: Program | None = None  # of a worker process


def one_after_another(points: Sequence[Config], _jobs: int) -> list[RunResult]:
    """No pool: what the others are measured against."""
    program = compile_config(points[0])
    return [simulate(program, point) for point in points]


def on_threads(points: Sequence[Config], jobs: int) -> list[RunResult]:
    """One compiled program for all; the kernels run without the GIL."""
    program = compile_config(points[0])
    with ThreadPoolExecutor(jobs) as pool:
        return list(pool.map(lambda point: simulate(program, point), points))


def on_processes(points: Sequence[Config], jobs: int) -> list[RunResult]:
    """A program per process; spawned, because a fork beside numba's and pyarrow's threads is not safe."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context, _prepare_worker, (points[0],)) as pool:
        return list(pool.map(_simulate_in_worker, points))


def _prepare_worker(point: Config) -> None:
    global _program
    warm_up()
    _program = compile_config(point)


def _simulate_in_worker(point: Config) -> RunResult:
    assert _program is not None
    return simulate(_program, point)


def main() -> None:
    """Parity first, then medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path)
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    parser.add_argument("--jobs", type=int, default=cores())
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    points = [point.config for point in expand(load(options.config, options.overrides))]
    warm_up()
    modes: dict[str, Callable[[Sequence[Config], int], list[RunResult]]] = {
        "one after another": one_after_another,
        f"{options.jobs} threads": on_threads,
        f"{options.jobs} processes": on_processes,
    }
    seconds: dict[str, list[float]] = {mode: [] for mode in modes}
    reference: list[RunResult] | None = None
    for _ in range(options.repeat):
        for mode, run in modes.items():
            start_s = time.perf_counter()
            results = run(points, options.jobs)
            seconds[mode].append(time.perf_counter() - start_s)
            reference = reference or results
            if any(differences(*both, apart=frozenset()) for both in zip(reference, results, strict=True)):
                raise SystemExit(f"{mode}: other results than one after another")
    visits = sum(result.last["page_visits"] for result in reference or [])
    say = Console(highlight=False, soft_wrap=True).print
    say(headline())
    say(f"{len(points)} runs of {options.config.name}, {visits:,} page visits; medians of {options.repeat}")
    alone_s = statistics.median(seconds["one after another"])
    for mode, times in seconds.items():
        median_s = statistics.median(times)
        say(f"{mode:<20} {median_s:7.2f} s  {alone_s / median_s:5.2f}x  {visits / median_s / 1e6:7.1f} M visits/s")


if __name__ == "__main__":
    main()
