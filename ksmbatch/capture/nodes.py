"""On which NUMA node a page of another process is, as the system call move_pages(2) answers when it is asked to move nothing.

Where a machine has one node, or the call is refused, nobody knows, and traces have no nodes.
"""

import ctypes
import os
import platform
from contextlib import suppress
from pathlib import Path
from typing import Final

import numpy as np

from ksmbatch.trace_format import NO_NODE

_NUMBER: Final = {"x86_64": 279, "aarch64": 239, "riscv64": 239, "loongarch64": 239, "ppc64le": 301, "s390x": 310}
_BATCH_PAGES: Final = 2**14
_PAGE_BITS: Final = np.uint64(12)


def count_nodes() -> int:
    """NUMA nodes with memory; 1 where the kernel does not say."""
    with suppress(OSError, ValueError):
        text = Path("/sys/devices/system/node/has_memory").read_text().strip()
        spans = [[int(number) for number in span.split("-")] for span in text.split(",")]
        return sum(span[-1] - span[0] + 1 for span in spans)
    return 1


def nodes_fault() -> str | None:
    """Why the kernel does not answer (containers may forbid the call); None if it does."""
    try:
        nodes_of(os.getpid(), np.zeros(1, np.uint64))
    except OSError as error:
        return error.strerror
    return None


def nodes_of(pid: int, vpn: np.ndarray) -> np.ndarray:
    """int16[n]: the node of each of the pages `vpn` (uint64[n]) of process `pid`; -1 where the page is not there.

    Raises OSError where the kernel refuses.
    """
    node: np.ndarray = np.full(vpn.size, NO_NODE, np.int16)
    number = _NUMBER.get(platform.machine())
    if number is None:
        return node
    libc = ctypes.CDLL(None, use_errno=True)
    for first in range(0, vpn.size, _BATCH_PAGES):
        address = vpn[first : first + _BATCH_PAGES] << _PAGE_BITS
        status = np.zeros(address.size, np.int32)
        done = libc.syscall(
            ctypes.c_long(number),
            ctypes.c_int(pid),
            ctypes.c_ulong(address.size),
            ctypes.c_void_p(address.ctypes.data),
            None,  # no nodes to move to
            ctypes.c_void_p(status.ctypes.data),
            ctypes.c_int(0),
        )
        if done < 0:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error))
        node[first : first + address.size] = np.where(status >= 0, status, NO_NODE)
    return node
