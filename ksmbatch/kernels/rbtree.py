"""Linux's red-black tree (lib/rbtree.c) over rows of an integer matrix: insert, erase and replace with exactly its shape.

A tree is `roots[tree]` plus the columns LEFT, RIGHT, PARENT and BLACK of `links`; row NIL is no node. It knows no keys: whoever
walks compares. Stable and unstable trees use the same functions on different matrices; where the rows have a column ANY, it is
kept, as by rb_augment_callbacks.
"""

from numpy import int64

from ksmbatch.accel import inlined, kernel
from ksmbatch.state import ANY, BLACK, LEFT, LOOK, NIL, PARENT, RIGHT

RED, NOT_RED = int64(0), int64(1)  # of column BLACK


@inlined
def is_augmented(links):
    """Whether the rows of `links` have the columns LOOK and ANY."""
    return links.shape[1] > ANY


@inlined
def look_below(links, node):
    """ANY of `node`, from its own LOOK and its children. Reads: links."""
    return links[node, LOOK] | links[links[node, LEFT], ANY] | links[links[node, RIGHT], ANY]


@kernel
def tell_ancestors(links, node):
    """The LOOK of `node` (NIL: nothing to do) or what is below it changed. Reads: links. Writes: links."""
    while node != NIL:
        links[node, ANY] = look_below(links, node)
        node = int64(links[node, PARENT])


@inlined
def sank(links, node, top):
    """`node` has sunk below `top`, which has all below it now that was below `node`. Writes: links."""
    if is_augmented(links):
        links[top, ANY] = links[node, ANY]
        links[node, ANY] = look_below(links, node)


@kernel
def change_child(links, roots, tree, old, new, parent):
    """Lets `parent` (NIL: the root) point to `new` where it pointed to `old`.

    Mirrors: include/linux/rbtree_augmented.h __rb_change_child()
    Reads: links. Writes: links, roots.
    """
    if parent == NIL:
        roots[tree] = new
    elif links[parent, LEFT] == old:
        links[parent, LEFT] = new
    else:
        links[parent, RIGHT] = new


@kernel
def rotate_set_parents(links, roots, tree, old, new, black):
    """`new` takes the place and colour of `old`, which becomes its child with colour `black`.

    Mirrors: lib/rbtree.c __rb_rotate_set_parents()
    Reads: links. Writes: links, roots.
    """
    parent = int64(links[old, PARENT])
    links[new, PARENT] = parent
    links[new, BLACK] = links[old, BLACK]
    links[old, PARENT] = new
    links[old, BLACK] = black
    change_child(links, roots, tree, old, new, parent)


@kernel
def set_parent_black(links, node, parent):
    """Hangs `node` (may be NIL) under `parent`, black.

    Mirrors: include/linux/rbtree_augmented.h rb_set_parent_color(..., RB_BLACK)
    Writes: links.
    """
    if node != NIL:
        links[node, PARENT] = parent
        links[node, BLACK] = 1


@kernel
def rb_link_and_insert(links, roots, tree, node, parent, side):
    """Hangs `node` under `parent` on `side` (< 0 left) and rebalances.

    Mirrors: rb_link_node() and lib/rbtree.c __rb_insert()
    Reads: links. Writes: links, roots.
    """
    links[node, LEFT] = NIL
    links[node, RIGHT] = NIL
    links[node, PARENT] = parent
    links[node, BLACK] = 0
    if parent == NIL:
        roots[tree] = node
    elif side < 0:
        links[parent, LEFT] = node
    else:
        links[parent, RIGHT] = node
    if is_augmented(links):
        links[node, ANY] = 0
        if links[node, LOOK]:
            tell_ancestors(links, node)
    while True:
        if parent == NIL:
            links[node, BLACK] = 1
            return
        if links[parent, BLACK]:
            return
        grandparent = int64(links[parent, PARENT])
        # the two sides mirror each other: near is the side on which the parent hangs
        near = LEFT if links[grandparent, LEFT] == parent else RIGHT
        far = RIGHT if near == LEFT else LEFT
        uncle = int64(links[grandparent, far])
        if uncle != NIL and not links[uncle, BLACK]:
            links[uncle, BLACK] = 1
            links[parent, BLACK] = 1
            node = grandparent
            parent = int64(links[node, PARENT])
            links[node, BLACK] = 0
            continue
        inner = int64(links[parent, far])
        if node == inner:
            inner = int64(links[node, near])
            links[parent, far] = inner
            links[node, near] = parent
            set_parent_black(links, inner, parent)
            links[parent, PARENT] = node
            links[parent, BLACK] = 0
            sank(links, parent, node)
            parent = node
            inner = int64(links[node, far])
        links[grandparent, near] = inner
        links[parent, far] = grandparent
        set_parent_black(links, inner, grandparent)
        sank(links, grandparent, parent)
        rotate_set_parents(links, roots, tree, grandparent, parent, RED)
        return


