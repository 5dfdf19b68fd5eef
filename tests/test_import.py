"""`ksmbatch import` as people call it: snapshots over time, one line for every bad input, and never half a trace."""

import json
import os
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from bad_images import BAD
from machines import compiled_only
from small_images import Load, criu, elf, kdump, lime_range, process_core, some_pages

from ksmbatch.cli import main
from ksmbatch.importers import IMPORTERS, signatures
from ksmbatch.trace_memory import memory_at
from ksmbatch.traces import Trace, read_trace

PAGE = 4096
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Exit status, standard output and standard error of `ksmbatch import ARGUMENTS --out t.parquet`, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as exit_:
            main(["import", *arguments, "--out", "t.parquet"])
        out, err = capsys.readouterr()
        assert isinstance(exit_.value.code, int)
        return exit_.value.code, out, err

    return run


def page(byte: int) -> bytes:
    return bytes([byte]) * PAGE


def write(name: str, *bytes_of_pages: int) -> str:
    Path(name).write_bytes(b"".join(map(page, bytes_of_pages)))
    return name


def rows(trace: Trace) -> list[tuple[object, ...]]:
    names = list(trace.pages)
    mm = [names[k] for k in trace.mm]
    gone = [""] * len(mm) if trace.gone is None else ["gone" if each else "" for each in trace.gone]
    return list(zip(trace.time_ms.tolist(), mm, trace.page.tolist(), trace.content.tolist(), gone, strict=True))


# ---- what comes out


def test_two_images_are_two_mms_that_share_contents(call: Call) -> None:
    assert call(write("a.img", 1, 0, 2), write("b.img", 2, 2)) == (
        0,
        "a: 3 pages, 1 of them zeros (raw)\nb: 2 pages, 0 of them zeros (raw)\nt.parquet: 5 pages, 3 contents\n",
        "",
    )
    trace = read_trace("t.parquet")
    assert rows(trace) == [(0, "a", 0, 1, ""), (0, "a", 1, 0, ""), (0, "a", 2, 2, ""), (0, "b", 0, 2, ""), (0, "b", 1, 2, "")]
    assert (trace.order, trace.order_ties, trace.start_ms, trace.snapshots) == ("memcmp", 0, {}, (0,))


def test_no_content_is_0_where_no_page_is_of_zeros(call: Call) -> None:
    call(write("a.img", 1, 3, 1))
    assert read_trace("t.parquet").content.tolist() == [1, 2, 1]


def test_an_image_that_is_nothing_but_a_hole_is_all_zeros(call: Call) -> None:
    with Path("a.img").open("wb") as file:
        file.truncate(1000 * PAGE)
    assert call("a.img")[0] == 0
    assert not read_trace("t.parquet").content.any()
    assert read_trace("t.parquet").pages == {"a": 1000}


def test_images_at_several_times_are_snapshots_of_which_changes_are_kept(call: Call) -> None:
    write("one", 1, 2, 0, 4)
    write("two", 1, 3, 0, 0)
    status, out, _ = call("web=two@60s", "web=one@1s", "db=one@30s")
    assert status == 0
    assert out.splitlines()[0] == "web at 1s: 4 pages, 1 of them zeros (raw)"
    trace = read_trace("t.parquet")
    assert trace.snapshots == (1000, 30_000, 60_000)
    assert trace.start_ms == {"db": 30_000}
    assert rows(trace) == [
        *((1000, "web", number, content, "") for number, content in enumerate((1, 2, 0, 4))),
        *((30_000, "db", number, content, "") for number, content in enumerate((1, 2, 0, 4))),
        (60_000, "web", 1, 3, ""),
        (60_000, "web", 3, 0, ""),
    ]


def test_a_snapshot_in_which_nothing_changed_is_there_all_the_same(call: Call) -> None:
    write("one", 1, 2)
    call("x=one", "x=one@1s")
    trace = read_trace("t.parquet")
    assert trace.snapshots == (0, 1000)
    assert len(trace.page) == 2


