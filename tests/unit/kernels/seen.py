"""What can be seen of a machine, for tests that compare two: not what is at rest or in line, nor which slots anything has.

It compares nothing; which of it must be equal is the tests' to say.
"""

from typing import Any

import numpy as np
from unit.kernels.tiny import copied

from ksmbatch import state
from ksmbatch.kernels import line_ends, resting
from ksmbatch.kernels.cohorts import calls_of
from ksmbatch.metrics import Counter
from ksmbatch.state import NIL, Knob, State
from ksmbatch.stateview import StateView

NO_LEADERS = np.uint8(0xFF & ~state.LEADS)


def written_up(s: State) -> State:
    """A copy of the machine in which nobody is in line and no page is JOINED."""
    s = copied(s)
    line_ends.break_all_lines(s)
    resting.write_all_joined(s)
    return s


def stable_nodes(s: State) -> list[Any]:
    """What hangs in each stable tree, in order, and on migrate_nodes: chains as lists of dups, each with its hlist of pages."""
    view = StateView(s)

    def of(node: int) -> Any:
        row = view.nodes[node]
        if node in view.chains:
            # without a delay every walk prunes, whenever the last one was
            pruned = int(s.node_prune_time[node]) if view.knob[Knob.STABLE_NODE_CHAINS_PRUNE_MILLISECS] else None
            return [row[state.CONTENT], pruned, *map(of, view.chains[node])]
        members = [view.members[member][state.MEMBER_PAGE] for member in view.hlists[node]]
        length = row[state.LEN] - len(view.waiting.get(node, ()))
        return row[state.KPFN], row[state.CONTENT], length, row[state.NID], members

    return [*([of(node) for node in tree] for tree in view.trees), [of(node) for node in view.migrate]]


def pages(s: State) -> dict[str, list[Any]]:
    """What every page maps, and what its rmap_item says but for its age; what frames there are."""
    view = StateView(s)
    item = view.item_flags & NO_LEADERS
    item[item & state.UNSTABLE == 0] &= np.uint8(0xFF & ~state.PARITY)  # of a tree that it has left
    used = view.mapcount > 0
    return {
        "frame": view.frame.tolist(),
        "flags": s.page_bytes[:, state.PAGE_FLAGS].tolist(),
        "item": item.tolist(),
        "checksum": np.where(item & state.ITEM, view.checksum, -1).tolist(),
        "mapcount": view.mapcount.tolist(),
        "content": np.where(used, s.frames[:, state.FRAME_CONTENT], -1).tolist(),
        "nid": np.where(used, s.frame_bytes[:, state.FRAME_NID], 0).tolist(),
        "ksm": np.where(used, s.frame_bytes[:, state.FRAME_FLAGS], 0).tolist(),
    }


def counted(s: State) -> dict[str, list[Any]]:
    """All counters but that of how the visits were made."""
    kept = [counter for counter in Counter if counter != Counter.EXACT_VISITS]
    return {"counters": s.counters[kept].tolist(), "nodes": s.node_counters.tolist(), "mms": s.mms.tolist()}


def seen(s: State) -> dict[str, list[Any]]:
    """All that can be seen, but for the ages."""
    return pages(s) | counted(s) | {"stable": stable_nodes(s), "chains": chains(s)}


def chains(s: State) -> list[list[int]]:
    """Per stable tree the contents of its chains, from the one that was pruned first, if that matters."""
    view = StateView(s)
    if not view.knob[Knob.STABLE_NODE_CHAINS_PRUNE_MILLISECS]:
        return []
    return [[view.nodes[chain][state.CONTENT] for chain in listed] for listed in view.listed_chains]


def ages(s: State) -> list[list[int]]:
    """smart_scan's age and remaining_skips of all pages, as if each had been visited."""
    s = written_up(s)
    resting.show_all(s)
    found: list[list[int]] = s.page_bytes[:, [state.AGE, state.SKIPS]].tolist()
    return found


def calls(s: State) -> list[int]:
    """How often smart_scan was asked about each page, up to whole periods: all that will ever come of its age."""
    return [int(calls_of(age, skips)) for age, skips in ages(s)]


# arrays in which every number counts once nobody is in line
KEPT = (
    *("numa", "stable_links", "stable_log", "stable_index", "unstable_links", "unstable_log", "gated", "changed"),
    *("cohort", "cohorts", "calendar", "mms", "rank", "checksum_class", "knobs", "counters", "node_counters"),
)
PAGE_COLUMNS = [state.PAGE_FLAGS, state.PAGE_NID, state.ITEM_FLAGS, state.AGE, state.SKIPS, state.ITEM_NID]
# slots, and what has been found out about where there is something to look at, as soon as somebody asked
NOT_KEPT = [state.OLDEST_CHAIN, state.NEWEST_CHAIN, *range(state.LOOK_KNOWN, state.UNSTABLE_CHANGED)]
NOT_KEPT += range(state.WATCHED, state.WATCH_HIGH + 1)


def kept(s: State) -> dict[str, list[Any]]:
    """The machine once nobody is in line: what can be seen, and who rests and why, but for slots of nodes and members."""
    s = written_up(s)
    found = {name: getattr(s, name).tolist() for name in KEPT}
    found["pages"] = s.pages[:, [state.FRAME, state.CHECKSUM]].tolist()
    found["page_bytes"] = s.page_bytes[:, PAGE_COLUMNS].tolist()
    found["frames"] = s.frames[:, [state.FRAME_CONTENT, state.MAPCOUNT]].tolist()
    found["frame_bytes"] = s.frame_bytes[:, [state.FRAME_FLAGS, state.FRAME_NID]].tolist()
    found["trees"] = np.delete(s.trees, NOT_KEPT, axis=0).tolist()
    by_content = s.by_content.copy()
    by_content[:, :, state.STABLE_AT] = by_content[:, :, state.STABLE_AT] != NIL
    found["by_content"] = by_content.tolist()
    return found | {"stable": stable_nodes(s), "chains": chains(s)}


def differing(one: dict[str, list[Any]], other: dict[str, list[Any]]) -> list[str]:
    """The names of what differs."""
    return [name for name in one if one[name] != other[name]]
