"""ksmd at work: what a visit does with a page, which page comes next, a batch (mm/ksm.c from cmp_and_merge_page() on).

It waits for nothing: the machine says when a batch begins.
"""

from __future__ import annotations

from .memory import Frame, get_page, put_page
from .merge import try_to_merge_two_pages, try_to_merge_with_ksm_page, try_to_merge_with_zero_page
from .rbtree import RbRoot
from .rehome import rehome
from .stable import (
    add_to_migrate_nodes,
    ksm_get_folio,
    page_stable_node,
    stable_node_dup_del,
    stable_tree_append,
    stable_tree_insert,
    stable_tree_search,
)
from .state import Ksm, MmSlot, RmapItem
from .unstable import remove_rmap_item_from_tree, remove_trailing_rmap_items, unstable_tree_search_insert

U8_MAX = 255


def cmp_and_merge_page(ksm: Ksm, page: Frame, rmap_item: RmapItem) -> None:
    """The stable tree, the checksum gate, the unstable tree; 6.1 looks into the stable tree before the gate."""
    if page.dangling:  # page_stable_node() is freed memory
        ksm.counted["corruptions"] += 1
        ksm.events["dangling page visited"] += 1
        return
    stable_node = page_stable_node(page)
    if stable_node is not None:
        if stable_node.head != "migrate_nodes" and ksm.get_kpfn_nid(stable_node.kpage) != stable_node.nid:
            stable_node_dup_del(ksm, stable_node)
            add_to_migrate_nodes(ksm, stable_node)
        if stable_node.head != "migrate_nodes" and rmap_item.head is stable_node:
            rehome(ksm, page, rmap_item)
            return
    elif not ksm.kernel.stable_search_first:
        remove_rmap_item_from_tree(ksm, rmap_item)
        if not _passes_checksum_gate(ksm, page, rmap_item) or try_to_merge_with_zero_page(ksm, rmap_item, page):
            return

    kpage = stable_tree_search(ksm, page)
    if kpage is page and rmap_item.head is stable_node:
        return
    remove_rmap_item_from_tree(ksm, rmap_item)
    if kpage is not None:
        get_page(kpage)
        if try_to_merge_with_ksm_page(ksm, rmap_item, page, kpage):
            joined = page_stable_node(kpage)
            assert joined is not None
            stable_tree_append(ksm, rmap_item, joined)
            ksm.events["page joined a stable node"] += 1
        put_page(ksm, kpage)
        return

    if ksm.kernel.stable_search_first and (
        not _passes_checksum_gate(ksm, page, rmap_item) or try_to_merge_with_zero_page(ksm, rmap_item, page)
    ):
        return
    twin = unstable_tree_search_insert(ksm, rmap_item, page)
    if twin is None:
        return
    tree_rmap_item, tree_page = twin
    get_page(tree_page)
    merged = try_to_merge_two_pages(ksm, rmap_item, page, tree_rmap_item, tree_page)
    put_page(ksm, tree_page)
    if merged:
        stable_node = stable_tree_insert(ksm, page)
        stable_tree_append(ksm, tree_rmap_item, stable_node)
        stable_tree_append(ksm, rmap_item, stable_node)
        ksm.events["two pages merged"] += 1


def _passes_checksum_gate(ksm: Ksm, page: Frame, rmap_item: RmapItem) -> bool:
    checksum = ksm.checksum(page.content)
    if rmap_item.oldchecksum != checksum:
        rmap_item.oldchecksum, rmap_item.summed = checksum, page.content
        return False
    if rmap_item.summed != page.content:
        ksm.events["changed page passed the checksum gate"] += 1
    return True


def _get_next_rmap_item(ksm: Ksm, mm_slot: MmSlot, address: int) -> RmapItem:
    """The slot's item for `address`, made if need be; items that the cursor has passed by without a page are freed."""
    rmap_list, index = mm_slot.rmap_list, ksm.scan.rmap_index
    while index < len(rmap_list):
        rmap_item = rmap_list[index]
        if rmap_item.address == address:
            return rmap_item
        if rmap_item.address > address:
            break
        del rmap_list[index]
        remove_rmap_item_from_tree(ksm, rmap_item)
        ksm.free_rmap_item(rmap_item)
    rmap_item = ksm.alloc_rmap_item(mm_slot.mm, address)
    rmap_list.insert(index, rmap_item)
    return rmap_item


