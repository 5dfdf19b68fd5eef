"""The kernel's own rules, recounted from the objects alone: every counter, list and tree of a machine, after any step.

It repairs nothing and stops at nothing: `broken_invariants` lists what is wrong. What the kernel allows to lag (counters behind
the page tables, stale nodes, empty chains) is not wrong.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any

from .memory import Frame, Mm, ZeroPage
from .rbtree import rb_faults, rb_walk
from .state import SEQNR_MASK, STABLE_FLAG, UNSTABLE_FLAG, FreedStableNode, Ksm, RmapItem, StableNode


def broken_invariants(ksm: Ksm, live: Iterable[Mm]) -> list[str]:
    """What is wrong, one line each; empty if nothing is. `live`: the mms of running processes."""
    mms = dict.fromkeys([*live, *(slot.mm for slot in ksm.mm_slots)])
    items = [item for slot in ksm.mm_slots for item in slot.rmap_list]
    nodes = list(_stable_nodes(ksm))
    return [
        *_counters(ksm, mms, items, nodes),
        *_slots(ksm),
        *_stable_trees(ksm, nodes),
        *_unstable_trees(ksm, items),
        *_frames(mms, nodes),
        *_rmap(ksm, mms),
        *_numa(ksm, mms),
        *_vmas(mms),
    ]


def _stable_nodes(ksm: Ksm) -> Iterator[StableNode]:
    """All but chains: in trees, in chains, on migrate_nodes."""
    for root in ksm.root_stable_tree:
        for node in rb_walk(root):
            yield from node.hlist if node.is_chain else [node]
    yield from ksm.migrate_nodes


def _differs(what: str, counted: int, recounted: int) -> Iterator[str]:
    if counted != recounted:
        yield f"{what} is {counted}, recounted {recounted}"


def _counters(ksm: Ksm, mms: Iterable[Mm], items: list[RmapItem], nodes: list[StableNode]) -> Iterator[str]:
    chains = [node for root in ksm.root_stable_tree for node in rb_walk(root) if node.is_chain]
    states = Counter(item.flags for item in items)
    yield from _differs("pages_shared", ksm.pages_shared, sum(bool(node.hlist) for node in nodes))
    yield from _differs("pages_sharing", ksm.pages_sharing, sum(max(len(node.hlist) - 1, 0) for node in nodes))
    yield from _differs("pages_unshared", ksm.pages_unshared, states[UNSTABLE_FLAG])
    yield from _differs("ksm_rmap_items", ksm.rmap_items, len(items))
    yield from _differs("items of stable nodes", states[STABLE_FLAG], ksm.pages_shared + ksm.pages_sharing)
    yield from _differs("volatile items", states[0], ksm.rmap_items - ksm.pages_shared - ksm.pages_sharing - ksm.pages_unshared)
    yield from _differs("stable_node_chains", ksm.stable_node_chains, len(chains))
    yield from _differs("stable_node_dups", ksm.stable_node_dups, sum(len(chain.hlist) for chain in chains))
    zero_pages = {mm: sum(isinstance(page, ZeroPage) and page.dirty for page in mm.page_table.values()) for mm in mms}
    yield from _differs("ksm_zero_pages", ksm.ksm_zero_pages, sum(zero_pages.values()))
    own = Counter(item.mm for item in items)
    merging = Counter(item.mm for item in items if item.flags == STABLE_FLAG)
    for mm in mms:
        yield from _differs(f"ksm_zero_pages of {mm.name}", mm.ksm_zero_pages, zero_pages[mm])
        if not ksm.kernel.fork_copies_counters:
            yield from _differs(f"ksm_rmap_items of {mm.name}", mm.ksm_rmap_items, own[mm])
            yield from _differs(f"ksm_merging_pages of {mm.name}", mm.ksm_merging_pages, merging[mm])


def _slots(ksm: Ksm) -> Iterator[str]:
    registered = [slot.mm for slot in ksm.mm_slots]
    if len(set(registered)) != len(registered):
        yield "an mm has two slots"
    if any(not mm.mergeable for mm in registered):
        yield "a registered mm is not flagged as such"
    cursor = ksm.scan.mm_slot
    if cursor is not None and cursor not in ksm.mm_slots:
        yield "the cursor is at an mm that is not registered"
    elif cursor is not None and ksm.scan.rmap_index > len(cursor.rmap_list):
        yield "the cursor is behind the end of its mm's items"
    for slot in ksm.mm_slots:
        addresses = [item.address for item in slot.rmap_list]
        if addresses != sorted(set(addresses)):
            yield f"the rmap_items of {slot.mm.name} are not in address order"
        if any(item.mm is not slot.mm for item in slot.rmap_list):
            yield f"{slot.mm.name} has another mm's rmap_item"


def _stable_trees(ksm: Ksm, nodes: list[StableNode]) -> Iterator[str]:
    for nid, root in enumerate(ksm.root_stable_tree):
        yield from (f"stable tree {nid}: {fault}" for fault in rb_faults(root))
        in_order = list(rb_walk(root))
        keys = [node.kpage.content for node in in_order]
        if any(low >= high for low, high in pairwise(keys)):
            yield f"stable tree {nid}: keys are not strictly ascending"
        for node in in_order:
            dups = node.hlist if node.is_chain else []
            if any(member.nid != nid for member in [node, *dups]):
                yield f"stable tree {nid} has a node with another nid"
            if any(dup.head != "dup" or dup.chain is not node for dup in dups):
                yield f"stable tree {nid}: a chain's dup is linked elsewhere"
            if any(dup.kpage.content != node.kpage.content for dup in dups):
                yield f"stable tree {nid}: dups of one chain differ in content"
            if not node.is_chain and node.head != "tree":
                yield f"stable tree {nid} has a node that claims to be elsewhere"
        if in_order and nid >= ksm.nr_node_ids:
            yield f"stable tree {nid} is in use, though pages merge across nodes"
    for node in nodes:
        if node.rmap_hlist_len != len(node.hlist):
            yield "rmap_hlist_len is not the number of items"
        if any(item.flags != STABLE_FLAG or item.head is not node for item in node.hlist):
            yield "an item on a stable node's list points elsewhere"
    if any(node.head != "migrate_nodes" for node in ksm.migrate_nodes):
        yield "a node on migrate_nodes claims to be elsewhere"


def _unstable_trees(ksm: Ksm, items: list[RmapItem]) -> Iterator[str]:
    if ksm.scan.mm_slot is None:
        return  # between scans the trees are left as they are, and dropped at the start of the next
    for nid, root in enumerate(ksm.root_unstable_tree[: ksm.trees_reset]):
        yield from (f"unstable tree {nid}: {fault}" for fault in rb_faults(root))
        members = list(rb_walk(root))
        expected = [
            item
            for item in items
            if item.flags == UNSTABLE_FLAG and item.nid == nid and item.seqnr == ksm.scan.seqnr & SEQNR_MASK
        ]
        if {id(item) for item in members} != {id(item) for item in expected}:
            yield f"unstable tree {nid} does not hold the items of this scan"


def _frames(mms: Iterable[Mm], nodes: list[StableNode]) -> Iterator[str]:
    mappings: dict[Frame, set[Any]] = {}
    for mm in mms:
        for address, page in mm.page_table.items():
            if isinstance(page, Frame):
                mappings.setdefault(page, set()).add((mm, address))
    owner: dict[Frame, StableNode] = {}
    for node in nodes:
        if node.kpage.mapping is node and not node.kpage.ksm:
            yield "a stable node's page is no KSM page"
        if node.kpage in owner and node.kpage.mapping in (node, owner[node.kpage]):
            yield "two stable nodes for one KSM page"
        owner[node.kpage] = node
    for frame, found in mappings.items():
        if frame.mappings.keys() != found:
            yield f"mapcount is {frame.mapcount}, recounted {len(found)}"
        if frame.refs:
            yield "ksmd holds a page while it sleeps"
        if frame.mapping is not None and owner.get(frame) is not frame.mapping:
            yield "a KSM page points to a stable node that is nowhere"


def _mapped(mms: Iterable[Mm]) -> dict[Frame, None]:
    return {page: None for mm in mms for page in mm.page_table.values() if isinstance(page, Frame)}


def _rmap(ksm: Ksm, mms: Iterable[Mm]) -> Iterator[str]:
    """A KSM page's way to its mappings begins with page->mapping; only v4 may leave it dangling."""
    dangling = 0
    for frame in _mapped(mms):
        stable_node = frame.mapping
        dangling += frame.dangling
        if frame.dangling and (ksm.policy != "v4" or not frame.ksm or stable_node is not None):
            yield "a page is dangling that should not be"
        if stable_node is None:
            continue
        if isinstance(stable_node, FreedStableNode):
            yield "a KSM page points to a stable node that has been freed"
            continue
        if stable_node.kpage is not frame:
            yield "the stable node of a KSM page has the kpfn of another page"
        if ksm.policy != "mainline" and ksm.get_kpfn_nid(frame) != stable_node.nid:
            yield "a stable node is in the tree of another NUMA node than its page"
    yield from _differs("dangling_pages", ksm.counted["dangling_pages"], dangling)
    if ksm.policy != "v4":
        yield from _differs("corruptions", ksm.counted["corruptions"], 0)


