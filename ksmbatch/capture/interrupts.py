"""Ctrl-C and SIGTERM as a question that is asked between two bits of work, instead of an exception in the middle of one.

The second one is an exception, for who is in a hurry.
"""

import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any, Final, Self

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
_SLICE_S: Final = 0.1  # how long a sleep can overlook a signal: Python goes on sleeping after its handler


class Interrupts:
    """`with Interrupts() as interrupts: ...`; where this is not the main thread, signals are left alone."""

    def __init__(self) -> None:
        self._have_come = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in _SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # None: somebody's who is not Python

    def have_come(self) -> bool:
        """Whether the user wants no more."""
        return self._have_come

    def sleep(self, seconds: float) -> None:
        """Sleeps until a signal has come, or so long."""
        end_s = time.monotonic() + seconds
        while not self._have_come and (left_s := end_s - time.monotonic()) > 0:
            time.sleep(min(left_s, _SLICE_S))

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        if self._have_come:
            raise KeyboardInterrupt
        self._have_come = True
