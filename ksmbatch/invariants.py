"""What must hold of a machine between any two steps: every counter, list and tree recounted from the arrays alone.

It repairs nothing and runs without numba. What the kernel lets lag (counters behind page tables, stale nodes, empty chains) is
not wrong here, and what a walk through trees that the kernel forgot to reset may meet is not looked at.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ksmbatch import state
from ksmbatch.metrics import Counter, NodeCounter
from ksmbatch.state import NIL, NO_FRAME, NO_MM, Knob, Scan, State
from ksmbatch.stateview import Rows, StateView, chase, in_order

Faults: TypeAlias = Iterator[str]


def check_invariants(machine: State) -> list[str]:
    """What is wrong with the state `machine`, one line each, "name of the rule: what"; empty if nothing is.

    It may be called before and after any event, never within a kernel. Takes seconds where there are millions of pages.
    """
    view = StateView(machine)
    return [f"{rule.__name__.replace('_', ' ')}: {fault}" for rule in RULES for fault in rule(view)]


def _red_black(rows: Rows, root: int) -> Faults:
    """What keeps the rows below `root` from being a red-black tree with parent links. Source: lib/rbtree.c, its comment."""
    faults: list[str] = []
    passed: set[int] = set()

    def black_height(row: int, parent: int) -> int:
        if row == NIL:
            return 0
        if not 0 < row < len(rows) or row in passed:
            faults.append(f"{row} is below {parent}, and elsewhere or nowhere")
            return 0
        passed.add(row)
        if rows[row][state.PARENT] != parent:
            faults.append(f"{row} hangs below {parent}, and names {rows[row][state.PARENT]}")
        if not rows[row][state.BLACK] and (parent == NIL or not rows[parent][state.BLACK]):
            faults.append(f"{row} is red, at the root or below a red one")
        left, right = (black_height(rows[row][side], row) for side in (state.LEFT, state.RIGHT))
        if left != right:
            faults.append(f"{left} black ones to the left of {row}, {right} to the right")
        return left + bool(rows[row][state.BLACK])

    black_height(root, int(NIL))
    yield from faults


def _differs(what: str, kept: Any, recounted: Any) -> Faults:
    """A line for every place where the arrays, or numbers, `kept` and `recounted` differ."""
    kept, recounted = np.atleast_1d(kept), np.atleast_1d(recounted)
    for place in np.flatnonzero(kept != recounted).tolist():
        name = f"{what}[{place}]" if len(kept) > 1 else what
        yield f"{name} is {kept[place]}, recounted {recounted[place]}"


def _all(what: str, holds: NDArray[np.bool_], rows: Iterable[int] | None = None) -> Faults:
    """A line for the first rows (by default numbered from 0) of which `holds` (bool[n]) is false."""
    if not holds.all():
        wrong = np.flatnonzero(~holds)[:3]
        yield f"{what} {', '.join(map(str, wrong if rows is None else np.asarray(list(rows))[wrong]))}"


# ---- memory


def pages_map_what_there_is(v: StateView) -> Faults:
    """A page maps a frame, the zero page or nothing; only a VMA's pages map anything, only written VMAs have frames."""
    flags = v.page_flags
    present = v.frame != NO_FRAME
    zero = flags & state.ZERO != 0
    yield from _all("no such frame at page", (v.frame >= NO_FRAME) & (v.frame < v.scan[Scan.NEXT_FRAME]))
    yield from _all("frame and zero page at page", ~(present & zero))
    yield from _all("ksmd's zero page is none at page", zero | (flags & state.ZERO_BY_KSM == 0))
    yield from _all("something mapped outside of VMAs at page", ~(present | zero) | (flags & state.MAPPED != 0))
    yield from _all("a frame in a VMA that was never written at page", ~present | (flags & state.ANON != 0))
    yield from _all("mergeable outside of VMAs: page", (flags & state.MERGEABLE == 0) | (flags & state.MAPPED != 0))


