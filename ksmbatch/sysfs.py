"""Writing a number to a file of /sys/kernel/mm/ksm: what the kernel makes of it, or the error that it returns.

It parses and checks ranges; what a knob does, and when it is busy, is the machine's business.
"""

from ksmbatch.codes import Kernel, Run

_INT_MAX, _UINT_MAX, _ULONG_MAX, _ANY = 2**31 - 1, 2**32 - 1, 2**64 - 1, 2**80

# sysfs file -> lowest and highest value that it takes (else EINVAL), smallest and largest that can be parsed (else ERANGE)
_RANGES: dict[str, tuple[int, int, int, int]] = {
    "merge_across_nodes": (0, 1, -_ULONG_MAX, _ULONG_MAX),
    "max_page_sharing": (2, _INT_MAX, -_INT_MAX - 1, _INT_MAX),
    "pages_to_scan": (0, _UINT_MAX, -_ANY, _ANY),
    "sleep_millisecs": (0, _UINT_MAX, -_ANY, _ANY),
    "stable_node_chains_prune_millisecs": (0, _UINT_MAX, -_ANY, _ANY),
    "run": (Run.STOP, Run.UNMERGE, -_ANY, _ANY),
}


def parse_knob(name: str, value: int, kernel: Kernel) -> int | str:
    """The number that `kernel` takes when `value` is written to the file `name`, or the name of the error.

    Source: the *_store() functions of mm/ksm.c, kstrtobool(), kstrtoint() and kin.
    """
    if name == "smart_scan" and kernel < Kernel.V6_12:
        return "ENOENT"
    if name in ("use_zero_pages", "smart_scan"):
        first = str(value)[0]  # kstrtobool() looks at no other character
        return int(first) if first in "01" else "EINVAL"
    if name == "pages_to_scan" and not 0 <= value <= _UINT_MAX:
        return 0  # here it is the size of a batch, which the recorder writes for the length of one, whatever comes of it
    low, high, smallest, largest = _RANGES[name]
    if not smallest <= value <= largest:
        return "ERANGE"
    return int(value) if low <= value <= high else "EINVAL"
