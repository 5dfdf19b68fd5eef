"""The C++ peers, compiled when they are asked for and called in this process, on the same arrays as everybody else."""

import ctypes
import functools
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from peers.dict_loop import Scans

SOURCE = Path(__file__).with_name("map_loop.cpp")
COMPILE = ("g++", "-O3", "-std=c++17", "-shared", "-fPIC")


@functools.cache
def library() -> ctypes.CDLL:
    """The compiled peers; raises FileNotFoundError where there is no g++, CalledProcessError where it fails."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "map_loop.so"
        subprocess.run([*COMPILE, "-o", str(target), str(SOURCE)], check=True)
        return ctypes.CDLL(str(target))  # stays loaded when its file has gone


def scans(tree: str, contents: np.ndarray, n_scans: int) -> Scans:
    """As `dict_loop.scans`, with `tree` "map" or "unordered_map"."""
    contents = np.ascontiguousarray(contents, np.uint64)
    seconds, counters = np.empty(n_scans), np.empty((n_scans, 3), np.int64)
    getattr(library(), f"scans_{tree}")(
        contents.ctypes.data_as(ctypes.c_void_p),
        ctypes.c_int64(contents.size),
        ctypes.c_int64(n_scans),
        seconds.ctypes.data_as(ctypes.c_void_p),
        counters.ctypes.data_as(ctypes.c_void_p),
    )
    return Scans(seconds, counters)


def version() -> str:
    """Of the compiler; "" where there is none."""
    try:
        done = subprocess.run(["g++", "-dumpfullversion"], capture_output=True, text=True, check=True)
    except (FileNotFoundError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()
