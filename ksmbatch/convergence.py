"""What ksmd comes to on memory that nobody writes to, in closed form: how many KSM pages, how many mappings, on which frames.

A tree has at most one KSM page of a content with room, for another is made only of two pages that found none. So the k pages of
a content, in the order in which ksmd scans them, fill one KSM page after the other with `max_page_sharing` mappings; what is
left over makes a last one, but a single page stays alone. A KSM page lies on the frame of its second page, the one that ksmd
looked at when it found the first waiting in the unstable tree. So it is on every kernel, with smart_scan and without, for what
stands still merges in the second scan.

Frames that fork shares are different: their pages never merge with each other, and once such a frame is a KSM page they all
count, whether there is room or not; there `max_page_sharing` is followed page by page. Nothing here knows the past: what was
merged and rewritten can leave KSM pages half-full that memory standing still never has.
"""

from dataclasses import dataclass

import numpy as np

from ksmbatch.duplicates import Groups


@dataclass(frozen=True, slots=True, eq=False)
class Converged:
    """What g groups of m pages come to.

    `shared`: int64[g], KSM pages, `pages_shared`. `merged`: int64[g], pages that map one. `freed`: int64[g], frames that are
    free again. `owner`: int64[m], for each of `Groups.page` the page whose frame it maps in the end; where it did not merge
    itself, or one with which fork shares its frame. Empty where nobody asked.
    """

    shared: np.ndarray
    merged: np.ndarray
    freed: np.ndarray
    owner: np.ndarray

    @property
    def sharing(self) -> np.ndarray:
        """Of each group the mappings beyond one per KSM page, `pages_sharing`, int64[g]."""
        sharing: np.ndarray = self.merged - self.shared
        return sharing


def converge(groups: Groups, max_page_sharing: int, frame: np.ndarray | None = None, *, placed: bool = True) -> Converged:
    """What ksmd makes of `groups`, those of one tree each.

    `frame`: int64, the frame of every page of the memory, if any is shared by fork. `placed`: work out `owner`.
    """
    size = groups.size
    full, rest = np.divmod(size, max_page_sharing)
    shared = full + (rest >= 2)
    merged = size - (rest == 1)
    forked = frame is not None and groups.page.size > 0
    owner = _owners(groups, max_page_sharing, merged) if placed or forked else np.zeros(0, np.int64)
    plain = Converged(shared, merged, merged - shared, owner)
    return _with_forks(groups, max_page_sharing, frame[groups.page], plain) if frame is not None and forked else plain


def _owners(groups: Groups, most: int, merged: np.ndarray) -> np.ndarray:
    """The page whose frame each page maps in the end, where fork shares none. `merged`: pages that merge, by group."""
    size, n_pages = groups.size, groups.page.size
    place = np.arange(n_pages) - np.repeat(groups.start[:-1], size)
    within = place % most if most < size.max(initial=0) else place  # its place in its KSM page, of which the second counts
    second = np.minimum(np.arange(n_pages) - within + 1, n_pages - 1)
    return np.where(place < np.repeat(merged, size), groups.page[second], groups.page)


def _with_forks(groups: Groups, most: int, frame: np.ndarray, plain: Converged) -> Converged:
    size, of_page, start = groups.size, groups.of_page, groups.start[:-1]
    first_frame = np.repeat(frame[start], size)
    order = np.lexsort((frame, of_page))
    fresh = (np.diff(frame[order], prepend=-1) != 0) | (np.diff(of_page[order], prepend=-1) != 0)
    n_frames = np.bincount(of_page[order[fresh]], minlength=size.size)
    shared, merged, freed, owner = plain.shared.copy(), plain.merged.copy(), plain.freed.copy(), plain.owner.copy()
    # some frames have several pages, and there is room for all: one KSM page, if there are two frames to merge
    forked = n_frames < size
    roomy = forked & (size <= most)
    shared[roomy] = n_frames[roomy] >= 2
    merged[roomy] = np.where(n_frames >= 2, size, 0)[roomy]
    freed[roomy] = n_frames[roomy] - 1
    # on the frame of the first page that ksmd sees on another frame than the one that waits in the unstable tree
    n_pages = groups.page.size
    other = np.minimum.reduceat(np.where(frame != first_frame, np.arange(n_pages), n_pages), start)
    owner = np.where(np.repeat(roomy, size), groups.page[np.repeat(np.where(other < n_pages, other, start), size)], owner)
    for group in np.flatnonzero(forked & (size > most)):
        pages = slice(int(start[group]), int(start[group] + size[group]))
        shared[group], merged[group], last = _scan(frame[pages].tolist(), most)
        owner[pages] = groups.page[pages][last]
        freed[group] = n_frames[group] - np.unique(frame[pages][last]).size
    return Converged(shared, merged, freed, owner)


def _scan(frames: list[int], most: int) -> tuple[int, int, list[int]]:
    """Scans pages of one content, on `frames` at first, until nothing changes.

    Returns: KSM pages; pages that map one; per page one that had at first the frame that it has at last.
    """
    last = list(range(len(frames)))
    joined = [False] * len(frames)
    lengths: dict[int, int] = {}  # KSM pages by their frame: mappings that count
    newest = made_of = -1  # frame of the KSM page made last, the only one that may have room, and the page it was made of
    changed = True
    while changed:
        changed, waiting = False, -1
        for page, done in enumerate(joined):
            frame = frames[last[page]]
            if done:
                continue
            if frame in lengths:  # became a KSM page under it: counted without a look at the limit
                joined[page] = changed = True
                lengths[frame] += 1
            elif lengths.get(newest, most) < most:
                joined[page] = changed = True
                lengths[newest] += 1
                last[page] = made_of
            elif waiting < 0:
                waiting = page
            elif frames[last[waiting]] != frame:
                joined[page] = joined[waiting] = changed = True
                lengths[frame] = 2
                last[waiting] = page
                newest, made_of, waiting = frame, page, -1
    return len(lengths), sum(joined), last
