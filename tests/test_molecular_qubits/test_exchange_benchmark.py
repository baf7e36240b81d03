"""The benchmark of the high-spin and broken-symmetry pair: both sides agree on a tiny molecule, rows are kept."""

import json

import pytest

from benchmarks.exchange import __main__ as bench
from benchmarks.exchange.__main__ import COMMITTED, compare, growth, main, origin
from benchmarks.exchange.systems import FIXED, SYSTEMS
from molecular_qubits.structure.molecule import Molecule


def test_both_sides_find_the_same_coupling_and_a_second_run_measures_nothing(tmp_path, capsys, monkeypatch):
    arguments = ["--systems", "h-he-h", "--basis", "sto-3g", "--threads", "1", "--out", str(tmp_path)]
    arguments += ["--options", '{"conv_tol": 1e-9}']
    assert main(arguments) == 0
    path = tmp_path / "exchange" / "pairs.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    plain, ours = record["rows"]
    assert [row["method"] for row in (plain, ours)] == ["plain", "ours"]
    assert plain["right_states"]
    assert ours["right_states"]
    assert ours["j_yamaguchi_cm1"] == pytest.approx(plain["j_yamaguchi_cm1"], rel=1e-3)
    assert plain["j_yamaguchi_cm1"] < -10
    assert compare(record["rows"])[0]["times faster"] == plain["seconds"] / ours["seconds"]
    assert "yes" in capsys.readouterr().out
    assert (tmp_path / "exchange" / "growth.png").stat().st_size > 1000
    before = path.read_bytes()
    assert main(arguments) == 0
    assert path.read_bytes() == before
    capsys.readouterr()
    monkeypatch.setattr(bench, "hash_code", lambda *paths: "other")
    monkeypatch.setattr(bench, "measure", lambda *_: {"seconds": 1.0, "j_yamaguchi_cm1": 7.0})
    assert main(arguments) == 0
    found = json.loads(path.read_text(encoding="utf-8"))
    assert found["rows"][:2] == record["rows"]
    assert [row["code"] for row in found["rows"][2:]] == ["other", "other"]
    assert found["provenance"]["seconds"] == pytest.approx(sum(row["seconds"] for row in found["rows"]), abs=1e-3)
    table = capsys.readouterr().out
    assert "7.000" in table
    assert "1.000 |" in table  # of the new rows alone


def test_a_wrong_state_gives_no_coupling_and_no_agreement():
    row = {"system": "x", "xc": "b3lyp", "basis": "sto-3g", "threads": 1, "heavy_atoms": 3, "seconds": 4.0}
    rows = [
        row | {"method": "plain", "j_yamaguchi_cm1": None},
        row | {"method": "ours", "j_yamaguchi_cm1": 5.0, "seconds": 2.0},
    ]
    assert compare(rows)[0]["J equal within 1 % or 0.1 cm^-1"] is None
    assert compare(rows)[0]["times faster"] == 2.0
    rows[0]["j_yamaguchi_cm1"] = 5.2
    assert compare(rows)[0]["J equal within 1 % or 0.1 cm^-1"] is False


def test_committed_rows_are_shown_by_code_and_processor_and_nothing_is_measured(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(bench, "measure", lambda *_: pytest.fail("measured"))
    before = COMMITTED.read_bytes()
    assert main(["--committed", "--out", str(tmp_path)]) == 0
    assert COMMITTED.read_bytes() == before
    printed = capsys.readouterr().out
    assert "| 486.8 | 49.11 | 9.911 |" in printed
    assert "| 860.8 | 69.49 | 12.39 |" in printed
    assert "| 1,475 |" in printed
    assert {path.name for path in (tmp_path / "exchange").iterdir()} == {"growth.png", "growth.pdf"}


def test_ratios_and_lines_are_of_one_code_and_processor():
    row = {"system": "x", "xc": "b3lyp", "basis": "sto-3g", "threads": 2, "heavy_atoms": 3, "j_yamaguchi_cm1": 5.0}
    here = {"code": "a" * 64, "packages": {"pyscf": "2.14.0"}, "processor": "one"}
    rows = [
        row | made | {"method": method, "seconds": seconds}
        for made, plain, ours in (
            ({}, 8.0, 4.0),
            (here, 9.0, 3.0),
            (here | {"processor": "two"}, 8.0, 1.0),
            (here | {"code": "b" * 64}, 10.0, 1.0),
        )
        for method, seconds in (("plain", plain), ("ours", ours))
    ]
    assert [found["times faster"] for found in compare(rows)] == [2.0, 3.0, 8.0, 10.0]
    assert [found["processor"] for found in compare(rows)] == [None, "one", "two", "one"]
    assert len({origin(row) for row in rows}) == 4
    lines = growth(rows)
    assert [seconds for _, _, seconds, _ in lines] == [[row["seconds"]] for row in rows]
    assert [label for label, *_ in lines[1:4]] == [
        "this package (code not recorded)",
        "plain PySCF script (one, code aaaaaaaa)",
        "this package (one, code aaaaaaaa)",
    ]
    assert [label for label, *_ in growth(rows[2:4])] == ["plain PySCF script", "this package"]


def test_the_fixed_molecule_has_15_to_20_heavy_atoms_and_the_series_runs_from_10_to_46():
    sizes = {name: Molecule.from_smiles(s.smiles).n_heavy_atoms for name, s in SYSTEMS.items() if s.smiles}
    assert 15 <= sizes[FIXED] <= 20
    assert (min(sizes.values()), max(sizes.values())) == (10, 46)


def test_unknown_system_is_refused(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["--systems", "benzene"])
    assert "anthrylmethyl-nitroxide" in capsys.readouterr().err
