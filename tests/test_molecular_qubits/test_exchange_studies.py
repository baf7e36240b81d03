"""Studies of exchange: rows are computed once and say what they are; the committed ones keep what they claim."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from molecular_qubits.electronic.errors import WrongStateError
from molecular_qubits.electronic.scf import HELD
from molecular_qubits.experiments import exchange_report as report
from molecular_qubits.experiments import (
    exchange_rows,
    exchange_sections,
    perturbed_guesses,
    spin_density_maps,
    triplet_energy,
)
from molecular_qubits.experiments import exchange_studies as studies
from molecular_qubits.experiments.exchange_rows import Calculation, geometry
from molecular_qubits.experiments.triplet_energy import measured_cm1, triplet_row
from molecular_qubits.fields.alignments import polarised_alike, separate_spin_s2
from molecular_qubits.structure.library import LIBRARY
from molecular_qubits.structure.molecule import Molecule
from molecular_qubits.structure.step_field import UnstableFieldError
from molecular_qubits.units import HARTREE_TO_CM1, KELVIN_TO_CM1
from shared.artifacts import Cache, write_json
from shared.parallel import seeds_for

TINY = Calculation("methylene-bis-nitroxide", "ground", basis="sto-3g", grid_level=0, conv_tol=1e-6)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(studies, "DATA", tmp_path)
    monkeypatch.setenv("MOLECULAR_COMPRESSION_CACHE", str(tmp_path / "cache"))
    return tmp_path


def test_rows_are_written_once_and_found_again(folder, monkeypatch):
    cache = Cache(folder, name="scf")
    record = studies.run("tiny", [TINY], cache=cache, stability=False)
    (row,) = record["rows"]
    assert Calculation.from_row(row) == TINY
    assert row["j_yamaguchi_cm1"][0][1] < 0
    assert list((folder / "geometry").glob("*/molecule.json"))
    assert not (folder / "cache").exists()  # that of the user, who named another one
    assert [state["label"][:9] for state in row["states"]] == ["high-spin", "broken-sy"]
    assert [state["stable"] for state in row["states"]] == [None, None]
    (analysed,) = studies.run("tiny", [TINY], cache=cache, again=True)["rows"]
    assert [state["stable"] for state in analysed["states"]] == [True, True]
    assert [state["cycles"] for state in analysed["states"]] == [state["cycles"] for state in row["states"]]
    record = studies.run("tiny", [TINY], cache=cache, again=True)
    assert record["runs"][0]["versions"]["pyscf"]
    before = studies.path_of("tiny").read_bytes()
    monkeypatch.setattr(studies, "compute_row", lambda *a, **o: pytest.fail("computed again"))
    studies.run("tiny", [TINY], cache=cache)
    assert studies.path_of("tiny").read_bytes() == before
    other = Calculation("methylene-bis-nitroxide", "ground", xc="pbe")
    write_json(studies.path_of("tiny"), record | {"rows": [row | {"xc": "pbe0"}, row, row | other.key()]})
    monkeypatch.setattr(studies, "compute_row", lambda *a, **o: row | {"seconds": -1.0})
    assert [found["seconds"] for found in studies.run("tiny", [TINY], again=True)["rows"]] == [
        row["seconds"], -1.0, row["seconds"],
    ]  # fmt: skip


def test_a_state_that_is_refused_leaves_a_row_with_its_reason(folder, monkeypatch):
    def refuse(*arguments, **options):
        raise WrongStateError("The broken-symmetry state ↑↓ is another one.")

    monkeypatch.setattr(exchange_rows, "compute", refuse)
    (row,) = studies.run("tiny", [TINY])["rows"]
    assert row["error"] == "The broken-symmetry state ↑↓ is another one."
    assert "j_yamaguchi_cm1" not in row
    assert report.rows_of("tiny") == []
    counts = {"calculations": 1, "converged": 0, "refused": 1, "states": 2, "states converged": 1}
    assert report.convergence("tiny") == counts
    assert report.convergence("tiny", xc="pbe") == dict.fromkeys(counts, 0)
    with pytest.raises(ValueError, match="state"):
        Calculation("mono", state="dark")


def test_a_relaxation_that_is_refused_leaves_a_row_with_its_reason(folder, monkeypatch):
    def refuse(*arguments, **options):
        raise UnstableFieldError("The field of the last step is not stable.")

    monkeypatch.setattr(exchange_rows, "cached_relaxation", refuse)
    (row,) = studies.run("tiny", [TINY])["rows"]
    assert Calculation.from_row(row) == TINY
    assert row["error"] == "The field of the last step is not stable."
    counts = {"calculations": 1, "converged": 0, "refused": 1, "states": 2, "states converged": 0}
    assert report.convergence("tiny") == counts


def test_conditions_leave_the_rows_that_meet_them(capsys):
    (found,) = studies.select("diradicals", ["xc=b3lyp", "molecule=p-benzyne"])
    assert (found.xc, found.molecule) == ("b3lyp", "p-benzyne")
    assert len(studies.select("bi")) == 3
    assert studies.main(["bi", "--where", "functional=b3lyp"]) == 2
    assert "must be NAME=VALUE with one of ['molecule', 'state'" in capsys.readouterr().err
    chosen = studies.select("small-grid", ["basis=def2-svp", "torsion_degrees=90", "xc=pbe"])
    assert [(row.basis, row.torsion_degrees, row.xc) for row in chosen] == [("def2-svp", 90.0, "pbe")]
    assert studies.main(["bi", "--where", "molecule=bi", "--where", "xc=pbe"]) == 2
    assert studies.main(["bi", "--where", "torsion_degrees=ninety"]) == 2
    assert "leaves none" in capsys.readouterr().err


def test_a_torsion_is_held(folder):
    held = Calculation("tetramethyleneethane", "ground", torsion_degrees=45.0, torsion_atoms=(0, 1, 3, 4))
    molecule = geometry(held, Cache(folder, name="geometry"))
    assert abs(molecule.torsion((0, 1, 3, 4))) == pytest.approx(45, abs=0.01)


def test_every_published_gap_has_its_source_and_its_molecule():
    rows = studies.PUBLISHED["rows"]
    assert len(rows) == len({row["molecule"] for row in rows})
    for row in rows:
        assert row["molecule"] in LIBRARY
        assert row["doi"].startswith("10.")
        assert row["opened"].startswith("http")
        assert row["unit"] in report.TO_CM1
        assert row["kind"] in ("experiment", "theory")


def test_every_published_simulation_has_its_source_and_a_known_molecule_or_none():
    rows = report.SIMULATIONS["rows"]
    for row in rows:
        assert row["library"] is None or row["library"] in LIBRARY
        assert row["doi"].startswith("10.")
        assert row["opened"].startswith("http")
        assert row["unit"] in report.TO_CM1
        assert row["value"] is None or f"{row['value']:g}" in row["printed"]
    for row, shown in zip(rows, report.simulation_rows(), strict=True):
        assert shown["published"] == row["printed"]
        if row["library"] is None:
            assert shown["ours, J/k and 2J/k (K)"] == "not computed"


def test_a_pyrimidine_more_than_doubles_the_committed_coupling_as_published():
    phenylene, pyrimidine = (report.rows_of(study, state="excited")[0] for study in ("bi", "pyrimidinyl"))
    j_cm1 = report.mean_coupling(pyrimidine)
    assert 2 * j_cm1 > 400 * KELVIN_TO_CM1
    assert j_cm1 > 2 * report.mean_coupling(phenylene)


NOTHING = dict.fromkeys(report.GAPS)


def test_an_adiabatic_gap_by_hand():
    """A singlet relaxed by 1 mEh in its triplet's field that lies 200 cm^-1 below that triplet there."""
    rows = [
        {"states": [{"energy_hartree": energy}], "j_yamaguchi_cm1": [[0.0, j], [j, 0.0]]}
        for energy, j in ((-100.0, -50.0), (-99.999, -100.0))
    ]
    assert report.adiabatic_gap(*rows) == pytest.approx(1e-3 * HARTREE_TO_CM1 - 200)


