"""Does a configuration mean what it says: defaults, paths, overrides, grids and names of runs?"""

import pickle
from pathlib import Path

import pytest
from pydantic import ValidationError

from ksmbatch.codes import CALLER_PRESETS, Caller, Kernel, Locking, Policy
from ksmbatch.config import Config, expand, load
from ksmbatch.errors import InputError
from ksmbatch.generators import MOVERS

TRACE = '[workload]\ntrace = "memory.parquet"\n'
MOVED = (
    TRACE + '[[workload.moves]]\nkind = "dance"\nat = "60s"\nmerge_across_nodes = 1\n'
    '[[workload.moves]]\nkind = "rebalance"\nmm = "web"\nnode = 1\nat = 6\n[host]\nnodes = 2\n'
)
MIX = '[workload]\ngenerator = "mix"\nmms = 2\npages_per_mm = 100\n[run]\nfull_scans = 2\n'


def written(folder: Path, text: str, *overrides: str) -> Config:
    (folder / "memory.parquet").touch()
    (folder / "c.toml").write_text(text)
    return load(folder / "c.toml", overrides)


def test_what_is_left_out_has_the_kernels_default_but_run_is_1(tmp_path: Path) -> None:
    config = written(tmp_path, TRACE)
    assert dict(config.ksm) == {
        "merge_across_nodes": 1,
        "max_page_sharing": 256,
        "use_zero_pages": 0,
        "smart_scan": 1,
        "pages_to_scan": 100,
        "sleep_millisecs": 20,
        "stable_node_chains_prune_millisecs": 2000,
        "run": 1,
    }
    assert (config.host.nodes, config.host.kernel, config.host.node_pages) == (1, Kernel.V6_12, 0)
    assert config.migration.policy is Policy.MAINLINE
    assert (config.run.sample, config.run.seed, config.run.full_scans) == ("full_scan", 1, None)


def test_kernel_6_1_has_no_smart_scan_so_it_is_off_there(tmp_path: Path) -> None:
    config = written(tmp_path, '[host]\nkernel = "6.1"\n' + TRACE)
    assert (config.host.kernel, config.ksm.smart_scan) == (Kernel.V6_1, 0)


@pytest.mark.parametrize("nodes", range(1, 9))
def test_nodes_are_20_apart_unless_told_otherwise(nodes: int, tmp_path: Path) -> None:
    topology = written(tmp_path, f"[host]\nnodes = {nodes}\n" + TRACE).host.topology
    assert len(topology.distance) == topology.nodes == nodes
    assert {topology.distance[a][b] for a in range(nodes) for b in range(nodes) if a != b} <= {20}
    assert {topology.distance[a][a] for a in range(nodes)} == {10}


def test_distances_may_differ_by_direction(tmp_path: Path) -> None:
    config = written(tmp_path, "[host]\nnodes = 2\ndistance = [[10, 21], [31, 10]]\n" + TRACE)
    assert config.host.topology.distance == ((10, 21), (31, 10))


def test_paths_are_relative_to_the_file_not_to_where_the_command_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    config = written(tmp_path, TRACE)
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert load("../c.toml").workload.trace == Path("../memory.parquet")
    assert config.workload.trace == tmp_path / "memory.parquet"


def test_a_generator_has_its_own_keys_with_defaults(tmp_path: Path) -> None:
    config = written(tmp_path, MIX, "workload.zero=0.25", "workload.group=[3, 5]")
    assert config.workload.parameters.zero == 0.25
    assert config.workload.parameters.group == (3, 5)
    assert config.workload.label == "mix"


def test_moves_are_read_by_their_movers_in_the_order_of_the_file(tmp_path: Path) -> None:
    dance, rebalance = written(tmp_path, MOVED).workload.moves
    assert (dance.mover, rebalance.mover) == (MOVERS["dance"], MOVERS["rebalance"])
    assert (dance.key, rebalance.key) == ("workload.moves[0]", "workload.moves[1]")
    assert dance.parameters == MOVERS["dance"].read({"at": "1min", "merge_across_nodes": 1}, "k")
    assert rebalance.parameters == MOVERS["rebalance"].read({"mm": "web", "node": 1, "at": 6}, "k")


