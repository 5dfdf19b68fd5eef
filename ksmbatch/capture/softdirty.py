"""Does this kernel keep soft-dirty bits? Tried on a page of our own, because the file that clears them is always there.

Source: the kernel's Documentation/admin-guide/mm/soft-dirty.rst.
"""

import ctypes
import mmap
import os
from pathlib import Path
from typing import Final

_BIT: Final = 1 << 55
_ENTRY_BYTES: Final = 8


def soft_dirty_works() -> bool:
    """Whether the bit of a page of this process is cleared when asked, and set by a write."""
    with mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as page:
        page[0] = 1
        view = ctypes.c_char.from_buffer(page)
        vpn = ctypes.addressof(view) // mmap.PAGESIZE
        del view  # or the mapping cannot be closed
        try:
            Path("/proc/self/clear_refs").write_text("4")
            cleared = not _is_dirty(vpn)
            page[0] = 2
            return cleared and _is_dirty(vpn)
        except OSError:
            return False


def _is_dirty(vpn: int) -> bool:
    fd = os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return bool(int.from_bytes(os.pread(fd, _ENTRY_BYTES, vpn * _ENTRY_BYTES), "little") & _BIT)
    finally:
        os.close(fd)
