"""What KSM would save on some memory, without simulating time: how much, between whom, where, at what price, or why not.

It is exact for memory that stands still (convergence.py says why); how long ksmd takes to get there, and what writes undo, a
simulation says. It reads no files and lays out nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, NamedTuple

import numpy as np

from ksmbatch.convergence import Converged, converge
from ksmbatch.duplicates import Draw, Figure, Groups, group, regroup
from ksmbatch.memory import Memory

DEFAULT_SHARING: Final = 256  # the kernel's max_page_sharing
SHARINGS: Final = (2, 16, 256, 1_000_000)  # the settings of max_page_sharing that are always shown
PAGE_BYTES: Final = 4096
ITEM_BYTES: Final = 64  # sizeof(struct ksm_rmap_item), as general_profit counts it
MATRIX_MMS: Final = 256  # more cannot be read, and take long
_BLOCK: Final = 1 << 13  # contents multiplied at a time: counts are exact in float32, and stay in the cache


class Setting(NamedTuple):
    """Knobs, and what ksmd comes to under them: counters by their sysfs names; `remote_mappings`, None if not asked for."""

    merge_across_nodes: int
    max_page_sharing: int
    use_zero_pages: int
    pages_shared: Figure
    pages_sharing: Figure
    ksm_zero_pages: int
    ksm_rmap_items: int
    stable_node_chains: Figure
    stable_node_dups: Figure
    remote_mappings: Figure | None

    @property
    def saved_pages(self) -> Figure:
        """pages_sharing and ksm_zero_pages together."""
        return self.pages_sharing.times(1, self.ksm_zero_pages)

    @property
    def general_profit(self) -> Figure:
        """Bytes: what is saved, less 64 for every rmap_item."""
        return self.saved_pages.times(PAGE_BYTES, -ITEM_BYTES * self.ksm_rmap_items)


class NodeShare(NamedTuple):
    """A NUMA node: pages bound to it; these, less frames on it, with merge_across_nodes 0 and 1; remote mappings with 1."""

    nid: int
    pages: int
    saved_apart: int
    saved_across: int
    remote_mappings: int


class Pair(NamedTuple):
    """Two mms, by their places, and the contents that both hold: pages that they save together beyond what each saves alone."""

    one: int
    other: int
    pages: int


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Estimate:
    """What KSM would save. A page of zeros is in `zero_pages` and nowhere else.

    `mms`: names. `pages`, `zero_pages`: of all. `duplicates`: pages less distinct contents. `self_pages`: pages that equal
    another of their own mm, but one of each content; `inter_pages`: what is saved beyond that because several mms hold a
    content. `forked_pages`: pages less frames: fork shares these already. By mm, int64[mms]: `mm_pages`; `mm_zero`;
    `mm_self`, as above; `mm_inter`, contents that others hold, too; `mm_alone`, those that no other holds, so that the last
    four are the first; `mm_absent`, pages that are not there; `mm_barred`, that are not mergeable. `mm_node`: the node of
    most of its frames. `top`: the setting that was asked for. `settings`: merge_across_nodes 1 and 0, each with
    use_zero_pages 0 and 1. `by_sharing`: merge_across_nodes 1 and 0 with several max_page_sharing. `nodes`: one each.
    `matrix`: int64[mms, mms], the contents that two mms hold both, on its diagonal mm_self; None for more than 256 mms.
    `fraction`: of the contents were looked at; None: all, and every Figure is exact. Else none with more than `most_left`
    pages was left to chance. `reasons`: why nothing, or not more, is saved.
    """

    mms: tuple[str, ...]
    pages: int
    zero_pages: int
    duplicates: Figure
    self_pages: Figure
    inter_pages: Figure
    forked_pages: int
    mm_pages: np.ndarray
    mm_zero: np.ndarray
    mm_self: np.ndarray
    mm_inter: np.ndarray
    mm_absent: np.ndarray
    mm_barred: np.ndarray
    mm_node: np.ndarray
    max_page_sharing: int
    top: Setting
    settings: tuple[Setting, ...]
    by_sharing: tuple[Setting, ...]
    nodes: tuple[NodeShare, ...]
    matrix: np.ndarray | None
    fraction: float | None
    most_left: int
    reasons: tuple[str, ...]

    @property
    def mm_alone(self) -> np.ndarray:
        """Contents that no other mm holds, by mm, int64[mms]."""
        alone: np.ndarray = self.mm_pages - self.mm_zero - self.mm_self - self.mm_inter
        return alone

    def setting(self, merge_across_nodes: int, use_zero_pages: int = 0) -> Setting:
        """The one of `settings` with these knobs."""
        knobs = (merge_across_nodes, use_zero_pages)
        return next(one for one in self.settings if (one.merge_across_nodes, one.use_zero_pages) == knobs)

    def pairs(self, most: int = 10) -> list[Pair]:
        """The pairs of mms that have most in common, most first; none that has nothing."""
        if self.matrix is None:
            return []
        ones, others = np.triu_indices(len(self.mms), k=1)
        common = self.matrix[ones, others]
        order = (-common).argsort(kind="stable")[:most]
        return [Pair(int(ones[k]), int(others[k]), int(common[k])) for k in order if common[k] > 0]


def estimate(
    memory: Memory,
    max_page_sharing: int = DEFAULT_SHARING,
    fraction: float | None = None,
    seed: int = 1,
    *,
    merge_across_nodes: int = 1,
) -> Estimate:
    """What KSM would save on `memory`, with these knobs and others. `fraction`: look at so many of the contents only, drawn by
    `seed`; see Draw."""
    draw = None if fraction is None or fraction >= 1 else Draw(memory.content, fraction, seed)
    groups = group(memory.content, draw)
    apart = groups if memory.node is None else regroup(groups, memory.node, memory.nodes)
    mm_zero = _zeros_by_mm(memory)
    zero_pages = int(mm_zero.sum())
    outcomes = {1: _Outcome(memory, groups, max_page_sharing), 0: _Outcome(memory, apart, max_page_sharing)}
    holders = _Holders(memory, groups)
    settings = tuple(outcomes[across].setting(across, zero, zero_pages) for across in (1, 0) for zero in (0, 1))
    sharings = sorted({*SHARINGS, max_page_sharing})
    duplicates = groups.total(groups.size - 1)
    return Estimate(
        mms=memory.mms,
        pages=memory.content.size,
        zero_pages=zero_pages,
        duplicates=duplicates,
        self_pages=groups.total(holders.within),
        inter_pages=groups.total(holders.between),
        forked_pages=0 if memory.frame is None else memory.frame.size - np.unique(memory.frame).size,
        mm_pages=np.diff(memory.start),
        mm_zero=mm_zero,
        mm_self=holders.mm_self,
        mm_inter=holders.mm_inter,
        mm_absent=memory.absent,
        mm_barred=memory.barred,
        mm_node=_main_nodes(memory),
        max_page_sharing=max_page_sharing,
        top=next(one for one in settings if one.merge_across_nodes == merge_across_nodes),
        settings=settings,
        by_sharing=tuple(
            _Outcome(memory, trees, most, placed=False).setting(across, 0, zero_pages)
            for across, trees in ((1, groups), (0, apart))
            for most in sharings
        ),
        nodes=_node_shares(memory, outcomes),
        matrix=holders.matrix(),
        fraction=None if draw is None else draw.fraction,
        most_left=0 if draw is None else draw.most_left,
        reasons=tuple(_reasons(memory, duplicates, settings)),
    )


class _Outcome:
    """What ksmd makes of the groups of all trees, with one max_page_sharing. `placed`: it is asked where frames are, too."""

    def __init__(self, memory: Memory, groups: Groups, max_page_sharing: int, *, placed: bool = True) -> None:
        self._memory = memory
        self._groups = groups
        self._most = max_page_sharing
        self._placed = placed
        self.converged: Converged = converge(groups, max_page_sharing, memory.frame, placed=placed)

    def setting(self, across: int, use_zero_pages: int, zero_pages: int) -> Setting:
        """The counters. With use_zero_pages the zeros are left to the kernel's zero page, which has no rmap_items."""
        groups, done = self._groups, self.converged
        counts = groups.content != 0 if use_zero_pages else np.ones(groups.content.size, np.bool_)
        shared = done.shared * counts
        chained = shared > 1
        return Setting(
            merge_across_nodes=across,
            max_page_sharing=self._most,
            use_zero_pages=use_zero_pages,
            pages_shared=groups.total(shared),
            pages_sharing=groups.total(done.sharing * counts),
            ksm_zero_pages=zero_pages if use_zero_pages else 0,
            ksm_rmap_items=self._memory.content.size - (zero_pages if use_zero_pages else 0),
            stable_node_chains=groups.total(chained.astype(np.int64)),
            stable_node_dups=groups.total(shared * chained),
            remote_mappings=self._remote(counts, bool(use_zero_pages)) if self._placed else None,
        )

    def _remote(self, counts: np.ndarray, use_zero_pages: bool) -> Figure:
        """Mappings of frames that are on another node than their page's area is bound to. The kernel's zero page is nowhere."""
        groups = self._groups
        before, after = self._is_remote()
        change = (after.astype(np.int64) - before[groups.page]) * counts[groups.of_page]
        if use_zero_pages:
            before = before & (self._memory.content != 0)
        return groups.total(_per_group(groups, change)).times(1, int(np.count_nonzero(before)))

    def _is_remote(self) -> tuple[np.ndarray, np.ndarray]:
        """Which pages of the memory map a remote frame at first, bool[n], and which of the groups' in the end, bool[m]."""
        memory = self._memory
        if memory.node is None and memory.home is None:
            return np.zeros(memory.content.size, np.bool_), np.zeros(self._groups.page.size, np.bool_)
        node = _zeros_if_none(memory.node, memory.content.size)
        home = node if memory.home is None else memory.home
        return home != node, home[self._groups.page] != node[self.converged.owner]

    def freed_by_node(self) -> np.ndarray:
        """Frames that are free again, by node, int64[nodes]."""
        memory, groups, owner = self._memory, self._groups, self.converged.owner
        node = _zeros_if_none(memory.node, memory.content.size)[groups.page]
        if memory.frame is None:
            goes = owner != groups.page
        else:  # a frame goes once, however many pages had it
            had, has = memory.frame[groups.page], memory.frame[owner]
            goes = np.zeros(had.size, np.bool_)
            goes[np.unique(had, return_index=True)[1]] = True
            goes &= ~np.isin(had, has)
        return groups.total_by(node, goes.astype(np.int64), memory.nodes)

    def remote_by_node(self) -> np.ndarray:
        """Remote mappings by the node to which their pages are bound, int64[nodes]."""
        memory, groups = self._memory, self._groups
        home = _zeros_if_none(memory.node if memory.home is None else memory.home, memory.content.size)
        before, after = self._is_remote()
        change = groups.total_by(home[groups.page], after.astype(np.int64) - before[groups.page], memory.nodes)
        return change + np.bincount(home[before], minlength=memory.nodes)


