"""Arrays of the state as compiled kernels see them: what numba must not know of arrays in general, but may of these.

Their rows have a length that is known when a kernel is compiled, so that an address takes no multiplication by what must be
loaded. An index is never negative: NumPy's meaning of one that is costs three instructions at every access, and would hide a
mistake of ours (`.ci/boundscheck` finds it). And no two share memory, but for those that are rows or bytes of others, so that
LLVM need not read again from one what it has read before it wrote to another. Slices of them are numba's arrays. Without the
JIT this module does nothing. See docs/adr/0010.
"""

import operator
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import lower_builtin, models, register_model
from numba.np import arrayobj


class RowsType(types.Array):
    """An array of the state, contiguous; `memory`: whose it is; `extents`: of each axis, None where it is known at run time."""

    def __init__(self, memory: str, dtype: Any, extents: tuple[int | None, ...]) -> None:
        self.memory = memory
        self.extents = extents
        super().__init__(dtype, len(extents), "C", name=f"ksmbatch.Rows({memory}, {dtype}, {extents})")

    @property
    def key(self) -> tuple[object, ...]:
        """What tells it from other types."""
        return (*super().key, self.memory, self.extents)

    @property
    def mangling_args(self) -> tuple[str, list[object]]:
        """What tells a function of it from others in machine code."""
        return "Rows", [self.memory, self.dtype, *(str(n) for n in self.extents)]


register_model(RowsType)(models.ArrayModel)


def _address(context: Any, builder: Any, kind: RowsType, array: Any, index_types: Any, indices: Any) -> Any:
    """Of the item at `indices`, one integer for each axis."""
    # without numba's proxies of arrays, which put each into memory to take it apart, and LLVM then out again
    model = context.data_model_manager[kind]
    word = context.get_value_type(types.intp)
    place = None
    for axis, (index_type, index) in enumerate(zip(index_types, indices, strict=True)):
        number = context.cast(builder, index, index_type, types.intp)
        if axis > 0 or context.enable_boundscheck:
            known = kind.extents[axis]
            extent = (
                ir.Constant(word, known)
                if known is not None
                else builder.extract_value(model.get(builder, array, "shape"), axis)
            )
        if context.enable_boundscheck:
            cgutils.do_boundscheck(context, builder, number, extent, axis)
        place = builder.add(builder.mul(place, extent, flags=["nsw"]), number, flags=["nsw"]) if axis > 0 else number
    return builder.gep(model.get(builder, array, "data"), [place], inbounds=True)


def _marked(builder: Any, access: Any, kind: RowsType) -> Any:
    """`access`, a load or a store, with LLVM told to which memory: two of different names are never the same."""
    module = builder.module
    root = module.add_metadata(["ksmbatch"])
    memory = module.add_metadata([kind.memory, root, ir.Constant(ir.IntType(64), 0)])
    access.set_metadata("tbaa", module.add_metadata([memory, memory, ir.Constant(ir.IntType(64), 0)]))
    return access


def _item_at(kind: RowsType, index_types: Any) -> bool:
    """Whether indices of these types name one item."""
    return len(index_types) == kind.ndim and all(isinstance(each, types.Integer) for each in index_types)


def _load(context: Any, builder: Any, kind: RowsType, value: Any, index_types: Any, indices: Any) -> Any:
    return _marked(builder, builder.load(_address(context, builder, kind, value, index_types, indices)), kind)


@lower_builtin(operator.getitem, RowsType, types.Integer)
def _get_at(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    if not _item_at(sig.args[0], sig.args[1:]):
        return arrayobj.getitem_arraynd_intp(context, builder, sig, args)
    return _load(context, builder, sig.args[0], args[0], sig.args[1:], args[1:])


@lower_builtin(operator.getitem, RowsType, types.BaseTuple)
def _get_at_all(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    kind, index_types = sig.args
    if not _item_at(kind, index_types.types):
        return arrayobj.getitem_array_tuple(context, builder, sig, args)
    return _load(context, builder, kind, args[0], index_types.types, cgutils.unpack_tuple(builder, args[1], len(index_types)))


@lower_builtin(operator.setitem, RowsType, types.Any, types.Any)
def _set_at(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    kind, index_type, value_type = sig.args
    is_tuple = isinstance(index_type, types.BaseTuple)
    index_types = index_type.types if is_tuple else (index_type,)
    if not _item_at(kind, index_types):
        return arrayobj.setitem_array(context, builder, sig, args)
    indices = cgutils.unpack_tuple(builder, args[1], len(index_type)) if is_tuple else [args[1]]
    value = context.cast(builder, args[2], value_type, kind.dtype)
    _marked(builder, builder.store(value, _address(context, builder, kind, args[0], index_types, indices)), kind)
    return context.get_dummy_value()
