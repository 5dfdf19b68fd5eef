"""Is what moving came to told right? Hand-made runs of a few samples, expected values by hand."""

from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from fake_runs import fake_run, write_sweep

from ksmbatch import analysis, moves_analysis
from ksmbatch.analysis import Sweep
from ksmbatch.codes import KSMD_MOVES, Policy

MIB = 256  # pages
NEVER = -1.0


def run(*saved: int, remote: int = 0, surveyed: dict[str, int] | None = None, scans: list[int] | None = None, **counters):
    """A run with a sample per second, each after a full scan unless `scans` says otherwise."""
    count = np.arange(1, len(saved) + 1)
    return fake_run(
        count * 1000,
        count if scans is None else scans,
        saved,
        cpu_ns=count * 10**9,
        remote=remote,
        counters=counters,
        surveyed=surveyed,
    )


def sweep(out: Path, *runs, duration_ms: int | None = None) -> Sweep:
    write_sweep(out, runs, duration_ms)
    return analysis.load(out)


def outcome(out: Path, fake, **swept: object) -> dict[str, float]:
    """Of a sweep of one run."""
    return moves_analysis.outcomes(sweep(out, (swept, fake))).fillna(NEVER).iloc[0].to_dict()


# ---- is it about moves at all?


@pytest.mark.parametrize(
    "counters",
    [
        {"frames_moved": [0, 0, 5]},
        {"migrate_refused": [0, 1, 1]},
        {"migrate_stuck": [0, 1, 1]},
        {"migrate_failures": [0, 1, 1]},
        {"offline_tried": [1, 1, 1]},
        {"compaction_tried": [0, 0, 1]},
        {"knob_refused": [0, 1, 1]},
        {"scans": [1, 2, 1]},  # everything was unmerged, which zeroes full_scans
    ],
    ids=lambda counters: next(iter(counters)),
)
def test_a_sweep_is_about_moves_if_something_moved_or_was_to(tmp_path, counters) -> None:
    assert moves_analysis.is_about_moves(sweep(tmp_path, ({"k": 0}, run(0, 0, 0)), ({"k": 1}, run(0, 0, 0, **counters))))


def test_a_sweep_in_which_guests_only_write_is_not_about_moves(tmp_path) -> None:
    assert not moves_analysis.is_about_moves(sweep(tmp_path, ({}, run(0, 100, 50, cow_ksm=[0, 0, 50], remote=12))))


# ---- what is compared with what


def test_policies_are_compared_under_each_setting_of_the_rest(tmp_path) -> None:
    runs = [
        ({"migration.policy": policy, "ksm.merge_across_nodes": across}, run(0, 1))
        for policy in ("mainline", "v4")
        for across in (0, 1)
    ]
    loaded = sweep(tmp_path, *runs)
    assert moves_analysis.row_keys(loaded) == ["migration.policy"]
    assert moves_analysis.row_names(loaded).tolist() == ["mainline", "mainline", "v4", "v4"]
    assert moves_analysis.group_names(loaded).tolist() == ["merge_across_nodes=0", "merge_across_nodes=1"] * 2


def test_where_nothing_of_migration_is_swept_all_settings_are_compared(tmp_path) -> None:
    loaded = sweep(tmp_path, ({"ksm.smart_scan": 0}, run(0, 1)), ({"ksm.smart_scan": 1}, run(0, 1)))
    assert moves_analysis.row_names(loaded).tolist() == ["smart_scan=0", "smart_scan=1"]
    assert set(moves_analysis.group_names(loaded)) == {""}
    assert not moves_analysis.compares_policies(loaded)


def test_what_is_swept_of_moves_is_no_policy_but_a_comparison_of_moves(tmp_path) -> None:
    loaded = sweep(tmp_path, ({"workload.moves[0].at": 3}, run(0, 1)), ({"workload.moves[0].at": 5}, run(0, 1)))
    assert moves_analysis.compares_moves(loaded)
    assert not moves_analysis.compares_policies(loaded)


# ---- before and after


def test_before_is_the_last_sample_before_anything_moved(tmp_path) -> None:
    figures = outcome(tmp_path, run(0, 4 * MIB, 3 * MIB, 2 * MIB, frames_moved=[0, 0, 7, 7]))
    assert figures["saved_before_mib"] == 4
    assert figures["saved_mib"] == 2


