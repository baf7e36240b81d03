"""What the result of a cached compression depends on besides its settings."""

from pathlib import Path

from shared.artifacts import hash_code

PACKAGES = ("torch", "transformers", "numba", "numpy")
"""Packages whose versions a compressed model depends on."""


def code_hash() -> str:
    """Hash of the code that a compressed model depends on, so that a changed algorithm is not answered from cache."""
    package = Path(__file__).resolve().parent.parent
    folders = ("clustering", "quantization", "training")
    return hash_code(*(package / folder for folder in folders))
