"""Policy `merge_on_migrate`: the moved copy is merged into the KSM page that the new node has (the complex case), or its
stable node is inserted in the new node's tree (the easy case).

Andrea Arcangeli's answer. The outcome is that of `substitute`; the price is a second copy on the new node and a second round
through the page tables, which it counts.
"""

from numpy import int64

from ksmbatch.accel import kernel
from ksmbatch.kernels.migrate.frame_move import move_frame
from ksmbatch.kernels.migrate.substitute import MERGED, find_relatives, place_in_tree
from ksmbatch.metrics import Counter
from ksmbatch.state import MAPCOUNT, Knob

EDITS_TREES = True


@kernel
def migrate_ksm_page(s, links, frame, nid, found):
    """Places `frame` on `nid`; a copy that is merged away was made before. Returns: True."""
    if s.knobs[Knob.MERGE_ACROSS_NODES]:
        move_frame(s, frame, nid)
        return True
    n_mapped = int64(s.frames[frame, MAPCOUNT])
    if place_in_tree(s, frame, nid, found, find_relatives(s, links, frame, found)) == MERGED:
        s.counters[Counter.MIGRATE_COPIES] += 1
        s.counters[Counter.MOVE_CPU_NS] += s.knobs[Knob.COPY_NS] + n_mapped * s.knobs[Knob.REMAP_NS]
    return True
