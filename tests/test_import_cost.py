"""Does the command line answer at once? Measured where it counts: in a fresh interpreter."""

import gc
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ksmbatch import cli

CONFIG = Path(__file__).resolve().parent.parent / "configs/merge_across_nodes.toml"
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


def test_a_trace_is_read_and_made_ready_without_numba_or_pandas() -> None:
    # pyarrow imports pandas at a word: pa.array(), to_numpy()
    statement = (
        "from pathlib import Path; from ksmbatch.config import expand, load; from ksmbatch.program import compile_config;"
        f"assert compile_config(expand(load(Path({str(CONFIG)!r})))[0].config).n_pages"
    )
    assert not loaded_by(statement) & {"numba", "pandas", "matplotlib"}


def test_results_are_written_without_pandas(tmp_path: Path) -> None:
    statement = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r});"
        "from pathlib import Path; from fake_runs import prepare, simulate;"
        "from ksmbatch.config import load; from ksmbatch.sweep import run_single;"
        f"run_single(load(Path({str(CONFIG)!r})), Path({str(tmp_path)!r}), simulate=simulate, prepare=prepare)"
    )
    assert not loaded_by(statement) & {"numba", "pandas", "matplotlib"}
    assert (tmp_path / "runs.parquet").exists()


def test_pictures_are_drawn_without_pyplot() -> None:
    # which looks for a display, and costs as much as all the rest of matplotlib
    program = "import sys, ksmbatch.plots\nsys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=60).returncode == 0


def test_the_command_line_arranges_a_process_only_if_it_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    before = gc.get_threshold(), gc.get_freeze_count()
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert (gc.get_threshold(), gc.get_freeze_count()) == before
    assert "OPENBLAS_NUM_THREADS" not in os.environ


def test_numpy_starts_no_threads_in_a_process_of_ours() -> None:
    # of OpenBLAS, one per core: nothing here multiplies matrices
    program = (
        "import sys, os; sys.argv = ['ksmbatch', '--version']; from ksmbatch.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    import numpy\nprint(len(os.listdir('/proc/self/task')))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "1"


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
