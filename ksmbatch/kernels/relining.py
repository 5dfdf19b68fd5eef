"""Lines of one content, drawn up anew before they are passed, where pages have left all but the last of them.

A node that pages in line will not fill has room for the leaders of the next line, and so on: without this, one page of zeros
that is written between ksmd's first two scans would break all lines of zeros. What lines are is `lines`' business.
"""

from numpy import int64

from ksmbatch.accel import inlined, kernel, prefetch
from ksmbatch.kernels.cohorts import IN_LINE, class_of
from ksmbatch.kernels.cursor import make_due, make_undue
from ksmbatch.kernels.lines import LEADERS
from ksmbatch.kernels.members import LEFT_IT, free_member
from ksmbatch.kernels.resting import rest
from ksmbatch.state import (
    CHECKSUM,
    CONTENT,
    FIRST,
    FRAME,
    FRAME_CONTENT,
    FRAME_FLAGS,
    FRAME_NID,
    ITEM_FLAGS,
    KNID,
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
    PAGES_PER_BLOCK,
    RESTING,
    SECOND,
    UNLED,
    Knob,
    Scan,
)

AHEAD = int64(128)  # members of a line have slots that fall, not far from each other


@kernel
def draw_up_lines(s):
    """The lines of contents that have several are full again, but for the last of each, and all have leaders again.

    To be called before they are passed.

    Writes: nodes, members, by_content, pages, page_bytes, cohort, cohorts, calendar, scan.
    """
    s.scan[Scan.LINES_LEFT] = 0
    line = int64(s.scan[Scan.LAST_LINE])
    while line > NIL:
        tree, content = int64(s.nodes[line, NID]), int64(s.nodes[line, CONTENT])
        if s.by_content[tree, content, RESTING] == -line and (s.nodes[line, LINE_BEFORE] != NIL or s.nodes[line, UNLED]):
            draw_up(s, line)
        line = int64(s.nodes[line, LINE_MADE_BEFORE])


@kernel
def draw_up(s, last):
    """The lines of the content of `last`, which was made last, one after the other: who came last is the first member there.

    Writes: as draw_up_lines().
    """
    member, n_pages = join_up(s, last)
    most = int64(s.knobs[Knob.MAX_PAGE_SHARING])
    n_lines = (n_pages + most - 1) // most
    length = n_pages - (n_lines - 1) * most
    line = last
    n_before = int64(0)
    while line != NIL:
        n_before += 1
        line = int64(s.nodes[line, LINE_BEFORE])
    line = last
    while n_before > n_lines:  # so many pages have left that lines are too many
        s.nodes[line, FIRST] = NIL
        s.nodes[line, LEN] = 0
        line = int64(s.nodes[line, LINE_BEFORE])
        n_before -= 1
    s.by_content[s.nodes[last, NID], s.nodes[last, CONTENT], RESTING] = -line
    while line != NIL:
        member = line_up(s, line, member, length)
        length = most
        line = int64(s.nodes[line, LINE_BEFORE])


@inlined
def join_up(s, last):
    """All who are in the lines of the content of `last`, or lead them, in one list; pages that have left are not.

    Writes: nodes, members, page_bytes, scan. Returns: the first member, which came last; their number.
    """
    content = int64(s.nodes[last, CONTENT])
    first = NIL
    before = NIL
    n_pages = int64(0)
    line = last
    while line != NIL:
        member = int64(s.nodes[line, FIRST])
        while member != NIL:
            prefetch(s.members, max(member - AHEAD, int64(0)))
            after = int64(s.members[member, MEMBER_NEXT])
            page = int64(s.members[member, MEMBER_PAGE])
            if page == LEFT_IT or not is_still_there(s, page, content):
                free_member(s, member)
            else:
                if before == NIL:
                    first = member
                else:
                    s.members[before, MEMBER_NEXT] = member
                before = member
                n_pages += 1
            member = after
        s.nodes[line, N_LEFT] = 0
        s.nodes[line, UNLED] = 0
        line = int64(s.nodes[line, LINE_BEFORE])
    return first, n_pages


@inlined
def is_still_there(s, page, content):
    """Whether `page` is in line, or leads one and has still `content`; if not, it leads none. Writes: page_bytes."""
    if s.cohort[page] >= IN_LINE:
        return True
    is_plain = s.pages[page, FRAME] == page and s.frames[page, MAPCOUNT] == 1 and not s.frame_bytes[page, FRAME_FLAGS]
    if is_plain and s.frames[page, FRAME_CONTENT] == content and s.pages[page, CHECKSUM] == content:
        return True
    s.page_bytes[page, ITEM_FLAGS] = int64(s.page_bytes[page, ITEM_FLAGS]) & ~LEADS
    return False


@kernel
def line_up(s, line, first, length):
    """The `length` members from `first` on are those of `line`, and the last two of them lead it.

    Writes: nodes, members, pages, page_bytes, cohort, cohorts, calendar. Returns: the member after them.
    """
    s.nodes[line, FIRST] = first
    s.nodes[line, LEN] = length
    s.nodes[line, SECOND] = 0
    member = first
    for k in range(length):
        prefetch(s.members, max(member - AHEAD, int64(0)))
        s.members[member, MEMBER_NODE] = line
        page = int64(s.members[member, MEMBER_PAGE])
        after = int64(s.members[member, MEMBER_NEXT])
        if k == length - 2:
            s.nodes[line, SECOND] = page + 1
            s.nodes[line, KNID] = s.frame_bytes[page, FRAME_NID]
        elif k == length - 1:
            s.nodes[line, LEADER] = page + 1
            s.members[member, MEMBER_NEXT] = NIL
        member = after
    knid = int64(s.nodes[line, KNID])
    following = member
    member = first
    for k in range(length):
        if k < length - LEADERS:
            let_follow(s, int64(s.members[member, MEMBER_PAGE]), knid)
        else:
            let_lead(s, int64(s.members[member, MEMBER_PAGE]))
        member = int64(s.members[member, MEMBER_NEXT])
    return following


@inlined
def let_lead(s, page):
    """`page`, which is in line or leads one, does the latter. Writes: page_bytes, cohort, cohorts, calendar."""
    cohort = int64(s.cohort[page])
    if cohort >= IN_LINE:
        s.cohorts[1 + page // PAGES_PER_BLOCK, cohort] -= 1
        s.cohort[page] = 0
        s.page_bytes[page, ITEM_FLAGS] |= LEADS
        make_due(s, page, s.scan[Scan.SEQ] + 1)


@inlined
def let_follow(s, page, knid):
    """`page`, which is in line or leads one, is in line for one on `knid`. Writes: page_bytes, cohort, cohorts, calendar."""
    cohort = int64(s.cohort[page])
    if cohort < IN_LINE:
        s.page_bytes[page, ITEM_FLAGS] = int64(s.page_bytes[page, ITEM_FLAGS]) & ~LEADS
        make_undue(s, page, s.scan[Scan.SEQ] + 1)
        rest(s, page, class_of(int64(s.frame_bytes[page, FRAME_NID]), knid))
    elif cohort != class_of((cohort - IN_LINE) // 2, knid):
        s.cohorts[1 + page // PAGES_PER_BLOCK, cohort] -= 1
        rest(s, page, class_of((cohort - IN_LINE) // 2, knid))
