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


POLICY_DOCS = {
    Policy.MAINLINE: "leave it in the old node's tree until ksmd comes around (folio_migrate_ksm, migrate_nodes)",
}

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
    UNMAPPED = -5  # no VMA there: EFAULT
    HIDDEN = -4  # present in a PROT_NONE area: 6.1 says ENOENT
