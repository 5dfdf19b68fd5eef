"""Pages in line: from ksmd's first look on it is known which stable node they will join in the next scan.

Pages with equal contents that are looked at first in the same scan are merged by the next one in the same order: the first goes
into the unstable tree, the second meets it there and becomes a KSM page, and the others join that one until it is full; then
it begins anew. So the others (the pages in line) are not visited. At the first look they become members of a stable node that
is still to be; when the first two (its leaders, which are visited as ever) have been merged, the node takes all of them at
once; and that ksmd passes them is arithmetic (`passing.pass_joins`).

It holds as long as nothing comes in between. A page in line that is written or goes leaves it. Whoever might see more or less
than there is has lines taken apart first: those of one content, if a third party searches for that, if leaders do not do as
expected, or if a page that has joined is written in the midst of that scan (`break_lines`, `follow_up`, `note_ksm_write`);
those of some pages, before anything else happens to them (`step_out`); or all (`break_all_lines`). Pages that were passed have
joined then, the others are visited as ever. See docs/adr/0013.
"""

from numpy import int64

from ksmbatch.accel import entry_kernel, inlined, kernel
from ksmbatch.kernels.cohorts import IN_LINE, IS_JOIN, IS_VISIT, JOINED, MOST_NIDS, class_of
from ksmbatch.kernels.cursor import mm_of
from ksmbatch.kernels.looking import first_that_looks, must_be_visited
from ksmbatch.kernels.members import LEFT_IT, add_member, drop_member, free_member
from ksmbatch.kernels.passing import catch_up
from ksmbatch.kernels.resting import rest, wake, write_joined
from ksmbatch.kernels.stable_chain import MAY_PRUNE, may_prune, waits_beyond_region
from ksmbatch.kernels.stable_node import (
    alloc_stable_node,
    change_length,
    free_stable_node,
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
    KPFN,
    KSM,
    LEADER,
    LEADS,
    LEN,
    LINE_BEFORE,
    LINE_MADE_BEFORE,
    LOOK_KNOWN,
    MAPCOUNT,
    MEMBER_NEXT,
    MEMBER_NODE,
    MEMBER_PAGE,
    MERGEABLE,
    MERGING,
    N_LEFT,
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
    UNLED,
    UNSTABLE,
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
def leave_line(s, page):
    """`page`, in line, is about to be written: it is awake. Writes: nodes, trees, frames, by_content, and as drop_member()."""
    member = int64(s.pages[page, HEAD])
    node = int64(s.members[member, MEMBER_NODE])
    if s.nodes[node, WHERE] == PLANNED:
        s.nodes[node, LEN] -= 1
        is_last = s.by_content[s.nodes[node, NID], s.nodes[node, CONTENT], RESTING] == -node
        if not is_last or s.nodes[node, LINE_BEFORE] != NIL:
            s.scan[Scan.LINES_LEFT] = 1
    else:
        take_back(s, node, int64(1))
    drop_member(s, member)


@inlined
def note_leader_write(s, page):
    """`page`, awake, is about to be written: if it leads a line, that is to be drawn up anew. Writes: nodes, scan."""
    if s.page_bytes[page, ITEM_FLAGS] & LEADS:
        s.nodes[s.members[s.pages[page, HEAD], MEMBER_NODE], UNLED] = 1
        s.scan[Scan.LINES_LEFT] = 1


@inlined
def take_back(s, node, n_pages):
    """So many pages in line for `node`, which has been made, will not join it. Writes: nodes, trees, frames, by_content."""
    change_length(s, node, -n_pages)
    s.frames[s.nodes[node, KPFN], MAPCOUNT] -= n_pages
    s.by_content[s.nodes[node, NID], s.nodes[node, CONTENT], HOLDERS] += n_pages


@kernel
def note_ksm_write(s, frame):
    """A page that maps the KSM page `frame` is about to be written, and gets a copy, in the midst of a scan that passes lines.

    If some are still in line for it, they must not keep it alive. Writes: as take_apart().
    """
    tree, content = tree_of(s, s.frame_bytes[frame, FRAME_NID]), int64(s.frames[frame, FRAME_CONTENT])
    if content < s.by_content.shape[1] and s.by_content[tree, content, RESTING] < 0:
        take_apart(s, tree, content)


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


@kernel
def break_lines(s, page, frame):
    """`page`, which maps `frame`, is about to search a stable tree: if it leads no line, lines for the same content end.

    Writes: as take_apart(), catch_up().
    """
    content = int64(s.frames[frame, FRAME_CONTENT])
    if s.page_bytes[page, ITEM_FLAGS] & LEADS or content >= s.by_content.shape[1]:
        return
    tree = tree_of(s, s.frame_bytes[frame, FRAME_NID])
    if s.by_content[tree, content, RESTING] < 0:
        catch_up(s)
        take_apart(s, tree, content)


@kernel
def follow_up(s, page, line):
    """`page`, a leader of `line`, was visited: unless that came to what was expected, all lines of its content end."""
    if s.nodes[line, WHERE] != PLANNED or s.nodes[line, LEN] == 0:
        return  # it is a stable node now; it has ended already
    if s.nodes[line, LEADER] == page + 1 and s.page_bytes[page, ITEM_FLAGS] & UNSTABLE:
        return
    catch_up(s)
    take_apart(s, int64(s.nodes[line, NID]), int64(s.nodes[line, CONTENT]))


@kernel
def stop_leading(s, page):
    """`page`, which was passed and leads a line, is about to join another node: it was written, and has found its equal.

    Writes: as catch_up(), take_apart(), dissolve().
    """
    line = int64(s.members[s.pages[page, HEAD], MEMBER_NODE])
    catch_up(s)
    take_apart(s, int64(s.nodes[line, NID]), int64(s.nodes[line, CONTENT]))
    if s.page_bytes[page, ITEM_FLAGS] & LEADS:
        dissolve(s, line)  # all but its leaders had left it


@kernel
def take_apart(s, tree, content):
    """The lines for `content` in `tree` end; all pages behind the cursor have been passed. Writes: by_content, and as below."""
    line = -int64(s.by_content[tree, content, RESTING])
    if line <= 0:
        return  # of all who had it one is left, and may be at rest by now
    s.by_content[tree, content, RESTING] = 0
    while line != NIL:
        end_line(s, line)
        line = int64(s.nodes[line, LINE_BEFORE])


@inlined
def end_line(s, line):
    """Who is in `line` and was not passed yet is awake. Writes: nodes, members, frames, by_content, page_bytes, wake()."""
    if s.nodes[line, WHERE] == PLANNED:
        dissolve(s, line)
    else:
        cut_off(s, line)


@kernel
def dissolve(s, line):
    """Nobody will join `line`, whose leaders were not merged. Writes: nodes, members, page_bytes, scan, and as wake()."""
    member = int64(s.nodes[line, FIRST])
    while member != NIL:
        after = int64(s.members[member, MEMBER_NEXT])
        page = int64(s.members[member, MEMBER_PAGE])
        if page != LEFT_IT:
            if s.cohort[page] >= IN_LINE:
                wake(s, page)
            else:
                s.page_bytes[page, ITEM_FLAGS] = int64(s.page_bytes[page, ITEM_FLAGS]) & ~LEADS
        free_member(s, member)
        member = after
    s.nodes[line, FIRST] = NIL
    s.nodes[line, LEN] = 0
    s.nodes[line, N_LEFT] = 0


@kernel
def cut_off(s, node):
    """Those who were in line for `node`, which has been made, and were not passed yet are no members of it.

    They came last, and are first in its hlist. Writes: nodes, trees, members, frames, by_content, scan, and as wake().
    """
    n_pages = int64(0)
    member = int64(s.nodes[node, FIRST])
    while member != NIL:
        page = int64(s.members[member, MEMBER_PAGE])
        if page == LEFT_IT:
            s.nodes[node, N_LEFT] -= 1
        elif s.cohort[page] >= IN_LINE:
            wake(s, page)
            n_pages += 1
        else:
            break
        after = int64(s.members[member, MEMBER_NEXT])
        free_member(s, member)
        member = after
    s.nodes[node, FIRST] = member
    if n_pages != 0:
        take_back(s, node, n_pages)


@entry_kernel
def step_out(s, first, end, goes):
    """Something is about to happen to the pages of [first, end): none is in line any more, or leads one, or is JOINED.

    `goes`: they are about to be unmapped. Writes: as write_joined(), leave_line(), take_apart(), note_ksm_write().
    """
    if s.scan[Scan.LINES_SEQ] == 0 and s.scan[Scan.N_JOINED] == 0:
        return
    are_passed = s.scan[Scan.LINES_SEQ] not in (0, s.scan[Scan.SEQ])
    for page in range(first, end):
        if s.cohort[page] == JOINED:
            write_joined(s, page)
        line = NIL
        if s.cohort[page] >= IN_LINE or s.page_bytes[page, ITEM_FLAGS] & LEADS:
            line = int64(s.members[s.pages[page, HEAD], MEMBER_NODE])
        frame = int64(s.pages[page, FRAME])
        if goes and s.cohort[page] >= IN_LINE:
            leave_line(s, page)
        elif line != NIL:
            take_apart(s, int64(s.nodes[line, NID]), int64(s.nodes[line, CONTENT]))
        elif are_passed and frame != NO_FRAME and s.frame_bytes[frame, FRAME_FLAGS] & KSM:
            note_ksm_write(s, frame)


@entry_kernel
def break_all_lines(s):
    """Nobody is in line any more. Not while a region is open, but for a careful one. Writes: as end_line(), forget_lines()."""
    line = int64(s.scan[Scan.LAST_LINE])
    while line > NIL:
        end_line(s, line)
        line = int64(s.nodes[line, LINE_MADE_BEFORE])
    forget_lines(s)


@kernel
def forget_lines(s):
    """All lines have ended, or been passed. Writes: as dissolve(), by_content, cohorts, scan."""
    line = int64(s.scan[Scan.LAST_LINE])
    while line > NIL:
        before = int64(s.nodes[line, LINE_MADE_BEFORE])
        s.nodes[line, LINE_MADE_BEFORE] = NIL
        tree, content = int64(s.nodes[line, NID]), int64(s.nodes[line, CONTENT])
        if s.by_content[tree, content, RESTING] < 0:
            s.by_content[tree, content, RESTING] = 0
        if s.nodes[line, WHERE] == PLANNED:
            dissolve(s, line)  # its one leader has met nobody
            free_stable_node(s, line)
        line = before
    s.scan[Scan.LAST_LINE] = NIL
    s.scan[Scan.LINES_SEQ] = 0
    s.scan[Scan.SEVERAL_END] = 0
    for cohort in range(IN_LINE, s.cohorts.shape[1]):
        s.cohorts[0, cohort] = 0


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
