"""`serverless`: short-lived sandboxes that come and go, by the clock, each with the same runtime and its function's pages.

Published: merging as soon as a container starts saves up to 55 % of the memory of 16 containers of one function (Qiu et al.,
"User-guided Page Merging for Memory Deduplication in Serverless Systems", IEEE Big Data 2023); ksmd, which comes round later,
misses what lives shorter than two of its scans. How long sandboxes live is yours to say.
"""

import heapq
from dataclasses import dataclass
from typing import Final

import numpy as np

from ksmbatch.errors import InputError
from ksmbatch.events import Exit, Mmap, Spawn, Step, Write
from ksmbatch.generators.base import Generator, whole_number
from ksmbatch.generators.guests import check_shares, check_size
from ksmbatch.generators.mix import AREA, MAX_PAGES
from ksmbatch.generators.rng import Scramble, key, uniform
from ksmbatch.topology import Binding, place
from ksmbatch.units import format_ms, parse_ms
from ksmbatch.workload import Lazy, Snapshot, Workload

_LIVES, _FUNCTIONS, _CONTENTS = range(3)  # streams of randomness
_MOST_SANDBOXES: Final = 100_000


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerlessParameters:
    """Parameters of `serverless`.

    `mms`: sandboxes that live at a time; when one exits, the next starts. They are named sandbox0, sandbox1, ... in the order
    in which they start. `pages_per_mm`: pages of each. `runtime`: share of them that holds what all sandboxes hold, kernel,
    language runtime, libraries. `function`: share that holds what all sandboxes of a function hold; `functions`: how many there
    are, each sandbox runs one at random. `zero`: share that is zero; the rest is each sandbox's own. `lifetime`: how long
    sandboxes live in the mean, each between half and one and a half of that, such as "30s". `lasts`: when the last ones start,
    such as "5min"; memory stands still from then on.
    """

    pages_per_mm: int
    mms: int = 16
    runtime: float = 0.35
    function: float = 0.19
    functions: int = 1
    zero: float = 0.045
    lifetime: str = "30s"
    lasts: str = "5min"

    def __post_init__(self) -> None:
        check_size(self.mms, self.pages_per_mm)
        check_shares(self, ("runtime", "function", "zero"))
        whole_number("functions", self.functions, 1, MAX_PAGES)
        for name in ("lifetime", "lasts"):
            object.__setattr__(self, name, _time(name, getattr(self, name)))
        sandboxes = self.mms * (1 + 2 * parse_ms(self.lasts) // parse_ms(self.lifetime))
        if sandboxes * self.pages_per_mm > MAX_PAGES or sandboxes > _MOST_SANDBOXES:
            rule = f"makes up to {sandboxes} sandboxes: must be at most {min(_MOST_SANDBOXES, MAX_PAGES // self.pages_per_mm)}"
            raise InputError(key="workload.lasts", value=self.lasts, rule=rule, hint="fewer mms, or longer lives")


def _time(name: str, value: object) -> str:
    """`value`, a time longer than 0, in its largest unit: equal times are equal values."""
    try:
        ms = parse_ms(value) if isinstance(value, str) else 0
    except InputError:
        ms = 0
    if not 0 < ms < 2**31:
        raise InputError(key=f"workload.{name}", value=value, rule='must be a time longer than 0, such as "30s"')
    return format_ms(ms)


class _Sandboxes:
    """Who lives when. `moments`: the times (ms) at which any starts; `started`, `ended`: by such a time, numbers of sandboxes.

    Contents are numbered: 0 the zeros, the runtime, each function's, each sandbox's own.
    """

    def __init__(self, parameters: ServerlessParameters, seed: int) -> None:
        self._parameters = parameters
        pages = parameters.pages_per_mm
        self._n_runtime = round(parameters.runtime * pages)
        self._n_function = min(round(parameters.function * pages), pages - self._n_runtime)
        self._n_zero = min(round(parameters.zero * pages), pages - self._n_runtime - self._n_function)
        self._n_own = pages - self._n_runtime - self._n_function - self._n_zero
        self.moments, self.started, self.ended = _lives(parameters, key(seed, _LIVES))
        self.n = sum(map(len, self.started))
        numbers = np.arange(self.n, dtype=np.uint64)
        self._function = uniform(key(seed, _FUNCTIONS), numbers, parameters.functions)
        n_alike = 1 + self._n_runtime + parameters.functions * self._n_function
        self._first_own = n_alike
        self._raw = Scramble(n_alike + self.n * self._n_own, key(seed, _CONTENTS))
        self.names = [f"sandbox{number}" for number in range(self.n)]

    def fill(self, number: int) -> Write:
        """All pages of sandbox `number`."""
        contents = np.concatenate(
            [
                np.arange(1, 1 + self._n_runtime),
                np.arange(self._n_function) + (1 + self._n_runtime + int(self._function[number]) * self._n_function),
                np.zeros(self._n_zero, np.int64),
                np.arange(self._n_own) + (self._first_own + number * self._n_own),
            ]
        )
        pages = np.arange(self._parameters.pages_per_mm)
        return Write(proc=self.names[number], area=AREA, pages=pages, contents=self._raw(contents.view(np.uint64)))


def _lives(parameters: ServerlessParameters, stream: int) -> tuple[list[int], list[list[int]], list[list[int]]]:
    mean_ms, end_ms = parse_ms(parameters.lifetime), parse_ms(parameters.lasts)
    moments, started, ended = [0], [list(range(parameters.mms))], [list[int]()]

    def life_ms(number: int, whole: bool) -> int:
        drawn = int(uniform(stream, np.array([number], np.uint64), mean_ms)[0])
        # the first ones are met in the middle of their lives, or all would exit at nearly the same time
        return max((mean_ms + 1) // 2 + drawn if whole else drawn, 1)

    exits = [(life_ms(number, whole=False), number) for number in range(parameters.mms)]
    heapq.heapify(exits)
    n = parameters.mms
    while exits[0][0] < end_ms:
        time_ms, number = exits[0]
        if time_ms > moments[-1]:
            moments.append(time_ms)
            started.append([])
            ended.append([])
        started[-1].append(n)
        ended[-1].append(number)
        heapq.heapreplace(exits, (time_ms + life_ms(n, whole=True), n))
        n += 1
    return moments, started, ended


def _build(parameters: ServerlessParameters, *, nodes: int, binding: Binding, seed: int, full_scans: int) -> Workload:
    del full_scans  # the clock drives
    sandboxes = _Sandboxes(parameters, seed)
    nids = place(sandboxes.names, binding, nodes)

    def snapshot(k: int) -> Snapshot:
        steps: list[Step] = [Exit(proc=sandboxes.names[number]) for number in sandboxes.ended[k]]
        for number in sandboxes.started[k]:
            name, nid = sandboxes.names[number], nids[number]
            steps += [Spawn(proc=name, cpu_node=nid), Mmap(proc=name, area=AREA, pages=parameters.pages_per_mm, node=nid)]
        n_before = len(steps)
        newcomers = sandboxes.started[k]

        def step(place: int) -> Step:
            return steps[place] if place < n_before else sandboxes.fill(newcomers[place - n_before])

        return Snapshot(time_ms=sandboxes.moments[k], steps=Lazy(n_before + len(newcomers), step))

    snapshots = Lazy(len(sandboxes.moments), snapshot)
    return Workload(name="serverless", nodes=nodes, snapshots=snapshots, end_ms=parse_ms(parameters.lasts))


GENERATOR: Final = Generator(
    name="serverless",
    about="short-lived sandboxes that come and go by the clock, each with the same runtime and its function's pages",
    parameters=ServerlessParameters,
    build=_build,
)
