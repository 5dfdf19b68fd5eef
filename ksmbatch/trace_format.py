"""The trace format in names and numbers: what readers and writers must agree on (docs/formats.md says it in words).

It neither reads nor writes, and imports nothing that takes time.
"""

from typing import Final

VERSION: Final = 2  # that is written; all up to it are read
PAGE_SIZE: Final = 4096
METADATA_KEY: Final = b"ksmbatch.trace"
ORDERS: Final = ("memcmp", "none")
NO_NODE: Final = -1
COLUMNS: Final[dict[str, str]] = {
    "time_ms": "uint32",
    "mm": "dictionary of strings",
    "page": "uint32",
    "content": "uint64",
}
OPTIONAL_COLUMNS: Final[dict[str, str]] = {"node": "int16", "gone": "bool"}  # since version 2
