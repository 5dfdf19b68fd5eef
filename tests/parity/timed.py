"""Whole runs with time passing: a random scenario on a clock of its own, and all that a run of it shows.

A `Timing` is a handful of numbers, any of which will do, that turn the scenario of a recipe (see oracle.fuzz, oracle.moves)
into a run: when its steps happen, how many pages each of its pages stands for, what ksmd's knobs are and what its visits cost.
What is expected of the run is the tests' to say.
"""

import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from oracle.fuzz import build
from oracle.moves import random_moving_recipe

from ksmbatch import engine, state
from ksmbatch.codes import CALLER_PRESETS, Caller, Kernel, Locking, Policy
from ksmbatch.config import Config, load
from ksmbatch.cost import Costs
from ksmbatch.errors import KsmbatchError
from ksmbatch.events import ClearFrames, Discard, FullScan, Madvise, Migrate, Mmap, Munmap, Read, Scan, SetKnob, Step, Write
from ksmbatch.invariants import check_invariants
from ksmbatch.machine import Machine
from ksmbatch.program import Program, compile_workload
from ksmbatch.scenario import Scenario, parse_scenario
from ksmbatch.stateview import StateView
from ksmbatch.topology import default_distance
from ksmbatch.workload import Snapshot, Workload

NUMBERS = 24  # that a Timing has of each kind
LEAST_PAGES = 30  # a scan of less is over before the clock shows it
RULES_BUDGET = 20_000  # pages whose state is checked per run
MOST_SAMPLES = 1_000  # or little more
NEVER_MS = 100_000_000
TIMED = tuple(name for name in asdict(Costs()) if name not in ("move_ns", "copy_ns", "remap_ns", "cow_ns", "tree_ns"))


@dataclass(frozen=True, kw_only=True, slots=True)
class Timing:
    """Non-negative numbers: `knobs`, and `gaps` between the steps, used again and again."""

    knobs: Sequence[int]
    gaps: Sequence[int]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TimedCase:
    """A program, ready to run under `config` with `costs`."""

    program: Program
    config: Config
    costs: Costs


class _Numbers:
    """Takes one number after the other."""

    def __init__(self, numbers: Sequence[int]) -> None:
        self._numbers = numbers
        self._taken = 0

    def of(self, *choices: Any) -> Any:
        number = self._numbers[self._taken % len(self._numbers)] if self._numbers else 0
        self._taken += 1
        return choices[number % len(choices)]


@cache
def _plain_config() -> Config:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "plain.toml"
        file.write_text('[workload]\ngenerator = "mix"\nmms = 1\npages_per_mm = 1\n[run]\nfull_scans = 1\n')
        return load(file)


class _Magnifier:
    """Lets each page of a scenario stand for `times` pages, and fills them, a part of them with what nobody else has."""

    def __init__(self, times: int, lonely: float, spread: int, seed: int) -> None:
        self._times = times
        self._lonely = lonely
        self._spread = spread
        self._rng = np.random.default_rng(seed)
        self._fresh = 0
        self._written = set[tuple[str, str]]()

    def step(self, step: Step) -> Step:
        match step:
            case Mmap():
                return replace(step, pages=step.pages * self._times)
            case Write():
                return self._write(step)
            case Read() | Discard() | Munmap() | Madvise() | Migrate() | ClearFrames():
                return replace(step, first=step.first * self._times, count=step.count * self._times)
            case _:
                return step

    def _write(self, step: Write) -> Write:
        pages = (np.asarray(step.pages, np.int64)[:, None] * self._times + np.arange(self._times)).ravel()
        part = np.arange(pages.size) % np.uint64(self._spread)
        contents = (np.repeat(step.contents, self._times) << np.uint64(40)) + (part.astype(np.uint64) << np.uint64(30))
        lonely = np.flatnonzero(self._rng.random(pages.size) < self._lonely)
        contents[lonely] += np.arange(self._fresh + 1, self._fresh + 1 + lonely.size, dtype=np.uint64)
        self._fresh += lonely.size
        if (step.proc, step.area) in self._written and self._times > 1:
            kept = np.flatnonzero(self._rng.random(pages.size) < self._rng.choice((0.01, 0.1, 1.0)))
            pages, contents = pages[kept], contents[kept]
        self._written.add((step.proc, step.area))
        return replace(step, pages=pages, contents=contents)