def test_only_two_radicals_are_relaxed_antiparallel():
    held = {"molecule": "p-benzyne", "level": "uks", "torsion_degrees": 30.0}
    for wrong in ({"molecule": "mono", "level": "uks"}, {"molecule": "p-benzyne"}, held):
        with pytest.raises(ValueError, match="only for two radicals and `level` 'uks'"):
            Calculation(**wrong, geometry="antiparallel")
    with pytest.raises(ValueError, match="must be one of"):
        Calculation("p-benzyne", geometry="singlet")


def test_errors_of_a_functional_by_hand():
    rows = [
        {"molecule": "a", "published (cm^-1)": 100.0, **NOTHING, "pbe": 130.0},
        {"molecule": "b", "published (cm^-1)": -50.0, **NOTHING, "pbe": 10.0},
    ]
    (found,) = report.errors_by_functional(rows)
    assert found["functional"] == "pbe"
    assert found["mean error (cm^-1)"] == 45
    assert found["mean absolute error (cm^-1)"] == 45
    assert found["right sign"] == 1
    whole = NOTHING | dict.fromkeys(studies.FUNCTIONALS, 1.0)
    assert report.by_all_functionals([*rows, whole]) == [whole]


def test_the_committed_torsion_scan_is_ferromagnetic_and_falls_with_the_square_of_the_cosine():
    angles, energies, couplings = report.torsion_profile()
    assert np.all(couplings > 0)
    assert np.all(np.diff(couplings[angles <= 90]) < 0)
    assert energies.min() == 0
    assert np.array_equal(couplings, couplings[::-1])
    square = np.cos(np.radians(angles)) ** 2
    assert np.corrcoef(square, couplings)[0, 1] > 0.98
    average = report.torsion_average()
    assert couplings.min() < average.mean_cm1 < couplings.max()
    for row in report.rows_of("mono-torsion"):
        high, broken = row["states"]
        assert high["s2"] == pytest.approx(3.75, abs=0.1)
        assert broken["s2"] == pytest.approx(1.75, abs=0.1)
        assert high["lowdin_spins"][0] > 0.7
        assert broken["lowdin_spins"][0] < -0.7


