"""ksmbatch simulates the Linux kernel's KSM on NUMA hosts, exactly where the kernel can be recorded, and in batches.

This file holds the versions and nothing that takes time to import; the parts are imported by their own names.
"""

from typing import Final

from ksmbatch.errors import InputError, KsmbatchError

__version__: Final = "0.1.0"

# Version of the simulated results: it grows with every entry under "Model" in CHANGELOG.md, and is part of every run_id,
# so that a sweep never mixes old results with new ones.
MODEL_VERSION: Final = 3

__all__ = ["MODEL_VERSION", "InputError", "KsmbatchError", "__version__"]
