"""The stable trees: look-up, chains and their pruning, insertion (mm/ksm.c from ksm_get_folio() to stable_tree_append()).

Functions have the kernel's names and are in its order, except that 6.1's own chain look-up stands next to the later one.
"""

from __future__ import annotations

from .memory import Frame
from .rbtree import LEFT, RIGHT, RbRoot, rb_erase, rb_insert_color, rb_link_node, rb_replace_node, rb_walk
from .state import STABLE_NODE_CHAIN, Ksm, RmapItem, StableNode, free_stable_node, msecs_to_jiffies


def page_stable_node(page: Frame) -> StableNode | None:
    """The stable node of a KSM page."""
    return page.mapping if page.ksm else None


# ---- nodes, dups and chains


def stable_node_chain_add_dup(ksm: Ksm, dup: StableNode, chain: StableNode) -> None:
    dup.head, dup.chain = "dup", chain
    chain.hlist.insert(0, dup)
    ksm.stable_node_dups += 1


def _stable_node_chain_del_dup(ksm: Ksm, dup: StableNode) -> None:
    assert dup.chain is not None
    dup.chain.hlist.remove(dup)
    dup.chain = None
    ksm.stable_node_dups -= 1


def stable_node_dup_del(ksm: Ksm, dup: StableNode) -> None:
    """Take a node out of its chain or tree."""
    if dup.head == "dup":
        _stable_node_chain_del_dup(ksm, dup)
    else:
        rb_erase(dup, ksm.root_stable_tree[dup.nid])


def add_to_migrate_nodes(ksm: Ksm, stable_node: StableNode) -> None:
    """A node whose page has left the tree's NUMA node waits there for its place."""
    stable_node.head = "migrate_nodes"
    ksm.migrate_nodes.insert(0, stable_node)
    ksm.events["stable node put on migrate_nodes"] += 1


def alloc_stable_node_chain(ksm: Ksm, dup: StableNode, root: RbRoot) -> StableNode:
    """A chain takes the place of `dup` in the tree, and `dup` hangs in it."""
    chain = StableNode(dup.kpage, dup.nid)
    chain.chain_prune_time = ksm.jiffies
    chain.rmap_hlist_len = STABLE_NODE_CHAIN
    ksm.stable_node_chains += 1
    ksm.events["chain created"] += 1
    rb_replace_node(dup, chain, root)
    stable_node_chain_add_dup(ksm, dup, chain)
    return chain


def free_stable_node_chain(ksm: Ksm, chain: StableNode, root: RbRoot) -> None:
    rb_erase(chain, root)
    free_stable_node(chain)
    ksm.stable_node_chains -= 1
    ksm.events["chain freed"] += 1


def remove_node_from_stable_tree(ksm: Ksm, stable_node: StableNode) -> None:
    """Its page is gone: forget the items that still point to it."""
    for k, rmap_item in enumerate(stable_node.hlist):
        if k + 1 < len(stable_node.hlist):
            ksm.pages_sharing -= 1
        else:
            ksm.pages_shared -= 1
        rmap_item.mm.ksm_merging_pages -= 1
        rmap_item.flags = 0
    if stable_node.head == "migrate_nodes":
        ksm.migrate_nodes.remove(stable_node)
    else:
        stable_node_dup_del(ksm, stable_node)
    free_stable_node(stable_node)


def ksm_get_folio(ksm: Ksm, stable_node: StableNode) -> Frame | None:
    """The node's page, or None if it is gone, and then the node goes too."""
    kpage = stable_node.kpage
    if kpage.mapping is stable_node and not kpage.freed:
        return kpage
    ksm.events["stale stable node removed"] += 1
    remove_node_from_stable_tree(ksm, stable_node)
    return None


def is_page_sharing_candidate(ksm: Ksm, stable_node: StableNode, offset: int = 0) -> bool:
    """Somebody maps it, and there is room for one more (and `offset` others)."""
    return stable_node.rmap_hlist_len > 0 and stable_node.rmap_hlist_len + offset < ksm.max_page_sharing


