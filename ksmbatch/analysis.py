"""Questions that people ask of a sweep, answered as pandas tables: how much, how soon, at what price.

It reads results and derives; it neither simulates nor draws (plots.py) nor lays out text (tables.py).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from ksmbatch import results
from ksmbatch.errors import InputError
from ksmbatch.results import label, show
from ksmbatch.units import PAGES_PER_MIB

ACROSS: Final = "ksm.merge_across_nodes"
SHARE: Final = 0.95  # "nearly all of the saving"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """A results directory as data frames.

    `runs`: index run_id, in grid order; the columns of runs.parquet. `samples`, `nodes`: those of samples/ and nodes/, runs in
    grid order. `swept`: the swept keys, in the order of `[sweep]`. `config`: the resolved config of the sweep. `workload`: its
    file or generator.
    """

    runs: pd.DataFrame
    samples: pd.DataFrame
    nodes: pd.DataFrame
    swept: tuple[str, ...]
    config: Mapping[str, Any]
    workload: str

    def label(self, run_id: str) -> str:
        """The run's setting in words: `merge_across_nodes=0 smart_scan=1`; "" if nothing is swept."""
        return label({key: self.runs.at[run_id, key] for key in self.swept})


def load(out: Path | str) -> Sweep:
    """The finished runs of a results directory; raises InputError where there are none."""
    tables = results.read(Path(out))
    if tables.runs.num_rows == 0:
        raise InputError(where=out, rule="holds no finished run", hint="run the sweep again; it goes on where it stopped")
    return Sweep(
        runs=tables.runs.to_pandas().set_index("run_id"),
        samples=tables.samples.to_pandas(),
        nodes=tables.nodes.to_pandas(),
        swept=tables.swept,
        config=tables.provenance["config"],
        workload=tables.provenance["source"]["workload"],
    )


def varying(sweep: Sweep) -> list[str]:
    """The swept keys that take more than one value in the finished runs."""
    return [key for key in sweep.swept if sweep.runs[key].map(show).nunique() > 1]


def memory_pages(sweep: Sweep) -> pd.Series:
    """By run_id: pages that the workload has mapped at the end, the memory that "percent saved" refers to."""
    return last_of_nodes(sweep)["mapped_pages"].groupby(level="run_id").sum().reindex(sweep.runs.index)


def last_of_nodes(sweep: Sweep) -> pd.DataFrame:
    """The last sample of every node: index (run_id, nid), the node counters, and `saved_mib`.

    What a node saves are the pages of areas bound to it that no frame on it backs: a page merged with one on another node
    frees a frame here and keeps one there, so a node's saving can exceed its duplicates, and the sum is the host's.
    """
    last = sweep.nodes.groupby(["run_id", "nid"], sort=False).last()
    return last.assign(saved_mib=(last["mapped_pages"] - last["frames"]) / PAGES_PER_MIB)


def saving_over_time(sweep: Sweep) -> pd.DataFrame:
    """One row per run and sample: run_id, the swept keys, full_scans, time_s, saved_mib, saved_percent, cpu_s, cpu_percent.

    `cpu_percent` is ksmd's share of one core from the start to that sample.
    """
    samples = sweep.samples
    frame = samples[["run_id", "full_scans"]].copy()
    frame["time_s"] = samples["time_ms"] / 1000
    frame["saved_mib"] = samples["saved_pages"] / PAGES_PER_MIB
    frame["saved_percent"] = 100 * samples["saved_pages"] / samples["run_id"].map(memory_pages(sweep))
    frame["cpu_s"] = samples["ksmd_cpu_ns"] / 1e9
    frame["cpu_percent"] = percent(samples["ksmd_cpu_ns"], samples["time_ns"])
    return frame.join(sweep.runs[list(sweep.swept)], on="run_id")


def until_share(sweep: Sweep, share: float = SHARE) -> pd.DataFrame:
    """By run_id: `full_scans` and `time_s` of the first sample with `share` of the final saving; NaN if nothing is saved."""
    samples = sweep.samples
    final = samples["run_id"].map(sweep.runs["saved_pages"])
    reached = samples[(samples["saved_pages"] >= share * final) & (final > 0)]
    first = reached.groupby("run_id", sort=False)[["full_scans", "time_ms"]].first()
    first["time_s"] = first.pop("time_ms") / 1000
    return first.reindex(sweep.runs.index)


