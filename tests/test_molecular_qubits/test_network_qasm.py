import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from qutip_qip.circuit import QubitCircuit
from qutip_qip.qasm import circuit_to_qasm_str
from qutip_qip.qasm import read_qasm as read_with_qutip

from molecular_qubits import read_circuit
from molecular_qubits.network.gates import QELIB1, STANDARD

HEAD2 = 'OPENQASM 2.0;\ninclude "qelib1.inc";\n'
HEAD3 = 'OPENQASM 3;\ninclude "stdgates.inc";\n'


def difference(first, second):
    phase = np.trace(second.conj().T @ first)
    return float(np.abs(first - second * phase / abs(phase)).max())


def unitary(text):
    return read_circuit(text).unitary()


def test_every_standard_gate_is_unitary_and_known_in_its_language():
    for head, gates in ((HEAD3, STANDARD), (HEAD2, QELIB1)):
        for name, (n_angles, n_qubits, make) in gates.items():
            angles = [0.3, 0.5, 0.7, 1.1][:n_angles]
            call = f"{name}({','.join(map(str, angles))})" if angles else name
            operands = ",".join(f"q[{k}]" for k in range(n_qubits))
            declared = f"qreg q[{n_qubits}];" if head is HEAD2 else f"qubit[{n_qubits}] q;"
            assert np.abs(unitary(f"{head}{declared}{call} {operands};") - make(*angles)).max() < 1e-12


QUTIP = {
    "x": 0, "y": 0, "z": 0, "h": 0, "s": 0, "sdg": 0, "t": 0, "tdg": 0, "rx": 1, "ry": 1, "rz": 1, "cx": 0, "cz": 0,
    "ccx": 0, "cu1": 1, "crz": 1, "u2": 2, "u3": 3, "ch": 0, "cy": 0,
}  # fmt: skip


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_programs_mean_what_qutip_qip_reads_in_them(data):
    lines = []
    for _ in range(data.draw(st.integers(1, 8))):
        name = data.draw(st.sampled_from(sorted(QUTIP)))
        qubits = data.draw(st.permutations(range(3)))[: QELIB1[name][1]]
        angles = [f"{data.draw(st.integers(-7, 7))}*pi/{data.draw(st.integers(1, 9))}" for _ in range(QUTIP[name])]
        lines.append(f"{name}{'(' + ','.join(angles) + ')' if angles else ''} {','.join(f'q[{k}]' for k in qubits)};")
    text = HEAD2 + "qreg q[3];\n" + "\n".join(lines) + "\n"
    theirs = read_with_qutip(text.replace('include "qelib1.inc";', ""), strmode=True).compute_unitary().full()
    assert difference(unitary(text), theirs) < 1e-10


def test_a_circuit_of_qutip_qip_survives_its_own_qasm():
    circuit = QubitCircuit(3)
    circuit.add_gate("SNOT", targets=0)
    circuit.add_gate("CNOT", targets=1, controls=0)
    circuit.add_gate("RX", targets=2, arg_value=0.4)
    circuit.add_gate("TOFFOLI", targets=2, controls=[0, 1])
    wanted = circuit.compute_unitary().full()
    assert difference(read_circuit(circuit).unitary(), wanted) < 1e-12
    assert difference(unitary(circuit_to_qasm_str(circuit)), wanted) < 1e-12


def test_gates_of_qutip_qip_and_of_its_users_keep_their_order_of_qubits():
    import qutip

    def rotated(angle):
        return qutip.tensor(qutip.qeye(2), (-0.5j * angle * qutip.sigmay()).expm())

    circuit = QubitCircuit(3, user_gates={"MINE": rotated, "FIXED": rotated(0.2)})
    circuit.add_gate("FIXED", targets=[1, 0])
    circuit.add_gate("MINE", targets=[2, 0], arg_value=0.7)
    circuit.add_gate("CRX", targets=1, controls=2, arg_value=1.3)
    circuit.add_gate("FREDKIN", targets=[0, 2], controls=1)
    circuit.add_gate("ISWAP", targets=[2, 1])
    circuit.add_gate("SQRTSWAP", targets=[0, 1])
    circuit.add_gate("BERKELEY", targets=[1, 0])
    assert difference(read_circuit(circuit).unitary(), circuit.compute_unitary().full()) < 1e-12


