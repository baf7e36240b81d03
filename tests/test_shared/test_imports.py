import json
import subprocess
import sys

import pytest

HEAVY = ("torch", "jax", "pyscf", "qutip", "numpy", "faiss", "transformers", "matplotlib", "rdkit")

_MEASURE = """
import json, sys, time
start = time.perf_counter()
import {package}
print(json.dumps([time.perf_counter() - start, [name for name in {heavy} if name in sys.modules]]))
"""


@pytest.mark.parametrize("package", ["compression", "molecular_qubits", "shared"])
def test_import_is_light(package):
    code = _MEASURE.format(package=package, heavy=HEAVY)
    runs = [json.loads(subprocess.check_output([sys.executable, "-c", code], text=True)) for _ in range(3)]
    assert runs[0][1] == []
    assert min(seconds for seconds, _ in runs) < 0.2


@pytest.mark.parametrize("package", ["compression", "molecular_qubits"])
def test_every_public_name_resolves(package):
    code = f"import {package} as p\nfor name in p.__all__: getattr(p, name)\nassert len(p.__all__) > 5"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_standard_library_name_is_left_alone():
    """urllib3 tries `from compression import zstd`; it must see an ImportError and go on."""
    code = "try:\n    from compression import zstd\nexcept ImportError:\n    print('absent')\nimport urllib3"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "absent"
