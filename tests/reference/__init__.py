"""The slow twin: mm/ksm.c in plain Python, one function per kernel function, Linux's own red-black trees included.

The parity tests hold the engine against it, and it against the recordings of the real kernel. It knows nothing of numba, time
or costs, and it is not fast: one Python object per page, per rmap_item and per tree node.

Written from the sources of Linux 6.1, 6.12 and 7.2 (mm/ksm.c, lib/rbtree.c, mm/rmap.c, mm/vma.c, mm/mmap.c, mm/migrate.c),
whose words and order it keeps. Reading order: machine (one step), scan (ksm_do_scan, cmp_and_merge_page), stable and unstable
(the trees), merge, memory and vma (page tables, anon_vma), rbtree. Then what becomes of pages that move, also under policies
that no kernel has: migrate, with place and rmap; rehome (what ksmd does about them); evacuate and numa (emptying memory).
"""

from .freed import UseAfterFree
from .kernels import KERNELS
from .machine import Machine, replay

__all__ = ["KERNELS", "Machine", "UseAfterFree", "replay"]
