"""Side-by-side benchmarks against other packages: ``python -m benchmarks.NAME``."""
