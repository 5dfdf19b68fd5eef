"""Policy `substitute`: if the new node has a KSM page of the same content, that one is mapped in place of a moved copy; else
the stable node moves to the new node's tree.

Hugh Dickins's answer: while a page migrates only migration entries map it, so ksm_migrate_page() may as well name another page.
The thread is older than max_page_sharing: where no page there has room for all mappings, the moved one becomes a dup beside it.
Other policies place stable nodes with these functions, too.
"""

from numpy import int64

from ksmbatch.accel import inlined, kernel
from ksmbatch.kernels.frame import free_frame, free_pfn, take_pfn
from ksmbatch.kernels.members import next_member, sweep
from ksmbatch.kernels.migrate.frame_move import count_remote, move_frame
from ksmbatch.kernels.resting import wake
from ksmbatch.kernels.rmap_walk import collect_reached
from ksmbatch.kernels.stable_chain import (
    add_dup,
    alloc_stable_node_chain,
    free_stable_node_chain,
    ksm_get_folio,
    stable_node_dup_del,
    tree_insert,
)
from ksmbatch.kernels.stable_node import change_length, free_stable_node, is_chain, unlink_migrate
from ksmbatch.metrics import Counter
from ksmbatch.state import (
    CONTENT,
    FIRST,
    FRAME,
    FRAME_NID,
    FRAME_NODE,
    HOME_CALL,
    IN_MIGRATE,
    KPFN,
    LEN,
    MAPCOUNT,
    MEMBER_NEXT,
    MEMBER_NODE,
    MEMBER_PAGE,
    NEXT,
    NID,
    NIL,
    NO_FRAME,
    STABLE_AT,
    STUCK_CALL,
    WHERE,
    Knob,
)

EDITS_TREES = True
INSERTED, CHAINED, MERGED = int64(0), int64(1), int64(2)


@kernel
def look_up(s, nid, content):
    """What hangs in the tree of `nid` for `content`: a chain, a plain node or NIL; what is stale of it goes.

    Nothing else on a walk's way there is touched: nobody has said what a walk in the middle of a migration should prune.
    Writes: as ksm_get_folio().
    """
    node = int64(s.by_content[nid, content, STABLE_AT])
    if node == NIL:
        return NIL
    if not is_chain(s, node):
        return node if ksm_get_folio(s, node) != NO_FRAME else NIL
    dup = int64(s.nodes[node, FIRST])
    while dup != NIL:
        after = int64(s.nodes[dup, NEXT])
        ksm_get_folio(s, dup)
        dup = after
    if s.nodes[node, FIRST] == NIL:
        free_stable_node_chain(s, node)
        return NIL
    return node


@kernel
def find_candidate(s, node, n_more):
    """The first node at `node`, plain or a chain's dup, that has room for `n_more` rmap_items; or NIL. Reads: nodes, knobs."""
    limit = s.knobs[Knob.MAX_PAGE_SHARING]
    if not is_chain(s, node):
        return node if s.nodes[node, LEN] > 0 and s.nodes[node, LEN] + n_more <= limit else NIL
    dup = int64(s.nodes[node, FIRST])
    while dup != NIL:
        if s.nodes[dup, LEN] > 0 and s.nodes[dup, LEN] + n_more <= limit:
            return dup
        dup = int64(s.nodes[dup, NEXT])
    return NIL


@kernel
def leave_place(s, node):
    """`node` leaves its tree, its chain or migrate_nodes. Writes: nodes, trees, counters, stable_*."""
    if s.nodes[node, WHERE] == IN_MIGRATE:
        unlink_migrate(s, node)
    else:
        stable_node_dup_del(s, node)


@kernel
def hang_in(s, node, nid, there):
    """`node`, which hangs nowhere, goes to the tree of `nid`, where `there` (or NIL) has its content. Writes: as add_dup()."""
    if there == NIL:
        tree_insert(s, node, nid)
        return
    if not is_chain(s, there):
        there = alloc_stable_node_chain(s, there)
    add_dup(s, node, there)


