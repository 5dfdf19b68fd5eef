"""What changed, round by round, in a temporary file without a name until the trace is written: memory stays free for the host.

The file holds fingerprints, whose key is in this process's memory only; it is gone with the process, whatever ends it.
"""

import tempfile
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from ksmbatch.errors import InputError


class Changes(NamedTuple):
    """Pages of an address space that changed.

    `vpn`: uint64[n], ascending. `fingerprint`: uint64[n]. `node`: int16[n], -1: not known. `gone`: bool[n].
    """

    vpn: np.ndarray
    fingerprint: np.ndarray
    node: np.ndarray
    gone: np.ndarray


class Part(NamedTuple):
    """Where some changes lie: `n` of them, from byte `offset` on."""

    offset: int
    n: int


_KINDS: Final = tuple(map(np.dtype, (np.uint64, np.uint64, np.int16, np.bool_)))  # of the columns of Changes


class Spill:
    """The file, beside the trace-to-be `out`; raises InputError where none can be made there."""

    def __init__(self, out: Path) -> None:
        if out.is_dir():
            raise InputError(where=out, rule="cannot be written: it is a folder")
        self._out = out
        try:
            self._file = tempfile.TemporaryFile(dir=out.parent, prefix=f".{out.name}.")  # noqa: SIM115  # close() does it
        except OSError as error:
            raise InputError(where=out, rule=f"cannot be written: {error.strerror}") from None
        self._end = 0

    def put(self, changes: Changes) -> Part:
        """Keeps `changes`. Raises InputError where there is no room for them."""
        part = Part(self._end, changes.vpn.size)
        try:
            self._file.seek(part.offset)
            for column in changes:
                self._file.write(column.tobytes())
            self._file.flush()
        except OSError as error:
            raise InputError(where=self._out, rule=f"what was captured cannot be kept beside it: {error.strerror}") from None
        self._end = self._file.tell()
        return part

    def get(self, part: Part) -> Changes:
        """What was put there."""
        self._file.seek(part.offset)
        columns = [np.frombuffer(self._file.read(part.n * kind.itemsize), kind) for kind in _KINDS]
        return Changes(*columns)

    def close(self) -> None:
        """Lets go of it all."""
        self._file.close()