class _Holders:
    """Which mms hold which contents; a cell is a content other than zeros in an mm."""

    def __init__(self, memory: Memory, groups: Groups) -> None:
        n_mms = len(memory.mms)
        mm = memory.start.searchsorted(groups.page, side="right") - 1
        # the pages of an mm are one run, and those of a group ascend: so do the cells
        cell = groups.of_page * n_mms + mm
        first = np.flatnonzero(np.diff(cell, prepend=-1))
        size = np.diff(first, append=cell.size)
        of_group, of_mm = np.divmod(cell[first], max(n_mms, 1))
        filled = groups.content[of_group] != 0
        of_group, of_mm, size = of_group[filled], of_mm[filled], size[filled]
        n_holders = np.bincount(of_group, minlength=groups.content.size)
        self._common = n_holders[of_group] >= 2
        self._of_group, self._of_mm, self._n_mms, self._groups = of_group, of_mm, n_mms, groups
        nonzero = groups.content != 0
        self.within = np.where(nonzero, groups.size - n_holders, 0)
        self.between = np.where(nonzero, n_holders - 1, 0)
        weight = groups.weight[of_group]
        self.mm_self = _rounded(np.bincount(of_mm, (size - 1) * weight, minlength=n_mms))
        self.mm_inter = _rounded(np.bincount(of_mm, self._common * weight, minlength=n_mms))

    def matrix(self) -> np.ndarray | None:
        """Contents that two mms hold both; on the diagonal what each saves alone."""
        n_mms = self._n_mms
        if n_mms > MATRIX_MMS:
            return None
        of_group, of_mm = self._of_group[self._common], self._of_mm[self._common]
        column = np.cumsum(np.diff(of_group, prepend=of_group[:1]) != 0)  # contents that several mms hold, numbered from 0
        n_contents = int(column[-1]) + 1 if column.size else 0
        common = np.zeros((n_mms, n_mms))
        edges = column.searchsorted(np.arange(0, n_contents + _BLOCK, _BLOCK))
        for block, (first, stop) in enumerate(pairwise(edges)):
            held = np.zeros((n_mms, _BLOCK), np.float32)
            held[of_mm[first:stop], column[first:stop] - block * _BLOCK] = 1
            counted = held.copy()
            counted[of_mm[first:stop], column[first:stop] - block * _BLOCK] = self._groups.weight[of_group[first:stop]]
            common += held @ counted.T
        matrix = _rounded(common)
        np.fill_diagonal(matrix, self.mm_self)
        return matrix


