"""Is what capture writes what live processes hold, counted independently, whatever they and the user do meanwhile?"""

import errno
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from live import PAGE, Child, children

from ksmbatch.capture.fingerprint import Fingerprints
from ksmbatch.capture.follower import Follower
from ksmbatch.capture.pagemap import Pagemap, Pages
from ksmbatch.capture.request import request_of
from ksmbatch.capture.session import capture
from ksmbatch.capture.spill import Changes
from ksmbatch.cli import main
from ksmbatch.errors import InputError
from ksmbatch.trace_memory import memory_at
from ksmbatch.traces import Trace, read_trace

OPTIONS: dict[str, Any] = {
    "pids": (),
    "names": (),
    "cgroups": (),
    "qemu": False,
    "interval": "1ms",
    "rounds": 1,
    "max_cpu": "100%",
    "all_vmas": False,
    "mergeable": True,
    "keep_order": False,
    "fingerprint": "blake2b",  # nothing to compile
    "vma_names": False,
    "soft_dirty": False,
}


def captured(out: Path, *, between: Mapping[int, Callable[[], object]] | None = None, **options: Any) -> Trace:
    """The trace of a capture; `between`: what is done when a round of that number, from 1, is over."""

    def tell(line: str) -> None:
        words = line.split()
        if words[0] == "round" and between and int(words[1]) in between:
            between[int(words[1])]()

    said: list[object] = []
    assert capture(request_of(**OPTIONS | options), out, said.append, tell) == 0
    assert len(said) == 1
    assert [path.name for path in out.parent.iterdir()] == [out.name]
    return read_trace(out)


def pids(*processes: Child) -> tuple[int, ...]:
    return tuple(child.pid for child in processes)


def held(trace: Trace, snapshot: int = -1) -> list[dict[int, int]]:
    """Of each living mm: page -> content."""
    return [
        {int(page): int(memory.content[page]) for page in np.flatnonzero(memory.present)}
        for memory in memory_at(trace, snapshot).values()
    ]


# ---- contents


@pytest.mark.parametrize("fingerprint", ["xxh64", "blake2b"])
def test_equal_pages_are_those_that_a_count_byte_by_byte_finds(tmp_path: Path, fingerprint: str) -> None:
    with children(2, mergeable=False) as (one, two):
        for child, own in ((one, b"one"), (two, b"two")):
            child.put({page: b"shared %d" % page for page in range(20)})
            child.put({page: own + b" %d" % page for page in range(20, 40)})
            child.put(dict.fromkeys(range(40, 50), b""))
            child.put({50: b"twice here", 51: b"twice here"})
        trace = captured(tmp_path / "t.parquet", pids=pids(one, two), mergeable=False, fingerprint=fingerprint)
        raw = [child.pages() for child in (one, two)]
    found = [memory.content[memory.present].tolist() for memory in memory_at(trace).values()]
    assert [len(contents) for contents in found] == [len(contents) for contents in raw]
    # content by content, page by page: the same pages are equal
    assert list(map(Counter(raw[0] + raw[1]).__getitem__, raw[0] + raw[1])) == list(
        map(Counter(found[0] + found[1]).__getitem__, found[0] + found[1])
    )
    assert len(dict.fromkeys(zip(raw[0] + raw[1], found[0] + found[1], strict=True))) == len(set(raw[0] + raw[1]))
    assert [contents.count(0) for contents in found] == [contents.count(bytes(PAGE)) for contents in raw]
    assert len(set(found[0]) & set(found[1])) == len(set(raw[0]) & set(raw[1])) >= 21


