"""The committed triplet energies: a run keeps what is there, computes what is missing, and shows the table."""

import json

import pytest

from molecular_qubits.experiments import triplet_energy
from molecular_qubits.experiments.triplet_energy import FUNCTIONALS, main, read
from shared.artifacts import write_json


@pytest.fixture
def computed(tmp_path, monkeypatch):
    """Return the functionals computed so far; the file is a copy of the committed one, energies are 1."""
    found = []

    def row(singlet, triplet, xc):
        if "interrupted" in found:
            raise KeyboardInterrupt
        found.append(xc)
        return {"functional": xc, "basis": "6-31g*", "adiabatic (cm^-1)": 1.0, "vertical (cm^-1)": 1.0, "<S²>": 2.0}

    record = read()
    monkeypatch.setattr(triplet_energy, "PATH", tmp_path / "triplet_energy.json")
    monkeypatch.setattr(triplet_energy, "cached_relaxation", lambda molecule, *_: molecule)
    monkeypatch.setattr(triplet_energy, "triplet_row", row)
    write_json(triplet_energy.PATH, record)
    return found


def test_a_complete_file_is_shown_and_stays_as_it_is(computed, capsys):
    before = triplet_energy.PATH.read_bytes()
    assert main([]) == 0
    assert computed == []
    assert triplet_energy.PATH.read_bytes() == before
    printed = capsys.readouterr().out
    assert "| b3lyp | 6-31g* | 14,597 |" in printed
    assert "measured: 14,927 cm^-1" in printed


def test_only_missing_functionals_are_computed(computed):
    record = read()
    kept = [row for row in record["rows"] if row["functional"] != "pbe0"]
    write_json(triplet_energy.PATH, record | {"rows": kept})
    assert main([]) == 0
    assert computed == ["pbe0"]
    found = read()
    assert found["rows"][:-1] == kept
    assert found["rows"][-1]["adiabatic (cm^-1)"] == 1.0
    assert found["runs"][:-1] == record["runs"]
    assert found["runs"][-1]["seconds"] >= 0
    assert main([]) == 0
    assert computed == ["pbe0"]


def test_an_interruption_of_computing_again_loses_no_row(computed, monkeypatch):
    write = triplet_energy.write_json

    def interrupt_after(path, record):
        write(path, record)
        computed.append("interrupted")

    monkeypatch.setattr(triplet_energy, "write_json", interrupt_after)
    before = read()["rows"]
    assert main(["--again"]) == 130
    rows = read()["rows"]
    assert [row["functional"] for row in rows] == [row["functional"] for row in before]
    assert rows[0]["adiabatic (cm^-1)"] == 1.0
    assert rows[1:] == before[1:]


def test_without_a_file_all_are_computed(computed):
    triplet_energy.PATH.unlink()
    assert main([]) == 0
    assert computed == list(FUNCTIONALS)
    record = json.loads(triplet_energy.PATH.read_text(encoding="utf-8"))
    assert record["measured_cm1"] == 14927
    assert len(record["rows"]) == 6
    assert len(record["runs"]) == 1