def test_pages_keep_their_numbers_when_others_come_and_go(call: Call) -> None:
    for name, runs in {"one": {0x1000: (1, 2), 0x9000: (9,)}, "two": {0x2000: (2, 3), 0x9000: (9,)}}.items():
        elf(Path(name), [Load(at, 0, b"".join(map(page, pages))) for at, pages in runs.items()])
    call("x=one", "x=two@1s")
    trace = read_trace("t.parquet")
    assert trace.pages == {"x": 4}  # at 0x1000, 0x2000, 0x3000, 0x9000
    assert rows(trace) == [
        (0, "x", 0, 1, ""),
        (0, "x", 1, 2, ""),
        (0, "x", 3, 4, ""),
        (1000, "x", 0, 0, "gone"),
        (1000, "x", 2, 3, ""),
    ]
    assert memory_at(trace)["x"].present.tolist() == [False, True, True, True]
    assert memory_at(trace, 0)["x"].present.tolist() == [True, True, False, True]


def test_vmas_of_a_core_have_the_names_of_their_files(call: Call, tmp_path: Path) -> None:
    process_core(tmp_path)
    _, out, _ = call("x.core")
    assert out.startswith("x: 60 pages, ")
    assert "(elf_core); 105 more are not in the file" in out
    vmas = read_trace("t.parquet").vmas["x"]
    assert [tuple(vma) for vma in vmas] == [(0, 10, "/bin/x"), (10, 20, ""), (30, 29, ""), (59, 1, "")]


def test_processes_of_criu_have_names_vmas_and_pages_left_behind(call: Call, tmp_path: Path) -> None:
    criu(tmp_path)
    _, out, _ = call("pod=x")
    assert [line.split(":")[0] for line in out.splitlines()] == ["pod/nginx.7", "pod/12", "t.parquet"]
    assert "3 more are not in the file" in out.splitlines()[0]
    assert [tuple(vma) for vma in read_trace("t.parquet").vmas["pod/nginx.7"]] == [(0, 10, ""), (10, 20, "[heap]")]


def test_ranges_of_a_machine_are_named_by_address(call: Call) -> None:
    Path("x").write_bytes(lime_range(0x1000, page(1)) + lime_range(0x100000, page(2)[:100]))
    _, out, _ = call("x")
    assert "of 1 only a part is, the rest counts as zeros" in out
    assert [tuple(vma) for vma in read_trace("t.parquet").vmas["x"]] == [(0, 1, "ram 0x1000"), (1, 1, "ram 0x100000")]


def test_format_overrides_what_a_file_looks_like(call: Call) -> None:
    Path("x").write_bytes(lime_range(0, page(1))[:PAGE])
    assert call("x")[0] == 2
    assert call("x", "--format", "raw") == (0, "x: 1 pages, 0 of them zeros (raw)\nt.parquet: 1 pages, 1 contents\n", "")


def test_memory_images_begin_with_anything(call: Call) -> None:
    assert call(write("a", 0xFF))[0] == 0  # nothing that is known


def test_the_metadata_says_who_made_it_and_nothing_of_paths(call: Call, tmp_path: Path) -> None:
    call(write("secret-name.img", 1), "--format", "raw")
    metadata = pq.read_schema("t.parquet").metadata[b"ksmbatch.trace"].decode()
    assert str(tmp_path) not in metadata
    assert json.loads(metadata)["made_by"]["formats"] == {"secret-name": "raw"}


def test_a_private_trace_has_ids_in_random_order_and_no_names(call: Call, tmp_path: Path) -> None:
    path, _ = process_core(tmp_path)
    call(path.name)
    plain = read_trace("t.parquet")
    orders = set()
    for _ in range(3):
        assert call(path.name, "--private")[0] == 0
        trace = read_trace("t.parquet")
        assert trace.order == "none"
        assert [vma.name for vma in trace.vmas["x"]] == ["file", "anonymous", "anonymous", "anonymous"]
        pairs = set(zip(plain.content.tolist(), trace.content.tolist(), strict=True))
        assert len(pairs) == len(set(plain.content)) == len(set(trace.content))  # as many contents, equal where they were
        assert (0, 0) in pairs
        orders.add(trace.content.tobytes())
    assert len(orders) == 3


@compiled_only
def test_the_same_inputs_make_the_same_bytes(call: Call) -> None:
    Path("x.img").write_bytes(some_pages(3000, 1).tobytes())
    call("x.img")
    first = Path("t.parquet").read_bytes()
    call("x.img")
    assert Path("t.parquet").read_bytes() == first


