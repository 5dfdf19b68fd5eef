"""The state of one simulated machine as arrays: what each holds, its dtype and sentinels, and the one place that allocates.

Nothing here changes state; the kernels do. No Python object exists per page.
"""

from enum import IntEnum
from typing import NamedTuple

import numpy as np

from ksmbatch.metrics import Counter, NodeCounter

NO_FRAME = -1  # page_frame: nothing mapped, or the zero page (see page_flags); nodes[:, KPFN]: the frame is gone (stale)
NIL = 0  # no stable node, no member, no tree node: slot 0 of every pool stays unused
FOREVER = 2**62  # nanoseconds: no limit of time
NO_MM = -1  # scan[CUR_MM]: no scan in progress; mms[:, PARENT_MM]: not forked

# page_flags: what the page table and the VMA say about a virtual page
MAPPED = 1  # inside a VMA (not munmapped)
MERGEABLE = 2  # VM_MERGEABLE
ANON = 4  # the VMA has an anon_vma, i.e. was written once
ZERO = 8  # the pte maps the kernel's zero page
ZERO_BY_KSM = 16  # ... and ksmd put it there
INHERITED = 32  # the VMA is linked to the anon_vma of the forking parent's VMA; survives munmap and exit
PROT_NONE = 64  # the VMA allows no access

# item_flags: the rmap_item of a page
ITEM = 1  # there is an rmap_item
STABLE = 2  # it hangs in a stable node: item_head is its member
UNSTABLE = 4  # it was put into an unstable tree ...
PARITY = 8  # ... in a scan with odd seqnr (an item is passed in every scan, so one bit tells this scan from the last)
LINKED = 16  # it hangs in an unstable tree that the kernel forgot to reset
FREED = 32  # ... and the rmap_item that hung there was freed: walking over it is a use after free

KSM = 1  # frame_flags: PageKsm

# columns of nodes (stable nodes) and, for the first four, of unstable_links
LEFT, RIGHT, PARENT, BLACK = 0, 1, 2, 3
RANK, CONTENT, KPFN, LEN, FIRST, NID, WHERE, CHAIN, NEXT, PREV, SETTLED, STALE_DUPS = range(4, 16)
NODE_COLUMNS = 16
STABLE_NODE_CHAIN = -1024  # nodes[:, LEN] of a chain, as rmap_hlist_len in mm/ksm.c

# nodes[:, WHERE]
FREE, IN_TREE, IN_CHAIN, IN_MIGRATE = 0, 1, 2, 3

# columns of members: one rmap_item in the hlist of a stable node
MEMBER_PAGE, MEMBER_NODE, MEMBER_NEXT, MEMBER_PREV = range(4)

# columns of mms
(FIRST_PAGE, END_PAGE, USERS, REGISTERED, SLOT_NEXT, SLOT_PREV, MERGING, ITEMS, LIST_ITEMS, ZERO_PAGES, MERGEABLE_VMAS, PARENT_MM) = (
    range(12)
)
MM_COLUMNS = 12


class Knob(IntEnum):
    """Index into `knobs`: the files of /sys/kernel/mm/ksm and the kernel's release."""

    MERGE_ACROSS_NODES = 0
    MAX_PAGE_SHARING = 1
    USE_ZERO_PAGES = 2
    SMART_SCAN = 3
    PAGES_TO_SCAN = 4
    SLEEP_MILLISECS = 5
    STABLE_NODE_CHAINS_PRUNE_MILLISECS = 6
    RUN = 7
    KERNEL = 8
    FORCE_EXACT = 9  # ours: walk every tree, so that tests can hold the look-ups against the walks


class Scan(IntEnum):
    """Index into `scan`: struct ksm_scan, and heads of free lists."""

    CUR_MM = 0  # mm under the cursor, NO_MM between scans
    CUR_PAGE = 1  # next page to look at
    MOVED = 2  # ksm_scan.address is not 0
    BUDGET = 3  # pages left in the running batch; 0: ksmd sleeps
    WAKE_NS = 4  # when it wakes
    SLOT_FIRST = 5  # mm_slot list
    SLOT_LAST = 6
    MIGRATE_FIRST = 7  # migrate_nodes
    FREE_NODE = 8
    NEXT_NODE = 9
    FREE_MEMBER = 10
    NEXT_MEMBER = 11
    FREE_FRAME = 12  # spare frames; a page's own frame has the page's number
    NEXT_FRAME = 13
    LOG_END = 14
    FAULT_PAGE = 15  # page whose freed rmap_item a walk met
    EXACT = 16  # this visit walked a tree
    VISIT = 17  # what the present visit turned out to be: index into costs


