"""Which processes to capture: by number, name, control group, or all QEMU guests, as /proc has them now.

It reads no memory. A process is told from a later one of the same number by its start, and from itself before execve() by
where its code and stack lie.
"""

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from ksmbatch.errors import InputError

PROC: Final = Path("/proc")
CGROUPS: Final = Path("/sys/fs/cgroup")
_HIERARCHIES: Final = ("", "unified", "systemd", "memory")  # where groups are: of version 2, of both, of version 1
_COMM_CHARS: Final = 15  # what the kernel keeps of a name
_QEMU: Final = re.compile(r"qemu-system-|qemu-kvm|kvm$")
_DEAD: Final = ("Z", "X", "x")


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """What the user asked for; a process is taken if any part names it. `cgroups` include those below them."""

    pids: tuple[int, ...] = ()
    names: tuple[str, ...] = ()
    cgroups: tuple[str, ...] = ()
    qemu: bool = False

    @property
    def may_grow(self) -> bool:
        """Whether processes that start later can belong to it."""
        return bool(self.names or self.cgroups or self.qemu)


class Process(NamedTuple):
    """An address space: `pid`, when the process started (ticks since boot), where its code and stack begin, `name` (comm)."""

    pid: int
    start: int
    code: int
    stack: int
    name: str


def find(selection: Selection, *, at_start: bool) -> list[Process]:
    """The processes of `selection` that live now, the oldest first, without this one and without kernel threads.

    Raises InputError for a control group that is not there, and `at_start` for every part of `selection` that nobody fits.
    """
    found: dict[int, Process] = {}
    for part, pids in _parts(selection):
        fitting = [process for pid in pids if (process := look_up(pid)) is not None]
        if at_start and not fitting:
            raise InputError(where="ksmbatch capture", key=part, rule="there is no such process")
        found |= {process.pid: process for process in fitting}
    return sorted(found.values(), key=lambda process: (process.start, process.pid))


def look_up(pid: int) -> Process | None:
    """The process `pid`; None if it is gone or dying, is a kernel thread, or this process."""
    try:
        text = (PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return None
    name, _, rest = text.partition("(")[2].rpartition(")")  # a name may hold parentheses and blanks
    fields = ["", "", *rest.split()]  # proc(5) counts from 1, and the name is number 2: fields[2] is number 3
    if fields[2] in _DEAD or int(fields[22]) == 0 or pid == os.getpid():  # without virtual memory: of the kernel
        return None
    return Process(pid, int(fields[21]), int(fields[25]), int(fields[27]), name)


def label(process: Process) -> str:
    """What to call it in a trace: the name of a QEMU guest, else of the program, with the number of the process."""
    guest = _guest_name(_arguments(process.pid))
    return f"{guest or process.name}-{process.pid}"


def _parts(selection: Selection) -> Iterator[tuple[str, Iterable[int]]]:
    for pid in selection.pids:
        yield f"--pid {pid}", [pid]
    for name in selection.names:
        yield f"--name {name}", [pid for pid in _all_pids() if _is_called(pid, name)]
    for group in selection.cgroups:
        yield f"--cgroup {group}", _pids_of_group(group)
    if selection.qemu:
        yield "--qemu", [pid for pid in _all_pids() if _is_qemu(pid)]


def _all_pids() -> list[int]:
    return [int(entry.name) for entry in PROC.iterdir() if entry.name.isdecimal()]


def _comm(pid: int) -> str:
    with suppress(OSError):
        return (PROC / str(pid) / "comm").read_text(errors="replace").rstrip("\n")
    return ""


def _arguments(pid: int) -> list[str]:
    with suppress(OSError):
        return (PROC / str(pid) / "cmdline").read_bytes().decode(errors="replace").split("\0")
    return [""]


def _is_called(pid: int, name: str) -> bool:
    return _comm(pid) == name[:_COMM_CHARS] or Path(_arguments(pid)[0]).name == name


def _is_qemu(pid: int) -> bool:
    return bool(_QEMU.match(Path(_arguments(pid)[0]).name))


def _guest_name(arguments: list[str]) -> str | None:
    """What follows `-name`: "web", "web,debug-threads=on" or "guest=web,..."."""
    if not _QEMU.match(Path(arguments[0]).name) or "-name" not in arguments[:-1]:
        return None
    first, *others = arguments[arguments.index("-name") + 1].split(",")
    if "=" not in first:
        return first
    return next((part.removeprefix("guest=") for part in (first, *others) if part.startswith("guest=")), None)


def _pids_of_group(group: str) -> list[int]:
    bare = group.removeprefix(str(CGROUPS)).lstrip("/")
    folders = [CGROUPS / hierarchy / bare for hierarchy in _HIERARCHIES]
    folder = next((folder for folder in folders if (folder / "cgroup.procs").is_file()), None)
    if folder is None:
        rule = f"there is no such group in {CGROUPS}"
        raise InputError(where="ksmbatch capture", key=f"--cgroup {group}", rule=rule)
    pids = set[int]()
    for file in folder.rglob("cgroup.procs"):
        with suppress(OSError):  # a group may go away meanwhile, or be one of threads
            pids |= {int(line) for line in file.read_text().split()}
    return sorted(pids)
