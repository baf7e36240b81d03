"""Exchange couplings from energies, against the Heisenberg model solved exactly."""

from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from molecular_qubits import map_heisenberg, project_j
from molecular_qubits.electronic.projection import fit_products, map_yamaguchi, unprojected_factor
from molecular_qubits.fields.alignments import alignment_of, enumerate_determinants, separate_spin_s2
from molecular_qubits.units import HARTREE_TO_CM1


def spin_matrices(spin):
    m = np.arange(spin, -spin - 1, -1)
    raising = np.diag(np.sqrt(spin * (spin + 1) - m[1:] * (m[1:] + 1)), 1)
    return (raising + raising.T) / 2, (raising - raising.T) / 2j, np.diag(m)


def embedded(spins):
    """Cartesian spin operators of each centre in the product space; the first state has all spins up."""
    sizes = [round(2 * spin) + 1 for spin in spins]
    result = []
    for centre, spin in enumerate(spins):
        before, after = np.eye(int(np.prod(sizes[:centre]))), np.eye(int(np.prod(sizes[centre + 1 :])))
        result.append([np.kron(np.kron(before, part), after) for part in spin_matrices(spin)])
    return result


def heisenberg(spins, j_cm1):
    operators = embedded(spins)
    return sum(
        -2 * j_cm1[i, j] * sum(a @ b for a, b in zip(operators[i], operators[j], strict=True))
        for i, j in combinations(range(len(spins)), 2)
    )


def determinant_energy(hamiltonian, spins, determinant):
    """Expectation value in the product state with every spin fully up or down."""
    index = 0
    for spin, sign in zip(spins, determinant, strict=True):
        index = index * (round(2 * spin) + 1) + (0 if sign > 0 else round(2 * spin))
    return hamiltonian[index, index].real


SPINS = st.sampled_from([0.5, 1.0, 1.5])


@st.composite
def models(draw):
    n_centres = draw(st.integers(2, 5))
    spins = draw(st.lists(SPINS, min_size=n_centres, max_size=n_centres))
    j_cm1 = np.zeros((n_centres, n_centres))
    for i, j in combinations(range(n_centres), 2):
        j_cm1[i, j] = j_cm1[j, i] = draw(st.floats(-500, 500))
    return spins, j_cm1


@given(models(), st.floats(-1e5, 1e5))
@settings(max_examples=60, deadline=None)
def test_random_couplings_survive_the_round_trip_through_determinants(model, offset):
    spins, j_cm1 = model
    determinants = enumerate_determinants(spins)
    moments = np.array(determinants) * spins
    energies = [
        offset - 2 * sum(j_cm1[i, j] * row[i] * row[j] for i, j in combinations(range(len(spins)), 2))
        for row in moments
    ]
    fit = map_heisenberg(energies, spins, determinants)
    scale = max(1.0, np.abs(energies).max())
    assert np.abs(fit.j_cm1 - j_cm1).max() < 1e-10 * scale
    assert fit.offset_cm1 == pytest.approx(offset, abs=1e-9 * scale)
    assert np.abs(fit.residual_cm1).max() < 1e-10 * scale
    assert np.array_equal(fit.j_cm1, fit.j_cm1.T)
    assert not fit.j_cm1.diagonal().any()


@pytest.mark.parametrize("spins", [(0.5, 0.5), (0.5, 1.0), (0.5, 1.0, 0.5), (1.5, 0.5, 1.0)])
def test_ising_products_are_the_expectation_values_of_determinants(spins):
    rng = np.random.default_rng(5)
    j_cm1 = np.triu(rng.uniform(-50, 50, (len(spins), len(spins))), 1)
    j_cm1 = j_cm1 + j_cm1.T
    hamiltonian = heisenberg(spins, j_cm1)
    determinants = enumerate_determinants(spins)
    energies = [determinant_energy(hamiltonian, spins, row) for row in determinants]
    assert np.allclose(map_heisenberg(energies, spins, determinants).j_cm1, j_cm1, atol=1e-10)


@pytest.mark.parametrize(("j_rt", "j_rr"), [(60.0, -5.0), (-20.0, 3.0), (1.0, 0.0)])
def test_radical_triplet_radical_formulas(j_rt, j_rr):
    spins = (0.5, 1.0, 0.5)
    j_cm1 = np.array([[0, j_rt, j_rr], [j_rt, 0, j_rt], [j_rr, j_rt, 0]])
    hamiltonian = heisenberg(spins, j_cm1)
    multiplets = np.concatenate(
        [
            np.full(5, -2 * j_rt - j_rr / 2),
            np.full(3, 2 * j_rt - j_rr / 2),
            np.full(1, 4 * j_rt - j_rr / 2),
            np.full(3, 1.5 * j_rr),
        ]
    )
    assert np.allclose(np.linalg.eigvalsh(hamiltonian), np.sort(multiplets), atol=1e-10)
    e_hs, e_bst, e_bsr = (determinant_energy(hamiltonian, spins, row) for row in [(1, 1, 1), (1, -1, 1), (-1, 1, 1)])
    assert e_hs == pytest.approx(-2 * j_rt - j_rr / 2)
    assert e_bst == pytest.approx(2 * j_rt - j_rr / 2)
    assert e_bsr == pytest.approx(j_rr / 2)
    assert (e_bst - e_hs) / 4 == pytest.approx(j_rt)
    assert e_bsr - (e_hs + e_bst) / 2 == pytest.approx(j_rr, abs=1e-10)
    fit = map_heisenberg([e_hs, e_bst, e_bsr, e_bsr], spins, [(1, 1, 1), (1, -1, 1), (-1, 1, 1), (1, 1, -1)])
    assert np.allclose(fit.j_cm1, j_cm1, atol=1e-10)


