"""Same config and seed, same tables? Compiled or interpreted, by look-up or by walks, on one thread or two.

Whether the tables are right is asked elsewhere; here it is enough that they are the same.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from machines import RECORDINGS, of_arrays
from parity.strategies import random_case
from rich.console import Console
from small_sweep import write_small_sweep

from ksmbatch.codes import Kernel
from ksmbatch.config import load
from ksmbatch.recordings import Recording, load_recordings
from ksmbatch.replay import record
from ksmbatch.scenario import parse_scenario
from ksmbatch.sweep import run_sweep

ROOT = Path(__file__).resolve().parent.parent
EVERY = 12  # of the recorded scenarios one in this many is interpreted

# What an interpreter without compiled kernels makes of recorded scenarios and of a small sweep.
INTERPRETED = """
import json, sys
from pathlib import Path
from rich.console import Console
from ksmbatch.codes import Kernel
from ksmbatch.config import load
from ksmbatch.recordings import load_recordings
from ksmbatch.replay import record
from ksmbatch.sweep import run_sweep
import numba

recordings, config, out, every = sys.argv[1:]
assert numba.config.DISABLE_JIT
run_sweep(load(config), Path(out), jobs=1, console=Console(quiet=True))
print(json.dumps([record(one.scenario, Kernel.V6_12) for one in load_recordings(recordings)[::int(every)]]))
"""


@pytest.fixture(scope="module")
def recorded() -> list[Recording]:
    return load_recordings(RECORDINGS / "6.12.json.gz")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_sweep(tmp_path_factory.mktemp("small"))


def tables(out: Path, apart: tuple[str, ...] = ()) -> list[list[dict[str, Any]]]:
    """What a sweep came to, without what may differ from time to time, and without the columns `apart`."""
    made = [pq.read_table(out / "runs.parquet"), ds.dataset(out / "samples").to_table(), ds.dataset(out / "nodes").to_table()]
    varying = [[name for name in table.column_names if name.endswith("_s") or name in apart] for table in made]
    return [table.drop_columns(names).to_pylist() for table, names in zip(made, varying, strict=True)]


def swept(config: Path, out: Path, jobs: int) -> list[list[dict[str, Any]]]:
    assert run_sweep(load(config), out, jobs=jobs, console=Console(quiet=True)) == 0
    return tables(out, apart=("peak_rss_bytes",))


def test_walking_every_tree_changes_no_observation_of_the_recorded_scenarios(recorded: list[Recording]) -> None:
    assert len(recorded) == 331
    for one in recorded:
        walked = record(one.scenario, Kernel.V6_12, force_exact=True)
        assert walked == record(one.scenario, Kernel.V6_12), one.scenario.name


def test_walking_every_tree_changes_no_observation_of_random_scenarios() -> None:
    for seed in range(100):
        case = random_case(seed)
        arguments = parse_scenario(case.document, f"seed {seed}"), Kernel.parse(case.kernel)
        walked, looked_up = (
            record(*arguments, force_exact=force, checksum=of_arrays(case.checksum)) for force in (True, False)
        )
        assert walked == looked_up, f"seed {seed}"


def test_one_thread_and_two_give_the_same_tables_twice(config: Path, tmp_path: Path) -> None:
    once = swept(config, tmp_path / "one", jobs=1)
    assert swept(config, tmp_path / "two", jobs=2) == once
    assert swept(config, tmp_path / "again", jobs=1) == once
    assert len(once[0]) == 6


def test_an_interpreter_gives_the_tables_that_compiled_kernels_give(
    recorded: list[Recording], config: Path, tmp_path: Path
) -> None:
    arguments = [str(RECORDINGS / "6.12.json.gz"), str(config), str(tmp_path / "interpreted"), str(EVERY)]
    environment = os.environ | {"NUMBA_DISABLE_JIT": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "error", "-c", INTERPRETED, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    interpreted = json.loads(done.stdout.splitlines()[-1])
    compiled = [record(one.scenario, Kernel.V6_12) for one in recorded[::EVERY]]
    assert interpreted == json.loads(json.dumps(compiled))
    assert tables(tmp_path / "interpreted", apart=("peak_rss_bytes",)) == swept(config, tmp_path / "compiled", jobs=1)
