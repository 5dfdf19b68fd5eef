"""Is the workload that a configuration names made ready for the engine, with its moves laid over it?"""

import json
import threading
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_sweep import N_PAGES, write_small_sweep

from ksmbatch import capacity
from ksmbatch.config import Config, expand, load
from ksmbatch.errors import InputError
from ksmbatch.events import Migrate, Mmap, Offline, Rebind, Spawn, Write
from ksmbatch.generators import GENERATORS
from ksmbatch.program import DenseWrite, Program, compile_config, compile_workload
from ksmbatch.sweep import Programs
from ksmbatch.workload import Lazy, Snapshot, Workload

REBALANCE = {"kind": '"rebalance"', "mm": '"web"', "node": "1", "at": "1"}
CLOCK = '[host]\nnodes = 2\n[workload]\ntrace = "memory.parquet"\n'


def small(folder: Path, *overrides: str, **given: str) -> Config:
    """The small sweep, web rebalanced; without it, if `given` is empty."""
    table = ", ".join(f"{name} = {value}" for name, value in given.items())
    return load(write_small_sweep(folder), [f"workload.moves=[{{{table}}}]", *overrides] if given else overrides)


def by_clock(folder: Path, *overrides: str, at: str = '"4s"') -> Config:
    """The same memory by its own clock: snapshots after 0, 8 and 16 s."""
    write_small_sweep(folder)
    (folder / "clock.toml").write_text(CLOCK)
    table = ", ".join(f"{name} = {value}" for name, value in (REBALANCE | {"at": at}).items())
    return load(folder / "clock.toml", [f"workload.moves=[{{{table}}}]", *overrides])


def kinds(program: Program) -> list[list[str]]:
    return [[type(step).__name__ for step in steps] for _, steps in program.snapshots]


def test_moves_come_after_what_a_trace_writes(tmp_path: Path) -> None:
    plain, moved = compile_config(small(tmp_path)), compile_config(small(tmp_path, **REBALANCE))
    added = ["Rebind", "Migrate"]
    assert kinds(moved) == [own + (added if k == 1 else []) for k, own in enumerate(kinds(plain))]
    assert moved.snapshots[1][1][-2:] == (
        Rebind(proc="web", area="memory", node=1),
        Migrate(proc="web", area="memory", first=0, count=N_PAGES, node=1),
    )
    assert [time_ms for time_ms, _ in moved.snapshots] == [0, 8000, 16000]


def test_by_the_clock_a_move_has_a_time_of_its_own_and_the_end_stays(tmp_path: Path) -> None:
    program = compile_config(by_clock(tmp_path))
    assert [time_ms for time_ms, _ in program.snapshots] == [0, 4000, 8000, 16000]
    assert program.end_ms == 24_000


def test_by_the_clock_a_move_comes_before_the_end(tmp_path: Path) -> None:
    compile_config(by_clock(tmp_path, at='"23s"'))
    with pytest.raises(InputError, match=r'--set: workload\.moves\[0\]\.at = "24s": leads to 24s, and the run ends after 24s$'):
        compile_config(by_clock(tmp_path, at='"24s"'))
    compile_config(by_clock(tmp_path, "run.duration=25s", at='"24s"'))
    with pytest.raises(InputError, match="leads to 10s, and the run ends after 9s"):
        compile_config(by_clock(tmp_path, "run.duration=9s", at='"10s"'))
    compile_config(by_clock(tmp_path, "run.full_scans=1", at='"1000s"'))  # nobody knows when that is


def test_what_only_the_memory_can_tell_is_named_with_the_table(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r'^--set: workload\.moves\[0\]\.mm = "wbe": there is no such mm \(nearest: web\)$'):
        compile_config(small(tmp_path, **REBALANCE | {"mm": '"wbe"'}))
    with pytest.raises(InputError, match=r"workload\.moves\[0\]\.at = 3: leads to snapshot 3, and there are 3, 0 to 2$"):
        compile_config(small(tmp_path, **REBALANCE | {"at": "3"}))


def test_what_is_wrong_with_the_trace_is_named_with_the_trace(tmp_path: Path) -> None:
    config = small(tmp_path)
    (tmp_path / "memory.parquet").write_bytes(b"no trace")
    with pytest.raises(InputError, match=r"memory\.parquet: is no readable Parquet file"):
        compile_config(config)


def written(program: Program) -> list[tuple[int, int, int]]:
    """Snapshot, page and content of everything written."""
    return [
        (k, step.first + page, content)
        for k, (_, steps) in enumerate(program.snapshots)
        for step in steps
        if isinstance(step, DenseWrite)
        for page, content in zip(np.asarray(step.pages).tolist(), step.contents.tolist(), strict=True)
    ]


def mixed(folder: Path, generator: str = "mix", *overrides: str) -> Config:
    text = f'[host]\nnodes = 2\n[workload]\ngenerator = "{generator}"\nmms = 2\npages_per_mm = 10\nzero = 0.5\n'
    (folder / "mix.toml").write_text(text)
    return load(folder / "mix.toml", overrides or ["run.full_scans=3"])


