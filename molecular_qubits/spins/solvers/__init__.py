"""Solvers of the Lindblad equation, one per file; each takes a `Problem` and returns states (n, D, D)."""
