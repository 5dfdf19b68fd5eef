"""Does the table of moves say what happened, no more, and whole at any width? And its sentences?"""

import io
from pathlib import Path

import numpy as np
import pytest
from fake_runs import fake_run, write_sweep
from rich.console import Console

from ksmbatch import analysis, tables, tables_moves

MIB = 256  # pages
LOST = {"duplicates_left": 5000, "stranded_pages": 123_456, "unreachable_mappings": 123_456}


def run(*saved: int, remote: int = 0, surveyed: dict[str, int] | None = None, **last: int):
    """A run with a sample per full scan; pages move after the second, when the counters of `last` get their values."""
    count = np.arange(1, len(saved) + 1)
    moved = {name: np.where(count > 2, value, 0) for name, value in {"frames_moved": 100, **last}.items()}
    return fake_run(count * 1000, count, saved, cpu_ns=count * 10**9, remote=remote, counters=moved, surveyed=surveyed)


def policies(*settings: dict[str, object]):
    """Three policies under each setting; only v4 loses something, and only where merge_across_nodes is 0."""
    runs = []
    for policy in ("mainline", "v4", "break_cow"):
        for setting in settings:
            fake = run(0, 4 * MIB, 4 * MIB, remote=6)
            if not setting.get("ksm.merge_across_nodes") and policy == "v4":
                fake = run(0, 4 * MIB, MIB, remote=6, surveyed=LOST, corruptions=7_654_321, dangling_pages=4000)
            if not setting.get("ksm.merge_across_nodes") and policy == "break_cow":
                fake = run(0, 4 * MIB, 4 * MIB, remote=6, migrate_allocations=300)
            runs.append(({"migration.policy": policy, **setting}, fake))
    return runs


def printed(out: Path, runs, width: int = 80, terminal: bool = False, **options) -> list[str]:
    write_sweep(out, runs, **options)
    file = io.StringIO()
    console = Console(file=file, width=width, force_terminal=terminal, color_system=None)
    tables.print_sweep(analysis.load(out), console)
    return [line.rstrip() for line in file.getvalue().splitlines()]


def row(lines: list[str], *cells: str) -> bool:
    return any(line.split()[: len(cells)] == list(cells) for line in lines)


def test_one_table_has_a_row_for_each_policy_below_each_setting(tmp_path) -> None:
    lines = printed(tmp_path, policies({"ksm.merge_across_nodes": 0}, {"ksm.merge_across_nodes": 1}))
    assert lines[0] == "What moving pages did to the memory saved by KSM, of 16 MiB"
    heading = lines.index(" merge_across_nodes=0; 4.0 MiB saved before; 6 remote mappings before")
    second = lines.index(" merge_across_nodes=1; 4.0 MiB saved before; 6 remote mappings before")
    assert [line.split()[0] for line in lines[heading + 1 : heading + 4]] == ["mainline", "v4", "break_cow"]
    assert lines[heading + 4] == ""
    assert second == heading + 5
    assert not any("The price" in line for line in lines)
    assert not any("M visits" in line for line in lines)


def test_a_row_says_what_is_saved_when_it_is_back_what_is_left_and_what_it_cost(tmp_path) -> None:
    lines = printed(tmp_path, policies({}))
    # MiB, scans until 95 %, duplicates, corruptions, dangling, never merge, allocations, remote mappings
    assert row(lines, "v4", "1.0", "never", "5,000", "7,654,321", "4,000", "123,456", "0", "6")
    assert row(lines, "break_cow", "4.0", "1", "0", "0", "0", "0", "300", "6")


def test_what_says_nothing_has_no_column_but_duplicates_and_corruptions_stay(tmp_path) -> None:
    runs = [({"migration.policy": policy}, run(0, 9, 9)) for policy in ("mainline", "v4")]
    heads = " ".join(printed(tmp_path, runs)[:6])
    assert "dupli-" in heads
    assert "corrup-" in heads
    for word in ("alloca-", "fused", "stuck", "locks", "compac-", "missed", "merged", "CPU"):
        assert word not in heads


def test_what_was_missed_stands_beside_what_was_tried(tmp_path) -> None:
    runs = [
        (
            {"migration.callers": callers},
            run(0, 9, 9, compaction_tried=512, compaction_missed=missed, migrate_refused=missed * 3),
        )
        for callers, missed in (("2.6.33", 220), ("mainline", 0))
    ]
    lines = printed(tmp_path, runs)
    assert row(lines, "2.6.33", "0.0", "1", "0", "0", "660", "512", "220")
    assert "2.6.33 misses 220 runs of 512 frames, mainline none." in lines
    assert "2.6.33 refuses 660 moves of KSM pages, mainline none." in lines


def test_mappings_that_are_not_reached_show_only_if_they_are_others_than_those_stranded(tmp_path) -> None:
    def heads(out: Path, unreachable: int) -> str:
        left = {"stranded_pages": 5, "unreachable_mappings": unreachable}
        runs = [({"migration.policy": policy}, run(0, 9, 9, surveyed=left)) for policy in ("mainline", "v4")]
        return " ".join(printed(out, runs)[:6])

    assert "reached" not in heads(tmp_path / "same", 5)
    assert "reached" in heads(tmp_path / "other", 6)


def test_runs_by_the_clock_tell_seconds_until_the_saving_is_back(tmp_path) -> None:
    lines = printed(tmp_path, policies({}), duration_ms=3000)
    assert any(line.split() and line.split()[0] == "s" for line in lines[:5])


# ---- width


