"""Do the documents speak of what exists? Commands, files, names, tests, numbers and tables, each looked up where it comes from.

Whether a sentence is true is for its reader to judge; that what it names is there is checked here.
"""

import gzip
import importlib.util
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import MISSING, fields
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import typer
from rich.console import Console

from ksmbatch.cli import app
from ksmbatch.codes import POLICY_DOCS, Kernel
from ksmbatch.config import load
from ksmbatch.estimating import estimate_inputs
from ksmbatch.events import Discard
from ksmbatch.generators import GENERATORS, Generator, Move, Mover
from ksmbatch.generators.moves import lay
from ksmbatch.importers import Importer, probe
from ksmbatch.listing import KINDS, entries
from ksmbatch.sections import KEYS
from ksmbatch.topology import Topology, default_distance

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])
FIDELITY = ROOT / "docs/fidelity.md"
RECORDINGS = ROOT / "tests/recordings"
SUFFIXES = "py|md|toml|json|gz|parquet|sh|ipynb|png|c"
# that a reader will write ...
NOT_HERE = {
    "configs/QUESTION.toml",
    "ksmbatch/generators/NAME.py",
    "ksmbatch/importers/NAME.py",
    "ksmbatch/kernels/migrate/NAME.py",
}
NOT_HERE |= {"state.json"}  # of Cloud Hypervisor
NOT_HERE |= {"samples/", "nodes/", "runs.parquet", "saving.png", "results/saving.png"}  # ... or a sweep
NOT_HERE |= {"hold.py", "two.toml", "two/saving.png"}  # ... or the reader of docs/tutorial.md
# where a name of a file without its folder may lie
FOLDERS = (ROOT, ROOT / "docs", ROOT / "ksmbatch", ROOT / "ksmbatch/kernels", ROOT / "tests/oracle")


def name_of(document: Path) -> str:
    return document.relative_to(ROOT).as_posix()


def prose(document: Path) -> str:
    """The text without blocks of code between fences."""
    return re.sub(r"^```.*?^```", "", document.read_text(), flags=re.DOTALL | re.MULTILINE)


def spans(text: str) -> list[str]:
    """Everything between single backticks."""
    return re.findall(r"`([^`\n]+)`", text)


def commands(document: Path) -> list[list[str]]:
    """The arguments of every indented line that runs ksmbatch, and of every `ksmbatch ...` in the text."""
    text = document.read_text()
    lines = re.findall(r"^    (?:\$ )?(?:.*&& )?ksmbatch (.*)$", text, re.MULTILINE)
    lines += [span.removeprefix("ksmbatch ") for span in spans(text) if span.startswith("ksmbatch ")]
    return [shlex.split(line, comments=True) for line in lines]