def test_a_mover_as_a_generator_comes_before_other_moves(tmp_path: Path) -> None:
    text = MIX.replace('"mix"', '"hotremove"').replace("[run]", "move = { node = 0, at = 1 }\n[run]")
    config = written(tmp_path, text, 'workload.moves=[{kind = "dance", at = 1, merge_across_nodes = 0}]')
    assert [(move.key, move.mover.name) for move in config.workload.all_moves] == [
        ("workload.move", "hotremove"),
        ("workload.moves[0]", "dance"),
    ]
    assert config.resolved()["workload"]["move"] == {"node": 0, "at": 1, "back": None}
    assert written(tmp_path, text, "workload.move.back=2").workload.parameters.move.back == 2


@pytest.mark.parametrize("preset", CALLER_PRESETS)
def test_callers_are_a_preset_or_a_list(preset: str, tmp_path: Path) -> None:
    config = written(tmp_path, TRACE, f"migration.callers={preset}")
    assert config.migration.callers == CALLER_PRESETS[preset]
    listed = written(tmp_path, TRACE, f"migration.callers={[caller.word for caller in reversed(CALLER_PRESETS[preset])]}")
    assert listed.migration.callers == config.migration.callers
    assert listed.run_id == config.run_id
    assert config.resolved()["migration"]["callers"] == sorted(caller.word for caller in CALLER_PRESETS[preset])


def test_migration_is_mainlines_without_locks_unless_told_otherwise(tmp_path: Path) -> None:
    migration = written(tmp_path, TRACE).migration
    assert (migration.policy, migration.locking) == (Policy.MAINLINE, Locking.NONE)
    assert set(Caller) - set(migration.callers) == {Caller.NUMA_BALANCING}
    config = written(tmp_path, TRACE, "migration.locking=tree_mutex", "migration.policy=nuksm", "migration.callers=[]")
    assert config.resolved()["migration"] == {"policy": "nuksm", "callers": [], "locking": "tree_mutex"}


def test_times_are_read_in_any_unit(tmp_path: Path) -> None:
    config = written(tmp_path, TRACE + '[run]\nduration = "1.5min"\nsample = "500ms"\n')
    assert (config.run.duration_ms, config.run.sample_ms) == (90_000, 500)
    assert written(tmp_path, TRACE + '[run]\nsample = "batch"\n').run.sample_ms is None


def test_scans_per_snapshot_is_one_number_for_all_or_one_for_each(tmp_path: Path) -> None:
    run = TRACE + "[run]\nscans_per_snapshot = "
    assert written(tmp_path, run + "2\n").snapshot_scans(3) == (2, 2, 2)
    assert written(tmp_path, run + "[3, 2, 2]\n").snapshot_scans(3) == (3, 2, 2)
    assert written(tmp_path, TRACE).snapshot_scans(3) is None
    with pytest.raises(
        InputError, match=r"run.scans_per_snapshot = \[3, 2\]: must have one number per snapshot.* 3, the list 2"
    ):
        written(tmp_path, run + "[3, 2]\n").snapshot_scans(3)


def test_a_configuration_cannot_be_changed(tmp_path: Path) -> None:
    config = written(tmp_path, TRACE)
    with pytest.raises(ValidationError):
        config.ksm.pages_to_scan = 1
    with pytest.raises(AttributeError):
        config.path = Path("x")  # type: ignore[misc]  # the point of the test


# --set


@pytest.mark.parametrize(
    ("override", "section", "name", "value"),
    [
        ("ksm.pages_to_scan=1_000", "ksm", "pages_to_scan", 1000),
        (" ksm.pages_to_scan = 0x10 ", "ksm", "pages_to_scan", 16),
        ("run.duration=1s", "run", "duration", "1s"),
        ('run.duration="1s"', "run", "duration", "1s"),
        ("host.kernel=6.1", "host", "kernel", Kernel.V6_1),
        ('host.kernel="6.1"', "host", "kernel", Kernel.V6_1),
        ("workload.node=round_robin", "workload", "node", "round_robin"),
        ("workload.node={web = 0}", "workload", "node", {"web": 0}),
        ("workload.node.web=0", "workload", "node", {"web": 0}),
        ("run.scans_per_snapshot=[3, 2]", "run", "scans_per_snapshot", (3, 2)),
    ],
)
def test_an_override_is_a_toml_value_or_a_bare_word(
    override: str, section: str, name: str, value: object, tmp_path: Path
) -> None:
    assert getattr(getattr(written(tmp_path, TRACE, override), section), name) == value


def test_of_two_overrides_the_later_one_counts(tmp_path: Path) -> None:
    assert written(tmp_path, TRACE, "run.seed=2", "run.seed=3").run.seed == 3


