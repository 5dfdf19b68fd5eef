"""A stand-in for the engine: the tables of a run in microseconds, a pure function of its config.

It lets the tests of results, sweeps, tables and pictures choose what a run says. It knows nothing of KSM.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ksmbatch.metrics import NODE_COUNTERS, SURVEYED
from ksmbatch.results import SAMPLED, GridRun, ResultsDir

if TYPE_CHECKING:
    from ksmbatch.config import Config

N_PAGES = 4096
SCAN_MS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeRun:
    """As `results.RunTables`."""

    samples: Mapping[str, NDArray[np.int64]]
    nodes: Mapping[str, NDArray[np.int64]]
    last: Mapping[str, int]
    figures: Mapping[str, float]


def prepare(config: "Config") -> str:
    return "program"


def simulate(program: object, config: "Config", progress: Callable[[float], None]) -> FakeRun:
    """Nothing is saved in the first full scan, half in the second, everything from the third on; merge_across_nodes = 0
    saves a quarter less, and maps nothing across nodes."""
    assert program == "program"
    n_scans = config.run.full_scans or 10
    final = N_PAGES // 2 - (N_PAGES // 8) * (1 - config.ksm.merge_across_nodes) - 2**10 // config.ksm.max_page_sharing
    scans = np.arange(1, n_scans + 1)
    saved = np.select([scans == 1, scans == 2], [0, final // 2], final)
    return fake_run(
        scans * SCAN_MS, scans, saved, cpu_ns=scans * 10_000_000, remote=64 * config.ksm.merge_across_nodes, progress=progress
    )


def fake_run(
    time_ms: ArrayLike,
    full_scans: ArrayLike,
    saved: ArrayLike,
    cpu_ns: ArrayLike,
    remote: int,
    progress: Callable[[float], None] = lambda fraction: None,
    counters: Mapping[str, ArrayLike] | None = None,
    surveyed: Mapping[str, int] | None = None,
) -> FakeRun:
    """Tables of a run on two nodes that saves `saved` pages at `time_ms`; node 1 has a quarter of the saving, and each node
    half of the `remote` mappings. `counters`: further ones at `time_ms`; `surveyed`: what was found at the end."""
    start_s = time.perf_counter()
    zeros = np.zeros(np.shape(time_ms), np.int64)
    samples = {metric.name: zeros for metric in SAMPLED} | {
        "time_ms": np.asarray(time_ms, np.int64),
        "time_ns": np.asarray(time_ms, np.int64) * 1_000_000,
        "full_scans": np.asarray(full_scans, np.int64),
        "saved_pages": np.asarray(saved, np.int64),
        "pages_sharing": np.asarray(saved, np.int64),
        "ksmd_cpu_ns": np.asarray(cpu_ns, np.int64),
        "page_visits": np.asarray(full_scans, np.int64) * N_PAGES,
    }
    samples |= {name: np.asarray(values, np.int64) for name, values in (counters or {}).items()}
    part = np.stack([samples["saved_pages"] - samples["saved_pages"] // 4, samples["saved_pages"] // 4], axis=1).ravel()
    nodes = {metric.name: np.zeros(len(part), np.int64) for metric in NODE_COUNTERS} | {
        "time_ms": np.repeat(samples["time_ms"], 2),
        "full_scans": np.repeat(samples["full_scans"], 2),
        "nid": np.tile(np.arange(2), len(zeros)),
        "mapped_pages": np.full(len(part), N_PAGES // 2),
        "frames": N_PAGES // 2 - part,
        "remote_mappings": np.full(len(part), remote // 2),
    }
    progress(1.0)
    last = {name: int(values[-1]) for name, values in samples.items() if name != "time_ms"} | {
        metric.name: 0 for metric in SURVEYED
    }
    last |= surveyed or {}
    wall_s = time.perf_counter() - start_s
    figures = {"setup_s": 0.0, "wall_s": wall_s, "compile_s": 0.0, "process_s": wall_s, "peak_rss_bytes": 1}
    return FakeRun(samples=samples, nodes=nodes, last=last, figures=figures)


def write_sweep(
    out: Path,
    runs: Sequence[tuple[Mapping[str, object], FakeRun]],
    duration_ms: int | None = None,
    workload: Mapping[str, object] | None = None,
) -> None:
    """A results directory with these runs, as (swept values, tables); `duration_ms` makes it one that goes by time.
    `workload`: that section of the config."""
    config = {
        "host": {"nodes": 2, "kernel": "6.12"},
        "run": {"duration_ms": duration_ms, "full_scans": None, "scans_per_snapshot": 2},
        "migration": {"policy": "mainline"},
        "workload": dict(workload or {}),
    }
    origin = {"config": config, "seed": 1, "source": {"config": "fake.toml", "workload": "fake"}}
    grid = [GridRun(run_id=f"{rank:016x}", swept=swept, origin=origin) for rank, (swept, _) in enumerate(runs)]
    with ResultsDir(out, grid, origin) as directory:
        for run, (_, tables) in zip(grid, runs, strict=True):
            directory.add(run.run_id, tables)
