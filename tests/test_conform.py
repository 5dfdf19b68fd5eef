"""Does the simulated ksmd show what the real one showed? Every field of every step of every recording, on three kernels.

The recordings were made by other people's code in other people's kernels; nothing here may be an exception to the rule.
"""

import copy
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from machines import KERNELS, RECORDINGS

from ksmbatch.cli import main

Recording = dict[str, Any]
OBSERVATIONS = 9292  # of the 331 scenarios, on every kernel


def conform(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, list[str]]:
    """Exit status and lines of `ksmbatch conform ARGUMENTS`."""
    with pytest.raises(SystemExit) as exit_:
        main(["conform", *map(str, arguments)])
    out, err = capsys.readouterr()
    assert err == ""
    assert isinstance(exit_.value.code, int)
    return exit_.value.code, out.splitlines()


def kept(kernel: str) -> list[Recording]:
    recordings: list[Recording] = json.loads(gzip.decompress((RECORDINGS / f"{kernel}.json.gz").read_bytes()))
    return recordings


@pytest.mark.parametrize("kernel", KERNELS)
def test_every_observation_of_every_recording_is_exact(kernel: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, lines = conform(capsys, RECORDINGS / f"{kernel}.json.gz")
    assert lines == [f"recordings 331/331 exact, observations {OBSERVATIONS}/{OBSERVATIONS} exact"]
    assert status == 0


@pytest.mark.parametrize("kernel", KERNELS)
def test_recordings_made_since_are_exact_too(kernel: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder = RECORDINGS / "extra" / kernel
    if not folder.is_dir():
        pytest.skip(f"there are no recordings in {folder.relative_to(RECORDINGS.parent)}")
    status, lines = conform(capsys, folder)
    assert len(lines) == 1, "\n".join(lines)
    assert status == 0


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_recordings_kept_are_the_recordings_made(kernel: str, shared: Path) -> None:
    made = [json.loads(file.read_text()) for file in sorted((shared / "recordings" / kernel).glob("*.json"))]
    assert sorted(made, key=_name) == sorted(kept(kernel), key=_name)


def _name(recording: Recording) -> str:
    return str(recording["scenario"]["name"])


def test_a_folder_of_recordings_is_replayed_each_on_its_own_kernel(
    shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for kernel in KERNELS:
        (tmp_path / kernel).mkdir()
        for name in ("prot_none", "fork_after_merge", "smart_scan_ages"):
            text = (shared / "recordings" / kernel / f"{name}.json").read_text()
            (tmp_path / kernel / f"{name}.json").write_text(text)
    status, lines = conform(capsys, tmp_path)
    assert status == 0
    assert lines[-1].startswith("recordings 9/9 exact")


@pytest.fixture(scope="module")
def twenty() -> dict[str, Recording]:
    return {_name(one): one for one in kept("6.12")[:20]}


# a change, and how its report begins


def another_counter(recording: Recording) -> str:
    recording["steps"][5]["sysfs"][1] += 1
    value = recording["steps"][5]["sysfs"][1]
    return f"step 5 ({_op(recording, 5)}): sysfs.pages_shared: kernel {value}, ours {value - 1}"


def another_copy(recording: Recording) -> str:
    recording["initial"]["cow_ksm"] = 3
    return "initial: cow_ksm: kernel 3, ours 0"


def another_process_counter(recording: Recording) -> str:
    step, proc = 4, next(iter(recording["steps"][4]["procs"]))
    recording["steps"][step]["procs"][proc][1] -= 1
    value = recording["steps"][step]["procs"][proc][1]
    return f"step {step} ({_op(recording, step)}): procs.{proc}.ksm_rmap_items: kernel {value}, ours {value + 1}"


def another_frame(recording: Recording) -> str:
    step = next(k for k, seen in enumerate(recording["steps"]) if seen["tables"])
    proc, areas = next(iter(recording["steps"][step]["tables"].items()))
    area, table = next(iter(areas.items()))
    table["frames"][0] += 7
    return f"step {step} ({_op(recording, step)}): tables.{proc}.{area}.frames[0]: kernel "


def another_errno(recording: Recording) -> str:
    recording["steps"][0]["errno"] = "EBUSY"
    return f'step 0 ({_op(recording, 0)}): errno: kernel "EBUSY", ours 0'


def _op(recording: Recording, step: int) -> str:
    return str(recording["scenario"]["steps"][step]["op"])


@pytest.mark.parametrize("change", [another_counter, another_copy, another_process_counter, another_frame, another_errno])
def test_a_changed_number_is_reported_with_its_step_and_field(
    change: Callable[[Recording], str], twenty: dict[str, Recording], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = copy.deepcopy(twenty["basic_two_procs"])
    report = change(changed)
    n_seen = sum(1 + len(one["steps"]) for one in twenty.values())
    (tmp_path / "changed.json").write_text(json.dumps([*(twenty | {"basic_two_procs": changed}).values()]))
    status, lines = conform(capsys, tmp_path)
    assert status == 1
    assert lines[0].startswith(f"basic_two_procs: {report}")
    exact, _, seen = lines[1].rpartition(", observations ")
    assert exact == "recordings 19/20 exact"
    # a table is seen until the step that shows another one, so that a wrong frame may count for several observations
    n_exact, n_all = map(int, seen.split()[0].split("/"))
    assert n_all == n_seen
    assert n_exact == n_seen - 1 or (change is another_frame and n_exact < n_seen)


def test_a_recording_made_without_page_tables_is_compared_without_them(
    twenty: dict[str, Recording], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = copy.deepcopy(next(iter(twenty.values())))
    for seen in [bare["initial"], *bare["steps"]]:
        seen["tables"] = {}
    path = tmp_path / "bare.json"
    path.write_text(json.dumps(bare))
    status, lines = conform(capsys, path)
    assert (status, lines[-1].split(",")[0]) == (0, "recordings 1/1 exact")
    bare["steps"][-1]["cow_ksm"] += 1
    path.write_text(json.dumps(bare))
    assert conform(capsys, path)[0] == 1
