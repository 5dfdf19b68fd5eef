"""The global variables of mm/ksm.c and the objects they point to.

No behaviour beyond allocation, freeing and registration; the functions that act on it are in the modules named after their
part of mm/ksm.c.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from typing import Any, NoReturn

from .freed import OVERWRITTEN, UseAfterFree
from .kernels import Kernel
from .memory import Frame, Mm
from .numa import NumaNode
from .policies import COUNTED
from .rbtree import RbNode, RbRoot
from .vma import AnonVma

SEQNR_MASK = 0xFF
UNSTABLE_FLAG, STABLE_FLAG = 0x100, 0x200
STABLE_NODE_CHAIN = -1024
HZ = 250  # CONFIG_HZ of Debian's kernels
NSEC_PER_JIFFY = 1_000_000_000 // HZ
MAX_JIFFY_OFFSET = (2**63 - 1 >> 1) - 1


class RmapItem(RbNode):
    """struct ksm_rmap_item. Ours: `keyed` and `summed`, the contents that the page had when it was put into the unstable
    tree and when its checksum was taken."""

    __slots__ = (
        "address",
        "age",
        "anon_vma",
        "flags",
        "head",
        "keyed",
        "mm",
        "nid",
        "oldchecksum",
        "remaining_skips",
        "seqnr",
        "summed",
    )

    def __init__(self, mm: Mm, address: int) -> None:
        super().__init__()
        self.mm, self.address = mm, address
        self.flags = 0
        self.seqnr = 0  # with `flags` in the low bits of `address` in the kernel
        self.nid = 0
        self.oldchecksum = 0
        self.age = self.remaining_skips = 0
        self.anon_vma: AnonVma
        self.head: StableNode | None = None
        self.keyed: int | None = None
        self.summed: int | None = None

    def list_in(self, stable_node: StableNode) -> None:
        """Go on the stable node's list; `head` and `hlist` overlay the rb_node."""
        self.head = stable_node
        self.flags = STABLE_FLAG
        self.parent = self.child = self.red = OVERWRITTEN
        stable_node.hlist.insert(0, self)


class FreedRmapItem(RmapItem):
    """What an RmapItem turns into."""

    __slots__ = ()

    def __getattribute__(self, name: str) -> NoReturn:
        raise UseAfterFree("use after free: an unstable tree still points to an rmap_item that has been freed")


class StableNode(RbNode):
    """struct ksm_stable_node: a node of a stable tree, a dup in a chain, or the chain itself, whose `hlist` holds the dups.

    `head` says where a node is: "tree", "dup" or "migrate_nodes". `kpage` stands for kpfn.
    """

    __slots__ = ("chain", "chain_prune_time", "head", "hlist", "kpage", "nid", "rmap_hlist_len")

    def __init__(self, kpage: Frame, nid: int) -> None:
        super().__init__()
        self.kpage, self.nid = kpage, nid
        self.hlist: list[Any] = []
        self.rmap_hlist_len = 0
        self.head = "tree"
        self.chain: StableNode | None = None
        self.chain_prune_time = 0

    @property
    def is_chain(self) -> bool:
        """is_stable_node_chain()."""
        return self.rmap_hlist_len == STABLE_NODE_CHAIN


class FreedStableNode(StableNode):
    """What a StableNode turns into."""

    __slots__ = ()

    def __getattribute__(self, name: str) -> NoReturn:
        raise UseAfterFree("use after free: a stable node that has been freed")


class MmSlot:
    """struct ksm_mm_slot; `rmap_list` in ascending address order."""

    def __init__(self, mm: Mm) -> None:
        self.mm = mm
        self.rmap_list: list[RmapItem] = []


class Scan:
    """struct ksm_scan, the cursor. `mm_slot` None stands for &ksm_mm_head, `rmap_index` for the pointer into rmap_list."""

    def __init__(self) -> None:
        self.mm_slot: MmSlot | None = None
        self.address = 0
        self.rmap_index = 0
        self.seqnr = 0


