"""Frames, page tables, and what a process does to its own memory: faults, unsharing, unmapping, fork.

It counts what the kernel counts at the fault (cow_ksm, zero pages). What ksmd makes of the pages later is not here, nor is how
they move.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .numa import OutOfMemory, nearest_with_room
from .vma import Vma, anon_vma_fork, anon_vma_prepare, unlink_anon_vmas, vma_lookup

if TYPE_CHECKING:
    from .state import Ksm, RmapItem, StableNode


class Frame:
    """struct page: an anonymous page, or a KSM page with `mapping` its stable node (None between birth and insertion).

    `dangling`: the stable node to which a KSM page points has been freed (policy v4); `mapping` is None then, too.
    """

    __slots__ = ("content", "dangling", "ksm", "mapping", "mappings", "nid", "pfn", "refs")

    def __init__(self, content: int, nid: int, pfn: int) -> None:
        self.content, self.nid, self.pfn = content, nid, pfn
        self.mappings: dict[tuple[Mm, int], None] = {}  # ordered, so that replays do not depend on hashes
        self.ksm = False
        self.mapping: StableNode | None = None
        self.dangling = False
        self.refs = 0  # held by ksmd

    @property
    def mapcount(self) -> int:
        """Page table entries that map the frame."""
        return len(self.mappings)

    @property
    def freed(self) -> bool:
        """Nobody maps or holds it any more."""
        return not self.mappings and not self.refs


class ZeroPage:
    """The kernel's zero page in a pte; `dirty` where ksmd put it, on kernels that track that."""

    __slots__ = ("dirty",)
    content = 0
    ksm = False

    def __init__(self, dirty: bool) -> None:
        self.dirty = dirty


READ_ZERO_PAGE, KSM_ZERO_PAGE = ZeroPage(dirty=False), ZeroPage(dirty=True)


class Mm:
    """struct mm_struct, the `started`th of the machine. `page_table`: page number -> Frame or ZeroPage; `mm_users` 0 once the
    process has begun to exit."""

    def __init__(self, name: str, started: int) -> None:
        self.name, self.started = name, started
        self.vmas: list[Vma] = []
        self.page_table: dict[int, Frame | ZeroPage] = {}
        self.mm_users = 1
        self.mergeable = False  # MMF_VM_MERGEABLE
        self.merge_any = False  # MMF_VM_MERGE_ANY
        self.ksm_merging_pages = self.ksm_rmap_items = self.ksm_zero_pages = 0


def map_page(ksm: Ksm, mm: Mm, address: int, page: Frame | ZeroPage) -> None:
    """Write a pte that was empty."""
    mm.page_table[address] = page
    if isinstance(page, Frame):
        page.mappings[mm, address] = None
    elif page.dirty:  # ksm_map_zero_page()
        ksm.ksm_zero_pages += 1
        mm.ksm_zero_pages += 1


def unmap_page(ksm: Ksm, mm: Mm, address: int) -> None:
    """Clear a pte, if it is not clear already."""
    page = mm.page_table.pop(address, None)
    if isinstance(page, Frame):
        del page.mappings[mm, address]
        if page.dangling:  # folio_remove_rmap_pte() would go to the stable node
            ksm.counted["corruptions"] += 1
            ksm.events["dangling page unmapped"] += 1
            if not page.mappings:
                ksm.counted["dangling_pages"] -= 1
        _free_if_unused(ksm, page)
    elif page is not None and page.dirty:  # ksm_might_unmap_zero_page()
        ksm.ksm_zero_pages -= 1
        mm.ksm_zero_pages -= 1


def alloc_page(ksm: Ksm, content: int, nid: int) -> Frame:
    """A frame for a fault: of the node, or of the nearest other one that has room."""
    if ksm.nodes[nid].has_room:
        return alloc_page_of_node(ksm, content, nid)
    fallback = nearest_with_room(ksm.nodes, nid)
    if fallback is None:
        raise OutOfMemory("no node has a page frame left")
    ksm.events["fault fell back to another node"] += 1
    return alloc_page_of_node(ksm, content, fallback)


def alloc_page_of_node(ksm: Ksm, content: int, nid: int) -> Frame:
    """A frame of this node and no other (__GFP_THISNODE); the caller knows that there is one."""
    node = ksm.nodes[nid]
    frame = Frame(content, nid, node.take_pfn())
    node.frames[frame.pfn] = frame
    return frame


