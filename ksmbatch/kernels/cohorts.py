"""Cohorts: pages at rest that all scans pass alike, and what such a pass comes to.

Those of one cohort are KSM pages in their place (MERGED, JOINED), or pages that search for a partner in vain in every scan
(SEARCHING), or in those that smart_scan leaves them; these are told apart by the scan since which should_skip_rmap_item() was
asked about them, since age and remaining_skips depend on nothing but how often that was. Pages in line (from IN_LINE on) will
be merged when they are passed next, see `lines`; once they are, they are JOINED, which differs from MERGED in that nobody has
written to their rows yet what came of it (see `resting.write_joined`). A page that the checksum gate stopped at its last
visit (`gated`) is passed like its cohort, but is in no unstable tree until its next one. One whose content has changed since
its last visit (`changed`) will be stopped by it. See docs/adr/0009.
"""

import numpy as np
from numpy import int64

from ksmbatch.accel import inlined, kernel
from ksmbatch.codes import Kernel
from ksmbatch.kernels.bits import lowest_bit
from ksmbatch.state import CHECKSUM, FRAME, FRAME_CONTENT, PAGES_PER_BLOCK, PAGES_PER_WORD, SCANS_AHEAD, Knob, Scan

# 0 is awake
MERGED, JOINED, SEARCHING, FIRST_COHORT = int64(1), int64(2), int64(3), int64(4)
N_COHORTS = int64(243)  # of smart_scan, from FIRST_COHORT on; a multiple of its period of 9
IN_LINE = FIRST_COHORT + N_COHORTS  # and those above: a cohort for each class of mappings (see class_of)
MOST_NIDS = int64(4)  # NUMA nodes for which there are classes
# row 0 of `cohorts`: what the pass of a page in this scan is
IS_MERGED, IS_VISIT, IS_SKIP, WAS_UNSTABLE = int64(1), int64(2), int64(4), int64(8)
# and of a visit in pass_of() that the checksum gate stops
IS_GATE = int64(16)
IS_JOIN = int64(32)  # again in row 0: it is merged with a KSM page
PERIOD, SATURATED = int64(9), int64(14)  # from call 14 on smart_scan lets a page be visited every 9th time
OLDEST = int64(234)  # calls after which a cohort is renamed to one as many periods younger as there are
RENAMED_BY = int64(216)


def _visits() -> np.ndarray:
    """bool[N_COHORTS + SCANS_AHEAD]: whether call n of should_skip_rmap_item() lets a page be visited. Mirrors: skip_age()."""
    visits = np.zeros(int(N_COHORTS + SCANS_AHEAD), np.bool_)
    visits[[1, 2, 3, 4, 6, 9]] = True
    visits[int(SATURATED) :: int(PERIOD)] = True
    return visits


VISITS = _visits()
NEXT_VISIT = np.array([1 + int(VISITS[n + 1 :].argmax()) for n in range(int(N_COHORTS))], np.int64)  # calls from n to it
SKIPS_LEFT = np.where(np.arange(int(N_COHORTS)) < 4, 0, NEXT_VISIT - 1)  # remaining_skips after call n


@inlined
def calls_of(age, skips):
    """How often should_skip_rmap_item() has been asked, up to whole periods. Mirrors: its effect on age, remaining_skips."""
    if age < SATURATED:
        return age
    return SATURATED + PERIOD - 1 - skips


@inlined
def calls_after(cohort, seq):
    """As calls_of(), of a page of `cohort` that scan `seq` has passed."""
    return (seq - cohort + FIRST_COHORT + N_COHORTS) % N_COHORTS


@inlined
def cohort_of(calls, seq):
    """The cohort of a page that scan `seq` has passed, and that was asked about for the `calls`th time there."""
    return FIRST_COHORT + (seq - calls + N_COHORTS) % N_COHORTS


@inlined
def class_of(nid, knid):
    """The cohort of a page in line whose frame is on `nid`, where it is at home, and which will join a frame on `knid`."""
    return IN_LINE + 2 * nid + int64(knid != nid)


@inlined
def gate_comes_first(s):
    """Whether a visit to a page with another content finds just that it has changed. Reads: knobs, checksum_class.

    6.1 looks for it in the stable tree first; and where contents share checksums it may seem not to have changed.
    """
    return s.knobs[Knob.KERNEL] >= Kernel.V6_12 and len(s.checksum_class) == 0


@inlined
def is_stopped_by_gate(s, content):
    """Whether that is so of a page that has come to hold `content`, and nothing else follows. Reads: knobs, by_content."""
    return content >= s.by_content.shape[1] and gate_comes_first(s)


