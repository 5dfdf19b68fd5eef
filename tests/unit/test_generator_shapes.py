"""Do generators have the shapes that were published? Counted with numpy alone, on what they write.

docs/generators.md has the figures and their sources. What every generator promises is in tests/contract/test_generators.py.
"""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from machines import compiled_only

from ksmbatch.codes import Kernel
from ksmbatch.errors import InputError
from ksmbatch.events import Exit, Fork, FullScan, Mmap, Spawn, Write
from ksmbatch.generators import GENERATORS
from ksmbatch.machine import Machine
from ksmbatch.metrics import derive
from ksmbatch.program import compile_workload
from ksmbatch.workload import Snapshot, Workload


def build(name: str, full_scans: int = 1, **given: Any) -> Workload:
    generator = GENERATORS[name]
    return generator.build(generator.read(given), nodes=1, binding=None, seed=1, full_scans=full_scans)


def memories(workload: Workload) -> list[dict[str, np.ndarray]]:
    """After each snapshot, by living process, the contents of its pages (each has one area)."""
    now: dict[str, np.ndarray] = {}
    seen = []
    for snapshot in workload.snapshots:
        for step in snapshot.steps:
            match step:
                case Mmap():
                    now[step.proc] = np.zeros(step.pages, np.uint64)
                case Fork():
                    now[step.child] = now[step.proc].copy()
                case Exit():
                    del now[step.proc]
                case Write():
                    now[step.proc][step.pages] = step.contents
                case _:
                    pass
        seen.append({proc: held.copy() for proc, held in now.items()})
    return seen


def first(name: str, **given: Any) -> np.ndarray:
    """Contents of all pages of all processes at the start."""
    return np.concatenate([*memories(build(name, **given))[0].values()])


def counts(content: np.ndarray) -> np.ndarray:
    """How many pages each content has, most first."""
    return np.sort(np.unique(content, return_counts=True)[1])[::-1]


def saved(content: np.ndarray) -> float:
    """The share of pages that need no frame of their own."""
    return 1 - counts(content).size / content.size


# ---- vm-clones


def test_ten_clones_need_48_percent_less_memory() -> None:
    assert saved(first("vm-clones", pages_per_mm=5000)) == pytest.approx(0.48, abs=0.01)


def test_clones_drift_apart_page_by_page() -> None:
    seen = memories(build("vm-clones", full_scans=8, pages_per_mm=4000, mms=4, image=0.6, rewritten_per_scan=0.05))
    image = np.flatnonzero((seen[0]["vm0"] == seen[0]["vm1"]) & (seen[0]["vm0"] != 0))
    equal = [np.mean(moment["vm0"][image] == moment["vm1"][image]) for moment in seen]
    assert equal == pytest.approx([0.95 ** (2 * scan) for scan in range(8)], abs=0.02)  # two clones, each with 5 % per scan


def test_an_update_is_equal_in_all_clones() -> None:
    before, after = memories(build("vm-clones", full_scans=2, pages_per_mm=1000, mms=3, rewritten_per_scan=0.1, updated=0.6))
    new = [set(after[vm][before[vm] != after[vm]].tolist()) for vm in before]
    assert [len(each) for each in new] == [100] * 3
    assert len(set.intersection(*new)) == 60
    assert len(set.union(*new)) == 60 + 3 * 40


# ---- zero-heavy


def test_two_windows_guests_share_as_the_published_host_did() -> None:
    # pages_shared 60,887, pages_sharing 835,511, pages_unshared 124,818 of two guests of 2 GiB
    pages = counts(first("zero-heavy", pages_per_mm=20_000))
    shared, sharing, unshared = np.sum(pages > 1), np.sum(pages[pages > 1] - 1), np.sum(pages == 1)
    assert sharing / shared == pytest.approx(835_511 / 60_887, rel=0.02)
    assert unshared / shared == pytest.approx(124_818 / 60_887, rel=0.02)


def test_as_many_pages_are_freed_and_zeroed_as_are_taken_into_use() -> None:
    seen = memories(build("zero-heavy", full_scans=30, pages_per_mm=1000, rewritten_per_scan=0.1))
    assert {int(np.sum(moment[guest] == 0)) for moment in seen for guest in moment} == {758}
    changed = [np.sum(before["win0"] != after["win0"]) for before, after in pairwise(seen)]
    assert set(changed) == {100}
    used = [set(moment["win0"].tolist()) for moment in seen]
    assert len(used[-1] & used[0]) == 120  # after 1500 pages all are new but the zeros and the image


