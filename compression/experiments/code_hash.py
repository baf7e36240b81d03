"""What the result of a cached compression depends on besides its settings."""

from pathlib import Path

from shared.artifacts import content_hash, sha256_file


def code_hash() -> str:
    """Hash of the code that a compressed model depends on, so that a changed algorithm is not answered from cache."""
    package = Path(__file__).resolve().parent.parent
    folders = ("clustering", "quantization", "training")
    return content_hash([sha256_file(path) for folder in folders for path in sorted((package / folder).glob("*.py"))])