def test_the_committed_spin_density_integrates_to_the_unpaired_electrons():
    stored = spin_density_maps.load("mono-excited")
    assert stored.molecule.n_atoms == 55
    assert stored.maps[0].integral == pytest.approx(3, abs=0.05)
    assert stored.maps[1].integral == pytest.approx(1, abs=0.05)


def test_rotated_guesses_are_determinants_and_end_right_or_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("MOLECULAR_COMPRESSION_CACHE", str(tmp_path))
    random = np.random.default_rng(1)
    overlap = np.eye(5)
    density = np.array([np.diag([1.0, 1, 0, 0, 0]), np.diag([1.0, 0, 0, 0, 0])])
    turned = np.asarray(perturbed_guesses.perturbed(density, overlap, (2, 1), 0.5, random))
    assert turned @ turned == pytest.approx(turned)
    assert np.trace(turned[0]) == pytest.approx(2)
    assert turned != pytest.approx(density, abs=0.01)
    outcomes = perturbed_guesses.run("h-he-h", 3, 0.5)
    assert perturbed_guesses.count(outcomes)["wrong"] == 0
    assert len(outcomes) == 3


class _Fixed:
    """In place of a `StateRunner`: every state at one energy."""

    def __init__(self, *arguments, **options):
        pass

    def run(self, determinant):
        return SimpleNamespace(energy_hartree=-1.0), None


