"""Pages to 64-bit fingerprints under a random key that is forgotten with the process: equal pages, and by chance no others.

A fingerprint never gets into a trace (`finish` puts dense ids in its place). Which function is meant for whom, and how likely
an accident is: docs/privacy.md.
"""

import hashlib
import secrets
from typing import Final

import numpy as np

KINDS: Final = ("xxh64", "blake2b")
ZERO: Final = np.uint64(0)  # of the page of zeros, whatever the key
_KEY_WORDS: Final = 8


class Fingerprints:
    """Fingerprints of the `kind` "xxh64" (fast; who knows the function can make pages that collide) or "blake2b"."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._key = secrets.token_bytes(32)
        self._seed = secrets.randbits(64)

    def of(self, pages: np.ndarray) -> np.ndarray:
        """uint64[n]: those of `pages` (uint8[n, 4096], contiguous)."""
        if self.kind == "xxh64":
            found = self._xxh64(pages)
        else:
            digests = (hashlib.blake2b(page, digest_size=8, key=self._key).digest() for page in pages)
            found = np.frombuffer(b"".join(digests), np.uint64).copy()
        found[found == ZERO] = 1
        found[~np.bitwise_or.reduce(pages.view(np.uint64), axis=1).astype(np.bool_)] = ZERO
        return found

    def _xxh64(self, pages: np.ndarray) -> np.ndarray:
        from xxhash import xxh64_intdigest

        return np.fromiter((xxh64_intdigest(page, self._seed) for page in pages), np.uint64, len(pages))


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
