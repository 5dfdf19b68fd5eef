"""Workload generators: memory that is made, not measured, from a few parameters and a seed.

A generator is one file in this folder with a `GENERATOR`; it is found because it is there. What the parameters of each
mean is in its own file.
"""

import importlib
import pkgutil
from collections.abc import Mapping
from typing import Final

from ksmbatch.documents import nearest
from ksmbatch.errors import InputError
from ksmbatch.generators.base import Generator, Parameters

__all__ = ["GENERATORS", "Generator", "Parameters", "find_generator", "generator_keys"]


def _found() -> dict[str, Generator]:
    modules = [importlib.import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__)]
    found = [module.GENERATOR for module in modules if hasattr(module, "GENERATOR")]
    return {generator.name: generator for generator in sorted(found, key=lambda generator: generator.name)}


GENERATORS: Final[Mapping[str, Generator]] = _found()


def find_generator(name: str) -> Generator:
    """The generator called `name`; raises InputError naming the nearest if there is none."""
    if name not in GENERATORS:
        raise InputError(key="workload.generator", value=name, rule="unknown generator", hint=nearest(name, GENERATORS))
    return GENERATORS[name]


def generator_keys() -> tuple[str, ...]:
    """Every key of [workload] that is a parameter of some generator, such as "workload.mms"."""
    names = {name: None for generator in GENERATORS.values() for name in generator.keys}
    return tuple(f"workload.{name}" for name in names)
