"""VMAs and their anon_vmas: split, merge, fork, first fault (mm/vma.c, mm/mmap.c, mm/rmap.c, mm/madvise.c, mm/mprotect.c).

KSM shows them in two ways: a VMA that never had an anonymous page has no anon_vma, and neither ksmd nor fork looks into it;
and the reverse mapping of a KSM page reaches the VMAs that are linked to its rmap_items' anon_vmas, and no others. Addresses
are page numbers. Page tables are in `memory`; of the flags only those are kept that scenarios can change.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from .kernels import Kernel
    from .memory import Mm


class Flags(NamedTuple):
    """vm_flags: VM_MERGEABLE, the access bits ("none", "r", "rw") and VM_ACCOUNT."""

    mergeable: bool = False
    prot: str = "rw"
    account: bool = True


class AnonVma:
    """struct anon_vma; `vmas` is its interval tree."""

    def __init__(self, parent: AnonVma | None) -> None:
        self.parent = parent or self
        self.num_children = 0
        self.num_active_vmas = 0
        self.vmas: list[Vma] = []


class Vma:
    """struct vm_area_struct [start, end); `nid` is its MPOL_BIND policy, `chain` its anon_vma_chain, newest first."""

    def __init__(self, mm: Mm, start: int, end: int, nid: int, flags: Flags) -> None:
        self.mm, self.start, self.end, self.nid, self.flags = mm, start, end, nid, flags
        self.anon_vma: AnonVma | None = None
        self.chain: list[AnonVma] = []

    def dup(self, mm: Mm, start: int, end: int) -> Vma:
        """vm_area_dup(): the anon_vma is copied, its chain not yet."""
        copy = Vma(mm, start, end, self.nid, self.flags)
        copy.anon_vma = self.anon_vma
        return copy


# ---- mm/rmap.c


def anon_vma_prepare(vma: Vma) -> None:
    """Before the first anonymous page: share a neighbour's anon_vma or allocate one."""
    if vma.anon_vma is not None:
        return
    anon_vma = _find_mergeable_anon_vma(vma)
    if anon_vma is None:
        anon_vma = AnonVma(None)
        anon_vma.num_children += 1  # a root is its own parent
    vma.anon_vma = anon_vma
    _anon_vma_chain_link(vma, anon_vma)
    anon_vma.num_active_vmas += 1


def anon_vma_clone(dst: Vma, src: Vma) -> None:
    """Link `dst` to all that `src` is linked to; a forked `dst` may adopt one that has lost its VMAs."""
    for anon_vma in reversed(src.chain):
        _anon_vma_chain_link(dst, anon_vma)
        if dst.anon_vma is None and anon_vma.num_children < 2 and anon_vma.num_active_vmas == 0:
            dst.anon_vma = anon_vma
    if dst.anon_vma is not None:
        dst.anon_vma.num_active_vmas += 1


def anon_vma_fork(vma: Vma, pvma: Vma) -> None:
    """The child's VMA is linked to the parent's anon_vmas and to one of its own."""
    if pvma.anon_vma is None:
        return
    vma.anon_vma = None
    anon_vma_clone(vma, pvma)
    if vma.anon_vma is not None:
        return
    anon_vma = AnonVma(pvma.anon_vma)
    anon_vma.num_active_vmas = 1
    vma.anon_vma = anon_vma
    _anon_vma_chain_link(vma, anon_vma)
    anon_vma.parent.num_children += 1


def unlink_anon_vmas(vma: Vma) -> None:
    """The VMA goes, or has been merged into another."""
    for anon_vma in vma.chain:
        anon_vma.vmas.remove(vma)
        if not anon_vma.vmas:
            anon_vma.parent.num_children -= 1
    vma.chain = []
    if vma.anon_vma is not None:
        vma.anon_vma.num_active_vmas -= 1
        vma.anon_vma = None


def _anon_vma_chain_link(vma: Vma, anon_vma: AnonVma) -> None:
    vma.chain.insert(0, anon_vma)
    anon_vma.vmas.append(vma)


def _find_mergeable_anon_vma(vma: Vma) -> AnonVma | None:
    here = vma.mm.vmas.index(vma)
    for there in (here + 1, here - 1):  # the next one first
        if not 0 <= there < len(vma.mm.vmas):
            continue
        old = vma.mm.vmas[there]
        adjacent = vma.end == old.start if there > here else old.end == vma.start
        compatible = adjacent and vma.nid == old.nid and vma.flags._replace(prot="") == old.flags._replace(prot="")
        if compatible and old.anon_vma is not None and len(old.chain) == 1:
            return old.anon_vma
    return None


# ---- mm/vma.c


def find_vma(mm: Mm, address: int) -> Vma | None:
    """The first VMA that ends above `address`."""
    return next((vma for vma in mm.vmas if vma.end > address), None)


def vma_lookup(mm: Mm, address: int) -> Vma | None:
    """The VMA that covers `address`."""
    return next((vma for vma in mm.vmas if vma.start <= address < vma.end), None)


