"""The sections of a configuration: every key with its type, range, default and what it says.

It knows one section at a time; what keys of different sections demand of each other is `config`'s task.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, ValidationInfo, model_validator

from ksmbatch.codes import CALLER_PRESETS, Caller, Kernel, Locking, Policy
from ksmbatch.errors import InputError
from ksmbatch.faults import bounds, breach
from ksmbatch.generators import MOVERS, Move, find_generator, find_mover
from ksmbatch.topology import MAX_NODES, ROUND_ROBIN, Binding, Matrix, Topology, default_distance
from ksmbatch.units import parse_ms

_UINT_MAX: Final = 2**32 - 1  # mm/ksm.c reads these files with kstrtouint()
_INT_MAX: Final = 2**31 - 1  # and max_page_sharing with kstrtoint()
_LONGEST: Final = "100000d"  # simulated time is int64 nanoseconds, which end after 106,751 days


def _kernel(word: object) -> Kernel:
    words = [kernel.word for kernel in Kernel]
    if isinstance(word, float):
        raise breach("must be a string", f'such as "{Kernel.V6_12.word}", for 6.10 is not 6.1')
    if not isinstance(word, str) or word not in words:
        raise breach(f"must be one of {', '.join(words)}")
    return Kernel.parse(word)


def _policy(word: object) -> Policy:
    words = [policy.word for policy in Policy]
    if not isinstance(word, str) or word not in words:
        raise breach(f"must be one of {', '.join(words)}", "see `ksmbatch list policies`")
    return Policy[word.upper()]


def _callers(value: object) -> tuple[Caller, ...]:
    if isinstance(value, str) and value in CALLER_PRESETS:
        return CALLER_PRESETS[value]
    words = {caller.word: caller for caller in Caller}
    if not isinstance(value, tuple) or not all(isinstance(word, str) and word in words for word in value):
        presets = ", ".join(f'"{name}"' for name in CALLER_PRESETS)
        raise breach(f"must be {presets}, or a list", f"of {', '.join(words)}")
    return tuple(sorted({words[word] for word in value}))


def _locking(word: object) -> Locking:
    words = {locking.name.lower(): locking for locking in Locking}
    if not isinstance(word, str) or word not in words:
        raise breach(f"must be one of {', '.join(words)}")
    return words[word]


def _file(value: object, info: ValidationInfo) -> Path:
    if not isinstance(value, str):
        raise breach("must be the path of a file")
    assert info.context is not None, "who validates a path says where it begins"
    path = Path(info.context["folder"]) / value
    try:
        if path.is_file():
            return path
        rule = "is a folder" if path.is_dir() else "no such file"
    except OSError as error:  # a name that is too long
        rule = str(error.strerror)
    raise breach(rule, f"looked for {path}")


def _binding(value: object) -> Binding:
    if isinstance(value, dict) and all(type(nid) is int for nid in value.values()):
        return value
    if value != ROUND_ROBIN:
        raise breach(f'must be a node number per mm, or "{ROUND_ROBIN}"', "such as { web = 0, db = 1 }")
    return ROUND_ROBIN


def _moves(value: object) -> tuple[Move, ...]:
    # a mover names its own keys in errors; those are InputErrors already, which pydantic lets through
    if not isinstance(value, tuple) or not all(isinstance(table, dict) for table in value):
        raise breach("must be tables, each under [[workload.moves]]")
    moves = []
    for k, table in enumerate(value):
        key = f"workload.moves[{k}]"
        if "kind" not in table:
            raise InputError(key=f"{key}.kind", rule="is missing", hint=f"there are {', '.join(MOVERS)}")
        mover = find_mover(table["kind"], f"{key}.kind")
        given = {name: value for name, value in table.items() if name != "kind"}
        moves.append(Move(mover, mover.read(given, key), key))
    return tuple(moves)


def _scans(value: object) -> int | tuple[int, ...]:
    numbers = value if isinstance(value, tuple) else (value,)
    if not numbers or not all(type(number) is int and 1 <= number <= _INT_MAX for number in numbers):
        raise breach("must be a number of full scans >= 1, or a list of one per snapshot")
    return value  # type: ignore[return-value]  # int or tuple of int: just looked


def _time(value: object) -> str:
    if not isinstance(value, str):
        raise breach('must be a time, such as "10min"')
    try:
        ms = parse_ms(value)
    except InputError as error:
        raise breach(error.rule, error.hint) from None
    if not 0 < ms <= parse_ms(_LONGEST):
        raise breach(f"must be longer than 0 and at most {_LONGEST}")
    return value


def _sample(value: object) -> str:
    return str(value) if value in ("full_scan", "batch") else _time(value)


class Section(BaseModel):
    """A table of the file; the docstrings of fields are what `ksmbatch list` shows."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class Host(Section):
    """[host]: the machine."""

    nodes: int = Field(1, ge=1, le=MAX_NODES)
    """NUMA nodes"""
    distance: Matrix = ()
    """ACPI SLIT; by default 10 to itself and 20 to any other node"""
    kernel: Annotated[Kernel, PlainValidator(_kernel)] = Kernel.V6_12
    """whose ksmd is simulated"""
    node_pages: int = Field(0, ge=0, le=_INT_MAX)
    """frames of a node; 0: as many as needed"""

    @model_validator(mode="before")
    @classmethod
    def _fill_distance(cls, given: Any) -> Any:
        nodes = given.get("nodes", 1)
        if "distance" in given or type(nodes) is not int or not 1 <= nodes <= MAX_NODES:
            return given
        return {**given, "distance": default_distance(nodes)}

    @property
    def topology(self) -> Topology:
        """Nodes, distances and capacity in one."""
        return Topology(nodes=self.nodes, distance=self.distance, node_pages=self.node_pages)


