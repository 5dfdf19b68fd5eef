"""Is memory there before it is used, and is it what it was? How fast that is is for benchmarks."""

import mmap
import os
import resource
import time

import numpy as np
import pytest

from ksmbatch import prefault

N_BYTES = 2**25


def touched(array: np.ndarray) -> int:
    """Page faults that writing one byte to every page of `array` takes."""
    before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
    array[:: mmap.PAGESIZE] = 1
    return resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before


@pytest.fixture
def system_can() -> None:
    """Skips where the system cannot clear memory ahead, or there is no second core to do it."""
    array = np.zeros(N_BYTES, np.uint8)
    if os.cpu_count() == 1 or not all(map(prefault._populate, prefault._steps(array, array.nbytes))):
        pytest.skip("needs Linux 5.14 (MADV_POPULATE_WRITE) and two cores")


@pytest.mark.usefixtures("system_can")
def test_an_array_that_is_there_is_touched_without_faults() -> None:
    cold, warm = np.zeros(3 * N_BYTES, np.uint8), np.zeros(3 * N_BYTES, np.uint8)
    prefault.at_once(warm)
    assert not warm.any()
    assert touched(warm) < 4 <= touched(cold)


@pytest.mark.usefixtures("system_can")
def test_meanwhile_only_the_first_bytes_are_seen_to() -> None:
    array = np.zeros(4 * N_BYTES, np.uint8)
    with prefault.meanwhile([(array, N_BYTES)]):
        time.sleep(2)
    first, rest = array[: N_BYTES - mmap.PAGESIZE], array[N_BYTES + 2**21 :]
    assert touched(first) < 4 <= touched(rest)


def test_small_arrays_and_systems_that_cannot_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    small = np.arange(1000)
    with prefault.meanwhile([(small, small.nbytes)]):
        prefault.at_once(small)
    monkeypatch.setattr(prefault, "_LIBC", None)
    large = np.zeros(N_BYTES, np.uint8)
    with prefault.meanwhile([(large, large.nbytes)]):
        prefault.at_once(large)
    assert small.tolist() == list(range(1000))
    assert not large.any()
