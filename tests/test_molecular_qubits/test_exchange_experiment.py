"""The exchange experiment in its fast configuration, and the committed results that it shows."""

import csv
import json

import pytest

from molecular_qubits.experiments import exchange, few_electrons, numerical_error
from molecular_qubits.experiments.exchange import ExchangeConfig, benchmark_rows, stretched_h2_rows
from molecular_qubits.experiments.reproduce import CONFIGS, ReproduceConfig, load_reproduce_config
from molecular_qubits.experiments.spin_density_figure import map_spin_densities
from shared.config import ConfigError, load_config
from shared.results import ResultsWriter


def test_fast_configuration_differs_only_in_known_keys():
    fast = load_reproduce_config(fast=True)
    assert fast.exchange.benchmark_distances_angstrom == (2.0,)
    assert fast == load_config(ReproduceConfig, CONFIGS / "fast.yaml")
    assert load_reproduce_config(overrides=["exchange.basis=sto-3g"]).exchange.basis == "sto-3g"


def test_molecule_outside_the_library_is_refused_before_any_work():
    with pytest.raises(ConfigError, match="Did you mean 'mono'"):
        load_config(ExchangeConfig, None, ["radical_triplet=momo"])


def test_fast_benchmark_reproduces_the_reference_within_one_percent(tmp_path):
    fast = load_reproduce_config(fast=True, overrides=[f"exchange.cache_folder={tmp_path}"]).exchange
    rows = benchmark_rows(fast)
    assert len(rows) == 5
    for row in rows:
        assert abs(row["deviation (%)"]) < 1.0, row


def test_stretched_h2_is_near_full_ci_by_hartree_fock_and_not_by_b3lyp(tmp_path):
    fast = load_reproduce_config(fast=True, overrides=[f"exchange.cache_folder={tmp_path}"]).exchange
    (row,) = stretched_h2_rows(fast)
    assert row["full CI (cm^-1)"] == pytest.approx(-1570.64, abs=0.01)
    assert row["HF, ratio"] == pytest.approx(0.932, abs=0.001)
    assert row["B3LYP, ratio"] == pytest.approx(1.967, abs=0.01)
    assert row["B3LYP, <S²>"] == pytest.approx(0.932, abs=0.002)


def test_committed_few_electrons_are_those_of_the_reference_and_of_full_ci(monkeypatch):
    rows = few_electrons.read()["rows"]
    known = [row for row in rows if row["molecule"] == "H-He-H" and row["reference"] is not None]
    assert len(known) == 10
    assert all(abs(row["deviation (%)"]) < 0.06 for row in known)
    stretched = [row for row in rows if row["molecule"] == "H2"]
    assert [row["R (Å)"] for row in stretched[::3]] == [2.0, 2.5, 3.0, 4.0]
    assert all(abs(row["deviation (%)"]) < 9 for row in stretched[1::3])  # by Hartree-Fock
    given = {"R(H-He) (Å)": 2.0, "quantity": "q", "computed": -3.0, "reference": None, "deviation (%)": None}
    monkeypatch.setattr(exchange, "benchmark_rows", lambda config: [given])
    energies = {"full CI (cm^-1)": -10.0, "HF (cm^-1)": -9.0, "B3LYP (cm^-1)": -15.0}
    monkeypatch.setattr(exchange, "stretched_h2_rows", lambda config: [{"R(H-H) (Å)": 3.0, **energies}])
    made = few_electrons.measure()
    assert [row["deviation (%)"] for row in made] == [None, 0.0, 10.0, -50.0]
    assert {tuple(row) for row in made} == {tuple(rows[0])}


def test_committed_numerical_error_is_below_one_wavenumber():
    measured = numerical_error.read()
    assert [(row["grid level"], row["integrals"] != "exact") for row in measured["rows"]] == list(
        numerical_error.VARIANTS
    )
    assert max(abs(row["deviation (cm^-1)"]) for row in measured["rows"]) < 1.0


def test_the_numerical_error_is_printed_and_measured_only_where_asked(tmp_path, monkeypatch, capsys):
    rows = numerical_error.read()["rows"]
    monkeypatch.setattr(numerical_error, "PATH", tmp_path / "numerical_error.json")
    monkeypatch.setattr(numerical_error, "measure", lambda: rows)
    assert numerical_error.main([]) == 2
    assert "numerical_error.json" in capsys.readouterr().err
    assert numerical_error.main(["--measure"]) == 0
    assert numerical_error.main([]) == 0
    assert capsys.readouterr().out.count("density fitting") == 6
    assert numerical_error.read()["provenance"]["git_commit"]


@pytest.mark.slow
def test_fast_experiment_writes_every_table_and_figure(tmp_path):
    config = load_reproduce_config(fast=True, overrides=[f"exchange.cache_folder={tmp_path / 'cache'}"]).exchange
    writer = ResultsWriter(tmp_path, "molecular_qubits", config)
    results = exchange.run(writer, config)
    writer.finish()
    folder = tmp_path / "molecular_qubits"
    for name in (
        "h_he_h",
        "stretched_h2",
        "radical_triplet_j",
        "diradical_j",
        "numerical_error",
        "mono_j",
        "mono_states",
    ):
        assert (folder / f"{name}.csv").is_file()
        assert (folder / f"{name}.md").is_file()
    for ending in (".png", ".pdf", "_dark.png"):
        assert (folder / f"radical_triplet_spin_density{ending}").stat().st_size > 10_000
    with open(folder / "radical_triplet_j.csv", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    pair = results["radical_triplet"]
    assert float(row["J Yamaguchi (cm^-1)"]) == pair.j_yamaguchi_cm1[0, 1]
    assert pair.j_noodleman_cm1[0, 1] > 0  # orthogonal radical and n-pi* triplet: ferromagnetic
    high, broken = pair.states
    assert high.s2 == pytest.approx(3.75, abs=0.1)
    assert broken.s2 == pytest.approx(1.75, abs=0.1)
    assert results["diradical"].j_noodleman_cm1[0, 1] < 0
    maps = map_spin_densities(pair, 0.3)
    assert [found.integral for found in maps] == pytest.approx([3.0, 1.0], abs=0.1)
    sections = json.loads((folder / "summary.json").read_text(encoding="utf-8"))["sections"]
    titles = [section["title"] for section in sections]
    assert len(titles) == len(set(titles)) >= 6
    assert any(title.startswith("J along the torsion") for title in titles)
