"""The tables of docs/migration.md: what was said on the list in September 2012, and what it comes to here.

    python docs/thread.py              print them
    python docs/thread.py --write      put them into docs/migration.md
    python docs/thread.py --measure    run the configurations, which takes minutes, and write; outcomes stay in thread.json

A table stands between `<!-- NAME -->` and `<!-- end of NAME -->`. The numbers in sentences are those of docs/thread.json too.
"""

import argparse
import json
import math
import re
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ksmbatch import MODEL_VERSION
from ksmbatch.codes import POLICY_DOCS

DOCS = Path(__file__).resolve().parent
DOCUMENT, OUTCOMES, PICTURE = DOCS / "migration.md", DOCS / "thread.json", DOCS / "img/moves.png"
CONFIGS = ("migration_policies", "hotremove", "compaction", "knob_dance", "tree_lock", "holasek-2012")
POLICY, ACROSS, SHARING = "migration.policy", "ksm.merge_across_nodes", "ksm.max_page_sharing"

Row = Mapping[str, Any]
Document = Mapping[str, Any]


class Outcomes:
    """docs/thread.json: the rows of a configuration, and single figures in words."""

    def __init__(self, document: Document) -> None:
        self._configs = document["configs"]

    def row(self, config: str, **swept: Any) -> Row:
        """The one run whose swept keys, named by their last part, have these values."""
        rows = [
            row
            for row in self._configs[config]
            if all(row[key] == swept[short] for key in row if (short := key.rpartition(".")[2]) in swept and "." in key)
        ]
        if len(rows) != 1:
            raise KeyError(f"{config}: {len(rows)} runs have {swept}")
        return rows[0]

    def policy(self, name: str) -> Row:
        """A policy in the setting of the table: merge_across_nodes 0, no duplicates asked for."""
        return self.row("migration_policies", policy=name, merge_across_nodes=0, max_page_sharing=1_000_000)

    def hotremove(self, name: str) -> Row:
        """A policy of configs/hotremove.toml with merge_across_nodes 0."""
        return self.row("hotremove", policy=name, merge_across_nodes=0)

    def lock(self, kind: str, pages_to_scan: int) -> str:
        """How contended a lock is."""
        row = self.row("tree_lock", locking=kind, policy="substitute", pages_to_scan=pages_to_scan)
        return f"{row['waited_percent']:.1f} % of {whole(row['locks_taken'])} moves wait, {row['wait_us']:,.1f} µs each"


def measure(out: Path) -> Document:
    """Runs the configurations into `out`, or what of them is not there yet; the picture of the first goes to docs/img."""
    from PIL import Image
    from rich.console import Console

    from ksmbatch import analysis, plots
    from ksmbatch.config import load
    from ksmbatch.sweep import run_sweep

    configs = {}
    for name in CONFIGS:
        if run_sweep(load(DOCS.parent / f"configs/{name}.toml"), out / name, console=Console(quiet=True)) != 0:
            raise SystemExit(f"{name}: a run failed")
        sweep = analysis.load(out / name)
        configs[name] = rows_of(sweep)
        if name == CONFIGS[0]:
            with Image.open(plots.save(sweep, out / name)) as picture:
                picture.convert("RGB").quantize(64).save(PICTURE, optimize=True)
    return {"model": MODEL_VERSION, "configs": configs}


def rows_of(sweep: Any) -> list[Row]:
    """What is kept of an `analysis.Sweep`: the outcomes of its moves, or else how far memory is."""
    from ksmbatch import moves_analysis

    told = moves_analysis.outcomes if moves_analysis.is_about_moves(sweep) else moves_analysis.remote_shares
    return [{key: _kept(value) for key, value in row.items()} for row in told(sweep).to_dict("records")]


def _dumped(document: Document) -> str:
    """JSON with a line per run, so that changes can be read."""
    between = ",\n"
    configs = [f"{json.dumps(name)}: [\n{between.join(map(json.dumps, rows))}\n]" for name, rows in document["configs"].items()]
    return f'{{"model": {document["model"]}, "configs": {{\n{between.join(configs)}\n}}}}\n'


def _kept(value: Any) -> Any:
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, float):
        return None if math.isnan(value) else int(value) if value.is_integer() else round(value, 3)
    return value


def tables(document: Document) -> dict[str, str]:
    """Name -> Markdown table."""
    got = Outcomes(document)
    return {
        "policies": _table(
            ("policy", "the page and its stable node"), ((f"`{p.word}`", doc) for p, doc in POLICY_DOCS.items())
        ),
        "thread": _table(("who", "said", "here", "what it comes to"), _claims(got)),
        "outcomes": _table(("policy", *(head for head, _ in _OUTCOMES)), _by_policy(got)),
    }


