"""Is it told beforehand what a host takes, and is what does not fit refused in one line?"""

import io
import re
import subprocess
import sys
from pathlib import Path

import pytest
from machines import compiled_only
from rich.console import Console
from small_sweep import write_small_sweep

from ksmbatch import capacity
from ksmbatch.capacity import MERGED, TOUCHED, Size, available_bytes, bytes_by_array, bytes_needed, check, jobs_that_fit
from ksmbatch.config import Config, expand, load
from ksmbatch.errors import InputError
from ksmbatch.program import compile_config, size_at_start
from ksmbatch.state import State
from ksmbatch.sweep import run_sweep

GIB = 2**30
MIX = """[host]
nodes = 2
[workload]
generator = "mix"
mms = 4
pages_per_mm = 1000000
duplicated = 0.2
rewritten_per_scan = 0.01
[run]
full_scans = 3
"""


def has(monkeypatch: pytest.MonkeyPatch, n_bytes: int | None) -> None:
    monkeypatch.setattr(capacity, "available_bytes", lambda: n_bytes)


# ---- what a machine takes


def test_what_a_run_does_not_touch_whole_is_of_the_state() -> None:
    assert set(TOUCHED) <= set(State._fields)
    assert 0 < MERGED < 1


def test_every_array_that_grows_with_pages_is_counted() -> None:
    few, many = bytes_by_array(Size(n_pages=10**6, n_nids=2)), bytes_by_array(Size(n_pages=10**8, n_nids=2))
    growing = {name for name in many if many[name] > few[name]}
    assert {"frames", "members"} <= growing
    assert all(many[name] == pytest.approx(100 * few[name], rel=1e-3) for name in growing)


def test_contents_that_are_duplicated_take_more_on_more_nodes() -> None:
    one, four = (bytes_needed(Size(n_pages=1, n_nids=nodes, n_dup=10**6)) for nodes in (1, 4))
    assert four == pytest.approx(4 * one, rel=0.01)


def test_frames_that_are_numbered_take_more() -> None:
    plain, numbered = (bytes_needed(Size(n_pages=10**6, n_nids=1, needs_frames=needs)) for needs in (False, True))
    assert numbered >= plain + 4 * 10**6


RUN = r"""
import re, sys
from pathlib import Path
from ksmbatch import engine
from ksmbatch.capacity import bytes_needed
from ksmbatch.config import load
from ksmbatch.program import compile_config

def kib(name):  # not ru_maxrss, which begins with what the parent of the process had
    return int(re.search(rf"{name}:\s+(\d+)", Path("/proc/self/status").read_text())[1])

engine.warm_up()
program = compile_config(load(sys.argv[1]))
before_kib = kib("VmRSS")
engine.simulate(program, load(sys.argv[1]))
print(bytes_needed(program.size), (kib("VmHWM") - before_kib) * 1024)
"""


