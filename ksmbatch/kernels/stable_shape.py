"""The shape of the stable trees: what happens to a tree is written down, and done to it when its shape is about to be seen.

Linux's tree of a NUMA node has one place per content, whatever hangs there: a plain node, a chain, another node later. So the
links are those of contents, and `by_content` says what hangs where. Who looks for what is `stable_tree`'s business. See
docs/adr/0002.
"""

from numpy import int64

from ksmbatch.accel import inlined, kernel
from ksmbatch.kernels.rbtree import rb_erase, rb_link_and_insert, tell_ancestors
from ksmbatch.kernels.stable_index import ABOVE, BELOW, NONE, neighbour, put_into_index, take_out_of_index
from ksmbatch.state import (
    ANY,
    KEY,
    KPFN,
    LEFT,
    LOOK,
    LOOK_END,
    LOOK_FIRST,
    LOOK_HIGH,
    LOOK_HIGHEST,
    LOOK_KNOWN,
    LOOK_LOW,
    LOOK_LOWEST,
    NIL,
    NO_FRAME,
    RIGHT,
    STABLE_AT,
    STABLE_CHAINS,
    STABLE_HOT,
    STABLE_LOGGED,
    STABLE_ROOT,
)

NO_BOUND = int64(2**31 - 1)  # behind all contents


@inlined
def find_place(s, nid, content):
    """Where `content`, which the shape of the tree of `nid` lacks, would hang: where a walk from the root would end.

    Of its two neighbours one is below the other, and has no child on the side of `content`.
    Reads: stable_links, stable_index. Returns: parent (content + 1, or NIL), side (< 0: left).
    """
    below = neighbour(s, nid, content, BELOW)
    if below != NONE and s.stable_links[nid, below + 1, RIGHT] == NIL:
        return below + 1, ABOVE
    above = neighbour(s, nid, content, ABOVE)
    return above + 1, BELOW  # if there is none, NIL


@kernel
def reshape(s, nid, entry):
    """Does to the shape what an `entry` of the log says. Writes: stable_links, stable_index, trees."""
    s.trees[LOOK_KNOWN, nid] = 0
    if entry < 0:
        take_out_of_index(s, nid, -entry - 1)
        rb_erase(s.stable_links[nid], s.trees[STABLE_ROOT], nid, -entry)
        return
    s.stable_links[nid, entry, KEY] = s.rank[entry - 1]
    # as it is now: what hangs there may have changed since it was logged, or may be gone again
    s.stable_links[nid, entry, LOOK] = s.nodes[s.by_content[nid, entry - 1, STABLE_AT], KPFN] == NO_FRAME
    parent, side = find_place(s, nid, entry - 1)
    put_into_index(s, nid, entry - 1)
    rb_link_and_insert(s.stable_links[nid], s.trees[STABLE_ROOT], nid, entry, parent, side)


@kernel
def build_stable_tree(s, nid):
    """Brings the shape of the tree of `nid` up to date: to be called before it is looked at. Writes: stable_links, trees."""
    for k in range(s.trees[STABLE_LOGGED, nid]):
        reshape(s, nid, int64(s.stable_log[nid, k]))
    s.trees[STABLE_LOGGED, nid] = 0


@kernel
def set_look(s, nid, content, look):
    """Whether a walk has to look at what hangs for `content` in the tree of `nid`. Writes: stable_links, trees."""
    build_stable_tree(s, nid)
    if s.stable_links[nid, content + 1, LOOK] != look:
        s.trees[LOOK_KNOWN, nid] = 0
        s.stable_links[nid, content + 1, LOOK] = look
        tell_ancestors(s.stable_links[nid], content + 1)


@kernel
def note_shape(s, nid, entry):
    """A content came into the tree of `nid` (`entry` = content + 1) or left it (-content - 1).

    Where walks are made at the time, the shape follows at once; else it can wait, at best for ever.
    Writes: stable_log, trees, stable_links.
    """
    logged = int64(s.trees[STABLE_LOGGED, nid])
    if logged == 0 and (s.trees[STABLE_HOT, nid] != 0 or s.trees[STABLE_CHAINS, nid] != 0):
        reshape(s, nid, entry)
        return
    if logged == s.stable_log.shape[1]:
        build_stable_tree(s, nid)
        logged = 0
    s.stable_log[nid, logged] = entry
    s.trees[STABLE_LOGGED, nid] = logged + 1


@inlined
def first_after(s, nid, row):
    """Of the contents held once, which follow those held twice, the first whose rank is above that of `row`.

    Ids ascend with the rank in both groups: as many come before as the rank says, less those held twice.
    Reads: stable_links.
    """
    return s.by_content.shape[1] + int64(s.stable_links[nid, row, KEY]) - (row - 1)


@kernel
def know_where_to_look(s, nid):
    """Finds which contents held once are searched for past something with LOOK in the tree of `nid`, by its outermost ones.

    Reads: stable_links. Writes: as build_stable_tree(), trees.
    """
    build_stable_tree(s, nid)
    if s.trees[LOOK_KNOWN, nid]:
        return
    s.trees[LOOK_KNOWN, nid] = 1
    for side in range(2):
        near = LEFT if side == 0 else RIGHT
        far = RIGHT if side == 0 else LEFT
        bound = int64(s.by_content.shape[1]) if side == 0 else NO_BOUND
        held = int64(-1) if side == 0 else NO_BOUND
        current = int64(s.trees[STABLE_ROOT, nid])
        if current == NIL or not s.stable_links[nid, current, ANY]:
            bound = int64(0)
            held = int64(-1)
            current = NIL
        while current != NIL and not s.stable_links[nid, current, LOOK]:
            below = int64(s.stable_links[nid, current, near])
            if below != NIL and s.stable_links[nid, below, ANY]:
                current = below
            else:
                bound = first_after(s, nid, current)
                held = current - 1
                current = int64(s.stable_links[nid, current, far])
        s.trees[LOOK_FIRST if side == 0 else LOOK_END, nid] = bound
        s.trees[LOOK_LOW if side == 0 else LOOK_HIGH, nid] = held
        s.trees[LOOK_LOWEST if side == 0 else LOOK_HIGHEST, nid] = current - 1


@inlined
def may_meet_something(s, nid, content):
    """Whether a walk to `content` might pass something with LOOK in the tree of `nid`. Reads: trees, as they are known."""
    if content < s.by_content.shape[1]:
        is_within = s.trees[LOOK_LOW, nid] < content < s.trees[LOOK_HIGH, nid]
        return is_within and content != s.trees[LOOK_LOWEST, nid] and content != s.trees[LOOK_HIGHEST, nid]
    return s.trees[LOOK_FIRST, nid] <= content < s.trees[LOOK_END, nid]