class Ksm:
    """One kernel's ksmd, and the memory that it works on. `callers`: who may have KSM pages moved."""

    def __init__(
        self,
        kernel: Kernel,
        n_nodes: int,
        checksum: Callable[[int], int],
        policy: str,
        callers: Collection[str],
        node_pages: int,
    ) -> None:
        self.kernel, self.n_nodes, self.checksum = kernel, n_nodes, checksum
        self.policy, self.callers = policy, callers
        self.now_ns = 0
        self.nodes = [NumaNode(node_pages) for _ in range(n_nodes)]
        self.run = 0
        self.merge_across_nodes = 1
        self.max_page_sharing = 256
        self.use_zero_pages = 0
        self.smart_scan = 0
        self.pages_to_scan = 100
        self.stable_node_chains_prune_millisecs = 2000
        self.root_stable_tree = [RbRoot() for _ in range(n_nodes)]
        self.root_unstable_tree = [RbRoot() for _ in range(n_nodes)]
        self.trees_reset = n_nodes  # unstable trees that the running scan began with empty
        self.migrate_nodes: list[StableNode] = []
        self.mm_slots: list[MmSlot] = []
        self.scan = Scan()
        self.pages_shared = self.pages_sharing = self.pages_unshared = self.rmap_items = 0
        self.stable_node_chains = self.stable_node_dups = 0
        self.pages_scanned = self.pages_skipped = self.ksm_zero_pages = self.cow_ksm = 0
        self.counted = dict.fromkeys(COUNTED, 0)
        self.events: Counter[str] = Counter()

    @property
    def nr_node_ids(self) -> int:
        """ksm_nr_node_ids: trees in use."""
        return 1 if self.merge_across_nodes else self.n_nodes

    @property
    def jiffies(self) -> int:
        """The clock of chain pruning."""
        return self.now_ns // NSEC_PER_JIFFY

    def get_kpfn_nid(self, frame: Frame) -> int:
        """The tree that a frame belongs to."""
        return 0 if self.merge_across_nodes else frame.nid

    def alloc_rmap_item(self, mm: Mm, address: int) -> RmapItem:
        """A zeroed item, counted."""
        self.rmap_items += 1
        mm.ksm_rmap_items += 1
        return RmapItem(mm, address)

    def free_rmap_item(self, rmap_item: RmapItem) -> None:
        """Uncount it; whoever touches it from now on uses freed memory."""
        self.rmap_items -= 1
        rmap_item.mm.ksm_rmap_items -= 1
        rmap_item.__class__ = FreedRmapItem

    def ksm_enter(self, mm: Mm) -> None:
        """__ksm_enter(): just before the cursor, last in the running scan; at the end of the list while unmerging."""
        here = None if self.run == 2 else self.scan.mm_slot
        self.mm_slots.insert(len(self.mm_slots) if here is None else self.mm_slots.index(here), MmSlot(mm))
        mm.mergeable = True
        if self.scan.mm_slot is not None:
            self.events["mm registered in mid-scan"] += 1

    def ksm_fork(self, mm: Mm, oldmm: Mm) -> None:
        """The child starts with copies of the parent's counters, as with all of its mm_struct."""
        mm.ksm_zero_pages = oldmm.ksm_zero_pages
        mm.merge_any = oldmm.merge_any
        if self.kernel.fork_copies_counters or not oldmm.mergeable:
            mm.ksm_merging_pages, mm.ksm_rmap_items = oldmm.ksm_merging_pages, oldmm.ksm_rmap_items
        if oldmm.mergeable:
            self.ksm_zero_pages += mm.ksm_zero_pages
            self.ksm_enter(mm)

    def ksm_exit(self, mm: Mm) -> None:
        """__ksm_exit(): a slot without items is freed at once, another is put behind the cursor; the cursor's own stays."""
        if not mm.mergeable:
            return
        mm_slot = next((slot for slot in self.mm_slots if slot.mm is mm), None)
        if self.scan.mm_slot is not None:
            self.events["mm exits in mid-scan"] += 1
        if mm_slot is None or mm_slot is self.scan.mm_slot:
            return
        self.mm_slots.remove(mm_slot)
        if mm_slot.rmap_list:
            here = self.scan.mm_slot
            self.mm_slots.insert(0 if here is None else self.mm_slots.index(here) + 1, mm_slot)
        else:
            mm.mergeable = mm.merge_any = False


def msecs_to_jiffies(milliseconds: int) -> int:
    """Rounded up; values that are negative as int are "never"."""
    if milliseconds >= 2**31:
        return MAX_JIFFY_OFFSET
    return -(-milliseconds // (1000 // HZ))


def free_stable_node(stable_node: StableNode) -> None:
    """Whoever touches it from now on uses freed memory."""
    stable_node.__class__ = FreedStableNode
