"""Machines whose frames are to move: KSM pages put together by hand, families of forks, and what is looked at afterwards.

It only builds and reads; what moves then do is the tests' to say.
"""

import numpy as np
from numpy.typing import NDArray
from unit.kernels.tiny import fill, tiny_state

from ksmbatch import state
from ksmbatch.codes import Caller, Kernel, Move, Policy
from ksmbatch.invariants import check_invariants
from ksmbatch.kernels import counting, fault, move_pages, rmap_item, stable_chain, stable_node, stable_tree
from ksmbatch.kernels.migrate import frame_move
from ksmbatch.metrics import Counter, NodeCounter
from ksmbatch.state import NIL, AnonVmas, State

HERE, THERE = 0, 1
NO_FORKS = AnonVmas(*(np.zeros(0, np.int32) for _ in range(4)))
PARENTS, CHILDS = 1, 2  # anon_vmas


def links(*anon_vmas: int, chains: tuple[tuple[int, ...], ...]) -> AnonVmas:
    """Of each page its VMA's anon_vma, and the anon_vmas that the VMA is linked to."""
    starts = np.cumsum([0, 0, *map(len, chains)])
    return AnonVmas(
        page_anon_vma=np.array(anon_vmas, np.int32),
        page_chain=np.arange(1, len(chains) + 1, dtype=np.int32),
        chain_start=starts.astype(np.int32),
        chain_anon_vma=np.array([anon_vma for chain in chains for anon_vma in chain], np.int32),
    )


def family(s: State) -> AnonVmas:
    """Of mm 1, forked from mm 0: its VMA is linked to the anon_vma of its parent's, and to its own."""
    n = len(s.pages) // 2
    own = (PARENTS,) * n + (CHILDS,) * n
    return links(*own, chains=((PARENTS,),) * n + ((PARENTS, CHILDS),) * n)


def fork(s: State) -> AnonVmas:
    """mm 1 becomes a child of mm 0."""
    n = len(s.pages) // 2
    s.page_bytes[n:, state.PAGE_FLAGS :] = 0
    fault.fork_pages(s, 0, 1, n)
    return family(s)


def two_homes(
    contents: tuple[int, ...] = (),
    contents_there: tuple[int, ...] = (),
    policy: Policy = Policy.MAINLINE,
    *,
    kernel: Kernel = Kernel.V6_12,
    pages_per_mm: int = 4,
    keep_pfns: bool = False,
    n_nodes: int = 32,
    n_nids: int = 2,
    node_pages: int = 0,
    **knobs: int,
) -> State:
    """mm 0 is at home on node 0 and holds `contents`, mm 1 on node 1 with `contents_there`; each node has its own trees."""
    knobs = {"merge_across_nodes": 0, "policy": policy} | knobs
    s = tiny_state(
        kernel,
        pages_per_mm=pages_per_mm,
        keep_pfns=keep_pfns,
        n_nodes=n_nodes,
        n_nids=n_nids,
        node_pages=node_pages,
        **knobs,
    )
    s.page_bytes[pages_per_mm:, state.PAGE_NID] = THERE
    fill(s, *contents)
    fill(s, *contents_there, first=pages_per_mm)
    return s


def share(s: State, *pages: int) -> int:
    """Makes one KSM page of `pages`, on the frame of the first; their rmap_items join in this order, so the last is first.

    It hangs in its node's tree, before other KSM pages of that content. Returns: its stable node.
    """
    frame = int(s.pages[pages[0], state.FRAME])
    content, nid = int(s.frames[frame, state.FRAME_CONTENT]), int(stable_tree.get_kpfn_nid(s, frame))
    stable_tree.mark_ksm(s, frame)
    node = int(stable_node.alloc_stable_node(s, content, frame, nid))
    s.frames[frame, state.FRAME_NODE] = node
    resident = int(s.by_content[nid, content, state.STABLE_AT])
    if resident == NIL:
        stable_chain.tree_insert(s, node, nid)
    else:
        if not stable_node.is_chain(s, resident):
            resident = int(stable_chain.alloc_stable_node_chain(s, resident))
        stable_chain.add_dup(s, node, resident)
    for page in pages:
        if s.pages[page, state.FRAME] != frame:
            fault.unmap_page(s, page)
            fault.map_frame(s, page, frame)
        rmap_item.get_next_rmap_item(s, page, int(fault.mm_of(s, page)))
        stable_tree.stable_tree_append(s, page, node)
    return node


