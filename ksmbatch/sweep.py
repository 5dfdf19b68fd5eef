"""A grid of settings to a results directory: which runs are missing, on how many threads, and what is told meanwhile.

It neither simulates (engine.py) nor knows files (results.py). Threads and not processes: docs/adr/0003-sweep-threads.md.
"""

import json
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ksmbatch.config import Config, Point, expand
from ksmbatch.errors import InputError, KsmbatchError
from ksmbatch.provenance import cores
from ksmbatch.results import GridRun, ResultsDir, RunTables, label
from ksmbatch.units import format_bytes, pages_to_mib

if TYPE_CHECKING:
    from ksmbatch.capacity import Size

Fraction = Callable[[float], None]
Simulate = Callable[[Any, Config, Fraction], RunTables]
Prepare = Callable[[Config], Any]

DONE: Final = 0
FAILED: Final = 1
INTERRUPTED: Final = 130  # as a shell reports SIGINT
_CACHE_LOAD_S: Final = 3.0
_COMPILE_S: Final = 30  # what is said of it; a slow or busy machine takes longer


def run_sweep(
    config: Config,
    out: Path,
    jobs: int | None = None,
    fresh: bool = False,
    console: Console | None = None,
    *,
    simulate: Simulate | None = None,
    prepare: Prepare | None = None,
) -> int:
    """Run what is missing of the sweep's grid into `out`, print the tables to `console` and draw the picture.

    `jobs`: threads, by default one per core; fewer, and a line says so, if not so many runs fit into memory. `fresh`: run
    everything again. `prepare` makes the program of a config's workload and `simulate` runs it; by default the engine's.
    Results do not depend on `jobs`. Progress goes to stderr.

    Returns the exit status: 0, 1 if a run failed (the others' results are kept), 130 after Ctrl-C. Raises InputError for
    bad input, KsmbatchError if results cannot be written.
    """
    if jobs is not None and jobs < 1:
        raise InputError(where="--jobs", value=jobs, rule="must be >= 1")
    console = console or Console(highlight=False, markup=False)
    told = _teller()
    points = {point.config.run_id: point for point in expand(config)}
    grid = [GridRun(run_id=run_id, swept=point.values, origin=_origin(point.config)) for run_id, point in points.items()]
    with ResultsDir(out, grid, _origin(config)) as results:
        resumed = results.look(fresh=fresh)
        missing = {run_id: point for run_id, point in points.items() if run_id not in resumed.kept}
        programs = Programs(prepare or _prepare, [point.config for point in missing.values()])
        jobs = min(jobs or cores(), max(len(missing), 1))
        if missing:
            program = programs.get(next(iter(missing.values())).config)  # bad input shows before any old result goes
            if simulate is None:
                jobs = _jobs_that_fit([program.size, *_sizes(programs.distinct)], jobs, told)
        results.begin()
        if resumed.kept:
            told.print(f"{len(resumed.kept)} of {len(points)} runs were finished before")
        for line in resumed.why:
            told.print(line)
        if missing and simulate is None:
            _compile(told, program)
        pool = _Pool(results, programs, simulate or _simulate, jobs, told)
        interrupted = pool.run(missing)
    if interrupted:
        n_kept = len(resumed.kept) + pool.n_finished
        told.print(
            f"interrupted: {n_kept} of {len(points)} runs are in {out}; the same command goes on from there", soft_wrap=True
        )
        return INTERRUPTED
    if resumed.kept or pool.n_finished:
        _report(config, out, console, pool)
    for failure in pool.failures:
        told.print(f"failed: {failure}", style="red")
    return FAILED if pool.failures else DONE


def run_single(
    config: Config,
    out: Path,
    console: Console | None = None,
    *,
    simulate: Simulate | None = None,
    prepare: Prepare | None = None,
) -> int:
    """Run one host into `out` (anything else of ours there goes, once it is done) and print a summary to `console`.

    A `[sweep]` is left out: the sections of the file count. Returns 0; raises as `run_sweep`, and what the engine raises.
    """
    console = console or Console(highlight=False, markup=False)
    told = _teller()
    if config.sweep:
        told.print(f"{config.path}: [sweep] is left out; `ksmbatch sweep` runs it")
        config = replace(config, sweep={}, document=replace(config.document, sweep={}))
    point = expand(config)[0]
    run_id = point.config.run_id
    grid = [GridRun(run_id=run_id, swept={}, origin=_origin(point.config))]
    with ResultsDir(out, grid, grid[0].origin) as results:
        results.look(fresh=True)
        program = (prepare or _prepare)(point.config)
        if simulate is None:
            _compile(told, program)
        with _Telling(told, 1) as telling:
            result = (simulate or _simulate)(program, point.config, lambda fraction: telling.advance(run_id, fraction))
        results.begin()
        results.add(run_id, result)
    from ksmbatch import tables

    tables.print_run(result.last, result.nodes, result.figures, console)
    _print_order_note(config, console)
    console.print(f"results in {out}", highlight=False, markup=False, soft_wrap=True)
    return DONE


