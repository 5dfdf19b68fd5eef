"""`cloud_hypervisor`: snapshots of Cloud Hypervisor: a folder with config.json, state.json and memory-ranges.

The bytes are in memory-ranges, one range after the other; where each range lies in the guest is in state.json, as releases
write it since v39.
"""

import json
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Final

from ksmbatch.errors import InputError
from ksmbatch.importers.base import Image, Importer, Probe, apart, region
from ksmbatch.importers.pieces import ImageFile, image_of_pieces
from ksmbatch.pagesource import PAGE_BYTES

_MEMORY: Final = "memory-ranges"
_STATE: Final = "state.json"
_MAX_STATE_BYTES: Final = 2**26  # a few hundred KiB are usual
_MAX_RANGES: Final = 2**20


def _looks(probe: Probe) -> bool:
    return probe.names is not None and {_MEMORY, _STATE} <= probe.names


def _open(probe: Probe, stack: ExitStack) -> Sequence[Image]:
    if probe.names is None:
        raise probe.refuse("is a file: a snapshot of Cloud Hypervisor is a folder", f"with {_MEMORY} and {_STATE}")
    for name in (_MEMORY, _STATE):
        if name not in probe.names:
            raise probe.refuse(f"holds no {name}, which a snapshot of Cloud Hypervisor has")
    state = ImageFile(probe.path / _STATE, stack)
    table = _range_table(state)
    file = ImageFile(probe.path / _MEMORY, stack)
    pieces, regions, offset = [], [], 0
    for address, size in table:
        page, skip = divmod(address, PAGE_BYTES)
        pieces.append((page, skip, size, offset, 0))
        regions.append(region(f"ram {address:#x}", address, size))
        offset += size
    if offset != file.size:
        rule = f"has {file.size} bytes, but the ranges in {_STATE} have {offset}: truncated or damaged"
        raise InputError(where=file.path, rule=rule)
    return [image_of_pieces([file], pieces, regions=apart(regions))]


def _range_table(file: ImageFile) -> list[tuple[int, int]]:
    """Guest physical address and bytes of every range, in the order of the file."""
    if file.size > _MAX_STATE_BYTES:
        raise InputError(where=file.path, rule=f"has {file.size} bytes: too many for the state of a guest")
    try:
        whole = json.loads(file.read(0, file.size))
        given = json.loads(whole["snapshots"]["memory-manager"]["snapshot_data"]["state"])  # JSON within JSON
        table = [(entry["gpa"], entry["length"]) for entry in given["memory_ranges"]["data"]]
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        rule = "has no table of memory ranges that can be understood"
        raise InputError(where=file.path, rule=rule, hint=f"--format raw takes {_MEMORY} itself") from None
    for entry in table:
        if not all(type(value) is int and 0 <= value < 2**63 for value in entry):
            raise InputError(where=file.path, key="memory_ranges", value=list(entry), rule="must be an address and a size")
    if len(table) > _MAX_RANGES:
        raise InputError(where=file.path, rule=f"has more than {_MAX_RANGES:,} memory ranges")
    return table


IMPORTER = Importer(
    name="cloud_hypervisor", about="snapshot folders of Cloud Hypervisor (memory-ranges)", looks=_looks, open=_open
)