@compiled_only
def test_what_a_run_takes_is_about_what_was_told(tmp_path: Path) -> None:
    (tmp_path / "mix.toml").write_text(MIX)
    command = [sys.executable, "-c", RUN, str(tmp_path / "mix.toml")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    told, taken = map(int, done.stdout.split())
    assert 0.7 * told < taken < 1.2 * told + 64 * 2**20  # what is written is made beside it, process by process


# ---- what is refused


def test_a_host_that_does_not_fit_is_refused_before_its_memory_is_made(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "mix.toml").write_text(MIX)
    has(monkeypatch, 100 * 2**20)
    line = (
        r"mix\.toml: 4,000,000 pages take about [\d.]+ MiB of memory to simulate, and 100 MiB are available \(fewer pages, or"
    )
    with pytest.raises(InputError, match=line):
        compile_config(load(tmp_path / "mix.toml"))
    with pytest.raises(InputError, match=line):
        size_at_start(load(tmp_path / "mix.toml"))


def test_so_is_one_whose_contents_have_to_be_interned(tmp_path: Path, monkeypatch) -> None:
    text = MIX.replace('"mix"', '"pinned-guests"').replace("mms = 4\n", "").replace("pages_per_mm", "pages_per_guest")
    (tmp_path / "guests.toml").write_text(text.replace("duplicated = 0.2", "image = 0.2").replace("1000000", "5000000"))
    has(monkeypatch, GIB // 4)
    with pytest.raises(InputError, match=r"10,000,000 pages take about [\d.]+ MiB of memory to simulate, and 256 MiB are"):
        compile_config(load(tmp_path / "guests.toml"))


def test_what_making_the_contents_takes_counts_if_it_is_more(monkeypatch) -> None:
    size = Size(n_pages=1000, n_nids=1)
    has(monkeypatch, GIB)
    check(size, making=GIB)
    with pytest.raises(InputError, match="about 2 GiB"):
        check(size, making=2 * GIB)


def test_where_nobody_says_how_much_there_is_everything_is_tried(monkeypatch) -> None:
    has(monkeypatch, None)
    check(Size(n_pages=2**40, n_nids=8))
    assert jobs_that_fit(2**60, 7) == 7


def test_runs_beside_each_other_are_as_many_as_fit_but_at_least_one(monkeypatch) -> None:
    has(monkeypatch, 10 * GIB)
    assert [jobs_that_fit(needed * GIB, 4) for needed in (1, 3, 5, 6, 11)] == [4, 3, 2, 1, 1]


def text_of_sweep(config: Config, out: Path) -> str:
    console = Console(file=io.StringIO(), width=200)
    assert run_sweep(config, out, 2, console=console) == 0
    return console.file.getvalue()


def test_a_sweep_has_fewer_threads_where_not_all_fit_and_says_so(tmp_path: Path, monkeypatch, capsys) -> None:
    config = load(write_small_sweep(tmp_path))
    has(monkeypatch, bytes_needed(compile_config(config).size) * 2)
    assert "2 threads" in text_of_sweep(config, tmp_path / "enough")
    assert "--jobs" not in capsys.readouterr().err
    has(monkeypatch, bytes_needed(compile_config(config).size) * 2 - 1)
    assert "1 threads" in text_of_sweep(config, tmp_path / "scarce")
    lines = [line for line in capsys.readouterr().err.splitlines() if "--jobs" in line]
    assert len(lines) == 1
    assert re.fullmatch(r"--jobs 1, not 2: a run takes about [\d.]+ KiB of memory", lines[0])


def test_a_sweep_has_no_more_threads_than_its_largest_point_allows(tmp_path: Path, monkeypatch, capsys) -> None:
    text = MIX.replace("1000000", "10") + '[sweep]\n"workload.pages_per_mm" = [10, 20, 100]\n'
    (tmp_path / "mix.toml").write_text(text)
    config = load(tmp_path / "mix.toml")
    sizes = [bytes_needed(size_at_start(point.config)) for point in expand(config)]
    assert max(sizes) == sizes[2] > 2 * sizes[1]
    has(monkeypatch, sizes[2] + sizes[1])
    assert "1 threads" in text_of_sweep(config, tmp_path / "out")


def test_a_sweep_with_a_point_that_fits_nowhere_is_refused_before_it_begins(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "mix.toml").write_text(MIX.replace("1000000", "10") + '[sweep]\n"workload.pages_per_mm" = [10, 100000000]\n')
    has(monkeypatch, GIB)
    with pytest.raises(InputError, match=r"mix\.toml: 400,000,000 pages take"):
        run_sweep(load(tmp_path / "mix.toml"), tmp_path / "out", console=Console(quiet=True))
    assert not (tmp_path / "out/runs.parquet").exists()


# ---- what there is


def computer(root: Path, available_kib: int | None, cgroup: str = "", **files: str) -> Path:
    (root / "proc/self").mkdir(parents=True)
    if available_kib is not None:
        (root / "proc/meminfo").write_text(f"MemTotal: 99 kB\nMemAvailable:   {available_kib} kB\n")
    (root / "proc/self/cgroup").write_text(cgroup)
    for name, text in files.items():
        file = root / "sys/fs/cgroup" / name.replace("__", "/").replace("_dot_", ".")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


def test_without_cgroups_what_the_kernel_calls_available_counts(tmp_path: Path) -> None:
    assert available_bytes(computer(tmp_path, 1000)) == 1000 * 1024


def test_where_nothing_can_be_read_nobody_says(tmp_path: Path) -> None:
    assert available_bytes(tmp_path) is None


def test_the_tightest_of_all_cgroups_above_counts_if_it_is_tighter(tmp_path: Path) -> None:
    limits = {
        "a__memory_dot_max": "500000\n",
        "a__memory_dot_current": "300000\n",
        "a__memory_dot_stat": "anon 1\ninactive_file 4000\n",
    }
    limits |= {"a__b__memory_dot_max": "max\n", "a__b__memory_dot_current": "7\n"}
    assert available_bytes(computer(tmp_path / "one", 1000, "0::/a/b\n", **limits)) == 204_000
    assert available_bytes(computer(tmp_path / "two", 100, "0::/a/b\n", **limits)) == 102_400
    assert available_bytes(computer(tmp_path / "three", 1000, "0::/other\n", **limits)) == 1_024_000


def test_cgroups_of_version_1_count_too_and_in_a_container_only_the_root_may_be_there(tmp_path: Path) -> None:
    limits = {"memory__memory_dot_limit_in_bytes": "900000", "memory__memory_dot_usage_in_bytes": "800000"}
    root = computer(tmp_path, 10_000, "5:cpu:/x\n4:hugetlb,memory:/docker/abc\n0::/\n", **limits)
    assert available_bytes(root) == 100_000


def test_a_cgroup_that_is_over_its_limit_has_nothing_left(tmp_path: Path) -> None:
    root = computer(tmp_path, 10_000, "0::/\n", memory_dot_max="5", memory_dot_current="6")
    assert available_bytes(root) == 0
