"""`raw`: memory as it is, byte after byte: flat RAM images, memory files of Firecracker, QEMU's memory-backend-file.

Nothing in such a file says what it is, so it is what a file is taken for that looks like nothing else.
"""

from collections.abc import Sequence
from contextlib import ExitStack

from ksmbatch.importers.base import Image, Importer, Probe
from ksmbatch.importers.pieces import ImageFile, image_of_pieces
from ksmbatch.importers.signatures import other_format
from ksmbatch.pagesource import PAGE_BYTES


def _looks(probe: Probe) -> bool:
    return probe.names is None and other_format(probe) is None


def _open(probe: Probe, stack: ExitStack) -> Sequence[Image]:
    if probe.names is not None:
        raise probe.refuse("is a folder: raw memory is a file")
    file = ImageFile(probe.path, stack)
    if not file.size or file.size % PAGE_BYTES:
        raise probe.refuse(f"has {file.size} bytes: raw memory is whole pages of {PAGE_BYTES}", "truncated, or no memory")
    return [image_of_pieces([file], [(0, 0, file.size, 0, 0)])]


IMPORTER = Importer(
    name="raw",
    about="flat RAM images, Firecracker memory files, QEMU memory-backend-file",
    looks=_looks,
    open=_open,
    fallback=True,
)
