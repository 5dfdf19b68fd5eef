"""The stable trees: look-up by content, walks where a walk can be seen, chains, dups and the migrate list.

A walk prunes stale nodes and chains on its path. While a tree has none that it would change (`stable_hot` is 0) the answer is
in `by_content`; otherwise the walk is made, node by node, as Linux makes it. See docs/adr/0002.
"""

from numpy import int64

from ksmbatch.accel import entry_kernel, inlined, kernel
from ksmbatch.codes import Kernel
from ksmbatch.kernels.cursor import mm_of
from ksmbatch.kernels.members import add_member, drop_member, wake_members
from ksmbatch.kernels.stable_chain import (
    INT_OVERFLOW,
    MAY_PRUNE,
    NO_PRUNE,
    add_dup,
    alloc_stable_node_chain,
    free_stable_node_chain,
    is_to_be_looked_at,
    ksm_get_folio,
    stable_node_chain,
    stable_node_dup_del,
    tree_erase,
    tree_insert,
    tree_replace,
    waits_beyond_region,
)
from ksmbatch.kernels.stable_node import (
    NOW,
    alloc_stable_node,
    begin_planned_node,
    change_length,
    is_chain,
    is_page_sharing_candidate,
    push_migrate,
    unlink_migrate,
)
from ksmbatch.kernels.stable_shape import build_stable_tree, first_after, know_where_to_look, may_meet_something
from ksmbatch.kernels.twins import holder_goes, tree_of
from ksmbatch.metrics import Counter, NodeCounter
from ksmbatch.state import (
    ANY,
    FIRST,
    FRAME_CONTENT,
    FRAME_FLAGS,
    FRAME_NID,
    FRAME_NODE,
    HEAD,
    IN_MIGRATE,
    ITEM_FLAGS,
    KEY,
    KPFN,
    KSM,
    LEFT,
    LOOK,
    MAPCOUNT,
    MERGING,
    NEXT,
    NID,
    NIL,
    NO_FRAME,
    OLDEST_CHAIN,
    RIGHT,
    STABLE,
    STABLE_AT,
    STABLE_CHAINS,
    STABLE_HOT,
    STABLE_ROOT,
    WHERE,
    Knob,
    Scan,
)

JOINED, LEFT_IT = int64(1), int64(-1)


@inlined
def get_kpfn_nid(s, frame):
    """The tree to which `frame` belongs. Mirrors: mm/ksm.c get_kpfn_nid(). Reads: knobs, frame_bytes."""
    return tree_of(s, s.frame_bytes[frame, FRAME_NID])


@kernel
def stable_tree_append(s, page, node):
    """The rmap_item of `page` joins `node`.

    Mirrors: mm/ksm.c stable_tree_append().
    Writes: members, nodes, page_bytes, mms, counters.
    """
    if s.nodes[node, FIRST] != NIL:
        s.counters[Counter.PAGES_SHARING] += 1
    else:
        s.counters[Counter.PAGES_SHARED] += 1
    change_length(s, node, JOINED)
    s.pages[page, HEAD] = add_member(s, node, page)
    s.page_bytes[page, ITEM_FLAGS] |= STABLE
    s.mms[mm_of(s, page), MERGING] += 1
    s.counters[Counter.PAGES_MERGED] += 1


@kernel
def leave_stable_node(s, page, node):
    """The rmap_item of `page` leaves `node`, which lives. Mirrors: mm/ksm.c remove_rmap_item_from_tree()."""
    drop_member(s, int64(s.pages[page, HEAD]))
    s.page_bytes[page, ITEM_FLAGS] = int64(s.page_bytes[page, ITEM_FLAGS]) & ~STABLE
    change_length(s, node, LEFT_IT)
    if s.nodes[node, FIRST] != NIL:
        s.counters[Counter.PAGES_SHARING] -= 1
    else:
        s.counters[Counter.PAGES_SHARED] -= 1
    s.mms[mm_of(s, page), MERGING] -= 1


@inlined
def is_calm(s, nid):
    """Whether no walk through the stable tree of `nid` changes anything that it passes. Reads: trees, knobs."""
    if s.trees[STABLE_HOT, nid] != 0 or s.knobs[Knob.FORCE_EXACT]:
        return False
    delay = s.knobs[Knob.STABLE_NODE_CHAINS_PRUNE_MILLISECS]
    if s.trees[STABLE_CHAINS, nid] == 0 or delay == 0 or delay >= INT_OVERFLOW:
        return True
    # passing a chain that is due starts its delay anew
    return waits_beyond_region(s, int64(s.trees[OLDEST_CHAIN, nid]))


