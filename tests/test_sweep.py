"""Does a sweep do what is missing, keep what is there, and tell the truth about it? Mostly with a stand-in for the engine."""

import io
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from fake_runs import FakeRun, prepare, simulate
from rich.console import Console
from small_sweep import N_SCANS, write_small_sweep

from ksmbatch import accel, engine
from ksmbatch import sweep as sweeping
from ksmbatch.config import Config, load
from ksmbatch.errors import InputError, KsmbatchError
from ksmbatch.sweep import Programs, run_single, run_sweep

N_RUNS = 6

# A sweep in a process of its own, whose simulations are counted in a file and whose fourth one never ends.
ENDLESS = """
import sys, time
from pathlib import Path
from fake_runs import prepare, simulate
from ksmbatch.config import load
from ksmbatch.sweep import run_sweep

config, out, log = map(Path, sys.argv[1:])

def endless(program, config, progress):
    with log.open("a") as file:
        print(config.run_id, file=file)
    while len(log.read_text().split()) > 3:
        progress(0.5)
        time.sleep(0.01)
    return simulate(program, config, progress)

sys.exit(run_sweep(load(config), out, jobs=1, simulate=endless, prepare=prepare))
"""


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return load(write_small_sweep(tmp_path))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "results"


class Counting:
    """Simulates, and remembers the run_ids of what it simulated."""

    def __init__(self, fails: Callable[[Config], Exception | None] = lambda config: None) -> None:
        self.run_ids: list[str] = []
        self._fails = fails

    def __call__(self, program: object, config: Config, progress: Callable[[float], None]) -> FakeRun:
        self.run_ids.append(config.run_id)
        if error := self._fails(config):
            raise error
        return simulate(program, config, progress)


def sweep(config: Config, out: Path, jobs: int = 1, fresh: bool = False, console: Console | None = None, **engine) -> int:
    engine = {"simulate": simulate, "prepare": prepare} | engine
    return run_sweep(config, out, jobs, fresh, console or Console(quiet=True), **engine)


def values(out: Path) -> list[list[dict[str, object]]]:
    """The tables, without what may differ from time to time."""
    tables = [pq.read_table(out / "runs.parquet"), ds.dataset(out / "samples").to_table(), ds.dataset(out / "nodes").to_table()]
    varying = [[name for name in table.column_names if name.endswith("_s") or name == "peak_rss_bytes"] for table in tables]
    return [table.drop_columns(names).to_pylist() for table, names in zip(tables, varying, strict=True)]


def listed(out: Path) -> list[str]:
    # opened once: pq.read_table() opens a path twice, and a running sweep may replace the file in between
    return pq.read_table(io.BytesIO((out / "runs.parquet").read_bytes()))["run_id"].to_pylist()


def start_endless(config: Config, out: Path, log: Path) -> subprocess.Popen[str]:
    """Starts ENDLESS and returns once its first three runs are in the results."""
    command = [sys.executable, "-c", ENDLESS, str(config.path), str(out), str(log)]
    here = {"PYTHONPATH": ":".join(sys.path), "PATH": ""}
    process = subprocess.Popen(command, env=here, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline_s = time.monotonic() + 60
    while not ((out / "runs.parquet").exists() and len(listed(out)) == 3 and len(log.read_text().split()) == 4):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline_s
        time.sleep(0.02)
    return process


def test_a_sweep_writes_one_row_per_point_in_grid_order(config, out) -> None:
    assert sweep(config, out) == 0
    runs = pq.read_table(out / "runs.parquet")
    grid = [(across, sharing) for across in (0, 1) for sharing in (2, 16, 256)]
    assert list(zip(runs["ksm.merge_across_nodes"].to_pylist(), runs["ksm.max_page_sharing"].to_pylist(), strict=True)) == grid
    assert ds.dataset(out / "samples").count_rows() == N_RUNS * N_SCANS
    assert ds.dataset(out / "nodes").count_rows() == N_RUNS * N_SCANS * 2
    assert (out / "saving.png").read_bytes().startswith(b"\x89PNG")


def test_killed_after_the_third_run_a_sweep_goes_on_with_the_fourth(config, out, tmp_path) -> None:
    with start_endless(config, out, tmp_path / "log") as process:
        process.send_signal(signal.SIGKILL)
    finished = listed(out)
    counting = Counting()
    assert sweep(config, out, simulate=counting) == 0
    assert len(counting.run_ids) == 3
    assert not set(counting.run_ids) & set(finished)
    assert sweep(config, tmp_path / "uninterrupted") == 0
    assert values(out) == values(tmp_path / "uninterrupted")


def test_ctrl_c_ends_a_sweep_soon_and_keeps_what_is_finished(config, out, tmp_path) -> None:
    with start_endless(config, out, tmp_path / "log") as process:
        process.send_signal(signal.SIGINT)
        told = process.communicate(timeout=30)[1]
    assert process.returncode == 130
    assert "3 of 6 runs are in" in told
    assert "Traceback" not in told
    counting = Counting()
    assert sweep(config, out, simulate=counting) == 0
    assert len(counting.run_ids) == 3


def test_results_are_the_same_on_one_thread_and_on_three(config, tmp_path) -> None:
    def slow_first(program: object, config: Config, progress: Callable[[float], None]) -> FakeRun:
        time.sleep(0.1 * (1 - config.ksm.merge_across_nodes))  # so that runs end in another order than they began
        return simulate(program, config, progress)

    assert sweep(config, tmp_path / "one", jobs=1) == 0
    assert sweep(config, tmp_path / "three", jobs=3, simulate=slow_first) == 0
    assert values(tmp_path / "one") == values(tmp_path / "three")


def test_the_engine_s_results_are_the_same_on_one_thread_and_on_two(config, tmp_path, capsys) -> None:
    for jobs in (1, 2):
        assert run_sweep(config, tmp_path / str(jobs), jobs, console=Console(quiet=True)) == 0
    capsys.readouterr()
    one, two = values(tmp_path / "1"), values(tmp_path / "2")
    assert one == two
    assert all(run["pages_sharing"] > 0 for run in one[0])


def test_the_engine_s_results_are_the_same_after_a_break(config, tmp_path) -> None:
    first = load(config.path, ["ksm.merge_across_nodes=0"])
    assert run_sweep(first, tmp_path / "broken", 2, console=Console(quiet=True)) == 0
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "broken" / "samples").iterdir()}
    assert run_sweep(config, tmp_path / "broken", 2, console=Console(quiet=True)) == 0
    assert run_sweep(config, tmp_path / "whole", 2, console=Console(quiet=True)) == 0
    assert values(tmp_path / "broken") == values(tmp_path / "whole")
    assert len(kept) == 3
    assert all(path.stat().st_mtime_ns == before for path, before in kept.items())


