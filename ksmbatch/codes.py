"""Small integer codes that config, engine and kernels share; importing this loads neither numba nor numpy.

It names things. What they mean is in the module that acts on them.
"""

from enum import IntEnum


class Kernel(IntEnum):
    """Linux releases whose ksmd is modelled; ordered by age, so `kernel >= Kernel.V6_12` reads as it should."""

    V6_1 = 601
    V6_12 = 612
    V7_2 = 702

    @property
    def word(self) -> str:
        """The name a user writes: "6.1", "6.12", "7.2"."""
        return f"{self // 100}.{self % 100}"

    @classmethod
    def parse(cls, word: str) -> "Kernel":
        """The kernel called `word`; raises KeyError if there is none."""
        return {kernel.word: kernel for kernel in cls}[word]


class Policy(IntEnum):
    """What becomes of the stable node of a KSM page that moves to another node; the config word is the name in lower case."""

    MAINLINE = 0
    V4 = 1
    MERGE_ON_MIGRATE = 2
    SUBSTITUTE = 3
    BREAK_COW = 4
    NUKSM = 5
    REPLICATE = 6

    @property
    def word(self) -> str:
        """The name a user writes: "mainline"."""
        return self.name.lower()


POLICY_DOCS = {
    Policy.MAINLINE: "leave it in the old node's tree until ksmd comes around (folio_migrate_ksm, migrate_nodes)",
    Policy.V4: "free it at once, as patch v4 did: the page points to freed memory from then on, which is counted",
    Policy.MERGE_ON_MIGRATE: "merge the moved copy into the new node's KSM page, else insert it in the new node's tree",
    Policy.SUBSTITUTE: "map the new node's KSM page in place of a moved copy, else insert it in the new node's tree",
    Policy.BREAK_COW: "give every mapping a copy of its own on the new node, and let ksmd merge them again",
    Policy.NUKSM: "the page goes to the node that maps it most, and stays where that is; ksmd moves it when it passes",
    Policy.REPLICATE: "the page stays; ksmd gives each mapping its own node's copy when it passes (merge_across_nodes = 0)",
}

# Policies under which ksmd moves pages by itself, long after anybody asked for it.
KSMD_MOVES = frozenset({Policy.NUKSM, Policy.REPLICATE})


class Caller(IntEnum):
    """Who asks for a page to be moved; the config word is the name in lower case. A set of them is a mask of 1 << caller."""

    HOTREMOVE = 0
    COMPACTION = 1
    CMA = 2
    THP = 3
    NUMA_BALANCING = 4
    MOVE_PAGES = 5

    @property
    def word(self) -> str:
        """The name a user writes: "numa_balancing"."""
        return self.name.lower()


# Who may move KSM pages, by preset: 2.6.33 (62b61f611e) allowed memory hotremove alone; today the KSM pages are the ones that
# NUMA balancing gives no hints for (folio_can_map_prot_numa); "all" is nobody's kernel.
CALLER_PRESETS = {
    "2.6.33": (Caller.HOTREMOVE,),
    "mainline": tuple(caller for caller in Caller if caller != Caller.NUMA_BALANCING),
    "all": tuple(Caller),
}


class Locking(IntEnum):
    """Which lock a move takes that changes stable trees; the config word is the name in lower case."""

    NONE = 0  # moves take no time and wait for nobody
    KSM_THREAD_MUTEX = 1  # ksmd holds it for a whole batch
    TREE_MUTEX = 2  # ksmd holds it while it walks a tree, that is for one visit

    @property
    def word(self) -> str:
        """The name a user writes: "tree_mutex"."""
        return self.name.lower()


KERNEL_DOCS = {
    Kernel.V6_1: (
        "the stable tree is searched before the checksum is looked at; only dups with room count in a chain; "
        "no smart_scan, pages_scanned, pages_skipped, ksm_zero_pages, general_profit"
    ),
    Kernel.V6_12: "smart_scan, zero pages tracked, checksum before the stable tree",
    Kernel.V7_2: "as 6.12; two more fields in ksm_stat (ksm_merge_any, ksm_mergeable)",
}


class Run(IntEnum):
    """Values of /sys/kernel/mm/ksm/run."""

    STOP = 0
    MERGE = 1
    UNMERGE = 2


class Status(IntEnum):
    """Why a kernel of ours returned to the engine."""

    DONE = 0  # the batches or full scans asked for are over
    GROW = 1  # a pool is nearly full; enlarge it and call again, nothing is lost
    UNDEFINED = 2  # the Linux kernel would use freed memory here; `Scan.FAULT_PAGE` says where
    TIME = 3  # simulated time reached the limit given


class Move(IntEnum):
    """Result of moving one page with move_pages(), beside node numbers >= 0."""

    ABSENT = -1  # nothing mapped: ENOENT (6.1: EFAULT)
    ZERO = -2  # the zero page: EFAULT
    STUCK = -3  # a mapping that no rmap_item reaches: the kernel gives up
    HIDDEN = -4  # present in a PROT_NONE area: 6.1 says ENOENT
    UNMAPPED = -5  # no VMA there: EFAULT
    REFUSED = -6  # a KSM page, and this caller may not move those: EBUSY
    FULL = -7  # no free frame on the node: ENOMEM
    LEFT = -8  # the policy leaves the page where it is, for ksmd to see to: EAGAIN
