"""Do arrays come to Arrow and back as pyarrow itself would bring them?"""

import numpy as np
import pyarrow as pa
import pytest

from ksmbatch import arrow


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint64, np.float64])
@pytest.mark.parametrize("step", [1, 2])
def test_numbers_are_those_that_pyarrow_makes(dtype: type, step: int) -> None:
    values = np.arange(10).astype(dtype)[::step]
    assert arrow.from_numpy(values).equals(pa.array(values))


@pytest.mark.parametrize("values", [[], [""], ["a", "", "größer"]])
def test_strings_are_those_that_pyarrow_makes(values: list[str]) -> None:
    assert arrow.strings(values).equals(pa.array(values, pa.string()))


@pytest.mark.parametrize("n", [0, 1, 3])
def test_a_string_can_be_repeated(n: int) -> None:
    assert arrow.repeated("ü1", n).equals(pa.array(["ü1"] * n, pa.string()))


def test_too_much_text_is_refused_and_not_wrapped_around() -> None:
    with pytest.raises(ValueError, match="too much text"):
        arrow._strings(np.array([0, 2**31]), memoryview(np.zeros(2**31, np.bool_)))  # type: ignore[arg-type]  # as long as bytes


@pytest.mark.parametrize("dtype", [np.uint32, np.uint64, np.int8, np.float64])
def test_a_column_comes_back_with_its_dtype_and_without_its_chunks(dtype: type) -> None:
    values = arrow.to_numpy(pa.chunked_array([pa.array(np.array(part, dtype)) for part in ([1, 2], [3])]))
    assert values.dtype == dtype
    assert values.tolist() == [1, 2, 3]
