"""Stable nodes as a pool: slots, lists of dups, and which trees have nodes that a walk would change.

It takes and gives back slots and keeps `stable_hot`; what ksmd does with stable nodes is in `stable_tree`.
"""

from numpy import int64

from ksmbatch.accel import inlined, kernel
from ksmbatch.codes import Kernel
from ksmbatch.kernels.stable_shape import set_look
from ksmbatch.state import (
    CHAIN,
    CONTENT,
    FIRST,
    FOUND,
    FREE,
    IN_CHAIN,
    IN_TREE,
    KPFN,
    LAST_NID,
    LAST_STAMP,
    LEN,
    NEXT,
    NID,
    NIL,
    NO_FRAME,
    PREV,
    ROOM_FROM,
    ROOMY_DUPS,
    SETTLED,
    SETTLED_PRUNED,
    STABLE_HOT,
    STABLE_NODE_CHAIN,
    STALE_DUPS,
    STAMP,
    TOP,
    TOP_FROM,
    UNSETTLED,
    WHERE,
    Knob,
    Scan,
)

NOW, AND_ONE_MORE = int64(0), int64(1)  # offsets of is_page_sharing_candidate()


@kernel
def alloc_stable_node(s, content, frame, nid):
    """A stable node for `frame` (NO_FRAME: a chain's), in no tree yet.

    Mirrors: mm/ksm.c alloc_stable_node()
    Writes: nodes, scan. Returns: its slot; the caller made sure that there is one.
    """
    node = int64(s.scan[Scan.FREE_NODE])
    if node != NIL:
        s.scan[Scan.FREE_NODE] = s.nodes[node, NEXT]
    else:
        node = int64(s.scan[Scan.NEXT_NODE])
        s.scan[Scan.NEXT_NODE] = node + 1
    for column in range(s.nodes.shape[1]):
        s.nodes[node, column] = 0
    s.nodes[node, CONTENT] = content
    s.nodes[node, KPFN] = frame
    s.nodes[node, NID] = nid
    return node


@inlined
def begin_planned_node(s, node, frame):
    """As alloc_stable_node(), of a node that was planned, and has its members. Writes: nodes."""
    s.nodes[node, KPFN] = frame
    s.nodes[node, LEN] = 0
    s.nodes[node, WHERE] = FREE
    for column in (SETTLED, FOUND, STALE_DUPS):  # what a line keeps there
        s.nodes[node, column] = 0


@kernel
def free_stable_node(s, node):
    """Gives the slot back.

    Mirrors: mm/ksm.c free_stable_node()
    Writes: nodes, scan.
    """
    s.nodes[node, WHERE] = FREE
    s.nodes[node, NEXT] = s.scan[Scan.FREE_NODE]
    s.scan[Scan.FREE_NODE] = node


@inlined
def is_chain(s, node):
    """Whether `node` is the head of a chain of dups. Mirrors: mm/ksm.c is_stable_node_chain(). Reads: nodes."""
    return s.nodes[node, LEN] == STABLE_NODE_CHAIN


@kernel
def unsettle(s, chain):
    """Notes that the next walk over `chain` may change it. Writes: nodes, trees."""
    if s.nodes[chain, SETTLED] != UNSETTLED:
        s.nodes[chain, SETTLED] = UNSETTLED
        s.trees[STABLE_HOT, s.nodes[chain, NID]] += 1


@inlined
def settle(s, chain, kind):
    """Notes that walks over `chain` change nothing until one of its dups changes. Writes: nodes, trees."""
    if s.nodes[chain, SETTLED] == UNSETTLED:
        s.trees[STABLE_HOT, s.nodes[chain, NID]] -= 1
    s.nodes[chain, SETTLED] = kind


@inlined
def is_page_sharing_candidate(s, node, offset):
    """Whether `node` has room for more. Mirrors: mm/ksm.c __is_page_sharing_candidate(). Reads: nodes, knobs."""
    length = s.nodes[node, LEN]
    return length != 0 and length + offset < s.knobs[Knob.MAX_PAGE_SHARING]