def test_a_finished_sweep_runs_nothing_again(config, out) -> None:
    assert sweep(config, out) == 0
    counting = Counting()
    prepared = Counting()
    assert sweep(config, out, simulate=counting, prepare=prepared.run_ids.append) == 0
    assert counting.run_ids == prepared.run_ids == []


def test_fresh_runs_everything_again(config, out) -> None:
    assert sweep(config, out) == 0
    counting = Counting()
    assert sweep(config, out, fresh=True, simulate=counting) == 0
    assert len(counting.run_ids) == N_RUNS


def test_a_changed_grid_keeps_the_runs_that_it_still_has(config, out) -> None:
    assert sweep(config, out) == 0
    counting = Counting()
    changed = load(config.path, ["ksm.smart_scan=1", "sweep.ksm.max_page_sharing=[16, 1024]"])
    assert sweep(changed, out, simulate=counting) == 0
    runs = pq.read_table(out / "runs.parquet")
    assert len(counting.run_ids) == 2
    assert runs["ksm.max_page_sharing"].to_pylist() == [16, 1024, 16, 1024]
    assert sorted(path.stem for path in (out / "samples").iterdir()) == sorted(runs["run_id"].to_pylist())


def test_a_failed_run_is_told_of_and_the_others_count(config, out, capsys) -> None:
    def fails(config: Config) -> Exception | None:
        return KsmbatchError("node 1 is full") if config.ksm.max_page_sharing == 16 else None

    assert sweep(config, out, simulate=Counting(fails)) == 1
    assert len(listed(out)) == 4
    told = capsys.readouterr().err
    assert "failed: merge_across_nodes=0 max_page_sharing=16: node 1 is full" in told
    assert "Traceback" not in told
    counting = Counting()
    assert sweep(config, out, simulate=counting) == 0
    assert len(counting.run_ids) == 2


def test_a_bug_in_a_run_shows_where_it_is(config, out, capsys) -> None:
    assert sweep(config, out, simulate=Counting(lambda config: IndexError("page 7"))) == 1
    told = capsys.readouterr().err
    assert "Traceback" in told
    assert "IndexError: page 7" in told
    assert not (out / "runs.parquet").exists()


def test_bad_input_leaves_old_results_alone(config, out) -> None:
    assert sweep(config, out) == 0
    before = values(out)

    def bad(config: Config) -> object:
        raise InputError(where="memory.parquet", rule="has no rows")

    changed = load(config.path, ["ksm.pages_to_scan=7"])
    with pytest.raises(InputError, match="has no rows"):
        sweep(changed, out, prepare=bad)
    assert values(out) == before


