"""Image files of CRIU: a magic number, then messages, each behind its size; and as much of protocol buffers as these take.

It knows no message. Whatever is damaged is an InputError at its file.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from ksmbatch.errors import InputError

COMMON_MAGIC: Final = 0x54564319
_MAGIC: Final = struct.Struct("<II")
_SIZE: Final = struct.Struct("<I")
_MAX_MESSAGE_BYTES: Final = 2**24  # the longest has all VMAs of a process
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FIXED: Final = {_FIXED64: 8, _FIXED32: 4}  # groups, which are deprecated since long before CRIU, are refused
_MAX_VARINT_BYTES: Final = 10


class Message(NamedTuple):
    """A message of `file`, not yet looked into."""

    file: Path
    content: bytes

    def fields(self) -> list[tuple[int, int | bytes]]:
        """Number and value of every field, in order: an unsigned integer, or bytes. Raises InputError."""
        try:
            return list(_fields(self.content))
        except ValueError as error:
            raise InputError(where=self.file, rule=f"is damaged: {error}") from None

    def integers(self) -> dict[int, int]:
        """The integers by the number of their field. Raises InputError."""
        return {number: value for number, value in self.fields() if isinstance(value, int)}

    def texts(self, number: int) -> "list[Message]":
        """What the fields of that number hold that are bytes: messages, or text. Raises InputError."""
        return [Message(self.file, value) for other, value in self.fields() if other == number and isinstance(value, bytes)]


def starts_with_magic(head: bytes, magic: int) -> bool:
    """Whether a file that begins with `head` is an image of the kind that has `magic`."""
    return head.startswith(_MAGIC.pack(COMMON_MAGIC, magic))


def messages(path: Path, magic: int) -> Iterator[Message]:
    """The messages of an image, whose kind has `magic`. Raises InputError."""
    try:
        with path.open("rb") as file:
            if not starts_with_magic(file.read(_MAGIC.size), magic):
                rule = "does not begin as an image of CRIU of its name does"
                raise InputError(where=path, rule=rule, hint="images of CRIU before 2.0 are not read")
            while head := file.read(_SIZE.size):
                (size,) = _SIZE.unpack(head.ljust(_SIZE.size, b"\xff"))
                if size > _MAX_MESSAGE_BYTES:
                    raise InputError(where=path, rule=f"has a message of {size} bytes: truncated or damaged")
                content = file.read(size)
                if len(content) < size:
                    raise InputError(where=path, rule="ends within a message: truncated")
                yield Message(path, content)
    except OSError as error:
        raise InputError(where=path, rule=f"cannot be read: {error.strerror or error}") from None


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """As `Message.fields`; raises ValueError.

    >>> list(_fields(bytes([0x08, 0x96, 0x01, 0x12, 0x02, 0x68, 0x69])))
    [(1, 150), (2, b'hi')]
    """
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            value, at = _varint(message, at)
            yield number, value
            continue
        if kind == _BYTES:
            size, at = _varint(message, at)
        elif kind in _FIXED:
            size = _FIXED[kind]
        else:
            raise ValueError(f"field {number} is of unknown kind {kind}")
        if size > len(message) - at:
            raise ValueError(f"field {number} ends behind its message")
        data = message[at : at + size]
        yield number, data if kind == _BYTES else int.from_bytes(data, "little")
        at += size


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """The integer whose first byte is at `at`, and where the next field begins; raises ValueError.

    >>> _varint(bytes([0x96, 0x01]), 0)
    (150, 2)
    """
    value = 0
    for place, byte in enumerate(message[at : at + _MAX_VARINT_BYTES]):
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            if value >= 2**64:
                break
            return value, at + place + 1
    raise ValueError("an integer has no end, or more than 64 bits")
