"""Frozen configuration models: YAML files, ``key=value`` overrides and JSON round trips.

Unknown keys are refused with the nearest valid name, at any depth.
"""

import difflib
import re
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from shared.config_faults import sentences
from shared.files import reason


class ConfigError(ValueError):
    """A configuration that cannot be used; the message is one sentence per fault."""


class FrozenConfig(BaseModel):
    """Base of every configuration: immutable, with unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    def __init__(self, /, **values: Any) -> None:
        """Validate the values of the fields; `ConfigError` as from `build`."""
        _refuse_unknown(type(self), values)
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ConfigError(sentences(error, values)) from None

    # As pydantic marks its own: configurations inside this one are validated without it, so faults keep their place.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    @classmethod
    def of(cls, config: Self | None, name: str = "config") -> Self:
        """Return a configuration as it is, the defaults for ``None``; a `TypeError` that names the argument else."""
        if not isinstance(config, cls | None):
            article = "an" if cls.__name__[0] in "AEIOU" else "a"
            raise TypeError(
                f"Argument `{name}` must be {article} {cls.__name__} or None, but was a {type(config).__name__}."
            )
        return cls() if config is None else config

    @classmethod
    def build(cls, values: Mapping[str, Any]) -> Self:
        """Validate a mapping of values.

        Parameters
        ----------
        values
            Field names and values, nested mappings for nested configurations.

        Raises
        ------
        ConfigError
            If a key is unknown (the nearest valid name is given) or a value is not valid.
        """
        _refuse_unknown(cls, values)
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            raise ConfigError(sentences(error, values)) from error

    def to_json(self) -> str:
        """Return the configuration as JSON text, keys in the order of the fields."""
        return self.model_dump_json(indent=2)

    def to_yaml(self) -> str:
        """Return all keys with their values as the text of a configuration file, keys in the order of the fields."""
        return yaml.dump(_all_values(self), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote.

        Raises
        ------
        ConfigError
            If the text is not a JSON object or does not fit the configuration.
        """
        return cls.build(_mapping(_parse_yaml(text, "The JSON text"), "The JSON text"))


Config = TypeVar("Config", bound=FrozenConfig)


def load_config(
    model: type[Config], path: str | Path | None = None, overrides: Iterable[str] = (), base: Config | None = None
) -> Config:
    """Build a configuration from defaults, then a YAML file, then overrides.

    Parameters
    ----------
    model
        The configuration class.
    path
        A YAML (or JSON) file with some or all of the fields; ``None`` keeps the defaults.
    overrides
        Strings ``key=value`` with dots for nested keys; the value is read as YAML (``lr=1e-4``, ``sizes=[1, 2]``).
    base
        Values to start from in place of the defaults of `model`.

    Returns
    -------
    Config
        The resolved, frozen configuration.

    Raises
    ------
    ConfigError
        If the file cannot be read, a key is unknown or a value does not fit.
    """
    values: dict[str, Any] = {} if base is None else base.model_dump(mode="json")
    for change in read_values(path, overrides):
        _merge(values, change)
    return model.build(values)


def read_values(path: str | Path | None = None, overrides: Iterable[str] = ()) -> list[dict[str, Any]]:
    """Read what `load_config` is given, without knowing the keys.

    Returns
    -------
    list of dict
        The values of the file, then those of each override.

    Raises
    ------
    ConfigError
        If the file cannot be read or is not YAML, or an override does not read ``key=value``.
    """
    found = []
    if path is not None:
        where = f"The file {str(path)!r}"
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"The configuration file {str(path)!r} cannot be read: {reason(error)}.") from error
        found.append(_mapping(_parse_yaml(text, where), where))
    for override in overrides:
        key, separator, text = override.partition("=")
        names = key.strip().split(".")
        if not separator or not all(names):
            raise ConfigError(f"An override must read key=value, but was {override!r}.")
        value: Any = _parse_yaml(text, f"The override {override!r}")
        for name in reversed(names):
            value = {name: value}
        found.append(value)
    return found


def changed(config: Config, *changes: Mapping[str, Any]) -> Config:
    """Return a configuration with some keys changed, nested mappings key by key; later changes win.

    Raises
    ------
    ConfigError
        If a key is unknown or a value does not fit.
    """
    values = config.model_dump(mode="json")
    for change in changes:
        _merge(values, change)
    return config.build(values)


def nearest(name: str, valid: Iterable[str]) -> str:
    """Return a hint that names the valid name nearest to `name`, or lists them all."""
    names = sorted(valid)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"valid names are {', '.join(names)}."


