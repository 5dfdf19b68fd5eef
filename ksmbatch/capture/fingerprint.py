"""Pages to 64-bit fingerprints under a random key that is forgotten with the process: equal pages, and by chance no others.

A fingerprint never gets into a trace (`finish` puts dense ids in its place). Which function is meant for whom, and how likely
an accident is: docs/privacy.md.
"""

import hashlib
import secrets
from collections.abc import Callable
from typing import Final, TypeAlias

import numpy as np

Hash: TypeAlias = Callable[[np.ndarray], np.ndarray]

KINDS: Final = ("xxh64", "blake2b")
ZERO: Final = np.uint64(0)  # of the page of zeros, whatever the key
PAGE_BYTES: Final = 4096
_KEY_WORDS: Final = 8


class Fingerprints:
    """Fingerprints of the `kind` "xxh64" (fast; who knows the function can make pages that collide) or "blake2b"."""

    def __init__(self, kind: str) -> None:
        self._of = _xxh64(secrets.randbits(64)) if kind == "xxh64" else _blake2b(secrets.token_bytes(32))

    def of(self, pages: np.ndarray) -> np.ndarray:
        """uint64[n]: those of `pages` (uint8[n, 4096], contiguous)."""
        found = self._of(pages)
        found[found == ZERO] = 1
        found[~np.bitwise_or.reduce(pages.view(np.uint64), axis=1).astype(np.bool_)] = ZERO
        return found


def _xxh64(seed: int) -> Hash:
    from ksmbatch.interning import hash_pages  # numba: half a second, and a few the first time ever

    hash_pages(np.zeros((1, PAGE_BYTES), np.uint8), seed)
    return lambda pages: hash_pages(pages, seed)


def _blake2b(key: bytes) -> Hash:
    def of(pages: np.ndarray) -> np.ndarray:
        digests = (hashlib.blake2b(page, digest_size=8, key=key).digest() for page in pages)
        return np.frombuffer(bytearray().join(digests), np.uint64)

    return of


def order_keys(pages: np.ndarray) -> np.ndarray:
    """Bytes [n] whose order is that of memcmp of `pages` (uint8[n, 4096]).

    Of each page they know how many words of zeros it begins with, and the 64 bytes behind those; equal keys tell nothing.
    """
    words = pages.view(np.uint64)
    n_words = words.shape[1]
    is_set = words != 0
    first = np.where(is_set.any(1), is_set.argmax(1), n_words)
    columns = first[:, None] + np.arange(_KEY_WORDS)
    taken = np.where(columns < n_words, np.take_along_axis(words, np.minimum(columns, n_words - 1), axis=1), 0)
    keys = np.empty((len(pages), 2 + 8 * _KEY_WORDS), np.uint8)
    keys[:, :2] = (n_words - first).astype(">u2")[:, None].view(np.uint8)  # the more zeros, the smaller
    keys[:, 2:] = taken.astype(np.uint64).view(np.uint8)
    return keys.view(f"S{keys.shape[1]}")[:, 0]