# ---- looking at one node of the tree: (a page of that content, the dup to join, the node in the tree)

Look = tuple[Frame | None, StableNode | None, StableNode]


def stable_node_chain(ksm: Ksm, stable_node: StableNode, root: RbRoot, prune: bool) -> Look:
    """chain_prune() or chain(), and in 6.1 what their callers do about full nodes."""
    if ksm.kernel.chains_skip_full_dups:
        return _stable_node_chain_6_1(ksm, stable_node, root, prune)
    if stable_node.is_chain:
        return _stable_node_dup(ksm, stable_node, root, prune)
    return ksm_get_folio(ksm, stable_node), stable_node, stable_node


def _pruning_is_due(ksm: Ksm, chain: StableNode, prune: bool) -> bool:
    delay = msecs_to_jiffies(ksm.stable_node_chains_prune_millisecs)
    if not prune or ksm.jiffies < chain.chain_prune_time + delay:
        return False
    chain.chain_prune_time = ksm.jiffies
    ksm.events["chain walked to prune"] += 1
    return True


def _stable_node_dup(ksm: Ksm, chain: StableNode, root: RbRoot, prune: bool) -> Look:
    prune = _pruning_is_due(ksm, chain, prune)
    found: StableNode | None = None
    found_rmap_hlist_len = 0
    tree_folio: Frame | None = None
    for dup in list(chain.hlist):
        folio = ksm_get_folio(ksm, dup)
        if folio is None:
            continue
        if found is None or (
            is_page_sharing_candidate(ksm, dup)
            and (not is_page_sharing_candidate(ksm, found) or dup.rmap_hlist_len > found_rmap_hlist_len)
        ):
            found, found_rmap_hlist_len, tree_folio = dup, dup.rmap_hlist_len, folio
            if not prune and is_page_sharing_candidate(ksm, found):
                break
    if found is None:
        free_stable_node_chain(ksm, chain, root)
        return None, None, chain
    if len(chain.hlist) == 1:
        return tree_folio, found, _collapse_chain(ksm, chain, found, root)
    _move_to_front(ksm, chain, found)
    return tree_folio, found, chain


def _stable_node_chain_6_1(ksm: Ksm, stable_node: StableNode, root: RbRoot, prune: bool) -> Look:
    if not stable_node.is_chain:
        # a full node is asked for its page all the same, by stable_node_dup_any(), but is nothing to join
        joinable = is_page_sharing_candidate(ksm, stable_node)
        return ksm_get_folio(ksm, stable_node), stable_node if joinable else None, stable_node
    chain = stable_node
    prune = _pruning_is_due(ksm, chain, prune)
    found: StableNode | None = None
    found_rmap_hlist_len = 0
    tree_page: Frame | None = None
    nr = 0
    for dup in list(chain.hlist):
        page = ksm_get_folio(ksm, dup)
        if page is None:
            continue
        nr += 1
        if is_page_sharing_candidate(ksm, dup) and (found is None or dup.rmap_hlist_len > found_rmap_hlist_len):
            found, found_rmap_hlist_len, tree_page = dup, dup.rmap_hlist_len, page
            if not prune:
                break
    if found is not None:
        if prune and nr == 1:
            return tree_page, found, _collapse_chain(ksm, chain, found, root)
        _move_to_front(ksm, chain, found)
        return tree_page, found, chain
    if not chain.hlist:  # stable_node_dup_any()
        free_stable_node_chain(ksm, chain, root)
        return None, None, chain
    return ksm_get_folio(ksm, chain.hlist[0]), None, chain


def _collapse_chain(ksm: Ksm, chain: StableNode, found: StableNode, root: RbRoot) -> StableNode:
    rb_replace_node(chain, found, root)
    found.head, found.chain = "tree", None
    free_stable_node(chain)
    ksm.stable_node_chains -= 1
    ksm.stable_node_dups -= 1
    ksm.events["chain collapsed"] += 1
    return found


