"""Frozen configuration models: YAML files, ``key=value`` overrides and JSON round trips.

Unknown keys are refused with the nearest valid name, at any depth.
"""

import difflib
import re
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError


class ConfigError(ValueError):
    """A configuration that cannot be used; the message is one sentence per fault."""


class FrozenConfig(BaseModel):
    """Base of every configuration: immutable, with unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

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
        unknown = list(_unknown_keys(cls, values))
        if unknown:
            raise ConfigError("\n".join(unknown))
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            raise ConfigError("\n".join(_fault(fault) for fault in error.errors())) from error

    def to_json(self) -> str:
        """Return the configuration as JSON text, keys in the order of the fields."""
        return self.model_dump_json(indent=2)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote.

        Raises
        ------
        ConfigError
            If the text is not a JSON object or does not fit the configuration.
        """
        return cls.build(_mapping(_parse_yaml(text, "JSON text"), "JSON text"))


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
    if path is not None:
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"The configuration file {str(path)!r} cannot be read: {error}.") from error
        _merge(values, _mapping(_parse_yaml(text, f"file {str(path)!r}"), f"file {str(path)!r}"))
    for override in overrides:
        key, separator, text = override.partition("=")
        names = key.strip().split(".")
        if not separator or not all(names):
            raise ConfigError(f"An override must read key=value, but was {override!r}.")
        value: Any = _parse_yaml(text, f"override {override!r}")
        for name in reversed(names):
            value = {name: value}
        _merge(values, value)
    return model.build(values)


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


_LONGEST = 300
"""Characters of a wrong value that are shown."""


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


def _parse_yaml(text: str, where: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)  # a SafeLoader
    except yaml.YAMLError as error:
        raise ConfigError(f"The {where} is not valid YAML: {' '.join(str(error).split())}.") from error


def _mapping(values: Any, where: str) -> dict[str, Any]:
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"The {where} must hold keys and values, but holds a {type(values).__name__}.")
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


def _fault(fault: Any) -> str:
    where = ".".join(str(part) for part in fault["loc"]) or "configuration"
    message = str(fault["msg"]).removeprefix("Value error, ")
    if fault["type"] == "value_error" and isinstance(fault["input"], (Mapping, BaseModel)):
        return f"Key {where!r}: {message.rstrip('.')}."  # a rule about several keys names their values itself
    shown = repr(fault["input"])
    return f"Key {where!r}: {message}, but was {shown if len(shown) <= _LONGEST else shown[:_LONGEST] + ' ...'}."
