"""The state of one simulated machine as arrays: what each holds, its dtype and sentinels, and the one place that allocates.

Nothing here changes state; the kernels do. No Python object exists per page.
"""

import math
from collections.abc import Sequence
from enum import IntEnum
from itertools import accumulate
from typing import NamedTuple

import numpy as np

from ksmbatch import prefault
from ksmbatch.metrics import Counter, NodeCounter

# np.int64, not int: numba compiles a function anew for every literal that is passed to it
NO_FRAME = np.int64(-1)  # FRAME: nothing mapped, or the zero page (see PAGE_FLAGS); nodes[:, KPFN]: the frame is gone (stale)
NIL = np.int64(0)  # no stable node, no member, no tree node: slot 0 of every pool stays unused
FOREVER = 2**62  # nanoseconds: no limit of time
NO_MM = np.int64(-1)  # scan[CUR_MM]: no scan in progress; MmLayout.parent: not forked

# PAGE_FLAGS: what the page table and the VMA say about a virtual page
MAPPED = 1  # inside a VMA (not munmapped)
MERGEABLE = 2  # VM_MERGEABLE
ANON = 4  # the VMA has an anon_vma, i.e. was written once
ZERO = 8  # the pte maps the kernel's zero page
ZERO_BY_KSM = 16  # ... and ksmd put it there
PROT_NONE = 32  # the VMA allows no access
SEEN = 64  # found by the rmap walk that is under way

# ITEM_FLAGS: the rmap_item of a page
ITEM = 1  # there is an rmap_item
STABLE = 2  # it hangs in a stable node: HEAD is its member
UNSTABLE = 4  # it was put into an unstable tree ...
PARITY = 8  # ... in a scan with odd seqnr (an item is passed in every scan, so one bit tells this scan from the last)
LINKED = 16  # it hangs in an unstable tree that the kernel forgot to reset
FREED = 32  # ... and the rmap_item that hung there was freed: walking over it is a use after free
ERASED = 64  # was in the unstable tree that is being built
LEADS = 128  # it is one of the first two in a line (see kernels/lines.py), and HEAD is its member there

# FRAME_FLAGS
KSM = 1  # PageKsm
DANGLING = 2  # ... whose page->mapping names a stable node that policy v4 has freed

# A row of 32 bytes is what is kept of page number k, and of frame number k, which for most pages is the frame that they map:
# two rows are a cache line of the CPU. columns of pages
FRAME, CHECKSUM, HEAD = range(3)
# columns of page_bytes, which are the bytes of the same rows
PAGE_FLAGS, PAGE_NID, ITEM_FLAGS, AGE = range(12, 16)
SKIPS, ITEM_NID = range(28, 30)
# columns of frames, which are the same rows, and more
FRAME_CONTENT, MAPCOUNT, FRAME_NODE = range(4, 7)
# columns of frame_bytes, which are the bytes of those
FRAME_FLAGS, FRAME_NID = range(30, 32)
ROW_COLUMNS = 8
# columns of pfns; PFNS_BEFORE + pfn: the pfn freed before `pfn`
FREE_PFN, LAST_PFN, PFNS_BEFORE = 0, 1, 2
# columns of numa; NEAREST + k: the k-th nearest of the other nodes
NODE_PAGES, OFFLINE, NEAREST = 0, 1, 2
# rows of trees
STABLE_ROOT, STABLE_LOGGED, STABLE_HOT, STABLE_CHAINS, UNSTABLE_ROOT, UNSTABLE_EXACT, UNSTABLE_LEFTOVER = range(7)
LOOK_KNOWN, LOOK_FIRST, LOOK_END, LOOK_LOW, LOOK_HIGH, LOOK_LOWEST, LOOK_HIGHEST, UNSTABLE_CHANGED = range(7, 15)
WATCHED, WATCH_FIRST, WATCH_END, WATCH_LOW, WATCH_HIGH = range(15, 20)
OLDEST_CHAIN, NEWEST_CHAIN = range(20, 22)
TREE_ROWS = 22

