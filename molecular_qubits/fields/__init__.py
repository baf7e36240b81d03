"""Self-consistent fields as such: start densities, solvers, stability, alignments of spins and their populations."""
