"""How much memory a machine takes, and whether this computer has it: asked before the contents of a large host are made.

It counts what a run touches, from the arrays that `state.allocate` makes; it neither allocates nor limits.
"""

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from ksmbatch import state
from ksmbatch.errors import InputError
from ksmbatch.units import format_bytes

# of these arrays of the state a run touches a share only; what is not here counts in full
TOUCHED: Final[Mapping[str, float]] = {
    "frames": 0.5,  # half of them are spare: taken when a KSM page is copied or moved
    "pages": 0.0,  # the same rows
    "frame_pfns": 0.5,
    "nodes": 0.5,  # room for two stable nodes per content and node, and for long chains
    "node_prune_time": 0.5,
    "page_bytes": 0.0,  # and their bytes
    "frame_bytes": 0.0,
    "stable_links": 0.0,  # shapes of trees, while they can be observed
    "unstable_links": 0.0,
    "unstable_log": 0.5,  # room for insertions and erasures; all pages in the tree and none taken out is half of it
}
_ALWAYS_THERE: Final = 64 * 2**20  # thousands of scenarios need not ask for so little
MERGED: Final = 1 / 3  # pages that are members of stable nodes, as far as anybody can guess before


@dataclass(frozen=True, kw_only=True, slots=True)
class Size:
    """What decides how large the state of a machine is: see `state.allocate`. `needs_frames`: its `keep_pfns`."""

    n_pages: int
    n_nids: int
    n_contents: int = 1
    n_dup: int = 1
    needs_frames: bool = False


def bytes_by_array(size: Size) -> dict[str, int]:
    """Bytes of each array of a machine's state that a run of usual kind touches."""
    rows = {"n_pages": size.n_pages, "n_contents": size.n_contents, "n_dup": size.n_dup, "n_members": size.n_pages * MERGED}
    per_row = _bytes_per_row(size.n_nids, size.needs_frames)
    return {name: int(sum(costs[name] * rows[row] for row, costs in per_row.items())) for name in state.State._fields}


def bytes_needed(size: Size) -> int:
    """Bytes that a run with a machine of this size takes, beside its program."""
    return sum(bytes_by_array(size).values())


def check(size: Size, making: int = 0) -> None:
    """Raises InputError if a run with a machine of this size does not fit into the memory that is available.

    `making`: bytes that making its contents takes before, and gives back.
    """
    needed = max(bytes_needed(size), making)
    if needed <= _ALWAYS_THERE:
        return
    available = available_bytes()
    if available is not None and needed > available:
        rule = f"{size.n_pages:,} pages take about {format_bytes(needed)} of memory to simulate"
        raise InputError(rule=f"{rule}, and {format_bytes(available)} are available", hint="fewer pages, or fewer --jobs")


def jobs_that_fit(needed: int, jobs: int) -> int:
    """How many of `jobs` runs that need so many bytes each fit beside each other; at least one."""
    available = available_bytes()
    return jobs if available is None else max(min(jobs, available // max(needed, 1)), 1)


def available_bytes(root: Path = Path("/")) -> int | None:
    """Memory that is still to be had, by the machine and by our cgroups; None where nobody says. `root`: of /proc and /sys."""
    return min([*_of_machine(root), *_of_cgroups(root)], default=None)


@functools.lru_cache(maxsize=32)
def _bytes_per_row(n_nids: int, needs_frames: bool) -> dict[str, dict[str, float]]:
    """What one page more costs, one content, one content that is duplicated, and one member, by array of the state."""
    least = {"n_pages": 1024, "n_contents": 1024, "n_dup": 512, "n_members": 1024}
    base = _nbytes(least, n_nids, needs_frames)
    costs = {}
    for row, n in least.items():
        more = _nbytes({**least, row: 2 * n}, n_nids, needs_frames)
        costs[row] = {name: (more[name] - base[name]) / n * TOUCHED.get(name, 1.0) for name in base}
    return costs


def _nbytes(rows: Mapping[str, int], n_nids: int, needs_frames: bool) -> dict[str, int]:
    made = state.allocate(
        n_pages=rows["n_pages"],
        n_mms=1,
        n_nids=n_nids,
        n_dup=rows["n_dup"],
        rank=np.zeros(rows["n_contents"], np.uint32),
        checksum_class=None,
        keep_pfns=needs_frames,
        n_members=rows["n_members"],
    )
    return {name: array.nbytes for name, array in made._asdict().items()}


def _of_machine(root: Path) -> Iterator[int]:
    for line in _read(root / "proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            yield int(line.split()[1]) * 1024


def _of_cgroups(root: Path) -> Iterator[int]:
    """What each limited cgroup that we are in, and each above it, has left; pages of files that it could drop count as left."""
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            mount, files, droppable = "sys/fs/cgroup", ("memory.max", "memory.current"), "inactive_file"
        elif "memory" in controllers.split(","):
            mount, files = "sys/fs/cgroup/memory", ("memory.limit_in_bytes", "memory.usage_in_bytes")
            droppable = "total_inactive_file"
        else:
            continue
        place = Path(path.lstrip("/"))
        for group in (place, *place.parents):  # in a container only the last may be there
            folder = root / mount / group
            limit, used = (_read(folder / file).strip() for file in files)
            if limit.isdigit() and used.isdigit():
                stat = dict(row.split() for row in _read(folder / "memory.stat").splitlines())
                yield max(int(limit) - int(used) + int(stat.get(droppable, 0)), 0)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
