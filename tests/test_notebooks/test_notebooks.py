"""The notebooks themselves are run by nbmake (see pyproject.toml); here: how they are stored."""

import json
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "notebooks").glob("*.ipynb"))


def test_each_package_has_one():
    names = {path.name.split("_")[0] for path in NOTEBOOKS}
    assert {"compression", "molecular"} <= names


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_stored_without_outputs_and_assert_what_they_show(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in code)
    assert sum("assert " in "".join(cell["source"]) for cell in code) >= 2