def test_radical_triplet_pair():
    j_rt = 68.4
    spins = (0.5, 1.0)
    hamiltonian = heisenberg(spins, np.array([[0, j_rt], [j_rt, 0]]))
    levels = np.linalg.eigvalsh(hamiltonian)
    assert levels[4] - levels[3] == pytest.approx(3 * j_rt)  # E_D - E_Q
    e_hs, e_bs = (determinant_energy(hamiltonian, spins, row) for row in [(1, 1), (-1, 1)])
    assert (e_bs - e_hs) / 2 == pytest.approx(j_rt)
    found = project_j(e_hs / HARTREE_TO_CM1, e_bs / HARTREE_TO_CM1, 3.75, 1.75, spins=spins)
    assert found.yamaguchi_cm1 == pytest.approx(j_rt)
    assert found.noodleman_cm1 == pytest.approx(j_rt)
    assert found.unprojected_cm1 == pytest.approx(2 * j_rt / 3)


def test_projections_of_two_radicals_with_clean_spins():
    found = project_j(-1.0, -1.0 + 100 / HARTREE_TO_CM1, 2.0, 1.0)
    assert found.yamaguchi_cm1 == pytest.approx(100)
    assert found.noodleman_cm1 == pytest.approx(100)
    assert found.unprojected_cm1 == pytest.approx(50)


@given(st.sampled_from([0.5, 1.0, 1.5, 2.0]), st.sampled_from([0.5, 1.0, 1.5, 2.0]), st.floats(-300, 300))
def test_unprojected_is_exact_for_spin_eigenstates_and_noodleman_for_determinants(s1, s2, j_cm1):
    low, high = abs(s1 - s2), s1 + s2

    def eigenvalue(total):
        return -j_cm1 * (total * (total + 1) - s1 * (s1 + 1) - s2 * (s2 + 1))

    to_hartree = 1 / HARTREE_TO_CM1
    s2_high, s2_low = separate_spin_s2((1, 1), (s1, s2)), separate_spin_s2((1, -1), (s1, s2))
    eigen = project_j(eigenvalue(high) * to_hartree, eigenvalue(low) * to_hartree, s2_high, s2_low, spins=(s1, s2))
    ising = project_j(
        -2 * j_cm1 * s1 * s2 * to_hartree, 2 * j_cm1 * s1 * s2 * to_hartree, s2_high, s2_low, spins=(s1, s2)
    )
    assert eigen.unprojected_cm1 == pytest.approx(j_cm1, abs=1e-8)
    assert ising.noodleman_cm1 == pytest.approx(j_cm1, abs=1e-8)
    assert ising.yamaguchi_cm1 == pytest.approx(j_cm1, abs=1e-8)
    factor = unprojected_factor((s1, s2))[0, 1]
    assert ising.unprojected_cm1 == pytest.approx(factor * ising.noodleman_cm1, abs=1e-8)


def test_residual_shows_what_the_model_does_not_describe():
    determinants = enumerate_determinants((0.5,) * 4)
    energies = np.zeros(len(determinants))
    energies[0] = 1.0
    fit = map_heisenberg(energies, (0.5,) * 4, determinants)
    assert len(determinants) == 8
    assert np.abs(fit.residual_cm1).max() > 0.05
    assert fit.residual_cm1.sum() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("n_centres", [2, 3, 4, 5, 6])
def test_listed_determinants_are_distinct_and_fix_everything(n_centres):
    spins = [0.5, 1.0, 0.5, 1.5, 0.5, 1.0][:n_centres]
    determinants = enumerate_determinants(spins)
    assert len(determinants) == 2 ** (n_centres - 1)  # all of them, up to turning all spins
    assert determinants[0] == (1,) * n_centres
    images = {tuple(row) for row in determinants} | {tuple(-x for x in row) for row in determinants}
    assert len(images) == 2 * len(determinants)
    assert all(np.dot(row, spins) >= 0 for row in determinants)
    assert np.isfinite(map_heisenberg(np.arange(len(determinants)), spins, determinants).j_cm1).all()


def test_all_determinants_of_separate_spins_average_to_the_trace():
    spins = (0.5, 1.0, 0.5)
    mean = np.mean([separate_spin_s2(row, spins) for row in product((1, -1), repeat=3)])
    assert mean == pytest.approx(sum(s * (s + 1) for s in spins))