def check_name(name: str, valid: Sequence[str], what: str) -> str:
    """Return `name` if it is valid.

    Parameters
    ----------
    name
        What was given.
    valid
        The names that there are.
    what
        What the message calls it, such as "Argument `task`".

    Raises
    ------
    ValueError
        If there is no such name; the message lists those that there are and asks for the nearest, if one is near.
    """
    if name in valid:
        return name
    raise ValueError(f"{what} must be one of {', '.join(valid)}, but was {name!r}.{suggestion(name, valid)}")


def suggestion(name: str, valid: Iterable[str]) -> str:
    """Return the question, after a space, whether the valid name nearest to `name` was meant; nothing if none is near.

    For a message that cannot list the valid names (`check_name` does).
    """
    close = difflib.get_close_matches(str(name), list(valid), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def check_left_out(config: FrozenConfig, keys: Mapping[str, str]) -> None:
    """Refuse values that another key replaces, so that none is ignored without a word.

    Parameters
    ----------
    config
        The configuration.
    keys
        By the key, with dots, that must be left out: the key to set in place of it.

    Raises
    ------
    ValueError
        If one of them is not at its default.
    """
    for key, instead in keys.items():
        *outer, name = key.split(".")
        part: Any = config
        for word in outer:
            part = getattr(part, word)
        if part is not None and getattr(part, name) != type(part).model_fields[name].default:
            raise ValueError(f"Key `{key}` must be left out (set `{instead}`), but was {getattr(part, name)!r}.")


class _Loader(yaml.SafeLoader):
    """Safe YAML in which 1e-4 is a number, as in YAML 1.2, and a key given twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = {str(key) for key in keys if keys.count(key) > 1}
        if twice:
            raise yaml.constructor.ConstructorError(None, None, f"key {sorted(twice)[0]!r} is given twice", None)
        return super().construct_mapping(node, deep=deep)


_FLOAT = r"^[-+]?(?:\d+\.?\d*|\.\d+)[eE][-+]?\d+$"
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(_FLOAT), list("-+.0123456789"))


class _Dumper(yaml.SafeDumper):
    """Lists of numbers and words in one line; all else one key a line."""

    def represent_sequence(self, tag: str, sequence: Any, flow_style: bool | None = None) -> Any:
        plain = not any(isinstance(value, (Mapping, list)) and value for value in sequence)
        return super().represent_sequence(tag, sequence, flow_style=plain if flow_style is None else flow_style)


def _all_values(config: BaseModel) -> dict[str, Any]:
    """Return the values of all fields, also of those that are left out of the JSON where they are the default."""
    values = config.model_dump(mode="json")
    found = {}
    for name in type(config).model_fields:
        value = getattr(config, name)
        found[name] = _all_values(value) if isinstance(value, BaseModel) else values.get(name, value)
    return found


def _parse_yaml(text: str, where: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)  # a SafeLoader
    except yaml.YAMLError as error:
        raise ConfigError(f"{where} is not valid YAML: {_yaml_fault(error)}.") from error


def _yaml_fault(error: yaml.YAMLError) -> str:
    """Return what is wrong and where, without the text around it."""
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem is None:
        return " ".join(str(error).split())
    words = " ".join(filter(None, (error.context, error.problem)))
    mark = error.problem_mark
    return words if mark is None else f"{words} in line {mark.line + 1}, column {mark.column + 1}"


def _mapping(values: Any, where: str) -> dict[str, Any]:
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{where} must hold keys and values, but holds a {type(values).__name__}.")
    return {str(key): value for key, value in values.items()}


def _merge(into: dict[str, Any], values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            into[key] = dict(into[key])
            _merge(into[key], value)
        else:
            into[key] = value


def _models_in(annotation: Any) -> Iterable[type[FrozenConfig]]:
    if isinstance(annotation, type) and issubclass(annotation, FrozenConfig):
        yield annotation
    elif typing.get_origin(annotation) in (typing.Union, types.UnionType, typing.Annotated):
        for argument in typing.get_args(annotation):
            yield from _models_in(argument)


def _unknown_keys(model: type[FrozenConfig], values: Mapping[str, Any], prefix: str = "") -> Iterable[str]:
    for key, value in values.items():
        field = model.model_fields.get(key)
        if field is None:
            yield f"Unknown key {prefix + str(key)!r}: {nearest(str(key), model.model_fields)}"
        elif isinstance(value, Mapping):
            for nested in _models_in(field.annotation):
                yield from _unknown_keys(nested, value, f"{prefix}{key}.")


def _refuse_unknown(model: type[FrozenConfig], values: Mapping[str, Any]) -> None:
    unknown = list(_unknown_keys(model, values))
    if unknown:
        raise ConfigError("\n".join(unknown))
