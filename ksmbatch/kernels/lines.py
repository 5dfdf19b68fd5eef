"""Pages in line: from ksmd's first look on it is known which stable node they will join in the next scan.

Pages with equal contents that are looked at first in the same scan are merged by the next one in the same order: the first goes
into the unstable tree, the second meets it there and becomes a KSM page, and the others join that one until it is full; then
it begins anew. So the others (the pages in line) are not visited. At the first look they become members of a stable node that
is still to be; when the first two (its leaders, which are visited as ever) have been merged, the node takes all of them at
once; and that ksmd passes them is arithmetic (`passing.pass_joins`).

It holds as long as nothing comes in between, which is seen to by `line_ends`. See docs/adr/0013.
"""

from numpy import int64

from ksmbatch.accel import inlined, kernel
from ksmbatch.kernels.cohorts import IS_JOIN, IS_VISIT, MOST_NIDS, class_of
from ksmbatch.kernels.cursor import mm_of
from ksmbatch.kernels.line_ends import take_apart
from ksmbatch.kernels.looking import first_that_looks, must_be_visited
from ksmbatch.kernels.members import add_member
from ksmbatch.kernels.passing import catch_up
from ksmbatch.kernels.resting import rest
from ksmbatch.kernels.stable_chain import MAY_PRUNE, may_prune, waits_beyond_region
from ksmbatch.kernels.stable_node import (
    alloc_stable_node,
    change_length,
    is_chain,
)
from ksmbatch.kernels.stable_shape import may_meet_something
from ksmbatch.kernels.stable_tree import is_calm, meets_something
from ksmbatch.kernels.twins import tree_of
from ksmbatch.metrics import Counter
from ksmbatch.state import (
    ANON,
    CONTENT,
    FIRST,
    FRAME,
    FRAME_CONTENT,
    FRAME_FLAGS,
    FRAME_NID,
    FREED,
    HEAD,
    HOLDERS,
    ITEM_FLAGS,
    KNID,
    LEADER,
    LEADS,
    LEN,
    LINE_BEFORE,
    LINE_MADE_BEFORE,
    LOOK_KNOWN,
    MAPCOUNT,
    MEMBER_NODE,
    MERGEABLE,
    MERGING,
    NEXT,
    NID,
    NIL,
    NO_FRAME,
    PAGE_FLAGS,
    PAGE_NID,
    PAGES_PER_BLOCK,
    PLANNED,
    PROT_NONE,
    RESTING,
    SECOND,
    SETTLED,
    SETTLED_PRUNED,
    SPARE_MEMBERS,
    SPARE_NODES,
    STABLE,
    STABLE_AT,
    STALE_DUPS,
    WHERE,
    Knob,
    Scan,
)

LEADERS = int64(2)
NO_LINE = int64(-1)  # LINE_MADE_BEFORE of the one that was made first; of nodes that are no lines it is NIL


@inlined
def may_make_lines(s):
    """Whether pages that the present scan looks at first may get in line. Reads: scan, knobs, trees, pfns.

    Not while others still wait for their turn, nor where contents share checksums, or page frame numbers show.
    """
    is_free = s.scan[Scan.LINES_SEQ] in (0, s.scan[Scan.SEQ])
    return is_free and len(s.checksum_class) == 0 and s.pfns.shape[1] == 0 and s.trees.shape[1] <= MOST_NIDS


@kernel
def get_in_line(s, page, tree, content):
    """`page`, which ksmd has just looked at first, gets in line for `content` in `tree`, or leads a line, or neither.

    Writes: by_content, nodes, members, pages, page_bytes, cohort, cohorts, scan. Returns: whether it is in line.
    """
    if s.pages[page, FRAME] != page or s.frames[page, MAPCOUNT] != 1 or s.frame_bytes[page, FRAME_FLAGS]:
        return False
    if content == 0 and s.knobs[Knob.USE_ZERO_PAGES]:
        return False
    nid = int64(s.frame_bytes[page, FRAME_NID])
    if s.page_bytes[page, PAGE_NID] != nid or s.page_bytes[page, ITEM_FLAGS] & FREED:
        return False
    if s.page_bytes[page, PAGE_FLAGS] & (MERGEABLE | ANON | PROT_NONE) != MERGEABLE | ANON:
        return False
    line = -int64(s.by_content[tree, content, RESTING])
    if s.by_content[tree, content, STABLE_AT] != NIL or line < 0:
        return False
    if s.scan[Scan.NEXT_MEMBER] + 2 * SPARE_MEMBERS > len(s.members):
        return False
    if line == NIL and s.by_content[tree, content, HOLDERS] <= LEADERS:
        return False
    if line == NIL or s.nodes[line, LEN] >= s.knobs[Knob.MAX_PAGE_SHARING]:
        if s.scan[Scan.NEXT_NODE] + 2 * SPARE_NODES > len(s.nodes):
            return False
        line = begin_line(s, tree, content)
    n_before = int64(s.nodes[line, LEN])
    s.nodes[line, LEN] = n_before + 1
    s.pages[page, HEAD] = add_member(s, line, page)
    if n_before >= LEADERS:
        rest(s, page, class_of(nid, int64(s.nodes[line, KNID])))
        return True
    s.nodes[line, SECOND if n_before else LEADER] = page + 1
    s.nodes[line, KNID] = nid
    s.page_bytes[page, ITEM_FLAGS] |= LEADS
    return False


