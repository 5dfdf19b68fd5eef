"""How the three kernels differ, as far as a scenario can show it: data and small named facts.

It lists differences; the branches that use them are next to the code that they change.
"""

from dataclasses import dataclass

SYSFS_FIELDS = (
    "full_scans",
    "pages_shared",
    "pages_sharing",
    "pages_unshared",
    "pages_volatile",
    "pages_scanned",
    "pages_skipped",
    "ksm_zero_pages",
    "stable_node_chains",
    "stable_node_dups",
    "general_profit",
    "merge_across_nodes",
    "max_page_sharing",
    "use_zero_pages",
    "smart_scan",
    "stable_node_chains_prune_millisecs",
)
NOT_IN_6_1 = ("pages_scanned", "pages_skipped", "ksm_zero_pages", "general_profit", "smart_scan")


@dataclass(frozen=True, kw_only=True, slots=True)
class Kernel:
    """One release.

    `stable_search_first`: cmp_and_merge_page() searches the stable tree before it looks at the checksum.
    `chains_skip_full_dups`: a chain look-up returns only dups with room, and a single full dup stays in its chain.
    `sees_prot_none`: follow_page() or its successor returns the page below a PROT_NONE pte (mm/gup.c, mm/pagewalk.c).
    `tracks_zero_pages`: zero pages placed by ksmd are marked by a dirty pte, counted, and unmerged like KSM pages.
    `fork_copies_counters`: the child's mm_struct keeps the parent's ksm_merging_pages and ksm_rmap_items.
    `absent_status`: move_pages() about a page that is not there.
    `unfaulted_takes_over`: a VMA without anon_vma may be extended over a neighbour that has one (mm/vma.c, 7.x).
    `mprotect_uncharges`: mprotect() takes VM_ACCOUNT from a VMA that has no anon_vma and is no longer writable.
    `merge_any`: prctl(PR_SET_MEMORY_MERGE) exists.
    """

    name: str
    sysfs_fields: tuple[str, ...] = SYSFS_FIELDS
    proc_fields: tuple[str, ...]
    stable_search_first: bool = False
    chains_skip_full_dups: bool = False
    sees_prot_none: bool = True
    tracks_zero_pages: bool = True
    fork_copies_counters: bool = False
    absent_status: str = "ENOENT"
    unfaulted_takes_over: bool = False
    mprotect_uncharges: bool = True
    merge_any: bool = True


_PROC_FIELDS = ("ksm_merging_pages", "ksm_rmap_items", "ksm_zero_pages", "ksm_process_profit")

KERNELS = {
    kernel.name: kernel
    for kernel in (
        Kernel(
            name="6.1",
            sysfs_fields=tuple(field for field in SYSFS_FIELDS if field not in NOT_IN_6_1),
            proc_fields=_PROC_FIELDS[:2],
            stable_search_first=True,
            chains_skip_full_dups=True,
            sees_prot_none=False,
            tracks_zero_pages=False,
            fork_copies_counters=True,
            absent_status="EFAULT",
            mprotect_uncharges=False,
            merge_any=False,
        ),
        Kernel(name="6.12", proc_fields=_PROC_FIELDS),
        Kernel(name="7.2", proc_fields=(*_PROC_FIELDS, "ksm_merge_any", "ksm_mergeable"), unfaulted_takes_over=True),
    )
}