def _move_to_front(ksm: Ksm, chain: StableNode, found: StableNode) -> None:
    """So that the next look-up without pruning finds it first, if it has room for two more."""
    if chain.hlist[0] is not found and is_page_sharing_candidate(ksm, found, 1):
        chain.hlist.remove(found)
        chain.hlist.insert(0, found)
        ksm.events["dup moved to the front of its chain"] += 1


# ---- the walks


def _walk(ksm: Ksm, page: Frame, root: RbRoot, prune: bool) -> tuple[Look | None, StableNode | None, int]:
    """Down the tree to the page's content: what is there, or None and the place for a new node.

    A node that turns out to be stale is erased, which may rebalance the tree under the walk: it starts again.
    """
    parent: StableNode | None = None
    side = LEFT
    stable_node = root.rb_node
    while stable_node is not None:
        look = stable_node_chain(ksm, stable_node, root, prune)
        tree_page, _, in_tree = look
        if tree_page is None:
            parent, stable_node = None, root.rb_node
            continue
        if page.content == tree_page.content:
            return look, None, LEFT
        if in_tree.is_chain:
            ksm.events["stable walk passed a chain"] += 1
        parent = in_tree
        side = LEFT if page.content < tree_page.content else RIGHT
        stable_node = parent.child[side]
    return None, parent, side


def stable_tree_link(stable_node: StableNode, nid: int, parent: StableNode | None, side: int, root: RbRoot) -> None:
    """Hang the node into the empty place that a walk has found."""
    stable_node.head, stable_node.nid = "tree", nid
    rb_link_node(stable_node, parent, side, root)
    rb_insert_color(stable_node, root)


def stable_tree_search(ksm: Ksm, page: Frame) -> Frame | None:
    """The KSM page that `page` may be merged into; `page` itself if it is one; places a node from migrate_nodes."""
    page_node = page_stable_node(page)
    if page_node is not None and page_node.head != "migrate_nodes":
        return page  # ksm page forked
    nid = ksm.get_kpfn_nid(page)
    root = ksm.root_stable_tree[nid]
    while True:
        look, parent, side = _walk(ksm, page, root, prune=True)
        if look is None:
            if page_node is None:
                return None
            ksm.migrate_nodes.remove(page_node)
            stable_tree_link(page_node, nid, parent, side, root)
            ksm.events["moved stable node inserted"] += 1
            return page if is_page_sharing_candidate(ksm, page_node) else None
        _, stable_node_dup, stable_node = look
        if page_node is not None and page.mapcount > 1:
            return _chain_append(ksm, page, page_node, stable_node, nid, root)
        if stable_node_dup is None or not is_page_sharing_candidate(ksm, stable_node_dup):
            return None
        tree_page = ksm_get_folio(ksm, stable_node_dup)
        if tree_page is None:
            continue
        if ksm.get_kpfn_nid(stable_node_dup.kpage) != stable_node_dup.nid:
            return _replace(ksm, page, page_node, stable_node_dup, stable_node, nid, root)
        if page_node is not None:
            ksm.events["moved KSM page with one mapping met its twin"] += 1
        return tree_page


def _chain_append(
    ksm: Ksm, page: Frame, page_node: StableNode, stable_node: StableNode, nid: int, root: RbRoot
) -> Frame | None:
    if not stable_node.is_chain:
        stable_node = alloc_stable_node_chain(ksm, stable_node, root)
    ksm.migrate_nodes.remove(page_node)
    page_node.nid = nid
    stable_node_chain_add_dup(ksm, page_node, stable_node)
    ksm.events["moved stable node became a dup of its twin"] += 1
    return page if is_page_sharing_candidate(ksm, page_node) else None


