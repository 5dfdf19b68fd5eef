"""Who waits for whom? Moves that change stable trees wait for ksmd's batch or visit, and ksmd waits for them.

Every visit of ksmd takes 300 ns here, a move 1000 ns, a tree 100 ns, so that each wait can be told by its length.
"""

import pytest
from machines import Step, filled, full_scan, mmap, scenario, spawn, write

from ksmbatch.clock import Clock
from ksmbatch.codes import Caller, Kernel, Locking, Policy
from ksmbatch.events import Migrate
from ksmbatch.kernels import resting
from ksmbatch.locks import Lock
from ksmbatch.machine import Machine
from ksmbatch.metrics import Counter
from ksmbatch.program import compile_workload
from ksmbatch.scenario import parse_scenario
from ksmbatch.state import CHECKSUM, Knob
from ksmbatch.state import Scan as ScanState
from ksmbatch.workload import scenario_workload

VISIT, MOVE, TREE = 300, 1000, 100
VISITS = ("SKIP_NS", "KSM_VISIT_NS", "CHECKSUM_NS", "SEARCH_NS", "MERGE_NS", "ZERO_MERGE_NS")
KINDS = (Locking.KSM_THREAD_MUTEX, Locking.TREE_MUTEX)
LONELY = list(range(20, 40))


class Host:
    """A machine that has done `steps`, with its clock and lock."""

    def __init__(
        self,
        *steps: Step,
        kind: Locking,
        policy: Policy = Policy.SUBSTITUTE,
        sleep_millisecs: int = 20,
        smart_scan: int = 0,
        wakeup_ns: int = 0,
    ) -> None:
        knobs = {"merge_across_nodes": 0, "smart_scan": smart_scan, "pages_to_scan": 100}
        parsed = parse_scenario(scenario(*steps, **knobs), "test")
        program = compile_workload(scenario_workload(parsed))
        costs = dict.fromkeys(VISITS, VISIT) | {"WAKEUP_NS": wakeup_ns, "MOVE_NS": MOVE, "TREE_NS": TREE}
        self.machine = Machine(program, Kernel.V6_12, parsed.knobs, costs=costs, policy=policy)
        self.clock = Clock(self.machine, "scan", None, lambda _: None)
        self.lock = Lock(self.clock, kind)
        self.machine.state.knobs[Knob.SLEEP_MILLISECS] = sleep_millisecs
        for step in program.snapshots[0][1]:
            self.machine.apply(step)
        self.start_ns = self.now_ns

    @property
    def now_ns(self) -> int:
        """Simulated time."""
        return self.clock.now(Counter.TIME_NS)

    def pass_time(self, ns: int) -> None:
        """ksmd goes on for so long, and to the end of the visit it is at by then."""
        self.clock.run(until_ns=self.now_ns + ns)
        self.start_ns = self.now_ns

    def wake(self, visits: int) -> None:
        """ksmd wakes, and is seen when it has done so many visits of its batch."""
        self.pass_time(int(self.machine.state.scan[ScanState.WAKE_NS]) - self.now_ns + 1)
        for _ in range(visits - 1):
            self.pass_time(1)
        assert self.machine.state.scan[ScanState.BUDGET] == 100 - visits

    def move(self, count: int, proc: str = "a") -> None:
        """The first pages of `proc` move to node 1."""
        self.lock.migrate(Migrate(proc=proc, area="m", first=0, count=count, node=1, caller=Caller.MOVE_PAGES))

    def counted(self, *names: str) -> list[int]:
        return [self.clock.now(Counter[name.upper()]) for name in names]

    def locks(self) -> list[int]:
        """How many moves took the lock, how many of them waited, and how long."""
        return self.counted("locks_taken", "locks_waited", "lock_wait_ns")


def shared(*more: Step) -> list[Step]:
    """Page 0 of a and of b, and page 1 of both, are KSM pages on node 0."""
    return [*filled([7, 9]), *filled([7, 9], proc="b"), *more, full_scan(3)]


