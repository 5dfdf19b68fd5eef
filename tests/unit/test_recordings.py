"""Are recordings read, written and compared to the letter, and frames numbered as the oracle numbers them?"""

import copy
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ksmbatch.codes import Kernel
from ksmbatch.errors import InputError
from ksmbatch.recordings import (
    ABSENT,
    INITIAL,
    ZERO_PAGE,
    Area,
    Recording,
    TableTracker,
    compare,
    exact_observations,
    expand,
    kernel_of,
    load_recordings,
    make_observation,
    make_recording,
    proc_fields,
    recording_text,
    sysfs_fields,
)

KERNELS = ["6.1", "6.12", "7.2"]


@pytest.fixture(scope="module", params=KERNELS)
def recorded(request: pytest.FixtureRequest, root: Path) -> list[Recording]:
    return load_recordings(root / f"tests/recordings/{request.param}.json.gz")


@pytest.fixture(scope="module")
def one(root: Path) -> dict[str, Any]:
    recordings = load_recordings(root / "tests/recordings/6.12.json.gz")
    return next(recording.document for recording in recordings if recording.scenario.name == "zero_migrate")


# ---- in and out


def test_all_recordings_of_a_kernel_are_there_under_different_names(recorded: list[Recording]) -> None:
    assert len({recording.scenario.name for recording in recorded}) == len(recorded) == 331
    assert sum(len(recording.document["steps"]) + 1 for recording in recorded) == 9292  # type: ignore[arg-type]


def test_a_recording_is_written_as_the_oracle_writes_it(shared: Path, recorded: list[Recording]) -> None:
    word = kernel_of(recorded[0].release, "f").word
    for recording in recorded:
        text = (shared / "recordings" / word / f"{recording.scenario.name}.json").read_text()
        assert recording_text(recording.document) == text


def test_the_fields_of_a_kernel_are_the_recorded_ones(recorded: list[Recording]) -> None:
    kernel = kernel_of(recorded[0].release, "f")
    for recording in recorded:
        assert recording.document["sysfs_fields"] == list(sysfs_fields(kernel))
        assert recording.document["proc_fields"] == list(proc_fields(kernel))


def test_a_recording_put_together_from_its_parts_is_the_same(recorded: list[Recording]) -> None:
    kernel = kernel_of(recorded[0].release, "f")
    for recording in recorded[:20]:
        document: Any = recording.document

        def again(seen: Any, document: Any = document) -> Any:
            return make_observation(
                kernel,
                sysfs=dict(zip(document["sysfs_fields"], seen["sysfs"], strict=True)) | {"more": 1},
                cow_ksm=seen["cow_ksm"],
                procs={proc: dict(zip(document["proc_fields"], row, strict=True)) for proc, row in seen["procs"].items()},
                tables=seen["tables"],
                errno=seen.get("errno"),
                status=seen.get("status"),
                batches=seen.get("batches"),
            )

        made = make_recording(
            kernel,
            recording.scenario,
            knob_errno=document["knob_errno"],
            initial=again(document["initial"]),
            steps=[again(seen) for seen in document["steps"]],
        )
        assert recording_text(made | {"kernel": document["kernel"]}) == recording_text(document)
        assert made["kernel"] == kernel.word


@pytest.mark.parametrize(
    ("release", "kernel"),
    [
        ("6.12.95+deb12-cloud-amd64", Kernel.V6_12),
        ("6.1.0-56-cloud-amd64", Kernel.V6_1),
        ("7.2.13+deb14-cloud-amd64", Kernel.V7_2),
        ("6.1", Kernel.V6_1),
        ("6.12-rc3", Kernel.V6_12),
    ],
)
def test_a_release_names_its_kernel(release: str, kernel: Kernel) -> None:
    assert kernel_of(release, "f") is kernel


@pytest.mark.parametrize("release", ["6.18.44", "6", "", "6.120.1", "7.20"])
def test_a_release_that_is_not_modelled_is_refused(release: str) -> None:
    with pytest.raises(InputError, match=r'^f: kernel = ".*": must be a release of 6\.1, 6\.12, 7\.2$'):
        kernel_of(release, "f")