def test_over_made_memory_moves_come_up_to_the_last_full_scan(tmp_path: Path) -> None:
    program = compile_config(mixed(tmp_path, "hotremove", "run.full_scans=5", "workload.move={node = 1, at = 4}"))
    assert kinds(program)[1:] == [[], [], [], ["Offline"]]
    with pytest.raises(InputError, match=r"workload\.move\.at = 4: leads to snapshot 4, and there are 4, 0 to 3$"):
        compile_config(mixed(tmp_path, "hotremove", "run.full_scans=4", "workload.move={node = 1, at = 4}"))
    program = compile_config(mixed(tmp_path, "hotremove", "run.duration=1h", "workload.move={node = 1, at = 4}"))
    assert program.snapshots[4][1] == (Offline(node=1),)


def test_frames_are_numbered_where_a_step_asks_for_them(tmp_path: Path) -> None:
    assert not compile_config(mixed(tmp_path)).needs_frames
    dance, offline = 'kind = "dance", at = 0, merge_across_nodes = 0', 'kind = "hotremove", node = 1, at = 0'
    compaction = 'kind = "compaction", node = 1, at = 0'
    for table, needed in ((dance, False), (offline, True), (compaction, True)):
        config = mixed(tmp_path, "mix", "run.full_scans=1", f"workload.moves=[{{{table}}}]", "host.node_pages=512")
        assert compile_config(config).needs_frames == needed


@pytest.mark.parametrize(("of_scenario", "of_host", "fits"), [(None, 0, True), (None, 7, True), (7, 7, True), (7, 0, False)])
def test_the_frames_of_a_scenario_are_those_of_the_host(
    of_scenario: int | None, of_host: int, fits: bool, tmp_path: Path
) -> None:
    scenario = {"name": "s", "nodes": 1, "steps": []} | ({} if of_scenario is None else {"node_pages": of_scenario})
    (tmp_path / "s.json").write_text(json.dumps(scenario))
    (tmp_path / "c.toml").write_text(
        f'[host]\nnode_pages = {of_host}\n[workload]\nscenario = "s.json"\n[run]\nfull_scans = 1\n'
    )
    config = load(tmp_path / "c.toml")
    if fits:
        assert not compile_config(config).needs_frames
    else:
        with pytest.raises(InputError, match=r"s\.json: node_pages = 7: must be host\.node_pages, which is 0$"):
            compile_config(config)


def test_points_share_a_program_only_if_it_would_be_the_same(tmp_path: Path) -> None:
    (tmp_path / "grid.toml").write_text(
        "[host]\nnodes = 2\nnode_pages = 1024\n"
        '[workload]\ngenerator = "mix"\nmms = 2\npages_per_mm = 10\nrewritten_per_scan = 0.1\n'
        '[[workload.moves]]\nkind = "compaction"\nnode = 1\nat = 1\n[run]\nfull_scans = 2\n'
        '[sweep]\n"ksm.merge_across_nodes" = [0, 1]\n"run.full_scans" = [2, 5]\n"host.node_pages" = [1024, 2048]\n'
    )
    configs = [point.config for point in expand(load(tmp_path / "grid.toml"))]
    programs = Programs(compile_config, configs)
    made = [programs.get(config) for config in configs]
    assert len({id(program) for program in made}) == 4
    assert [len(program.snapshots) for program in made] == [2, 2, 5, 5] * 2


# ---- contents that nobody needs to look at


@st.composite
def mixes(draw: st.DrawFn) -> Workload:
    """Memory as of `mix`, small, of any kind in which only zeros and groups are written twice."""
    n_mms, n_pages, n_zero = draw(st.integers(1, 3)), draw(st.integers(1, 40)), draw(st.integers(0, 20))
    pages = n_mms * n_pages
    least = draw(st.integers(2, 5))
    n_zero = min(n_zero, pages)
    n_duplicated = draw(st.integers(least, pages - n_zero)) if pages - n_zero >= least and draw(st.booleans()) else 0
    given = {
        "mms": n_mms,
        "pages_per_mm": n_pages,
        "zero": n_zero / pages,
        "duplicated": min(n_duplicated / pages, 1 - n_zero / pages),
        "group": (least, least + draw(st.integers(0, 9))),
        "rewritten_per_scan": draw(st.sampled_from([0.0, 0.05, 0.3, 1.0])) if n_zero or n_duplicated else 0.0,
    }
    generator = GENERATORS["mix"]
    seed, full_scans = draw(st.integers(0, 2**64 - 1)), draw(st.integers(1, 6))
    return generator.build(generator.read(given), nodes=2, binding="round_robin", seed=seed, full_scans=full_scans)


