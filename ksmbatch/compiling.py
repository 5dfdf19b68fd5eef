"""How kernels are compiled: numba's compiler, without the work that it does twice or that kernels have no use for.

numba is told so by its extension interface (`pipeline_class`, passes, a cache class); what numba compiles for others stays as
it is. It holds no options (those are accel's) and no simulation logic. See docs/adr/0012.
"""

import copy
import functools
from typing import Any, ClassVar

from numba.core import ir, types
from numba.core.caching import CompileResultCacheImpl, FunctionCache
from numba.core.codegen import JITCodeLibrary, JITCPUCodegen
from numba.core.compiler import CompilerBase, DefaultPassBuilder, Flags
from numba.core.compiler_machinery import PassManager, register_pass
from numba.core.inline_closurecall import InlineWorker
from numba.core.typed_passes import NopythonRewrites
from numba.core.typing import Context
from numba.core.untyped_passes import InlineInlinables


class _LinkedLibrary(JITCodeLibrary):
    """The code of a kernel that only kernels call: copied into theirs, and made into machine code there alone.

    numba would optimise it and generate machine code here as well, then again in all who call it, and in all who call those.
    """

    def _optimize_final_module(self) -> None:
        pass  # where it is copied to

    def _finalize_final_module(self) -> None:
        self._finalize_dynamic_globals()
        self._verify_declare_only_symbols()
        self._finalized = True

    def serialize_using_object_code(self) -> Any:
        """For the cache, which asks for it by this name."""
        return self.serialize_using_bitcode()


class _LinkedCodegen(JITCPUCodegen):
    """numba's, which it is a copy of, but for what it makes."""

    _library_class = _LinkedLibrary

    def set_env(self, env_name: str, env: Any) -> None:
        """Nothing, for there is no machine code to read it."""


def _without_machine_code(target: Any) -> Any:
    """numba's target context as kernels see it that only kernels call."""
    codegen = copy.copy(target.codegen())
    codegen.__class__ = _LinkedCodegen
    return target.subtarget(_internal_codegen=codegen)


class _LinkedCacheImpl(CompileResultCacheImpl):
    def rebuild(self, target_context: Any, payload: Any) -> Any:
        """What `reduce` made of a kernel."""
        return super().rebuild(_without_machine_code(target_context), payload)


class LinkedCache(FunctionCache):
    """numba's cache for a kernel that only kernels call."""

    _impl_class = _LinkedCacheImpl


class _Context(Context):
    """numba's typing context, which it is a copy of, with a memory: operators are asked about the same types all the time,
    and numba tries what it knows of strings, sets and dates before it comes to integers."""

    @functools.cached_property
    def _signatures(self) -> dict[Any, Any]:
        return {}

    def resolve_function_type(self, func: Any, args: Any, kws: Any) -> Any:
        """The signature of `func` for arguments of these types."""
        is_kernel = isinstance(func, types.Type) and not isinstance(func, types.Function)  # compiled by being asked
        if is_kernel or kws or not all(isinstance(each, types.Type) for each in args):
            return super().resolve_function_type(func, args, kws)
        key = (func, tuple(args))
        signature = self._signatures.get(key)
        if signature is None:
            signature = self._signatures[key] = super().resolve_function_type(func, args, kws)
        return signature


@functools.cache
def _remembering(context: Context) -> _Context:
    remembering: _Context = copy.copy(context)
    remembering.__class__ = _Context
    return remembering


