"""The network and its schedule as one self-contained page: step through the layers, see what is lit."""

from __future__ import annotations

import html
import json
import math
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from molecular_qubits.network.addressing import light_of
from molecular_qubits.network.drawing import wavelength_colours
from molecular_qubits.network.layers import Layer, cut_layers
from molecular_qubits.network.schedule import Operation, Schedule
from shared.artifacts import atomic_path, write_text

if TYPE_CHECKING:
    from molecular_qubits.network.lattice import MolecularNetwork

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
"""Browsers that can be driven, in order."""

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-component-update",
    "--disable-background-networking", "--disable-sync", "--window-size=1280,900", "--hide-scrollbars",
)  # fmt: skip
"""Options with which they ask nothing of anybody."""

TEMPLATE = Path(__file__).resolve().parent / "page.html"


def write_page(
    path: str | Path, network: MolecularNetwork, schedule: Schedule, title: str = "Molecular network"
) -> None:
    """Write the page: one HTML file that asks for nothing from elsewhere.

    Parameters
    ----------
    path
        The file.
    network, schedule
        What it shows.
    title
        Its heading.

    Raises
    ------
    ValueError
        If the schedule is not one of this network.
    """
    data = json.dumps(page_data(network, schedule), allow_nan=False, separators=(",", ":"))
    data = data.replace("<", "\\u003c")  # nothing in the data can end the script
    text = TEMPLATE.read_text(encoding="utf-8")
    write_text(path, text.replace("__TITLE__", html.escape(title)).replace("__DATA__", data))


def take_screenshot(page: str | Path, picture: str | Path, layer: int = 1) -> Path:
    """Write what a browser shows of a page at one of its layers as PNG.

    Parameters
    ----------
    page, picture
        The HTML file and the PNG.
    layer
        Number of the layer, from 1.

    Raises
    ------
    ValueError
        If there is no such page, or no Chromium or Chrome on the path.
    RuntimeError
        If the browser wrote nothing.
    """
    page, picture = Path(page).resolve(), Path(picture)
    if not page.is_file():
        raise ValueError(f"Argument `page` must name a file, but there is no {str(page)!r}.")
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise ValueError(f"A screenshot needs one of {', '.join(BROWSERS)} on the path (apt-get install chromium).")
    with tempfile.TemporaryDirectory() as profile, atomic_path(picture) as temporary:
        shot = Path(profile) / "shot.png"
        command = [
            browser,
            *FLAGS,
            f"--user-data-dir={profile}/user",
            f"--screenshot={shot}",
            f"{page.as_uri()}#layer={layer}",
        ]
        done = subprocess.run(command, capture_output=True, timeout=120)
        if not shot.is_file():
            raise RuntimeError(f"{browser} wrote no picture: {done.stderr.decode(errors='replace')[-300:]}")
        shutil.copyfile(shot, temporary)
    return picture


def page_data(network: MolecularNetwork, schedule: Schedule) -> dict[str, Any]:
    """Return what the page shows as a JSON-able record."""
    optics = network.optics
    frequencies = network.frequencies_ghz
    return {
        "entangler": network.entangler,
        "spot": optics.spot,
        "limit": optics.crosstalk_limit,
        "circuit": schedule.circuit_ns,
        "readout": schedule.duration_ns - schedule.circuit_ns,
        "qubits": {str(site): qubit for qubit, site in enumerate(schedule.initial_sites)},
        "final": {str(site): qubit for qubit, site in enumerate(schedule.final_sites)},
        "sites": [
            {
                "x": site.position_nm[0],
                "y": site.position_nm[1],
                "molecule": site.molecule,
                "ghz": round(float(frequencies[k]), 5),
            }
            for k, site in enumerate(network.sites)
        ],
        "bonds": [
            {
                "a": bond.sites[0],
                "b": bond.sites[1],
                "molecule": bond.molecule,
                "nm": round(bond.absorption_nm, 1),
                "class": bond.wavelength_class,
                "colour": colour,
                "alive": bond.alive,
                "j": round(bond.j_on_cm1, 4),
                "fj": float(f"{1e15 * light_of(network, k).energy_j:.3g}"),
                "quench_nm": round(bond.quench_nm, 1),
                "quench_fj": float(f"{1e15 * light_of(network, k).quench_energy_j:.3g}"),
                "spot": round(optics.spot_nm(bond.absorption_nm), 3),
            }
            for k, (bond, colour) in enumerate(zip(network.bonds, wavelength_colours(network), strict=True))
        ],
        "layers": [_layer(layer) for layer in cut_layers(schedule, network)],
    }


def _layer(layer: Layer) -> dict[str, Any]:
    return {
        "start": round(layer.start_ns, 6),
        "end": round(layer.end_ns, 6),
        "lit": list(layer.lit),
        "stray": [[bond, float(f"{probability:.3g}")] for bond, probability in layer.stray],
        "turned": [_turn(operation) for operation in layer.operations if operation.name == "rotation"],
        "read": [operation.sites[0] for operation in layer.operations if operation.name == "measure"],
    }


def _turn(operation: Operation) -> list[float]:
    theta, phi = (round(math.degrees(angle), 2) + 0.0 for angle in operation.angles)
    return [operation.sites[0], theta, phi]
