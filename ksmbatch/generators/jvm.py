"""`jvm`: guests that run the same Java application: little is equal but what a shared class cache lays out alike.

Published: with Java in four KVM guests page sharing does little, since every JVM lays out its data in its own way; class
sharing cut the measured memory of class metadata by up to 89.6 % (Ogata and Onodera, "Increasing the Transparent Page Sharing
in Java", ISPASS 2013). Four equal copies save no more than 75 % of all four, so we take it as the share of class pages that
equal another guest's. The other shares, and how fast heaps change, are not published.
"""

from dataclasses import dataclass
from typing import Final

from ksmbatch.generators.base import Generator
from ksmbatch.generators.guests import Guests, Pooled, check_shares, check_size
from ksmbatch.topology import Binding
from ksmbatch.workload import Workload


@dataclass(frozen=True, kw_only=True, slots=True)
class JvmParameters:
    """Parameters of `jvm`.

    `mms`: guests, named jvm0, jvm1, ... `pages_per_mm`: pages of each. `image`: share of them that all guests hold, kernel,
    libraries, the JVM's own code. `classes`: share that is class metadata; `shared_classes`: of these, the share that all
    guests hold alike: 0 without class sharing, 0.896 with a class cache that all guests have a copy of. `zero`: share that is
    zero, the free part of the heap; the rest is the used heap and compiled code, each guest's own. `rewritten_per_scan`: share
    of the pages that is rewritten between two full scans: one half are new objects, the other half the collector zeroes.
    """

    pages_per_mm: int
    mms: int = 4
    image: float = 0.15
    classes: float = 0.1
    shared_classes: float = 0.0
    zero: float = 0.1
    rewritten_per_scan: float = 0.0

    def __post_init__(self) -> None:
        check_size(self.mms, self.pages_per_mm)
        check_shares(self, ("image", "classes", "zero"), "shared_classes", "rewritten_per_scan")


def _build(parameters: JvmParameters, *, nodes: int, binding: Binding, seed: int, full_scans: int) -> Workload:
    mms, pages = parameters.mms, parameters.pages_per_mm
    n_classes = round(parameters.classes * pages)
    n_shared_classes = round(parameters.shared_classes * n_classes)
    memory = Pooled(
        mms=mms,
        pages=pages,
        n_alike=round(parameters.image * pages) + n_shared_classes,
        n_fixed=n_classes - n_shared_classes,
        n_zero=round(parameters.zero * pages),
        step=round(parameters.rewritten_per_scan * pages) // 2,
    )
    return Guests([f"jvm{number}" for number in range(mms)], pages, memory.n_first, seed).workload(
        "jvm",
        nodes=nodes,
        binding=binding,
        first=memory.first,
        later=memory.later,
        n_snapshots=full_scans if parameters.rewritten_per_scan else 1,
    )


GENERATOR: Final = Generator(
    name="jvm",
    about="guests with the same Java application: little is equal but the image, and class metadata with a shared cache",
    parameters=JvmParameters,
    build=_build,
)
