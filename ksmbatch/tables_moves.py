"""The terminal's answer to a sweep in which pages move: one table, what is compared as its rows, and a plain conclusion.

It lays out what moves_analysis.py computes, and leaves out what says nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from rich.console import Console
from rich.table import Table

from ksmbatch.layout import count, new_table, number, print_table, span, width_of
from ksmbatch.results import show
from ksmbatch.units import pages_to_mib

if TYPE_CHECKING:  # pandas is slow to import, and a run needs none of it
    import pandas as pd

    from ksmbatch.analysis import Sweep

_PIPE: Final = 120  # columns that are used where no terminal says how wide it is


@dataclass(frozen=True, slots=True)
class _Figure:
    """A column of `moves_analysis.outcomes`, as it is shown.

    `rank`: what goes first when there is no room, the greatest. `keep`: "always"; "some": unless all are 0 or missing;
    "varies": only if it differs from row to row.
    """

    name: str
    head: str
    rank: int
    keep: Literal["always", "some", "varies"] = "some"
    decimals: bool = False
    none: str = "-"

    def show(self, value: float) -> str:
        return number(value, self.none) if self.decimals else count(value, self.none)

    def is_told(self, values: "pd.Series") -> bool:
        """Whether a column of these values says something."""
        if self.keep == "always":
            return True
        some = values.fillna(0).ne(0).any()
        return bool(some and (self.keep == "some" or values.nunique(dropna=False) > 1))


_BEFORE: Final = _Figure("saved_before_mib", "saved\nbefore\nMiB", 3, decimals=True)
_SCANS_BACK: Final = _Figure("scans_back", "scans\nuntil\n95 %", 1, none="never")
_SECONDS_BACK: Final = _Figure("time_back_s", "s\nuntil\n95 %", 1, none="never")

# In the order in which they stand.
_FIGURES: Final = (
    _BEFORE,
    _Figure("saved_mib", "saved\nMiB", 0, "always", decimals=True),
    _SCANS_BACK,
    _SECONDS_BACK,
    _Figure("more_mib", "peak\nmore\nMiB", 5, decimals=True),
    _Figure("duplicates_left", "dupli-\ncates", 0, "always"),
    _Figure("corruptions", "corrup-\ntions", 0, "always"),
    _Figure("dangling_pages", "dang-\nling", 10),
    _Figure("stranded_pages", "never\nmerge", 4),
    _Figure("unreachable_mappings", "not\nreached", 12),
    _Figure("migrate_allocations", "alloca-\ntions", 2),
    _Figure("migrate_failures", "failed:\nno room", 2),
    _Figure("migrate_copies", "second\ncopies", 8),
    _Figure("migrate_merged", "merged", 14),
    _Figure("migrate_inserted", "in-\nserted", 15),
    _Figure("migrate_chained", "chained", 16),
    _Figure("migrate_refused", "re-\nfused", 2),
    _Figure("migrate_stuck", "stuck", 11),
    _Figure("compaction_tried", "compac-\ntion\ntried", 3),
    _Figure("compaction_missed", "missed", 2),
    _Figure("cma_tried", "CMA\ntried", 3),
    _Figure("cma_missed", "missed", 2),
    _Figure("thp_tried", "THP\ntried", 3),
    _Figure("thp_missed", "missed", 2),
    _Figure("offline_tried", "offline\ntried", 13),
    _Figure("offline_missed", "missed", 2),
    _Figure("knob_refused", "knob\nrefused", 2),
    _Figure("cow_since", "COW\nbreaks", 7, "varies"),
    _Figure("ksm_frames_moved", "KSM\npages\nmoved", 17, "varies"),
    _Figure("remote_before", "remote\nbefore", 13),
    _Figure("remote_mappings", "remote\nmap-\npings", 6),
    _Figure("locks_taken", "locks\ntaken", 3, "varies"),
    _Figure("waited_percent", "\nwaited\n%", 2, decimals=True),
    _Figure("wait_us", "\nmean\nµs", 2, decimals=True),
    _Figure("ksmd_wait_ms", "ksmd\nwaits\nms", 9, decimals=True),
    _Figure("move_cpu_ms", "moving\nCPU ms", 9, "varies", decimals=True),
    _Figure("ksmd_cpu_s", "ksmd\nCPU s", 9, "varies", decimals=True),
)


def print_moves(sweep: "Sweep", console: Console) -> None:
    """The table, as many of its columns as there is room for, and what it comes to in a few sentences."""
    from ksmbatch import moves_analysis

    table = moves_analysis.outcomes(sweep)
    groups = moves_analysis.group_names(sweep)
    shared = _shared(table, groups)
    figures = [figure for figure in _told(sweep, table) if figure.name not in shared]
    room = console.width if console.is_terminal else max(console.width, _PIPE)
    left_out = []
    while width_of(_laid_out(sweep, table, figures), console) > room and max(figure.rank for figure in figures) > 2:
        left_out.append(max(figures, key=lambda figure: figure.rank))
        figures.remove(left_out[-1])
    print_table(_laid_out(sweep, table, figures), console, _headings(sweep, table, groups, shared), room=room)
    for line in conclusion(sweep):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    if left_out:
        names = ", ".join(figure.head.replace("-\n", "").replace("\n", " ").strip() for figure in left_out)
        console.print(f"More columns on a wider terminal: {names}.", style="dim", highlight=False, soft_wrap=True)


def conclusion(sweep: "Sweep") -> list[str]:
    """Who leaves what, how often, at which price, a sentence each; no more than has happened and differs."""
    from ksmbatch import analysis, moves_analysis

    table = moves_analysis.outcomes(sweep)
    lines = _of_locks(table, moves_analysis.row_names(sweep), moves_analysis.group_names(sweep))
    if not lines and moves_analysis.compares_policies(sweep):
        part = moves_analysis.at_a_glance(sweep)
        chosen = str(part.index.name)
        clauses = [_clause(part[column], *words) for column, *words in _CLAUSES if column in part]
        clauses.append(_back(part, by_time=analysis.by_time(sweep)))
        lines = [f"{clause}." for clause in clauses if clause]
        lines = [f"With {chosen.replace(' ', ', ')}:", *lines] if lines and chosen else lines
    unmerged = table[table["unmerged"] > 0]
    if len(unmerged):
        more, back_s = span(unmerged["more_mib"], ",.1f"), unmerged["time_back_s"].dropna()
        how_long = f"a while; 95 % of the saving is back after {span(back_s, ',.0f')} s" if len(back_s) else "good"
        lines.append(f"Unmerging everything takes {more} MiB for {how_long}.")
    return lines


# column, verbs for one and for several, noun, what one says of 0
_CLAUSES: Final = (
    ("duplicates_left", "leaves", "leave", "duplicates", "none"),
    ("corruptions", "corrupts", "corrupt", "times", "never"),
    ("stranded_pages", "leaves", "leave", "pages that never merge again", "none"),
    ("migrate_allocations", "allocates", "allocate", "pages", "none"),
    ("migrate_copies", "makes", "make", "second copies", "none"),
    ("migrate_failures", "fails", "fail", "times for want of room", "never"),
    ("migrate_refused", "refuses", "refuse", "moves of KSM pages", "none"),
    ("compaction_missed", "misses", "miss", "runs of 512 frames", "none"),
    ("cma_missed", "misses", "miss", "ranges for CMA", "none"),
    ("thp_missed", "misses", "miss", "huge pages", "none"),
    ("offline_missed", "fails", "fail", "times to take a node offline", "never"),
)


def _clause(values: "pd.Series", verb: str, verbs: str, noun: str, nothing: str) -> str:
    """`v4 corrupts 12 times, mainline 3, the others never`; "" if all are the same."""
    if values.nunique() == 1:
        return ""
    parts = []
    for value in sorted(values.unique(), reverse=True):
        names = [str(name) for name in values.index[values == value]]
        if value == 0:
            parts.append(f"{names[0] if len(names) == 1 else 'the others'} {nothing}")
        elif parts:
            parts.append(f"{', '.join(names)} {value:,}")
        else:
            one = len(names) == 1
            parts.append(f"{', '.join(names)} {verb if one else verbs} {value:,} {noun}{'' if one else ' each'}")
    return ", ".join(parts)


def _back(table: "pd.DataFrame", *, by_time: bool) -> str:
    """When who had the saving back; "" if there was nothing to get back, or no difference."""
    after = table["time_back_s" if by_time else "scans_back"]
    if after.isna().all() or after.nunique(dropna=False) == 1:
        return ""
    times: list[str] = []
    for value in sorted(after.dropna().unique()):
        unit = " s" if by_time else "" if times else " full scan" if value == 1 else " full scans"
        times.append(f"{value:,.0f}{unit} with {', '.join(after.index[after == value])}")
    never = f"; never with {', '.join(after.index[after.isna()])}" if after.isna().any() else ""
    return f"95 % of the saving is back after {', '.join(times)}{never}"


def _of_locks(table: "pd.DataFrame", names: "pd.Series", groups: "pd.Series") -> list[str]:
    """How contended the locks are, a line for each setting under which anybody took one."""
    lines = []
    taken = table[table["locks_taken"] > 1]  # memory hotremove takes one, whatever is asked for
    for group, part in taken.groupby(groups[taken.index], sort=False):
        waits = [
            f"{row['waited_percent']:.1f} % under {names[run_id]}, {row['wait_us']:,.1f} µs on average"
            for run_id, row in part.iterrows()
        ]
        under = f"With {str(group).replace(' ', ', ')}, of" if group else "Of"
        taken_by = span(part["locks_taken"], ",.0f")
        lines.append(f"{under} {taken_by} moves that took the lock some waited for it: {'; '.join(waits)}.")
    return lines


def _told(sweep: "Sweep", table: "pd.DataFrame") -> list[_Figure]:
    """The figures that say something here."""
    from ksmbatch import analysis

    untold = {(_SCANS_BACK if analysis.by_time(sweep) else _SECONDS_BACK).name}
    if table["unreachable_mappings"].equals(table["stranded_pages"]):
        untold.add("unreachable_mappings")
    for name in table.columns:
        kind, _, of = name.rpartition("_")
        if of == "missed" and not table[f"{kind}_tried"].any():
            untold.add(name)
    return [figure for figure in _FIGURES if figure.name not in untold and figure.is_told(table[figure.name])]


def _shared(table: "pd.DataFrame", groups: "pd.Series") -> set[str]:
    """Which of the figures of before are the same for all that is compared, so that they stand above it."""
    if groups.nunique() == len(groups):
        return set()
    names = (_BEFORE.name, "remote_before")
    return {name for name in names if table.groupby(groups)[name].nunique(dropna=False).max() == 1 and table[name].any()}


def _headings(sweep: "Sweep", table: "pd.DataFrame", groups: "pd.Series", shared: set[str]) -> Mapping[int, str]:
    """Row number -> what stands above it: the setting, and what is common under it."""
    headings = {}
    for name, rows in groups.groupby(groups, sort=False).groups.items():
        first = _order(sweep).index(rows[0])
        common = table.loc[rows[0]]
        parts = [str(name).replace(" ", ", ")] if name else []
        if _BEFORE.name in shared:
            parts.append(f"{number(common[_BEFORE.name])} MiB saved before")
        if "remote_before" in shared:
            parts.append(f"{count(common['remote_before'])} remote mappings before")
        headings[first] = "; ".join(parts)
    return {row: text for row, text in headings.items() if text}


def _order(sweep: "Sweep") -> list[Any]:
    """run_ids, one group after another, in the order of the grid within each."""
    from ksmbatch import moves_analysis

    groups = moves_analysis.group_names(sweep)
    rank = {name: k for k, name in enumerate(dict.fromkeys(groups))}
    return list(groups.map(rank).sort_values(kind="stable").index)


def _laid_out(sweep: "Sweep", table: "pd.DataFrame", figures: Sequence[_Figure]) -> Table:
    from ksmbatch import analysis, moves_analysis

    memory_mib = pages_to_mib(analysis.memory_pages(sweep).max())
    keys = moves_analysis.row_keys(sweep)
    title = f"What moving pages did to the memory saved by KSM, of {memory_mib:,.0f} MiB"
    laid = new_table(title, keys, [figure.head for figure in figures])
    for run_id in _order(sweep):
        row = table.loc[run_id]
        laid.add_row(*(show(row[key]) for key in keys), *(figure.show(row[figure.name]) for figure in figures))
    return laid


def print_remote_shares(sweep: "Sweep", console: Console) -> None:
    """How far memory is for each of the guests of `pinned-guests`, and how unevenly."""
    from ksmbatch import moves_analysis
    from ksmbatch.analysis import ACROSS

    frame = moves_analysis.remote_shares(sweep)
    nodes = [column for column in frame.columns if column.startswith("node")]
    heads = [f"guest\n{column[4:-8]}" for column in nodes]
    title = "Remote share of accesses, % of a guest's mapped pages; every page counts the same"
    table = new_table(title, sweep.swept, [*heads, "spread"])
    for row in frame.to_dict("records"):
        shares = [number(row[column], "") for column in nodes]
        table.add_row(*(show(row[key]) for key in sweep.swept), *shares, number(row["spread_percent"]))
    console.print()
    print_table(table, console)
    for value, part in frame.groupby(ACROSS, sort=False) if ACROSS in sweep.swept else ():
        spread = span(part["spread_percent"], ".1f")
        console.print(f"Guests differ by {spread} points with merge_across_nodes = {value}.", highlight=False, soft_wrap=True)