def test_definitions_modifiers_and_phases_of_openqasm_3():
    swapped = "gate mycx a, b { ctrl @ U(pi, 0, pi) a, b; ctrl @ gphase(-pi/2) a; }\n"
    assert np.abs(unitary(f"OPENQASM 3;\n{swapped}qubit[2] q; mycx q[0], q[1];") - STANDARD["cx"][2]()).max() < 1e-12
    modified = f"{HEAD3}qubit[3] q; negctrl @ ctrl @ inv @ pow(1/2) @ rx(0.8) q[0], q[1], q[2];"
    expected = np.eye(8, dtype=complex)
    expected[2:4, 2:4] = STANDARD["rx"][2](-0.4)
    assert np.abs(unitary(modified) - expected).max() < 1e-12
    nested = f"{HEAD3}gate both(t) a, b {{ rx(t / 2) a; cp(2 * t) a, b; }} qubit a; qubit b; both(π / 4) b, a;"
    flat = f"{HEAD3}qubit a; qubit b; rx(π/8) b; cp(π/2) b, a;"
    assert np.abs(unitary(nested) - unitary(flat)).max() < 1e-12


def test_controlled_user_gates_keep_the_phase_of_what_they_contain():
    text = f"{HEAD3}gate phased a {{ gphase(0.3); z a; }} qubit[2] q; ctrl @ phased q[0], q[1];"
    assert np.abs(unitary(text) - np.diag([1, 1, np.exp(0.3j), -np.exp(0.3j)])).max() < 1e-12


@pytest.mark.parametrize(
    ("short", "angles"), [("u3(0.3, 0.5, 0.7)", "0.3, 0.5, 0.7"), ("u2(0.5, 0.7)", "pi/2, 0.5, 0.7")]
)
def test_u2_and_u3_under_control_are_those_of_stdgates(short, angles):
    """stdgates.inc: gate u3(theta, phi, lambda) q { gphase(-(phi + lambda + theta) / 2); U(theta, phi, lambda) q; }."""
    theta = angles.split(",")[0]
    spelt = f"gate spelt a {{ gphase(-(0.5 + 0.7 + {theta}) / 2); U({angles}) a; }}\n"
    wanted = unitary(f"{HEAD3}{spelt}qubit[2] q; ctrl @ spelt q[0], q[1];")
    assert np.abs(unitary(f"{HEAD3}qubit[2] q; ctrl @ {short} q[0], q[1];") - wanted).max() < 1e-12
    assert np.linalg.det(wanted) == pytest.approx(1)
    old = f"{HEAD2}qreg q[1]; {short} q[0];"
    assert unitary(old)[0, 0].imag == 0  # OpenQASM 2 has another phase


def test_a_phase_is_modified_and_broadcast_as_a_gate_is():
    assert read_circuit(f"{HEAD3}qubit q; inv @ gphase(0.3);").instructions == ()
    spelt = f"{HEAD3}gate g a {{ inv @ gphase(0.3); z a; }} qubit[2] q; ctrl @ g q[0], q[1];"
    assert np.abs(unitary(spelt) - np.diag([1, 1, np.exp(-0.3j), -np.exp(-0.3j)])).max() < 1e-12
    each = unitary(f"{HEAD3}qubit[2] q; ctrl @ gphase(0.3) q;")
    assert np.abs(each - np.diag(np.exp([0, 0.3j, 0.3j, 0.6j]))).max() < 1e-12


def test_large_powers_stay_unitary_and_agree_with_products():
    for exponent in (1000, 1001, -1001):
        turned = unitary(f"{HEAD3}qubit q; pow({exponent}) @ rx(0.3) q;")
        assert np.abs(turned - STANDARD["rx"][2](0.3 * exponent)).max() < 1e-10
    huge = unitary(f"{HEAD3}qubit q; pow(1e300) @ rx(0.3) q;")
    assert np.abs(huge @ huge.conj().T - np.eye(2)).max() < 1e-12


def test_readouts_go_to_as_many_bits():
    text = f"{HEAD3}qubit[3] q; bit[3] c; c[0:1] = measure q[1:2]; c[-1] = measure q[0];"
    assert [step.qubits for step in read_circuit(text).instructions] == [(1,), (2,), (0,)]


def test_registers_ranges_sets_and_negative_indices():
    text = f"{HEAD3}const int n = 2 * 2; qubit[n] q; x q[0:2]; y q[{{1, 3}}]; z q[-1]; h q[3:-1:0];"
    names = [(step.name, step.qubits[0]) for step in read_circuit(text).instructions]
    assert names == [("x", 0), ("x", 1), ("x", 2), ("y", 1), ("y", 3), ("z", 3), ("h", 3), ("h", 2), ("h", 1), ("h", 0)]
    broad = read_circuit(f"{HEAD2}qreg a[2]; qreg b[2]; creg c[2]; cx a, b; cx a[0], b; measure b -> c; barrier a, b;")
    assert [step.qubits for step in broad.instructions] == [(0, 2), (1, 3), (0, 2), (0, 3), (2,), (3,), (0, 1, 2, 3)]


def test_powers_of_openqasm_2_bind_tighter_than_products():
    assert np.abs(unitary(f"{HEAD2}qreg q[1]; rz(2*3^2) q[0];") - STANDARD["rz"][2](18.0)).max() < 1e-12


