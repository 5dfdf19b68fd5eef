"""Pages at rest that must be visited all the same: those whose searches would see or change the shape of a tree.

What a walk may meet is `stable_tree`'s and `stable_shape`'s knowledge; here pages are looked through for it.
"""

import numpy as np
from numpy import int64

from ksmbatch.accel import inlined, kernel
from ksmbatch.kernels.bits import BYTES_AT_ONCE, bytes_equal, lowest_bit
from ksmbatch.kernels.cohorts import IS_VISIT, SEARCHING, is_changed
from ksmbatch.kernels.stable_shape import know_where_to_look, may_meet_something
from ksmbatch.kernels.stable_tree import is_calm, meets_something
from ksmbatch.state import (
    FRAME,
    FRAME_CONTENT,
    ITEM_NID,
    LOOK_END,
    LOOK_FIRST,
    LOOK_HIGH,
    LOOK_KNOWN,
    LOOK_LOW,
    PAGES_PER_BLOCK,
    PAGES_PER_WORD,
    SEARCHER,
    STABLE_LOGGED,
    UNSTABLE_EXACT,
    WATCH_END,
    WATCH_FIRST,
    WATCH_HIGH,
    WATCH_LOW,
    WATCHED,
    Knob,
    Scan,
)

WIDER = int64(16)  # how much more is watched than is needed at the time
IN_VAIN = int64(64)  # of as many pages one may be looked at for nothing before other contents are watched for
MANY = int64(8)  # one in so many pages is many, of a block: that is looked through for those to watch at once
UNKNOWN = int64(-1)  # scan[N_SEARCHERS], scan[NEXT_WATCHED]: nobody has looked for them
NARROW, FEW = int64(16), int64(256)  # one in so many contents is few, and very few


@inlined
def lively_trees(s):
    """The nids, as bits, of the trees whose shape searches may see or change; nids above 31 share bits. Reads: trees, knobs."""
    lively = int64(0)
    for nid in range(1 if s.knobs[Knob.MERGE_ACROSS_NODES] else s.trees.shape[1]):
        if s.trees[UNSTABLE_EXACT, nid] or not is_calm(s, nid):
            lively |= int64(1) << (nid & 31)
    return lively


@kernel
def must_look(s, page, nid, content):
    """Whether `page`, at rest, which searches the trees of `nid` in this scan, may see or change their shape. Reads: trees."""
    if s.trees[UNSTABLE_EXACT, nid]:
        return True
    if is_calm(s, nid) or (s.trees[LOOK_KNOWN, nid] and not may_meet_something(s, nid, content)):
        return False
    s.scan[Scan.CUR_PAGE] = page + 1  # time is told by it, where a chain may be due for pruning
    return meets_something(s, nid, content)


@inlined
def content_of(s, page):
    """What `page`, at rest and no KSM page, holds. Reads: pages, frames."""
    return int64(s.frames[s.pages[page, FRAME], FRAME_CONTENT])


@inlined
def is_watched(s, nid, content):
    """Whether `watch` is to have the pages at rest that search the tree of `nid` for `content`. Reads: trees."""
    if not s.trees[WATCHED, nid]:
        return False
    if content < s.by_content.shape[1]:
        return s.trees[WATCH_LOW, nid] < content < s.trees[WATCH_HIGH, nid]
    return s.trees[WATCH_FIRST, nid] <= content < s.trees[WATCH_END, nid]


