"""Does the command line answer at once? Measured where it counts: in a fresh interpreter."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

HEAVY = {"numba", "numpy", "pandas", "pyarrow", "matplotlib"}


def loaded_by(statement: str) -> set[str]:
    """Top-level packages in sys.modules after `statement`, in an interpreter of its own."""
    program = f"import sys\ntry:\n    {statement}\nexcept SystemExit:\n    pass\nprint('LOADED', *sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    modules = done.stdout.splitlines()[-1].split()
    assert modules[0] == "LOADED", done.stdout
    return {name.split(".")[0] for name in modules[1:]}


@pytest.mark.parametrize(
    "statement", ["import ksmbatch", "import ksmbatch.__main__", "from ksmbatch.cli import main; main(['--help'])"]
)
def test_nothing_heavy_is_loaded_before_a_command_is_chosen(statement: str) -> None:
    assert not loaded_by(statement) & (HEAVY | {"pydantic", "rich"})


@pytest.mark.parametrize(
    "arguments",
    [["sweep", "--help"], ["list", "kernels"], ["list", "policies", "--json"], ["capture", "--help"], ["check", "--help"]],
)
def test_a_command_loads_only_what_it_needs(arguments: list[str]) -> None:
    assert not loaded_by(f"from ksmbatch.cli import main; main({arguments})") & HEAVY


def test_a_bad_configuration_is_refused_without_numba_or_pandas() -> None:
    assert not loaded_by("from ksmbatch.config import load, expand") & {"numba", "pandas", "pyarrow", "matplotlib"}


def test_an_estimate_is_made_without_numba_or_matplotlib() -> None:
    trace = Path(__file__).parent.parent / "workloads/three-vms.parquet"
    loaded = loaded_by(f"from ksmbatch.cli import main; main(['estimate', {str(trace)!r}])")
    assert "pyarrow" in loaded
    assert not loaded & {"numba", "matplotlib"}  # pyarrow loads pandas by itself, to read columns


def test_the_check_would_see_a_heavy_import() -> None:
    assert "numpy" in loaded_by("import numpy")


def test_help_takes_less_than_300_ms() -> None:
    times_s = []
    for _ in range(5):  # the fastest of five: a busy machine is not the program's fault
        start_s = time.perf_counter()
        subprocess.run([sys.executable, "-m", "ksmbatch", "--help"], capture_output=True, check=True, timeout=60)
        times_s.append(time.perf_counter() - start_s)
    assert min(times_s) < 0.3
