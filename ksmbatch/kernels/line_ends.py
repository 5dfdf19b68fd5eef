"""Pages that leave lines, and lines that are taken apart, since something comes in between: a write, a third party, an event.

A page in line that is written or goes leaves it. Whoever might see more or less than there is has lines taken apart first:
those of one content, if a third party searches for that, if leaders do not do as expected, or if a page that has joined is
written in the midst of the scan that passes them (`break_lines`, `follow_up`, `note_ksm_write`); those of some pages, before
anything else happens to them (`step_out`); or all (`break_all_lines`). Pages that were passed have joined then, the others are
visited as ever.
"""

from numpy import int64

from ksmbatch.accel import entry_kernel, inlined, kernel
from ksmbatch.kernels.cohorts import IN_LINE, JOINED
from ksmbatch.kernels.members import LEFT_IT, drop_member, free_member
from ksmbatch.kernels.passing import catch_up
from ksmbatch.kernels.resting import wake, write_joined
from ksmbatch.kernels.stable_node import change_length, free_stable_node
from ksmbatch.kernels.twins import tree_of
from ksmbatch.state import (
    CONTENT,
    FIRST,
    FRAME,
    FRAME_CONTENT,
    FRAME_FLAGS,
    FRAME_NID,
    HEAD,
    HOLDERS,
    ITEM_FLAGS,
    KPFN,
    KSM,
    LEADER,
    LEADS,
    LEN,
    LINE_BEFORE,
    LINE_MADE_BEFORE,
    MAPCOUNT,
    MEMBER_NEXT,
    MEMBER_NODE,
    MEMBER_PAGE,
    N_LEFT,
    NID,
    NIL,
    NO_FRAME,
    PLANNED,
    RESTING,
    UNLED,
    UNSTABLE,
    WHERE,
    Scan,
)


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
