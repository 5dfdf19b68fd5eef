"""Policy `nuksm`: a KSM page is where most of its mappings are at home; it follows them when ksmd passes, and nobody else moves
it away from there.

After nuKSM (Panda and others, PACT 2021), which goes by accesses; here every mapping counts the same. In the trees it is
`substitute`.
"""

from numpy import int64

from ksmbatch.accel import kernel
from ksmbatch.codes import Caller
from ksmbatch.kernels.frame import has_room
from ksmbatch.kernels.members import next_member
from ksmbatch.kernels.migrate.frame_move import move_frame
from ksmbatch.kernels.migrate.substitute import migrate_ksm_page as migrate_ksm_page
from ksmbatch.kernels.migrate.substitute import place_in_tree
from ksmbatch.state import (
    FIRST,
    FRAME,
    FRAME_NID,
    FRAME_NODE,
    HEAD,
    HOME,
    HOME_CALL,
    MAPCOUNT,
    MEMBER_NODE,
    MEMBER_PAGE,
    NIL,
    PAGE_NID,
    Knob,
    Scan,
)

EDITS_TREES = True


@kernel
def count_home(s, node, frame, nid):
    """How many pages of `node`'s rmap_items map `frame`, and how many of those have their home on `nid`."""
    mapped = 0
    at_home = 0
    member = int64(s.nodes[node, FIRST])
    while member != NIL:
        page = int64(s.members[member, MEMBER_PAGE])
        if s.pages[page, FRAME] == frame:
            mapped += 1
            at_home += int64(s.page_bytes[page, PAGE_NID] == nid)
        member = next_member(s, member)
    return mapped, at_home


@kernel
def home_of(s, frame):
    """The node that maps `frame` most: of several its own, else the lowest. Reads: nodes, members, pages, page_bytes."""
    node = int64(s.frames[frame, FRAME_NODE])
    best = int64(s.frame_bytes[frame, FRAME_NID])
    _, most = count_home(s, node, frame, best)
    for nid in range(len(s.numa)):
        _, at_home = count_home(s, node, frame, nid)
        if at_home > most:
            best = nid
            most = at_home
    return best


@kernel
def stays(s, frame, nid, caller):
    """A page leaves its home for memory hotremove only. Writes: nodes, where a look at thousands of mappings is remembered."""
    node = int64(s.frames[frame, FRAME_NODE])
    if caller == Caller.HOTREMOVE:
        return False
    if node == NIL:
        return True  # none of its mappings is known: its home is where it is
    if s.nodes[node, HOME_CALL] != s.scan[Scan.MOVE_CALL]:
        s.nodes[node, HOME] = home_of(s, frame)
        s.nodes[node, HOME_CALL] = s.scan[Scan.MOVE_CALL]
    return s.nodes[node, HOME] != nid


@kernel
def visit_ksm_page(s, page):
    """ksmd passes the page whose rmap_item is first in its node: the frame goes home, if all its mappings are known.

    Writes: everything.
    """
    frame = int64(s.pages[page, FRAME])
    node = int64(s.members[s.pages[page, HEAD], MEMBER_NODE])
    if s.nodes[node, FIRST] != s.pages[page, HEAD]:
        return
    nid = home_of(s, frame)
    if nid == s.frame_bytes[frame, FRAME_NID] or not has_room(s, nid):
        return
    mapped, _ = count_home(s, node, frame, nid)
    if mapped != s.frames[frame, MAPCOUNT]:
        return
    if s.knobs[Knob.MERGE_ACROSS_NODES]:
        move_frame(s, frame, nid)
    else:
        place_in_tree(s, frame, nid, s.unstable_log[:0], int64(0))  # nobody to list: all mappings have rmap_items here
