"""EPR: resonance fields and intensities against closed forms, eigenfields and the measured multiplets' patterns."""

import json

import numpy as np
import pytest
import qutip
import scipy.linalg
import xarray
from hypothesis import given, settings
from hypothesis import strategies as st

from molecular_qubits import SpinSystem, cli, epr_spectrum, zero_field_state
from molecular_qubits.experiments import epr
from molecular_qubits.spins.epr.orientations import powder_orientations, powder_states, tensor_symmetry
from molecular_qubits.spins.epr.resonances import find_resonances
from molecular_qubits.spins.frames import euler_frame
from molecular_qubits.spins.tensors import axial_coupling_tensor, zfs_tensor
from molecular_qubits.units import CM1_TO_RAD_PER_NS, G_ELECTRON, MU_B_RAD_PER_NS_PER_T

NU = 9.5
OMEGA = 2 * np.pi * NU
GAMMA = G_ELECTRON * MU_B_RAD_PER_NS_PER_T
CENTRE = OMEGA / GAMMA
FIELDS = np.linspace(0.28, 0.40, 1201)


def equal(energies, vectors):
    """Return populations 1 for the lowest level and 0 for the others."""
    return np.broadcast_to(np.eye(energies.shape[1])[0], energies.shape)


def lines(system, direction, low=0.0, high=0.8):
    """Return the resonances for one direction of the field."""
    return find_resonances(system, NU, (low, high), np.atleast_2d(direction), equal)


def test_free_electron():
    found = lines(SpinSystem((0.5,)), (0, 0, 1))
    assert found.field_tesla == pytest.approx([CENTRE], abs=1e-12)
    assert found.moment == pytest.approx([0.25])
    assert found.slope == pytest.approx([1])
    assert found.nutation == pytest.approx([1])
    assert (found.lower[0], found.upper[0]) == (0, 1)


@pytest.mark.parametrize("axis", range(3))
def test_canonical_fields_of_a_triplet_are_exact(axis):
    """B along a principal axis: the level T_k stays at -D_k, the other two repel by the field and their difference."""
    tensor = zfs_tensor(0.07, -0.008)
    system = SpinSystem((1,), zfs={0: tensor})
    principal = CM1_TO_RAD_PER_NS * np.diag(tensor)
    rest = np.delete(principal, axis)
    expected = []
    for sign in (-1, 1):
        square = (OMEGA + sign * 1.5 * principal[axis]) ** 2 - ((rest[0] - rest[1]) / 2) ** 2
        expected.append(np.sqrt(square) / GAMMA)
    found = lines(system, np.eye(3)[axis])
    allowed = np.sort(found.field_tesla[(found.upper - found.lower) == 1])
    assert allowed == pytest.approx(np.sort(expected), abs=1e-9)


@pytest.mark.parametrize("spin", [1, 1.5, 2, 2.5])
def test_axial_multiplet_along_its_axis(spin):
    """Fields h nu = g mu_B B + D (2M - 1), moments and nutation frequencies sqrt(S(S+1) - M(M-1))."""
    d_cm1 = 0.013
    system = SpinSystem((spin,), zfs={0: zfs_tensor(d_cm1)})
    found = lines(system, (0, 0, 1), 0.2, 0.5)
    m = np.arange(spin, -spin, -1)
    order = np.argsort(OMEGA - CM1_TO_RAD_PER_NS * d_cm1 * (2 * m - 1))
    assert found.field_tesla.shape == m.shape
    sorting = np.argsort(found.field_tesla)
    expected = (OMEGA - CM1_TO_RAD_PER_NS * d_cm1 * (2 * m - 1)) / GAMMA
    assert found.field_tesla[sorting] == pytest.approx(expected[order], abs=1e-10)
    ladder = np.sqrt(spin * (spin + 1) - m * (m - 1))
    assert found.nutation[sorting] == pytest.approx(ladder[order], rel=1e-9)
    assert found.slope == pytest.approx(np.ones(len(m)))


def eigenfields(system, direction, low, high):
    """Return all resonance fields of Belford's generalised eigenvalue problem."""
    zero = system.hamiltonian_matrix(0.0)
    slope = system.hamiltonian_matrix(direction) - zero
    one = np.eye(len(zero))
    left = OMEGA * np.eye(len(zero) ** 2) - np.kron(zero, one) + np.kron(one, zero.conj())
    right = np.kron(slope, one) - np.kron(one, slope.conj())
    fields = scipy.linalg.eigvals(left, right)
    real = np.isfinite(fields) & (np.abs(fields.imag) < 1e-7)
    return np.sort(fields[real].real[(fields[real].real > low) & (fields[real].real < high)])


