"""One simulated machine: turns events into calls of kernels, and answers what sysfs, /proc and system calls would.

It knows neither configurations nor results; `engine` drives it through a whole run, `replay` through a scenario.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from ksmbatch import migration, state, survey
from ksmbatch.address_spaces import AddressSpaces
from ksmbatch.codes import CALLER_PRESETS, Caller, Kernel, Move, Policy, Run, Status
from ksmbatch.errors import OutOfMemory
from ksmbatch.events import (
    ClearFrames,
    Discard,
    Exit,
    Fork,
    FullScan,
    Madvise,
    MergeAny,
    Migrate,
    Mmap,
    Mprotect,
    Munmap,
    Offline,
    Online,
    Read,
    Rebind,
    Scan,
    SetKnob,
    SetRun,
    Spawn,
)
from ksmbatch.kernels import fault, fill, ksmd, line_ends, mm_slot, resting, stable_chain, stable_tree, twins, unstable_tree
from ksmbatch.metrics import Counter
from ksmbatch.program import DenseWrite, MmLayout, Program, ReadyStep
from ksmbatch.state import FOREVER, Knob
from ksmbatch.state import Scan as ScanState
from ksmbatch.sysfs import parse_knob
from ksmbatch.vmas import Vma


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What an event came to.

    `errno`: 0 or its name. `codes`: of a migration, per page the node on which it is, or a `codes.Move`. `undefined`: what the
    kernel would do that nobody can foretell; the machine is of no use from then on.
    """

    errno: int | str = 0
    codes: np.ndarray | None = None
    undefined: str | None = None

    @property
    def status(self) -> tuple[int | str, ...] | None:
        """Of a migration, per page the node on which it is or the name of an error."""
        if self.codes is None:
            return None
        return tuple(code if code >= 0 else _STATUS[Move(code)] for code in self.codes.tolist())


_DONE = Outcome()
_SWEEPING = frozenset({MergeAny, Offline, ClearFrames})  # may look at any page
_STATUS = {
    Move.ABSENT: "ENOENT",
    Move.ZERO: "EFAULT",
    Move.UNMAPPED: "EFAULT",
    Move.STUCK: "stuck",
    Move.HIDDEN: "ENOENT",
    Move.REFUSED: "EBUSY",
    Move.FULL: "ENOMEM",
    Move.LEFT: "EAGAIN",
}


def _errno_of(covered: bool) -> Outcome:
    return _DONE if covered else Outcome(errno="ENOMEM")


