"""A stable node's place in another NUMA node's tree, found by its content alone: what the policies do to trees.

Unlike ksmd's walks (see `stable`) a look-up here touches no node but the one of that content.
"""

from __future__ import annotations

from .rbtree import LEFT, RIGHT, rb_walk
from .stable import (
    alloc_stable_node_chain,
    free_stable_node_chain,
    ksm_get_folio,
    stable_node_chain_add_dup,
    stable_tree_link,
)
from .state import Ksm, StableNode


def find_resident(ksm: Ksm, content: int, nid: int) -> StableNode | None:
    """The plain node or the chain of `content` in the tree of `nid`, after what is stale of it has been removed."""
    root = ksm.root_stable_tree[nid]
    found: StableNode | None = next((node for node in rb_walk(root) if node.kpage.content == content), None)
    if found is None:
        return None
    if not found.is_chain:
        return None if ksm_get_folio(ksm, found) is None else found
    for dup in list(found.hlist):
        ksm_get_folio(ksm, dup)
    if not found.hlist:
        free_stable_node_chain(ksm, found, root)
        return None
    return found


def find_room(ksm: Ksm, resident: StableNode | None, rmap_items: int) -> StableNode | None:
    """The first dup there that is in use and has room for so many more rmap_items."""
    if resident is None:
        return None
    dups = resident.hlist if resident.is_chain else [resident]
    return next((dup for dup in dups if 0 < dup.rmap_hlist_len <= ksm.max_page_sharing - rmap_items), None)


def put_beside(ksm: Ksm, stable_node: StableNode, nid: int, resident: StableNode | None) -> None:
    """`stable_node`, which is nowhere, comes into the tree of `nid`, where find_resident() found `resident`."""
    root = ksm.root_stable_tree[nid]
    if resident is None:
        _link_by_content(ksm, stable_node, nid)
        return
    chain = resident if resident.is_chain else alloc_stable_node_chain(ksm, resident, root)
    stable_node.nid = nid
    stable_node_chain_add_dup(ksm, stable_node, chain)


def _link_by_content(ksm: Ksm, stable_node: StableNode, nid: int) -> None:
    root = ksm.root_stable_tree[nid]
    parent, side, below = None, LEFT, root.rb_node
    while below is not None:
        parent = below
        side = LEFT if stable_node.kpage.content < parent.kpage.content else RIGHT
        below = parent.child[side]
    stable_tree_link(stable_node, nid, parent, side, root)
