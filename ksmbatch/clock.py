"""A machine's time: lets ksmd run up to a limit, and takes the samples that are due on the way.

What happens to the machine in between is `engine`'s business.
"""

from collections.abc import Callable

import numpy as np

from ksmbatch import metrics
from ksmbatch.codes import Status
from ksmbatch.errors import UndefinedBehaviour
from ksmbatch.machine import Machine
from ksmbatch.metrics import COUNTERS, NODE_COUNTERS, Counter
from ksmbatch.program import ReadyStep
from ksmbatch.state import FOREVER

NS_PER_MS = 1_000_000


class Recorder:
    """Takes samples: one row of counters, and one of node counters per node."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._rows: list[np.ndarray] = []
        self._node_rows: list[np.ndarray] = []

    def sample(self) -> None:
        """The counters as they are now."""
        counters = self._machine.state.counters
        self._rows.append(counters.copy())
        counters[Counter.PEAK_FRAMES] = counters[Counter.FRAMES_IN_USE]
        self._node_rows.append(self._machine.state.node_counters.copy())

    @property
    def last_ns(self) -> int:
        """Simulated time of the last sample; -1 if there is none."""
        return int(self._rows[-1][Counter.TIME_NS]) if self._rows else -1

    def samples(self) -> dict[str, np.ndarray]:
        """Column -> int64[n_samples]: time_ms, full_scans and every metric of `metrics.derive()`."""
        rows = np.array(self._rows, np.int64).reshape(-1, len(COUNTERS))
        columns = {"time_ms": rows[:, Counter.TIME_NS] // NS_PER_MS}
        columns |= {metric.name: rows[:, k] for k, metric in enumerate(COUNTERS)}
        for derived in metrics.DERIVED:
            columns[derived.metric.name] = np.array([derived.of(row) for row in rows.tolist()], np.int64)
        return columns

    def nodes(self) -> dict[str, np.ndarray]:
        """Column -> int64[n_samples * n_nids]: time_ms, full_scans, nid and the metrics of NODE_COUNTERS."""
        rows = np.array(self._rows, np.int64).reshape(-1, len(COUNTERS))
        node_rows = np.array(self._node_rows, np.int64).reshape(len(rows), -1, len(NODE_COUNTERS))
        n_nids = node_rows.shape[1]
        columns = {
            "time_ms": np.repeat(rows[:, Counter.TIME_NS] // NS_PER_MS, n_nids),
            "full_scans": np.repeat(rows[:, Counter.FULL_SCANS], n_nids),
            "nid": np.tile(np.arange(n_nids), len(rows)),
        }
        return columns | {metric.name: node_rows[:, :, k].reshape(-1) for k, metric in enumerate(NODE_COUNTERS)}


class Clock:
    """Lets ksmd run up to a limit, and takes the samples due on the way; `report` is told of each."""

    def __init__(self, machine: Machine, sample: str, sample_ms: int | None, report: Callable[["Clock"], None]) -> None:
        self.machine = machine
        self.recorder = Recorder(machine)
        self._by_batch = sample == "batch"
        self._period_ns = None if sample_ms is None else sample_ms * NS_PER_MS
        self._report = report
        self._scans_before_reset = 0

    def apply(self, step: ReadyStep) -> None:
        """Lets `step` happen now; run = 2 zeroes the kernel's count of full scans, and not that of `scans_done`."""
        before = self.now(Counter.FULL_SCANS)
        self.machine.apply(step)
        self._scans_before_reset += before - self.now(Counter.FULL_SCANS)

    @property
    def scans_done(self) -> int:
        """Full scans since the start."""
        return self._scans_before_reset + self.now(Counter.FULL_SCANS)

    def now(self, counter: Counter) -> int:
        """The present value of `counter`."""
        return self.machine.counter(counter)

    def run(self, *, wakeups: int = FOREVER, full_scans: int = FOREVER, until_ns: int = FOREVER) -> bool:
        """Up to the first of three limits; False if ksmd has nothing to do and none of them is a time.

        `full_scans` counts as `scans_done` does.
        """
        full_scans = min(full_scans - self._scans_before_reset, FOREVER)
        while True:
            due = self._next_sample()
            limits = (min(wakeups, due[0]), min(full_scans, due[1]), min(until_ns, due[2]))
            status, outcome = self.machine.scan(until_wakeups=limits[0], until_full_scans=limits[1], until_ns=limits[2])
            if outcome.undefined:
                raise UndefinedBehaviour(outcome.undefined)
            if status == Status.TIME and until_ns == FOREVER and self.machine.is_idle:
                return False  # however many samples are taken, no scan will ever end
            if status == Status.TIME:
                is_due = self._period_ns is not None and self.now(Counter.TIME_NS) >= due[2]
            else:
                is_due = self.now(Counter.WAKEUPS) >= due[0] or self.now(Counter.FULL_SCANS) >= due[1]
            if is_due:
                self.recorder.sample()
                self._report(self)
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
