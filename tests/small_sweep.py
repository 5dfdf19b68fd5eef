"""A sweep that takes no time: two small VMs over three snapshots, six settings. Real enough for the engine, too.

It writes files; it runs nothing.
"""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

N_PAGES = 256  # of each of two mms
N_SCANS = 7

TOML = """
[host]
nodes = 2

[workload]
trace = "memory.parquet"
node = { web = 0, db = 1 }

[run]
scans_per_snapshot = [3, 2, 2]
full_scans = 7

[sweep]
"ksm.merge_across_nodes" = [0, 1]
"ksm.max_page_sharing" = [2, 16, 256]
"""

MOVES_TOML = """
[host]
nodes = 2

[workload]
trace = "memory.parquet"
node = { web = 0, db = 1 }

[[workload.moves]]
kind = "rebalance"
mm = "web"
node = 1
at = 1

[[workload.moves]]
kind = "rebalance"
mm = "web"
node = 0
at = 2

[run]
scans_per_snapshot = [3, 3, 4]

[sweep]
"migration.policy" = ["mainline", "v4", "merge_on_migrate", "substitute", "break_cow", "nuksm", "replicate"]
"ksm.merge_across_nodes" = [0, 1]
"""


def write_small_sweep(folder: Path, toml: str = TOML) -> Path:
    """The trace and its config in `folder`; returns the config's path. `toml`: or MOVES_TOML, in which web comes and goes.

    A quarter of each VM is zeros, a quarter equals the other VM's, half is unique. Every 8 s some of web's pages become unique.
    """
    page = np.arange(N_PAGES)
    shared = np.select([page < N_PAGES // 4, page < N_PAGES // 2], [0, page], page + N_PAGES)
    rows = [(0, "web", page, shared), (0, "db", page, np.where(page < N_PAGES // 2, shared, shared + N_PAGES))]
    for time_ms in (8000, 16000):
        rewritten = page[time_ms // 1000 : time_ms // 1000 + 100]
        rows.append((time_ms, "web", rewritten, rewritten + time_ms))
    table = pa.table(
        {
            "time_ms": pa.array(np.concatenate([np.full(len(pages), time_ms) for time_ms, _, pages, _ in rows]), pa.uint32()),
            "mm": pa.array([mm for _, mm, pages, _ in rows for _ in pages]).dictionary_encode(),
            "page": pa.array(np.concatenate([pages for _, _, pages, _ in rows]), pa.uint32()),
            "content": pa.array(np.concatenate([contents for _, _, _, contents in rows]), pa.uint64()),
        }
    )
    about = {"version": 1, "page_size": 4096, "pages": {"web": N_PAGES, "db": N_PAGES}, "content": "made up"}
    pq.write_table(table.replace_schema_metadata({b"ksmbatch.trace": json.dumps(about)}), folder / "memory.parquet")
    config = folder / "small.toml"
    config.write_text(toml)
    return config
