"""The compiler of molecular networks beside those of Qiskit and qutip-qip."""