@kernel
def remap(s, page, frame, target):
    """`page` maps `target` instead of `frame`, whose mapcounts the caller sees to. Writes: pages, node_counters; wake()."""
    wake(s, page)
    s.pages[page, FRAME] = target
    count_remote(s, page, int64(s.frame_bytes[frame, FRAME_NID]), int64(s.frame_bytes[target, FRAME_NID]))


@kernel
def merge_nodes(s, node, target, found, n_found):
    """All mappings of `node`'s frame become mappings of `target`'s, all its rmap_items join `target`; frame and node are freed.

    `found`: int32[n], of which the first `n_found` are pages that map the frame, those without an rmap_item here among them.
    Writes: everything.
    """
    frame = int64(s.nodes[node, KPFN])
    kframe = int64(s.nodes[target, KPFN])
    leave_place(s, node)
    n_mapped = n_found
    for k in range(n_found):
        remap(s, int64(found[k]), frame, kframe)
    n_items = 0
    sweep(s, node)
    member = int64(s.nodes[node, FIRST])
    while member != NIL:
        after = next_member(s, member)
        page = int64(s.members[member, MEMBER_PAGE])
        if s.pages[page, FRAME] == frame:
            remap(s, page, frame, kframe)
            n_mapped += 1
        s.members[member, MEMBER_NODE] = target
        s.members[member, MEMBER_NEXT] = s.nodes[target, FIRST]
        s.nodes[target, FIRST] = member
        n_items += 1
        member = after
    change_length(s, target, n_items)
    s.nodes[target, HOME_CALL] = 0  # what was known of its mappings is no longer so
    s.nodes[target, STUCK_CALL] = 0
    s.counters[Counter.PAGES_SHARED] -= 1
    s.counters[Counter.PAGES_SHARING] += 1
    s.frames[kframe, MAPCOUNT] += n_mapped
    s.frames[frame, MAPCOUNT] -= n_mapped
    s.frames[frame, FRAME_NODE] = NIL
    free_frame(s, frame)
    free_stable_node(s, node)
    s.counters[Counter.FRAMES_MOVED] += 1
    s.counters[Counter.KSM_FRAMES_MOVED] += 1


@inlined
def find_relatives(s, links, frame, found):
    """Lists in `found` who maps `frame`, if forks may have brought mappings without rmap_items. Returns: how many."""
    return collect_reached(s, links, frame, found) if len(links.page_chain) != 0 else int64(0)


@kernel
def place_in_tree(s, frame, nid, found, n_found):
    """`frame` goes to node `nid`, and its stable node to the tree there, or both are merged away; `found` as in merge_nodes().

    Writes: everything. Returns: INSERTED, CHAINED or MERGED.
    """
    node = int64(s.frames[frame, FRAME_NODE])
    there = look_up(s, nid, int64(s.nodes[node, CONTENT]))
    s.counters[Counter.MOVE_CPU_NS] += s.knobs[Knob.TREE_NS]
    target = find_candidate(s, there, int64(s.nodes[node, LEN])) if there != NIL else NIL
    if target != NIL:
        n_mapped = int64(s.frames[frame, MAPCOUNT])
        free_pfn(s, nid, take_pfn(s, nid))  # migrate_pages() had allocated the new page before it asked
        merge_nodes(s, node, target, found, n_found)
        s.counters[Counter.MIGRATE_MERGED] += 1
        s.counters[Counter.MOVE_CPU_NS] += (
            s.knobs[Knob.MOVE_NS] - s.knobs[Knob.COPY_NS] + (n_mapped - 1) * s.knobs[Knob.REMAP_NS]
        )
        return MERGED
    leave_place(s, node)
    s.nodes[node, NID] = nid
    hang_in(s, node, nid, there)
    move_frame(s, frame, nid)
    if there != NIL:
        s.counters[Counter.MIGRATE_CHAINED] += 1
        return CHAINED
    s.counters[Counter.MIGRATE_INSERTED] += 1
    return INSERTED


@kernel
def migrate_ksm_page(s, links, frame, nid, found):
    """Places `frame` on `nid`. Mirrors: nothing in Linux; see the module. Returns: True."""
    if s.knobs[Knob.MERGE_ACROSS_NODES]:
        move_frame(s, frame, nid)
    else:
        place_in_tree(s, frame, nid, found, find_relatives(s, links, frame, found))
    return True