class Machine:
    """A host with `program.n_nids` nodes on which the processes of `program` may live; nothing is started yet.

    `knobs`: sysfs names -> values. `costs`: names of `Knob` such as "SKIP_NS" -> nanoseconds of CPU time. `keep_pfns`: number
    frames as the kernel does, for `table()`, Offline and ClearFrames. `force_exact`: walk every tree, to hold the look-ups
    against the walks. `policy`, `callers`: what becomes of KSM pages that move, and who may move them. `node_pages`: frames of
    a node, 0: as many as needed. `distance`: of node to node, as in `topology`.
    """

    def __init__(
        self,
        program: Program,
        kernel: Kernel,
        knobs: dict[str, int],
        *,
        costs: Mapping[str, int] | None = None,
        force_exact: bool = False,
        keep_pfns: bool = False,
        policy: Policy = Policy.MAINLINE,
        callers: Sequence[Caller] = CALLER_PRESETS["mainline"],
        node_pages: int = 0,
        distance: Sequence[Sequence[int]] | None = None,
    ) -> None:
        self.program = program
        self.kernel = kernel
        self.state = state.allocate(
            n_pages=program.n_pages,
            n_mms=len(program.mms),
            n_nids=program.n_nids,
            n_dup=program.contents.n_dup,
            rank=program.contents.rank,
            checksum_class=program.contents.checksum_class,
            keep_pfns=keep_pfns,
            node_pages=node_pages,
            distance=distance,
        )
        self.live: dict[str, int] = {}  # process -> mm, in the order of start
        self._numbers = {layout.name: number for number, layout in enumerate(program.mms)}
        self._spaces = AddressSpaces(program)
        for name, nanoseconds in (costs or {}).items():
            self.state.knobs[Knob[name]] = nanoseconds
        self.state.knobs[Knob.KERNEL] = kernel
        self.state.knobs[Knob.POLICY] = policy
        self.state.knobs[Knob.CALLERS] = sum(1 << caller for caller in set(callers))
        self.state.knobs[Knob.FORCE_EXACT] = force_exact
        self.state.knobs[Knob.MERGE_ACROSS_NODES] = 1
        self.state.knobs[Knob.MAX_PAGE_SHARING] = 256
        for number, layout in enumerate(program.mms):
            self.state.mms[number, [state.FIRST_PAGE, state.END_PAGE]] = layout.first, layout.end
        self.knob_errno = {name: str(errno) for name, value in knobs.items() if (errno := self._set_knob(name, value))}

    # ---- events

    def apply(self, step: ReadyStep) -> Outcome:
        """Lets `step` happen. The steps must be those of the program, in its order. Raises OutOfMemory."""
        if type(step) in _SWEEPING:
            self.write_up()
        outcome = self._handlers[type(step)](self, step)
        self._look_for_memory()
        return outcome

    def _spawn(self, step: Spawn) -> Outcome:
        number = self._numbers[step.proc]
        self.live[step.proc] = number
        self._spaces.spawn(number, self.kernel)
        self.state.mms[number, state.USERS] = 1
        return _DONE

    def _mmap(self, step: Mmap) -> Outcome:
        number = self.live[step.proc]
        first, pages = self.program.mms[number].areas[step.area]
        merge_any = bool(self.state.mms[number, state.MERGE_ANY])
        self._spaces[number].add(first, first + pages, step.node, mergeable=merge_any or step.mergeable)
        self._spaces.add_area(number, step.area)
        self.state.page_bytes[first : first + pages, state.PAGE_NID] = step.node
        if merge_any or step.mergeable:
            self._register(number)
        self._spaces.tell(number, self.state)
        return _DONE

    def _write(self, step: DenseWrite) -> Outcome:
        number = self.live[step.proc]
        pages = step.pages
        if isinstance(pages, range):
            return self._write_all(number, step.first + pages.start, step.first + pages.stop, step.contents)
        if len(pages) == 0:
            return _DONE
        changed = False
        for vma in self._spaces[number].overlapping(step.first + int(pages[0]), step.first + int(pages[-1]) + 1):
            if vma.anon_vma is not None:
                continue
            inside = np.searchsorted(pages, (vma.start - step.first, vma.end - step.first))
            if inside[0] < inside[1]:
                self._spaces[number].fault(vma)
                changed = True
        if changed:
            self._spaces.tell(number, self.state)
        fault.write_pages(self.state, step.first, pages, step.contents)
        return _DONE

    def _write_all(self, number: int, first: int, end: int, contents: np.ndarray) -> Outcome:
        unwritten = [vma for vma in self._spaces[number].overlapping(first, end) if vma.anon_vma is None]
        for vma in unwritten:
            self._spaces[number].fault(vma)
        if unwritten:
            self._spaces.tell(number, self.state)
        fill.write_range(self.state, first, contents)
        return _DONE

    def _read(self, step: Read) -> Outcome:
        _, first, end = self._range(step)
        fault.read_pages(self.state, first, end)
        return _DONE

    def _discard(self, step: Discard) -> Outcome:
        number, first, end = self._range(step)
        self._zap(first, end)
        return _errno_of(self._spaces[number].covers(first, end))

    def _munmap(self, step: Munmap) -> Outcome:
        number, first, end = self._range(step)
        self._zap(first, end)
        self._spaces[number].unmap(first, end)
        self._spaces.tell(number, self.state)
        return _DONE

    def _madvise(self, step: Madvise) -> Outcome:
        number, first, end = self._range(step)
        covered = self._spaces[number].covers(first, end)
        line_ends.step_out(self.state, first, end, 0)

        def before(vma: Vma, start: int, stop: int) -> None:
            if step.mergeable:
                self._register(number)
            elif vma.anon_vma is not None:
                self._unmerge(start, stop)

        self._spaces[number].madvise(first, end, mergeable=step.mergeable, before=before)
        self._spaces.tell(number, self.state)
        return _errno_of(covered)

    def _merge_any(self, step: MergeAny) -> Outcome:
        number = self.live[step.proc]
        if self.kernel < Kernel.V6_12:
            return Outcome(errno="EINVAL")
        if bool(step.value) == bool(self.state.mms[number, state.MERGE_ANY]):
            return _DONE
        if step.value:
            self._register(number)
        self.state.mms[number, state.MERGE_ANY] = step.value
        for vma in self._spaces[number]:
            if vma.flags.mergeable and not step.value and vma.anon_vma is not None:
                self._unmerge(vma.start, vma.end)
            vma.flags = replace(vma.flags, mergeable=bool(step.value))  # flag by flag: no VMAs are merged
        self._spaces.tell(number, self.state)
        return _DONE

    def _mprotect(self, step: Mprotect) -> Outcome:
        number = self.live[step.proc]
        first, pages = self.program.mms[number].areas[step.area]
        line_ends.step_out(self.state, first, first + pages, 0)
        fault.note_pages_hidden(self.state, first, first + pages)
        covered = self._spaces[number].mprotect(first, first + pages, step.prot)
        self._spaces.tell(number, self.state)
        return _errno_of(covered)

    def _migrate(self, step: Migrate) -> Outcome:
        _, first, end = self._range(step)
        return self.migrate(first, end, step.node, step.caller)

    def migrate(self, first: int, end: int, nid: int, caller: Caller) -> Outcome:
        """Moves the global pages [first, end) to `nid`."""
        self.write_up()
        self.state, codes = migration.move(self.state, self._spaces.links, first, end, nid, caller)
        if self.kernel < Kernel.V6_12:
            codes[codes == Move.ABSENT] = Move.UNMAPPED  # the same error for both
        return Outcome(codes=codes)

    def _rebind(self, step: Rebind) -> Outcome:
        number = self.live[step.proc]
        first, pages = self.program.mms[number].areas[step.area]
        self._spaces[number].rebind(first, first + pages, step.node)
        line_ends.step_out(self.state, first, first + pages, 0)
        fault.rebind_pages(self.state, first, first + pages, step.node)
        return _DONE

    def _offline(self, step: Offline) -> Outcome:
        self.state, errno = migration.take_offline(self.state, self._spaces.links, step.node)
        return Outcome(errno=errno)

    def _online(self, step: Online) -> Outcome:
        self.state.numa[step.node, state.OFFLINE] = 0
        return _DONE

    def _clear_frames(self, step: ClearFrames) -> Outcome:
        return Outcome(errno=migration.clear_frames(self.state, self._spaces.links, step.first, step.count, step.caller))

    def _fork(self, step: Fork) -> Outcome:
        parent = self.live[step.proc]
        child = self._numbers[step.child]
        layout = self.program.mms[child]
        self.live[step.child] = child
        offset = layout.first - self.program.mms[parent].first
        end = self.program.mms[parent].first + layout.inherited
        self._spaces.fork(parent, child, end, offset)
        line_ends.step_out(self.state, self.program.mms[parent].first, end, 0)
        fault.fork_pages(self.state, parent, child, end)
        self.state.mms[child, [state.USERS, state.MERGE_ANY]] = 1, self.state.mms[parent, state.MERGE_ANY]
        self._spaces.tell(child, self.state)
        if self.state.mms[parent, state.REGISTERED]:
            self._register(child)
        if self.kernel < Kernel.V6_12:
            # 6.1: dup_mm() copies the whole mm_struct, and nobody resets these two
            self.state.mms[child, [state.MERGING, state.ITEMS]] = self.state.mms[parent, [state.MERGING, state.ITEMS]]
        return _DONE

    def _exit(self, step: Exit) -> Outcome:
        number = self.live.pop(step.proc)
        layout = self.program.mms[number]
        mm_slot.ksm_exit(self.state, number)
        self._zap(layout.first, layout.end)
        self._spaces.exit(number, self.state)
        return _DONE

    def _scan(self, step: Scan) -> Outcome:
        return self.scan(until_wakeups=self.counter(Counter.WAKEUPS) + step.batches)[1]

    def _full_scan(self, step: FullScan) -> Outcome:
        return self.scan(until_full_scans=self.counter(Counter.FULL_SCANS) + step.count)[1]

    def _knob(self, step: SetKnob) -> Outcome:
        return self._write_sysfs(step.name, step.value)

    def _run(self, step: SetRun) -> Outcome:
        return self._write_sysfs("run", step.value)

    def _write_sysfs(self, name: str, value: int) -> Outcome:
        errno = self._set_knob(name, value)
        self.state.counters[Counter.KNOB_REFUSED] += bool(errno)
        return Outcome(errno=errno)

    _handlers: ClassVar[dict[type, Callable[..., Outcome]]] = {
        Spawn: _spawn,
        Mmap: _mmap,
        DenseWrite: _write,
        Read: _read,
        Discard: _discard,
        Munmap: _munmap,
        Madvise: _madvise,
        MergeAny: _merge_any,
        Mprotect: _mprotect,
        Migrate: _migrate,
        Rebind: _rebind,
        Offline: _offline,
        Online: _online,
        ClearFrames: _clear_frames,
        Fork: _fork,
        Exit: _exit,
        Scan: _scan,
        FullScan: _full_scan,
        SetKnob: _knob,
        SetRun: _run,
    }

    def write_up(self) -> None:
        """Writes to the arrays what ksmd has left to arithmetic: who has joined KSM pages in line, and who would have."""
        if self.state.scan[ScanState.LINES_SEQ]:
            line_ends.break_all_lines(self.state)
        if self.state.scan[ScanState.N_JOINED]:
            resting.write_all_joined(self.state)

    def scan(
        self, *, until_wakeups: int = FOREVER, until_full_scans: int = FOREVER, until_ns: int = FOREVER
    ) -> tuple[Status, Outcome]:
        """Lets ksmd run up to the first of three limits: batches and full scans (both at the end of a batch), simulated time.

        Without a limit of time it returns at once (Status.TIME) where ksmd has nothing to do.
        """
        if until_ns == until_wakeups == FOREVER and self.state.knobs[Knob.PAGES_TO_SCAN] == 0:
            return Status.TIME, _DONE  # it would wake for ever and look at nothing
        while True:
            status = Status(ksmd.ksm_scan_thread(self.state, until_wakeups, until_full_scans, until_ns))
            if status != Status.GROW:
                break
            self.state = state.grow(self.state)
        self._look_for_memory()
        if status == Status.UNDEFINED:
            return status, Outcome(undefined=f"use after free: {self._fault_text()}")
        return status, _DONE

    # ---- what can be read

    @property
    def is_idle(self) -> bool:
        """Whether ksmd has nothing to do until something happens: it is stopped, or nobody is registered with it."""
        s = self.state
        stands = s.knobs[Knob.RUN] != Run.MERGE or s.knobs[Knob.PAGES_TO_SCAN] == 0
        return bool(stands or s.scan[ScanState.SLOT_FIRST] == state.NO_MM)

    def counter(self, counter: Counter) -> int:
        """The present value of `counter`."""
        return int(self.state.counters[counter])

    def process_counters(self, number: int) -> dict[str, int]:
        """/proc/PID/ksm_merging_pages and the lines of /proc/PID/ksm_stat of mm `number`."""
        return survey.process_counters(self.state, number)

    def has_area(self, number: int, area: str) -> bool:
        """Whether mm `number` has had its mmap of `area` yet."""
        return self._spaces.has_area(number, area)

    def table(self, first: int, pages: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The page table of `pages` pages from global page `first`, see `survey.page_table`; needs `keep_pfns`."""
        self.write_up()
        return survey.page_table(self.state, first, pages)

    def survey(self) -> dict[str, int]:
        """The metrics of `metrics.SURVEYED`, by a look at all frames."""
        if len(self._spaces.links.page_chain):
            self.write_up()
        return survey.survey(self.state, self._spaces.links)

    # ---- within

    def _look_for_memory(self) -> None:
        if self.state.scan[ScanState.OUT_OF_MEMORY]:
            n_pages = int(self.state.numa[0, state.NODE_PAGES])
            raise OutOfMemory(f"out of memory: all {len(self.state.numa)} nodes are full (host.node_pages = {n_pages})")

    def pages_of(self, step: Read | Discard | Munmap | Madvise | Migrate) -> tuple[int, int]:
        """The global pages [first, end) that `step` names."""
        return self._range(step)[1:]

    def _range(self, step: Read | Discard | Munmap | Madvise | Migrate) -> tuple[int, int, int]:
        number = self.live[step.proc]
        first = self.program.mms[number].areas[step.area][0] + step.first
        return number, first, first + step.count

    def _register(self, number: int) -> None:
        if not self.state.mms[number, state.REGISTERED]:
            mm_slot.ksm_enter(self.state, number)

    def _zap(self, first: int, end: int) -> None:
        line_ends.step_out(self.state, first, end, 1)
        fault.zap_pages(self.state, first, end)

    def _unmerge(self, first: int, end: int) -> None:
        fault.note_pages_hidden(self.state, first, end)
        fault.unmerge_pages(self.state, first, end)

    def _set_knob(self, name: str, value: int) -> int | str:
        """Writes a sysfs file. Returns 0 or the name of the error. Source: the *_store() functions of mm/ksm.c."""
        parsed = parse_knob(name, value, self.kernel)
        if isinstance(parsed, str):
            return parsed
        s = self.state
        index = Knob[name.upper()]
        if int(s.knobs[index]) == parsed:
            return 0
        if name not in ("pages_to_scan", "sleep_millisecs"):
            self.write_up()
        if name in ("merge_across_nodes", "max_page_sharing") and (
            self.counter(Counter.PAGES_SHARED) or stable_tree.remove_all_stable_nodes(s)
        ):
            return "EBUSY"
        if name in ("merge_across_nodes", "smart_scan", "use_zero_pages"):
            resting.wake_all(s)
        if name == "merge_across_nodes" and parsed == 1:
            unstable_tree.keep_leftover_trees(s)
        s.knobs[index] = parsed
        if name == "merge_across_nodes":
            twins.recount_holders(s)
        if name == "run" and parsed == Run.UNMERGE:
            ksmd.unmerge_and_remove_all_rmap_items(s)
        if name == "stable_node_chains_prune_millisecs":
            stable_chain.unsettle_all_chains(s)
        return 0

    def _fault_text(self) -> str:
        page = int(self.state.scan[ScanState.FAULT_PAGE])
        mm, area, number = locate(self.program.mms, page)
        return (
            "ksmd walks an unstable tree that it forgot to reset when merge_across_nodes was 1, "
            f"and meets the freed rmap_item of page {number} of {mm}.{area}"
        )


def locate(mms: tuple[MmLayout, ...], page: int) -> tuple[str, str, int]:
    """Process, area and page number within it of global page `page`."""
    for mm in mms:
        for area, (first, pages) in mm.areas.items():
            if first <= page < first + pages:
                return mm.name, area, page - first
    raise IndexError(page)