class Cost(IntEnum):
    """Index into `costs`: nanoseconds of ksmd's CPU time."""

    WAKEUP = 0
    SKIP = 1
    KSM_VISIT = 2
    CHECKSUM = 3
    SEARCH = 4
    MERGE = 5
    ZERO_MERGE = 6


class State(NamedTuple):
    """All arrays of one machine. n_pages counts the virtual pages of all mms that will ever live, mm after mm in address order."""

    page_frame: np.ndarray  # int32[n_pages]      frame that the page maps; NO_FRAME
    page_flags: np.ndarray  # uint8[n_pages]      MAPPED ... PROT_NONE
    page_nid: np.ndarray  # uint8[n_pages]        node that the VMA's memory policy names
    frame_content: np.ndarray  # int32[2n+2]      content id; of a free spare frame: the next free one
    frame_mapcount: np.ndarray  # int32[2n+2]     mappings; 0: free. Frame number page (< n_pages) is that page's own
    frame_node: np.ndarray  # int32[2n+2]         stable node of a KSM page; NIL
    frame_flags: np.ndarray  # uint8[2n+2]        KSM
    frame_nid: np.ndarray  # uint8[2n+2]          NUMA node
    frame_generation: np.ndarray  # uint8[2n+2]   grows when the number gets a new meaning (freed, migrated)
    item_flags: np.ndarray  # uint8[n_pages]      ITEM ... FREED
    item_age: np.ndarray  # uint8[n_pages]        smart_scan: visits as a page that is not KSM
    item_skips: np.ndarray  # uint8[n_pages]      smart_scan: remaining_skips
    item_nid: np.ndarray  # uint8[n_pages]        unstable tree in which it is
    item_checksum: np.ndarray  # int32[n_pages]   content id at the last look (oldchecksum); -1: none yet
    item_head: np.ndarray  # int32[n_pages]       member, if STABLE
    members: np.ndarray  # int32[n_members, 4]    hlists of stable nodes
    nodes: np.ndarray  # int32[n_nodes, 16]       stable nodes: chains, dups and plain ones
    node_prune_time: np.ndarray  # int64[n_nodes] chain_prune_time, jiffies
    stable_root: np.ndarray  # int32[n_nids]
    stable_at: np.ndarray  # int32[n_nids, n_dup] node of a content in the tree of nid
    stable_hot: np.ndarray  # int32[n_nids]       nodes of the tree that change when a walk passes them (stale, unsettled chains)
    stable_chains: np.ndarray  # int32[n_nids]    chains in the tree
    unstable_root: np.ndarray  # int32[n_nids]    page + 1
    unstable_at: np.ndarray  # int32[n_nids, n_dup]  page + 1 last inserted with that content; valid if its item says so
    unstable_links: np.ndarray  # int32[n_pages + 1, 4]  the tree's shape, while it can be observed
    unstable_log: np.ndarray  # int32[2n+2]       insertions (page + 1) and erasures (-page - 1) of this scan, to build the shape from
    unstable_exact: np.ndarray  # uint8[n_nids]   1: the shape is built and followed
    unstable_leftover: np.ndarray  # uint8[n_nids]  1: the kernel forgot to reset this tree; 2: and freed all its items
    mms: np.ndarray  # int64[n_mms, 12]
    rank: np.ndarray  # uint32[n_contents]        place of a content in memcmp order
    checksum_class: np.ndarray  # int32[n_contents] or int32[0]  smallest content with the same checksum; empty: all differ
    knobs: np.ndarray  # int64[len(Knob)]
    scan: np.ndarray  # int64[len(Scan)]
    costs: np.ndarray  # int64[len(Cost)]
    counters: np.ndarray  # int64[len(Counter)]
    node_counters: np.ndarray  # int64[n_nids, len(NodeCounter)]


# room for this many stable nodes and members must be left before a visit begins (Status.GROW otherwise)
SPARE_NODES, SPARE_MEMBERS = 4, 4


