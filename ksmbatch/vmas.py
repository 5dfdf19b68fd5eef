"""The VMAs of one mm: which ranges are mapped, mergeable, and have an anon_vma, and how system calls split them.

Ranges are global page numbers. What a VMA's pages hold is in the state; this only says where VMAs begin and end.
"""

from dataclasses import dataclass, replace


@dataclass(slots=True)
class Vma:
    """Pages [start, end) with one set of flags. Source: struct vm_area_struct."""

    start: int
    end: int
    mergeable: bool
    anon: bool = False


class Vmas:
    """The VMAs of an mm in address order."""

    def __init__(self, vmas: list[Vma] | None = None) -> None:
        self._vmas = vmas or []

    def add(self, start: int, end: int, mergeable: bool) -> Vma:
        """A new VMA above all others."""
        vma = Vma(start, end, mergeable)
        self._vmas.append(vma)
        return vma

    def overlapping(self, start: int, end: int) -> list[Vma]:
        """The VMAs with pages in [start, end)."""
        return [vma for vma in self._vmas if vma.end > start and vma.start < end]

    def carve(self, start: int, end: int) -> list[Vma]:
        """VMAs that cover exactly what is mapped of [start, end), after splitting those that reach over. Source: split_vma()."""
        for edge in (start, end):
            for index, vma in enumerate(self._vmas):
                if vma.start < edge < vma.end:
                    self._vmas.insert(index + 1, replace(vma, start=edge))
                    vma.end = edge
                    break
        return self.overlapping(start, end)

    def remove(self, vma: Vma) -> None:
        """Unmaps `vma`."""
        self._vmas.remove(vma)

    def copy_below(self, end: int, offset: int) -> "Vmas":
        """Those below page `end`, moved by `offset`, as fork copies them."""
        return Vmas([replace(vma, start=vma.start + offset, end=vma.end + offset) for vma in self._vmas if vma.start < end])

    @property
    def n_mergeable(self) -> int:
        """How many are mergeable."""
        return sum(vma.mergeable for vma in self._vmas)
