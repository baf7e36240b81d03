import json
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from shared.config import ConfigError, FrozenConfig, check_name, load_config


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
    with pytest.raises(ConfigError, match=r"none\.yaml' cannot be read: no such file or directory\.$"):
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


class Limited(FrozenConfig):
    count: int | dict[str, int] = 1
    share: float = Field(0.5, gt=0, le=1)
    quick: bool = False
    kind: Literal["a", "b"] = "a"
    inner: Inner | None = None
    sizes: tuple[int, ...] = Field((1,), min_length=1)
    # Left out of the JSON where it is the default.
    late: bool = Field(False, exclude_if=lambda value: value is False)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("count=x", "Key `count` must be an integer or a mapping of keys to values, but was 'x'."),
        ("share=0", "Key `share` must be greater than 0, but was 0."),
        ("share=1.5", "Key `share` must be at most 1, but was 1.5."),
        ("quick=4", "Key `quick` must be true or false, but was 4."),
        ("kind=c", "Key `kind` must be 'a' or 'b', but was 'c'."),
        ("inner={block_size: 1.5}", "Key `inner.block_size` must be an integer, but was 1.5."),
        ("inner=1", "Key `inner` must be a mapping of keys to values, but was 1."),
        ("sizes=[1, x]", "Key `sizes.1` must be an integer, but was 'x'."),
        ("sizes=[]", "Key `sizes` must be a list of at least 1, but was []."),
    ],
)
def test_wrong_values_are_said_in_one_sentence(override, message):
    with pytest.raises(ConfigError) as fault:
        load_config(Limited, overrides=[override])
    assert str(fault.value) == message


def test_a_constructor_raises_the_same_sentence():
    with pytest.raises(ConfigError) as fault:
        Limited(share=2)
    assert str(fault.value) == "Key `share` must be at most 1, but was 2."
    with pytest.raises(ConfigError, match=r"'inner\.block_sise': did you mean 'block_size'"):
        Limited(inner={"block_sise": 1})
    assert Limited(inner={"block_size": 4}).inner == Inner(block_size=4)


def test_yaml_text_has_all_keys_and_gives_the_same_again():
    config = Limited(count={"a": 1}, inner=Inner(rates=(1e-7,)))
    text = config.to_yaml()
    assert [line.split(":")[0] for line in text.splitlines() if line[0] != " "] == list(Limited.model_fields)
    assert Limited.from_json(text) == config


def test_bad_yaml_says_where_without_a_name_of_ours(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("a: [1\n")
    with pytest.raises(ConfigError, match=r"got '<stream end>' in line 2, column 1\.$"):
        load_config(Outer, file)


def test_a_name_is_suggested_only_if_it_is_near():
    with pytest.raises(ValueError, match=r"^Key `task` must be one of cola, boolq, but was 'foo'\.$"):
        check_name("foo", ("cola", "boolq"), "Key `task`")
    with pytest.raises(ValueError, match=r"Did you mean 'boolq'\?$"):
        check_name("bolq", ("cola", "boolq"), "Key `task`")
