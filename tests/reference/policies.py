"""Names: what may become of a KSM page that moves, who asks for a page to be moved, and what is counted of it.

Data only, as in `kernels`; what the policies do is in `migrate` and `rehome`.
"""

POLICIES = ("mainline", "v4", "merge_on_migrate", "substitute", "break_cow", "nuksm", "replicate")
CALLERS = ("hotremove", "compaction", "cma", "thp", "numa_balancing", "move_pages")
MAINLINE_CALLERS = frozenset(CALLERS) - {"numa_balancing"}  # may move KSM pages
COUNTED = (
    "corruptions",
    "dangling_pages",
    "migrate_allocations",
    "migrate_failures",
    "frames_moved",
    "ksm_frames_moved",
    "migrate_inserted",
    "migrate_merged",
    "migrate_chained",
    "migrate_copies",
    "migrate_refused",
    "migrate_stuck",
    "compaction_tried",
    "compaction_missed",
    "cma_tried",
    "cma_missed",
    "thp_tried",
    "thp_missed",
    "offline_tried",
    "offline_missed",
)
