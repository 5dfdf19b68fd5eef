"""The golden tables: what a small sweep came to when somebody last looked at it and agreed.

    python tests/golden/make.py             tell what has changed since
    python tests/golden/make.py --accept    agree

They say that results changed, not that they are right. Times of day and of computers are left out of them.
"""

import hashlib
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from ksmbatch.config import load
from ksmbatch.results import read
from ksmbatch.sweep import run_sweep

HERE = Path(__file__).resolve().parent
CONFIG = HERE / "small.toml"
DIGEST = HERE / "small.sha256"
NAMES = ("runs", "samples", "nodes")
ACCEPT = "python tests/golden/make.py --accept"

Tables: TypeAlias = dict[str, pa.Table]


def made() -> Tables:
    """The tables of a sweep made now; runs are numbered in grid order, because a run_id changes with any new key."""
    with tempfile.TemporaryDirectory() as folder:
        if run_sweep(load(CONFIG), Path(folder), console=Console(quiet=True)) != 0:
            raise SystemExit("the sweep failed")
        tables = read(Path(folder))
    numbers = {run_id: number for number, run_id in enumerate(tables.runs["run_id"].to_pylist())}
    return {name: _numbered(getattr(tables, name), numbers) for name in NAMES}


def golden() -> Tables:
    """The tables agreed upon."""
    return {name: pq.read_table(_file(name)) for name in NAMES}


def digest(tables: Tables) -> str:
    """SHA-256 of all names and values, in hex; how Parquet stores them does not count."""
    sums = hashlib.sha256()
    for name in NAMES:
        sums.update(json.dumps([name, tables[name].to_pydict()], separators=(",", ":")).encode())
    return sums.hexdigest()


def accept(tables: Tables) -> None:
    """Writes `tables` and their digest as those agreed upon."""
    for name in NAMES:
        pq.write_table(tables[name], _file(name), compression="zstd")
    DIGEST.write_text(digest(tables) + "\n")


def differences(old: Tables, new: Tables) -> Iterator[str]:
    """A line for every value, row or column in which the two differ."""
    for name in NAMES:
        before, after = old[name].to_pydict(), new[name].to_pydict()
        for column in before | after:
            if column not in before or column not in after:
                yield f"{name}: column {column} is {'new' if column in after else 'gone'}"
            elif len(before[column]) != len(after[column]):
                yield f"{name}: {len(after[column])} rows, were {len(before[column])}"
                break
            else:
                values = enumerate(zip(before[column], after[column], strict=True))
                yield from (f"{name}: row {row}: {column} = {now}, was {then}" for row, (then, now) in values if now != then)


def _file(name: str) -> Path:
    return HERE / f"small-{name}.parquet"


def _numbered(table: pa.Table, numbers: dict[str, int]) -> pa.Table:
    figures = [name for name in table.column_names if name.endswith("_s") or name == "peak_rss_bytes"]
    run = pa.array([numbers[run_id] for run_id in table["run_id"].to_pylist()], pa.int64())
    return table.drop_columns([*figures, "run_id"]).add_column(0, "run", run).replace_schema_metadata(None)


def main() -> int:
    """Tells what has changed, or agrees; 1 if something has."""
    now = made()
    if sys.argv[1:] == ["--accept"]:
        accept(now)
        return 0
    changed = list(differences(golden(), now))
    sys.stdout.writelines(f"{line}\n" for line in changed)
    return 1 if changed else 0


if __name__ == "__main__":
    sys.exit(main())