def test_an_override_leaves_the_other_keys_of_a_table_alone(tmp_path: Path) -> None:
    config = written(tmp_path, "[host]\nnodes = 2\n" + TRACE + "node = { web = 0, db = 0 }\n", "workload.node.db=1")
    assert config.workload.node == {"web": 0, "db": 1}


def test_an_item_of_a_list_can_be_set(tmp_path: Path) -> None:
    dance, rebalance = written(tmp_path, MOVED, "workload.moves[1].at=7", "workload.moves[1].slices=3").workload.moves
    assert (rebalance.parameters.at, rebalance.parameters.slices) == (7, 3)
    assert dance == written(tmp_path, MOVED).workload.moves[0]


# the grid

SWEPT = TRACE + '[sweep]\n"ksm.merge_across_nodes" = [0, 1]\n"ksm.max_page_sharing" = [16, 256, 8]\n'


def test_the_last_key_of_a_grid_runs_fastest(tmp_path: Path) -> None:
    points = expand(written(tmp_path, SWEPT))
    assert [tuple(point.values.values()) for point in points] == [(0, 16), (0, 256), (0, 8), (1, 16), (1, 256), (1, 8)]
    for config, values in points:
        assert not config.sweep
        assert values == {
            "ksm.merge_across_nodes": config.ksm.merge_across_nodes,
            "ksm.max_page_sharing": config.ksm.max_page_sharing,
        }


def test_without_a_sweep_there_is_one_run(tmp_path: Path) -> None:
    ((config, values),) = expand(written(tmp_path, TRACE))
    assert values == {}
    assert config.run_id == written(tmp_path, TRACE).run_id


def test_setting_a_swept_key_replaces_its_list_by_that_value(tmp_path: Path) -> None:
    points = expand(written(tmp_path, SWEPT, "ksm.max_page_sharing=32"))
    assert [point.values["ksm.max_page_sharing"] for point in points] == [32, 32]
    assert {point.config.ksm.max_page_sharing for point in points} == {32}


def test_a_list_can_be_set_as_well(tmp_path: Path) -> None:
    points = expand(written(tmp_path, SWEPT, "sweep.ksm.max_page_sharing=[4]", "sweep.run.seed=[1, 2]"))
    assert [tuple(point.values.values()) for point in points] == [(0, 4, 1), (0, 4, 2), (1, 4, 1), (1, 4, 2)]


def test_keys_of_a_sweep_need_no_quotes(tmp_path: Path) -> None:
    assert written(tmp_path, TRACE + "[sweep]\nksm.smart_scan = [0, 1]\n").sweep == {"ksm.smart_scan": (0, 1)}


def test_the_workload_can_be_swept(tmp_path: Path) -> None:
    (tmp_path / "other.parquet").write_bytes(b"other")
    config = written(tmp_path, '[sweep]\n"workload.trace" = ["memory.parquet", "other.parquet"]\n')
    assert [point.config.workload.label for point in expand(config)] == ["memory.parquet", "other.parquet"]


def test_what_moves_can_be_swept(tmp_path: Path) -> None:
    points = expand(written(tmp_path, MOVED + '[sweep]\n"workload.moves[0].at" = [5, 8]\n"workload.moves[1].node" = [0, 1]\n'))
    moves = [point.config.workload.moves for point in points]
    assert [(dance.parameters.at, rebalance.parameters.node) for dance, rebalance in moves] == [(5, 0), (5, 1), (8, 0), (8, 1)]
    assert len({point.config.run_id for point in points}) == 4


def test_policies_callers_and_locking_can_be_swept(tmp_path: Path) -> None:
    sweep = {
        "migration.policy": '["mainline", "v4"]',
        "migration.callers": '["2.6.33", "mainline", "all"]',
        "migration.locking": '["none", "ksm_thread_mutex", "tree_mutex"]',
    }
    points = expand(written(tmp_path, TRACE + "[sweep]\n" + "\n".join(f'"{key}" = {words}' for key, words in sweep.items())))
    assert len({point.config.run_id for point in points}) == 18
    assert points[-1].config.migration == (
        written(tmp_path, TRACE, "migration.policy=v4", "migration.callers=all", "migration.locking=tree_mutex").migration
    )
    assert points[-1].values == {"migration.policy": "v4", "migration.callers": "all", "migration.locking": "tree_mutex"}


