"""What every generator and every mover is: a name, parameters that check themselves, and what is made of them.

It makes nothing itself.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Any, ClassVar, NamedTuple, Protocol, TypeAlias

from ksmbatch.codes import Caller
from ksmbatch.documents import nearest
from ksmbatch.errors import InputError
from ksmbatch.events import Step
from ksmbatch.generators.moments import Moment
from ksmbatch.topology import Binding, Topology
from ksmbatch.workload import Workload

Mms: TypeAlias = Mapping[str, Mapping[str, int]]  # mm -> area, in the order of addresses -> pages


class Parameters(Protocol):
    """A frozen dataclass, one field per key; making it raises InputError if a value breaks a rule.

    Keys of such errors are those of [workload], wherever the parameters stand.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]


class Build(Protocol):
    """How a generator makes its workload."""

    def __call__(self, parameters: Any, *, nodes: int, binding: Binding, seed: int, full_scans: int) -> Workload:
        """See `Generator.build`."""


class Check(Protocol):
    """What a mover demands of the host."""

    def __call__(self, parameters: Any, topology: Topology, /) -> None:
        """See `Mover.check`."""


class BuildMoves(Protocol):
    """How a mover makes its events."""

    def __call__(self, parameters: Any, mms: Mms, topology: Topology, /) -> Iterable[tuple[Moment, Sequence[Step]]]:
        """See `Mover.build`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Mover:
    """Events laid over whatever memory there is: a table of [[workload.moves]], `kind` = its name.

    `about`: one line. `parameters`: the class of its parameters. `check`: raises InputError if some parameters ask for what
    the host does not have. `build`: what happens when, for the processes and areas that the workload starts with, on a host
    that passed the check; raises InputError if they are not those that the parameters name. Keys of errors are those of
    [workload]: who calls knows where the table stands, and says so by `Move.blame`.
    """

    name: str
    about: str
    parameters: type[Parameters]
    check: Check
    build: BuildMoves

    @property
    def keys(self) -> tuple[str, ...]:
        """Names of the parameters."""
        return _names(self.parameters)

    def read(self, given: object, key: str) -> Parameters:
        """The parameters in the table `given`, which stands under `key`; the rest by default. Raises InputError."""
        if not isinstance(given, Mapping):
            raise InputError(key=key, value=given, rule=f"must be a table with the keys of {self.name}: {', '.join(self.keys)}")
        return _read(self.parameters, given, key, self.name)


class Move(NamedTuple):
    """A mover with its parameters, and the full key of the table that they come from, such as "workload.moves[0]"."""

    mover: Mover
    parameters: Parameters
    key: str

    def blame(self, error: InputError) -> InputError:
        """`error`, found by the mover, as one of this table."""
        return error.at(key=_under(self.key, error))


@dataclass(frozen=True, kw_only=True, slots=True)
class Generator:
    """A generator that users can name.

    `about`: one line for `ksmbatch list workloads`. `parameters`: the class of its parameters. `build`: the workload of
    some parameters for a run of `full_scans` full scans, on a host with `nodes` nodes, mms bound as `binding` says, all
    randomness from `seed`. The same arguments give the same events; a longer run begins as a shorter one does. `mover`: what
    then moves that memory; its own parameters are the table under the key `move`.
    """

    name: str
    about: str
    parameters: type[Parameters]
    build: Build
    mover: Mover | None = None

    @property
    def keys(self) -> tuple[str, ...]:
        """Names of the parameters."""
        return _names(self.parameters)

    def read(self, given: Mapping[str, Any]) -> Parameters:
        """The parameters under the keys of `given`, the rest by default.

        Raises InputError for an unknown key, naming the nearest, for one that is missing, and for values out of range.
        """
        if self.mover is not None and "move" in given:
            given = {**given, "move": self.mover.read(given["move"], "workload.move")}
        return _read(self.parameters, given, "workload", f'generator "{self.name}"')


def whole_number(name: str, value: object, low: int, high: int) -> int:
    """`value` if it is an integer from `low` to `high`; raises InputError for the key `name` of [workload] if not."""
    if type(value) is not int or not low <= value <= high:
        raise InputError(key=f"workload.{name}", value=value, rule=f"must be a whole number, {low} to {high}")
    return value


def share(name: str, value: object) -> float:
    """`value` if it is a number from 0 to 1; raises InputError for the key `name` of [workload] if not."""
    if type(value) not in (int, float) or not 0 <= value <= 1:  # type: ignore[operator]  # a number: just looked
        raise InputError(key=f"workload.{name}", value=value, rule="must be a number from 0 to 1")
    return float(value)  # type: ignore[arg-type]


def yes_or_no(name: str, value: object) -> bool:
    """`value` if it is true or false; raises InputError for the key `name` of [workload] if not."""
    if not isinstance(value, bool):
        raise InputError(key=f"workload.{name}", value=value, rule="must be true or false")
    return value


def caller_of(name: str, value: object, callers: Iterable[Caller] = tuple(Caller)) -> Caller:
    """The one of `callers` called `value`; raises InputError for the key `name` of [workload] if there is none."""
    words = {caller.word: caller for caller in callers}
    if not isinstance(value, str) or value not in words:
        raise InputError(key=f"workload.{name}", value=value, rule=f"must be one of {', '.join(words)}")
    return words[value]


def existing_node(name: str, nid: int, topology: Topology) -> None:
    """Raises InputError for the key `name` of [workload] if the host has no node `nid`."""
    if not 0 <= nid < topology.nodes:
        rule = f"must be 0 to {topology.nodes - 1}" if topology.nodes > 1 else "must be 0"
        raise InputError(key=f"workload.{name}", value=nid, rule=rule, hint=f"host.nodes = {topology.nodes}")


def _names(parameters: type[Parameters]) -> tuple[str, ...]:
    return tuple(field.name for field in fields(parameters))


def _read(parameters: type[Parameters], given: Mapping[str, Any], key: str, owner: str) -> Parameters:
    names = _names(parameters)
    for name, value in given.items():
        if name not in names:
            raise InputError(key=f"{key}.{name}", value=value, rule="unknown key", hint=nearest(name, names))
    for field in fields(parameters):
        if field.name not in given and field.default is MISSING:
            raise InputError(key=f"{key}.{field.name}", rule=f"is missing: {owner} needs it")
    try:
        return parameters(**given)
    except InputError as error:
        raise error.at(key=_under(key, error)) from None


def _under(key: str, error: InputError) -> str:
    return f"{key}.{(error.key or '').removeprefix('workload.')}"
