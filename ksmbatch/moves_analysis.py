"""Questions that people ask of a sweep in which pages move: what it did to the saving, what it left behind, what it cost.

It reads results and derives, as analysis.py does; who moved what, and why, it does not know, only when counters rose.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pandas as pd

from ksmbatch.analysis import SHARE, Sweep
from ksmbatch.codes import KSMD_MOVES, Policy
from ksmbatch.metrics import MOVE_COUNTERS
from ksmbatch.results import label, show
from ksmbatch.units import PAGES_PER_MIB

SECTION: Final = "migration."
TRIED: Final = tuple(metric.name for metric in MOVE_COUNTERS if metric.name.endswith("_tried"))
# Whatever moves a page, or tries to, makes one of these rise ...
_EVENTS: Final = ("frames_moved", "migrate_failures", "migrate_refused", "migrate_stuck", *TRIED, "knob_refused")
# ... but where ksmd moves pages, too, only others' moves are events
_BY_KSMD: Final = [policy.word for policy in KSMD_MOVES]

# Columns of `outcomes` that are a run's last counters, under their own names.
_LAST: Final = (
    "duplicates_left",
    "stranded_pages",
    "unreachable_mappings",
    "corruptions",
    "dangling_pages",
    "migrate_allocations",
    "migrate_failures",
    "migrate_copies",
    "migrate_inserted",
    "migrate_merged",
    "migrate_chained",
    "migrate_refused",
    "migrate_stuck",
    "frames_moved",
    "ksm_frames_moved",
    *TRIED,
    *(name.replace("_tried", "_missed") for name in TRIED),
    "knob_refused",
    "locks_taken",
    "locks_waited",
)


def is_about_moves(sweep: Sweep) -> bool:
    """Whether in any run something moved or was to move, or a knob was refused or everything unmerged in mid-run."""
    return bool(_marked(sweep)["moved"].any())


def compares_moves(sweep: Sweep) -> bool:
    """Whether the sweep varies how pages move: what becomes of them, who may move them, which and when."""
    return any(key.startswith((SECTION, "workload.move")) for key in sweep.swept)


def compares_policies(sweep: Sweep) -> bool:
    """Whether it varies something of `[migration]`, whose values are words to call a run by."""
    return any(key.startswith(SECTION) for key in sweep.swept)


def row_keys(sweep: Sweep) -> list[str]:
    """The swept keys whose values are compared with each other: those of `[migration]`, or all if there are none."""
    return [key for key in sweep.swept if key.startswith(SECTION)] or list(sweep.swept)


def group_keys(sweep: Sweep) -> list[str]:
    """The other swept keys: settings under each of which the comparison is made."""
    return [key for key in sweep.swept if key not in row_keys(sweep)]


def row_names(sweep: Sweep) -> pd.Series:
    """By run_id, what it is called among those that it is compared with: "substitute", "tree_mutex substitute"."""
    keys = row_keys(sweep)
    if not keys:
        return pd.Series("", sweep.runs.index)
    words = all(isinstance(value, str) for key in keys for value in sweep.runs[key])
    rows = sweep.runs[keys].to_dict("records")
    names = [" ".join(row.values()) if words else label(row) for row in rows]
    return pd.Series(names, sweep.runs.index)


def group_names(sweep: Sweep) -> pd.Series:
    """By run_id, the setting under which it is compared: "merge_across_nodes=0 max_page_sharing=256"; "" if there is one."""
    rows = sweep.runs[group_keys(sweep)].to_dict("records")
    return pd.Series([label(row) for row in rows], sweep.runs.index)


def moments(sweep: Sweep) -> pd.DataFrame:
    """When something moved: one row per run and pair of samples between which it did: run_id, and `full_scans` and `time_s` of
    the sample before (0 if there is none)."""
    marked = _marked(sweep)
    before = marked.groupby("run_id", sort=False)[["scans", "time_ms"]].shift(fill_value=0)[marked["moved"]]
    return pd.DataFrame(
        {"run_id": marked.loc[before.index, "run_id"], "full_scans": before["scans"], "time_s": before["time_ms"] / 1000}
    ).reset_index(drop=True)


def saving(sweep: Sweep) -> pd.DataFrame:
    """One row per run and sample: run_id, `full_scans` done since the start (run = 2 does not zero them), time_s, saved_mib."""
    marked = _marked(sweep)
    return pd.DataFrame(
        {
            "run_id": marked["run_id"],
            "full_scans": marked["scans"],
            "time_s": marked["time_ms"] / 1000,
            "saved_mib": marked["saved_pages"] / PAGES_PER_MIB,
        }
    )


def outcomes(sweep: Sweep) -> pd.DataFrame:
    """What moving came to, by run_id; the swept keys, and

    - `saved_before_mib`: saved at the last sample before anything moved; `saved_mib`: at the end;
    - `scans_back`, `time_back_s`: from the last move until the saving was 95 % of what it was before the first; NaN: never;
    - `more_mib`: frames in use, at the most, from the first move on, less those before it;
    - `cow_since`: KSM pages copied since the first move, by writes of the guests as well;
    - `remote_before`, `remote_mappings`: mappings across nodes before the first move and at the end;
    - `move_cpu_ms`, `ksmd_cpu_s`: CPU time that moving took, and ksmd;
    - `waited_percent`: of the moves that took the lock, how many found it taken; `wait_us`: how long those waited, on
      average; `ksmd_wait_ms`: how long ksmd waited for moves;
    - `unmerged`: how often everything was unmerged (run = 2);
    - counters at the end, under their own names: `duplicates_left`, `corruptions`, `migrate_allocations`, ...

    What is said of "before" is NaN where nothing moved, or before the first sample.
    """
    runs = sweep.runs
    frame = runs[list(sweep.swept)].copy()
    marked = dict(list(_marked(sweep).groupby("run_id", sort=False)))
    remote = dict(list(sweep.nodes.groupby("run_id", sort=False)[["nid", "remote_mappings"]]))
    around = {run_id: _around(marked[run_id], _remote_mappings(remote[run_id])) for run_id in runs.index}
    frame = frame.join(pd.DataFrame.from_dict(around, orient="index"))
    frame["saved_mib"] = runs["saved_pages"] / PAGES_PER_MIB
    frame["unmerged"] = pd.Series({run_id: int((part["full_scans"].diff() < 0).sum()) for run_id, part in marked.items()})
    frame["move_cpu_ms"] = runs["move_cpu_ns"] / 1e6
    frame["ksmd_cpu_s"] = runs["ksmd_cpu_ns"] / 1e9
    frame["waited_percent"] = _ratio(100 * runs["locks_waited"], runs["locks_taken"])
    frame["wait_us"] = _ratio(runs["lock_wait_ns"] / 1e3, runs["locks_waited"])
    frame["ksmd_wait_ms"] = runs["ksmd_wait_ns"] / 1e6
    return frame.join(runs[list(_LAST)])


def compared(sweep: Sweep, *columns: str) -> pd.DataFrame:
    """Columns of `outcomes` as a table: a row for each of `row_names`, a column for each column and setting of the others."""
    table = outcomes(sweep)[list(columns)]
    names = pd.MultiIndex.from_arrays([row_names(sweep), group_names(sweep)])
    table.index = names
    rows, groups = (names.get_level_values(level).unique() for level in (0, 1))
    wide = table.unstack(1).reindex(rows)
    wide = wide.reindex(columns=pd.MultiIndex.from_product([columns, groups]))
    return wide.droplevel(1, axis=1) if list(groups) == [""] else wide


def at_a_glance(sweep: Sweep) -> pd.DataFrame:
    """`outcomes` under the setting that tells most (`telling_group`), by row name, without columns that are 0 everywhere."""
    chosen = telling_group(sweep)
    table = outcomes(sweep)[group_names(sweep) == chosen].drop(columns=list(sweep.swept))
    table = table.set_axis(row_names(sweep)[table.index].rename(chosen))
    return table.loc[:, table.fillna(1).ne(0).any()]


def remote_shares(sweep: Sweep) -> pd.DataFrame:
    """How far memory is for what runs on each node, by run_id: the swept keys; `node0_percent`, ...: pages of areas bound to
    that node whose frame is on another, of all its mapped pages, at the end; `spread_percent`: the most less the least.

    Every mapped page counts the same, as if it were accessed as often as any other. NaN for a node that a run does not have.
    """
    last = sweep.nodes.groupby(["run_id", "nid"], sort=False).last()
    share = _ratio(100 * last["remote_mappings"], last["mapped_pages"]).unstack("nid").reindex(sweep.runs.index)
    frame = sweep.runs[list(sweep.swept)].copy()
    for nid in sorted(share.columns):
        frame[f"node{nid}_percent"] = share[nid]
    frame["spread_percent"] = share.max(axis=1) - share.min(axis=1)
    return frame


def telling_group(sweep: Sweep, columns: Sequence[str] = ("duplicates_left", "corruptions")) -> str:
    """Of the settings in `group_names` the one that says most: where `columns` differ, and most of it is clean."""
    table = outcomes(sweep)
    best: tuple[Any, ...] = ()
    chosen = ""
    for name, part in table.groupby(group_names(sweep), sort=False):
        rank = (sum(part[column].nunique() > 1 for column in columns), -part[columns[0]].min())
        if not best or rank > best:
            best, chosen = rank, str(name)
    return chosen


def _marked(sweep: Sweep) -> pd.DataFrame:
    """The samples, with `scans`, full scans since the start, and `moved`, whether something has moved since the one before."""
    samples = sweep.samples
    policy = _policies(sweep)
    run_id = samples["run_id"]
    by_ksmd = run_id.map(policy.isin(_BY_KSMD)).astype(bool)
    events = samples[list(_EVENTS)].copy()
    events.loc[by_ksmd, "frames_moved"] -= samples.loc[by_ksmd, "ksm_frames_moved"]
    events.loc[by_ksmd, "migrate_failures"] = 0
    total = events.sum(axis=1)
    grown = total.groupby(run_id, sort=False).diff().fillna(total)
    passed = samples["full_scans"].groupby(run_id, sort=False).diff().fillna(samples["full_scans"])
    scans = passed.where(passed >= 0, samples["full_scans"]).groupby(run_id, sort=False).cumsum()
    return samples.assign(scans=scans.astype(np.int64), moved=(grown > 0) | (passed < 0))


def _policies(sweep: Sweep) -> pd.Series:
    key = f"{SECTION}policy"
    if key in sweep.swept:
        return sweep.runs[key].map(show)
    return pd.Series(sweep.config.get("migration", {}).get("policy", Policy.MAINLINE.word), sweep.runs.index)


def _around(samples: pd.DataFrame, remote: np.ndarray) -> dict[str, float]:
    """Of one run: what `outcomes` says of before and after. `remote`: remote mappings at each sample."""
    nan = float("nan")
    figures = dict.fromkeys(("saved_before_mib", "scans_back", "time_back_s", "more_mib", "cow_since", "remote_before"), nan)
    figures["remote_mappings"] = float(remote[-1])
    moved = np.flatnonzero(samples["moved"])
    if len(moved) == 0 or moved[0] == 0:
        return figures
    first, last = moved[0], moved[-1]
    before = samples.iloc[first - 1]
    figures["saved_before_mib"] = before["saved_pages"] / PAGES_PER_MIB
    figures["more_mib"] = (samples["peak_frames"].iloc[first:].max() - before["frames_in_use"]) / PAGES_PER_MIB
    figures["cow_since"] = samples["cow_ksm"].iloc[-1] - before["cow_ksm"]
    figures["remote_before"] = float(remote[first - 1])
    after = samples.iloc[last:]
    back = after[after["saved_pages"] >= SHARE * before["saved_pages"]]
    if len(back) and before["saved_pages"] > 0:
        start = samples.iloc[last - 1]
        figures["scans_back"] = float(back["scans"].iloc[0] - start["scans"])
        figures["time_back_s"] = (back["time_ms"].iloc[0] - start["time_ms"]) / 1000
    return figures


def _remote_mappings(nodes: pd.DataFrame) -> np.ndarray:
    """Of one run, at each of its samples: those of all its nodes together."""
    by_sample = np.asarray(nodes["remote_mappings"]).reshape(-1, nodes["nid"].nunique())
    return np.asarray(by_sample.sum(axis=1))


def _ratio(part: pd.Series, whole: pd.Series) -> pd.Series:
    """part / whole; 0 where the whole is 0."""
    return (part / whole.where(whole != 0)).fillna(0.0)
