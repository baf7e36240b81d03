"""Faults of a configuration in words: the key, what it must be, what it was."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

_LONGEST = 300
"""Characters of a wrong value that are shown."""

_KINDS = {
    "int": "an integer",
    "float": "a number",
    "bool": "true or false",
    "string": "text",
    "list": "a list",
    "tuple": "a list",
    "dict": "a mapping of keys to values",
    "model": "a mapping of keys to values",
    "none": "null",
    "finite": "a finite number",
}
_RULES = {
    "greater_than": "greater than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
    "multiple_of": "a multiple of {multiple_of}",
    "literal_error": "{expected}",
    "too_short": "a list of at least {min_length}",
    "too_long": "a list of at most {max_length}",
    "string_too_short": "text of at least {min_length} characters",
    "string_too_long": "text of at most {max_length} characters",
}
_ENDINGS = ("type", "attributes_type", "parsing", "parsing_size", "from_float", "required", "number")
"""What a value must be, by the types of pydantic's errors or by their first word, with these after it."""


def sentences(error: ValidationError, values: Mapping[str, Any]) -> str:
    """Return what is wrong with the values of a configuration, a line for each key.

    Parameters
    ----------
    error
        What pydantic found. What none of the types of a union takes is one fault.
    values
        What it was given.
    """
    faults: dict[str, list[Any]] = {}
    for fault in error.errors():
        faults.setdefault(_place(fault, values), []).append(fault)
    for where, group in list(faults.items()):  # what is left of a list whose parts have faults is not its length
        if group[0]["type"] == "too_short" and any(other.startswith(f"{where}.") for other in faults):
            del faults[where]
    return "\n".join(_sentence(where, group) for where, group in faults.items())


def _place(fault: Any, values: Any) -> str:
    """Return the key of a fault with dots; pydantic's labels of the types of a union are left out."""
    parts = []
    for part in fault["loc"]:
        if isinstance(values, BaseModel):
            values = dict(values)
        listed = isinstance(values, (list, tuple)) and isinstance(part, int) and part < len(values)
        if listed or (isinstance(values, Mapping) and part in values):
            parts.append(str(part))
            values = values[part]
    if fault["type"] == "missing":
        parts.append(str(fault["loc"][-1]))
    return ".".join(parts or map(str, fault["loc"]))


def _must_be(fault: Any) -> str | None:
    kind = fault["type"]
    if kind in _RULES:
        limits = fault["ctx"].items()
        return _RULES[kind].format(**{name: f"{x:.12g}" if isinstance(x, float) else x for name, x in limits})
    word, _, rest = kind.partition("_")
    return _KINDS.get(word) if rest in _ENDINGS else None


def _sentence(where: str, group: Sequence[Any]) -> str:
    fault = group[0]
    message = str(fault["msg"]).removeprefix("Value error, ")
    if fault["type"] == "missing":
        return f"Key `{where}` must be given."
    if fault["type"] == "value_error" and isinstance(fault["input"], (Mapping, BaseModel)):
        message = f"{message.rstrip('.')}."  # a rule about several keys names their values itself
        return f"Key `{where}`: {message}" if where else message
    shown = repr(fault["input"])
    shown = shown if len(shown) <= _LONGEST else shown[:_LONGEST] + " ..."
    kinds = [_must_be(fault) for fault in group]
    if None in kinds:
        return f"Key `{where}`: {message.rstrip('.')}, but was {shown}."
    return f"Key `{where}` must be {' or '.join(dict.fromkeys(map(str, kinds)))}, but was {shown}."