def mapcounts_are_recounted(v: StateView) -> Faults:
    """The mapcount of a frame is the number of pages that map it."""
    yield from _differs("mapcount", v.mapcount, np.bincount(v.mapped_frames, minlength=len(v.mapcount)))


def free_frames_are_free(v: StateView) -> Faults:
    """A frame that nobody maps is no KSM page, has no node, and if it is a spare one, it is on the free list, once."""
    frames = v.state.frames
    free = v.mapcount == 0
    yield from _all("still a KSM page: frame", ~free | (v.frame_flags == 0))
    yield from _all("still has a node: frame", ~free | (frames[:, state.FRAME_NODE] == NIL))
    n_pages, end = len(v.frame), v.scan[Scan.NEXT_FRAME]
    spare: Rows = frames[:end].tolist()
    listed = chase(spare, v.scan[Scan.FREE_FRAME], state.FRAME_CONTENT, int(NO_FRAME))
    if sorted(listed) != [frame for frame in range(n_pages, end) if free[frame]]:
        yield f"the free list has {len(listed)} frames, and is not that of all {int(free[n_pages:end].sum())} spare ones"


def frames_of_nodes_are_recounted(v: StateView) -> Faults:
    """frames, ksm_frames, mapped_pages and remote_mappings of every NUMA node."""
    nids = v.state.frame_bytes[:, state.FRAME_NID]
    present = v.frame != NO_FRAME
    used = v.mapcount > 0
    remote = present.copy()
    remote[present] = nids[v.mapped_frames] != v.page_nid[present]
    for counter, counted in (
        (NodeCounter.FRAMES, nids[used]),
        (NodeCounter.KSM_FRAMES, nids[used & (v.frame_flags & state.KSM != 0)]),
        (NodeCounter.MAPPED_PAGES, v.page_nid[present | (v.page_flags & state.ZERO_BY_KSM != 0)]),
        (NodeCounter.REMOTE_MAPPINGS, v.page_nid[remote]),
    ):
        kept = v.state.node_counters[:, counter]
        yield from _differs(counter.name.lower(), kept, np.bincount(counted, minlength=v.n_nids))


def pfns_are_taken_or_free_once(v: StateView) -> Faults:
    """Where pfns are kept, each up to the last is that of one frame on its node, or free."""
    pfns = v.state.pfns
    if pfns.shape[1] == 0:
        return
    for nid, row in enumerate(pfns.tolist()):
        taken = v.state.frames[(v.mapcount > 0) & (v.state.frame_bytes[:, state.FRAME_NID] == nid), state.PFN].tolist()
        before: Rows = [[0], *([pfn] for pfn in row[state.PFNS_BEFORE + 1 :])]
        free = chase(before, row[state.FREE_PFN], 0)
        yield from _partition(f"pfns of node {nid}", [*taken, *free], row[state.LAST_PFN] + 1)


def zero_pages_are_recounted(v: StateView) -> Faults:
    """ksm_zero_pages, of the machine and of each mm."""
    by_ksm = v.page_flags & state.ZERO_BY_KSM != 0
    yield from _differs("ksm_zero_pages", v.counter[Counter.KSM_ZERO_PAGES], by_ksm.sum())
    yield from _differs("ksm_zero_pages of mm", v.state.mms[:, state.ZERO_PAGES], v.per_mm(by_ksm))


# ---- rmap_items


def rmap_items_are_recounted(v: StateView) -> Faults:
    """ksm_rmap_items, of the machine and of each mm, and an mm's merging pages; 6.1 copies an mm's numbers at fork."""
    mms = v.state.mms
    has_item = v.item_flags & state.ITEM != 0
    yield from _differs("ksm_rmap_items", v.counter[Counter.KSM_RMAP_ITEMS], has_item.sum())
    yield from _differs("items on the list of mm", mms[:, state.LIST_ITEMS], v.per_mm(has_item))
    if not v.is_old:
        yield from _differs("ksm_rmap_items of mm", mms[:, state.ITEMS], v.per_mm(has_item))
        yield from _differs("ksm_merging_pages of mm", mms[:, state.MERGING], v.per_mm(v.item_flags & state.STABLE != 0))