def test_a_file_is_read_from_its_path(tmp_path):
    (tmp_path / "bell.qasm").write_text(f"{HEAD2}qreg q[2]; h q[0]; cx q[0], q[1];")
    assert len(read_circuit(tmp_path / "bell.qasm").gates) == 2
    with pytest.raises(ValueError, match="cannot be read"):
        read_circuit(tmp_path / "nowhere.qasm")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("qubit q;", "Line 1: an OpenQASM program must begin with its version"),
        ("bell.qasm", "`circuit` must be OpenQASM text .* but was the text 'bell.qasm': give a file as `Path`"),
        ("OPENQASM 3; qubit[1000000001] q;", "at most 1,000,000 qubits, but 'q' has 1,000,000,001"),
        ("OPENQASM 4;\nqubit q;", "Line 1: the version must be 2 or 3, but is 4"),
        ("OPENQASM 3;\nqubit q\nx q;", "Line 3: the program cannot be parsed at 'x'"),
        ("OPENQASM 2.0;\nqreg q[2];\nopaque g a;", "Line 3: the program cannot be parsed"),
        (HEAD3, "must declare qubits"),
        (f"{HEAD3}qubit q;\nfoo q;", "Line 4: the gate 'foo' is unknown"),
        (f"{HEAD3}qubit[2] q;\ncnot q[0], q[1];", "Line 4: the gate 'cnot' is unknown"),
        ("OPENQASM 3;\nqubit q;\nh q;", "Line 3: the gate 'h' is unknown: include"),
        (f"{HEAD3}qubit q;\nrx q;", "Line 4: the gate 'rx' needs 1 angles, but was given 0"),
        (f"{HEAD3}qubit[2] q;\ncx q[0];", "Line 4: the gate 'cx' acts on 2 qubits, but was given 1"),
        (f"{HEAD3}qubit[2] q;\ncx q[0], q[0];", "Line 4: cx must act on different qubits"),
        (f"{HEAD3}qubit[2] q;\nx q[2];", "Line 4: 'q' has 2 qubits, but its qubit 2"),
        (f"{HEAD3}qubit[2] q;\nx r;", "Line 4: the qubits 'r' are not declared"),
        (f"{HEAD3}qubit q;\nqubit q;", "Line 4: the qubits 'q' are declared twice"),
        (f"{HEAD3}qubit[0] q;", "Line 3: a register must have at least 1 qubit"),
        (f"{HEAD3}qubit q;\nrx(alpha) q;", "Line 4: the number 'alpha' is not known"),
        (f"{HEAD3}qubit q;\nrx(1/0) q;", "Line 4: an expression has no value"),
        (f'{HEAD3}qubit q;\nrx("a") q;', "Line 4"),
        (f"{HEAD3}qubit q; bit c;\nc = measure q;\nif (c == 1) x q;", "Line 5: a branching statement is not supported"),
        (f"{HEAD3}qubit q;\nreset q;", "Line 4: a quantum reset is not supported"),
        (f"{HEAD3}qubit q;\ndelay[10ns] q;", "Line 4: a delay instruction is not supported"),
        (f"{HEAD3}qubit q; bit c;\nc = measure q;\nc = measure q;", "Line 5: a qubit must not be read twice"),
        (f"{HEAD3}qubit q;\nc = measure q;", "Line 4: the bits 'c' are not declared"),
        (f"{HEAD3}qubit q; bit c; c = measure q; h q;", "Qubit 0 must not be used after its readout"),
        (f"{HEAD3}gate a q {{ a q; }}", "Line 3: the gate 'a' must not call itself"),
        (f"{HEAD3}gate a q {{\n  b q;\n}}", "Line 4: the gate 'b' is unknown"),
        (f"{HEAD3}gate a q {{ x q; }}\ngate a q {{ y q; }}", "Line 4: the gate 'a' is defined twice"),
        ('OPENQASM 3;\ninclude "mine.inc";', "Line 2: only stdgates.inc and qelib1.inc can be included"),
        (f"{HEAD3}qubit[9] q;\nctrl(8) @ x q;", "Line 4"),
        (f"{HEAD3}x $0;", "Line 3: qubits of the hardware"),
        (f"{HEAD3}input float t; qubit q;", "Line 3: a"),
        (f"{HEAD2}qreg a[2]; qreg b[3];\ncx a, b;", "Line 4: the registers of 'cx' must be equally long"),
        (f"{HEAD3}qubit[1e400] q;", "Line 3: a number must be at most 1e.300, but is inf"),
        (f"{HEAD3}qubit[2] q;\nctrl(1e400) @ x q[0], q[1];", "Line 4: a number must be at most"),
        (f"{HEAD3}qubit q;\npow(1e400) @ x q;", "Line 4: a number must be at most"),
        (f"{HEAD3}qubit q;\nrx(-1e400) q;", "Line 4: a number must be at most"),
        (f"{HEAD3}qubit q;\nU(0, 1e308, 1e308) q;", "Line 4: a number must be at most"),
        (f"{HEAD3}qubit q;\nrx({'9' * 400}) q;", "Line 4: an expression has no value"),
        (f"{HEAD3}qubit q;\nrx(1e200 * 1e200) q;", "Line 4: a number must be at most"),
        (f"{HEAD3}qubit[2] q;\nctrl(0) @ x q[0];", "Line 4: a modifier needs at least 1 control, but was given 0"),
        (f"{HEAD3}qubit[2] q;\ngphase(0.3) q;", "Line 4: gphase with 0 controls acts on 0 qubits, but was given 1"),
        (f"{HEAD3}qubit[2] q;\nctrl @ gphase(0.3);", "Line 4: gphase with 1 controls acts on 1 qubits"),
        (f"{HEAD3}qubit[2] q;\nctrl(40) @ gphase(0.3) q[0];", "Line 4: gphase must have at most 8 controls"),
        (f"{HEAD3}qubit[2] q;\nctrl(2) @ gphase(0.3) q[0], q[0];", "Line 4: gphase must act on different qubits"),
        (f"{HEAD3}qubit[2] q; gate g a, b {{ ctrl @ gphase(0.3) a, b; }}\ng q[0], q[1];", "Line 4: gphase with 1"),
        (f"{HEAD3}qubit[2] q; gate g a {{ cx a, a; }}\nctrl @ g q[0], q[1];", "Line 4: cx must act on different"),
        (f"{HEAD2}qreg q[2]; creg c[1];\nmeasure q -> c;", "Line 4: 2 qubits need as many bits .* were given 1"),
        (f"{HEAD2}qreg q[2]; creg c[1];\nmeasure q[0] -> c[5];", "Line 4: 'c' has 1 bits, but its bit 5"),
        (f"{HEAD3}qubit[2] q;\nbit c = measure q;", "Line 4: 2 qubits need as many bits"),
        (f"{HEAD2}qreg q[2];\ncreg q[2];", "Line 4: the bits 'q' are declared twice"),
    ],
)
def test_programs_that_cannot_run_are_refused_with_their_line(text, message):
    with pytest.raises(ValueError, match=message):
        read_circuit(text)


