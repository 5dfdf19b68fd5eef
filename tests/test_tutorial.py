"""Does the walk of docs/tutorial.md work as it is written down, and print what it is said to print?"""

import importlib.util
import json
import re
import shutil
import subprocess
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest
from machines import compiled_only

from ksmbatch.traces import read_trace

ROOT = Path(__file__).resolve().parent.parent


def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_tutorial", ROOT / "docs/tutorial.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TUTORIAL = script()
TEXT = TUTORIAL.DOCUMENT.read_text()
STEPS = TUTORIAL.steps(TEXT)
SAVED = TUTORIAL.files(TEXT)
COMMON, TWICE, ZEROS, OWN = 1500, 500, 1000, 1096  # what hold.py writes
AGAIN = "ksmbatch estimate two.parquet --nodes 2 --json"  # for the test: the same in numbers


def agrees(folder: Path, estimate: str) -> None:
    """The estimate of the trace is what the sweep came to, for each of its runs."""
    settings = {one["merge_across_nodes"]: one for one in json.loads(estimate)["settings"] if not one["use_zero_pages"]}
    runs = pd.read_parquet(folder / "two/runs.parquet")
    assert len(runs) == 4
    for _, run in runs.iterrows():
        expected = settings[run["ksm.merge_across_nodes"]]
        assert (run["pages_shared"], run["pages_sharing"]) == (expected["pages_shared"], expected["pages_sharing"])


def test_every_step_is_one_command_and_every_file_is_shown() -> None:
    assert SAVED.keys() == {"hold.py", "two.toml"}
    words = [command.split()[:2] for command, _ in STEPS]
    assert [first for first, _ in words] == ["gcore", "gcore", *["ksmbatch"] * 5]
    assert [second for first, second in words if first == "ksmbatch"] == ["import", "check", "estimate", "sweep", "run"]
    assert re.findall(r"in (\w+) commands", TEXT) == ["seven"]
    for number in (COMMON, ZEROS, OWN):
        assert f"{number:,}" in TEXT


@compiled_only
@pytest.mark.skipif(shutil.which("gcore") is None, reason="gcore (of gdb) is not installed")
def test_the_walk_prints_what_the_document_shows(tmp_path: Path) -> None:
    try:
        TUTORIAL.walk(tmp_path, SAVED, [command for command, _ in STEPS[:2]])
    except subprocess.CalledProcessError as error:
        pytest.skip(f"gcore may not look at processes here: {error.stderr[-200:]}")
    *printed, estimate = TUTORIAL.walk(tmp_path, {}, [*(command for command, _ in STEPS[2:]), AGAIN])
    for (command, shown), now in zip(STEPS[2:], printed, strict=True):
        assert TUTORIAL.stable(now) == TUTORIAL.stable(shown), f"{command}: run `python docs/tutorial.py --write`"
    agrees(tmp_path, estimate)
    for mm in json.loads(estimate)["mms"]:
        assert mm["zero_pages"] >= ZEROS
        assert mm["self_pages"] >= TWICE
        assert mm["inter_pages"] >= COMMON
        assert mm["alone_pages"] >= OWN


@compiled_only
def test_the_walk_without_gcore_finds_what_was_written(tmp_path: Path) -> None:
    (instead,) = re.findall(r"^```sh\n((?:.*\n)*?)```$", TEXT, re.MULTILINE)
    commands = [command.replace(".core", ".img") for command, _ in STEPS[2:]]
    *_, estimate = TUTORIAL.walk(tmp_path, SAVED, [*instead.splitlines(), *commands, AGAIN])
    agrees(tmp_path, estimate)
    assert read_trace(tmp_path / "two.parquet").pages == {"web": 4096, "db": 4096}
    found = json.loads(estimate)
    assert [mm["zero_pages"] for mm in found["mms"]] == [ZEROS] * 2
    assert [mm["self_pages"] for mm in found["mms"]] == [TWICE] * 2
    assert [mm["inter_pages"] for mm in found["mms"]] == [COMMON] * 2
    assert [mm["alone_pages"] for mm in found["mms"]] == [OWN] * 2
    assert found["duplicates"] == 2 * (TWICE + ZEROS) - 1 + COMMON
