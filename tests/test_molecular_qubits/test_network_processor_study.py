"""Figures of merit at the prompt, the benchmark of the simulators, their committed data."""

import json
import re

import numpy as np
import pytest

from benchmarks.network import ladder, ladder_figures
from molecular_qubits import cli
from molecular_qubits.experiments import processor, processor_figures
from molecular_qubits.experiments.disorder import Sweep
from molecular_qubits.experiments.network import CONFIGS
from shared.artifacts import Cache
from shared.plotting import style

TINY = {
    "ghz_shapes": ((1, 2), (2, 2)), "shape": (2, 2), "qaoa_rounds": (1, 2), "trotter_steps": (1, 2),
    "budget_shape": (1, 2), "j_cm1": (0.05, 0.24), "t2_ns": (300.0, 3e4), "lifetime_ns": (100.0, 1e5),
    "longest_hold": 1.0, "scales": (1.0, 0.2), "error_rates": (0.03, 1e-4), "disorder_shape": (2, 2),
    "disorder_seeds": 2, "j_points": 3,
    "disorder": (Sweep(quantity="j_relative", sizes=(0.01,)), Sweep(quantity="dead", sizes=(0.3,))),
    "codes": (processor.CodeStudy(code="repetition", distance=3, shots=300),),
}  # fmt: skip

GHZ = """OPENQASM 2.0;
include "qelib1.inc";
qreg q[3];
h q[0];
cx q[0], q[1];
cx q[1], q[2];
"""


def test_study_writes_its_parts_and_continues_from_the_cache(tmp_path, monkeypatch):
    study = processor.ProcessorStudy(**TINY)
    cache = Cache(tmp_path / "cache")
    found = processor.write(study, tmp_path / "out", cache)
    for part in processor.DRAWN:
        assert (tmp_path / "out" / f"{part}.png").stat().st_size > 5000
    monkeypatch.setattr(processor, "_MAKE", {})  # nothing may be computed again
    again = processor.write(study, tmp_path / "again", cache)
    assert {part: again[part] for part in processor.PARTS} == {part: found[part] for part in processor.PARTS}
    with monkeypatch.context() as patch, pytest.raises(KeyError):  # other code computes anew
        patch.setattr(processor, "code_hash", lambda module: "other")
        processor.write(study, tmp_path / "other", cache)
    shown = processor.write(study, tmp_path / "shown", None, tmp_path / "out" / "processor.json")
    assert shown["codes"] == found["codes"]
    ghz = found["circuits"]["ghz"]
    assert ghz[0]["fidelity"] > ghz[1]["fidelity"] > 0.5
    assert all(row["fidelity, perfect start"] > row["fidelity"] for row in ghz)
    assert all(row["guessing"] < row["mean cut"] < row["mean cut without noise"] for row in found["circuits"]["qaoa"])
    reached, out_of_reach = found["region"]["smallest"]
    assert reached["error there"] <= 0.03
    assert out_of_reach["J"] is None
    assert processor.boundary(found)[1]["error 0.03: lifetime (ns)"] == 100.0
    assert [row["size"] for row in found["disorder"]] == [0.0, 0.01, 0.0, 0.3]
    assert found["codes"][0]["error per round"] > found["codes"][1]["error per round"]


def test_committed_study_is_that_of_the_defaults_and_makes_sense():
    found = json.loads(processor.COMMITTED.read_text(encoding="utf-8"))
    assert found["study"] == json.loads(processor.ProcessorStudy().to_json())
    assert {"command", "versions", "seconds"} <= set(found["provenance"])
    useful = np.minimum(found["region"]["cycle"], 0.3)  # beyond that no hold is any good, and the search finds one
    for axis in (0, 1):
        assert np.all(np.diff(useful, axis=axis) < 1e-9)  # a longer T2 or lifetime never hurts
    scan = found["exchange"]
    cycles = processor.cycles_of(processor.ProcessorStudy())
    _, error = cycles.errors(scan["j_cm1"][70], scan["t2_ns"][1], found["study"]["lifetime_ns"][-1])
    assert error == pytest.approx(scan["cycle"][1][70], abs=1e-9)
    at_0_01 = next(row for row in processor.kept(found) if row["error rate"] == 0.01)
    assert at_0_01["J at T2 = 2100 ns"] == "none"
    assert ";" in at_0_01["J at T2 = 100000 ns"]  # islands
    best = {(row["code"], row["distance"], row["scale"]): row for row in found["codes"]}
    for code, large in (("repetition", 7), ("surface", 5)):
        small, big = best[code, 3, 0.1], best[code, large, 0.1]
        assert big["95 % low"] <= small["95 % high"]
    with style():
        for part in processor.DRAWN:
            assert getattr(processor_figures, f"draw_{part}")(found).axes


