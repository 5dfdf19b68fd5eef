"""Stable nodes in their trees and chains: hanging them in and taking them out, stale ones, and which dup of a chain is used.

It looks at one node at a time; who walks from node to node is `stable_tree`.
"""

from numpy import int64

from ksmbatch.accel import entry_kernel, inlined, kernel
from ksmbatch.codes import Kernel
from ksmbatch.kernels.cursor import mm_of
from ksmbatch.kernels.members import drop_member
from ksmbatch.kernels.passing import catch_up
from ksmbatch.kernels.stable_node import (
    AND_ONE_MORE,
    NOW,
    alloc_stable_node,
    first_with_room,
    free_stable_node,
    fullest_with_room,
    is_chain,
    is_page_sharing_candidate,
    push_dup,
    settle,
    unlink_dup,
    unlink_migrate,
    unsettle,
)
from ksmbatch.kernels.stable_shape import note_shape, set_look
from ksmbatch.kernels.twins import wake_alone
from ksmbatch.metrics import Counter
from ksmbatch.state import (
    CHAIN,
    CONTENT,
    FIRST,
    FOUND,
    IN_CHAIN,
    IN_MIGRATE,
    IN_TREE,
    ITEM_FLAGS,
    KPFN,
    LEN,
    LINE_MADE_BEFORE,
    MEMBER_PAGE,
    MERGING,
    NEWER,
    NEWEST_CHAIN,
    NEXT,
    NID,
    NIL,
    NO_FRAME,
    OLDER,
    OLDEST_CHAIN,
    PLANNED,
    ROOMY_DUPS,
    SETTLED,
    SETTLED_PRUNED,
    SETTLED_UNPRUNED,
    STABLE,
    STABLE_AT,
    STABLE_CHAINS,
    STABLE_HOT,
    STABLE_NODE_CHAIN,
    STALE_DUPS,
    UNSETTLED,
    WHERE,
    Knob,
    Scan,
)

NS_PER_JIFFY = 4_000_000  # CONFIG_HZ=250
NO_PRUNE, MAY_PRUNE = int64(0), int64(1)
INT_OVERFLOW, MAX_JIFFY_OFFSET = int64(2**31), int64(2**62 - 2)


@kernel
def tree_erase(s, node):
    """Takes a plain node or a chain out of its stable tree.

    Writes: nodes, trees, by_content, stable_log, stable_links, and as wake().
    """
    nid = int64(s.nodes[node, NID])
    content = int64(s.nodes[node, CONTENT])
    note_shape(s, nid, -content - 1)
    s.by_content[nid, content, STABLE_AT] = NIL
    if is_chain(s, node):
        s.trees[STABLE_CHAINS, nid] -= 1
        leave_chains(s, node)
        settle(s, node, SETTLED_PRUNED)
    elif s.nodes[node, KPFN] == NO_FRAME:
        s.trees[STABLE_HOT, nid] -= 1


@kernel
def tree_replace(s, old, new):
    """`new` takes the place of `old` in the tree, whose shape stays. Writes: nodes, by_content, stable_links."""
    nid = int64(s.nodes[old, NID])
    content = int64(s.nodes[new, CONTENT])
    s.nodes[new, NID] = nid
    s.nodes[new, WHERE] = IN_TREE
    s.by_content[nid, content, STABLE_AT] = new
    set_look(s, nid, content, int64(s.nodes[new, KPFN] == NO_FRAME))


@kernel
def tree_insert(s, node, nid):
    """Hangs a plain node into the tree of `nid`. Writes: nodes, trees, by_content, stable_log, stable_links, and as wake()."""
    content = int64(s.nodes[node, CONTENT])
    s.nodes[node, NID] = nid
    s.nodes[node, WHERE] = IN_TREE
    s.by_content[nid, content, STABLE_AT] = node
    wake_alone(s, nid, content)
    note_shape(s, nid, content + 1)


@kernel
def add_dup(s, dup, chain):
    """Mirrors: mm/ksm.c stable_node_chain_add_dup(). Writes: nodes, counters, trees."""
    push_dup(s, chain, dup)
    s.nodes[dup, WHERE] = IN_CHAIN
    s.nodes[dup, CHAIN] = chain
    s.nodes[dup, NID] = s.nodes[chain, NID]
    s.counters[Counter.STABLE_NODE_DUPS] += 1
    if is_page_sharing_candidate(s, dup, NOW):
        s.nodes[chain, ROOMY_DUPS] += 1
    unsettle(s, chain)


