"""Migration policies, one file each: what becomes of a KSM page, and of its stable node, when the page moves to another node.

A policy is a member of `codes.Policy` and a module of its name in here, found because it is there. It may define, each with the
signature below:

- `stays(s, frame, nid, caller)`, kernel: whether the page is left where it is, whoever asks; by default never;
- `migrate_ksm_page(s, links, frame, nid, found)`, kernel: moves the page; by default it keeps its node (`move_frame`);
- `visit_ksm_page(s, page)`, kernel: what ksmd does with a KSM page that is in its place; by default nothing;
- `EDITS_TREES`: whether it changes stable trees while a page moves, so that it needs the lock that protects these;
- `ALLOCATES_ITSELF`: whether it takes frames of its own, so that nobody needs to have one free for it before.

This module only joins them. Numba has no functions as values, so each hook becomes one function that asks for the policy, with
a branch per module.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any

from ksmbatch.accel import inlined
from ksmbatch.codes import Policy
from ksmbatch.kernels.migrate.frame_move import move_frame
from ksmbatch.state import Knob

_MODULES = {policy: import_module(f"{__name__}.{policy.word}") for policy in Policy}


def _mask(name: str) -> int:
    return sum(1 << policy for policy, module in _MODULES.items() if getattr(module, name, False))


EDITS_TREES = _mask("EDITS_TREES")  # 1 << codes.Policy of those that do
ALLOCATES_ITSELF = _mask("ALLOCATES_ITSELF")


@inlined
def _never(s, frame, nid, caller):  # noqa: ARG001  # a hook's signature
    return False


@inlined
def _nothing(s, page):
    pass


@inlined
def _keep_node(s, links, frame, nid, found):  # noqa: ARG001  # a hook's signature
    move_frame(s, frame, nid)
    return True


def _joined(hook: str, arguments: str, otherwise: Callable[..., Any]) -> Callable[..., Any]:
    """`hook(arguments)`: a branch per policy that has it, else `otherwise`; flat, since each level would be compiled anew."""
    names: dict[str, Any] = {"POLICY": int(Knob.POLICY), "otherwise": otherwise}
    lines = [f"def {hook}({arguments}):", "    policy = s.knobs[POLICY]"]
    for policy, module in _MODULES.items():
        if hasattr(module, hook):
            names[policy.word] = getattr(module, hook)
            lines += [f"    if policy == {int(policy)}:", f"        return {policy.word}({arguments})"]
    exec("\n".join([*lines, f"    return otherwise({arguments})"]), names)
    return inlined(names[hook])


# Whether the policy leaves KSM page `frame` where it is. Reads: frames, frame_bytes, nodes, members, pages, knobs.
stays = _joined("stays", "s, frame, nid, caller", _never)
# Moves KSM page `frame`, of which all mappings are reached, to `nid`. Returns: whether it is away. Writes: everything. `found`:
# int32[n_pages], room for a list of pages.
migrate_ksm_page = _joined("migrate_ksm_page", "s, links, frame, nid, found", _keep_node)
# ksmd passes `page`, which maps a KSM page whose node is in its place and has its rmap_item. Writes: everything.
visit_ksm_page = _joined("visit_ksm_page", "s, page", _nothing)
