import itertools
import re

import numpy as np
import pytest

from molecular_qubits import Disorder, MolecularNetwork, Optics, compile_circuit
from molecular_qubits.experiments.network import describe
from molecular_qubits.network import addressing
from molecular_qubits.network.drawing import draw_network
from molecular_qubits.network.layers import FAINTEST, cut_layers
from molecular_qubits.network.page import page_data, take_screenshot, write_page
from molecular_qubits.network.schedule import Schedule
from shared.plotting import style
from tests.test_molecular_qubits.browser import NO_BROWSER, Browser, find_chromium
from tests.test_molecular_qubits.circuit_helpers import random_circuit

QASM = """OPENQASM 3;
include "stdgates.inc";
qubit[9] q; bit[9] c;
h q[4];
cx q[4], q[1]; cx q[4], q[3]; cx q[4], q[5]; cx q[4], q[7];
cx q[1], q[0]; cx q[3], q[6]; cx q[5], q[2]; cx q[7], q[8];
c = measure q;
"""


@pytest.fixture(scope="module")
def network():
    disorder = Disorder(j_relative=0.05, dead=0.15)
    narrow = Optics(tip_radius_nm=1.0)  # so that several couplers can be lit at once
    return MolecularNetwork.square(3, 3, optics=narrow).with_disorder(disorder, 2)


@pytest.fixture(scope="module")
def schedule(network):
    return compile_circuit(QASM, network)


def test_layers_cover_the_schedule_and_hold_what_goes_on(network, schedule):
    layers = cut_layers(schedule, network)
    assert layers[0].start_ns == 0
    assert layers[-1].end_ns == pytest.approx(schedule.duration_ns)
    assert all(a.end_ns == b.start_ns for a, b in itertools.pairwise(layers))
    timed = [operation for operation in schedule.operations if operation.duration_ns]
    for layer in layers:
        going = {id(o) for o in timed if o.start_ns <= layer.start_ns < o.end_ns}
        assert {id(o) for o in layer.operations} == going
        assert len(layer.lit) == sum(o.name == "coupler" for o in layer.operations)
        if layer.lit:
            row = addressing.crosstalk(network, list(layer.lit)).sum(axis=0)
            assert dict(layer.stray) == {
                k: pytest.approx(float(row[k])) for k in range(len(row)) if row[k] > FAINTEST and k not in layer.lit
            }


def test_a_schedule_of_another_network_is_refused(network):
    with pytest.raises(ValueError, match="`schedule` must be one of 9 sites, but has 2 sites"):
        cut_layers(Schedule(2, (), (0,), (0,), np.eye(4)), network)


def test_the_page_asks_for_nothing_from_elsewhere_and_escapes_its_title(network, schedule, tmp_path):
    write_page(tmp_path / "page.html", network, schedule, title="<script>alert(1)</script>")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "__DATA__" not in text
    assert "__TITLE__" not in text
    assert "<script>alert" not in text
    assert re.findall(r"(?:src|href)\s*=", text) == []
    assert set(re.findall(r"https?://[^\s\"']+", text)) == {"http://www.w3.org/2000/svg"}
    names = network.model_copy(
        update={"sites": tuple(s.model_copy(update={"molecule": "</script><b>"}) for s in network.sites)}
    )
    write_page(tmp_path / "odd.html", names, schedule)
    assert (tmp_path / "odd.html").read_text(encoding="utf-8").count("</script>") == 1


def test_colours_and_classes_are_those_of_the_figure(network, schedule):
    from matplotlib.collections import LineCollection
    from matplotlib.colors import to_hex

    data = page_data(network, schedule)
    with style():
        figure = draw_network(network)
    (lines,) = [c for c in figure.axes[0].collections if isinstance(c, LineCollection) and c.get_array() is not None]
    assert [to_hex(c) for c in lines.to_rgba(lines.get_array())] == [
        bond["colour"] for bond in data["bonds"] if bond["alive"]
    ]
    living = {bond.wavelength_class for bond in network.bonds if bond.alive}
    assert describe(network)["wavelength classes"] == len(living) < len(network.bonds)
    assert f"{len(living)} classes" in figure.axes[1].texts[0].get_text()
    numbers = {text.get_text() for text in figure.axes[0].texts}
    assert {str(site) for site in range(9)} <= numbers
    assert data["circuit"] + data["readout"] == pytest.approx(schedule.duration_ns)
    assert data["readout"] == pytest.approx(network.readout.duration_ns)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if find_chromium() is None:
        pytest.skip(NO_BROWSER)
    pytest.importorskip("websocket", reason="needs websocket-client (extra notebooks)")
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


