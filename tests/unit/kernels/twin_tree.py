"""The slow twin's red-black tree of contents, which is literal about lib/rbtree.c, to hold ours against.

It is told of everything at once, and knows nothing of logs.
"""

from reference.rbtree import RbNode, RbRoot, rb_erase, rb_insert_color, rb_link_node

from ksmbatch.state import BLACK, LEFT, NIL, PARENT, RIGHT, State


class _Node(RbNode):
    def __init__(self, content: int) -> None:
        super().__init__()
        self.content = content


class TwinTree:
    """Contents in the order of `rank`."""

    def __init__(self, rank: tuple[int, ...]) -> None:
        self.nodes: dict[int, _Node] = {}
        self._root = RbRoot()
        self._rank = rank

    def insert(self, content: int) -> None:
        node = self.nodes[content] = _Node(content)
        parent, side, place = None, 0, self._root.rb_node
        while place is not None:
            parent, side = place, int(self._rank[content] > self._rank[place.content])
            place = place.child[side]
        rb_link_node(node, parent, side, self._root)
        rb_insert_color(node, self._root)

    def erase(self, content: int) -> None:
        rb_erase(self.nodes.pop(content), self._root)

    @property
    def root(self) -> int | None:
        """The content at the root."""
        node = self._root.rb_node
        return None if node is None else node.content

    def links(self) -> dict[int, list[int]]:
        """content -> LEFT, RIGHT, PARENT (content + 1, or NIL), BLACK."""

        def row(node: _Node | None) -> int:
            return int(NIL) if node is None else node.content + 1

        return {
            content: [row(node.child[0]), row(node.child[1]), row(node.parent), int(not node.red)]
            for content, node in self.nodes.items()
        }

    def links_of(self, s: State, nid: int) -> dict[int, list[int]]:
        """What ours has in the place of links(), for the same contents."""
        columns = [LEFT, RIGHT, PARENT, BLACK]
        return {content: s.stable_links[nid, content + 1, columns].tolist() for content in self.nodes}