def rmap_items_are_where_they_may_be(v: StateView) -> Faults:
    """A page has an rmap_item only if ksmd scans its mm; it hangs in one tree at most."""
    has_item = v.item_flags & state.ITEM != 0
    hangs = v.item_flags & (state.STABLE | state.UNSTABLE)
    scanned = np.zeros(len(v.state.mms) + 1, np.bool_)
    scanned[v.slots] = True
    yield from _all("an item of an mm that is not scanned: page", ~has_item | scanned[v.mm_of_page])
    yield from _all("in a tree without an item: page", has_item | (hangs == 0))
    yield from _all("in two trees: page", hangs != state.STABLE | state.UNSTABLE)


def counters_of_pages_are_recounted(v: StateView) -> Faults:
    """pages_shared, pages_sharing, pages_unshared and pages_volatile, from rmap_items and stable nodes alone."""
    lengths = [len(members) for members in v.hlists.values()]
    kept = {name: v.counter[Counter[name.upper()]] for name in ("pages_shared", "pages_sharing", "pages_unshared")}
    unstable = (v.item_flags & state.UNSTABLE != 0).sum()
    loose = (v.item_flags & (state.ITEM | state.STABLE | state.UNSTABLE) == state.ITEM).sum()
    yield from _differs("pages_shared", kept["pages_shared"], sum(length > 0 for length in lengths))
    yield from _differs("pages_sharing", kept["pages_sharing"], sum(max(length - 1, 0) for length in lengths))
    yield from _differs("pages_unshared", kept["pages_unshared"], unstable)
    yield from _differs("pages_volatile", v.counter[Counter.KSM_RMAP_ITEMS] - sum(kept.values()), loose)


def members_are_the_items_of_their_node(v: StateView) -> Faults:
    """An hlist is linked both ways, as long as its node says, and has the stable items alone; the other members are free."""
    seen: list[int] = []
    for node, members in v.hlists.items():
        rows = [v.members[member] for member in members]
        yield from _linked(f"hlist of node {node}", members, [row[state.MEMBER_PREV] for row in rows])
        yield from _differs(f"length of node {node}", v.nodes[node][state.LEN], len(members))
        if any(row[state.MEMBER_NODE] != node for row in rows):
            yield f"hlist of node {node} has a member of another"
        seen += members
    pages = np.array([v.members[member][state.MEMBER_PAGE] for member in seen], np.int64)
    yield from _all("not the head of its page: member", v.state.pages[pages, state.HEAD] == seen, seen)
    yield from _all("not a stable item: page", v.item_flags[pages] & state.STABLE != 0, pages)
    yield from _differs("stable items", (v.item_flags & state.STABLE != 0).sum(), len(np.unique(pages)))
    free = chase(v.members, v.scan[Scan.FREE_MEMBER], state.MEMBER_NEXT)
    yield from _partition("members", [*seen, *free], len(v.members))


# ---- stable nodes


def stable_nodes_are_where_they_say(v: StateView) -> Faults:
    """Every slot in use is in one tree, one chain or on migrate_nodes, once; the others are free, once."""
    free = chase(v.nodes, v.scan[Scan.FREE_NODE], state.NEXT)
    for where, found in (
        (state.IN_TREE, [node for tree in v.trees for node in tree]),
        (state.IN_CHAIN, [dup for dups in v.chains.values() for dup in dups]),
        (state.IN_MIGRATE, v.migrate),
        (state.FREE, free),
    ):
        wrong = [node for node in found if v.nodes[node][state.WHERE] != where]
        yield from (f"node {node} says {v.nodes[node][state.WHERE]}, and is at {where}" for node in wrong)
    yield from _partition("nodes", [*v.placed, *v.chains, *free], len(v.nodes))
    previous = [v.nodes[node][state.PREV] for node in v.migrate]
    yield from _linked("migrate_nodes", v.migrate, previous)


