"""Moving pages to other NUMA nodes, and what the policies make of a KSM page's stable node there (mm/migrate.c).

Whatever the policy, a page moves only if the rmap walk finds all of its mappings. What ksmd does about pages that have moved,
or should, is in `stable` and `rehome`; moving many at once is in `evacuate`.
"""

from __future__ import annotations

from .memory import Frame, Mm, ZeroPage, alloc_page_of_node, map_page, unmap_page, visible
from .place import find_resident, find_room, put_beside
from .rmap import majority_home, rmap_walk_ksm
from .stable import remove_node_from_stable_tree, stable_node_dup_del
from .state import Ksm, StableNode, free_stable_node
from .vma import vma_lookup

Status = int | str  # a node, or the name of an error


def move_page(ksm: Ksm, mm: Mm, address: int, nid: int, caller: str) -> Status:
    """move_pages(MPOL_MF_MOVE_ALL) of one page: the status that it stores, "stuck" if it gave up and stored none."""
    vma = vma_lookup(mm, address)
    if vma is None:
        return "EFAULT"
    page = mm.page_table.get(address)
    if page is None:
        return ksm.kernel.absent_status
    if not visible(ksm, vma):
        return "ENOENT"
    if isinstance(page, ZeroPage):
        return "EFAULT"
    if page.nid == nid:
        return nid
    if is_refused(ksm, page, caller):
        return "EBUSY"
    if page.ksm and caller != "hotremove" and _left_to_ksmd(ksm, page, nid):
        ksm.events["page left to ksmd"] += 1
        return "EAGAIN"
    return migrate_folio(ksm, page, nid)


def is_refused(ksm: Ksm, folio: Frame, caller: str) -> bool:
    """Whether `caller` may not move it, which is counted."""
    if not folio.ksm or caller in ksm.callers:
        return False
    ksm.counted["migrate_refused"] += 1
    return True


def _left_to_ksmd(ksm: Ksm, folio: Frame, nid: int) -> bool:
    if ksm.policy == "nuksm":  # a page without a stable node has no home
        return folio.mapping is not None and majority_home(folio) != nid
    return ksm.policy == "replicate" and not ksm.merge_across_nodes


def migrate_folio(ksm: Ksm, folio: Frame, nid: int) -> Status:
    """migrate_pages() of one page: `nid`, or why it stayed."""
    copies = ksm.policy == "break_cow" and folio.ksm and _crosses(ksm, folio, nid)
    if not copies and not ksm.nodes[nid].has_room:
        ksm.counted["migrate_failures"] += 1
        return "ENOMEM"
    if is_stuck(ksm, folio):
        return "stuck"
    if copies:
        return _break_cow_on(ksm, folio, nid)
    move_folio(ksm, folio, nid)
    return nid


def is_stuck(ksm: Ksm, folio: Frame) -> bool:
    """Whether the rmap walk misses a mapping, so that try_to_migrate() gives up; which is counted."""
    if not folio.ksm:
        return False
    if folio.dangling:  # the walk goes through freed memory, and finds nothing
        ksm.counted["corruptions"] += 1
        ksm.events["dangling page asked to move"] += 1
    elif rmap_walk_ksm(folio).keys() == folio.mappings.keys():
        return False
    ksm.counted["migrate_stuck"] += 1
    ksm.events["page stuck"] += 1
    return True


def _crosses(ksm: Ksm, folio: Frame, nid: int) -> bool:
    return not ksm.merge_across_nodes and folio.nid != nid


def move_folio(ksm: Ksm, folio: Frame, nid: int) -> None:
    """To `nid`, which has room, with all mappings; the policy acts where the page leaves its tree's node."""
    stable_node = folio.mapping if _crosses(ksm, folio, nid) else None
    _count_move(ksm, folio)
    if stable_node is None or ksm.policy == "mainline":
        replace_folio(ksm, folio, nid)
    elif ksm.policy == "v4":
        _move_and_free_node(ksm, folio, nid, stable_node)
    else:
        _substitute(ksm, folio, nid, stable_node)