def _numa(ksm: Ksm, mms: Iterable[Mm]) -> Iterator[str]:
    mapped = _mapped(mms)
    for nid, node in enumerate(ksm.nodes):
        here = {frame.pfn: frame for frame in mapped if frame.nid == nid}
        if here != node.frames:
            yield f"the frames of NUMA node {nid} are not those that are mapped"
        if sorted([*node.free, *node.frames]) != list(range(node.used)):
            yield f"NUMA node {nid} has a frame number twice or not at all"
        if node.isolated:
            yield f"NUMA node {nid} has isolated frames left"
        if node.frames and not node.online:
            yield f"NUMA node {nid} is offline, and in use"
        if 0 < node.pages < node.used:
            yield f"NUMA node {nid} has used more frames than it has"


def _vmas(mms: Iterable[Mm]) -> Iterator[str]:
    for mm in mms:
        if any(low.end > high.start for low, high in pairwise(mm.vmas)):
            yield f"VMAs of {mm.name} overlap or are out of order"
        for vma in mm.vmas:
            if any(vma not in anon_vma.vmas for anon_vma in vma.chain):
                yield "a VMA is not in the tree of an anon_vma of its chain"
            if (vma.anon_vma is None) != (not vma.chain) or (vma.anon_vma and vma.anon_vma not in vma.chain):
                yield "a VMA's anon_vma is not in its chain"
        covered = [range(vma.start, vma.end) for vma in mm.vmas if vma.anon_vma is not None]
        for address, page in mm.page_table.items():
            if isinstance(page, Frame) and not any(address in pages for pages in covered):
                yield f"{mm.name} has an anonymous page outside of VMAs with an anon_vma"
                break
