"""VMAs and their anon_vmas: how system calls, faults and forks split, merge and link them.

KSM shows them in two ways: a VMA without anon_vma is neither scanned nor copied by fork, and the reverse mapping of a KSM page
reaches only VMAs that are linked to its rmap_items' anon_vmas. Ranges are global page numbers. What pages hold is in the state.
Source: mm/vma.c, mm/mmap.c, mm/rmap.c, mm/madvise.c, mm/mprotect.c.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from ksmbatch.codes import Kernel


@dataclass(frozen=True, slots=True)
class VmFlags:
    """The vm_flags that events can change: VM_MERGEABLE, the access bits ("none", "r", "rw"), VM_ACCOUNT."""

    mergeable: bool = False
    prot: str = "rw"
    account: bool = True


@dataclass(slots=True, eq=False)
class AnonVma:
    """struct anon_vma. A root is its own child; `n_linked` VMAs have it in their chain, `n_active` as their own."""

    number: int
    parent: "AnonVma | None" = None
    n_children: int = 0
    n_active: int = 0
    n_linked: int = 0


@dataclass(slots=True, eq=False)
class Vma:
    """struct vm_area_struct: pages [start, end) of the area that begins at page `area`, bound to `nid`.

    `chain`: its anon_vma_chain, oldest first. Areas have gaps between them, so VMAs of two areas are never neighbours.
    """

    start: int
    end: int
    area: int
    nid: int
    flags: VmFlags
    anon_vma: AnonVma | None = None
    chain: list[AnonVma] = field(default_factory=list)

    def link(self, anon_vma: AnonVma) -> None:
        """anon_vma_chain_link()"""
        self.chain.append(anon_vma)
        anon_vma.n_linked += 1

    def clone_chain(self, source: "Vma") -> None:
        """anon_vma_clone(): a VMA without anon_vma, as fork makes them, may adopt one that has lost its VMAs."""
        for anon_vma in source.chain:
            self.link(anon_vma)
            if self.anon_vma is None and anon_vma.n_children < 2 and anon_vma.n_active == 0:
                self.anon_vma = anon_vma
        if self.anon_vma is not None:
            self.anon_vma.n_active += 1

    def unlink(self) -> None:
        """unlink_anon_vmas()"""
        for anon_vma in self.chain:
            anon_vma.n_linked -= 1
            if anon_vma.n_linked == 0:
                (anon_vma.parent or anon_vma).n_children -= 1
        self.chain = []
        if self.anon_vma is not None:
            self.anon_vma.n_active -= 1
            self.anon_vma = None

    def take_chain(self, source: "Vma") -> None:
        """dup_anon_vma()"""
        if source.anon_vma is not None and self.anon_vma is None:
            self.anon_vma = source.anon_vma
            self.clone_chain(source)


class Vmas:
    """The VMAs of an mm, in address order; `kernel` decides which may be merged. `numbers`: for anon_vmas, one for all mms."""

    def __init__(self, kernel: Kernel, numbers: Iterator[int]) -> None:
        self._kernel = kernel
        self._numbers = numbers
        self._vmas: list[Vma] = []

    def __iter__(self) -> Iterator[Vma]:
        return iter(self._vmas)

    def add(self, start: int, end: int, nid: int, *, mergeable: bool) -> None:
        """mmap(): a new area above all others."""
        self._vmas.append(Vma(start, end, start, nid, VmFlags(mergeable=mergeable)))

    def overlapping(self, start: int, end: int) -> list[Vma]:
        """The VMAs with pages in [start, end)."""
        return [vma for vma in self._vmas if vma.end > start and vma.start < end]

    def covers(self, start: int, end: int) -> bool:
        """Whether all of [start, end) is mapped."""
        return sum(min(vma.end, end) - max(vma.start, start) for vma in self.overlapping(start, end)) == end - start

    @property
    def n_mergeable(self) -> int:
        """How many are mergeable."""
        return sum(vma.flags.mergeable for vma in self._vmas)

    def fault(self, vma: Vma) -> None:
        """anon_vma_prepare(): before the first anonymous page, `vma` shares a neighbour's anon_vma or gets its own."""
        anon_vma = self._neighbours_anon_vma(vma)
        if anon_vma is None:
            anon_vma = AnonVma(next(self._numbers), n_children=1)
        vma.anon_vma = anon_vma
        vma.link(anon_vma)
        anon_vma.n_active += 1

    def fork(self, end: int, offset: int) -> "Vmas":
        """dup_mmap(): copies of the VMAs below page `end`, `offset` pages higher, each linked to its parent's anon_vmas."""
        copies = Vmas(self._kernel, self._numbers)
        for vma in self._vmas:
            if vma.start < end:
                copies._vmas.append(_forked(vma, offset, next(self._numbers)))
        return copies

    def rebind(self, start: int, end: int, nid: int) -> None:
        """mbind() of a whole area, so that no VMA is split and no two become alike that were not before."""
        for vma in self.overlapping(start, end):
            vma.nid = nid

    def unmap(self, start: int, end: int) -> None:
        """munmap() of what is mapped of [start, end)."""
        for vma in self.overlapping(start, end):
            if vma.start < start:
                self._split(vma, start, new_below=True)
            if vma.end > end:
                self._split(vma, end, new_below=False)
            self._remove(vma)

    def clear(self) -> None:
        """exit_mmap()"""
        for vma in self._vmas:
            vma.unlink()
        self._vmas = []

    def madvise(self, start: int, end: int, *, mergeable: bool, before: Callable[[Vma, int, int], None]) -> None:
        """MADV_MERGEABLE, MADV_UNMERGEABLE: `before` is called for every part [start, end) of a VMA that will change."""
        while (vma := self._first_above(start)) is not None and vma.start < end:
            start = max(start, vma.start)
            stop = min(vma.end, end)
            if vma.flags.mergeable != mergeable:
                before(vma, start, stop)
                vma = self._modify(vma, start, stop, replace(vma.flags, mergeable=mergeable))
            start = max(stop, vma.end)

    def mprotect(self, start: int, end: int, prot: str) -> bool:
        """mprotect(), which stops at the first hole. Returns False if there is one (ENOMEM)."""
        while start < end:
            vma = self._first_above(start)
            if vma is None or vma.start > start:
                return False
            stop = min(vma.end, end)
            flags = replace(vma.flags, prot=prot)
            if flags != vma.flags:
                if prot == "rw":
                    flags = replace(flags, account=True)
                elif self._kernel >= Kernel.V6_12 and vma.anon_vma is None:
                    flags = replace(flags, account=False)  # 6.1 does not uncharge
                vma = self._modify(vma, start, stop, flags)
            start = max(stop, vma.end)
        return True

    def _first_above(self, page: int) -> Vma | None:
        return next((vma for vma in self._vmas if vma.end > page), None)

    def _modify(self, vma: Vma, start: int, end: int, flags: VmFlags) -> Vma:
        """vma_modify_flags(): merges [start, end) of `vma` with neighbours, else splits it; returns the VMA that covers it."""
        changed = self._merge(vma, start, end, flags)
        if changed is None:
            changed = vma
            if start > vma.start:
                self._split(vma, start, new_below=True)
            if end < vma.end:
                self._split(vma, end, new_below=False)
        changed.flags = flags
        return changed

    def _merge(self, vma: Vma, start: int, end: int, flags: VmFlags) -> Vma | None:
        """vma_merge()"""
        before = self._neighbour(vma, -1) if start == vma.start else None
        after = self._neighbour(vma, 1) if end == vma.end else None
        before = before if before is not None and self._may_merge(before, vma, flags) else None
        after = after if after is not None and self._may_merge(after, vma, flags) else None
        if before is not None and after is not None:
            if before.anon_vma is None or after.anon_vma is None or before.anon_vma is after.anon_vma:
                before.take_chain(after if after.anon_vma is not None else vma)
                before.end = after.end
                self._remove(vma)
                self._remove(after)
                return before
            after = None
        if before is not None:
            before.take_chain(vma)
            before.end = end
            self._shrink(vma, end, vma.end)
            return before
        if after is not None:
            after.take_chain(vma)
            after.start = start
            self._shrink(vma, vma.start, start)
            return after
        return None

    def _may_merge(self, target: Vma, vma: Vma, flags: VmFlags) -> bool:
        """can_vma_merge_before(), can_vma_merge_after(): whether `target` may be extended over `vma` with new `flags`."""
        if target.flags != flags or target.nid != vma.nid:
            return False
        if target.anon_vma is None and vma.anon_vma is not None:
            # before 7.x the test was for a chain of exactly one, which an empty one is not
            return self._kernel >= Kernel.V7_2 and len(vma.chain) == 1
        if target.anon_vma is not None and vma.anon_vma is None:
            return len(target.chain) == 1
        return target.anon_vma is vma.anon_vma

    def _neighbours_anon_vma(self, vma: Vma) -> AnonVma | None:
        """find_mergeable_anon_vma(): the VMA above is asked first; access rights do not count."""
        for side in (1, -1):
            other = self._neighbour(vma, side)
            if other is None or other.anon_vma is None or len(other.chain) != 1 or other.nid != vma.nid:
                continue
            if replace(other.flags, prot=vma.flags.prot) == vma.flags:
                return other.anon_vma
        return None

    def _neighbour(self, vma: Vma, side: int) -> Vma | None:
        """The VMA that touches `vma` above (1) or below (-1)."""
        index = self._vmas.index(vma) + side
        if not 0 <= index < len(self._vmas):
            return None
        other = self._vmas[index]
        touches = vma.end == other.start if side > 0 else other.end == vma.start
        return other if touches and other.area == vma.area else None

    def _split(self, vma: Vma, page: int, *, new_below: bool) -> None:
        """split_vma(): `vma` keeps the part above `page` if `new_below`, else the one below."""
        index = self._vmas.index(vma)
        if new_below:
            new = replace(vma, end=page, chain=[])
            vma.start = page
        else:
            new = replace(vma, start=page, chain=[])
            vma.end = page
        self._vmas.insert(index + (not new_below), new)
        new.clone_chain(vma)

    def _shrink(self, vma: Vma, start: int, end: int) -> None:
        vma.start, vma.end = start, end
        if start == end:
            self._remove(vma)

    def _remove(self, vma: Vma) -> None:
        self._vmas.remove(vma)
        vma.unlink()


def _forked(vma: Vma, offset: int, number: int) -> Vma:
    """anon_vma_fork()"""
    copy = replace(vma, start=vma.start + offset, end=vma.end + offset, area=vma.area + offset, anon_vma=None, chain=[])
    if vma.anon_vma is None:
        return copy
    copy.clone_chain(vma)
    if copy.anon_vma is None:
        anon_vma = AnonVma(number, parent=vma.anon_vma, n_active=1)
        copy.anon_vma = anon_vma
        copy.link(anon_vma)
        vma.anon_vma.n_children += 1
    return copy
