"""Policy `v4`, of Petr Holasek's patch: if the nodes differ, ksm_migrate_page() removes the stable node from its tree.

remove_node_from_stable_tree() frees it, and the page still points to it: from then on every look at page->mapping reads freed
memory. Such a frame is marked DANGLING; whoever would follow the pointer counts a corruption instead (`fault.unmap_page`,
`merge.cmp_and_merge_page`, `move_pages.move_page`).
"""

from numpy import int64

from ksmbatch.accel import kernel
from ksmbatch.kernels.migrate.frame_move import move_frame
from ksmbatch.kernels.stable_chain import remove_node_from_stable_tree
from ksmbatch.metrics import Counter
from ksmbatch.state import DANGLING, FRAME_FLAGS, FRAME_NODE, NIL, Knob

EDITS_TREES = True


@kernel
def migrate_ksm_page(s, links, frame, nid, found):  # noqa: ARG001  # a hook's signature
    """`frame` moves; its stable node is freed. Mirrors: ksm_migrate_page() of the patch's version 4. Returns: True."""
    node = int64(s.frames[frame, FRAME_NODE])
    move_frame(s, frame, nid)
    if not s.knobs[Knob.MERGE_ACROSS_NODES]:
        remove_node_from_stable_tree(s, node)
        s.frames[frame, FRAME_NODE] = NIL
        s.frame_bytes[frame, FRAME_FLAGS] |= DANGLING
        s.counters[Counter.DANGLING_PAGES] += 1
        s.counters[Counter.MOVE_CPU_NS] += s.knobs[Knob.TREE_NS]
    return True
