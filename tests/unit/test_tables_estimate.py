"""Does what the terminal and the picture say of an estimate fit, whatever the memory, and come to what the numbers come to?"""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from ksmbatch import plots_estimate, tables_estimate
from ksmbatch.estimate import Estimate, estimate
from ksmbatch.memory import memory_of_contents


def found(held: dict[str, list[int]], nodes: int = 1, fraction: float | None = None) -> Estimate:
    contents = {mm: np.array(each, np.uint64) for mm, each in held.items()}
    return estimate(memory_of_contents(contents, [k % nodes for k in range(len(held))], nodes), fraction=fraction)


def clones(n: int, pages: int = 512) -> dict[str, list[int]]:
    """Guests that hold half of their pages alike; the first two have more in common."""
    alike = list(range(1, pages // 2 + 1))
    own = [list(range(k * pages, k * pages + pages // 2)) for k in range(1, n + 1)]
    own[1][:100] = own[0][:100]
    return {f"guest{k}": alike + own[k] for k in range(n)}


def printed(seen: Estimate, width: int = 80) -> list[str]:
    file = io.StringIO()
    tables_estimate.print_estimate(seen, "some memory", Console(file=file, width=width))
    return [line.rstrip() for line in file.getvalue().splitlines()]


def row(lines: list[str], *cells: str) -> bool:
    return any(line.split() == list(cells) for line in lines)


def test_the_first_line_is_the_answer() -> None:
    assert printed(found(clones(3)))[0] == "KSM would save 2.4 of 6.0 MiB, 39.8 %: some memory"


def test_the_answer_is_that_of_the_setting_that_was_asked_for() -> None:
    contents = {mm: np.array([1, 2], np.uint64) for mm in ("a", "b")}
    seen = estimate(memory_of_contents(contents, [0, 1], 2), merge_across_nodes=0)
    lines = printed(seen)
    assert lines[0] == "KSM would save 0 of 4 pages, 0.0 % with merge_across_nodes = 0: some memory"
    assert lines[-1].startswith("Nothing merges: with merge_across_nodes = 0: pages that are equal are on different nodes")


def test_an_mm_has_a_row_with_its_kinds_of_pages_and_all_have_one() -> None:
    lines = printed(found({"web": [0] * 256 + [1, 1] * 128 + list(range(512, 1024)), "db": [1, *range(2048, 2559)]}))
    assert row(lines, "web", "4.0", "1.0", "1.0", "0.0", "2.0")
    assert row(lines, "db", "2.0", "0.0", "0.0", "0.0", "2.0")
    assert row(lines, "all", "6.0", "1.0", "1.0", "0.0", "4.0")


def test_what_many_mms_hold_is_one_row_and_no_matrix() -> None:
    lines = printed(found(clones(50), nodes=2))
    assert row(lines, "30", "more", "60.0", "0.0", "0.0", "30.0", "30.0")
    assert not any(line.startswith("What two hold both") for line in lines)


def test_tables_fit_80_columns_with_nodes_and_large_numbers() -> None:
    seen = found({f"mm{k}": [0] * 90_000 + list(range(k, k + 30_000)) for k in range(6)}, nodes=2)
    lines = printed(seen)
    end = next(k for k, line in enumerate(lines) if line.startswith("Without a limit"))
    assert max(map(len, lines[:end])) <= 80


def test_numbers_are_whole_on_a_narrow_console() -> None:
    assert not any("…" in line for line in printed(found(clones(4), nodes=2), width=20))


def test_a_host_of_one_node_hears_nothing_of_nodes() -> None:
    lines = printed(found(clones(3)))
    assert not any("merge_across_nodes = 0" in line or line.startswith("By node") for line in lines)
    assert sum(line.split()[:1] == ["1"] for line in lines) == 2  # use_zero_pages 0 and 1


def test_pairs_that_stand_out_are_named_with_where_they_are() -> None:
    assert "Place together: guest0 and guest1 (1.4 MiB, on different nodes now)." in printed(found(clones(3), nodes=2))
    alike = {mm: [1, 2, 3] for mm in ("a", "b", "c")}
    assert "No two belong together more than others: any two hold 0.0 MiB both." in printed(found(alike))


def test_metadata_that_costs_more_than_it_saves_is_called_so() -> None:
    rare = {"a": list(range(1, 400)), "b": [1, *range(500, 900)]}
    assert any(line.endswith("50 KiB: it saves less than that.") for line in printed(found(rare)))


def test_a_sample_says_what_it_is_and_how_far_it_may_be_wrong() -> None:
    rng = np.random.default_rng(1)
    lines = printed(found({"a": rng.integers(1, 9000, 20_000).tolist()}, fraction=0.1))
    assert "±" in lines[0]
    assert any(line.startswith("From 10 % of the contents") and "95 %" in line for line in lines)


def test_nothing_at_all_is_said_in_two_lines() -> None:
    assert printed(found({})) == ["KSM would save 0 of 0 pages, 0.0 %: some memory", "", "Nothing merges: no page is there."]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("fraction", [None, 0.5])
@pytest.mark.parametrize("n", [0, 1, 2, 20, 300])
def test_any_memory_can_be_drawn(n: int, fraction: float | None, tmp_path: Path) -> None:
    held = clones(n, 64) if n > 1 else {"$a_{b}$": [0, 0, 1]} if n else {}
    plots_estimate.save(found(held, nodes=2, fraction=fraction), "some $memory", tmp_path / "picture.png")
    with Image.open(tmp_path / "picture.png") as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 400
    assert [file.name for file in tmp_path.iterdir()] == ["picture.png"]


def test_the_picture_shows_what_the_table_says() -> None:
    figure = plots_estimate.draw(found(clones(3), nodes=2), "some memory")
    memory, matrix, sharing = figure.axes
    widths = [[bar.get_width() for bar in container] for container in memory.containers]
    assert widths == pytest.approx(np.array([[0.0] * 3, [0.0] * 3, [356 / 256, 356 / 256, 1.0], [156 / 256, 156 / 256, 1.0]]))
    assert [text.get_text() for text in matrix.texts][:3] == ["0.0", "1.4", "1.0"]
    assert [line.get_label() for line in sharing.lines][:2] == ["merge_across_nodes = 1", "merge_across_nodes = 0"]
