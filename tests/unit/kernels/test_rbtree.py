"""Is it Linux's red-black tree? Shapes that lib/rbtree.c is known to make, and the slow twin's under random use.

The twin is literal about lib/rbtree.c and has tests of its own.
"""

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.rbtree import RbNode, RbRoot, rb_insert_color, rb_link_node
from reference.rbtree import rb_erase as twin_erase
from reference.rbtree import rb_replace_node as twin_replace_node

from ksmbatch.kernels.rbtree import rb_erase, rb_link_and_insert, rb_replace_node, tell_ancestors
from ksmbatch.state import ANY, BLACK, LEFT, LOOK, NIL, RIGHT

TREE = 1  # of two; tree 0 must never be touched


class TwinNode(RbNode):
    """A node of the twin's tree. `slot`: its row in ours."""

    def __init__(self, slot: int, key: int) -> None:
        super().__init__()
        self.slot = slot
        self.key = key


class Tree:
    """A red-black tree in arrays of 4 columns, or of 8, with ANY; and the twin's of the same history."""

    def __init__(self, columns: int = 4) -> None:
        self.links = np.zeros((64, columns), np.int32)
        self.roots = np.zeros(2, np.int32)
        self.root = RbRoot()
        self.nodes: dict[int, TwinNode] = {}  # key -> node
        self._next = 1

    def new(self, key: int) -> TwinNode:
        self._next += 1
        return TwinNode(self._next - 1, key)

    def insert(self, key: int, look: bool = False) -> None:
        node = self.new(key)
        if look:
            self.links[node.slot, LOOK] = 1
        parent, side, place = None, 0, self.root.rb_node
        while place is not None:
            parent, side = place, int(key > place.key)
            place = place.child[side]
        rb_link_node(node, parent, side, self.root)
        rb_insert_color(node, self.root)
        rb_link_and_insert(self.links, self.roots, TREE, node.slot, parent.slot if parent else int(NIL), 1 if side else -1)
        self.nodes[key] = node

    def erase(self, key: int) -> None:
        node = self.nodes.pop(key)
        twin_erase(node, self.root)
        rb_erase(self.links, self.roots, TREE, node.slot)

    def replace(self, key: int) -> None:
        victim, node = self.nodes[key], self.new(key)
        twin_replace_node(victim, node, self.root)
        rb_replace_node(self.links, self.roots, TREE, victim.slot, node.slot)
        self.nodes[key] = node

    def shape(self, slot: int | None = None) -> Any:
        """(left, key, right), red keys negative, a leaf its key alone, as the twin's tests write it."""
        row = self.roots[TREE] if slot is None else slot
        if row == NIL:
            return None
        key = next(key for key, node in self.nodes.items() if node.slot == row)
        key = key if self.links[row, BLACK] else -key
        left, right = self.links[row, LEFT], self.links[row, RIGHT]
        return key if left == right == NIL else (self.shape(int(left)), key, self.shape(int(right)))

    def links_of_twin(self) -> dict[int, tuple[int, int, int, int]]:
        """slot -> LEFT, RIGHT, PARENT, BLACK, as the twin has it."""
        slot = {None: int(NIL)} | {node: node.slot for node in self.nodes.values()}
        return {
            node.slot: (slot[node.child[0]], slot[node.child[1]], slot[node.parent], int(not node.red))
            for node in self.nodes.values()
        }

    def links_of_ours(self) -> dict[int, tuple[int, int, int, int]]:
        return {node.slot: tuple(self.links[node.slot, :4].tolist()) for node in self.nodes.values()}


def tree_of(*keys: int) -> Tree:
    tree = Tree()
    for key in keys:
        tree.insert(key)
    return tree


def test_ascending_keys_make_the_known_tree() -> None:
    assert tree_of(1, 2, 3, 4, 5, 6, 7).shape() == (1, 2, (3, -4, (-5, 6, -7)))


def test_descending_keys_make_its_mirror_image() -> None:
    assert tree_of(7, 6, 5, 4, 3, 2, 1).shape() == ((((-1, 2, -3), -4, 5), 6, 7))


def test_an_inner_grandchild_is_rotated_twice() -> None:
    assert tree_of(3, 1, 2).shape() == (-1, 2, -3)


def test_an_erased_inner_node_is_replaced_by_its_successor() -> None:
    tree = tree_of(1, 2, 3, 4, 5, 6, 7)
    tree.erase(4)
    assert tree.shape() == (1, 2, (3, -5, (None, 6, -7)))


def test_a_replacement_takes_place_and_colour() -> None:
    tree = tree_of(1, 2, 3, 4, 5, 6, 7)
    shape, victim = tree.shape(), tree.nodes[4].slot
    tree.replace(4)
    assert tree.shape() == shape
    assert tree.nodes[4].slot != victim


def test_erasing_the_last_node_leaves_an_empty_tree() -> None:
    tree = tree_of(1)
    tree.erase(1)
    assert tree.roots.tolist() == [0, 0]


operations = st.lists(st.tuples(st.sampled_from(("insert", "insert", "erase", "replace")), st.integers(0, 30)), max_size=60)


@settings(max_examples=300)
@given(operations)
def test_any_history_gives_the_twins_shape_and_colours(history: list[tuple[str, int]]) -> None:
    tree = Tree()
    for operation, key in history:
        present = sorted(tree.nodes)
        if operation == "insert" and key not in tree.nodes:
            tree.insert(key)
        elif operation != "insert" and present:
            getattr(tree, operation)(present[key % len(present)])
        assert tree.links_of_ours() == tree.links_of_twin()
        root = tree.root.rb_node
        assert tree.roots.tolist() == [0, root.slot if root else NIL]
    assert (tree.links[NIL] == 0).all()


augmented = st.lists(
    st.tuples(st.sampled_from(("insert", "insert", "erase", "turn")), st.integers(0, 30), st.booleans()), max_size=60
)


@settings(max_examples=300)
@given(augmented)
def test_every_row_knows_whether_there_is_something_to_look_at_below_it(history: list[tuple[str, int, bool]]) -> None:
    tree = Tree(columns=8)
    for operation, key, look in history:
        present = sorted(tree.nodes)
        if operation == "insert" and key not in tree.nodes:
            tree.insert(key, look)
        elif operation == "erase" and present:
            tree.erase(present[key % len(present)])
        elif present:
            slot = tree.nodes[present[key % len(present)]].slot
            tree.links[slot, LOOK] = look
            tell_ancestors(tree.links, slot)
        assert tree.links_of_ours() == tree.links_of_twin()
        assert anys(tree) == {
            node.slot: int(any(tree.links[slot, LOOK] for slot in below(tree, node.slot))) for node in tree.nodes.values()
        }
    assert (tree.links[NIL] == 0).all()


def anys(tree: Tree) -> dict[int, int]:
    """slot -> ANY."""
    return {node.slot: int(tree.links[node.slot, ANY]) for node in tree.nodes.values()}


def below(tree: Tree, slot: int) -> list[int]:
    """The slots below `slot`, and itself."""
    if slot == NIL:
        return []
    return [slot, *below(tree, int(tree.links[slot, LEFT])), *below(tree, int(tree.links[slot, RIGHT]))]
