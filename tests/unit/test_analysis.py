"""Are the answers right? Hand-made runs of a few pages, expected values by hand."""

from pathlib import Path

import numpy as np
import pytest
from fake_runs import N_PAGES, fake_run, write_sweep

from ksmbatch import analysis
from ksmbatch.analysis import Sweep
from ksmbatch.errors import InputError

MIB = 256  # pages


def scans(*saved: int, cpu_ns: int = 10**7, remote: int = 0):
    """A run with a full scan per second that saves so much after each."""
    count = np.arange(1, len(saved) + 1)
    return fake_run(count * 1000, count, saved, cpu_ns=count * cpu_ns, remote=remote)


def sweep(out: Path, *runs, duration_ms: int | None = None) -> Sweep:
    write_sweep(out, runs, duration_ms)
    return analysis.load(out)


def test_loading_keeps_grid_order_and_swept_keys(tmp_path) -> None:
    loaded = sweep(tmp_path, ({"ksm.b": 2, "ksm.a": "x"}, scans(0)), ({"ksm.b": 1, "ksm.a": "x"}, scans(0)))
    assert loaded.swept == ("ksm.b", "ksm.a")
    assert loaded.runs["ksm.b"].tolist() == [2, 1]
    assert [loaded.label(run_id) for run_id in loaded.runs.index] == ["b=2 a=x", "b=1 a=x"]
    assert analysis.varying(loaded) == ["ksm.b"]


def test_loading_a_folder_without_a_finished_run_says_so(tmp_path) -> None:
    write_sweep(tmp_path, [({}, scans(0))])
    with pytest.raises(InputError, match="holds no results"):
        analysis.load(tmp_path / "samples")


def test_saving_is_in_mib_and_percent_of_the_mapped_memory(tmp_path) -> None:
    frame = analysis.saving_over_time(sweep(tmp_path, ({}, scans(0, MIB, 4 * MIB))))
    assert frame["saved_mib"].tolist() == [0, 1, 4]
    assert frame["saved_percent"].tolist() == [0, 100 * MIB / N_PAGES, 100 * 4 * MIB / N_PAGES]
    assert frame["time_s"].tolist() == [1, 2, 3]
    assert frame["cpu_percent"].tolist() == pytest.approx([1, 1, 1])


def test_what_the_nodes_save_adds_up_to_what_the_host_saves(tmp_path) -> None:
    table = analysis.settings(sweep(tmp_path, ({}, scans(0, 4 * MIB))))
    assert table[["node0_mib", "node1_mib", "saved_mib"]].to_numpy().tolist() == [[3, 1, 4]]


def test_the_first_full_scan_with_95_percent_of_the_final_saving_is_found(tmp_path) -> None:
    loaded = sweep(tmp_path, ({"k": 0}, scans(0, 94, 95, 99, 100)), ({"k": 1}, scans(0, 120, 60, 100)), ({"k": 2}, scans(0, 0)))
    until = analysis.until_share(loaded)
    assert until["full_scans"].fillna(-1).tolist() == [3, 2, -1]
    assert until["time_s"].fillna(-1).tolist() == [3, 2, -1]
    assert analysis.until_share(loaded, share=1.0)["full_scans"].fillna(-1).tolist() == [5, 2, -1]


def test_the_price_of_separate_trees_compares_runs_that_differ_in_nothing_else(tmp_path) -> None:
    loaded = sweep(
        tmp_path,
        ({"ksm.merge_across_nodes": 0, "ksm.smart_scan": 0}, scans(0, 3 * MIB, remote=0)),
        ({"ksm.merge_across_nodes": 0, "ksm.smart_scan": 1}, scans(0, 2 * MIB, remote=0)),
        ({"ksm.merge_across_nodes": 1, "ksm.smart_scan": 0}, scans(0, 4 * MIB, remote=10)),
        ({"ksm.merge_across_nodes": 1, "ksm.smart_scan": 1}, scans(0, 4 * MIB, remote=20)),
    )
    table = analysis.price(loaded)
    assert table["ksm.smart_scan"].tolist() == [0, 1]
    assert table["lost_mib"].tolist() == [1, 2]
    assert table["lost_percent"].tolist() == [25, 50]
    assert table["local_again"].tolist() == [10, 20]


def test_a_setting_that_has_only_one_side_has_no_price(tmp_path) -> None:
    loaded = sweep(
        tmp_path,
        ({"ksm.merge_across_nodes": 0, "ksm.smart_scan": 0}, scans(0, MIB)),
        ({"ksm.merge_across_nodes": 1, "ksm.smart_scan": 1}, scans(0, MIB)),
    )
    assert analysis.price(loaded).empty
    assert analysis.price(loaded, "ksm.nothing").empty


def test_a_knob_that_does_all_the_work_shows_in_the_margins(tmp_path) -> None:
    runs = [({"ksm.a": a, "ksm.b": b}, scans(0, (1 + 4 * a) * MIB)) for a in (0, 1) for b in (0, 1)]
    table = analysis.marginal(sweep(tmp_path, *runs))
    assert table["mean"].to_dict() == {("ksm.a", "0"): 1, ("ksm.a", "1"): 5, ("ksm.b", "0"): 3, ("ksm.b", "1"): 3}
    assert table.loc[("ksm.b", "0"), ["min", "max"]].tolist() == [1, 5]


def test_nothing_varies_so_nothing_has_margins(tmp_path) -> None:
    assert analysis.marginal(sweep(tmp_path, ({}, scans(0, MIB)))).empty


def test_the_state_at_a_time_is_the_last_sample_not_after_it(tmp_path) -> None:
    loaded = sweep(tmp_path, ({"k": 0}, scans(0, MIB, 2 * MIB, 3 * MIB)), duration_ms=4000)
    saved = analysis.at_times(loaded, (0.5, 2.9, 3.0, 4.0, 100.0))["saved_mib"].iloc[0]
    assert saved.fillna(-1).to_dict() == {0.5: -1, 2.9: 1, 3.0: 2, 4.0: 3}  # 4.0 is the end; what is past it is left out


def test_runs_that_end_at_different_times_meet_at_the_end(tmp_path) -> None:
    loaded = sweep(tmp_path, ({"k": 0}, scans(0, MIB)), ({"k": 1}, scans(0, MIB, 2 * MIB)))
    table = analysis.at_times(loaded, (1.0,))["saved_mib"]
    assert table.columns.tolist() == [1.0, np.inf]
    assert table[np.inf].tolist() == [1, 2]


def test_runs_go_by_time_when_a_duration_ends_them(tmp_path) -> None:
    assert not analysis.by_time(sweep(tmp_path / "scans", ({}, scans(0))))
    assert analysis.by_time(sweep(tmp_path / "time", ({}, scans(0)), duration_ms=1000))


def test_a_swept_list_can_be_told_apart(tmp_path) -> None:
    across, plan = "ksm.merge_across_nodes", "run.scans_per_snapshot"
    runs = [({across: a, plan: p}, scans(0, (a + p[0]) * MIB)) for a in (0, 1) for p in ((3, 2), (2, 2))]
    loaded = sweep(tmp_path, *runs)
    assert loaded.label(loaded.runs.index[0]) == "merge_across_nodes=0 scans_per_snapshot=[3, 2]"
    assert analysis.price(loaded)["lost_mib"].tolist() == [1, 1]
    assert len(analysis.marginal(loaded)) == 4
