"""One simulated machine: turns events into calls of kernels, and answers what sysfs, /proc and system calls would.

It knows neither configurations nor results; `engine` drives it through a whole run, `replay` through a scenario.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from ksmbatch import state
from ksmbatch.codes import Kernel, Move, Run, Status
from ksmbatch.events import (
    Discard,
    Exit,
    Fork,
    FullScan,
    Madvise,
    Migrate,
    Mmap,
    Mprotect,
    Munmap,
    Read,
    Scan,
    SetKnob,
    SetRun,
    Spawn,
)
from ksmbatch.kernels import fault, ksmd, mm_slot, stable_tree, unstable_tree
from ksmbatch.kernels.migrate import mainline
from ksmbatch.metrics import PAGE_BYTES, RMAP_ITEM_BYTES, Counter
from ksmbatch.program import DenseWrite, MmLayout, Program, ReadyStep
from ksmbatch.state import FOREVER, Knob
from ksmbatch.state import Scan as ScanState
from ksmbatch.vmas import Vmas

_UINT_MAX, _INT_MAX = 2**32 - 1, 2**31 - 1


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an event came to.

    `errno`: 0 or its name. `status`: of a migration, per page the node on which it is or the name of an error.
    `undefined`: what the kernel would do that nobody can foretell; the machine is of no use from then on.
    """

    errno: int | str = 0
    status: tuple[int | str, ...] | None = None
    undefined: str | None = None


_DONE = Outcome()