def allocate(
    *,
    n_pages: int,
    n_mms: int,
    n_nids: int,
    n_dup: int,
    rank: np.ndarray,
    checksum_class: np.ndarray | None,
    n_nodes: int = 1024,
    n_members: int = 4096,
) -> State:
    """A machine with no mm, no page mapped and all knobs 0.

    Large arrays are zeroed by the operating system, so that what is never used costs address space but no memory.
    """
    n_frames = 2 * n_pages + 2

    def pages(dtype: type, count: int = n_pages) -> np.ndarray:
        return np.zeros(max(count, 1), dtype)

    scan = np.zeros(len(Scan), np.int64)
    for index, value in (
        (Scan.CUR_MM, NO_MM),
        (Scan.SLOT_FIRST, NO_MM),
        (Scan.SLOT_LAST, NO_MM),
        (Scan.NEXT_NODE, 1),
        (Scan.NEXT_MEMBER, 1),
        (Scan.FREE_FRAME, NO_FRAME),
        (Scan.NEXT_FRAME, n_pages),
    ):
        scan[index] = value
    mms = np.zeros((max(n_mms, 1), MM_COLUMNS), np.int64)
    mms[:, [SLOT_NEXT, SLOT_PREV, PARENT_MM]] = NO_MM
    page_frame = np.full(max(n_pages, 1), NO_FRAME, np.int32)
    return State(
        page_frame=page_frame,
        page_flags=pages(np.uint8),
        page_nid=pages(np.uint8),
        frame_content=pages(np.int32, n_frames),
        frame_mapcount=pages(np.int32, n_frames),
        frame_node=pages(np.int32, n_frames),
        frame_flags=pages(np.uint8, n_frames),
        frame_nid=pages(np.uint8, n_frames),
        frame_generation=pages(np.uint8, n_frames),
        item_flags=pages(np.uint8),
        item_age=pages(np.uint8),
        item_skips=pages(np.uint8),
        item_nid=pages(np.uint8),
        item_checksum=pages(np.int32),
        item_head=pages(np.int32),
        members=np.zeros((n_members, 4), np.int32),
        nodes=np.zeros((n_nodes, NODE_COLUMNS), np.int32),
        node_prune_time=np.zeros(n_nodes, np.int64),
        stable_root=pages(np.int32, n_nids),
        stable_at=np.zeros((n_nids, max(n_dup, 1)), np.int32),
        stable_hot=pages(np.int32, n_nids),
        stable_chains=pages(np.int32, n_nids),
        unstable_root=pages(np.int32, n_nids),
        unstable_at=np.zeros((n_nids, max(n_dup, 1)), np.int32),
        unstable_links=np.zeros((n_pages + 1, 4), np.int32),
        unstable_log=pages(np.int32, 2 * n_pages + 2),
        unstable_exact=pages(np.uint8, n_nids),
        unstable_leftover=pages(np.uint8, n_nids),
        mms=mms,
        rank=np.ascontiguousarray(rank, np.uint32),
        checksum_class=np.zeros(0, np.int32) if checksum_class is None else np.ascontiguousarray(checksum_class, np.int32),
        knobs=np.zeros(len(Knob), np.int64),
        scan=scan,
        costs=np.zeros(len(Cost), np.int64),
        counters=np.zeros(len(Counter), np.int64),
        node_counters=np.zeros((n_nids, len(NodeCounter)), np.int64),
    )


def grow(state: State) -> State:
    """The same machine with pools of stable nodes and members at least twice what they hold; everything else is shared."""

    def enlarged(pool: np.ndarray, used: int) -> np.ndarray:
        if used * 2 < len(pool):
            return pool
        larger = np.zeros((2 * len(pool), *pool.shape[1:]), pool.dtype)
        larger[: len(pool)] = pool
        return larger

    nodes = enlarged(state.nodes, int(state.scan[Scan.NEXT_NODE]))
    prune_time = np.zeros(len(nodes), np.int64)
    prune_time[: len(state.node_prune_time)] = state.node_prune_time
    members = enlarged(state.members, int(state.scan[Scan.NEXT_MEMBER]))
    return state._replace(nodes=nodes, node_prune_time=prune_time, members=members)
