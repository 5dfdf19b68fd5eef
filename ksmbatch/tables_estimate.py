"""The terminal's answer of `ksmbatch estimate`: tables that fit 80 columns, and what they come to in sentences.

It lays out what estimate.py computed; it computes nothing of its own, and prints nothing but to the console it is given.
"""

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from rich.console import Console
from rich.table import Table

from ksmbatch.duplicates import Figure
from ksmbatch.estimate import ITEM_BYTES, PAGE_BYTES, Estimate, Pair
from ksmbatch.layout import count, new_table, number, print_table
from ksmbatch.units import PAGES_PER_MIB, format_bytes, pages_to_mib

_MOST_MMS: Final = 20  # rows of mms; the others share one
_MATRIX_MMS: Final = 7  # columns of mms that fit a terminal
_MOST_PAIRS: Final = 3
_STANDS_OUT: Final = 1.2  # times the mean of all pairs
_KNOBS: Final = ("merge_across_nodes", "use_zero_pages")


def print_estimate(found: Estimate, title: str, console: Console) -> None:
    """All tables that say something, then the sentences."""
    console.print(headline(found, title), style="bold", highlight=False, markup=False, soft_wrap=True)
    console.print()
    if found.pages:
        print_table(memory_table(found), console)
        print_table(settings_table(found), console)
        print_table(sharing_table(found), console)
        if len(found.nodes) > 1:
            print_table(nodes_table(found), console)
        if found.matrix is not None and 2 <= len(found.mms) <= _MATRIX_MMS:
            print_table(matrix_table(found), console)
    for sentence in sentences(found):
        console.print(sentence, highlight=False, markup=False, soft_wrap=True)


def headline(found: Estimate, title: str) -> str:
    """The answer in a line."""
    saved = found.top.saved_pages
    apart = "" if found.top.merge_across_nodes else " with merge_across_nodes = 0"
    amount = f"{_mib(saved)} of {_whole_mib(found.pages)} MiB"
    if found.pages < PAGES_PER_MIB:
        amount = f"{saved.value} of {found.pages} pages"
    return f"KSM would save {amount}, {_percent(saved.value, found.pages)} %{apart}: {title}"


def memory_table(found: Estimate) -> Table:
    """One row per mm: its memory, and of it zeros, what equals others of its pages, what others hold too, and the rest."""
    columns = [found.mm_pages, found.mm_zero, found.mm_self, found.mm_inter, found.mm_alone]
    heads = ["memory\nMiB", "zeros\nMiB", "equal to\nown pages\nMiB", "held by\nothers too\nMiB", "held by\nnobody else\nMiB"]
    for extra, head in ((found.mm_absent, "not\nthere\nMiB"), (found.mm_barred, "not mer-\ngeable\nMiB")):
        if extra.any():
            columns.append(extra)
            heads.append(head)
    several_nodes = len(found.nodes) > 1
    table = new_table("Memory, by who else holds it", (), ["mm", *(["most on\nnode"] if several_nodes else []), *heads])
    table.columns[0].justify = "left"
    cells = np.stack(columns)
    for k, mm in enumerate(found.mms[:_MOST_MMS]):
        table.add_row(mm, *([str(found.mm_node[k])] if several_nodes else []), *_row(cells[:, k]))
    if len(found.mms) > _MOST_MMS:
        rest = cells[:, _MOST_MMS:].sum(axis=1)
        table.add_row(f"{len(found.mms) - _MOST_MMS} more", *([""] if several_nodes else []), *_row(rest))
    if len(found.mms) > 1:
        table.add_row("all", *([""] if several_nodes else []), *_row(cells.sum(axis=1)), style="bold")
    return table


def settings_table(found: Estimate) -> Table:
    """One row for every setting of merge_across_nodes, if there are nodes, and use_zero_pages."""
    heads = [
        "saved\nMiB",
        "\n%",
        "pages_\nshared",
        "pages_\nsharing",
        "ksm_zero_\npages",
        "remote\nmappings",
        "general_\nprofit MiB",
    ]
    table = new_table(f"What ksmd comes to with max_page_sharing = {found.max_page_sharing:,}", _KNOBS, heads)
    best = max(one.saved_pages.value for one in found.settings)
    for one in found.settings:
        if len(found.nodes) == 1 and not one.merge_across_nodes:
            continue
        assert one.remote_mappings is not None, "asked for"
        table.add_row(
            str(one.merge_across_nodes),
            str(one.use_zero_pages),
            number(pages_to_mib(one.saved_pages.value)),
            _percent(one.saved_pages.value, found.pages),
            count(one.pages_shared.value),
            count(one.pages_sharing.value),
            count(one.ksm_zero_pages),
            count(one.remote_mappings.value),
            number(one.general_profit.value / 2**20),
            style="bold" if 0 < best == one.saved_pages.value else None,
        )
    return table


def sharing_table(found: Estimate) -> Table:
    """One row per max_page_sharing."""
    apart = len(found.nodes) > 1
    heads = ["saved\nMiB", "\n%", "pages_\nshared", "stable_node_\nchains", "stable_node_\ndups"]
    heads += ["saved with\nmerge_across_\nnodes = 0, MiB"] if apart else []
    table = new_table("By max_page_sharing", ("max_page_sharing",), heads)
    by_across = [[one for one in found.by_sharing if one.merge_across_nodes == across] for across in (1, 0)]
    for across, within in zip(*by_across, strict=True):
        table.add_row(
            f"{across.max_page_sharing:,}",
            number(pages_to_mib(across.saved_pages.value)),
            _percent(across.saved_pages.value, found.pages),
            count(across.pages_shared.value),
            count(across.stable_node_chains.value),
            count(across.stable_node_dups.value),
            *([number(pages_to_mib(within.saved_pages.value))] if apart else []),
        )
    return table


