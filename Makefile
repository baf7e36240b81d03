# make reproduce · make test · make bench · make docs: each builds .venv from constraints.txt when it is missing or old.

SUITABLE = import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
	command -v $$p >/dev/null && $$p -c '$(SUITABLE)' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
RESULTS ?= results
# One thread for each of the two test processes: more would make them fight for the cores.
ONE_THREAD := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1 NUMBA_NUM_THREADS=1

.PHONY: help reproduce test test-fast lint bench docs clean
help:
	@echo "make reproduce   fetch the offline data, compute every result, write $(RESULTS)/report.html"
	@echo "make test        fetch the offline data, run all tests and notebooks"
	@echo "make test-fast   the tests that take seconds and need no data"
	@echo "make lint        ruff, codespell, import-linter, mypy"
	@echo "make bench       benchmarks side by side with other packages"
	@echo "make docs        API pages in $(RESULTS)/docs"

.venv/installed: constraints.txt pyproject.toml
	@test -n "$(PYTHON)" && $(PYTHON) -c '$(SUITABLE)' || { echo "error: Python 3.11, 3.12 or 3.13 is needed (3.14 has a" \
		"standard-library package named compression); install one and run: make PYTHON=/path/to/python3.13" >&2; exit 1; }
	@echo "==> Installing the pinned environment into .venv with $(PYTHON) (some minutes, once)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev,notebooks,hpc,glue,trainer,network,dispersion,onnx]" || { \
		echo "error: the installation failed; see above, check the network and run make again" >&2; exit 1; }
	@touch $@

reproduce: .venv/installed
	@echo "==> Fetching the offline weights and text (99 MB, once)"
	@$(BIN)/pg-ipq fetch-data
	@echo "==> compression: empty clusters, accuracy against file size"
	@$(BIN)/pg-ipq reproduce --out $(RESULTS)
	@echo "==> molecular_qubits: exchange couplings, spin dynamics"
	@$(BIN)/molecular-qubits reproduce --out $(RESULTS)
	@$(BIN)/python -m shared.report $(RESULTS)
	@echo "==> Done: open $(RESULTS)/report.html"

test: .venv/installed
	@echo "==> Fetching the offline weights and text (120 MB, once)"
	@$(BIN)/pg-ipq fetch-data minilm rt vader boolq
	@echo "==> Running the tests and the notebooks in two processes"
	@$(ONE_THREAD) $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --durations 20

test-fast: .venv/installed
	@$(ONE_THREAD) $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not slow and not data" tests

lint: .venv/installed
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .
	@$(BIN)/codespell compression molecular_qubits shared tests benchmarks notebooks *.md
	@$(BIN)/lint-imports --no-cache >/dev/null || $(BIN)/lint-imports
	@$(BIN)/mypy

bench: .venv/installed
	@$(BIN)/python -m benchmarks.clustering --out $(RESULTS)/benchmarks

docs: .venv/installed
	@$(BIN)/pdoc --docformat numpy --output-directory $(RESULTS)/docs compression molecular_qubits shared
	@echo "==> Done: open $(RESULTS)/docs/index.html"

clean:
	rm -rf .venv $(RESULTS)
