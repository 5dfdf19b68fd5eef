"""Are arrays of the state arrays as NumPy has them, though numba is told more of them than of others?"""

import numba
import numpy as np
import pytest
from unit.kernels.tiny import tiny_state

from ksmbatch import state
from ksmbatch.accel import entry_kernel
from ksmbatch.kernels.rows_type import RowsType
from ksmbatch.kernels.state_type import _FIELDS


@entry_kernel
def write_both(s, page, flags):
    before = s.pages[page, 3]  # the bytes of PAGE_FLAGS to AGE
    s.page_bytes[page, state.PAGE_FLAGS] = flags
    return before ^ s.pages[page, 3]


@entry_kernel
def write_frame(s, page, content):
    before = s.pages[page, 4]
    s.frames[page, state.FRAME_CONTENT] = content
    return s.pages[page, 4] - before


@entry_kernel
def sum_of_row(s, nid, content):
    total = 0
    for value in s.by_content[nid, content]:
        total += value
    return total + s.by_content[nid][content][1] * 100 + len(s.by_content) * 1000


def test_what_is_written_to_bytes_of_a_row_is_read_from_the_row() -> None:
    s = tiny_state()
    s.page_bytes[2, state.PAGE_FLAGS] = 5
    assert write_both(s, 2, 6) == 5 ^ 6
    assert write_frame(s, 3, 77) == 77


def test_parts_of_them_are_arrays_like_any_other() -> None:
    s = tiny_state(n_contents=4)
    s.by_content[1, 3] = [1, 2, 3, 4]
    assert sum_of_row(s, 1, 3) == 10 + 200 + 2000


@pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="the JIT is off: there are no types")
def test_only_arrays_that_share_memory_are_told_to_do_so() -> None:
    s = tiny_state()
    memory = {name: kind.memory for name, (kind, *_) in _FIELDS.items() if isinstance(kind, RowsType)}
    for one, of_one in memory.items():
        for other, of_other in memory.items():
            shares = np.shares_memory(getattr(s, one), getattr(s, other))
            assert shares <= (of_one == of_other), f"{one}, {other}"
    assert {name for name, of in memory.items() if of != name} == {"page_bytes", "frames", "frame_bytes"}
