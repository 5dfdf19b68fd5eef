"""Do imports go one way only? Read from the sources, so that an import inside a function counts as well.

A layer may import the layers before it. Names in `TYPE_CHECKING` blocks count too: a type is knowledge.
"""

import ast
import graphlib
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "ksmbatch"

# Modules of one line may import each other, and everything of the lines above.
LAYERS = (
    ("ksmbatch", "errors", "units", "codes"),
    ("documents", "arrow"),
    ("topology", "events", "metrics"),
    ("trace_format", "pagesource"),
    ("steps", "scenario", "workload", "generators", "contents", "cost"),
    ("importers",),
    ("inputs",),
    ("trace_metadata", "traces", "trace_nodes", "trace_memory", "trace_events", "trace_check", "trace_writer"),
    ("memory", "duplicates", "convergence", "estimate"),
    ("configfile", "faults", "sections", "config"),
    ("prefault", "state", "vmas", "sysfs", "stateview", "invariants", "capacity", "program"),
    ("pagetables", "conformance"),
    ("recordings",),
    ("compiling",),
    ("accel",),
    ("kernels",),
    ("page_order", "page_groups", "interning"),
    ("capture",),
    ("address_spaces", "survey", "migration", "machine", "clock", "locks", "engine"),
    ("provenance", "results"),
    (
        *("layout", "analysis", "moves_analysis", "drawing"),
        *("plots_moves", "plots", "tables_moves", "tables", "tables_estimate", "plots_estimate", "gallery", "plots_gallery"),
    ),
    ("replay", "sweep", "importing"),
    ("memory_inputs",),
    ("estimating",),
    ("listing", "cli"),
    ("__main__",),
)
CALLERS_OF_KERNELS = ("address_spaces", "machine", "migration", "survey", "engine", "page_order", "page_groups", "interning")
RANK = {module: rank for rank, layer in enumerate(LAYERS) for module in layer}

FILES = sorted(PACKAGE.rglob("*.py"))


def module_of(file: Path) -> str:
    parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(file: Path) -> set[str]:
    """Full names of everything that `file` imports; for `from m import n` both m and m.n, as n may be a module."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: a relative import hides its layer"
            found.add(str(node.module))
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def part_of(module: str) -> str:
    """The name in LAYERS under which `module` falls: `ksmbatch.kernels.ksmd` is in `kernels`."""
    return module.split(".")[1] if "." in module else module


def parts_imported(file: Path) -> set[str]:
    own = {name for name in imports_of(file) if name.split(".")[0] == "ksmbatch"}
    modules = {module_of(other) for other in FILES}
    return {part_of(name) for name in own if name in modules}


@pytest.mark.parametrize("file", FILES, ids=module_of)
def test_every_module_has_a_layer(file: Path) -> None:
    assert part_of(module_of(file)) in RANK, "add it to LAYERS, where its imports allow it"


@pytest.mark.parametrize("file", FILES, ids=module_of)
def test_imports_go_up_the_list_of_layers_only(file: Path) -> None:
    part = part_of(module_of(file))
    wrong = {other for other in parts_imported(file) if RANK[other] > RANK[part]}
    assert not wrong, f"{module_of(file)} imports {sorted(wrong)}, which come after it"


@pytest.mark.parametrize("file", FILES, ids=module_of)
def test_only_what_compiles_and_kernels_import_numba(file: Path) -> None:
    if part_of(module_of(file)) not in ("compiling", "accel", "kernels"):
        assert not {name for name in imports_of(file) if name.split(".")[0] in ("numba", "llvmlite")}


@pytest.mark.parametrize("file", FILES, ids=module_of)
def test_only_the_engine_imports_kernels(file: Path) -> None:
    if part_of(module_of(file)) not in (*CALLERS_OF_KERNELS, "kernels"):
        assert "kernels" not in parts_imported(file)


def test_what_the_engine_calls_has_a_wrapper_for_python() -> None:
    # without one a call crashes the process, and only in the hands of users: tests have wrappers everywhere
    for name in CALLERS_OF_KERNELS:
        tree = ast.parse((PACKAGE / f"{name}.py").read_text())
        modules = {
            alias.asname or alias.name: f"{node.module}.{alias.name}".split(".")[1:]
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("ksmbatch.kernels")
            for alias in node.names
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
                source = PACKAGE.joinpath(*modules[node.value.id]).with_suffix(".py").read_text()
                assert f"@entry_kernel\ndef {node.attr}(" in source, f"{name}.py calls {node.attr}()"


# the policies are found beside this module, so that nobody lists them; this one tells numba's compiler what a state is
MORE_FOR = {
    "ksmbatch.kernels.bits": {"llvmlite"},
    "ksmbatch.kernels.migrate": {"collections", "importlib"},
    "ksmbatch.kernels.rows_type": {"llvmlite", "operator"},
    "ksmbatch.kernels.state_type": {"llvmlite"},
}


@pytest.mark.parametrize("file", [file for file in FILES if "kernels" in file.parts], ids=module_of)
def test_kernels_import_nothing_but_numpy_accel_codes_state_metrics_and_kernels(file: Path) -> None:
    outside = {name.split(".")[0] for name in imports_of(file)} - {"ksmbatch"}
    assert outside <= {"numpy", "numba", "llvmlite", "typing", "enum"} | MORE_FOR.get(module_of(file), set())
    assert parts_imported(file) - {"ksmbatch"} <= {"accel", "codes", "state", "metrics", "kernels"}


def test_kernels_have_an_order_among_themselves_that_ends_with_ksmd() -> None:
    kernels = {module_of(file): file for file in FILES if "kernels" in file.parts}
    graph = {name: imports_of(file) & set(kernels) - {name, "ksmbatch.kernels"} for name, file in kernels.items()}
    tuple(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError
    assert not [name for name, imported in graph.items() if "ksmbatch.kernels.ksmd" in imported]


def test_the_analysis_knows_results_but_not_the_engine() -> None:
    for name in ("analysis", "moves_analysis", "plots", "plots_moves", "drawing", "tables", "tables_moves", "layout"):
        assert not parts_imported(PACKAGE / f"{name}.py") & {"machine", "engine", "sweep", "state", "program"}


def test_an_estimate_is_made_without_the_engine() -> None:
    files = [f"{name}.py" for name in ("memory", "duplicates", "convergence", "estimate", "tables_estimate", "plots_estimate")]
    assert not [name for name in files if parts_imported(PACKAGE / name) & {"machine", "engine", "sweep", "state", "program"}]


def test_the_configuration_does_not_know_the_state() -> None:
    assert not parts_imported(PACKAGE / "config.py") & {"state", "accel", "kernels", "engine"}


@pytest.mark.parametrize("name", ["steps", "scenario", "events", "contents", "workload", "capacity"])
def test_the_event_vocabulary_needs_nothing_but_numpy(name: str) -> None:
    heavy = {"pyarrow", "pandas", "pydantic", "numba", "rich", "typer", "matplotlib"}
    assert not {name.split(".")[0] for name in imports_of(PACKAGE / f"{name}.py")} & heavy


def test_the_check_sees_imports_inside_functions(tmp_path: Path) -> None:
    file = tmp_path / "late.py"
    file.write_text("def f():\n    from ksmbatch.kernels import ksmd\n    import numba.core\n")
    assert imports_of(file) == {"ksmbatch.kernels", "ksmbatch.kernels.ksmd", "numba.core"}
