"""What a cached result of spin dynamics depends on besides its settings."""

from functools import cache
from pathlib import Path

from shared.artifacts import hash_code


@cache
def code_hash(module: str) -> str:
    """Hash of a module (its file) and of the code of spins, control and network, so that no cache answers for it.

    That of the first call in a process: rows of a long run are those of the code it began with, files edited or not.
    """
    package = Path(__file__).resolve().parent.parent
    parts = [path for name in ("spins", "control", "network") for path in sorted((package / name).rglob("*.py"))]
    return hash_code(module, package / "units.py", *parts)
