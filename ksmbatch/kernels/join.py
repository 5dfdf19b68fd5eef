"""The commonest merge in one piece: a private page joins a KSM page that has room, and nobody can see the walk to it.

It does what `visit` does by way of `merge`, `fault`, `frame`, `stable_tree` and `stable_node`, in a fraction of the time, and
declines whatever is not plain. On a large host's first merging scan two pages of three that are merged come this way.
"""

from numpy import int64

from ksmbatch.accel import kernel
from ksmbatch.kernels.cohorts import MERGED
from ksmbatch.kernels.members import add_member
from ksmbatch.kernels.merge import has_zero_checksum
from ksmbatch.kernels.passing import take_budget
from ksmbatch.kernels.resting import rest
from ksmbatch.kernels.stable_chain import MAY_PRUNE, may_prune
from ksmbatch.kernels.stable_node import NOW, change_length, is_chain, is_page_sharing_candidate
from ksmbatch.kernels.stable_shape import may_meet_something
from ksmbatch.kernels.stable_tree import is_calm
from ksmbatch.kernels.twins import tree_of
from ksmbatch.metrics import Counter, NodeCounter
from ksmbatch.state import (
    AGE,
    ANON,
    CHAIN,
    CHECKSUM,
    FIRST,
    FRAME,
    FRAME_CONTENT,
    FRAME_FLAGS,
    FRAME_NID,
    FRAME_NODE,
    HEAD,
    HOLDERS,
    IN_CHAIN,
    ITEM,
    ITEM_FLAGS,
    KPFN,
    LOOK_KNOWN,
    MAPCOUNT,
    MERGEABLE,
    MERGING,
    NEXT,
    NIL,
    NO_FRAME,
    PAGE_FLAGS,
    PAGE_NID,
    PROT_NONE,
    ROOMY_DUPS,
    STABLE,
    STABLE_AT,
    STALE_DUPS,
    UNSTABLE,
    WHERE,
    Knob,
    Scan,
)


@kernel
def node_to_join(s, page):
    """The stable node that a visit of `page` will find, if all about it is plain; else NIL. Not for 6.1. Reads: everything."""
    frame = int64(s.pages[page, FRAME])
    if frame != page or s.frames[frame, MAPCOUNT] != 1 or s.frame_bytes[frame, FRAME_FLAGS] or s.pfns.shape[1]:
        return NIL
    content = int64(s.frames[frame, FRAME_CONTENT])
    if content >= s.by_content.shape[1] or s.pages[page, CHECKSUM] != content:
        return NIL
    if s.page_bytes[page, ITEM_FLAGS] & (ITEM | STABLE | UNSTABLE) != ITEM:
        return NIL
    if s.page_bytes[page, PAGE_FLAGS] & (MERGEABLE | ANON | PROT_NONE) != MERGEABLE | ANON:
        return NIL
    if s.knobs[Knob.SMART_SCAN] and s.page_bytes[page, AGE] >= 3:
        return NIL
    if s.knobs[Knob.USE_ZERO_PAGES] and has_zero_checksum(s, content):
        return NIL
    nid = tree_of(s, s.frame_bytes[frame, FRAME_NID])
    node = int64(s.by_content[nid, content, STABLE_AT])
    if node != NIL and is_chain(s, node):
        # of one dup with room, and that the first, every walk finds just it, and changes nothing
        if s.nodes[node, STALE_DUPS] != 0 or s.nodes[node, ROOMY_DUPS] != 1:
            return NIL
        node = int64(s.nodes[node, FIRST])
        if s.nodes[node, NEXT] == NIL:
            return NIL
    if node == NIL or not is_page_sharing_candidate(s, node, NOW):
        return NIL
    kframe = int64(s.nodes[node, KPFN])
    if kframe == NO_FRAME or tree_of(s, s.frame_bytes[kframe, FRAME_NID]) != nid:
        return NIL
    if not is_calm(s, nid) and (not s.trees[LOOK_KNOWN, nid] or may_meet_something(s, nid, content)):
        return NIL
    return node


@kernel
def join(s, page, mm, node):
    """A visit of `page` of `mm`, which is at the cursor, that lets it join `node`, which node_to_join() has found.

    Mirrors: mm/ksm.c cmp_and_merge_page(), try_to_merge_with_ksm_page(), stable_tree_append()
    Writes: pages, page_bytes, frames, frame_bytes, members, nodes, by_content, mms, counters, node_counters, scan, cohort.
    """
    frame = page
    kframe = int64(s.nodes[node, KPFN])
    nid = int64(s.frame_bytes[frame, FRAME_NID])
    knid = int64(s.frame_bytes[kframe, FRAME_NID])
    home = int64(s.page_bytes[page, PAGE_NID])
    if s.knobs[Knob.SMART_SCAN]:
        s.page_bytes[page, AGE] += 1
    # its frame is freed, and it maps that of the node
    s.frames[frame, MAPCOUNT] = 0
    s.by_content[tree_of(s, nid), s.frames[frame, FRAME_CONTENT], HOLDERS] -= 1
    s.frames[frame, FRAME_NODE] = NIL
    s.frames[kframe, MAPCOUNT] += 1
    s.pages[page, FRAME] = kframe
    s.node_counters[nid, NodeCounter.FRAMES] -= 1
    s.node_counters[home, NodeCounter.REMOTE_MAPPINGS] += int64(knid != home) - int64(nid != home)
    s.counters[Counter.FRAMES_IN_USE] -= 1
    # its rmap_item joins the node
    chain = int64(s.nodes[node, CHAIN]) if s.nodes[node, WHERE] == IN_CHAIN else NIL
    if chain != NIL:
        may_prune(s, chain, MAY_PRUNE)
    change_length(s, node, int64(1))
    s.pages[page, HEAD] = add_member(s, node, page)
    s.page_bytes[page, ITEM_FLAGS] |= STABLE
    s.mms[mm, MERGING] += 1
    s.counters[Counter.PAGES_SHARING] += 1
    s.counters[Counter.PAGES_MERGED] += 1
    # the visit is counted, and in its place the page can rest
    s.counters[Counter.PAGES_SCANNED] += 1
    s.counters[Counter.TREE_SEARCHES] += 1
    s.counters[Counter.KSMD_CPU_NS] += s.knobs[Knob.MERGE_NS]
    s.counters[Counter.TIME_NS] += s.knobs[Knob.MERGE_NS]
    s.scan[Scan.VISIT] = Knob.MERGE_NS
    take_budget(s, int64(1))
    rest(s, page, MERGED)