# columns of stable_links and unstable_links, and of stable_links alone: the place of the content in memcmp order; 1: a walk has
# to look at what hangs there, which is a chain or stale; 1: or at something below it
LEFT, RIGHT, PARENT, BLACK, KEY, LOOK, ANY = range(7)
STABLE_LINK_COLUMNS, UNSTABLE_LINK_COLUMNS = 8, 5
LOG_COLUMNS = 4  # numbers of an entry of unstable_log
# columns of by_content
STABLE_AT, UNSTABLE_AT, HOLDERS, RESTING = range(4)
CONTENT_COLUMNS = 4
# columns of nodes (stable nodes)
CONTENT, KPFN, LEN, FIRST, NID, WHERE, CHAIN, NEXT, PREV = range(9)
# of chains only: whether the next walk over it changes nothing, and what that finds; dups that are stale, and that have room
SETTLED, FOUND, STALE_DUPS, ROOMY_DUPS = range(9, 13)
# and their list, in the order in which they were pruned last
OLDER, NEWER = range(13, 15)
# and in columns that chains have no use for: the dup before which none has room; the most pages that one with room may have (0:
# not known); the dup before which none with room has so many. Instead of a dup NIL: the first
ROOM_FROM, TOP, TOP_FROM = CHAIN, PREV, NEXT
# of dups only: falls from the first of the list to the last
STAMP, LAST_STAMP = ROOMY_DUPS, np.int64(2**31 - 1)
# of nodes that are no chains: members that have left their hlist, but are still in it
N_LEFT = 15
NODE_COLUMNS = 16  # a cache line of the CPU
# the same columns, of nodes that are no chains: of stale ones, the NUMA node that had the frame; of live ones, what the call of
# moving pages that is under way (scan[MOVE_CALL]) has found out: the node where most mappings are at home, and in which call
# that was; in which call the rmap walk has missed a mapping
LAST_NID, HOME, HOME_CALL, STUCK_CALL = FOUND, FOUND, SETTLED, STALE_DUPS
# of nodes that are still to be (WHERE is PLANNED), and of those that were: the first two pages that will be merged, + 1; where
# the frame of the second is, which will be the KSM page; the line made before this one, -1 if none was (NIL: it is no line);
# the one before of the same content
LEADER, SECOND, KNID, LINE_MADE_BEFORE, LINE_BEFORE = SETTLED, FOUND, STALE_DUPS, OLDER, NEWER
# of planned ones alone: 1: a leader was written
UNLED = CHAIN

# nodes[:, SETTLED]
UNSETTLED, SETTLED_UNPRUNED, SETTLED_PRUNED = (
    np.int64(0),
    np.int64(1),
    np.int64(2),
)  # FOUND is what a walk finds that does not prune, or that does
STABLE_NODE_CHAIN = -1024  # nodes[:, LEN] of a chain, as rmap_hlist_len in mm/ksm.c

# nodes[:, WHERE]
FREE, IN_TREE, IN_CHAIN, IN_MIGRATE, PLANNED = 0, 1, 2, 3, 4

# columns of members: one rmap_item in the hlist of a stable node
MEMBER_PAGE, MEMBER_NODE, MEMBER_NEXT = range(3)
MEMBER_COLUMNS = 3

# columns of mms
(
    FIRST_PAGE,
    END_PAGE,
    USERS,
    REGISTERED,
    SLOT_NEXT,
    SLOT_PREV,
    MERGING,
    ITEMS,
    LIST_ITEMS,
    ZERO_PAGES,
    MERGEABLE_VMAS,
    MERGE_ANY,
    PASSED,  # number of the scan that passed it last, or is passing it
    AT_PLACE,  # of row k: the mm that the present scan came to as its k-th
) = range(14)
MM_COLUMNS = 14

# rows of `due`
DUE_PAGE, DUE_FRAME, DUE_NODE, SEARCHER = range(4)
DUE_ROWS = 4

# pages at rest (see kernels/resting.py, kernels/cohorts.py)
PAGES_PER_BLOCK = np.int64(4096)
PAGES_PER_WORD = np.int64(32)
SCANS_AHEAD = np.int64(10)  # smart_scan passes a page by for 8 scans at most


