"""The commonest merges in one piece: private pages join KSM pages that have room, and nobody can see the walks to them.

It does what `visit` does by way of `merge`, `fault`, `frame`, `stable_tree` and `stable_node`, in a fraction of the time, and
declines whatever is not plain. On a large host's first merging scan two pages of three that are merged come this way.
"""

from numpy import int64

from ksmbatch.accel import inlined, kernel
from ksmbatch.kernels.cohorts import MERGED
from ksmbatch.kernels.hints import hint_visits
from ksmbatch.kernels.members import add_member
from ksmbatch.kernels.merge import has_zero_checksum
from ksmbatch.kernels.passing import take_budget
from ksmbatch.kernels.smart_scan import AGE_OF_SKIPS, age_visited
from ksmbatch.kernels.stable_chain import MAY_PRUNE, may_prune, waits_beyond_region
from ksmbatch.kernels.stable_node import NOW, is_chain, is_page_sharing_candidate, lengthen_first
from ksmbatch.kernels.stable_shape import may_meet_something
from ksmbatch.kernels.stable_tree import is_calm
from ksmbatch.kernels.twins import tree_of
from ksmbatch.metrics import Counter, NodeCounter
from ksmbatch.state import (
    AGE,
    ANON,
    CHAIN,
    CHECKSUM,
    DUE_PAGE,
    FIRST,
    FRAME,
    FRAME_CONTENT,
    FRAME_FLAGS,
    FRAME_NID,
    HEAD,
    HOLDERS,
    IN_CHAIN,
    ITEM,
    ITEM_FLAGS,
    KPFN,
    LEN,
    LOOK_KNOWN,
    MAPCOUNT,
    MERGEABLE,
    MERGING,
    NEXT,
    NIL,
    NO_FRAME,
    PAGE_FLAGS,
    PAGE_NID,
    PAGES_PER_BLOCK,
    PROT_NONE,
    RESTING,
    ROOMY_DUPS,
    SKIPS,
    SPARE_MEMBERS,
    STABLE,
    STABLE_AT,
    STALE_DUPS,
    UNSTABLE,
    WHERE,
    Knob,
    Scan,
)


@inlined
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
    if s.knobs[Knob.SMART_SCAN] and s.page_bytes[page, AGE] >= AGE_OF_SKIPS and s.page_bytes[page, SKIPS] != 0:
        return NIL
    if s.knobs[Knob.USE_ZERO_PAGES] and has_zero_checksum(s, content):
        return NIL
    nid = tree_of(s, s.frame_bytes[frame, FRAME_NID])
    if s.by_content[nid, content, RESTING] < 0:  # in line
        return NIL
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


@inlined
def join(s, page, node):
    """`page` joins `node`, which node_to_join() has found; count_joins() is still to be called.

    Mirrors: mm/ksm.c try_to_merge_with_ksm_page(), stable_tree_append()
    Writes: pages, page_bytes, frames, members, nodes, by_content, node_counters, cohort.
    """
    kframe = int64(s.nodes[node, KPFN])
    nid = int64(s.frame_bytes[page, FRAME_NID])
    knid = int64(s.frame_bytes[kframe, FRAME_NID])
    home = int64(s.page_bytes[page, PAGE_NID])
    if s.knobs[Knob.SMART_SCAN]:
        age_visited(s, page)
    # its frame is freed, and it maps that of the node
    s.frames[page, MAPCOUNT] = 0
    s.by_content[tree_of(s, nid), s.frames[page, FRAME_CONTENT], HOLDERS] -= 1
    s.frames[kframe, MAPCOUNT] += 1
    s.pages[page, FRAME] = kframe
    s.node_counters[nid, NodeCounter.FRAMES] -= 1
    s.node_counters[home, NodeCounter.REMOTE_MAPPINGS] += int64(knid != home) - int64(nid != home)
    # its rmap_item joins the node, and in its place the page can rest
    if s.nodes[node, WHERE] == IN_CHAIN:
        lengthen_first(s, int64(s.nodes[node, CHAIN]), node)
    else:
        s.nodes[node, LEN] += 1
    s.pages[page, HEAD] = add_member(s, node, page)
    s.page_bytes[page, ITEM_FLAGS] |= STABLE
    s.cohort[page] = MERGED


@inlined
def count_joins(s, mm, page, n_pages):
    """So many pages of `mm`, the last of them before `page`, which is in the same block, have joined nodes.

    Writes: cohorts, mms, counters, scan.
    """
    s.scan[Scan.CUR_PAGE] = page
    s.scan[Scan.VISIT] = Knob.MERGE_NS
    s.cohorts[1 + (page - 1) // PAGES_PER_BLOCK, MERGED] += n_pages
    s.mms[mm, MERGING] += n_pages
    s.counters[Counter.FRAMES_IN_USE] -= n_pages
    s.counters[Counter.PAGES_SHARING] += n_pages
    s.counters[Counter.PAGES_MERGED] += n_pages
    s.counters[Counter.PAGES_SCANNED] += n_pages
    s.counters[Counter.TREE_SEARCHES] += n_pages
    s.counters[Counter.KSMD_CPU_NS] += n_pages * s.knobs[Knob.MERGE_NS]
    s.counters[Counter.TIME_NS] += n_pages * s.knobs[Knob.MERGE_NS]
    take_budget(s, n_pages)


@kernel
def join_listed(s, mm, first, end):
    """Visits the listed pages of `mm` number `first` to before `end`, as long as each joins a stable node.

    Mirrors: mm/ksm.c cmp_and_merge_page()
    Writes: as join(), count_joins(), may_prune(). Returns: the number of the first that does not.
    """
    counted = first
    k = first
    page = int64(0)
    while k < end and s.scan[Scan.NEXT_MEMBER] + SPARE_MEMBERS <= len(s.members):
        if k >= s.scan[Scan.HINTED]:
            hint_visits(s, k)
        node = node_to_join(s, int64(s.due[DUE_PAGE, k]))
        if node == NIL:
            break
        page = int64(s.due[DUE_PAGE, k])
        if s.nodes[node, WHERE] == IN_CHAIN and not waits_beyond_region(s, int64(s.nodes[node, CHAIN])):
            if k > counted:
                count_joins(s, mm, page, k - counted)
                counted = k
            s.scan[Scan.CUR_PAGE] = page + 1
            may_prune(s, int64(s.nodes[node, CHAIN]), MAY_PRUNE)
        join(s, page, node)
        k += 1
    if k > counted:
        count_joins(s, mm, page + 1, k - counted)
    return k
