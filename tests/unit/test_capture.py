"""Is each step of a capture right? Texts of /proc, pages that come and go, fingerprints and their order, the pace."""

import ctypes
import errno
import mmap
import os
import signal
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ksmbatch.capture import follower, mappings, nodes, processes
from ksmbatch.capture.distinct import Distinct, dense_ids
from ksmbatch.capture.fingerprint import KINDS, Fingerprints, order_keys
from ksmbatch.capture.interrupts import Interrupts
from ksmbatch.capture.mappings import Mapping, chooser, hugetlb_devices, mergeable, parse
from ksmbatch.capture.memory import BLOCK_PAGES, Memory
from ksmbatch.capture.pace import Pace
from ksmbatch.capture.pagemap import Pagemap
from ksmbatch.capture.processes import Selection, find, label
from ksmbatch.capture.softdirty import soft_dirty_works
from ksmbatch.capture.spill import Changes, Spill
from ksmbatch.errors import InputError

PAGE = 4096

# ---- mappings

MAPS = """\
00400000-00401000 r--p 00000000 08:01 11  /usr/bin/guest
00401000-00402000 rw-p 00001000 08:01 11  /usr/bin/guest
01000000-01002000 rw-p 00000000 00:00 0   [heap]
10000000-10010000 rw-p 00000000 00:00 0
20000000-20010000 rw-s 00000000 00:01 12  /memfd:pc.ram (deleted)
30000000-30200000 rw-p 00000000 00:0f 13  /anon_hugepage (deleted)
31000000-31200000 rw-p 00000000 00:1c 14  /mnt/huge/file with blanks
40000000-40010000 rw-s 00000000 00:05 15  /dev/vfio/12
41000000-41010000 rw-p 00000000 00:05 16  /dev/nvidia0
42000000-42010000 rw-s 00000000 00:0e 17  anon_inode:kvm-vcpu:0
50000000-50010000 rw-s 00000000 00:19 18  /dev/shm/ring
60000000-60010000 rw-p 00000000 00:05 19  /dev/zero
7ff000000000-7ff000002000 rw-p 00000000 00:00 0  [stack]
7ff000004000-7ff000006000 r--p 00000000 00:00 0  [vvar]
7ff000006000-7ff000007000 r-xp 00000000 00:00 0  [vdso]
"""
MOUNTS = "22 1 08:01 / / rw - ext4 /dev/sda1 rw\n31 25 0:28 / /mnt/huge rw shared:12 - hugetlbfs none rw,pagesize=2M\n"


def chosen(*, all_vmas: bool) -> list[str]:
    choose = chooser(all_vmas=all_vmas, hugetlb=hugetlb_devices(MOUNTS))
    return [mapping.name for mapping in parse(MAPS) if choose(mapping)]


def test_private_memory_is_chosen_and_nothing_that_ksm_refuses() -> None:
    assert chosen(all_vmas=False) == ["/usr/bin/guest", "/usr/bin/guest", "[heap]", "", "/dev/zero", "[stack]"]


def test_with_all_vmas_everything_is_chosen_but_devices_and_what_the_kernel_made() -> None:
    unreadable = {"/dev/vfio/12", "/dev/nvidia0", "anon_inode:kvm-vcpu:0", "[vvar]", "[vdso]"}
    assert chosen(all_vmas=True) == [mapping.name for mapping in parse(MAPS) if mapping.name not in unreadable]


def test_a_mapping_has_its_pages_and_a_kind_that_tells_no_name() -> None:
    parsed = parse(MAPS)
    assert parsed[3] == Mapping(0x10000, 0x10010, "rw-p", "00:00", "")
    assert [parsed[k].kind for k in (0, 2, 3, 12)] == ["file", "heap", "anonymous", "stack"]
    assert Mapping(0, 1, "rw-p", "00:00", "[anon:secret]").kind == "anonymous"


def test_the_lines_of_this_process_parse() -> None:
    assert all(0 <= mapping.first < mapping.end for mapping in parse(Path("/proc/self/maps").read_text()))


def test_what_is_registered_with_ksm_is_in_smaps() -> None:
    smaps = "".join(
        f"{first:08x}-{first + 4096:08x} rw-p 00000000 00:00 0 [anon: a-b c]\nSize: 4 kB\nVmFlags: rd wr mr {flag}ac \n"
        for first, flag in ((0x1000, "mg "), (0x3000, ""), (0x5000, "mg "))
    )
    assert mergeable(smaps) == {1, 5}