@compiled_only
def test_an_image_of_many_portions_is_counted_as_numpy_does(call: Call) -> None:
    rng = np.random.default_rng(5)
    words = rng.integers(0, 30_000, 60_000, np.uint64)
    pages = np.zeros((words.size, PAGE), np.uint8)
    pages[:, 1000:1008] = words.view(np.uint8).reshape(-1, 8)
    Path("x.img").write_bytes(pages.tobytes())
    call("x.img")
    content = read_trace("t.parquet").content
    _, ids = np.unique(words.byteswap(), return_inverse=True)  # as memcmp sees them
    assert np.array_equal(content, ids + (0 if (words == 0).any() else 1))


# ---- bad inputs


@pytest.mark.parametrize("name", BAD)
def test_a_bad_input_gets_one_line_exit_2_and_no_trace(name: str, call: Call) -> None:
    make, line = BAD[name]
    status, out, err = call(make())
    assert (status, out) == (2, "")
    assert line in err
    assert err.count("\n") == 1
    assert not [each for each in Path().iterdir() if "parquet" in each.name]


@pytest.mark.parametrize("importer", [name for name in IMPORTERS if name != "raw"])
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_an_importer_that_is_told_to_read_something_else_says_so(importer: str, kind: str, call: Call) -> None:
    write("x", 1, 0) if kind == "file" else Path("x").mkdir()
    status, _, err = call("x", "--format", importer)
    assert (status, err.count("\n")) == (2, 1)
    assert err.startswith("x: ")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["a", "--format", "lym"], f'--format: "lym": must be one of {", ".join(IMPORTERS)} (nearest: lime)'),
        (["a", "a"], "a: is a at 0ms, and so is a (as two mms: "),
        (["a", "a=b"], "b: is a at 0ms, and so is a (as two mms: "),
        (["a@1s", "b", "a=b@1000ms"], "b: is a at 1s, and so is a (as two mms: "),
        (["a@1y"], "INPUT a@1y: "),
        (["=a"], 'INPUT: "=a": has an empty name before ='),
        ([], "ksmbatch import: missing argument 'INPUT...'"),
    ],
)
def test_inputs_that_do_not_go_together_get_one_line_and_exit_2(arguments: list[str], line: str, call: Call) -> None:
    write("a", 1)
    write("b", 2)
    status, out, err = call(*arguments)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(line)


def test_every_signature_names_what_it_is_and_how_to_go_on(call: Call) -> None:
    for signature in signatures.SIGNATURES:
        Path("x").write_bytes((bytes(signature.offset) + signature.magic).ljust(PAGE, b"\x01"))
        status, _, err = call("x")
        assert status == 2
        assert f"x: looks like {signature.what}, not like memory" in err
        assert "--format raw takes any file as it is; importers: cloud_hypervisor" in err


