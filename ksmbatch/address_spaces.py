"""The address spaces of a machine: the VMAs of every mm, and what the state and the rmap walk must know of them.

What VMAs do is in `vmas`; what pages hold is in the state.
"""

from itertools import count

import numpy as np

from ksmbatch import state
from ksmbatch.codes import Kernel
from ksmbatch.kernels import page_flags
from ksmbatch.program import Program
from ksmbatch.state import AnonVmas, State
from ksmbatch.vmas import Vmas


class AddressSpaces:
    """The VMAs of the mms of `program`, by number of mm; whoever changes some says so by `tell`."""

    def __init__(self, program: Program) -> None:
        self._mms = program.mms
        self._vmas: dict[int, Vmas] = {}
        self._areas: dict[int, set[str]] = {}
        self._has_forks = any(layout.parent != state.NO_MM for layout in program.mms)
        n_linked = program.n_pages if self._has_forks else 0
        self._anon_vma_numbers = count(1)
        self._chains: dict[tuple[int, ...], int] = {(): 0}
        self.links = AnonVmas(
            page_anon_vma=np.zeros(n_linked, np.int32),
            page_chain=np.zeros(n_linked, np.int32),
            chain_start=np.zeros(2, np.int32),
            chain_anon_vma=np.zeros(0, np.int32),
        )

    def __getitem__(self, number: int) -> Vmas:
        return self._vmas[number]

    def spawn(self, number: int, kernel: Kernel) -> None:
        """mm `number` begins to live, without VMAs."""
        self._vmas[number] = Vmas(kernel, self._anon_vma_numbers)
        self._areas[number] = set()

    def fork(self, parent: int, child: int, end: int, offset: int) -> None:
        """`child` gets copies of the VMAs of `parent` below page `end`, `offset` pages higher."""
        self._vmas[child] = self._vmas[parent].fork(end, offset)
        self._areas[child] = set(self._areas[parent])

    def exit(self, number: int, s: State) -> None:
        """mm `number` loses its VMAs, and is forgotten."""
        self._vmas[number].clear()
        self.tell(number, s)
        del self._vmas[number], self._areas[number]

    def add_area(self, number: int, area: str) -> None:
        """mm `number` has had its mmap of `area`."""
        self._areas[number].add(area)

    def has_area(self, number: int, area: str) -> bool:
        """Whether mm `number` has had its mmap of `area` yet."""
        return area in self._areas[number]

    def tell(self, number: int, s: State) -> None:
        """Tells the state what the VMAs of mm `number` say of its pages now."""
        layout = self._mms[number]
        told = layout.first
        for vma in self._vmas[number]:
            bits = state.MAPPED
            bits |= state.MERGEABLE if vma.flags.mergeable else 0
            bits |= state.ANON if vma.anon_vma is not None else 0
            bits |= state.PROT_NONE if vma.flags.prot == "none" else 0
            page_flags.tell_pages(s, told, vma.start, 0)
            page_flags.tell_pages(s, vma.start, vma.end, bits)
            told = vma.end
        page_flags.tell_pages(s, told, layout.end, 0)
        s.mms[number, state.MERGEABLE_VMAS] = self._vmas[number].n_mergeable
        if self._has_forks:
            self._link_pages(number)

    def _link_pages(self, number: int) -> None:
        """Tells the rmap walk which anon_vmas the VMAs of mm `number` have; of VMAs that are gone it keeps what it knew."""
        layout = self._mms[number]
        links = self.links
        links.page_chain[layout.first : layout.end] = 0
        for vma in self._vmas[number]:
            if vma.anon_vma is not None:
                links.page_anon_vma[vma.start : vma.end] = vma.anon_vma.number
            chain = tuple(anon_vma.number for anon_vma in vma.chain)
            if chain not in self._chains:
                self._chains[chain] = len(self._chains)
                ids = np.append(links.chain_anon_vma, np.array(chain, np.int32))
                links = links._replace(chain_start=np.append(links.chain_start, np.int32(len(ids))), chain_anon_vma=ids)
            links.page_chain[vma.start : vma.end] = self._chains[chain]
        self.links = links
