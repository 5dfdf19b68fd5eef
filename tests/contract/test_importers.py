"""Does every importer keep its promise? The same questions to all of them, on an example of each.

An importer without an example in tests/small_images.py fails here.
"""

import importlib.util
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from small_images import EXAMPLES, Example

from ksmbatch.importers import IMPORTERS, Image, choose, probe
from ksmbatch.importing import import_inputs, read_inputs
from ksmbatch.traces import read_trace

LIBRARIES = {"kdump": "kdumpfile"}  # that an importer needs, and is an extra


@pytest.fixture(params=EXAMPLES, ids=lambda example: example.name)
def example(request: pytest.FixtureRequest) -> Example:
    example: Example = request.param
    library = LIBRARIES.get(example.importer)
    if library and importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed")
    return example


def opened(path: Path, stack: ExitStack) -> list[Image]:
    given = probe(path)
    return list(choose(given).open(given, stack))


def counted(memory: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Content ids as they must be, of each mm, counted from the bytes by numpy: ranks in memcmp order, 0 for zeros."""
    pages = np.concatenate(list(memory.values()))
    contents, ids = np.unique(pages, axis=0, return_inverse=True)
    ids = ids.ravel() + (1 if contents[0].any() else 0)
    ends = np.cumsum([len(own) for own in memory.values()])[:-1]
    return dict(zip(memory, np.split(ids, ends), strict=True))


def test_every_importer_has_an_example() -> None:
    assert {example.importer for example in EXAMPLES} == set(IMPORTERS)


def test_it_is_recognised_by_its_contents(example: Example, tmp_path: Path) -> None:
    path, _ = example.make(tmp_path)
    elsewhere = path.rename(tmp_path / "no-name")
    assert choose(probe(elsewhere)).name == example.importer


def test_the_trace_has_the_pages_that_numpy_counts(example: Example, tmp_path: Path) -> None:
    path, memory = example.make(tmp_path)
    import_inputs([str(path)], tmp_path / "t.parquet")
    trace = read_trace(tmp_path / "t.parquet")
    assert trace.order == "memcmp"
    assert trace.pages == {mm: len(pages) for mm, pages in memory.items()}
    for mm, ids in counted(memory).items():
        rows = trace.mm == list(trace.pages).index(mm)
        assert np.array_equal(trace.page[rows], np.arange(len(memory[mm])))
        assert np.array_equal(trace.content[rows], ids)
        assert np.count_nonzero(trace.content[rows] == 0) == np.count_nonzero(~memory[mm].any(axis=1))


def test_the_same_is_read_without_a_trace(example: Example, tmp_path: Path) -> None:
    path, memory = example.make(tmp_path)
    read = read_inputs([str(path)])
    assert list(read) == list(memory)
    for mm, ids in counted(memory).items():
        assert np.array_equal(read[mm], ids)


def test_a_source_reads_any_portion_and_fills_all_of_it(example: Example, tmp_path: Path) -> None:
    path, memory = example.make(tmp_path)
    with ExitStack() as stack:
        for image, pages in zip(opened(path, stack), memory.values(), strict=True):
            stored = np.concatenate([np.arange(first, first + n) for first, n in image.read_runs])
            all_ = np.concatenate([np.arange(first, first + n) for first, n in image.runs])
            assert image.source.n_pages == stored.size
            assert np.isin(stored, all_).all()
            held = pages[np.isin(all_, stored)]
            assert not pages[~np.isin(all_, stored)].any()
            for first, n in [(0, stored.size), (1, 1), (stored.size - 1, 1), (stored.size // 3, stored.size // 3), (2, 0)]:
                out = np.full((n, 4096), 0xA5, np.uint8)
                image.source.read(first, out)
                assert np.array_equal(out, held[first : first + n])


def test_runs_and_regions_ascend_and_keep_apart(example: Example, tmp_path: Path) -> None:
    path, _ = example.make(tmp_path)
    with ExitStack() as stack:
        for image in opened(path, stack):
            for runs in (image.runs, image.read_runs, np.array([each[:2] for each in image.regions]).reshape(-1, 2)):
                assert (runs[:, 1] > 0).all()
                assert (runs[1:, 0] >= runs[:-1].sum(axis=1)).all()


def test_what_it_opens_is_closed(example: Example, tmp_path: Path) -> None:
    path, _ = example.make(tmp_path)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        with ExitStack() as stack:
            opened(path, stack)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
