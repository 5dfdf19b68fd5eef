"""Random scenarios with steps that no recorder takes: who asks for a page to be moved, memory that is rebound, goes and comes
back, ranges that are to be emptied, and nodes of limited size.

`fuzz.build` takes these recipes as it does its own. Whatever the kernel makes of a scenario, the host never runs out of memory:
no more pages are ever present at once than the nodes that are online have frames.
"""

import random
from dataclasses import asdict, dataclass, field
from typing import Any

from oracle.fuzz import NUMA, Draft, Op, Recipe, Step, random_recipe

CALLERS = ("hotremove", "compaction", "cma", "thp", "numa_balancing", "move_pages")
MOVES = {"twins": 4, "shuttle": 6, "crowd": 3, "rebind": 3, "offline": 3, "cma": 4, "compaction": 2, "thp": 2}
HUGE = 512
UNLIMITED, TIGHT, LOOSE, LARGE = range(4)
RANGES = ("cma", "compaction", "thp")


@dataclass(frozen=True, kw_only=True, slots=True)
class MovingRecipe(Recipe):
    """`room`: how large the nodes are: as large as need be; just enough for all pages together, or if one node is offline; or
    large enough for ranges of 512 frames."""

    room: int

    @property
    def size(self) -> int:
        """Which of these four."""
        return self.room % 4

    def draft(self) -> Draft:
        """An empty scenario, to be filled by this recipe."""
        return _MovingDraft(self)


@dataclass(slots=True)
class _MovingDraft(Draft):  # `slots` makes the class anew, of which a bare super() does not know
    recipe: MovingRecipe
    offline_node: int | None = field(default=None, init=False)

    def rounds(self) -> dict[str, int]:
        return super(_MovingDraft, self).rounds() | MOVES

    def knobs(self) -> dict[str, int]:
        """Mostly one tree per node, and room for everybody or for few."""
        across, sharing = self.recipe.knobs[:2]
        chosen = {
            "merge_across_nodes": 0 if self.recipe.profile == NUMA else int(across % 6 == 5),
            "max_page_sharing": (2, 1_000_000, 3, 256, 4, 1_000_000)[sharing % 6],
        }
        return super(_MovingDraft, self).knobs() | chosen

    def document(self, name: str) -> dict[str, Any]:
        node_pages = self.node_pages()
        placed = [_placed(step, self.recipe.nodes, node_pages) if step["op"] in RANGES else step for step in self.steps]
        self.steps = [step for step in placed if step is not None]
        limit = {"node_pages": node_pages} if node_pages else {}
        return super(_MovingDraft, self).document(name) | limit

    def node_pages(self) -> int:
        """Room for all pages that are ever there at once and two more, on all nodes or on all but one."""
        recipe, most = self.recipe, most_pages(self.steps) + 2
        some = recipe.room // 4 % 4
        if recipe.size == UNLIMITED:
            return 0
        if recipe.size == TIGHT:
            return -(-most // recipe.nodes) + some
        enough = -(-most // max(recipe.nodes - 1, 1))
        return enough + some if recipe.size == LOOSE else max(enough, HUGE + (0, 40, 90, 600)[some])

    def content(self, number: int) -> int:
        """Where nodes are small, many pages are to be the only ones of their kind, or else merging would empty the nodes."""
        if self.recipe.size == TIGHT and number % 3:
            return 100 + number % 900
        return super(_MovingDraft, self).content(number // 3 if self.recipe.size == TIGHT else number)

    # ---- operations

    def moved(self, place: tuple[str, str, int, int], op: Op) -> None:
        asked = (op[1] + 5 * op[3]) % 12
        more = {"caller": CALLERS[asked]} if asked < len(CALLERS) else {}
        self.ranged("migrate", place, node=op[4] % self.recipe.nodes, **more)

    def twins(self, op: Op) -> None:
        """Two more processes on two nodes with the same pages, which are merged."""
        for k in range(2):
            self.spawn((op[0], op[1] + k, op[2] % 4, op[3] + k, op[4] % 7))
        self.add("full_scan", count=2)

    def shuttle(self, op: Op) -> None:
        """An area moves to one node and, after ksmd has passed or not, to the next."""
        self.swap(op)
        if op[3] % 3:
            self.scan(op)
        self.swap((*op[:4], op[4] + 1))

    def crowd(self, op: Op) -> None:
        """All areas that have a page move to one node, as far as there is room, and ksmd passes."""
        for name, areas in self.live.items():
            for area, state in areas.items():
                if any(state.mapped):
                    self.ranged("migrate", (name, area, 0, state.pages), node=op[4] % self.recipe.nodes)
        self.scan(op)

    def rebind(self, op: Op) -> None:
        place = self.somewhere(op)
        if place is not None and not self.live[place[0]][place[1]].holes():
            self.add("rebind", proc=place[0], area=place[1], node=op[4] % self.recipe.nodes)

    def offline(self, op: Op) -> None:
        """A node goes, and comes back: at once where the others could not take everything, else when it is this step's turn
        again."""
        node = op[2] % self.recipe.nodes
        if self.recipe.size == TIGHT or self.recipe.nodes == 1:
            self.add("offline", node=node)
            self.add("online", node=node)
        elif self.offline_node is None:
            self.add("offline", node=node)
            self.offline_node = node
        elif op[3] % 3 == 0:
            self.add("offline", node=self.offline_node)
        else:
            self.add("online", node=self.offline_node)
            self.offline_node = None

    def cma(self, op: Op) -> None:
        self.add("cma", numbers=op)

    def compaction(self, op: Op) -> None:
        self.add("compaction", numbers=op)

    def thp(self, op: Op) -> None:
        self.add("thp", numbers=op)


def _placed(step: Step, nodes: int, node_pages: int) -> Step | None:
    """The step with a range that lies within one node, or None if no such range does."""
    op, numbers = step["op"], step["numbers"]
    if not node_pages:
        return None
    if op == "cma":
        first = numbers[2] % min(node_pages, 40)
        count = 1 + numbers[3] % min(node_pages - first, 40)
        return {"op": op, "range": [numbers[1] % nodes * node_pages + first, count]}
    runs = range(0, nodes * node_pages - HUGE + 1, HUGE)
    within = [first for first in runs if first // node_pages == (first + HUGE - 1) // node_pages]
    return {"op": op, "first": within[numbers[1] % len(within)]} if within else None


def most_pages(steps: list[Step]) -> int:
    """No more pages than this are ever present at once."""
    pages: dict[str, int] = {}
    most = 0
    for step in steps:
        if step["op"] == "spawn":
            pages[step["proc"]] = 0
        elif step["op"] == "mmap":
            pages[step["proc"]] += step["pages"]
        elif step["op"] == "fork":
            pages[step["child"]] = pages[step["proc"]]
        elif step["op"] == "exit":
            del pages[step["proc"]]
        most = max(most, sum(pages.values()))
    return most


def random_moving_recipe(rng: random.Random, merge_any: bool = False) -> MovingRecipe:
    """A recipe of everyday size, on two nodes at least."""
    recipe = random_recipe(rng, merge_any)
    numbers = {key: getattr(recipe, key) for key in asdict(recipe)} | {"nodes": max(recipe.nodes, 2)}
    return MovingRecipe(**numbers, room=rng.randrange(16))
