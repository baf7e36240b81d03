"""Self-consistent fields, broken-symmetry states, exchange couplings and spin densities."""