def ksm_frames_and_nodes_name_each_other(v: StateView) -> Faults:
    """A node's frame is a mapped KSM page with its content that names the node; a KSM page that names a node is that node's."""
    # a KSM page without a node there is too: its partner was gone when the two should have merged
    frames = v.state.frames
    live = [node for node in v.placed if v.nodes[node][state.KPFN] != NO_FRAME]
    kpfn = np.array([v.nodes[node][state.KPFN] for node in live], np.int64)
    content = np.array([v.nodes[node][state.CONTENT] for node in live], np.int64)
    yield from _all("its frame is not mapped: node", v.mapcount[kpfn] > 0, live)
    yield from _all("its frame is no KSM page: node", v.frame_flags[kpfn] & state.KSM != 0, live)
    yield from _all("its frame names another: node", frames[kpfn, state.FRAME_NODE] == live, live)
    yield from _all("its frame has another content: node", frames[kpfn, state.FRAME_CONTENT] == content, live)
    yield from _differs("frames with a node", len(live), (frames[:, state.FRAME_NODE] != NIL).sum())


def stable_trees_are_red_black(v: StateView) -> Faults:
    """As lib/rbtree.c demands; with merge_across_nodes = 1 only tree 0 is in use."""
    for nid, root in enumerate(v.state.trees[state.STABLE_ROOT].tolist()):
        yield from (f"tree {nid}: {fault}" for fault in _red_black(v.nodes, root))
        if root != NIL and nid > 0 and v.knob[Knob.MERGE_ACROSS_NODES]:
            yield f"tree {nid} is in use, though pages merge across nodes"


def keys_of_stable_trees_ascend(v: StateView) -> Faults:
    """Strictly; every node has the rank of its content and the nid of its tree, and `stable_at` finds it and nothing else."""
    expected = np.zeros_like(v.state.stable_at)
    n_dup = expected.shape[1]
    for nid, tree in enumerate(v.trees):
        keys = [v.nodes[node][state.RANK] for node in tree]
        if any(low >= high for low, high in pairwise(keys)):
            yield f"tree {nid}: {keys}"
        for node in tree:
            row = v.nodes[node]
            if row[state.NID] != nid:
                yield f"node {node} in tree {nid} says {row[state.NID]}"
            if not row[state.CONTENT] < n_dup:
                yield f"node {node} has content {row[state.CONTENT]}, which was written once"
            else:
                expected[nid, row[state.CONTENT]] = node
    for node in [*v.placed, *v.chains]:
        yield from _differs(f"rank of node {node}", v.nodes[node][state.RANK], v.state.rank[v.nodes[node][state.CONTENT]])
    yield from _differs("stable_at", v.state.stable_at.ravel(), expected.ravel())


def chains_are_recounted(v: StateView) -> Faults:
    """stable_node_chains, stable_node_dups; a chain's dups are linked both ways, name it and share its content and nid."""
    yield from _differs("stable_node_chains", v.counter[Counter.STABLE_NODE_CHAINS], len(v.chains))
    yield from _differs("stable_node_dups", v.counter[Counter.STABLE_NODE_DUPS], sum(map(len, v.chains.values())))
    for chain, dups in v.chains.items():
        head = v.nodes[chain]
        rows = [v.nodes[dup] for dup in dups]
        yield from _linked(f"chain {chain}", dups, [row[state.PREV] for row in rows])
        if head[state.KPFN] != NO_FRAME:
            yield f"chain {chain} has a frame"
        for column in (state.CONTENT, state.NID):
            if any(row[column] != head[column] for row in rows):
                yield f"chain {chain} has a dup with another {'nid' if column == state.NID else 'content'}"
        if any(row[state.CHAIN] != chain for row in rows):
            yield f"chain {chain} has a dup that names another"
        stale = [row[state.KPFN] == NO_FRAME for row in rows]
        roomy = sum(not gone and v.has_room(dup) for dup, gone in zip(dups, stale, strict=True))
        yield from _differs(f"stale dups of chain {chain}", head[state.STALE_DUPS], sum(stale))
        yield from _differs(f"dups with room of chain {chain}", head[state.ROOMY_DUPS], roomy)