def _knob(default: int, low: int, high: int, unit: str, since: Kernel = Kernel.V6_1, hint: str | None = None) -> Any:
    extra: dict[str, Any] = {"unit": unit, "since": since.word, "hint": hint or f"kernel default {default}"}
    return Field(default, ge=low, le=high, json_schema_extra=extra)


class Knobs(Section):
    """[ksm]: the files of /sys/kernel/mm/ksm, with the kernel's defaults, but run = 1."""

    merge_across_nodes: int = _knob(1, 0, 1, "1")
    """0: a KSM page is shared within one NUMA node only, each node has trees of its own; 1: across all nodes"""
    max_page_sharing: int = _knob(256, 2, _INT_MAX, "pages")
    """mappings of one KSM page, before a duplicate of it is made"""
    use_zero_pages: int = _knob(0, 0, 1, "1")
    """1: pages of zeros are mapped to the kernel's zero page, not to a KSM page"""
    smart_scan: int = _knob(1, 0, 1, "1", since=Kernel.V6_12)
    """1: a page that found no partner is passed by, for longer every time"""
    pages_to_scan: int = _knob(100, 1, _UINT_MAX, "pages")
    """pages that ksmd visits before it sleeps"""
    sleep_millisecs: int = _knob(20, 0, _UINT_MAX, "ms")
    """how long ksmd sleeps between two batches"""
    stable_node_chains_prune_millisecs: int = _knob(2000, 0, _UINT_MAX, "ms")
    """how long a chain of duplicates is left unpruned"""
    run: int = _knob(1, 0, 2, "1", hint="default 1, where the kernel has 0")
    """0: ksmd stands still; 1: it scans; 2: all KSM pages are unmerged"""


class Migration(Section):
    """[migration]: what becomes of KSM pages that move between nodes."""

    policy: Annotated[Policy, PlainValidator(_policy)] = Policy.MAINLINE
    """what becomes of the stable node of a KSM page that moves"""
    callers: Annotated[tuple[Caller, ...], PlainValidator(_callers)] = CALLER_PRESETS["mainline"]
    """who may move KSM pages: "2.6.33" (only hotremove), "mainline" (all but numa_balancing), "all", or a list of callers"""
    locking: Annotated[Locking, PlainValidator(_locking)] = Locking.NONE
    """the lock for which a move waits that changes stable trees: none, ksm_thread_mutex or tree_mutex"""


