"""What the VMAs say of pages, told page by page; whose state that changes is woken.

It knows no VMAs; which there are is `address_spaces`' business.
"""

from numpy import int64

from ksmbatch.accel import entry_kernel
from ksmbatch.kernels.resting import wake
from ksmbatch.state import FRAME, ITEM, ITEM_FLAGS, NO_FRAME, PAGE_FLAGS, ZERO, ZERO_BY_KSM


@entry_kernel
def tell_pages(s, first, end, bits):
    """The pages of [first, end) have the flags `bits`, and zero pages stay. Reads: pages. Writes: page_bytes, and as wake()."""
    for page in range(first, end):
        before = int64(s.page_bytes[page, PAGE_FLAGS])
        flags = bits | before & (ZERO | ZERO_BY_KSM)
        if flags == before:
            continue
        s.page_bytes[page, PAGE_FLAGS] = flags
        if s.pages[page, FRAME] != NO_FRAME or s.page_bytes[page, ITEM_FLAGS] & ITEM:
            wake(s, page)
