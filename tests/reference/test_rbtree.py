"""Is it Linux's red-black tree? Shapes known from the algorithm, and its rules under random use."""

import random
from typing import Any

import pytest

from reference.rbtree import (
    LEFT,
    RIGHT,
    RbNode,
    RbRoot,
    rb_erase,
    rb_faults,
    rb_insert_color,
    rb_link_node,
    rb_replace_node,
    rb_walk,
)


class Node(RbNode):
    """A node with a key."""

    def __init__(self, key: int) -> None:
        super().__init__()
        self.key = key


def insert(root: RbRoot, key: int) -> Node:
    parent, side, place = None, LEFT, root.rb_node
    while place is not None:
        parent = place
        side = LEFT if key < place.key else RIGHT
        place = place.child[side]
    node = Node(key)
    rb_link_node(node, parent, side, root)
    rb_insert_color(node, root)
    return node


def tree_of(*keys: int) -> tuple[RbRoot, dict[int, Node]]:
    root = RbRoot()
    return root, {key: insert(root, key) for key in keys}


def shape(node: Any) -> Any:
    """(left, key, right), red keys negative, a leaf its key alone."""
    if node is None:
        return None
    key = -node.key if node.red else node.key
    return key if node.child == [None, None] else (shape(node.child[LEFT]), key, shape(node.child[RIGHT]))


def test_ascending_keys_make_the_known_tree() -> None:
    root, _ = tree_of(1, 2, 3, 4, 5, 6, 7)
    assert shape(root.rb_node) == (1, 2, (3, -4, (-5, 6, -7)))


def test_descending_keys_make_its_mirror_image() -> None:
    root, _ = tree_of(7, 6, 5, 4, 3, 2, 1)
    assert shape(root.rb_node) == ((((-1, 2, -3), -4, 5), 6, 7))


def test_an_inner_grandchild_is_rotated_twice() -> None:
    root, _ = tree_of(3, 1, 2)
    assert shape(root.rb_node) == (-1, 2, -3)


def test_an_erased_inner_node_is_replaced_by_its_successor() -> None:
    root, nodes = tree_of(1, 2, 3, 4, 5, 6, 7)
    rb_erase(nodes[4], root)
    assert shape(root.rb_node) == (1, 2, (3, -5, (None, 6, -7)))


def test_erasing_a_black_leaf_recolours_or_rotates() -> None:
    root, nodes = tree_of(1, 2, 3, 4, 5, 6, 7)
    rb_erase(nodes[1], root)
    assert shape(root.rb_node) == ((None, 2, -3), 4, (-5, 6, -7))


def test_a_replacement_takes_place_and_colour() -> None:
    root, nodes = tree_of(1, 2, 3, 4, 5, 6, 7)
    rb_replace_node(nodes[4], Node(44), root)
    assert shape(root.rb_node) == (1, 2, (3, -44, (-5, 6, -7)))
    assert rb_faults(root) == []


@pytest.mark.parametrize("seed", range(20))
def test_order_and_balance_survive_random_use(seed: int) -> None:
    rng = random.Random(seed)
    root, nodes = tree_of()
    for _ in range(300):
        if nodes and rng.random() < 0.45:
            rb_erase(nodes.pop(rng.choice(sorted(nodes))), root)
        else:
            key = rng.randrange(1, 10_000)
            if key not in nodes:
                nodes[key] = insert(root, key)
        assert rb_faults(root) == []
    assert [node.key for node in rb_walk(root)] == sorted(nodes)


def test_faults_are_found() -> None:
    root, nodes = tree_of(1, 2, 3, 4, 5, 6, 7)
    nodes[1].red = True
    nodes[6].red = True
    nodes[7].parent = nodes[1]
    assert len(rb_faults(root)) >= 3
