"""Memory hotremove: a NUMA node's memory goes offline, and what is left of it in the stable trees is pruned.

That ksmd stands still meanwhile (MEM_GOING_OFFLINE takes ksm_thread_mutex) is its caller's business.
"""

from numpy import int64

from ksmbatch.accel import entry_kernel, kernel
from ksmbatch.codes import Caller
from ksmbatch.kernels.frame import NOWHERE, nearest_with_room
from ksmbatch.kernels.move_pages import may_move_ksm, move_ksm_frame, move_private_frame, nodes_are_short
from ksmbatch.kernels.stable_chain import free_stable_node_chain, remove_node_from_stable_tree
from ksmbatch.kernels.stable_node import is_chain
from ksmbatch.kernels.stable_shape import build_stable_tree
from ksmbatch.metrics import Counter
from ksmbatch.state import (
    FIRST,
    FRAME_FLAGS,
    FRAME_NID,
    KPFN,
    KSM,
    LAST_NID,
    LEFT,
    MAPCOUNT,
    NEXT,
    NIL,
    NO_FRAME,
    RIGHT,
    STABLE_AT,
    STABLE_ROOT,
    Knob,
    Scan,
)


@entry_kernel
def move_away(s, links, frames, users, first, nid, found):
    """Moves `frames` of offline node `nid` from index `first` on to the nearest nodes with room. `users`: a page of each.

    Mirrors: do_migrate_range()
    Returns: len(frames), or the index at which it stopped for want of stable nodes.
    """
    s.scan[Scan.MOVE_CALL] += 1
    for k in range(first, len(frames)):
        if nodes_are_short(s):
            return k
        frame = int64(frames[k])
        # break_cow may have emptied a frame, and a merge never brings one back here
        if s.frames[frame, MAPCOUNT] == 0 or s.frame_bytes[frame, FRAME_NID] != nid:
            continue
        is_ksm = s.frame_bytes[frame, FRAME_FLAGS] & KSM
        target = nearest_with_room(s, nid)
        if target == NOWHERE:
            if not is_ksm or may_move_ksm(s, int64(Caller.HOTREMOVE)):
                s.counters[Counter.MIGRATE_FAILURES] += 1
        elif is_ksm:
            move_ksm_frame(s, links, frame, target, int64(Caller.HOTREMOVE), found)
        else:
            move_private_frame(s, int64(users[k]), frame, target)
    return len(frames)


@kernel
def next_content(s, nid, content):
    """The content that follows `content` (-1: the first) in the tree of `nid`, or -1. The shape must be up to date.

    Mirrors: lib/rbtree.c rb_first(), rb_next()
    Reads: stable_links, trees, rank.
    """
    found = int64(-1)
    current = int64(s.trees[STABLE_ROOT, nid])
    while current != NIL:
        if content < 0 or s.rank[current - 1] > s.rank[content]:
            found = current - 1
            current = int64(s.stable_links[nid, current, LEFT])
        else:
            current = int64(s.stable_links[nid, current, RIGHT])
    return found


@kernel
def remove_stale(s, node, nid):
    """Removes `node`, which is no chain, if it is stale and its frame was on `nid`. Writes: as check_stable_tree().

    Mirrors: mm/ksm.c stable_node_dup_remove_range()
    """
    if s.nodes[node, KPFN] == NO_FRAME and s.nodes[node, LAST_NID] == nid:
        remove_node_from_stable_tree(s, node)


@kernel
def remove_stale_of_chain(s, chain, nid):
    """Removes the stale dups of `chain` whose frame was on `nid`, and `chain` if it is empty. Writes: as check_stable_tree().

    Mirrors: mm/ksm.c stable_node_chain_remove_range()
    """
    dup = int64(s.nodes[chain, FIRST])
    while dup != NIL:
        after = int64(s.nodes[dup, NEXT])
        remove_stale(s, dup, nid)
        dup = after
    if s.nodes[chain, FIRST] == NIL:
        free_stable_node_chain(s, chain)


@entry_kernel
def check_stable_tree(s, nid):
    """Removes the stale stable nodes whose frame was on `nid`, and empty chains, in the order in which they hang in the trees.

    Mirrors: mm/ksm.c ksm_check_stable_tree()
    Writes: nodes, members, page_bytes, mms, counters, trees, stable_*.
    """
    for tree in range(1 if s.knobs[Knob.MERGE_ACROSS_NODES] else s.trees.shape[1]):
        build_stable_tree(s, tree)
        content = next_content(s, tree, int64(-1))
        while content >= 0:
            node = int64(s.by_content[tree, content, STABLE_AT])
            if is_chain(s, node):
                remove_stale_of_chain(s, node, nid)
            else:
                remove_stale(s, node, nid)
            build_stable_tree(s, tree)
            content = next_content(s, tree, content)
    node = int64(s.scan[Scan.MIGRATE_FIRST])
    while node != NIL:
        after = int64(s.nodes[node, NEXT])
        remove_stale(s, node, nid)
        node = after
