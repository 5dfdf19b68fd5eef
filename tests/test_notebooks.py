"""Is every notebook still true? They run on a small sweep, or on none; what they show is up to the reader."""

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from rich.console import Console
from small_sweep import MOVES_TOML, TOML, write_small_sweep

from ksmbatch.config import load
from ksmbatch.sweep import run_sweep

SWEEPS = {"merge_across_nodes": TOML, "migration_policies": MOVES_TOML}
NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_notebook_runs_on_a_small_sweep_and_draws(path, tmp_path, monkeypatch) -> None:
    out = tmp_path / "results"
    if path.stem in SWEEPS:
        assert run_sweep(load(write_small_sweep(tmp_path, SWEEPS[path.stem])), out, console=Console(quiet=True)) == 0
    monkeypatch.setenv("KSMBATCH_RESULTS", str(out))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(path.parent.parent), os.environ.get("PYTHONPATH", "")]))
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}}).execute()
    shown = [kind for cell in notebook.cells for output in cell.get("outputs", []) for kind in output.get("data", {})]
    assert shown.count("image/png") >= 3
    assert shown.count("text/html") >= 2  # tables
    warned = [output for cell in notebook.cells for output in cell.get("outputs", []) if output.get("name") == "stderr"]
    assert not warned


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_notebook_is_kept_without_outputs_and_defines_nothing(path) -> None:
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code)
    assert not any(line.startswith(("def ", "class ", "for ")) for cell in code for line in cell.source.splitlines())