def _count_move(ksm: Ksm, folio: Frame) -> None:
    ksm.counted["frames_moved"] += 1
    ksm.counted["ksm_frames_moved"] += folio.ksm
    ksm.events["KSM page moved" if folio.ksm else "page moved"] += 1


def replace_folio(ksm: Ksm, folio: Frame, nid: int) -> Frame:
    """A new page on `nid`, which may be the same node, takes the place of `folio` everywhere. Returns it."""
    newfolio = alloc_page_of_node(ksm, folio.content, nid)
    newfolio.ksm = folio.ksm
    if folio.mapping is not None:  # folio_migrate_ksm()
        newfolio.mapping, folio.mapping.kpage = folio.mapping, newfolio
        folio.mapping = None
    _remap(ksm, folio, newfolio)
    return newfolio


def _remap(ksm: Ksm, folio: Frame, newfolio: Frame) -> None:
    for mm, address in list(folio.mappings):
        unmap_page(ksm, mm, address)
        map_page(ksm, mm, address, newfolio)


# ---- the policies


def _move_and_free_node(ksm: Ksm, folio: Frame, nid: int, stable_node: StableNode) -> None:
    """v4: the page still points to the node, which nobody but ksmd may free."""
    newfolio = replace_folio(ksm, folio, nid)
    remove_node_from_stable_tree(ksm, stable_node)
    newfolio.mapping = None
    newfolio.dangling = True
    ksm.counted["dangling_pages"] += 1
    ksm.events["page left dangling"] += 1


def _substitute(ksm: Ksm, folio: Frame, nid: int, stable_node: StableNode) -> None:
    """substitute and those that move as it does: the page's node is where it belongs before anybody looks."""
    resident = find_resident(ksm, folio.content, nid)
    joined = find_room(ksm, resident, stable_node.rmap_hlist_len)
    stable_node_dup_del(ksm, stable_node)
    if joined is not None:
        _merge_into(ksm, folio, stable_node, joined)
        return
    put_beside(ksm, stable_node, nid, resident)
    ksm.counted["migrate_inserted" if resident is None else "migrate_chained"] += 1
    replace_folio(ksm, folio, nid)


def _merge_into(ksm: Ksm, folio: Frame, stable_node: StableNode, joined: StableNode) -> None:
    """All that map `folio` map the page of `joined` instead, and its rmap_items go there; its node, in no tree, is freed."""
    node = ksm.nodes[joined.kpage.nid]
    node.give_pfn(node.take_pfn())  # the copy that is not made, or made in vain
    for rmap_item in stable_node.hlist:
        rmap_item.list_in(joined)
        joined.rmap_hlist_len += 1
    ksm.pages_shared -= 1
    ksm.pages_sharing += 1
    free_stable_node(stable_node)
    _remap(ksm, folio, joined.kpage)
    ksm.counted["migrate_merged"] += 1
    ksm.counted["migrate_copies"] += ksm.policy == "merge_on_migrate"


def _break_cow_on(ksm: Ksm, folio: Frame, nid: int) -> Status:
    """break_cow: every mapping gets a page of its own on `nid`; the rmap_items stay until ksmd passes, as after break_ksm()."""
    for mm, address in rmap_walk_ksm(folio):
        if not ksm.nodes[nid].has_room:
            ksm.counted["migrate_failures"] += 1
            ksm.events["KSM page not copied apart for want of room"] += 1
            return "ENOMEM"
        copy = alloc_page_of_node(ksm, folio.content, nid)
        unmap_page(ksm, mm, address)
        map_page(ksm, mm, address, copy)
        ksm.cow_ksm += 1
        ksm.counted["migrate_allocations"] += 1
    _count_move(ksm, folio)
    ksm.events["KSM page copied apart"] += 1
    return nid
