"""Screening: assembly, libraries with faults, the predicted gate against closed forms, ranking, resume, report."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from molecular_qubits.control import switched_gate as gate_module
from molecular_qubits.control.fidelity import best_local_fidelity, target_gate, transfer_matrix
from molecular_qubits.control.switched_gate import GateConditions, best_hold, gate_channels, predict_gate
from molecular_qubits.screening import run as run_module
from molecular_qubits.screening.assembly import assemble
from molecular_qubits.screening.figures import draw_ranking
from molecular_qubits.screening.known import SHIPPED_COUPLINGS, read_known
from molecular_qubits.screening.library import SHIPPED, read_library
from molecular_qubits.screening.run import ScreeningConfig, screen
from molecular_qubits.screening.stages import Job, Stage, finished, geometry, n_atoms, run_job
from molecular_qubits.structure.molecule import Molecule, check_multiplicity
from molecular_qubits.units import CM1_TO_RAD_PER_NS
from shared import progress
from shared.artifacts import Cache, write_json
from shared.config import load_config

SMALL = "kind,name,smiles\nradical,NO,[O]N([*])C\nlinker,direct,[*][*]\ncoupler,ethene,[*]C=C[*]\n"
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _quiet(monkeypatch):
    monkeypatch.setenv("PROGRESS", "0")


def _library(tmp_path, text=SMALL):
    path = tmp_path / "library.csv"
    path.write_text(text, encoding="utf-8")
    return path


# --- assembly -----------------------------------------------------------------------------------------------------


def test_fragments_are_joined_with_their_atoms_known():
    from rdkit import Chem

    structure = assemble("[O]N([*])C", "[*]c1ccc([*])cc1", "[*]C=C[*]", 2)
    mol = Chem.MolFromSmiles(structure.smiles)
    expected = Chem.MolFromSmiles("[O]N(C)c1ccc(cc1)C=Cc1ccc(cc1)N(C)[O]")
    assert Chem.MolToSmiles(mol) == Chem.MolToSmiles(expected)
    symbols = [atom.GetSymbol() for atom in mol.GetAtoms()]
    for radical in structure.radicals:
        assert sorted(symbols[index] for index in radical) == ["C", "N", "O"]
        assert sum(mol.GetAtomWithIdx(index).GetNumRadicalElectrons() for index in radical) == 1
    assert [symbols[index] for index in structure.coupler] == ["C", "C"]
    assert mol.GetBondBetweenAtoms(*structure.coupler).GetBondTypeAsDouble() == 2


def test_a_direct_linker_is_a_bond_and_one_arm_ends_in_hydrogen():
    from rdkit import Chem

    one = assemble("[O]N([*])C", "[*][*]", "[*]C=C[*]", 1)
    assert Chem.MolToSmiles(Chem.MolFromSmiles(one.smiles)) == Chem.MolToSmiles(Chem.MolFromSmiles("[O]N(C)C=C"))
    assert len(one.radicals) == 1


@pytest.mark.parametrize(
    ("coupler", "plain"),
    [
        ("[*:1][c]1[cH][cH][c]([*:2])[cH][cH]1", "[*]c1ccc([*])cc1"),
        ("[1*][CH]=[CH][2*]", "[*]C=C[*]"),
        ("[*]n1cccc1-c1cccn1[*]", "[*]n1cccc1-c1ccc[n]1[*]"),
    ],
)
def test_an_attachment_point_in_brackets_ends_in_hydrogen_too(coupler, plain):
    from rdkit import Chem

    one = assemble("[O]N([*])C", "[*][*]", coupler, 1)
    assert one == assemble("[O]N([*])C", "[*][*]", plain, 1)
    assert sum(atom.GetNumRadicalElectrons() for atom in Chem.MolFromSmiles(one.smiles).GetAtoms()) == 1


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (("[O]NC", "[*][*]", "[*]C=C[*]"), "1 attachment point"),
        (("[O]N([*])C", "[*]C", "[*]C=C[*]"), "2 attachment points"),
        (("CN([*])C", "[*][*]", "[*]C=C[*]"), "one unpaired electron"),
        (("[O]N([*])C", "[*][*]", "[*]C=C([*])[CH2]"), "no unpaired electron"),
        (("[O]N([*])C", "[*][*]", "[*]C=C[*].C"), "one piece"),
        (("[O]N([*])(", "[*][*]", "[*]C=C[*]"), "cannot read"),
        (("[O]N([*])C", "[*][*]", "[*]c1ccc([*])c(C#N)c1"), "attachment points that are alike"),
        (("[O]N([*])C", "[*][*]", "[*]c1cc(F)c([*])cc1"), "attachment points that are alike"),
    ],
)
def test_fragments_that_cannot_be_joined_are_refused(parts, message):
    with pytest.raises(ValueError, match=message):
        assemble(*parts, 2)


@pytest.mark.parametrize("coupler", ["[*:1]c1ccc([*:2])cc1", "[1*]c1ccc([2*])c2ccccc12", "[*]C(F)=C([*])F"])
def test_labels_do_not_make_attachment_points_unlike(coupler):
    assert len(assemble("[O]N([*])C", "[*][*]", coupler, 2).radicals) == 2


def test_the_first_attachment_point_of_a_linker_is_at_the_radical():
    from rdkit import Chem

    one = assemble("[O]N([*])C", "[*]C#Cc1ccc([*])cc1", "[*]C=C[*]", 1)
    assert one.smiles == Chem.CanonSmiles("[O]N(C)C#Cc1ccc(C=C)cc1")


# --- libraries ----------------------------------------------------------------------------------------------------


def test_bad_rows_are_reported_by_line_and_good_rows_stay(tmp_path):
    text = (
        "# a comment\nkind,name,smiles\nradical,NO,[O]N([*])C\n\nradical,broken,[O]N([*]\nlinker,direct,[*][*]\n"
        "linker,short\ncoupler,ethene,[*]C=C[*]\nsolvent,water,O\ncoupler,ethene,[*]C#C[*]\nlinker,,[*]C#C[*]\n"
        "molecule,mono,[O]N(C)c1ccccc1\nmolecule,clash,[O]N(C)c1ccccc1N(C)[O]\n"
    )
    found = read_library(_library(tmp_path, text))
    assert [candidate.name for candidate in found.candidates] == ["NO - direct - ethene", "clash"]
    assert [fault.line for fault in found.faults] == [5, 7, 9, 10, 11, 12]
    reasons = {fault.line: fault.reason for fault in found.faults}
    assert "cannot read" in reasons[5]
    assert "3 cells were expected, but there are 2" in reasons[7]
    assert "'solvent'" in reasons[9]
    assert "already on line 8" in reasons[10]
    assert "`name`" in reasons[11]
    assert "2 radicals" in reasons[12]


def test_a_candidate_with_the_name_of_another_is_a_fault_that_names_both(tmp_path):
    text = (
        SMALL + "linker,direct - long,[*]C#C[*]\ncoupler,long - ethene,[*]C=CC=C[*]\n"
        "molecule,NO - direct - ethene,[O]N(C)c1ccccc1N(C)[O]\n"
    )
    found = read_library(_library(tmp_path, text))
    smiles = {candidate.name: candidate.off.smiles for candidate in found.candidates}
    assert len(smiles) == len(found.candidates) == 3
    assert smiles["NO - direct - ethene"] == assemble("[O]N([*])C", "[*][*]", "[*]C=C[*]", 2).smiles
    assert [fault.line for fault in found.faults] == [4, 7]
    assert found.faults[0].reason == (
        "radical 'NO' with linker 'direct - long' with coupler 'ethene' has the name 'NO - direct - long - ethene' of "
        "radical 'NO' with linker 'direct' with coupler 'long - ethene'; rename one of them, or a part of it"
    )
    assert "the molecule on line 7 has the name" in found.faults[1].reason


def test_a_coupler_whose_arms_differ_is_a_fault_that_shows_the_way(tmp_path):
    found = read_library(_library(tmp_path, SMALL + "coupler,cyanobenzene,[*]c1ccc([*])c(C#N)c1\n"))
    assert [candidate.name for candidate in found.candidates] == ["NO - direct - ethene"]
    (fault,) = found.faults
    assert fault.line == 5
    assert "on the first or on the second '[*]c1ccc([*])c(C#N)c1' gives different molecules" in fault.reason
    assert "kind molecule" in fault.reason


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kind,name\nradical,a\n", "lacks smiles"),
        ("", "no candidate"),
        ("kind,name,smiles\nradical,NO,[O]N([*])C\n", "no candidate"),
        ("kind,name,smiles\nradical,NO,xyz\n", "line 2"),
    ],
)
def test_libraries_without_a_candidate_are_refused(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        read_library(_library(tmp_path, text))


def test_a_missing_or_binary_library_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_library(tmp_path / "nowhere.csv")
    (tmp_path / "b.csv").write_bytes(b"kind,name,smiles\n\xff\xfe")
    with pytest.raises(ValueError, match="UTF-8"):
        read_library(tmp_path / "b.csv")


def test_the_shipped_library_has_at_least_60_candidates_with_two_spins_and_a_triplet():
    from rdkit import Chem

    found = read_library(SHIPPED)
    assert not found.faults
    assert len(found.candidates) >= 60
    assert len({Chem.CanonSmiles(candidate.off.smiles) for candidate in found.candidates}) == len(found.candidates)
    for candidate in found.candidates:
        for structure in (candidate.on, candidate.off):
            mol = Chem.AddHs(Chem.MolFromSmiles(structure.smiles))
            electrons = sum(atom.GetAtomicNum() for atom in mol.GetAtoms()) - Chem.GetFormalCharge(mol)
            radicals = sum(atom.GetNumRadicalElectrons() for atom in mol.GetAtoms())
            assert radicals == len(structure.radicals)
            assert all(sum(mol.GetAtomWithIdx(i).GetNumRadicalElectrons() for i in r) == 1 for r in structure.radicals)
            check_multiplicity(electrons, radicals + 1)  # dark coupler
            check_multiplicity(electrons, radicals + 3)  # triplet coupler
            assert not set(structure.coupler).intersection(*structure.radicals)


@pytest.mark.slow
def test_every_candidate_of_the_shipped_library_embeds():
    for candidate in read_library(SHIPPED).candidates:
        for structure in {candidate.on, candidate.off}:
            molecule = Molecule.from_smiles(structure.smiles)
            distances = np.linalg.norm(molecule.positions[:, None] - molecule.positions, axis=2)
            assert (distances + 9 * np.eye(molecule.n_atoms)).min() > 0.85, candidate.name
            check_multiplicity(molecule.n_electrons, len(structure.radicals) + 3)


# --- the predicted gate -------------------------------------------------------------------------------------------

LONG = {"t1_ns": 1e12, "t2_ns": 1e12}


def test_without_any_coupling_only_decay_is_left():
    conditions = GateConditions(t1_ns=50.0, t2_ns=30.0, d_t_cm1=0.0)
    (channel,) = gate_channels(0.0, 0.0, np.array([7.0]), conditions)
    single = np.array([1, np.exp(-14 / 30), np.exp(-14 / 30), np.exp(-14 / 50)])  # gate and idle slot
    np.testing.assert_allclose(channel, np.diag(np.kron(single, single)), atol=1e-12)


def test_channels_keep_the_trace_and_are_physical():
    for j in (0.02, 3.0):
        for channel in gate_channels(j, 0.01, np.array([0.1, 2.0]), GateConditions()):
            np.testing.assert_allclose(channel[0], np.eye(16)[0], atol=1e-12)
            assert np.abs(np.linalg.svd(channel, compute_uv=False)).max() < 2.01  # Choi state below
            products = gate_module.PAULI_PRODUCTS
            choi = np.einsum("ab,aij,bkl->ikjl", channel, products, products.conj()).reshape(16, 16) / 16
            assert np.linalg.eigvalsh((choi + choi.conj().T) / 2).min() > -1e-10


def test_a_dark_exchange_alone_makes_the_square_root_of_swap():
    """-2 J S1.S2 for t = pi / (4 J): half way to SWAP; the idle slot then completes it to SWAP."""
    j = 0.01
    hold = np.pi / (4 * j * CM1_TO_RAD_PER_NS)
    conditions = GateConditions(d_t_cm1=0.0, jitter_ns=0.0, max_hold_ns=1e3, **LONG)
    (both,) = gate_channels(0.0, j, np.array([hold]), conditions)
    swap = transfer_matrix(target_gate("sqrt-swap") @ target_gate("sqrt-swap"))
    np.testing.assert_allclose(both, swap, atol=1e-9)


def test_jitter_damps_as_an_average_over_holds():
    holds = np.array([0.5])
    sharp = GateConditions(jitter_ns=0.0, **LONG)
    nodes, weights = np.polynomial.hermite_e.hermegauss(41)
    spread = gate_channels(0.05, 0.0, holds[0] + 0.05 * nodes, sharp)
    average = np.einsum("t,tab->ab", weights / weights.sum(), spread)
    (damped,) = gate_channels(0.05, 0.0, holds, GateConditions(jitter_ns=0.05, **LONG))
    np.testing.assert_allclose(damped, average, atol=1e-9)


def test_the_rough_scan_does_not_exceed_and_nearly_reaches_the_full_search():
    conditions = GateConditions()
    channels = gate_channels(0.02, 0.0, np.array([0.3, 1.0, 3.0]), conditions)
    target = target_gate("sqrt-swap")
    rough = gate_module._rough_fidelities(channels, target, 40)
    for value, channel in zip(rough, channels, strict=True):
        assert -1e-9 < best_local_fidelity(channel, target)[0] - value < 0.05


def test_a_weak_coupling_that_outruns_the_jitter_beats_local_rotations_and_a_fast_one_does_not():
    slow = predict_gate(0.01, 0.0, on_error_cm1=0, off_error_cm1=0, conditions=GateConditions(jitter_ns=1e-3))
    fast = predict_gate(300.0, 0.0, on_error_cm1=0, off_error_cm1=0, conditions=GateConditions(jitter_ns=1e-3))
    assert slow.fidelity > 0.85 > slow.floor == pytest.approx((4 * 5 / 8 + 1) / 5)
    assert fast.fidelity < fast.floor
    assert slow.error == pytest.approx(0, abs=1e-12)


@settings(max_examples=6, deadline=None)
@given(st.floats(0.05, 5), st.floats(0, 0.05))
def test_fidelities_are_probabilities(j_on, j_off):
    fidelity, hold = best_hold(j_on, j_off, GateConditions())
    assert 0 <= fidelity <= 1
    assert 0 < hold <= 20


def test_an_uncertain_dark_coupling_widens_the_prediction():
    sure, unsure = (
        predict_gate(0.02, 0.0, on_error_cm1=0, off_error_cm1=error, conditions=GateConditions())
        for error in (1e-7, 0.05)
    )
    assert sure.error < 1e-3 < unsure.error
    with pytest.raises(ValueError, match="not negative"):
        predict_gate(1.0, 0.0, on_error_cm1=-1, off_error_cm1=0, conditions=GateConditions())


# --- whole runs ---------------------------------------------------------------------------------------------------


def _put(cache, candidate, state, j_cm1, stage):
    """Put a record into the cache in place of a calculation."""
    job = Job(candidate.name, candidate.on if state == "on" else candidate.off, state, stage, str(cache))
    record = {"j_cm1": j_cm1, "projections_cm1": [j_cm1] * 3, "resolution_cm1": 1e-6}
    Cache(cache, name="screening").get_or_make(job.key, lambda folder: write_json(folder / "coupling.json", record))


THREE = SMALL + "coupler,ethyne,[*]C#C[*]\ncoupler,<b>&butadiene,[*]C=CC=C[*]\n"


def test_ranking_report_and_provenance(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PROGRESS", "1")
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LINES", 0)
    path, cache, stage = _library(tmp_path, THREE + "radical,bad,C\n"), tmp_path / "cache", Stage()
    config = ScreeningConfig(stages=(stage,))
    first, second, third = read_library(path).candidates
    for candidate, j_on in ((first, 300.0), (second, 0.05)):
        _put(cache, candidate, "on", j_on, stage)
        _put(cache, candidate, "off", 1e-5, stage)
    _put(cache, third, "on", 1.0, stage)
    result = screen(path, tmp_path / "out", config=config, cache=cache, finished_only=True)
    assert "Predicting gates: 1/3" in capsys.readouterr().err
    assert [row.candidate.name for row in result.candidates] == [second.name, first.name, third.name]
    assert [row.rank for row in result.candidates] == [1, 2, None]
    assert result.candidates[2].status == "J_off not computed"
    assert result.candidates[0].gains
    assert not result.candidates[1].gains
    assert result.candidates[0].on_off_ratio == pytest.approx(5000, rel=0.3)
    record = json.loads((tmp_path / "out" / "ranking.json").read_text())
    assert record["faults"][0]["line"] == 7
    assert record["provenance"]["config"]["stages"][0]["basis"] == "sto-3g"
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<b>&butadiene" not in page
    assert "&lt;b&gt;&amp;butadiene" in page
    assert page.count("<svg") == 2
    assert "http://" not in page.replace("http://www.w3.org", "").replace("http://www.rdkit.org", "")
    svg = page[page.index("<svg") : page.index("</svg>") + 6]
    assert ElementTree.fromstring(svg).tag.endswith("svg")
    assert (tmp_path / "out" / "ranking.csv").read_text().splitlines()[0].startswith("rank,name,fidelity")


def test_a_later_stage_takes_only_the_best_and_its_basis_step_enters_the_error(tmp_path):
    path, cache = _library(tmp_path, THREE), tmp_path / "cache"
    stages = (Stage(), Stage(basis="6-31g", keep=1))
    first, second, third = read_library(path).candidates
    for candidate, j_on in ((first, 300.0), (second, 0.05), (third, 200.0)):
        for stage, factor in zip(stages, (1.0, 0.8), strict=True):
            _put(cache, candidate, "on", factor * j_on, stage)
            _put(cache, candidate, "off", 1e-5, stage)
    result = screen(path, tmp_path / "out", config=ScreeningConfig(stages=stages), cache=cache, finished_only=True)
    best, other = result.candidates[0], result.candidates[1]
    assert best.candidate.name == second.name
    assert best.on.level == "b3lyp/6-31g"
    assert best.on.error_cm1 == pytest.approx(0.01, rel=1e-3)
    assert other.on.level == "b3lyp/sto-3g"
    with open(tmp_path / "out" / "ranking.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert float(rows[0]["J_on (cm^-1)"]) == pytest.approx(0.04)
    earlier = "J_on by earlier levels (cm^-1)"
    assert [row[earlier] for row in rows] == ["b3lyp/sto-3g: 0.05", "", ""]
    assert "b3lyp/sto-3g: 0.05" in (tmp_path / "out" / "report.html").read_text()


def _run_in_place(jobs, fails=()):
    """Return a `run_tasks` that keeps the jobs in a list and fails for names and states."""
    from shared.tasks import Outcome

    def run(function, items, *, n_workers, retries, description, on_done):
        for index, job in enumerate(items):
            jobs.append(job)
            bad = (job.name, job.state) in fails
            value = {"j_cm1": 0.1, "projections_cm1": [0.1] * 3, "resolution_cm1": 0.0}
            on_done(index, Outcome(error=RuntimeError("no convergence")) if bad else Outcome(value))

    return run


def test_a_stage_may_compute_nothing_and_the_next_one_the_best_that_are_not_too_large(tmp_path, monkeypatch):
    path, cache, known = _library(tmp_path, THREE), tmp_path / "cache", tmp_path / "cheap" / "couplings.jsonl"
    first, second, third = read_library(path).candidates
    assert n_atoms(third.on.smiles) < n_atoms(first.off.smiles) < n_atoms(third.off.smiles)
    for candidate, j_on in ((first, 300.0), (third, 0.05)):
        for state, j in (("on", j_on), ("off", 1e-5)):
            _put(cache, candidate, state, j, Stage())
    screen(path, known.parent, config=ScreeningConfig(stages=(Stage(),)), cache=cache, finished_only=True)
    finer = Stage(basis="6-31g", keep=1, max_atoms=n_atoms(first.off.smiles))
    config = ScreeningConfig(stages=(Stage(finished_only=True), finer))
    jobs = []
    monkeypatch.setattr(run_module, "run_tasks", _run_in_place(jobs, {(first.name, "off")}))
    result = screen(path, tmp_path / "out", config=config, cache=tmp_path / "empty", known=known)
    # `second` has no cheap coupling and `third`, the best, is too large as a whole.
    assert [(job.name, job.state, job.stage) for job in jobs] == [(first.name, s, finer) for s in ("on", "off")]
    rows = {row.candidate.name: row for row in result.candidates}
    assert rows[first.name].status == "computed; failed: J_off by b3lyp/6-31g: no convergence"
    assert (rows[first.name].on.level, rows[first.name].off.level) == ("b3lyp/6-31g", "b3lyp/sto-3g")
    assert (rows[third.name].status, rows[third.name].on.level) == ("computed", "b3lyp/sto-3g")
    assert rows[second.name].status == "J_on and J_off not computed"
    # The file has both levels, also after a run of the cheap one that starts from it.
    assert len((tmp_path / "out" / "couplings.jsonl").read_text().splitlines()) == 5
    cheap = ScreeningConfig(stages=(Stage(),))
    both = tmp_path / "out" / "couplings.jsonl"
    screen(path, tmp_path / "again", config=cheap, cache=tmp_path / "empty", known=both, finished_only=True)
    assert sorted(read_known(tmp_path / "again" / "couplings.jsonl")) == sorted(read_known(both))


def test_a_candidate_that_fails_says_why_and_stops_no_other(tmp_path, monkeypatch):
    def run_in_place(function, items, *, n_workers, retries, description, on_done):
        from shared.tasks import Outcome

        for index, job in enumerate(items):
            bad = "ethyne" in job.name and job.state == "off"
            value = {"j_cm1": 0.1, "projections_cm1": [0.1] * 3, "resolution_cm1": 0.0}
            on_done(index, Outcome(error=RuntimeError("no convergence")) if bad else Outcome(value))

    monkeypatch.setattr(run_module, "run_tasks", run_in_place)
    result = screen(_library(tmp_path, THREE), config=ScreeningConfig(stages=(Stage(),)), cache=tmp_path)
    assert [row.rank for row in result.candidates] == [1, 2, None]
    assert result.candidates[2].status == "failed: J_off: no convergence"


@pytest.mark.parametrize("n_failures", [1, 2])
def test_the_command_fails_if_nothing_was_ranked_and_something_failed(tmp_path, monkeypatch, capsys, n_failures):
    from molecular_qubits.cli import main
    from shared.tasks import Outcome

    def run_in_place(function, items, *, n_workers, retries, description, on_done):
        for index in range(len(items)):
            good = index >= 2 * n_failures
            value = {"j_cm1": 0.1, "projections_cm1": [0.1] * 3, "resolution_cm1": 0.0}
            on_done(index, Outcome(value) if good else Outcome(error=RuntimeError("no convergence")))

    monkeypatch.setattr(run_module, "run_tasks", run_in_place)
    path = _library(tmp_path, SMALL + "coupler,ethyne,[*]C#C[*]\n")
    arguments = ["screen", str(path), "--config", "cheap", "--cache", str(tmp_path), "--out", str(tmp_path / "out")]
    assert main(arguments) == (1 if n_failures == 2 else 0)
    assert ("No candidate could be ranked, 2 of 2 failed, such as" in capsys.readouterr().err) == (n_failures == 2)
    assert (tmp_path / "out" / "report.html").exists()


def test_an_interruption_writes_what_has_finished(tmp_path, monkeypatch):
    def run_in_place(function, items, *, n_workers, retries, description, on_done):
        from shared.tasks import Outcome

        for index, job in enumerate(items):
            if "ethene" in job.name:
                on_done(index, Outcome({"j_cm1": 0.1, "projections_cm1": [0.1] * 3, "resolution_cm1": 0.0}))
        raise KeyboardInterrupt

    monkeypatch.setattr(run_module, "run_tasks", run_in_place)
    with pytest.raises(KeyboardInterrupt):
        screen(_library(tmp_path, THREE), tmp_path / "out", cache=tmp_path)
    rows = json.loads((tmp_path / "out" / "ranking.json").read_text())["candidates"]
    assert [row["rank"] for row in rows] == [1, None, None]
    assert rows[1]["status"] == "J_on and J_off not computed"


def test_too_large_molecules_are_said_not_to_be_computed(tmp_path):
    config = ScreeningConfig(stages=(Stage(max_atoms=5),))
    result = screen(_library(tmp_path), config=config, cache=tmp_path, finished_only=True)
    assert "more than the 5 allowed" in result.candidates[0].status


def test_a_file_in_place_of_the_folder_is_refused_before_any_work(tmp_path):
    with pytest.raises(ValueError, match="`out`"):
        screen(_library(tmp_path), _library(tmp_path), cache=tmp_path)
    with pytest.raises(ValueError, match="`cache`"):
        screen(_library(tmp_path), tmp_path / "out", cache=_library(tmp_path))


def test_structures_that_cannot_be_drawn_are_told_before_any_work(tmp_path, monkeypatch, capsys):
    from molecular_qubits.cli import main

    monkeypatch.setitem(sys.modules, "rdkit.Chem.Draw", None)
    monkeypatch.setattr(run_module, "_Screening", None)
    assert main(["screen", str(_library(tmp_path)), "--out", str(tmp_path / "out")]) == 2
    assert "`apt-get install libxrender1 libxext6`" in capsys.readouterr().err


def test_the_geometry_has_the_wanted_spin_state(tmp_path):
    (candidate,) = read_library(_library(tmp_path)).candidates
    lit = geometry(Job("a", candidate.on, "on", Stage(), str(tmp_path)))
    dark = geometry(Job("a", candidate.off, "off", Stage(), str(tmp_path)))
    assert (lit.multiplicity, dark.multiplicity) == (4, 3)
    a, b = candidate.on.coupler
    c, d = candidate.off.coupler
    stretched, double = (np.linalg.norm(m.positions[i] - m.positions[j]) for m, i, j in ((lit, a, b), (dark, c, d)))
    assert stretched > double + 0.05  # the triplet breaks the double bond


@pytest.mark.slow
def test_end_to_end_on_small_molecules_and_from_the_cache(tmp_path):
    path = _library(tmp_path)
    config = ScreeningConfig(stages=(Stage(),))
    result = screen(path, tmp_path / "out", config=config, cache=tmp_path / "cache", n_workers=2)
    (row,) = result.candidates
    assert row.status == "computed"
    assert row.on.error_cm1 > 0
    (candidate,) = read_library(path).candidates
    record = finished(Job(candidate.name, candidate.on, "on", Stage(), str(tmp_path / "cache")))
    assert record["s2"][0] == pytest.approx(3.75, abs=0.1)
    start = time.monotonic()
    again = screen(path, config=config, cache=tmp_path / "cache", n_workers=2)
    assert time.monotonic() - start < 20
    assert again.candidates[0].on == row.on


def _workers_at_a_task(cache):
    """Return the processes that hold the lock of a coupling, whoever started them."""
    found = []
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            target = Path(os.readlink(link))
        except OSError:  # gone meanwhile, or another user's
            continue
        if target.suffix == ".lock" and target.parent == cache / "screening":
            found.append(int(link.parts[2]))
    return found


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for the worker in /proc")
@pytest.mark.parametrize(("executor", "n_workers"), [("processes", 2), ("parsl", 2)])
def test_a_worker_killed_in_the_middle_loses_no_finished_result(tmp_path, executor, n_workers):
    """SIGKILL for a worker within a task when one is finished; that one's file stays, the run goes on to the end."""
    if executor == "parsl":
        pytest.importorskip("parsl")
    path = _library(tmp_path, SMALL + "radical,NOH,[O]N[*]\n")
    cache = tmp_path / "cache"
    command = [
        sys.executable,
        "-m",
        "molecular_qubits",
        "screen",
        str(path),
        "--config",
        "cheap",
        "--cache",
        str(cache),
    ]
    command += ["--out", str(tmp_path / "out"), "--workers", str(n_workers), "--executor", executor]
    process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(ROOT)})
    try:
        end = time.monotonic() + 200
        workers = []
        while not workers and process.poll() is None and time.monotonic() < end:
            time.sleep(0.02)
            kept = {file: file.stat().st_mtime_ns for file in cache.glob("screening/[!.]*/coupling.json")}
            workers = _workers_at_a_task(cache) if kept else []
        os.kill(workers[0], signal.SIGKILL)
        assert process.pid not in workers
        assert process.wait(timeout=200) == 0
    finally:
        process.kill()
    assert all(file.stat().st_mtime_ns == written for file, written in kept.items())
    assert len(list(cache.glob("screening/[!.]*/coupling.json"))) == 4
    rows = json.loads((tmp_path / "out" / "ranking.json").read_text())["candidates"]
    assert [row["status"] for row in rows] == ["computed"] * 2


