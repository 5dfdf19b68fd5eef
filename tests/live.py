"""Live processes for tests of `capture`: Python children that hold known pages and do what they are told.

The children's memory is also read here, in the plainest way, so that what was captured can be counted independently.
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

PAGE = 4096
_PROGRAM = """
import mmap, os, sys
area = mmap.mmap(-1, int(sys.argv[1]) * 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
area.madvise(mmap.MADV_NOHUGEPAGE)  # a write makes one page
if sys.argv[2] == "mergeable":
    area.madvise(mmap.MADV_MERGEABLE)
print("ready", flush=True)
for line in sys.stdin:
    exec(line)
    print("done", flush=True)
"""
_PRESENT, _FILE, _EXCLUSIVE = 1 << 63, 1 << 61, 1 << 56


class Child:
    """A process with an `area` of `n_pages` pages in a mapping of its own."""

    def __init__(self, n_pages: int, *, mergeable: bool) -> None:
        command = [sys.executable, "-c", _PROGRAM, str(n_pages), "mergeable" if mergeable else "plain"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.pid = self._process.pid
        self._expect("ready")

    def do(self, line: str) -> None:
        """Has the child run `line` of Python, in which `area` is its memory."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        self._expect("done")

    def put(self, pages: dict[int, bytes]) -> None:
        """Page -> what it begins with; the rest of it is zeros."""
        for page, start in pages.items():
            self.do(f"area[{page * PAGE}:{(page + 1) * PAGE}] = {start!r}.ljust({PAGE}, bytes(1))")

    def end(self) -> None:
        """It exits, and is reaped."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()

    def pages(self) -> list[bytes]:
        """Contents of all its anonymous pages, in the order of addresses, read one by one."""
        found = []
        folder = Path(f"/proc/{self.pid}")
        with (folder / "pagemap").open("rb") as pagemap, (folder / "mem").open("rb", buffering=0) as mem:
            for line in (folder / "maps").read_text().splitlines():
                addresses, perms, *_ = line.split()
                if perms[3] == "s" or "[v" in line:
                    continue
                first, end = (int(address, 16) // PAGE for address in addresses.split("-"))
                for vpn in range(first, end):
                    pagemap.seek(vpn * 8)
                    entry = int.from_bytes(pagemap.read(8), "little")
                    # of one process alone, so neither a page of a file nor the kernel's page of zeros
                    if entry & _PRESENT and entry & _EXCLUSIVE and not entry & _FILE:
                        mem.seek(vpn * PAGE)
                        found.append(mem.read(PAGE))
        return found

    def _expect(self, word: str) -> None:
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == f"{word}\n"


@contextmanager
def children(n: int, n_pages: int = 64, *, mergeable: bool = True) -> Iterator[list[Child]]:
    """`n` of them; skips the test where their memory may not be read, or none can be registered with KSM."""
    if mergeable and not Path("/sys/kernel/mm/ksm").exists():
        pytest.skip("this kernel has no KSM, so no memory can be marked for the test")
    alive = [Child(n_pages, mergeable=mergeable) for _ in range(n)]
    try:
        try:
            with Path(f"/proc/{alive[0].pid}/mem").open("rb"), Path(f"/proc/{alive[0].pid}/pagemap").open("rb"):
                pass
        except OSError as error:
            pytest.skip(f"the memory of a child may not be read here: {error.strerror}")
        yield alive
    finally:
        for child in alive:
            with suppress(ValueError):  # it was ended before
                child.end()