@kernel
def stable_node_dup_del(s, node):
    """Takes a dup out of its chain, or a plain node out of its tree.

    Mirrors: mm/ksm.c stable_node_dup_del()
    Writes: nodes, counters, stable_*.
    """
    if s.nodes[node, WHERE] == IN_CHAIN:
        chain = int64(s.nodes[node, CHAIN])
        unlink_dup(s, chain, node)
        s.counters[Counter.STABLE_NODE_DUPS] -= 1
        if s.nodes[node, KPFN] == NO_FRAME:
            s.nodes[chain, STALE_DUPS] -= 1
        elif is_page_sharing_candidate(s, node, NOW):
            s.nodes[chain, ROOMY_DUPS] -= 1
        unsettle(s, chain)
    else:
        tree_erase(s, node)


@kernel
def alloc_stable_node_chain(s, dup):
    """A chain in the place of the plain node `dup`, which becomes its first dup.

    Mirrors: mm/ksm.c alloc_stable_node_chain()
    Writes: nodes, node_prune_time, counters, stable_*. Returns: the chain.
    """
    chain = alloc_stable_node(s, int64(s.nodes[dup, CONTENT]), NO_FRAME, int64(s.nodes[dup, NID]))
    s.nodes[chain, LEN] = STABLE_NODE_CHAIN
    catch_up(s)
    s.node_prune_time[chain] = s.counters[Counter.TIME_NS] // NS_PER_JIFFY
    s.counters[Counter.STABLE_NODE_CHAINS] += 1
    tree_replace(s, dup, chain)
    nid = int64(s.nodes[chain, NID])
    s.trees[STABLE_CHAINS, nid] += 1
    join_chains(s, chain)
    s.trees[STABLE_HOT, nid] += 1  # unsettled
    add_dup(s, dup, chain)
    return chain


@kernel
def collapse_chain(s, chain, dup):
    """The only dup left takes the place of its chain. Mirrors: mm/ksm.c stable_node_dup(), `found && nr == 1`."""
    nid = int64(s.nodes[chain, NID])
    s.counters[Counter.STABLE_NODE_CHAINS] -= 1
    s.counters[Counter.STABLE_NODE_DUPS] -= 1
    s.trees[STABLE_CHAINS, nid] -= 1
    leave_chains(s, chain)
    settle(s, chain, SETTLED_PRUNED)
    tree_replace(s, chain, dup)
    free_stable_node(s, chain)


@kernel
def free_stable_node_chain(s, chain):
    """Drops a chain without dups. Mirrors: mm/ksm.c free_stable_node_chain()."""
    tree_erase(s, chain)
    s.counters[Counter.STABLE_NODE_CHAINS] -= 1
    free_stable_node(s, chain)


@kernel
def remove_node_from_stable_tree(s, node):
    """Frees `node`; its rmap_items forget it, the counters fall.

    Mirrors: mm/ksm.c remove_node_from_stable_tree()
    Writes: nodes, members, page_bytes, mms, counters, stable_*.
    """
    while s.nodes[node, FIRST] != NIL:
        member = int64(s.nodes[node, FIRST])
        page = int64(s.members[member, MEMBER_PAGE])
        s.mms[mm_of(s, page), MERGING] -= 1
        s.page_bytes[page, ITEM_FLAGS] = int64(s.page_bytes[page, ITEM_FLAGS]) & ~STABLE
        drop_member(s, member)
        s.counters[Counter.PAGES_SHARED if s.nodes[node, FIRST] == NIL else Counter.PAGES_SHARING] -= 1
    if s.nodes[node, WHERE] == IN_MIGRATE:
        unlink_migrate(s, node)
    else:
        stable_node_dup_del(s, node)
    if s.nodes[node, LINE_MADE_BEFORE] == NIL:
        free_stable_node(s, node)
        return
    # listed as a line, it is freed with all of them: in its slot another node would cut the list
    s.nodes[node, WHERE] = PLANNED
    s.nodes[node, LEN] = 0


@kernel
def ksm_get_folio(s, node):
    """The frame of `node`; a stale node is removed on the spot, and NO_FRAME returned. Mirrors: mm/ksm.c ksm_get_folio()."""
    frame = int64(s.nodes[node, KPFN])
    if frame == NO_FRAME:
        remove_node_from_stable_tree(s, node)
    return frame