class Knob(IntEnum):
    """Index into `knobs`: the files of /sys/kernel/mm/ksm, the kernel's release, and nanoseconds of ksmd's CPU time."""

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
    WAKEUP_NS = 10
    SKIP_NS = 11
    KSM_VISIT_NS = 12
    CHECKSUM_NS = 13
    SEARCH_NS = 14
    MERGE_NS = 15
    ZERO_MERGE_NS = 16
    POLICY = 17  # ours: codes.Policy
    CALLERS = 18  # ours: who may move KSM pages, a mask of 1 << codes.Caller
    MOVE_NS = 19
    COPY_NS = 20
    REMAP_NS = 21
    COW_NS = 22
    TREE_NS = 23


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
    LOG_END = 14  # entries of unstable_log
    FAULT_PAGE = 15  # page whose freed rmap_item a walk met
    EXACT = 16  # this visit walked a tree
    VISIT = 17  # what the present visit turned out to be, or that a page was skipped, or ksmd woke: the knob with its cost
    OUT_OF_MEMORY = 18  # a frame was taken from a node that had none left
    REMOTE_UNKNOWN = 19  # frames moved whose mappings nobody looked for: REMOTE_MAPPINGS must be recounted
    MOVE_CALL = 20  # number of the present or last call that moves pages
    SEQ = 21  # number of the present or last scan; FULL_SCANS, but never reset
    PLACES = 22  # mms that it has come to
    REGION_END = 23  # the cursor is in the pages up to here, of one block; 0: between two such regions
    CAREFUL = 24  # 1: it passes them one by one, as a limit of time or batches may be met among them
    PASSED_TO = 25  # pages at rest before this one have been counted; of those behind it are still to be:
    PENDING_MERGED = 26  # KSM pages in place
    PENDING_VISITS = 27  # pages that search for partners in vain
    PENDING_SKIPS = 28  # pages skipped
    PENDING_WAS = 29  # of both, those that were in the unstable tree
    N_DUE = 30  # pages of the open region that are listed in `due`
    NEXT_DUE = 31  # those before this one have been visited
    HINTED = 32  # ... and of those the CPU was told
    NEWLY_DUE = 33  # 1: more pages of the region have become due since they were listed
    LOOKED_IN_VAIN = 34  # pages at rest that were looked at for nothing, less what it cost to look whole blocks through
    LATEST_NS = 35  # the time will not be later than that at the end of the open region; FOREVER: nobody knows, or none is open
    LAST_MM = 36  # an mm whose pages were asked for last
    WATCH = 37  # how often other contents came to be watched for
    N_SEARCHERS = 38  # cohorts listed in `due` of which pages of the open region search; -1: not listed yet
    PENDING_GATES = 39  # of PENDING_VISITS those that the checksum gate stops
    PENDING_JOINS = 40  # pages in line
    LINES_SEQ = 41  # the scan in which the pages in line were looked at first; the next one merges them; 0: nobody is in line
    LAST_LINE = 42  # the line made last
    N_JOINED = 43  # pages of cohort JOINED
    NEXT_WATCHED = 44  # pages of the open region from the cursor to before this one are not in `watch`; -1: nobody has looked
    LINES_LEFT = 45  # 1: pages have left lines of contents that have several, or leaders were written
    SEVERAL_FIRST = 46  # contents before this one have one line at most
    SEVERAL_END = 47  # and so have this one and those behind it


