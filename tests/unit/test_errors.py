"""Is every error one line that names where, what and the rule?"""

import pickle

import pytest

from ksmbatch.errors import InputError, KsmbatchError, UndefinedBehaviour, show_value


def test_all_parts_make_the_line_of_the_style_guide() -> None:
    error = InputError(where="configs/x.toml", key="ksm.pages_to_scan", value=0, rule="must be >= 1", hint="kernel default 100")
    assert str(error) == "configs/x.toml: ksm.pages_to_scan = 0: must be >= 1 (kernel default 100)"


@pytest.mark.parametrize(
    ("parts", "line"),
    [
        ({}, "no such file"),
        ({"where": "a.toml"}, "a.toml: no such file"),
        ({"key": "k"}, "k: no such file"),
        ({"value": 3}, "3: no such file"),
        ({"where": "a.toml", "key": "k"}, "a.toml: k: no such file"),
        ({"key": "k", "value": None}, "k = null: no such file"),
        ({"value": "x", "hint": "did you mean y?"}, '"x": no such file (did you mean y?)'),
    ],
)
def test_parts_left_out_leave_no_trace(parts: dict[str, object], line: str) -> None:
    assert str(InputError(rule="no such file", **parts)) == line  # type: ignore[arg-type]  # a table of mixed types


def test_a_long_value_is_shortened_to_60_characters() -> None:
    shown = show_value(list(range(1000)))
    assert len(shown) == 60
    assert shown.endswith("...")


def test_a_value_that_json_does_not_know_is_shown_as_text() -> None:
    assert show_value(frozenset({1})) == "frozenset({1})"
    assert show_value(16**5000).startswith("0x1000")


def test_a_line_break_in_a_file_name_does_not_break_the_line() -> None:
    assert str(InputError(where="a\nb.toml", rule="no such file")) == "a\\nb.toml: no such file"


def test_an_error_survives_the_way_back_from_a_worker_process() -> None:
    error = InputError(where="a.toml", key="k", value=[1, 2], rule="must be a number", hint="such as 1")
    copy = pickle.loads(pickle.dumps(error))
    assert isinstance(copy, InputError)
    assert str(copy) == str(error)
    assert (copy.where, copy.key, copy.rule, copy.hint) == ("a.toml", "k", "must be a number", "such as 1")


def test_a_fault_can_be_given_its_place_afterwards() -> None:
    error = InputError(key="zero", value=2, rule="must be <= 1", hint="a share")
    assert str(error.at(where="a.toml", key="workload.zero")) == "a.toml: workload.zero = 2: must be <= 1 (a share)"
    assert str(error.at(where="a.toml")) == "a.toml: zero = 2: must be <= 1 (a share)"


def test_bad_input_exits_2_and_a_kernel_in_freed_memory_1() -> None:
    assert issubclass(InputError, KsmbatchError)
    assert (InputError.exit_status, UndefinedBehaviour.exit_status) == (2, 1)
