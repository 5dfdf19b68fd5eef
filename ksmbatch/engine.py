"""A whole run: builds the machine, lets the workload's events and ksmd's batches happen in their order, takes samples.

It reads no files and writes none; what happens within an event or a batch is the machine's business.
"""

import resource
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass

import numpy as np

from ksmbatch import accel, metrics, prefault
from ksmbatch.clock import NS_PER_MS, Clock
from ksmbatch.codes import Caller, Kernel, Locking, Run
from ksmbatch.config import Config
from ksmbatch.cost import Costs
from ksmbatch.errors import InputError
from ksmbatch.events import ClearFrames, FullScan, Migrate, Mmap, Offline, Rebind, Scan, Spawn, Step, Write
from ksmbatch.locks import Lock
from ksmbatch.machine import Machine
from ksmbatch.metrics import Counter
from ksmbatch.program import Program, ReadyStep, compile_workload
from ksmbatch.state import FOREVER, HOLDERS, Knob, State
from ksmbatch.workload import Snapshot, Workload


@dataclass(frozen=True, slots=True)
class RunResult:
    """What a run came to.

    `samples`: column -> int64[n_samples]; time_ms, full_scans and every metric of `metrics.derive()`. `nodes`: column ->
    int64[n_samples * n_nids]; time_ms, full_scans, nid and the metrics of NODE_COUNTERS. `last`: all metrics of the last
    sample, the surveyed ones too. `figures`: setup_s, wall_s, compile_s, process_s (CPU seconds of the run's thread),
    peak_rss_bytes (of the process).
    """

    samples: dict[str, np.ndarray]
    nodes: dict[str, np.ndarray]
    last: dict[str, int]
    figures: dict[str, float]


_compile_lock = threading.Lock()
_compile_seconds: list[float] = []


def is_compiled() -> bool:
    """Whether the first run of this process can begin without a pause of half a minute for compilation."""
    return bool(_compile_seconds) or accel.is_warm()


def warm_up(*, moving: bool = False) -> float:
    """Compiles the kernels, or loads them from the cache, by a run of 64 pages; once per process. Returns: seconds it took.

    `moving`: those of moving pages, too, which most runs can do without.
    """
    with _compile_lock:
        n_wanted = 2 if moving else 1
        while len(_compile_seconds) < n_wanted:
            start_s = time.perf_counter()
            with accel.seldom_collecting():
                _run_once(moving=len(_compile_seconds) == 1)
            _compile_seconds.append(time.perf_counter() - start_s)
        return sum(_compile_seconds[:n_wanted])


