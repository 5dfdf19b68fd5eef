"""Are results whole, durable, typed as promised, and nobody else's touched?"""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from fake_runs import FakeRun, fake_run

from ksmbatch import provenance, results
from ksmbatch.errors import InputError, KsmbatchError
from ksmbatch.metrics import COUNTERS, DERIVED, NODE_COUNTERS, SURVEYED
from ksmbatch.results import GridRun, ResultsDir

ORIGIN = {"config": {"ksm": {}}, "seed": 1, "source": {"config": "a.toml", "workload": "w"}}
A, B, C = "a" * 16, "b" * 16, "c" * 16


def grid(*run_ids: str, key: str = "ksm.smart_scan") -> list[GridRun]:
    return [GridRun(run_id=run_id, swept={key: rank}, origin=ORIGIN) for rank, run_id in enumerate(run_ids)]


def run(saved: int = 100) -> FakeRun:
    return fake_run([1000, 2000], [1, 2], [0, saved], cpu_ns=[1, 2], remote=4)


def write(out: Path, runs: list[GridRun], finish: list[str]) -> None:
    with ResultsDir(out, runs, ORIGIN) as directory:
        directory.look()
        directory.begin()
        for run_id in finish:
            directory.add(run_id, run())


def listed(out: Path) -> list[str]:
    return pq.read_table(out / "runs.parquet")["run_id"].to_pylist()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_runs_are_listed_in_grid_order_whatever_finishes_first(tmp_path) -> None:
    write(tmp_path, grid(A, B, C), [C, A, B])
    assert listed(tmp_path) == [A, B, C]


def test_runs_has_the_contract_s_columns_with_their_types(tmp_path) -> None:
    write(tmp_path, grid(A), [A])
    schema = pq.read_schema(tmp_path / "runs.parquet")
    counters = [metric.name for metric in COUNTERS] + [derived.metric.name for derived in DERIVED]
    surveyed = [metric.name for metric in SURVEYED]
    figures = ["setup_s", "wall_s", "compile_s", "process_s", "peak_rss_bytes"]
    assert schema.names == ["run_id", "ksm.smart_scan", *counters, *surveyed, *figures]
    assert schema.field("run_id").type == pa.string()
    assert {schema.field(name).type for name in counters + surveyed} == {pa.int64()}
    assert schema.field("wall_s").type == pa.float64()
    assert schema.field("peak_rss_bytes").type == pa.int64()


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ((0, 1), pa.int64()),
        ((0.5, 1.0), pa.float64()),
        ((1, 0.5), pa.float64()),
        (("1s", "batch"), pa.string()),
        ((True, False), pa.bool_()),
        (((3, 2), (2, 2)), pa.list_(pa.int64())),
    ],
)
def test_a_swept_key_keeps_its_toml_type_whichever_run_has_finished(tmp_path, values, kind) -> None:
    runs = [GridRun(run_id=run_id, swept={"x.y": value}, origin=ORIGIN) for run_id, value in zip((A, B), values, strict=True)]
    write(tmp_path, runs, [B])
    column = pq.read_table(tmp_path / "runs.parquet")["x.y"]
    assert column.type == kind
    assert column.to_pylist() == [list(values[1]) if isinstance(values[1], tuple) else values[1]]


def test_samples_and_nodes_are_data_sets_with_one_row_per_run_and_sample(tmp_path) -> None:
    write(tmp_path, grid(A, B), [A, B])
    samples = ds.dataset(tmp_path / "samples").to_table()
    nodes = ds.dataset(tmp_path / "nodes").to_table()
    counters = [metric.name for metric in COUNTERS] + [derived.metric.name for derived in DERIVED]
    assert samples.column_names == ["run_id", "time_ms", *counters]
    assert nodes.column_names == ["run_id", "time_ms", "full_scans", "nid", *(metric.name for metric in NODE_COUNTERS)]
    assert sorted(zip(samples["run_id"].to_pylist(), samples["time_ms"].to_pylist(), strict=True)) == [
        (A, 1000), (A, 2000), (B, 1000), (B, 2000)
    ]  # fmt: skip
    assert nodes.num_rows == 8


