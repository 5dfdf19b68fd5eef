"""Does `ksmbatch check` tell good traces from bad ones, on the command line, and is the one of docs/formats.md good?"""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from small_sweep import write_small_sweep

from ksmbatch.cli import main
from ksmbatch.trace_writer import TraceWriter


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    out, err = capsys.readouterr()
    assert isinstance(exit_.value.code, int)
    return exit_.value.code, out, err


def small(path: Path) -> Path:
    with TraceWriter(path, order="none", nodes=True, gone=True) as writer:
        writer.snapshot(500)
        writer.start("a", pages=4)
        writer.start("b", pages=2)
        writer.rows("a", np.arange(4), np.array([0, 7, 7, 8]), node=np.array([0, 0, 2, 2]))
        writer.rows("b", np.arange(2), np.array([7, 9]))
        writer.snapshot(1500)
        writer.rows("a", np.array([3]), np.array([0]), gone=np.array([True]))
        writer.exit("b")
    return path


def test_a_good_trace_is_summed_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = small(tmp_path / "t.parquet")
    status, out, err = call(capsys, "check", str(path))
    assert (status, err) == (0, "")
    assert out.splitlines() == [
        f"{path}: a good trace",
        "version     2, order of contents: random",
        "mms         2, with 6 pages (0.0 MiB)",
        "snapshots   2 over 1s, 7 rows",
        "at the end  3 pages in 1 mms",
        "  of zeros  1",
        "  distinct  2 contents, of 4 in all snapshots",
        "NUMA nodes  0, 2",
    ]


def test_the_summary_is_there_for_scripts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = small(tmp_path / "t.parquet")
    status, out, _ = call(capsys, "check", "--json", str(path))
    assert status == 0
    assert json.loads(out) == {
        "trace": str(path),
        "version": 2,
        "order": "none",
        "order_ties": 0,
        "mms": 2,
        "pages": 6,
        "snapshots": 2,
        "span_ms": 1000,
        "rows": 7,
        "contents": 4,
        "living_mms": 1,
        "present_pages": 3,
        "zero_pages": 1,
        "distinct_contents": 2,
        "nodes": [0, 2],
    }


def test_the_trace_of_three_guests_is_good(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = call(capsys, "check", "--json", str(root / "workloads/three-vms.parquet"))
    facts = json.loads(out)
    assert status == 0
    assert (facts["version"], facts["order"], facts["mms"], facts["rows"]) == (1, "memcmp", 3, 541_942)
    assert (facts["present_pages"], facts["nodes"]) == (294_912, [])


@pytest.mark.parametrize("content", [b"", b"PAR1", b"no trace at all", b"PAR1" * 100])
def test_what_is_no_trace_is_one_line_and_exit_2(tmp_path: Path, content: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "t.parquet"
    path.write_bytes(content)
    status, out, err = call(capsys, "check", str(path))
    assert (status, out) == (2, "")
    assert err.startswith(f"{path}: is no readable Parquet file: ")
    assert len(err.splitlines()) == 1


def test_a_missing_file_is_one_line_and_exit_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(capsys, "check", str(tmp_path / "none")) == (2, "", f"{tmp_path}/none: no such file\n")


def test_the_trace_made_by_hand_in_the_documents_is_good(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", (root / "docs/formats.md").read_text(), re.DOTALL | re.MULTILINE)
    (by_hand,) = (block for block in blocks if "by-hand.parquet" in block)
    monkeypatch.chdir(tmp_path)
    exec(compile(by_hand, "formats.md", "exec"), {})
    assert os.listdir() == ["by-hand.parquet"]  # noqa: PTH208  # the folder that it wrote to
    status, out, _ = call(capsys, "check", "--json", "by-hand.parquet")
    assert status == 0
    facts = json.loads(out)
    assert (facts["snapshots"], facts["present_pages"], facts["living_mms"], facts["nodes"]) == (3, 1, 1, [0, 1])


@pytest.mark.parametrize("command", ["run", "sweep"])
@pytest.mark.parametrize("order", ["none", "memcmp"])
def test_results_say_that_contents_had_no_order(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, order: str
) -> None:
    config = write_small_sweep(tmp_path)
    with TraceWriter(tmp_path / "memory.parquet", order=order) as writer:
        for k in range(3):
            writer.snapshot(1000 * k)
            if k == 0:
                writer.start("web")
                writer.start("db")
                writer.rows("web", np.arange(8), np.arange(8) % 3)
                writer.rows("db", np.arange(8), np.arange(8) % 5)
    status, out, _ = call(capsys, command, str(config), "--out", str(tmp_path / "out"))
    assert status == 0
    line = "memory.parquet keeps no order of contents: the shapes of ksmd's trees, and what depends on them within a scan,"
    assert (line in out) == (order == "none")


def test_capture_needs_to_know_whose_memory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = call(capsys, "capture", "--out", str(tmp_path / "t.parquet"))
    assert (status, err) == (2, "ksmbatch capture: whose memory? It needs --pid, --name, --cgroup or --qemu\n")


@pytest.mark.parametrize("arguments", [["--pid", "me"], ["--rounds", "-1"], ["--rounds", "many"]])
def test_a_word_that_is_no_number_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    status, _, err = call(capsys, "capture", "--out", str(tmp_path / "t.parquet"), *arguments)
    assert status == 2
    assert len(err.splitlines()) == 1