@pytest.mark.parametrize("width", [80, 100, 120])
def test_on_a_terminal_the_table_is_no_wider_and_names_what_it_leaves_out(tmp_path, width) -> None:
    crowded = run(
        0,
        4 * MIB,
        MIB,
        surveyed=LOST,
        **dict.fromkeys(
            ("corruptions", "dangling_pages", "migrate_allocations", "migrate_copies", "migrate_merged", "migrate_inserted"),
            1_234_567,
        ),
        **dict.fromkeys(("migrate_chained", "migrate_stuck", "cow_ksm", "ksm_frames_moved", "move_cpu_ns"), 1_234_567),
    )
    runs = [({"migration.policy": "merge_on_migrate"}, crowded), ({"migration.policy": "v4"}, run(0, 4 * MIB, MIB))]
    lines = printed(tmp_path, runs, width, terminal=True)
    end = next(k for k, line in enumerate(lines) if line.startswith("merge_on_migrate leaves"))
    assert max(len(line) for line in lines[:end]) <= width
    assert lines[-1].startswith("More columns on a wider terminal:")
    assert any("1,234,567" in line for line in lines)


def test_a_pipe_has_120_columns_whatever_it_is_said_to_have(tmp_path) -> None:
    lines = printed(tmp_path, policies({}), width=40)
    assert row(lines, "v4", "1.0", "never", "5,000", "7,654,321", "4,000", "123,456", "0", "6")


# ---- sentences


def test_the_conclusion_names_who_leaves_what_and_who_corrupts(tmp_path) -> None:
    lines = printed(tmp_path, policies({"ksm.merge_across_nodes": 0}, {"ksm.merge_across_nodes": 1}))
    start = lines.index("With merge_across_nodes=0:")
    assert lines[start + 1 :] == [
        "v4 leaves 5,000 duplicates, the others none.",
        "v4 corrupts 7,654,321 times, the others never.",
        "v4 leaves 123,456 pages that never merge again, the others none.",
        "break_cow allocates 300 pages, the others none.",
        "95 % of the saving is back after 1 full scan with mainline, break_cow; never with v4.",
    ]


def test_those_who_do_the_same_share_a_clause(tmp_path) -> None:
    runs = [
        ({"migration.policy": policy}, run(0, 9, 9, migrate_allocations=pages))
        for policy, pages in (("a", 5), ("b", 5), ("c", 3), ("d", 0))
    ]
    assert "a, b allocate 5 pages each, c 3, d none." in printed(tmp_path, runs)


def test_where_locks_are_taken_the_conclusion_is_about_waiting(tmp_path) -> None:
    runs = [
        ({"migration.locking": locking}, run(0, 9, 9, locks_taken=taken, locks_waited=waited, lock_wait_ns=5000))
        for locking, taken, waited in (("none", 0, 0), ("tree_mutex", 1000, 2))
    ]
    sentence = "Of 1,000 moves that took the lock some waited for it: 0.2 % under tree_mutex, 2.5 µs on average."
    assert printed(tmp_path, runs)[-1] == sentence


def test_the_price_of_separate_trees_stays_where_only_they_are_swept(tmp_path) -> None:
    runs = [({"ksm.merge_across_nodes": across}, run(0, 9, (3 + across) * MIB)) for across in (0, 1)]
    lines = printed(tmp_path, runs)
    assert "The price of merge_across_nodes = 0" in lines


def test_unmerging_everything_has_its_price(tmp_path) -> None:
    scans = [1, 2, 1, 2, 3]
    fake = fake_run(
        np.arange(1, 6) * 1000,
        scans,
        [0, 512, 0, 0, 512],
        cpu_ns=np.zeros(5),
        remote=0,
        counters={"frames_in_use": [1024, 512, 1024, 1024, 512], "peak_frames": [1024, 1024, 1024, 1024, 1024]},
    )
    assert printed(tmp_path, [({"workload.moves[0].merge_across_nodes": 1}, fake)])[-1] == (
        "Unmerging everything takes 2.0 MiB for a while; 95 % of the saving is back after 3 s."
    )


def test_unmerging_for_good_gets_nothing_back(tmp_path) -> None:
    fake = fake_run([1000, 2000], [2, 1], [512, 0], cpu_ns=[1, 2], remote=0)
    assert printed(tmp_path, [({"ksm.smart_scan": 1}, fake)])[-1] == "Unmerging everything takes 0.0 MiB for good."


# ---- pinned guests


def test_pinned_guests_show_their_remote_shares_and_how_they_differ(tmp_path) -> None:
    def guests(remote: int):
        return fake_run([1000, 2000], [1, 2], [0, MIB], cpu_ns=[1, 2], remote=remote)

    runs = [({"ksm.merge_across_nodes": 0}, guests(0)), ({"ksm.merge_across_nodes": 1}, guests(2048))]
    lines = printed(tmp_path, runs, workload={"generator": "pinned-guests"})
    title = lines.index("Remote share of accesses, % of a guest's mapped pages; every page counts the same")
    assert row(lines[title:], "1", "50.0", "50.0", "0.0")
    assert lines[-1] == "Guests differ by 0.0 points with merge_across_nodes = 1."


def test_other_workloads_have_no_guests(tmp_path) -> None:
    lines = printed(tmp_path, [({"ksm.smart_scan": 0}, fake_run([1], [1], [0], cpu_ns=[1], remote=0))])
    assert not any("guest" in line for line in lines)
    assert tables_moves.conclusion(analysis.load(tmp_path)) == []