def test_perturbed_guesses_continue_after_the_last_seed_and_rows_are_made_once(tmp_path, monkeypatch, capsys):
    """The third seed is interrupted: the first two are not run again; rows that are there only with ``--again``."""
    ran = []

    class Perturbed(_Fixed):
        def __init__(self, *arguments, strength, seed, **options):
            ran.append(seed)
            self.number = len(ran)

        def run(self, determinant):
            if self.number == 1:
                raise WrongStateError("another state")
            if self.number == 3:
                raise KeyboardInterrupt
            return super().run(determinant)

    def command(*options):
        return perturbed_guesses.main(["--systems", "h-he-h", "--strengths", "0.1", *options])

    monkeypatch.setenv("MOLECULAR_COMPRESSION_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(perturbed_guesses, "PATH", tmp_path / "data" / "guesses.json")
    monkeypatch.setattr(perturbed_guesses, "StateRunner", _Fixed)
    monkeypatch.setattr(perturbed_guesses, "PerturbedRunner", Perturbed)
    assert command("--seeds", "4") == 130
    assert not perturbed_guesses.PATH.exists()
    assert command("--seeds", "4") == 0
    assert "continues after 2 of 4 seeds" in capsys.readouterr().err
    seeds = [int(seed) for seed in seeds_for(20, 5)]
    assert ran == [*seeds[:3], *seeds[2:4]]
    (row,) = perturbed_guesses.read()["rows"]
    assert [row[name] for name in ("seeds", "right", "refused", "wrong")] == [4, 3, 1, 0]

    for fewer in ("4", "2"):
        assert command("--seeds", fewer) == 0
    assert len(ran) == 5
    assert "h-he-h, exact, rotations of 0.1: the row is there" in capsys.readouterr().err
    assert perturbed_guesses.read()["rows"] == [row]
    assert command("--seeds", "4", "--again") == 0
    assert len(ran) == 5  # by the same code: from the cache
    assert command("--seeds", "5") == 0
    assert ran[5:] == seeds
    monkeypatch.setattr(perturbed_guesses, "_code", lambda: "other")
    assert command("--seeds", "5", "--again") == 0
    assert ran[10:] == seeds
    (row,) = perturbed_guesses.read()["rows"]
    assert row["right"] == 5


def test_triplet_energy_of_ethene_is_above_its_ground_state():
    flat = Molecule.from_smiles("C=C")
    row = triplet_row(flat, flat, "pbe", "sto-3g", conv_tol=1e-6)
    assert row["adiabatic (cm^-1)"] == pytest.approx(row["vertical (cm^-1)"], abs=1e-6)
    assert 20_000 < row["vertical (cm^-1)"] < 60_000
    assert row["<S²>"] == pytest.approx(2, abs=0.05)
    assert measured_cm1() == 14927


def test_committed_triplet_energies_of_anthracene_are_near_the_measured_one():
    rows = {row["functional"]: row for row in triplet_energy.read()["rows"]}
    assert rows["b3lyp"]["adiabatic (cm^-1)"] == pytest.approx(measured_cm1(), rel=0.03)
    for row in rows.values():
        assert row["adiabatic (cm^-1)"] == pytest.approx(measured_cm1(), rel=0.12)
        assert 2.0 < row["<S²>"] < 2.06
        assert row["vertical (cm^-1)"] > row["adiabatic (cm^-1)"]


def test_committed_files_are_json_with_provenance():
    for path in studies.DATA.glob("*.json"):
        record = json.loads(path.read_text(encoding="utf-8"))
        assert record["rows"], path
        assert all(run["git_commit"] for run in record["runs"]), path


def test_no_committed_broken_symmetry_state_is_polarised_more_than_its_energy_explains():
    """By <S^2>, which overlap lowers: the least that the polarisation of the broken-symmetry state can be."""
    pairs = 0
    for path in studies.DATA.glob("*.json"):
        for row in json.loads(path.read_text(encoding="utf-8"))["rows"]:
            if len(states := row.get("states", ())) != 2:
                continue
            high, broken = states
            spins = (0.5, 0.5) if high["s2"] < 3 else (0.5, 1.0)  # which of them is turned does not matter
            beyond = [
                state["s2"] - separate_spin_s2(signs, spins) for state, signs in ((high, (1, 1)), (broken, (-1, 1)))
            ]
            gap = (broken["energy_hartree"] - high["energy_hartree"]) * HARTREE_TO_CM1
            assert polarised_alike(max(0.0, beyond[1] - beyond[0]), gap), (path.stem, row["molecule"], row["xc"])
            pairs += 1
    assert pairs > 80


def bi_row(state, j_cm1, **more):
    three = [[0.0, j_cm1, 0.5], [j_cm1, 0.0, j_cm1], [0.5, j_cm1, 0.0]]
    couplings = three if state == "excited" else [[0.0, j_cm1], [j_cm1, 0.0]]
    row = Calculation("bi", state, basis="6-31g", **more).key() | {"held_torsions_degrees": [57.0, -57.2]}
    row |= {f"j_{name}_cm1": couplings for name in report.PROJECTIONS}
    return row | {"residual_cm1": None, "states": [{"stable": None, "solver": "diis"}]}


def test_the_average_over_both_torsions_is_that_of_the_plane(monkeypatch):
    """Torsions that do not feel each other: the mean of their couplings over (a, b), with the energy e(a) + e(b)."""

    def energy_cm1(degrees):
        return 800 * np.cos(np.radians(degrees)) ** 4 + 150 * np.sin(np.radians(degrees)) ** 4

    def coupling_cm1(degrees):
        return 180 * np.cos(np.radians(degrees)) ** 2

    def row(degrees, torsion):
        found = bi_row("excited", coupling_cm1(degrees), torsion_degrees=torsion)
        found["held_torsions_degrees"] = [-degrees - 1, degrees - 1]
        return found | {"states": [{"energy_hartree": 2 * energy_cm1(degrees) / HARTREE_TO_CM1}]}

    turned = [row(degrees, degrees) for degrees in (90.0, 70.0, 40.0, 80.0)]
    kept = {"bi": [row(55.0, None)], "bi-torsion": turned[:2]}
    monkeypatch.setattr(report, "rows_of", lambda study, **wanted: kept[study])
    assert report.bi_torsion_average() is None
    kept["bi-torsion"] = turned
    angles = np.linspace(40, 140, 2001)
    factor = np.exp(-energy_cm1(angles) / (report.ROOM_TEMPERATURE_K * KELVIN_TO_CM1))
    plane = np.outer(factor, factor)
    first, second = coupling_cm1(angles)[:, None], coupling_cm1(angles)[None]
    expected = np.sum(plane * (first + second) / 2) / np.sum(plane)
    assert report.bi_torsion_average().mean_cm1 == pytest.approx(expected, rel=0.01)


def test_the_error_of_the_mean_holds_the_difference_of_equivalent_halves(monkeypatch):
    lit, dark = bi_row("excited", 70.0), bi_row("ground", -1.0)
    dark["j_unprojected_cm1"] = [[0.0, -0.5], [-0.5, 0.0]]
    for name, second in (("yamaguchi", 80.0), ("noodleman", 70.0), ("unprojected", 60.0), ("local", 84.0)):
        lit[f"j_{name}_cm1"] = [[0.0, 60.0, 0.1], [60.0, 0.0, second], [0.1, second, 0.0]]
    rows_of = report.rows_of
    functionals, by_functional, own_lit, bases = [], [], [], []

    def rows(study, **wanted):
        kept = {
            "mono-functional": functionals,
            "bi-dark-functional": by_functional,
            "bi-functional": own_lit,
            "bi-basis": bases,
        }
        if study in kept:
            return kept[study]
        return ([lit] if wanted["state"] == "excited" else [dark]) if study == "bi" else rows_of(study, **wanted)

    monkeypatch.setattr(report, "rows_of", rows)
    monkeypatch.setattr(report, "refused_functionals", lambda study: set())
    bar = report.mono_error_bar()
    parts = [part for name, part in bar.parts_cm1.items() if name not in ("projection", "functional")]
    relative = np.linalg.norm(parts) / abs(bar.value_cm1)
    found = report.switching()
    spread = 12 / np.sqrt(12)  # of 70, 65, 60 and 72
    assert found["j_on_cm1"] == 70
    assert found["j_on_error_cm1"] == pytest.approx(np.linalg.norm([70 * relative, spread, 10]))
    mine = report.bi_error_bar()
    assert mine.value_cm1 == 70
    assert mine.parts_cm1["projection"] == pytest.approx(spread)
    assert mine.parts_cm1["geometry"] == pytest.approx(np.hypot(70 * bar.parts_cm1["geometry"] / bar.value_cm1, 10))
    assert found["ratios"]["ground"]["ratio_error"] > found["j_on_error_cm1"]
    functionals += [
        {"xc": xc, "j_yamaguchi_cm1": [[0, j], [j, 0]]} for xc, j in (("b3lyp", 50), ("pbe0", 75), ("pbe", 25))
    ]
    alone = report.switching()["ratios"]["ground"]
    assert alone["without_dark"] == ["pbe0", "pbe"]
    assert alone["ratio"] == found["ratios"]["ground"]["ratio"]  # of B3LYP, which has the only dark coupling

    def dark_row(xc, j_cm1, geometry):
        by_functional.append(bi_row("ground", j_cm1, xc=xc, geometry=geometry))

    dark_row("pbe0", -4.0, None)
    one = report.switching()
    least, error = 70 - 2 * found["j_on_error_cm1"], max(0.1, np.hypot(relative, 0.5 / np.sqrt(12)))
    assert one["j_on_error_cm1"] == found["j_on_error_cm1"]  # functionals are a factor, in no error
    assert one["ratios"]["ground"]["dark_cm1"] == {"b3lyp": (-1.0, error), "pbe0": (-4.0, max(0.1, 4 * relative))}
    assert one["ratios"]["ground"]["without_dark"] == ["pbe"]
    expected = 1.5 * least / (4 + 2 * max(0.1, 4 * relative))
    assert one["ratios"]["ground"]["ratio"] == pytest.approx(expected)
    assert one["ratios"]["ground"]["lower_bound"]
    lit_dark = bi_row("ground", -2.0, geometry="excited")
    dark_row("pbe", -20.0, "excited")  # ten times that of B3LYP: so is the one at the other geometry, with its error
    darks = [dark, lit_dark]
    monkeypatch.setattr(report, "rows_of", lambda study, **w: darks if w == {"state": "ground"} else rows(study, **w))
    other = report.switching()["ratios"]
    assert other["ground"]["dark_cm1"]["pbe"] == pytest.approx((-10.0, 10 * error))
    assert other["ground"]["ratio"] == pytest.approx(0.5 * least / (10 + 20 * error))
    assert other["excited"]["dark_cm1"]["pbe"] == pytest.approx((-20.0, 20 * relative))
    assert other["excited"]["without_dark"] == ["pbe0"]
    own_lit.append(bi_row("excited", 140.0, xc="pbe0"))
    monkeypatch.setattr(report, "refused_functionals", lambda study: {"pbe"} if study == "bi-functional" else set())
    without = report.switching()
    assert without["lit_factors"] == {"b3lyp": 1.0, "pbe0": 2.0}  # its own; that of the refused one is not taken
    assert set(without["ratios"]["ground"]["dark_cm1"]) == {"b3lyp", "pbe0"}
    bases.append(bi_row("excited", 73.0) | {"basis": "6-31g*"})
    own = report.bi_error_bar().parts_cm1
    assert own["functional"] == pytest.approx(np.std([70, 140], ddof=1))
    assert own["basis"] == pytest.approx(3)


def test_local_couplings_of_rows_of_before_they_were_kept_come_from_their_map():
    (lit,) = report.rows_of("bi", state="excited")
    assert report.local_couplings(lit)[[0, 1], [1, 2]] == pytest.approx([74.65, 98.48], abs=0.01)
    assert report.local_couplings(lit | {"j_local_cm1": [[0, 1], [1, 0]]}).tolist() == [[0, 1], [1, 0]]
    assert report.local_couplings(lit | {"xc": "pbe"}) is None


def test_the_second_torsion_counts_as_an_error_of_the_geometry(monkeypatch):
    angles, rows_of = np.arange(0.0, 91.0, 15.0), report.rows_of
    turned: list[dict] = []
    monkeypatch.setattr(
        report, "rows_of", lambda study, **w: turned if study == "mono-second-torsion" else rows_of(study, **w)
    )
    assert report.radical_torsion_factor() is None
    before = report.mono_error_bar()
    for angle in angles:  # free rotation: the mean of J = 80 cos^2 is half of J at 0°
        j = 80 * np.cos(np.radians(angle)) ** 2
        states = [{"energy_hartree": -1e-9 if angle == 0 else 0.0}]
        turned.append({"torsion_degrees": angle, "j_yamaguchi_cm1": [[0, j], [j, 0]], "states": states})
    assert report.radical_torsion_factor() == pytest.approx(0.5, abs=1e-3)
    after = report.mono_error_bar()
    assert after.value_cm1 == before.value_cm1
    assert after.parts_cm1["geometry"] > before.parts_cm1["geometry"]


@pytest.mark.parametrize("step", [0.4, -0.4])
def test_the_grid_error_does_not_cancel_that_of_the_fit(step, monkeypatch):
    (here,) = report.rows_of("mono-torsion", torsion_degrees=50.0)
    grids = [
        here | {"grid_level": level, "j_yamaguchi_cm1": [[0.0, j], [j, 0.0]]} for level, j in ((1, 80), (3, 80 + step))
    ]
    rows_of = report.rows_of
    monkeypatch.setattr(report, "rows_of", lambda study, **w: grids if study == "mono-grid" else rows_of(study, **w))
    scale = report.torsion_average().mean_cm1 / report.coupling(here)
    assert report.mono_error_bar().parts_cm1["grid"] > 0.4 * scale


def test_sections_say_what_the_rows_say(tmp_path, monkeypatch):
    committed = json.loads(studies.path_of("mono-torsion").read_text(encoding="utf-8"))
    grid = [
        Calculation(studies.SMALL, xc=xc, torsion_degrees=90.0).key()
        | {"j_yamaguchi_cm1": [[0.0, j], [j, 0.0]], "states": [{"solver": solver, "stable": stable}]}
        for xc, j, solver, stable in (
            ("pbe", 60.0, HELD[0], None), ("b3lyp", 48.0, "diis", True), ("r2scan", 50.0, "diis", False),
        )
    ]  # fmt: skip
    rows = {
        "mono-torsion": committed["rows"],
        "bi": [bi_row("excited", 70.0), bi_row("ground", -0.01), bi_row("ground", -1.0, geometry="excited")],
        "small-grid": grid,
        "diradicals": [
            Calculation("p-benzyne", "ground").key() | {"j_yamaguchi_cm1": [[0.0, -700.0], [-700.0, 0.0]]},
            Calculation("m-xylylene", "ground").key() | {"error": "relaxation refused"},
        ],
    }
    monkeypatch.setattr(studies, "DATA", tmp_path / "data")
    monkeypatch.setattr(spin_density_maps, "DATA", tmp_path / "data")
    monkeypatch.setattr(perturbed_guesses, "PATH", tmp_path / "data" / "guesses.json")
    for study, found in rows.items():
        write_json(studies.path_of(study), {"study": study, "rows": found, "runs": committed["runs"]})
    for strength in (1.0, 0.1):
        outcomes = [perturbed_guesses.Outcome("right", 0.1), perturbed_guesses.Outcome("refused", None, "no")]
        perturbed_guesses.keep("h-he-h", strength, outcomes)
    assert [row["rotation (rad)"] for row in perturbed_guesses.read()["rows"]] == [0.1, 1.0]
    assert exchange_sections.main(["--out", str(tmp_path)]) == 0
    folder = tmp_path / "exchange_studies"
    sections = {
        section["title"].split(":")[0]: section["text"]
        for section in json.loads((folder / "summary.json").read_text(encoding="utf-8"))["sections"]
    }
    lit = sections["Exchange with the chromophore lit and dark"]
    assert "(geometry of the ground state), |J_on/J_off| is at least" in lit
    assert "|J_on/J_off| is 70 ±" in lit
    planned = sections["The paper's molecules, one axis at a time"]
    assert planned.startswith("4 of ")
    assert "states by B3LYP" in planned
    table = (folder / "methods.md").read_text(encoding="utf-8")
    assert "| bi-functional | bi | excited | pbe | 6-31g | 2 | relaxed, excited | not computed |" in table
    assert "| bi | bi | excited | b3lyp | 6-31g | 2 | relaxed, excited | +70 |" in table
    simulations = (folder / "simulations.md").read_text(encoding="utf-8")
    assert "less than half of the next row | +101, +201 |" in simulations  # 70 cm^-1
    assert "| > +400 | not computed |" in simulations
    assert "| pbe, r2scan |" in (folder / "method_grid.md").read_text(encoding="utf-8")
    assert "not overdetermined" in (folder / "switching.md").read_text(encoding="utf-8")
    assert (
        "1 of 2 calculations and 2 of 4 states reached the checked ones"
        in sections["Diradicals against published gaps"]
    )
    assert (folder / "method_grid.png").stat().st_size > 10_000
    assert (folder / "diradicals.png").stat().st_size > 10_000
    assert "| p-benzyne | -1,329" in (folder / "diradicals.md").read_text(encoding="utf-8")
    assert "| 6-31g* | 90.00 | 60.00 | 48.00 |" in (folder / "method_grid.md").read_text(encoding="utf-8")
    assert "| h-he-h | exact | 1.000 | 2 | 1 | 1 | 0 |" in (folder / "perturbed_guesses.md").read_text(encoding="utf-8")
