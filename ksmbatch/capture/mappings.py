"""Which parts of an address space to look at: /proc/PID/maps, and what KSM could ever take of it.

KSM takes anonymous pages of private mappings: of a heap, a stack, a guest's memory, or of a mapped file where the process
has written. mm/ksm.c vma_ksm_compatible() refuses what is shared, of hugetlbfs, of a device, or made by the kernel itself.
"""

import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

PAGE_BITS: Final = 12
_MADE_BY_KERNEL: Final = re.compile(r"\[(vvar|vdso|vsyscall|uprobes)")
_DEVICE: Final = re.compile(r"/dev/(?!shm/|zero\b|hugepages/)|anon_inode:|/\[aio\]")
_HUGE: Final = re.compile(r"/anon_hugepage|/dev/hugepages/")


class Mapping(NamedTuple):
    """Pages `first` to `end` - 1 (virtual page numbers). `perms`: as in "rw-p". `device`: as in "fe:00". `name`: "" if none."""

    first: int
    end: int
    perms: str
    device: str
    name: str

    @property
    def kind(self) -> str:
        """What its name says without telling: "heap", "stack", "anonymous" or "file"."""
        if self.name.startswith(("[heap", "[stack")):
            return self.name.strip("[]").partition(":")[0]
        return "file" if self.name.startswith("/") else "anonymous"


def parse(maps: str) -> list[Mapping]:
    """The lines of /proc/PID/maps, in the order of addresses.

    >>> parse("00400000-00402000 rw-p 00000000 00:00 0   [heap]")[0]
    Mapping(first=1024, end=1026, perms='rw-p', device='00:00', name='[heap]')
    """
    mappings = []
    for line in maps.splitlines():
        addresses, perms, _, device, _, *name = line.split(maxsplit=5)
        first, end = (int(address, 16) >> PAGE_BITS for address in addresses.split("-"))
        mappings.append(Mapping(first, end, perms, device, name[0] if name else ""))
    return mappings


def is_readable(mapping: Mapping) -> bool:
    """Whether it is memory: reading what a device maps could have effects, and what the kernel makes is nobody's."""
    return not _MADE_BY_KERNEL.match(mapping.name) and not _DEVICE.match(mapping.name)


def chooser(*, all_vmas: bool, hugetlb: frozenset[str] = frozenset()) -> Callable[[Mapping], bool]:
    """What to look at: with `all_vmas` all memory, else what KSM could take. `hugetlb`: devices of hugetlbfs."""
    if all_vmas:
        return is_readable

    def could_merge(mapping: Mapping) -> bool:
        is_huge = mapping.device in hugetlb or _HUGE.match(mapping.name)
        return is_readable(mapping) and mapping.perms[3] == "p" and not is_huge

    return could_merge


def hugetlb_devices(mountinfo: str) -> frozenset[str]:
    """The devices of the hugetlbfs mounts in the text of /proc/PID/mountinfo, as /proc/PID/maps writes them.

    >>> hugetlb_devices("31 25 0:28 / /mnt rw shared:12 - hugetlbfs hugetlbfs rw,pagesize=2M")
    frozenset({'00:1c'})
    """
    devices = set()
    for line in mountinfo.splitlines():
        mount, _, source = line.partition(" - ")
        if source.startswith("hugetlbfs "):
            major, minor = map(int, mount.split()[2].split(":"))
            devices.add(f"{major:02x}:{minor:02x}")
    return frozenset(devices)


def mergeable(smaps: str) -> frozenset[int]:
    """First pages of the mappings in the text of /proc/PID/smaps that are registered with KSM ("mg" among their VmFlags)."""
    firsts = set()
    first = 0
    for line in smaps.splitlines():
        head = line.partition(" ")[0]
        if "-" in head and ":" not in head:
            with suppress(ValueError):
                first = int(head.partition("-")[0], 16) >> PAGE_BITS
        elif head == "VmFlags:" and "mg" in line.split():
            firsts.add(first)
    return frozenset(firsts)


def read_mountinfo() -> str:
    """The mounts that this process sees; nothing where that cannot be read."""
    with suppress(OSError):
        return Path("/proc/self/mountinfo").read_text(errors="replace")
    return ""
