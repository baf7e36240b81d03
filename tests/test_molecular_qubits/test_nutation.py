import numpy as np
import pytest
from scipy.linalg import expm

from molecular_qubits import SpinSystem, zero_field_state
from molecular_qubits.spins.epr.nutation import nutation_map, nutation_trace
from molecular_qubits.spins.epr.spectrum import epr_spectrum
from molecular_qubits.spins.operators import spin_matrices
from molecular_qubits.spins.tensors import zfs_tensor
from molecular_qubits.units import CM1_TO_RAD_PER_NS, G_ELECTRON, MU_B_RAD_PER_NS_PER_T

GAMMA = G_ELECTRON * MU_B_RAD_PER_NS_PER_T
NU = 9.5
D = 0.013
SHARES = (0.3, 0.35, 0.35, 0, 0)


def quintet():
    return SpinSystem((2,), zfs={0: zfs_tensor(D)})


@pytest.mark.parametrize("m", [2, 1, 0, -1])
def test_trace_is_that_of_the_rotating_frame(m):
    """One line of a quintet along its axis: the exact evolution under a weak pulse, against its sine."""
    field = (2 * np.pi * NU - CM1_TO_RAD_PER_NS * D * (2 * m - 1)) / GAMMA
    x, y, z = spin_matrices(2)
    turn = 0.02e-3 * GAMMA
    still = (GAMMA * field - 2 * np.pi * NU) * z + CM1_TO_RAD_PER_NS * D * (z @ z - 2 * np.eye(5)) + turn * x
    state = np.diag([0, 0.35, 0.3, 0.35, 0]).astype(complex)
    times = np.linspace(0, 300, 61)
    step = expm(-1j * still * times[1])
    exact, rho = [], state
    lower, upper = np.eye(5)[2 - m + 1], np.eye(5)[2 - m]
    quadrature = np.outer(upper, lower) * y[2 - m, 2 - m + 1]
    quadrature = quadrature + quadrature.conj().T  # of this line alone: detection at its field
    for _ in times:
        exact.append(np.trace(quadrature @ rho).real)
        rho = step @ rho @ step.conj().T
    polarised = zero_field_state(quintet(), SHARES)
    found = nutation_trace(
        quintet(), field, NU, times, microwave_mt=0.02, states=polarised, directions=[[0, 0, 1]], microwave_spread=0.0,
        linewidth_pp_mt=0.2,
    )  # fmt: skip
    exact = np.array(exact)
    sign = np.sign(found.values @ exact)
    assert found.values == pytest.approx(sign * exact, abs=0.02 * np.abs(exact).max())


def test_map_sums_to_the_spectrum_and_shows_the_multiplicity():
    fields = np.linspace(0.28, 0.40, 241)
    axis = np.linspace(0.5, 3.5, 601)
    state = zero_field_state(quintet(), SHARES)
    found = nutation_map(quintet(), fields, NU, axis, states=state, linewidth_pp_mt=1.0)
    spectrum = epr_spectrum(quintet(), fields, NU, states=state, linewidth_pp_mt=1.0, n_orientations=2000)
    total = found.sum("relative_frequency") * (axis[1] - axis[0])
    assert np.max(np.abs(total - spectrum)) < 0.03 * float(np.abs(spectrum).max())
    along = nutation_map(quintet(), fields, NU, axis, states=state, directions=[[0, 0, 1.0]])
    strength = np.abs(along).sum("field_tesla").values
    peaks = axis[1:-1][(strength[1:-1] > strength[:-2]) & (strength[1:-1] > strength[2:])]
    assert peaks == pytest.approx([2, np.sqrt(6)], abs=0.03)


def test_powder_of_any_state_is_that_of_the_whole_sphere():
    """A quintet in M = 2 along its axis, against directions all over the sphere."""
    state = np.diag([1.0, 0, 0, 0, 0])
    number = np.arange(2000) + 0.5
    polar, azimuth = np.arccos(1 - number / 1000), np.pi * (1 + 5**0.5) * number
    sphere = np.stack([np.sin(polar) * np.cos(azimuth), np.sin(polar) * np.sin(azimuth), np.cos(polar)], 1)
    options = {"microwave_mt": 0.1, "states": state, "linewidth_pp_mt": 10}
    found, whole = (
        nutation_trace(quintet(), 0.335, NU, np.linspace(0, 200, 41), directions=directions, **options).values
        for directions in (None, sphere)
    )
    assert found == pytest.approx(whole, abs=0.01 * np.abs(whole).max())


def test_bad_arguments():
    good = {"temperature_k": 10.0}
    with pytest.raises(ValueError, match="`times_ns`"):
        nutation_trace(quintet(), 0.34, NU, [-1.0], microwave_mt=0.1, **good)
    with pytest.raises(ValueError, match="`microwave_mt`"):
        nutation_trace(quintet(), 0.34, NU, [1.0], microwave_mt=0.0, **good)
    with pytest.raises(ValueError, match="`relative_frequencies`"):
        nutation_map(quintet(), [0.3, 0.4], NU, [2.0, 1.0], **good)
    with pytest.raises(ValueError, match="`temperature_k` or `states`"):
        nutation_map(quintet(), [0.3, 0.4], NU, [1.0, 2.0])
    with pytest.raises(ValueError, match="`directions`"):
        nutation_trace(quintet(), 0.34, NU, [1.0], microwave_mt=0.1, directions=[[0, 0, 2.0]], **good)
    with pytest.raises(ValueError, match="`directions`"):
        nutation_map(quintet(), [0.3, 0.4], NU, [1.0, 2.0], directions=[[1, 1, 0]], **good)
