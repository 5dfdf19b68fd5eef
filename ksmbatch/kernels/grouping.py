"""Raw pages to groups of equal ones: hash, look up, compare; and what it takes to put contents in memcmp order.

A group is a hash; every page is compared with the first of its group, so that pages which differ never share one: those that
only share the hash are strays, for the caller to deal with. What pages are read from, and in which portions, is not known here.
"""

from numpy import uint32, uint64

from ksmbatch.accel import entry_kernel, inlined
from ksmbatch.kernels.page_bytes import big_endian_word, equal_bytes, equal_pairs, prefetch
from ksmbatch.kernels.xxhash import PAGE_BYTES, hash_rows

HASH, GROUP, COMPARE = 1, 2, 4  # steps of group_pages()
STRAY = 0xFFFFFFFF  # in `first_page`: the page only has the hash of its group

ZERO, ONE, HALF, LOW = uint64(0), uint64(1), uint64(32), uint64(0xFFFFFFFF)
SEED = uint64(0)  # ksmd's
PAGE, BLOCK = uint64(PAGE_BYTES), uint64(32)  # 32 pages: hashed, they are still in the cache when they are compared
AHEAD = uint64(512)  # of a page to be compared; the hardware sees the pattern and brings the rest


@entry_kernel
def group_pages(
    steps, pages, row, n, page, mask, hashes, first_page, first_row, table, ids, keys, checksums, n_groups
):  # fmt: skip
    """Takes `n` pages, from row `row` of `pages` on, which are `page`, `page` + 1 and so on of the whole, through `steps`.

    HASH: XXH64 of each, to hashes[:n]. GROUP: looks up the hash & `mask`; the first page of its group goes to first_page[:n],
    its id to `ids`, and the checksum of a new group to `checksums`. COMPARE: with row first_row[k] of `pages`; a page that
    differs gets STRAY in first_page[k], and the first word of one that is the first of its group goes to `keys`: looking up
    does without the pages.
    Reads: pages, first_row. Writes: hashes, first_page, table, ids, keys, checksums, n_groups. Returns: how many strays.
    """
    n_strays = ZERO
    waiting = n  # the page to be compared together with the next one; n for none
    for start in range(ZERO, n, BLOCK):
        size = min(BLOCK, n - start)
        if steps & HASH:
            hash_rows(pages, row + start, size, SEED, hashes, start)
        if steps & GROUP:
            for k in range(start, start + size):
                prefetch(table, slot_of(table, hashes[k] & mask))
            for k in range(start, start + size):
                look_up(page + k, k, mask, hashes, first_page, table, ids, checksums, n_groups)
                if steps & COMPARE and uint64(first_page[k]) != page + k:
                    for line in range(ZERO, AHEAD, uint64(64)):
                        prefetch(pages, uint64(first_page[k]) * PAGE + line)
            for k in range(start, start + size):
                ids[page + k] = ids[first_page[k]]
        if steps & COMPARE:
            for k in range(start, start + size):
                if uint64(first_row[k]) == row + k:
                    keys[ids[page + k]] = big_endian_word(pages, row + k, 0)
                elif waiting == n:
                    waiting = k
                else:
                    if not equal_pairs(pages, row + waiting, first_row[waiting], row + k, first_row[k]):
                        n_strays += is_stray(pages, row, waiting, first_page, first_row)
                        n_strays += is_stray(pages, row, k, first_page, first_row)
                    waiting = n
    if waiting != n:
        n_strays += is_stray(pages, row, waiting, first_page, first_row)
    return n_strays


@inlined
def slot_of(table, key):
    """Where the search for hash `key` begins: its upper half says how far along the table."""
    return ((key >> HALF) * uint64(len(table))) >> HALF


@inlined
def look_up(page, k, mask, hashes, first_page, table, ids, checksums, n_groups):
    """Finds the group of `page`, number `k` of its portion, or founds it.

    An entry of `table` is the lower half of a hash, and 1 + the first page with it; 0 is empty. There always is an empty one.
    Reads: hashes. Writes: first_page, table, ids, checksums, n_groups.
    """
    key = hashes[k] & mask
    slot = slot_of(table, key)
    while table[slot] != ZERO:
        if (table[slot] ^ (key << HALF)) >> HALF == ZERO:
            first_page[k] = uint32((table[slot] & LOW) - ONE)
            return
        slot += ONE
        if slot == uint64(len(table)):
            slot = ZERO
    table[slot] = (key << HALF) | (page + ONE)
    group = n_groups[0]
    n_groups[0] = group + ONE
    first_page[k] = uint32(page)
    ids[page] = uint32(group)
    checksums[group] = uint32(hashes[k] & LOW)


@inlined
def is_stray(pages, row, k, first_page, first_row):
    """Compares page number `k` of its portion with the first of its group.

    Reads: pages, first_row. Writes: first_page. Returns: 1 for a stray.
    """
    if equal_bytes(pages, row + k, first_row[k]) == PAGE_BYTES:
        return ZERO
    first_page[k] = STRAY
    return ONE


@entry_kernel
def compare_with_pivots(pages, rows, pivots, keys):
    """Where each page stands relative to its pivot: pages with one pivot are in memcmp order if their keys are.

    The page in row rows[k] of `pages`, against the one in row pivots[k]. A key is one bit for the side; 12 bits for the first
    byte that differs: before the pivot a page is the greater the later it differs, after it the smaller; then what the page
    has from that byte on. Equal keys say nothing, unless they are that of the pivot itself.
    Reads: pages, rows, pivots. Writes: keys (uint64[len(rows)]).
    """
    for k in range(uint64(len(rows))):
        keys[k] = key_against(pages, rows[k], pivots[k])


@inlined
def key_against(pages, row, pivot):
    """The key of one page. Reads: pages."""
    at = equal_bytes(pages, row, pivot)
    if at == PAGE_BYTES:
        return LAST_BEFORE
    while pages[row, at] == pages[pivot, at]:
        at += 1
    tail = min(at, PAGE_BYTES - 8)
    rest = (big_endian_word(pages, row, tail) << uint64(8 * (at - tail))) >> uint64(13)
    if pages[row, at] < pages[pivot, at]:
        return uint64(at) << uint64(51) | rest
    return AFTER | uint64(PAGE_BYTES - 1 - at) << uint64(51) | rest


AFTER = uint64(1 << 63)
LAST_BEFORE = uint64((1 << 63) - 1)  # of the pivot; no page before it has it, for its byte is smaller than some other
