"""Notebooks run by pytest use their fast settings; run by hand they compute everything."""

import os

os.environ.setdefault("NOTEBOOK_FAST", "1")