@inlined
def note_room(s, chain, dup):
    """`dup` of `chain`, which has room, had none before, became fuller, or came to the front. Writes: nodes."""
    stamp = s.nodes[dup, STAMP]
    length = s.nodes[dup, LEN]
    room_from = int64(s.nodes[chain, ROOM_FROM])
    if room_from != NIL and stamp > s.nodes[room_from, STAMP]:
        s.nodes[chain, ROOM_FROM] = dup
    top_from = int64(s.nodes[chain, TOP_FROM])
    is_before = top_from != NIL and stamp > s.nodes[top_from, STAMP]
    if s.nodes[chain, TOP] != 0 and (length > s.nodes[chain, TOP] or (length == s.nodes[chain, TOP] and is_before)):
        s.nodes[chain, TOP] = length
        s.nodes[chain, TOP_FROM] = dup


@kernel
def first_with_room(s, chain):
    """The first dup with room of `chain`, which has one, and none that is stale. Writes: nodes."""
    dup = int64(s.nodes[chain, ROOM_FROM])
    if dup == NIL:
        dup = int64(s.nodes[chain, FIRST])
    while not is_page_sharing_candidate(s, dup, NOW):
        dup = int64(s.nodes[dup, NEXT])
    s.nodes[chain, ROOM_FROM] = dup
    return dup


@kernel
def fullest_with_room(s, chain):
    """Of the dups with room of `chain`, as above, that with most pages; of several the first. Writes: nodes."""
    top = int64(s.nodes[chain, TOP])
    if top == 0:
        top = s.knobs[Knob.MAX_PAGE_SHARING] - 1
    start = int64(s.nodes[chain, TOP_FROM])
    if start == NIL:
        start = int64(s.nodes[chain, FIRST])
    unseen = int64(s.nodes[chain, ROOMY_DUPS])
    fullest = NIL
    most = int64(0)
    dup = start
    while unseen > 0 and dup != NIL and most != top:
        if is_page_sharing_candidate(s, dup, NOW):
            unseen -= 1
            if s.nodes[dup, LEN] > most:
                fullest = dup
                most = int64(s.nodes[dup, LEN])
        dup = int64(s.nodes[dup, NEXT])
    if unseen > 0 and most != top:  # nobody has so many any more, and one before them goes before one that has the same
        most -= 1
        dup = first_with_room(s, chain)
        while unseen > 0 and dup != start:
            if is_page_sharing_candidate(s, dup, NOW):
                unseen -= 1
                if s.nodes[dup, LEN] > most:
                    fullest = dup
                    most = int64(s.nodes[dup, LEN])
            dup = int64(s.nodes[dup, NEXT])
    s.nodes[chain, TOP] = s.nodes[fullest, LEN]
    s.nodes[chain, TOP_FROM] = fullest
    return fullest


@inlined
def settle_if_plain(s, chain):
    """Notes what walks over `chain`, of which a dup changed, will find, where that is plain; else that the next may change it.

    Of dups that are all full they take the first, as of dups of which only the first has room. Writes: nodes, trees.
    """
    first = int64(s.nodes[chain, FIRST])
    roomy = s.nodes[chain, ROOMY_DUPS]
    is_plain = roomy == 0 or (roomy == 1 and is_page_sharing_candidate(s, first, NOW))
    many = s.nodes[chain, STALE_DUPS] == 0 and s.nodes[first, NEXT] != NIL
    if is_plain and many and s.knobs[Knob.KERNEL] >= Kernel.V6_12:
        settle(s, chain, SETTLED_PRUNED)
        s.nodes[chain, FOUND] = first
    else:
        unsettle(s, chain)


@kernel
def change_length(s, node, by):
    """An rmap_item joined (1) or left (-1) `node`. Writes: nodes, trees."""
    had_room = is_page_sharing_candidate(s, node, NOW)
    s.nodes[node, LEN] += by
    if s.nodes[node, WHERE] != IN_CHAIN:
        return
    chain = int64(s.nodes[node, CHAIN])
    has_room = is_page_sharing_candidate(s, node, NOW)
    s.nodes[chain, ROOMY_DUPS] += int64(has_room) - int64(had_room)
    if has_room and (by > 0 or not had_room):
        note_room(s, chain, node)
    settle_if_plain(s, chain)


