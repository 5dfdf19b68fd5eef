"""`ksmbatch estimate`: from input files to the answer, as tables, as JSON and as a picture.

It computes and draws nothing itself.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from ksmbatch.documents import INT32
from ksmbatch.duplicates import Figure
from ksmbatch.errors import InputError
from ksmbatch.estimate import Estimate, Setting, estimate
from ksmbatch.memory_inputs import load_memory


def estimate_inputs(
    words: Sequence[str],
    *,
    overrides: Sequence[str] = (),
    max_page_sharing: int | None = None,
    nodes: int | None = None,
    binding: Sequence[str] = (),
    moment: str = "last",
    fraction: float | None = None,
    format: str | None = None,  # noqa: A002
    plot: Path | None = None,
    echo_json: Callable[[str], object] | None = None,
    console: Console | None = None,
) -> int:
    """Say what KSM would save on the memory that `words` name, as JSON to `echo_json` if given, else as tables to `console`.

    `binding`: words "MM=NODE". The rest: see `load_memory`, `estimate`; `max_page_sharing`: by default the configuration's.
    `plot`: where a picture goes. Returns 0; raises InputError.
    """
    if max_page_sharing is not None and (max_page_sharing not in INT32 or max_page_sharing < 2):
        raise InputError(where="--max-page-sharing", value=max_page_sharing, rule=f"must be 2 to {INT32.stop - 1}")
    if fraction is not None and not 0 < fraction <= 1:
        raise InputError(where="--sample", value=fraction, rule="must be a share of the contents, above 0 and at most 1")
    by_mm = dict(map(_bound, binding))
    loaded = load_memory(words, overrides=overrides, nodes=nodes, binding=by_mm, moment=moment, format=format)
    knobs = loaded.knobs
    most = max_page_sharing or knobs.max_page_sharing
    found = estimate(loaded.memory, most, fraction, merge_across_nodes=knobs.merge_across_nodes)
    if plot is not None:
        from ksmbatch.plots_estimate import save

        save(found, loaded.title, plot)
    if echo_json is not None:
        echo_json(json.dumps(as_document(found, loaded.title), indent=1, ensure_ascii=False))
    else:
        from ksmbatch.tables_estimate import print_estimate

        console = console or Console(highlight=False, markup=False)
        print_estimate(found, loaded.title, console)
        if loaded.orderless:
            note = f"{loaded.orderless} keeps no order of contents; no figure here depends on it."
            console.print(note, highlight=False, markup=False, soft_wrap=True)
    return 0


def as_document(found: Estimate, title: str) -> dict[str, Any]:
    """The estimate as JSON: docs/estimate.md lists the keys."""
    top = found.top
    document: dict[str, Any] = {
        "input": title,
        "pages": found.pages,
        "zero_pages": found.zero_pages,
        "merge_across_nodes": top.merge_across_nodes,
        "max_page_sharing": found.max_page_sharing,
        **_counters(top),
        "duplicates": found.duplicates.value,
        "self_pages": found.self_pages.value,
        "inter_pages": found.inter_pages.value,
        "forked_pages": found.forked_pages,
        "settings": [_knobs(one) | _counters(one) for one in found.settings],
        "by_max_page_sharing": [_knobs(one) | _counters(one) for one in found.by_sharing],
        "mms": [
            {
                "mm": mm,
                "node": int(found.mm_node[k]),
                "pages": int(found.mm_pages[k]),
                "zero_pages": int(found.mm_zero[k]),
                "self_pages": int(found.mm_self[k]),
                "inter_pages": int(found.mm_inter[k]),
                "alone_pages": int(found.mm_alone[k]),
                "absent_pages": int(found.mm_absent[k]),
                "unmergeable_pages": int(found.mm_barred[k]),
            }
            for k, mm in enumerate(found.mms)
        ],
        "nodes": [node._asdict() for node in found.nodes],
        "matrix": None if found.matrix is None else found.matrix.tolist(),
        "pairs": [{"mms": [found.mms[pair.one], found.mms[pair.other]], "pages": pair.pages} for pair in found.pairs()],
        "reasons": list(found.reasons),
        "sample": None,
    }
    if found.fraction is not None:
        sampled = _figures(top) | {name: getattr(found, name) for name in ("duplicates", "self_pages", "inter_pages")}
        document["sample"] = {
            "fraction": found.fraction,
            "most_left_to_chance": found.most_left,
            "confidence": 0.95,
            "intervals": {name: [figure.low, figure.high] for name, figure in sampled.items()},
        }
    return document


def _knobs(one: Setting) -> dict[str, int]:
    names = ("merge_across_nodes", "max_page_sharing", "use_zero_pages")
    return {name: getattr(one, name) for name in names}


def _figures(one: Setting) -> dict[str, Figure]:
    names = ("pages_shared", "pages_sharing", "stable_node_chains", "stable_node_dups", "saved_pages", "general_profit")
    figures: dict[str, Figure] = {name: getattr(one, name) for name in names}
    return figures if one.remote_mappings is None else figures | {"remote_mappings": one.remote_mappings}


def _counters(one: Setting) -> dict[str, int]:
    whole = {"ksm_zero_pages": one.ksm_zero_pages, "ksm_rmap_items": one.ksm_rmap_items}
    return {name: figure.value for name, figure in _figures(one).items()} | whole


def _bound(word: str) -> tuple[str, int]:
    mm, equals, nid = word.rpartition("=")
    if not equals or not mm or not nid.isascii() or not nid.isdecimal():
        raise InputError(where="--node", value=word, rule="must be MM=NODE, such as web=0")
    return mm, int(nid)
