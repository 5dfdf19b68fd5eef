"""What runs compiled: ksmd and the memory under it, in the words of mm/ksm.c.

Plain arrays in and out (`ksmbatch.state`), integers only. No kernel here does I/O, allocates or raises; only `engine`
and `machine` call them.
"""

from ksmbatch.kernels import state_type as state_type  # tells numba what a State is, before any kernel is compiled
