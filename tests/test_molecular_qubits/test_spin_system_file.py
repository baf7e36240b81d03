import copy
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from molecular_qubits.spins.frames import euler_frame, oriented
from molecular_qubits.spins.point_dipoles import point_dipole_tensors
from molecular_qubits.spins.spin_system_file import (
    SpinSystemFileError,
    load_spin_system,
    parse_spin_system,
    save_spin_system,
    spin_system_to_dict,
)
from molecular_qubits.spins.spin_system_schema import COUPLING_KEYS, SCHEMA, SPIN_KEYS, TOP_KEYS
from molecular_qubits.spins.system import SpinSystem
from molecular_qubits.spins.tensors import zfs_tensor
from molecular_qubits.units import MHZ_TO_CM1, MILLITESLA_TO_CM1

EXAMPLE = {
    "format": "spin system",
    "version": 1,
    "conventions": {"exchange": "-2 J S1.S2", "zfs": "D (Sz^2 - S(S+1)/3) + E (Sx^2 - Sy^2)"},
    "spins": [
        {
            "name": "radical",
            "spin": 0.5,
            "g": {"principal": [2.009, 2.006, 2.002], "frame": {"euler_zyz": ["10 deg", "20 deg", "0.5 rad"]}},
            "position": ["0 angstrom", "0 angstrom", "0.9 nm"],
        },
        {
            "name": "triplet",
            "spin": 1,
            "zfs": {"d": "1.9 GHz", "e": "-240 MHz", "frame": {"euler_zyz": ["0 deg", "90 deg", "0 deg"]}},
            "position": ["0 angstrom", "0 angstrom", "0 angstrom"],
        },
        {"name": "nitrogen", "isotope": "14N", "zfs": {"principal": [-1, -1, 2], "unit": "MHz"}},
    ],
    "couplings": [
        {"between": ["triplet", "radical"], "exchange": "68 cm^-1", "dipolar": "from positions"},
        {"between": ["radical", "nitrogen"], "hyperfine": {"principal": [0.4, 0.4, 2.5], "unit": "mT"}},
    ],
    "field": "350 mT",
}


def parsed(**changes):
    return parse_spin_system(json.dumps({**EXAMPLE, **changes}))


def changed(path, value):
    data = copy.deepcopy(EXAMPLE)
    place = data
    for key in path[:-1]:
        place = place[key]
    if value is None:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return json.dumps(data)


def same(first, second):
    assert (first.names, first.spins, first.isotopes) == (second.names, second.spins, second.isotopes)
    assert first.exchange_cm1 == second.exchange_cm1
    np.testing.assert_array_equal(np.array(first.g), np.array(second.g))
    for attribute in ("zfs", "dipolar", "hyperfine"):
        left, right = getattr(first, attribute), getattr(second, attribute)
        assert left.keys() == right.keys()
        for key, tensor in left.items():
            np.testing.assert_array_equal(tensor, right[key])


def test_a_file_with_units_frames_and_positions_becomes_the_system():
    found = parsed()
    system = found.system
    np.testing.assert_array_equal(found.field_tesla, [0, 0, 0.35])
    assert system.exchange_cm1 == {(0, 1): 68.0}
    g = oriented((2.009, 2.006, 2.002), euler_frame((10, 20, np.degrees(0.5))))
    np.testing.assert_allclose(system.g[0], g, atol=1e-14)
    d = zfs_tensor(1900 * MHZ_TO_CM1, -240 * MHZ_TO_CM1, euler_frame((0, 90, 0)))
    np.testing.assert_allclose(system.zfs[1], d, atol=1e-15)
    np.testing.assert_allclose(system.zfs[2], MHZ_TO_CM1 * np.diag([-1, -1, 2]), atol=1e-18)
    np.testing.assert_allclose(system.hyperfine[0, 2], MILLITESLA_TO_CM1 * np.diag([0.4, 0.4, 2.5]))
    dipole = point_dipole_tensors([(0, 0, 9.0), (0, 0, 0)], (g, 2.00231930436092))[0, 1]
    np.testing.assert_allclose(system.dipolar[0, 1], dipole, rtol=1e-12, atol=1e-18)
    assert system.isotopes == {2: "14N"}


@pytest.mark.parametrize(
    ("convention", "factor"),
    [("-2 J S1.S2", 1), ("+2 J S1.S2", -1), ("-J S1.S2", 0.5), ("+J S1.S2", -0.5), ("-J (2 S1.S2 + 1/2)", 1)],
)
def test_every_convention_of_exchange_gives_its_gap(convention, factor):
    # the triplet of two spins 1/2 lies below the singlet by 2 J of -2 J S1.S2
    text = json.dumps(
        {
            "format": "spin system",
            "version": 1,
            "conventions": {"exchange": convention},
            "spins": [{"name": "a", "spin": 0.5}, {"name": "b", "spin": 0.5}],
            "couplings": [{"between": ["a", "b"], "exchange": "3 cm^-1"}],
        }
    )
    assert parse_spin_system(text).system.exchange_cm1 == {(0, 1): 3 * factor}


def test_the_sign_of_e_follows_its_convention():
    other = {"exchange": "-2 J S1.S2", "zfs": "D (Sz^2 - S(S+1)/3) - E (Sx^2 - Sy^2)"}
    frame = euler_frame((0, 90, 0))
    found = parsed(conventions=other).system.zfs[1]
    np.testing.assert_allclose(found, zfs_tensor(1900 * MHZ_TO_CM1, 240 * MHZ_TO_CM1, frame), atol=1e-15)