def _set(*path: Any) -> Callable[[Any], None]:
    *where, last, value = path

    def change(document: Any) -> None:
        for key in where:
            document = document[key]
        document[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda document: document.pop("scenario"), "scenario: is missing: must be a recording (`replay` takes scenarios)"),
        (_set("format", 2), "format = 2: must be an integer from 1 to 1"),
        (_set("kernel", 6), "kernel = 6: must be a string"),
        (_set("scenario", "nodes", 0), "zero_migrate: nodes = 0: must be an integer from 1 to 8"),
        (_set("sysfs_fields", ["a", 1]), 'zero_migrate: sysfs_fields = ["a", 1]: must be a list of names'),
        (lambda document: document.pop("proc_fields"), "zero_migrate: proc_fields: is missing: must be a list of names"),
        (_set("knob_errno", {"smart_scan": 2}), "knob_errno = {"),
        (_set("initial", []), "initial = []: must be an observation"),
        (_set("steps", [1]), "steps = [1]: must be a list of observations"),
        (_set("steps", 2, "errno", None), "zero_migrate: step 2: errno = null: must be 0 or the name of an error"),
        (_set("steps", 2, "sysfs", 3, 1.0), "step 2: sysfs = ["),
        (_set("steps", 2, "sysfs", 3, True), "step 2: sysfs = ["),
        (_set("steps", 2, "cow_ksm", "1"), 'step 2: cow_ksm = "1": must be an integer'),
        (_set("steps", 2, "procs", "a", {}), "step 2: procs = {"),
        (_set("steps", 2, "tables", {"a": {"m": {"frames": [None], "nodes": "", "ksm": ""}}}), "step 2: tables = {"),
        (_set("initial", "tables", [1]), "initial: tables = [1]: must be an object"),
    ],
)
def test_what_is_no_recording_is_refused_with_its_step(
    tmp_path: Path, one: dict[str, Any], change: Callable[[Any], None], line: str
) -> None:
    document = copy.deepcopy(one)
    change(document)
    file = tmp_path / "r.json"
    file.write_text(json.dumps(document))
    with pytest.raises(InputError) as error:
        load_recordings(file)
    assert str(error.value).startswith(f"{file}: ")
    assert line in str(error.value)
    assert "\n" not in str(error.value)


# ---- comparing


def test_a_recording_conforms_to_itself(recorded: list[Recording]) -> None:
    for recording in recorded:
        assert compare(recording.document, copy.deepcopy(recording.document)) == []
        assert exact_observations(recording.document, []) == (len(recording.document["steps"]) + 1,) * 2  # type: ignore[arg-type]


def test_wake_ups_and_the_name_of_the_kernel_do_not_count(one: dict[str, Any]) -> None:
    ours = copy.deepcopy(one) | {"kernel": "6.12"}
    for seen in ours["steps"]:
        seen.pop("batches", None)
    assert compare(one, ours) == []


MIGRATE = 5  # the step of zero_migrate that migrates


@pytest.mark.parametrize(
    ("change", "step", "field", "kernel_value", "ours"),
    [
        (_set("initial", "cow_ksm", 7), INITIAL, "cow_ksm", 0, 7),
        (_set("steps", 3, "sysfs", 1, 99), 3, "sysfs.pages_shared", 0, 99),
        (_set("steps", 3, "errno", "EBUSY"), 3, "errno", 0, "EBUSY"),
        (_set("steps", 3, "procs", "a", 1, 99), 3, "procs.a.ksm_rmap_items", 4, 99),
        (_set("steps", MIGRATE, "status", 1, 1), MIGRATE, "status[1]", "EFAULT", 1),
        (_set("steps", 3, "more", 1), 3, "more", None, 1),
        (_set("scenario", "steps", 1, "node", 1), None, "scenario.steps[1].node", 0, 1),
        (_set("knob_errno", {"smart_scan": "ENOENT"}), None, "knob_errno.smart_scan", None, "ENOENT"),
        (_set("more", [1]), None, "more", None, [1]),
        (lambda document: document["steps"][3].pop("cow_ksm"), 3, "cow_ksm", 0, None),
        (lambda document: document["steps"][3]["sysfs"].pop(), 3, "sysfs.stable_node_chains_prune_millisecs", 0, None),
        (lambda document: document["steps"][3]["sysfs"].append(5), 3, "sysfs.[16]", None, 5),
        (lambda document: document["steps"][3].pop("tables"), 3, "tables", {}, None),
        (lambda document: document["steps"][3]["procs"]["a"].pop(), 3, "procs.a.ksm_process_profit", -256, None),
    ],
)
def test_one_changed_number_is_found_with_its_step_and_field(
    one: dict[str, Any], change: Callable[[Any], None], step: int | None, field: str, kernel_value: object, ours: object
) -> None:
    changed = copy.deepcopy(one)
    change(changed)
    found = compare(one, changed)[0]
    assert (found.step, found.field, found.kernel_value, found.ours) == (step, field, kernel_value, ours)


