"""The command line: exit codes, messages, and one small molecule from start to end."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from molecular_qubits import cli, cli_exchange
from molecular_qubits.experiments.network import CONFIGS
from molecular_qubits.structure import environment, memory, relaxation
from molecular_qubits.structure.library import LIBRARY, start_geometry
from molecular_qubits.structure.molecule import Molecule
from molecular_qubits.structure.relaxation import GeometryNotConvergedError
from molecular_qubits.units import HARTREE_TO_CM1

H_HE_H = "3\n\nH 0 0 -1.5\nHe 0 0 0\nH 0 0 1.5\n"


@pytest.fixture
def xyz(tmp_path):
    path = tmp_path / "molecule.xyz"
    path.write_text(H_HE_H, encoding="utf-8")
    return path


def test_the_input_is_not_written_over(xyz, capsys):
    assert cli.main(["exchange", str(xyz), "--centres", "0", "2", "--json", str(xyz)]) == 2
    assert "Option `--json` must name another file than the molecule" in capsys.readouterr().err
    assert xyz.read_text(encoding="utf-8") == H_HE_H
    other = xyz.rename(xyz.with_suffix(".txt"))
    assert cli.main(["exchange", str(other), "--centres", "0", "2"]) == 2
    assert "must end in .xyz where it is an XYZ file" in capsys.readouterr().err


def test_a_long_smiles_is_no_file_name(capsys):
    assert cli.main(["exchange", "C" * 300 + "(", "--centres", "radicals"]) == 2
    assert "must be a valid SMILES" in capsys.readouterr().err


def test_a_link_to_the_input_is_not_written_over(xyz, tmp_path):
    link = tmp_path / "link.json"
    link.symlink_to(xyz)
    assert cli.main(["exchange", str(xyz), "--centres", "0", "2", "--json", str(link)]) == 2
    assert xyz.read_text(encoding="utf-8") == H_HE_H


def test_exchange_of_an_xyz_file(xyz, tmp_path, capsys):
    out = tmp_path / "result.json"
    arguments = ["exchange", str(xyz), "--centres", "0", "2", "--basis", "6-31g", "--grid-level", "1"]
    assert cli.main([*arguments, "--cache", str(tmp_path / "cache"), "--json", str(out)]) == 0
    printed = capsys.readouterr().out
    record = json.loads(out.read_text(encoding="utf-8"))
    j_cm1 = record["j_yamaguchi_cm1"][0][1]
    assert j_cm1 < -100
    assert f"{j_cm1:+.3f}" in printed
    assert "broken-symmetry state ↑↓" in printed
    assert "(projection " in printed
    assert record["error_bars"][0]["missing"] == ["functional", "basis", "grid", "geometry"]
    spread = max(record[f"j_{name}_cm1"][0][1] for name in ("yamaguchi", "noodleman", "unprojected")) - min(
        record[f"j_{name}_cm1"][0][1] for name in ("yamaguchi", "noodleman", "unprojected")
    )
    parts = record["error_bars"][0]["parts_cm1"]
    assert parts["projection"] == pytest.approx(spread / 12**0.5)
    high, broken = (state["s2"] for state in record["states"])
    errors = [1e-9 * HARTREE_TO_CM1, j_cm1 * 1e-9**0.5]  # of an energy, and of a coupling by an <S^2>
    assert parts["convergence"] == pytest.approx(2**0.5 * math.hypot(*errors) / (high - broken), rel=1e-3)
    assert record["provenance"]["config"]["basis"] == "6-31g"


def test_the_geometry_of_uks_is_relaxed_by_the_method_of_the_options(tmp_path, monkeypatch):
    out = tmp_path / "result.json"
    arguments = ["exchange", "[NH]C[NH]", "--centres", "0", "2", "--geometry", "uks", "--no-stability"]
    arguments += ["--xc", "hf", "--basis", "sto-3g", "--cache", str(tmp_path), "--json", str(out)]
    assert cli.main(arguments) == 0
    relaxed = Molecule.from_dict(json.loads(out.read_text(encoding="utf-8"))["molecule"])
    start = start_geometry(Molecule.from_smiles("[NH]C[NH]", multiplicity=3)).optimize("gfn2")
    assert relaxed.positions == pytest.approx(start.optimize("uks", xc="hf", basis="sto-3g").positions, abs=1e-5)
    seen = {}

    def refuse(molecule, level, multiplicity, cache, **options):
        if level == "gfn2" and not options:
            return molecule
        seen.update(options)
        raise GeometryNotConvergedError("not now")

    monkeypatch.setattr(relaxation, "cached_relaxation", refuse)
    assert cli.main([*arguments, "--solvent", "80", "--grid-level", "1", "--exact-integrals"]) == 1
    assert seen == {
        "xc": "hf", "basis": "sto-3g", "grid_level": 1, "density_fit": False, "solvent_epsilon": 80.0,
        "dispersion": None, "device": "cpu", "stability": False, "centres": [(0,), (2,)], "spins": [0.5, 0.5],
    }  # fmt: skip
    limits = {"max_cycle": 7, "conv_tol": 1e-7, "max_steps": 9}
    words = [word for name, value in limits.items() for word in ("--" + name.replace("_", "-"), str(value))]
    assert cli.main([*arguments, *words]) == 1
    assert {name: seen[name] for name in limits} == limits
    seen.clear()
    assert cli.main([*arguments, *words, "--geometry", "gfn2"]) == 1
    assert seen == {"max_steps": 9}


def test_the_conformer_of_a_file_is_relaxed_as_it_is(tmp_path, monkeypatch):
    flat = Molecule.from_smiles(LIBRARY["bis-oxoverdazyl"].smiles)
    for atoms in flat.ring_torsions():
        flat = flat.set_torsion(atoms, 0.0)
    (tmp_path / "flat.xyz").write_text(flat.to_xyz(), encoding="utf-8")
    seen = []

    def refuse(molecule, level, multiplicity, cache, **options):
        seen.append(molecule)
        raise GeometryNotConvergedError("not now")

    monkeypatch.setattr(relaxation, "cached_relaxation", refuse)
    arguments = ["--centres", "0", "1", "--geometry", "gfn2", "--cache", str(tmp_path)]
    for source in (str(tmp_path / "flat.xyz"), LIBRARY["bis-oxoverdazyl"].smiles):
        assert cli.main(["exchange", source, *arguments]) == 1
    assert seen[0].positions == pytest.approx(flat.positions, abs=1e-6)
    assert abs(seen[1].torsion(seen[1].ring_torsions()[0])) > 20


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nothing-like-it", "--centres", "0", "1"], "library name"),
        (["absent.xyz", "--centres", "0", "1"], "no XYZ file"),
        (["[O]NCN[O]"], "--centres"),
        (["[O]NCN[O]", "--centres", "0,x", "3"], "'0,x'"),
        (["[O]NCN[O]", "--centres", "density"], "`--multiplicity` must be given"),
        (["[O]NCN[O]", "--centres", "density", "--multiplicity", "2"], "must be odd"),
        (["[O]NCN[O]", "--centres", "0", "3", "--multiplicity", "3"], "goes with `--centres density`"),
        (["[O]NCN[O]", "--centres", "density", "--multiplicity", "3", "--spins", "0.5", "0.5"], "must be left out"),
        (["[O]NCN[O]", "--centres", "3-0", "4"], "'3-0', which is reversed"),
        (["[O]NCN[O]", "--centres", "0", "3", "--guess-basis", "sto-4g"], "Did you mean 'sto-3g'"),
        (["[O]NCN[O]", "--centres", "0-1", "1"], "disjoint"),
        (["[O]NCN[O]", "--centres", "0", "99"], "indices from 0"),
        (["[O]NCN[O]", "--centres", "0", "3", "--spins", "0.5", "1"], "multiplicity 4, which 40 electrons"),
        (["[O]NCN[O]", "--centres", "0", "3", "--solvent", "0.5"], "above 1"),
        (["[O]NCN[O]", "--centres", "0", "3", "--grid-level", "12"], "from 0 to 9"),
        (["[O]NCN[O]", "--centres", "0", "3", "--geometry", "as-is", "--max-steps", "9"], "goes with a relaxation"),
        (["[O]NCN[O]", "--centres", "0", "3", "--max-steps", "-5"], "`--max-steps` must be at least 1, but is -5"),
        (["[O]NCN[O]", "--centres", "0", "3", "--conv-tol", "1e-300"], "`--conv-tol` must be between 1e-13 and 1e-3"),
        (["[O]NCN[O]", "--centres", "0", "3", "--xc", ","], "known to PySCF such as 'b3lyp', but is ','"),
        (["[O]NCI", "--centres", "0", "1"], "elements up to krypton, such as 'C', but holds 'I'"),
        (["monoo"], "Did you mean 'mono'"),
        (["[O]NCN[O]", "--centres", "0", "3", "--spins", "0.5", "0.3"], "multiples of 1/2"),
        (["mono", "--xc", "b3lypp"], "'b3lypp'. Did you mean 'b3lyp'"),
        (["mono", "--basis", "6-31gg"], "'6-31gg'. Did you mean"),
        (["[CH2", "--centres", "0"], "cannot read '[CH2'"),
        (["CCO", "--centres", "radicals"], "must have a radical, such as [O]N in its SMILES, but 'CCO' has none"),
        (["[O]NC=O", "--centres", "radicals", "chromophore"], "must have an aromatic ring"),
        (["[O]NCN[O]", "--centres", "0"], "Option `--centres` must hold at least 2 sets"),
        (["[O]NCN[O]", "--centres", "density", "--multiplicity", "1"], "Option `--multiplicity` must be 3 or more"),
        (["mono", "--guesses", "swop"], "Option `--guesses` must hold some of ('fragment', 'swap'), but holds 'swop'"),
        (
            ["mono", "--solvers", "newton", "diis"],
            "Option `--solvers` must hold some of ('diis', 'level shift', 'newto",
        ),
        (["mono", "--auxbasis", "no-such-fit"], "Option `--auxbasis` must be a fitting basis of PySCF for"),
        (["mono", "--auxbasis", "weigend", "--exact-integrals"], "`--auxbasis` must be left out with `--exact-integ"),
        (["mono", "--conv-tol", "1"], "Option `--conv-tol` must be between 1e-13 and 1e-3 hartree"),
        (["mono", "--spins", "0.5", "1", "0.5"], "Option `--spins` must hold one spin for each of 2 centres"),
        (["mono", "--charge", "1"], "Check `--spins`, `--charge` and the hydrogen atoms"),
        (["mono", "--xc", "b3lyp-d3bj"], "Ask for dispersion by its own argument, `--dispersion`"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_two(arguments, words, capsys, tmp_path):
    assert cli.main(["exchange", *arguments, "--cache", str(tmp_path / "cache")]) == 2
    printed, message = capsys.readouterr()
    assert not printed
    assert message.startswith("error: ")
    assert words in message
    assert message.count("\n") == 1
    assert not (tmp_path / "cache").exists()


def test_failed_calculation_is_exit_code_one(tmp_path, capsys):
    path = tmp_path / "collapsed.xyz"
    path.write_text("2\n\nH 0 0 0\nH 0 0 0.74\n", encoding="utf-8")
    arguments = ["exchange", str(path), "--centres", "0", "1", "--basis", "6-31g", "--grid-level", "1"]
    assert cli.main([*arguments, "--cache", str(tmp_path)]) == 1
    assert "error: The broken-symmetry state" in capsys.readouterr().err


def test_a_wrong_state_is_said_once_with_options_as_remedies(xyz, tmp_path, capsys):
    xyz.write_text(H_HE_H.replace("1.5", "0.8"), encoding="utf-8")
    arguments = ["exchange", str(xyz), "--centres", "0", "2", "--xc", "hf", "--basis", "6-31g", "--no-stability"]
    assert cli.main([*arguments, "--guesses", "swap", "--cache", str(tmp_path / "swap")]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if "'swap'" in line] == [lines[-1]]
    assert "Try other atom sets in `--centres`, another entry of `--guesses`, another" in lines[-1]
    assert cli.main([*arguments, "--cache", str(tmp_path / "both")]) == 1
    lines = capsys.readouterr().err.splitlines()
    found = [line for line in lines if "<S^2> = 0.3" in line]
    assert found[0].endswith("Next guess: 'swap'.")
    assert found[-1] == lines[-1]
    assert [line.split("converged ")[1].split(" to <S^2>")[0] for line in found] == [
        "from the guess 'fragment'", "from the guess 'swap'", "held by overlap with the guess 'fragment'",
    ]  # fmt: skip


def test_guesses_solvers_and_fitting_basis_are_taken(xyz, tmp_path, capsys):
    out = tmp_path / "result.json"
    arguments = ["exchange", str(xyz), "--centres", "0", "2", "--xc", "hf", "--basis", "6-31g", "--no-stability"]
    arguments += ["--guesses", "swap", "fragment", "--solvers", "diis", "newton", "--auxbasis", "def2-universal-jkfit"]
    assert cli.main([*arguments, "--cache", str(tmp_path / "cache"), "--json", str(out)]) == 0
    record = json.loads(out.read_text(encoding="utf-8"))
    assert record["states"][1]["guess"] == "swap"
    assert record["provenance"]["config"]["solvers"] == ["diis", "newton"]
    assert record["settings"]["auxbasis"] == "def2-universal-jkfit"
    assert record["settings"]["density_fit"] is True
    capsys.readouterr()


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("Argument `solvent_epsilon` must be", "Option `--solvent` must be"),
        ("exact integrals (`density_fit=False`, slower)", "exact integrals (`--exact-integrals`, slower)"),
        ("this field all the same (`stability=False`).", "this field all the same (`--no-stability`)."),
        ("Argument `molecule` must be; leave `charge` out", "Argument `molecule` must be; leave `--charge` out"),
    ],
)
def test_messages_name_options(message, words):
    assert cli_exchange.name_options(message) == words


def test_a_missing_package_is_said_of_the_option(xyz, monkeypatch, capsys):
    monkeypatch.setattr(environment, "gpu_available", lambda: False)
    assert cli.main(["exchange", str(xyz), "--centres", "0", "2", "--device", "gpu"]) == 2
    assert capsys.readouterr().err.startswith("error: Option `--device` is 'gpu', which needs a CUDA device")


def test_every_option_that_messages_name_is_there(capsys):
    with pytest.raises(SystemExit):
        cli.main(["exchange", "--help"])
    shown = capsys.readouterr().out
    assert all(f"  {option}" in shown for option in cli_exchange.OPTIONS.values())


def test_interrupt_is_exit_code_130(xyz, monkeypatch, capsys):
    def interrupt(arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli_exchange, "run_exchange", interrupt)
    assert cli.main(["exchange", str(xyz), "--centres", "0", "2"]) == 130
    assert "continues" in capsys.readouterr().err


def test_mono_is_the_command_of_the_committed_result(monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(cli_exchange, "run_exchange", seen.append)
    assert cli.main(["mono", "--json", str(tmp_path / "mono.json")]) == 0
    (arguments,) = seen
    committed = json.loads((Path(cli.__file__).parent / "experiments/data/mono_exchange.json").read_text("utf-8"))
    assert " ".join(("molecular-qubits exchange", *cli_exchange.MONO_ARGUMENTS)) in committed["provenance"]["command"]
    settings = committed["settings"]
    assert (arguments.xc, arguments.basis, arguments.grid_level) == (
        settings["xc"],
        settings["basis"],
        settings["grid_level"],
    )
    assert arguments.json == tmp_path / "mono.json"


@pytest.mark.parametrize(("text", "atoms"), [("0", (0,)), ("0,2", (0, 2)), ("3-6", (3, 4, 5, 6)), ("0,3-4", (0, 3, 4))])
def test_atom_sets(text, atoms):
    assert cli_exchange.parse_atoms(text) == atoms


def test_unknown_configuration_key_names_the_nearest(capsys, tmp_path):
    assert cli.main(["reproduce", "--out", str(tmp_path / "out"), "--set", "exchange.basi=sto-3g"]) == 2
    assert "did you mean 'basis'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_help_loads_nothing_heavy():
    code = (
        "import sys\nfrom molecular_qubits.cli import build_parser\nbuild_parser().format_help()\n"
        "heavy = {'pyscf', 'qutip', 'jax', 'torch', 'numpy', 'rdkit'} & set(sys.modules)\nsys.exit(len(heavy))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_module_runs_as_a_program():
    run = subprocess.run(
        [sys.executable, "-m", "molecular_qubits", "--help"], capture_output=True, text=True, check=True
    )
    assert "exchange" in run.stdout
    assert "reproduce" in run.stdout


def test_words_stand_for_the_radicals_and_the_chromophore_of_a_smiles():
    entry = LIBRARY["verdazyl-bi"]
    centres, spins = cli_exchange.read_centres(Molecule.from_smiles(entry.smiles), ["radicals", "chromophore"])
    assert centres == [entry.centres[0], entry.centres[2], entry.centres[1]]
    assert spins == [0.5, 0.5, 1.0]
    assert cli_exchange.read_centres(Molecule.from_smiles("[O]NCC"), ["radicals", "2-3"]) == (
        [(0, 1), (2, 3)],
        [0.5, 0.5],
    )


def test_clashing_atoms_are_bad_input(tmp_path, capsys):
    path = tmp_path / "clash.xyz"
    path.write_text("3\n\nH 0 0 -1.5\nHe 0 0 0\nH 0 0 0.3\n", encoding="utf-8")
    assert cli.main(["exchange", str(path), "--centres", "0", "2", "--cache", str(tmp_path / "cache")]) == 2
    assert "He1 and H2 are 0.30 Å apart" in capsys.readouterr().err
    options = ["--geometry", "gfn2", "--cache", str(tmp_path / "cache")]  # would move the atoms apart
    assert cli.main(["exchange", str(path), "--centres", "0", "2", *options]) == 2
    assert not (tmp_path / "cache").exists()


def test_an_impossible_multiplicity_is_bad_input_before_any_work(xyz, tmp_path, capsys):
    arguments = ["exchange", str(xyz), "--centres", "0", "2", "--spins", "0.5", "1", "--cache", str(tmp_path / "c")]
    assert cli.main(arguments) == 2
    assert (
        "`--spins` must fit the number of electrons, but (0.5, 1.0) give the high-spin multiplicity 4"
        in capsys.readouterr().err
    )
    assert not (tmp_path / "c").exists()


def test_too_little_memory_is_a_failure_with_its_remedy(xyz, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(memory, "available_memory_mb", lambda: 0.0)
    big = Molecule.from_smiles("[O]N(C)CCCN(C)[O]")  # fitted by default from 20 atoms on
    xyz.write_text(big.to_xyz(), encoding="utf-8")
    arguments = ["exchange", str(xyz), "--centres", "0,1", "6,8", "--basis", "sto-3g", "--cache", str(tmp_path / "c")]
    assert cli.main(arguments) == 1
    assert (
        "take a smaller `--basis` or `--auxbasis`, exact integrals (`--exact-integrals`, slower)"
        in capsys.readouterr().err
    )
    assert not (tmp_path / "c").exists()


def test_too_little_memory_is_said_before_the_geometry_is_relaxed(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(memory, "available_memory_mb", lambda: 0.0)
    assert cli.main(["exchange", "mono", "--cache", str(tmp_path / "c")]) == 1
    assert "Density fitting of 55 atoms in 6-31g*" in capsys.readouterr().err
    assert not (tmp_path / "c").exists()


def test_too_few_cycles_are_a_failure_with_its_remedy(xyz, tmp_path, capsys):
    arguments = ["exchange", str(xyz), "--centres", "0", "2", "--xc", "hf", "--basis", "6-31g"]
    assert cli.main([*arguments, "--max-cycle", "1", "--cache", str(tmp_path / "c")]) == 1
    message = capsys.readouterr().err
    assert "did not converge" in message
    assert "Raise `--max-cycle`, relax `--conv-tol`" in message
    assert cli.main([*arguments, "--max-cycle", "0", "--cache", str(tmp_path / "c")]) == 2
    assert "Option `--max-cycle` must be" in capsys.readouterr().err


def test_plots_and_json_are_written(tmp_path, capsys):
    xyz = tmp_path / "h_he_h.xyz"
    xyz.write_text("3\n\nH 0 0 -1.5\nHe 0 0 0\nH 0 0 1.5\n", encoding="utf-8")
    folder, path = tmp_path / "plots", tmp_path / "result.json"
    arguments = ["exchange", str(xyz), "--centres", "0", "2", "--basis", "sto-3g", "--cache", str(tmp_path / "c")]
    assert cli.main([*arguments, "--plots", str(folder), "--json", str(path)]) == 0
    assert {"convergence.png", "spin_density.png"} <= {found.name for found in folder.iterdir()}
    record = json.loads(path.read_text(encoding="utf-8"))
    for state in record["states"]:
        assert len(state["history"]) == state["cycles"]
        assert state["history"][-1][0] == pytest.approx(state["energy_hartree"], abs=1e-6)
    assert "J in cm^-1" in capsys.readouterr().out


def test_the_library_is_listed(capsys):
    assert cli.main(["molecules"]) == 0
    out = capsys.readouterr().out
    assert "mono\n" in out
    assert "spins 1/2, 1, 1/2" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["gate"], "Give exactly one of the keys molecule, exchange, j_on_cm1 (e.g. `--set j_on_cm1=0.25`), but none"),
        (["gate", "--set", "j_on_cm1=1", "--set", "molecule=mono"], "but molecule and j_on_cm1 were given."),
        (["exchange", "mono", "--solvent", "-3"], "Option `--solvent` must be a dielectric constant above 1"),
        (["screen", "shipped", "--workers", "0", "--finished-only"], "`n_workers` must be at least 1, but was 0."),
        (["run-circuit", "nowhere.qasm", "--without", "foo"], "must be one of initialisation, readout,"),
        (["network", "--set", "rows=1"], "but has 9. More sites: `--set rows=3 --set columns=3`."),
    ],
)
def test_bad_settings_are_one_sentence(arguments, words, capsys):
    assert cli.main(arguments) == 2
    message = capsys.readouterr().err
    assert words in message
    assert message.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["gate", "--set", "j_on_cm1=1"], "j_on_cm1: 1.0\nj_on_error_cm1: 0.0\n"),
        (["epr", str(Path(cli.__file__).parent / "experiments/configs/epr_quintet.yaml")], "frequency_ghz: "),
        (["gate"], "j_on_cm1: null\n"),
        (["network"], f"circuit: {CONFIGS / 'network_ghz.qasm'}\n"),
        (["network", "--set", "rows=5"], "rows: 5\n"),
        (["run-circuit", "nowhere.qasm"], "rows: 3\n"),
        (["screen", "nowhere.csv", "--config", "cheap"], "retries: 2\n"),
        (["reproduce", "--fast"], "dynamics:\n"),
        (["processor"], "network:\n"),
        (["control"], ":"),
        (["evolve"], ":"),
    ],
)
def test_settings_are_shown_and_nothing_is_done(arguments, words, capsys, tmp_path):
    assert cli.main([*arguments, "--show-config", "--out", str(tmp_path / "out")]) == 0
    assert words in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("3\n\nH 0 0 0\nH 0 0 1\n", "announces 3 atoms"),
        ("1\n\nXx 0 0 0\n", "Line 3 must name an element"),
        (
            "2\n\nH 0 0 0\nHe 0 0\n",
            "Line 4 must be a symbol and finite x, y, z such as",
        ),
        ("1\n\nH 0 0 nan\n", "Line 3 must be a symbol"),
        ("1\n\nH 0,1 0 0\n", "but is 'H 0,1 0 0'"),
        ("", "must begin with the number of atoms and a comment, but begins with ''"),
        ("2\nmultiplicity=2\nH 0 0 0\nH 0 0 1\n", "The comment's multiplicity must be odd"),
        ("1\ncharge=0.5\nH 0 0 0\n", "`charge=` in the comment of the XYZ file must be a whole number"),
    ],
)
def test_a_bad_xyz_file_is_named(text, words, xyz, capsys):
    xyz.write_text(text, encoding="utf-8")
    assert cli.main(["exchange", str(xyz), "--centres", "0"]) == 2
    message = capsys.readouterr().err
    assert words in message
    assert repr(str(xyz)) in message
