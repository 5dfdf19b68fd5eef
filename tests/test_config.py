"""Does every bad configuration give one clear line and exit 2? Through the command line, as a user meets it."""

from pathlib import Path

import pytest

from ksmbatch.cli import main

GOOD = {
    "host": "nodes = 2",
    "ksm": "",
    "migration": "",
    "workload": 'trace = "trace.parquet"',
    "run": "full_scans = 2",
    "sweep": "",
}
MIX = 'generator = "mix"\nmms = 2\npages_per_mm = 100'
TRACE = 'trace = "trace.parquet"'
DANCE = 'kind = "dance"\nmerge_across_nodes = 0\nat = '
COMPACTION = 'kind = "compaction"\nnode = 0\nat = 1'
HOTREMOVE = 'kind = "hotremove"\nnode = 2\nat = 1'
REBALANCE = 'kind = "rebalance"\nmm = "web"\nnode = 1\nat = '


def moves(*tables: str, memory: str = TRACE) -> str:
    """[workload] with `tables` of moves."""
    return "\n[[workload.moves]]\n".join([memory, *tables])


# (sections that differ from GOOD, the line after "c.toml: ")
BAD = [
    # what does not exist
    ({"ksm": "page_to_scan = 5"}, "ksm.page_to_scan = 5: unknown key (nearest: ksm.pages_to_scan)"),
    ({"ksm": "nodes = 2"}, "ksm.nodes = 2: unknown key (nearest: host.nodes)"),
    ({"ksm": "advisor_mode = 1"}, "ksm.advisor_mode = 1: unknown key (nearest: "),
    ({"kms": "run = 1"}, "kms: unknown section (nearest: ksm)"),
    ({"workload": 'trce = "trace.parquet"'}, 'workload.trce = "trace.parquet": unknown key (nearest: workload.trace)'),
    ({"workload": f"{MIX}\nmmss = 3"}, "workload.mmss = 3: unknown key (nearest: workload.mms)"),
    ({"workload": 'generator = "mixx"'}, 'workload.generator = "mixx": unknown generator (nearest: mix)'),
    ({"host": 'kernel = "5.15"'}, 'host.kernel = "5.15": must be one of 6.1, 6.12, 7.2'),
    ({"migration": 'policy = "v9"'}, 'migration.policy = "v9": must be one of mainline'),
    (
        {"migration": 'callers = "linux"'},
        'migration.callers = "linux": must be "2.6.33", "mainline", "all", or a list (of hotremove, compaction, cma, thp, ',
    ),
    ({"migration": 'callers = ["thp", "numad"]'}, 'migration.callers = ["thp", "numad"]: must be "2.6.33", "mainline", "all"'),
    ({"migration": "callers = [[1]]"}, "migration.callers = [[1]]: must be "),
    ({"migration": 'locking = "pte"'}, 'migration.locking = "pte": must be one of none, ksm_thread_mutex, tree_mutex'),
    # wrong types
    ({"ksm": 'pages_to_scan = "many"'}, 'ksm.pages_to_scan = "many": must be a whole number (kernel default 100)'),
    ({"ksm": "pages_to_scan = 1.0"}, "ksm.pages_to_scan = 1.0: must be a whole number (kernel default 100)"),
    ({"ksm": "smart_scan = true"}, "ksm.smart_scan = true: must be a whole number (kernel default 1)"),
    ({"ksm": "smart_scan = 1979-05-27"}, "ksm.smart_scan = 1979-05-27: must be a whole number (kernel default 1)"),
    ({"host": "kernel = 6.12"}, 'host.kernel = 6.12: must be a string (such as "6.12", for 6.10 is not 6.1)'),
    ({"host": "nodes = [2]"}, "host.nodes = [2]: must be a whole number (default 1)"),
    ({"workload": "trace = 3"}, "workload.trace = 3: must be the path of a file"),
    ({"workload": "generator = 3"}, "workload.generator = 3: must be a string"),
    ({"run": "duration = 60"}, 'run.duration = 60: must be a time, such as "10min"'),
    (
        {"run": "scans_per_snapshot = 1.5"},
        "run.scans_per_snapshot = 1.5: must be a number of full scans >= 1, or a list of one per",
    ),
    (
        {"run": "scans_per_snapshot = []"},
        "run.scans_per_snapshot = []: must be a number of full scans >= 1, or a list of one per",
    ),
    # out of range
    ({"ksm": "pages_to_scan = 0"}, "ksm.pages_to_scan = 0: must be >= 1 (kernel default 100)"),
    ({"ksm": "pages_to_scan = 4294967296"}, "ksm.pages_to_scan = 4294967296: must be <= 4294967295 (kernel default 100)"),
    ({"ksm": "max_page_sharing = 1"}, "ksm.max_page_sharing = 1: must be >= 2 (kernel default 256)"),
    ({"ksm": "merge_across_nodes = 2"}, "ksm.merge_across_nodes = 2: must be 0 or 1 (kernel default 1)"),
    ({"ksm": "sleep_millisecs = -1"}, "ksm.sleep_millisecs = -1: must be >= 0 (kernel default 20)"),
    ({"ksm": "run = 3"}, "ksm.run = 3: must be 0 to 2 (default 1, where the kernel has 0)"),
    ({"host": "nodes = 9"}, "host.nodes = 9: must be 1 to 8 (default 1)"),
    ({"host": "nodes = 0"}, "host.nodes = 0: must be 1 to 8 (default 1)"),
    ({"host": "node_pages = -1"}, "host.node_pages = -1: must be >= 0 (default 0)"),
    ({"run": "full_scans = 0"}, "run.full_scans = 0: must be >= 1"),
    ({"run": "seed = -1"}, "run.seed = -1: must be >= 0 (default 1)"),
    ({"run": 'duration = "0s"'}, 'run.duration = "0s": must be longer than 0 and at most 100000d'),
    ({"run": 'duration = "200000d"'}, 'run.duration = "200000d": must be longer than 0 and at most 100000d'),
    ({"run": f"full_scans = 0x1{'0' * 5000}"}, "run.full_scans = 0x1000000000000"),
    ({"run": 'duration = "10 minutes"'}, 'run.duration = "10 minutes": must be a time: a number and one of ms, s, min, h, d'),
    ({"run": 'sample = "often"'}, 'run.sample = "often": must be a time'),
    ({"workload": f"{MIX}\nzero = 1.5"}, "workload.zero = 1.5: must be a number from 0 to 1"),
    ({"workload": f"{MIX}\nzero = nan"}, "workload.zero = NaN: must be a number from 0 to 1"),
    ({"workload": f"{MIX}\ngroup = [3, 2]"}, "workload.group[1] = 2: must be a whole number, 3 to "),
    # files
    ({"workload": 'trace = "gone.parquet"'}, 'workload.trace = "gone.parquet": no such file (looked for '),
    ({"workload": 'scenario = "."'}, 'workload.scenario = ".": is a folder (looked for '),
    ({"workload": f'trace = "{"x" * 300}"'}, "File name too long (looked for "),
    # keys that do not go together
    (
        {"workload": f'trace = "trace.parquet"\n{MIX}'},
        "workload: must have exactly one of trace, scenario and generator (it has trace and",
    ),
    ({"workload": ""}, "workload: must have exactly one of trace, scenario and generator (it has none of them)"),
    ({"workload": 'trace = "trace.parquet"\nmms = 3'}, "workload.mms = 3: is a parameter of a generator, and there is none"),
    ({"workload": 'generator = "mix"\nmms = 3'}, 'workload.pages_per_mm: is missing: generator "mix" needs it'),
    ({"workload": MIX, "run": ""}, "run: must have full_scans or duration (mix goes on for ever)"),
    ({"workload": MIX, "run": "full_scans = 2\nscans_per_snapshot = 2"}, "run.scans_per_snapshot = 2: is for traces only"),
    ({"workload": 'trace = "trace.parquet"\nnode = { web = 2 }'}, "workload.node.web = 2: must be 0 to 1 (host.nodes = 2)"),
    ({"workload": 'trace = "trace.parquet"\nnode = { web = -1 }'}, "workload.node.web = -1: must be 0 to 1 (host.nodes = 2)"),
    (
        {"workload": 'trace = "trace.parquet"\nnode = "spread"'},
        'workload.node = "spread": must be a node number per mm, or "round_robin"',
    ),
    (
        {"workload": 'scenario = "trace.parquet"\nnode = { a = 0 }'},
        'workload.node = {"a": 0}: a scenario binds its areas itself',
    ),
    ({"host": 'kernel = "6.1"', "ksm": "smart_scan = 0"}, "ksm.smart_scan = 0: kernel 6.1 has no such knob (leave it out)"),
    ({"ksm": "run = 0"}, "run.full_scans = 2: is never reached with ksm.run = 0 (run.duration ends a run too)"),
    # moves
    ({"workload": f"{TRACE}\nmoves = 3"}, "workload.moves = 3: must be tables, each under [[workload.moves]]"),
    ({"workload": f"{TRACE}\nmoves = [3]"}, "workload.moves = [3]: must be tables, each under [[workload.moves]]"),
    ({"workload": f"{TRACE}\n[workload.moves]\nat = 1"}, 'workload.moves = {"at": 1}: must be tables, each under'),
    ({"workload": moves("at = 1")}, "workload.moves[0].kind: is missing (there are compaction, dance, hotremove, rebalance)"),
    ({"workload": moves('kind = "rebelance"')}, 'workload.moves[0].kind = "rebelance": unknown mover (nearest: rebalance)'),
    ({"workload": moves('kind = "rebalance"')}, "workload.moves[0].mm: is missing: rebalance needs it"),
    ({"workload": moves(f"{REBALANCE}1\nslice = 2")}, "workload.moves[0].slice = 2: unknown key (nearest: slices)"),
    (
        {"workload": moves(f"{DANCE}1", f'{DANCE}"later"')},
        'workload.moves[1].at = "later": must be a number of snapshots, 0 to 1048576, or a time, such as "48s"',
    ),
    ({"workload": moves(f"{DANCE}-1")}, "workload.moves[0].at = -1: must be a number of snapshots, 0 to "),
    ({"workload": moves(f"{REBALANCE}1\nevery = 0")}, "workload.moves[0].every = 0: must be a number of snapshots, 1 "),
    ({"host": "nodes = 3", "workload": moves(f"{REBALANCE}1", "kind = 1")}, "workload.moves[1].kind = 1: unknown mover (there"),
    ({"workload": moves(HOTREMOVE)}, "workload.moves[0].node = 2: must be 0 to 1 (host.nodes = 2)"),
    ({"host": "", "workload": moves(f"{REBALANCE}1")}, "workload.moves[0].node = 1: must be another node, and there is none"),
    (
        {"workload": moves(f'{REBALANCE}1\ncaller = "libvirt"')},
        'workload.moves[0].caller = "libvirt": must be one of hotremove, compaction, cma, thp, numa_balancing, move_pages',
    ),
    (
        {"workload": moves(f'{COMPACTION}\ncaller = "move_pages"')},
        'workload.moves[0].caller = "move_pages": must be one of compaction, thp, cma',
    ),
    (
        {"workload": moves(COMPACTION)},
        "workload.moves[0].node = 0: clears frames by their numbers, which needs host.node_pages > 0",
    ),
    (
        {"workload": moves(f"{DANCE}1", memory='scenario = "trace.parquet"')},
        "workload.moves: a scenario has steps of its own, and moves among them",
    ),
    (
        {"workload": moves(f'{DANCE}"8s"'), "run": "scans_per_snapshot = 2"},
        'workload.moves[0].at = "8s": must be a number of snapshots: run.scans_per_snapshot goes by full scans, not by time',
    ),
    (
        {"workload": moves(f'{DANCE}"8s"', memory=MIX)},
        'workload.moves[0].at = "8s": must be a number of snapshots: what mix makes goes by full scans, not by time',
    ),
    ({"workload": MIX.replace("mix", "dance")}, 'workload.move: is missing: generator "dance" needs it'),
    (
        {"workload": MIX.replace("mix", "dance") + "\nmove = 3"},
        "workload.move = 3: must be a table with the keys of dance: at, merge_across_nodes",
    ),
    (
        {"workload": MIX.replace("mix", "hotremove") + "\nmove = { node = 3, at = 1 }"},
        "workload.move.node = 3: must be 0 to 1 (host.nodes = 2)",
    ),
    # the distance matrix
    ({"host": "nodes = 2\ndistance = [[10, 20]]"}, "host.distance = [[10, 20]]: must have 2 rows of 2 numbers"),
    ({"host": "nodes = 2\ndistance = [[10, 20], [20]]"}, "host.distance = [[10, 20], [20]]: must have 2 rows of 2 numbers"),
    ({"host": "nodes = 2\ndistance = [[10, 20], [20, 11]]"}, "must have 10 on its diagonal, and has 11 at [1][1]"),
    ({"host": "nodes = 2\ndistance = [[10, 10], [20, 10]]"}, "must have 11 to 254 off its diagonal, and has 10 at [0][1]"),
    ({"host": 'nodes = 2\ndistance = [[10, "far"], [20, 10]]'}, 'host.distance[0][1] = "far": must be a whole number'),
    ({"host": "nodes = 2\ndistance = 20"}, "host.distance = 20: must be a list"),
    # sweeps: every value is checked as if it were set
    ({"sweep": '"ksm.pages_to_scan" = [100, 0]'}, 'sweep."ksm.pages_to_scan" = 0: must be >= 1 (kernel default 100)'),
    ({"sweep": '"ksm.page_to_scan" = [100]'}, 'sweep."ksm.page_to_scan" = 100: unknown key (nearest: ksm.pages_to_scan)'),
    ({"sweep": '"kms.run" = [1]'}, 'sweep."kms.run": unknown key (nearest: ksm.run)'),
    ({"sweep": "pages_to_scan = [1]"}, 'sweep."pages_to_scan": unknown key (nearest: ksm.pages_to_scan)'),
    ({"sweep": '"ksm.smart_scan" = 1'}, 'sweep."ksm.smart_scan" = 1: must be a list of values'),
    ({"sweep": '"ksm.smart_scan" = []'}, 'sweep."ksm.smart_scan" = []: must not be empty'),
    ({"sweep": '"ksm.smart_scan" = [0, "1"]'}, 'sweep."ksm.smart_scan" = [0, "1"]: must hold values of one type'),
    ({"sweep": '"ksm.smart_scan" = [0, 0]'}, 'sweep."ksm.smart_scan" = [0, 0]: holds two values that give the same run'),
    (
        {"workload": moves(f"{DANCE}1"), "sweep": '"workload.moves[0].merge_across_nodes" = [0, 2]'},
        'sweep."workload.moves[0].merge_across_nodes" = 2: must be a whole number, 0 to 1',
    ),
    ({"sweep": '"workload.moves[0].at" = [1]'}, 'workload.moves[0] = {"at": 1}: unknown key (nearest: workload.moves)'),
    (
        {"workload": moves(f"{DANCE}1"), "sweep": '"workload.moves[1].at" = [1]'},
        'sweep."workload.moves[1].at" = 1: is in a list that is shorter (moves has 1)',
    ),
    ({"sweep": '"workload.trace" = ["gone"]'}, 'sweep."workload.trace" = "gone": no such file'),
    ({"sweep": '"host.kernel" = ["6.12", "6.1"]', "ksm": "smart_scan = 1"}, "ksm.smart_scan = 1: kernel 6.1 has no such knob"),
]


