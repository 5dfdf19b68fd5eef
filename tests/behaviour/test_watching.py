"""Memory so large, and so little of it lively, that pages at rest are watched for: does it show?

Against a machine that walks every tree. Which pages must be watched is in tests/unit/kernels/test_looking.py.
"""

import random
from itertools import zip_longest

import pytest
from machines import Player, Step, compiled_only, filled, full_scan, knob, scan, scenario, write

from ksmbatch import state
from ksmbatch.codes import Kernel
from ksmbatch.invariants import check_invariants
from ksmbatch.kernels import looking, stable_shape
from ksmbatch.metrics import Counter
from ksmbatch.state import Knob, Scan

N_SHARED, N_LONELY = 150, 1200
STEP = 1000  # of contents, so that there is room between them


def memory(rng: random.Random) -> list[int]:
    """Pairs of pages all over memcmp order, seven pages of one content, and pages alone with theirs."""
    some = rng.sample(range(1, 10 * (N_SHARED + N_LONELY)), N_SHARED + N_LONELY)
    contents = [STEP * content for content in some[:N_SHARED]] * 2 + [STEP * content for content in some[N_SHARED:]]
    contents += [STEP * some[0]] * 5
    rng.shuffle(contents)
    return contents


def events(rng: random.Random, contents: list[int]) -> list[Step]:
    """Now a KSM page goes, and its stable node is stale; now pages are written with what nobody has, or others have."""
    found: list[Step] = []
    for n in range(25):
        one = rng.choice(contents)
        if n % 3 == 0:
            pages = [page for page, content in enumerate(contents) if content == one]
            found += [{"op": "discard", "proc": "a", "area": "m", "first": page, "count": 1} for page in pages]
        else:
            found.append(write("m", one + rng.choice((0, 1, 2)), first=rng.randrange(len(contents))))
        found.append(scan() if n % 2 else full_scan())
        if n == 12:
            found.append(knob("stable_node_chains_prune_millisecs", 40))
    return found


def compared(seed: int, smart_scan: int, across: int) -> int:
    """Runs a random machine in both ways; after how many steps other pages were watched for than at the beginning."""
    rng = random.Random(f"watching {seed}")
    contents = memory(rng)
    knobs = {"merge_across_nodes": across, "smart_scan": smart_scan, "max_page_sharing": 3, "pages_to_scan": 400}
    steps = [*filled(contents), full_scan(3), *events(rng, contents), full_scan(2)]
    document = scenario(*steps, stable_node_chains_prune_millisecs=rng.choice((50, 400, 2000)), **knobs)
    resting, exact = Player(document, Kernel.V6_12), Player(document, Kernel.V6_12, force_exact=True)
    for player in (resting, exact):
        player.machine.state.knobs[[Knob.SEARCH_NS, Knob.SKIP_NS, Knob.MERGE_NS]] = 20_000, 900, 70_000
    counted = [counter for counter in Counter if counter != Counter.EXACT_VISITS]
    watched = 0
    for step, _ in enumerate(zip_longest(resting.outcomes(), exact.outcomes())):
        one, other = resting.machine.state, exact.machine.state
        assert one.counters[counted].tolist() == other.counters[counted].tolist(), f"seed {seed}, step {step}"
        assert one.pages[:, state.FRAME].tolist() == other.pages[:, state.FRAME].tolist()
        assert check_invariants(one) == []
        watched += bool(one.scan[Scan.WATCH] > 0)
    return watched


@compiled_only
@pytest.mark.parametrize(("smart_scan", "across"), [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_watching_for_pages_shows_what_walking_every_tree_shows(smart_scan: int, across: int) -> None:
    watched = [compared(seed, smart_scan, across) for seed in range(8)]
    assert sum(steps > 0 for steps in watched) >= 3


def test_a_chain_of_zeros_is_watched_for_from_the_first_scan_on() -> None:
    contents = [0] * 9 + [STEP * n for n in range(1, 81)] * 2 + [STEP * n + 1 for n in range(1, 1001)]
    random.Random("zeros").shuffle(contents)
    player = Player(scenario(*filled(contents), full_scan(3), max_page_sharing=3, smart_scan=0), Kernel.V6_12)
    for _ in player.outcomes():
        pass
    s = player.machine.state
    assert s.trees[state.STABLE_CHAINS, 0] == 1
    stable_shape.know_where_to_look(s, 0)
    assert s.trees[state.LOOK_FIRST, 0] < s.trees[state.LOOK_END, 0]
    assert looking.is_covered(s, 0)
    assert s.scan[Scan.WATCH] == 0  # so that no block was looked through