# what needs the lock


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("policy", "locks"),
    [
        (Policy.MAINLINE, 0),
        (Policy.V4, 1),
        (Policy.MERGE_ON_MIGRATE, 1),
        (Policy.SUBSTITUTE, 1),
        (Policy.BREAK_COW, 0),
        (Policy.REPLICATE, 0),
    ],
)
def test_a_move_takes_the_lock_if_its_policy_changes_trees_then(policy: Policy, locks: int, kind: Locking) -> None:
    host = Host(*shared(), kind=kind, policy=policy)
    host.move(1)
    assert host.locks() == [locks, 0, 0]
    assert host.counted("lock_hold_ns") == [locks * TREE]


@pytest.mark.parametrize("kind", KINDS)
def test_pages_that_are_no_ksm_pages_and_pages_that_are_there_already_move_without_the_lock(kind: Locking) -> None:
    host = Host(*filled([1, 2, 3]), full_scan(3), kind=kind)
    host.move(3)
    assert host.locks() == [0, 0, 0]
    assert host.counted("frames_moved", "lock_hold_ns") == [3, 0]
    host = Host(*filled([7, 7], node=1), full_scan(3), kind=kind)
    host.move(2)
    assert host.locks() == [0, 0, 0]


def test_each_page_that_needs_the_lock_takes_it_anew_and_others_in_between_do_not() -> None:
    host = Host(*filled([7, 1, 2, 9]), *filled([7, 9], proc="b"), full_scan(3), kind=Locking.KSM_THREAD_MUTEX)
    host.move(4)
    assert host.locks()[0] == 2
    assert host.counted("ksm_frames_moved", "frames_moved") == [2, 4]


def test_a_page_that_ksmd_merges_while_those_before_it_move_needs_the_lock_too() -> None:
    # the visits of the second scan: 7 and 8 of a, 7 of b (merges), and then 8 of c, which makes page 1 of a a KSM page
    steps = [*filled([7, 8]), *filled([7], proc="b"), *filled([8], proc="c"), full_scan(1)]
    host = Host(*steps, kind=Locking.TREE_MUTEX)
    host.wake(3)
    assert host.counted("pages_shared") == [1]
    host.move(2)
    assert host.counted("pages_shared", "locks_taken", "migrate_inserted") == [2, 2, 2]


# moves take time


@pytest.mark.parametrize("kind", KINDS)
def test_moves_take_their_time_one_after_another_and_ksmd_goes_on(kind: Locking) -> None:
    host = Host(*shared(), kind=kind)
    host.move(2)
    assert host.now_ns - host.start_ns == 2 * (MOVE + TREE) == host.counted("move_cpu_ns")[0]
    host = Host(*filled([1, 2]), kind=kind, sleep_millisecs=0)
    host.move(2)
    assert host.counted("pages_scanned") > [4]


# the lock of a batch


def test_a_move_waits_for_the_end_of_the_batch_that_is_under_way() -> None:
    host = Host(*shared(), kind=Locking.KSM_THREAD_MUTEX)
    host.wake(1)  # of 4 visits
    host.move(1)
    assert host.locks() == [1, 1, 3 * VISIT]
    assert host.now_ns - host.start_ns == 3 * VISIT + MOVE + TREE
    assert host.counted("ksmd_wait_ns") == [0]  # it sleeps


def test_while_ksmd_sleeps_nobody_waits_for_its_batch() -> None:
    host = Host(*shared(), kind=Locking.KSM_THREAD_MUTEX)
    host.move(2)
    assert host.locks() == [2, 0, 0]


def test_a_batch_that_begins_between_two_moves_is_waited_for_by_the_second() -> None:
    host = Host(*shared(), kind=Locking.KSM_THREAD_MUTEX)
    asleep_ns = int(host.machine.state.scan[ScanState.WAKE_NS]) - host.now_ns
    host.pass_time(asleep_ns - 500)
    host.move(2)
    # the first move ends 600 ns after ksmd woke for 4 visits; the second ends after that
    assert host.locks() == [2, 1, 4 * VISIT - 600]


def test_ksmd_wakes_later_if_a_move_holds_the_lock_when_it_wants_to() -> None:
    host = Host(*shared(), kind=Locking.KSM_THREAD_MUTEX)
    wake_ns = int(host.machine.state.scan[ScanState.WAKE_NS])
    host.pass_time(wake_ns - host.now_ns - 30)
    host.move(1)
    assert host.counted("ksmd_wait_ns", "lock_hold_ns") == [TREE - 30, TREE]
    # its 4 visits begin so much later; the move ends within the last of them
    assert host.now_ns == wake_ns + TREE - 30 + 4 * VISIT