def random_system(seed):
    rng = np.random.default_rng(seed)
    symmetric = rng.normal(size=(4, 3, 3))
    symmetric = symmetric + symmetric.transpose(0, 2, 1)
    zfs = symmetric[0] - np.trace(symmetric[0]) * np.eye(3) / 3
    zfs[2, 2] = -zfs[0, 0] - zfs[1, 1]
    return SpinSystem(
        (0.5, 1, 1, 0.5),
        g=(rng.normal(2, 0.1, size=(3, 3)), rng.normal(2, 0.1, size=3), None, float(rng.normal())),
        exchange_cm1={(0, 1): float(rng.normal() * 10.0 ** rng.integers(-12, 6))},
        zfs={1: zfs, 2: zfs * 1e-5},
        dipolar={(0, 1): symmetric[1], (2, 3): symmetric[2] * 1e-9},
        hyperfine={(0, 2): symmetric[3], (1, 3): float(rng.normal())},
        isotopes={2: "14N", 3: "1H"},
        names=("r", "t", "n", "h"),
    )


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=50, deadline=None)
def test_writing_and_reading_is_exact(seed, tmp_path_factory):
    system = random_system(seed)
    field = np.random.default_rng(seed).normal(size=3)
    path = tmp_path_factory.mktemp("file") / "system.json"
    save_spin_system(path, system, field)
    again = load_spin_system(path)
    same(again.system, system)
    np.testing.assert_array_equal(again.field_tesla, field)
    assert spin_system_to_dict(again.system, field) == spin_system_to_dict(system, field)
    assert [found.name for found in path.parent.iterdir()] == ["system.json"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            changed(["conventions", "exchange"], None),
            r'J of couplings\[0\] is not stated; add "conventions".*-2 J S1.S2',
        ),
        (changed(["conventions", "zfs"], None), r'D and E of spins\[1\].zfs is not stated; add "conventions": {"zfs"'),
        (changed(["conventions"], None), 'is not stated; add "conventions"'),
        (changed(["conventions", "exchange"], "-2JS1S2"), "not known: did you mean '-2 J S1.S2'"),
        (changed(["couplings", 0, "exchange"], 68), r"bare number 68; write '68 cm\^-1'"),
        (changed(["couplings", 0, "exchange"], "68 T"), "unit of energy"),
        (
            changed(["couplings", 0, "exchanges"], "1 K"),
            r"Unknown key 'exchanges' in couplings\[0\]: did you mean 'exchange'",
        ),
        (changed(["spins", 0, "gg"], 2.0), "did you mean 'g'"),
        (changed(["fields"], "1 T"), "did you mean 'field'"),
        (changed(["field"], 0.35), "`field` must state its unit"),
        (changed(["field"], ["1 T", "0 T"]), "a list of 3"),
        (changed(["version"], 2), '"version": 1'),
        (changed(["spins"], []), "at least one spin"),
        (changed(["spins", 2, "spin"], 1), '"spin" .* or "isotope"'),
        (changed(["spins", 2, "isotope"], "14n"), "did you mean '14N'"),
        (changed(["spins", 0, "name"], "triplet"), "different names"),
        (changed(["spins", 0, "position"], None), "'radical' has no \"position\""),
        (changed(["spins", 0, "position"], ["1 nm"]), "3 lengths"),
        (changed(["spins", 1, "zfs"], {"e": "1 MHz"}), 'must have "d"'),
        (changed(["spins", 1, "zfs"], {"matrix": np.eye(3).tolist(), "unit": "MHz"}), "traceless"),
        (changed(["spins", 1, "zfs"], {"matrix": [[0, 1, 0], [0, 0, 0], [0, 0, 0]], "unit": "MHz"}), "symmetric"),
        (changed(["spins", 1, "zfs"], {"matrix": np.zeros((3, 3)).tolist()}), "must state its unit"),
        (changed(["spins", 1, "zfs", "frame"], {"euler_zyz": ["0 deg"]}), "list of 3 angles"),
        (changed(["spins", 1, "zfs", "frame"], {"axes": (2 * np.eye(3)).tolist()}), "rotation"),
        (changed(["spins", 0, "g"], "2.0"), "must be a number"),
        (changed(["couplings", 1, "hyperfine"], {"matrix": [[1]], "unit": "mT"}), "3 rows of 3"),
        (changed(["couplings", 1, "between"], ["radical", "nitrogn"]), "did you mean 'nitrogen'"),
        (changed(["couplings", 1, "between"], ["radical", "triplet"]), "an electron and a nucleus"),
        (changed(["couplings", 1], EXAMPLE["couplings"][0]), "a second time"),
        ("{", "not valid JSON"),
        ("[]", "object with keys"),
        ('{"format": "spin system", "format": "x"}', "given twice"),
        (json.dumps({**EXAMPLE, "field": float("nan")}), "NaN"),
    ],
)
def test_files_that_leave_something_open_are_refused_with_what_to_write(text, message):
    with pytest.raises(SpinSystemFileError, match=message):
        parse_spin_system(text)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(SpinSystemFileError, match=r"none\.json"):
        load_spin_system(tmp_path / "none.json")


def test_the_schema_lists_the_keys_that_the_reader_knows():
    properties = SCHEMA["properties"]
    assert set(properties) == set(TOP_KEYS)
    assert set(properties["spins"]["items"]["properties"]) == set(SPIN_KEYS)
    assert set(properties["couplings"]["items"]["properties"]) == set(COUPLING_KEYS)