def test_results_that_cannot_be_written_stop_the_sweep(config, out, monkeypatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ksmbatch.results.pq.write_table", full)
    with pytest.raises(KsmbatchError, match="No space left on device"):
        sweep(config, out, jobs=2)


def test_no_jobs_at_all_is_an_error(config, out) -> None:
    with pytest.raises(InputError, match="--jobs: 0: must be >= 1"):
        sweep(config, out, jobs=0)


def test_on_a_terminal_one_bar_tells_how_far_the_sweep_is(config, out, monkeypatch) -> None:
    written = io.StringIO()
    monkeypatch.setattr(sweeping, "_teller", lambda: Console(file=written, force_terminal=True, width=80, _environ={}))

    def halves(program: object, config: Config, progress: Callable[[float], None]) -> FakeRun:
        progress(0.5)
        time.sleep(0.12)  # the bar is drawn ten times a second
        return simulate(program, config, progress)

    sweep(config, out, simulate=halves)
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", written.getvalue())
    assert "0 of 6 runs" in shown
    assert "5 of 6 runs" in shown
    assert re.search(r"\b8%", shown)  # half of the first of six
    assert "MiB saved" not in shown


def test_without_a_terminal_every_run_is_a_line(config, out, capsys) -> None:
    sweep(config, out)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("1/6 merge_across_nodes=0 max_page_sharing=2: ")
    assert len(lines) == N_RUNS


def test_the_answer_goes_to_the_console_and_fits_80_columns(config, out) -> None:
    written = io.StringIO()
    sweep(config, out, console=Console(width=80, file=written))
    text = written.getvalue()
    assert "Memory saved by KSM, of 16 MiB" in text
    assert "The price of merge_across_nodes = 0" in text
    assert f"{N_RUNS * N_SCANS * 4096:,} page visits" in text
    assert all(len(line) <= 80 for line in text.splitlines() if "─" in line)
    assert "…" not in text


@pytest.mark.parametrize(("cached", "kept"), [(True, "once; kept in "), (False, "every time")])
def test_a_pause_for_compilation_is_announced_with_its_length_and_its_end(
    cached: bool, kept: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accel, "CACHED", cached)
    monkeypatch.setattr(engine, "is_compiled", lambda: False)
    monkeypatch.setattr(engine, "moves_pages", lambda program: program == "moves")
    monkeypatch.setattr(engine, "warm_up", lambda moving: 40.0 if moving else 30.0)
    sweeping._compile(sweeping._teller(), "moves")
    announced, ended = capsys.readouterr().err.splitlines()
    assert re.match(r"compiling the kernels for this machine, some \d+ s, ", announced)
    assert kept in announced
    assert ended == "compiled in 40 s"


def test_kernels_from_the_cache_are_loaded_without_a_word(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "is_compiled", lambda: True)
    monkeypatch.setattr(engine, "moves_pages", lambda program: False)
    monkeypatch.setattr(engine, "warm_up", lambda moving: 0.3)
    sweeping._compile(sweeping._teller(), "still")
    assert capsys.readouterr().err == ""


def test_a_workload_is_compiled_once_and_let_go_after_its_last_run(config) -> None:
    compiled: list[Config] = []

    def compile_workload(config: Config) -> object:
        compiled.append(config)
        return object()

    one = config
    other = load(config.path, ["workload.node={web = 1, db = 0}"])
    programs = Programs(compile_workload, [one, one, other])
    assert programs.get(one) is programs.get(one) is not programs.get(other)
    assert len(compiled) == 2
    programs.release(one)
    programs.get(one)
    assert len(compiled) == 2
    programs.release(one)
    programs.get(one)
    assert len(compiled) == 3


def test_a_single_run_prints_a_summary_and_writes_one_row(config, out, capsys) -> None:
    single = load(config.path, ["ksm.merge_across_nodes=1", "ksm.max_page_sharing=256"])
    assert run_single(single, out, Console(), simulate=simulate, prepare=prepare) == 0
    assert listed(out) == [single.run_id]
    text = capsys.readouterr().out
    assert "saved            8.0 of 16.0 MiB (49.9 %)" in text
    assert "on node 1" in text


def test_a_single_run_takes_the_sections_and_leaves_the_sweep_out(config, out, capsys) -> None:
    assert run_single(config, out, Console(quiet=True), simulate=simulate, prepare=prepare) == 0
    runs = pq.read_table(out / "runs.parquet")
    assert runs.num_rows == 1
    assert "ksm.merge_across_nodes" not in runs.column_names
    assert "[sweep] is left out" in capsys.readouterr().err


def test_a_single_run_that_fails_leaves_old_results_alone(config, out) -> None:
    assert sweep(config, out) == 0
    before = values(out)
    with pytest.raises(KsmbatchError):
        run_single(config, out, Console(quiet=True), simulate=Counting(lambda config: KsmbatchError("no")), prepare=prepare)
    assert values(out) == before
