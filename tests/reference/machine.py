"""A machine that runs a scenario step by step and is observed as the recorder observes the real one.

It takes the normalised document (defaults filled in, ranges checked) and trusts it, also where it holds what no recorder takes:
`node_pages`, callers, and the steps rebind, offline, online, compaction, thp and cma. Time stands still unless the caller moves
`now_ns`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from typing import Any

from . import observe
from .evacuate import alloc_contig_range, offline_pages
from .freed import UseAfterFree
from .invariants import broken_invariants
from .kernels import KERNELS
from .knobs import Errno, run_store, write_knob
from .memory import Mm, break_ksm, dup_mmap, exit_mmap, read_page, unmap_page, write_page
from .migrate import move_page
from .policies import MAINLINE_CALLERS
from .scan import ksm_do_scan
from .state import Ksm
from .vma import Flags, Vma, madvise, mprotect, munmap, vma_modify_flags

FORMAT = 1
FIRST_PAGE = 0x10000000  # page number at which the areas of a process begin
PAGES_PER_HUGE_PAGE = 512

Step = dict[str, Any]


def _distinct_checksum(content: int) -> int:
    return content + 1  # no two contents collide, and none has the checksum 0 that an rmap_item is born with


class Machine:
    """`checksum` maps a content to its 32-bit checksum; left out, no two contents have the same.

    `policy`, `callers`: what becomes of a KSM page that moves, and who may have it moved; words of `policies`. `node_pages`:
    page frames of each node; 0: the document's own "node_pages", if it has some, else as many as are wanted. A step raises
    OutOfMemory where none is left.
    """

    def __init__(
        self,
        scenario_document: dict[str, Any],
        kernel: str,
        checksum: Callable[[int], int] | None = None,
        *,
        policy: str = "mainline",
        callers: Collection[str] = MAINLINE_CALLERS,
        node_pages: int = 0,
    ) -> None:
        self.document = scenario_document
        self.steps: list[Step] = scenario_document["steps"]
        self.node_pages = node_pages or scenario_document.get("node_pages", 0)
        self.ksm = Ksm(
            KERNELS[kernel], scenario_document["nodes"], checksum or _distinct_checksum, policy, callers, self.node_pages
        )
        self.mms: dict[str, Mm] = {}
        self._started = 0
        self.areas: dict[str, dict[str, tuple[int, int]]] = {}
        self._tables = observe.Tables()
        knobs = scenario_document["knobs"]
        errnos = {name: write_knob(self.ksm, name, value) for name, value in knobs.items() if name != "run"}
        errnos["run"] = write_knob(self.ksm, "run", knobs["run"])
        self.knob_errno = {name: errno for name, errno in errnos.items() if errno}
        self.initial = self._observe()

    @property
    def now_ns(self) -> int:
        """Simulated time, for the pruning of chains."""
        return self.ksm.now_ns

    @now_ns.setter
    def now_ns(self, value: int) -> None:
        self.ksm.now_ns = value

    @property
    def events(self) -> Counter[str]:
        """What happened inside so far: name -> times."""
        return self.ksm.events

    def step(self, index: int) -> dict[str, Any]:
        """Do step `index`; the observation after it has the recording's fields, or is {"undefined": reason}."""
        step = self.steps[index]
        self._observation: dict[str, Any] = {"errno": 0}
        try:
            errno = getattr(self, "_" + step["op"])(step)
        except UseAfterFree as error:
            return {"undefined": str(error)}
        self._observation["errno"] = errno or 0
        return self._observation | self._observe()

    def counted(self) -> dict[str, int]:
        """What moving pages has come to so far, by the names of `policies.COUNTED`."""
        return dict(self.ksm.counted)

    def survey(self) -> dict[str, int]:
        """unreachable_mappings, duplicates_left and stranded_pages now."""
        return observe.survey(self.ksm, self.mms)

    def invariants(self) -> list[str]:
        """The rules of the kernel that do not hold now; empty if all do."""
        return broken_invariants(self.ksm, self.mms.values())

    def _observe(self) -> dict[str, Any]:
        fields = observe.sysfs(self.ksm)
        return {
            "sysfs": [fields[name] for name in self.ksm.kernel.sysfs_fields],
            "cow_ksm": self.ksm.cow_ksm,
            "procs": {
                name: [observe.proc(mm)[field] for field in self.ksm.kernel.proc_fields] for name, mm in self.mms.items()
            },
            "tables": self._tables.changes(self.mms, self.areas),
        }

    # ---- the operations; each returns an errno, or None for 0

    def _range(self, step: Step) -> tuple[Mm, int, int]:
        start = self.areas[step["proc"]][step["area"]][0] + step["first"]
        return self.mms[step["proc"]], start, start + step["count"]

    def _spawn(self, step: Step) -> None:
        self.mms[step["proc"]] = self._new_mm(step["proc"])
        self.areas[step["proc"]] = {}

    def _new_mm(self, name: str) -> Mm:
        self._started += 1
        return Mm(name, self._started)

    def _mmap(self, step: Step) -> None:
        mm, own = self.mms[step["proc"]], self.areas[step["proc"]]
        start = max((base + pages + 1 for base, pages in own.values()), default=FIRST_PAGE)  # a gap, so that no VMAs merge
        own[step["area"]] = start, step["pages"]
        vma = Vma(mm, start, start + step["pages"], step["node"], Flags(mergeable=mm.merge_any))
        mm.vmas.append(vma)
        if mm.merge_any and not mm.mergeable:
            self.ksm.ksm_enter(mm)  # ksm_add_vma()
        if step["mergeable"]:
            self._madvise(step | {"first": 0, "count": step["pages"], "advice": "mergeable"})

    def _write(self, step: Step) -> None:
        mm, start, _ = self._range(step | {"count": 0})
        for k, content in enumerate(step["contents"]):
            if content is not None:
                write_page(self.ksm, mm, start + k, content)

    def _read(self, step: Step) -> None:
        mm, start, end = self._range(step)
        for address in range(start, end):
            read_page(self.ksm, mm, address)

    def _discard(self, step: Step) -> Errno:
        def zap(vma: Vma, start: int, end: int) -> Vma:
            for address in range(start, end):
                unmap_page(self.ksm, vma.mm, address)
            return vma

        return madvise(*self._range(step), zap)

    def _munmap(self, step: Step) -> None:
        mm, start, end = self._range(step)
        for address in range(start, end):
            unmap_page(self.ksm, mm, address)
        munmap(mm, start, end)

    def _madvise(self, step: Step) -> Errno:
        visit = self._set_mergeable if step["advice"] == "mergeable" else self._clear_mergeable
        return madvise(*self._range(step), visit)

    def _set_mergeable(self, vma: Vma, start: int, end: int) -> Vma:
        if vma.flags.mergeable:
            return vma
        if not vma.mm.mergeable:
            self.ksm.ksm_enter(vma.mm)
        return vma_modify_flags(self.ksm.kernel, vma, start, end, vma.flags._replace(mergeable=True))

    def _clear_mergeable(self, vma: Vma, start: int, end: int) -> Vma:
        if not vma.flags.mergeable:
            return vma
        if vma.anon_vma is not None:
            for address in range(start, end):
                break_ksm(self.ksm, vma, address)
        return vma_modify_flags(self.ksm.kernel, vma, start, end, vma.flags._replace(mergeable=False))

    def _mprotect(self, step: Step) -> Errno:
        return mprotect(self.ksm.kernel, *self._range(step), step["prot"])

    def _migrate(self, step: Step) -> None:
        mm, start, end = self._range(step)
        node, caller = step["node"], step.get("caller", "move_pages")
        self._observation["status"] = [move_page(self.ksm, mm, address, node, caller) for address in range(start, end)]

    def _rebind(self, step: Step) -> None:
        """mbind(MPOL_BIND) without MPOL_MF_MOVE, of what is mapped of an area."""
        start, pages = self.areas[step["proc"]][step["area"]]
        for vma in self.mms[step["proc"]].vmas:
            if start <= vma.start < start + pages:
                vma.nid = step["node"]

    def _offline(self, step: Step) -> Errno:
        return offline_pages(self.ksm, step["node"])

    def _online(self, step: Step) -> None:
        self.ksm.nodes[step["node"]].online = True

    def _compaction(self, step: Step) -> Errno:
        return self._contig_range(step["first"], PAGES_PER_HUGE_PAGE, "compaction")

    def _thp(self, step: Step) -> Errno:
        return self._contig_range(step["first"], PAGES_PER_HUGE_PAGE, "thp")

    def _cma(self, step: Step) -> Errno:
        first, count = step["range"]
        return self._contig_range(first, count, "cma")

    def _contig_range(self, first: int, count: int, caller: str) -> Errno:
        nid, pfn = divmod(first, self.node_pages)
        return alloc_contig_range(self.ksm, nid, range(pfn, pfn + count), caller)

    def _fork(self, step: Step) -> None:
        parent, child = self.mms[step["proc"]], self._new_mm(step["child"])
        self.areas[step["child"]] = dict(self.areas[step["proc"]])
        dup_mmap(self.ksm, child, parent)
        self.ksm.ksm_fork(child, parent)
        self.mms[step["child"]] = child

    def _exit(self, step: Step) -> None:
        mm = self.mms.pop(step["proc"])
        del self.areas[step["proc"]]
        mm.mm_users = 0
        self.ksm.ksm_exit(mm)
        exit_mmap(self.ksm, mm)

    def _merge_any(self, step: Step) -> Errno:
        """prctl(PR_SET_MEMORY_MERGE): flags are set and cleared VMA by VMA, without merging VMAs."""
        mm = self.mms[step["proc"]]
        if not self.ksm.kernel.merge_any:
            return "EINVAL"
        if bool(step["value"]) == mm.merge_any:
            return 0
        if step["value"] and not mm.mergeable:
            self.ksm.ksm_enter(mm)
        mm.merge_any = bool(step["value"])
        for vma in mm.vmas:
            if vma.flags.mergeable and not mm.merge_any and vma.anon_vma is not None:
                for address in range(vma.start, vma.end):
                    break_ksm(self.ksm, vma, address)
            vma.flags = vma.flags._replace(mergeable=mm.merge_any)
        return 0

    def _scan(self, step: Step) -> None:
        self._batches(lambda done: done < step["batches"])

    def _full_scan(self, step: Step) -> None:
        end = self.ksm.scan.seqnr + step["count"]
        self._batches(lambda done: self.ksm.scan.seqnr < end and self.ksm.pages_to_scan > 0)

    def _batches(self, more: Callable[[int], bool]) -> None:
        done = 0
        while self.ksm.run == 1 and self.ksm.mm_slots and more(done):
            ksm_do_scan(self.ksm)
            done += 1
        self._observation["batches"] = done

    def _knob(self, step: Step) -> Errno:
        return write_knob(self.ksm, step["name"], step["value"])

    def _run(self, step: Step) -> Errno:
        return run_store(self.ksm, step["value"])


def replay(
    document: dict[str, Any],
    kernel: str,
    checksum: Callable[[int], int] | None = None,
    *,
    policy: str = "mainline",
    callers: Collection[str] = MAINLINE_CALLERS,
    node_pages: int = 0,
) -> dict[str, Any]:
    """The recording of a scenario on the simulated kernel; it ends with the step that leads into freed memory, if one does."""
    machine = Machine(document, kernel, checksum, policy=policy, callers=callers, node_pages=node_pages)
    steps: list[dict[str, Any]] = []
    for index in range(len(machine.steps)):
        steps.append(machine.step(index))
        if "undefined" in steps[-1]:
            break
    seen_a_process = any(observation.get("procs") for observation in steps)
    return {
        "format": FORMAT,
        "kernel": kernel,
        "scenario": document,
        "knob_errno": machine.knob_errno,
        "sysfs_fields": list(machine.ksm.kernel.sysfs_fields),
        "proc_fields": list(machine.ksm.kernel.proc_fields) if seen_a_process else [],
        "initial": machine.initial,
        "steps": steps,
    }