def test_a_difference_says_where_and_what(one: dict[str, Any]) -> None:
    changed = copy.deepcopy(one)
    changed["steps"][3]["sysfs"][1] = 99
    changed["initial"]["cow_ksm"] = 1
    del changed["knob_errno"]
    assert [str(found) for found in compare(one, changed)] == [
        "head: knob_errno: kernel {}, ours nothing",
        "initial: cow_ksm: kernel 0, ours 1",
        "step 3 (full_scan): sysfs.pages_shared: kernel 0, ours 99",
    ]


def test_a_frame_that_differs_differs_until_its_area_is_listed_again(one: dict[str, Any]) -> None:
    changed = copy.deepcopy(one)
    listed = [step for step, seen in enumerate(one["steps"]) if seen["tables"]]
    assert listed == [1, 2, 4, 5, 8, 10]
    changed["steps"][2]["tables"]["a"]["heap"]["frames"][3] = 9
    found = compare(one, changed)
    assert [(each.step, each.field) for each in found] == [(2, "tables.a.heap.frames[3]"), (3, "tables.a.heap.frames[3]")]
    assert exact_observations(one, found) == (11, 13)


def test_a_table_that_is_listed_though_nothing_changed_is_no_difference(one: dict[str, Any]) -> None:
    changed = copy.deepcopy(one)
    changed["steps"][3]["tables"] = copy.deepcopy(one["steps"][2]["tables"])
    assert compare(one, changed) == []


def test_a_table_or_area_too_few_or_too_many_is_found(one: dict[str, Any]) -> None:
    changed = copy.deepcopy(one)
    table = one["steps"][2]["tables"]["a"]["heap"]
    changed["steps"][2]["tables"]["a"] = {"stack": table}
    fields = {found.field for found in compare(one, changed) if found.step == 2}
    assert fields == {"tables.a.heap.frames[0]", "tables.a.heap.nodes[0]", "tables.a.heap.ksm[0]", "tables.a.stack"}


def test_steps_too_few_or_too_many_are_differences(one: dict[str, Any]) -> None:
    short = copy.deepcopy(one)
    last = short["steps"].pop()
    n_steps = len(one["steps"])
    (missing,) = compare(one, short)
    assert (missing.step, missing.field, missing.ours) == (n_steps - 1, "observation", None)
    assert exact_observations(one, [missing]) == (n_steps, n_steps + 1)
    long = copy.deepcopy(one)
    long["steps"].append(last)
    (extra,) = compare(one, long)
    assert (extra.step, extra.op, extra.field, extra.kernel_value) == (n_steps, "", "observation", None)
    assert exact_observations(one, [extra]) == (n_steps + 1, n_steps + 1)


def test_undefined_behaviour_is_one_difference_and_ends_our_recording(one: dict[str, Any]) -> None:
    ours = copy.deepcopy(one)
    ours["steps"][5:] = [{"undefined": "use after free: x"}]
    found = compare(one, ours)
    assert [(each.step, each.field) for each in found] == [(5, "undefined"), *((step, "observation") for step in range(6, 12))]
    assert found[0].ours == "use after free: x"


def test_tables_are_expanded_until_their_process_exits() -> None:
    table = {"frames": [0], "nodes": "0", "ksm": "0"}
    document: dict[str, Any] = {
        "initial": {"procs": {}, "tables": {}},
        "steps": [
            {"procs": {"a": []}, "tables": {"a": {"m": table}}},
            {"procs": {"a": [], "b": []}, "tables": {"b": {"m": table}}},
            {"procs": {"b": []}, "tables": {}},
        ],
    }
    assert [sorted(tables) for tables in expand(document)] == [[], [("a", "m")], [("a", "m"), ("b", "m")], [("b", "m")]]


# ---- frame ids


def _area(proc: str, name: str, frames: list[int], nodes: str | None = None, ksm: str | None = None) -> Area:
    return Area(
        proc=proc,
        area=name,
        frames=np.array(frames, np.int64),
        nodes=np.array([int(digit) for digit in nodes or "0" * len(frames)], np.int8),
        ksm=np.array([digit == "1" for digit in ksm or "0" * len(frames)]),
    )


