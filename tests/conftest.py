"""Settings of all tests.

One thread for each library unless told otherwise: two test processes share the cores, and sums keep their order.
Property-based tests have no deadline: the first example may load a library, and the machine may have other work.
Ctrl-C is heard even where tests run in the background, whose shell has it ignored: some tests send it.
"""

import os
import signal

from hypothesis import settings

# A parallel function of numba sets the threads of OpenMP, and so of xTB and PySCF, for all that follows.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
