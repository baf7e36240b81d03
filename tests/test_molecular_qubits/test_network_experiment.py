import json

import numpy as np
import pytest

from molecular_qubits import Disorder, MolecularNetwork, Optics, cli, compile_circuit
from molecular_qubits.experiments import network as experiment
from molecular_qubits.experiments.gate import MONO_EXCHANGE
from molecular_qubits.network.drawing import draw_network, draw_schedule
from molecular_qubits.network.schedule import Schedule
from shared.config import load_config
from shared.plotting import style


def test_the_command_writes_network_schedule_figures_and_page(tmp_path, capsys):
    assert cli.main(["network", "--out", str(tmp_path), "--set", "trials=2"]) == 0
    printed = capsys.readouterr().out
    assert "coupler gates                     8" in printed
    assert "wavelength classes                10\n" in printed  # 12 couplers, two of them dead
    assert "readout after it (ns)             500\n" in printed
    for name in ("network.json", "schedule.json", "network.png", "network.pdf", "schedule.png", "page.html"):
        assert (tmp_path / name).stat().st_size > 1000
    network = MolecularNetwork.load(tmp_path / "network.json")
    schedule = Schedule.from_json((tmp_path / "schedule.json").read_text())
    again = compile_circuit(experiment.CONFIGS / "network_ghz.qasm", network, trials=2)
    assert schedule.operations == again.operations
    assert np.abs(schedule.entangler - again.entangler).max() == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["coupler gates"] == 8
    assert summary["provenance"]["config"]["rows"] == 3


def test_a_circuit_from_the_prompt_and_a_network_without_one(tmp_path):
    (tmp_path / "bell.qasm").write_text('OPENQASM 2.0; include "qelib1.inc"; qreg q[2]; h q[0]; cx q[0], q[1];')
    out = tmp_path / "bell"
    assert cli.main(["network", "--out", str(out), "--circuit", str(tmp_path / "bell.qasm")]) == 0
    assert json.loads((out / "summary.json").read_text())["qubits"] == 2
    (tmp_path / "bare.yaml").write_text("lattice: honeycomb\nrows: 1\ncolumns: 2\n")
    assert cli.main(["network", str(tmp_path / "bare.yaml"), "--out", str(tmp_path / "bare")]) == 0
    assert not (tmp_path / "bare" / "page.html").exists()
    assert json.loads((tmp_path / "bare" / "summary.json").read_text())["sites"] == 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "spacing_nm=-2"], "spacing_nm"),
        (["--set", "lattice=triangle"], "lattice"),
        (["--set", "spacing=2"], "did you mean 'spacing_nm'"),
        (["--set", "lattice=graph"], "edges must be given"),
        (["--set", "settings={temprature_k: 3}"], "did you mean 'temperature_k'"),
        (["--set", "lattice=graph", "--set", "edges=[[-1, 0]]", "--set", "circuit=null"], "edges.0.0"),
        (["--set", "lattice=graph", "--set", "edges=[[0, 1000000]]", "--set", "circuit=null"], "edges.0.1"),
        (["--set", "rows=1000", "--set", "columns=1000"], "must make at most 10,000 sites, but make 1,000,000"),
        (["--set", "rows=2"], "must have at most 6 qubits, one a site, but has 9"),
        (["--set", "disorder.dead=1"], "12 couplers are dead"),
        (["--screenshot", "99", "--set", "trials=1"], "Option `--screenshot` must be a layer from 1 to "),
        (["--screenshot", "0", "--set", "trials=1"], ", but was 0."),
        (["--screenshot", "1", "--set", "circuit=null"], "Option `--screenshot` needs a circuit"),
        (["--circuit", "nowhere.qasm"], "cannot be read"),
        (["nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_bad_input_at_the_prompt_is_one_sentence_and_code_2(arguments, message, tmp_path, capsys):
    assert cli.main(["network", "--out", str(tmp_path / "out"), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out" / "page.html").exists()


def test_couplers_take_their_exchange_from_a_result_file(tmp_path):
    config = experiment.NetworkConfig(lattice="chain", rows=1, columns=3, exchange=str(MONO_EXCHANGE))
    network = experiment.make_network(config, tmp_path)
    assert network.bonds[0].j_on_cm1 == pytest.approx(95, abs=1)


def test_a_graph_from_its_edges_and_a_network_from_its_file(tmp_path):
    config = experiment.NetworkConfig(lattice="graph", edges=((0, 1), (1, 2), (2, 0), (2, 3)))
    network = experiment.make_network(config)
    assert sorted(bond.sites for bond in network.bonds) == [(0, 1), (0, 2), (1, 2), (2, 3)]
    network.save(tmp_path / "net.json")
    assert experiment.make_network(experiment.NetworkConfig(network="net.json"), tmp_path) == network
    shipped = load_config(experiment.NetworkConfig, experiment.CONFIGS / "network.yaml")
    assert experiment.make_network(shipped) == experiment.make_network(shipped)


@pytest.mark.parametrize("text", ["{}", "[]", "nonsense", '{"operations": [{"name": "x"}]}'])
def test_text_that_is_no_schedule_is_refused(text):
    with pytest.raises(ValueError, match="must be the JSON of a schedule"):
        Schedule.from_json(text)


def test_the_figure_shows_every_coupler_and_radical_and_the_spot_to_scale():
    from matplotlib.collections import LineCollection
    from matplotlib.patches import Circle

    network = MolecularNetwork.square(3, 4, spacing_nm=4.0).with_disorder(Disorder(dead=0.2), 4)
    dead = sum(not bond.alive for bond in network.bonds)
    assert dead > 0
    with style():
        figure = draw_network(network, lit=[1])
        axes = figure.axes[0]
        lines = [c for c in axes.collections if isinstance(c, LineCollection)]
        assert sorted(len(c.get_segments()) for c in lines) == sorted([dead, len(network.bonds) - dead])
        assert sum(len(c.get_offsets()) for c in axes.collections if not isinstance(c, LineCollection)) == 12
        (spot,) = [patch for patch in axes.patches if isinstance(patch, Circle)]
        assert 2 * spot.radius == pytest.approx(network.optics.spot_nm(500.0))
        wide = network.model_copy(update={"optics": Optics(spot="diffraction")})
        assert not draw_network(wide).axes[0].patches
        schedule = compile_circuit(experiment.CONFIGS / "network_ghz.qasm", MolecularNetwork.square(3, 3))
        assert draw_schedule(schedule, MolecularNetwork.square(3, 3)).axes[0].get_xlim()[1] == schedule.duration_ns
    with pytest.raises(ValueError, match="must have couplers"):
        draw_network(MolecularNetwork.chain(1))


def test_fewer_wavelengths_are_needed_by_a_smaller_spot_and_a_wider_lattice():
    figure, needed = experiment.draw_needed_classes((2.0, 20.0, 700.0), size=5)
    lens, wide, narrow = needed.values()
    assert all(a >= b >= c for a, b, c in zip(lens, wide, narrow, strict=True))
    assert all(np.all(np.diff(counts) <= 0) for counts in needed.values())
    assert lens[0] == 40  # all couplers of the 5 x 5 lattice
    assert lens[2] <= 6
    assert narrow[1] <= 6
    assert figure.axes[0].get_xlabel()