def room(s: State) -> NDArray[np.int32]:
    """Room for a list of pages."""
    return np.full(len(s.pages), -1, np.int32)


def move(
    s: State, first: int, end: int, nid: int = THERE, of: AnonVmas = NO_FORKS, caller: Caller = Caller.MOVE_PAGES
) -> list[int]:
    """Moves the pages [first, end); per page a node or a `Move`."""
    status = np.zeros(end - first, np.int64)
    assert move_pages.move_pages(s, of, first, end, nid, int(caller), status, room(s)) == end
    frame_move.recount_remote_mappings(s)
    return [Move(code) if code < 0 else code for code in status.tolist()]


def unreachable(s: State, known: AnonVmas) -> int:
    """Mappings of KSM pages that no rmap_item leads to."""
    return int(counting.survey(s, known, np.zeros(s.by_content.shape[:2], np.uint8))[0])


def node_counters(s: State) -> dict[str, list[int]]:
    """NUMA nodes' counters by name."""
    return {counter.name.lower(): s.node_counters[:, counter].tolist() for counter in NodeCounter}


def counted(s: State, *names: str) -> list[int]:
    """Counters."""
    return [int(s.counters[Counter[name.upper()]]) for name in names]


def moves(s: State) -> dict[str, int]:
    """The counters of what moves came to, by name; those that are 0 are left out."""
    names = [counter for counter in Counter if Counter.CORRUPTIONS <= counter <= Counter.MIGRATE_STUCK]
    return {counter.name.lower(): int(s.counters[counter]) for counter in names if s.counters[counter]}


def chains(s: State) -> list[int]:
    """stable_node_chains, stable_node_dups."""
    return counted(s, "stable_node_chains", "stable_node_dups")


def node_at(s: State, page: int) -> int:
    """The stable node of the frame that `page` maps."""
    return int(s.frames[s.pages[page, state.FRAME], state.FRAME_NODE])


def items_of(s: State, node: int) -> list[int]:
    """The pages whose rmap_items hang in stable node `node`, in order."""
    found, member = [], int(s.nodes[node, state.FIRST])
    while member != NIL:
        if s.members[member, state.MEMBER_PAGE] >= 0:
            found.append(int(s.members[member, state.MEMBER_PAGE]))
        member = int(s.members[member, state.MEMBER_NEXT])
    assert s.nodes[node, state.LEN] == len(found)
    return found


def dups_at(s: State, nid: int, content: int) -> list[int]:
    """What hangs for `content` in the tree of `nid`: a chain's dups in order, or the plain node, or nothing."""
    node = int(s.by_content[nid, content, state.STABLE_AT])
    if node == NIL:
        return []
    if not stable_node.is_chain(s, node):
        return [node]
    found, dup = [], int(s.nodes[node, state.FIRST])
    while dup != NIL:
        found.append(dup)
        dup = int(s.nodes[dup, state.NEXT])
    return found


def free_pfns(s: State, nid: int) -> list[int]:
    """The free page frame numbers of `nid` that were used before, the next to be taken first."""
    found, pfn = [], int(s.pfns[nid, state.FREE_PFN])
    while pfn != NIL:
        found.append(pfn)
        pfn = int(s.pfns[nid, state.PFNS_BEFORE + pfn])
    return found


def nids_of(s: State, *pages: int) -> list[int]:
    """The NUMA nodes of the frames that `pages` map."""
    nids: list[int] = s.frame_bytes[s.pages[list(pages), state.FRAME], state.FRAME_NID].tolist()
    return nids


def assert_sane(s: State) -> None:
    """All rules of the state hold."""
    assert check_invariants(s) == []