def test_pinned_guests_can_be_swept_over_nodes(tmp_path: Path) -> None:
    guests = '[workload]\ngenerator = "pinned-guests"\npages_per_guest = 10\n[run]\nfull_scans = 1\n'
    points = expand(written(tmp_path, guests + '[sweep]\n"host.nodes" = [1, 2, 8]\n'))
    assert [len(point.config.host.distance) for point in points] == [1, 2, 8]


def test_a_point_is_valid_even_if_the_sections_alone_would_not_be(tmp_path: Path) -> None:
    distance = "[host]\ndistance = [[10, 20], [20, 10]]\n"
    assert [
        point.config.host.nodes for point in expand(written(tmp_path, distance + TRACE + '[sweep]\n"host.nodes" = [2]\n'))
    ] == [2]


def test_a_configuration_travels_to_another_process(tmp_path: Path) -> None:
    config = written(tmp_path, MOVED + SWEPT.removeprefix(TRACE))
    assert pickle.loads(pickle.dumps(config)) == config


# names of runs


def run_id(folder: Path, text: str = TRACE, *overrides: str) -> str:
    return written(folder, text, *overrides).run_id


def test_the_run_id_depends_on_what_decides_the_results_only(tmp_path: Path) -> None:
    plain = run_id(tmp_path)
    assert len(plain) == 16
    assert int(plain, 16) >= 0
    assert run_id(tmp_path, "# a comment\n" + TRACE) == plain
    assert run_id(tmp_path, TRACE, "ksm.pages_to_scan=100") == plain  # the default, said aloud
    others = [
        "ksm.pages_to_scan=101",
        "run.seed=2",
        "host.nodes=2",
        "host.kernel=7.2",
        "run.sample=batch",
        "workload.node={a=0}",
    ]
    assert len({plain, *(run_id(tmp_path, TRACE, override) for override in others)}) == 1 + len(others)


def test_equal_times_in_other_units_are_the_same_run(tmp_path: Path) -> None:
    assert run_id(tmp_path, TRACE, "run.duration=60s") == run_id(tmp_path, TRACE, "run.duration=1min")


def test_moves_are_part_of_the_run_id_and_equal_ones_are_equal(tmp_path: Path) -> None:
    plain = run_id(tmp_path, MOVED)
    assert plain != run_id(tmp_path, TRACE, "host.nodes=2")
    assert run_id(tmp_path, MOVED, "workload.moves[0].at=1min") == plain
    assert run_id(tmp_path, MOVED, "workload.moves[1].slices=1") == plain  # the default, said aloud
    assert run_id(tmp_path, MOVED, "workload.moves[1].slices=2") != plain
    assert written(tmp_path, MOVED).resolved()["workload"]["moves"] == [
        {"kind": "dance", "at": "1min", "merge_across_nodes": 1},
        {
            "kind": "rebalance",
            "mm": "web",
            "node": 1,
            "at": 6,
            "slices": 1,
            "every": 1,
            "rebind": True,
            "caller": "move_pages",
        },
    ]
    assert "moves" not in written(tmp_path, TRACE).resolved()["workload"]


def test_the_run_id_goes_by_what_the_workload_file_holds_not_where_it_lies(tmp_path: Path) -> None:
    plain = run_id(tmp_path)
    (tmp_path / "moved").mkdir()
    assert run_id(tmp_path / "moved") == plain
    (tmp_path / "moved" / "memory.parquet").write_bytes(b"other contents")
    assert load(tmp_path / "moved" / "c.toml").run_id != plain


def test_the_order_of_swept_keys_does_not_change_the_run_ids(tmp_path: Path) -> None:
    turned = TRACE + '[sweep]\n"ksm.max_page_sharing" = [8, 256, 16]\n"ksm.merge_across_nodes" = [1, 0]\n'
    ids = [point.config.run_id for point in expand(written(tmp_path, SWEPT))]
    assert sorted(point.config.run_id for point in expand(written(tmp_path, turned))) == sorted(ids)
    assert len(set(ids)) == 6


def test_a_share_of_0_is_the_same_run_as_one_of_0_0(tmp_path: Path) -> None:
    assert run_id(tmp_path, MIX, "workload.zero=0") == run_id(tmp_path, MIX, "workload.zero=0.0")


def test_a_fault_found_later_is_named_with_the_file_or_the_option_that_holds_it(tmp_path: Path) -> None:
    config = written(tmp_path, TRACE, "run.seed=2")
    assert str(config.blame(InputError(key="workload.trace", rule="no"))) == f"{tmp_path / 'c.toml'}: workload.trace: no"
    assert str(config.blame(InputError(key="run.seed", rule="no"))) == "--set: run.seed: no"