class Programs:
    """Compiled workloads by what makes them, each made once and let go when the last run that needs it has ended.

    `distinct`: of `configs` one for each workload.
    """

    def __init__(self, prepare: Prepare, configs: Sequence[Config]) -> None:
        self._prepare = prepare
        self._lock = threading.Lock()
        self._users = Counter(map(self._key, configs))
        self.distinct: Final = tuple({self._key(config): config for config in configs}.values())
        self._made: dict[str, Any] = {}

    def get(self, config: Config) -> Any:
        """The program of this config's workload; waits while another thread makes one."""
        key = self._key(config)
        with self._lock:
            if key not in self._made:
                self._made[key] = self._prepare(config)
            return self._made[key]

    def release(self, config: Config) -> None:
        """To be called once per config, when its run has ended."""
        key = self._key(config)
        with self._lock:
            self._users[key] -= 1
            if self._users[key] == 0:
                self._made.pop(key, None)

    @staticmethod
    def _key(config: Config) -> str:
        resolved = config.resolved()
        host, run = resolved["host"], resolved["run"]
        made_for = [host["nodes"], host["node_pages"], run["seed"], run["full_scans"] if config.workload.generator else None]
        return json.dumps([resolved["workload"], *made_for], sort_keys=True)


class _Cancelled(Exception):
    """Raised in a running simulation after Ctrl-C, through its progress."""


class _Pool:
    """Threads that run points; the calling thread alone writes results and tells of them."""

    def __init__(self, results: ResultsDir, programs: Programs, simulate: Simulate, jobs: int, told: Console) -> None:
        self._results = results
        self._programs = programs
        self._simulate = simulate
        self._told = told
        self._stop = threading.Event()
        self.jobs = jobs
        self.n_finished = 0
        self.page_visits = 0
        self.wall_s = 0.0
        self.failures: list[str] = []

    def run(self, missing: Mapping[str, Point]) -> bool:
        """Run all; True if Ctrl-C stopped it."""
        start_s = time.perf_counter()
        with _Telling(self._told, len(missing)) as telling, ThreadPoolExecutor(self.jobs, "ksmbatch") as threads:
            futures = {threads.submit(self._one, run_id, point, telling): run_id for run_id, point in missing.items()}
            try:
                for future in as_completed(futures):
                    run_id = futures.pop(future)
                    self._take(run_id, label(missing[run_id].values), future, telling)
            except BaseException as error:
                self._stop.set()  # leaving the block waits for the threads, each until its next report of progress
                threads.shutdown(wait=False, cancel_futures=True)
                if not isinstance(error, KeyboardInterrupt):
                    raise
                return True
            finally:
                self.wall_s = time.perf_counter() - start_s
        return False

    def _one(self, run_id: str, point: Point, telling: "_Telling") -> RunTables:
        def progress(fraction: float) -> None:
            if self._stop.is_set():
                raise _Cancelled
            telling.advance(run_id, fraction)

        try:
            progress(0.0)
            return self._simulate(self._programs.get(point.config), point.config, progress)
        finally:
            self._programs.release(point.config)

    def _take(self, run_id: str, setting: str, future: "Future[RunTables]", telling: "_Telling") -> None:
        error = future.exception()
        if error is None:
            result = future.result()
            self._results.add(run_id, result)
            self.n_finished += 1
            self.page_visits += result.last["page_visits"]
            saved_mib, wall_s = pages_to_mib(result.last["saved_pages"]), result.figures["wall_s"]
            telling.ended(run_id, f"{setting or run_id}: {saved_mib:,.1f} MiB saved, {wall_s:.2f} s")
            return
        text = str(error) if isinstance(error, KsmbatchError) else f"{type(error).__name__}: {error}"
        self.failures.append(f"{setting or run_id}: {text}")
        telling.ended(run_id, f"{setting or run_id}: failed")
        if not isinstance(error, KsmbatchError | MemoryError):  # ours to mend: show where
            self._told.print("".join(traceback.format_exception(error)))


