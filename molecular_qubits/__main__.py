"""``python -m molecular_qubits``: the same as the command ``molecular-qubits``."""

import sys

from molecular_qubits.cli import main

if __name__ == "__main__":
    sys.exit(main())