def _replace(
    ksm: Ksm, page: Frame, page_node: StableNode | None, dup: StableNode, stable_node: StableNode, nid: int, root: RbRoot
) -> Frame | None:
    """The node found has itself left for another NUMA node: to migrate_nodes with it, and `page_node` takes its place."""
    ksm.events["stable node replaced by a walk"] += 1
    if page_node is not None:
        ksm.migrate_nodes.remove(page_node)
    if dup is stable_node:
        if page_node is not None:
            rb_replace_node(dup, page_node, root)
            page_node.head, page_node.nid = "tree", nid
        else:
            rb_erase(dup, root)
    else:
        _stable_node_chain_del_dup(ksm, dup)
        if page_node is not None:
            page_node.nid = nid
            stable_node_chain_add_dup(ksm, page_node, stable_node)
    add_to_migrate_nodes(ksm, dup)
    return page if page_node is not None and is_page_sharing_candidate(ksm, page_node) else None


def stable_tree_insert(ksm: Ksm, kpage: Frame) -> StableNode:
    """A node for the new KSM page: in the tree, or in a chain if its content is there already."""
    nid = ksm.get_kpfn_nid(kpage)
    root = ksm.root_stable_tree[nid]
    look, parent, side = _walk(ksm, kpage, root, prune=False)
    new = StableNode(kpage, nid)
    if look is None:
        stable_tree_link(new, nid, parent, side, root)
    else:
        stable_node = look[2]
        if not stable_node.is_chain:
            stable_node = alloc_stable_node_chain(ksm, stable_node, root)
        stable_node_chain_add_dup(ksm, new, stable_node)
    kpage.mapping = new
    return new


def stable_tree_append(ksm: Ksm, rmap_item: RmapItem, stable_node: StableNode) -> None:
    """One more mapping of the node's page is known."""
    stable_node.rmap_hlist_len += 1
    rmap_item.list_in(stable_node)
    if len(stable_node.hlist) > 1:
        ksm.pages_sharing += 1
    else:
        ksm.pages_shared += 1
    rmap_item.mm.ksm_merging_pages += 1
    if stable_node.rmap_hlist_len > ksm.max_page_sharing:
        ksm.events["stable node over max_page_sharing"] += 1


# ---- dropping those of a part of memory, and dropping them all, for the knobs and run = 2


def ksm_check_stable_tree(ksm: Ksm, nid: int) -> None:
    """The memory of NUMA node `nid` has been taken offline: drop the nodes whose page was there, and chains that are empty."""
    for root in ksm.root_stable_tree[: ksm.nr_node_ids]:
        in_order = list(rb_walk(root))
        chains = [node for node in in_order if node.is_chain]
        for stable_node in in_order:
            _remove_range(ksm, stable_node.hlist if stable_node in chains else [stable_node], nid)
            if stable_node in chains and not stable_node.hlist:
                free_stable_node_chain(ksm, stable_node, root)
    _remove_range(ksm, ksm.migrate_nodes, nid)


def _remove_range(ksm: Ksm, stable_nodes: list[StableNode], nid: int) -> None:
    for stable_node in [node for node in stable_nodes if node.kpage.nid == nid]:
        remove_node_from_stable_tree(ksm, stable_node)


def remove_all_stable_nodes(ksm: Ksm) -> bool:
    """False if some page is still mapped (-EBUSY); what could go is gone all the same."""
    done = True
    for root in ksm.root_stable_tree[: ksm.nr_node_ids]:
        while root.rb_node is not None:
            if not _remove_stable_node_chain(ksm, root.rb_node, root):
                done = False
                break  # proceed to next nid
    for stable_node in list(ksm.migrate_nodes):
        if not _remove_stable_node(ksm, stable_node):
            done = False
    return done


def _remove_stable_node_chain(ksm: Ksm, stable_node: StableNode, root: RbRoot) -> bool:
    if not stable_node.is_chain:
        return _remove_stable_node(ksm, stable_node)
    if not all(_remove_stable_node(ksm, dup) for dup in list(stable_node.hlist)):
        return False
    free_stable_node_chain(ksm, stable_node, root)
    return True


def _remove_stable_node(ksm: Ksm, stable_node: StableNode) -> bool:
    folio = ksm_get_folio(ksm, stable_node)
    if folio is None:
        return True
    if folio.mapcount:
        return False
    folio.mapping = None
    remove_node_from_stable_tree(ksm, stable_node)
    return True