def _run_once(*, moving: bool) -> None:
    steps: tuple[Step, ...] = (
        Spawn(proc="warm"),
        Mmap(proc="warm", area="up", pages=64),
        Write(proc="warm", area="up", pages=np.arange(64), contents=np.arange(64, dtype=np.uint64) // 2),
        FullScan(count=3),
        Write(proc="warm", area="up", pages=np.array([0, 2]), contents=np.arange(2, dtype=np.uint64)),
        FullScan(count=1),
    )
    if moving:
        steps += (
            Migrate(proc="warm", area="up", first=0, count=64, node=1),
            Rebind(proc="warm", area="up", node=1),
            ClearFrames(first=2, count=2, caller=Caller.CMA),
            Offline(node=0),
        )
    program = compile_workload(Workload(name="warm-up", nodes=2, snapshots=(Snapshot(time_ms=0, steps=steps),)))
    # knobs that are not as the kernel has them, so that setting one is compiled, too
    knobs = {"pages_to_scan": 99, "merge_across_nodes": 0, "smart_scan": 1, "stable_node_chains_prune_millisecs": 1}
    machine = Machine(program, Kernel.V6_12, {**knobs, "run": Run.MERGE}, keep_pfns=moving, node_pages=64 * moving)
    for step in program.snapshots[0][1]:
        machine.apply(step)
    machine.survey()


def moves_pages(program: Program) -> bool:
    """Whether pages move in `program`."""
    return not program.kinds.isdisjoint((Migrate, Rebind, ClearFrames, Offline))


def simulate(
    program: Program, config: Config, progress: Callable[[float], None] | None = None, *, force_exact: bool = False
) -> RunResult:
    """Runs `program` under `config`, which has no sweep.

    `progress` is told how far the run is, 0 to 1, at every sample; what it raises ends the run. Raises KsmbatchError if the
    kernel would use freed memory, InputError if `run.scans_per_snapshot` does not fit the snapshots.
    `force_exact`: as in Machine.
    """
    compile_s = warm_up(moving=moves_pages(program))
    scans = config.snapshot_scans(len(program.snapshots)) if not program.per_scan else None
    setup_start_s, process_start_s = time.perf_counter(), time.thread_time()
    machine = Machine(
        program,
        config.host.kernel,
        _knobs(config),
        costs=_costs(Costs()),
        keep_pfns=program.needs_frames,
        policy=config.migration.policy,
        callers=config.migration.callers,
        node_pages=config.host.node_pages,
        distance=config.host.distance,
        force_exact=force_exact,
    )
    end_scans, end_ns = _end(program, config, scans)
    clock = Clock(machine, config.run.sample, config.run.sample_ms, _reporter(progress, end_scans, end_ns))
    lock = Lock(clock, config.migration.locking)
    wall_start_s = setup_start_s
    with ExitStack() as memory:
        memory.enter_context(prefault.meanwhile(_memory_of_pages(machine.state)))
        for k, (time_ms, steps) in enumerate(program.ahead()):
            if scans is None and not program.per_scan:
                clock.run(until_ns=min(time_ms * NS_PER_MS, end_ns), full_scans=end_scans)
            if clock.now(Counter.TIME_NS) >= end_ns or (k > 0 and clock.scans_done >= end_scans):
                break
            for step in steps:
                _apply(clock, lock, step)
            if k == 0:
                memory.close()
                for array, n_bytes in _memory_of_merging(machine.state):
                    prefault.at_once(array.reshape(-1).view(np.uint8)[:n_bytes])
                wall_start_s = time.perf_counter()
            if scans is not None or program.per_scan:
                n_scans = scans[k] if scans is not None else 1
                clock.run(full_scans=min(clock.scans_done + n_scans, end_scans), until_ns=end_ns)
        clock.run(full_scans=end_scans, until_ns=end_ns)
    if clock.recorder.last_ns < clock.now(Counter.TIME_NS) or clock.recorder.last_ns < 0:
        clock.recorder.sample()
    wall_s = time.perf_counter() - wall_start_s
    return RunResult(
        samples=clock.recorder.samples(),
        nodes=clock.recorder.nodes(),
        last=metrics.derive(machine.state.counters.tolist()) | machine.survey(),
        figures={
            "setup_s": program.first_s + wall_start_s - setup_start_s,
            "wall_s": program.later_s + wall_s,
            "compile_s": compile_s,
            "process_s": time.thread_time() - process_start_s,
            "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        },
    )


def _memory_of_pages(s: State) -> list[tuple[np.ndarray, int]]:
    """What writing all pages for the first time uses, and ksmd's looks at them: arrays, and how many bytes of each."""
    return [(array, array.nbytes) for array in (s.cohort, s.calendar, s.gated, s.changed, s.watch)]


def _memory_of_merging(s: State) -> list[tuple[np.ndarray, int]]:
    """What ksmd's first two scans use, at most, as _memory_of_pages(): nothing if it does not run."""
    if s.knobs[Knob.RUN] != Run.MERGE:
        return []
    first = int(s.knobs[Knob.USE_ZERO_PAGES])  # zeros, content 0, then merge with the kernel's page, and in no stable node
    held = s.by_content[:, first:, HOLDERS]
    n_nodes = int((held > 1).sum())
    of_ksm = s.frames[len(s.pages) :]
    return [
        (s.nodes, n_nodes * s.nodes.strides[0]),
        (of_ksm, n_nodes * of_ksm.strides[0]),
        (s.members, int(held.sum()) * 17 // 16 * s.members.strides[0]),  # and pages that are rewritten, and merge later
    ]


def _knobs(config: Config) -> dict[str, int]:
    values = config.ksm.model_dump()
    run = values.pop("run")
    if config.host.kernel < Kernel.V6_12:
        del values["smart_scan"]
    return {**values, "run": run}


def _costs(costs: Costs) -> dict[str, int]:
    return {name.upper(): value for name, value in asdict(costs).items()}


def _end(program: Program, config: Config, scans: tuple[int, ...] | None) -> tuple[int, int]:
    """Full scans and simulated nanoseconds at which a run ends."""
    duration_ms = config.run.duration_ms
    end_ns = FOREVER if duration_ms is None else duration_ms * NS_PER_MS
    if config.run.full_scans is not None:
        return config.run.full_scans, end_ns
    if scans is not None:
        return (sum(scans) if duration_ms is None else FOREVER), end_ns
    if duration_ms is not None:
        return FOREVER, end_ns
    if program.end_ms is not None:
        return FOREVER, program.end_ms * NS_PER_MS
    if program.kinds.isdisjoint((Scan, FullScan)):
        rule = "must be given, or run.duration: the workload neither scans nor goes on"
        raise InputError(where=config.path, key="run.full_scans", rule=rule)
    return 0, FOREVER  # a scenario: over with its last step


def _reporter(progress: Callable[[float], None] | None, end_scans: int, end_ns: int) -> Callable[[Clock], None]:
    def report(clock: Clock) -> None:
        if progress is not None:
            scanned = clock.scans_done / max(end_scans, 1)
            passed = clock.now(Counter.TIME_NS) / end_ns
            progress(min(max(scanned, passed), 1.0))

    return report


def _apply(clock: Clock, lock: Lock, step: ReadyStep) -> None:
    # scans go by the clock, so that samples are taken within them
    match step:
        case Scan(batches=batches):
            clock.run(wakeups=clock.now(Counter.WAKEUPS) + batches)
        case FullScan(count=count):
            clock.run(full_scans=clock.scans_done + count)
        case Migrate() if lock.kind != Locking.NONE:
            lock.migrate(step)
        case Offline():
            lock.wait_for_batch()
            clock.apply(step)
        case _:
            clock.apply(step)