class State(NamedTuple):
    """All arrays of one machine, one row per thing, so that a visit touches few cache lines.

    n_pages counts the virtual pages of all mms that will ever live, mm after mm in address order; n_frames is 2 * n_pages + 2.
    numba's time to compile a function grows with every array in here: a new field becomes a column where it can.
    """

    pages: np.ndarray
    """int32[n_pages, 8]. FRAME: what the page maps; NO_FRAME. CHECKSUM: content id at ksmd's last look (oldchecksum); -1: none
    yet. HEAD: member in its stable node, if STABLE. The rest is of `page_bytes` and `frames`."""
    page_bytes: np.ndarray
    """uint8[n_pages, 32], the same memory as `pages`. PAGE_FLAGS: MAPPED ... PROT_NONE. PAGE_NID: node that the VMA's memory
    policy names. ITEM_FLAGS: ITEM ... ERASED. AGE, SKIPS: of smart_scan (age, remaining_skips). ITEM_NID: unstable tree in
    which the rmap_item is."""
    frames: np.ndarray
    """int32[n_frames, 8], of which the first n_pages rows are those of `pages`. FRAME_CONTENT: content id; of a free spare
    frame the next free one. MAPCOUNT: mappings; 0: free. FRAME_NODE: stable node of a KSM page; NIL. The rest is of
    `frame_bytes`. Frame number p < n_pages is page p's own, the others are spare."""
    frame_bytes: np.ndarray
    """uint8[n_frames, 32], the same memory as `frames`. FRAME_FLAGS: KSM, DANGLING. FRAME_NID: NUMA node."""
    frame_pfns: np.ndarray
    """int32[n_frames]: the page frame number of each frame, see `pfns`; int32[0] where these are not kept."""
    pfns: np.ndarray
    """int32[n_nids, pfns + 3] or int32[n_nids, 0]: page frame numbers per node from 1 on, as stacks: the last freed is first
    taken, as in Linux's per-CPU lists. FREE_PFN, LAST_PFN: top of the stack, the largest used. Kept where they show: in
    recordings, where one may return within a step, and where somebody wants certain frames."""
    numa: np.ndarray
    """int32[n_nids, 2 + n_nids]. NODE_PAGES: frames of the node; 0: as many as needed. OFFLINE: 1: none to be had. NEAREST."""
    members: np.ndarray
    """int32[n_members, 3]: the hlists of stable nodes. MEMBER_PAGE: -1: it has left, see kernels/members.py."""
    nodes: np.ndarray
    """int32[n_nodes, 16]: stable nodes, which are chains, dups in chains, or plain."""
    node_prune_time: np.ndarray
    """int64[n_nodes]: chain_prune_time, jiffies."""
    trees: np.ndarray
    """int32[22, n_nids], per node. STABLE_ROOT: content + 1. STABLE_LOGGED: entries of stable_log. STABLE_HOT: nodes of the
    stable tree that a walk would change (stale ones, unsettled chains). STABLE_CHAINS. UNSTABLE_ROOT: page + 1.
    LOOK_KNOWN: 1: of the contents held once, only those from LOOK_FIRST to before LOOK_END are searched for past something
    with LOOK, and of those held twice, those between LOOK_LOW and LOOK_HIGH; LOOK_LOWEST, LOOK_HIGHEST: contents with LOOK,
    above which there is none. UNSTABLE_EXACT: 1: the unstable tree's shape is
    built and followed. UNSTABLE_LEFTOVER: 1: the kernel forgot to reset the tree; 2: and freed all its rmap_items.
    UNSTABLE_CHANGED: pages in the unstable tree that were written, while its shape is not built yet. WATCHED: 1: of the pages
    at rest that search this tree, `watch` has those with contents from WATCH_FIRST to before WATCH_END, or held twice and
    between WATCH_LOW and WATCH_HIGH. OLDEST_CHAIN, NEWEST_CHAIN: the ends of the list of the stable tree's chains."""
    by_content: np.ndarray
    """int32[n_nids, n_dup, 4]: what each tree's node has of a content. STABLE_AT: the stable tree's node, plain or a chain.
    UNSTABLE_AT: page + 1 put last into the unstable tree; holds if its rmap_item says so. HOLDERS: frames that are no KSM
    pages. RESTING: page + 1 at rest that alone has it; minus the stable node that pages in line are going to join; 0."""
    stable_links: np.ndarray
    """int32[n_nids, n_dup + 1, 8]: the stable trees' shape, by content + 1, as it was before what stable_log says, with all
    that a walk needs at every step: half a cache line of the CPU."""
    stable_log: np.ndarray
    """int32[n_nids, 2 * n_dup + 2]: insertions (content + 1) and erasures (-content - 1) that the shape still lacks."""
    stable_index: np.ndarray
    """uint32[n_nids, index_words(n_dup)]: a bit per content, whether it is in the stable trees' shape; behind these words a bit
    per word, whether it is not 0; and so on until one word is left."""
    unstable_links: np.ndarray
    """int32[n_pages + 1, 5]: the unstable trees' shape, while it can be observed. KEY: content of the page when it is built."""
    unstable_log: np.ndarray
    """int32[4 * n_pages + 8]: what happened to pages in the unstable trees in this scan, by four: the page, how many mms the
    scan had come to by then, the cursor, and the content written; -1: it was taken out again."""
    cohort: np.ndarray
    """uint8[n_pages]: of a page at rest the cohort, 0: awake. See kernels/cohorts.py."""
    calendar: np.ndarray
    """uint32[SCANS_AHEAD, words]: bit `page` of row `scan` modulo SCANS_AHEAD: that scan has to visit the page."""
    gated: np.ndarray
    """uint32[2, words]: bit `page` of row `scan` modulo 2: of a page at rest that was visited in that scan, but, other than its
    cohort has it, is in no unstable tree since; kept for the present scan and the last."""
    changed: np.ndarray
    """uint32[words]: bit `page`: a page at rest, but no KSM page, with another content than at ksmd's last look. Of all others
    that rest CHECKSUM may be out of date: it is the content that they have."""
    watch: np.ndarray
    """uint32[words]: bit `page`: a page at rest that may have to be visited for what its searches would meet, see
    kernels/looking.py; the bit may outlast its reason."""
    watch_of_block: np.ndarray
    """int32[blocks]: for which contents the pages of each block were looked through for `watch` last: scan[WATCH] at the
    time."""
    cohorts: np.ndarray
    """int16[1 + blocks, 256]: row 0: what the pass of a page of each cohort comes to in the present scan; row 1 + k: pages
    at rest in block k, by cohort."""
    mms: np.ndarray
    """int64[n_mms, 14]."""
    rank: np.ndarray
    """uint32[n_contents]: place of a content in memcmp order."""
    checksum_class: np.ndarray
    """int32[n_contents]: smallest content with the same checksum; int32[0]: all differ."""
    knobs: np.ndarray
    """int64[len(Knob)]: sysfs knobs and the table of costs."""
    scan: np.ndarray
    """int64[len(Scan)]."""
    due: np.ndarray
    """int32[4, PAGES_PER_BLOCK]: DUE_PAGE: the pages of the open region that this scan visits, ascending. DUE_FRAME, DUE_NODE:
    for hints to the CPU, see kernels/hints.py. SEARCHER: cohorts of which pages of the region search in this scan."""
    counters: np.ndarray
    """int64[len(Counter)]."""
    node_counters: np.ndarray
    """int64[n_nids, len(NodeCounter)]."""
    table: np.ndarray
    """int64[...]: where each of the arrays above begins in memory, and its shape, see ARRAYS; made by `tabled()`."""


