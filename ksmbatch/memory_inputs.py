"""Memory in, whatever it comes as: a trace, or a configuration and what its workload makes.

What a format means is the business of its reader; here it is recognised, and laid out as the memory of one moment.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Final

from ksmbatch.codes import Kernel
from ksmbatch.config import Config, expand, load
from ksmbatch.errors import InputError
from ksmbatch.events import Step
from ksmbatch.memory import Memory, memory_after
from ksmbatch.program import _workload as workload_of
from ksmbatch.sections import Knobs
from ksmbatch.topology import MAX_NODES, ROUND_ROBIN, Binding
from ksmbatch.workload import Snapshot, Workload

PARQUET_MAGIC: Final = b"PAR1"
_LAST, _FIRST = "last", "first"
MOMENTS: Final = (_LAST, _FIRST)


@dataclass(frozen=True, kw_only=True, slots=True)
class Loaded:
    """The memory of some inputs. `title`: what to call it. `knobs`: those of the configuration, else the kernel's own."""

    memory: Memory
    title: str
    knobs: Knobs


def load_memory(
    inputs: Sequence[Path],
    *,
    overrides: Sequence[str] = (),
    nodes: int | None = None,
    binding: Mapping[str, int] | None = None,
    moment: str = _LAST,
) -> Loaded:
    """The memory in `inputs`, one trace or one configuration.

    `overrides`: "KEY=VALUE" for a configuration, which says itself where memory lies. `nodes`: NUMA nodes of a host for what
    does not say, mm k on node k mod `nodes`; `binding`: a node by mm instead, 0 for mms that are not named. `moment`: "last" or
    "first", which of its snapshots. Raises InputError.
    """
    if moment not in MOMENTS:
        raise InputError(where="--snapshot", value=moment, rule=f"must be one of {', '.join(MOMENTS)}")
    if len(inputs) != 1:
        rule = "one trace or one configuration at a time: what is equal in two of them, nobody can tell"
        raise InputError(where=inputs[1], rule=rule)
    (path,) = inputs
    if path.suffix == ".toml":
        if nodes is not None or binding:
            rule = "is for memory that does not say where it lies"
            raise InputError(where="--nodes", rule=rule, hint="--set host.nodes=2, --set workload.node=round_robin")
        return _of_config(load(path, overrides), moment)
    if overrides:
        raise InputError(where="--set", value=overrides[0], rule="is for a CONFIG.toml")
    if _is_parquet(path):
        return _of_trace(path, *_where(nodes, binding), moment)
    raise InputError(where=path, rule="is neither a trace nor a CONFIG.toml")


def _where(nodes: int | None, binding: Mapping[str, int] | None) -> tuple[int, Binding]:
    """Nodes of the host, and where its mms are bound."""
    if binding:
        nodes = nodes or 1 + max(binding.values())
    if nodes is not None and not 1 <= nodes <= MAX_NODES:
        raise InputError(where="--nodes", value=nodes, rule=f"must be 1 to {MAX_NODES}")
    return nodes or 1, binding or (None if nodes is None else ROUND_ROBIN)


def _is_parquet(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            return stream.read(len(PARQUET_MAGIC)) == PARQUET_MAGIC
    except FileNotFoundError:
        raise InputError(where=path, rule="no such file") from None
    except OSError as error:
        raise InputError(where=path, rule=f"cannot be read: {error.strerror}") from None


def _of_trace(path: Path, nodes: int, binding: Binding, moment: str) -> Loaded:
    from ksmbatch.traces import trace_workload

    try:
        workload = trace_workload(path, nodes, binding)
    except InputError as error:
        if error.where is None:  # a node or an mm that was named on the command line
            raise error.at(where="--node", key=(error.key or "").removeprefix("workload.node.")) from None
        raise
    return _loaded(workload, workload.snapshots, path.name, moment, Kernel.V6_12, Knobs())


def _of_config(config: Config, moment: str) -> Loaded:
    # a sweep is left out, as in `ksmbatch run`: the sections of the file count
    (point,) = expand(replace(config, sweep={}, document=replace(config.document, sweep={})))
    config = point.config
    workload = workload_of(config)
    try:
        return _loaded(workload, _reached(workload, config), config.path.name, moment, config.host.kernel, config.ksm)
    except InputError as error:
        raise config.blame(error) from None


def _reached(workload: Workload, config: Config) -> Iterator[Snapshot]:
    """The snapshots that a run gets to, as far as that is known without running it; steps are not looked at."""
    plan = config.run
    scans = None if workload.per_scan else config.snapshot_scans(len(workload.snapshots))
    scans_done = 0
    for k, snapshot in enumerate(workload.snapshots):
        too_late = plan.duration_ms is not None and not workload.per_scan and snapshot.time_ms >= plan.duration_ms
        if scans is not None:
            too_late = plan.full_scans is not None and scans_done >= plan.full_scans
            scans_done += scans[k]
        if k > 0 and too_late:
            return
        yield snapshot


def _loaded(workload: Workload, snapshots: Iterable[Snapshot], name: str, moment: str, kernel: Kernel, knobs: Knobs) -> Loaded:
    taken = 0

    def steps() -> Iterator[Sequence[Step]]:
        nonlocal taken
        for snapshot in islice(snapshots, 1 if moment == _FIRST else None):
            taken += 1
            yield snapshot.steps

    memory = memory_after(steps(), workload.nodes, kernel)
    if len(workload.snapshots) > 1:
        name += f", snapshot {taken} of {len(workload.snapshots)}"
    return Loaded(memory=memory, title=name, knobs=knobs)
