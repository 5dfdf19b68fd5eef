"""Importers: memory from outside, one format per file.

An importer is one file in this folder with an `IMPORTER`; it is found because it is there. What becomes of the images is
`ksmbatch.inputs`' and `ksmbatch.importing`'s.
"""

import importlib
import pkgutil
from collections.abc import Mapping
from typing import Final

from ksmbatch.documents import nearest
from ksmbatch.errors import InputError
from ksmbatch.importers.base import Image, Importer, Probe, Region, probe
from ksmbatch.importers.signatures import other_format

__all__ = ["IMPORTERS", "Image", "Importer", "Probe", "Region", "choose", "find_importer", "probe"]


def _found() -> dict[str, Importer]:
    modules = [importlib.import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__)]
    importers: list[Importer] = [module.IMPORTER for module in modules if hasattr(module, "IMPORTER")]
    return {importer.name: importer for importer in sorted(importers, key=lambda each: (each.fallback, each.name))}


IMPORTERS: Final[Mapping[str, Importer]] = _found()  # the fallback is the last


def find_importer(name: str) -> Importer:
    """The importer called `name`; raises InputError naming the nearest if there is none."""
    if name not in IMPORTERS:
        raise InputError(
            where="--format", value=name, rule=f"must be one of {', '.join(IMPORTERS)}", hint=nearest(name, IMPORTERS)
        )
    return IMPORTERS[name]


def choose(given: Probe) -> Importer:
    """The importer for what `given` looks like. Raises InputError saying what it looks like, if that is nothing we know."""
    for importer in IMPORTERS.values():
        if importer.looks(given):
            return importer
    known = f"importers: {', '.join(IMPORTERS)}"
    if given.names is not None:
        raise given.refuse("is a folder of no known kind", known)
    signature = other_format(given)  # the fallback takes what has none
    what = signature.what if signature else "nothing known"
    advice = f"{signature.advice}; " if signature and signature.advice else ""
    raise given.refuse(f"looks like {what}, not like memory", f"{advice}--format raw takes any file as it is; {known}")
