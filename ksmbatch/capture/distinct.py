"""All fingerprints that a capture has met, each once, and what tells their order where that is kept.

Merged in ever larger steps, so that the time per fingerprint does not grow with their number.
"""

from typing import Final

import numpy as np

_LEAST_PENDING: Final = 2**18


class Distinct:
    """A growing set of fingerprints; with `ordered`, each with the key of `fingerprint.order_keys`."""

    def __init__(self, *, ordered: bool) -> None:
        self.ordered = ordered
        self._fingerprints: np.ndarray = np.zeros(0, np.uint64)
        self._keys: np.ndarray | None = None
        self._pending: list[tuple[np.ndarray, np.ndarray | None]] = []
        self._n_pending = 0

    def add(self, fingerprints: np.ndarray, keys: np.ndarray | None = None) -> None:
        """Adds `fingerprints` (uint64[n]); `keys` (bytes[n]) if the set is ordered."""
        self._pending.append((fingerprints, keys))
        self._n_pending += fingerprints.size
        if self._n_pending >= max(_LEAST_PENDING, self._fingerprints.size):
            self._merge()

    def all(self) -> tuple[np.ndarray, np.ndarray | None]:
        """The fingerprints, ascending, and their keys."""
        self._merge()
        return self._fingerprints, self._keys

    def _merge(self) -> None:
        parts = [(self._fingerprints, self._keys), *self._pending]
        together = np.concatenate([fingerprints for fingerprints, _ in parts])
        if self.ordered:
            self._fingerprints, place = np.unique(together, return_index=True)
            keys = [part for _, part in parts if part is not None]
            self._keys = np.concatenate(keys)[place] if keys else None
        else:
            together.sort()  # np.unique() hashes where it need not sort, and is a seventh as fast
            self._fingerprints = together[np.diff(together, prepend=together[:1] + np.uint64(1)) != 0]
        self._pending, self._n_pending = [], 0


def dense_ids(fingerprints: np.ndarray, keys: np.ndarray | None, seed: int) -> tuple[np.ndarray, int]:
    """uint64[n]: ids 1 to n of `fingerprints` (uint64[n]), in random order, or in that of `keys`, equal ones in random order.

    The second value: how many have a key that another one has, too.
    """
    shuffled = np.random.default_rng(seed).permutation(fingerprints.size)
    n_ties = 0
    if keys is not None:
        shuffled = shuffled[keys[shuffled].argsort(kind="stable")]
        is_equal = keys[shuffled][1:] == keys[shuffled][:-1]
        n_ties = int((np.append(is_equal, False) | np.append(False, is_equal)).sum()) if fingerprints.size else 0
    ids = np.empty(fingerprints.size, np.uint64)
    ids[shuffled] = np.arange(1, fingerprints.size + 1, dtype=np.uint64)
    return ids, n_ties
