"""Our full scans against loops that anybody would write (benchmarks/peers): a dict, std::map, std::unordered_map.

Same memory, same rules, and after every full scan the same counters, or nothing is timed.
"""

import statistics
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import numpy as np
from equality import same
from memory import Size, Timed, first_contents, mix, run
from own import RATE, pages
from peers import dict_loop, native
from peers.dict_loop import Scans
from table import Row, Target

from ksmbatch.config import Config
from ksmbatch.program import Program, compile_config

N_SCANS = 3  # the checksums, the scan that merges, and one in which nothing changes any more
COUNTED = ("pages_shared", "pages_sharing", "pages_unshared")
TIMES = {"Python dict": 80, "std::map": 100, "std::unordered_map": 50}  # as fast, in the scan that merges

Peer = Callable[[np.ndarray, int], Scans]


def rows(size: Size) -> Iterator[Row]:
    """Each peer in the scan that merges, and in the one after it."""
    peers = _peers()
    small = _config(size.small)
    _both(peers, small, *_memory(small))
    config = _config(size.pages)
    program, contents = _memory(config)
    ours: list[Timed] = []
    theirs: dict[str, list[np.ndarray]] = {name: [] for name in peers}
    for _ in range(size.repeat):
        timed, seconds = _both(peers, config, program, contents)
        ours.append(timed)
        for name in peers:
            theirs[name].append(seconds[name])
    for scan, what in ((2, "first merging scan"), (3, "next scan")):
        rate = statistics.median(timed.rate(scan, scan) for timed in ours)
        for name, lists in theirs.items():
            peer_rate = contents.size / statistics.median(float(seconds[scan - 1]) for seconds in lists)
            yield Row(
                name="peers",
                work=f"{pages(size.pages)}, nothing written, smart_scan = 0, {what}",
                unit=RATE,
                ours=rate,
                peer=name,
                theirs=peer_rate,
                target=Target(of="ratio", at_least=TIMES[name]) if scan == 2 else None,
                exact=ours[0].exact,
            )


def _peers() -> dict[str, Peer]:
    peers: dict[str, Peer] = {"Python dict": dict_loop.scans}
    if not native.version():
        sys.stderr.write("no g++: the peers in C++ are left out\n")
        return peers
    return peers | {"std::map": partial(native.scans, "map"), "std::unordered_map": partial(native.scans, "unordered_map")}


def _config(n_pages: int) -> Config:
    # no chains: one KSM page takes all mappings
    return mix(n_pages, "ksm.smart_scan=0", "ksm.max_page_sharing=2147483647", f"run.full_scans={N_SCANS}")


def _memory(config: Config) -> tuple[Program, np.ndarray]:
    return compile_config(config), first_contents(config)


def _both(
    peers: Mapping[str, Peer], config: Config, program: Program, contents: np.ndarray
) -> tuple[Timed, dict[str, np.ndarray]]:
    """One turn of ours and of every peer, their counters compared; ours, and the seconds of each peer's scans."""
    timed = run(program, config)
    counted = np.stack([timed.result.samples[name] for name in COUNTED], axis=1)
    seconds = {}
    for name, peer in peers.items():
        scans = peer(contents, N_SCANS)
        same(f"{', '.join(COUNTED)} after every full scan: ours and {name}", counted, scans.counters)
        seconds[name] = scans.seconds
    return timed, seconds
