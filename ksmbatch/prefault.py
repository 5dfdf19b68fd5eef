"""Has the operating system clear memory before it is used, by threads of their own: on a large host that takes as long as ksmd.

A page of memory is cleared when it is touched first, by the thread that touches it; and a run has one thread. It changes no
value, and where the system does not know how (MADV_POPULATE_WRITE came with Linux 5.14), nothing happens.
"""

import ctypes
import mmap
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Final

import numpy as np

_MADV_POPULATE_WRITE: Final = 23
_STEP: Final = 2**25  # bytes cleared by one call, which nothing can interrupt
_LEAST: Final = 2**23  # bytes for which a thread pays


def at_once(array: np.ndarray) -> None:
    """Returns when all of `array` is there; uses all cores."""
    steps = list(_steps(array, array.nbytes)) if array.nbytes >= _LEAST else []
    n_threads = min(os.cpu_count() or 1, len(steps))
    if n_threads > 1:
        with ThreadPoolExecutor(n_threads, "ksmbatch-memory") as threads:
            list(threads.map(_populate, steps))


@contextmanager
def meanwhile(arrays: Sequence[tuple[np.ndarray, int]]) -> Iterator[None]:
    """While the body runs, the first bytes, so many as are named, of each array are seen to, one array after the other."""
    pays = sum(n_bytes for _, n_bytes in arrays) >= _LEAST
    steps = [step for array, n_bytes in arrays if pays for step in _steps(array, n_bytes)]
    ended = threading.Event()

    def work() -> None:
        for step in steps:
            if ended.is_set() or not _populate(step):
                return

    if not steps or os.cpu_count() == 1:
        yield
        return
    thread = threading.Thread(target=work, name="ksmbatch-memory", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()  # it works on memory that may be given back now


def _steps(array: np.ndarray, n_bytes: int) -> Iterator[tuple[int, int]]:
    """(address, bytes) of whole pages of memory within the first `n_bytes` of `array`."""
    n_bytes = min(n_bytes, array.nbytes)
    address = -(-array.ctypes.data // mmap.PAGESIZE) * mmap.PAGESIZE
    end = (array.ctypes.data + n_bytes) // mmap.PAGESIZE * mmap.PAGESIZE
    for start in range(address, end, _STEP):
        yield start, min(_STEP, end - start)


def _populate(step: tuple[int, int]) -> bool:
    return _LIBC is not None and _LIBC.madvise(ctypes.c_void_p(step[0]), ctypes.c_size_t(step[1]), _MADV_POPULATE_WRITE) == 0


def _libc() -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL(None)
        return library if hasattr(library, "madvise") else None
    except (OSError, TypeError):
        return None


_LIBC: Final = _libc()
