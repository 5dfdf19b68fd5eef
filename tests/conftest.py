"""What all tests share: where the recorded reality lies, and how long Hypothesis may search.

It holds no machines and no doubles; those stand beside the tests that need them.
"""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Unit tests call kernels that only kernels call otherwise. That is settled when the first one is compiled, here; the command
# line, which tests start as users do, is left with what users have.
os.environ["KSMBATCH_WRAP_ALL"] = "1"
from ksmbatch import accel

assert accel.CACHED is not None
del os.environ["KSMBATCH_WRAP_ALL"]

ROOT = Path(__file__).resolve().parent.parent

# In the normal run the examples are the same every time: a failure that only a lucky day finds is the nightly run's.
settings.register_profile("normal", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("nightly", deadline=None, max_examples=2_000, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "normal"))


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of recordings and traces beside the repository; without it the test is skipped."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip("needs the recordings in ../shared, which are not part of the repository")
    return folder
