"""Does `ksmbatch estimate` take what it says, answer in words, JSON and a picture, and refuse the rest in one line?"""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from small_sweep import N_PAGES, write_small_sweep

from ksmbatch.cli import main
from ksmbatch.estimating import estimate_inputs
from ksmbatch.trace_writer import TraceWriter

MIX = """
[host]
nodes = 2
[ksm]
max_page_sharing = 8
[workload]
generator = "mix"
mms = 3
pages_per_mm = 300
zero = 0.2
duplicated = 0.5
group = [2, 5]
node = "round_robin"
rewritten_per_scan = 0.1
[run]
full_scans = 4
[sweep]
"ksm.merge_across_nodes" = [0, 1]
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_small_sweep(tmp_path)
    (tmp_path / "mix.toml").write_text(MIX)
    (tmp_path / "scenario.json").write_text("[]")
    (tmp_path / "two.img").write_bytes(bytes(2 * 4096))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def answer(*inputs: str, **options: Any) -> dict[str, Any]:
    lines: list[str] = []
    assert estimate_inputs(inputs, echo_json=lines.append, **options) == 0
    (line,) = lines
    document: dict[str, Any] = json.loads(line)
    return document


def printed(*inputs: str, **options: Any) -> str:
    file = io.StringIO()
    estimate_inputs(inputs, console=Console(file=file, width=80), **options)
    return file.getvalue()


# ---- JSON


def test_the_json_holds_what_the_contract_names(folder: Path) -> None:
    document = answer("memory.parquet")
    assert {"pages", "zero_pages", "pages_shared", "pages_sharing", "duplicates"} <= document.keys()
    assert document["pages"] == 2 * N_PAGES
    assert document["zero_pages"] == N_PAGES // 2 - 56  # web wrote over so many of its zeros
    assert document["max_page_sharing"] == 256
    counted = {name: document[name] for name in ("pages_shared", "pages_sharing", "remote_mappings", "general_profit")}
    assert counted.items() <= document["settings"][0].items()
    assert document["sample"] is None


def test_every_list_of_the_json_is_complete(folder: Path) -> None:
    document = answer("mix.toml")
    assert [mm["mm"] for mm in document["mms"]] == ["mm0", "mm1", "mm2"]
    assert [mm["node"] for mm in document["mms"]] == [0, 1, 0]
    kinds = ("zero_pages", "self_pages", "inter_pages", "alone_pages")
    assert all(sum(mm[kind] for kind in kinds) == mm["pages"] == 300 for mm in document["mms"])
    assert [node["nid"] for node in document["nodes"]] == [0, 1]
    assert [[one[knob] for knob in ("merge_across_nodes", "use_zero_pages")] for one in document["settings"]] == [
        *([1, 0], [1, 1]),
        *([0, 0], [0, 1]),
    ]
    assert [one["max_page_sharing"] for one in document["by_max_page_sharing"]] == [2, 8, 16, 256, 1_000_000] * 2
    assert len(document["matrix"]) == len(document["matrix"][0]) == 3


def test_the_configurations_knobs_count_and_options_go_before(folder: Path) -> None:
    assert [answer("mix.toml")[name] for name in ("max_page_sharing", "merge_across_nodes")] == [8, 1]
    assert answer("mix.toml", max_page_sharing=3)["max_page_sharing"] == 3
    apart = answer("mix.toml", overrides=["ksm.merge_across_nodes=0"])
    assert apart["merge_across_nodes"] == 0
    assert apart["pages_sharing"] == apart["settings"][2]["pages_sharing"] < answer("mix.toml")["pages_sharing"]


def test_a_sample_has_intervals(folder: Path) -> None:
    sample = answer("mix.toml", fraction=0.2)["sample"]
    assert sample["fraction"] == 0.2
    assert sample["confidence"] == 0.95
    truth = answer("mix.toml")
    for name in ("pages_shared", "pages_sharing", "duplicates", "saved_pages", "self_pages", "inter_pages"):
        low, high = sample["intervals"][name]
        assert low <= truth[name] <= high


# ---- moments and places


def test_memory_over_time_is_estimated_as_it_is_at_last_or_at_first(folder: Path) -> None:
    last, first = answer("memory.parquet"), answer("memory.parquet", moment="first")
    assert (last["input"], first["input"]) == ("memory.parquet, snapshot 3 of 3", "memory.parquet, snapshot 1 of 3")
    assert first["zero_pages"] == N_PAGES // 2 > last["zero_pages"]
    assert answer("mix.toml")["input"] == "mix.toml, snapshot 4 of 4"


def test_only_what_a_run_gets_to_counts(folder: Path) -> None:
    shorter = answer("small.toml", overrides=["run.full_scans=4"])  # snapshots come after 3 and 5 full scans
    assert shorter["input"] == "small.toml, snapshot 2 of 3"
    by_clock = ["run.scans_per_snapshot=1", "run.full_scans=9"]
    assert answer("small.toml", overrides=by_clock)["input"] == "small.toml, snapshot 3 of 3"
    (folder / "clock.toml").write_text('[workload]\ntrace = "memory.parquet"\n[run]\nduration = "10s"\n')
    assert answer("clock.toml")["input"] == "clock.toml, snapshot 2 of 3"


def test_where_a_traces_mms_lie_is_said_by_number_or_by_name(folder: Path) -> None:
    assert len(answer("memory.parquet")["nodes"]) == 1
    assert [mm["node"] for mm in answer("memory.parquet", nodes=2)["mms"]] == [0, 1]
    by_name = answer("memory.parquet", binding=["web=2"])
    assert [mm["node"] for mm in by_name["mms"]] == [2, 0]
    assert len(by_name["nodes"]) == 3


def test_a_traces_own_nodes_count_where_nobody_says_otherwise(folder: Path) -> None:
    with TraceWriter(folder / "numa.parquet", order="none", about="made up", nodes=True, gone=True) as writer:
        writer.snapshot(0)
        writer.start("a", pages=5)
        page = np.arange(5)
        writer.rows("a", page, np.array([7, 7, 8, 8, 9], np.uint64), node=np.array([0, 1, 1, 1, -1], np.int16), gone=page > 9)
        writer.snapshot(1000)
        writer.rows("a", page[4:], np.zeros(1, np.uint64), node=np.full(1, -1, np.int16), gone=np.ones(1, np.bool_))
    said = "numa.parquet keeps no order of contents; no figure here depends on it."
    assert printed("numa.parquet").splitlines()[-1] == said
    assert "order of contents" not in printed("memory.parquet")
    apart = answer("numa.parquet")["settings"][2]
    assert (apart["pages_shared"], apart["pages_sharing"]) == (1, 1)
    assert [node["pages"] for node in answer("numa.parquet")["nodes"]] == [1, 3]
    assert answer("numa.parquet")["mms"][0]["absent_pages"] == 1
    first = answer("numa.parquet", moment="first")
    assert [node["pages"] for node in first["nodes"]] == [1, 4]  # what is not known is where most others are
    assert [mm["node"] for mm in answer("numa.parquet", nodes=2)["mms"]] == [0]


def test_images_of_memory_are_mms_of_one_host(folder: Path) -> None:
    rng = np.random.default_rng(4)
    table = rng.integers(0, 256, (50, 4096), np.uint8)
    table[0] = 0
    held = {name: rng.integers(0, 50, 200) for name in ("web", "db")}
    for name, contents in held.items():
        (folder / f"{name}.img").write_bytes(table[contents].tobytes())
    document = answer("web.img", "shop=db.img", nodes=2)
    assert [(mm["mm"], mm["node"]) for mm in document["mms"]] == [("web", 0), ("shop", 1)]
    both = np.concatenate([*held.values()])
    assert (document["pages"], document["zero_pages"]) == (400, np.sum(both == 0))
    assert document["duplicates"] == 400 - np.unique(both).size
    assert document["matrix"][0][1] == np.setdiff1d(np.intersect1d(*held.values()), [0]).size
    assert answer("web.img", "db.img", binding=["db=3"])["nodes"][3]["pages"] == 200


# ---- words and picture


def test_the_words_begin_with_the_answer_and_fit_80_columns(folder: Path) -> None:
    lines = printed("mix.toml").splitlines()
    saved, pages = (answer("mix.toml")[name] for name in ("saved_pages", "pages"))
    assert lines[0].startswith(f"KSM would save {saved / 256:.1f} of {pages / 256:.1f} MiB, {100 * saved / pages:.1f} %")
    assert lines[0].endswith(": mix.toml, snapshot 4 of 4")
    tables = lines[2 : next(k for k, line in enumerate(lines) if line.startswith("Without a limit"))]
    assert max(len(line.rstrip()) for line in tables) <= 80


def test_the_words_say_why_nothing_merges(folder: Path) -> None:
    unique = [f"workload.{name}=0" for name in ("zero", "duplicated", "rewritten_per_scan")]
    text = printed("mix.toml", overrides=unique)
    assert "Nothing merges: no two pages are equal." in text
    assert "ksmd keeps" not in text


def test_a_picture_is_written_whole_or_not_at_all(folder: Path) -> None:
    printed("mix.toml", plot=Path("picture"), fraction=0.5)
    with Image.open("picture") as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 500
    assert not list(folder.glob(".*partial"))


# ---- refused


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ("gone.parquet", "gone.parquet: cannot be read: No such file or directory"),
        (".", ".: is a folder of no known kind"),
        ("scenario.json", "scenario.json: has 2 bytes"),
        ("gone.toml", "gone.toml: no such file"),
        ("mix.toml mix.toml", "mix.toml: comes alone: only of images of memory can it be told"),
        ("mix.toml --nodes 2", "--nodes: is for memory that does not say where it lies (--set host.nodes=2"),
        ("mix.toml --node mm0=1", "--nodes: is for memory that does not say where it lies"),
        ("mix.toml --set host.nodes=0", "--set: host.nodes = 0: must be 1 to 8"),
        ("mix.toml --set ksm.pages_to_scn=0", "--set: ksm.pages_to_scn = 0: unknown key (nearest: ksm.pages_to_scan)"),
        ("mix.toml --max-page-sharing 1", "--max-page-sharing: 1: must be 2 to 2147483647"),
        (
            "mix.toml --max-page-sharing x",
            "ksmbatch estimate: invalid value for '--max-page-sharing': must be a whole number >= 1",
        ),
        ("mix.toml --sample 0", "--sample: 0.0: must be a share of the contents, above 0 and at most 1"),
        ("mix.toml --sample nan", "--sample: NaN: must be a share of the contents"),
        ("mix.toml --snapshot second", '--snapshot: "second": must be one of last, first'),
        ("mix.toml --plot gone/x.png", "gone/x.png: cannot be written: No such file or directory"),
        ("memory.parquet --set ksm.run=1", '--set: "ksm.run=1": is for a CONFIG.toml'),
        ("memory.parquet --nodes 9", "--nodes: 9: must be 1 to 8"),
        ("memory.parquet --node web", '--node: "web": must be MM=NODE, such as web=0'),
        ("memory.parquet --node nobody=1", "--node: nobody = 1: there is no such mm (nearest: "),
        ("memory.parquet --nodes 1 --node web=1", "--node: web = 1: must be a node, 0 to 0"),
        ("two.img --snapshot first", '--snapshot: "first": is for traces and configurations'),
        ("two.img --set ksm.run=1", '--set: "ksm.run=1": is for a CONFIG.toml'),
        ("two.img memory.parquet", "memory.parquet: comes alone: only of images"),
        ("two.img two.img", "two.img: is two at 0ms, and so is two.img"),
        ("two.img --format rw", '--format: "rw": must be one of '),
        ("offline.toml", "offline.toml: offline = 1: takes no memory whose nodes go offline"),
    ],
)
def test_a_mistake_gives_one_line_and_exit_2(
    arguments: str, line: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moves = '[[workload.moves]]\nkind = "hotremove"\nnode = 1\nat = 1\n[run]'
    (folder / "offline.toml").write_text(MIX.replace("[run]", moves))
    with pytest.raises(SystemExit) as exit_:
        main(["estimate", *arguments.split()])
    out, err = capsys.readouterr()
    assert (exit_.value.code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(line)


def test_a_damaged_trace_is_refused_as_everywhere(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = (folder / "memory.parquet").read_bytes()
    (folder / "half.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SystemExit) as exit_:
        main(["estimate", "half.parquet", "--json", "--plot", "picture.png"])
    out, err = capsys.readouterr()
    assert (exit_.value.code, out, err.count("\n")) == (2, "", 1)
    assert not (folder / "picture.png").exists()
