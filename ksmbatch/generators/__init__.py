"""Workload generators and movers: memory that is made, not measured, and what moves memory, from a few parameters and a seed.

A generator is one file in this folder with a `GENERATOR`, a mover one with a `MOVER`; each is found because it is there. What
the parameters mean is in its own file.
"""

import importlib
import pkgutil
from collections.abc import Mapping
from typing import Final, TypeVar

from ksmbatch.documents import nearest
from ksmbatch.errors import InputError
from ksmbatch.generators.base import Generator, Move, Mover, Parameters

__all__ = [
    "GENERATORS",
    "MOVERS",
    "Generator",
    "Move",
    "Mover",
    "Parameters",
    "find_generator",
    "find_mover",
    "generator_keys",
]

Named = TypeVar("Named", Generator, Mover)


def _found(kind: type[Named]) -> dict[str, Named]:
    modules = [importlib.import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__)]
    found: list[Named] = [getattr(module, constant) for module in modules if hasattr(module, constant := kind.__name__.upper())]
    return {each.name: each for each in sorted(found, key=lambda each: each.name)}


GENERATORS: Final[Mapping[str, Generator]] = _found(Generator)
MOVERS: Final[Mapping[str, Mover]] = _found(Mover)


def find_generator(name: str) -> Generator:
    """The generator called `name`; raises InputError naming the nearest if there is none."""
    if name not in GENERATORS:
        raise InputError(key="workload.generator", value=name, rule="unknown generator", hint=nearest(name, GENERATORS))
    return GENERATORS[name]


def find_mover(name: object, key: str) -> Mover:
    """The mover called `name`, which stands under `key`; raises InputError naming the nearest if there is none."""
    if not isinstance(name, str) or name not in MOVERS:
        hint = nearest(name, MOVERS) if isinstance(name, str) else f"there are {', '.join(MOVERS)}"
        raise InputError(key=key, value=name, rule="unknown mover", hint=hint)
    return MOVERS[name]


def generator_keys() -> tuple[str, ...]:
    """Every key of [workload] that is a parameter of some generator, such as "workload.mms"."""
    names = {name: None for generator in GENERATORS.values() for name in generator.keys}
    return tuple(f"workload.{name}" for name in names)