def test_ksmd_that_wants_to_go_on_at_once_waits_as_long_as_a_tree_takes() -> None:
    host = Host(*shared(), kind=Locking.KSM_THREAD_MUTEX, sleep_millisecs=0)
    host.wake(1)
    host.move(1)
    assert host.counted("ksmd_wait_ns", "lock_hold_ns") == [TREE, TREE]


# the lock of a tree


def in_mid_batch(kind: Locking, **options: int) -> Host:
    """ksmd has visited the four KSM pages and the first of 20 lonely ones, which it searches the trees for."""
    host = Host(*shared(*filled(LONELY, proc="z")), kind=kind, **options)
    host.wake(5)
    return host


def test_a_move_waits_for_the_end_of_a_visit_that_searches_trees() -> None:
    host = in_mid_batch(Locking.TREE_MUTEX)
    host.move(2)
    # page 0 holds the lock for 100 ns, while ksmd waits, and is there at 1100; the visit from 1000 to 1300 is waited for
    assert host.locks() == [2, 1, 200]
    # ksmd waits a second time, from 1300 on, and goes on while the second page moves
    assert host.counted("ksmd_wait_ns", "lock_hold_ns") == [2 * TREE, 2 * TREE]
    moved_ns = host.start_ns + 1100 + 200 + 1100
    assert moved_ns <= host.now_ns < moved_ns + VISIT


def test_a_move_does_not_wait_for_a_visit_that_only_looks_at_the_checksum() -> None:
    host = in_mid_batch(Locking.TREE_MUTEX)
    resting.wake_all(host.machine.state)
    host.machine.state.pages[:, CHECKSUM] = -1  # no visit goes further
    host.move(2)
    assert host.locks() == [2, 0, 0]
    assert host.counted("ksmd_wait_ns")[0] == TREE  # it was at a visit when the second move took the lock


def test_a_move_does_not_wait_while_smart_scan_passes_pages_by() -> None:
    # scan 5 searches the trees for the page of y, which is new, and passes by those of z
    before = [*filled([7, 9]), *filled([7, 9], proc="b"), spawn("y"), mmap("m", 1, proc="y"), *filled(LONELY, proc="z")]
    steps = [*before, full_scan(3), write("m", 50, proc="y"), full_scan(1)]
    host = Host(*steps, kind=Locking.TREE_MUTEX, smart_scan=1)
    host.wake(5)
    assert host.machine.state.scan[ScanState.VISIT] == Knob.SEARCH_NS
    host.move(2)
    assert host.counted("pages_skipped")[0] > 0
    assert host.locks() == [2, 0, 0]


def test_a_move_does_not_wait_for_a_batch_that_is_just_beginning() -> None:
    host = Host(*shared(*filled([30], proc="z")), kind=Locking.TREE_MUTEX, wakeup_ns=5000)
    host.machine.state.scan[ScanState.VISIT] = Knob.SEARCH_NS  # the last before it went to sleep
    host.pass_time(int(host.machine.state.scan[ScanState.WAKE_NS]) - host.now_ns - 500)
    batches = host.counted("wakeups")
    host.move(2)
    assert host.counted("wakeups") > batches
    assert host.locks() == [2, 0, 0]


def test_a_batch_is_not_waited_for_where_ksmd_lets_go_between_visits() -> None:
    host = in_mid_batch(Locking.TREE_MUTEX)
    host.move(1)
    assert host.locks() == [1, 0, 0]
    host = in_mid_batch(Locking.KSM_THREAD_MUTEX)
    host.move(1)
    assert host.locks() == [1, 1, 19 * VISIT]


# memory hotremove


@pytest.mark.parametrize("kind", list(Locking))
def test_hotremove_waits_for_the_batch_whatever_the_lock_is(kind: Locking) -> None:
    host = in_mid_batch(kind)
    host.lock.wait_for_batch()
    assert host.locks() == [1, 1, 19 * VISIT]
    assert host.now_ns - host.start_ns == 19 * VISIT
    host.lock.wait_for_batch()
    assert host.locks() == [2, 1, 19 * VISIT]
