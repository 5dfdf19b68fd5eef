"""Small parameters that let every feature of a mover show, on a host of two nodes, in the first eight snapshots.

It makes nothing.
"""

from typing import Any

from ksmbatch.topology import Topology, default_distance

HOST = Topology(nodes=2, distance=default_distance(2), node_pages=2048)

MOVES: dict[str, dict[str, Any]] = {
    "compaction": {"node": 1, "at": 1, "every": 2, "times": 4, "runs": 3, "first": 2, "caller": "thp"},
    "dance": {"at": 3, "merge_across_nodes": 0},
    "hotremove": {"node": 1, "at": 2, "back": 5},
    "rebalance": {"mm": "mm1", "node": 1, "at": 1, "slices": 3, "every": 2, "caller": "numa_balancing"},
}