def put(text: str, document: Document) -> str:
    """`text` with every table replaced by the one of now; raises KeyError for a table that has no place in it."""
    for name, table in tables(document).items():
        place = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end of {name} -->)", re.DOTALL)
        if not place.search(text):
            raise KeyError(name)
        text = place.sub(lambda found, table=table: f"{found[1]}{table}\n{found[2]}", text)  # type: ignore[misc]
    return text


def whole(value: float | None) -> str:
    """12,345; "never" where there is none."""
    return "never" if value is None else f"{value:,.0f}"


_OUTCOMES: Sequence[tuple[str, Callable[[Row], str]]] = (
    ("saved, MiB", lambda row: f"{row['saved_mib']:,.1f}"),
    ("full scans until 95 %", lambda row: whole(row["scans_back"])),
    ("peak, MiB more", lambda row: f"{row['more_mib']:,.1f}"),
    ("duplicates", lambda row: whole(row["duplicates_left"])),
    ("corruptions", lambda row: whole(row["corruptions"])),
    ("never merge", lambda row: whole(row["stranded_pages"])),
    ("allocations", lambda row: whole(row["migrate_allocations"])),
    ("second copies", lambda row: whole(row["migrate_copies"])),
    ("remote mappings", lambda row: whole(row["remote_mappings"])),
    ("moving, CPU ms", lambda row: f"{row['move_cpu_ms']:,.0f}"),
)


def _by_policy(got: Outcomes) -> Iterable[Sequence[str]]:
    for policy in POLICY_DOCS:
        row = got.policy(policy.word)
        yield (f"`{policy.word}`", *(form(row) for _, form in _OUTCOMES))