@inlined
def lengthen_first(s, chain, dup):
    """As change_length() where an rmap_item joins `dup`, the first of `chain` and the only one with room, and none is stale.

    Writes: nodes, trees.
    """
    s.nodes[dup, LEN] += 1
    if is_page_sharing_candidate(s, dup, NOW):
        s.nodes[chain, ROOM_FROM] = dup
        s.nodes[chain, TOP] = s.nodes[dup, LEN]
        s.nodes[chain, TOP_FROM] = dup
    else:
        s.nodes[chain, ROOMY_DUPS] = 0
    settle(s, chain, SETTLED_PRUNED)
    s.nodes[chain, FOUND] = dup


@kernel
def kpfn_gone(s, node, nid):
    """The frame of `node`, on NUMA node `nid`, was freed: the node is stale, until a walk or one of its rmap_items finds out.

    Reads: nodes. Writes: nodes, trees.
    """
    s.nodes[node, KPFN] = NO_FRAME
    s.nodes[node, LAST_NID] = nid
    if s.nodes[node, WHERE] == IN_TREE:
        tree = int64(s.nodes[node, NID])
        s.trees[STABLE_HOT, tree] += 1
        set_look(s, tree, int64(s.nodes[node, CONTENT]), int64(1))
    elif s.nodes[node, WHERE] == IN_CHAIN:
        chain = int64(s.nodes[node, CHAIN])
        s.nodes[chain, STALE_DUPS] += 1
        if is_page_sharing_candidate(s, node, NOW):
            s.nodes[chain, ROOMY_DUPS] -= 1
        unsettle(s, chain)


@kernel
def stamp_anew(s, first):
    """Gives the dups from `first` on stamps from their number down to 1. Writes: nodes."""
    n_dups = int64(0)
    dup = first
    while dup != NIL:
        n_dups += 1
        dup = int64(s.nodes[dup, NEXT])
    dup = first
    while dup != NIL:
        s.nodes[dup, STAMP] = n_dups
        n_dups -= 1
        dup = int64(s.nodes[dup, NEXT])


@kernel
def push_dup(s, chain, dup):
    """Puts `dup` first in the hlist of `chain`. Writes: nodes."""
    first = int64(s.nodes[chain, FIRST])
    s.nodes[dup, NEXT] = first
    s.nodes[dup, PREV] = NIL
    if first != NIL:
        s.nodes[first, PREV] = dup
    s.nodes[chain, FIRST] = dup
    if s.nodes[first, STAMP] == LAST_STAMP:
        stamp_anew(s, first)
    s.nodes[dup, STAMP] = s.nodes[first, STAMP] + 1
    if is_page_sharing_candidate(s, dup, NOW):
        note_room(s, chain, dup)


@kernel
def unlink_dup(s, chain, dup):
    """Takes `dup` out of the hlist of `chain`. Writes: nodes."""
    after = int64(s.nodes[dup, NEXT])
    before = int64(s.nodes[dup, PREV])
    if s.nodes[chain, ROOM_FROM] == dup:
        s.nodes[chain, ROOM_FROM] = after
    if s.nodes[chain, TOP_FROM] == dup:
        s.nodes[chain, TOP_FROM] = after
    if before == NIL:
        s.nodes[chain, FIRST] = after
    else:
        s.nodes[before, NEXT] = after
    if after != NIL:
        s.nodes[after, PREV] = before


@kernel
def push_migrate(s, node):
    """Puts `node` first on migrate_nodes. Writes: nodes, scan."""
    first = int64(s.scan[Scan.MIGRATE_FIRST])
    s.nodes[node, NEXT] = first
    s.nodes[node, PREV] = NIL
    if first != NIL:
        s.nodes[first, PREV] = node
    s.scan[Scan.MIGRATE_FIRST] = node


@kernel
def unlink_migrate(s, node):
    """Takes `node` off migrate_nodes. Writes: nodes, scan."""
    after = int64(s.nodes[node, NEXT])
    before = int64(s.nodes[node, PREV])
    if before == NIL:
        s.scan[Scan.MIGRATE_FIRST] = after
    else:
        s.nodes[before, NEXT] = after
    if after != NIL:
        s.nodes[after, PREV] = before
