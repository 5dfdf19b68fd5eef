"""`zero-heavy`: guests whose memory is mostly zeros, as Windows leaves it, which zeroes free memory in the background.

Published: two VMs of 2 GiB, pages_shared 60,887, pages_sharing 835,511, pages_unshared 124,818, on a kernel without
max_page_sharing (itfromallangles.com, "Kernel Samepage Merging"). That most of it is zeros is our inference, and that what is
not is held once by each guest: the three counters fit that.
"""

from dataclasses import dataclass
from typing import Final

from ksmbatch.generators.base import Generator
from ksmbatch.generators.guests import Guests, Pooled, check_shares, check_size
from ksmbatch.topology import Binding
from ksmbatch.workload import Workload


@dataclass(frozen=True, kw_only=True, slots=True)
class ZeroHeavyParameters:
    """Parameters of `zero-heavy`.

    `mms`: guests, named win0, win1, ... `pages_per_mm`: pages of each. `zero`: share of them that is zero. `image`: share that
    holds what all guests hold, each content once per guest; the rest is each guest's own. `rewritten_per_scan`: share of the
    pages that is rewritten between two full scans: one half are free pages that a guest takes into use, the other half are
    freed and zeroed.
    """

    pages_per_mm: int
    mms: int = 2
    zero: float = 0.7585
    image: float = 0.1192
    rewritten_per_scan: float = 0.0

    def __post_init__(self) -> None:
        check_size(self.mms, self.pages_per_mm)
        check_shares(self, ("zero", "image"), "rewritten_per_scan")


def _build(parameters: ZeroHeavyParameters, *, nodes: int, binding: Binding, seed: int, full_scans: int) -> Workload:
    mms, pages = parameters.mms, parameters.pages_per_mm
    memory = Pooled(
        mms=mms,
        pages=pages,
        n_alike=round(parameters.image * pages),
        n_fixed=0,
        n_zero=round(parameters.zero * pages),
        step=round(parameters.rewritten_per_scan * pages) // 2,
    )
    return Guests([f"win{number}" for number in range(mms)], pages, memory.n_first, seed).workload(
        "zero-heavy",
        nodes=nodes,
        binding=binding,
        first=memory.first,
        later=memory.later,
        n_snapshots=full_scans if parameters.rewritten_per_scan else 1,
    )


GENERATOR: Final = Generator(
    name="zero-heavy",
    about="guests whose memory is mostly zeros, as of Windows: free pages are zeroed, and taken into use again",
    parameters=ZeroHeavyParameters,
    build=_build,
)
