"""Do pictures show what the tables hold, for any sweep? Whether they are beautiful, eyes decide."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from fake_runs import fake_run, write_sweep
from matplotlib.figure import Figure
from PIL import Image

from ksmbatch import analysis, plots
from ksmbatch.analysis import Sweep


def runs(**swept: list[object]):
    """A full grid of runs, each saving a little more than the one before."""
    scans = np.arange(1, 6)
    grid = [dict(zip((f"ksm.{name}" for name in swept), row, strict=True)) for row in itertools.product(*swept.values())]
    return [
        (
            point,
            fake_run(
                scans * 20_000, scans, np.minimum(scans - 1, 2) * (500 + rank), cpu_ns=scans * 10**8 * (1 + rank), remote=rank
            ),
        )
        for rank, point in enumerate(grid)
    ]


def sweep(out: Path, duration_ms: int | None = None, **swept: list[object]) -> Sweep:
    write_sweep(out, runs(**swept), duration_ms)
    return analysis.load(out)


def texts(figure: Figure) -> list[str]:
    legends = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    return legends + [text.get_text() for text in figure.texts]


def drawn(figure: Figure) -> list[tuple[float, ...]]:
    return [tuple(line.get_ydata()) for ax in figure.axes for line in ax.lines if len(line.get_ydata()) > 2]


def test_every_setting_is_a_line_of_its_saving(tmp_path) -> None:
    loaded = sweep(tmp_path, merge_across_nodes=[0, 1], smart_scan=[0, 1])
    lines = drawn(plots.saving_over_scans(loaded))
    assert len(lines) == 4
    assert lines[0] == pytest.approx([0, 500 / 256, 1000 / 256, 1000 / 256, 1000 / 256])


def test_the_title_says_what_separate_trees_cost(tmp_path) -> None:
    loaded = sweep(tmp_path, merge_across_nodes=[0, 1])
    assert "merge_across_nodes = 0 gives up 0 MiB, 0 % of the saving" in texts(plots.saving_over_scans(loaded))
    assert "KSM saves 4 MiB with 0 mappings across nodes" in texts(plots.saving_against_remote(loaded))


def test_lines_that_share_a_panel_look_different(tmp_path) -> None:
    loaded = sweep(tmp_path, merge_across_nodes=[0, 1], smart_scan=[0, 1], max_page_sharing=[16, 64, 256])
    figure = plots.saving_over_time(loaded)
    panels = [ax for ax in figure.axes if ax.lines]
    assert len(panels) == 3
    for ax in panels:
        assert len({(line.get_color(), line.get_linestyle(), str(line._dash_pattern)) for line in ax.lines}) == 4


def test_equal_results_stay_visible_as_marks_of_different_size(tmp_path) -> None:
    loaded = sweep(tmp_path, merge_across_nodes=[0, 1], smart_scan=[0, 1], max_page_sharing=[16, 256])
    marks = plots.saving_against_cpu(loaded).axes[0].lines
    assert len({(line.get_color(), line.get_marker(), line.get_markersize()) for line in marks}) == 8


def test_the_scan_rate_is_drawn_over_time_and_at_moments(tmp_path) -> None:
    figure = plots.scan_rate(sweep(tmp_path, duration_ms=100_000, pages_to_scan=[100, 1000, 10_000]))
    assert len(figure.axes) == 4
    labels = [text.get_text() for text in figure.axes[3].get_legend().get_texts()]
    assert labels == ["at 30 s", "at 60 s", "at 96 s", "at the end"]
    assert figure.axes[3].get_xscale() == "log"


def test_what_is_not_one_number_has_no_axis_to_be_drawn_against(tmp_path) -> None:
    figure = plots.scan_rate(sweep(tmp_path, duration_ms=100_000, sample=["1s", "batch"]))
    assert len(figure.axes) == 2


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "swept",
    [
        {},
        {"merge_across_nodes": [1]},
        {"pages_to_scan": list(range(1, 15))},
        {"a": list(range(5)), "b": list(range(5)), "c": [0, 1], "d": [0, 1]},
        {"a": ["word"], "b": [True, False], "c": [[3, 2], [2, 2]]},
    ],
    ids=["one run", "one value", "fourteen values", "four keys", "other types"],
)
@pytest.mark.parametrize("duration_ms", [None, 100_000])
def test_any_sweep_can_be_drawn(tmp_path, swept, duration_ms) -> None:
    loaded = sweep(tmp_path, duration_ms, **swept)
    path = plots.save(loaded, tmp_path)
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 500
    for draw in (plots.saving_over_time, plots.saving_against_remote, plots.saving_against_cpu):
        draw(loaded).savefig(tmp_path / "other.png")


def test_a_sweep_that_saves_nothing_can_be_drawn(tmp_path) -> None:
    write_sweep(tmp_path, [({}, fake_run([1], [1], [0], cpu_ns=[0], remote=0))], duration_ms=1)
    assert "KSM saves nothing in this time" in texts(plots.scan_rate(analysis.load(tmp_path)))
