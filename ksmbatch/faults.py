"""What pydantic finds wrong with a table of keys, said in our words: one fault, its key, its value and the rule.

It has no rules of its own; they are the types and bounds of the models.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticCustomError, PydanticUndefined

from ksmbatch.documents import nearest
from ksmbatch.errors import InputError

Model = TypeVar("Model", bound=BaseModel)

_BREACH: Final = "breach"
_RULES: Final = {
    "missing": "is missing",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "string_type": "must be a string",
    "bool_type": "must be true or false",
    "tuple_type": "must be a list",
    "dict_type": "must be a table",
}


def breach(rule: str, hint: str | None = None) -> PydanticCustomError:
    """What a validator of ours raises: the rule that was broken, and a hint."""
    return PydanticCustomError(_BREACH, "{rule}", {"rule": rule, "hint": hint})


def validated(model: type[Model], keys: Mapping[str, Any], prefix: str, context: Mapping[str, Any] | None = None) -> Model:
    """`model` made from `keys`; raises InputError for the first fault, its key beginning with `prefix`."""
    try:
        return model.model_validate(dict(keys), context=context)
    except ValidationError as error:
        raise _input_error(model, error.errors()[0], prefix) from None


def refuse_unknown(section: str, keys: Mapping[str, Any], known: Sequence[str]) -> None:
    """Raises InputError for the first of a section's `keys` that is not among the `known` full keys."""
    for name, value in keys.items():
        if (key := f"{section}.{name}") not in known:
            raise InputError(key=key, value=value, rule="unknown key", hint=nearest(key, known))


def bounds(field: FieldInfo) -> tuple[int | None, int | None]:
    """The least and the greatest value that `field` takes; None where there is no bound."""
    low = next((mark.ge for mark in field.metadata if hasattr(mark, "ge")), None)
    high = next((mark.le for mark in field.metadata if hasattr(mark, "le")), None)
    return low, high


def default_text(model: type[BaseModel], name: str) -> str | None:
    """The default of a field as a hint: its own words, or the plain value; None where that says nothing."""
    field = model.model_fields[name]
    if isinstance(field.json_schema_extra, dict) and "hint" in field.json_schema_extra:
        return str(field.json_schema_extra["hint"])
    default = field.default
    if default is None or default is PydanticUndefined or isinstance(default, tuple):
        return None
    return f"default {default}"


def _input_error(model: type[BaseModel], fault: ErrorDetails, prefix: str) -> InputError:
    path = [*fault["loc"]]
    key = prefix + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    context = fault.get("ctx", {})
    if fault["type"] == "missing":
        return InputError(key=key, rule=_RULES["missing"])
    if fault["type"] == _BREACH:
        return InputError(key=key, value=fault["input"], rule=context["rule"], hint=context["hint"])
    field = model.model_fields.get(str(path[0])) if len(path) == 1 else None
    hint = default_text(model, str(path[0])) if field else None
    return InputError(key=key, value=fault["input"], rule=_rule(fault["type"], context, field), hint=hint)


def _rule(kind: str, context: Mapping[str, Any], field: FieldInfo | None) -> str:
    if kind in ("greater_than_equal", "less_than_equal"):
        low, high = bounds(field) if field else (None, None)
        if (low, high) == (0, 1) and field and field.annotation is int:
            return "must be 0 or 1"
        if low is not None and high is not None and high - low < 256:
            return f"must be {low} to {high}"
        return f"must be >= {context['ge']}" if kind == "greater_than_equal" else f"must be <= {context['le']}"
    return _RULES.get(kind, "has a type or value that does not fit")
