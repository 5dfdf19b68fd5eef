"""Who maps a KSM page, as far as its rmap_items know: the reverse mapping, and the NUMA node that most of them call home.

What the page tables say is in `Frame.mappings`; that the two differ is what makes a page stuck.
"""

from __future__ import annotations

from collections import Counter

from .memory import Frame, Mm
from .state import RmapItem
from .vma import vma_lookup


def rmap_walk_ksm(frame: Frame) -> dict[tuple[Mm, int], None]:
    """The mappings that the page's rmap_items reach through their anon_vmas: item by item, then in the order in which the mms
    started, each once."""
    if frame.mapping is None:
        return {}
    found: dict[tuple[Mm, int], None] = {}
    for rmap_item in frame.mapping.hlist:
        address = rmap_item.address
        for vma in sorted(rmap_item.anon_vma.vmas, key=lambda vma: vma.mm.started):
            if vma.start <= address < vma.end and vma.mm.page_table.get(address) is frame:
                found[vma.mm, address] = None
    return found


def items_that_map(frame: Frame) -> list[RmapItem]:
    """The rmap_items of the page's stable node whose own page table entry maps it."""
    items = frame.mapping.hlist if frame.mapping is not None else []
    return [item for item in items if item.mm.page_table.get(item.address) is frame]


def majority_home(frame: Frame) -> int:
    """The node that most of items_that_map() have for home, i.e. to which their VMA is bound. Of several that are equally often
    named it is the page's own, else the lowest; the page's own, too, if there are no such items."""
    named = Counter(home(item.mm, item.address) for item in items_that_map(frame))
    most = max(named.values(), default=0)
    best = sorted(nid for nid, times in named.items() if times == most)
    return frame.nid if frame.nid in best or not best else best[0]


def home(mm: Mm, address: int) -> int:
    """The node that the memory policy of a mapped page names."""
    vma = vma_lookup(mm, address)
    assert vma is not None
    return vma.nid
