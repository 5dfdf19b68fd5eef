"""smart_scan: whether ksmd passes a page by that it looked at in vain before.

How often smart_scan passes which page is also known to `cohorts`, as arithmetic.
"""

from numpy import int64

from ksmbatch.accel import inlined, kernel
from ksmbatch.codes import Kernel
from ksmbatch.kernels.rmap_item import remove_rmap_item_from_tree
from ksmbatch.metrics import Counter
from ksmbatch.state import (
    AGE,
    FRAME,
    FRAME_FLAGS,
    KSM,
    SKIPS,
    Knob,
)

AGE_OF_SKIPS = 3  # from which on pages may be passed by


@kernel
def skip_age(age):
    """How many scans a page of this age is passed by. Mirrors: mm/ksm.c skip_age()."""
    if age <= 3:
        return 1
    if age <= 5:
        return 2
    if age <= 8:
        return 4
    return 8


@inlined
def age_visited(s, page):
    """`page`, no KSM page, is visited, and its rmap_item gets older. Writes: page_bytes."""
    age = int64(s.page_bytes[page, AGE])
    if age != 255:
        s.page_bytes[page, AGE] = age + 1
    if age >= AGE_OF_SKIPS:
        s.page_bytes[page, SKIPS] = skip_age(age)


@inlined
def should_skip_rmap_item(s, page):
    """Whether smart_scan passes `page` by; ages its rmap_item.

    Mirrors: mm/ksm.c should_skip_rmap_item(); 6.1 has no smart_scan
    Writes: page_bytes, counters, unstable_*.
    """
    if not s.knobs[Knob.SMART_SCAN] or s.knobs[Knob.KERNEL] < Kernel.V6_12:
        return False
    if s.frame_bytes[s.pages[page, FRAME], FRAME_FLAGS] & KSM:
        return False
    age = int64(s.page_bytes[page, AGE])
    skips = int64(s.page_bytes[page, SKIPS])
    if age < AGE_OF_SKIPS or skips == 0:
        age_visited(s, page)
        return False
    if age != 255:
        s.page_bytes[page, AGE] = age + 1
    s.counters[Counter.PAGES_SKIPPED] += 1
    s.page_bytes[page, SKIPS] = skips - 1
    remove_rmap_item_from_tree(s, page)
    return True
