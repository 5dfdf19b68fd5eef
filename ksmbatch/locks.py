"""The lock model: moves that change stable trees wait for ksmd, and ksmd for them; with it, moves take time.

Hugh Dickins expected an extra mutex around the trees to be hardly contended; LOCKS_WAITED and LOCK_WAIT_NS say how hardly. One
process moves pages, on a CPU of its own. What holds what, and how long, is in docs/migration.md.
"""

from ksmbatch import migration
from ksmbatch.clock import Clock
from ksmbatch.codes import Locking
from ksmbatch.events import Migrate
from ksmbatch.metrics import Counter
from ksmbatch.state import Knob, Scan


class Lock:
    """The lock of `migration.locking` on the machine of `clock`; a move may take it while ksmd does not hold it."""

    def __init__(self, clock: Clock, kind: Locking) -> None:
        self.kind = kind
        self._clock = clock
        self._machine = clock.machine

    def migrate(self, step: Migrate) -> None:
        """Moves the pages of `step` one after another, each when the one before is done, while ksmd goes on."""
        first, end = self._machine.pages_of(step)
        time_ns = self._clock.now(Counter.TIME_NS)  # of the process that moves them
        page = first
        while page < end:
            self._clock.run(until_ns=time_ns)
            self._machine.write_up()
            stop = page
            while stop < end and not migration.edits_trees(self._machine.state, stop, step.node, step.caller):
                stop += 1
            if stop > page:
                time_ns += self._move(page, stop, step)
                page = stop
                continue
            time_ns += self._wait(time_ns)
            held_ns = self._hold(time_ns)
            time_ns += max(self._move(page, page + 1, step), held_ns)  # one that fails has held the lock all the same
            page += 1
        self._clock.run(until_ns=time_ns)

    def wait_for_batch(self) -> None:
        """Takes ksm_thread_mutex now, as memory hotremove does whatever `kind` is: the batch that is under way ends first."""
        now_ns = self._clock.now(Counter.TIME_NS)
        self._end_batch()
        self._count(self._clock.now(Counter.TIME_NS) - now_ns)

    def _move(self, first: int, end: int, step: Migrate) -> int:
        """Returns: nanoseconds that it took."""
        before_ns = self._clock.now(Counter.MOVE_CPU_NS)
        self._machine.migrate(first, end, step.node, step.caller)
        return self._clock.now(Counter.MOVE_CPU_NS) - before_ns

    def _wait(self, time_ns: int) -> int:
        """Waits from `time_ns` on until ksmd lets go; it has run until then, or to the end of a visit. Returns: nanoseconds."""
        walked = int(self._machine.state.scan[Scan.VISIT]) in (Knob.SEARCH_NS, Knob.MERGE_NS)
        if self.kind == Locking.KSM_THREAD_MUTEX:
            self._end_batch()
        wait_ns = self._clock.now(Counter.TIME_NS) - time_ns
        if self.kind == Locking.TREE_MUTEX and not walked:
            wait_ns = 0
        self._count(wait_ns)
        return wait_ns

    def _hold(self, time_ns: int) -> int:
        """The lock is held from `time_ns` on for as long as a tree takes; ksmd waits if it wants to go on before."""
        scan, counters = self._machine.state.scan, self._machine.state.counters
        free_ns = time_ns + int(self._machine.state.knobs[Knob.TREE_NS])
        counters[Counter.LOCK_HOLD_NS] += free_ns - time_ns
        wants_ns = int(counters[Counter.TIME_NS] if scan[Scan.BUDGET] else scan[Scan.WAKE_NS])
        if time_ns <= wants_ns < free_ns:
            counters[Counter.KSMD_WAIT_NS] += free_ns - wants_ns
            if scan[Scan.BUDGET]:
                counters[Counter.TIME_NS] = free_ns
            else:
                scan[Scan.WAKE_NS] = free_ns
        return free_ns - time_ns

    def _end_batch(self) -> None:
        if self._machine.state.scan[Scan.BUDGET]:
            self._clock.run(wakeups=self._clock.now(Counter.WAKEUPS))

    def _count(self, wait_ns: int) -> None:
        counters = self._machine.state.counters
        counters[Counter.LOCKS_TAKEN] += 1
        counters[Counter.LOCKS_WAITED] += wait_ns > 0
        counters[Counter.LOCK_WAIT_NS] += wait_ns
