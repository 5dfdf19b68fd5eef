"""A whole capture: rounds at their times, processes that come and go, and a trace at the end, also of one that was stopped.

It changes nothing on the machine, unless the user allows soft-dirty bits to be cleared.
"""

import mmap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import ksmbatch
from ksmbatch.capture.distinct import Distinct
from ksmbatch.capture.fingerprint import Fingerprints
from ksmbatch.capture.finish import Captured, Round, Wishes, write_trace
from ksmbatch.capture.follower import Follower, Stopped, Tools
from ksmbatch.capture.interrupts import Interrupts
from ksmbatch.capture.mappings import chooser, hugetlb_devices, read_mountinfo
from ksmbatch.capture.nodes import count_nodes, nodes_fault
from ksmbatch.capture.pace import Pace
from ksmbatch.capture.processes import Process, find, label
from ksmbatch.capture.request import Request
from ksmbatch.capture.softdirty import soft_dirty_works
from ksmbatch.capture.spill import Changes, Spill
from ksmbatch.errors import InputError
from ksmbatch.trace_format import PAGE_SIZE
from ksmbatch.units import format_ms, pages_to_mib

Tell = Callable[[str], object]

DONE: Final = 0
_TIMES: Final = range(2**32)  # of a trace, in ms
GIVEN_UP: Final = 130  # as a shell reports SIGINT


def capture(request: Request, out: Path, echo: Tell, tell: Tell) -> int:
    """Captures what `request` asks for into the trace `out`; the last word goes to `echo`, progress to `tell`.

    Returns the exit status: 0, also where the user stopped it and something was captured; 130 where nothing was kept.
    Raises InputError.
    """
    if mmap.PAGESIZE != PAGE_SIZE:
        rule = f"this kernel has pages of {mmap.PAGESIZE} bytes, and traces are of {PAGE_SIZE}"
        raise InputError(where="ksmbatch capture", rule=rule)
    spill = Spill(out)
    try:
        with Interrupts() as interrupts:
            session = _Session(request, spill, interrupts, tell)
            session.run()
            if interrupts.have_come():
                tell("stopping: writing what was captured so far (Ctrl-C again: nothing)")
            session.write(out)
            echo(session.last_word(out))
            return DONE
    except KeyboardInterrupt:
        tell("given up, nothing is written")
        return GIVEN_UP
    finally:
        spill.close()


