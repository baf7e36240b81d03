"""Dipolar coupling of radical and triplet: point dipoles far away, and what is committed of the paper's molecules."""

import json

import numpy as np
import pytest

from molecular_qubits.electronic.exchange import exchange_couplings
from molecular_qubits.experiments import dipolar_tensors
from molecular_qubits.experiments.exchange_rows import Calculation
from molecular_qubits.experiments.tensors import point_dipole_d_cm1
from molecular_qubits.structure.molecule import Molecule
from shared.artifacts import Cache

FAR = Molecule(("H", "C", "H", "H"), ((0.0, 8.0, 0.0), (0.0, 0.0, 0.0), (0.9887, 0.0, 0.4349), (-0.9887, 0.0, 0.4349)))
"""A hydrogen atom on the normal of triplet methylene."""


def test_two_points_are_a_pair_of_dipoles():
    first, second = np.zeros((1, 3)), np.array([[0.0, 0.0, 5.0]])
    tensor = dipolar_tensors.point_dipoles_cm1(first, np.array([2.0]), second, np.array([-0.5]))
    assert np.diag(tensor) * 1.5 == pytest.approx(np.array([-1, -1, 2]) * point_dipole_d_cm1(5.0))
    assert np.trace(tensor) == pytest.approx(0, abs=1e-15)
    many = dipolar_tensors.point_dipoles_cm1(np.zeros((3, 3)), np.array([2.0, -1.0, 1.0]), second, np.array([1.0]))
    assert many == pytest.approx(tensor)  # populations count by their share


def test_a_row_holds_the_tensors_of_a_distant_radical(tmp_path):
    result = exchange_couplings(
        FAR, [[0], [1, 2, 3]], spins=[0.5, 1.0], xc="hf", basis="6-31g", stability=False, cache=Cache(tmp_path)
    )
    row = dipolar_tensors.tensors_row(Calculation("mono", xc="hf", basis="6-31g"), result)
    expected = 2 * point_dipole_d_cm1(8.0)  # S_R.D.S_T: twice the D of two electrons that are one triplet
    assert row["D_RT (cm^-1)"] == pytest.approx(expected, rel=0.02)
    assert row["D_RT, point dipoles (cm^-1)"] == pytest.approx(row["D_RT (cm^-1)"], rel=0.02)
    assert row["3 D of the quartet (cm^-1)"] == pytest.approx(row["D_T (cm^-1)"] + row["D_RT (cm^-1)"])
    assert row["axis of D_RT to the normal (°)"] < 2
    assert sum(row["D_RT, principal values (cm^-1)"]) == pytest.approx(0, abs=1e-8)
    assert (row["spin of the radical"], row["spin of the triplet"]) == pytest.approx((1, 2), abs=0.01)


def test_committed_couplings_are_those_of_their_distance_and_lift_the_triplet_towards_the_measured_sum(capsys):
    assert dipolar_tensors.main([]) == 0
    assert "3 D measured" in capsys.readouterr().out
    rows = dipolar_tensors.compared_rows()
    assert [row["molecule"] for row in rows] == ["mono", "verdazyl-mono"]
    for row in rows:
        assert row["D_RT (cm^-1)"] == pytest.approx(row["D_RT, point dipoles (cm^-1)"], rel=0.3)
        assert (
            0 < row["D_T (cm^-1)"] < row["3 D of the quartet (cm^-1)"] < row["3 D measured (cm^-1)"]
        )  # B3LYP: too low


def test_the_file_is_made_only_where_asked(tmp_path, monkeypatch):
    found = dipolar_tensors.read()
    monkeypatch.setattr(dipolar_tensors, "PATH", tmp_path / "dipolar_tensors.json")
    monkeypatch.setattr(dipolar_tensors, "measure", lambda: found)
    assert dipolar_tensors.main([]) == 2
    assert dipolar_tensors.main(["--measure"]) == 0
    assert json.loads(dipolar_tensors.PATH.read_text(encoding="utf-8")) == found
