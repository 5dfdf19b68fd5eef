"""Do the terminal's tables say what analysis found, whole, on any width?"""

import io
from pathlib import Path

import numpy as np
from fake_runs import fake_run, write_sweep
from rich.console import Console

from ksmbatch import analysis, tables

MIB = 256  # pages


def scans(*saved: int, remote: int = 0, time_s: int = 60):
    count = np.arange(1, len(saved) + 1)
    return fake_run(count * time_s * 1000, count, saved, cpu_ns=count * 3 * 10**9, remote=remote)


def printed(out: Path, *runs, duration_ms: int | None = None, width: int = 80) -> list[str]:
    write_sweep(out, runs, duration_ms)
    file = io.StringIO()
    tables.print_sweep(analysis.load(out), Console(file=file, width=width))
    return file.getvalue().splitlines()


def row(lines: list[str], *cells: str) -> bool:
    return any(line.split() == list(cells) for line in lines)


def test_a_setting_shows_its_saving_per_node_scans_cpu_and_remote_mappings(tmp_path) -> None:
    lines = printed(tmp_path, ({"ksm.smart_scan": 1}, scans(0, 2 * MIB, 4 * MIB, remote=12)))
    # smart_scan, MiB, %, node 0, node 1, scans to 95 %, CPU s, remote; then the speed of this machine
    assert any(line.split()[:8] == ["1", "4.0", "25.0", "3.0", "1.0", "3", "9.0", "12"] for line in lines)
    assert lines[0] == "Memory saved by KSM, of 16 MiB"


def test_the_price_is_a_table_and_a_sentence(tmp_path) -> None:
    lines = printed(
        tmp_path,
        ({"ksm.merge_across_nodes": 0, "ksm.smart_scan": 0}, scans(0, 3 * MIB)),
        ({"ksm.merge_across_nodes": 1, "ksm.smart_scan": 0}, scans(0, 4 * MIB, remote=10)),
        ({"ksm.merge_across_nodes": 0, "ksm.smart_scan": 1}, scans(0, 2 * MIB)),
        ({"ksm.merge_across_nodes": 1, "ksm.smart_scan": 1}, scans(0, 4 * MIB, remote=20)),
    )
    assert row(lines, "0", "4.0", "1.0", "25.0", "10", "0")
    assert row(lines, "1", "4.0", "2.0", "50.0", "20", "0")
    sentence = (
        "merge_across_nodes = 0 gives up 1.0 to 2.0 MiB (25.0 to 50.0 % of the saving) and avoids 10 to 20 remote mappings."
    )
    assert lines[-1] == sentence


def test_runs_by_the_clock_show_the_saving_and_the_cpu_share_at_moments(tmp_path) -> None:
    run = scans(0, 0, 4 * MIB, 4 * MIB, time_s=30)
    lines = printed(tmp_path, ({"ksm.pages_to_scan": 100}, run), duration_ms=120_000)
    assert row(lines, "100", "0.0", "0.0", "4.0", "4.0", "90", "10.0", "10.0", "10.0", "10.0")
    assert row(lines, "to_scan", "30", "s", "60", "s", "96", "s", "120", "s", "s", "30", "s", "60", "s", "96", "s", "120", "s")


def test_what_was_never_reached_is_a_dash(tmp_path) -> None:
    lines = printed(tmp_path, ({"ksm.pages_to_scan": 1}, scans(0, 0, time_s=60)), duration_ms=120_000)
    assert row(lines, "1", "-", "0.0", "0.0", "0.0", "-", "-", "5.0", "5.0", "5.0")


def test_numbers_are_whole_on_a_narrow_console(tmp_path) -> None:
    lines = printed(tmp_path, ({"ksm.smart_scan": 1}, scans(0, 4 * MIB, remote=1_234_567)), width=20)
    assert any("1,234,566" in line for line in lines)
    assert not any("…" in line for line in lines)


def test_the_eight_settings_of_the_readme_fit_80_columns(tmp_path) -> None:
    runs = [
        (
            {"ksm.merge_across_nodes": across, "ksm.smart_scan": smart, "ksm.max_page_sharing": sharing},
            scans(0, 2048, remote=123_456),
        )
        for across in (0, 1)
        for smart in (0, 1)
        for sharing in (16, 256)
    ]
    lines = printed(tmp_path, *runs)
    assert max(len(line) for line in lines[:-1]) <= 80


def test_a_summary_of_a_run_says_what_moved_and_what_went_wrong_if_anything_did() -> None:
    def heads(**last: int) -> list[str]:
        file, run = io.StringIO(), fake_run([5], [1], [MIB], cpu_ns=[1], remote=0)
        tables.print_run(run.last | last, run.nodes, {**run.figures, "wall_s": 0.5}, Console(file=file))
        return [line.split("  ")[0].strip() for line in file.getvalue().splitlines() if not line.startswith(" ")]

    still = ["simulated", "saved", "pages", "remote mappings", "ksmd", "speed"]
    assert heads(duplicates_left=400) == still  # max_page_sharing asks for them
    assert heads(frames_moved=9, corruptions=2, migrate_refused=1) == [
        *still[:4],
        *("moved", "duplicates", "corruptions", "migrate_refused"),
        *still[4:],
    ]


def test_a_summary_of_a_run_counts_only_the_last_sample_of_the_nodes() -> None:
    file = io.StringIO()
    # two samples in one millisecond
    run = fake_run([5, 5], [1, 2], [0, 4 * MIB], cpu_ns=[1, 2], remote=8)
    tables.print_run(run.last, run.nodes, {**run.figures, "wall_s": 0.5}, Console(file=file))
    lines = [line.split("  ") for line in file.getvalue().splitlines()]
    shown = {line[0] or line[1]: line[-1].strip() for line in lines}
    assert shown["saved"] == "4.0 of 16.0 MiB (25.0 %)"
    assert shown["remote mappings"] == "8"
    assert shown["speed"] == "8,192 page visits in 0.50 s: 0.0 M visits/s"
