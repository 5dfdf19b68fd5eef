"""Do the costs follow from the measurement, and does the measurement follow from the costs?"""

import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ksmbatch.cost import Costs, _non_negative, fit, visits


@pytest.fixture(scope="module")
def measured(root: Path) -> Any:
    return json.loads((root / "tests/truth/three-vms.cpu.json").read_text())


def test_the_defaults_are_what_the_fit_makes_of_the_measurement(measured: Any) -> None:
    assert fit(measured) == Costs()


def test_every_measured_full_scan_is_reproduced_within_six_percent(measured: Any) -> None:
    costs = asdict(Costs())
    deviations = []
    for run in measured["runs"]:
        for row, scan in zip(visits(run["full_scans"]), run["full_scans"], strict=True):
            ours_ms = sum(costs[name] * n for name, n in row.items()) / 1e6
            deviations.append(abs(ours_ms / scan["ksmd_cpu_ms"] - 1))
    assert len(deviations) == 8
    assert max(deviations) < 0.06


def test_the_kinds_of_visit_add_up_to_the_pages_scanned(measured: Any) -> None:
    for run in measured["runs"]:
        rows = visits(run["full_scans"])
        assert np.cumsum([sum(row.values()) for row in rows]).tolist() == [scan["pages_scanned"] for scan in run["full_scans"]]
        assert all(n >= 0 for row in rows for n in row.values())


def test_visits_of_a_small_machine_are_told_apart() -> None:
    # three equal pages, two lonely ones, one of zeros: 2nd scan founds one KSM page with 3 mappings
    scans = [
        {"pages_scanned": 6, "pages_shared": 0, "pages_sharing": 0, "ksm_zero_pages": 0},
        {"pages_scanned": 12, "pages_shared": 1, "pages_sharing": 2, "ksm_zero_pages": 1},
        {"pages_scanned": 17, "pages_shared": 1, "pages_sharing": 2, "ksm_zero_pages": 1},
    ]
    first, second, third = visits(scans)
    assert first == {"ksm_visit_ns": 0, "checksum_ns": 6, "merge_ns": 0, "zero_merge_ns": 0, "search_ns": 0}
    assert second == {"ksm_visit_ns": 0, "checksum_ns": 0, "merge_ns": 2, "zero_merge_ns": 1, "search_ns": 3}
    assert third == {"ksm_visit_ns": 3, "checksum_ns": 0, "merge_ns": 0, "zero_merge_ns": 0, "search_ns": 2}


def test_a_slower_machine_gives_higher_costs(measured: Any) -> None:
    slower = json.loads(json.dumps(measured))
    for run in slower["runs"]:
        for scan in run["full_scans"]:
            scan["ksmd_cpu_ms"] *= 3
    for name in ("checksum_ns", "search_ns", "merge_ns", "zero_merge_ns"):
        assert getattr(fit(slower), name) > 2 * getattr(Costs(), name)


def test_every_cost_is_a_whole_number_of_nanoseconds_with_a_source() -> None:
    assert Costs.__doc__ is not None
    for field in fields(Costs):
        value = getattr(Costs(), field.name)
        assert type(value) is int
        assert value > 0
        line = next(line for line in Costs.__doc__.splitlines() if line.strip().startswith(f"`{field.name}`"))
        assert line


def test_the_least_squares_solution_is_never_negative() -> None:
    matrix = np.array([[1.0, 1.0], [1.0, 1.1], [1.0, 1.2]])
    target = np.array([3.0, 2.0, 1.0])  # the best line falls: its slope would be negative
    solution = _non_negative(matrix, target)
    assert (solution >= 0).all()
    grid = [np.array([a, b]) for a in np.linspace(0, 4, 81) for b in np.linspace(0, 4, 81)]
    assert ((matrix @ solution - target) ** 2).sum() <= min(((matrix @ x - target) ** 2).sum() for x in grid) + 1e-12


def test_an_exact_solution_is_found() -> None:
    matrix = np.array([[1.0, 2.0, 0.0], [0.0, 1.0, 3.0], [2.0, 0.0, 1.0], [1.0, 1.0, 1.0]])
    assert _non_negative(matrix, matrix @ np.array([5.0, 0.0, 2.0])) == pytest.approx([5.0, 0.0, 2.0])
