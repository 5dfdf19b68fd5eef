"""Does the command line keep its contract: commands, exit statuses, and one line for every mistake?"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from ksmbatch import __version__
from ksmbatch.cli import main
from ksmbatch.codes import Kernel, Policy
from ksmbatch.generators import GENERATORS
from ksmbatch.importers import IMPORTERS
from ksmbatch.listing import KINDS
from ksmbatch.metrics import COUNTERS, DERIVED, NODE_COUNTERS, SURVEYED
from ksmbatch.sections import Knobs

SCENARIO = {
    "name": "pair",
    "nodes": 1,
    "steps": [
        {"op": "spawn", "proc": "a"},
        {"op": "mmap", "proc": "a", "area": "x", "pages": 2},
        {"op": "write", "proc": "a", "area": "x", "contents": [7, 7]},
        {"op": "full_scan", "count": 2},
    ],
}
CONFIG = """
[workload]
generator = "mix"
mms = 2
pages_per_mm = 64
duplicated = 0.5
group = [2, 4]
[run]
full_scans = 2
[sweep]
"ksm.smart_scan" = [0, 1]
"""


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of `ksmbatch ARGUMENTS`."""
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    out, err = capsys.readouterr()
    assert isinstance(exit_.value.code, int)
    return exit_.value.code, out, err


def started(*arguments: str, warnings: Sequence[str] = ("error",), **options: object) -> "subprocess.Popen[str]":
    command = [sys.executable, *(f"-W{rule}" for rule in warnings), "-m", "ksmbatch", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)  # type: ignore[call-overload]  # options


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "c.toml").write_text(CONFIG)
    (tmp_path / "pair.json").write_text(json.dumps(SCENARIO))
    monkeypatch.chdir(tmp_path)
    return tmp_path


# words


