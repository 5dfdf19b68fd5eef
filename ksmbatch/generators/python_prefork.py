"""`python-prefork`: servers that load an application and fork workers; reference counts copy shared pages, often for nothing.

Published: on Instagram's web servers (Python) smart_scan takes the pages that ksmd looks at in a scan from 20 million to less
than 15 million (S. Roesch, "mm/ksm: add smart page scanning mode", 2023). ksmd always looks at KSM pages, and after a while
only every ninth time at others: so some 28 % of the pages are others, and the default of `private` makes it so. The other
shares are not published, and how fast fork's sharing drifts away is not, either.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from ksmbatch.errors import InputError
from ksmbatch.events import Fork, Mmap, Spawn, Step, Write
from ksmbatch.generators.base import Generator, whole_number
from ksmbatch.generators.guests import check_shares, check_size
from ksmbatch.generators.mix import AREA, MAX_PAGES
from ksmbatch.generators.rng import Permutation, Scramble, key
from ksmbatch.topology import Binding, place
from ksmbatch.workload import Lazy, Snapshot, Workload

_PLACES, _CONTENTS, _REWRITTEN = range(3)  # streams of randomness


@dataclass(frozen=True, kw_only=True, slots=True)
class PythonPreforkParameters:
    """Parameters of `python-prefork`.

    `servers`: processes that load the same application, as in containers, named app0, app1, ... `workers`: children of each,
    app0.0, app0.1, ... `pages_per_mm`: pages of each process. `zero`: share of them that is zero once the application is
    loaded. `private`: share that each worker writes after the fork, with contents of its own. `alike`: share that it writes
    with what all workers write there, as modules that are imported late. The rest stays on the frames that fork shares, until
    `rewritten_per_scan`, a share of the pages of each worker, are written between two full scans; `restored`: of these, the
    share that then holds what it held after loading, since a reference count went up and down again; others hold new contents.
    """

    pages_per_mm: int
    servers: int = 2
    workers: int = 8
    zero: float = 0.05
    private: float = 0.315
    alike: float = 0.15
    rewritten_per_scan: float = 0.0
    restored: float = 0.5

    def __post_init__(self) -> None:
        whole_number("workers", self.workers, 1, MAX_PAGES)
        check_size(self.servers, self.pages_per_mm, name="servers")
        n_pages = self.servers * (1 + self.workers) * self.pages_per_mm
        if n_pages > MAX_PAGES:
            raise InputError(
                key="workload.workers", value=self.workers, rule=f"makes {n_pages} pages: must be at most {MAX_PAGES}"
            )
        check_shares(self, ("zero", "private", "alike"), "rewritten_per_scan", "restored")


class _Application:
    """Contents are numbered: 0 the zeros, the loaded application, what workers write alike, each one's own, and what is new.

    Places, in an order that all processes share: zeros, what stays, what workers write alike, what each writes for itself.
    """

    def __init__(self, parameters: PythonPreforkParameters, seed: int) -> None:
        self._seed = seed
        self._pages = pages = parameters.pages_per_mm
        self._n_zero = round(parameters.zero * pages)
        self._n_private = min(round(parameters.private * pages), pages - self._n_zero)
        self._n_alike = min(round(parameters.alike * pages), pages - self._n_zero - self._n_private)
        self._n_rewritten = round(parameters.rewritten_per_scan * pages)
        self._n_new = self._n_rewritten - round(parameters.restored * self._n_rewritten)
        self._n_workers = parameters.servers * parameters.workers
        self._first_own = 1 + pages + self._n_alike
        self._n_first = self._first_own + self._n_workers * self._n_private
        order = Permutation(pages, key(seed, _PLACES))
        self._place = order(np.arange(pages, dtype=np.uint64)).view(np.int64)
        self._raw = Scramble(self._n_first, key(seed, _CONTENTS))

    def load(self, proc: str) -> Write:
        """What a server writes before it forks."""
        return self._write(proc, np.arange(self._pages), self._loaded(self._place))

    def begin(self, proc: str, worker: int) -> Write:
        """What worker number `worker` (of all servers) writes after the fork."""
        pages = np.flatnonzero(self._place >= self._pages - self._n_private - self._n_alike)
        turn = self._place[pages] - (self._pages - self._n_private - self._n_alike)
        own = self._first_own + worker * self._n_private + turn - self._n_alike
        return self._write(proc, pages, np.where(turn < self._n_alike, 1 + self._pages + turn, own))

    def go_on(self, proc: str, worker: int, scan: int) -> Write:
        """What it writes after full scan number `scan`, from 1 on."""
        order = Permutation(self._pages, key(self._seed, _REWRITTEN, scan, worker))
        pages = order(np.arange(self._n_rewritten, dtype=np.uint64)).view(np.int64)
        contents = self._loaded(self._place[pages])
        before = self._n_first + ((scan - 1) * self._n_workers + worker) * self._n_new
        contents[: self._n_new] = before + np.arange(self._n_new)
        ascending = pages.argsort()
        return self._write(proc, pages[ascending], contents[ascending])

    def _loaded(self, places: np.ndarray) -> np.ndarray:
        return np.where(places < self._n_zero, 0, 1 + places)

    def _write(self, proc: str, pages: np.ndarray, contents: np.ndarray) -> Write:
        return Write(proc=proc, area=AREA, pages=pages, contents=self._raw(contents.view(np.uint64)))


def _build(parameters: PythonPreforkParameters, *, nodes: int, binding: Binding, seed: int, full_scans: int) -> Workload:
    application = _Application(parameters, seed)
    servers = [f"app{number}" for number in range(parameters.servers)]
    workers = [f"{server}.{number}" for server in servers for number in range(parameters.workers)]
    nids = place(servers, binding, nodes)
    start: list[Step] = []
    for server, nid in zip(servers, nids, strict=True):
        start += [Spawn(proc=server, cpu_node=nid), Mmap(proc=server, area=AREA, pages=parameters.pages_per_mm, node=nid)]
    n_servers, per_server = len(servers), 1 + 2 * parameters.workers

    def first_step(k: int) -> Step:
        if k < len(start):
            return start[k]
        server, turn = divmod(k - len(start), per_server)
        if turn == 0:
            return application.load(servers[server])
        worker = server * parameters.workers + (turn - 1) // 2
        if turn % 2:
            return Fork(proc=servers[server], child=workers[worker])
        return application.begin(workers[worker], worker)

    def snapshot(scan: int) -> Snapshot:
        if scan:
            steps = Lazy(len(workers), lambda worker: application.go_on(workers[worker], worker, scan))
            return Snapshot(time_ms=0, steps=steps)
        return Snapshot(time_ms=0, steps=Lazy(len(start) + n_servers * per_server, first_step))

    n_snapshots = full_scans if parameters.rewritten_per_scan else 1
    return Workload(name="python-prefork", nodes=nodes, snapshots=Lazy(n_snapshots, snapshot), per_scan=True)


GENERATOR: Final = Generator(
    name="python-prefork",
    about="servers that load an application and fork workers, whose pages are copied by reference counts, often for nothing",
    parameters=PythonPreforkParameters,
    build=_build,
)
