"""The errors that ksmbatch raises on purpose; each is one line that a user can act on.

It does not print, exit or catch: that is the command line's task.
"""

import functools
import json
from typing import ClassVar, Final

_SHOWN_CHARS: Final = 60
_MOST_CHARS: Final = 400  # of what a file can make as long as it likes: a key, the path in a hint
_MISSING: Final = object()  # None is a value that a JSON scenario can hold


class KsmbatchError(Exception):
    """Something that the user can put right; `str()` is the one line to show."""

    exit_status: ClassVar[int] = 2


class UndefinedBehaviour(KsmbatchError):
    """The simulated kernel would use freed memory, so nothing that follows would mean anything."""

    exit_status: ClassVar[int] = 1  # nothing is wrong with the input: it ran, and this is the answer


class OutOfMemory(KsmbatchError):
    """The simulated host has no frame left on any node."""

    exit_status: ClassVar[int] = 1  # it ran, and the answer is that this memory does not fit


class InputError(KsmbatchError):
    """An input that breaks a rule.

    `where`: the file, and the step in it if there is one. `key`, `value`: what is wrong there. `rule`: what must hold.
    `hint`: what would help. All but `rule` may be left out. `str()` is `WHERE: KEY = VALUE: RULE (HINT)`.
    """

    def __init__(
        self, *, rule: str, where: object = None, key: str | None = None, value: object = _MISSING, hint: str | None = None
    ) -> None:
        self.where = None if where is None else str(where)
        self.key = key
        self.value_text = None if value is _MISSING else show_value(value)
        self.rule = rule
        self.hint = hint
        super().__init__(self._line())

    def _line(self) -> str:
        subject = " = ".join(_shortened(part, _MOST_CHARS) for part in (self.key, self.value_text) if part is not None)
        line = ": ".join(part for part in (self.where, subject, _shortened(self.rule, _MOST_CHARS)) if part)
        if self.hint:
            line += f" ({_shortened(self.hint, _MOST_CHARS)})"
        return _printable(line)

    def at(self, *, where: object = None, key: str | None = None) -> "InputError":
        """The same fault, named as lying in `where` or under `key`: a caller knows its file, a callee only the value."""
        return _rebuild(
            type(self), str(where) if where is not None else self.where, key or self.key, self.value_text, self.rule, self.hint
        )

    def __reduce__(self) -> tuple[object, ...]:
        # keyword-only arguments: without this an InputError raised in a worker process cannot travel back
        return functools.partial(_rebuild, type(self)), (self.where, self.key, self.value_text, self.rule, self.hint)


def show_value(value: object) -> str:
    """`value` as a user would write it (TOML, JSON), shortened to 60 characters.

    >>> show_value("a b"), show_value(True), show_value([0, 1])
    ('"a b"', 'true', '[0, 1]')
    """
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):  # a TOML date; an integer of more than 4,300 digits, which TOML can write in hex
        text = hex(value) if isinstance(value, int) else str(value)
    return _shortened(text, _SHOWN_CHARS)


def _shortened(text: str, most: int) -> str:
    """`text`, of more than `most` characters only the first.

    >>> _shortened("abcdefgh", 6)
    'abc...'
    """
    return text if len(text) <= most else text[: most - 3] + "..."


def _printable(line: str) -> str:
    """`line` with control characters escaped: a file name or key with a line break must not break the line."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in line)


def _rebuild(
    kind: type[InputError], where: str | None, key: str | None, value_text: str | None, rule: str, hint: str | None
) -> InputError:
    error = kind(where=where, key=key, rule=rule, hint=hint)
    error.value_text = value_text
    error.args = (error._line(),)
    return error