def test_a_full_disk_is_said_and_nothing_is_half_written(tmp_path, monkeypatch):
    import errno

    def full(job):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def run_in_place(function, items, *, n_workers, retries, description, on_done):
        full(items[0])

    monkeypatch.setattr(run_module, "run_tasks", run_in_place)
    from molecular_qubits.cli import main

    code = main(["screen", str(_library(tmp_path)), "--cache", str(tmp_path / "c"), "--out", str(tmp_path / "out")])
    assert code == 1
    assert not (tmp_path / "out").exists()


def test_a_job_that_was_done_is_not_done_again(tmp_path, monkeypatch):
    (candidate,) = read_library(_library(tmp_path)).candidates
    job = Job("a", candidate.on, "on", Stage(), str(tmp_path))
    assert finished(job) is None
    _put(tmp_path, candidate, "on", 4.0, Stage())
    assert run_job(job)["j_cm1"] == finished(job)["j_cm1"] == 4.0
    assert finished(Job("a", candidate.on, "on", Stage(basis="6-31g"), str(tmp_path))) is None


def test_another_ase_made_another_geometry_and_so_another_coupling(tmp_path, monkeypatch):
    import shared.artifacts

    version = shared.artifacts.metadata.version
    (candidate,) = read_library(_library(tmp_path)).candidates
    job = Job("a", candidate.on, "on", Stage(), str(tmp_path))
    _put(tmp_path, candidate, "on", 4.0, Stage())
    monkeypatch.setattr(shared.artifacts.metadata, "version", lambda name: "0" if name == "ase" else version(name))
    assert finished(job) is None


