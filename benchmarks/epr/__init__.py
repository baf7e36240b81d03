"""Benchmark of EPR spectra."""
