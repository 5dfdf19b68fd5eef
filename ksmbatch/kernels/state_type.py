"""How compiled kernels hand the state to each other: as one pointer to a table of where its arrays are, and how long.

By itself numba hands a tuple of arrays over by value, some 200 numbers at every call, which costs more than most kernels do.
The table never changes while a kernel runs, and LLVM is told so: each function loads what it needs of it once. Without the JIT
this module does nothing. It knows nothing of what the arrays mean. See docs/adr/0010.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.imputils import impl_ret_borrowed, lower_getattr_generic
from numba.core.typing.templates import AttributeTemplate
from numba.extending import NativeValue, infer_getattr, models, register_model, typeof_impl, unbox
from numba.np import numpy_support

from ksmbatch.kernels.rows_type import RowsType
from ksmbatch.state import ARRAYS, SAME_MEMORY, State


class StateType(types.Type):
    """A `State` in compiled code."""

    def __init__(self) -> None:
        super().__init__(name="ksmbatch.State")


_STATE = StateType()


def _kind(name: str, dtype: Any, extents: tuple[int | None, ...]) -> types.Array:
    item = numpy_support.from_dtype(np.dtype(dtype))
    if name == "unstable_links":  # as a slice of stable_links, for rbtree is compiled once for both
        return types.Array(item, len(extents), "C")
    return RowsType(SAME_MEMORY.get(name, name), item, extents)


_FIELDS = {
    name: (_kind(name, dtype, extents), extents, place, np.dtype(dtype).itemsize)
    for name, (dtype, extents, place) in ARRAYS.items()
}


@typeof_impl.register(State)
def _typeof(value: State, context: Any) -> StateType:  # noqa: ARG001
    return _STATE


@register_model(StateType)
class _Model(models.OpaqueModel):  # a pointer
    pass


@unbox(StateType)
def _unbox(typ: StateType, value: Any, c: Any) -> NativeValue:  # noqa: ARG001
    table = c.pyapi.object_getattr_string(value, "table")
    array = c.unbox(types.Array(types.int64, 1, "C"), table)
    c.pyapi.decref(table)  # the state, which the caller holds, keeps it
    data = c.context.make_array(types.Array(types.int64, 1, "C"))(c.context, c.builder, array.value).data
    return NativeValue(c.builder.bitcast(data, cgutils.voidptr_t), is_error=array.is_error)


@infer_getattr
class _Attributes(AttributeTemplate):
    key = StateType

    def generic_resolve(self, typ: StateType, attribute: str) -> types.Array | None:  # noqa: ARG002
        return _FIELDS[attribute][0] if attribute in _FIELDS else None


@lower_getattr_generic(StateType)
def _lower(context: Any, builder: Any, typ: StateType, value: Any, attribute: str) -> Any:  # noqa: ARG001
    kind, extents, place, item_bytes = _FIELDS[attribute]
    word = context.get_value_type(types.intp)
    table = builder.bitcast(value, ir.PointerType(word))
    never_changes = builder.module.add_metadata([])

    def load(k: int) -> Any:
        number = builder.load(builder.gep(table, [ir.Constant(word, place + k)]))
        number.set_metadata("invariant.load", never_changes)
        return number

    shape = [load(1 + axis) if n is None else ir.Constant(word, n) for axis, n in enumerate(extents)]
    strides = [ir.Constant(word, item_bytes)]
    for extent in reversed(shape[1:]):
        strides.insert(0, builder.mul(strides[0], extent))
    n_items = shape[0]
    for extent in shape[1:]:
        n_items = builder.mul(n_items, extent)
    model = context.data_model_manager[kind]
    struct = context.get_value_type(kind)
    fields = {
        "nitems": n_items,
        "itemsize": ir.Constant(word, item_bytes),
        "data": builder.inttoptr(load(0), struct.elements[model.get_field_position("data")]),
        "shape": cgutils.pack_array(builder, shape, ty=word),
        "strides": cgutils.pack_array(builder, strides, ty=word),
    }
    array = ir.Constant(struct, None)  # zeros: its memory is ours, not numba's
    for name, field in fields.items():
        array = model.set(builder, array, field, name)
    return impl_ret_borrowed(context, builder, kind, array)