def test_unequal_pairs_of_a_whole_molecule_are_in_the_error(tmp_path, monkeypatch):
    """J_RT of 90 and -10 for two unlike radicals: 40 +- 50, not 40 without a word."""
    from types import SimpleNamespace

    from molecular_qubits.electronic import exchange

    monkeypatch.setattr(gate_module, "best_hold", lambda *_: (0.8, 1.0))  # not what is tested
    path = _library(tmp_path, "kind,name,smiles\nmolecule,unlike,[O]N(C)c1ccc(cc1)C1=NCCN1[O]\n")
    stage = Stage()

    def run(j_first, j_second, folder):
        matrix = np.array([[0, 1e-3, j_first], [1e-3, 0, j_second], [j_first, j_second, 0]])
        result = SimpleNamespace(
            j_yamaguchi_cm1=matrix, j_noodleman_cm1=matrix, j_unprojected_cm1=matrix, states=[SimpleNamespace(s2=2.0)]
        )
        result.states[0].seconds = 1.0
        monkeypatch.setattr(exchange, "exchange_couplings", lambda *_, **__: result)
        monkeypatch.setattr("molecular_qubits.screening.stages.geometry", lambda job: SimpleNamespace(n_atoms=1))
        (candidate,) = read_library(path).candidates
        for state in ("on", "off"):
            run_job(Job(candidate.name, candidate.off, state, stage, str(folder)))
        config = ScreeningConfig(stages=(stage,))
        (row,) = screen(path, folder / "out", config=config, cache=folder, finished_only=True).candidates
        assert len(read_known(folder / "out" / "couplings.jsonl")) == 2
        return row

    unlike, alike = run(90.0, -10.0, tmp_path / "unlike"), run(40.0, 40.0, tmp_path / "alike")
    assert unlike.on.j_cm1 == alike.on.j_cm1 == 40
    assert (unlike.on.pair_spread_cm1, alike.on.pair_spread_cm1) == (50, 0)
    assert alike.on.error_cm1 < 1
    assert unlike.on.error_cm1 == pytest.approx(np.hypot(alike.on.error_cm1, 50))
    assert unlike.off == alike.off


