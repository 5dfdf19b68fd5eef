"""What the user wants captured, from the words of the command line, checked.

It does not look whether it is there: that is `processes`' task.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ksmbatch.capture.fingerprint import KINDS
from ksmbatch.capture.processes import Selection
from ksmbatch.documents import nearest
from ksmbatch.errors import InputError
from ksmbatch.units import parse_ms

_COMMAND: Final = "ksmbatch capture"
_PERCENT: Final = re.compile(r"([0-9]{1,3}(?:\.[0-9]+)?) ?%?")


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What the user wants.

    `rounds`: how many, 0 for as many as come until Ctrl-C, one every `interval_ms`. `max_cpu`: cores. `all_vmas`: also what KSM
    could not take. `mergeable`: only what is registered with it. `keep_order`: order of ids as of memcmp. `fingerprint`: one of
    `fingerprint.KINDS`. `vma_names`: keep names. `soft_dirty`: clear these bits, to read only what was written since.
    """

    selection: Selection
    interval_ms: int
    rounds: int
    max_cpu: float
    all_vmas: bool
    mergeable: bool
    keep_order: bool
    fingerprint: str
    vma_names: bool
    soft_dirty: bool


def request_of(
    *,
    pids: Sequence[int],
    names: Sequence[str],
    cgroups: Sequence[str],
    qemu: bool,
    interval: str,
    rounds: int,
    max_cpu: str,
    all_vmas: bool,
    mergeable: bool,
    keep_order: bool,
    fingerprint: str,
    vma_names: bool,
    soft_dirty: bool,
) -> Request:
    """The request that the options say; raises InputError for what they must not say."""
    selection = Selection(pids=tuple(pids), names=tuple(names), cgroups=tuple(cgroups), qemu=qemu)
    if selection == Selection():
        raise InputError(where=_COMMAND, rule="whose memory? It needs --pid, --name, --cgroup or --qemu")
    if all_vmas and mergeable:
        raise InputError(where=_COMMAND, rule="--all-vmas and --mergeable exclude each other")
    if fingerprint not in KINDS:
        rule = f"must be one of {', '.join(KINDS)}"
        raise InputError(where="--fingerprint", value=fingerprint, rule=rule, hint=nearest(fingerprint, KINDS))
    try:
        interval_ms = parse_ms(interval)
    except InputError as error:
        raise error.at(where="--interval") from None
    return Request(
        selection=selection,
        interval_ms=interval_ms,
        rounds=rounds,
        max_cpu=_cores(max_cpu),
        all_vmas=all_vmas,
        mergeable=mergeable,
        keep_order=keep_order,
        fingerprint=fingerprint,
        vma_names=vma_names,
        soft_dirty=soft_dirty,
    )


def _cores(text: str) -> float:
    """ "10%" or "10" as a share of a core."""
    match = _PERCENT.fullmatch(text.strip())
    cores = float(match[1]) / 100 if match else 0.0
    if not 0 < cores <= 1:
        raise InputError(where="--max-cpu", value=text, rule='must be a share of one core such as "10%", up to 100%')
    return cores