@inlined
def jiffies_of(milliseconds):
    """Mirrors: msecs_to_jiffies(), which rounds up, and takes what is negative as an int for ever."""
    if milliseconds >= INT_OVERFLOW:
        return MAX_JIFFY_OFFSET
    return (milliseconds * 1_000_000 + NS_PER_JIFFY - 1) // NS_PER_JIFFY


@inlined
def join_chains(s, chain):
    """`chain` was pruned just now, as far as its delay is concerned. Writes: nodes, trees."""
    nid = int64(s.nodes[chain, NID])
    newest = int64(s.trees[NEWEST_CHAIN, nid])
    s.nodes[chain, OLDER] = newest
    s.nodes[chain, NEWER] = NIL
    if newest != NIL:
        s.nodes[newest, NEWER] = chain
    else:
        s.trees[OLDEST_CHAIN, nid] = chain
    s.trees[NEWEST_CHAIN, nid] = chain


@inlined
def leave_chains(s, chain):
    """`chain` is no longer in its tree's list of chains. Writes: nodes, trees."""
    nid = int64(s.nodes[chain, NID])
    older = int64(s.nodes[chain, OLDER])
    newer = int64(s.nodes[chain, NEWER])
    if older != NIL:
        s.nodes[older, NEWER] = newer
    else:
        s.trees[OLDEST_CHAIN, nid] = newer
    if newer != NIL:
        s.nodes[newer, OLDER] = older
    else:
        s.trees[NEWEST_CHAIN, nid] = older


@inlined
def waits_beyond_region(s, chain):
    """Whether `chain` cannot become due for pruning before the end of the open region. Reads: node_prune_time, knobs, scan."""
    due = s.node_prune_time[chain] + jiffies_of(s.knobs[Knob.STABLE_NODE_CHAINS_PRUNE_MILLISECS])
    return s.scan[Scan.LATEST_NS] // NS_PER_JIFFY < due


@inlined
def is_to_be_looked_at(s, node):
    """Whether a walk that passes `node`, which hangs in a tree, may change it. Reads: nodes, knobs, counters.

    A chain that is due for pruning changes at least in that its delay starts anew.
    """
    if not is_chain(s, node):
        return s.nodes[node, KPFN] == NO_FRAME
    if s.nodes[node, SETTLED] == UNSETTLED:
        return True
    delay = s.knobs[Knob.STABLE_NODE_CHAINS_PRUNE_MILLISECS]
    if delay == 0 or delay >= INT_OVERFLOW:
        return False  # every walk prunes, and it is settled by one; no walk prunes
    if waits_beyond_region(s, node):
        return False
    catch_up(s)
    return s.counters[Counter.TIME_NS] // NS_PER_JIFFY >= s.node_prune_time[node] + jiffies_of(delay)


@kernel
def may_prune(s, chain, prune):
    """Whether a walk that may prune does prune `chain` now, as the delay allows; if so, the delay starts anew.

    Mirrors: mm/ksm.c stable_node_dup(), the test with time_before()
    Reads: knobs, counters. Writes: node_prune_time, nodes, trees.
    """
    if prune == NO_PRUNE or s.knobs[Knob.STABLE_NODE_CHAINS_PRUNE_MILLISECS] >= INT_OVERFLOW:
        return False
    if waits_beyond_region(s, chain):
        return False
    catch_up(s)
    now = s.counters[Counter.TIME_NS] // NS_PER_JIFFY
    if now < s.node_prune_time[chain] + jiffies_of(s.knobs[Knob.STABLE_NODE_CHAINS_PRUNE_MILLISECS]):
        return False
    s.node_prune_time[chain] = now
    leave_chains(s, chain)
    join_chains(s, chain)
    return True


@kernel
def find_dup(s, chain, prune):
    """The dup of `chain` to use; stale ones met on the way are removed.

    Mirrors: mm/ksm.c stable_node_dup(), its loop; 6.1 takes no dup but one with room
    Writes: as ksm_get_folio(). Returns: the dup or NIL; the first with room or NIL.
    """
    old = s.knobs[Knob.KERNEL] < Kernel.V6_12
    found = NIL
    found_length = 0
    with_room = NIL
    roomy = int64(s.nodes[chain, ROOMY_DUPS])
    dup = int64(s.nodes[chain, FIRST])
    # behind the last one with room, and the last stale one, there is nothing to see
    while dup != NIL and (roomy > 0 or found == NIL or s.nodes[chain, STALE_DUPS] > 0):
        after = int64(s.nodes[dup, NEXT])
        if ksm_get_folio(s, dup) == NO_FRAME:
            dup = after
            continue
        room = is_page_sharing_candidate(s, dup, NOW)
        length = int64(s.nodes[dup, LEN])
        roomy -= int64(room)
        if room and with_room == NIL:
            with_room = dup
        if found == NIL:
            better = room or not old
        else:
            better = room and (not is_page_sharing_candidate(s, found, NOW) or length > found_length)
        if better:
            found = dup
            found_length = length
            if not prune and room:
                break
        dup = after
    return found, with_room


