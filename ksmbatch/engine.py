"""A whole run: builds the machine, lets the workload's events and ksmd's batches happen in their order, takes samples.

It reads no files and writes none; what happens within an event or a batch is the machine's business.
"""

import resource
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np

from ksmbatch import accel, metrics
from ksmbatch.codes import Kernel, Run, Status
from ksmbatch.config import Config
from ksmbatch.cost import Costs
from ksmbatch.errors import InputError, UndefinedBehaviour
from ksmbatch.events import FullScan, Mmap, Scan, Spawn, Write
from ksmbatch.machine import Machine
from ksmbatch.metrics import COUNTERS, NODE_COUNTERS, Counter
from ksmbatch.program import Program, ReadyStep, compile_workload
from ksmbatch.state import FOREVER
from ksmbatch.workload import Snapshot, Workload

NS_PER_MS = 1_000_000


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


class _Recorder:
    """Takes samples: one row of counters, and one of node counters per node."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._rows: list[np.ndarray] = []
        self._node_rows: list[np.ndarray] = []

    def sample(self) -> None:
        """The counters as they are now."""
        self._rows.append(self._machine.state.counters.copy())
        self._node_rows.append(self._machine.state.node_counters.copy())

    @property
    def last_ns(self) -> int:
        """Simulated time of the last sample; -1 if there is none."""
        return int(self._rows[-1][Counter.TIME_NS]) if self._rows else -1

    def samples(self) -> dict[str, np.ndarray]:
        """See RunResult."""
        rows = np.array(self._rows, np.int64).reshape(-1, len(COUNTERS))
        columns = {"time_ms": rows[:, Counter.TIME_NS] // NS_PER_MS}
        columns |= {metric.name: rows[:, k] for k, metric in enumerate(COUNTERS)}
        for derived in metrics.DERIVED:
            columns[derived.metric.name] = np.array([derived.of(row) for row in rows.tolist()], np.int64)
        return columns

    def nodes(self) -> dict[str, np.ndarray]:
        """See RunResult."""
        rows = np.array(self._rows, np.int64).reshape(-1, len(COUNTERS))
        node_rows = np.array(self._node_rows, np.int64).reshape(len(rows), -1, len(NODE_COUNTERS))
        n_nids = node_rows.shape[1]
        columns = {
            "time_ms": np.repeat(rows[:, Counter.TIME_NS] // NS_PER_MS, n_nids),
            "full_scans": np.repeat(rows[:, Counter.FULL_SCANS], n_nids),
            "nid": np.tile(np.arange(n_nids), len(rows)),
        }
        return columns | {metric.name: node_rows[:, :, k].reshape(-1) for k, metric in enumerate(NODE_COUNTERS)}


class _Clock:
    """Lets ksmd run up to a limit, and takes the samples due on the way."""

    def __init__(self, machine: Machine, sample: str, sample_ms: int | None, report: Callable[[Machine], None]) -> None:
        self.machine = machine
        self.recorder = _Recorder(machine)
        self._by_batch = sample == "batch"
        self._period_ns = None if sample_ms is None else sample_ms * NS_PER_MS
        self._report = report

    def now(self, counter: Counter) -> int:
        """The present value of `counter`."""
        return self.machine.counter(counter)

    def run(self, *, wakeups: int = FOREVER, full_scans: int = FOREVER, until_ns: int = FOREVER) -> bool:
        """Up to the first of three limits; False if ksmd has nothing to do and none of them is a time."""
        while True:
            due = self._next_sample()
            limits = (min(wakeups, due[0]), min(full_scans, due[1]), min(until_ns, due[2]))
            status, outcome = self.machine.scan(until_wakeups=limits[0], until_full_scans=limits[1], until_ns=limits[2])
            if outcome.undefined:
                raise UndefinedBehaviour(outcome.undefined)
            if status == Status.TIME and limits[2] == FOREVER:
                return False
            if status == Status.TIME:
                is_due = self._period_ns is not None and self.now(Counter.TIME_NS) >= due[2]
            else:
                is_due = self.now(Counter.WAKEUPS) >= due[0] or self.now(Counter.FULL_SCANS) >= due[1]
            if is_due:
                self.recorder.sample()
                self._report(self.machine)
            if status == Status.DONE and (self.now(Counter.WAKEUPS) >= wakeups or self.now(Counter.FULL_SCANS) >= full_scans):
                return True
            if self.now(Counter.TIME_NS) >= until_ns:
                return True

    def _next_sample(self) -> tuple[int, int, int]:
        if self._period_ns is not None:
            return FOREVER, FOREVER, (self.now(Counter.TIME_NS) // self._period_ns + 1) * self._period_ns
        if self._by_batch:
            return self.now(Counter.WAKEUPS) + 1, FOREVER, FOREVER
        return FOREVER, self.now(Counter.FULL_SCANS) + 1, FOREVER


_compile_lock = threading.Lock()
_compile_seconds: list[float] = []


def is_compiled() -> bool:
    """Whether the first run of this process can begin without a pause of up to a minute for compilation."""
    return bool(_compile_seconds) or accel.is_warm()


def warm_up() -> float:
    """Compiles the kernels, or loads them from the cache, by a run of 64 pages; once per process. Returns: seconds it took."""
    with _compile_lock:
        if not _compile_seconds:
            start_s = time.perf_counter()
            steps = (
                Spawn(proc="warm"),
                Mmap(proc="warm", area="up", pages=64),
                Write(proc="warm", area="up", pages=np.arange(64), contents=np.arange(64, dtype=np.uint64) // 2),
                FullScan(count=3),
            )
            program = compile_workload(Workload(name="warm-up", nodes=1, snapshots=(Snapshot(time_ms=0, steps=steps),)))
            machine = Machine(program, Kernel.V6_12, {"pages_to_scan": 100, "run": Run.MERGE})
            for step in program.snapshots[0][1]:
                machine.apply(step)
            machine.survey()
            _compile_seconds.append(time.perf_counter() - start_s)
        return _compile_seconds[0]


def simulate(program: Program, config: Config, progress: Callable[[float], None] | None = None) -> RunResult:
    """Runs `program` under `config`, which has no sweep.

    `progress` is told how far the run is, 0 to 1, at every sample; what it raises ends the run. Raises KsmbatchError if the
    kernel would use freed memory, InputError if `run.scans_per_snapshot` does not fit the snapshots.
    """
    compile_s = warm_up()
    scans = config.snapshot_scans(len(program.snapshots)) if not program.per_scan else None
    setup_start_s, process_start_s = time.perf_counter(), time.thread_time()
    machine = Machine(program, config.host.kernel, _knobs(config), costs=_costs(Costs()))
    end_scans, end_ns = _end(program, config, scans)
    clock = _Clock(machine, config.run.sample, config.run.sample_ms, _reporter(progress, end_scans, end_ns))
    wall_start_s = setup_start_s
    for k, (time_ms, steps) in enumerate(program.snapshots):
        if scans is None and not program.per_scan:
            clock.run(until_ns=min(time_ms * NS_PER_MS, end_ns), full_scans=end_scans)
        if clock.now(Counter.TIME_NS) >= end_ns or (k > 0 and clock.now(Counter.FULL_SCANS) >= end_scans):
            break
        for step in steps:
            _apply(clock, step)
        if k == 0:
            wall_start_s = time.perf_counter()
        if scans is not None or program.per_scan:
            n_scans = scans[k] if scans is not None else 1
            clock.run(full_scans=min(clock.now(Counter.FULL_SCANS) + n_scans, end_scans), until_ns=end_ns)
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
    if len(program.snapshots) == 1:
        _, steps = program.snapshots[0]
        if not any(isinstance(step, Scan | FullScan) for step in steps):
            rule = "must be given, or run.duration: the workload neither scans nor goes on"
            raise InputError(where=config.path, key="run.full_scans", rule=rule)
        return 0, FOREVER  # a scenario: over with its last step
    # a trace by its own clock: the last snapshot lasts as long as the one before
    times = [time_ms for time_ms, _ in program.snapshots]
    return FOREVER, (2 * times[-1] - times[-2]) * NS_PER_MS


def _reporter(progress: Callable[[float], None] | None, end_scans: int, end_ns: int) -> Callable[[Machine], None]:
    def report(machine: Machine) -> None:
        if progress is not None:
            scanned = machine.counter(Counter.FULL_SCANS) / max(end_scans, 1)
            passed = machine.counter(Counter.TIME_NS) / end_ns
            progress(min(max(scanned, passed), 1.0))

    return report


def _apply(clock: _Clock, step: ReadyStep) -> None:
    # scans go by the clock, so that samples are taken within them
    match step:
        case Scan(batches=batches):
            clock.run(wakeups=clock.now(Counter.WAKEUPS) + batches)
        case FullScan(count=count):
            clock.run(full_scans=clock.now(Counter.FULL_SCANS) + count)
        case _:
            clock.machine.apply(step)