@inlined
def watch(s, page, nid, content):
    """`page` begins a rest in which it searches the tree of `nid` for `content`. Writes: watch."""
    if is_watched(s, nid, content):
        s.watch[page // PAGES_PER_WORD] |= np.uint32(1 << (page % PAGES_PER_WORD))


@inlined
def is_covered(s, nid):
    """Whether `watch` has all pages whose searches might meet something in the tree of `nid`, which is known. Reads: trees."""
    if not s.trees[WATCHED, nid]:
        return False
    singles = s.trees[LOOK_FIRST, nid] >= s.trees[LOOK_END, nid] or (
        s.trees[WATCH_FIRST, nid] <= s.trees[LOOK_FIRST, nid] and s.trees[LOOK_END, nid] <= s.trees[WATCH_END, nid]
    )
    held = s.trees[LOOK_LOW, nid] + 1 >= s.trees[LOOK_HIGH, nid] or (
        s.trees[WATCH_LOW, nid] <= s.trees[LOOK_LOW, nid] and s.trees[LOOK_HIGH, nid] <= s.trees[WATCH_HIGH, nid]
    )
    return singles and held


@inlined
def is_narrow(s, nid):
    """Whether few enough contents are searched for past something in the tree of `nid` that it pays to watch for them.

    Reads: trees.
    """
    singles = int64(s.trees[LOOK_END, nid]) - int64(s.trees[LOOK_FIRST, nid])
    held = int64(s.trees[LOOK_HIGH, nid]) - int64(s.trees[LOOK_LOW, nid])
    n_held = s.by_content.shape[1]
    return singles * NARROW <= len(s.rank) - n_held and (held - 2) * NARROW <= n_held


@inlined
def is_loose(s, nid):
    """Whether `watch` has many pages for the tree of `nid`, and would have far fewer if it were made anew. Reads: trees."""
    watched = int64(s.trees[WATCH_END, nid]) - int64(s.trees[WATCH_FIRST, nid])
    if watched * FEW < len(s.rank) - s.by_content.shape[1]:
        return False
    return watched > 4 * (2 * WIDER + 1) * (int64(s.trees[LOOK_END, nid]) - int64(s.trees[LOOK_FIRST, nid]))


@inlined
def widened(low, high, most):
    """Bounds that are further apart than `low` and `high`, but by no more than `most` on each side."""
    more = min((high - low) * WIDER, most)
    return max(low - more, int64(-1)), min(high + more, int64(2**31 - 1))


@kernel
def watch_for(s, lively):
    """Other contents are watched for: some way beyond those of which it is known that their searches may meet something.

    Trees grow and turn, and each time that they do so further than that all blocks must be looked through.
    Reads: trees. Writes: trees, scan.
    """
    n_held = s.by_content.shape[1]
    s.scan[Scan.WATCH] += 1
    s.scan[Scan.NEXT_WATCHED] = UNKNOWN
    for nid in range(s.trees.shape[1]):
        s.trees[WATCHED, nid] = 0
        if (lively >> (nid & 31)) & 1 and s.trees[LOOK_KNOWN, nid]:
            s.trees[WATCHED, nid] = 1
            first, end = int64(s.trees[LOOK_FIRST, nid]), int64(s.trees[LOOK_END, nid])
            s.trees[WATCH_FIRST, nid], s.trees[WATCH_END, nid] = widened(first, end, (len(s.rank) - n_held) // NARROW)
            low, high = int64(s.trees[LOOK_LOW, nid]), int64(s.trees[LOOK_HIGH, nid])
            s.trees[WATCH_LOW, nid], s.trees[WATCH_HIGH, nid] = widened(low, high, n_held // NARROW)


@inlined
def watch_for_the_lowest(s):
    """Nobody rests yet: the lowest contents are watched for, so that no block need be looked through for them.

    The lowest of all is the page of zeros, which has the chain if any content has one, and hangs at the tree's left end.
    Reads: rank. Writes: trees.
    """
    n_held = s.by_content.shape[1]
    high = min(2 * WIDER, n_held // NARROW)
    if high == 0:
        return
    n_before = min(int64(s.rank[high]) - high, (len(s.rank) - n_held) // NARROW)
    for nid in range(s.trees.shape[1]):
        s.trees[WATCHED, nid] = 1
        s.trees[WATCH_FIRST, nid] = n_held
        s.trees[WATCH_END, nid] = n_held + n_before
        s.trees[WATCH_LOW, nid] = -1
        s.trees[WATCH_HIGH, nid] = high


@kernel
def watch_block(s, block):
    """Looks through the pages of `block` for those to watch. Reads: trees, pages, page_bytes. Writes: watch, watch_of_block."""
    s.watch_of_block[block] = s.scan[Scan.WATCH]
    n_held = s.by_content.shape[1]
    least = int64(2**31)
    most = int64(0)
    for nid in range(s.trees.shape[1]):
        if s.trees[WATCHED, nid]:
            least = min(least, int64(s.trees[WATCH_FIRST, nid]))
            most = max(most, int64(s.trees[WATCH_END, nid]))
    words = PAGES_PER_BLOCK // PAGES_PER_WORD
    for word in range(block * words, min((block + 1) * words, len(s.watch))):
        first = word * PAGES_PER_WORD
        end = min(first + PAGES_PER_WORD, len(s.pages))
        found = int64(0)
        for page in range(first, end):  # without a branch, since what a page holds cannot be foretold
            content = int64(s.frames[page, FRAME_CONTENT])
            is_within = ((content - n_held) | (~(content - least) & (content - most))) >> 63
            elsewhere = int64(s.pages[page, FRAME]) ^ page  # has another frame than that of its number
            found |= (is_within | elsewhere) & ((SEARCHING - 1 - int64(s.cohort[page])) >> 63)
        s.watch[word] = watched_of(s, first, end) if found else 0


@inlined
def watched_of(s, first, end):
    """The pages of [first, end), of one word, that are to be watched, as bits. Reads: cohort, pages, page_bytes, trees."""
    bits = int64(0)
    for page in range(first, end):
        if s.cohort[page] >= SEARCHING:
            watched = is_watched(s, int64(s.page_bytes[page, ITEM_NID]), content_of(s, page))
            bits |= int64(watched) << (page - first)
    return bits


@inlined
def is_block_watched(s, block):
    """Whether `watch` is as it should be for `block`; it is made so if that pays. Writes: scan, and as watch_block()."""
    if s.watch_of_block[block] == s.scan[Scan.WATCH]:
        return True
    cost = PAGES_PER_BLOCK // MANY
    if s.scan[Scan.LOOKED_IN_VAIN] < cost and s.scan[Scan.PENDING_VISITS] < cost:
        return False
    s.scan[Scan.LOOKED_IN_VAIN] = max(s.scan[Scan.LOOKED_IN_VAIN] - cost, 0)
    watch_block(s, block)
    return True


@inlined
def is_none_watched(s, end, lively):
    """Whether it is known of the pages from the cursor to before `end`, in the open region, that none of them must look.

    Reads: scan, trees.
    """
    if s.scan[Scan.NEXT_WATCHED] < end:
        return False
    for nid in range(1 if s.knobs[Knob.MERGE_ACROSS_NODES] else s.trees.shape[1]):
        if (lively >> (nid & 31)) & 1 and (
            s.trees[UNSTABLE_EXACT, nid]
            or s.trees[STABLE_LOGGED, nid]
            or not s.trees[LOOK_KNOWN, nid]
            or not is_covered(s, nid)
        ):
            return False
    return True


@kernel
def first_that_looks(s, first, end, lively):
    """The first of the pages [first, end), of one block, none of them due, that must look, see above; `end` if none must.

    Reads: watch, page_bytes, cohorts. Writes: scan, and as meets_something(), watch_for(), watch_block().
    """
    covered = True
    narrow = True
    loose = False
    for nid in range(1 if s.knobs[Knob.MERGE_ACROSS_NODES] else s.trees.shape[1]):
        if not (lively >> (nid & 31)) & 1:
            continue
        if s.trees[UNSTABLE_EXACT, nid]:
            return first_of_all(s, first, end, lively, int64(0), int64(2**31))
        know_where_to_look(s, nid)
        covered = covered and is_covered(s, nid)
        narrow = narrow and is_narrow(s, nid)
        loose = loose or is_loose(s, nid)
    if narrow and (loose or not covered) and s.scan[Scan.LOOKED_IN_VAIN] > len(s.pages) // IN_VAIN:
        watch_for(s, lively)
        covered = True
    if not covered or not is_block_watched(s, first // PAGES_PER_BLOCK):
        before = int64(s.scan[Scan.LOOKED_IN_VAIN])
        found = first_of_range(s, first, end, lively)
        if not narrow:
            s.scan[Scan.LOOKED_IN_VAIN] = before  # to watch would not have helped
        return found
    mask = int64(-1) << (first % PAGES_PER_WORD)
    beyond = max(end, int64(s.scan[Scan.REGION_END]))
    for word in range(first // PAGES_PER_WORD, (beyond + PAGES_PER_WORD - 1) // PAGES_PER_WORD):
        bits = int64(s.watch[word]) & mask
        mask = int64(-1)
        while bits:
            page = word * PAGES_PER_WORD + lowest_bit(bits)
            bits &= bits - 1
            if page >= end:
                s.scan[Scan.NEXT_WATCHED] = page
                return end
            if must_be_visited(s, page, lively):
                return page
            s.scan[Scan.LOOKED_IN_VAIN] += 1
    s.scan[Scan.NEXT_WATCHED] = beyond
    return end


@inlined
def must_be_visited(s, page, lively):
    """Whether `page`, if it searches in this scan, though it is at rest, must look.

    Reads: cohorts, changed. Writes: as must_look().
    """
    if not s.cohorts[0, s.cohort[page]] & IS_VISIT or is_changed(s, page):
        return False  # it is skipped, or the checksum gate stops it
    nid = int64(s.page_bytes[page, ITEM_NID])
    return (lively >> (nid & 31)) & 1 and must_look(s, page, nid, content_of(s, page))


@kernel
def first_of_range(s, first, end, lively):
    """As first_that_looks(), where too many contents may meet something to watch for them."""
    low = int64(2**31)
    high = int64(0)
    for nid in range(1 if s.knobs[Knob.MERGE_ACROSS_NODES] else s.trees.shape[1]):
        if (lively >> (nid & 31)) & 1:
            low = min(low, int64(s.trees[LOOK_FIRST, nid]))
            high = max(high, int64(s.trees[LOOK_END, nid]))
    return first_of_all(s, first, end, lively, low, high)


@kernel
def list_searchers(s, block):
    """Lists the cohorts of which pages of `block` search in this scan; those that come to it in this scan do not.

    Reads: cohorts. Writes: due, scan.
    """
    n_searchers = int64(0)
    for cohort in range(s.cohorts.shape[1]):
        if s.cohorts[1 + block, cohort] != 0 and s.cohorts[0, cohort] & IS_VISIT:
            s.due[SEARCHER, n_searchers] = cohort
            n_searchers += 1
    s.scan[Scan.N_SEARCHERS] = n_searchers


@inlined
def searchers_of(s, first, end):
    """Which of the pages [first, end), at most BYTES_AT_ONCE, are of listed cohorts, as bits. Reads: cohort, due."""
    bits = int64(0)
    if first + BYTES_AT_ONCE > len(s.cohort):
        for page in range(first, end):
            if s.cohorts[0, s.cohort[page]] & IS_VISIT:
                bits |= int64(1) << (page - first)
        return bits
    for k in range(s.scan[Scan.N_SEARCHERS]):
        bits |= bytes_equal(s.cohort, first, int64(s.due[SEARCHER, k]))
    if end - first < BYTES_AT_ONCE:
        bits &= ~(int64(-1) << (end - first))
    return bits


@kernel
def first_of_all(s, first, end, lively, low, high):
    """As first_that_looks(); of contents held once, only those from `low` to before `high` matter."""
    if s.scan[Scan.N_SEARCHERS] == UNKNOWN:
        list_searchers(s, first // PAGES_PER_BLOCK)
    n_held = s.by_content.shape[1]
    while first < end:
        stop = min(first + BYTES_AT_ONCE, end)
        bits = searchers_of(s, first, stop)
        while bits:
            page = first + lowest_bit(bits)
            bits ^= int64(1) << (page - first)
            content = content_of(s, page)
            if (content < n_held or low <= content < high) and must_be_visited(s, page, lively):
                return page
            s.scan[Scan.LOOKED_IN_VAIN] += 1
        first = stop
    return end