@kernel
def stable_node_chain(s, node, prune):
    """Looks at `node` as a walk does that passes it: a plain node, or a chain of which a dup is chosen.

    Mirrors: mm/ksm.c __stable_node_chain(), stable_node_dup()
    Writes: nodes, page_bytes, counters, stable_*.
    Returns: the frame to compare with (NO_FRAME: the node was stale and is gone); the dup to merge with or NIL; the node that
    stands in the tree now.
    """
    old = s.knobs[Knob.KERNEL] < Kernel.V6_12
    if not is_chain(s, node):
        frame = ksm_get_folio(s, node)
        if frame == NO_FRAME or (old and not is_page_sharing_candidate(s, node, NOW)):
            return frame, NIL, node
        return frame, node, node
    prunes = may_prune(s, node, prune)
    kind = SETTLED_PRUNED if prunes else SETTLED_UNPRUNED
    first = int64(s.nodes[node, FIRST])
    if s.nodes[node, SETTLED] == kind:
        found = int64(s.nodes[node, FOUND])
        if found == NIL:
            return int64(s.nodes[first, KPFN]), NIL, node
        return int64(s.nodes[found, KPFN]), found, node
    n_stale = int64(s.nodes[node, STALE_DUPS])
    if n_stale != 0:
        found, with_room = find_dup(s, node, prunes)
        first = int64(s.nodes[node, FIRST])
    elif s.nodes[node, ROOMY_DUPS] == 0:
        # all full: the walk over the dups would find no room and take the first, or none on 6.1
        found = NIL if old else first
        with_room = NIL
    else:
        # what that walk would find is mostly known: there are 100,000 dups at times
        with_room = first_with_room(s, node)
        found = fullest_with_room(s, node) if prunes else with_room
    if first == NIL:
        free_stable_node_chain(s, node)
        return NO_FRAME, NIL, node
    is_alone = s.nodes[first, NEXT] == NIL
    if is_alone and found != NIL and (prunes or not old):
        frame = int64(s.nodes[found, KPFN])
        collapse_chain(s, node, found)
        return frame, found, found
    moves = found != NIL and first != found and is_page_sharing_candidate(s, found, AND_ONE_MORE)
    if moves:
        unlink_dup(s, node, found)
        push_dup(s, node, found)
        if s.nodes[node, SETTLED] != UNSETTLED:
            # it was settled for walks that do not prune, and for them this one is the first with room now
            s.nodes[node, FOUND] = found
    elif n_stale == s.nodes[node, STALE_DUPS]:
        settle_if_stable(s, node, found, with_room, kind)
    if found == NIL:
        return int64(s.nodes[first, KPFN]), NIL, node  # 6.1: all full
    return int64(s.nodes[found, KPFN]), found, node


@kernel
def settle_if_stable(s, chain, found, with_room, kind):
    """Notes what a walk over `chain` found that changed nothing, if walks of the other kind change nothing either.

    A walk that may not prune takes the first dup with room, and moves it to the front; one that prunes takes the fullest.
    With a delay, is_to_be_looked_at() sees to the walks that prune.
    Writes: nodes, trees.
    """
    first = int64(s.nodes[chain, FIRST])
    timed = s.knobs[Knob.STABLE_NODE_CHAINS_PRUNE_MILLISECS] > 0
    other_moves = with_room != NIL and with_room != first and is_page_sharing_candidate(s, with_room, AND_ONE_MORE)
    if not other_moves and (timed or kind == SETTLED_PRUNED):
        settle(s, chain, kind)
        s.nodes[chain, FOUND] = found


@entry_kernel
def unsettle_all_chains(s):
    """The rule by which chains are pruned changed. Writes: nodes, trees."""
    for node in range(1, s.scan[Scan.NEXT_NODE]):
        if s.nodes[node, WHERE] == IN_TREE and is_chain(s, node):
            unsettle(s, node)