def timed_case(scenario: Scenario, kernel: Kernel, timing: Timing) -> TimedCase:
    """The run that the numbers of `timing` make of `scenario`, whose own knobs do not count."""
    numbers = _Numbers(timing.knobs)
    size = numbers.of("small", "small", "small", "long", "blocks")
    times = numbers.of(97, 331) if size == "blocks" else 1
    magnify = _Magnifier(times, numbers.of(0.5, 0.0, 0.9, 0.2), numbers.of(1, 2, 5), numbers.of(*range(97)))
    steps = [magnify.step(step) for step in scenario.steps]
    if size == "blocks":  # batches of few pages would be too many
        steps = [step for step in steps if not (isinstance(step, SetKnob) and step.name == "pages_to_scan")]
    n_pages = max(sum(step.pages for step in steps if isinstance(step, Mmap)), LEAST_PAGES)

    smart = {"smart_scan": numbers.of(1, 1, 0)} if kernel >= Kernel.V6_12 else {}
    whole = n_pages * 2
    ksm = {
        "merge_across_nodes": numbers.of(0, 1),
        "max_page_sharing": numbers.of(2, 3, 256, 4, 2),
        "use_zero_pages": numbers.of(0, 1),
        "pages_to_scan": numbers.of(1, 2, 7, 23, 100, whole, 1000) if times == 1 else numbers.of(100, whole, 997, 5000),
        "sleep_millisecs": numbers.of(20, 0, 1),
        "stable_node_chains_prune_millisecs": numbers.of(0, 50, 2000, NEVER_MS, 4),
    }
    costs = _costs(numbers.of(1, 1000, 100, 10_000))
    sample = numbers.of("full_scan", "1ms", "batch", "7ms")
    full_scans = {"small": 40, "long": numbers.of(330, 600), "blocks": 12}[size]
    scan_ms = n_pages * costs.search_ns / 1e6 + (1 + n_pages // ksm["pages_to_scan"]) * ksm["sleep_millisecs"]
    gap_ms = max(1, round(scan_ms * numbers.of(0.1, 1, 0.02, 3) * (10 if size == "long" else 1)))
    # a scan that never ends, of a ksmd that is stopped, would be sampled for ever
    keep_scans = numbers.of(False, False, True) and not sample.endswith("ms")
    snapshots = tuple(_snapshots(steps, timing.gaps, gap_ms, keep_scans=keep_scans))
    workload = Workload(name="timed", nodes=scenario.nodes, snapshots=snapshots)
    end_ms = snapshots[-1].time_ms + round(5 * scan_ms) + 1
    if sample == "batch" and full_scans * n_pages > MOST_SAMPLES * ksm["pages_to_scan"]:
        sample = "full_scan"
    if sample.endswith("ms"):
        sample = f"{max(int(sample[:-2]), end_ms // MOST_SAMPLES)}ms"
    collide = numbers.of(None, None, None, 2, 3)
    checksum = None if collide is None else lambda raw: (raw >> np.uint64(30)).astype(np.uint32) % collide + 1
    plain = _plain_config()
    host = {"nodes": scenario.nodes, "distance": default_distance(scenario.nodes), "kernel": kernel}
    migration = {
        "policy": numbers.of(*Policy),
        "callers": numbers.of(CALLER_PRESETS["mainline"], tuple(Caller)),
        "locking": numbers.of(Locking.NONE, *Locking),
    }
    # without a duration a scenario that stops ksmd would never end
    run = {"full_scans": full_scans, "sample": sample, "duration": f"{end_ms}ms"}
    if numbers.of(0, 0, 0, 1) and size != "long":
        run["scans_per_snapshot"] = numbers.of(1, 2)
    config = replace(
        plain,
        host=plain.host.model_copy(update=host | {"node_pages": scenario.node_pages * times}),
        ksm=plain.ksm.model_copy(update={"smart_scan": 0} | ksm | smart),
        migration=plain.migration.model_copy(update=migration),
        run=plain.run.model_copy(update=run),
    )
    return TimedCase(program=compile_workload(workload, checksum), config=config, costs=costs)


def _costs(factor: int) -> Costs:
    given = asdict(Costs())
    return Costs(**given | {name: given[name] * factor + 1 for name in TIMED})


def _snapshots(steps: Sequence[Step], gaps: Sequence[int], gap_ms: int, *, keep_scans: bool) -> Iterator[Snapshot]:
    """Where the scenario scans, time passes instead, and now and then between other steps as well."""
    time_ms, group = 0, list[Step]()
    for k, step in enumerate(steps):
        number = gaps[k % len(gaps)] if gaps else 0
        is_scan = isinstance(step, Scan | FullScan)
        if group and (is_scan or number % 5 == 4):
            yield Snapshot(time_ms=time_ms, steps=tuple(group))
            time_ms += gap_ms * (number % 7)
            group = []
        if not is_scan or keep_scans:
            group.append(step)
    yield Snapshot(time_ms=time_ms, steps=tuple(group))


def random_timed_case(seed: int) -> TimedCase:
    """The case of a seed, without Hypothesis: for long loops."""
    rng = random.Random(f"timed case {seed}")
    scenario = parse_scenario(build(random_moving_recipe(rng, merge_any=True), f"timed-{seed}"), "drawn")
    numbers, gaps = ([rng.randrange(840) for _ in range(NUMBERS)] for _ in range(2))
    return timed_case(scenario, rng.choice(list(Kernel)), Timing(knobs=numbers, gaps=gaps))


# ---- running


@dataclass(frozen=True, slots=True)
class Seen:
    """What there is to see of a run: tables as lists, the pages at the end, how it failed (None: it did not)."""

    tables: dict[str, dict[str, list[int]]]
    pages: dict[str, list[int]]
    error: str | None
    exact_visits: int
    page_visits: int


def run(case: TimedCase, *, force_exact: bool, rules: bool = False) -> Seen:
    """Runs `case`; with `rules` the state is checked at samples, as long as that does not take too long, and at the end."""
    machines: list[Machine] = []
    samples = iter(range(RULES_BUDGET // max(case.program.n_pages, 1)))

    def machine(*args: Any, **options: Any) -> Machine:
        machines.append(Machine(*args, **options))
        return machines[-1]

    def check(_: float) -> None:
        if next(samples, None) is not None:
            assert check_invariants(machines[-1].state) == []

    compile_all()
    with patch.object(engine, "Machine", machine), patch.object(engine, "Costs", lambda: case.costs):
        progress: Callable[[float], None] | None = check if rules else None
        try:
            result = engine.simulate(case.program, case.config, progress, force_exact=force_exact)
        except KsmbatchError as error:
            return Seen({}, {}, str(error), 0, 0)
    s = machines[-1].state
    if rules:
        assert check_invariants(s) == []
    tables = {"samples": result.samples, "nodes": result.nodes}
    seen = {name: {key: column.tolist() for key, column in table.items()} for name, table in tables.items()}
    exact = seen["samples"].pop("exact_visits")
    last = {key: [value] for key, value in result.last.items() if key != "exact_visits"}
    visits = result.last["pages_scanned"] + result.last["pages_skipped"]
    return Seen(seen | {"last": last}, _pages(s), None, exact[-1], visits)


@cache
def compile_all() -> None:
    """Once per process, before anything is measured or replaced."""
    engine.warm_up(moving=True)


def _pages(s: state.State) -> dict[str, list[int]]:
    """What every page maps, and what its rmap_item says; what hangs in the stable trees."""
    view = StateView(s)
    frame = view.frame
    mapped = frame != state.NO_FRAME
    item = view.item_flags & np.uint8(0xFF & ~state.LEADS)
    item[item & state.UNSTABLE == 0] &= np.uint8(0xFF & ~state.PARITY)  # of a tree that it has left
    shown = {
        "frame": frame,
        "content": np.where(mapped, s.frames[frame, state.FRAME_CONTENT], -1),
        "flags": s.page_bytes[:, state.PAGE_FLAGS],
        "item": item,
        "checksum": np.where(view.item_flags & state.ITEM != 0, view.checksum, -1),
        "mapcount": view.mapcount,
        "nid": np.where(view.mapcount > 0, s.frame_bytes[:, state.FRAME_NID], 0),
    }
    # the frames of what hangs in the trees, dup by dup: which slot a stable node has is nobody's business
    hanging = [view.chains.get(node, [node]) for tree in view.trees for node in tree]
    frames = [view.nodes[node][state.KPFN] for nodes in hanging for node in [*nodes, 0]]
    # ... and whose rmap_items they have
    members = [view.members[member][state.MEMBER_PAGE] for nodes in hanging for node in nodes for member in view.hlists[node]]
    return {name: array.tolist() for name, array in shown.items()} | {"trees": frames, "members": members}
