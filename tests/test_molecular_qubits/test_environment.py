"""Solvent, dispersion and device of a field."""

import importlib.util
import sys
import types
from dataclasses import replace

import numpy as np
import pytest

from molecular_qubits import Molecule, exchange_couplings
from molecular_qubits.electronic.exchange import ExchangeResult
from molecular_qubits.electronic.scf import SCFSettings, Workspace, run_scf
from molecular_qubits.structure import environment
from shared.artifacts import Cache

RADICAL = ((0.0, 0.0, 0.0), (0.0, 1.27, 0.0), (0.87, -0.5, 0.1), (-0.87, -0.5, 0.1))
"""H2NO: N, O, H, H."""
DIRADICAL = Molecule(("N", "O", "H", "H") * 2, (*RADICAL, *((-x, 1.27 - y, z + 3.2) for x, y, z in RADICAL)))
H2 = Molecule(("H", "H"), ((0, 0, 0), (0, 0, 2.0)))


def run(n_unpaired=1, molecule=None, **settings):
    molecule = molecule or Molecule(("N", "O", "H", "H"), RADICAL)
    workspace = Workspace(molecule, SCFSettings(basis="6-31g", grid_level=1, conv_tol=1e-9, **settings))
    return run_scf(workspace, n_unpaired, None, label="state", guess="minao")


def test_a_solvent_lowers_the_energy_of_a_polar_radical_more_the_more_polar_it_is():
    energies = [run(solvent_epsilon=epsilon).energy_hartree for epsilon in (None, 2.0, 80.0)]
    assert energies[0] > energies[1] > energies[2]


def test_the_ramp_ends_at_the_field_of_the_solvent():
    ends = [run(solvent_epsilon=20.0, density_fit=True, ramp=ramp) for ramp in (True, False)]
    assert ends[0].energy_hartree == pytest.approx(ends[1].energy_hartree, abs=2e-8)
    assert ends[0].density == pytest.approx(ends[1].density, abs=1e-3)


def test_a_solvent_that_is_almost_vacuum_changes_nothing():
    assert run(solvent_epsilon=1 + 1e-9).energy_hartree == pytest.approx(run().energy_hartree, abs=1e-7)


def test_a_coupling_in_a_solvent_says_so(tmp_path):
    options = {"basis": "sto-3g", "grid_level": 0, "stability": False, "cache": Cache(tmp_path)}
    found = exchange_couplings(DIRADICAL, [[0, 1], [4, 5]], solvent_epsilon=80.0, **options)
    assert found.j_yamaguchi_cm1[0, 1] != 0
    assert found.settings.to_dict()["solvent_epsilon"] == 80.0
    assert "solvent_epsilon" not in SCFSettings().to_dict()
    assert "solvent_epsilon" in found.to_json()


def test_what_is_not_possible_is_said_with_the_remedy():
    with pytest.raises(ValueError, match=r"above 1.*but is 0.5"):
        SCFSettings(solvent_epsilon=0.5)
    with pytest.raises(ValueError, match="dispersion"):
        SCFSettings(dispersion="d5")
    with pytest.raises(ValueError, match="device"):
        SCFSettings(device="abacus")
    if not environment.gpu_available():
        with pytest.raises(ModuleNotFoundError, match="gpu4pyscf"):
            exchange_couplings(DIRADICAL, [[0, 1], [4, 5]], device="gpu")


def test_dispersion_without_its_package_names_it(monkeypatch):
    monkeypatch.setattr(environment.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="pip install pyscf-dispersion"):
        exchange_couplings(DIRADICAL, [[0, 1], [4, 5]], dispersion="d3bj")


def test_a_result_is_read_where_it_could_not_be_computed(tmp_path, monkeypatch):
    found = exchange_couplings(H2, [[0], [1]], basis="sto-3g", grid_level=0, stability=False, cache=Cache(tmp_path))
    settings = replace(found.settings, device="gpu", dispersion="d4")
    monkeypatch.setattr(environment, "gpu_available", lambda: False)
    monkeypatch.setattr(environment.importlib.util, "find_spec", lambda name: None)
    assert ExchangeResult.from_json(replace(found, settings=settings).to_json()).settings == settings


@pytest.mark.skipif(importlib.util.find_spec("pyscf.dispersion") is None, reason="needs pip install pyscf-dispersion")
@pytest.mark.parametrize("dispersion", ["d3bj", "d4"])
def test_dispersion_lowers_all_states_alike_and_leaves_the_coupling(dispersion, tmp_path):
    options = {"basis": "sto-3g", "grid_level": 0, "stability": False, "conv_tol": 1e-10, "cache": Cache(tmp_path)}
    plain = exchange_couplings(DIRADICAL, [[0, 1], [4, 5]], **options)
    found = exchange_couplings(DIRADICAL, [[0, 1], [4, 5]], dispersion=dispersion, **options)
    high, broken = (b.energy_hartree - a.energy_hartree for a, b in zip(plain.states, found.states, strict=True))
    assert -0.1 < high < -1e-3
    assert broken == pytest.approx(high, abs=1e-8)
    assert found.j_yamaguchi_cm1 == pytest.approx(plain.j_yamaguchi_cm1, rel=1e-4)


def test_a_gpu_is_found_only_with_package_and_device(monkeypatch):
    error = type("CUDARuntimeError", (RuntimeError,), {})
    runtime = types.SimpleNamespace(getDeviceCount=lambda: 1, CUDARuntimeError=error)
    cupy = types.SimpleNamespace(cuda=types.SimpleNamespace(runtime=runtime))
    monkeypatch.setattr(environment.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    environment.gpu_available.cache_clear()
    try:
        assert environment.gpu_available()
        environment.gpu_available.cache_clear()

        def no_device():
            raise error("no device")

        runtime.getDeviceCount = no_device
        assert not environment.gpu_available()
        environment.gpu_available.cache_clear()
        monkeypatch.setitem(sys.modules, "cupy", None)  # installed, but its libraries are not
        assert not environment.gpu_available()
    finally:
        environment.gpu_available.cache_clear()


def test_fields_go_to_the_gpu_and_their_orbitals_come_back(monkeypatch):
    """A stand-in for gpu4pyscf: the field stays on the processor, its arrays must be fetched."""
    from pyscf import dft

    class Device:
        def __init__(self, array):
            self.array = array

        def get(self):
            return self.array

    def to_gpu(self):
        kernel = self.kernel

        def run_kernel(*arguments, **options):
            kernel(*arguments, **options)
            self.mo_coeff, self.mo_occ = Device(self.mo_coeff), Device(self.mo_occ)

        self.kernel = run_kernel
        return self

    monkeypatch.setattr("molecular_qubits.structure.environment.gpu_available", lambda: True)
    monkeypatch.setattr(dft.uks.UKS, "to_gpu", to_gpu)
    found = run(device="gpu")
    assert isinstance(found.mo_coeff, np.ndarray)
    assert found.energy_hartree == pytest.approx(run().energy_hartree, abs=1e-9)
    with pytest.raises(ValueError, match="ramp"):
        SCFSettings(device="gpu", density_fit=True, ramp=True)
