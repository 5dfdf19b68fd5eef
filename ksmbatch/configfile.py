"""A configuration as it was written: TOML text and `--set` options to sections of keys and the lists of a sweep.

It knows which keys exist only because it is told, and never what their values mean: that is `config`'s task.
"""

import tomllib
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ksmbatch.documents import nearest
from ksmbatch.errors import InputError

SET: Final = "--set"  # where a value comes from that no file holds


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """What was written.

    `path`: the file. `sections`: section -> key -> value, lists as tuples. `sweep`: full key -> its values. `overridden`:
    the full keys that `--set` gave.
    """

    path: Path
    sections: Mapping[str, Mapping[str, Any]]
    sweep: Mapping[str, tuple[Any, ...]]
    overridden: frozenset[str]

    def place(self, key: str) -> str:
        """Where a reader finds `key`: the file, or "--set"."""
        return SET if any(within(key, full) for full in self.overridden) else str(self.path)

    def at_point(self, values: Mapping[str, Any]) -> "Document":
        """This document without its sweep, `values` set instead."""
        sections = {name: dict(keys) for name, keys in self.sections.items()}
        for key, value in values.items():
            _put(sections, key, value)
        return Document(path=self.path, sections=sections, sweep={}, overridden=self.overridden)


def read_document(path: Path, overrides: Sequence[str], known: Sequence[str], words: frozenset[str]) -> Document:
    """The document in the TOML file `path`, changed by `overrides` ("KEY=VALUE").

    `known`: full keys that exist; only their sections are checked here. `words`: full keys whose values are strings, which
    `--set` takes without quotes even where they look like something else (host.kernel=6.12). Raises InputError.
    """
    sections = {key.partition(".")[0] for key in known}
    tables = _freeze(_read_toml(path))
    swept = tables.pop("sweep", {})
    for name, table in tables.items():
        if name not in sections:
            rule = "unknown section" if isinstance(table, dict) else "stands in no section"
            hint = nearest(name, [*sorted(sections), "sweep"] if isinstance(table, dict) else known)
            raise InputError(where=path, key=name, rule=rule, hint=hint)
        if not isinstance(table, dict):
            raise InputError(where=path, key=name, value=table, rule="must be a table")
    if not isinstance(swept, dict):
        raise InputError(where=path, key="sweep", value=swept, rule="must be a table")
    sweep = dict(_flat(swept))
    overridden = set()
    for override in overrides:
        key, value = _parse_override(override, words)
        if not _is_key(key.removeprefix("sweep."), sections):
            raise InputError(where=SET, key=key, rule="unknown key", hint=nearest(key, known))
        if key.startswith("sweep."):
            key = key.removeprefix("sweep.")
            sweep[key] = value
        else:
            if key in sweep:
                sweep[key] = (value,)
            _put(tables, key, value, where=SET)  # of a swept key too: `ksmbatch run` leaves the sweep out
        overridden.add(key)
    document = Document(path=path, sections=tables, sweep=sweep, overridden=frozenset(overridden))
    for key, values in sweep.items():
        if not _is_key(key, sections):
            raise InputError(where=document.place(key), key=quoted(key), rule="unknown key", hint=nearest(key, known))
        _check_axis(document.place(key), key, values)
    return document


def quoted(key: str) -> str:
    """How the list of `key` is written in a file.

    >>> quoted("ksm.max_page_sharing")
    'sweep."ksm.max_page_sharing"'
    """
    return f'sweep."{key}"'


def within(key: str, outer: str) -> bool:
    """Whether `key` is `outer` or a part of it.

    >>> within("workload.node.web", "workload.node"), within("host.distance[0]", "host.distance"), within("ab", "a")
    (True, True, False)
    """
    return key == outer or key.startswith((f"{outer}.", f"{outer}["))


def _is_key(key: str, sections: Container[str]) -> bool:
    section, _, name = key.partition(".")
    return section in sections and bool(name)


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_bytes().decode())
    except FileNotFoundError:
        raise InputError(where=path, rule="no such file") from None
    except OSError as error:
        raise InputError(where=path, rule=f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise InputError(where=path, rule=f"is no TOML: byte {error.start} is not UTF-8") from None
    except (ValueError, RecursionError) as error:  # TOMLDecodeError, and int() of more than 4,300 digits
        raise InputError(where=path, rule=f"is no TOML: {error}") from None


def _freeze(value: Any) -> Any:
    # sections become frozen models; a list inside one would still be open to change
    if isinstance(value, list):
        return tuple(_freeze(item) for item in value)
    if isinstance(value, dict):
        return {key: _freeze(item) for key, item in value.items()}
    return value


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    # `ksm.x = [...]` without quotes is a table in a table: it says the same
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _put(tables: dict[str, Any], key: str, value: Any, where: str | None = None) -> None:
    section, *names = key.split(".")
    try:
        tables[section] = _changed(tables.get(section), names, value)
    except IndexError as error:
        raise InputError(where=where, key=key, value=value, rule="is in a list that is shorter", hint=str(error)) from None


def _changed(table: Any, names: Sequence[str], value: Any) -> Any:
    """`table` with `value` under `names`, one within the other; "moves[0]" is the first item of a list, if that is one."""
    if not names:
        return value
    table = dict(table) if isinstance(table, dict) else {}
    name, _, place = names[0].removesuffix("]").partition("[")
    items = table.get(name)
    if not isinstance(items, tuple) or not place.isdecimal():
        table[names[0]] = _changed(table.get(names[0]), names[1:], value)
        return table
    k = int(place)
    if k >= len(items):
        raise IndexError(f"{name} has {len(items)}")
    table[name] = (*items[:k], _changed(items[k], names[1:], value), *items[k + 1 :])
    return table


def _parse_override(override: str, words: frozenset[str]) -> tuple[str, Any]:
    key, equals, text = (part.strip() for part in override.partition("="))
    key = key.replace('"', "")
    if not equals or not key:
        raise InputError(where=SET, value=override, rule="must be KEY=VALUE, such as ksm.pages_to_scan=1000")
    value = _parse_value(key, text)
    return key, text if key in words and not isinstance(value, str) else value


def _parse_value(key: str, text: str) -> Any:
    try:
        table = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError) as error:
        if text[:1] in ("", "[", "{", '"', "'"):
            raise InputError(where=SET, key=key, value=text, rule=f"is no TOML value: {error}") from None
        return text
    return _freeze(table["value"]) if len(table) == 1 else text


def _check_axis(where: str, key: str, values: Any) -> None:
    rule = None
    if not isinstance(values, tuple):
        rule = "must be a list of values"
    elif not values:
        rule = "must not be empty"
    elif len({float if type(value) is int else type(value) for value in values}) > 1:
        rule = "must hold values of one type"  # it becomes a column of the results
    if rule:
        raise InputError(where=where, key=quoted(key), value=values, rule=rule)