def test_the_tables_have_titles_and_no_rounding_errors(tmp_path, capsys):
    assert cli.main(["processor", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    for title in ("GHZ states", "Error budget: GHZ, 9 radicals", "Error budget: Trotter step, 9 radicals"):
        assert f"{title}\n\n| " in printed
    assert not re.search(r"e-1[2-9]", printed)


def test_circuit_from_the_prompt(tmp_path, capsys):
    (tmp_path / "ghz.qasm").write_text(GHZ)
    network = ["--set", "spacing_nm=4", "--set", "rows=1", "--set", "lattice=chain", "--set", "disorder=null"]
    common = [str(tmp_path / "ghz.qasm"), *network, "--out", str(tmp_path / "out")]
    assert cli.main(["run-circuit", *common, "--budget", "--shots", "200"]) == 0
    printed = capsys.readouterr().out
    assert "channels: 3 radicals, 2 coupler gates" in printed
    assert "of readout" not in printed  # the circuit has none
    assert "Error budget\n" in printed
    assert not re.search(r"e-1[2-9]", printed)  # rounding errors are 0
    assert "relaxation" in printed
    found = json.loads((tmp_path / "out" / "circuit.json").read_text())
    assert sum(found["counts"].values()) == 200
    assert (tmp_path / "out" / "budget.png").is_file()
    assert cli.main(["run-circuit", *common, "--method", "mps", "--without", "initialisation", "readout"]) == 0
    better = json.loads((tmp_path / "out" / "circuit.json").read_text())
    assert better["fidelity"] > found["fidelity"]


@pytest.mark.parametrize(
    ("text", "arguments", "message"),
    [
        (GHZ.replace("cx q[1]", "warp q[1]"), [], "warp"),
        (GHZ.replace("[3]", "[30]"), [], "at most 9 qubits, one a site, but has 30"),
        (GHZ, ["--without", "relaxations"], "must be one of"),
        (GHZ, ["--shots", "0"], "`shots` must be a whole number of at least 1"),
        (GHZ.replace("h q[0];", "h q[0]; t q[0]; h q[0];"), ["--method", "stim"], "must be Clifford for method 'stim'"),
        (GHZ, ["--method", "lindblad", "--memory-limit", "1e-3"], "needs about .* for 3 radicals .*use 'channels'"),
    ],
)
def test_bad_circuits_at_the_prompt(text, arguments, message, tmp_path, capsys):
    (tmp_path / "bad.qasm").write_text(text)
    code = cli.main(["run-circuit", str(tmp_path / "bad.qasm"), "--out", str(tmp_path / "out"), *arguments])
    assert code == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("error_rates=[]", "error_rates"),
        ("t2_ns=[100]", "t2_ns"),
        ("j_cm1=[0.2, 0.1]", "j_cm1 must rise"),
        ("lifetime_ns=[-1, 5]", "lifetime_ns"),
        ("qaoa_rounds=[]", "qaoa_rounds"),
        ("scales=[0]", "scales"),
        ("target=cnot", "target must be one of"),
        ("codes=[{code: surface, distance: 4}]", "distance must be odd, but was 4"),
        ("disorder=[{quantity: dead, sizes: [2]}]", "dead"),
        ("ghz_shapes=[[0, 2]]", "ghz_shapes"),
    ],
)
def test_processor_refuses_values_before_any_work(setting, message, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(processor, "_MAKE", {})
    assert cli.main(["processor", "--again", "--set", setting, "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_processor_refuses_a_wrong_key(tmp_path, capsys):
    assert cli.main(["processor", "--set", "qaoa_round=[1]", "--out", str(tmp_path)]) == 2
    assert "did you mean 'qaoa_rounds'" in capsys.readouterr().err
    assert (CONFIGS / "network.yaml").is_file()


def test_ladder_runs_and_its_rungs_agree(tmp_path):
    rows = list(ladder.agreement(quick=True))
    by_rung = {row["rung"]: row for row in rows}
    assert by_rung["channels (gates of the levels)"]["error of F"] < 1e-8
    assert by_rung["channels (gates by formula)"]["error of F"] < 0.01
    assert by_rung["mps"]["largest error of p"] < 1e-6
    for rung in ("trajectories", "stim"):
        assert by_rung[rung]["error of F"] < 5 * by_rung[rung]["standard error of F"]
    checked = list(ladder.targets(quick=True))
    assert [row["holds"] for row in checked] == [True] * 5


def test_committed_ladder_holds_its_targets():
    for part in ladder.PARTS:
        record = json.loads((ladder.DATA / f"{part}.json").read_text(encoding="utf-8"))
        assert record["rows"]
        assert record["provenance"]["seconds"] > 0
        if part == "targets":
            assert all(row["found"] <= row["allowed"] for row in record["rows"])
        if part == "cost":
            assert {row["rung"] for row in record["rows"]} == set(ladder.SHAPES)
        if part == "agreement":
            for row in record["rows"]:
                if row["rung"] in ("trajectories", "stim"):
                    assert row["error of F"] < 4.5 * row["standard error of F"]
                if row["rung"] == "mps":
                    assert row["error of F"] < 1e-6
    with style():
        for name, draw in (("cost", ladder_figures.draw_cost), ("agreement", ladder_figures.draw_agreement)):
            rows = json.loads((ladder.DATA / f"{name}.json").read_text(encoding="utf-8"))["rows"]
            assert draw(rows).axes