def trees_know_what_walks_change(v: StateView) -> Faults:
    """STABLE_HOT counts the stale nodes in a tree and its chains that are not settled, STABLE_CHAINS its chains."""
    trees = v.state.trees
    hot = [sum(v.is_hot(node) for node in tree) for tree in v.trees]
    chains = [sum(node in v.chains for node in tree) for tree in v.trees]
    yield from _differs("nodes that a walk changes, of tree", trees[state.STABLE_HOT], hot)
    yield from _differs("chains of tree", trees[state.STABLE_CHAINS], chains)


def settled_chains_stay_as_they_are(v: StateView) -> Faults:
    """A walk over a settled chain finds what is noted, drops nothing, moves no dup to the front and does not collapse it."""
    for chain, dups in v.chains.items():
        kind, noted = v.nodes[chain][state.SETTLED], v.nodes[chain][state.FOUND]
        if kind == state.UNSETTLED:
            continue
        roomy = [dup for dup in dups if v.has_room(dup) and v.nodes[dup][state.KPFN] != NO_FRAME]
        # a walk that may not prune ends at the first dup with room; what is behind that may well be stale
        passed = dups[: dups.index(roomy[0])] if roomy and kind == state.SETTLED_UNPRUNED else dups
        if not dups or any(v.nodes[dup][state.KPFN] == NO_FRAME for dup in passed):
            yield f"chain {chain} is empty, or a walk would drop a stale dup"
            continue
        found = int(NIL) if v.is_old else dups[0]
        if roomy:
            found = roomy[0] if kind == state.SETTLED_UNPRUNED else max(roomy, key=lambda dup: v.nodes[dup][state.LEN])
        yield from _differs(f"what is found in chain {chain}", noted, found)
        for moved in {found, *roomy[:1]} - {int(NIL), dups[0]}:  # by walks that prune, and by those that do not
            if v.has_room(moved, more=1):
                yield f"chain {chain} would get dup {moved} moved to its front"
        if kind == state.SETTLED_UNPRUNED and not v.knob[Knob.STABLE_NODE_CHAINS_PRUNE_MILLISECS]:
            yield f"chain {chain} may be pruned by the next walk, and nobody has looked what that finds"
        if len(dups) == 1 and found != NIL and (kind == state.SETTLED_PRUNED or not v.is_old):
            yield f"chain {chain} would collapse"


# ---- the scan


def mm_list_is_linked_both_ways(v: StateView) -> Faults:
    """ksmd scans the living mms that are registered, and dead ones that have items or are at the cursor."""
    mms = v.state.mms
    yield from _linked("list of mms", v.slots, mms[v.slots, state.SLOT_PREV].tolist(), int(NO_MM))
    yield from _differs("last of the list", v.scan[Scan.SLOT_LAST], v.slots[-1] if v.slots else NO_MM)
    cursor = v.scan[Scan.CUR_MM]
    if cursor != NO_MM and cursor not in v.slots:
        yield f"the cursor is at mm {cursor}, which is not on the list"
    elif cursor != NO_MM and not mms[cursor, state.FIRST_PAGE] <= v.scan[Scan.CUR_PAGE] <= mms[cursor, state.END_PAGE]:
        yield f"the cursor is at page {v.scan[Scan.CUR_PAGE]}, outside of mm {cursor}"
    listed = np.zeros(len(mms), np.bool_)
    listed[v.slots] = True
    alive = mms[:, state.USERS] > 0
    kept = (mms[:, state.LIST_ITEMS] > 0) | (np.arange(len(mms)) == cursor)
    registered = mms[:, state.REGISTERED] != 0
    yield from _all("alive and registered, but not on the list, or the reverse: mm", ~alive | (listed == registered))
    yield from _all("dead, without items, but on the list: mm", alive | ~listed | kept)
    has_mergeable = v.per_mm(v.page_flags & state.MERGEABLE != 0) > 0
    has_vma = mms[:, state.MERGEABLE_VMAS] > 0
    yield from _all("mergeable pages, but no VMA, or the reverse: mm", ~alive | (has_mergeable == has_vma))


