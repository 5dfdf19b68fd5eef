"""Is every kernel compiled once? numba compiles a function anew for every new combination of types it is called with.

A second one costs seconds at every cold start and shows nowhere else. It says nothing about what kernels do.
"""

import importlib
import os
import pkgutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numba
import pytest
from machines import RECORDINGS, filled, full_scan, migrate, scenario
from small_sweep import write_small_sweep

import ksmbatch.kernels
from ksmbatch import accel
from ksmbatch.codes import Kernel, Policy
from ksmbatch.config import load
from ksmbatch.engine import simulate
from ksmbatch.program import compile_config
from ksmbatch.recordings import load_recordings
from ksmbatch.replay import record
from ksmbatch.scenario import parse_scenario

pytestmark = pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="the JIT is off: nothing is compiled")

SCENARIOS = {"fork_write", "migrate_chain", "knob_between", "unmerge_run2", "prot_none_zero", "zero_pages_toggle", "munmap"}

MOVING = scenario(
    *filled([7, 7, 8]),
    *filled([7, 7], node=1, proc="b"),
    full_scan(3),
    migrate("m", 1),
    {"op": "rebind", "proc": "b", "area": "m", "node": 0},
    {"op": "fork", "proc": "a", "child": "c"},
    {"op": "cma", "range": [64, 2]},
    {"op": "offline", "node": 0},
    {"op": "online", "node": 0},
    full_scan(2),
    node_pages=64,
    merge_across_nodes=0,
)


def kernels() -> dict[str, Any]:
    """Every compiled function of ksmbatch.kernels by its full name, where it is defined."""
    modules = [info.name for info in pkgutil.walk_packages(ksmbatch.kernels.__path__, "ksmbatch.kernels.")]
    return {
        f"{name}.{key}": member
        for name in modules
        for key, member in vars(importlib.import_module(name)).items()
        if hasattr(member, "signatures") and member.__module__ == name
    }


@pytest.fixture(scope="module")
def signatures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """What each kernel was compiled for in this process, after scenarios with all kinds of steps, and a run by the clock."""
    for recording in load_recordings(RECORDINGS / "6.12.json.gz"):
        if recording.scenario.name in SCENARIOS:
            record(recording.scenario, Kernel.V6_12)
    for policy in Policy:
        record(parse_scenario(MOVING, "test"), Kernel.V6_12, policy=policy)
    config = load(write_small_sweep(tmp_path_factory.mktemp("small")))
    simulate(compile_config(config), config)
    return {name: member.signatures for name, member in kernels().items()}


def test_the_engine_calls_kernels_that_were_compiled(signatures: dict[str, list[Any]]) -> None:
    entered = {
        "ksmd.ksm_scan_thread",
        "fault.write_pages",
        "fault.fork_pages",
        "fault.rebind_pages",
        "mm_slot.ksm_exit",
        "move_pages.move_pages",
        "migrate.frame_move.recount_remote_mappings",
        "hotplug.move_away",
        "hotplug.check_stable_tree",
        "clear_frames.clear_frames",
    }
    assert {name for name, compiled in signatures.items() if compiled} >= {f"ksmbatch.kernels.{name}" for name in entered}


def test_no_kernel_is_compiled_twice(signatures: dict[str, list[Any]]) -> None:
    assert {name: compiled for name, compiled in signatures.items() if len(compiled) > 1} == {}


def test_the_cache_holds_one_machine_code_per_kernel(signatures: dict[str, list[Any]]) -> None:
    # a kernel that is only called by others is not loaded with them, so that its signatures show in the cache alone: one
    # index file, and one data file for each signature, called MODULE.KERNEL-LINE.pyVERSION.NUMBER.nbc
    if not accel.CACHED:
        pytest.skip("there is no cache: KSMBATCH_CACHE is 0, or its folder cannot be written")
    # ... in a folder for each place from which the sources were run
    files = Counter(str(file).rsplit(".", 2)[0] for file in accel.cache_directory().rglob("*.nbc"))
    assert len(files) > len(signatures) / 2
    assert {name: n for name, n in files.items() if n > 1} == {}


def test_the_warm_up_loads_all_that_a_sweep_calls(tmp_path: Path) -> None:
    # what it leaves out is compiled in the midst of a run, which then seems to take a second longer
    program = (
        "import sys; from pathlib import Path\n"
        "from test_specialisations import kernels\n"
        "from small_sweep import write_small_sweep\n"
        "from ksmbatch.config import load\n"
        "from ksmbatch.engine import simulate, warm_up\n"
        "from ksmbatch.program import compile_config\n"
        "def loaded(): return {name for name, member in kernels().items() if member.signatures}\n"
        "warm_up()\n"
        "before = loaded()\n"
        "config = load(write_small_sweep(Path(sys.argv[1])))\n"
        "simulate(compile_config(config), config)\n"
        "assert before and loaded() <= before, loaded() - before\n"
    )
    paths = os.pathsep.join(str(each) for each in (Path(__file__).parent, *Path(__file__).parents[2:4]))
    environment = {**os.environ, "PYTHONPATH": paths}
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
