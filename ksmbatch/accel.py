"""The only place with numba's options: the `kernel` decorator and the compilation cache.

The cache directory is named by a digest of everything that numba's own key leaves out (sources of other kernels, flags,
versions), so that a stale or differently flagged machine code can never be loaded. It holds no simulation logic.
"""

import gc
import hashlib
import os
import platform
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NoReturn

import numba
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.registry import CPUDispatcher
from numba.extending import intrinsic, overload

from ksmbatch.errors import InputError

_PACKAGE = Path(__file__).resolve().parent
_WRAP_ALL: Final = "KSMBATCH_WRAP_ALL"  # for tests: every kernel can be called from Python
_FLAG_NAMES: Final = (
    _WRAP_ALL,
    "NUMBA_BOUNDSCHECK",
    "NUMBA_OPT",
    "NUMBA_CPU_NAME",
    "NUMBA_CPU_FEATURES",
    "NUMBA_ENABLE_AVX",
)
# as they were when kernels began to be compiled
_FLAGS: Final = tuple(f"{name}={os.environ.get(name, '')}" for name in _FLAG_NAMES)


def _switch(name: str, default: bool) -> bool:
    """The environment variable `name` as a switch; raises InputError unless it is unset, "0" or "1"."""
    word = os.environ.get(name, "1" if default else "0")
    if word not in ("0", "1"):
        raise InputError(where="environment", key=name, value=word, rule='must be "0" or "1"')
    return word == "1"


_WRAPS_ALL: Final = _switch(_WRAP_ALL, default=False)


def _digest() -> str:
    digest = hashlib.sha256()
    for source in sorted([*_PACKAGE.glob("*.py"), *_PACKAGE.glob("kernels/**/*.py")]):
        # state, metrics and codes are frozen into kernels as constants, so they count as sources
        if source.parent != _PACKAGE or source.stem in ("accel", "compiling", "state", "metrics", "codes"):
            digest.update(source.relative_to(_PACKAGE).as_posix().encode() + b"\0" + source.read_bytes())
    versions = (numba.__version__, platform.python_version(), platform.machine(), sys.byteorder)
    digest.update(repr(versions + _FLAGS).encode())
    return digest.hexdigest()[:16]


def cache_directory() -> Path:
    """Where compiled kernels of exactly these sources, versions and flags are kept: below KSMBATCH_CACHE_DIR or ~/.cache."""
    root = os.environ.get("KSMBATCH_CACHE_DIR")
    base = Path(root) if root else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ksmbatch"
    return base / _digest()


def _prepare_cache() -> bool:
    """Points numba at our cache directory; False if there is none to write to, which costs time but no result."""
    if not _switch("KSMBATCH_CACHE", default=True) or numba.config.DISABLE_JIT:
        return False
    directory = cache_directory()
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    numba.config.CACHE_DIR = str(directory)
    return os.access(directory, os.W_OK)


CACHED = _prepare_cache()


def is_warm() -> bool:
    """Whether compiled kernels are in the cache already, or need none because the JIT is off."""
    return bool(numba.config.DISABLE_JIT) or (CACHED and any(cache_directory().rglob("*.nbi")))


_OPTIONS: Final = {"nogil": True, "_nrt": False, "no_cfunc_wrapper": True}
# `compiling` derives from inner classes of these releases; with others numba compiles as it does for everybody
_SHORT: Final = numba.version_info[:2] in {(0, 68)}
if _SHORT:
    from ksmbatch.compiling import KernelCompiler, LinkedCache

    _OPTIONS["pipeline_class"] = KernelCompiler
_N_NEW_OBJECTS: Final = 20_000  # between two looks for garbage; numba makes hundreds of millions, and little of it is garbage


@contextmanager
def seldom_collecting() -> Iterator[None]:
    """Python's search for garbage in cycles made rare; at its usual pace it is a sixth of the time that compiling takes."""
    thresholds, was_frozen = gc.get_threshold(), gc.get_freeze_count() > 0
    if not was_frozen:
        gc.freeze()
    gc.set_threshold(_N_NEW_OBJECTS, 50, 1000)
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        if not was_frozen:
            gc.unfreeze()


class _Inner(CPUDispatcher):
    """A compiled function for other compiled functions only: it has no wrapper, and to call it from Python would crash."""

    def __call__(self, *_: object) -> NoReturn:
        raise TypeError(f"{self.py_func.__name__}() has no wrapper for Python: make it an entry_kernel, or set {_WRAP_ALL}=1")


def entry_kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiles `function` lazily, one specialisation, without the GIL; integers only, so no fastmath and no float rules.

    For what the engine calls. Everything else is a `kernel`: a wrapper that takes all of a machine's arrays out of a Python
    tuple is a third of what a function costs to compile.
    """
    compiled: Callable[..., Any] = numba.njit(cache=CACHED, **_OPTIONS)(function)
    return compiled


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """As `entry_kernel`, but for calls by other kernels only."""
    if _WRAPS_ALL or numba.config.DISABLE_JIT:
        return entry_kernel(function)
    if not _SHORT or not CACHED:
        return _inner(function, cache=CACHED)
    compiled = _inner(function)
    compiled._cache = LinkedCache(function)
    return compiled


def inlined(function: Callable[..., Any]) -> Callable[..., Any]:
    """As `kernel`, for a few lines, or what is called in one place: numba copies it into the caller before it compiles that.

    A function of its own takes a tenth of a second to compile, however short.
    """
    return _inner(function, inline="always")


def _inner(function: Callable[..., Any], **options: object) -> Callable[..., Any]:
    wraps = _WRAPS_ALL or bool(numba.config.DISABLE_JIT)
    compiled: Callable[..., Any] = numba.njit(no_cpython_wrapper=not wraps, **_OPTIONS, **options)(function)
    if not wraps:
        compiled.__class__ = _Inner  # type: ignore[assignment]  # a function, as far as its type says
    return compiled


def prefetch(array: Any, row: int) -> None:  # compiled kernels do it, without the JIT it is nothing
    """Asks the CPU to have the cache line at the beginning of `array[row]` (of a contiguous array) ready soon."""


@intrinsic
def _prefetch(typing_context: Any, array: Any, row: Any) -> Any:  # noqa: ARG001
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        rows = context.make_array(signature.args[0])(context, builder, arguments[0])
        stride = cgutils.unpack_tuple(builder, rows.strides)[0]
        place = builder.add(builder.ptrtoint(rows.data, stride.type), builder.mul(arguments[1], stride))
        byte, number = ir.PointerType(ir.IntType(8)), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        ask = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        # to be read, which asks for less than to be written, and nobody else has the line; to be kept in all caches, data
        builder.call(ask, [builder.inttoptr(place, byte), number(0), number(3), number(1)])
        return context.get_dummy_value()

    return types.void(array, types.int64), generate


@overload(prefetch)
def _prefetch_compiled(array: Any, row: Any) -> Any:  # noqa: ARG001
    def compiled(array: Any, row: Any) -> Any:
        _prefetch(array, row)

    return compiled