@kernel
def meets_something(s, nid, content):
    """Whether a walk to `content` in the tree of `nid` passes something, above where `content` hangs, that it may change.

    It goes by content ids, see first_after().
    Reads: stable_links, nodes, rank. Writes: as know_where_to_look(), catch_up().
    """
    know_where_to_look(s, nid)
    if not may_meet_something(s, nid, content):
        return False
    n_dup = s.by_content.shape[1]
    current = int64(s.trees[STABLE_ROOT, nid])
    while current != NIL and s.stable_links[nid, current, ANY]:
        here = current - 1
        if here == content:
            return False
        if s.stable_links[nid, current, LOOK] and is_to_be_looked_at(s, int64(s.by_content[nid, here, STABLE_AT])):
            return True
        less = content < (here if content < n_dup else first_after(s, nid, current))
        current = int64(s.stable_links[nid, current, LEFT if less else RIGHT])
    return False


@kernel
def stable_walk(s, nid, content, prune):
    """Looks for `content` in the tree of `nid`.

    Mirrors: the descent in mm/ksm.c stable_tree_search(), stable_tree_insert()
    Returns: frame found or NO_FRAME; its dup or NIL; its node or NIL.
    """
    if is_calm(s, nid) or (not s.knobs[Knob.FORCE_EXACT] and not meets_something(s, nid, content)):
        node = int64(s.by_content[nid, content, STABLE_AT]) if content < s.by_content.shape[1] else NIL
        if node == NIL:
            return NO_FRAME, NIL, NIL
        frame, dup, node = stable_node_chain(s, node, prune)
        if frame != NO_FRAME:
            return frame, dup, node
        # what hung there was stale, and is gone: a walk begins again from the root, which it may have changed
    s.scan[Scan.EXACT] = 1
    build_stable_tree(s, nid)
    key = int64(s.rank[content])
    current = int64(s.trees[STABLE_ROOT, nid])
    while current != NIL:
        other = int64(s.stable_links[nid, current, KEY])
        if key == other or s.stable_links[nid, current, LOOK]:
            frame, dup, node = stable_node_chain(s, int64(s.by_content[nid, current - 1, STABLE_AT]), prune)
            if frame == NO_FRAME:
                build_stable_tree(s, nid)
                current = int64(s.trees[STABLE_ROOT, nid])  # the tree was changed: again from the root
                continue
            if key == other:
                return frame, dup, node
        current = int64(s.stable_links[nid, current, LEFT if key < other else RIGHT])
    return NO_FRAME, NIL, NIL


@kernel
def room_for(s, node, frame):
    """`frame`, if its node has room, as stable_tree_search() returns the page itself; else NO_FRAME."""
    return frame if is_page_sharing_candidate(s, node, NOW) else NO_FRAME


@kernel
def put_on_migrate_list(s, node):
    """`node`, which hangs in no tree now, waits until its page is seen.

    Mirrors: list_add(&stable_node->list, &migrate_nodes).
    """
    s.nodes[node, WHERE] = IN_MIGRATE
    push_migrate(s, node)
    wake_members(s, node)


@kernel
def replace_moved_dup(s, dup, node, page_node, frame, nid):
    """`dup`, found in the tree of `nid`, moved to another node: the node of the page looked up takes its place, if it has one.

    Mirrors: mm/ksm.c stable_tree_search(), label `replace`
    Returns: the page's own frame if its node has room, else NO_FRAME.
    """
    result = NO_FRAME
    in_chain = dup != node
    if page_node != NIL:
        unlink_migrate(s, page_node)
    if in_chain:
        stable_node_dup_del(s, dup)
        if page_node != NIL:
            add_dup(s, page_node, node)
    elif page_node != NIL:
        tree_replace(s, dup, page_node)
    else:
        tree_erase(s, dup)
    if page_node != NIL:
        s.nodes[page_node, NID] = nid
        result = room_for(s, page_node, frame)
    put_on_migrate_list(s, dup)
    return result