def test_frames_are_numbered_as_they_appear_and_keep_their_number_while_mapped() -> None:
    tracker = TableTracker()
    assert tracker.observe([_area("a", "m", [70, ABSENT, 7]), _area("b", "m", [7, 5])]) == {
        "a": {"m": {"frames": [0, -1, 1], "nodes": "0.0", "ksm": "0.0"}},
        "b": {"m": {"frames": [1, 2], "nodes": "00", "ksm": "00"}},
    }
    # 7 lives on in b only; 70 was dropped in between, and so comes back as another frame
    assert tracker.observe([_area("a", "m", [ABSENT, ABSENT, 8]), _area("b", "m", [7, 5])]) == {
        "a": {"m": {"frames": [-1, -1, 3], "nodes": "..0", "ksm": "..0"}}
    }
    assert tracker.observe([_area("a", "m", [7, 70, 8]), _area("b", "m", [7, 5])]) == {
        "a": {"m": {"frames": [1, 4, 3], "nodes": "000", "ksm": "000"}}
    }


def test_a_frame_that_moves_from_page_to_page_is_another_frame() -> None:
    tracker = TableTracker()
    tracker.observe([_area("a", "m", [1, 2])])
    assert tracker.observe([_area("a", "m", [2, 1])])["a"]["m"]["frames"] == [2, 3]


def test_nodes_and_ksm_pages_are_shown_and_their_change_lists_the_area() -> None:
    tracker = TableTracker()
    tracker.observe([_area("a", "m", [1, ZERO_PAGE, ABSENT], "300")])
    assert tracker.observe([_area("a", "m", [1, ZERO_PAGE, ABSENT], "300", "100")]) == {
        "a": {"m": {"frames": [0, -2, -1], "nodes": "3..", "ksm": "1.."}}
    }
    assert tracker.observe([_area("a", "m", [1, ZERO_PAGE, ABSENT], "400", "100")])["a"]["m"]["nodes"] == "4.."
    assert tracker.observe([_area("a", "m", [1, ZERO_PAGE, ABSENT], "478", "111")]) == {}  # what has no frame has no node


def test_a_new_area_is_listed_though_it_is_empty_and_an_unchanged_one_is_not() -> None:
    tracker = TableTracker()
    assert tracker.observe([]) == {}
    assert tracker.observe([_area("a", "m", [ABSENT])]) == {"a": {"m": {"frames": [-1], "nodes": ".", "ksm": "."}}}
    assert list(tracker.observe([_area("a", "m", [ABSENT]), _area("a", "n", [3])])["a"]) == ["n"]


def test_the_frames_of_an_exited_process_are_forgotten() -> None:
    tracker = TableTracker()
    tracker.observe([_area("a", "m", [1]), _area("b", "m", [2])])
    assert tracker.observe([_area("b", "m", [2])]) == {}
    assert tracker.observe([_area("b", "m", [2]), _area("c", "m", [1, 2])])["c"]["m"]["frames"] == [2, 1]


def test_arrays_that_change_later_do_not_change_what_was_seen() -> None:
    tracker = TableTracker()
    area = _area("a", "m", [1, 2])
    tracker.observe([area])
    area.frames[0] = 5
    area.nodes[1] = 3
    assert tracker.observe([area])["a"]["m"] == {"frames": [2, 1], "nodes": "03", "ksm": "00"}


def test_every_recorded_table_is_found_again_from_frames_under_other_numbers(recorded: list[Recording]) -> None:
    rng = np.random.default_rng(7)
    numbers = rng.permutation(100_000)
    for recording in recorded:
        tracker = TableTracker()
        document: Any = recording.document
        for tables, seen in zip(expand(document), [document["initial"], *document["steps"]], strict=True):
            areas = []
            for proc in seen["procs"]:
                for (owner, name), table in tables.items():
                    if owner == proc:
                        ids = np.array(table["frames"])
                        frames = np.where(ids >= 0, numbers[ids], ids)
                        areas.append(_area(proc, name, frames.tolist(), table["nodes"].replace(".", "7"), table["ksm"]))
            assert tracker.observe(areas) == seen["tables"]


def test_a_large_area_is_tracked_in_a_moment() -> None:
    tracker = TableTracker()
    frames = np.random.default_rng(1).permutation(200_000)
    ones = np.ones(200_000, np.int8)
    for changed in range(3):
        frames[changed] = 10**6 + changed
        (table,) = tracker.observe([Area(proc="a", area="m", frames=frames, nodes=ones, ksm=ones == 1)])["a"].values()
    assert table["frames"][:4] == [0, 200_000, 200_001, 3]  # type: ignore[index]


def test_the_copies_of_recordings_are_those_that_were_recorded(root: Path, shared: Path) -> None:
    for kernel in KERNELS:
        copies = json.loads(gzip.decompress((root / f"tests/recordings/{kernel}.json.gz").read_bytes()))
        files = sorted((shared / "recordings" / kernel).glob("*.json"))
        assert copies == [json.loads(file.read_text()) for file in files]
