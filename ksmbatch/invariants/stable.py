"""Rules of stable nodes: where they hang, their trees and chains, and what is known of the walks over them."""

from itertools import pairwise

import numpy as np

from ksmbatch import state
from ksmbatch.codes import Policy
from ksmbatch.invariants.recount import Faults, all_hold, differs, linked, partition, red_black
from ksmbatch.metrics import Counter
from ksmbatch.state import NIL, NO_FRAME, Knob, Scan
from ksmbatch.stateview import StateView, chase


def stable_nodes_are_where_they_say(v: StateView) -> Faults:
    """Every slot in use is in one tree, one chain or on migrate_nodes, once; the others are free, once."""
    free = chase(v.nodes, v.scan[Scan.FREE_NODE], state.NEXT)
    for where, found in (
        (state.IN_TREE, [node for tree in v.trees for node in tree]),
        (state.IN_CHAIN, [dup for dups in v.chains.values() for dup in dups]),
        (state.IN_MIGRATE, v.migrate),
        (state.PLANNED, v.planned),
        (state.FREE, free),
    ):
        wrong = [node for node in found if v.nodes[node][state.WHERE] != where]
        yield from (f"node {node} says {v.nodes[node][state.WHERE]}, and is at {where}" for node in wrong)
    yield from partition("nodes", [*v.placed, *v.chains, *v.planned, *free], len(v.nodes))
    previous = [v.nodes[node][state.PREV] for node in v.migrate]
    yield from linked("migrate_nodes", v.migrate, previous)


def ksm_frames_and_nodes_name_each_other(v: StateView) -> Faults:
    """A node's frame is a mapped KSM page with its content that names the node; a KSM page that names a node is that node's."""
    # a KSM page without a node there is too: its partner was gone when the two should have merged
    frames = v.state.frames
    live = [node for node in v.placed if v.nodes[node][state.KPFN] != NO_FRAME]
    kpfn = np.array([v.nodes[node][state.KPFN] for node in live], np.int64)
    content = np.array([v.nodes[node][state.CONTENT] for node in live], np.int64)
    yield from all_hold("its frame is not mapped: node", v.mapcount[kpfn] > 0, live)
    yield from all_hold("its frame is no KSM page: node", v.frame_flags[kpfn] & state.KSM != 0, live)
    yield from all_hold("its frame names another: node", frames[kpfn, state.FRAME_NODE] == live, live)
    yield from all_hold("its frame has another content: node", frames[kpfn, state.FRAME_CONTENT] == content, live)
    yield from differs("frames with a node", len(live), (frames[:, state.FRAME_NODE] != NIL).sum())


def stable_trees_are_red_black(v: StateView) -> Faults:
    """As lib/rbtree.c demands; with merge_across_nodes = 1 only tree 0 is in use."""
    for nid, root in enumerate(v.state.trees[state.STABLE_ROOT].tolist()):
        yield from (f"tree {nid}: {fault}" for fault in red_black(v.state.stable_links[nid].tolist(), root))
        if v.trees[nid] and nid > 0 and v.knob[Knob.MERGE_ACROSS_NODES]:
            yield f"tree {nid} is in use, though pages merge across nodes"


def stable_logs_fit_their_shapes(v: StateView) -> Faults:
    """A stable tree's log inserts only contents that are not there, and erases only contents that are."""
    for nid, (shape, log) in enumerate(zip(v.shapes, v.stable_logs, strict=True)):
        held = set(shape)
        for place, entry in enumerate(log):
            content = abs(entry) - 1
            if not 0 <= content < v.state.by_content.shape[1]:
                yield f"entry {place} of tree {nid} is {entry}, which is no content"
            elif (entry > 0) == (content in held):
                yield f"entry {place} of tree {nid} {'inserts' if entry > 0 else 'erases'} content {content} once more"
            held ^= {content}