def _node_shares(memory: Memory, outcomes: dict[int, _Outcome]) -> tuple[NodeShare, ...]:
    node = _zeros_if_none(memory.node, memory.content.size)
    home = node if memory.home is None else memory.home
    bound = np.bincount(home, minlength=memory.nodes)
    frames = node if memory.frame is None else node[np.unique(memory.frame, return_index=True)[1]]
    elsewhere = bound - np.bincount(frames, minlength=memory.nodes)
    apart, across = (outcomes[key].freed_by_node() + elsewhere for key in (0, 1))
    remote = outcomes[1].remote_by_node()
    return tuple(NodeShare(nid, *map(int, row)) for nid, row in enumerate(zip(bound, apart, across, remote, strict=True)))


def _reasons(memory: Memory, duplicates: Figure, settings: Sequence[Setting]) -> list[str]:
    barred, pages = int(memory.barred.sum()), memory.content.size
    reasons = []
    saved = {setting.merge_across_nodes: setting.saved_pages.value for setting in settings if not setting.use_zero_pages}
    if pages == 0:
        reasons.append("no page is mergeable" if barred else "no page is there")
    elif duplicates.value == 0:
        reasons.append("no two pages are equal" if pages > 1 else "there is only one page")
    elif saved[1] == 0:
        reasons.append("pages that are equal are on one frame already, which fork shares")
    elif saved[0] == 0:
        reasons.append("with merge_across_nodes = 0: pages that are equal are on different nodes, one on each")
    if barred:
        what = "madvise(MADV_MERGEABLE) or prctl(PR_SET_MEMORY_MERGE) would change that"
        reasons.append(f"{barred:,} pages are there and not mergeable: {what}")
    return reasons


def _main_nodes(memory: Memory) -> np.ndarray:
    if memory.node is None:
        return np.zeros(len(memory.mms), np.int64)
    cell = memory.mm.astype(np.int64) * memory.nodes + memory.node
    count = np.bincount(cell, minlength=len(memory.mms) * memory.nodes).reshape(-1, memory.nodes)
    return np.asarray(count.argmax(axis=1))


def _zeros_by_mm(memory: Memory) -> np.ndarray:
    zeros = [np.count_nonzero(memory.content[first:stop] == 0) for first, stop in pairwise(memory.start)]
    return np.array(zeros, np.int64)


def _per_group(groups: Groups, amount: np.ndarray) -> np.ndarray:
    """Sums of `amount` ([m]) over the pages of each group, int64[g]."""
    total = np.concatenate([[0], np.cumsum(amount, dtype=np.int64)])
    return np.diff(total[groups.start])


def _rounded(values: np.ndarray) -> np.ndarray:
    whole: np.ndarray = np.rint(values).astype(np.int64)
    return whole


def _zeros_if_none(column: np.ndarray | None, n: int) -> np.ndarray:
    return np.zeros(n, np.uint8) if column is None else column