def get_page(frame: Frame) -> None:
    """ksmd holds the frame."""
    frame.refs += 1


def put_page(ksm: Ksm, frame: Frame) -> None:
    """ksmd lets it go."""
    frame.refs -= 1
    _free_if_unused(ksm, frame)


def _free_if_unused(ksm: Ksm, frame: Frame) -> None:
    if frame.freed:
        node = ksm.nodes[frame.nid]
        del node.frames[frame.pfn]
        node.give_pfn(frame.pfn)


def write_page(ksm: Ksm, mm: Mm, address: int, content: int) -> None:
    """A store, with its write fault where there is one; forced writes (FOLL_FORCE) go the same way."""
    page = mm.page_table.get(address)
    if isinstance(page, Frame) and not page.ksm and page.mapcount == 1:
        page.content = content
        return
    if page is not None and page.ksm:
        ksm.cow_ksm += 1
    _new_anonymous_page(ksm, mm, address, content)


def read_page(ksm: Ksm, mm: Mm, address: int) -> None:
    """A load: an absent page becomes the zero page, for which no anon_vma is needed."""
    if address not in mm.page_table:
        map_page(ksm, mm, address, READ_ZERO_PAGE)


def break_ksm(ksm: Ksm, vma: Vma, address: int) -> None:
    """Unshare the KSM page, or the zero page put by ksmd, that is mapped at `address`."""
    page = vma.mm.page_table.get(address)
    if page is None or not visible(ksm, vma):
        return
    if isinstance(page, Frame) and page.ksm:
        ksm.cow_ksm += 1
        _new_anonymous_page(ksm, vma.mm, address, page.content)
    elif isinstance(page, ZeroPage) and page.dirty:
        _new_anonymous_page(ksm, vma.mm, address, 0)


def visible(ksm: Ksm, vma: Vma) -> bool:
    """Whether follow_page(), or what came after it, finds the present pages of the VMA."""
    return ksm.kernel.sees_prot_none or vma.flags.prot != "none"


def find_mergeable_vma(mm: Mm, address: int) -> Vma | None:
    """The VMA in which ksmd may still touch the page, or None."""
    if not mm.mm_users:
        return None
    vma = vma_lookup(mm, address)
    if vma is None or not vma.flags.mergeable or vma.anon_vma is None:
        return None
    return vma


def get_mergeable_page(ksm: Ksm, rmap_item: RmapItem) -> Frame | None:
    """The anonymous page at the item's address, or None."""
    vma = find_mergeable_vma(rmap_item.mm, rmap_item.address)
    if vma is None or not visible(ksm, vma):
        return None
    page = rmap_item.mm.page_table.get(rmap_item.address)
    return page if isinstance(page, Frame) else None


def dup_mmap(ksm: Ksm, mm: Mm, oldmm: Mm) -> None:
    """fork: copy VMAs, and the page tables of those that have an anon_vma; the others would fault their pages in."""
    for vma in oldmm.vmas:
        copy = vma.dup(mm, vma.start, vma.end)
        anon_vma_fork(copy, vma)
        mm.vmas.append(copy)
        if vma.anon_vma is None:
            continue
        for address in range(vma.start, vma.end):
            page = oldmm.page_table.get(address)
            if page is None:
                continue
            mm.page_table[address] = page  # the zero pages are counted in ksm_fork(), as a sum
            if isinstance(page, Frame):
                page.mappings[mm, address] = None


def exit_mmap(ksm: Ksm, mm: Mm) -> None:
    """The end of an address space."""
    for address in sorted(mm.page_table):
        unmap_page(ksm, mm, address)
    for vma in mm.vmas:
        unlink_anon_vmas(vma)
    mm.vmas = []


def _new_anonymous_page(ksm: Ksm, mm: Mm, address: int, content: int) -> None:
    vma = vma_lookup(mm, address)
    assert vma is not None, "the scenario writes where nothing is mapped"
    anon_vma_prepare(vma)
    page = alloc_page(ksm, content, vma.nid)
    unmap_page(ksm, mm, address)
    map_page(ksm, mm, address, page)