@settings(max_examples=30, deadline=None)
@given(
    d_cm1=st.floats(-0.12, 0.12), share=st.floats(0, 1 / 3), spin=st.sampled_from([1, 1.5, 2]),
    polar=st.floats(0.1, 1.4), azimuth=st.floats(0.1, 6.0),
)  # fmt: skip
def test_fields_are_eigenfields(d_cm1, share, spin, polar, azimuth):
    system = SpinSystem((spin,), zfs={0: zfs_tensor(d_cm1, share * d_cm1)})
    direction = np.array([np.sin(polar) * np.cos(azimuth), np.sin(polar) * np.sin(azimuth), np.cos(polar)])
    found = lines(system, direction, 0.02, 0.7)
    expected = eigenfields(system, direction, 0.02, 0.7)
    for field in found.field_tesla:
        assert np.min(np.abs(expected - field)) < 1e-6
    allowed = found.moment > 1e-3
    for field in expected:  # one of a close pair, or a forbidden line, may be left out
        near = np.min(np.abs(found.field_tesla - field), initial=1)
        close = np.sort(np.abs(expected - field))[1:2]
        assert near < 1e-6 or np.any(close < 0.03) or _moment(system, direction, field) < 1e-3
    assert np.all(found.slope[allowed] > 0)


def _moment(system, direction, field):
    """Return the largest squared moment of the pairs of levels in resonance at a field."""
    energies, states = np.linalg.eigh(system.hamiltonian_matrix(field * direction))
    spin = np.einsum("xa,nxy,yb->nab", states.conj(), system.total_spin(), states)
    gaps = np.abs(energies[None, :] - energies[:, None] - OMEGA) < 1e-2
    return np.max(np.sum(np.abs(spin) ** 2, axis=0) * gaps, initial=0.0)


def test_powder_of_an_axial_g_tensor_has_its_closed_form():
    """Cumulated intensity against the integral over angles of Aasa and Vänngård's intensity."""
    parallel, normal = 2.3, 2.05
    system = SpinSystem((0.5,), g=[(normal, normal, parallel)])
    fields = np.linspace(0.25, 0.36, 2001)
    spectrum = epr_spectrum(system, fields, NU, temperature_k=1e-3, linewidth_pp_mt=0.05)
    cosine = (np.arange(200_000) + 0.5) / 200_000
    g = np.sqrt(parallel**2 * cosine**2 + normal**2 * (1 - cosine**2))
    position = OMEGA / (g * MU_B_RAD_PER_NS_PER_T)
    moment = normal**2 * (1 + parallel**2 / g**2) / 8 / G_ELECTRON**2 / (g / G_ELECTRON)
    step = fields[1] - fields[0]
    cumulated = np.cumsum(spectrum.values) * step
    for number in (900, 1100, 1300, 1400, 1800):
        expected = moment[position < fields[number] + step / 2].sum() / len(cosine)
        assert cumulated[number] == pytest.approx(expected, abs=3e-4)


def test_directions_of_all_symmetries_give_the_same_powder():
    """A rhombic triplet turned in space: the octant in its axes and half the sphere agree; weights sum to 1."""
    frame = euler_frame((17, 40, 63))
    tensor = zfs_tensor(0.04, 0.008, frame)
    system = SpinSystem((1,), zfs={0: tensor})
    tilted = SpinSystem((1,), zfs={0: tensor}, g=[np.diag([2.0023, 2.0024, 2.0023])])
    assert tensor_symmetry(system)[0] == "rhombic"
    assert tensor_symmetry(tilted)[0] == "none"
    spectra = []
    for each in (system, tilted):
        powder = powder_orientations(each, 3000)
        assert powder.weights.sum() == pytest.approx(1, abs=1e-12)
        assert np.linalg.norm(powder.directions, axis=1) == pytest.approx(1)
        spectra.append(epr_spectrum(each, FIELDS, NU, temperature_k=50, linewidth_pp_mt=2, n_orientations=3000))
    assert np.max(np.abs(spectra[0] - spectra[1])) < 0.02 * np.max(np.abs(spectra[0]))