class _Session:
    def __init__(self, request: Request, spill: Spill, interrupts: Interrupts, tell: Tell) -> None:
        self._request = request
        self._spill = spill
        self._interrupts = interrupts
        self._tell = tell
        self._pace = Pace(request.max_cpu, sleep=interrupts.sleep)
        self._nodes = count_nodes() > 1
        if self._nodes and (fault := nodes_fault()):
            tell(f"on which nodes pages are is not known: move_pages(2): {fault}")
            self._nodes = False
        soft_dirty = request.soft_dirty and soft_dirty_works()
        if request.soft_dirty and not soft_dirty:
            tell("this kernel has no soft-dirty bits: every page is read in every round")
        self._tools = Tools(
            fingerprints=Fingerprints(request.fingerprint),
            distinct=Distinct(ordered=request.keep_order),
            pace=self._pace,
            interrupts=interrupts,
            chosen=chooser(all_vmas=request.all_vmas, hugetlb=hugetlb_devices(read_mountinfo())),
            anonymous_only=not request.all_vmas,
            only_mergeable=request.mergeable,
            known_nodes=self._nodes,
            soft_dirty=soft_dirty,
        )
        self._followers: list[Follower] = []
        self._living: dict[Process, int] = {}
        self._refused: set[Process] = set()
        self._rounds: list[Round] = []
        self._names = set[str]()
        self._is_whole = True

    def run(self) -> None:
        """All rounds, or those until the user stops; at least the beginning of one."""
        start_s = time.monotonic()
        n_rounds = self._request.rounds
        self._tell(f"reading at {100 * self._request.max_cpu:g} % of a core at the most; Ctrl-C keeps what was captured so far")
        while n_rounds == 0 or len(self._rounds) < n_rounds:
            due_s = start_s + len(self._rounds) * self._request.interval_ms / 1000
            self._interrupts.sleep(due_s - time.monotonic())
            if self._rounds and self._interrupts.have_come():
                break
            time_ms = round((time.monotonic() - start_s) * 1000)
            if self._rounds:
                time_ms = max(time_ms, self._rounds[-1].time_ms + 1)
            if time_ms not in _TIMES:
                self._tell("a trace has no more than 49 days")
                break
            self._pace.begin()
            try:
                self._round(time_ms)
            except Stopped:
                break  # a round that is not whole would say of what it has not seen that nothing changed
            if not self._living and not self._request.selection.may_grow:
                self._tell("all processes are gone")
                break

    def _round(self, time_ms: int) -> None:
        one = Round(time_ms=time_ms)
        is_first = not self._rounds
        present = find(self._request.selection, at_start=is_first)
        for process in [*self._living.keys() - set(present)]:
            one.exited.append(self._leave(process))
        for process in [*self._living, *(process for process in present if process not in self._living)]:
            if process in self._refused:
                continue
            number = self._living.get(process)
            follower = Follower(process, self._tools) if number is None else self._followers[number]
            changes = self._look(follower, is_first)
            if changes is None:
                if number is not None:
                    one.exited.append(self._leave(process))
                continue
            if number is None:
                number = self._join(follower)
                one.started.append(number)
            one.parts.append((number, self._spill.put(changes)))
            if self._interrupts.have_come():
                if not is_first:
                    raise Stopped
                self._is_whole = follower.is_whole and process == present[-1]
                break
        self._rounds.append(one)
        self._tell_round(one)

    def _look(self, follower: Follower, is_first: bool) -> Changes | None:
        """What changed; None if the process is gone, or may not be looked at. In the first round that is an error."""
        try:
            return follower.look()
        except InputError as error:
            if is_first:
                raise
            self._refused.add(follower.process)
            self._tell(f"left out: {error}")
            return None

    def _join(self, follower: Follower) -> int:
        wanted = label(follower.process)
        names = (wanted, *(f"{wanted}.{k}" for k in range(2, len(self._names) + 3)))
        follower.name = next(name for name in names if name not in self._names)
        self._names.add(follower.name)
        self._living[follower.process] = len(self._followers)
        self._followers.append(follower)
        return len(self._followers) - 1

    def _leave(self, process: Process) -> int:
        number = self._living.pop(process)
        self._followers[number].forget()
        return number

    def _tell_round(self, one: Round) -> None:
        of = f" of {self._request.rounds}" if self._request.rounds else ""
        n_pages = sum(self._followers[number].n_pages for number in self._living.values())
        n_unread = sum(self._followers[number].n_unread for number in self._living.values())
        unread = f", {n_unread:,} could not be read" if n_unread else ""
        self._tell(
            f"round {len(self._rounds)}{of} at {format_ms(one.time_ms)}: {len(self._living)} processes, {n_pages:,} pages"
            f" ({pages_to_mib(n_pages):,.0f} MiB), {sum(part.n for _, part in one.parts):,} changed{unread}"
        )

    def write(self, out: Path) -> None:
        """The trace of all rounds so far."""
        request = self._request
        made_by = {
            "software": f"ksmbatch {ksmbatch.__version__} capture",
            "fingerprint": request.fingerprint,
            "vmas": "all" if request.all_vmas else "mergeable" if request.mergeable else "private",
            "interval_ms": request.interval_ms,
            "whole": self._is_whole,
        }
        wishes = Wishes(nodes=self._nodes, vma_names=request.vma_names, made_by=made_by)
        self._pace.begin()
        captured = Captured(rounds=self._rounds, followers=self._followers, spill=self._spill, distinct=self._tools.distinct)
        write_trace(out, captured, wishes, self._pace)

    def last_word(self, out: Path) -> str:
        """What was captured, and what it took."""
        n, n_mms = len(self._rounds), sum(len(one.started) for one in self._rounds)
        stopped = ", stopped by the user" if self._interrupts.have_come() else ""
        whole = "" if self._is_whole else " in part"
        pace = self._pace
        share = 100 * pace.work_cpu_s / pace.work_s if pace.work_s else 0.0
        return (
            f"{out}: {n} snapshot{'s' if n != 1 else ''}{whole} of {n_mms} process{'es' if n_mms != 1 else ''}{stopped};"
            f" it took {pace.work_cpu_s:.2f} s of CPU time, {share:.0f} % of a core while it went on"
        )
