"""What a trace says of itself: the JSON object in its Parquet metadata, strictly checked, both versions.

It does not see the rows; whether they keep to it is `traces`' task.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, NamedTuple

from ksmbatch.documents import INT32, Fields, nearest
from ksmbatch.errors import InputError
from ksmbatch.scenario import MAX_PAGES
from ksmbatch.trace_format import METADATA_KEY, ORDERS, PAGE_SIZE, VERSION

UINT32: Final = range(2**32)
MAX_BYTES: Final = 2**25  # a hundred thousand VMAs take a tenth of it; Python's objects take twenty times as much
_KEYS: Final = (
    "version",
    "page_size",
    "order",
    "order_ties",
    "content",
    "pages",
    "snapshots",
    "start_ms",
    "exit_ms",
    "vmas",
    "made_by",
)


class Vma(NamedTuple):
    """The `pages` pages of an mm from page `first` on were in one VMA when last seen; `name` may be empty."""

    first: int
    pages: int
    name: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Metadata:
    """`snapshots` is None in version 1, whose snapshots are those that have rows. See `traces.Trace` for the rest."""

    version: int
    order: str
    order_ties: int
    about: str
    pages: dict[str, int]
    snapshots: tuple[int, ...] | None
    start_ms: dict[str, int]
    exit_ms: dict[str, int]
    vmas: dict[str, tuple[Vma, ...]]


def parse_metadata(path: Path, metadata: Mapping[bytes, bytes] | None) -> Metadata:
    """The metadata of the trace `path`, from the key-value pairs of its Parquet file. Raises InputError."""
    given = _load(path, metadata)
    fields = Fields(given, f"{path}: {METADATA_KEY.decode()}")
    version = fields.integer("version", range(1, VERSION + 1))
    fields.integer("page_size", range(PAGE_SIZE, PAGE_SIZE + 1))
    about = fields.text("content", default="")
    pages = _pages(fields)
    if version == 1:
        return Metadata(
            version=1, order="memcmp", order_ties=0, about=about, pages=pages, snapshots=None, start_ms={}, exit_ms={}, vmas={}
        )
    fields.only(_KEYS)
    snapshots = _snapshots(fields)
    start_ms = _times(fields, "start_ms", pages, snapshots)
    exit_ms = _times(fields, "exit_ms", pages, snapshots)
    for mm, time_ms in exit_ms.items():
        if time_ms <= start_ms.get(mm, snapshots[0]):
            rule = f"must be later than its start, {start_ms.get(mm, snapshots[0])}"
            raise InputError(where=f"{fields.where}: exit_ms", key=mm, value=time_ms, rule=rule)
    return Metadata(
        version=version,
        order=fields.one_of("order", ORDERS),
        order_ties=fields.integer("order_ties", range(2**63), default=0),
        about=about,
        pages=pages,
        snapshots=snapshots,
        start_ms=start_ms,
        exit_ms=exit_ms,
        vmas={mm: tuple(_vmas(fields, mm, runs, pages[mm])) for mm, runs in _by_mm(fields, "vmas", pages).items()},
    )


def _load(path: Path, metadata: Mapping[bytes, bytes] | None) -> dict[str, Any]:
    key = METADATA_KEY.decode()
    text = (metadata or {}).get(METADATA_KEY)
    if text is None:
        raise InputError(where=path, key=key, rule="metadata is missing", hint="is this file a trace?")
    if len(text) > MAX_BYTES:
        raise InputError(where=path, key=key, rule=f"has {len(text)} bytes: must be at most {MAX_BYTES}")
    try:
        given = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(where=path, key=key, rule=f"is no JSON: {error}") from None
    if not isinstance(given, dict):
        raise InputError(where=path, key=key, value=given, rule="must be an object")
    return given


def _pages(fields: Fields) -> dict[str, int]:
    given = fields.obj.get("pages")
    if not isinstance(given, dict) or not given:
        raise fields.bad("pages", "must be an object: pages by mm")
    by_mm = Fields(given, f"{fields.where}: pages")
    pages = {mm: by_mm.integer(mm, INT32) for mm in by_mm.obj}
    if sum(pages.values()) > MAX_PAGES:
        raise fields.bad("pages", f"must be at most {MAX_PAGES} together")
    return pages


def _snapshots(fields: Fields) -> tuple[int, ...]:
    given = fields.obj.get("snapshots")
    if not isinstance(given, list) or not given or any(type(time_ms) is not int or time_ms not in UINT32 for time_ms in given):
        raise fields.bad("snapshots", "must be a list of times in ms, each an integer from 0 to 4294967295")
    if any(later <= time_ms for time_ms, later in pairwise(given)):
        raise fields.bad("snapshots", "must ascend")
    return tuple(given)


def _by_mm(fields: Fields, key: str, pages: Mapping[str, int]) -> dict[str, Any]:
    given = fields.obj.get(key, {})
    if not isinstance(given, dict):
        raise fields.bad(key, "must be an object, by mm")
    for mm, value in given.items():
        if mm not in pages:
            rule = "there is no such mm among the pages"
            raise InputError(where=f"{fields.where}: {key}", key=mm, value=value, rule=rule, hint=nearest(mm, pages))
    return given


def _times(fields: Fields, key: str, pages: Mapping[str, int], snapshots: Iterable[int]) -> dict[str, int]:
    given = _by_mm(fields, key, pages)
    known = set(snapshots)
    for mm, time_ms in given.items():
        if type(time_ms) is not int or time_ms not in known:
            raise InputError(where=f"{fields.where}: {key}", key=mm, value=time_ms, rule="must be one of the snapshots")
    return given


def _vmas(fields: Fields, mm: str, runs: object, n_pages: int) -> Iterable[Vma]:
    where = f"{fields.where}: vmas"
    if not isinstance(runs, list):
        raise InputError(where=where, key=mm, value=runs, rule="must be a list of [first, pages, name]")
    end = 0
    for k, run in enumerate(runs):
        match run:
            case [int(first), int(pages), str(name)] if type(first) is type(pages) is int:
                pass
            case _:
                raise InputError(where=where, key=f"{mm}[{k}]", value=run, rule="must be [first, pages, name]")
        if not (end <= first and pages >= 1 and first + pages <= n_pages):
            rule = f"must lie behind the one before, within the {n_pages} pages of {mm}"
            raise InputError(where=where, key=f"{mm}[{k}]", value=run, rule=rule)
        end = first + pages
        yield Vma(first, pages, name)
