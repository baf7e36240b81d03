"""Overhead and scaling of screening tasks over one and two workers: ``python -m benchmarks.screening``."""
