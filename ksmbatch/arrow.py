"""numpy arrays to Arrow arrays and back, without pandas.

pyarrow's own way, `pa.array` and `to_numpy`, imports pandas to see whether it is handed objects of pandas: a fifth of a second
that a run has no use for (tests/test_import_cost.py). It knows neither files nor schemas.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa


def from_numpy(values: np.ndarray) -> Any:
    """The integers or floats `values` (one dimension) as a pa.Array without nulls that shares their memory."""
    values = np.ascontiguousarray(values)
    return pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), len(values), [None, pa.py_buffer(values)])


def strings(values: Sequence[str]) -> Any:
    """A pa.Array of `values`, less than 2 GiB of text together."""
    encoded = [value.encode() for value in values]
    return _strings(np.cumsum([0, *map(len, encoded)]), b"".join(encoded))


def repeated(value: str, n: int) -> Any:
    """A pa.Array of `n` times `value`, less than 2 GiB of text together."""
    encoded = value.encode()
    return _strings(np.arange(n + 1) * len(encoded), encoded * n)


def to_numpy(column: Any) -> np.ndarray:
    """The numbers of a pa.ChunkedArray without nulls, of their own dtype and read-only."""
    return np.from_dlpack(column.combine_chunks())


def _strings(ends: np.ndarray, text: bytes) -> Any:
    if len(text) >= 2**31:
        raise ValueError("too much text for one array")
    buffers = [None, pa.py_buffer(ends.astype(np.int32)), pa.py_buffer(text)]
    return pa.Array.from_buffers(pa.string(), len(ends) - 1, buffers)
