"""Is what docs/migration.md tells of the thread what its configurations come to? Its tables are made of outcomes that are kept.

Running everything anew is `python docs/thread.py --measure`; here a few runs stand for the rest.
"""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest
from machines import compiled_only
from rich.console import Console

from ksmbatch import MODEL_VERSION, analysis
from ksmbatch.config import expand, load
from ksmbatch.sweep import run_sweep

ROOT = Path(__file__).resolve().parent.parent


def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_thread", ROOT / "docs/thread.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


THREAD = script()
KEPT = json.loads(THREAD.OUTCOMES.read_text())


def test_the_tables_are_made_of_the_outcomes_kept() -> None:
    text = THREAD.DOCUMENT.read_text()
    assert THREAD.put(text, KEPT) == text, "run `python docs/thread.py --write`"


def test_the_outcomes_are_of_this_model() -> None:
    assert KEPT["model"] == MODEL_VERSION, "run `python docs/thread.py --measure`"


@pytest.mark.parametrize("name", THREAD.CONFIGS)
def test_the_outcomes_are_those_of_every_point_of_the_configuration(name: str) -> None:
    points = [dict(point.values) for point in expand(load(ROOT / f"configs/{name}.toml"))]
    assert [{key: row[key] for key in points[0]} for row in KEPT["configs"][name]] == points


@compiled_only
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("migration_policies", {"migration.policy": "v4", "ksm.merge_across_nodes": 0, "ksm.max_page_sharing": 1_000_000}),
        ("migration_policies", {"migration.policy": "substitute", "ksm.merge_across_nodes": 0, "ksm.max_page_sharing": 256}),
        ("hotremove", {"migration.policy": "mainline", "ksm.merge_across_nodes": 0}),
        ("holasek-2012", {"host.nodes": 4, "ksm.merge_across_nodes": 1}),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(map(str, value.values())),
)
def test_the_outcomes_are_what_a_run_comes_to_now(tmp_path, name, settings) -> None:
    config = load(ROOT / f"configs/{name}.toml", [f"{key}={value}" for key, value in settings.items()])
    assert run_sweep(config, tmp_path, console=Console(quiet=True)) == 0
    (row,) = THREAD.rows_of(analysis.load(tmp_path))
    (kept,) = [kept for kept in KEPT["configs"][name] if kept.items() >= settings.items()]
    assert row == {key: kept[key] for key in row}, "run `python docs/thread.py --measure`"


def test_a_run_that_is_not_there_is_noticed() -> None:
    with pytest.raises(KeyError, match="0 runs have"):
        THREAD.Outcomes(KEPT).policy("no_such_policy")
    with pytest.raises(KeyError):
        THREAD.put("nothing", KEPT)
