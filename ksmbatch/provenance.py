"""Where a results file comes from, as one JSON object in its schema metadata, so that a file found alone explains itself.

It does not decide what may be kept of older results (results.py does), and nothing in it is read back into a simulation.
"""

import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import ksmbatch

KEY: Final = b"ksmbatch.provenance"
_PACKAGES: Final = ("numba", "numpy", "pyarrow")  # what can change a figure; pandas and the like only show it
_CPUINFO: Final = Path("/proc/cpuinfo")


def provenance(table: str, schema: int, origin: Mapping[str, Any]) -> dict[str, Any]:
    """The object for one file.

    `table`: "runs", "samples" or "nodes". `schema`: the version of docs/formats.md. `origin`: `config` (resolved), `seed`
    and `source` (the names of the files that were read), of the one run or, for "runs", of the whole sweep.
    """
    return {"software": dict(software()), "schema": schema, "table": table, **origin, "environment": dict(environment())}


def encode(document: Mapping[str, Any]) -> dict[bytes, bytes]:
    """Schema metadata for Arrow that holds `document`."""
    return {KEY: json.dumps(document, ensure_ascii=False).encode()}


def decode(metadata: Mapping[bytes, bytes] | None) -> dict[str, Any] | None:
    """The object that `encode` put into Arrow's schema metadata; None where there is none of ours."""
    text = (metadata or {}).get(KEY)
    if text is None:
        return None
    try:
        document = json.loads(text)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


@functools.cache
def software() -> Mapping[str, str | int]:
    """Name, version and model version of this package, and a digest of its sources: two checkouts of one version can differ."""
    digest = hashlib.sha256()
    root = Path(__file__).parent
    for source in sorted(root.rglob("*.py")):
        digest.update(f"{source.relative_to(root).as_posix()}\0".encode())
        digest.update(source.read_bytes())
    return {
        "name": "ksmbatch",
        "version": ksmbatch.__version__,
        "model": ksmbatch.MODEL_VERSION,
        "sources": digest.hexdigest()[:16],
    }


@functools.cache
def environment() -> Mapping[str, Any]:
    """The machine, the interpreter, the packages and the time at which this process first asked; the part that may differ
    between files of equal values."""
    return {
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in _PACKAGES},
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": _cpu_model(),
        "cores": cores(),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def cores() -> int:
    """CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # a container or taskset can leave fewer than the machine has
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpu_model() -> str:
    try:
        lines = _CPUINFO.read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or "unknown")