def lit_in(browser):
    return browser.ask("[...document.querySelectorAll('.bond.lit')].map((e) => Number(e.dataset.bond))")


@pytest.mark.slow
def test_clicks_and_keys_step_through_the_layers(network, schedule, browser, tmp_path):
    write_page(tmp_path / "page.html", network, schedule)
    layers = page_data(network, schedule)["layers"]
    assert any(len(layer["lit"]) > 1 for layer in layers)
    browser.open((tmp_path / "page.html").as_uri())
    assert lit_in(browser) == layers[0]["lit"]
    lighted = [k for k, layer in enumerate(layers) if layer["lit"]]
    for k in (lighted[0], lighted[-1]):
        browser.click(f"#strip rect[data-layer='{k}']")
        assert lit_in(browser) == layers[k]["lit"]
        assert browser.ask("location.hash") == f"#layer={k + 1}"
        assert f"Layer {k + 1} of {len(layers)}" in browser.ask("document.getElementById('said').textContent")
        shown = browser.ask("[...document.querySelectorAll('#lit td:first-child')].map((e) => parseInt(e.textContent))")
        assert shown == layers[k]["lit"]
        energies = browser.ask(
            "[...document.querySelectorAll('#lit td:nth-child(3)')].map((e) => parseFloat(e.textContent))"
        )
        wanted = [1e15 * addressing.light_of(network, bond).energy_j for bond in layers[k]["lit"]]
        assert energies == pytest.approx(wanted, rel=5e-3)
        rings = browser.ask("[...document.querySelectorAll('.bond.stray')].map((e) => Number(e.dataset.bond))")
        assert rings == sorted(bond for bond, _ in layers[k]["stray"])
        probabilities = browser.ask(
            "[...document.querySelectorAll('#stray td:last-child')].map((e) => parseFloat(e.textContent))"
        )
        assert probabilities == pytest.approx([p for _, p in layers[k]["stray"]], rel=0.06)
    for key, expected in (
        ("Home", 0),
        ("ArrowRight", 1),
        ("ArrowRight", 2),
        ("ArrowLeft", 1),
        ("End", len(layers) - 1),
    ):
        browser.press(key)
        assert browser.ask("location.hash") == f"#layer={expected + 1}"
        assert lit_in(browser) == layers[expected]["lit"]
    browser.click("#back")
    assert lit_in(browser) == layers[-2]["lit"]
    turned = browser.ask("[...document.querySelectorAll('.site.turned')].map((e) => Number(e.dataset.site))")
    assert turned == sorted(site for site, _, _ in layers[-2]["turned"])
    browser.ask(f"location.hash = '#layer={lighted[0] + 1}'")
    assert lit_in(browser) == layers[lighted[0]]["lit"]
    assert browser.ask("document.querySelectorAll('.bond.dead').length") == sum(not b.alive for b in network.bonds)
    assert browser.requests() == []
    assert browser.complaints() == []


@pytest.mark.slow
def test_an_address_opens_its_layer_and_a_circuit_without_pulses_has_a_page(network, browser, tmp_path):
    circuit = random_circuit(4, 6, 1)
    compiled = compile_circuit(circuit, network)
    write_page(tmp_path / "page.html", network, compiled)
    layers = page_data(network, compiled)["layers"]
    browser.open((tmp_path / "page.html").as_uri() + "#layer=4")
    assert lit_in(browser) == layers[3]["lit"]
    empty = Schedule(9, (), (0,), (0,), network.entangler_matrix)
    write_page(tmp_path / "empty.html", network, empty)
    browser.open((tmp_path / "empty.html").as_uri())
    assert browser.ask("document.getElementById('said').textContent") == "No pulses."
    assert browser.complaints() == []


@pytest.mark.slow
@pytest.mark.skipif(find_chromium() is None, reason=NO_BROWSER)
def test_screenshots_of_two_layers_differ(network, schedule, tmp_path):
    from matplotlib.image import imread

    write_page(tmp_path / "page.html", network, schedule)
    pictures = [imread(take_screenshot(tmp_path / "page.html", tmp_path / f"{k}.png", k)) for k in (1, 2)]
    assert pictures[0].shape == pictures[1].shape
    assert np.abs(pictures[0] - pictures[1]).max() > 0.1


def test_a_screenshot_needs_a_page_and_a_browser(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="`page` must name a file"):
        take_screenshot(tmp_path / "page.html", tmp_path / "page.png")
    (tmp_path / "page.html").write_text("")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ValueError, match="needs one of chromium"):
        take_screenshot(tmp_path / "page.html", tmp_path / "page.png")