def test_symmetry_is_found():
    axial = SpinSystem((0.5, 1), exchange_cm1={(0, 1): 50}, zfs={1: zfs_tensor(0.06, 0, euler_frame((12, 57, 0)))})
    assert tensor_symmetry(axial)[0] == "axial"
    along = tensor_symmetry(axial)[1][:, 2]
    assert abs(along @ euler_frame((12, 57, 0))[:, 2]) == pytest.approx(1)
    assert tensor_symmetry(SpinSystem((0.5, 0.5)))[0] == "isotropic"
    coupled = SpinSystem(
        (1, 0.5), zfs={0: zfs_tensor(0.06)}, dipolar={(0, 1): axial_coupling_tensor(0.01, np.eye(3)[:, [1, 2, 0]])}
    )
    assert tensor_symmetry(coupled)[0] == "rhombic"


def test_more_orientations_change_little():
    system = SpinSystem((2,), g=2.0043, zfs={0: zfs_tensor(0.013, 0.002)})
    state = zero_field_state(system, (0.3, 0.35, 0.35, 0, 0))
    few, many = (
        epr_spectrum(system, FIELDS, NU, states=state, linewidth_pp_mt=0.7, n_orientations=n) for n in (5000, 20000)
    )
    assert np.max(np.abs(few - many)) < 0.01 * np.max(np.abs(many))


def test_derivative_width_and_area():
    for shape in ("gaussian", "lorentzian"):
        options = {"temperature_k": 4.0, "linewidth_pp_mt": 0.8, "shape": shape}
        line = epr_spectrum(SpinSystem((0.5,)), FIELDS, NU, **options)
        slope = epr_spectrum(SpinSystem((0.5,)), FIELDS, NU, harmonic=1, **options)
        assert FIELDS[slope.values.argmin()] - FIELDS[slope.values.argmax()] == pytest.approx(0.8e-3, abs=1.1e-4)
        assert np.gradient(line.values, FIELDS) == pytest.approx(slope.values, abs=0.03 * float(slope.max()))
        polarisation = np.tanh(6.62607015e-34 * NU * 1e9 / (2 * 1.380649e-23 * 4.0))
        tails = 0 if shape == "gaussian" else 0.01
        assert line.sum() * (FIELDS[1] - FIELDS[0]) == pytest.approx(polarisation / 4, rel=1e-6 + tails)


@pytest.mark.parametrize("row", epr.measured_multiplets(), ids=lambda row: row["molecule"])
def test_net_polarisation_of_the_measured_multiplets_goes_with_d_over_frequency(row):
    """The zero-field state has no magnetic moment: emission and absorption cancel in a strong field."""
    system = epr.multiplet_system(row)
    state = zero_field_state(system, row["levels"])
    centre = OMEGA / (row["g"] * MU_B_RAD_PER_NS_PER_T)
    net = []
    for frequency, fields in ((NU, FIELDS), (10 * NU, FIELDS - 0.34 + 10 * centre)):
        spectrum = epr_spectrum(system, fields, frequency, states=state, linewidth_pp_mt=0.7)
        net.append(abs(float(spectrum.sum())) / float(np.abs(spectrum).sum()))
    assert net[1] < 0.02 < 3 * net[1] + 0.02 < net[0]


def test_turning_points_and_polarisation_of_the_measured_multiplets():
    """Fields by law, of S alone and of radicals and triplet under exchange; absorption at low field along z, D > 0."""
    rows = epr.turning_point_rows()
    assert len(rows) == 3 + 4 + 3 + 4
    for row in rows:
        assert row["S alone (mT)"] == pytest.approx(row["law (mT)"], abs=1e-6)
        quintet = row["molecule"].startswith("9,10-")
        iminonitroxide = "iminonitroxide" in row["molecule"]
        if (
            iminonitroxide or not quintet
        ):  # D_T and D_RT were inverted from these; the verdazyl quintet is not among them
            assert row["radicals and triplet, J = 300 cm^-1 (mT)"] == pytest.approx(row["law (mT)"], abs=0.05)
    for molecule in {row["molecule"] for row in rows}:
        signs = [np.sign(row["polarisation"]) for row in rows if row["molecule"] == molecule]
        assert signs == [-sign for sign in signs[::-1]]
        assert signs[0] == 1
    inverse = [row["nutation / free electron"] for row in rows if row["molecule"].startswith("9,10-bis(4-im")]
    assert inverse == pytest.approx(2.0043 / G_ELECTRON * np.array([2, np.sqrt(6), np.sqrt(6), 2]), rel=1e-6)


