"""Sweeps of the two-qubit unit beside a loop over QuTiP, and gradients of pulses: ``python -m benchmarks.dynamics``."""