def _skip_age(age: int) -> int:
    if age <= 3:
        return 1
    if age <= 5:
        return 2
    if age <= 8:
        return 4
    return 8


def _should_skip_rmap_item(ksm: Ksm, page: Frame, rmap_item: RmapItem) -> bool:
    """smart_scan: pages that did not merge for long are looked at less often."""
    if not ksm.smart_scan or page.ksm:
        return False
    age = rmap_item.age
    if age != U8_MAX:
        rmap_item.age += 1
    if age < 3:
        return False
    if not rmap_item.remaining_skips:
        rmap_item.remaining_skips = _skip_age(age)
        return False
    ksm.pages_skipped += 1
    ksm.events["page skipped by smart_scan"] += 1
    rmap_item.remaining_skips -= 1
    remove_rmap_item_from_tree(ksm, rmap_item)
    return True


def _next_page(ksm: Ksm, mm_slot: MmSlot) -> tuple[RmapItem, Frame] | None:
    """From the cursor on, the next page of this mm that is not skipped; the cursor stands behind it then."""
    scan, mm = ksm.scan, mm_slot.mm
    for vma in mm.vmas:
        if vma.end <= scan.address or not vma.flags.mergeable:
            continue
        scan.address = max(scan.address, vma.start)
        if vma.anon_vma is None:
            scan.address = vma.end
        while scan.address < vma.end:
            page = mm.page_table.get(scan.address)
            scan.address += 1
            if not isinstance(page, Frame):
                continue
            rmap_item = _get_next_rmap_item(ksm, mm_slot, scan.address - 1)
            scan.rmap_index += 1
            if not _should_skip_rmap_item(ksm, page, rmap_item):
                return rmap_item, page
    return None


def _start_scan(ksm: Ksm) -> None:
    if not ksm.merge_across_nodes:
        for stable_node in list(ksm.migrate_nodes):
            ksm_get_folio(ksm, stable_node)  # drops those whose page is gone
    for nid in range(ksm.nr_node_ids):
        ksm.root_unstable_tree[nid] = RbRoot()
    ksm.trees_reset = ksm.nr_node_ids
    _set_cursor(ksm, ksm.mm_slots[0])


def _set_cursor(ksm: Ksm, mm_slot: MmSlot | None) -> None:
    ksm.scan.mm_slot, ksm.scan.address, ksm.scan.rmap_index = mm_slot, 0, 0


def scan_get_next_rmap_item(ksm: Ksm) -> tuple[RmapItem, Frame] | None:
    """The next page to compare, or None when the list of mms has been completed."""
    if not ksm.mm_slots:
        return None
    scan = ksm.scan
    if scan.mm_slot is None:
        _start_scan(ksm)
    while scan.mm_slot is not None:
        mm_slot = scan.mm_slot
        if mm_slot.mm.mm_users:
            found = _next_page(ksm, mm_slot)
            if found is not None:
                return found
        else:
            scan.address = scan.rmap_index = 0
        remove_trailing_rmap_items(ksm, mm_slot, scan.rmap_index)
        here = ksm.mm_slots.index(mm_slot)
        following = ksm.mm_slots[here + 1] if here + 1 < len(ksm.mm_slots) else None
        if scan.address == 0:  # no VM_MERGEABLE area at all, or the process is gone
            del ksm.mm_slots[here]
            mm_slot.mm.mergeable = False
            ksm.events["mm_slot freed by ksmd"] += 1
        _set_cursor(ksm, following)
    scan.seqnr += 1
    return None


def ksm_do_scan(ksm: Ksm) -> None:
    """One batch."""
    for _ in range(ksm.pages_to_scan):
        found = scan_get_next_rmap_item(ksm)
        if found is None:
            return
        rmap_item, page = found
        get_page(page)
        cmp_and_merge_page(ksm, page, rmap_item)
        put_page(ksm, page)
        ksm.pages_scanned += 1