def unstable_trees_hold_this_scans_items(v: StateView) -> Faults:
    """Built, such a tree is red-black; not built, its pages are as they were put in, differ, and `unstable_at` finds them."""
    if v.scan[Scan.CUR_MM] == NO_MM:
        # the trees are left as they are, and dropped at the start of the next scan; FULL_SCANS has told the items so
        yield from _all("of a scan that has not begun: page", ~v.in_present_tree)
        return
    trees = v.state.trees
    for nid in range(1 if v.knob[Knob.MERGE_ACROSS_NODES] else v.n_nids):
        if trees[state.UNSTABLE_LEFTOVER, nid]:
            continue
        items = np.flatnonzero(v.in_present_tree & (v.state.page_bytes[:, state.ITEM_NID] == nid))
        if trees[state.UNSTABLE_EXACT, nid]:
            links: Rows = v.state.unstable_links.tolist()
            root = int(trees[state.UNSTABLE_ROOT, nid])
            yield from (f"tree {nid}: {fault}" for fault in _red_black(links, root))
            held = [row - 1 for row in in_order(links, root)]
        else:
            held = v.logged(nid)
            yield from (f"tree {nid}: {fault}" for fault in _unchanged(v, items, nid))
        if sorted(held) != items.tolist():
            yield f"tree {nid} holds {len(held)} items, and {len(items)} say so, not all the same"


def _unchanged(v: StateView, items: NDArray[np.int64], nid: int) -> Faults:
    """What the look-up in an unstable tree relies on."""
    inserted = v.state.pages[items, state.CHECKSUM]
    needed = state.MERGEABLE | state.ANON
    hidden = v.page_flags[items] & state.PROT_NONE != 0
    yield from _all("gone: page", v.frame[items] != NO_FRAME, items)
    yield from _all("not mergeable: page", v.page_flags[items] & needed == needed, items)
    yield from _all("out of the sight of 6.1: page", ~(hidden & v.is_old), items)
    yield from _all("changed: page", v.state.frames[v.frame[items], state.FRAME_CONTENT] == inserted, items)
    if len(np.unique(inserted)) != len(inserted):
        yield "two pages have one content"
    known = inserted < v.state.unstable_at.shape[1]
    found = v.state.unstable_at[nid, inserted[known]] - 1
    yield from _all("not found: page", found == items[known], items[known])


# ---- lists


def _linked(what: str, rows: list[int], previous: list[int], end: int = int(NIL)) -> Faults:
    if previous != [end, *rows[:-1]][: len(rows)]:
        yield f"{what} is {rows} forwards, and its links back are {previous}"


def _partition(what: str, rows: list[int], end: int) -> Faults:
    """`rows` must be 1 ... end - 1 in any order."""
    lost = set(range(1, end)) - set(rows)
    if lost or len(rows) != end - 1:
        yield f"{len(rows)} of {end - 1} {what} are in use or free, {len(lost)} lost"


RULES: Final[tuple[Callable[[StateView], Faults], ...]] = (
    pages_map_what_there_is,
    mapcounts_are_recounted,
    free_frames_are_free,
    frames_of_nodes_are_recounted,
    pfns_are_taken_or_free_once,
    zero_pages_are_recounted,
    rmap_items_are_recounted,
    rmap_items_are_where_they_may_be,
    counters_of_pages_are_recounted,
    members_are_the_items_of_their_node,
    stable_nodes_are_where_they_say,
    ksm_frames_and_nodes_name_each_other,
    stable_trees_are_red_black,
    keys_of_stable_trees_ascend,
    chains_are_recounted,
    trees_know_what_walks_change,
    settled_chains_stay_as_they_are,
    mm_list_is_linked_both_ways,
    unstable_trees_hold_this_scans_items,
)