class _Telling:
    """Progress on stderr: one bar with the time left on a terminal, else a line per run."""

    def __init__(self, console: Console, n_runs: int) -> None:
        self._console = console
        self._n_runs = n_runs
        self._n_ended = 0
        self._fractions: dict[str, float] = {}
        self._lock = threading.Lock()
        self._bar: Progress | None = None

    def __enter__(self) -> Self:
        if self._console.is_terminal and self._n_runs:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                TaskProgressColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
            )
            self._bar = Progress(*columns, console=self._console, transient=True)
            self._bar.start()
            self._task = self._bar.add_task(self._title(), total=self._n_runs)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, run_id: str, fraction: float) -> None:
        """A run has got so far, 0 to 1; called from any thread."""
        with self._lock:
            self._fractions[run_id] = fraction
            completed = sum(self._fractions.values())
        if self._bar is not None:
            self._bar.update(self._task, completed=completed)

    def ended(self, run_id: str, line: str) -> None:
        """A run is over, for better or worse."""
        self._n_ended += 1
        self.advance(run_id, 1.0)
        if self._bar is not None:
            self._bar.update(self._task, description=self._title())
        else:
            self._console.print(f"{self._n_ended}/{self._n_runs} {line}")

    def _title(self) -> str:
        return f"{self._n_ended} of {self._n_runs} runs"


def _teller() -> Console:
    """Where progress goes; a path such as "[a].toml" is not markup."""
    return Console(stderr=True, highlight=False, markup=False, soft_wrap=True)


def _origin(config: Config) -> dict[str, Any]:
    document = {**config.resolved(), "sweep": {key: list(values) for key, values in config.sweep.items()}}
    source = {"config": config.path.name, "workload": config.workload.label}
    return {"config": document, "seed": config.run.seed, "source": source}


def _print_order_note(config: Config, console: Console) -> None:
    from ksmbatch.traces import order_note

    if config.workload.trace is not None and (note := order_note(config.workload.trace)):
        console.print(note, highlight=False, markup=False, soft_wrap=True)


def _report(config: Config, out: Path, console: Console, pool: _Pool) -> None:
    from ksmbatch import analysis, plots, tables  # pandas and matplotlib: half a second that no run should wait for

    sweep = analysis.load(out)
    tables.print_sweep(sweep, console)
    _print_order_note(config, console)
    if pool.n_finished:
        console.print(f"{tables.speed(pool.page_visits, pool.wall_s)}, {pool.jobs} threads", highlight=False, soft_wrap=True)
    picture = plots.save(sweep, out)
    console.print(f"results in {out}, picture in {picture}", highlight=False, markup=False, soft_wrap=True)


def _sizes(configs: Sequence[Config]) -> "Iterator[Size]":
    """What is known without reading a file; raises InputError if one of them does not fit into memory even alone."""
    from ksmbatch.program import size_at_start

    return (size_at_start(config) for config in configs if config.workload.generator)


def _jobs_that_fit(sizes: "Sequence[Size]", jobs: int, told: Console) -> int:
    """As many of `jobs` as fit into memory if all their runs are as large as the largest of `sizes`."""
    from ksmbatch import capacity

    largest = max(map(capacity.bytes_needed, sizes))
    fitting = capacity.jobs_that_fit(largest, jobs)
    if fitting < jobs:
        told.print(f"--jobs {fitting}, not {jobs}: a run takes about {format_bytes(largest)} of memory")
    return fitting


def _compile(told: Console, program: Any) -> None:
    """Have the kernels that `program` needs ready before threads ask for them all at once; half a minute of silence needs a
    word, and so does its end."""
    from ksmbatch import accel, engine

    kept = f"once; kept in {accel.cache_directory().parent}" if accel.CACHED else "every time, for they cannot be kept"
    said = threading.Event()

    def say() -> None:
        said.set()
        told.print(f"compiling the kernels for this machine, some {_COMPILE_S} s, {kept} ...")

    # a cache that looks complete may still lack a kernel; loading it takes less than this
    word = threading.Timer(_CACHE_LOAD_S, say)
    word.daemon = True
    if engine.is_compiled():
        word.start()
    else:
        say()
    seconds = engine.warm_up(moving=engine.moves_pages(program))
    word.cancel()
    if said.is_set():
        told.print(f"compiled in {seconds:.0f} s")


def _prepare(config: Config) -> Any:
    from ksmbatch import program

    return program.compile_config(config)


def _simulate(program: Any, config: Config, progress: Fraction) -> RunTables:
    from ksmbatch import engine

    return engine.simulate(program, config, progress)
