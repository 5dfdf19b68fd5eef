"""Is the scenario that leads the kernel into freed memory called what it is, where the kernel would get there?

After merge_across_nodes 0 -> 1 the kernel resets only the unstable tree of node 0; after 1 -> 0 in mid-scan it walks the other
ones, whose rmap_items may have been freed. That other ways of switching are safe is asked here, too.
"""

import json
from pathlib import Path

import pytest
from machines import KERNELS, Player, Step, filled, full_scan, knob, mmap, scan, scenario, spawn, write
from reference import Machine as Twin

from ksmbatch.cli import main
from ksmbatch.scenario import parse_scenario

# The last batch frees the rmap_item of page 0 of k and visits page 1: the tree of node 1 still has the former as its root.
STEPS: tuple[Step, ...] = (
    spawn(),
    mmap("m", 1),
    mmap("k", 2, node=1),
    write("m", 1),
    write("k", 11, 12),
    full_scan(2),
    knob("merge_across_nodes", 1),
    {"op": "discard", "proc": "a", "area": "k", "first": 0, "count": 1},
    scan(),  # the next scan begins, and passes m
    knob("merge_across_nodes", 0),
    scan(),
)
KNOBS = {"merge_across_nodes": 0, "pages_to_scan": 1}
NEEDED = range(3, 11)  # without the first three there is no process or area


def document(steps: tuple[Step, ...] = STEPS, name: str = "freed") -> Step:
    return scenario(*steps, name=name, **KNOBS)


def engine_faults(steps: tuple[Step, ...], kernel: str) -> dict[int, str]:
    """step -> what the engine says of it, if it is undefined."""
    outcomes = enumerate(Player(document(steps), kernel).outcomes())
    return {step: outcome.undefined for step, outcome in outcomes if outcome.undefined}


def twin_faults(steps: tuple[Step, ...], kernel: str) -> dict[int, str]:
    twin = Twin(parse_scenario(document(steps), "test").document, kernel)
    found = {}
    for step in range(len(steps)):
        observation = twin.step(step)
        if "undefined" in observation:
            found[step] = observation["undefined"]
            break
    return found


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_walk_over_a_freed_rmap_item_is_found_at_the_step_at_which_the_twin_finds_it(kernel: str) -> None:
    ours, theirs = engine_faults(STEPS, kernel), twin_faults(STEPS, kernel)
    assert list(ours) == list(theirs) == [10]
    assert ours[10].startswith("use after free: ")
    assert theirs[10].startswith("use after free: ")
    assert "page 0 of a.k" in ours[10]


@pytest.mark.parametrize("left_out", NEEDED)
def test_without_any_of_its_steps_nothing_is_freed_or_nothing_is_walked(left_out: int) -> None:
    steps = STEPS[:left_out] + STEPS[left_out + 1 :]
    assert engine_faults(steps, "6.12") == twin_faults(steps, "6.12") == {}


def test_switching_between_scans_is_safe() -> None:
    steps = (*STEPS[:8], full_scan(), knob("merge_across_nodes", 0), full_scan(2))
    assert engine_faults(steps, "6.12") == twin_faults(steps, "6.12") == {}


def test_replay_ends_there_says_so_and_runs_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    after = document((*STEPS, full_scan()))
    other = scenario(*filled([7, 7]), full_scan(2), name="harmless")
    (tmp_path / "both.json").write_text(json.dumps([after, other]))
    with pytest.raises(SystemExit) as exit_:
        main(["replay", str(tmp_path / "both.json"), "--out", str(tmp_path / "out")])
    assert exit_.value.code == 1
    assert "Traceback" not in capsys.readouterr().err
    freed = json.loads((tmp_path / "out" / "freed.json").read_text())["steps"]
    assert len(freed) == 11
    assert list(freed[-1]) == ["undefined"]
    assert freed[-1]["undefined"].startswith("use after free: ")
    assert len(json.loads((tmp_path / "out" / "harmless.json").read_text())["steps"]) == 4