def test_command(tmp_path, capsys):
    config = str(epr.CONFIGS / "epr_quintet.yaml")
    arguments = ["epr", config, "--out", str(tmp_path / "out"), "--set", "n_orientations=200"]
    assert cli.main(arguments) == 0
    assert "nutation" in capsys.readouterr().out
    with xarray.open_dataarray(tmp_path / "out" / "spectrum.nc", engine="h5netcdf") as saved:
        assert saved.dims == ("field_tesla",)
        assert saved.attrs["frequency_ghz"] == 9.5
        assert float(saved.max()) > 0 > float(saved.min())
    record = json.loads((tmp_path / "out" / "epr.json").read_text(encoding="utf-8"))
    assert record["provenance"]["config"]["n_orientations"] == 200
    for override, word in (
        ("populations=null", "temperature_k"),
        ("field_tesla=[0.4, 0.3]", "ascend"),
        ("spin_system=a", "spin_system"),
    ):
        assert cli.main(["epr", config, "--set", override]) == 2
        assert word in capsys.readouterr().err


def test_quintet_of_the_full_hamiltonian_is_that_of_its_projection():
    """Radical, triplet, radical under strong exchange: the spectrum of the populated quintet is that of S = 2."""
    d_t = 0.063
    full = SpinSystem(
        (0.5, 1, 0.5), g=2.0043, exchange_cm1={(0, 1): 300.0, (1, 2): 300.0}, zfs={1: zfs_tensor(d_t)},
        dipolar={pair: axial_coupling_tensor(0.0075) for pair in ((0, 1), (1, 2))},
    )  # fmt: skip
    d_qu = (d_t + 2 * 0.0075) / 6
    quintet = SpinSystem((2,), g=2.0043, zfs={0: zfs_tensor(d_qu)})
    shares = [0.3, 0.35, 0.35, 0, 0]
    spectra = [
        epr_spectrum(
            system,
            FIELDS,
            NU,
            states=zero_field_state(system, shares + [0] * extra),
            linewidth_pp_mt=0.7,
            n_orientations=400,
        )
        for system, extra in ((full, 7), (quintet, 0))
    ]
    assert np.max(np.abs(spectra[0] - spectra[1])) < 0.01 * np.max(np.abs(spectra[1]))


def sphere(count):
    """Return directions (count, 3) that cover the whole sphere evenly."""
    number = np.arange(count) + 0.5
    polar, azimuth = np.arccos(1 - 2 * number / count), np.pi * (1 + 5**0.5) * number
    return np.stack([np.sin(polar) * np.cos(azimuth), np.sin(polar) * np.sin(azimuth), np.cos(polar)], 1)