def test_couplings_of_an_earlier_run_are_taken_from_its_file(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(run_module, "say", said.append)
    path, cache, stage = _library(tmp_path), tmp_path / "cache", Stage()
    (candidate,) = read_library(path).candidates
    for state in ("on", "off"):
        _put(cache, candidate, state, 0.05, stage)
    config = ScreeningConfig(stages=(stage,))
    first = screen(path, tmp_path / "first", config=config, cache=cache, finished_only=True)
    known = tmp_path / "first" / "couplings.jsonl"
    assert len(known.read_text().splitlines()) == 2
    again = screen(path, tmp_path / "again", config=config, cache=tmp_path / "empty", known=known, finished_only=True)
    assert again.candidates == first.candidates
    assert said == ["2 couplings were taken from couplings.jsonl."]
    assert (tmp_path / "again" / "couplings.jsonl").read_bytes() == known.read_bytes()
    finer = ScreeningConfig(stages=(Stage(basis="6-31g"),))
    other = screen(path, config=finer, cache=tmp_path / "empty", known=known, finished_only=True)
    assert other.candidates[0].rank is None  # of another level: not taken
    elsewhere = known.read_text().replace('"python":"', '"python":"0.')  # does not count
    (tmp_path / "python.jsonl").write_text(elsewhere)
    same = screen(path, config=config, cache=tmp_path / "empty", known=tmp_path / "python.jsonl", finished_only=True)
    assert same.candidates == first.candidates
    old = known.read_text().replace('"pyscf":"', '"pyscf":"0.')
    (tmp_path / "old.jsonl").write_text(old)
    stale = screen(path, config=config, cache=tmp_path / "empty", known=tmp_path / "old.jsonl", finished_only=True)
    assert stale.candidates[0].rank is None  # by another version: not taken


@pytest.mark.parametrize("line", ["nothing", "{}", "[]", '{"key": {}, "record": {"j_cm1": "x"}}', '{"key": 1}'])
def test_a_file_without_couplings_is_refused_by_line(tmp_path, line):
    (tmp_path / "known.jsonl").write_text(f"{line}\n")
    with pytest.raises(ValueError, match=r"`known` must name a file of couplings .* line 1"):
        screen(_library(tmp_path), known=tmp_path / "known.jsonl")
    with pytest.raises(ValueError, match="cannot be read"):
        screen(_library(tmp_path), known=tmp_path / "none.jsonl")


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("j_cm1", float("nan"), "has j_cm1 nan, which must be a finite number"),
        ("j_cm1", "1.0", "has j_cm1 '1.0', which must be a finite number"),
        ("j_cm1", True, "has j_cm1 True, which must be a finite number"),
        ("j_cm1", 10**400, "has j_cm1 1000"),
        ("resolution_cm1", float("inf"), "has resolution_cm1 inf, which must be a finite number"),
        ("resolution_cm1", -1.0, "has resolution_cm1 -1.0, which must not be negative"),
        ("projections_cm1", "123", "has projections_cm1 '123', which must be a list of at least 2 finite numbers"),
        ("projections_cm1", [1.0], "has projections_cm1 .*, which must be a list of at least 2"),
        ("projections_cm1", [1.0, None, 1.0], "has projections_cm1 .*, which must be a list of at least 2"),
        ("pairs_cm1", [1.0, float("nan")], "has pairs_cm1 .*, which must be a list of at least 2"),
    ],
)
def test_numbers_of_known_couplings_are_checked_by_line_and_field(tmp_path, field, value, reason):
    good = SHIPPED_COUPLINGS.read_text(encoding="utf-8").splitlines()[0]
    entry = json.loads(good)
    entry["record"][field] = value
    path = tmp_path / "known.jsonl"
    path.write_text(f"{good}\n{json.dumps(entry)}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=rf"line 2 of .*known\.jsonl' {reason}"):
        read_known(path)


def test_both_states_of_the_smallest_candidate_come_first(tmp_path, monkeypatch):
    order = []

    def run_in_place(function, items, *, n_workers, retries, description, on_done):
        order.extend((job.name, job.state) for job in items)

    monkeypatch.setattr(run_module, "run_tasks", run_in_place)
    path = _library(tmp_path, THREE)
    screen(path, cache=tmp_path / "cache")
    sizes = {row.name: n_atoms(row.off.smiles) for row in read_library(path).candidates}
    assert [state for _, state in order] == ["on", "off"] * 3
    assert [sizes[name] for name, _ in order] == sorted(sizes[name] for name, _ in order)


def test_the_figure_of_a_ranking_has_a_row_and_error_bars_for_each_candidate(tmp_path):
    path, cache, stage = _library(tmp_path, THREE), tmp_path / "cache", Stage()
    first, second, _ = read_library(path).candidates
    for candidate, j_on, j_off in ((first, 300.0, 1e-7), (second, 0.05, 0.01)):
        _put(cache, candidate, "on", j_on, stage)
        _put(cache, candidate, "off", j_off, stage)
    config = ScreeningConfig(stages=(stage,))
    result = screen(path, tmp_path / "out", config=config, cache=cache, finished_only=True)
    figure = draw_ranking(result.candidates)
    left, right = figure.axes
    assert [label.get_text() for label in left.get_yticklabels()] == [second.name, first.name]
    assert len(left.containers) == 2
    (points,) = right.containers
    assert points[0].get_xdata() == pytest.approx([row.fidelity for row in result.candidates[:2]])
    assert all(0 <= end <= 1 for bar in points[2][0].get_segments() for end in bar[:, 0])
    assert (tmp_path / "out" / "ranking.png").stat().st_size > 1000
    with pytest.raises(ValueError, match="`candidates` must hold at least one with a rank"):
        draw_ranking(result.candidates[2:])


def test_the_shipped_couplings_are_found_again_by_the_shipped_library(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(run_module, "say", said.append)
    monkeypatch.setattr(gate_module, "best_hold", lambda *_: (0.8, 1.0))  # not what is tested, and most of a minute
    known = read_known(SHIPPED_COUPLINGS)
    config = load_config(ScreeningConfig, SHIPPED.parent / "cheap.yaml")
    result = screen(SHIPPED, config=config, cache=tmp_path, known=SHIPPED_COUPLINGS, finished_only=True)
    cheap = [coupling for coupling in known.values() if coupling.key["level"]["basis"] == "sto-3g"]
    assert said == [f"{len(cheap)} couplings were taken from couplings.jsonl."]
    states = Counter(coupling.name for coupling in cheap)
    assert {row.candidate.name for row in result.candidates if row.rank} == {n for n, k in states.items() if k == 2}


def test_the_committed_ranking_belongs_to_the_library_and_follows_from_its_couplings():
    with open(SHIPPED.parent / "ranking.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["smiles"] for row in rows} == {candidate.off.smiles for candidate in read_library(SHIPPED).candidates}
    ranked = [row for row in rows if row["rank"]]
    assert [int(row["rank"]) for row in ranked] == list(range(1, len(ranked) + 1))
    assert all("not computed" in row["status"] or "failed" in row["status"] for row in rows[len(ranked) :])
    for row in ranked[:2]:
        gate = predict_gate(
            float(row["J_on (cm^-1)"]),
            float(row["J_off (cm^-1)"]),
            on_error_cm1=float(row["J_on error (cm^-1)"]),
            off_error_cm1=float(row["J_off error (cm^-1)"]),
            conditions=GateConditions(),
        )
        assert gate.fidelity == pytest.approx(float(row["fidelity"]), abs=1e-6)
