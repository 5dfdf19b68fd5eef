"""Linux's red-black tree (lib/rbtree.c): link, insert, erase and replace, with the very same rotations.

Which nodes a walk passes, and so what ksmd notices, depends on the shape; hence no other balanced tree would do. Mirror images
are written once, `side` being LEFT or RIGHT. There is no search here: the callers walk themselves, as in the kernel.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

LEFT, RIGHT = 0, 1


class RbNode:
    """struct rb_node, the base class of what hangs in a tree."""

    __slots__ = ("child", "parent", "red")

    def __init__(self) -> None:
        self.parent: Any = None
        self.child: list[Any] = [None, None]
        self.red = True


class RbRoot:
    """struct rb_root."""

    __slots__ = ("rb_node",)

    def __init__(self) -> None:
        self.rb_node: Any = None


def rb_link_node(node: RbNode, parent: RbNode | None, side: int, root: RbRoot) -> None:
    """Hang `node`, red, into the empty link of `parent`, or of the root if there is no parent."""
    node.parent, node.child, node.red = parent, [None, None], True
    if parent is None:
        root.rb_node = node
    else:
        parent.child[side] = node


def rb_insert_color(node: Any, root: RbRoot) -> None:
    """Rebalance after rb_link_node()."""
    parent = node.parent
    while True:
        if parent is None:
            node.red = False
            return
        if not parent.red:
            return
        gparent = parent.parent
        side = RIGHT if gparent.child[RIGHT] is parent else LEFT
        uncle = gparent.child[1 - side]
        if uncle is not None and uncle.red:  # case 1: recolour and go on from the grandparent
            uncle.parent, uncle.red = gparent, False
            parent.red = False
            node, parent = gparent, gparent.parent
            node.red = True
            continue
        inner = parent.child[1 - side]
        if node is inner:  # case 2: turn it into case 3
            inner = node.child[side]
            parent.child[1 - side] = inner
            node.child[side] = parent
            if inner is not None:
                inner.parent, inner.red = parent, False
            parent.parent, parent.red = node, True
            parent = node
            inner = node.child[1 - side]
        gparent.child[side] = inner  # case 3: rotate at the grandparent
        parent.child[1 - side] = gparent
        if inner is not None:
            inner.parent, inner.red = gparent, False
        _rotate_set_parents(gparent, parent, root, red=True)
        return


def rb_erase(node: Any, root: RbRoot) -> None:
    """Take `node` out; its own words stay as they are, as in the kernel."""
    left, right = node.child
    rebalance = None
    if left is None or right is None:
        child = right if left is None else left
        _change_child(node, child, node.parent, root)
        if child is not None:
            child.parent, child.red = node.parent, node.red
        elif not node.red:
            rebalance = node.parent
    else:
        successor = right
        if right.child[LEFT] is None:  # case 2: the successor is the right child
            parent = successor
            child = successor.child[RIGHT]
        else:  # case 3: it is leftmost below the right child
            while successor.child[LEFT] is not None:
                parent, successor = successor, successor.child[LEFT]
            child = successor.child[RIGHT]
            parent.child[LEFT] = child
            successor.child[RIGHT] = right
            right.parent = successor
        successor.child[LEFT] = left
        left.parent = successor
        _change_child(node, successor, node.parent, root)
        if child is not None:
            child.parent, child.red = parent, False
        elif not successor.red:
            rebalance = parent
        successor.parent, successor.red = node.parent, node.red
    if rebalance is not None:
        _erase_color(rebalance, root)


def _erase_color(parent: Any, root: RbRoot) -> None:
    node: Any = None  # the root of the subtree that lacks a black node
    while True:
        side = LEFT if parent.child[RIGHT] is not node else RIGHT  # of `node` below `parent`
        far = 1 - side
        sibling = parent.child[far]
        if sibling.red:  # case 1: rotate at the parent
            near_nephew = sibling.child[side]
            parent.child[far] = near_nephew
            sibling.child[side] = parent
            near_nephew.parent, near_nephew.red = parent, False
            _rotate_set_parents(parent, sibling, root, red=True)
            sibling = near_nephew
        far_nephew = sibling.child[far]
        if far_nephew is None or not far_nephew.red:
            near_nephew = sibling.child[side]
            if near_nephew is None or not near_nephew.red:  # case 2: recolour the sibling
                sibling.parent, sibling.red = parent, True
                if parent.red:
                    parent.red = False
                    return
                node, parent = parent, parent.parent
                if parent is None:
                    return
                continue
            far_nephew = near_nephew.child[far]  # case 3: rotate at the sibling
            sibling.child[side] = far_nephew
            near_nephew.child[far] = sibling
            parent.child[far] = near_nephew
            if far_nephew is not None:
                far_nephew.parent, far_nephew.red = sibling, False
            far_nephew, sibling = sibling, near_nephew
        near_nephew = sibling.child[side]  # case 4: rotate at the parent and recolour
        parent.child[far] = near_nephew
        sibling.child[side] = parent
        far_nephew.parent, far_nephew.red = sibling, False
        if near_nephew is not None:
            near_nephew.parent = parent
        _rotate_set_parents(parent, sibling, root, red=False)
        return


def rb_replace_node(victim: Any, new: Any, root: RbRoot) -> None:
    """Put `new` into the place of `victim`, colour and all."""
    new.parent, new.child, new.red = victim.parent, list(victim.child), victim.red
    for child in victim.child:
        if child is not None:
            child.parent = new
    _change_child(victim, new, victim.parent, root)


def rb_walk(root: RbRoot) -> Iterator[Any]:
    """All nodes in order."""
    path: list[Any] = []
    node = root.rb_node
    while path or node is not None:
        while node is not None:
            path.append(node)
            node = node.child[LEFT]
        node = path.pop()
        yield node
        node = node.child[RIGHT]


def rb_faults(root: RbRoot) -> list[str]:
    """What is wrong with the tree: parent links, a red node below a red one, unequal numbers of black nodes."""
    faults: list[str] = []

    def black_height(node: Any, parent: Any) -> int:
        if node is None:
            return 1
        if node.parent is not parent:
            faults.append("a node's parent link points elsewhere")
        if node.red and (parent is None or parent.red):
            faults.append("a red node at the root or below a red node")
        heights = [black_height(child, node) for child in node.child]
        if heights[LEFT] != heights[RIGHT]:
            faults.append("paths with unequal numbers of black nodes")
        return heights[LEFT] + (not node.red)

    black_height(root.rb_node, None)
    return faults


def _change_child(old: Any, new: Any, parent: Any, root: RbRoot) -> None:
    if parent is None:
        root.rb_node = new
    elif parent.child[LEFT] is old:
        parent.child[LEFT] = new
    else:
        parent.child[RIGHT] = new


def _rotate_set_parents(old: Any, new: Any, root: RbRoot, red: bool) -> None:
    parent = old.parent
    new.parent, new.red = old.parent, old.red
    old.parent, old.red = new, red
    _change_child(old, new, parent, root)
