"""When a mover acts: after a snapshot, given by its number, or at a time, such as "48s"; once or again and again.

It knows the words, not the snapshots; which there are, and when they come, `moves` looks up.
"""

from typing import Final, NamedTuple, TypeAlias

from ksmbatch.errors import InputError
from ksmbatch.units import format_ms, parse_ms

MOMENT_KEYS: Final = ("at", "every", "back")  # parameters of movers whose value is a number of snapshots or a time
_MOST_SNAPSHOTS: Final = 2**20
_LONGEST_MS: Final = parse_ms("100000d")  # as long as a run may be

When: TypeAlias = int | str  # a number of snapshots or a time, as parameters hold it


class Moment(NamedTuple):
    """`later_ms` milliseconds after snapshot number `snapshot`, whose own events come first; `key`: which parameter says so."""

    snapshot: int
    later_ms: int = 0
    key: str = "at"


def snapshot_or_time(name: str, value: object, low: int = 0) -> When:
    """`value` if it is a whole number from `low` (0 or 1) on; a time, which may be 0 if the number may, in its largest unit.

    So equal times are equal values. Raises InputError for the key `name` of [workload].

    >>> snapshot_or_time("at", 6), snapshot_or_time("at", "120s")
    (6, '2min')
    """
    if isinstance(value, str):
        try:
            ms = parse_ms(value)
        except InputError:
            ms = -1
        if low <= ms <= _LONGEST_MS:
            return format_ms(ms)
    elif type(value) is int and low <= value <= _MOST_SNAPSHOTS:
        return value
    rule = f'must be a number of snapshots, {low} to {_MOST_SNAPSHOTS}, or a time, such as "48s"'
    raise InputError(key=f"workload.{name}", value=value, rule=rule)


def check_every(at: When, every: When, times: int) -> None:
    """Raises InputError if what happens `times` times from `at` on would have to go on by snapshots from a time."""
    if times > 1 and isinstance(at, str) and not isinstance(every, str):
        raise InputError(key="workload.every", value=every, rule="must be a time, as `at` is", hint=f"at = {at}")


def moment(at: When, every: When = 0, k: int = 0) -> Moment:
    """`at`, and `k` times `every` later.

    >>> tuple(moment(6, 2, 3)), tuple(moment("48s", "500ms", 3)), tuple(moment(6, "500ms", 3))
    ((12, 0, 'at'), (0, 49500, 'at'), (6, 1500, 'at'))
    """
    snapshot, later_ms = (0, parse_ms(at)) if isinstance(at, str) else (at, 0)
    if isinstance(every, str):
        return Moment(snapshot, later_ms + k * parse_ms(every))
    return Moment(snapshot + k * every, later_ms)
