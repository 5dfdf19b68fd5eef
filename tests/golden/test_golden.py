"""Did results change? A small sweep in which much happens, against the tables kept here.

A failure may be right: then say so in the changelog under "Model", and accept the new tables.
"""

import pytest
from golden import make

from ksmbatch.metrics import MOVE_COUNTERS


@pytest.fixture(scope="module")
def made() -> make.Tables:
    return make.made()


def test_results_are_those_agreed_upon(made: make.Tables) -> None:
    if make.digest(made) == make.DIGEST.read_text().strip():
        return
    changed = list(make.differences(make.golden(), made))
    shown = "\n".join(changed[:20])
    pytest.fail(f"{len(changed)} values changed:\n{shown}\nIf this is meant: {make.ACCEPT}", pytrace=False)


def test_the_tables_kept_are_those_of_the_digest() -> None:
    assert make.digest(make.golden()) == make.DIGEST.read_text().strip()


def test_one_changed_value_is_told_with_its_place() -> None:
    tables = make.golden()
    column = tables["samples"].column_names.index("pages_shared")
    values = tables["samples"]["pages_shared"].to_pylist()
    changed = [*values[:9], values[9] + 1, *values[10:]]
    other = tables | {"samples": tables["samples"].set_column(column, "pages_shared", [changed])}
    assert make.digest(other) != make.digest(tables)
    assert list(make.differences(tables, other)) == [f"samples: row 9: pages_shared = {values[9] + 1}, was {values[9]}"]


def test_the_sweep_is_one_in_which_things_happen(made: make.Tables) -> None:
    last = made["runs"].to_pydict()
    never = {metric.name for metric in MOVE_COUNTERS} | {
        "unreachable_mappings",
        "stranded_pages",
        "knob_refused",
    }  # nothing moves
    never |= {"move_cpu_ns", "locks_taken", "locks_waited", "lock_wait_ns", "lock_hold_ns", "ksmd_wait_ns"}
    silent = {name for name, values in last.items() if not any(values)}
    assert silent <= never