class AnonVmas(NamedTuple):
    """Which VMA is linked to which anon_vma, for the rmap walk. Without any fork all arrays are empty."""

    page_anon_vma: np.ndarray  # int32[n_pages]     number of the anon_vma of the page's VMA, also of one that is gone; 0: none
    page_chain: np.ndarray  # int32[n_pages]        number of the anon_vma_chain of the page's VMA; 0: the empty one
    chain_start: np.ndarray  # int32[n_chains + 1]  where each chain begins in ...
    chain_anon_vma: np.ndarray  # int32[...]        numbers of anon_vmas


# dtype and extents of each array, of which None differs from machine to machine, and where `table` has its address, with its
# extents behind that
_KINDS: dict[str, tuple[type, tuple[int | None, ...]]] = {
    "pages": (np.int32, (None, ROW_COLUMNS)),
    "page_bytes": (np.uint8, (None, 4 * ROW_COLUMNS)),
    "frames": (np.int32, (None, ROW_COLUMNS)),
    "frame_bytes": (np.uint8, (None, 4 * ROW_COLUMNS)),
    "frame_pfns": (np.int32, (None,)),
    "pfns": (np.int32, (None, None)),
    "numa": (np.int32, (None, None)),
    "members": (np.int32, (None, MEMBER_COLUMNS)),
    "nodes": (np.int32, (None, NODE_COLUMNS)),
    "node_prune_time": (np.int64, (None,)),
    "trees": (np.int32, (TREE_ROWS, None)),
    "by_content": (np.int32, (None, None, CONTENT_COLUMNS)),
    "stable_links": (np.int32, (None, None, STABLE_LINK_COLUMNS)),
    "stable_log": (np.int32, (None, None)),
    "stable_index": (np.uint32, (None, None)),
    "unstable_links": (np.int32, (None, UNSTABLE_LINK_COLUMNS)),
    "unstable_log": (np.int32, (None,)),
    "cohort": (np.uint8, (None,)),
    "calendar": (np.uint32, (int(SCANS_AHEAD), None)),
    "gated": (np.uint32, (2, None)),
    "changed": (np.uint32, (None,)),
    "watch": (np.uint32, (None,)),
    "watch_of_block": (np.int32, (None,)),
    "cohorts": (np.int16, (None, 256)),
    "mms": (np.int64, (None, MM_COLUMNS)),
    "rank": (np.uint32, (None,)),
    "checksum_class": (np.int32, (None,)),
    "knobs": (np.int64, (len(Knob),)),
    "scan": (np.int64, (len(Scan),)),
    "due": (np.int32, (DUE_ROWS, int(PAGES_PER_BLOCK))),
    "counters": (np.int64, (len(Counter),)),
    "node_counters": (np.int64, (None, len(NodeCounter))),
}
_PLACES = accumulate((1 + len(extents) for _, extents in _KINDS.values()), initial=0)
ARRAYS = {name: (*kind, place) for (name, kind), place in zip(_KINDS.items(), _PLACES, strict=False)}
SAME_MEMORY = {"page_bytes": "pages", "frames": "pages", "frame_bytes": "pages"}


