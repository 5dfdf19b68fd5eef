"""Scenarios in which equal pages get in line and things happen to them, valid by construction: numbers in, steps out.

Every list of tuples is a scenario, and so is every sublist, so that what Hypothesis draws can be cut down. It knows neither
ksmd nor what must come of a step.
"""

from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st
from machines import Step, filled, full_scan, knob, scan, write

N_PAGES, N_CONTENTS = 12, 4  # of each process's area; contents of which there are many
MOST_PROCS = 6  # that may be started
Op = tuple[str, int, int, int]

KINDS = (
    *("write",) * 6,
    *("discard", "munmap", "read", "unmergeable", "mergeable", "protect", "rebind", "fork", "exit", "spawn"),
    *("pages_to_scan", "pages_to_scan", "sweep", "knob"),
)
SCANS = (*("scan",) * 5, "time", "full_scan")
numbers = (st.integers(0, 119),) * 3
memory = st.lists(st.tuples(st.sampled_from(KINDS), *numbers), max_size=4)  # what happens to it while ksmd sleeps
scans = st.tuples(st.sampled_from(SCANS), *numbers)
# mostly after all pages have been looked at once
FIRST_LOOK = (("pages_to_scan", 5, 0, 0), ("full_scan", 0, 0, 0))
begins = st.one_of(st.just([]), *[st.builds(lambda n: [*FIRST_LOOK, ("pages_to_scan", n, 0, 0)], st.integers(0, 5))] * 5)
rounds = st.tuples(memory, scans).map(lambda parts: [*parts[0], parts[1]])
programs = st.tuples(begins, *[rounds] * 5, st.lists(rounds, max_size=3)).map(
    lambda parts: [op for part in (*parts[:-1], *parts[-1]) for op in part]
)
contents = st.one_of(st.just(1), st.integers(0, N_CONTENTS))
fills = st.lists(st.lists(contents, min_size=N_PAGES, max_size=N_PAGES), min_size=2, max_size=3)
knobs = st.fixed_dictionaries(
    {
        "merge_across_nodes": st.integers(0, 1),
        "max_page_sharing": st.sampled_from((3, 4, 2, 5, 256)),
        "use_zero_pages": st.sampled_from((0, 0, 0, 1)),
        "smart_scan": st.integers(0, 1),
        "pages_to_scan": st.sampled_from((3, 1, 5, 10)),
        "stable_node_chains_prune_millisecs": st.sampled_from((0, 20, 60, 100_000)),
    }
)