def test_the_saving_is_back_when_it_is_95_percent_of_before_counted_from_the_last_move(tmp_path) -> None:
    #          1  2    3*   4   5*   6   7   8      (* pages moved since the sample before)
    saved = (0, 100, 96, 96, 50, 60, 95, 99)
    figures = outcome(tmp_path, run(*saved, frames_moved=[0, 0, 3, 3, 9, 9, 9, 9]))
    assert figures["scans_back"] == 3  # the last move came after full scan 4, 95 pages are saved after 7
    assert figures["time_back_s"] == 3


def test_a_saving_that_never_comes_back_is_missing(tmp_path) -> None:
    assert outcome(tmp_path, run(0, 100, 94, 94, frames_moved=[0, 0, 1, 1]))["scans_back"] == NEVER


def test_what_was_not_there_before_cannot_come_back(tmp_path) -> None:
    assert outcome(tmp_path / "a", run(0, 0, 9, frames_moved=[0, 1, 1]))["scans_back"] == NEVER
    figures = outcome(tmp_path / "b", run(0, 5, 9, frames_moved=[1, 1, 1]))  # before the first sample
    assert (figures["saved_before_mib"], figures["scans_back"], figures["more_mib"]) == (NEVER, NEVER, NEVER)


def test_unmerging_everything_is_a_move_and_zeroes_full_scans(tmp_path) -> None:
    fake = run(0, 100, 100, 0, 90, 96, scans=[1, 2, 3, 1, 2, 3])
    figures = outcome(tmp_path, fake)
    assert figures["unmerged"] == 1
    assert figures["scans_back"] == 3
    loaded = analysis.load(tmp_path)
    assert moves_analysis.saving(loaded)["full_scans"].tolist() == [1, 2, 3, 4, 5, 6]
    assert moves_analysis.moments(loaded)["full_scans"].tolist() == [3]


def test_the_most_frames_are_sought_from_the_first_move_on(tmp_path) -> None:
    fake = run(0, 9, 9, 9, frames_moved=[0, 0, 1, 1], frames_in_use=[900, 512, 600, 520], peak_frames=[999, 900, 1024, 600])
    assert outcome(tmp_path, fake)["more_mib"] == 2


def test_copies_and_remote_mappings_are_told_from_those_before(tmp_path) -> None:
    fake = run(0, 9, 9, 9, remote=20, frames_moved=[0, 0, 1, 1], cow_ksm=[0, 40, 41, 50])
    figures = outcome(tmp_path, fake)
    assert figures["cow_since"] == 10
    assert (figures["remote_before"], figures["remote_mappings"]) == (20, 20)


def test_what_ksmd_moves_by_itself_is_no_event(tmp_path) -> None:
    moved, ksm = [0, 5, 6, 7], [0, 2, 3, 4]  # three frames by somebody, then one by ksmd in every scan
    runs = [
        ({"migration.policy": policy}, run(100, 100, 100, 100, frames_moved=moved, ksm_frames_moved=ksm))
        for policy in ("substitute", "nuksm", "replicate")
    ]
    moments = moves_analysis.moments(sweep(tmp_path, *runs))
    assert [part["full_scans"].tolist() for _, part in moments.groupby("run_id")] == [[1, 2, 3], [1], [1]]


def test_the_policies_under_which_ksmd_moves_pages_are_those_with_something_to_do_at_its_visit() -> None:
    modules = {policy: import_module(f"ksmbatch.kernels.migrate.{policy.word}") for policy in Policy}
    assert {policy for policy, module in modules.items() if hasattr(module, "visit_ksm_page")} == KSMD_MOVES


def test_failures_of_ksmd_are_no_event_where_it_moves_pages(tmp_path) -> None:
    runs = [
        ({"migration.policy": policy}, run(9, 9, 9, migrate_failures=[0, 0, 1], frames_moved=[0, 1, 1]))
        for policy in ("break_cow", "replicate")
    ]
    moments = moves_analysis.moments(sweep(tmp_path, *runs))
    assert [part["full_scans"].tolist() for _, part in moments.groupby("run_id")] == [[1, 2], [1]]


# ---- prices


