"""Memory in, whatever it comes as: a configuration and what its workload makes, a trace, or images of memory.

What a format means is the business of its reader; here it is recognised, and laid out as the memory of one moment.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final

import numpy as np

from ksmbatch.config import Config, expand, load
from ksmbatch.errors import InputError
from ksmbatch.events import Step
from ksmbatch.inputs import is_trace, parse_word
from ksmbatch.memory import Memory, memory_after, memory_of_contents
from ksmbatch.program import workload_of
from ksmbatch.sections import Knobs
from ksmbatch.topology import MAX_NODES, ROUND_ROBIN, place
from ksmbatch.trace_memory import memory_at
from ksmbatch.traces import Trace, order_of, read_trace
from ksmbatch.workload import Snapshot, Workload

LAST: Final = "last"
MOMENTS: Final = (LAST, "first")


@dataclass(frozen=True, kw_only=True, slots=True)
class Loaded:
    """The memory of some inputs.

    `title`: what to call it. `knobs`: those of the configuration, else the kernel's own. `orderless`: the trace it comes
    from, if that keeps no order of contents.
    """

    memory: Memory
    title: str
    knobs: Knobs
    orderless: str | None = None


def load_memory(
    words: Sequence[str],
    *,
    overrides: Sequence[str] = (),
    nodes: int | None = None,
    binding: Mapping[str, int] | None = None,
    moment: str = LAST,
    format: str | None = None,  # noqa: A002
) -> Loaded:
    """The memory in the inputs that `words` name: one CONFIG.toml, one trace, or images of memory (`inputs.parse_word`).

    `overrides`: "KEY=VALUE" for a configuration, which says itself where memory lies. `nodes`: NUMA nodes of a host, mm k on
    node k mod `nodes`; `binding`: a node by mm instead, 0 for mms that are not named; without either a trace's own nodes
    count, and all images are on node 0. `moment`: "last" or "first", which of its snapshots. `format`: of all images, by
    default what each looks like. Raises InputError.
    """
    if moment not in MOMENTS:
        raise InputError(where="--snapshot", value=moment, rule=f"must be one of {', '.join(MOMENTS)}")
    paths = [parse_word(word).path for word in words]
    if format is None:
        whole = [path for path in paths if path.suffix == ".toml" or is_trace(path)]
        if whole and len(paths) > 1:
            rule = "comes alone: only of images of memory can it be told what is equal in two of them"
            raise InputError(where=whole[0], rule=rule)
        if paths[0].suffix == ".toml":
            if nodes is not None or binding:
                rule = "is for memory that does not say where it lies"
                raise InputError(where="--nodes", rule=rule, hint="--set host.nodes=2, --set workload.node=round_robin")
            return _of_config(load(paths[0], overrides), moment)
    if overrides:
        raise InputError(where="--set", value=overrides[0], rule="is for a CONFIG.toml")
    if format is None and whole:
        return _of_trace(read_trace(paths[0]), nodes, binding or {}, moment)
    if moment != LAST:
        raise InputError(
            where="--snapshot", value=moment, rule="is for traces and configurations", hint="name the first images"
        )
    from ksmbatch.importing import read_inputs  # hashes pages, so it loads numba

    contents = read_inputs(words, format)
    nids = _placed(list(contents), nodes, binding or {})
    memory = memory_of_contents(contents, nids, _nodes(nodes, nids))
    return Loaded(memory=memory, title=", ".join(path.name or str(path) for path in paths), knobs=Knobs())


def _placed(mms: Sequence[str], nodes: int | None, binding: Mapping[str, int]) -> tuple[int, ...]:
    """The node of each of `mms`, as it was named on the command line; all on node 0 where nothing was."""
    limit = MAX_NODES if nodes is None else nodes
    if not 1 <= limit <= MAX_NODES:
        raise InputError(where="--nodes", value=nodes, rule=f"must be 1 to {MAX_NODES}")
    try:
        nids = place(mms, binding or (None if nodes is None else ROUND_ROBIN), limit)
    except InputError as error:
        raise error.at(where="--node", key=(error.key or "").removeprefix("workload.node.")) from None
    for mm, nid in zip(mms, nids, strict=True):
        if nid >= limit:
            raise InputError(where="--node", key=mm, value=nid, rule=f"must be a node, 0 to {limit - 1}")
    return nids


def _nodes(nodes: int | None, nids: Sequence[int]) -> int:
    return nodes or 1 + max(nids, default=0)


def _of_trace(trace: Trace, nodes: int | None, binding: Mapping[str, int], moment: str) -> Loaded:
    number = len(trace.snapshots) if moment == LAST else 1
    mms = memory_at(trace, number - 1)
    nids = _placed(list(trace.pages), nodes, binding)
    by_mm = dict(zip(trace.pages, nids, strict=True))
    own = nodes is None and not binding and trace.node is not None
    held = {mm: memory.content[memory.present] for mm, memory in mms.items()}
    placed = [_known(memory.node[memory.present]) if own else by_mm[mm] for mm, memory in mms.items()]
    most = max((int(np.max(nid, initial=0)) for nid in placed), default=0)
    if most >= MAX_NODES:
        rule = f"is on node {most}: nodes are 0 to {MAX_NODES - 1}"
        raise InputError(where=trace.path, rule=rule, hint="--nodes places its mms elsewhere")
    memory = memory_of_contents(
        held, placed, 1 + most if own else _nodes(nodes, nids), [int(np.count_nonzero(~each.present)) for each in mms.values()]
    )
    title = trace.path.name if len(trace.snapshots) == 1 else f"{trace.path.name}, snapshot {number} of {len(trace.snapshots)}"
    orderless = trace.path.name if trace.order == "none" else None
    return Loaded(memory=memory, title=title, knobs=Knobs(), orderless=orderless)


def _known(node: np.ndarray) -> np.ndarray:
    """`node`, int16[n], where it is -1 for what is not known the node that most of the others are on."""
    known = node[node >= 0]
    return np.where(node >= 0, node, np.bincount(known).argmax() if known.size else 0)


def _of_config(config: Config, moment: str) -> Loaded:
    # a sweep is left out, as in `ksmbatch run`: the sections of the file count
    (point,) = expand(replace(config, sweep={}, document=replace(config.document, sweep={})))
    config = point.config
    workload = workload_of(config)
    taken = 0

    def steps() -> Iterator[Sequence[Step]]:
        nonlocal taken
        for snapshot in islice(_reached(workload, config), None if moment == LAST else 1):
            taken += 1
            yield snapshot.steps

    try:
        memory = memory_after(steps(), workload.nodes, config.host.kernel)
    except InputError as error:
        raise config.blame(error) from None
    several = f", snapshot {taken} of {len(workload.snapshots)}" if len(workload.snapshots) > 1 else ""
    path = config.workload.trace
    orderless = path.name if path is not None and order_of(path) == "none" else None
    return Loaded(memory=memory, title=config.path.name + several, knobs=config.ksm, orderless=orderless)


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