# ---- processes


def process(
    root: Path, pid: int, *, comm: str, arguments: str = "", start: int = 5, vsize: int = 4096, state: str = "S"
) -> None:
    folder = root / str(pid)
    folder.mkdir(parents=True)
    fields = ["0"] * 50
    fields[0], fields[19], fields[20], fields[23], fields[25] = state, str(start), str(vsize), "4198400", "140720"
    (folder / "stat").write_text(f"{pid} ({comm}) {' '.join(fields)}\n")
    (folder / "comm").write_text(f"{comm}\n")
    (folder / "cmdline").write_text(arguments.replace(" ", "\0") + "\0")


@pytest.fixture
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(processes, "PROC", tmp_path / "proc")
    monkeypatch.setattr(processes, "CGROUPS", tmp_path / "cgroup")
    return tmp_path / "proc"


def found(selection: Selection) -> list[int]:
    return [process.pid for process in find(selection, at_start=True)]


def test_processes_are_found_by_number_the_oldest_first(proc: Path) -> None:
    process(proc, 30, comm="a", start=9)
    process(proc, 40, comm="b", start=2)
    assert found(Selection(pids=(30, 40, 30))) == [40, 30]
    assert find(Selection(pids=(30,)), at_start=True)[0] == (30, 9, 4198400, 140720, "a")


def test_a_name_is_that_of_the_thread_or_of_the_program(proc: Path) -> None:
    process(proc, 1, comm="python3", arguments="/usr/bin/python3 x.py")
    process(proc, 2, comm="worker (1) ) x", arguments="/usr/bin/python3 y.py")
    process(proc, 3, comm="a-name-of-15-ch", arguments="a-name-of-15-characters")
    assert found(Selection(names=("python3",))) == [1, 2]
    assert found(Selection(names=("worker (1) ) x",))) == [2]
    assert found(Selection(names=("a-name-of-15-characters",))) == [3]


@pytest.mark.parametrize("kind", [{"vsize": 0}, {"state": "Z"}, {"state": "X"}])
def test_kernel_threads_and_the_dead_are_not_processes(proc: Path, kind: dict[str, object]) -> None:
    process(proc, 1, comm="x", **kind)  # type: ignore[arg-type]  # a table of mixed types
    with pytest.raises(InputError, match=r"^ksmbatch capture: --name x: there is no such process$"):
        find(Selection(names=("x",)), at_start=True)
    assert find(Selection(names=("x",)), at_start=False) == []


def test_guests_of_qemu_are_known_by_their_program_and_called_by_their_name(proc: Path) -> None:
    commands = {
        1: "/usr/bin/qemu-system-x86_64 -name guest=web,debug-threads=on -m 1G",
        2: "/usr/bin/kvm -id 100 -name db,debug-threads=on",
        3: "/usr/libexec/qemu-kvm -m 1G",
        4: "/usr/bin/qemu-img convert a b",
        5: "/usr/bin/kvmtool run",
        6: "qemu-system-aarch64 -name debug-threads=on,guest=idle",
        7: "/usr/bin/python3 -name guest=no",
    }
    for pid, arguments in commands.items():
        process(proc, pid, comm=f"comm{pid}", arguments=arguments)
    guests = find(Selection(qemu=True), at_start=True)
    assert [label(guest) for guest in guests] == ["web-1", "db-2", "comm3-3", "idle-6"]
    assert [label(one) for one in find(Selection(pids=(7,)), at_start=True)] == ["comm7-7"]


@pytest.mark.parametrize("hierarchy", ["", "unified", "memory"])
def test_a_control_group_has_those_of_the_groups_below_it(proc: Path, tmp_path: Path, hierarchy: str) -> None:
    for pid in (1, 2, 3):
        process(proc, pid, comm="x")
    for group, pids in (("vms", "1\n"), ("vms/one", "2\n"), ("other", "3\n")):
        (tmp_path / "cgroup" / hierarchy / group).mkdir(parents=True)
        (tmp_path / "cgroup" / hierarchy / group / "cgroup.procs").write_text(pids)
    for name in ("vms", "/vms", f"{tmp_path}/cgroup/vms"):
        assert found(Selection(cgroups=(name,))) == [1, 2]