FRAME = euler_frame((17, 40, 63))
POLARISED = {
    "isotropic": SpinSystem((0.5, 0.5), g=[2.0, 2.03], exchange_cm1={(0, 1): 0.004}),
    "axial": SpinSystem((1,), zfs={0: zfs_tensor(0.03, 0, FRAME)}),
    "rhombic": SpinSystem((1,), zfs={0: zfs_tensor(0.03, 0.005, FRAME)}),
    "none": SpinSystem(
        (0.5, 1), g=[np.array([[2.02, 0.01, 0], [0, 2.0, 0], [0, 0.02, 2.01]]), 2.0], exchange_cm1={(0, 1): 0.05},
        zfs={1: zfs_tensor(0.03, 0.005, FRAME)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("symmetry", POLARISED)
def test_powder_of_a_state_without_the_symmetry_of_the_spins_is_that_of_the_whole_sphere(symmetry):
    system = POLARISED[symmetry]
    assert tensor_symmetry(system)[0] == symmetry
    rng = np.random.default_rng(0)
    kets = rng.normal(size=(2, system.dimension)) + 1j * rng.normal(size=(2, system.dimension))
    states = np.einsum("na,nb->nab", kets, kets.conj()) / np.sum(np.abs(kets) ** 2, axis=1)[:, None, None]
    options = {"states": states, "linewidth_pp_mt": 3}
    powder = epr_spectrum(system, FIELDS, NU, n_orientations=2000, **options)
    whole = epr_spectrum(system, FIELDS, NU, directions=sphere(4000), **options)
    pole = epr_spectrum(system, FIELDS, NU, directions=[[0, 0, 1]], **options)
    assert np.max(np.abs(powder - whole)) < 0.02 * np.max(np.abs(whole)) + 1e-9
    assert np.max(np.abs(pole - whole)) > 0.2 * np.max(np.abs(whole))


def test_a_state_of_zero_field_levels_has_the_symmetry_of_the_spins():
    for system in POLARISED.values():
        shares = np.arange(system.dimension, 0, -1.0)
        if tensor_symmetry(system)[0] in ("isotropic", "axial", "none"):  # degenerate levels share alike
            energies = np.linalg.eigvalsh(system.hamiltonian_matrix())
            shares = 1 + np.floor((energies - energies[0]) / np.ptp(energies) * 2 + 0.5)
        state = zero_field_state(system, shares / shares.sum())
        assert np.max(np.abs(powder_states(system, state) - state)) < 1e-12


def test_powder_of_a_polarised_doublet_is_dark():
    """Half of the molecules absorb as much as the others emit, whatever the state of a spin 1/2."""
    for state in ([0, 1], [0.6, 0.8j]):
        spectrum = epr_spectrum(SpinSystem((0.5,)), FIELDS, NU, states=state)
        assert np.max(np.abs(spectrum)) < 1e-12


def test_states_may_be_qutips():
    system = SpinSystem((0.5,))
    options = {"directions": [[0, 0, 1]]}
    plain = epr_spectrum(system, FIELDS, NU, states=[np.diag([1, 0]), np.diag([0, 1])], **options)
    found = epr_spectrum(system, FIELDS, NU, states=[qutip.basis(2, 0), qutip.basis(2, 1)], **options)
    np.testing.assert_array_equal(found, plain)


def test_several_states_are_their_spectra():
    system = SpinSystem((1,), zfs={0: zfs_tensor(0.03, 0.004)})
    states = np.array([zero_field_state(system, shares) for shares in ((1, 0, 0), (0.2, 0.3, 0.5))])
    both = epr_spectrum(system, FIELDS, NU, states=states, n_orientations=300)
    assert both.dims == ("state", "field_tesla")
    for state, row in zip(states, both, strict=True):
        single = epr_spectrum(system, FIELDS, NU, states=state, n_orientations=300)
        assert np.max(np.abs(row - single)) < 1e-12 * np.max(np.abs(single)) + 1e-15


def test_equal_populations_are_dark():
    system = SpinSystem((1.5,), zfs={0: zfs_tensor(0.02)})
    spectrum = epr_spectrum(system, FIELDS, NU, states=np.eye(4) / 4, n_orientations=100)
    assert np.max(np.abs(spectrum)) < 1e-9


def test_nitroxide_in_solution_has_three_lines():
    """An isotropic 14N coupling of 1.5 mT: three equal lines 1.5 mT apart (to second order in the coupling)."""
    from molecular_qubits.units import MILLITESLA_TO_CM1

    system = SpinSystem((0.5, 1), isotopes={1: "14N"}, hyperfine={(0, 1): 1.5 * MILLITESLA_TO_CM1})
    found = lines(system, (0, 0, 1), 0.3, 0.4)
    strong = np.sort(found.field_tesla[found.moment > 0.2])
    assert np.diff(strong) == pytest.approx([1.5e-3, 1.5e-3], abs=1e-5)


def test_bad_arguments():
    system = SpinSystem((1,), zfs={0: zfs_tensor(0.03)})
    good = {"temperature_k": 10.0}
    for fields in ([0.3], [0.3, 0.2], [0.1, 0.2, 0.4], [[0.1, 0.2]], [-0.1, 0.1], [0.1, np.nan]):
        with pytest.raises(ValueError, match="`fields_tesla`"):
            epr_spectrum(system, fields, NU, **good)
    for name, value in (
        ("temperature_k", 0), ("linewidth_pp_mt", 0), ("shape", "voigt"), ("harmonic", 2), ("n_orientations", 0),
        ("directions", [[1, 1, 0]]),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=f"`{name}`"):
            epr_spectrum(system, FIELDS, NU, **(good | {name: value}))
    with pytest.raises(ValueError, match="`frequency_ghz`"):
        epr_spectrum(system, FIELDS, -1, **good)
    with pytest.raises(ValueError, match="`temperature_k` or `states`"):
        epr_spectrum(system, FIELDS, NU)
    with pytest.raises(ValueError, match="`initial_state`"):
        epr_spectrum(system, FIELDS, NU, states=np.eye(4) / 4)
    for shares in ((1, 0), (0.5, 0.5, 0.5), (-1, 1, 1), (0.5, 0.5, 0)):
        with pytest.raises(ValueError, match="`populations`"):
            zero_field_state(system, shares)