class Draft:
    """A scenario in the making: `steps`, and after which of them ksmd runs on for so many microseconds."""

    def __init__(self, filled_with: Sequence[Sequence[int]]) -> None:
        self.steps: list[Step] = []
        self.stops: dict[int, int] = {}
        self._live: dict[str, list[bool]] = {}  # process -> which of its pages are mapped
        self._readable: dict[str, bool] = {}
        self._seen = 0
        self._single = N_CONTENTS
        for contents in filled_with:
            self._begin(contents)

    def add(self, op: Op) -> None:
        """What `op` says happens, to what is there by then."""
        kind, *numbers = op
        getattr(self, f"_{kind}")(*numbers)

    # ---- who and where

    def _name(self) -> str:
        self._seen += 1
        return f"p{self._seen}"

    def _content(self, number: int) -> int:
        """One of those that many pages have, or one that this page alone will ever have."""
        if number % (N_CONTENTS + 1) < N_CONTENTS:
            return number % (N_CONTENTS + 1)
        self._single += 1
        return self._single

    def _proc(self, number: int) -> str:
        return list(self._live)[number % len(self._live)]

    def _ranged(self, op: str, proc: str, where: int, **more: Any) -> range:
        first = where % N_PAGES
        count = 1 + where // N_PAGES % min(4, N_PAGES - first)
        self.steps.append({"op": op, "proc": proc, "area": "m", "first": first, "count": count, **more})
        return range(first, first + count)

    # ---- what happens

    def _begin(self, contents: Sequence[int]) -> None:
        name = self._name()
        self._live[name] = [True] * N_PAGES
        self._readable[name] = True
        self.steps += filled(list(map(self._content, contents)), node=self._seen % 2, proc=name)

    def _spawn(self, one: int, other: int, _: int) -> None:
        if self._seen < MOST_PROCS:
            self._begin([one, other] * (N_PAGES // 2))

    def _write(self, who: int, where: int, what: int) -> None:
        proc = self._proc(who)
        first = where % N_PAGES
        mapped = self._live[proc][first : first + 1 + where // N_PAGES % 3]
        contents = [self._content(what + k * who) if there else None for k, there in enumerate(mapped)]
        self.steps.append(write("m", *contents, first=first, proc=proc))

    def _scan(self, batches: int, _1: int, _2: int) -> None:
        self.steps.append(scan(1 + batches % 4))

    def _time(self, ms: int, us: int, _: int) -> None:
        self.steps.append(scan())
        self.stops[len(self.steps) - 1] = ms * 500 + us * 7

    def _full_scan(self, _0: int, _1: int, _2: int) -> None:
        self.steps.append(full_scan())

    def _discard(self, who: int, where: int, _: int) -> None:
        self._ranged("discard", self._proc(who), where)

    def _munmap(self, who: int, where: int, _: int) -> None:
        proc = self._proc(who)
        for page in self._ranged("munmap", proc, where):
            self._live[proc][page] = False

    def _read(self, who: int, where: int, _: int) -> None:
        proc = self._proc(who)
        if self._readable[proc] and all(self._live[proc]):
            self._ranged("read", proc, where)

    def _unmergeable(self, who: int, where: int, _: int) -> None:
        self._ranged("madvise", self._proc(who), where, advice="unmergeable")

    def _mergeable(self, who: int, where: int, _: int) -> None:
        self._ranged("madvise", self._proc(who), where, advice="mergeable")

    def _protect(self, who: int, how: int, _: int) -> None:
        proc = self._proc(who)
        prot = ("none", "r", "rw", "rw")[how % 4]
        self._readable[proc] = prot != "none"
        self.steps.append({"op": "mprotect", "proc": proc, "area": "m", "prot": prot})

    def _rebind(self, who: int, node: int, _: int) -> None:
        self.steps.append({"op": "rebind", "proc": self._proc(who), "area": "m", "node": node % 2})

    def _fork(self, who: int, _0: int, _1: int) -> None:
        if self._seen < MOST_PROCS:
            proc, child = self._proc(who), self._name()
            self._live[child], self._readable[child] = list(self._live[proc]), self._readable[proc]
            self.steps.append({"op": "fork", "proc": proc, "child": child})

    def _exit(self, who: int, _0: int, _1: int) -> None:
        if len(self._live) > 1:
            proc = self._proc(who)
            del self._live[proc]
            self.steps.append({"op": "exit", "proc": proc})

    def _pages_to_scan(self, number: int, _0: int, _1: int) -> None:
        self.steps.append(knob("pages_to_scan", (1, 2, 3, 5, 10, 1000)[number % 6]))

    def _sweep(self, who: int, where: int, node: int) -> None:
        """What looks at all pages."""
        if node % 2:
            self._ranged("migrate", self._proc(who), where, node=node // 2 % 2)
        else:
            self.steps.append({"op": "merge_any", "proc": self._proc(who), "value": where % 2})

    def _knob(self, which: int, value: int, _: int) -> None:
        name, values = list(CHANGED.items())[which % len(CHANGED)]
        value = values[value % len(values)]
        self.steps.append({"op": "run", "value": value} if name == "run" else knob(name, value))


CHANGED = {
    "smart_scan": (0, 1),
    "use_zero_pages": (0, 1),
    "merge_across_nodes": (0, 1),
    "run": (0, 1, 2),
}
