"""The memory that rows are about, and a run of it with the time of every full scan.

What a row makes of the times is its own business.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ksmbatch.config import Config, load
from ksmbatch.engine import RunResult, simulate
from ksmbatch.events import LazyWrite, Step, Write
from ksmbatch.generators import find_generator
from ksmbatch.program import Program, compile_config, compile_workload
from ksmbatch.workload import Snapshot, Workload

MIX = Path(__file__).with_name("mix.toml")
MMS = 64
PARITY_PAGES = 65_536  # the most that are walked before anything is timed


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much is measured: `pages` of most rows, a multiple of 64; how often (`repeat`); whether `big` rows are wanted, and
    whether it is just to be seen that all works (`quick`)."""

    pages: int
    repeat: int
    big: bool = False
    quick: bool = False

    @property
    def small(self) -> int:
        """Pages to look for parity on."""
        return min(self.pages, PARITY_PAGES)


@dataclass(frozen=True, slots=True)
class Timed:
    """A run whose samples are its full scans. `ends_s`: when each was sampled, float64[n_scans]; `later_s`: what it took to
    make the writes of later snapshots, which wall_s contains."""

    result: RunResult
    ends_s: np.ndarray
    later_s: float

    def rate(self, first: int, last: int) -> float:
        """Visits per second in the full scans `first` (2 or more) to `last`, with all that was written meanwhile."""
        visits = self.result.samples["page_visits"]
        seconds = self.ends_s[last - 1] - self.ends_s[first - 2] + self.later_s
        return float((visits[last - 1] - visits[first - 2]) / seconds)

    @property
    def exact(self) -> float:
        """The share of visits that walked a tree."""
        return self.result.last["exact_visits"] / self.result.last["page_visits"]


def mix(pages: int, *settings: str) -> Config:
    """The configuration of benchmarks/mix.toml with so many pages, and `settings` ("KEY=VALUE") that differ."""
    return load(MIX, [f"workload.pages_per_mm={pages // MMS}", *settings])


def run(program: Program, config: Config) -> Timed:
    """Simulates, sampled at full scans."""
    ends_s: list[float] = []
    result = simulate(program, config, lambda _: ends_s.append(time.perf_counter()))
    return Timed(result, np.array(ends_s), program.later_s)


def interleaved(repeat: int, ways: Mapping[str, Callable[[], Timed]]) -> dict[str, list[Timed]]:
    """Every way `repeat` times, in turns, so that what disturbs one disturbs all."""
    timed: dict[str, list[Timed]] = {name: [] for name in ways}
    for _ in range(repeat):
        for name, way in ways.items():
            timed[name].append(way())
    return timed


def median_rate(runs: list[Timed], first: int, last: int) -> float:
    """The median of `Timed.rate`."""
    return statistics.median(one.rate(first, last) for one in runs)


def written_in_mid_scan(config: Config, share: float, moments: int) -> Program:
    """The memory of `config`, of which `share` is rewritten in every full scan from the third on, between batches, in `moments`
    parts that are spread over the scan. When that is, by the clock, a run in which nothing is written tells.
    """
    quiet = simulate(compile_config(config), config)
    ends_ms = quiet.samples["time_ms"]
    starts_ms, lengths_ms = ends_ms[1:-1], np.diff(ends_ms)[1:]
    parts = (np.arange(moments) + 0.5) / moments
    times_ms = (starts_ms[:, None] + parts * lengths_ms[:, None]).ravel().astype(np.int64).tolist()
    built = _build(config, len(times_ms) + 1, share / moments)
    snapshots = [Snapshot(time_ms=time_ms, steps=built.snapshots[k].steps) for k, time_ms in enumerate([0, *times_ms])]
    return compile_workload(Workload(name="mid-scan", nodes=config.host.nodes, snapshots=snapshots))


def first_contents(config: Config) -> np.ndarray:
    """What every page holds at the start, in the order in which ksmd comes by: raw content ids, uint64[n_pages]."""
    steps = _build(config, 1, 0.0).snapshots[0].steps
    return np.concatenate([made.contents for made in map(_made, steps) if isinstance(made, Write)])


def _build(config: Config, n_snapshots: int, rewritten: float) -> Workload:
    """The generator's workload, `rewritten` of it in every snapshot but the first."""
    parameters = replace(config.workload.parameters, rewritten_per_scan=rewritten)
    build = find_generator(str(config.workload.generator)).build
    return build(
        parameters, nodes=config.host.nodes, binding=config.workload.node, seed=config.run.seed, full_scans=n_snapshots
    )


def _made(step: Step) -> Step:
    return step.made() if isinstance(step, LazyWrite) else step
