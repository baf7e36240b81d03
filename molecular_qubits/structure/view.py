"""Three-dimensional view of a molecule in a notebook, with its spin centres or its spin density."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from molecular_qubits.structure.interfaces import as_molecule

if TYPE_CHECKING:
    import py3Dmol

CENTRE_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Colours of the spin centres, after Okabe and Ito."""

SPIN_COLOURS = {"up": "#B2182B", "down": "#2166AC"}
"""Colours of α (up) and β (down) spin density."""


def view(
    molecule: Any,
    *,
    centres: Sequence[Iterable[int]] = (),
    spin_density_cube: str | Path | None = None,
    isovalue: float = 0.005,
    width: int = 480,
    height: int = 360,
) -> py3Dmol.view:
    """Return an interactive view; a notebook shows it.

    Parameters
    ----------
    molecule
        Whatever `as_molecule` takes.
    centres
        Atom indices of spin centres, each set in a colour of its own.
    spin_density_cube
        Gaussian cube file of ρ_α - ρ_β in e/bohr³ to draw as surfaces.
    isovalue
        Value of the surfaces; the negative one is drawn too.
    width, height
        In pixels.

    Raises
    ------
    ModuleNotFoundError
        If py3Dmol is not installed.
    ValueError
        If a centre names an atom that is not there or the isovalue is not positive.
    FileNotFoundError
        If there is no such cube file.
    """
    geometry = as_molecule(molecule)
    sets = [[int(atom) for atom in atoms] for atoms in centres]
    if any(not 0 <= atom < geometry.n_atoms for atoms in sets for atom in atoms):
        raise ValueError(
            f"Argument `centres` must hold atom indices from 0 to {geometry.n_atoms - 1}, but is {centres!r}."
        )
    if not isovalue > 0:
        raise ValueError(f"Argument `isovalue` must be positive, but is {isovalue!r}.")
    if spin_density_cube is not None and not Path(spin_density_cube).is_file():
        raise FileNotFoundError(f"There is no cube file {str(spin_density_cube)!r}.")
    try:
        import py3Dmol
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "The three-dimensional view needs py3Dmol: pip install py3Dmol, or the extra `notebooks`."
        ) from None
    scene = py3Dmol.view(width=width, height=height)
    scene.addModel(geometry.to_xyz(), "xyz")
    scene.setStyle({"stick": {"radius": 0.12}, "sphere": {"scale": 0.2}})
    for number, atoms in enumerate(sets):
        colour = CENTRE_COLOURS[number % len(CENTRE_COLOURS)]
        scene.addStyle({"index": atoms}, {"sphere": {"scale": 0.35, "color": colour, "opacity": 0.8}})
    if spin_density_cube is not None:
        cube = Path(spin_density_cube).read_text(encoding="utf-8")
        for sign, colour in ((1, SPIN_COLOURS["up"]), (-1, SPIN_COLOURS["down"])):
            scene.addVolumetricData(cube, "cube", {"isoval": sign * isovalue, "color": colour, "opacity": 0.75})
    scene.zoomTo()
    return scene