def _claims(got: Outcomes) -> list[Sequence[str]]:
    v4, mainline, merge, substitute, cow, replicate = (
        got.policy(name) for name in ("v4", "mainline", "merge_on_migrate", "substitute", "break_cow", "replicate")
    )
    gone = {name: got.hotremove(name) for name in ("mainline", "substitute")}
    compaction = {name: got.row("compaction", callers=name) for name in ("2.6.33", "mainline")}
    dances = [row for across in (0, 1) for to in (0, 1) for row in [_dance(got, across, to)]]
    guests = [got.row("holasek-2012", nodes=nodes, merge_across_nodes=across) for across in (0, 1) for nodes in (2, 4, 8)]
    far = [row["spread_percent"] for row in guests if row[ACROSS] == 1]
    more, back = [row["more_mib"] for row in dances], [row["time_back_s"] for row in dances if row["time_back_s"] is not None]
    return [
        (
            "Petr Holasek",
            "guests that are pinned to nodes suffer unevenly when they share pages across nodes",
            "`configs/holasek-2012.toml`",
            f"remote share of accesses: guests differ by {min(far):.1f} to {max(far):.1f} points with `merge_across_nodes` 1, "
            f"by {max(row['spread_percent'] for row in guests if row[ACROSS] == 0):.1f} with 0",
        ),
        (
            "Petr Holasek, patch v4",
            "a page that changes nodes leaves its tree",
            "policy `v4`",
            f"the saving falls from {v4['saved_before_mib']:,.0f} to {v4['saved_mib']:,.0f} MiB and does not come back; "
            f"{whole(v4['stranded_pages'])} pages never merge again",
        ),
        (
            "Andrea Arcangeli",
            "then it still points to the stable node that was freed",
            "`corruptions`",
            f"`v4` {whole(v4['corruptions'])}, and {whole(v4['dangling_pages'])} frames dangling at the end; {_clean(got)}",
        ),
        (
            "Andrea Arcangeli",
            "merge it into the page that the new node has, or else insert its node there",
            "policy `merge_on_migrate`",
            f"merged {whole(merge['migrate_merged'])}, inserted {whole(merge['migrate_inserted'])}; "
            f"{whole(merge['duplicates_left'])} duplicates are left, `mainline` leaves {whole(mainline['duplicates_left'])}",
        ),
        (
            "Hugh Dickins",
            "while it migrates nothing maps it, so name the other page instead; no page tables to be mangled",
            "policy `substitute`",
            f"the same saving ({substitute['saved_mib']:,.1f} and {merge['saved_mib']:,.1f} MiB) without "
            f"{whole(merge['migrate_copies'])} second copies, for {substitute['move_cpu_ms']:,.0f} instead of "
            f"{merge['move_cpu_ms']:,.0f} ms",
        ),
        (
            "Andrea Arcangeli",
            "break COW across the migration, and let ksmd merge again",
            "policy `break_cow`",
            f"{whole(cow['scans_back'])} full scans until 95 % of the saving is back, {cow['more_mib']:,.0f} MiB more then",
        ),
        (
            "Hugh Dickins",
            "not there: no end to the allocations, and each may fail",
            "`migrate_allocations`, `migrate_failures`",
            f"{whole(cow['migrate_allocations'])} allocations for {whole(cow['ksm_frames_moved'])} pages; "
            "the worst case is in `benchmarks/migrate.py`",
        ),
        (
            "Hugh Dickins",
            "leave it in the old node's tree until ksmd comes around",
            "policy `mainline`",
            f"back after {whole(mainline['scans_back'])} full scan; {whole(mainline['duplicates_left'])} duplicates, "
            f"{whole(mainline['stranded_pages'])} pages that never merge. Where pages stay away (`configs/hotremove.toml`): "
            f"{whole(gone['mainline']['duplicates_left'])} duplicates, of which {whole(gone['substitute']['duplicates_left'])} "
            f"are asked for by `max_page_sharing` 256, and {whole(gone['mainline']['stranded_pages'])} pages",
        ),
        (
            "all",
            "the reverse mapping must find every KSM page at all times",
            "`ksmbatch/invariants/stable.py`",
            f"tested after every event, under all policies but `v4`, which gives up {whole(v4['migrate_stuck'])} moves for "
            "mappings that it does not find",
        ),
        (
            "the thread",
            "KSM pages migrate for memory hotremove only; they might for compaction, too",
            "`migration.callers`, `configs/compaction.toml`",
            f"`2.6.33` refuses {whole(compaction['2.6.33']['migrate_refused'])} moves and misses "
            f"{whole(compaction['2.6.33']['compaction_missed'])} of {whole(compaction['2.6.33']['compaction_tried'])} runs of "
            f"512 frames, `mainline` {whole(compaction['mainline']['compaction_missed'])}",
        ),
        (
            "the thread",
            "a mutex for the trees ought not to be contended",
            "`migration.locking`, `configs/tree_lock.toml`",
            f"`tree_mutex`: {got.lock('tree_mutex', 100)} (`pages_to_scan` 100); {got.lock('tree_mutex', 5000)} (5000). "
            f"`ksm_thread_mutex`: {got.lock('ksm_thread_mutex', 100)}; {got.lock('ksm_thread_mutex', 5000)}",
        ),
        (
            "the thread",
            "hotremove takes ksm_thread_mutex, so ksmd stands still",
            "`configs/hotremove.toml`",
            f"the node goes offline under every policy; {whole(gone['mainline']['ksm_frames_moved'])} of "
            f"{whole(gone['mainline']['frames_moved'])} frames that move are KSM pages"
            if not any(got.hotremove(policy.word)["offline_missed"] for policy in POLICY_DOCS)
            else "not under every policy does the node go offline",
        ),
        (
            "the patch",
            "the knob can only be switched while nothing is shared",
            "`configs/knob_dance.toml`",
            f"refused while pages are shared; unmerging all takes {min(more):,.0f} to {max(more):,.0f} MiB more for a while, "
            f"and 95 % of the saving is back after {whole(max(back))} s",
        ),
        (
            "nobody",
            "a copy for each node, made by ksmd",
            "policy `replicate`",
            f"{whole(replicate['remote_mappings'])} remote mappings, `mainline` {whole(mainline['remote_mappings'])}; "
            f"{whole(replicate['migrate_allocations'])} frames for it",
        ),
    ]


def _dance(got: Outcomes, across: int, to: int) -> Row:
    rows = [row for row in got._configs["knob_dance"] if row[ACROSS] == across]
    return next(row for row in rows if row["workload.moves[0].merge_across_nodes"] == to)


def _clean(got: Outcomes) -> str:
    """Who else corrupts: nobody, one hopes."""
    guilty = [policy.word for policy in POLICY_DOCS if policy.word != "v4" and got.policy(policy.word)["corruptions"]]
    return f"and so do {', '.join(guilty)}" if guilty else "the others none"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def main() -> None:
    """Print the tables, write them, or measure what they say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--measure", action="store_true")
    parser.add_argument("--results", type=Path, help="where runs are kept, and taken from if they are there")
    options = parser.parse_args()
    if options.measure:
        with tempfile.TemporaryDirectory() as folder:
            OUTCOMES.write_text(_dumped(measure(options.results or Path(folder))))
    document = json.loads(OUTCOMES.read_text())
    if options.write or options.measure:
        DOCUMENT.write_text(put(DOCUMENT.read_text(), document))
        return
    for name, table in tables(document).items():
        sys.stdout.write(f"## {name}\n\n{table}\n\n")


if __name__ == "__main__":
    main()
