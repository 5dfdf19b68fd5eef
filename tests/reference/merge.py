"""Replacing one page by another (mm/ksm.c from write_protect_page() to try_to_merge_two_pages()).

It trusts nobody's claim that two pages are equal, since checksums collide and pages change. It searches no tree.
"""

from __future__ import annotations

from .memory import KSM_ZERO_PAGE, READ_ZERO_PAGE, Frame, ZeroPage, break_ksm, find_mergeable_vma, map_page, unmap_page
from .state import Ksm, RmapItem
from .unstable import remove_rmap_item_from_tree
from .vma import Vma

ZERO_CONTENT = 0


def try_to_merge_one_page(ksm: Ksm, rmap_item: RmapItem, page: Frame, kpage: Frame | ZeroPage | None) -> bool:
    """Map `kpage` instead of `page` at the item's address, or make `page` a KSM page if `kpage` is None. False is -EFAULT."""
    if page is kpage:  # ksm page forked
        return True
    if page.ksm:  # write_protect_page(): page_address_in_vma() finds no anon_vma in a KSM page
        ksm.events["merge of a KSM page refused"] += 1
        return False
    mm, address = rmap_item.mm, rmap_item.address
    if mm.page_table.get(address) is not page:
        return False
    if kpage is None:
        page.ksm, page.mapping = True, None
        return True
    if page.content != kpage.content:
        ksm.events["merge refused: equal checksums, different pages"] += 1
        return False
    unmap_page(ksm, mm, address)
    map_page(ksm, mm, address, kpage)
    return True


def try_to_merge_with_zero_page(ksm: Ksm, rmap_item: RmapItem, page: Frame) -> bool:
    """True if there is nothing left to do: merged, or the VMA is no longer ksmd's."""
    if not ksm.use_zero_pages or rmap_item.oldchecksum != ksm.checksum(ZERO_CONTENT):
        return False
    if find_mergeable_vma(rmap_item.mm, rmap_item.address) is None:
        return True
    zero_page = KSM_ZERO_PAGE if ksm.kernel.tracks_zero_pages else READ_ZERO_PAGE
    merged = try_to_merge_one_page(ksm, rmap_item, page, zero_page)
    ksm.events["zero page merged"] += merged
    return merged


def try_to_merge_with_ksm_page(ksm: Ksm, rmap_item: RmapItem, page: Frame, kpage: Frame | None) -> bool:
    """try_to_merge_one_page(), after which the item is free to join a stable node, reachable through the VMA's anon_vma."""
    vma: Vma | None = find_mergeable_vma(rmap_item.mm, rmap_item.address)
    if vma is None or not try_to_merge_one_page(ksm, rmap_item, page, kpage):
        return False
    remove_rmap_item_from_tree(ksm, rmap_item)
    assert vma.anon_vma is not None
    rmap_item.anon_vma = vma.anon_vma
    return True


def try_to_merge_two_pages(ksm: Ksm, rmap_item: RmapItem, page: Frame, tree_rmap_item: RmapItem, tree_page: Frame) -> bool:
    """`page`, the one scanned now, becomes the KSM page of both."""
    if not try_to_merge_with_ksm_page(ksm, rmap_item, page, None):
        return False
    if try_to_merge_with_ksm_page(ksm, tree_rmap_item, tree_page, page):
        return True
    break_cow(ksm, rmap_item)  # a KSM page with only one pte pointing to it
    return False


def break_cow(ksm: Ksm, rmap_item: RmapItem) -> None:
    """Give the item's address a page of its own again."""
    ksm.events["break_cow"] += 1
    vma = find_mergeable_vma(rmap_item.mm, rmap_item.address)
    if vma is not None:
        break_ksm(ksm, vma, rmap_item.address)