def test_values_come_back_as_they_went_in(tmp_path) -> None:
    extremes = [-(2**63), 2**63 - 1]
    result = run()
    result.samples["general_profit"][:] = 0  # the fake's zeros are one shared array
    result = FakeRun(
        samples={**result.samples, "general_profit": np.array(extremes)},
        nodes=result.nodes,
        last=result.last,
        figures=result.figures,
    )
    with ResultsDir(tmp_path, grid(A), ORIGIN) as directory:
        directory.add(A, result)
    assert pq.read_table(tmp_path / "samples" / f"{A}.parquet")["general_profit"].to_pylist() == extremes


def test_every_file_carries_its_provenance(tmp_path) -> None:
    write(tmp_path, grid(A), [A])
    paths = ["runs.parquet", f"samples/{A}.parquet", f"nodes/{A}.parquet"]
    documents = [provenance.decode(pq.read_schema(tmp_path / path).metadata) for path in paths]
    assert [document["table"] for document in documents] == ["runs", "samples", "nodes"]
    assert all(document["config"] == ORIGIN["config"] and document["seed"] == 1 for document in documents)


def test_every_column_says_its_unit_and_source(tmp_path) -> None:
    write(tmp_path, grid(A), [A])
    field = pq.read_schema(tmp_path / "samples" / f"{A}.parquet").field("pages_shared")
    assert field.metadata[b"unit"] == b"pages"
    assert b"sysfs" in field.metadata[b"doc"]


def test_finished_runs_are_kept_and_others_go_when_the_grid_changes(tmp_path) -> None:
    write(tmp_path, grid(A, B), [A, B])
    with ResultsDir(tmp_path, grid(C, B, key="ksm.max_page_sharing"), ORIGIN) as directory:
        resumed = directory.look()
        assert (resumed.kept, resumed.dropped) == ({B}, 1)
        directory.begin()
    assert listed(tmp_path) == [B]
    assert "ksm.max_page_sharing" in pq.read_schema(tmp_path / "runs.parquet").names
    assert names(tmp_path / "samples") == names(tmp_path / "nodes") == [f"{B}.parquet"]


def test_looking_changes_nothing(tmp_path) -> None:
    write(tmp_path, grid(A, B), [A, B])
    with ResultsDir(tmp_path, grid(C), ORIGIN) as directory:
        directory.look()
    assert listed(tmp_path) == [A, B]
    assert len(names(tmp_path / "samples")) == 2


def test_fresh_discards_all(tmp_path) -> None:
    write(tmp_path, grid(A, B), [A, B])
    with ResultsDir(tmp_path, grid(A, B), ORIGIN) as directory:
        assert directory.look(fresh=True).kept == frozenset()
        directory.begin()
    assert listed(tmp_path) == []
    assert names(tmp_path / "samples") == []


def test_a_run_without_its_samples_or_nodes_does_not_count(tmp_path) -> None:
    write(tmp_path, grid(A, B, C), [A, B, C])
    (tmp_path / "samples" / f"{A}.parquet").unlink()
    (tmp_path / "nodes" / f"{B}.parquet").write_bytes(b"PAR1 torn")
    with ResultsDir(tmp_path, grid(A, B, C), ORIGIN) as directory:
        assert directory.look().kept == {C}


def test_samples_without_a_row_in_runs_are_cleared_away(tmp_path) -> None:
    # killed between the samples of a run and its row
    write(tmp_path, grid(A, B), [A, B])
    write(tmp_path / "other", grid(C), [C])
    for table in ("samples", "nodes"):
        (tmp_path / "other" / table / f"{C}.parquet").rename(tmp_path / table / f"{C}.parquet")
    write(tmp_path, grid(A, B, C), [])
    assert names(tmp_path / "samples") == [f"{A}.parquet", f"{B}.parquet"]


def test_halves_of_files_are_cleared_away(tmp_path) -> None:
    write(tmp_path, grid(A), [A])
    halves = [tmp_path / ".runs.parquet.partial", tmp_path / "samples" / f".{B}.parquet.partial"]
    for half in halves:
        half.write_bytes(b"PAR1")
    write(tmp_path, grid(A), [])
    assert not any(half.exists() for half in halves)


def test_files_that_are_not_ours_stay(tmp_path) -> None:
    write(tmp_path, grid(A), [A])
    theirs = [tmp_path / "notes.txt", tmp_path / "samples" / "mine.parquet", tmp_path / "nodes" / f"{C}.parquet"]
    for path in theirs:
        pq.write_table(pa.table({"x": [1]}), path)  # the last one even has the name of a run, but not our metadata
    with ResultsDir(tmp_path, grid(B), ORIGIN) as directory:
        directory.look(fresh=True)
        directory.begin()
    assert all(path.exists() for path in theirs)


