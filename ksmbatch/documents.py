"""JSON documents in: files and folders of scenarios and recordings, and typed access to their fields.

It turns what is not JSON, missing or of the wrong type into one InputError. What the fields mean is for the modules that
ask.
"""

import difflib
import gzip
import io
import json
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from ksmbatch.errors import InputError

Json: TypeAlias = dict[str, object]

_MAX_UNPACKED: Final = 2**28  # bytes; a few of gzip's can stand for any number
INT32: Final = range(1, 2**31)  # counts of things: at least one


def read_documents(path: str | Path) -> Iterator[tuple[str, Json]]:
    """The JSON objects in `path` with the file each comes from; files and folders as in `load_scenarios`.

    Raises InputError for a missing, unreadable or malformed file, and for a folder without JSON files.
    """
    path = Path(path)
    files = [path]
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.name.endswith((".json", ".json.gz")) and file.is_file())
        if not files:
            raise InputError(where=path, rule="holds no .json or .json.gz files")
    for file in files:
        obj = _read_json(file)
        for k, item in enumerate(obj if isinstance(obj, list) else [obj]):
            if not isinstance(item, dict):
                raise InputError(where=file, key=f"[{k}]", value=item, rule="must be a scenario or a recording")
            yield str(file), item


def _read_json(file: Path) -> object:
    try:
        raw = file.read_bytes()
        if raw[:2] == b"\x1f\x8b":
            with gzip.open(io.BytesIO(raw)) as unpacked:
                raw = unpacked.read(_MAX_UNPACKED + 1)
            if len(raw) > _MAX_UNPACKED:
                raise InputError(where=file, rule=f"is larger than {_MAX_UNPACKED >> 20} MiB when it is unpacked")
        return json.loads(raw)
    except OSError as error:  # gzip.BadGzipFile among them
        raise InputError(where=file, rule=f"cannot be read: {error.strerror or error}") from None
    except (EOFError, zlib.error):
        raise InputError(where=file, rule="cannot be read: truncated or damaged gzip") from None
    except (ValueError, RecursionError) as error:
        raise InputError(where=file, rule=f"is no JSON: {error}") from None


@dataclass(frozen=True, slots=True)
class Fields:
    """Typed access to the fields of one JSON object that is ours to complete; every failure is an InputError at `where`."""

    obj: Json
    where: str

    def bad(self, key: str, rule: str, hint: str | None = None) -> InputError:
        """The error that `key` breaks `rule`, or is missing."""
        if key not in self.obj:
            return InputError(where=self.where, key=key, rule=f"is missing: {rule}", hint=hint)
        return InputError(where=self.where, key=key, value=self.obj[key], rule=rule, hint=hint)

    def only(self, known: tuple[str, ...]) -> None:
        """Refuses keys that are not `known`."""
        for key in self.obj:
            if key not in known:
                raise self.bad(key, "unknown field", nearest(key, known))

    def text(self, key: str, default: str | None = None) -> str:
        """The string under `key`, or `default` where it is left out."""
        value = self.obj.get(key, default)
        if not isinstance(value, str):
            raise self.bad(key, "must be a string")
        return value

    def one_of(self, key: str, words: tuple[str, ...]) -> str:
        """The string under `key`, which must be one of `words`."""
        value = self.obj.get(key)
        if not isinstance(value, str) or value not in words:
            raise self.bad(key, f"must be one of {', '.join(words)}")
        return value

    def integer(self, key: str, allowed: range | None, default: int | None = None) -> int:
        """The integer under `key`, in `allowed` (None: any), filled in from `default` where it is left out.

        true and false are no integers.
        """
        if default is not None:
            self.obj.setdefault(key, default)
        value = self.obj.get(key)
        if type(value) is not int or (allowed is not None and value not in allowed):
            raise self.bad(key, f"must be an integer{_interval(allowed)}")
        return value


def _interval(allowed: range | None) -> str:
    if allowed is None:
        return ""
    return f" >= {allowed.start}" if allowed.stop >= 2**31 else f" from {allowed.start} to {allowed.stop - 1}"


def nearest(word: str, known: Iterable[str]) -> str:
    """The hint for an unknown `word`: the nearest of the known words, or that there are none.

    >>> nearest("cont", ["first", "count"])
    'nearest: count'
    """
    found = difflib.get_close_matches(word, list(known), n=1, cutoff=0.0)
    return f"nearest: {found[0]}" if found else "there is none"
