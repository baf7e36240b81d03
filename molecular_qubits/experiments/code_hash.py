"""What a cached result of spin dynamics depends on besides its settings."""

from pathlib import Path

from shared.artifacts import hash_code


def code_hash(module: str) -> str:
    """Hash of a module (its file) and of the code of spins, control and network, so that no cache answers for it."""
    package = Path(__file__).resolve().parent.parent
    parts = [path for name in ("spins", "control", "network") for path in sorted((package / name).rglob("*.py"))]
    return hash_code(module, package / "units.py", *parts)