def python_blocks(document: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", document.read_text(), re.DOTALL | re.MULTILINE)


def example_of_the_docs(number: int) -> ModuleType:
    spec = importlib.util.spec_from_loader(f"example{number}", loader=None)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    exec(compile(python_blocks(ROOT / "docs/extending.md")[number], "extending.md", "exec"), module.__dict__)
    return module


def tables_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_tables", ROOT / "docs/tables.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# ---- commands


def test_the_first_line_of_the_readme_is_the_one_promised() -> None:
    line = "python -m venv .venv && . .venv/bin/activate && pip install -e . && ksmbatch sweep configs/merge_across_nodes.toml"
    assert f"\n    {line} --out results/\n" in (ROOT / "README.md").read_text()


def test_the_readme_has_one_test_line_which_ci_runs() -> None:
    lines = re.findall(r"^ *python3? -m venv .* && pytest *$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert lines == ["    python -m venv .venv && . .venv/bin/activate && pip install -e '.[dev]' && pytest"]


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_command_shown_parses_and_its_files_exist(document: Path) -> None:
    group = typer.main.get_command(app)
    for arguments in commands(document):
        if not arguments[0].islower() or arguments[0].startswith("-"):
            continue
        command = group.get_command(None, arguments[0])  # type: ignore[attr-defined]  # a group, whatever its type says
        assert command is not None, arguments
        if any(argument.isupper() or "CONFIG" in argument for argument in arguments) or len(arguments) == 1:
            continue  # a pattern, not a command
        given: dict[str, Any] = command.make_context(arguments[0], arguments[1:]).params
        for path in [given.get("config"), *given.get("paths", ())]:
            assert path is None or (ROOT / path).exists(), arguments
        if "kind" in given:
            assert given["kind"] in KINDS
        if "config" in given and "page_to_scan" not in str(arguments):
            load(ROOT / given["config"], given["overrides"] or ())


def test_the_readme_shows_every_command() -> None:
    shown = {arguments[0] for arguments in commands(ROOT / "README.md")}
    assert set(typer.main.get_command(app).commands) <= shown  # type: ignore[attr-defined]


# ---- names


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_link_leads_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(document)):
        if "://" not in target:
            assert (document.parent / target.partition("#")[0]).exists(), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_file_that_is_named_exists(document: Path) -> None:
    for span in spans(prose(document)):
        word = span.removeprefix("python ").removesuffix(" --write")
        if not re.fullmatch(rf"[\w./-]+\.({SUFFIXES})|(tests|docs|configs|workloads|\.ci|notebooks)/[\w./-]*", word):
            continue
        if word not in NOT_HERE and not word.startswith(("mm/", "lib/")):  # those are the kernel's
            assert any((folder / word).exists() for folder in FOLDERS), word


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_function_that_is_named_with_its_module_exists(document: Path) -> None:
    sources = {path.stem: path.read_text() for path in (ROOT / "ksmbatch").rglob("*.py")}
    for span in spans(prose(document)):
        named = re.fullmatch(rf"(?:ksmbatch\.)?(?:\w+/)?(\w+)\.(?!(?:{SUFFIXES})$)(\w+)", span)
        if named and named[1] in sources and span not in KEYS:
            defined = rf"^ *(?:def|class) {named[2]}\b|^ *{named[2]}\b *[:=]"
            assert re.search(defined, sources[named[1]], re.MULTILINE), span


def rows(document: Path) -> Iterator[list[str]]:
    """The cells of every row of every table."""
    return rows_of(document.read_text())


def rows_of(text: str) -> Iterator[list[str]]:
    """The cells of every row of every table in `text`."""
    for line in text.splitlines():
        if line.startswith("|") and not set(line) <= set("|- "):
            yield [cell.strip() for cell in line.strip("|").split("|")]


def recorded() -> dict[str, set[str]]:
    """Kernel -> names of its recordings."""
    names: dict[str, set[str]] = {kernel.word: set() for kernel in Kernel}
    for file in RECORDINGS.rglob("*.json.gz"):
        kernel = next(part for part in (file.parent.name, file.name.removesuffix(".json.gz")) if part in names)
        names[kernel] |= {recording["scenario"]["name"] for recording in json.loads(gzip.decompress(file.read_bytes()))}
    return names


def test_whatever_shows_a_row_of_fidelity_was_recorded_on_every_kernel_or_is_a_test() -> None:
    names = set.intersection(*recorded().values())
    for cells in rows(FIDELITY):
        if len(cells) == 4 and cells[3] not in ("shown by", "all"):
            shown = spans(cells[3])
            assert shown, cells
            for span in shown:
                assert span in names or (ROOT / span).is_file() or span.startswith("tests/"), span


def test_fidelity_has_a_part_for_every_kernel_and_names_the_policy() -> None:
    text = FIDELITY.read_text()
    assert re.findall(r"^### (.*)$", text, re.MULTILINE) == [kernel.word for kernel in Kernel]
    assert all(f"`{policy.name.lower()}`" in text for policy in POLICY_DOCS)


def test_what_no_recording_shows_is_marked() -> None:
    assert FIDELITY.read_text().count("**Not recorded**") >= 3
    for cells in rows(FIDELITY):
        if len(cells) == 4 and "not recorded" not in " ".join(cells).lower() and "ADR" not in cells[2]:
            assert not [span for span in spans(cells[3]) if span.startswith("tests/reference")], cells


# ---- tables and numbers


def test_the_tables_of_the_model_are_those_of_the_program() -> None:
    text = (ROOT / "docs/model.md").read_text()
    assert tables_script().put(text) == text, "run `python docs/tables.py --write`"


def test_the_example_of_an_estimate_is_what_it_prints(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = re.search(
        r"<!-- example of estimate -->\n```\n(.*?)```\n<!-- end", (ROOT / "docs/estimate.md").read_text(), re.DOTALL
    )
    assert shown is not None
    file = io.StringIO()
    monkeypatch.chdir(ROOT)
    estimate_inputs(["workloads/three-vms.parquet"], nodes=2, console=Console(file=file, width=80))
    assert shown[1] == re.sub(r" +$", "", file.getvalue(), flags=re.MULTILINE)


def test_every_key_of_the_json_of_an_estimate_is_explained() -> None:
    named = set(spans((ROOT / "docs/estimate.md").read_text()))
    lines: list[str] = []
    estimate_inputs([str(ROOT / "workloads/three-vms.parquet")], nodes=2, fraction=0.01, echo_json=lines.append)
    document = json.loads(lines[0])
    keys = [*document, *document["mms"][0], *document["nodes"][0], *document["pairs"][0], *document["settings"][0]]
    assert set(keys) | document["sample"].keys() <= named


def test_every_parameter_of_a_generator_is_explained_with_its_default() -> None:
    text = (ROOT / "docs/generators.md").read_text()
    parts = dict(re.findall(r"^## `([\w-]+)`\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE))
    assert parts.keys() == {name for name, generator in GENERATORS.items() if generator.mover is None}
    for name, part in parts.items():
        told = {cells[0]: cells[1] for cells in rows_of(part) if len(cells) == 3}
        del told["parameter"]
        defaults = {f"`{field.name}`": field.default for field in fields(GENERATORS[name].parameters)}
        assert told.keys() == defaults.keys()
        for key, default in defaults.items():
            shown = "" if default is MISSING else json.dumps(default)
            assert told[key] == shown.removesuffix(".0"), key


def test_every_metric_knob_and_key_is_in_the_model() -> None:
    named = set(spans((ROOT / "docs/model.md").read_text()))
    wanted = {str(entry["name"]) for kind in ("metrics", "knobs") for entry in entries(kind)}
    wanted |= {key for key in KEYS if not key.startswith("ksm.")}
    assert wanted - named == set()


def test_a_table_without_a_place_is_noticed() -> None:
    with pytest.raises(KeyError):
        tables_script().put("nothing")


def test_the_readme_counts_the_recordings_that_there_are() -> None:
    counted = re.search(r"([\d,]+) recordings", (ROOT / "README.md").read_text())
    assert counted is not None
    files = [json.loads(gzip.decompress(file.read_bytes())) for file in RECORDINGS.rglob("*.json.gz")]
    assert int(counted[1].replace(",", "")) == sum(map(len, files))


def test_the_generator_of_extending_is_one() -> None:
    generator: Generator = example_of_the_docs(0).GENERATOR
    workload = generator.build(
        generator.read({"mms": 3, "pages_per_mm": 20}), nodes=2, binding="round_robin", seed=1, full_scans=4
    )
    assert len(workload.snapshots) == 4
    assert len(workload.snapshots[0].steps) == 9


def test_the_mover_of_extending_is_one() -> None:
    mover: Mover = example_of_the_docs(1).MOVER
    mix = GENERATORS["mix"]
    memory = mix.build(mix.read({"mms": 2, "pages_per_mm": 20}), nodes=1, binding=None, seed=1, full_scans=2)
    host = Topology(nodes=1, distance=default_distance(1), node_pages=0)
    move = Move(mover, mover.read({"mm": "mm1", "at": 1, "given": 0.3}, "workload.moves[0]"), "workload.moves[0]")
    (discard,) = lay(memory, [move], host, full_scans=2).snapshots[1].steps
    assert discard == Discard(proc="mm1", area="memory", first=0, count=6)


def test_the_policy_of_extending_needs_two_places_and_works(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "ksmbatch", tmp_path / "ksmbatch", ignore=shutil.ignore_patterns("__pycache__"))
    text = (ROOT / "docs/extending.md").read_text()
    member, doc = re.findall(r"^    ((?:Policy\.)?STAY\b.*)$", text, re.MULTILINE)
    codes = tmp_path / "ksmbatch/codes.py"
    source = re.sub(r"^( *REPLICATE = 6)$", rf"\1\n    {member}", codes.read_text(), flags=re.MULTILINE)
    codes.write_text(source.replace("POLICY_DOCS = {", f"POLICY_DOCS = {{\n    {doc}"))
    (tmp_path / "ksmbatch/kernels/migrate/stay.py").write_text(python_blocks(ROOT / "docs/extending.md")[2])
    command = [sys.executable, "-m", "ksmbatch", "replay", "--policy", "stay", "--out", "out"]
    command.append(str(ROOT / "tests/oracle/scenarios/migrate_ksm_free_node.json"))
    # in plain Python, for compiling the kernels anew would take a minute
    done = subprocess.run(command, cwd=tmp_path, env=os.environ | {"NUMBA_DISABLE_JIT": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    replayed = json.loads((tmp_path / "out/migrate_ksm_free_node.json").read_text())
    statuses = [status for step in replayed["steps"] for status in step.get("status", [])]
    assert set(statuses) == {"EAGAIN"}


def test_the_importer_of_extending_is_one(tmp_path: Path) -> None:
    importer: Importer = example_of_the_docs(3).IMPORTER
    pages = np.arange(3 * 4096, dtype=np.uint16).astype(np.uint8).reshape(3, 4096)
    (tmp_path / "x").write_bytes(b"TOYMEM" + (3).to_bytes(2, "little") + (5).to_bytes(8, "little") + pages.tobytes())
    given = probe(tmp_path / "x")
    assert importer.looks(given)
    with ExitStack() as stack:
        (image,) = importer.open(given, stack)
        assert image.runs.tolist() == [[5, 3]]
        out = np.empty_like(pages)
        image.source.read(0, out)
        assert np.array_equal(out, pages)


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_block_of_python_compiles(document: Path) -> None:
    for block in python_blocks(document):
        compile(block, name_of(document), "exec")


def test_every_decision_has_its_parts_and_numbers_are_used_once() -> None:
    decisions = sorted((ROOT / "docs/adr").glob("*.md"))
    assert [decision.name[:4] for decision in decisions] == [f"{number:04}" for number in range(1, len(decisions) + 1)]
    for decision in decisions:
        text = decision.read_text()
        assert text.startswith(f"# {int(decision.name[:4])}. ")
        for part in ("## Context", "## Options", "## Decision", "## What would change our mind"):
            assert part in text, f"{decision.name}: {part}"