@pytest.mark.parametrize("text", [b"", b"a,b\n1,2\n"])
@pytest.mark.parametrize("fresh", [False, True])
def test_a_foreign_runs_file_is_refused_and_stays(tmp_path, text, fresh) -> None:
    (tmp_path / "runs.parquet").write_bytes(text)
    with ResultsDir(tmp_path, grid(A), ORIGIN) as directory, pytest.raises(InputError, match="not a results file of ksmbatch"):
        directory.look(fresh=fresh)
    assert (tmp_path / "runs.parquet").read_bytes() == text


def test_runs_in_another_schema_run_again(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(results, "SCHEMA_VERSION", 0)
    write(tmp_path, grid(A), [A])
    monkeypatch.undo()
    with ResultsDir(tmp_path, grid(A), ORIGIN) as directory:
        assert directory.look().kept == frozenset()


def test_results_in_another_schema_are_not_read_as_if_they_were_in_this_one(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(results, "SCHEMA_VERSION", 1)
    write(tmp_path, grid(A), [A])
    monkeypatch.undo()
    with pytest.raises(InputError, match=r"1: is of another schema: must be 2.*run again"):
        results.read(tmp_path)


def test_kept_runs_of_other_sources_are_pointed_out(tmp_path, monkeypatch) -> None:
    write(tmp_path, grid(A), [A])
    monkeypatch.setattr(provenance, "software", lambda: {"sources": "another"})
    with ResultsDir(tmp_path, grid(A), ORIGIN) as directory:
        resumed = directory.look()
    assert resumed.kept == {A}
    assert "--fresh" in resumed.why[0]


def test_a_second_writer_is_refused_and_told_who_writes(tmp_path) -> None:
    code = (
        "import sys; from pathlib import Path; from ksmbatch.results import ResultsDir\n"
        "with ResultsDir(Path(sys.argv[1]), [], {}):\n    print('locked', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout.readline() == "locked\n"
        with pytest.raises(InputError, match=f"another ksmbatch is writing here .process {holder.pid}"):
            ResultsDir(tmp_path, grid(A), ORIGIN).__enter__()
        holder.kill()
    with ResultsDir(tmp_path, grid(A), ORIGIN):
        pass  # the lock of a killed process is gone


def test_an_out_that_is_a_file_is_refused(tmp_path) -> None:
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(InputError, match="cannot hold results"):
            ResultsDir(out, grid(A), ORIGIN).__enter__()


def test_a_failing_disk_leaves_the_old_file_whole(tmp_path, monkeypatch) -> None:
    write(tmp_path, grid(A, B), [A])

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(results.pq, "write_table", full)
    with ResultsDir(tmp_path, grid(A, B), ORIGIN) as directory:
        directory.look()
        with pytest.raises(KsmbatchError, match="cannot be written: No space left on device"):
            directory.add(B, run())
    assert listed(tmp_path) == [A]
    assert names(tmp_path / "samples") == [f"{A}.parquet"]


def test_reading_gives_what_runs_lists_in_its_order(tmp_path) -> None:
    write(tmp_path, grid(B, A), [A, B])
    tables = results.read(tmp_path)
    assert tables.swept == ("ksm.smart_scan",)
    assert tables.runs["run_id"].to_pylist() == [B, A]
    assert tables.samples["run_id"].to_pylist() == [B, B, A, A]
    assert tables.provenance["source"] == ORIGIN["source"]


def test_a_folder_with_an_equals_sign_adds_no_column(tmp_path) -> None:
    out = tmp_path / "jobs=2"
    write(out, grid(A), [A])
    assert "jobs" not in results.read(out).samples.column_names


def test_reading_a_folder_without_results_says_so(tmp_path) -> None:
    with pytest.raises(InputError, match="holds no results"):
        results.read(tmp_path)


def test_reading_notices_a_missing_file(tmp_path) -> None:
    write(tmp_path, grid(A), [A])
    (tmp_path / "nodes" / f"{A}.parquet").unlink()
    with pytest.raises(InputError, match="is missing"):
        results.read(tmp_path)