# ---- heavy-tail


HARVESTER = {"shared": 312_514, "sharing": 17_299_179, "unshared": 2_334_736, "volatile": 65_571, "chains": 30, "dups": 56_249}


def test_thirty_contents_own_83_percent_of_the_sharing() -> None:
    pages = counts(first("heavy-tail", pages_per_mm=64_000))
    full, rest = np.divmod(pages, 256)
    dups = full + (rest > 1)
    sharing = full * 255 + np.maximum(rest - 1, 0)
    assert np.sum(dups > 1) == HARVESTER["chains"]
    assert sharing[:30].sum() / sharing.sum() == pytest.approx(0.83, abs=0.005)
    assert sharing.sum() / dups.sum() == pytest.approx(HARVESTER["sharing"] / HARVESTER["shared"], rel=0.05)
    assert dups[dups > 1].sum() / dups.sum() == pytest.approx(HARVESTER["dups"] / HARVESTER["shared"], rel=0.05)


def test_what_is_alone_and_what_changes_has_its_share() -> None:
    all_pages = sum(HARVESTER[kind] for kind in ("shared", "sharing", "unshared", "volatile"))
    before, after = (
        np.concatenate([*moment.values()])
        for moment in memories(build("heavy-tail", full_scans=2, pages_per_mm=16_000, rewritten_per_scan=0.00328))
    )
    changed = np.flatnonzero(before != after)
    assert changed.size / before.size == pytest.approx(HARVESTER["volatile"] / all_pages, rel=0.02)
    alone = np.sum(counts(before) == 1) - changed.size
    assert alone / before.size == pytest.approx(HARVESTER["unshared"] / all_pages, rel=0.02)
    third = np.concatenate(
        [*memories(build("heavy-tail", full_scans=3, pages_per_mm=16_000, rewritten_per_scan=0.00328))[2].values()]
    )
    assert (np.flatnonzero(after != third) == changed).all()  # the same pages every time


# ---- serverless


def test_sixteen_sandboxes_of_a_function_need_55_percent_less_memory() -> None:
    for moment in memories(build("serverless", pages_per_mm=2000, lasts="40s")):
        assert len(moment) == 16
        assert saved(np.concatenate([*moment.values()])) == pytest.approx(0.55, abs=0.01)


def test_sandboxes_live_as_long_as_they_are_said_to() -> None:
    workload = build("serverless", pages_per_mm=10, mms=50, lifetime="10s", lasts="5min")
    born: dict[str, int] = {}
    lives = []
    for snapshot in workload.snapshots:
        for step in snapshot.steps:
            if isinstance(step, Spawn):
                born[step.proc] = snapshot.time_ms
            elif isinstance(step, Exit) and born[step.proc] > 0:
                lives.append(snapshot.time_ms - born[step.proc])
    assert 5000 <= min(lives) < 5200 < 14_800 < max(lives) <= 15_000
    assert np.mean(lives) == pytest.approx(10_000, rel=0.03)
    assert workload.end_ms == 300_000
    assert workload.snapshots[-1].time_ms < 300_000


def test_sandboxes_of_different_functions_share_the_runtime_only() -> None:
    (moment, *_) = memories(build("serverless", pages_per_mm=1000, functions=40, lasts="1s"))
    common = [len(np.intersect1d(moment["sandbox0"], moment[other])) for other in moment if other != "sandbox0"]
    assert set(common) <= {350 + 1, 350 + 190 + 1}  # and the zeros
    assert 351 in common


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ({"lifetime": "0s"}, "workload.lifetime = .*must be a time longer than 0"),
        ({"lasts": "soon"}, "workload.lasts = .*must be a time longer than 0"),
        ({"lifetime": "1ms", "lasts": "1d"}, "workload.lasts = .*makes up to .* sandboxes: must be at most 100000"),
        ({"pages_per_mm": 2**26}, "workload.lasts = .*must be at most 16"),
        ({"runtime": 0.6, "function": 0.5}, "workload.function = 0.5: must be at most 1 together with runtime"),
    ],
)
def test_a_serverless_host_that_cannot_be_is_refused(given: dict[str, Any], fault: str) -> None:
    with pytest.raises(InputError, match=fault):
        build("serverless", **{"pages_per_mm": 100} | given)


