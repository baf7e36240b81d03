import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.config import ConfigError, FrozenConfig, load_config


class Inner(FrozenConfig):
    block_size: int = 8
    rates: tuple[float, ...] = (1.0,)


class Outer(FrozenConfig):
    name: str = "a"
    lr: float = 1e-3
    inner: Inner = Inner()
    other: Inner | None = None


def test_unknown_key_names_the_nearest_valid_one():
    with pytest.raises(ConfigError, match=r"'block_sise'.*'block_size'"):
        Inner.build({"block_sise": 4})


def test_unknown_nested_key_in_optional_field_is_refused():
    with pytest.raises(ConfigError, match=r"'other\.block_sise'.*'block_size'"):
        load_config(Outer, overrides=["other.block_sise=4"])


def test_far_key_lists_the_valid_names():
    with pytest.raises(ConfigError, match="valid names are block_size, rates"):
        Inner.build({"zzz": 4})


def test_frozen():
    with pytest.raises(ValueError, match="frozen"):
        Outer().name = "b"


def test_file_then_overrides(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("name: b\ninner:\n  block_size: 4\n")
    config = load_config(Outer, file, ["lr=1e-4", "inner.rates=[1, 2.5]"])
    assert config == Outer(name="b", lr=1e-4, inner=Inner(block_size=4, rates=(1.0, 2.5)))


def test_scientific_notation_without_point_is_a_number():
    assert load_config(Outer, overrides=["lr=2e-5"]).lr == 2e-5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("inner: 3\n", "inner"),
        ("- 1\n", "must hold keys and values"),
        ("a: [1\n", "not valid YAML"),
        ("name: a\nname: b\n", "given twice"),
        ("lr: .nan\n", "lr"),
    ],
)
def test_bad_files_are_refused(tmp_path, text, message):
    file = tmp_path / "c.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_config(Outer, file)


def test_missing_file_and_bad_override(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(Outer, tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="key=value"):
        load_config(Outer, overrides=["lr"])


@given(
    name=st.text(st.characters(exclude_categories=["Cs"])),
    lr=st.floats(allow_nan=False, allow_infinity=False),
    size=st.integers(-(2**60), 2**60),
)
def test_json_round_trip(name, lr, size):
    config = Outer(name=name, lr=lr, inner=Inner(block_size=size))
    assert Outer.build(json.loads(config.to_json())) == config