def settings(sweep: Sweep) -> pd.DataFrame:
    """The table to decide from, by run_id: the swept keys; `saved_mib`, `saved_percent`; `node0_mib`, ... per node;
    `full_scans_95`, `time_95_s`; `cpu_s`, `cpu_percent` of ksmd; `remote_mappings`; `visits_per_s` of the simulation."""
    runs = sweep.runs
    frame = runs[list(sweep.swept)].copy()
    frame["saved_mib"] = runs["saved_pages"] / PAGES_PER_MIB
    frame["saved_percent"] = percent(runs["saved_pages"], memory_pages(sweep))
    nodes = last_of_nodes(sweep)
    for nid, saved_mib in nodes["saved_mib"].unstack("nid").items():
        frame[f"node{nid}_mib"] = saved_mib
    until = until_share(sweep)
    frame["full_scans_95"], frame["time_95_s"] = until["full_scans"], until["time_s"]
    frame["cpu_s"] = runs["ksmd_cpu_ns"] / 1e9
    frame["cpu_percent"] = percent(runs["ksmd_cpu_ns"], runs["time_ns"])
    frame["remote_mappings"] = nodes["remote_mappings"].groupby(level="run_id").sum()
    frame["visits_per_s"] = runs["page_visits"] / runs["wall_s"]
    return frame


def price(sweep: Sweep, key: str = ACROSS, cheap: Any = 0, dear: Any = 1) -> pd.DataFrame:
    """What `key` = `cheap` costs against `key` = `dear`, one row per setting of the other swept keys.

    `saved_mib`: saving with `dear`; `lost_mib`, `lost_percent`: what of it `cheap` gives up; `remote_mappings`: with `dear`;
    `local_again`: how many of those `cheap` avoids. Empty if the sweep lacks the key or one of the values.
    """
    columns = ["saved_mib", "lost_mib", "lost_percent", "remote_mappings", "local_again"]
    others = [other for other in sweep.swept if other != key]
    if key not in sweep.swept:
        return pd.DataFrame(columns=[*others, *columns])
    frame = settings(sweep)
    # grouping by text: a swept value may be a list, which pandas cannot hash
    frame["_setting"] = frame[others].map(show).agg(" ".join, axis=1) if others else ""
    one, other = (frame[frame[key] == value].set_index("_setting") for value in (dear, cheap))
    both = [setting for setting in one.index if setting in other.index]
    one, other = one.loc[both], other.loc[both]
    table = one[others].copy()
    table["saved_mib"] = one["saved_mib"]
    table["lost_mib"] = one["saved_mib"] - other["saved_mib"]
    table["lost_percent"] = percent(table["lost_mib"], table["saved_mib"])
    table["remote_mappings"] = one["remote_mappings"]
    table["local_again"] = one["remote_mappings"] - other["remote_mappings"]
    return table.reset_index(drop=True)


def marginal(sweep: Sweep, value: str = "saved_mib") -> pd.DataFrame:
    """What each knob does by itself: index (key, its value); mean, min and max of `value` over the runs that have it.

    `value`: a column of `settings`. In a full grid every value of a knob meets the same settings of the others, so the
    means compare.
    """
    frame = settings(sweep)
    parts = {}
    for key in varying(sweep):
        shown = frame[key].map(show)
        parts[key] = frame.groupby(shown, sort=False)[value].agg(["mean", "min", "max"])
    if not parts:
        return pd.DataFrame(columns=["mean", "min", "max"])
    return pd.concat(parts, names=["key", "value"])


def at_times(sweep: Sweep, times_s: Sequence[float]) -> pd.DataFrame:
    """The state at given simulated times and at the end: index run_id, columns (value, time), the values being `saved_mib`,
    `saved_percent` and `cpu_percent`.

    The value at a time is that of the last sample not after it (NaN before the first); the end is under the run's last
    time, in seconds, if all runs end together, else under inf. Times at or past the end of the longest run are left out.
    """
    frame = saving_over_time(sweep)
    ends = frame.groupby("run_id", sort=False)["time_s"].last()
    moments = [time for time in times_s if time < ends.max()]
    end = float(ends.iloc[0]) if np.allclose(ends, ends.iloc[0], rtol=0.01) else np.inf
    values = ["saved_mib", "saved_percent", "cpu_percent"]
    columns: dict[tuple[str, float], pd.Series] = {}
    for moment in [*moments, end]:
        until = frame if moment == end else frame[frame["time_s"] <= moment]
        last = until.groupby("run_id", sort=False)[values].last().reindex(sweep.runs.index)
        for name in values:
            columns[name, moment] = last[name]
    return pd.DataFrame(columns).sort_index(axis=1, level=0, sort_remaining=False)[values]


def percent(part: pd.Series, whole: pd.Series) -> pd.Series:
    """100 * part / whole; 0 where the whole is 0, for nothing of nothing is saved."""
    return (100 * part / whole.where(whole != 0)).fillna(0.0)


def by_time(sweep: Sweep) -> bool:
    """Whether the runs go by the clock, so that they are compared at times and not at full scans."""
    plan = sweep.config["run"]
    return plan["duration_ms"] is not None or plan["full_scans"] is plan["scans_per_snapshot"] is None
