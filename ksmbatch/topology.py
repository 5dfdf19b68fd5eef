"""The NUMA nodes of a host: how many, how far apart, how large, and which mm's memory is bound to which.

It holds no frames: what lies on a node is the engine's state.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from ksmbatch.documents import nearest
from ksmbatch.errors import InputError

MAX_NODES: Final = 8

# include/linux/topology.h; ACPI 6.5, 5.2.17: 0 to 9 are reserved, 255 means that there is no way
LOCAL_DISTANCE: Final = 10
REMOTE_DISTANCE: Final = 20
MAX_DISTANCE: Final = 254

ROUND_ROBIN: Final = "round_robin"

Matrix: TypeAlias = tuple[tuple[int, ...], ...]
Binding: TypeAlias = Mapping[str, int] | str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Topology:
    """`nodes` NUMA nodes, numbered from 0.

    `distance[a][b]`: ACPI SLIT distance from node a to node b, 10 on the diagonal. `node_pages`: frames of each node;
    0 means as many as needed.
    """

    nodes: int
    distance: Matrix
    node_pages: int


def default_distance(nodes: int) -> Matrix:
    """The SLIT of a host whose nodes are all equally far apart.

    >>> default_distance(2)
    ((10, 20), (20, 10))
    """
    return tuple(tuple(LOCAL_DISTANCE if a == b else REMOTE_DISTANCE for b in range(nodes)) for a in range(nodes))


def distance_fault(distance: Matrix, nodes: int) -> str | None:
    """The rule that `distance` breaks on a host with `nodes` nodes, or None. The rules are those of Linux's slit_valid().

    >>> distance_fault(((10, 21), (21, 11)), 2)
    'must have 10 on its diagonal, and has 11 at [1][1]'
    """
    if len(distance) != nodes or any(len(row) != nodes for row in distance):
        return f"must have {nodes} rows of {nodes} numbers, as host.nodes = {nodes}"
    for a, row in enumerate(distance):
        for b, value in enumerate(row):
            if a == b and value != LOCAL_DISTANCE:
                return f"must have {LOCAL_DISTANCE} on its diagonal, and has {value} at [{a}][{b}]"
            if a != b and not LOCAL_DISTANCE < value <= MAX_DISTANCE:
                return f"must have {LOCAL_DISTANCE + 1} to {MAX_DISTANCE} off its diagonal, and has {value} at [{a}][{b}]"
    return None


def place(mms: Sequence[str], binding: Binding, nodes: int) -> tuple[int, ...]:
    """The node to which each of `mms` is bound, in their order.

    `binding` is `workload.node`: a node per mm (what is not named is on node 0), "round_robin" (mm k on node k mod
    `nodes`), or None (all on node 0). Raises InputError for an mm that does not exist.

    >>> place(["web", "db", "idle"], {"db": 1}, 2), place(["web", "db", "idle"], "round_robin", 2)
    ((0, 1, 0), (0, 1, 0))
    """
    if binding is None:
        return (0,) * len(mms)
    if isinstance(binding, str):
        return tuple(k % nodes for k in range(len(mms)))
    for mm, nid in binding.items():
        if mm not in mms:
            raise InputError(key=f"workload.node.{mm}", value=nid, rule="there is no such mm", hint=nearest(mm, mms))
    return tuple(binding.get(mm, 0) for mm in mms)