@inlined
def is_changed(s, page):
    """Whether `page`, at rest, has another content than at ksmd's last look. Reads: changed."""
    return (int64(s.changed[page // PAGES_PER_WORD]) >> (page % PAGES_PER_WORD)) & 1


@inlined
def note_changed(s, page):
    """`page`, at rest, has another content than at ksmd's last look, of which CHECKSUM tells. Writes: changed."""
    s.changed[page // PAGES_PER_WORD] |= np.uint32(1 << (page % PAGES_PER_WORD))


@inlined
def forget_change(s, page):
    """`page` is awake, or at rest with the content that it had at ksmd's last look. Writes: changed."""
    s.changed[page // PAGES_PER_WORD] &= np.uint32(0xFFFFFFFF ^ (1 << (page % PAGES_PER_WORD)))


@inlined
def last_checksum(s, page):
    """The content of `page`, no KSM page, at ksmd's last look: at rest that is what it has, unless it has changed.

    Reads: pages, frames, cohort, changed.
    """
    if s.cohort[page] <= JOINED or is_changed(s, page):
        return int64(s.pages[page, CHECKSUM])
    return int64(s.frames[s.pages[page, FRAME], FRAME_CONTENT])


@inlined
def is_gated(s, page, seq):
    """Whether `page`, at rest, was visited in scan `seq`, the present or the last one, and put in no tree.

    Those of the open region that are behind the cursor, but still to be counted, are told by `changed`. Reads: gated, changed.
    """
    if (int64(s.gated[seq & 1, page // PAGES_PER_WORD]) >> (page % PAGES_PER_WORD)) & 1:
        return True
    is_uncounted = seq == s.scan[Scan.SEQ] and s.scan[Scan.PASSED_TO] <= page < s.scan[Scan.REGION_END]
    return is_uncounted and is_changed(s, page) != 0


@inlined
def gate(s, page):
    """`page`, which begins a rest, was visited in this scan, and put in no tree: its checksum had changed. Writes: gated."""
    s.gated[s.scan[Scan.SEQ] & 1, page // PAGES_PER_WORD] |= np.uint32(1 << (page % PAGES_PER_WORD))


@inlined
def pass_of(s, page):
    """What the pass of `page`, at rest, comes to in this scan, as in row 0 of `cohorts`; IS_GATE, if its content has changed.

    Reads: cohort, cohorts, gated, changed.
    """
    phase = int64(s.cohorts[0, s.cohort[page]])
    if phase & WAS_UNSTABLE and is_gated(s, page, s.scan[Scan.SEQ] - 1):
        phase -= WAS_UNSTABLE
    if phase & IS_VISIT and is_changed(s, page):
        phase |= IS_GATE
    return phase


@inlined
def count_marked(s, marks, first, end, what):
    """How many pages at rest of [first, end), whole words, have a bit in `marks`, and `what` in their pass in this scan.

    `marks`: uint32[words], a row of `gated`, or `changed`. Reads: cohort, cohorts.
    """
    found = int64(0)
    for word in range(first // PAGES_PER_WORD, end // PAGES_PER_WORD):
        bits = int64(marks[word])
        while bits:
            page = word * PAGES_PER_WORD + lowest_bit(bits)
            bits &= bits - 1
            found += (int64(s.cohorts[0, s.cohort[page]]) & what) // what
    return found


@kernel
def pass_gates(s, first, end):
    """The pages at rest of [first, end) have been passed: those that were visited and had changed were put in no tree.

    Writes: changed, gated.
    """
    row = s.scan[Scan.SEQ] & 1
    mask = int64(-1) << (first % PAGES_PER_WORD)
    for word in range(first // PAGES_PER_WORD, (end + PAGES_PER_WORD - 1) // PAGES_PER_WORD):
        bits = int64(s.changed[word]) & mask
        mask = int64(-1)
        while bits:
            page = word * PAGES_PER_WORD + lowest_bit(bits)
            if page >= end:
                break
            bits &= bits - 1
            if s.cohorts[0, s.cohort[page]] & IS_VISIT:
                forget_change(s, page)
                s.gated[row, word] |= np.uint32(1 << (page % PAGES_PER_WORD))


@kernel
def rename_oldest(s, old, new):
    """The pages of cohort `old` are of cohort `new` now, which differs by whole periods. Writes: cohort, cohorts."""
    for block in range(1, len(s.cohorts)):
        if s.cohorts[block, old] == 0:
            continue
        s.cohorts[block, new] += s.cohorts[block, old]
        s.cohorts[block, old] = 0
        first = (block - 1) * PAGES_PER_BLOCK
        for page in range(first, min(first + PAGES_PER_BLOCK, len(s.pages))):
            if s.cohort[page] == old:
                s.cohort[page] = new