class Machine:
    """A host with `program.n_nids` nodes on which the processes of `program` may live; nothing is started yet.

    `knobs`: sysfs names -> values. `costs`: names of `Knob` such as "SKIP_NS" -> nanoseconds of ksmd's CPU time.
    `force_exact`: walk every tree, to hold the look-ups against the walks.
    """

    def __init__(
        self,
        program: Program,
        kernel: Kernel,
        knobs: dict[str, int],
        *,
        costs: Mapping[str, int] | None = None,
        force_exact: bool = False,
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
        )
        self.live: dict[str, int] = {}  # process -> mm, in the order of start
        self._numbers = {layout.name: number for number, layout in enumerate(program.mms)}
        self._vmas: dict[int, Vmas] = {}
        self._areas: dict[int, set[str]] = {}
        for name, nanoseconds in (costs or {}).items():
            self.state.knobs[Knob[name]] = nanoseconds
        self.state.knobs[Knob.KERNEL] = kernel
        self.state.knobs[Knob.FORCE_EXACT] = force_exact
        self.state.knobs[Knob.MERGE_ACROSS_NODES] = 1
        self.state.knobs[Knob.MAX_PAGE_SHARING] = 256
        for number, layout in enumerate(program.mms):
            self.state.mms[number, [state.FIRST_PAGE, state.END_PAGE, state.PARENT_MM]] = (
                layout.first,
                layout.end,
                layout.parent,
            )
        self.knob_errno = {name: errno for name, value in knobs.items() if (errno := self._set_knob(name, value))}

    # ---- events

    def apply(self, step: ReadyStep) -> Outcome:
        """Lets `step` happen. The steps must be those of the program, in its order."""
        return self._handlers[type(step)](self, step)

    def _spawn(self, step: Spawn) -> Outcome:
        number = self._numbers[step.proc]
        self.live[step.proc] = number
        self._vmas[number] = Vmas()
        self._areas[number] = set()
        self.state.mms[number, state.USERS] = 1
        return _DONE

    def _mmap(self, step: Mmap) -> Outcome:
        number = self.live[step.proc]
        first, pages = self.program.mms[number].areas[step.area]
        self._vmas[number].add(first, first + pages, step.mergeable)
        self._areas[number].add(step.area)
        self.state.page_bytes[first : first + pages, state.PAGE_NID] = step.node
        self.state.page_bytes[first : first + pages, state.PAGE_FLAGS] |= np.uint8(state.MAPPED)
        if step.mergeable:
            self._set_mergeable(number, first, first + pages, True)
        return _DONE

    def _write(self, step: DenseWrite) -> Outcome:
        number = self.live[step.proc]
        pages = step.pages
        if len(pages) == 0:
            return _DONE
        for vma in self._vmas[number].overlapping(step.first + int(pages[0]), step.first + int(pages[-1]) + 1):
            inside = np.searchsorted(pages, (vma.start - step.first, vma.end - step.first))
            if not vma.anon and inside[0] < inside[1]:
                vma.anon = True
                self.state.page_bytes[vma.start : vma.end, state.PAGE_FLAGS] |= np.uint8(state.ANON)
        fault.write_pages(self.state, step.first, pages, step.contents)
        return _DONE

    def _read(self, step: Read) -> Outcome:
        _, first, end = self._range(step)
        fault.read_pages(self.state, first, end)
        return _DONE

    def _discard(self, step: Discard) -> Outcome:
        number, first, end = self._range(step)
        covered = self._covers(number, first, end)
        fault.zap_pages(self.state, first, end)
        return _DONE if covered else Outcome(errno="ENOMEM")

    def _munmap(self, step: Munmap) -> Outcome:
        number, first, end = self._range(step)
        vmas = self._vmas[number]
        fault.zap_pages(self.state, first, end)
        for vma in vmas.carve(first, end):
            vmas.remove(vma)
        self.state.page_bytes[first:end, state.PAGE_FLAGS] &= np.uint8(state.INHERITED)
        self._count_vmas(number)
        return _DONE

    def _madvise(self, step: Madvise) -> Outcome:
        number, first, end = self._range(step)
        covered = self._covers(number, first, end)
        for vma in self._vmas[number].carve(first, end):
            if vma.mergeable == step.mergeable:
                continue
            if not step.mergeable and vma.anon:
                fault.unmerge_pages(self.state, vma.start, vma.end)
                fault.note_pages_hidden(self.state, vma.start, vma.end)
            vma.mergeable = step.mergeable
            self._set_mergeable(number, vma.start, vma.end, step.mergeable)
        return _DONE if covered else Outcome(errno="ENOMEM")

    def _mprotect(self, step: Mprotect) -> Outcome:
        number = self.live[step.proc]
        first, pages = self.program.mms[number].areas[step.area]
        flags = self.state.page_bytes[first : first + pages, state.PAGE_FLAGS]
        if step.prot == "none":
            fault.note_pages_hidden(self.state, first, first + pages)
            flags[flags & state.MAPPED != 0] |= np.uint8(state.PROT_NONE)
        else:
            flags &= np.uint8(0xFF & ~state.PROT_NONE)
        return _DONE if self._covers(number, first, first + pages) else Outcome(errno="ENOMEM")

    def _migrate(self, step: Migrate) -> Outcome:
        _, first, end = self._range(step)
        codes = np.zeros(end - first, np.int64)
        mainline.move_pages(self.state, first, end, step.node, codes)
        mainline.recount_remote_mappings(self.state)
        absent = "EFAULT" if self.kernel < Kernel.V6_12 else "ENOENT"
        words = {Move.ABSENT: absent, Move.ZERO: "EFAULT", Move.STUCK: "stuck", Move.HIDDEN: "ENOENT"}
        return Outcome(status=tuple(code if code >= 0 else words[Move(code)] for code in codes.tolist()))

    def _fork(self, step: Fork) -> Outcome:
        parent = self.live[step.proc]
        child = self._numbers[step.child]
        layout = self.program.mms[child]
        self.live[step.child] = child
        offset = layout.first - self.program.mms[parent].first
        end = self.program.mms[parent].first + layout.inherited
        self._vmas[child] = self._vmas[parent].copy_below(end, offset)
        self._areas[child] = set(self._areas[parent])
        fault.fork_pages(self.state, parent, child, end)
        self.state.mms[child, state.USERS] = 1
        self._count_vmas(child)
        if self.state.mms[parent, state.REGISTERED]:
            mm_slot.ksm_enter(self.state, child)
        if self.kernel < Kernel.V6_12:
            # 6.1: dup_mm() copies the whole mm_struct, and nobody resets these two
            self.state.mms[child, [state.MERGING, state.ITEMS]] = self.state.mms[parent, [state.MERGING, state.ITEMS]]
        return _DONE

    def _exit(self, step: Exit) -> Outcome:
        number = self.live.pop(step.proc)
        del self._vmas[number], self._areas[number]
        layout = self.program.mms[number]
        mm_slot.ksm_exit(self.state, number)
        fault.zap_pages(self.state, layout.first, layout.end)
        self.state.page_bytes[layout.first : layout.end, state.PAGE_FLAGS] &= np.uint8(state.INHERITED)
        return _DONE

    def _scan(self, step: Scan) -> Outcome:
        return self.scan(until_wakeups=self.counter(Counter.WAKEUPS) + step.batches)[1]

    def _full_scan(self, step: FullScan) -> Outcome:
        return self.scan(until_full_scans=self.counter(Counter.FULL_SCANS) + step.count)[1]

    def _knob(self, step: SetKnob) -> Outcome:
        return Outcome(errno=self._set_knob(step.name, step.value))

    def _run(self, step: SetRun) -> Outcome:
        return Outcome(errno=self._set_knob("run", step.value))

    _handlers: dict[type, Callable[["Machine", object], Outcome]] = {
        Spawn: _spawn,
        Mmap: _mmap,
        DenseWrite: _write,
        Read: _read,
        Discard: _discard,
        Munmap: _munmap,
        Madvise: _madvise,
        Mprotect: _mprotect,
        Migrate: _migrate,
        Fork: _fork,
        Exit: _exit,
        Scan: _scan,
        FullScan: _full_scan,
        SetKnob: _knob,
        SetRun: _run,
    }  # type: ignore[dict-item]  # each handler takes its own step

    def scan(
        self, *, until_wakeups: int = FOREVER, until_full_scans: int = FOREVER, until_ns: int = FOREVER
    ) -> tuple[Status, Outcome]:
        """Lets ksmd run up to the first of three limits: batches and full scans (both at the end of a batch), simulated time.

        Without a limit of time it returns at once (Status.TIME) where ksmd has nothing to do.
        """
        while True:
            status = Status(ksmd.ksm_scan_thread(self.state, until_wakeups, until_full_scans, until_ns))
            if status != Status.GROW:
                break
            self.state = state.grow(self.state)
        if status == Status.UNDEFINED:
            return status, Outcome(undefined=f"use after free: {self._fault_text()}")
        return status, _DONE

    # ---- what can be read

    def counter(self, counter: Counter) -> int:
        """The present value of `counter`."""
        return int(self.state.counters[counter])

    def process_counters(self, number: int) -> dict[str, int]:
        """/proc/PID/ksm_merging_pages and the lines of /proc/PID/ksm_stat of mm `number`."""
        mm = self.state.mms[number]
        merging, items, zero = int(mm[state.MERGING]), int(mm[state.ITEMS]), int(mm[state.ZERO_PAGES])
        return {
            "ksm_merging_pages": merging,
            "ksm_rmap_items": items,
            "ksm_zero_pages": zero,
            "ksm_process_profit": (merging + zero) * PAGE_BYTES - items * RMAP_ITEM_BYTES,
            "ksm_merge_any": 0,
            "ksm_mergeable": int(bool(mm[state.MERGEABLE_VMAS])),
        }

    def has_area(self, number: int, area: str) -> bool:
        """Whether mm `number` has had its mmap of `area` yet."""
        return area in self._areas[number]

    def table(self, first: int, pages: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The page table of `pages` pages from global page `first`.

        Returns: int64[pages] keys that two pages share iff they map the same frame (-1 absent, -2 zero page), and that change
        when a frame's number gets a new meaning; int8[pages] node (-1: none); bool[pages] whether PageKsm.
        """
        s = self.state
        frames = s.pages[first : first + pages, state.FRAME]
        present = frames != state.NO_FRAME
        frame = np.where(present, frames, 0)
        keys = frame.astype(np.int64) << 8 | s.frame_bytes[frame, state.GENERATION]
        keys[~present] = -1
        keys[s.page_bytes[first : first + pages, state.PAGE_FLAGS] & state.ZERO != 0] = -2
        nids = np.where(present, s.frame_bytes[frame, state.FRAME_NID], -1).astype(np.int8)
        return keys, nids, present & (s.frame_bytes[frame, state.FRAME_FLAGS] & state.KSM != 0)

    def survey(self) -> dict[str, int]:
        """The metrics of `metrics.SURVEYED`, by a look at all frames."""
        s = self.state
        frames = np.flatnonzero((s.frame_bytes[:, state.FRAME_FLAGS] & state.KSM != 0) & (s.frames[:, state.MAPCOUNT] > 0))
        trees = s.frame_bytes[frames, state.FRAME_NID].astype(np.int64) * (not s.knobs[Knob.MERGE_ACROSS_NODES])
        distinct = np.unique(trees << 32 | s.frames[frames, state.FRAME_CONTENT]).size
        return {
            "unreachable_mappings": int(mainline.count_unreachable(s)),
            "duplicates_left": int(frames.size - distinct),
        }

    # ---- within

    def _range(self, step: Read | Discard | Munmap | Madvise | Migrate) -> tuple[int, int, int]:
        number = self.live[step.proc]
        first = self.program.mms[number].areas[step.area][0] + step.first
        return number, first, first + step.count

    def _covers(self, number: int, first: int, end: int) -> bool:
        vmas = self._vmas[number].overlapping(first, end)
        return sum(min(vma.end, end) - max(vma.start, first) for vma in vmas) == end - first

    def _count_vmas(self, number: int) -> None:
        self.state.mms[number, state.MERGEABLE_VMAS] = self._vmas[number].n_mergeable

    def _set_mergeable(self, number: int, first: int, end: int, mergeable: bool) -> None:
        flags = self.state.page_bytes[first:end, state.PAGE_FLAGS]
        if mergeable:
            flags |= np.uint8(state.MERGEABLE)
            if not self.state.mms[number, state.REGISTERED]:
                mm_slot.ksm_enter(self.state, number)
        else:
            flags &= np.uint8(0xFF & ~state.MERGEABLE)
        self._count_vmas(number)

    def _set_knob(self, name: str, value: int) -> int | str:
        """Writes a sysfs file. Returns 0 or the name of the error. Source: the *_store() functions of mm/ksm.c."""
        if name == "smart_scan" and self.kernel < Kernel.V6_12:
            return "ENOENT"
        low, high = {
            "merge_across_nodes": (0, 1),
            "max_page_sharing": (2, _INT_MAX),
            "use_zero_pages": (0, 1),
            "smart_scan": (0, 1),
            "run": (Run.STOP, Run.UNMERGE),
        }.get(name, (0, _UINT_MAX))
        if not low <= value <= high:
            return "EINVAL"
        s = self.state
        index = Knob[name.upper()]
        if int(s.knobs[index]) == value:
            return 0
        if name in ("merge_across_nodes", "max_page_sharing"):
            if self.counter(Counter.PAGES_SHARED) or stable_tree.remove_all_stable_nodes(s):
                return "EBUSY"
            if name == "merge_across_nodes" and value == 1:
                unstable_tree.keep_leftover_trees(s)
        s.knobs[index] = value
        if name == "run" and value == Run.UNMERGE:
            ksmd.unmerge_and_remove_all_rmap_items(s)
        if name == "stable_node_chains_prune_millisecs":
            stable_tree.unsettle_all_chains(s)
        return 0

    def _fault_text(self) -> str:
        page = int(self.state.scan[ScanState.FAULT_PAGE])
        mm, area, number = locate(self.program.mms, page)
        return (
            f"ksmd walks an unstable tree that it forgot to reset when merge_across_nodes was 1, and meets the freed rmap_item of "
            f"page {number} of {mm}.{area}"
        )


def locate(mms: tuple[MmLayout, ...], page: int) -> tuple[str, str, int]:
    """Process, area and page number within it of global page `page`."""
    for mm in mms:
        for area, (first, pages) in mm.areas.items():
            if first <= page < first + pages:
                return mm.name, area, page - first
    raise IndexError(page)