def test_waiting_is_told_per_move_that_waited(tmp_path) -> None:
    fake = run(0, 9, locks_taken=[0, 200], locks_waited=[0, 4], lock_wait_ns=[0, 10_000], ksmd_wait_ns=[0, 3_000_000])
    figures = outcome(tmp_path, fake)
    assert (figures["waited_percent"], figures["wait_us"], figures["ksmd_wait_ms"]) == (2, 2.5, 3)


def test_nobody_who_takes_no_lock_waits(tmp_path) -> None:
    figures = outcome(tmp_path, run(0, 9))
    assert (figures["waited_percent"], figures["wait_us"]) == (0, 0)


def test_the_rest_are_counters_at_the_end(tmp_path) -> None:
    fake = run(
        0, 9, corruptions=[0, 3], migrate_allocations=[0, 7], move_cpu_ns=[0, 2_500_000], surveyed={"duplicates_left": 11}
    )
    figures = outcome(tmp_path, fake)
    assert (figures["corruptions"], figures["migrate_allocations"], figures["duplicates_left"]) == (3, 7, 11)
    assert figures["move_cpu_ms"] == 2.5
    assert figures["ksmd_cpu_s"] == 2


def test_columns_can_be_laid_side_by_side(tmp_path) -> None:
    runs = [
        (
            {"migration.policy": policy, "ksm.merge_across_nodes": across},
            run(0, 9, corruptions=[0, count], migrate_stuck=[0, 10 * count]),
        )
        for policy, counts in (("mainline", (1, 2)), ("v4", (3, 4)))
        for across, count in zip((0, 1), counts, strict=True)
    ]
    table = moves_analysis.compared(sweep(tmp_path, *runs), "corruptions", "migrate_stuck")
    assert table.index.tolist() == ["mainline", "v4"]
    assert table["corruptions"].to_numpy().tolist() == [[1, 2], [3, 4]]
    assert table["migrate_stuck", "merge_across_nodes=1"].tolist() == [20, 40]


def test_one_setting_needs_no_second_head(tmp_path) -> None:
    runs = [({"migration.policy": policy}, run(0, 9)) for policy in ("v4", "mainline")]
    table = moves_analysis.compared(sweep(tmp_path, *runs), "corruptions")
    assert table["corruptions"].to_dict() == {"v4": 0, "mainline": 0}


def test_the_setting_that_tells_most_is_one_where_they_differ_and_the_best_is_clean(tmp_path) -> None:
    left = {(0, 256): (400, 9), (0, 10**6): (0, 15), (1, 256): (410, 410), (1, 10**6): (0, 0)}
    runs = [
        (
            {"migration.policy": policy, "ksm.merge_across_nodes": across, "ksm.max_page_sharing": sharing},
            run(0, 9, surveyed={"duplicates_left": duplicates[rank]}),
        )
        for (across, sharing), duplicates in left.items()
        for rank, policy in enumerate(("substitute", "mainline"))
    ]
    assert moves_analysis.telling_group(sweep(tmp_path, *runs)) == "merge_across_nodes=0 max_page_sharing=1000000"


def test_a_glance_is_at_that_setting_and_leaves_out_what_is_0_for_all(tmp_path) -> None:
    runs = [
        ({"migration.policy": policy, "ksm.merge_across_nodes": across}, run(0, 9, corruptions=[0, count * (not across)]))
        for policy, count in (("mainline", 0), ("v4", 3))
        for across in (1, 0)
    ]
    table = moves_analysis.at_a_glance(sweep(tmp_path, *runs))
    assert table.index.name == "merge_across_nodes=0"
    assert table["corruptions"].to_dict() == {"mainline": 0, "v4": 3}
    assert not {"migrate_refused", "ksm.merge_across_nodes"} & set(table.columns)


# ---- how far memory is


def test_the_remote_share_is_per_node_and_its_spread_over_nodes(tmp_path) -> None:
    fake = run(0, 9, remote=0)
    nodes = dict(fake.nodes)
    nodes["mapped_pages"] = np.array([7, 7, 200, 50])
    nodes["remote_mappings"] = np.array([7, 7, 90, 1])
    write_sweep(
        tmp_path, [({"host.nodes": 2}, type(fake)(samples=fake.samples, nodes=nodes, last=fake.last, figures=fake.figures))]
    )
    row = moves_analysis.remote_shares(analysis.load(tmp_path)).iloc[0]
    assert (row["node0_percent"], row["node1_percent"], row["spread_percent"]) == (45, 2, 43)
