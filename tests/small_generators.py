"""Small parameters that let every feature of a generator show, on a host of two nodes, within four full scans.

It makes nothing.
"""

from typing import Any

from small_moves import MOVES

MIX = {"mms": 3, "pages_per_mm": 200, "zero": 0.1, "duplicated": 0.3, "group": [2, 9], "rewritten_per_scan": 0.1}
SMALL: dict[str, dict[str, Any]] = {
    "heavy-tail": {"pages_per_mm": 200, "mms": 3, "heavy_contents": 5, "heavy": 0.4, "rewritten_per_scan": 0.1},
    "jvm": {"pages_per_mm": 200, "shared_classes": 0.5, "rewritten_per_scan": 0.1},
    "mix": MIX,
    "pinned-guests": {"pages_per_guest": 200, "zero": 0.1, "shuffled": True, "rewritten_per_scan": 0.1},
    "python-prefork": {"pages_per_mm": 200, "workers": 3, "rewritten_per_scan": 0.1},
    "serverless": {"pages_per_mm": 200, "mms": 3, "functions": 2, "lifetime": "300ms", "lasts": "2s"},
    "vm-clones": {"pages_per_mm": 200, "mms": 3, "rewritten_per_scan": 0.1, "updated": 0.4},
    "zero-heavy": {"pages_per_mm": 200, "rewritten_per_scan": 0.1},
} | {name: MIX | {"move": move} for name, move in MOVES.items()}
# processes that do not all start at first: these come and go, those are forked
COME_AND_GO = {"serverless"}
FORKED = {"python-prefork"}
