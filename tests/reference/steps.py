"""Small scenarios for the tests of the twin: a step per function, and a machine of two nodes that does them.

Nothing checks the steps; numbers that make no sense end in an exception of the twin.
"""

from collections.abc import Callable, Collection
from typing import Any

from .machine import Machine, Step
from .policies import MAINLINE_CALLERS

Observation = dict[str, Any]


def spawn(proc: str = "a") -> Step:
    return {"op": "spawn", "proc": proc, "cpu_node": 0}


def mmap(area: str, pages: int, node: int = 0, proc: str = "a") -> Step:
    return {"op": "mmap", "proc": proc, "area": area, "pages": pages, "node": node, "mergeable": True}


def write(area: str, *contents: int | None, proc: str = "a") -> Step:
    return {"op": "write", "proc": proc, "area": area, "first": 0, "contents": list(contents)}


def discard(area: str, first: int, count: int) -> Step:
    return {"op": "discard", "proc": "a", "area": area, "first": first, "count": count}


def unmerge(area: str, count: int) -> Step:
    return {"op": "madvise", "proc": "a", "area": area, "first": 0, "count": count, "advice": "unmergeable"}


def fork(child: str) -> Step:
    return {"op": "fork", "proc": "a", "child": child}


def migrate(area: str, first: int, count: int, node: int, caller: str | None = None, proc: str = "a") -> Step:
    step = {"op": "migrate", "proc": proc, "area": area, "first": first, "count": count, "node": node}
    return step if caller is None else step | {"caller": caller}


def rebind(area: str, node: int) -> Step:
    return {"op": "rebind", "proc": "a", "area": area, "node": node}


def offline(node: int) -> Step:
    return {"op": "offline", "node": node}


def online(node: int) -> Step:
    return {"op": "online", "node": node}


def cma(first: int, count: int) -> Step:
    return {"op": "cma", "range": [first, count]}


def full_scan(count: int = 1) -> Step:
    return {"op": "full_scan", "count": count}


def scan(batches: int = 1) -> Step:
    return {"op": "scan", "batches": batches}


def knob(name: str, value: int) -> Step:
    return {"op": "knob", "name": name, "value": value}


# one KSM page on node 0, mapped by both pages of m
ALONE = (spawn(), mmap("m", 2), write("m", 7, 7), full_scan(2))
# with merge_across_nodes = 0 also one of the same content on node 1, mapped by k
PAIR = (spawn(), mmap("m", 2), mmap("k", 2, node=1), write("m", 7, 7), write("k", 7, 7), full_scan(2))


def machine(
    *steps: Step,
    kernel: str = "6.12",
    checksum: Callable[[int], int] | None = None,
    policy: str = "mainline",
    callers: Collection[str] = MAINLINE_CALLERS,
    node_pages: int = 0,
    **knobs: int,
) -> Machine:
    """Two nodes; `knobs` beside the oracle's defaults."""
    defaults = {"merge_across_nodes": 1, "max_page_sharing": 256, "use_zero_pages": 0, "smart_scan": 0}
    defaults |= {"pages_to_scan": 100_000, "stable_node_chains_prune_millisecs": 0, "run": 1}
    document = {"name": "test", "nodes": 2, "knobs": defaults | knobs, "steps": list(steps)}
    return Machine(document, kernel, checksum, policy=policy, callers=callers, node_pages=node_pages)


def numa_machine(*steps: Step, policy: str, **more: Any) -> Machine:
    """One that has a stable tree per node."""
    return machine(*steps, policy=policy, **{"merge_across_nodes": 0} | more)


def run(ran: Machine, steps: int | None = None) -> dict[str, Any]:
    """Do the steps from the first; the last one's counters by name."""
    return counters(ran, observe(ran, steps)[-1])


def observe(ran: Machine, steps: int | None = None) -> list[Observation]:
    """Do the steps from the first, the kernel's rules holding after each; what was seen."""
    seen = []
    for index in range(len(ran.steps) if steps is None else steps):
        seen.append(ran.step(index))
        assert ran.invariants() == []
    return seen


def counters(ran: Machine, observation: Observation) -> dict[str, Any]:
    return dict(zip(ran.ksm.kernel.sysfs_fields, observation["sysfs"], strict=True))


def counted(ran: Machine) -> dict[str, int]:
    """What is not 0 of it."""
    return {name: times for name, times in ran.counted().items() if times}


def frames(ran: Machine, *areas: str, proc: str = "a") -> list[Any]:
    """What the pages of `areas` map."""
    places = [ran.areas[proc][area] for area in areas]
    return [ran.mms[proc].page_table.get(base + k) for base, pages in places for k in range(pages)]


def nodes_of(ran: Machine, *areas: str) -> list[int]:
    return [frame.nid for frame in frames(ran, *areas)]


def pfns_in_use(ran: Machine, nid: int) -> list[int]:
    return sorted(ran.ksm.nodes[nid].frames)