def tabled(state: State) -> State:
    """`state` with the table that belongs to its arrays. Raises TypeError if one is not as ARRAYS says."""
    table = list[int]()
    for name, (dtype, extents) in _KINDS.items():
        array = getattr(state, name)
        fits = array.ndim == len(extents) and all(n in (None, m) for n, m in zip(extents, array.shape, strict=True))
        if array.dtype != dtype or not fits or not array.flags.c_contiguous:
            raise TypeError(f"{name} must be a contiguous {np.dtype(dtype)} array of extents {extents}")
        table += [array.ctypes.data, *array.shape]
    return state._replace(table=np.array(table, np.int64))


# room for this many stable nodes and members must be left before a visit begins (Status.GROW otherwise)
SPARE_NODES, SPARE_MEMBERS = 4, 4
CACHE_LINE = 64  # bytes


def index_words(n_dup: int) -> int:
    """Words of 32 bits in a row of `stable_index`, of all levels."""
    words = -(-n_dup // 32)
    return words if words <= 1 else words + index_words(words)


def aligned_zeros(dtype: type, *shape: int) -> np.ndarray:
    """As np.zeros(), but beginning with a cache line of the CPU."""
    n_bytes = math.prod(shape) * np.dtype(dtype).itemsize
    room = np.zeros(n_bytes + CACHE_LINE, np.uint8)
    start = -room.ctypes.data % CACHE_LINE
    return room[start : start + n_bytes].view(dtype).reshape(shape)


def allocate(
    *,
    n_pages: int,
    n_mms: int,
    n_nids: int,
    n_dup: int,
    rank: np.ndarray,
    checksum_class: np.ndarray | None,
    keep_pfns: bool = False,
    n_nodes: int | None = None,
    n_members: int | None = None,
    node_pages: int = 0,
    distance: Sequence[Sequence[int]] | None = None,
) -> State:
    """A machine with no mm, no page mapped and all knobs 0. `distance`: of node to node; None: to all others the same.

    Large arrays are zeroed by the operating system, so that what is never used costs address space but no memory.
    """
    n_frames = 2 * n_pages + 2
    if n_nodes is None:
        n_nodes = 1024 + 2 * n_nids * n_dup + n_pages // 128  # more than most runs need: growing copies all there are
    if n_members is None:
        n_members = n_pages + 2 * SPARE_MEMBERS  # a page is in one stable node at most; those that left may make it grow

    def zeros(dtype: type, *shape: int) -> np.ndarray:
        return np.zeros([max(extent, 1) for extent in shape], dtype)

    scan = zeros(np.int64, len(Scan))
    scan[[Scan.CUR_MM, Scan.SLOT_FIRST, Scan.SLOT_LAST]] = NO_MM
    scan[Scan.LATEST_NS] = FOREVER
    scan[[Scan.NEXT_NODE, Scan.NEXT_MEMBER]] = 1
    scan[Scan.FREE_FRAME] = NO_FRAME
    scan[Scan.NEXT_FRAME] = n_pages
    mms = zeros(np.int64, n_mms, MM_COLUMNS)
    mms[:, [SLOT_NEXT, SLOT_PREV]] = NO_MM
    numa = zeros(np.int32, n_nids, NEAREST + n_nids)
    numa[:, NODE_PAGES] = node_pages
    for nid in range(n_nids):
        others = [other for other in range(n_nids) if other != nid]
        numa[nid, NEAREST : NEAREST + len(others)] = sorted(others, key=lambda other: distance[nid][other] if distance else 0)
    frames = aligned_zeros(np.int32, n_frames, ROW_COLUMNS)
    pages = frames[: max(n_pages, 1)]
    prefault.at_once(pages)
    pages[:, FRAME] = NO_FRAME
    state = State(
        pages=pages,
        page_bytes=pages.view(np.uint8),
        frames=frames,
        frame_bytes=frames.view(np.uint8),
        frame_pfns=np.zeros(n_frames if keep_pfns else 0, np.int32),
        pfns=np.zeros((n_nids, max(n_pages, node_pages) + 4 if keep_pfns else 0), np.int32),
        numa=numa,
        members=zeros(np.int32, n_members, MEMBER_COLUMNS),
        nodes=aligned_zeros(np.int32, n_nodes, NODE_COLUMNS),
        node_prune_time=zeros(np.int64, n_nodes),
        trees=zeros(np.int32, TREE_ROWS, n_nids),
        by_content=zeros(np.int32, n_nids, n_dup, CONTENT_COLUMNS),
        stable_links=aligned_zeros(np.int32, n_nids, n_dup + 1, STABLE_LINK_COLUMNS),
        stable_log=zeros(np.int32, n_nids, 2 * n_dup + 2),
        stable_index=zeros(np.uint32, n_nids, index_words(n_dup)),
        unstable_links=zeros(np.int32, n_pages + 1, UNSTABLE_LINK_COLUMNS),
        unstable_log=zeros(np.int32, LOG_COLUMNS * (n_pages + 2)),
        cohort=zeros(np.uint8, n_pages),
        calendar=zeros(np.uint32, int(SCANS_AHEAD), n_pages // int(PAGES_PER_WORD) + 1),
        gated=zeros(np.uint32, 2, n_pages // int(PAGES_PER_WORD) + 1),
        changed=zeros(np.uint32, n_pages // int(PAGES_PER_WORD) + 1),
        watch=zeros(np.uint32, n_pages // int(PAGES_PER_WORD) + 1),
        watch_of_block=zeros(np.int32, n_pages // int(PAGES_PER_BLOCK) + 1),
        cohorts=zeros(np.int16, 2 + n_pages // int(PAGES_PER_BLOCK), 256),
        mms=mms,
        rank=np.ascontiguousarray(rank, np.uint32),
        checksum_class=np.zeros(0, np.int32) if checksum_class is None else np.ascontiguousarray(checksum_class, np.int32),
        knobs=zeros(np.int64, len(Knob)),
        scan=scan,
        due=zeros(np.int32, DUE_ROWS, int(PAGES_PER_BLOCK)),
        counters=zeros(np.int64, len(Counter)),
        node_counters=zeros(np.int64, n_nids, len(NodeCounter)),
        table=zeros(np.int64, 1),
    )
    return tabled(state)


def grow(state: State) -> State:
    """The same machine with pools of stable nodes and members at least twice what they hold; everything else is shared."""

    def enlarged(pool: np.ndarray, used: int) -> np.ndarray:
        if used * 2 < len(pool):
            return pool
        larger = aligned_zeros(pool.dtype.type, 2 * len(pool), *pool.shape[1:])
        larger[: len(pool)] = pool
        return larger

    nodes = enlarged(state.nodes, int(state.scan[Scan.NEXT_NODE]))
    prune_time = np.zeros(len(nodes), np.int64)
    prune_time[: len(state.node_prune_time)] = state.node_prune_time
    members = enlarged(state.members, int(state.scan[Scan.NEXT_MEMBER]))
    return tabled(state._replace(nodes=nodes, node_prune_time=prune_time, members=members))