class Source(Section):
    """[workload]: exactly one of `trace`, `scenario` and `generator`; any other key is a parameter of the generator."""

    trace: Annotated[Path | None, PlainValidator(_file)] = None
    """a trace of page contents, relative to the configuration's folder"""
    scenario: Annotated[Path | None, PlainValidator(_file)] = None
    """a scenario, relative to the configuration's folder"""
    generator: str | None = None
    """the name of a generator: `ksmbatch list workloads`"""
    node: Annotated[Binding, PlainValidator(_binding)] = None
    """the node of each mm's memory, or "round_robin"; what is left out is where the trace says, else on node 0"""
    moves: Annotated[tuple[Move, ...], PlainValidator(_moves)] = ()
    """tables of what moves memory and when, laid over a trace or generator: `kind`, and that mover's own keys"""
    parameters: Any = None
    """the generator's own parameters, a frozen dataclass"""

    @property
    def file(self) -> Path | None:
        """The trace or scenario; None for a generator."""
        return self.trace or self.scenario

    @property
    def all_moves(self) -> tuple[Move, ...]:
        """The generator's own mover, and then `moves`."""
        mover = find_generator(self.generator).mover if self.generator else None
        return ((Move(mover, self.parameters.move, "workload.move"),) if mover else ()) + self.moves

    @property
    def label(self) -> str:
        """What to call the workload in a title."""
        return self.file.name if self.file else str(self.generator)


class Plan(Section):
    """[run]: how long a run takes and when it is sampled."""

    full_scans: int | None = Field(None, ge=1, le=_INT_MAX)
    """full scans after which a run ends"""
    duration: Annotated[str | None, PlainValidator(_time)] = None
    """simulated time after which a run ends; beside full_scans, what comes first"""
    scans_per_snapshot: Annotated[int | tuple[int, ...] | None, PlainValidator(_scans)] = None
    """traces: full scans between two snapshots, a number or a list; left out, the trace's own clock drives"""
    sample: Annotated[str, PlainValidator(_sample)] = "full_scan"
    """when counters are sampled: at every full scan ("full_scan"), every batch ("batch") or every so often ("1s")"""
    seed: int = Field(1, ge=0, le=2**63 - 1)
    """of everything random"""

    @property
    def duration_ms(self) -> int | None:
        """`duration` in milliseconds."""
        return None if self.duration is None else parse_ms(self.duration)

    @property
    def sample_ms(self) -> int | None:
        """The time between two samples; None where full scans or batches are sampled."""
        return None if self.sample in ("full_scan", "batch") else parse_ms(self.sample)


SECTIONS: Final[Mapping[str, type[Section]]] = {
    "host": Host,
    "ksm": Knobs,
    "migration": Migration,
    "workload": Source,
    "run": Plan,
}
KEYS: Final = tuple(
    f"{section}.{name}" for section, model in SECTIONS.items() for name in model.model_fields if name != "parameters"
)
WORDS: Final = frozenset(
    {"host.kernel", "migration.policy", "workload.trace", "workload.scenario", "workload.generator", "run.duration"}
)


class Knob(NamedTuple):
    """What the table of a knob says: the file's name, default, least and greatest value, unit, and its first kernel."""

    name: str
    default: int
    low: int
    high: int
    unit: str
    since: Kernel
    doc: str


def knobs() -> list[Knob]:
    """Every knob, as the fields of `Knobs` say."""
    table = []
    for name, field in Knobs.model_fields.items():
        facts = field.json_schema_extra
        low, high = bounds(field)
        assert isinstance(facts, dict), "made by _knob()"
        assert low is not None, "made by _knob()"
        assert high is not None, "made by _knob()"
        since = Kernel.parse(str(facts["since"]))
        table.append(Knob(name, field.default, low, high, str(facts["unit"]), since, field.description or ""))
    return table