def test_a_dump_of_makedumpfile_names_the_extra_that_is_missing(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kdumpfile", None)
    kdump(Path("x"), [(0, some_pages(5, 1))], lambda page: True, 0)
    status, _, err = call("x")
    assert (status, err.count("\n")) == (2, 1)
    assert "pip install 'ksmbatch[kdump]'" in err


def test_a_dump_whose_pages_cannot_be_unpacked_gets_one_line(call: Call) -> None:
    pytest.importorskip("kdumpfile", exc_type=ImportError)
    kdump(Path("x"), [(0, some_pages(5, 1))], lambda page: True, 0)
    data = bytearray(Path("x").read_bytes())
    data[-20:] = bytes(20)
    Path("x").write_bytes(data)
    status, _, err = call("x")
    assert (status, err.count("\n")) == (2, 1)
    assert err.startswith("x: is a damaged dump of makedumpfile: ")


# ---- the file that comes out


def test_a_trace_that_is_there_stays_when_an_import_fails(call: Call) -> None:
    call(write("a", 1))
    before = Path("t.parquet").read_bytes()
    Path("x").write_bytes(lime_range(0, page(1))[:-1])
    assert call("x")[0] == 2
    assert Path("t.parquet").read_bytes() == before


@pytest.mark.parametrize(
    ("out", "line"),
    [
        ("a", "a: is an input: the trace would replace it"),
        ("d", "d: is a folder: the trace is a file"),
        ("no/t", "no/t: cannot be written: "),
    ],
)
def test_a_bad_place_for_the_trace_is_told_before_anything_is_read(
    out: str, line: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ksmbatch.importing.intern_pages", None)
    Path("d").mkdir()
    with pytest.raises(SystemExit) as exit_:
        main(["import", write("a", 1), "--out", out])
    assert exit_.value.code == 2
    assert capsys.readouterr().err.startswith(line)
    assert Path("a").read_bytes() == page(1)


def test_ctrl_c_leaves_nothing(tmp_path: Path) -> None:
    with (tmp_path / "big").open("wb") as file:  # no holes, and never read to its end
        file.truncate(2**36)
        for k in range(200):
            file.seek(k * 2**27)
            file.write(page(1))
    program = (
        "import os, signal, sys, ksmbatch.importers.pieces as pieces; from ksmbatch.cli import main\n"
        "pieces.PieceSource.read = lambda self, first, out: os.kill(os.getpid(), signal.SIGINT)\n"
        "main(['import', 'big', '--out', 't.parquet'])"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 130
    assert done.stderr == "interrupted; there is no trace, for none is written before all is read\n"
    assert [each.name for each in tmp_path.iterdir()] == ["big"]


@compiled_only
def test_memory_that_changes_while_it_is_read_makes_a_trace_all_the_same(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    # a guest that runs on: whatever is read twice may differ
    rng = np.random.default_rng(0)

    def read(_self: object, _first: int, out: np.ndarray) -> None:
        out[:] = 0
        out[:, 0] = rng.integers(0, 2, len(out))
        out[:, -1] = rng.integers(0, 256, len(out))

    monkeypatch.setattr("ksmbatch.importers.pieces.PieceSource.read", read)
    Path("x.img").write_bytes(bytes([1]) * 5000 * PAGE)
    assert call("x.img")[0] == 0
    assert len(read_trace("t.parquet").content) == 5000


# ---- the real tool


def loads_of(path: Path) -> list[tuple[int, bytes]]:
    """Address and bytes of every segment of a core of 64 bits, read without the importer's library."""
    data = path.read_bytes()
    (start,), (size, n) = struct.unpack_from("<Q", data, 32), struct.unpack_from("<HH", data, 54)
    found = []
    for k in range(n):
        kind, _, offset, address, _, stored = struct.unpack_from("<IIQQQQ", data, start + k * size)
        if kind == 1 and stored:
            found.append((address, data[offset : offset + stored]))
    return sorted(found)


@compiled_only
@pytest.mark.skipif(shutil.which("gcore") is None, reason="gcore (of gdb) is not installed")
def test_a_core_that_gcore_makes_of_a_living_process_is_counted_as_numpy_does(call: Call) -> None:
    program = (
        "import mmap, time\n"
        "held = mmap.mmap(-1, 64 * 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)\n"
        "for k in range(64): held[k * 4096 : k * 4096 + 12] = b'ksmbatch' + (k // 4).to_bytes(4, 'big')\n"
        "print('ready', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-S", "-c", program], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            done = subprocess.run(["gcore", "-o", "core", str(process.pid)], capture_output=True, text=True, check=False)
        finally:
            process.kill()
    if done.returncode:
        pytest.skip(f"gcore may not look at processes here: {done.stderr[-200:]}")
    name = f"core.{process.pid}"
    assert call(f"python={name}")[0] == 0
    trace = read_trace("t.parquet")
    pages = np.frombuffer(b"".join(data for _, data in loads_of(Path(name))), np.uint8).reshape(-1, PAGE)
    _, ids = np.unique(pages, axis=0, return_inverse=True)
    assert trace.pages == {"python": len(pages)}
    assert np.array_equal(trace.content, ids.ravel())
    ours = trace.content[(pages[:, :8].view("S8").ravel() == b"ksmbatch") & ~pages[:, 12:].any(axis=1)]
    assert np.unique(ours, return_counts=True)[1].tolist() == [4] * 16
    names = {vma.name for vma in trace.vmas["python"]}
    assert os.path.realpath(sys.executable) in names


def test_the_time_of_help_does_not_depend_on_importers() -> None:
    program = (
        "import sys\nfrom ksmbatch.cli import main\n"
        "try: main(['import', '--help'])\nexcept SystemExit: print('LOADED', *sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in done.stdout.split("LOADED")[1].split()}
    assert not loaded & {"numba", "numpy", "pandas", "pyarrow", "elftools", "kdumpfile", "rich"}


def test_an_image_of_few_pages_takes_little_time(call: Call) -> None:
    call(write("a", 1))  # compiles
    start_s = time.perf_counter()
    call("a")
    assert time.perf_counter() - start_s < 5
