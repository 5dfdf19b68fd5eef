"""Freed and overwritten kernel memory: touching it raises, whoever does it, as KASAN would report it.

It only marks objects of the twin. It does not model the allocator: freed memory is never handed out again.
"""

from typing import Any, NoReturn


class UseAfterFree(Exception):
    """The kernel would read or write freed (or meanwhile otherwise used) memory here."""


class Overwritten:
    """Stands where struct ksm_rmap_item's rb_node has been overwritten by `head` and `hlist`, with which it is in union."""

    def _touched(self, *_: object) -> NoReturn:
        raise UseAfterFree("use after free: an unstable tree still points to an rmap_item that is on a stable node's list")

    parent = child = red = address = property(_touched)
    __getitem__ = __setitem__ = __bool__ = _touched


OVERWRITTEN: Any = Overwritten()