def stable_indexes_have_what_is_in_shape(v: StateView) -> Faults:
    """A bit for each content in a stable tree's shape, and on each level above for each word below that is not 0."""
    for nid, (shape, index) in enumerate(zip(v.shapes, v.state.stable_index, strict=True)):
        expected, words = list[int](), sorted(shape)
        extent = v.state.by_content.shape[1]
        while extent > 1 or not expected:
            extent = -(-extent // 32)
            level = [0] * extent
            for place in words:
                level[place // 32] |= 1 << place % 32
            words = [word for word, bits in enumerate(level) if bits]
            expected += level
        yield from differs(f"index of tree {nid}", index.tolist(), expected)


def keys_of_stable_trees_ascend(v: StateView) -> Faults:
    """Strictly, in shape, and are ranks; what hangs for a content has that, and the tree's nid; `by_content` has no more."""
    expected = np.zeros_like(v.state.by_content[:, :, state.STABLE_AT])
    for nid, tree in enumerate(v.trees):
        shape = np.array(v.shapes[nid], np.int64)
        keys = v.state.stable_links[nid, shape + 1, state.KEY].tolist()
        if any(low >= high for low, high in pairwise(keys)):
            yield f"tree {nid}: {keys}"
        yield from differs(f"key in tree {nid}", keys, v.state.rank[shape])
        for content, node in zip(v.stable_contents[nid], tree, strict=True):
            row = v.nodes[node]
            if node == NIL or row[state.CONTENT] != content or row[state.NID] != nid:
                yield f"for content {content} node {node} hangs in tree {nid}, of {row[state.CONTENT]} and {row[state.NID]}"
            expected[nid, content] = node
    yield from differs("stable_at", v.state.by_content[:, :, state.STABLE_AT].ravel(), expected.ravel())


def nodes_hang_where_their_frames_are(v: StateView) -> Faults:
    """With a tree per NUMA node, a stable node hangs in that of its frame; only mainline leaves moved ones behind for ksmd."""
    if v.knob[Knob.POLICY] == Policy.MAINLINE:
        return
    if v.migrate:
        yield f"{v.migrate} wait on migrate_nodes"
    if v.knob[Knob.MERGE_ACROSS_NODES]:
        return
    live = [node for node in v.placed if v.nodes[node][state.KPFN] != NO_FRAME]
    frames = np.array([v.nodes[node][state.KPFN] for node in live], np.int64)
    nids = np.array([v.nodes[node][state.NID] for node in live], np.int64)
    yield from all_hold("its frame is elsewhere: node", v.state.frame_bytes[frames, state.FRAME_NID] == nids, live)


def chains_are_recounted(v: StateView) -> Faults:
    """stable_node_chains, stable_node_dups; a chain's dups are linked both ways, name it and share its content and nid."""
    yield from differs("stable_node_chains", v.counter[Counter.STABLE_NODE_CHAINS], len(v.chains))
    yield from differs("stable_node_dups", v.counter[Counter.STABLE_NODE_DUPS], sum(map(len, v.chains.values())))
    for chain, dups in v.chains.items():
        head = v.nodes[chain]
        rows = [v.nodes[dup] for dup in dups]
        yield from linked(f"chain {chain}", dups, [row[state.PREV] for row in rows])
        if head[state.KPFN] != NO_FRAME:
            yield f"chain {chain} has a frame"
        for column in (state.CONTENT, state.NID):
            if any(row[column] != head[column] for row in rows):
                yield f"chain {chain} has a dup with another {'nid' if column == state.NID else 'content'}"
        if any(row[state.CHAIN] != chain for row in rows):
            yield f"chain {chain} has a dup that names another"
        stale = [row[state.KPFN] == NO_FRAME for row in rows]
        roomy = sum(not gone and v.has_room(dup) for dup, gone in zip(dups, stale, strict=True))
        yield from differs(f"stale dups of chain {chain}", head[state.STALE_DUPS], sum(stale))
        yield from differs(f"dups with room of chain {chain}", head[state.ROOMY_DUPS], roomy)


def chains_are_listed_by_pruning_time(v: StateView) -> Faults:
    """A tree lists its chains, each once, linked both ways; none was pruned before the one ahead of it."""
    for nid, (tree, listed) in enumerate(zip(v.trees, v.listed_chains, strict=True)):
        if sorted(listed) != sorted(node for node in tree if node in v.chains):
            yield f"tree {nid} lists chains {listed}"
        yield from linked(f"list of chains of tree {nid}", listed, [v.nodes[chain][state.OLDER] for chain in listed])
        yield from differs(f"newest chain of tree {nid}", v.state.trees[state.NEWEST_CHAIN, nid], listed[-1] if listed else NIL)
        pruned = v.state.node_prune_time[listed].tolist()
        if pruned != sorted(pruned):
            yield f"chains of tree {nid} are listed with pruning times {pruned}"


def chains_know_where_there_is_room(v: StateView) -> Faults:
    """Stamps fall; none has room before ROOM_FROM, none with room more than TOP pages, and before TOP_FROM none so many."""
    for chain, dups in v.chains.items():
        stamps = [v.nodes[dup][state.STAMP] for dup in dups]
        if any(stamp <= after for stamp, after in pairwise(stamps)):
            yield f"chain {chain} has stamps {stamps}"
        roomy = [dup for dup in dups if v.has_room(dup) and v.nodes[dup][state.KPFN] != NO_FRAME]
        room_from, top, top_from = (v.nodes[chain][column] for column in (state.ROOM_FROM, state.TOP, state.TOP_FROM))
        if any(v.nodes[dup][state.LEN] > top > 0 for dup in roomy):
            yield f"chain {chain} has a dup with room and more than {top} pages"
        fullest = [dup for dup in roomy if v.nodes[dup][state.LEN] == (top or v.knob[Knob.MAX_PAGE_SHARING] - 1)]
        for start, found in ((room_from, roomy), (top_from, fullest)):
            if start != NIL and (start not in dups or set(found) & set(dups[: dups.index(start)])):
                yield f"chain {chain} has such a dup before {start}"


def trees_know_what_walks_change(v: StateView) -> Faults:
    """STABLE_HOT counts stale nodes in a tree and unsettled chains, STABLE_CHAINS chains; LOOK marks both, if not logged."""
    trees = v.state.trees
    hot = [sum(v.is_hot(node) for node in tree) for tree in v.trees]
    chains = [sum(node in v.chains for node in tree) for tree in v.trees]
    yield from differs("nodes that a walk changes, of tree", trees[state.STABLE_HOT], hot)
    for nid, tree in enumerate(v.trees):
        logged = {abs(entry) - 1 for entry in v.stable_logs[nid]}
        built = [(content, node) for content, node in zip(v.stable_contents[nid], tree, strict=True) if content not in logged]
        look = v.state.stable_links[nid, [content + 1 for content, _ in built], state.LOOK]
        has_no_frame = np.array([v.nodes[node][state.KPFN] == NO_FRAME for _, node in built], np.bool_)
        yield from differs(f"whether walks look at what hangs in tree {nid}", look, has_no_frame)
        yield from _look_below(v, nid)
    yield from differs("chains of tree", trees[state.STABLE_CHAINS], chains)


def _look_below(v: StateView, nid: int) -> Faults:
    """ANY says whether there is something to look at in a subtree."""
    rows = v.state.stable_links[nid].tolist()

    def has_some(row: int) -> bool:
        if row == NIL or row in passed or not 0 < row < len(rows):
            return False
        passed.add(row)
        below = [has_some(rows[row][side]) for side in (state.LEFT, state.RIGHT)]
        some = bool(rows[row][state.LOOK]) or any(below)
        if bool(rows[row][state.ANY]) != some:
            wrong.append(row)
        return some

    wrong: list[int] = []
    passed: set[int] = set()
    has_some(int(v.state.trees[state.STABLE_ROOT, nid]))
    if wrong:
        yield f"tree {nid}: whether there is something to look at below rows {wrong}"


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
        yield from differs(f"what is found in chain {chain}", noted, found)
        for moved in {found, *roomy[:1]} - {int(NIL), dups[0]}:  # by walks that prune, and by those that do not
            if v.has_room(moved, more=1):
                yield f"chain {chain} would get dup {moved} moved to its front"
        if kind == state.SETTLED_UNPRUNED and not v.knob[Knob.STABLE_NODE_CHAINS_PRUNE_MILLISECS]:
            yield f"chain {chain} may be pruned by the next walk, and nobody has looked what that finds"
        if len(dups) == 1 and found != NIL and (kind == state.SETTLED_PRUNED or not v.is_old):
            yield f"chain {chain} would collapse"
