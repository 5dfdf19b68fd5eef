"""Scenarios through the simulated kernel: writing what it shows at every step, and comparing that with recordings.

It decides which kernel runs what and where files go; the format is `recordings`', the machine is `machine`'s.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ksmbatch.codes import CALLER_PRESETS, Caller, Kernel, Policy
from ksmbatch.conformance import observations
from ksmbatch.contents import Checksum
from ksmbatch.documents import Json
from ksmbatch.errors import InputError, OutOfMemory
from ksmbatch.events import FullScan, Scan
from ksmbatch.machine import Machine, Outcome
from ksmbatch.metrics import MOVE_COUNTERS, Counter, derive
from ksmbatch.pagetables import Area, TableTracker
from ksmbatch.program import compile_workload
from ksmbatch.recordings import (
    compare,
    exact_observations,
    kernel_of,
    load_recordings,
    make_observation,
    make_recording,
    recording_text,
)
from ksmbatch.scenario import Scenario, load_scenarios
from ksmbatch.state import Knob
from ksmbatch.workload import scenario_workload


class Session:
    """A scenario on the simulated `kernel`, step by step, observed as the recorder observes the real one.

    Without `tables` they are left empty. `checksum` makes contents collide, see `contents.intern`. `force_exact`, `policy` and
    `callers`: see Machine.
    """

    def __init__(
        self,
        scenario: Scenario,
        kernel: Kernel,
        *,
        tables: bool = True,
        force_exact: bool = False,
        checksum: Checksum | None = None,
        policy: Policy = Policy.MAINLINE,
        callers: Sequence[Caller] = CALLER_PRESETS["mainline"],
    ) -> None:
        self.scenario = scenario
        self.kernel = kernel
        program = compile_workload(scenario_workload(scenario), checksum)
        self.machine = Machine(
            program,
            kernel,
            scenario.knobs,
            force_exact=force_exact,
            keep_pfns=True,
            policy=policy,
            callers=callers,
            node_pages=scenario.node_pages,
        )
        self._tracker = TableTracker() if tables else None
        self.initial = self._observe(None, None, None)

    def steps(self) -> Iterator[Json]:
        """Runs the steps one by one and yields what is seen after each; {"undefined": why} is the last, if it comes."""
        _, steps = self.machine.program.snapshots[0]
        for step in steps:
            wakeups = self.machine.counter(Counter.WAKEUPS)
            try:
                outcome: Outcome = self.machine.apply(step)
            except OutOfMemory as error:
                outcome = Outcome(undefined=str(error))
            if outcome.undefined:
                yield {"undefined": outcome.undefined}
                return
            batches = self.machine.counter(Counter.WAKEUPS) - wakeups if isinstance(step, Scan | FullScan) else None
            yield self._observe(outcome.errno, outcome.status, batches)

    def last(self) -> dict[str, int]:
        """All counters now, by name."""
        return derive(self.machine.state.counters.tolist())

    def counted(self) -> dict[str, int]:
        """What moves came to so far: the counters that no kernel has, by name."""
        return {metric.name: self.machine.counter(Counter[metric.name.upper()]) for metric in MOVE_COUNTERS}

    def _observe(self, errno: int | str | None, status: Sequence[int | str] | None, batches: int | None) -> Json:
        machine = self.machine
        knobs = {knob.name.lower(): int(machine.state.knobs[knob]) for knob in Knob}
        return make_observation(
            self.kernel,
            sysfs=derive(machine.state.counters.tolist()) | knobs,
            cow_ksm=machine.counter(Counter.COW_KSM),
            procs={proc: machine.process_counters(number) for proc, number in machine.live.items()},
            tables={} if self._tracker is None else self._tracker.observe(_areas(machine)),
            errno=errno,
            status=status,
            batches=batches,
        )


def record(
    scenario: Scenario,
    kernel: Kernel,
    *,
    tables: bool = True,
    force_exact: bool = False,
    checksum: Checksum | None = None,
    policy: Policy = Policy.MAINLINE,
) -> Json:
    """The recording that the simulated `kernel` makes of `scenario`, in the oracle's format; see Session.

    Under a policy that no kernel has it says so in `policy`, and after every step what moves came to, in `counted`.
    """
    session = Session(scenario, kernel, tables=tables, force_exact=force_exact, checksum=checksum, policy=policy)
    extra: Json = {} if policy == Policy.MAINLINE else {"policy": policy.word}
    steps = [{**seen, "counted": session.counted()} if extra else seen for seen in session.steps()]
    recording = make_recording(kernel, scenario, knob_errno=session.machine.knob_errno, initial=session.initial, steps=steps)
    return recording | extra


def replay_paths(paths: Sequence[Path], kernel: str | None, policy: str, out: Path, tables: bool) -> int:
    """Runs all scenarios in `paths` and writes OUT/NAME.json for each. Returns the exit status.

    `kernel`: whose ksmd; None: a recording's own, 6.12 for a bare scenario. Returns 1 if a scenario leads the kernel into
    freed memory. Raises InputError.
    """
    its_policy = _policy(policy)
    chosen = None if kernel is None else _kernel(kernel)
    jobs = [
        (scenario, chosen or (Kernel.V6_12 if release is None else kernel_of(release, str(path))))
        for path in paths
        for scenario, release in load_scenarios(path)
    ]
    names = [scenario.name for scenario, _ in jobs]
    for name in names:
        if names.count(name) > 1:
            raise InputError(key="name", value=name, rule="must be unique: each scenario is written to a file of its name")
    out.mkdir(parents=True, exist_ok=True)
    status = 0
    for scenario, its_kernel in jobs:
        document = record(scenario, its_kernel, tables=tables, policy=its_policy)
        if any("undefined" in seen for seen in observations(document)):
            status = 1
        _write(out / f"{scenario.name}.json", recording_text(document))
    return status


def conform_paths(paths: Sequence[Path], kernel: str | None, echo: Callable[[str], None]) -> int:
    """Replays all recordings in `paths`, tells of what differs, and how many are exact. Returns 0 if all are, else 1.

    Of each recording that differs the first difference is told, with the number of others. One that was made without page
    tables (`replay --no-tables`) is compared without them. Raises InputError.
    """
    chosen = None if kernel is None else _kernel(kernel)
    recordings = [recording for path in paths for recording in load_recordings(path)]
    exact, exact_seen, all_seen = 0, 0, 0
    for recording in recordings:
        its_kernel = chosen or kernel_of(recording.release, recording.where)
        has_tables = any(seen.get("tables") for seen in observations(recording.document))
        differences = compare(recording.document, record(recording.scenario, its_kernel, tables=has_tables))
        seen, total = exact_observations(recording.document, differences)
        exact += not differences
        exact_seen += seen
        all_seen += total
        if differences:
            more = f" (and {len(differences) - 1} more differences)" if len(differences) > 1 else ""
            echo(f"{recording.scenario.name}: {differences[0]}{more}")
    echo(f"recordings {exact}/{len(recordings)} exact, observations {exact_seen}/{all_seen} exact")
    return 0 if exact == len(recordings) else 1


def _areas(machine: Machine) -> list[Area]:
    areas = []
    for proc, number in machine.live.items():
        for area, (first, pages) in machine.program.mms[number].areas.items():
            if machine.has_area(number, area):
                frames, nodes, ksm = machine.table(first, pages)
                areas.append(Area(proc=proc, area=area, frames=frames, nodes=nodes, ksm=ksm))
    return areas


def _kernel(word: str) -> Kernel:
    try:
        return Kernel.parse(word)
    except KeyError:
        known = ", ".join(kernel.word for kernel in Kernel)
        raise InputError(where="--kernel", value=word, rule=f"must be one of {known}") from None


def _policy(word: str) -> Policy:
    known = [policy.word for policy in Policy]
    if word not in known:
        raise InputError(where="--policy", value=word, rule=f"must be one of {', '.join(known)}")
    return Policy[word.upper()]


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.partial")
    temporary.write_text(text)
    temporary.replace(path)
