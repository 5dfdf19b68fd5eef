"""How fast to work: CPU time within a bound, by sleeping.

The bound holds in every stretch of work, not only on average over the pauses between them.
"""

import time
from collections.abc import Callable
from typing import Final

_LEAST_SLEEP_S: Final = 0.005


class Pace:
    """Keeps this process's CPU time at or below `max_cpu` (cores) times the time that passes; `stop` ends every sleep.

    `clock`, `cpu_clock`: seconds; `sleep`: waits so many seconds, or less. Of work since `begin`: `work_s`, `work_cpu_s`.
    """

    def __init__(
        self,
        max_cpu: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        cpu_clock: Callable[[], float] = time.process_time,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._max_cpu = max_cpu
        self._clock = clock
        self._cpu_clock = cpu_clock
        self._sleep = sleep
        self.work_s = 0.0
        self.work_cpu_s = 0.0
        self.begin()

    def begin(self) -> None:
        """A stretch of work begins: what was not used before is no credit."""
        self._start_s = self._mark_s = self._clock()
        self._start_cpu_s = self._mark_cpu_s = self._cpu_clock()

    def rest(self) -> None:
        """To be called after every bit of work: sleeps off what it took too much. No more than 5 ms is left owing."""
        owed_s = (self._cpu_clock() - self._start_cpu_s) / self._max_cpu - (self._clock() - self._start_s)
        if owed_s >= _LEAST_SLEEP_S:
            self._sleep(owed_s)
        now_s, now_cpu_s = self._clock(), self._cpu_clock()
        self.work_s += now_s - self._mark_s
        self.work_cpu_s += now_cpu_s - self._mark_cpu_s
        self._mark_s, self._mark_cpu_s = now_s, now_cpu_s