# ---- pages


@pytest.fixture
def area() -> Iterator[tuple[mmap.mmap, int]]:
    """16 pages of our own, of which 1, 2, 3 and 9 are there, and the number of the first."""
    with mmap.mmap(-1, 16 * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as pages:
        pages.madvise(mmap.MADV_NOHUGEPAGE)
        for page in (1, 2, 3, 4, 9):
            pages[page * PAGE] = page
        pages.madvise(mmap.MADV_DONTNEED, 4 * PAGE, PAGE)
        view = ctypes.c_char.from_buffer(pages)
        first = ctypes.addressof(view) // PAGE
        del view  # or the mapping cannot be closed
        yield pages, first


def without_ioctl(*_: object) -> None:
    raise OSError(errno.ENOTTY, "as before Linux 6.7")


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("anonymous_only", [False, True])
def test_only_pages_that_are_there_are_looked_up(
    area: tuple[mmap.mmap, int], monkeypatch: pytest.MonkeyPatch, old: bool, anonymous_only: bool
) -> None:
    if old:
        monkeypatch.setattr(Pagemap, "_scan", without_ioctl)
    _, first = area
    with Path("/proc/self/pagemap").open("rb") as file:
        pagemap = Pagemap(file.fileno(), anonymous_only=anonymous_only)
        vpn = np.concatenate([pages.vpn for pages in pagemap.pages(first, first + 16)])
        assert (vpn - np.uint64(first)).tolist() == [1, 2, 3, 9]
        assert [pages.vpn.size for pages in pagemap.pages(first, first)] == []


def test_a_huge_range_with_few_pages_is_looked_through_in_pieces(
    area: tuple[mmap.mmap, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ksmbatch.capture.pagemap._SCAN_PAGES", 3)
    monkeypatch.setattr("ksmbatch.capture.pagemap._MAX_REGIONS", 1)
    _, first = area
    with Path("/proc/self/pagemap").open("rb") as file:
        pagemap = Pagemap(file.fileno(), anonymous_only=True)
        vpn = np.concatenate([pages.vpn for pages in pagemap.pages(first, first + 16)])
    assert (vpn - np.uint64(first)).tolist() == [1, 2, 3, 9]


def test_pages_are_read_in_blocks_and_those_that_are_unmapped_left_out(area: tuple[mmap.mmap, int]) -> None:
    pages, first = area
    pages.resize(8 * PAGE)
    wanted = np.array([1, 3, 9, 10], np.uint64) + np.uint64(first)
    with Path("/proc/self/mem").open("rb", buffering=0) as file:
        ((places, contents),) = Memory(file.fileno()).blocks(wanted)
    assert places.tolist() == [0, 1]
    assert contents[:, 0].tolist() == [1, 3]


def test_a_long_run_is_read_in_several_blocks() -> None:
    n = 2 * BLOCK_PAGES + 3
    with mmap.mmap(-1, n * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as pages:
        pages[:] = b"".join(k.to_bytes(2, "little") * (PAGE // 2) for k in range(n))
        view = ctypes.c_char.from_buffer(pages)
        first = ctypes.addressof(view) // PAGE
        del view
        seen = []
        with Path("/proc/self/mem").open("rb", buffering=0) as file:
            for places, contents in Memory(file.fileno()).blocks(np.arange(n, dtype=np.uint64) + np.uint64(first)):
                assert contents.view(np.uint16)[:, 7].tolist() == places.tolist()
                seen += places.tolist()
    assert seen == list(range(n))


def test_the_node_of_a_page_is_asked_for_and_moves_nothing(area: tuple[mmap.mmap, int]) -> None:
    _, first = area
    node = nodes.nodes_of(os.getpid(), np.arange(16, dtype=np.uint64) + np.uint64(first))
    assert node.dtype == np.int16
    if nodes.platform.machine() in nodes._NUMBER:
        assert (node >= 0).tolist() == [page in (1, 2, 3, 9) for page in range(16)]
    with pytest.raises(ProcessLookupError):
        nodes.nodes_of(2**22 + 1, np.arange(1, dtype=np.uint64))


def test_an_architecture_whose_call_nobody_knows_has_no_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes.platform, "machine", lambda: "vax")
    assert nodes.nodes_of(os.getpid(), np.arange(3, dtype=np.uint64)).tolist() == [-1, -1, -1]


def test_soft_dirty_bits_either_work_or_not() -> None:
    assert soft_dirty_works() in (True, False)


# ---- differences

PAGES = st.dictionaries(st.integers(0, 9), st.tuples(st.integers(0, 3), st.integers(-1, 1)), max_size=8)


def seen(pages: dict[int, tuple[int, int]]) -> follower._Seen:
    numbers = sorted(pages)
    return follower._Seen(
        np.array(numbers, np.uint64),
        np.array([pages[page][0] for page in numbers], np.uint64),
        np.array([pages[page][1] for page in numbers], np.int16),
    )


@given(old=st.none() | PAGES, new=PAGES)
def test_the_difference_of_two_rounds_is_what_changed_came_and_went(
    old: dict[int, tuple[int, int]] | None, new: dict[int, tuple[int, int]]
) -> None:
    before = old or {}
    expected = [(page, *new[page], False) for page in new if before.get(page) != new[page]]
    expected += [(page, 0, -1, True) for page in before if page not in new]
    changes = follower._difference(None if old is None else seen(old), seen(new))
    assert list(zip(*(column.tolist() for column in changes), strict=True)) == sorted(expected)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 3)), max_size=6))
def test_neighbours_are_looked_through_together(pieces: list[tuple[int, int]]) -> None:
    first, spans = 0, []
    for gap, pages in pieces:
        spans.append(Mapping(first + gap, first + gap + pages, "rw-p", "00:00", ""))
        first += gap + pages
    together = list(follower._spans(spans))
    assert [page for span in together for page in range(*span)] == [page for span in spans for page in range(span[0], span[1])]
    assert all(end < start for (_, end), (start, _) in pairwise(together))


@given(changes=st.lists(PAGES, max_size=4))
def test_what_is_spilled_comes_back(
    tmp_path_factory: pytest.TempPathFactory, changes: list[dict[int, tuple[int, int]]]
) -> None:
    folder = tmp_path_factory.mktemp("spill")
    spill = Spill(folder / "t.parquet")
    arrays = [follower._difference(None, seen(pages)) for pages in changes]
    parts = [spill.put(one) for one in arrays]
    assert not list(folder.iterdir())  # it has no name
    for part, one in zip(parts, arrays, strict=True):
        back = spill.get(part)
        assert isinstance(back, Changes)
        assert all(a.dtype == b.dtype and a.tolist() == b.tolist() for a, b in zip(back, one, strict=True))
    spill.close()


# ---- fingerprints


def page_of(*starts: bytes) -> np.ndarray:
    return np.frombuffer(b"".join(start.ljust(PAGE, b"\0") for start in starts), np.uint8).reshape(-1, PAGE)


@pytest.mark.parametrize("kind", KINDS)
def test_equal_pages_have_equal_fingerprints_and_the_page_of_zeros_has_0(kind: str) -> None:
    pages = page_of(b"a", b"b", b"a", b"", b"\0" * 4095 + b"\1")
    first, other, again, zero, last_byte = Fingerprints(kind).of(pages).tolist()
    assert first == again
    assert zero == 0
    assert len({first, other, zero, last_byte}) == 4


@pytest.mark.parametrize("kind", KINDS)
def test_two_captures_have_different_fingerprints_for_one_page(kind: str) -> None:
    pages = page_of(b"a")
    assert Fingerprints(kind).of(pages) != Fingerprints(kind).of(pages)


PREFIXES = st.one_of(
    st.binary(max_size=80), st.tuples(st.integers(0, 40), st.binary(max_size=8)).map(lambda p: b"\0" * p[0] + p[1])
)


@given(st.lists(PREFIXES, min_size=2, max_size=6))
def test_keys_are_ordered_as_memcmp_orders_pages_or_equal(starts: list[bytes]) -> None:
    pages = page_of(*starts)
    keys = order_keys(pages)
    raw = [page.tobytes() for page in pages]
    for a in range(len(raw)):
        for b in range(len(raw)):
            if raw[a] < raw[b]:
                assert keys[a] <= keys[b]
            if raw[a] == raw[b]:
                assert keys[a] == keys[b]
            if raw[a][:64] != raw[b][:64]:
                assert keys[a] != keys[b]


@given(
    parts=st.lists(st.lists(st.integers(0, 30), max_size=20), max_size=6),
    ordered=st.booleans(),
    least=st.sampled_from([1, 8, 2**18]),
)
@settings(deadline=None)
def test_distinct_fingerprints_are_kept_once_each_with_its_key(parts: list[list[int]], ordered: bool, least: int) -> None:
    distinct = Distinct(ordered=ordered)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ksmbatch.capture.distinct._LEAST_PENDING", least)
        for part in parts:
            keys = np.array([b"%02d" % (99 - number) for number in part], "S2") if ordered else None
            distinct.add(np.array(part, np.uint64), keys)
        fingerprints, keys = distinct.all()
    assert fingerprints.tolist() == sorted({number for part in parts for number in part})
    if ordered and parts:
        assert keys is not None
        assert keys.tolist() == [b"%02d" % (99 - number) for number in fingerprints.tolist()]


def test_ids_are_dense_in_the_order_of_keys_or_random() -> None:
    fingerprints = np.arange(100, 300, dtype=np.uint64)
    ids, ties = dense_ids(fingerprints, None, 1)
    assert (sorted(ids.tolist()), ties) == (list(range(1, 201)), 0)
    assert ids.tolist() != dense_ids(fingerprints, None, 2)[0].tolist()
    keys = np.array([b"%d" % (k % 10) for k in range(200)])
    ids, ties = dense_ids(fingerprints, keys, 1)
    assert (ids.astype(np.int64) - 1).tolist() != sorted(ids)
    assert ties == 200
    assert keys[ids.argsort()].tolist() == sorted(keys.tolist())
    assert dense_ids(fingerprints[:0], keys[:0], 1)[0].size == 0
    assert dense_ids(fingerprints[:3], np.array([b"a", b"b", b"a"]), 1)[1] == 2


# ---- pace


class Clocks:
    """Time and CPU time that pass only when told to."""

    def __init__(self) -> None:
        self.now_s = self.cpu_s = 0.0

    def work(self, seconds: float) -> None:
        self.now_s += seconds
        self.cpu_s += seconds

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


@given(max_cpu=st.floats(0.01, 1), blocks=st.lists(st.floats(0, 0.05), min_size=1, max_size=50))
def test_cpu_time_stays_within_its_share_whatever_the_blocks_take(max_cpu: float, blocks: list[float]) -> None:
    clocks = Clocks()
    pace = Pace(max_cpu, clock=lambda: clocks.now_s, cpu_clock=lambda: clocks.cpu_s, sleep=clocks.sleep)
    clocks.now_s += 1000  # a pause is no credit
    pace.begin()
    start_s = clocks.now_s
    for block in blocks:
        clocks.work(block)
        pace.rest()
        assert clocks.cpu_s <= max_cpu * (clocks.now_s - start_s + 0.005) + 1e-9
    assert pace.work_cpu_s == pytest.approx(sum(blocks))
    assert pace.work_s == pytest.approx(clocks.now_s - start_s)


def test_who_is_slow_anyhow_does_not_sleep() -> None:
    clocks = Clocks()
    pace = Pace(0.5, clock=lambda: clocks.now_s, cpu_clock=lambda: clocks.cpu_s, sleep=lambda _: pytest.fail("slept"))
    for _ in range(10):
        clocks.work(0.1)
        clocks.now_s += 0.1
        pace.rest()


# ---- signals


def test_a_signal_is_noted_and_the_second_one_interrupts() -> None:
    with Interrupts() as interrupts:
        assert not interrupts.have_come()
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupts.have_come()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_sleep_ends_when_a_signal_has_come() -> None:
    with Interrupts() as interrupts:
        os.kill(os.getpid(), signal.SIGINT)
        start_s = time.monotonic()
        interrupts.sleep(60)
        assert time.monotonic() - start_s < 30


@pytest.mark.parametrize("read", [lambda: mappings.read_mountinfo(), lambda: str(nodes.count_nodes())])
def test_this_machine_answers(read: Callable[[], str]) -> None:
    assert read()
