"""Are kernels what they say, however they were compiled? The short ways of compiling, in processes of their own.

The tests' own process has a wrapper for every kernel, so that nothing is only linked there.
"""

import gc
import os
import subprocess
import sys
from pathlib import Path

import numba
import pytest

from ksmbatch.accel import seldom_collecting

jit_only = pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="the JIT is off: nothing is compiled")

# `one` is compiled first, in a process that never needs `other`; that finds `inner` in the cache
KERNELS = """
import sys
import numpy as np
from numba import int64
from ksmbatch import accel

@accel.inlined
def clipped(x, low):
    if x < low:
        x = low  # an argument that is assigned to, in a copy for each place where it is inlined
    return x

@accel.inlined
def between(x, low, high):
    y = clipped(x, low)
    while y > high:
        y -= 1
    return -clipped(-y, -high)

@accel.kernel
def inmost(a, k):
    return int64(a[k]) * 2

@accel.kernel
def inner(a, k):
    x = between(inmost(a, k), 0, 10)
    return x + 100 * between(inmost(a, k), 3, 5)

@accel.entry_kernel
def one(a, k):
    return inner(a, k) + 1

@accel.entry_kernel
def other(a, k):
    return inner(a, k) - inmost(a, k)

a = np.array([4, 0, -3], dtype=np.int32)
for name, k in zip(sys.argv[1::2], sys.argv[2::2]):
    try:
        print(globals()[name](a, int64(k)))
    except IndexError:
        print("IndexError")
print(len(inner.overloads), len(list(accel.cache_directory().rglob("*.nbc"))))
"""
EXPECTED = {("one", 0): 509, ("one", 1): 301, ("one", 2): 301, ("other", 0): 500, ("other", 1): 300, ("other", 2): 306}


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "program.py"
    path.write_text(KERNELS)
    return path


def run(program: Path, *words: str, **environment: str) -> list[str]:
    """What `program` prints for kernels and their argument; its cache is beside it."""
    kept = {name: value for name, value in os.environ.items() if name not in ("NUMBA_BOUNDSCHECK", "KSMBATCH_WRAP_ALL")}
    root = str(Path(__file__).resolve().parents[2])
    environment = kept | {"PYTHONPATH": root, "KSMBATCH_CACHE_DIR": str(program.parent / "cache")} | environment
    command = [sys.executable, "-W", "error", str(program), *words]
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.split("\n")[:-1]


@jit_only
def test_kernels_that_are_only_linked_do_what_they_say_compiled_now_or_found_in_the_cache(program: Path) -> None:
    words = [str(word) for call in EXPECTED for word in call]
    expected = [str(value) for value in EXPECTED.values()]
    first = run(program, *words[:6])
    assert first == [*expected[:3], "1 3"]  # one, inner and inmost; what is inlined is nowhere
    assert run(program, *words[6:]) == [*expected[3:], "1 4"]  # other, for which inner came from the cache
    assert run(program, *words) == [*expected, "0 4"]  # both, for which nobody asked for inner


@jit_only
@pytest.mark.parametrize("environment", [{"KSMBATCH_WRAP_ALL": "1"}, {"KSMBATCH_CACHE": "0"}])
def test_they_do_the_same_with_wrappers_and_without_a_cache(program: Path, environment: dict[str, str]) -> None:
    words = [str(word) for call in EXPECTED for word in call]
    assert run(program, *words, **environment)[:-1] == [str(value) for value in EXPECTED.values()]


@jit_only
def test_an_index_out_of_bounds_in_a_linked_kernel_is_an_error_under_bounds_checks(program: Path) -> None:
    for _ in range(2):  # compiled now; found in the cache
        assert run(program, "one", "0", "one", "3", "other", "99", NUMBA_BOUNDSCHECK="1")[:-1] == [
            "509",
            "IndexError",
            "IndexError",
        ]


@jit_only
def test_with_a_numba_that_nobody_has_tried_kernels_are_compiled_as_numba_does_it(program: Path) -> None:
    other = "import numba\nnumba.version_info = numba.version_info._replace(minor=99)\n"
    program.write_text(other + KERNELS + "print('ksmbatch.compiling' in sys.modules)\n")
    words = [str(word) for call in EXPECTED for word in call]
    for _ in range(2):  # compiled now; found in the cache
        *values, _, is_short = run(program, *words)
        assert values == [str(value) for value in EXPECTED.values()]
        assert is_short == "False"


def test_collecting_garbage_goes_on_as_before_when_compiling_ends_however_it_ends() -> None:
    before = gc.get_threshold(), gc.get_freeze_count()
    with pytest.raises(KeyboardInterrupt), seldom_collecting():
        raise _interrupted(before)
    assert (gc.get_threshold(), gc.get_freeze_count()) == before


def _interrupted(before: tuple[tuple[int, int, int], int]) -> KeyboardInterrupt:
    assert gc.isenabled()
    assert gc.get_threshold() != before[0]
    return KeyboardInterrupt()
