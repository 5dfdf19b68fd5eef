"""Machines for tests: steps of the scenario language in, what sysfs and the page tables show out.

It expects nothing; what must be seen is the tests' to say.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest

from ksmbatch.codes import CALLER_PRESETS, Caller, Kernel, Policy
from ksmbatch.contents import Checksum
from ksmbatch.machine import Machine, Outcome
from ksmbatch.metrics import derive
from ksmbatch.program import compile_workload
from ksmbatch.scenario import Scenario, parse_scenario
from ksmbatch.workload import scenario_workload

Step = dict[str, Any]

RECORDINGS = Path(__file__).resolve().parent / "recordings"
TRUTH = Path(__file__).resolve().parent / "truth"
KERNELS = [kernel.word for kernel in Kernel]

# for what visits more than some 100,000 pages
compiled_only = pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="takes minutes without compiled kernels")


def spawn(proc: str = "a") -> Step:
    return {"op": "spawn", "proc": proc}


def mmap(area: str, pages: int, node: int = 0, proc: str = "a", mergeable: bool = True) -> Step:
    return {"op": "mmap", "proc": proc, "area": area, "pages": pages, "node": node, "mergeable": mergeable}


def write(area: str, *contents: int | None, first: int = 0, proc: str = "a") -> Step:
    return {"op": "write", "proc": proc, "area": area, "first": first, "contents": list(contents)}


def full_scan(count: int = 1) -> Step:
    return {"op": "full_scan", "count": count}


def scan(batches: int = 1) -> Step:
    return {"op": "scan", "batches": batches}


def knob(name: str, value: int) -> Step:
    return {"op": "knob", "name": name, "value": value}


def filled(contents: list[int], node: int = 0, proc: str = "a") -> list[Step]:
    """A process with one mergeable area "m" that holds `contents`."""
    return [spawn(proc), mmap("m", len(contents), node=node, proc=proc), write("m", *contents, proc=proc)]


def migrate(area: str, node: int, first: int = 0, count: int = 1, proc: str = "a", **caller: str) -> Step:
    return {"op": "migrate", "proc": proc, "area": area, "first": first, "count": count, "node": node, **caller}


def scenario(*steps: Step, nodes: int = 2, node_pages: int = 0, name: str = "test", **knobs: int) -> Step:
    """The steps as a scenario's JSON."""
    limit = {"node_pages": node_pages} if node_pages else {}
    return {"name": name, "nodes": nodes, **limit, "knobs": knobs, "steps": list(steps)}


def of_arrays(checksum: Callable[[int], int] | None) -> Checksum | None:
    """Content -> checksum, for one content, as the engine wants it: for arrays of contents."""
    return None if checksum is None else lambda raw: np.array([checksum(int(one)) for one in raw], np.uint32)


class Player:
    """A machine and the steps that are to happen on it.

    `checksum`: content -> checksum; None: all differ. `policy`, `callers`, `keep_pfns`: see Machine; where page frame numbers
    are kept, nobody gets in line.
    """

    def __init__(
        self,
        document: Step | Scenario,
        kernel: Kernel | str = Kernel.V6_12,
        *,
        force_exact: bool = False,
        checksum: Callable[[int], int] | None = None,
        policy: Policy = Policy.MAINLINE,
        callers: Sequence[Caller] = CALLER_PRESETS["mainline"],
        keep_pfns: bool = True,
    ) -> None:
        parsed = document if isinstance(document, Scenario) else parse_scenario(document, "test")
        program = compile_workload(scenario_workload(parsed), of_arrays(checksum))
        kernel = Kernel.parse(kernel) if isinstance(kernel, str) else kernel
        self.machine = Machine(
            program,
            kernel,
            parsed.knobs,
            force_exact=force_exact,
            keep_pfns=keep_pfns,
            policy=policy,
            callers=callers,
            node_pages=parsed.node_pages,
        )
        self._steps = program.snapshots[0][1]

    def outcomes(self) -> Iterator[Outcome]:
        """Lets one step after the other happen, up to the last or to the first that leads into freed memory."""
        for step in self._steps:
            outcome = self.machine.apply(step)
            yield outcome
            if outcome.undefined:
                return

    def run(self) -> dict[str, int]:
        """All steps; returns the counters afterwards, by name."""
        for outcome in self.outcomes():
            assert not outcome.undefined
        return self.counters()

    def counters(self) -> dict[str, int]:
        """The counters now, by name."""
        return derive(self.machine.state.counters)


def play(*steps: Step, kernel: Kernel | str = Kernel.V6_12, nodes: int = 2, **knobs: int) -> dict[str, int]:
    """The counters after `steps`, by name."""
    return Player(scenario(*steps, nodes=nodes, **knobs), kernel).run()
