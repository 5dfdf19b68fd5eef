"""How many frames hold a content, per tree: who is alone with it may rest, and is woken when a second one comes.

KSM pages are not counted, they are in the stable tree. Contents that only one page ever holds are not either.
"""

from numpy import int64

from ksmbatch.accel import entry_kernel, inlined, kernel
from ksmbatch.kernels.resting import wake
from ksmbatch.state import (
    FRAME_CONTENT,
    FRAME_FLAGS,
    FRAME_NID,
    HOLDERS,
    KSM,
    MAPCOUNT,
    RESTING,
    Knob,
    Scan,
)


@inlined
def tree_of(s, nid):
    """The tree to which frames of NUMA node `nid` belong. Mirrors: mm/ksm.c get_kpfn_nid(). Reads: knobs."""
    return int64(0) if s.knobs[Knob.MERGE_ACROSS_NODES] else int64(nid)


@kernel
def wake_alone(s, tree, content):
    """The page at rest that is alone with `content` in `tree`, if there is one, is so no longer. Writes: as wake()."""
    page = int64(s.by_content[tree, content, RESTING]) - 1
    if page >= 0:
        wake(s, page)


@kernel
def holder_comes(s, nid, content):
    """A frame on `nid`, no KSM page, has `content` from now on. Writes: by_content, and as wake()."""
    if content < s.by_content.shape[1]:
        tree = tree_of(s, nid)
        s.by_content[tree, content, HOLDERS] += 1
        if s.by_content[tree, content, RESTING] != 0:
            wake_alone(s, tree, content)


@kernel
def holder_goes(s, nid, content):
    """A frame on `nid`, no KSM page till now, has another content, is freed or becomes a KSM page. Writes: by_content."""
    if content < s.by_content.shape[1]:
        s.by_content[tree_of(s, nid), content, HOLDERS] -= 1


@entry_kernel
def recount_holders(s):
    """merge_across_nodes has changed, and so have the trees. All pages must be awake. Reads: frames. Writes: by_content."""
    for tree in range(s.by_content.shape[0]):
        for content in range(s.by_content.shape[1]):
            s.by_content[tree, content, HOLDERS] = 0
    for frame in range(s.scan[Scan.NEXT_FRAME]):
        if s.frames[frame, MAPCOUNT] > 0 and not s.frame_bytes[frame, FRAME_FLAGS] & KSM:
            holder_comes(s, int64(s.frame_bytes[frame, FRAME_NID]), int64(s.frames[frame, FRAME_CONTENT]))