@given(mixes())
def test_contents_that_a_generator_numbers_are_numbered_as_interning_would(workload: Workload) -> None:
    assert workload.contents is not None
    numbered, interned = compile_workload(workload), compile_workload(replace(workload, contents=None))
    assert (numbered.contents.n, numbered.contents.n_dup) == (interned.contents.n, interned.contents.n_dup)
    assert numbered.contents.singles_below.tolist() == interned.contents.singles_below.tolist()
    assert written(numbered) == written(interned)
    assert numbered.kinds == interned.kinds


@given(mixes())
def test_contents_in_their_order_ascend_in_rank_within_both_classes(workload: Workload) -> None:
    rank = compile_workload(workload).contents.rank.tolist()
    n_dup = compile_workload(workload).contents.n_dup
    assert rank[:n_dup] == sorted(rank[:n_dup])
    assert rank[n_dup:] == sorted(rank[n_dup:])
    assert rank[0] == 0
    assert sorted(rank) == list(range(len(rank)))


def test_where_any_page_may_be_copied_contents_are_interned() -> None:
    generator = GENERATORS["mix"]
    parameters = generator.read({"mms": 2, "pages_per_mm": 50, "rewritten_per_scan": 0.5})
    workload = generator.build(parameters, nodes=1, binding=None, seed=1, full_scans=3)
    assert workload.contents is None
    assert compile_workload(workload).contents.n_dup > 1


def mix_of(full_scans: int, pages_per_mm: int = 100_000) -> Program:
    generator = GENERATORS["mix"]
    given = {"mms": 4, "pages_per_mm": pages_per_mm, "zero": 0.1, "duplicated": 0.2, "rewritten_per_scan": 0.1}
    return compile_workload(generator.build(generator.read(given), nodes=2, binding=None, seed=1, full_scans=full_scans))


def test_all_memory_is_written_without_lists_of_pages_in_four_bytes_each() -> None:
    steps = [step for step in mix_of(2).snapshots[0][1] if isinstance(step, DenseWrite)]
    assert [(step.first, step.pages) for step in steps] == [(100_000 * mm, range(100_000)) for mm in range(4)]
    assert {(step.contents.dtype.name, step.contents.shape) for step in steps} == {("int32", (100_000,))}


def test_a_program_holds_no_write_and_a_run_through_it_few() -> None:
    tracemalloc.start()
    program = mix_of(30)
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    for _, steps in program.ahead():
        for step in steps:
            if isinstance(step, DenseWrite):
                assert len(step.pages) == len(step.contents)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    a_snapshot = 40_000 * (8 + 4)
    assert most < 12 * a_snapshot  # of 29, and of memory at the start, which is three times as large


def test_what_is_made_ahead_is_what_is_made_when_asked_for_on_any_thread() -> None:
    program = mix_of(5, 1000)
    in_turn = written(program)
    with ThreadPoolExecutor(4) as threads:
        for others in threads.map(lambda _: written(replace(program, snapshots=list(program.ahead()))), range(8)):
            assert others == in_turn


def test_a_run_that_ends_early_leaves_no_thread_behind() -> None:
    ahead = mix_of(1000, 1000).ahead()
    next(ahead)
    ahead.close()
    deadline_s = time.monotonic() + 10
    while any(thread.name.startswith("ksmbatch-writes") for thread in threading.enumerate()):
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def test_what_goes_wrong_in_making_a_snapshot_is_told_to_the_run() -> None:
    def broken(k: int) -> tuple[int, tuple[()]]:
        if k == 1:
            raise ValueError("broken")
        return 0, ()

    ahead = replace(mix_of(2, 10), snapshots=Lazy(2, broken)).ahead()
    next(ahead)
    with pytest.raises(ValueError, match="broken"):
        next(ahead)


def test_pages_of_a_trace_that_follow_each_other_are_a_range(tmp_path: Path) -> None:
    program = compile_config(small(tmp_path))
    whole, *_ = (step for step in program.snapshots[0][1] if isinstance(step, DenseWrite))
    assert whole.pages == range(N_PAGES)
    assert whole.contents.dtype == np.int32
    gap = Write(proc="a", area="m", pages=np.array([1, 3]), contents=np.array([5, 5], np.uint64))
    start = (Spawn(proc="a"), Mmap(proc="a", area="m", pages=4))
    program = compile_workload(Workload(name="w", nodes=1, snapshots=(Snapshot(time_ms=0, steps=(*start, gap)),)))
    write = program.snapshots[0][1][2]
    assert isinstance(write, DenseWrite)
    assert (list(write.pages), write.contents.tolist()) == ([1, 3], [1, 1])


CONFIGS = sorted((Path(__file__).resolve().parents[2] / "configs").glob("*.toml"))


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.name)
def test_every_configuration_begins_with_its_question_and_is_one_at_every_point(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capacity, "available_bytes", lambda: None)  # this computer need not have a TiB host's memory
    first = file.read_text().partition("\n")[0]
    assert first.startswith("# ")
    assert first.endswith("?")
    programs = Programs(compile_config, [])
    assert all(programs.get(point.config).n_pages for point in expand(load(file)))