def test_circuits_of_qutip_qip_that_cannot_run_are_refused_with_their_gate():
    unknown = QubitCircuit(1)
    unknown.add_gate("WOBBLE", targets=0)
    with pytest.raises(ValueError, match="Gate 0 has the unknown name 'WOBBLE'"):
        read_circuit(unknown)
    conditional = QubitCircuit(1, num_cbits=1)
    conditional.add_gate("X", targets=0, classical_controls=[0])
    with pytest.raises(ValueError, match=r"Gate 0 \(X\) must not depend on a readout"):
        read_circuit(conditional)
    with pytest.raises(ValueError, match="qubits only"):
        read_circuit(QubitCircuit(2, dims=[2, 3]))


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_plain_calls_are_read_as_the_reference_parser_reads_them(data):
    import openqasm3

    from molecular_qubits.network.qasm_text import statements

    atoms = st.sampled_from(["1", "2.5", "pi", "1e-3", "3", "theta", "0.25"])
    terms = st.recursive(
        atoms,
        lambda inner: st.one_of(
            st.tuples(inner, st.sampled_from(["+", "-", "*", "/", "**", "%", " - "]), inner).map("".join),
            inner.map(lambda text: f"-{text}"),
        ),
        max_leaves=5,
    )
    angles = data.draw(st.lists(terms, max_size=3))
    operands = data.draw(st.lists(st.sampled_from(["q[0]", "q", "r[12]", "q [ 3 ]"]), min_size=1, max_size=3))
    call = f"\n\n foo{'(' + ', '.join(angles) + ')' if angles else ''} {' ,'.join(operands)} ; // said"
    ours = list(statements(call))
    theirs = openqasm3.parse(call).statements
    assert ours == theirs
    assert ours[0].span.start_line == theirs[0].span.start_line


def test_comments_and_several_lines_do_not_move_the_line_of_an_error():
    text = (
        f"{HEAD3}/* two\nlines */ qubit[2] q; // h q;\ngate mine a {{ x a;\n  y a; }}\nmine q[0]; h\n  q[1];\nfoo q[0];"
    )
    with pytest.raises(ValueError, match="Line 9: the gate 'foo' is unknown"):
        read_circuit(text)
    assert [step.name for step in read_circuit(text.replace("foo", "z")).instructions] == ["x", "y", "h", "z"]
