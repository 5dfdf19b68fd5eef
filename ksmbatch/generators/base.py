"""What every generator is: a name, parameters that check themselves, and a workload made of them.

It makes nothing itself.
"""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, ClassVar, Protocol

from ksmbatch.documents import nearest
from ksmbatch.errors import InputError
from ksmbatch.topology import Binding
from ksmbatch.workload import Workload


class Parameters(Protocol):
    """A frozen dataclass, one field per key of [workload]; making it raises InputError if a value breaks a rule."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


class Build(Protocol):
    """How a generator makes its workload."""

    def __call__(self, parameters: Any, *, nodes: int, binding: Binding, seed: int, full_scans: int) -> Workload:
        """See `Generator.build`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Generator:
    """A generator that users can name.

    `about`: one line for `ksmbatch list workloads`. `parameters`: the class of its parameters. `build`: the workload of
    some parameters for a run of `full_scans` full scans, on a host with `nodes` nodes, mms bound as `binding` says, all
    randomness from `seed`. The same arguments give the same events; a longer run begins as a shorter one does.
    """

    name: str
    about: str
    parameters: type[Parameters]
    build: Build

    @property
    def keys(self) -> tuple[str, ...]:
        """Names of the parameters."""
        return tuple(field.name for field in fields(self.parameters))

    def read(self, given: Mapping[str, Any]) -> Parameters:
        """The parameters under the keys of `given`, the rest by default.

        Raises InputError for an unknown key, naming the nearest, for one that is missing, and for values out of range.
        """
        for name, value in given.items():
            if name not in self.keys:
                raise InputError(key=f"workload.{name}", value=value, rule="unknown key", hint=nearest(name, self.keys))
        for field in fields(self.parameters):
            if field.name not in given and field.default is MISSING:
                raise InputError(key=f"workload.{field.name}", rule=f'is missing: generator "{self.name}" needs it')
        return self.parameters(**given)


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
