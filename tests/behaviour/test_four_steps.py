"""The thread's question in four steps, worked out by hand for every answer: merge, migrate, write (COW), migrate again.

Two areas hold one content: m, three pages on node 0, and n, two pages on node 1. ksmd merges each on its own node, m moves to
node 1 and meets n's KSM page there, its first page is written, and m moves back. Then ksmd scans twice more.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from machines import Step, filled, full_scan, mmap, scenario, write

from ksmbatch.codes import Kernel, Policy
from ksmbatch.config import expand, load
from ksmbatch.engine import simulate
from ksmbatch.invariants import check_invariants
from ksmbatch.metrics import NodeCounter
from ksmbatch.program import compile_config
from ksmbatch.replay import Session, replay_paths
from ksmbatch.scenario import parse_scenario

ALL_THERE, ALL_BACK, STUCK, LEFT = (1, 1, 1), (0, 0, 0), (0, "stuck", "stuck"), ("EAGAIN",) * 3


def migrate(node: int) -> Step:
    return {"op": "migrate", "proc": "a", "area": "m", "node": node}


def rebind(node: int) -> Step:
    return {"op": "rebind", "proc": "a", "area": "m", "node": node}


def four_steps(*before_moving: Step) -> Step:
    """The scenario; the last but three steps are those of the thread."""
    start = [*filled([7, 7, 7]), mmap("n", 2, node=1), write("n", 7, 7), full_scan(3)]
    return scenario(
        *start, *before_moving, migrate(1), write("m", 8), migrate(0), full_scan(2), merge_across_nodes=0, name="four"
    )


def played(document: Step, policy: Policy, kernel: Kernel = Kernel.V6_12) -> tuple[list[Any], dict[str, Any]]:
    """Statuses of the two migrations; at the end sysfs, what moves came to, KSM frames and all frames per node."""
    session = Session(parse_scenario(document, "test"), kernel, policy=policy)
    statuses = []
    for seen in session.steps():
        statuses += [tuple(seen["status"])] if "status" in seen else []
        assert check_invariants(session.machine.state) == []
    counters = session.machine.state.node_counters
    fields = ("full_scans", "pages_shared", "pages_sharing", "pages_unshared", "pages_volatile", "cow_ksm")
    values = session.last()
    counted = {name: value for name, value in session.counted().items() if value}
    return statuses, {
        "sysfs": tuple(values[name] for name in fields),
        "counted": counted,
        "ksm_frames": tuple(counters[:, NodeCounter.KSM_FRAMES].tolist()),
        "frames": tuple(counters[:, NodeCounter.FRAMES].tolist()),
        **{name: session.machine.survey()[name] for name in ("duplicates_left", "stranded_pages")},
    }


# m's frame moves there and back; its node never left tree 0, and nobody scanned in between
MAINLINE = {
    "sysfs": (5, 2, 2, 1, 0, 1),  # m[1] and m[2]; n; m[0] is alone with its new content
    "counted": {"frames_moved": 2, "ksm_frames_moved": 2},
    "ksm_frames": (1, 1),
    "frames": (2, 1),
    "duplicates_left": 0,
    "stranded_pages": 0,
}
# m's node is freed; the copy on write, two moves that go through freed memory, and two visits of two pages are corruptions
V4 = {
    "sysfs": (5, 1, 1, 1, 2, 1),
    "counted": {"frames_moved": 1, "ksm_frames_moved": 1, "dangling_pages": 1, "corruptions": 7, "migrate_stuck": 2},
    "ksm_frames": (0, 2),
    "frames": (1, 2),
    "duplicates_left": 1,
    "stranded_pages": 2,
}
# m's mappings join n's frame; moving back takes that frame, and n with it, to a node that has none
SUBSTITUTE = {
    "sysfs": (5, 1, 3, 1, 0, 1),
    "counted": {"frames_moved": 2, "ksm_frames_moved": 2, "migrate_merged": 1, "migrate_inserted": 1},
    "ksm_frames": (1, 0),
    "frames": (2, 0),
    "duplicates_left": 0,
    "stranded_pages": 0,
}
# three copies on node 1; the write needs none; three private frames move back, and ksmd merges the two that are still equal
BREAK_COW = {
    "sysfs": (5, 2, 2, 1, 0, 3),
    "counted": {"frames_moved": 4, "ksm_frames_moved": 1, "migrate_allocations": 3},
    "ksm_frames": (1, 1),
    "frames": (2, 1),
    "duplicates_left": 0,
    "stranded_pages": 0,
}
# nobody told the memory policy, so m's pages are at home on node 0 and the frame stays
AT_HOME = MAINLINE | {"counted": {}}

EXPECTED = {
    Policy.MAINLINE: ([ALL_THERE, ALL_BACK], MAINLINE),
    Policy.V4: ([ALL_THERE, STUCK], V4),
    Policy.MERGE_ON_MIGRATE: (
        [ALL_THERE, ALL_BACK],
        SUBSTITUTE | {"counted": SUBSTITUTE["counted"] | {"migrate_copies": 1}},  # type: ignore[operator]  # a dict, see there
    ),
    Policy.SUBSTITUTE: ([ALL_THERE, ALL_BACK], SUBSTITUTE),
    Policy.BREAK_COW: ([ALL_THERE, ALL_BACK], BREAK_COW),
    Policy.NUKSM: ([LEFT, ALL_BACK], AT_HOME),
    Policy.REPLICATE: ([LEFT, ALL_BACK], AT_HOME),
}


@pytest.mark.parametrize("policy", list(Policy))
def test_the_four_steps_end_as_worked_out_by_hand(policy: Policy) -> None:
    assert played(four_steps(), policy) == EXPECTED[policy]


@pytest.mark.parametrize("kernel", list(Kernel))
@pytest.mark.parametrize("policy", list(Policy))
def test_only_v4_corrupts_on_any_kernel(policy: Policy, kernel: Kernel) -> None:
    _, end = played(four_steps(), policy, kernel)
    corrupted = {name for name in end["counted"] if name in ("corruptions", "dangling_pages")}
    assert corrupted == ({"corruptions", "dangling_pages"} if policy == Policy.V4 else set())


@pytest.mark.parametrize("policy", list(Policy))
def test_with_one_tree_for_all_nodes_every_policy_keeps_the_rmap_whole(policy: Policy) -> None:
    document = four_steps()
    document["knobs"]["merge_across_nodes"] = 1
    _, end = played(document, policy)
    assert "corruptions" not in end["counted"]
    assert end["sysfs"] == (5, 1, 3, 1, 0, 1)


def test_a_page_whose_memory_policy_moved_first_goes_to_its_new_home_under_nuksm() -> None:
    statuses, end = played(four_steps(rebind(1)), Policy.NUKSM)
    # it merges with n's page, for all its mappings are at home there; nobody is on the way back, and the write is local
    assert statuses == [ALL_THERE, (0, "EAGAIN", "EAGAIN")]
    assert end["sysfs"] == (5, 1, 3, 1, 0, 1)
    assert end["counted"] == {"frames_moved": 2, "ksm_frames_moved": 1, "migrate_merged": 1}
    assert end["ksm_frames"] == (0, 1)


def test_replicate_gives_pages_their_own_nodes_copy_when_ksmd_passes() -> None:
    statuses, end = played(four_steps(rebind(1)), Policy.REPLICATE)
    # m[0] is written on node 1, and goes back alone; ksmd lets m[1] and m[2] join n's copy on node 1, and node 0's goes
    assert statuses == [LEFT, ALL_BACK]
    assert end["sysfs"] == (5, 1, 3, 1, 0, 1)
    assert end["counted"] == {"frames_moved": 1}
    assert (end["ksm_frames"], end["frames"]) == ((0, 1), (1, 1))


def test_replay_writes_what_moves_came_to_under_a_policy_that_no_kernel_has(tmp_path: Path) -> None:
    path = tmp_path / "four.json"
    path.write_text(json.dumps(four_steps()))
    assert replay_paths([path], None, "v4", tmp_path / "v4", tables=True) == 0
    assert replay_paths([path], None, "mainline", tmp_path / "mainline", tables=True) == 0
    v4, mainline = (json.loads((tmp_path / name / "four.json").read_text()) for name in ("v4", "mainline"))
    assert (v4["policy"], v4["steps"][-1]["counted"]["corruptions"]) == ("v4", 7)
    assert "policy" not in mainline  # an oracle's recording has no such field
    assert "counted" not in mainline["steps"][-1]


def test_a_run_of_the_scenario_reports_the_same_figures(tmp_path: Path) -> None:
    (tmp_path / "four.json").write_text(json.dumps(four_steps()))
    (tmp_path / "four.toml").write_text(
        "[host]\nnodes = 2\n[ksm]\nmerge_across_nodes = 0\nsmart_scan = 0\npages_to_scan = 1000\n"
        '[migration]\npolicy = "v4"\n[workload]\nscenario = "four.json"\n'
    )
    config = expand(load(tmp_path / "four.toml"))[0].config
    last = simulate(compile_config(config), config).last
    assert (last["corruptions"], last["dangling_pages"], last["duplicates_left"]) == (7, 1, 1)
