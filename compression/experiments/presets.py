"""Names and files of the settings that are part of the package; loads nothing heavy, so a wrong name is soon found."""

from importlib import resources
from pathlib import Path

from shared.config import check_name

RUNS = ("minilm-rt", "minilm-boolq", "mpnet-rt")
"""Runs that need no hub, only packages that ``pg-ipq fetch-data`` gets."""

STUDIES = ("minilm-rt", "minilm-boolq")
"""Tables over seeds."""

REVIEWS = ("minilm-rt-reviews",)
"""Studies with the recipe and the sizes of another one, for what the paper's reviewers asked."""

MORE_SEEDS = ("minilm-rt-seeds",)
"""Further seeds of the released k-means and of PG in the recipe of another study."""


def config_file(name: str) -> Path:
    """Return a configuration file of this package, such as that of ``"full"``, ``"fast"`` or ``"budget"``."""
    return Path(str(resources.files("compression.experiments") / "configs" / f"{name}.yaml"))


def run_file(name: str | None = None) -> Path:
    """Return the settings of a run of `RUNS`, or those for models and tasks named by the user.

    Raises
    ------
    ValueError
        If there is no such run; the nearest name is given.
    """
    return config_file("task" if name is None else check_name(name, RUNS, "Argument `preset`"))


def study_file(name: str) -> Path:
    """Return the settings of a study of `STUDIES`, `REVIEWS` or `MORE_SEEDS`.

    Raises
    ------
    ValueError
        If there is no such study; the nearest name is given.
    """
    return config_file(f"study-{check_name(name, STUDIES + REVIEWS + MORE_SEEDS, 'Argument `name`')}")


def reproduce_file(fast: bool = False) -> Path:
    """Return the settings of the full or of the fast reproduction."""
    return config_file("fast" if fast else "full")
