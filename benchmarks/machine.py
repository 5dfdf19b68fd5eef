"""What a figure depends on: the machine and the versions of everything that can change it. No names of hosts."""

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from llvmlite import binding
from peers import native

from ksmbatch import provenance


def machine() -> dict[str, Any]:
    """The machine, the versions, the sources' digest and the day."""
    about, software = provenance.environment(), provenance.software()
    return {
        "cpu": about["cpu"],
        "cores": about["cores"],
        "memory": _memory(),
        "system": about["system"],
        "python": about["python"],
        "packages": about["packages"],
        "llvm": ".".join(map(str, binding.llvm_version_info)),
        "g++": native.version(),
        "version": software["version"],
        "sources": software["sources"],
        "day": datetime.now(UTC).date().isoformat(),
    }


def headline() -> str:
    """Machine and versions on a line, for benchmarks that print one of their own."""
    about = provenance.environment()
    load = f"{about['cores']} cores, load {os.getloadavg()[0]:.1f}"
    return f"{about['cpu']}, {load}, Python {about['python']}, {about['packages']}"


def _memory() -> int:
    """Bytes of memory."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("MemTotal:")) * 1024
