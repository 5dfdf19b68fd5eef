"""Images from strangers: whatever their bytes, an import succeeds or raises InputError, soon and in little memory.

Every example of a format is damaged in random places, above all in its headers.
"""

import importlib.util
import json
import shutil
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from machines import compiled_only
from small_images import EXAMPLES, Example

from ksmbatch.errors import InputError
from ksmbatch.importers import IMPORTERS
from ksmbatch.importing import import_inputs, read_inputs

# what reads a dump of makedumpfile is a C library, which may end the process: it gets one of its own
EXAMPLES_OF_OURS = [example for example in EXAMPLES if example.importer != "kdump"]
MAX_SECONDS = 5
MAX_BYTES = 2**27  # interning has a buffer of half as much
pytestmark = compiled_only

quietly = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


def read(path: Path, format_: str | None = None) -> None:
    """Reads `path`; raises what is not an InputError, and asserts that little time and memory was needed."""
    tracemalloc.start()
    start_s = time.perf_counter()
    said = ""
    try:
        contents = read_inputs([str(path)], format_)
    except InputError as error:
        said = str(error)
    else:
        assert all(content.size for content in contents.values())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "\n" not in said
    assert not said or str(path.parent) in said
    assert time.perf_counter() - start_s < MAX_SECONDS
    assert peak < MAX_BYTES


@pytest.fixture(scope="module", autouse=True)
def _compiled(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("compiled") / "x"
    path.write_bytes(np.arange(4096 * 8, dtype=np.uint8).tobytes())
    read_inputs([str(path)])


interesting = st.sampled_from([b"\0", b"\xff", b"\x7f", b"\x80", b"\xff" * 4, b"\xff" * 8, b"\0" * 8, b"\xff" * 7 + b"\x7f"])


@st.composite
def damages(draw: st.DrawFn) -> list[tuple[int, bytes]]:
    """Places, as parts of a million of a file, most of them near its begin; and what is written there."""
    place = st.integers(0, 3_000) | st.integers(0, 100_000) | st.integers(0, 1_000_000)
    return draw(st.lists(st.tuples(place, interesting | st.binary(min_size=1, max_size=12)), min_size=1, max_size=4))


@pytest.mark.parametrize("example", EXAMPLES_OF_OURS, ids=lambda example: example.name)
@given(damage=damages(), cut=st.none() | st.integers(0, 1_000_000), which=st.integers(0, 100))
@quietly
def test_damaged_images_are_read_or_refused(
    example: Example, damage: list[tuple[int, bytes]], cut: int | None, which: int, tmp_path: Path
) -> None:
    shutil.rmtree(tmp_path)
    tmp_path.mkdir()
    path, _ = example.make(tmp_path)
    files = sorted(file for file in tmp_path.rglob("*") if file.is_file() and not file.is_symlink())
    file = files[which % len(files)]
    data = bytearray(file.read_bytes())
    for place, change in damage:
        at = place * len(data) // 1_000_001
        data[at : at + len(change)] = change
    file.write_bytes(data if cut is None else data[: cut * len(data) // 1_000_000])
    read(path)
    read(path, example.importer)


@pytest.mark.parametrize("format_", [None, *IMPORTERS])
@given(data=st.binary(max_size=200), pages=st.integers(0, 3))
@quietly
def test_random_bytes_are_read_or_refused(format_: str | None, data: bytes, pages: int, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(data + bytes(-len(data) % 4096) + b"\1" * 4096 * pages if pages else data)
    read(tmp_path / "x", format_)


@pytest.mark.parametrize("magic", [b"\x7fELF\2\1\1", b"EMiL\1\0\0\0", b"\x19\x43\x56\x54\x25\x40\x08\x56"])
@given(data=st.binary(max_size=300))
@quietly
def test_random_bytes_behind_a_magic_number_are_read_or_refused(magic: bytes, data: bytes, tmp_path: Path) -> None:
    for name in ("x", "pagemap-1.img"):
        (tmp_path / name).write_bytes(magic + data)
    (tmp_path / "pages-1.img").write_bytes(bytes(4096))
    read(tmp_path / "x")
    read(tmp_path, "criu")


def json_with(*keys: str) -> st.SearchStrategy[object]:
    leaves = st.none() | st.integers() | st.text(max_size=5)
    return st.recursive(
        leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(keys), inner, max_size=3)
    )


@given(
    state=json_with("snapshots", "memory-manager", "snapshot_data", "state"),
    table=json_with("memory_ranges", "data", "gpa", "length"),
)
@quietly
def test_any_state_of_cloud_hypervisor_is_read_or_refused(state: object, table: object, tmp_path: Path) -> None:
    (tmp_path / "memory-ranges").write_bytes(bytes(4096))
    component = {"snapshots": {"memory-manager": {"snapshot_data": {"state": json.dumps(table)}}}}
    for whole in (state, component):
        (tmp_path / "state.json").write_text(json.dumps(whole))
        read(tmp_path)


@pytest.mark.parametrize("example", EXAMPLES_OF_OURS, ids=lambda example: example.name)
def test_images_cut_off_anywhere_leave_no_trace_or_a_whole_one(example: Example, tmp_path: Path) -> None:
    path, _ = example.make(tmp_path)
    files = sorted(file for file in tmp_path.rglob("*") if file.is_file() and not file.is_symlink())
    for file in files:
        whole = file.read_bytes()
        for cut in sorted({0, 1, 7, 8, 31, 32, 63, 64, 100, len(whole) // 2, len(whole) - 4096, len(whole) - 1}):
            file.write_bytes(whole[: max(cut, 0)])
            try:
                import_inputs([str(path)], tmp_path / "t.parquet")
                (tmp_path / "t.parquet").unlink()
            except InputError:
                assert not list(tmp_path.glob("*.parquet*"))
                assert not list(tmp_path.glob(".*parquet*"))
        file.write_bytes(whole)


@pytest.mark.skipif(importlib.util.find_spec("kdumpfile") is None, reason="kdumpfile is not installed")
def test_damaged_dumps_of_makedumpfile_are_read_or_refused(tmp_path: Path) -> None:
    program = """
import random, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from small_images import kdump_without_zeros
from ksmbatch.errors import InputError
from ksmbatch.importing import read_inputs
path, _ = kdump_without_zeros(Path(sys.argv[2]))
whole = path.read_bytes()
counts = {True: 0, False: 0}
for seed in range(200):
    rng = random.Random(seed)
    data = bytearray(whole)
    for _ in range(rng.randint(1, 4)):
        at = rng.choice([rng.randrange(500), rng.randrange(4096, 4300), rng.randrange(8192, 20000), rng.randrange(len(data))])
        change = rng.choice([b"\\xff", bytes(4), b"\\xff" * 8, rng.randbytes(1)])
        data[at : at + len(change)] = change
    path.write_bytes(data if rng.random() < 0.8 else data[: rng.randrange(1, len(data))])
    try:
        read_inputs([str(path)])
        counts[True] += 1
    except InputError:
        counts[False] += 1
assert min(counts.values()) > 20, counts
"""
    command = [sys.executable, "-c", program, str(Path(__file__).parent), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