@pytest.mark.parametrize(
    ("energies", "spins", "determinants", "words"),
    [
        ([0.0], (0.5, 0.5), [(1, 1)], "rank 1"),
        ([0.0, 1.0], (0.5, 0.5), [(1, 1), (-1, -1)], "rank 1"),
        ([0.0, 1.0, 2.0], (0.5, 1, 0.5), [(1, 1, 1), (1, -1, 1), (-1, 1, 1)], "rank 3"),
        ([0.0, 1.0], (0.5, 0.5), [(1, 1), (1, 0)], r"\+1 and -1"),
        ([0.0, 1.0, 2.0], (0.5, 0.5), [(1, 1), (1, -1)], "energies_cm1"),
        ([0.0, np.nan], (0.5, 0.5), [(1, 1), (1, -1)], "finite"),
        ([0.0, 1.0], (0.5, 0.7), [(1, 1), (1, -1)], "multiples of 1/2"),
        ([0.0, 1.0], (0.5,), [(1, 1), (1, -1)], "2 centres"),
    ],
)
def test_bad_maps_are_refused(energies, spins, determinants, words):
    with pytest.raises(ValueError, match=words):
        map_heisenberg(energies, spins, determinants)


@given(models(), st.data())
def test_yamaguchi_map_finds_couplings_of_overlapping_spins(model, data):
    spins, j_cm1 = model
    determinants = enumerate_determinants(spins)
    energies, s2 = np.zeros(len(determinants)), np.zeros(len(determinants))
    for i, j in combinations(range(len(spins)), 2):
        overlap = data.draw(st.floats(0.8, 1.2))
        aligned = overlap * spins[i] * spins[j] * np.array([row[i] * row[j] for row in determinants])
        energies -= 2 * j_cm1[i, j] * aligned
        s2 += 2 * aligned  # the pairs share the total spin
    fit = map_yamaguchi(energies + 7, s2 + 3, spins, determinants)
    assert fit.j_cm1 == pytest.approx(j_cm1, abs=1e-9)
    assert fit.residual_cm1 == pytest.approx(0, abs=1e-9)
    if len(spins) == 2:
        pair = project_j(energies[0] / HARTREE_TO_CM1, energies[1] / HARTREE_TO_CM1, *s2, spins=spins)
        assert fit.j_cm1[0, 1] == pytest.approx(pair.yamaguchi_cm1, abs=1e-9)


def test_yamaguchi_map_wants_spins_that_turn():
    with pytest.raises(ValueError, match="must exceed"):
        map_yamaguchi([0.0, 1.0], [1.0, 1.0], (0.5, 0.5), [(1, 1), (1, -1)])
    for s2 in (2.0, [2.0]):
        with pytest.raises(ValueError, match=r"`s2` must hold a value for each of 2 determinants, but has shape"):
            map_yamaguchi([0.0, 1.0], s2, (0.5, 0.5), [(1, 1), (1, -1)])
    rows = enumerate_determinants((0.5,) * 3)
    with pytest.raises(ValueError, match=r"centres 0 and 1 turn .* contribute -0\.500"):
        map_yamaguchi([0.0, 1.0, 2.0, 3.0], [3.75, 3.25, 3.25, 1.75], (0.5,) * 3, rows)


def test_fit_with_other_products_scales_the_coupling():
    products = np.zeros((2, 2, 2))
    products[0, 0, 1], products[1, 0, 1] = 0.2, -0.2
    assert fit_products([0.0, 10.0], products).j_cm1[0, 1] == pytest.approx(10 / 2 / 0.4)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((-1.0, np.inf, 2.0, 1.0), "e_bs_hartree"),
        ((-1.0, -1.0, 1.0, 2.0), "must exceed"),
        ((-1.0, -1.0, 2.0, 2.0), "must exceed"),
    ],
)
def test_bad_projections_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        project_j(*arguments)


def test_projection_wants_two_valid_spins():
    with pytest.raises(ValueError, match="two spins"):
        project_j(0.0, 0.0, 2.0, 1.0, spins=(0.5, 0.5, 0.5))
    with pytest.raises(ValueError, match="multiples of 1/2"):
        project_j(0.0, 0.0, 2.0, 1.0, spins=(0.5, -0.5))


def test_the_alignment_of_a_multiplicity_is_the_only_one_or_named():
    assert alignment_of(1, (0.5, 0.5)) == (1, -1)
    assert alignment_of(2, (0.5, 1.0)) == (-1, 1)
    assert alignment_of(4, (0.5, 1.0)) == (1, 1)
    assert alignment_of(2, (0.5,) * 3, [1, -1, 1]) == (1, -1, 1)
    with pytest.raises(ValueError, match=r"`alignment` must be one of \[.*\(1, -1, 1\).*but is None"):
        alignment_of(2, (0.5,) * 3)
    with pytest.raises(ValueError, match="multiplicity 3 with some of them turned"):
        alignment_of(3, (0.5,) * 3)