def test_the_estimate_of_two_live_processes_is_a_count_byte_by_byte(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with children(2, mergeable=False) as (one, two):
        for child, own in ((one, b"one"), (two, b"two")):
            child.put({page: b"known to both %d" % (page // 2) for page in range(20)})
            child.put({page: own + b" %d" % page for page in range(20, 40)})
            child.put(dict.fromkeys(range(40, 50), b""))
        captured(tmp_path / "t.parquet", pids=pids(one, two), mergeable=False)
        raw = [child.pages() for child in (one, two)]
    most = str(sum(map(len, raw)))  # no content has more pages
    with pytest.raises(SystemExit) as exit_:
        main(["estimate", str(tmp_path / "t.parquet"), "--json", "--max-page-sharing", most])
    assert exit_.value.code == 0
    found = json.loads(capsys.readouterr().out)
    counts = Counter(raw[0] + raw[1])
    zeros = counts.pop(bytes(PAGE))
    assert found["zero_pages"] == zeros >= 20
    assert found["pages"] == counts.total() + zeros
    assert found["pages_shared"] == sum(pages > 1 for pages in counts.values()) + 1
    assert found["pages_sharing"] == found["duplicates"] == counts.total() - len(counts) + zeros - 1
    own_contents = [set(pages) - {bytes(PAGE)} for pages in raw]
    assert found["inter_pages"] == found["matrix"][0][1] == len(own_contents[0] & own_contents[1]) >= 10
    assert found["self_pages"] == counts.total() - sum(map(len, own_contents)) >= 20
    assert [mm["zero_pages"] for mm in found["mms"]] == [pages.count(bytes(PAGE)) for pages in raw]


def test_ids_are_dense_and_in_an_order_that_no_second_capture_has(tmp_path: Path) -> None:
    with children(1) as (child,):
        child.put({page: b"%03d" % page for page in range(64)})
        orders = [captured(tmp_path / "t.parquet", pids=pids(child)).content.tolist() for _ in range(2)]
    assert all(sorted(order) == list(range(1, 65)) for order in orders)
    assert orders[0] != orders[1]  # by chance once in 64! times


def test_the_order_of_memcmp_is_kept_where_asked_for(tmp_path: Path) -> None:
    with children(1) as (child,):
        child.put({0: b"b", 1: b"", 2: b"\0" * 9 + b"z", 3: b"a", 4: b"\xff", 5: b"\0" * 2000 + b"a", 6: b"\0" * 2000 + b"b"})
        trace = captured(tmp_path / "t.parquet", pids=pids(child), keep_order=True)
    assert (trace.order, trace.order_ties) == ("memcmp", 0)
    assert trace.content.tolist() == [5, 0, 3, 4, 6, 1, 2]


def test_contents_that_begin_alike_are_counted_as_ties(tmp_path: Path) -> None:
    with children(1) as (child,):
        child.put({0: b"a" * 200 + b"c", 1: b"a" * 200 + b"b", 2: b"b"})
        trace = captured(tmp_path / "t.parquet", pids=pids(child), keep_order=True)
    assert trace.order_ties == 2
    assert trace.content[2] == 3


def test_no_byte_of_the_trace_is_of_the_memory(tmp_path: Path) -> None:
    with children(1) as (child,):
        child.put({page: b"SECRET%02d" % page for page in range(64)})
        captured(tmp_path / "t.parquet", pids=pids(child), keep_order=True)
    assert b"SECRET" not in (tmp_path / "t.parquet").read_bytes()


# ---- pages


def test_only_what_is_registered_with_ksm_where_asked_for(tmp_path: Path) -> None:
    with children(1, 100) as (child,):
        child.put({3: b"x", 99: b"y"})
        trace = captured(tmp_path / "t.parquet", pids=pids(child))
    assert list(trace.pages.values()) == [2]  # pages that were never there have no numbers


def test_the_heap_the_stack_and_written_pages_of_files_count_too(tmp_path: Path) -> None:
    with children(1) as (child,):
        trace = captured(tmp_path / "t.parquet", pids=pids(child), mergeable=False)
    (vmas,) = trace.vmas.values()
    assert {vma.name for vma in vmas} == {"heap", "stack", "anonymous", "file"}
    assert sum(vma.pages for vma in vmas) == sum(trace.pages.values())


def test_shared_memory_counts_only_with_all_vmas(tmp_path: Path) -> None:
    with children(1) as (child,):
        child.do("shared = mmap.mmap(-1, 40 * 4096); shared[:] = b'shared..' * 20 * 1024")
        private = captured(tmp_path / "t.parquet", pids=pids(child), mergeable=False)
        everything = captured(tmp_path / "t.parquet", pids=pids(child), mergeable=False, all_vmas=True)
    most = [
        max(Counter(trace.content.tolist()).items(), key=lambda item: (item[0] != 0) * item[1])
        for trace in (private, everything)
    ]
    assert most[0][1] < 40 <= most[1][1]


def test_names_of_files_are_kept_only_where_asked_for(tmp_path: Path) -> None:
    with children(1) as (child,):
        kinds = captured(tmp_path / "t.parquet", pids=pids(child), mergeable=False)
        names = captured(tmp_path / "t.parquet", pids=pids(child), mergeable=False, vma_names=True)
    assert not any(vma.name.startswith("/") for vmas in kinds.vmas.values() for vma in vmas)
    assert any(vma.name.startswith("/") for vmas in names.vmas.values() for vma in vmas)


def test_nothing_changes_in_the_process(tmp_path: Path) -> None:
    def footprint(child: Child) -> list[str]:
        lines = Path(f"/proc/{child.pid}/smaps").read_text().splitlines()
        return [line for line in lines if line[0] not in "PSR" or line.startswith(("Rss", "Private_Dirty", "Swap"))]

    with children(1, 1000, mergeable=False) as (child,):
        child.put({0: b"x", 999: b"y"})
        child.do("area[500 * 4096]")  # read only: the kernel's page of zeros is mapped
        before = footprint(child)
        captured(tmp_path / "t.parquet", pids=pids(child), mergeable=False, rounds=2)
        assert footprint(child) == before


# ---- rounds


def test_only_what_changed_is_written_again(tmp_path: Path) -> None:
    with children(1) as (child,):
        child.put({page: b"%d" % page for page in range(8)})
        between = {1: lambda: child.put({2: b"new", 7: b"3"}), 2: lambda: child.put({9: b"new"})}
        trace = captured(tmp_path / "t.parquet", pids=pids(child), rounds=4, between=between)
    rows = [trace.page[trace.time_ms == time_ms].tolist() for time_ms in trace.snapshots]
    assert rows == [list(range(8)), [2, 7], [8], []]
    (memory,) = held(trace)
    assert memory[7] == memory[3]
    assert memory[8] == memory[2]


def test_pages_that_are_unmapped_or_discarded_are_gone(tmp_path: Path) -> None:
    with children(1) as (child,):
        child.put({page: b"%d" % page for page in range(8)})
        between = {
            1: lambda: child.do("area.madvise(mmap.MADV_DONTNEED, 4096, 2 * 4096)"),
            2: lambda: child.do("area.resize(4 * 4096)"),
        }
        trace = captured(tmp_path / "t.parquet", pids=pids(child), rounds=3, between=between)
    assert trace.gone is not None
    gone = [trace.page[(trace.time_ms == time_ms) & trace.gone].tolist() for time_ms in trace.snapshots]
    assert gone == [[], [1, 2], [4, 5, 6, 7]]


def test_a_process_that_exits_between_rounds_has_exited_in_the_trace(tmp_path: Path) -> None:
    with children(2) as (one, two):
        one.put({0: b"x"})
        two.put({0: b"x"})
        trace = captured(tmp_path / "t.parquet", pids=pids(one, two), rounds=3, between={1: one.end})
    assert trace.exit_ms == {name: trace.snapshots[1] for name in trace.pages if name.endswith(f"-{one.pid}")}
    assert len(held(trace, 0)) == 2
    assert len(held(trace)) == 1


def test_a_capture_of_processes_by_number_ends_with_the_last_of_them(tmp_path: Path) -> None:
    with children(1) as (child,):
        child.put({0: b"x"})
        trace = captured(tmp_path / "t.parquet", pids=pids(child), rounds=0, between={2: child.end})
    assert len(trace.snapshots) == 3
    assert list(trace.exit_ms.values()) == [trace.snapshots[2]]


def test_a_process_that_starts_between_rounds_starts_in_the_trace(tmp_path: Path) -> None:
    name = f"twin{os.getpid()}"
    with children(2) as (one, two):
        for child in (one, two):
            child.put({0: b"x"})
        one.do(f"open('/proc/self/comm', 'w').write('{name}')")
        between = {1: lambda: two.do(f"open('/proc/self/comm', 'w').write('{name}')")}
        trace = captured(tmp_path / "t.parquet", names=(name,), rounds=2, between=between)
    assert list(trace.pages) == [f"{name}-{one.pid}", f"{name}-{two.pid}"]
    assert trace.start_ms == {f"{name}-{two.pid}": trace.snapshots[1]}


def test_a_process_that_execs_is_another_address_space(tmp_path: Path) -> None:
    again = "import mmap, sys; a = mmap.mmap(-1, 8192, flags=34); a.madvise(mmap.MADV_MERGEABLE); a[0] = 7;"
    again += "print('done', flush=True); sys.stdin.read()"
    with children(1) as (child,):
        child.put({0: b"x"})
        between = {1: lambda: child.do(f"os.execv(sys.executable, [sys.executable, '-c', {again!r}])")}
        trace = captured(tmp_path / "t.parquet", pids=pids(child), rounds=2, between=between)
    first, second = trace.pages
    assert second == f"{first}.2" or second.endswith(f"-{child.pid}")
    assert trace.start_ms == {second: trace.snapshots[1]}
    assert trace.exit_ms == {first: trace.snapshots[1]}


# ---- kernels and machines that differ


def test_a_kernel_before_the_ioctl_gives_the_same_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def without_ioctl(*_: object) -> None:
        raise OSError(errno.ENOTTY, "as before Linux 6.7")

    with children(1) as (child,):
        child.put({0: b"x", 9: b"y", 10: b"x"})
        new = captured(tmp_path / "t.parquet", pids=pids(child))
        monkeypatch.setattr("ksmbatch.capture.pagemap.Pagemap._scan", without_ioctl)
        old = captured(tmp_path / "t.parquet", pids=pids(child))
    assert [trace.page.tolist() for trace in (new, old)] == [[0, 1, 2]] * 2


def test_a_machine_that_does_not_tell_nodes_gives_a_trace_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ksmbatch.capture.session.count_nodes", lambda: 2)
    monkeypatch.setattr("ksmbatch.capture.session.nodes_fault", lambda: "Operation not permitted")
    with children(1) as (child,):
        child.put({0: b"x"})
        assert captured(tmp_path / "t.parquet", pids=pids(child)).node is None


def test_a_process_that_may_not_be_looked_at_any_more_is_left_out_from_then_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    look, refused = Follower.look, []

    def refusing(self: Follower) -> Changes | None:
        if self.process.pid in refused:
            raise InputError(where=f"process {self.process.pid}", rule="its memory may not be read")
        return look(self)

    monkeypatch.setattr(Follower, "look", refusing)
    with children(2) as (one, two):
        for child in (one, two):
            child.put({0: b"x"})
        trace = captured(tmp_path / "t.parquet", pids=pids(one, two), rounds=3, between={1: lambda: refused.append(one.pid)})
    assert trace.exit_ms == {name: trace.snapshots[1] for name in trace.pages if name.endswith(f"-{one.pid}")}


def test_nodes_are_kept_where_there_are_several_and_a_move_is_a_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    node = [0]
    monkeypatch.setattr("ksmbatch.capture.session.count_nodes", lambda: 2)
    monkeypatch.setattr("ksmbatch.capture.follower.nodes_of", lambda _, vpn: np.full(vpn.size, node[0], np.int16))
    with children(1) as (child,):
        child.put({0: b"x", 1: b"y"})
        between = {1: lambda: node.__setitem__(0, 1)}
        trace = captured(tmp_path / "t.parquet", pids=pids(child), rounds=3, between=between)
    assert trace.node is not None
    assert trace.node.tolist() == [0, 0, 1, 1]


def test_with_soft_dirty_bits_only_pages_whose_bit_is_set_are_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cleared = []
    monkeypatch.setattr("ksmbatch.capture.session.soft_dirty_works", lambda: True)
    monkeypatch.setattr("ksmbatch.capture.follower.clear_soft_dirty", cleared.append)
    monkeypatch.setattr("ksmbatch.capture.follower.Pagemap", Unwritten)
    with children(1) as (child,):
        child.put({page: b"%d" % page for page in range(4)})
        between = {1: lambda: child.put(dict.fromkeys(range(4), b"new"))}
        trace = captured(tmp_path / "t.parquet", pids=pids(child), rounds=2, between=between, soft_dirty=True)
    assert cleared == [child.pid] * 2
    rows = [trace.page[trace.time_ms == time_ms].tolist() for time_ms in trace.snapshots]
    assert rows == [[0, 1, 2, 3], [1, 3]]


class Unwritten(Pagemap):
    """A kernel that says of every second page that nobody wrote to it."""

    def pages(self, first: int, end: int) -> Iterator[Pages]:
        for pages in super().pages(first, end):
            yield pages._replace(soft_dirty=np.arange(pages.vpn.size) % 2 == 1)


def test_soft_dirty_bits_are_cleared_only_where_that_is_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ksmbatch.capture.follower.clear_soft_dirty", lambda _: pytest.fail("changed the machine"))
    with children(1) as (child,):
        child.put({0: b"x"})
        captured(tmp_path / "t.parquet", pids=pids(child), rounds=2)


# ---- what the user does


def command(out: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "ksmbatch", "capture", "--fingerprint", "blake2b", "--out", str(out), *options]


def stopped(out: Path, after: str, *options: str, signals: tuple[int, ...] = (signal.SIGINT,)) -> tuple[int, str, str]:
    """Exit status and last words of a capture that gets signals when it has said a line that begins with `after`."""
    with subprocess.Popen(command(out, *options), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert process.stdout is not None
        while not (line := process.stderr.readline()).startswith(after):
            assert line, "it ended too early"
        for number in signals:
            process.send_signal(number)
        said, told = process.communicate(timeout=60)
        return process.returncode, said, told


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_leaves_a_good_trace_of_all_rounds_so_far(tmp_path: Path, number: int) -> None:
    out = tmp_path / "t.parquet"
    with children(1) as (child,):
        child.put({0: b"x", 1: b"y"})
        options = ("--pid", str(child.pid), "--rounds", "0", "--interval", "50ms", "--max-cpu", "100%")
        status, said, _ = stopped(out, "round 2", *options, signals=(number,))
    assert status == 0
    assert "stopped by the user" in said
    trace = read_trace(out)
    assert len(trace.snapshots) >= 2
    assert len(trace.pages) == 1


def test_ctrl_c_in_the_first_round_leaves_what_was_read_of_it(tmp_path: Path) -> None:
    out = tmp_path / "t.parquet"
    n_pages = 16384
    with children(1, n_pages) as (child,):
        child.do(f"area[:] = b'x' * ({n_pages} * 4096)")
        # at this pace it takes half a minute
        options = ("--pid", str(child.pid), "--mergeable", "--max-cpu", "0.1%")
        status, said, _ = stopped(out, "reading at", *options)
    assert status == 0
    assert ": 1 snapshot in part of 1 process, stopped by the user" in said
    trace = read_trace(out)
    assert 0 < sum(trace.pages.values()) < n_pages
    assert set(trace.content.tolist()) == {1}


def test_ctrl_c_in_a_later_round_drops_it_and_what_only_it_has_met(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    of = Fingerprints.of
    now = []

    def interrupted(self: Fingerprints, pages: np.ndarray) -> np.ndarray:
        if now:
            os.kill(os.getpid(), signal.SIGINT)
        return of(self, pages)

    def change() -> None:
        child.put({0: b"new", 1: b"newer"})
        now.append(True)

    monkeypatch.setattr(Fingerprints, "of", interrupted)
    with children(1) as (child,):
        child.put({0: b"old", 1: b"older"})
        trace = captured(tmp_path / "t.parquet", pids=pids(child), rounds=0, between={1: change})
    assert trace.snapshots == (0,)
    assert sorted(trace.content.tolist()) == [1, 2]


def test_a_second_ctrl_c_leaves_nothing(tmp_path: Path) -> None:
    with children(1) as (child,):
        child.put({0: b"x"})
        request = request_of(**OPTIONS | {"pids": pids(child), "rounds": 0})

        def tell(line: str) -> None:
            if line.startswith(("round 2", "stopping")):
                os.kill(os.getpid(), signal.SIGINT)

        assert capture(request, tmp_path / "t.parquet", print, tell) == 130
    assert list(tmp_path.iterdir()) == []


def test_rounds_within_a_millisecond_are_snapshots_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with children(1) as (child,):
        child.put({0: b"x"})
        monkeypatch.setattr("ksmbatch.capture.session.time.monotonic", lambda: 1000.0)
        trace = captured(tmp_path / "t.parquet", pids=pids(child), rounds=3, interval="0ms")
    assert trace.snapshots == (0, 1, 2)


def test_the_bound_on_cpu_time_is_kept_by_the_books(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    n_pages = 16384
    with children(1, n_pages) as (child,):
        child.do(f"area[:] = b'x' * ({n_pages} * 4096)")
        said: list[Any] = []
        request = request_of(**OPTIONS | {"pids": pids(child), "max_cpu": "5%"})
        assert capture(request, tmp_path / "t.parquet", said.append, lambda _: None) == 0
    (line,) = said
    cpu_s, share = float(line.split("took ")[1].split()[0]), float(line.split("time, ")[1].split()[0])
    assert cpu_s > 0
    assert share <= 6  # less than 5 ms and a block of pages may be owing at the end


# ---- what is refused


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({}, "ksmbatch capture: whose memory? It needs --pid, --name, --cgroup or --qemu"),
        ({"pids": (2**22 + 1,)}, "ksmbatch capture: --pid 4194305: there is no such process"),
        ({"names": ("nobody-is-called-so",)}, "ksmbatch capture: --name nobody-is-called-so: there is no such process"),
        ({"cgroups": ("no/such/group",)}, "ksmbatch capture: --cgroup no/such/group: there is no such group in /sys/fs/cgroup"),
        ({"pids": (1,), "max_cpu": "0"}, '--max-cpu: "0": must be a share of one core such as "10%", up to 100%'),
        ({"pids": (1,), "max_cpu": "101%"}, '--max-cpu: "101%": must be a share of one core'),
        ({"pids": (1,), "max_cpu": "all"}, '--max-cpu: "all": must be a share of one core'),
        ({"pids": (1,), "interval": "soon"}, '--interval: "soon": must be a time'),
        ({"pids": (1,), "fingerprint": "md5"}, '--fingerprint: "md5": must be one of xxh64, blake2b'),
        ({"pids": (1,), "all_vmas": True}, "ksmbatch capture: --all-vmas and --mergeable exclude each other"),
    ],
)
def test_what_cannot_be_captured_is_one_line(tmp_path: Path, options: dict[str, Any], line: str) -> None:
    with pytest.raises(InputError) as error:
        capture(request_of(**OPTIONS | options), tmp_path / "t.parquet", print, lambda _: None)
    assert str(error.value).startswith(line)
    assert list(tmp_path.iterdir()) == []


def test_this_process_cannot_capture_itself(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no such process"):
        captured(tmp_path / "t.parquet", pids=(os.getpid(),))


def test_memory_without_a_page_that_ksm_could_take_is_named(tmp_path: Path) -> None:
    with children(1, mergeable=False) as (child,), pytest.raises(InputError, match="there is nothing to write") as error:
        captured(tmp_path / "t.parquet", pids=pids(child))
    assert str(error.value).startswith("ksmbatch capture: there is nothing to write: no page")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_place_of_the_trace_is_named_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be written: it is a folder"):
        captured(tmp_path, pids=(1,))


def test_a_folder_that_is_not_there_is_named_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none/t\.parquet: cannot be written: No such file or directory"):
        captured(tmp_path / "none" / "t.parquet", pids=(1,))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become a user who may not look")
def test_a_process_of_somebody_else_is_refused_with_the_remedy(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    for folder in tmp_path.parents[:2]:
        folder.chmod(0o755)
    # the interpreter's files may be root's alone, so it becomes somebody else when all of them are read
    program = """
import os, pathlib, sys
from ksmbatch.capture.fingerprint import Fingerprints
from ksmbatch.capture.follower import Follower
from ksmbatch.capture.pagemap import Pagemap, Pages
from ksmbatch.capture.request import request_of
from ksmbatch.capture.session import capture
os.setgroups([]), os.setresgid(*[65534] * 3), os.setresuid(*[65534] * 3)
capture(request_of(**eval(sys.argv[1])), pathlib.Path(sys.argv[2]), print, print)
"""
    with children(1) as (child,):
        options = OPTIONS | {"pids": pids(child), "fingerprint": "blake2b"}
        arguments = [sys.executable, "-c", program, repr(options), str(tmp_path / "t.parquet")]
        done = subprocess.run(arguments, capture_output=True, text=True)
    line = done.stderr.splitlines()[-1]
    assert line.startswith(f"ksmbatch.errors.InputError: process {child.pid} (python")
    assert "its memory may not be read: " in line
    assert "CAP_SYS_PTRACE" in line
    assert list(tmp_path.iterdir()) == []