@inlined
def begin_line(s, tree, content):
    """A stable node that is still to be, for `content` in `tree`. Writes: nodes, by_content, scan. Returns: it."""
    line = alloc_stable_node(s, content, NO_FRAME, tree)
    s.nodes[line, WHERE] = PLANNED
    made_before = int64(s.scan[Scan.LAST_LINE])
    s.nodes[line, LINE_MADE_BEFORE] = made_before if made_before != NIL else NO_LINE
    before = max(-int64(s.by_content[tree, content, RESTING]), NIL)
    s.nodes[line, LINE_BEFORE] = before
    if before != NIL:
        is_first = s.scan[Scan.SEVERAL_END] == 0
        s.scan[Scan.SEVERAL_FIRST] = content if is_first else min(s.scan[Scan.SEVERAL_FIRST], content)
        s.scan[Scan.SEVERAL_END] = max(s.scan[Scan.SEVERAL_END], content + 1)
    s.by_content[tree, content, RESTING] = -line
    s.scan[Scan.LAST_LINE] = line
    s.scan[Scan.LINES_SEQ] = s.scan[Scan.SEQ]
    return line


@kernel
def line_led_by(s, page, other, frame):
    """The line of which `other` and `page`, which maps `frame`, are the first two; NIL. Reads: page_bytes, members, nodes."""
    if not s.page_bytes[page, ITEM_FLAGS] & s.page_bytes[other, ITEM_FLAGS] & LEADS:
        return NIL
    line = int64(s.members[s.pages[page, HEAD], MEMBER_NODE])
    if s.nodes[line, LEADER] != other + 1 or s.nodes[line, SECOND] != page + 1:
        return NIL
    tree = tree_of(s, s.frame_bytes[frame, FRAME_NID])
    return line if s.nodes[line, NID] == tree and s.nodes[line, CONTENT] == s.frames[frame, FRAME_CONTENT] else NIL


@kernel
def append_line(s, node, frame, page, other, length):
    """`node`, of KSM page `frame`, was planned: its leaders `other` and `page` join it, and all who are in line will.

    Nobody can tell that these have not joined yet: whoever might takes the line apart before. `length`: of all of them.
    Mirrors: mm/ksm.c stable_tree_append()
    Writes: nodes, trees, page_bytes, mms, counters, frames, by_content.
    """
    change_length(s, node, length)
    for leader in (other, page):
        s.page_bytes[leader, ITEM_FLAGS] = int64(s.page_bytes[leader, ITEM_FLAGS]) & ~LEADS | STABLE
        s.mms[mm_of(s, leader), MERGING] += 1
    s.counters[Counter.PAGES_SHARED] += 1
    s.counters[Counter.PAGES_SHARING] += 1
    s.counters[Counter.PAGES_MERGED] += LEADERS
    s.frames[frame, MAPCOUNT] += length - LEADERS
    s.by_content[s.nodes[node, NID], s.nodes[node, CONTENT], HOLDERS] -= length - LEADERS


@inlined
def are_lines_lively(s, block):
    """Whether searches of pages in line, in `block`, may change a tree. Reads: cohorts, trees."""
    for nid in range(min(MOST_NIDS, s.trees.shape[1])):
        waiting = s.cohorts[1 + block, class_of(nid, nid)] + s.cohorts[1 + block, class_of(nid, nid + 1)]
        if waiting != 0 and not is_calm(s, tree_of(s, nid)):
            return True
    return False


@kernel
def first_that_looks_or_waits(s, first, end, lively):
    """As looking.first_that_looks(), where searches of pages in line may be seen, too: the lines of such a one end.

    A page that would just prune the chain in which its own dup is does so on the spot: nothing but the delay begins anew.
    Writes: scan, and as meets_something(), may_prune(), take_apart(). Returns: the page, which may be at rest still; `end`.
    """
    for page in range(first, end):
        phase = int64(s.cohorts[0, s.cohort[page]])
        if phase & IS_VISIT and must_be_visited(s, page, lively):
            return page
        if not phase & IS_JOIN:
            continue
        if must_step_out(s, page):
            s.scan[Scan.CUR_PAGE] = page + 1
            catch_up(s)
            s.scan[Scan.CUR_PAGE] = page
            take_apart(s, tree_of(s, s.frame_bytes[page, FRAME_NID]), int64(s.frames[page, FRAME_CONTENT]))
            return page
        if not are_lines_lively(s, page // PAGES_PER_BLOCK):
            is_any_left = page + 1 < end and s.scan[Scan.PENDING_VISITS] != 0
            return first_that_looks(s, page + 1, end, lively) if is_any_left else end
    return end


@inlined
def must_step_out(s, page):
    """Whether the search of `page`, which is in line, may change the tree. Writes: as meets_something(), may_prune()."""
    tree = tree_of(s, s.frame_bytes[page, FRAME_NID])
    if is_calm(s, tree):
        return False
    content = int64(s.frames[page, FRAME_CONTENT])
    s.scan[Scan.CUR_PAGE] = page + 1
    if (not s.trees[LOOK_KNOWN, tree] or may_meet_something(s, tree, content)) and meets_something(s, tree, content):
        return True
    if not s.scan[Scan.SEVERAL_FIRST] <= content < s.scan[Scan.SEVERAL_END]:
        return False
    chain = int64(s.by_content[tree, content, STABLE_AT])
    if not is_chain(s, chain) or waits_beyond_region(s, chain):
        return False
    dup = int64(s.members[s.pages[page, HEAD], MEMBER_NODE])
    is_plain = s.nodes[chain, STALE_DUPS] == 0 and s.nodes[chain, FIRST] == dup and s.nodes[chain, SETTLED] == SETTLED_PRUNED
    if not is_plain or s.nodes[dup, NEXT] == NIL:
        return True
    may_prune(s, chain, MAY_PRUNE)
    return False
