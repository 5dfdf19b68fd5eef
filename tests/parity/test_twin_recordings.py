"""Does the slow twin do what the real kernels did? Every observation of every recording that the project keeps.

How the engine compares with the recordings is another test's question.
"""

import copy
import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from reference import KERNELS, replay

RECORDINGS = Path(__file__).resolve().parent.parent / "recordings"
HEADER = ("format", "knob_errno", "sysfs_fields", "proc_fields")
INFORMATIVE = "batches"  # a real ksmd also wakes up in vain

Recording = dict[str, Any]


def read(file: Path) -> list[Recording]:
    found: list[Recording] = json.loads(gzip.decompress(file.read_bytes()))
    return found


def recordings(kernel: str) -> list[Recording]:
    files = [RECORDINGS / f"{kernel}.json.gz", *sorted((RECORDINGS / "extra" / kernel).glob("*.json.gz"))]
    return [rec for file in files for rec in read(file)]


def differences(real: Recording, ours: Recording) -> list[str]:
    """What differs, as `name: step: field`."""
    name = real["scenario"]["name"]
    found = [f"{name}: header: {key}" for key in HEADER if real[key] != ours[key]]
    theirs, mine = [real["initial"], *real["steps"]], [ours["initial"], *ours["steps"]]
    if len(theirs) != len(mine):
        found.append(f"{name}: {len(mine)} observations instead of {len(theirs)}")
    for step, (a, b) in enumerate(zip(theirs, mine, strict=False), -1):
        found += [f"{name}: {step}: {key}" for key in sorted({*a, *b} - {INFORMATIVE}) if a.get(key) != b.get(key)]
    return found


@pytest.mark.parametrize("kernel", sorted(KERNELS))
def test_the_twin_shows_what_the_kernel_showed_at_every_step(kernel: str) -> None:
    recorded = recordings(kernel)
    assert len(recorded) > 331
    assert [line for real in recorded for line in differences(real, replay(real["scenario"], kernel))] == []


def test_one_changed_number_is_noticed() -> None:
    real = read(RECORDINGS / "6.12.json.gz")[0]
    ours = replay(real["scenario"], "6.12")
    changed = copy.deepcopy(ours)
    changed["steps"][5]["sysfs"][1] += 1
    assert differences(real, ours) == []
    assert differences(real, changed) == [f"{real['scenario']['name']}: 5: sysfs"]


@pytest.mark.parametrize(("kernel", "other"), [("6.1", "6.12"), ("6.12", "6.1"), ("7.2", "6.12")])
def test_another_kernel_would_not_do(kernel: str, other: str) -> None:
    tables = [
        line
        for real in read(RECORDINGS / "extra" / kernel / "asked.json.gz")
        for line in differences(real, replay(real["scenario"], other))
        if line.endswith(": tables")
    ]
    assert tables  # pages would be mapped otherwise, whatever the fields are called