@kernel
def stable_tree_search(s, frame):
    """The KSM frame that the page with `frame` should share; `frame` itself if it is that; NO_FRAME if there is none.

    Mirrors: mm/ksm.c stable_tree_search()
    Writes: nodes, page_bytes, counters, stable_*, scan.
    """
    page_node = int64(s.frames[frame, FRAME_NODE]) if s.frame_bytes[frame, FRAME_FLAGS] & KSM else NIL
    if page_node != NIL and s.nodes[page_node, WHERE] != IN_MIGRATE:
        return frame
    nid = get_kpfn_nid(s, frame)
    content = int64(s.frames[frame, FRAME_CONTENT])
    found, dup, node = stable_walk(s, nid, content, MAY_PRUNE)
    if found == NO_FRAME:
        if page_node == NIL:
            return NO_FRAME
        unlink_migrate(s, page_node)
        tree_insert(s, page_node, nid)
        return room_for(s, page_node, frame)
    if page_node != NIL and s.frames[frame, MAPCOUNT] > 1:
        if not is_chain(s, node):
            node = alloc_stable_node_chain(s, node)
        unlink_migrate(s, page_node)
        add_dup(s, page_node, node)
        return room_for(s, page_node, frame)
    old = s.knobs[Knob.KERNEL] < Kernel.V6_12
    if dup == NIL or (not old and not is_page_sharing_candidate(s, dup, NOW)):
        return NO_FRAME
    other = int64(s.nodes[dup, KPFN])
    if get_kpfn_nid(s, other) != s.nodes[dup, NID]:
        return replace_moved_dup(s, dup, node, page_node, frame, nid)
    return other


@kernel
def stable_tree_insert(s, frame, planned):
    """Makes a stable node for `frame`, which has just become a KSM page: the `planned` one, NIL: any.

    Mirrors: mm/ksm.c stable_tree_insert()
    Writes: nodes, frames, counters, stable_*, scan. Returns: the node.
    """
    nid = get_kpfn_nid(s, frame)
    content = int64(s.frames[frame, FRAME_CONTENT])
    found, _, node = stable_walk(s, nid, content, NO_PRUNE)
    if planned != NIL:
        new = planned
        begin_planned_node(s, new, frame)
    else:
        new = alloc_stable_node(s, content, frame, nid)
    if found == NO_FRAME:
        tree_insert(s, new, nid)
    else:
        if not is_chain(s, node):
            node = alloc_stable_node_chain(s, node)
        add_dup(s, new, node)
    s.frames[frame, FRAME_NODE] = new
    s.frame_bytes[frame, FRAME_FLAGS] |= KSM
    return new


@kernel
def mark_ksm(s, frame):
    """`frame` becomes a KSM page without a stable node yet.

    Mirrors: set_page_stable_node(page, NULL).
    Writes: frames, node_counters.
    """
    if not s.frame_bytes[frame, FRAME_FLAGS] & KSM:
        holder_goes(s, int64(s.frame_bytes[frame, FRAME_NID]), int64(s.frames[frame, FRAME_CONTENT]))
        s.frame_bytes[frame, FRAME_FLAGS] |= KSM
        s.node_counters[s.frame_bytes[frame, FRAME_NID], NodeCounter.KSM_FRAMES] += 1
    s.frames[frame, FRAME_NODE] = NIL


@kernel
def remove_stable_node(s, node):
    """Drops `node` unless its frame is still mapped. Mirrors: mm/ksm.c remove_stable_node(). Returns: whether it is gone."""
    return ksm_get_folio(s, node) == NO_FRAME  # a KSM frame without mappings is freed at once, so a live one is mapped


@kernel
def remove_stable_node_chain(s, node):
    """As remove_stable_node(), for a plain node or a whole chain. Mirrors: mm/ksm.c remove_stable_node_chain()."""
    if not is_chain(s, node):
        return remove_stable_node(s, node)
    dup = int64(s.nodes[node, FIRST])
    while dup != NIL:
        after = int64(s.nodes[dup, NEXT])
        if not remove_stable_node(s, dup):
            return False
        dup = after
    free_stable_node_chain(s, node)
    return True


@entry_kernel
def remove_all_stable_nodes(s):
    """Drops all stable nodes whose frames are not mapped.

    Mirrors: mm/ksm.c remove_all_stable_nodes()
    Writes: nodes, page_bytes, mms, counters, stable_*. Returns: whether any is left (EBUSY).
    """
    n_nids = 1 if s.knobs[Knob.MERGE_ACROSS_NODES] else s.trees.shape[1]
    busy = False
    for nid in range(n_nids):
        build_stable_tree(s, nid)
        while s.trees[STABLE_ROOT, nid] != NIL:
            root = int64(s.trees[STABLE_ROOT, nid]) - 1
            if not remove_stable_node_chain(s, int64(s.by_content[nid, root, STABLE_AT])):
                busy = True
                break
            build_stable_tree(s, nid)
    node = int64(s.scan[Scan.MIGRATE_FIRST])
    while node != NIL:
        after = int64(s.nodes[node, NEXT])
        if not remove_stable_node(s, node):
            busy = True
        node = after
    return busy