# ---- python-prefork


@compiled_only
def test_smart_scan_spares_a_quarter_of_the_pages() -> None:
    # "from over 20M pages per scan to less than 15M"
    steps = [*build("python-prefork", pages_per_mm=500).snapshots[0].steps]
    visited = []
    for smart_scan in (0, 1):
        scans = [FullScan(count=20), FullScan(count=36)]
        program = compile_workload(Workload(name="t", nodes=1, snapshots=[Snapshot(time_ms=0, steps=[*steps, *scans])]))
        machine = Machine(program, Kernel.V6_12, {"pages_to_scan": 10**6, "run": 1, "smart_scan": smart_scan})
        scanned = []
        for step in program.snapshots[0][1]:
            machine.apply(step)
            scanned.append(derive(machine.state.counters.tolist())["pages_scanned"])
        visited.append(scanned[-1] - scanned[-2])
    assert visited[1] / visited[0] == pytest.approx(15 / 20, abs=0.02)


def test_workers_differ_in_what_is_private_and_agree_in_the_rest() -> None:
    (moment,) = memories(build("python-prefork", pages_per_mm=1000, servers=2, workers=3, private=0.3, alike=0.2, zero=0.1))
    assert list(moment) == ["app0", "app1", *(f"app{server}.{worker}" for server in (0, 1) for worker in (0, 1, 2))]
    workers = [held for proc, held in moment.items() if "." in proc]
    assert (moment["app0"] == moment["app1"]).all()
    assert np.sum(moment["app0"] == 0) == 100
    different = np.flatnonzero(workers[0] != workers[5])
    assert different.size == 300
    assert len({int(held[different[0]]) for held in workers}) == 6
    late = np.flatnonzero((workers[0] == workers[5]) & (workers[0] != moment["app0"]))
    assert late.size == 200


def test_of_the_pages_that_are_copied_later_some_hold_what_they_held() -> None:
    given = {"pages_per_mm": 1000, "servers": 1, "workers": 2, "private": 0.0, "alike": 0.0, "rewritten_per_scan": 0.1}
    workload = build("python-prefork", full_scans=2, restored=0.4, **given)
    before, after = memories(workload)
    written = [step for step in workload.snapshots[1].steps if isinstance(step, Write)]
    assert [step.pages.size for step in written] == [100, 100]
    assert [int(np.sum(before[step.proc] != after[step.proc])) for step in written] == [60, 60]


# ---- jvm


def test_class_sharing_makes_nine_tenths_of_the_class_metadata_equal() -> None:
    def class_pages_saved(shared_classes: float) -> float:
        with_classes = first("jvm", pages_per_mm=10_000, shared_classes=shared_classes)
        without = first("jvm", pages_per_mm=10_000)
        # of the three guests that find a first one's pages there already
        return (saved(with_classes) - saved(without)) * with_classes.size / (3 * 1000)

    assert class_pages_saved(0.0) == 0
    assert class_pages_saved(0.896) == pytest.approx(0.896, abs=0.001)


def test_the_heap_changes_and_the_rest_does_not() -> None:
    seen = memories(build("jvm", full_scans=40, pages_per_mm=1000, shared_classes=0.5, rewritten_per_scan=0.1))
    still = np.flatnonzero(np.all([moment["jvm1"] == seen[0]["jvm1"] for moment in seen], axis=0))
    assert still.size == 250  # image and class metadata
    assert {int(np.sum(moment["jvm1"] == 0)) for moment in seen} == {100}


# ---- what all check


@pytest.mark.parametrize("name", ["heavy-tail", "jvm", "vm-clones", "zero-heavy", "python-prefork", "serverless"])
def test_a_host_beyond_all_numbers_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"must be at most \d+"):
        build(name, pages_per_mm=2**30)


def test_no_more_than_everything_can_be_asked_for() -> None:
    for name, given in (
        ("vm-clones", {"image": 0.99}),
        ("zero-heavy", {"image": 0.3}),
        ("jvm", {"classes": 0.8}),
        ("heavy-tail", {"grouped": 0.5}),
    ):
        with pytest.raises(InputError, match="must be at most 1 together with"):
            build(name, pages_per_mm=100, **given)
    with pytest.raises(InputError, match=r"^workload.exponent = 21: must be a number from 0 to 20"):
        build("heavy-tail", pages_per_mm=100, exponent=21)