def nodes_table(found: Estimate) -> Table:
    """One row per NUMA node."""
    heads = ["node", "memory\nMiB", "saved with\n1, MiB", "\n0, MiB", "remote mappings\nwith 1"]
    table = new_table("By node, with merge_across_nodes 1 and 0", (), heads)
    for node in found.nodes:
        sizes = (node.pages, node.saved_across, node.saved_apart)
        table.add_row(str(node.nid), *(number(pages_to_mib(pages)) for pages in sizes), count(node.remote_mappings))
    return table


def matrix_table(found: Estimate) -> Table:
    """What any two mms hold both, and on the diagonal what each saves alone, zeros apart."""
    assert found.matrix is not None, "looked at before"
    table = new_table("What two hold both, MiB; on the diagonal what one saves alone (zeros apart)", (), ["", *found.mms])
    table.columns[0].justify = "left"
    for mm, row in zip(found.mms, found.matrix, strict=True):
        table.add_row(mm, *_row(row))
    return table


def sentences(found: Estimate) -> Iterator[str]:
    """What the tables come to."""
    for reason in found.reasons:
        yield f"{'Note' if found.top.saved_pages.value else 'Nothing merges'}: {reason}."
    if not found.top.saved_pages.value:
        return
    zeros = max(found.zero_pages - 1, 0)
    yield (
        f"Without a limit to sharing, zeros make {_whole_mib(zeros)} MiB, equal pages within an mm {_mib(found.self_pages)}, "
        f"pages that several mms hold {_mib(found.inter_pages)}."
    )
    if len(found.nodes) > 1:
        yield _price(found)
    yield _metadata(found)
    if len(found.mms) > 2 and found.matrix is not None:
        yield _placement(found)
    if found.forked_pages:
        yield (
            f"{found.forked_pages:,} pages share their frame by fork already. pages_sharing counts mappings: what they save is "
            "in part saved without KSM."
        )
    if found.fraction is not None:
        saved = found.top.saved_pages
        yield (
            f"From {100 * found.fraction:g} % of the contents, drawn by hash, with all pages of each; contents of more than "
            f"{found.most_left:,} pages were looked at in any case. With a probability of 95 % the true saving lies between "
            f"{_whole_mib(saved.low)} and {_whole_mib(saved.high)} MiB."
        )


def _placement(found: Estimate) -> str:
    """Which pairs have so much more in common than others that it is worth knowing."""
    pairs = found.pairs(len(found.mms) ** 2)
    n_pairs = len(found.mms) * (len(found.mms) - 1) // 2
    mean = sum(pair.pages for pair in pairs) / n_pairs
    best = [pair for pair in pairs[:_MOST_PAIRS] if pair.pages >= _STANDS_OUT * mean]
    if best:
        return f"Place together: {', '.join(_pair(found, pair) for pair in best)}."
    low = pairs[-1].pages if len(pairs) == n_pairs else 0
    span = dict.fromkeys(map(_whole_mib, (low, pairs[0].pages if pairs else 0)))
    return f"No two belong together more than others: any two hold {' to '.join(span)} MiB both."


def _pair(found: Estimate, pair: Pair) -> str:
    apart = ", on different nodes now" if found.mm_node[pair.one] != found.mm_node[pair.other] else ""
    return f"{found.mms[pair.one]} and {found.mms[pair.other]} ({_whole_mib(pair.pages)} MiB{apart})"


def _price(found: Estimate) -> str:
    across, apart = found.setting(1), found.setting(0)
    assert across.remote_mappings is not None, "asked for"
    assert apart.remote_mappings is not None, "asked for"
    lost = across.saved_pages.value - apart.saved_pages.value
    share = _percent(lost, across.saved_pages.value)
    local = across.remote_mappings.value - apart.remote_mappings.value
    gives_up = f"{_whole_mib(lost)} MiB ({share} % of the saving)"
    return f"merge_across_nodes = 0 gives up {gives_up} and avoids {local:,} remote mappings."


def _metadata(found: Estimate) -> str:
    one = found.top
    cost, saved = ITEM_BYTES * one.ksm_rmap_items, PAGE_BYTES * one.saved_pages.value
    worth = f"{saved / cost:,.1f} times that" if saved >= cost else "less than that"
    return f"ksmd keeps {ITEM_BYTES} bytes for each of {one.ksm_rmap_items:,} pages, {format_bytes(cost)}: it saves {worth}."


def _row(pages: Sequence[int] | np.ndarray) -> list[str]:
    return [number(pages_to_mib(int(each))) for each in pages]


def _whole_mib(pages: int) -> str:
    return f"{pages_to_mib(pages):,.1f}"


def _mib(figure: Figure) -> str:
    margin = max(figure.high - figure.value, figure.value - figure.low)
    return _whole_mib(figure.value) + (f" ± {_whole_mib(margin)}" if margin else "")


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole if whole else 0:.1f}"