def refuse(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on standard error with which `arguments` are refused; checks that it is one, and exit 2."""
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    out, err = capsys.readouterr()
    assert (exit_.value.code, out, err.count("\n")) == (2, "", 1), err
    return err.removesuffix("\n")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "trace.parquet").write_bytes(b"never opened")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(folder: Path, sections: dict[str, str]) -> None:
    text = "\n".join(f"[{name}]\n{keys}" for name, keys in (GOOD | sections).items())
    (folder / "c.toml").write_text(text)


@pytest.mark.parametrize("command", ["run", "sweep"])
@pytest.mark.parametrize(("sections", "line"), BAD, ids=[line[:50] for _, line in BAD])
def test_a_bad_configuration_gives_one_line_that_names_file_key_value_and_rule(
    command: str, sections: dict[str, str], line: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(folder, sections)
    shown = refuse([command, "c.toml"], capsys)
    assert shown.startswith("c.toml: ")
    assert line in shown


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"[ksm", "c.toml: is no TOML: Expected ']' at the end of a table declaration"),
        (b"[ksm]\nrun = \n", "c.toml: is no TOML: Invalid value (at line 2, column 7)"),
        (b"[ksm]\nrun = 1\nrun = 1\n", "c.toml: is no TOML: Cannot overwrite a value (at line 3, column 8)"),
        (b"a = " + b"[" * 10_000, "c.toml: is no TOML: "),
        (b"a = " + b"1" * 5_000, "c.toml: is no TOML: "),
        (b"\xff", "c.toml: is no TOML: byte 0 is not UTF-8"),
        (b"ksm = 3", "c.toml: ksm = 3: must be a table"),
        (b"sweep = [1]", "c.toml: sweep = [1]: must be a table"),
        (b"pages_to_scan = 3", "c.toml: pages_to_scan: stands in no section (nearest: ksm.pages_to_scan)"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused(
    content: bytes, line: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "c.toml").write_bytes(content)
    assert refuse(["sweep", "c.toml"], capsys).startswith(line)


def test_a_missing_configuration_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert refuse(["run", "gone.toml"], capsys) == "gone.toml: no such file"
    assert refuse(["run", "."], capsys) == ".: cannot be read: Is a directory"


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("ksm.pages_to_scan=0", "--set: ksm.pages_to_scan = 0: must be >= 1 (kernel default 100)"),
        ("ksm.pages_to_scan=many", '--set: ksm.pages_to_scan = "many": must be a whole number (kernel default 100)'),
        ("ksm.page_to_scan=1", "--set: ksm.page_to_scan = 1: unknown key (nearest: ksm.pages_to_scan)"),
        ("pages_to_scan=1", "--set: pages_to_scan: unknown key (nearest: ksm.pages_to_scan)"),
        ("ksm=1", "--set: ksm: unknown key (nearest: ksm.run)"),
        ("ksm.pages_to_scan", '--set: "ksm.pages_to_scan": must be KEY=VALUE, such as ksm.pages_to_scan=1000'),
        ("ksm.pages_to_scan=", '--set: ksm.pages_to_scan = "": is no TOML value'),
        ("ksm.pages_to_scan=[1", '--set: ksm.pages_to_scan = "[1": is no TOML value'),
        ("host.kernel=6.13", '--set: host.kernel = "6.13": must be one of 6.1, 6.12, 7.2'),
        ("workload.node.db=7", "--set: workload.node.db = 7: must be 0 to 1 (host.nodes = 2)"),
        ("ksm.smart_scan=2", "--set: ksm.smart_scan = 2: must be 0 or 1 (kernel default 1)"),  # it is swept below
        ("workload.moves[0].at=-1", "--set: workload.moves[0].at = -1: must be a number of snapshots, 0 to"),
        ("workload.moves[1].at=1", "--set: workload.moves[1].at = 1: is in a list that is shorter (moves has 1)"),
        ("sweep.workload.moves[1].at=[1]", "--set: workload.moves[1].at = 1: is in a list that is shorter (moves has 1)"),
        ("migration.callers=2.6.32", '--set: migration.callers = "2.6.32": must be "2.6.33", "mainline", "all", or a list'),
        ("sweep.ksm.run=1", '--set: sweep."ksm.run" = 1: must be a list of values'),
    ],
)
def test_a_bad_override_is_named_as_such(override: str, line: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(folder, {"workload": moves(f"{DANCE}1"), "sweep": '"ksm.smart_scan" = [0, 1]'})
    assert refuse(["sweep", "c.toml", "--set", override], capsys).startswith(line)
