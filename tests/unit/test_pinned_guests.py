"""Are guests pinned one to a node, with one image in common, and all else their own?"""

from typing import Any

import numpy as np
import pytest

from ksmbatch.errors import InputError
from ksmbatch.events import Mmap, Spawn, Write
from ksmbatch.generators import find_generator
from ksmbatch.workload import Workload

SMALL = {"pages_per_guest": 1000, "image": 0.5, "zero": 0.1, "rewritten_per_scan": 0.02}


def build(nodes: int = 4, binding: Any = None, seed: int = 1, full_scans: int = 4, **given: Any) -> Workload:
    generator = find_generator("pinned-guests")
    return generator.build(generator.read(SMALL | given), nodes=nodes, binding=binding, seed=seed, full_scans=full_scans)


def contents(workload: Workload) -> np.ndarray:
    """What the guests hold at the start: uint64[guests, pages]."""
    return np.stack([step.contents for step in workload.snapshots[0].steps if isinstance(step, Write)])


@pytest.mark.parametrize("nodes", range(1, 9))
def test_every_node_has_a_guest(nodes: int) -> None:
    steps = build(nodes).snapshots[0].steps
    assert [step.proc for step in steps if isinstance(step, Spawn)] == [f"guest{k}" for k in range(nodes)]
    assert [step.node for step in steps if isinstance(step, Mmap)] == list(range(nodes))


def test_who_binds_the_guests_elsewhere_is_believed() -> None:
    areas = [step.node for step in build(3, {"guest1": 2}).snapshots[0].steps if isinstance(step, Mmap)]
    assert areas == [0, 2, 0]


@pytest.mark.parametrize("shuffled", [False, True])
def test_each_guest_has_the_image_once_its_zeros_and_else_what_nobody_has(shuffled: bool) -> None:
    guests = contents(build(shuffled=shuffled))
    raw, count = np.unique(guests, return_counts=True)
    assert (raw[0], count[0]) == (0, 400)
    assert (count[1:] == 4).sum() == 500
    assert (count[1:] == 1).sum() == 4 * 400
    for guest in guests:
        assert (np.unique(guest, return_counts=True)[1][1:] == 1).all()


def test_the_image_lies_at_the_same_pages_or_elsewhere_in_every_guest() -> None:
    same, shuffled = contents(build()), contents(build(shuffled=True))
    assert (same == same[0]).all(axis=0).sum() == 600  # image and zeros
    assert (shuffled[1:] == shuffled[0]).mean() < 0.05


def test_a_share_of_all_pages_is_rewritten_with_contents_never_seen() -> None:
    workload = build(full_scans=5)
    assert len(workload.snapshots) == 5
    seen = set(contents(workload).ravel().tolist())
    for snapshot in list(workload.snapshots)[1:]:
        written = [content for step in snapshot.steps if isinstance(step, Write) for content in step.contents.tolist()]
        assert len(written) == len(set(written)) == 80
        assert not seen & set(written)
        seen |= set(written)


def test_without_rewriting_there_is_one_snapshot() -> None:
    assert len(build(rewritten_per_scan=0).snapshots) == 1


@pytest.mark.parametrize(("image", "zero"), [(0, 0), (1, 0), (0, 1), (0.5, 0.5)])
def test_shares_may_be_all_or_nothing(image: float, zero: float) -> None:
    raw, count = np.unique(contents(build(2, image=image, zero=zero, pages_per_guest=7)), return_counts=True)
    assert count.sum() == 14
    assert (count[raw > 0] == 2).sum() == round(7 * image)


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"pages_per_guest": 0}, "workload.pages_per_guest = 0: must be a whole number, 1 to 134217728"),
        ({"image": 0.95}, "workload.zero = 0.1: must be at most 1 together with image = 0.95"),
        ({"shuffled": 1}, "workload.shuffled = 1: must be true or false"),
        ({"pages_per_mm": 1}, "workload.pages_per_mm = 1: unknown key (nearest: pages_per_guest)"),
    ],
)
def test_a_bad_parameter_is_named(given: dict[str, Any], line: str) -> None:
    with pytest.raises(InputError) as error:
        build(**given)
    assert str(error.value) == line