def test_help_names_every_command_and_no_other(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = call(capsys, "--help")
    assert (status, err) == (0, "")
    commands = out.split("Commands:\n")[1].splitlines()
    assert [line.split()[0] for line in commands if line] == [
        "run",
        "sweep",
        "replay",
        "conform",
        "estimate",
        "import",
        "check",
        "capture",
        "list",
    ]


@pytest.mark.parametrize("command", ["run", "sweep", "replay", "conform", "estimate", "import", "check", "capture", "list"])
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = call(capsys, command, "--help")
    assert (status, err) == (0, "")
    assert out.startswith(f"Usage: ksmbatch {command}")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(capsys, "--version") == (0, f"ksmbatch {__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ("", "ksmbatch: missing command (see ksmbatch --help)"),
        ("advise x", "ksmbatch: no such command 'advise' (see ksmbatch --help)"),  # absent, not a stub
        ("estimate", "ksmbatch estimate: missing argument 'INPUT...' (see ksmbatch estimate --help)"),
        ("swep c.toml", "ksmbatch: no such command 'swep'. Did you mean 'sweep'? (see ksmbatch --help)"),
        ("sweep", "ksmbatch sweep: missing argument 'CONFIG.toml' (see ksmbatch sweep --help)"),
        ("sweep c.toml d.toml", "ksmbatch sweep: got unexpected extra argument"),
        ("sweep c.toml --dask x", "ksmbatch sweep: no such option: --dask (see ksmbatch sweep --help)"),
        (
            "sweep c.toml --jobs 0",
            "ksmbatch sweep: invalid value for '--jobs': must be a whole number >= 1 (see ksmbatch sweep --help)",
        ),
        (
            "sweep c.toml --jobs two",
            "ksmbatch sweep: invalid value for '--jobs': must be a whole number >= 1 (see ksmbatch sweep --help)",
        ),
        ("replay pair.json", "ksmbatch replay: missing option '--out' (see ksmbatch replay --help)"),
        ("replay gone.json --out o", "gone.json: cannot be read: No such file or directory"),
        ("replay pair.json --out o --kernel 5.4", '--kernel: "5.4": must be one of 6.1, 6.12, 7.2'),
        ("replay pair.json --out o --policy v9", '--policy: "v9": must be one of mainline'),
        ("conform gone.json", "gone.json: cannot be read: No such file or directory"),
        (
            "list knbs",
            'ksmbatch list: "knbs": must be one of knobs, kernels, policies, workloads, importers, metrics (nearest: knobs)',
        ),
        ("list", "ksmbatch list: missing argument"),
    ],
)
def test_a_mistake_gives_one_line_and_exit_2(
    arguments: str, line: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = call(capsys, *arguments.split())
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(line)


def test_a_results_folder_that_cannot_be_made_gives_one_line_and_exit_2(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = call(capsys, "sweep", "c.toml", "--out", "pair.json/results")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "pair.json" in err


# list


@pytest.mark.parametrize("kind", KINDS)
def test_a_list_has_one_line_per_name_and_the_same_names_in_json(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    _, text, _ = call(capsys, "list", kind)
    status, out, err = call(capsys, "list", kind, "--json")
    assert (status, err) == (0, "")
    members = json.loads(out) if out else []
    assert [line.split()[0] for line in text.splitlines()] == [member["name"] for member in members]
    assert all(member["doc"] for member in members)


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("knobs", list(Knobs.model_fields)),
        ("kernels", [kernel.word for kernel in Kernel]),
        ("policies", [policy.name.lower() for policy in Policy]),
        ("workloads", list(GENERATORS)),
        ("importers", list(IMPORTERS)),
    ],
)
def test_a_list_holds_what_exists(kind: str, names: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = call(capsys, "list", kind, "--json")
    assert [member["name"] for member in json.loads(out)] == names


def test_a_kind_without_members_prints_nothing(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KINDS, "importers", list)
    assert call(capsys, "list", "importers") == (0, "", "")
    assert call(capsys, "list", "importers", "--json") == (0, "", "")


def test_the_list_of_metrics_holds_every_metric_with_its_unit(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = call(capsys, "list", "metrics", "--json")
    units = {member["name"]: member["unit"] for member in json.loads(out)}
    metrics = (*COUNTERS, *(derived.metric for derived in DERIVED), *NODE_COUNTERS, *SURVEYED)
    assert {metric.name: metric.unit for metric in metrics}.items() <= units.items()


def test_a_knob_is_listed_with_its_range_default_and_kernels(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = call(capsys, "list", "knobs", "--json")
    knobs = {member["name"]: member for member in json.loads(out)}
    assert (knobs["max_page_sharing"]["default"], knobs["max_page_sharing"]["min"]) == (256, 2)
    assert knobs["sleep_millisecs"]["unit"] == "ms"
    assert knobs["smart_scan"]["kernels"] == ["6.12", "7.2"]


def test_nobody_reading_on_is_no_error() -> None:
    process = started("list", "metrics")
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait(60) in (0, 141)


# the commands reach what they name


def test_sweep_runs_the_grid_and_writes_results(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = call(capsys, "sweep", "c.toml", "--jobs", "1", "--out", "r")
    assert status == 0
    assert "Memory saved by KSM" in out
    assert (folder / "r" / "runs.parquet").is_file()


def test_run_simulates_one_host_with_what_was_set(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import pyarrow.parquet as pq

    status, _, _ = call(capsys, "run", "c.toml", "--set", "ksm.smart_scan=0", "--set", "run.full_scans=3")
    assert status == 0
    runs = pq.read_table(folder / "results" / "runs.parquet").to_pylist()
    assert [(row["full_scans"], row["pages_skipped"]) for row in runs] == [(3, 0)]


def test_replay_writes_a_recording_that_conform_finds_exact(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(capsys, "replay", "pair.json", "--kernel", "7.2", "--out", "o")[0] == 0
    recording = json.loads((folder / "o" / "pair.json").read_text())
    assert (recording["kernel"], recording["scenario"]["name"], len(recording["steps"])) == ("7.2", "pair", 4)
    status, out, _ = call(capsys, "conform", "o")
    assert (status, out.splitlines()[-1]) == (0, "recordings 1/1 exact, observations 5/5 exact")


def test_conform_exits_1_when_a_number_differs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call(capsys, "replay", "pair.json", "--out", "o")
    recording = json.loads((folder / "o" / "pair.json").read_text())
    recording["steps"][3]["cow_ksm"] += 1
    (folder / "o" / "pair.json").write_text(json.dumps(recording))
    status, out, _ = call(capsys, "conform", "o")
    assert (status, out.splitlines()[-1]) == (1, "recordings 0/1 exact, observations 4/5 exact")
    assert "cow_ksm" in out


def test_ctrl_c_exits_130_and_says_that_a_sweep_goes_on(folder: Path) -> None:
    process = started(
        "sweep", "c.toml", "--set", "run.full_scans=100000000", "--set", "workload.rewritten_per_scan=0.1",
        # Ctrl-C may come between any two instructions, also between open() and `with`
        warnings=("error", "ignore::ResourceWarning"),
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent)},
    )  # fmt: skip
    deadline_s = time.monotonic() + 60
    while not (folder / "results").exists() and process.poll() is None and time.monotonic() < deadline_s:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "interrupted" in err
    assert "the same command" in err
    assert "Traceback" not in err


def test_ctrl_c_in_the_midst_of_an_exec_exits_130_as_well(folder: Path) -> None:
    # Python takes it for unhandled then, however it was handled, and at its end kills itself by SIGINT
    (folder / "interrupted.py").write_text(
        "import sys, ksmbatch.cli as cli\n"
        "sys.argv = ['ksmbatch', 'list', 'knobs']\n"
        "cli.show = lambda *_: exec('import os, signal; os.kill(os.getpid(), signal.SIGINT)\\nfor k in range(10**7): pass')\n"
        "cli.main()\n"
    )
    command = [sys.executable, "-W", "error", "-m", "interrupted"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (130, "interrupted\n")