class _Flags(Flags):
    """numba's flags, which are compared in every look-up of a signature: there, a table of all options, set or not, is made."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return (type(other) is _Flags and self._values == other._values) or super().__eq__(other)

    def __hash__(self) -> int:
        return 0  # numba's is of the options' names, which are the same for all


class _OwnBlock(ir.Block):
    """A block that is a copy already, and whose is not to be copied again."""

    def __deepcopy__(self, memo: dict[int, Any]) -> "_OwnBlock":
        return self


def _copy_operand(operand: Any) -> Any:
    return type(operand)(map(_copy_operand, operand)) if isinstance(operand, list | tuple) else operand


def _copy_statement(statement: Any) -> Any:
    copied = copy.copy(statement)
    if isinstance(statement, ir.Assign) and not isinstance(statement.value, ir.Var):
        copied.value = copy.copy(statement.value)
        if isinstance(statement.value, ir.Expr):
            copied.value._kws = {name: _copy_operand(operand) for name, operand in statement.value._kws.items()}
    return copied


def _copy_function(function: Any) -> Any:
    """All of `function` that changes where it is inlined. numba makes two copies, each with all variables for each block."""
    copied = function.copy()
    old = next(iter(function.blocks.values())).scope
    scope = copy.copy(old)
    scope.localvars = copy.copy(old.localvars)
    scope.localvars._con = dict(old.localvars._con)
    scope.redefined = old.redefined.copy()
    scope.var_redefinitions = old.var_redefinitions.copy()
    for name, versions in old.var_redefinitions.items():
        scope.var_redefinitions[name] = set(versions)
    copied.blocks = {}
    for label, block in function.blocks.items():
        copied.blocks[label] = _OwnBlock(scope, block.loc)
        copied.blocks[label].body = list(map(_copy_statement, block.body))
    return copied


class _InlineWorker(InlineWorker):
    """numba's, with a memory of the functions that it has prepared for inlining."""

    _prepared: ClassVar[dict[Any, Any]] = {}

    def run_untyped_passes(self, func: Any, enable_ssa: bool = False) -> Any:
        """`func` ready to be inlined."""
        self._compiler_pipeline = _untyped_passes
        if func not in self._prepared:
            self._prepared[func] = super().run_untyped_passes(func, enable_ssa)
        self.flags.enable_ssa = enable_ssa  # which numba leaves behind
        return _copy_function(self._prepared[func])

    def inline_function(self, caller_ir: Any, block: Any, i: int, function: Any, arg_typs: Any = None) -> Any:
        """Puts `function` in the place of its call, statement `i` of `block`."""
        inlined = super().inline_function(caller_ir, block, i, function, arg_typs)
        for _, each in inlined[-1]:
            each.__class__ = ir.Block
        return inlined


@register_pass(mutates_CFG=True, analysis_only=False)
class _InlineInlinables(InlineInlinables):
    _name = "ksmbatch_inline_inlinables"

    def _do_work(self, state: Any, work_list: Any, block: Any, i: int, expr: Any, inline_worker: Any) -> Any:
        inline_worker.__class__ = _InlineWorker
        return super()._do_work(state, work_list, block, i, expr, inline_worker)


def _with_ours(passes: PassManager) -> PassManager:
    ours = {InlineInlinables: _InlineInlinables}
    # rewriting is for expressions of whole arrays, of which kernels have none
    passes.passes = [(ours.get(each, each), why) for each, why in passes.passes if each is not NopythonRewrites]
    passes.finalize()
    return passes


def _untyped_passes(state: Any) -> PassManager:
    return _with_ours(DefaultPassBuilder.define_untyped_pipeline(state))


class KernelCompiler(CompilerBase):
    """numba's compiler, as kernels need it."""

    def __init__(
        self, typingctx: Any, targetctx: Any, library: Any, args: Any, return_type: Any, flags: Any, *more: Any
    ) -> None:
        super().__init__(_remembering(typingctx), targetctx, library, args, return_type, _Flags(flags), *more)
        if flags.no_cpython_wrapper:
            self.state.targetctx = _without_machine_code(self.state.targetctx)

    def define_pipelines(self) -> list[PassManager]:
        """The passes, in numba's words."""
        return [_with_ours(DefaultPassBuilder.define_nopython_pipeline(self.state))]

    def _compile_core(self) -> Any:
        result = super()._compile_core()
        if not self.state.flags.no_cpython_wrapper:
            # those of the kernels that it calls, which have no code to set them in; what comes from the cache does the same
            for env in result._find_referenced_environments():
                result.codegen.set_env(env.env_name, env)
        return result
