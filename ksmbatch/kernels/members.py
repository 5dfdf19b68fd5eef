"""The rmap_items of a stable node, its hlist: who hangs there, the last that came first.

mm/ksm.c links them both ways. Here a member that leaves is only marked, so that its neighbours, each of which would be a miss
of the CPU's caches on a large host, need not be touched; it is taken out when it comes first, or when more have left than stay.
"""

from numpy import int64

from ksmbatch.accel import inlined, kernel, prefetch
from ksmbatch.kernels.resting import wake
from ksmbatch.state import FIRST, LEN, MEMBER_NEXT, MEMBER_NODE, MEMBER_PAGE, N_LEFT, NIL, Scan

LEFT_IT = int64(-1)  # MEMBER_PAGE of a member that has left
FEW = int64(8)  # that have left and may stay in a list, however short it is


@inlined
def add_member(s, node, page):
    """Hangs the rmap_item of `page` into the hlist of `node`. Writes: members, nodes, scan. Returns: the member."""
    member = int64(s.scan[Scan.FREE_MEMBER])
    if member != NIL:
        after = int64(s.members[member, MEMBER_NEXT])
        s.scan[Scan.FREE_MEMBER] = after
        prefetch(s.members, after)  # the next one to be taken
    else:
        member = int64(s.scan[Scan.NEXT_MEMBER])
        s.scan[Scan.NEXT_MEMBER] = member + 1
    s.members[member, MEMBER_PAGE] = page
    s.members[member, MEMBER_NODE] = node
    s.members[member, MEMBER_NEXT] = s.nodes[node, FIRST]
    s.nodes[node, FIRST] = member
    return member


@inlined
def free_member(s, member):
    """Gives the slot of `member`, which is in no list, back. Writes: members, scan."""
    s.members[member, MEMBER_NEXT] = s.scan[Scan.FREE_MEMBER]
    s.scan[Scan.FREE_MEMBER] = member


@inlined
def next_member(s, member):
    """The member after `member`, but for those that have left; NIL. The first of a node has not left. Reads: members."""
    member = int64(s.members[member, MEMBER_NEXT])
    while member != NIL and s.members[member, MEMBER_PAGE] == LEFT_IT:
        member = int64(s.members[member, MEMBER_NEXT])
    return member


@kernel
def drop_member(s, member):
    """Takes `member` out of its node's hlist. Writes: members, nodes, scan, and as wake()."""
    wake(s, int64(s.members[member, MEMBER_PAGE]))
    node = int64(s.members[member, MEMBER_NODE])
    s.members[member, MEMBER_PAGE] = LEFT_IT
    s.nodes[node, N_LEFT] += 1
    if s.nodes[node, FIRST] == member:
        while member != NIL and s.members[member, MEMBER_PAGE] == LEFT_IT:
            after = int64(s.members[member, MEMBER_NEXT])
            free_member(s, member)
            s.nodes[node, N_LEFT] -= 1
            member = after
        s.nodes[node, FIRST] = member
    elif s.nodes[node, N_LEFT] > s.nodes[node, LEN] + FEW:
        sweep(s, node)


@kernel
def sweep(s, node):
    """Takes those that have left out of the hlist of `node`. Writes: members, nodes, scan."""
    member = int64(s.nodes[node, FIRST])
    while member != NIL:
        after = int64(s.members[member, MEMBER_NEXT])
        while after != NIL and s.members[after, MEMBER_PAGE] == LEFT_IT:
            following = int64(s.members[after, MEMBER_NEXT])
            free_member(s, after)
            after = following
        s.members[member, MEMBER_NEXT] = after
        member = after
    s.nodes[node, N_LEFT] = 0


@kernel
def wake_members(s, node):
    """The pages whose rmap_items hang in `node` are visited when ksmd comes to them next. Writes: as wake()."""
    member = int64(s.nodes[node, FIRST])
    while member != NIL:
        wake(s, int64(s.members[member, MEMBER_PAGE]))
        member = next_member(s, member)
