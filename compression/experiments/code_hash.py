"""What the result of a cached compression depends on besides its settings."""

from functools import cache
from pathlib import Path

from shared.artifacts import hash_code

PACKAGES = ("torch", "transformers", "numba", "numpy")
"""Packages whose versions a compressed model depends on."""


@cache
def code_hash() -> str:
    """Hash of the code that a compressed model depends on, so that a changed algorithm is not answered from cache.

    That of the first call in a process: runs of a long study are those of the code it began with, files edited or not.
    """
    package = Path(__file__).resolve().parent.parent
    folders = ("clustering", "quantization", "training")
    return hash_code(*(package / folder for folder in folders))