@kernel
def rb_erase(links, roots, tree, node):
    """Takes `node` out and rebalances.

    Mirrors: lib/rbtree.c rb_erase(), __rb_erase_augmented()
    Reads: links. Writes: links, roots.
    """
    child = int64(links[node, RIGHT])
    left = int64(links[node, LEFT])
    parent = int64(links[node, PARENT])
    rebalance = NIL
    lowest = parent  # that has another subtree now
    if left == NIL:
        change_child(links, roots, tree, node, child, parent)
        if child != NIL:
            links[child, PARENT] = parent
            links[child, BLACK] = links[node, BLACK]
        elif links[node, BLACK]:
            rebalance = parent
    elif child == NIL:
        links[left, PARENT] = parent
        links[left, BLACK] = links[node, BLACK]
        change_child(links, roots, tree, node, left, parent)
    else:
        successor = child
        below = int64(links[child, LEFT])
        if below == NIL:
            under = successor
            orphan = int64(links[successor, RIGHT])
        else:
            under = successor
            while below != NIL:
                under = successor
                successor = below
                below = int64(links[successor, LEFT])
            orphan = int64(links[successor, RIGHT])
            links[under, LEFT] = orphan
            links[successor, RIGHT] = child
            links[child, PARENT] = successor
        links[successor, LEFT] = left
        links[left, PARENT] = successor
        change_child(links, roots, tree, node, successor, parent)
        lowest = under
        if orphan != NIL:
            set_parent_black(links, orphan, under)
        elif links[successor, BLACK]:
            rebalance = under
        links[successor, PARENT] = parent
        links[successor, BLACK] = links[node, BLACK]
    if is_augmented(links) and links[node, ANY]:
        tell_ancestors(links, lowest)
    if rebalance != NIL:
        erase_color(links, roots, tree, rebalance)


@kernel
def erase_color(links, roots, tree, parent):
    """Restores the colours after a black leaf under `parent` went.

    Mirrors: lib/rbtree.c ____rb_erase_color()
    Reads: links. Writes: links, roots.
    """
    node = NIL
    while True:
        near = LEFT if links[parent, RIGHT] != node else RIGHT
        far = RIGHT if near == LEFT else LEFT
        sibling = int64(links[parent, far])
        if not links[sibling, BLACK]:
            inner = int64(links[sibling, near])
            links[parent, far] = inner
            links[sibling, near] = parent
            set_parent_black(links, inner, parent)
            sank(links, parent, sibling)
            rotate_set_parents(links, roots, tree, parent, sibling, RED)
            sibling = inner
        outer = int64(links[sibling, far])
        if outer == NIL or links[outer, BLACK]:
            inner = int64(links[sibling, near])
            if inner == NIL or links[inner, BLACK]:
                links[sibling, PARENT] = parent
                links[sibling, BLACK] = 0
                if not links[parent, BLACK]:
                    links[parent, BLACK] = 1
                    return
                node = parent
                parent = int64(links[node, PARENT])
                if parent == NIL:
                    return
                continue
            outer = int64(links[inner, far])
            links[sibling, near] = outer
            links[inner, far] = sibling
            links[parent, far] = inner
            set_parent_black(links, outer, sibling)
            sank(links, sibling, inner)
            outer = sibling
            sibling = inner
        inner = int64(links[sibling, near])
        links[parent, far] = inner
        links[sibling, near] = parent
        set_parent_black(links, outer, sibling)
        if inner != NIL:
            links[inner, PARENT] = parent
        sank(links, parent, sibling)
        rotate_set_parents(links, roots, tree, parent, sibling, NOT_RED)
        return


@kernel
def rb_replace_node(links, roots, tree, victim, new):
    """`new` takes the place of `victim`; the shape stays.

    Mirrors: lib/rbtree.c rb_replace_node()
    Reads: links. Writes: links, roots.
    """
    parent = int64(links[victim, PARENT])
    left = int64(links[victim, LEFT])
    right = int64(links[victim, RIGHT])
    links[new, PARENT] = parent
    links[new, LEFT] = left
    links[new, RIGHT] = right
    links[new, BLACK] = links[victim, BLACK]
    if left != NIL:
        links[left, PARENT] = new
    if right != NIL:
        links[right, PARENT] = new
    change_child(links, roots, tree, victim, new, parent)
