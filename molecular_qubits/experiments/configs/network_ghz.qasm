OPENQASM 3;
include "stdgates.inc";
// Nine qubits in (|000000000> + |111111111>) / sqrt(2), from the middle outwards
qubit[9] q;
bit[9] c;
h q[4];
cx q[4], q[1];
cx q[4], q[3];
cx q[4], q[5];
cx q[4], q[7];
cx q[1], q[0];
cx q[3], q[6];
cx q[5], q[2];
cx q[7], q[8];
c = measure q;
