"""What ksmd does, when it passes, about a KSM page that lies on another NUMA node than it should: policies nuksm and replicate.

It is asked only about pages whose rmap_item is on the list of their stable node, and that node in its tree. See `migrate` for
what the policies do when somebody asks for a page to be moved.
"""

from __future__ import annotations

from .memory import Frame, alloc_page_of_node, map_page, unmap_page
from .migrate import move_folio
from .place import find_resident, find_room, put_beside
from .rmap import home, items_that_map, majority_home
from .stable import stable_tree_append
from .state import Ksm, RmapItem, StableNode
from .unstable import remove_rmap_item_from_tree
from .vma import vma_lookup


def rehome(ksm: Ksm, page: Frame, rmap_item: RmapItem) -> None:
    """ksmd visits `page` by way of `rmap_item`; most policies do nothing."""
    if ksm.policy == "nuksm":
        _move_to_majority(ksm, page, rmap_item)
    elif ksm.policy == "replicate" and not ksm.merge_across_nodes:
        _move_mapping_home(ksm, page, rmap_item)


def _move_to_majority(ksm: Ksm, page: Frame, rmap_item: RmapItem) -> None:
    """nuksm: once per page and scan, when the first of its rmap_items is visited."""
    assert page.mapping is not None
    if page.mapping.hlist[0] is not rmap_item:
        return
    nid = majority_home(page)
    if nid != page.nid and ksm.nodes[nid].has_room and len(items_that_map(page)) == page.mapcount:
        move_folio(ksm, page, nid)
        ksm.events["ksmd moved a page to its majority"] += 1


def _move_mapping_home(ksm: Ksm, page: Frame, rmap_item: RmapItem) -> None:
    """replicate: this mapping alone goes to its own node's copy, which is made if need be."""
    nid = home(rmap_item.mm, rmap_item.address)
    if nid == page.nid or not ksm.nodes[nid].online:
        return
    resident = find_resident(ksm, page.content, nid)
    replica = find_room(ksm, resident, 1)
    if replica is None:
        if not ksm.nodes[nid].has_room:
            ksm.counted["migrate_failures"] += 1
            ksm.events["ksmd found no room for a replica"] += 1
            return
        replica = _new_replica(ksm, page.content, nid)
        put_beside(ksm, replica, nid, resident)
        ksm.events["ksmd made a replica"] += 1
    else:
        ksm.events["ksmd joined a page to a replica"] += 1
    _join(ksm, rmap_item, replica)


def _new_replica(ksm: Ksm, content: int, nid: int) -> StableNode:
    kpage = alloc_page_of_node(ksm, content, nid)
    ksm.counted["migrate_allocations"] += 1
    kpage.ksm = True
    kpage.mapping = StableNode(kpage, nid)
    return kpage.mapping


def _join(ksm: Ksm, rmap_item: RmapItem, stable_node: StableNode) -> None:
    mm, address = rmap_item.mm, rmap_item.address
    remove_rmap_item_from_tree(ksm, rmap_item)
    unmap_page(ksm, mm, address)
    map_page(ksm, mm, address, stable_node.kpage)
    vma = vma_lookup(mm, address)
    assert vma is not None
    assert vma.anon_vma is not None
    rmap_item.anon_vma = vma.anon_vma
    stable_tree_append(ksm, rmap_item, stable_node)