def vma_modify_flags(kernel: Kernel, vma: Vma, start: int, end: int, flags: Flags) -> Vma:
    """Give [start, end) of `vma` new flags: merge it with neighbours, else split. Returns the VMA that covers it now."""
    changed = _vma_merge(kernel, vma, start, end, flags)
    if changed is None:
        changed = vma
        if start > vma.start:
            split_vma(vma, start, new_below=True)
        if end < vma.end:
            split_vma(vma, end, new_below=False)
    changed.flags = flags
    return changed


def split_vma(vma: Vma, address: int, new_below: bool) -> None:
    """Cut `vma` at `address`; it keeps the upper part if `new_below`, else the lower."""
    here = vma.mm.vmas.index(vma)
    if new_below:
        new = vma.dup(vma.mm, vma.start, address)
        vma.start = address
        vma.mm.vmas.insert(here, new)
    else:
        new = vma.dup(vma.mm, address, vma.end)
        vma.end = address
        vma.mm.vmas.insert(here + 1, new)
    anon_vma_clone(new, vma)


def _vma_merge(kernel: Kernel, vma: Vma, start: int, end: int, flags: Flags) -> Vma | None:
    vmas = vma.mm.vmas
    here = vmas.index(vma)
    left_side, right_side = start == vma.start, end == vma.end
    prev = vmas[here - 1] if left_side and here > 0 and vmas[here - 1].end == start else None
    succ = vmas[here + 1] if right_side and here + 1 < len(vmas) and vmas[here + 1].start == end else None
    if prev is not None and not _can_vma_merge(kernel, prev, vma, flags):
        prev = None
    if succ is not None and not _can_vma_merge(kernel, succ, vma, flags):
        succ = None
    if prev is not None and succ is not None:
        if prev.anon_vma is None or succ.anon_vma is None or prev.anon_vma is succ.anon_vma:
            _dup_anon_vma(prev, succ if succ.anon_vma is not None else vma)
            prev.end = succ.end
            _remove_vma(vma)
            _remove_vma(succ)
            return prev
        succ = None
    if prev is not None:
        _dup_anon_vma(prev, vma)
        prev.end = end
        if right_side:
            _remove_vma(vma)
        else:
            vma.start = end
        return prev
    if succ is not None:
        _dup_anon_vma(succ, vma)
        succ.start = start
        if left_side:
            _remove_vma(vma)
        else:
            vma.end = start
        return succ
    return None


def _can_vma_merge(kernel: Kernel, target: Vma, vma: Vma, flags: Flags) -> bool:
    if target.flags != flags or target.nid != vma.nid:
        return False
    if target.anon_vma is None and vma.anon_vma is not None:
        # before 7.x the test was for a chain of exactly one, which an empty one is not
        return kernel.unfaulted_takes_over and len(vma.chain) == 1
    if target.anon_vma is not None and vma.anon_vma is None:
        return len(target.chain) == 1
    return target.anon_vma is vma.anon_vma


def _dup_anon_vma(dst: Vma, src: Vma) -> None:
    if src.anon_vma is not None and dst.anon_vma is None:
        dst.anon_vma = src.anon_vma
        anon_vma_clone(dst, src)


def _remove_vma(vma: Vma) -> None:
    vma.mm.vmas.remove(vma)
    unlink_anon_vmas(vma)


# ---- system calls on ranges


def madvise(mm: Mm, start: int, end: int, visit: Callable[[Vma, int, int], Vma]) -> str | int:
    """madvise_walk_vmas(): `visit` every mapped part of [start, end); returns 0, or "ENOMEM" if some of it is not mapped."""
    errno: str | int = 0
    vma = find_vma(mm, start)
    while True:
        if vma is None:
            return "ENOMEM"
        if start < vma.start:
            errno = "ENOMEM"
            start = vma.start
            if start >= end:
                return errno
        stop = min(vma.end, end)
        vma = visit(vma, start, stop)
        start = max(stop, vma.end)
        if start >= end:
            return errno
        vma = find_vma(mm, vma.end)


def mprotect(kernel: Kernel, mm: Mm, start: int, end: int, prot: str) -> str | int:
    """do_mprotect_pkey(): it stops with "ENOMEM" at the first hole."""
    while start < end:
        vma = find_vma(mm, start)
        if vma is None or vma.start > start:
            return "ENOMEM"
        stop = min(vma.end, end)
        flags = vma.flags._replace(prot=prot)
        if flags != vma.flags:
            if prot == "rw":
                flags = flags._replace(account=True)
            elif kernel.mprotect_uncharges and vma.anon_vma is None:
                flags = flags._replace(account=False)
            vma = vma_modify_flags(kernel, vma, start, stop, flags)
        start = max(stop, vma.end)
    return 0


def munmap(mm: Mm, start: int, end: int) -> None:
    """do_vmi_align_munmap() of what is mapped of [start, end); the page tables must be empty already."""
    for vma in [vma for vma in mm.vmas if vma.start < end and vma.end > start]:
        if vma.start < start:
            split_vma(vma, start, new_below=True)
        if vma.end > end:
            split_vma(vma, end, new_below=False)
        _remove_vma(vma)
