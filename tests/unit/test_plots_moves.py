"""Do pictures of moves show each line once, where pages moved, and who differs? Whether they are beautiful, eyes decide."""

from pathlib import Path

import numpy as np
import pytest
from fake_runs import fake_run, write_sweep
from matplotlib.figure import Figure
from PIL import Image

from ksmbatch import analysis, plots, plots_moves
from ksmbatch.analysis import Sweep

POLICIES = ("mainline", "v4", "merge_on_migrate", "substitute")


def run(saved, moved=(0, 0, 5, 5), **counters):
    scans = np.arange(1, len(saved) + 1)
    return fake_run(
        scans * 1000, scans, saved, cpu_ns=scans, remote=0, counters={"frames_moved": moved[: len(saved)], **counters}
    )


def policies(out: Path, **options) -> Sweep:
    """v4 loses all with merge_across_nodes 0, and nobody with 1; the last two are alike."""
    runs = [
        (
            {"migration.policy": policy, "ksm.merge_across_nodes": across},
            run(
                (0, 512, 0, 0) if policy == "v4" and not across else (0, 512, 512 - rank // 2 * (not across), 512),
                corruptions=(0, 0, 0, 9 * (policy == "v4" and not across)),
            ),
        )
        for rank, policy in enumerate(POLICIES)
        for across in (0, 1)
    ]
    write_sweep(out, runs, **options)
    return analysis.load(out)


def curves(ax) -> list[list[float]]:
    return [list(line.get_ydata()) for line in ax.lines if len(line.get_ydata()) > 2]


def moments(ax) -> list[float]:
    return [line.get_xdata()[0] for line in ax.lines if len(line.get_ydata()) == 2]


def texts(figure: Figure) -> list[str]:
    legends = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    return legends + [text.get_text() for text in figure.texts] + [text.get_text() for ax in figure.axes for text in ax.texts]


def test_every_setting_has_a_panel_and_every_policy_a_line_unless_it_is_anothers(tmp_path) -> None:
    figure = plots_moves.saving_around_moves(policies(tmp_path))
    differ, same = figure.axes
    assert len(curves(differ)) == 3
    assert curves(differ)[1] == [0, 2, 0, 0]
    assert len(curves(same)) == 1
    assert "all the same" in texts(figure)
    assert "merge_on_migrate, substitute" in texts(figure)


def test_moves_are_marked_where_they_happened(tmp_path) -> None:
    figure = plots_moves.saving_around_moves(policies(tmp_path))
    assert [moments(ax) for ax in figure.axes] == [[2], [2]]
    assert "pages move" in texts(figure)


def test_many_moves_are_a_span(tmp_path) -> None:
    write_sweep(tmp_path, [({"migration.policy": "v4"}, run([9] * 30, moved=range(30)))])
    (ax,) = plots_moves.saving_around_moves(analysis.load(tmp_path)).axes
    assert moments(ax) == []
    (span,) = ax.patches
    assert (span.get_x(), span.get_x() + span.get_width()) == (1, 29)


def test_the_title_says_who_saves_most_and_least_in_the_end(tmp_path) -> None:
    title = "In the end KSM saves 2 MiB with mainline and 0 MiB with v4 (merge_across_nodes=0)"
    assert title in [text.replace("\n", " ") for text in texts(plots_moves.saving_around_moves(policies(tmp_path)))]


def test_runs_by_the_clock_are_drawn_over_time(tmp_path) -> None:
    figure = plots_moves.saving_around_moves(policies(tmp_path, duration_ms=4000))
    assert figure.axes[0].get_xlabel() == "simulated time, s"


def test_bars_show_the_settings_under_which_there_is_a_difference(tmp_path) -> None:
    figure = plots_moves.figure_of(policies(tmp_path), "corruptions", "corruptions")
    (ax,) = figure.axes
    assert ax.get_title() == "merge_across_nodes=0"
    assert [bar.get_width() for bar in ax.patches] == [0, 9, 0, 0]
    assert [label.get_text() for label in ax.get_yticklabels()] == list(POLICIES)


def test_what_never_happened_is_said_and_not_drawn(tmp_path) -> None:
    figure = plots_moves.figure_of(policies(tmp_path), "scans_back", "full scans")
    assert "never" in texts(figure)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("n_settings", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("n_rows", [1, 2, 9])
def test_any_sweep_of_moves_can_be_drawn(tmp_path, n_rows, n_settings) -> None:
    runs = [
        ({"migration.policy": f"p{row}", "ksm.max_page_sharing": setting}, run((0, 512, 100 * row, 300)))
        for row in range(n_rows)
        for setting in range(n_settings)
    ]
    write_sweep(tmp_path, runs)
    loaded = analysis.load(tmp_path)
    with Image.open(plots.save(loaded, tmp_path)) as picture:
        assert min(picture.size) > 500
    plots_moves.figure_of(loaded, "saved_mib", "MiB").savefig(tmp_path / "bars.png")


def test_a_sweep_that_saves_nothing_can_be_drawn(tmp_path) -> None:
    write_sweep(tmp_path, [({}, run((0, 0, 0)))])
    loaded = analysis.load(tmp_path)
    assert "KSM saves 0 MiB in the end" in texts(plots_moves.saving_around_moves(loaded))
    for column in ("corruptions", "scans_back"):  # the latter: never
        plots_moves.figure_of(loaded, column, "times").savefig(tmp_path / "bars.png")
